/*
 * Bitmaps of chunks: bit i is byte i / 8, value 1 << i % 8, as the store gives them and as they travel.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static inline size_t have_bytes(uint32_t n_bits)
{
    return ((size_t)n_bits + 7) / 8;
}

/* All clear; freed with free. NULL: no memory. */
static inline uint8_t *have_new(uint32_t n_bits)
{
    return calloc(1, have_bytes(n_bits) + 1);
}

static inline bool have_get(const uint8_t *bits, uint32_t i)
{
    return bits[i / 8] >> i % 8 & 1;
}

static inline void have_set(uint8_t *bits, uint32_t i)
{
    bits[i / 8] = (uint8_t)(bits[i / 8] | 1 << i % 8);
}
