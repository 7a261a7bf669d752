#include "store/chunk.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#define GEAR_SEED 0x636d696747454152u /* "cmigGEAR" */
#define GEAR_WINDOW_BYTES 64u         /* older bytes have been shifted out of the 64-bit hash */
/* Around an average of 2^16: one bit harder before it, one bit easier after it. */
#define CUT_SHIFT_BEFORE_AVG (64 - 17)
#define CUT_SHIFT_AFTER_AVG (64 - 15)
#define PAGE_CUT_SHIFT (64 - 3) /* one page in eight, after the first four */

/* Steele, Lea and Flood 2014. */
static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void store_chunk_init(struct store_chunker *chunker, enum store_chunking chunking)
{
    *chunker = (struct store_chunker){.chunking = chunking};
    uint64_t state = GEAR_SEED;
    for (size_t i = 0; i < 256; i++)
        chunker->gear[i] = splitmix64(&state);
}

static size_t cut_at(struct store_chunker *chunker, size_t length)
{
    chunker->scanned = 0;
    chunker->hash = 0;
    return length;
}

/* Roll over [from, to); the offset just behind the first byte that ends a chunk, or 0. Each step waits for the one
 * before: two bytes in one step, which is the same hash at both, are half as many steps. */
static size_t roll(struct store_chunker *chunker, const uint8_t *chunk, size_t from, size_t to, int shift)
{
    const uint64_t *gear = chunker->gear;
    const uint64_t bound = (uint64_t)1 << shift;
    const uint8_t *at = chunk + from;
    const uint8_t *end = chunk + to;
    uint64_t hash = chunker->hash;
#pragma GCC unroll 4
    for (; end - at >= 2; at += 2) {
        uint64_t first = gear[at[0]];
        uint64_t after_first = (hash << 1) + first;
        hash = (hash << 2) + ((first << 1) + gear[at[1]]);
        if (after_first < bound)
            return (size_t)(at + 1 - chunk);
        if (hash < bound)
            return (size_t)(at + 2 - chunk);
    }
    if (at < end) {
        hash = (hash << 1) + gear[*at];
        if (hash < bound)
            return (size_t)(at + 1 - chunk);
    }
    chunker->hash = hash;
    return 0;
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t scan_archive(struct store_chunker *chunker, const uint8_t *chunk, size_t len)
{
    len = min_size(len, STORE_CHUNK_MAX_BYTES);
    size_t at = chunker->scanned;
    if (at < STORE_CHUNK_MIN_BYTES - GEAR_WINDOW_BYTES)
        at = min_size(len, STORE_CHUNK_MIN_BYTES - GEAR_WINDOW_BYTES);
    for (size_t end = min_size(len, STORE_CHUNK_MIN_BYTES - 1); at < end; at++)
        chunker->hash = (chunker->hash << 1) + chunker->gear[chunk[at]];

    size_t cut = 0;
    size_t end = min_size(len, STORE_CHUNK_AVG_BYTES);
    if (at < end) {
        cut = roll(chunker, chunk, at, end, CUT_SHIFT_BEFORE_AVG);
        at = end;
    }
    if (!cut && at < len) {
        cut = roll(chunker, chunk, at, len, CUT_SHIFT_AFTER_AVG);
        at = len;
    }
    if (!cut && len == STORE_CHUNK_MAX_BYTES)
        cut = len;
    if (cut)
        return cut_at(chunker, cut);
    chunker->scanned = at;
    return 0;
}

/* A hash of a whole page, and whether it is all zeros. Four lanes, so that the multiplications overlap. */
static uint64_t hash_page(const uint8_t *page, bool *ret_zeros)
{
    uint64_t lane[4] = {1, 2, 3, 4};
    uint64_t any = 0;
    for (size_t at = 0; at < STORE_PAGE_BYTES; at += sizeof lane) {
        uint64_t word[4];
        memcpy(word, page + at, sizeof word);
        for (size_t i = 0; i < 4; i++) {
            any |= word[i];
            lane[i] = (lane[i] ^ le64toh(word[i])) * 0x9e3779b97f4a7c15u;
            lane[i] ^= lane[i] >> 32;
        }
    }
    *ret_zeros = any == 0;
    uint64_t hash = 0;
    for (size_t i = 0; i < 4; i++)
        hash = (hash ^ lane[i]) * 0xbf58476d1ce4e5b9u;
    return hash ^ hash >> 31;
}

static size_t scan_pages(struct store_chunker *chunker, const uint8_t *chunk, size_t len)
{
    while (len - chunker->scanned >= STORE_PAGE_BYTES) {
        size_t before = chunker->scanned;
        bool zeros;
        uint64_t hash = hash_page(chunk + before, &zeros);
        bool turns = before > 0 && zeros != chunker->zeros;
        if (turns && before >= STORE_CHUNK_MIN_PAGES * STORE_PAGE_BYTES)
            return cut_at(chunker, before); /* this page is looked at again, as the first of the next chunk */
        size_t after = before + STORE_PAGE_BYTES;
        bool says_so = !zeros && hash >> PAGE_CUT_SHIFT == 0 && after >= STORE_CHUNK_MIN_PAGES * STORE_PAGE_BYTES;
        if (says_so || after == STORE_CHUNK_MAX_PAGES * STORE_PAGE_BYTES)
            return cut_at(chunker, after);
        chunker->scanned = after;
        chunker->zeros = zeros;
    }
    return 0;
}

size_t store_chunk_scan(struct store_chunker *chunker, const uint8_t *chunk, size_t len_bytes)
{
    return chunker->chunking == STORE_CHUNKING_PAGES ? scan_pages(chunker, chunk, len_bytes)
                                                     : scan_archive(chunker, chunk, len_bytes);
}
