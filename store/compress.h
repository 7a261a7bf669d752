/*
 * The door to zstd for pieces of the store: one frame, level 1, at most LIMIT_CHUNK_BYTES of raw bytes each. For deltas
 * too: one frame of at most LIMIT_GAP_BYTES against bytes that both sides have.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"
#include "store/recipe.h"

/* Compresses one stream of chunks, and learns from it: chunks that do not shrink make it skip the following ones, more
 * and more of them, up to 63 in 64. Used by one thread at a time. */
struct store_compress;
int store_compress_new(struct store_compress **ret_press, struct err *err);
void store_compress_free(struct store_compress *press);

/* The compressed form, or NULL if the chunk is better kept raw. It lives until the next call or the free. */
const uint8_t *store_compress_chunk(struct store_compress *press, const void *data, size_t len_bytes, size_t *ret_len);

/* Decompress a single frame that must give exactly raw_bytes (at most LIMIT_CHUNK_BYTES). ERR_CORRUPT otherwise. */
int store_compress_undo(const void *data, size_t len_bytes, void *ret_data, size_t raw_bytes, struct err *err);

/* A frame of ours once more, with more effort (zstd's levels): the new one takes the old one's place if it saves a
 * fiftieth. Its length, which is len_bytes if nothing was gained, or could be. */
size_t store_compress_again(void *frame, size_t len_bytes, size_t raw_bytes, int level);

/* ---- deltas ---- */

/* No frame of `len_bytes` takes more. */
size_t store_compress_bound(size_t len_bytes);
/* One frame of `data` that refers to `prefix` (none: 0 bytes). Writes at most cap_bytes. ERR_LIMIT if that is not
 * enough, ERR_NOMEM. */
struct store_patch;
int store_patch_new(enum store_chunking chunking, struct store_patch **ret_patch, struct err *err);
void store_patch_free(struct store_patch *patch);
int store_patch_make(struct store_patch *patch, const void *prefix, size_t prefix_bytes, const void *data,
                     size_t len_bytes, void *ret_frame, size_t cap_bytes, size_t *ret_len, struct err *err);
/* The other way. *ret_len is what the frame says that it gives, and gives. ERR_CORRUPT if it says nothing, says more
 * than cap_bytes, or is not one whole frame. Takes no more memory than that, whatever window the frame names. */
int store_patch_undo(const void *prefix, size_t prefix_bytes, const void *frame, size_t len_bytes, void *ret_data,
                     size_t cap_bytes, size_t *ret_len, struct err *err);
