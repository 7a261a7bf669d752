/*
 * Ownership by scope: a local that owns is released when it leaves its block, unless it was taken from it first.
 *
 * OWNED(fn) goes in front of a declaration; fn takes a pointer to the variable. STEAL hands a pointer over and
 * leaves NULL behind, which every release function here accepts.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define OWNED(fn) __attribute__((cleanup(fn)))

#define STEAL(pointer)                                                                                                 \
    __extension__({                                                                                                    \
        __typeof__(pointer) steal_value_ = (pointer);                                                                  \
        (pointer) = NULL;                                                                                              \
        steal_value_;                                                                                                  \
    })

/* Define `static inline void name(type **p)`, which calls `free_fn(*p)` unless it is NULL. */
#define OWNED_DEFINE(name, type, free_fn)                                                                              \
    __attribute__((unused)) static inline void name(type **pointer)                                                    \
    {                                                                                                                  \
        if (*pointer)                                                                                                  \
            free_fn(*pointer);                                                                                         \
    }

/* For memory from malloc: `OWNED(owned_free) char *text = ...`. */
static inline void owned_free(void *pointer)
{
    free(*(void **)pointer);
}

/* For descriptors; -1 owns nothing. */
static inline void owned_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void owned_file(FILE **file)
{
    if (*file)
        fclose(*file);
}

/* Take the descriptor out of its owner, which then holds -1. */
static inline int steal_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}
