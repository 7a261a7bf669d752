/*
 * Where objects are cut. The cuts depend on the bytes alone, never on how they were handed over, and those of one
 * enum store_chunking never change: every node must find the same ones. Specified in docs/store-format.md.
 *
 * Archives: gear hash (Xia et al., FastCDC, USENIX ATC 2016), normalised by one bit around the average, judged by its
 * top bits. Memory images: cuts only between pages, after a page whose hash says so, and where pages of zeros begin or
 * end, so that a run of zeros becomes copies of one chunk.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/recipe.h"

#define STORE_CHUNK_MIN_BYTES (16u << 10)
#define STORE_CHUNK_AVG_BYTES (64u << 10)
#define STORE_CHUNK_MAX_BYTES (256u << 10)
#define STORE_PAGE_BYTES 4096u
#define STORE_CHUNK_MIN_PAGES 4u
#define STORE_CHUNK_MAX_PAGES 64u

struct store_chunker {
    enum store_chunking chunking;
    size_t scanned; /* bytes of the present chunk that have been looked at */
    uint64_t hash;
    bool zeros; /* was the last page looked at all zero? */
    uint64_t gear[256];
};

void store_chunk_init(struct store_chunker *chunker, enum store_chunking chunking);

/* `chunk` is everything since the last cut, len_bytes of it so far (any amount beyond STORE_CHUNK_MAX_BYTES is not
 * looked at). Returns the length of the chunk if its end is among them, and forgets it; 0 if more bytes are needed.
 * Called again with the same bytes and more behind them, it goes on where it stopped. At the end of the object the rest
 * is the last chunk. */
size_t store_chunk_scan(struct store_chunker *chunker, const uint8_t *chunk, size_t len_bytes);
