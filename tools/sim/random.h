/*
 * Randomness of the simulation: streams of splitmix64 (Steele, Lea and Flood 2014), each from the one seed, a purpose
 * and a number, so that what one node draws never depends on what another does; and lognormal times in integers.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* What a stream is for. */
enum random_purpose {
    RANDOM_IDENTITY, /* keys and places of nodes */
    RANDOM_NODE,     /* what a node's own dht draws */
    RANDOM_TABLES,   /* ideal tables */
    RANDOM_NET,      /* jitter, loss, duplicates */
    RANDOM_LINK,     /* which links and nodes are bad */
    RANDOM_CHURN,    /* session times, who dies */
    RANDOM_WORK,     /* keys, publishers, askers */
    RANDOM_LIAR,
};

uint64_t random_mix(uint64_t value);
/* The first state of a stream; also a hash of its three arguments. */
uint64_t random_stream(uint64_t seed, enum random_purpose purpose, uint64_t number);

uint64_t random_next(uint64_t *state);
/* 0 <= result < bound, bound > 0 and below 2^32. */
uint64_t random_below(uint64_t *state, uint64_t bound);
/* True in so many cases of a million. */
int random_chance(uint64_t *state, uint32_t millionths);

/* A lognormal distribution by its quantiles: 2^16 times the factor by which a draw differs from the median. */
#define RANDOM_QUANTILES 2048
struct random_lognormal {
    uint64_t factor_16[RANDOM_QUANTILES];
};

/* `sigma` is of the logarithm. */
void random_lognormal_init(struct random_lognormal *law, double sigma);
uint64_t random_lognormal_draw(const struct random_lognormal *law, uint64_t median, uint64_t *state);

/* Members of a set of `count` picked with probability proportional to 1 / (rank + 1): Zipf with exponent 1. */
struct random_zipf {
    uint64_t *cumulated; /* owned */
    size_t count;
};

void random_zipf_init(struct random_zipf *zipf, size_t count);
void random_zipf_release(struct random_zipf *zipf);
size_t random_zipf_draw(const struct random_zipf *zipf, uint64_t *state);
