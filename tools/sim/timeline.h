/*
 * What is to happen: by virtual time in microseconds, and by the order of adding where the time is the same.
 *
 * A hierarchical timing wheel (Varghese and Lauck 1987): four rings of slots, each slot of a ring as long as the whole
 * ring below it; the slot that time is in is kept as a heap. What is added stays its owner's, and so does its memory.
 */
#pragma once

#include <stdint.h>

/* Part of whatever is to happen at some time; in one timeline at most once. */
struct timed {
    struct timed *next;
    uint64_t at_us;
    uint64_t sequence;
};

struct timeline;

struct timeline *timeline_new(void);
/* Forgets what is in it. */
void timeline_free(struct timeline *timeline);
/* No earlier than the last one taken; earlier times are taken for that one. */
void timeline_add(struct timeline *timeline, struct timed *timed, uint64_t at_us);
/* The next if it is due by `end_us`, taken out; else NULL. */
struct timed *timeline_take(struct timeline *timeline, uint64_t end_us);
