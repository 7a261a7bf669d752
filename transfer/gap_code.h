/*
 * One gap as bytes to send, and back. For jobs: works on memory and the store, knows no peers.
 */
#pragma once

#include "node/base/buf.h"
#include "node/base/err.h"
#include "store/compress.h"
#include "store/store.h"
#include "transfer/message.h"

/* What a delta is made against: the bytes, or their signature (one that transfer_rsync_check has passed), or neither.
 * Borrowed. */
struct gap_against {
    const uint8_t *range;
    size_t range_bytes;
    const uint8_t *signature;
    size_t signature_bytes;
};

/* The chunk that holds the byte at `offset`, which is inside the object. */
uint32_t transfer_gap_chunk_at(const struct store_recipe *recipe, uint64_t offset);
/* The most that a gap takes as sent, whatever its codec. */
size_t transfer_gap_bound(size_t gap_bytes);
/* Bytes offset to offset + len_bytes of an object, which must be inside it. Not compared with digests: what is made of
 * them is. ERR_NOTFOUND if a chunk is not here. */
int transfer_gap_read(struct store *store, const struct store_recipe *recipe, uint64_t offset, size_t len_bytes,
                      uint8_t *ret_data, struct err *err);
/* Writes at most cap_bytes, and transfer_gap_bound suffices. Chooses the codec: a signature that gives no good delta is
 * not used. */
int transfer_gap_encode(struct store_patch *patch, const struct gap_against *against, const uint8_t *data,
                        size_t len_bytes, uint8_t *ret_frame, size_t cap_bytes, size_t *ret_len,
                        enum message_codec *ret_codec, struct err *err);
/* A peer's bytes: must give exactly len_bytes. ERR_CORRUPT. */
int transfer_gap_decode(enum message_codec codec, const uint8_t *range, size_t range_bytes, const uint8_t *frame,
                        size_t frame_bytes, uint8_t *ret_data, size_t len_bytes, struct err *err);
