/*
 * Bitmaps of chunks: bit i is byte i / 8, value 1 << i % 8, as the store gives them and as they travel.
 */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline size_t have_bytes(uint32_t n_bits)
{
    return ((size_t)n_bits + 7) / 8;
}

/* All clear, and whole words of it; freed with free. NULL: no memory. */
static inline uint8_t *have_new(uint32_t n_bits)
{
    return calloc((size_t)n_bits / 64 + 1, 8);
}

static inline bool have_get(const uint8_t *bits, uint32_t i)
{
    return bits[i / 8] >> i % 8 & 1;
}

static inline void have_set(uint8_t *bits, uint32_t i)
{
    bits[i / 8] = (uint8_t)(bits[i / 8] | 1 << i % 8);
}

static inline void have_clear(uint8_t *bits, uint32_t i)
{
    bits[i / 8] = (uint8_t)(bits[i / 8] & ~(1 << i % 8));
}

static inline uint64_t have_word(const uint8_t *bits, uint32_t word)
{
    uint64_t value;
    memcpy(&value, bits + (size_t)word * 8, sizeof value);
    return le64toh(value);
}

/* The first bit from `from` on, before `end`, that is clear; `end` if there is none. */
static inline uint32_t have_next_clear(const uint8_t *bits, uint32_t from, uint32_t end)
{
    while (from < end && have_get(bits, from))
        from += from % 8 == 0 && bits[from / 8] == UINT8_MAX ? 8 : 1;
    return from < end ? from : end;
}

/* The first bit from `from` on, before `end`, that is set in `a` and in `b` (NULL: has all); `end` if there is none.
 * Both are have_new's. */
static inline uint32_t have_next(const uint8_t *a, const uint8_t *b, uint32_t from, uint32_t end)
{
    uint64_t mask = UINT64_MAX << from % 64;
    for (uint32_t word = from / 64; from < end && (uint64_t)word * 64 < end; word++) {
        uint64_t both = have_word(a, word) & mask & (b ? have_word(b, word) : UINT64_MAX);
        uint32_t i = both ? word * 64 + (uint32_t)__builtin_ctzll(both) : end;
        if (both)
            return i < end ? i : end;
        mask = UINT64_MAX;
    }
    return end;
}
