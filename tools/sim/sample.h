/*
 * Numbers that were measured: their mean and percentiles.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct sample {
    uint64_t *values; /* owned */
    size_t count;
    size_t cap;
};

void sample_release(struct sample *sample);
void sample_add(struct sample *sample, uint64_t value);
/* 0 of an empty one. */
double sample_mean(const struct sample *sample);
/* The least value that so many of 1,000 do not pass; sorts. 0 of an empty one. */
uint64_t sample_permille(struct sample *sample, unsigned permille);
/* How many do not pass the bound; sorts. */
size_t sample_up_to(struct sample *sample, uint64_t bound);
/* How unequal: 0 when all are the same, towards 1 when one has all (Gini); sorts. */
double sample_gini(struct sample *sample);
