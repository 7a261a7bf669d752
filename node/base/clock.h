/*
 * Time and randomness as things that are passed in, so that a simulator or a test decides both.
 *
 * Monotonic time measures; wall time is only shown to people, written in certificates and compared with slack.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct clock {
    uint64_t (*mono_ms)(void *ctx); /* since an arbitrary start, never goes back */
    uint64_t (*wall_ms)(void *ctx); /* since 1970-01-01 UTC */
    void *ctx;                      /* borrowed */
};

/* The machine's own clocks (CLOCK_MONOTONIC, CLOCK_REALTIME). */
struct clock clock_system(void);

static inline uint64_t clock_mono_ms(const struct clock *clock)
{
    return clock->mono_ms(clock->ctx);
}

static inline uint64_t clock_wall_ms(const struct clock *clock)
{
    return clock->wall_ms(clock->ctx);
}

struct rng {
    void (*fill)(void *ctx, void *ret_data, size_t len_bytes);
    void *ctx; /* borrowed */
};

/* The operating system's randomness. */
struct rng rng_system(void);

/* A seeded generator for tests and simulators (splitmix64, Steele, Lea and Flood 2014): the same seed gives the same
 * bytes everywhere. Not for keys. `state` is the caller's and lives as long as the rng. */
struct rng rng_seeded(uint64_t *state);

uint64_t rng_u64(const struct rng *rng);
/* 0 <= result < bound, bound > 0, without bias worth naming for bounds far below 2^64. */
uint64_t rng_below(const struct rng *rng, uint64_t bound);
