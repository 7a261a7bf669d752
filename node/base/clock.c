#include "node/base/clock.h"

#include <string.h>
#include <time.h>

#include "node/base/crypto.h"

static uint64_t read_clock(clockid_t which)
{
    struct timespec now;
    clock_gettime(which, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t system_mono(void *ctx)
{
    (void)ctx;
    return read_clock(CLOCK_MONOTONIC);
}

static uint64_t system_wall(void *ctx)
{
    (void)ctx;
    return read_clock(CLOCK_REALTIME);
}

struct clock clock_system(void)
{
    return (struct clock){.mono_ms = system_mono, .wall_ms = system_wall};
}

static void system_fill(void *ctx, void *ret_data, size_t len_bytes)
{
    (void)ctx;
    crypto_random(ret_data, len_bytes);
}

struct rng rng_system(void)
{
    return (struct rng){.fill = system_fill};
}

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void seeded_fill(void *ctx, void *ret_data, size_t len_bytes)
{
    uint8_t *at = ret_data;
    while (len_bytes > 0) {
        uint64_t word = splitmix64(ctx);
        size_t part = len_bytes < sizeof word ? len_bytes : sizeof word;
        memcpy(at, &word, part);
        at += part;
        len_bytes -= part;
    }
}

struct rng rng_seeded(uint64_t *state)
{
    return (struct rng){.fill = seeded_fill, .ctx = state};
}

uint64_t rng_u64(const struct rng *rng)
{
    uint64_t value;
    rng->fill(rng->ctx, &value, sizeof value);
    return value;
}

uint64_t rng_below(const struct rng *rng, uint64_t bound)
{
    return rng_u64(rng) % bound;
}
