/*
 * The door to librsync: deltas of a gap for a provider that has not got the basis, from a signature that it was sent.
 *
 * librsync aborts when an allocation fails and trusts what it reads, so nothing of a peer's reaches it unchecked:
 * transfer_rsync_check looks at a signature first, and deltas are applied here without it.
 *
 * Formats (librsync 2.3, numbers big-endian). Signature: magic, block length, strong length (u32 each), then for every
 * block its weak sum (u32, RabinKarp) and the first bytes of its BLAKE2b-256. Delta: magic, then LITERAL and COPY
 * commands, and END; see transfer_rsync_patch.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "node/base/buf.h"
#include "node/base/err.h"

#define RSYNC_HEAD_BYTES 12u
#define RSYNC_WEAK_BYTES 4u
/* Four bytes and the weak sum: in a gap of 512 KiB against 1,024 blocks a wrong block is taken for a right one with
 * p = 2^19 x 2^10 / 2^64, and then the chunk's SHA-256 does not fit and the gap comes plain. */
#define RSYNC_STRONG_BYTES 4u
/* Of our own signatures: a change costs about half a block at each end, a block RSYNC_WEAK_BYTES + RSYNC_STRONG_BYTES.
 * Best of 256 to 2,048 for archives and for page images (docs/decisions/014-gaps.md). */
#define RSYNC_BLOCK_BYTES 1024u
#define RSYNC_BLOCK_MIN_BYTES 256u
#define RSYNC_BLOCK_MAX_BYTES 4096u /* one more strong sum for every byte that an attacker sends costs so much */

/* How long the signature of so many bytes is. */
size_t transfer_rsync_signature_bytes(size_t range_bytes, uint32_t block_bytes, uint32_t strong_bytes);

/* Append the signature of `range`. ERR_NOMEM, ERR_LIMIT. */
int transfer_rsync_sign(const void *range, size_t range_bytes, struct buf *ret_signature, struct err *err);
/* Is it the signature of some range of so many bytes, and one that is cheap to search in? ERR_INVALID if not. */
int transfer_rsync_check(const uint8_t *signature, size_t signature_bytes, size_t range_bytes, struct err *err);
/* Append the delta of `data` against a signature that was checked. ERR_LIMIT when it is not worth it: more than half of
 * what was looked at so far is literal, or it takes too much time. */
int transfer_rsync_delta(const uint8_t *signature, size_t signature_bytes, const void *data, size_t len_bytes,
                         struct buf *ret_delta, struct err *err);
/* Apply a peer's delta to the range; it must give exactly len_bytes. ERR_CORRUPT, and then ret_data holds anything. */
int transfer_rsync_patch(const uint8_t *range, size_t range_bytes, const uint8_t *delta, size_t delta_bytes,
                         uint8_t *ret_data, size_t len_bytes, struct err *err);
