/*
 * Which of a holder's numbered changes have been heard, out of order and with repeats as datagrams come.
 *
 * The upper half of a number is of one life of the holder's count, so that a count that began anew is noticed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dht_numbers {
    uint64_t next;   /* the first that has not been heard; 0: none is known yet */
    uint64_t end;    /* behind the last that is known to exist */
    uint64_t beyond; /* bit i: next + i has been heard */
    uint64_t gap_ms; /* when next < end began */
};

/* These have been heard. False if some before them are lost: they lie too far back to come yet, or are of another life.
 * Counting then goes on behind these. count 0: those before `sequence` will not come any more. */
bool dht_numbers_hear(struct dht_numbers *numbers, uint64_t sequence, size_t count, uint64_t now_ms);
/* Those before `end` exist. False if the count began anew, so that nobody knows what was lost. */
bool dht_numbers_exist(struct dht_numbers *numbers, uint64_t end, uint64_t now_ms);
/* Some are known to exist and have not been heard, since gap_ms. */
bool dht_numbers_missing(const struct dht_numbers *numbers);
/* They will not come: count on behind all that are known. */
void dht_numbers_give_up(struct dht_numbers *numbers);
