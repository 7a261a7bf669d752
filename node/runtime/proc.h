/*
 * Running a program to its end: arguments as they are (never a shell), nothing inherited but what is said here, what it
 * writes captured, killed with its whole process group when its time is up.
 */
#pragma once

#include <stdint.h>

#include "node/base/buf.h"
#include "node/base/err.h"

struct runtime_proc {
    const char *const *argv; /* ends with NULL; argv[0] is looked up on PATH unless it has a '/' */
    const char *path_first;  /* a directory in front of its PATH, or NULL */
    int keep_fd;             /* its descriptor 3, or -1 */
    uint64_t timeout_ms;
    struct buf *out;      /* its standard output is appended; what passes the maximum is dropped; NULL: all is */
    struct buf *messages; /* the same of its standard error */
};

/* 0 and *ret_exit_code: 0 to 255, or 128 + the signal that ended it. Its environment is PATH alone, its standard input
 * /dev/null, its signals are as after boot. A grandchild that keeps its output open is not waited for.
 * ERR_UNSUPPORTED if there is no such program; ERR_TIMEOUT after which nothing of its process group is left. */
int runtime_proc_run(const struct runtime_proc *proc, int *ret_exit_code, struct err *err);
