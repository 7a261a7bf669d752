/*
 * The door to zstd for pieces of the store: one frame, level 1, at most LIMIT_CHUNK_BYTES of raw bytes each.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"

/* Compresses one stream of chunks, and learns from it: chunks that do not shrink make it skip the following ones, more
 * and more of them, up to 63 in 64. Used by one thread at a time. */
struct store_compress;
int store_compress_new(struct store_compress **ret_press, struct err *err);
void store_compress_free(struct store_compress *press);

/* The compressed form, or NULL if the chunk is better kept raw. It lives until the next call or the free. */
const uint8_t *store_compress_chunk(struct store_compress *press, const void *data, size_t len_bytes, size_t *ret_len);

/* Decompress a single frame that must give exactly raw_bytes (at most LIMIT_CHUNK_BYTES). ERR_CORRUPT otherwise. */
int store_compress_undo(const void *data, size_t len_bytes, void *ret_data, size_t raw_bytes, struct err *err);
