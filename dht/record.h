/*
 * Member records: their bytes, their signature, and the orders over them.
 *
 *   "cmr2"  key 32  kind u8  flags u8  public key 32  score f64  epoch u64  counter u64  expiry u64  size u64
 *   place (3 x i16, u16)  address 19  data (u16 length, at most 512)  signature 64
 *
 * Big-endian; flags: bit 0 tombstone, bit 1 META, the rest zero; the score as IEEE 754 bits; an address that is not
 * known is all zero. The signature is Ed25519 over all that stands before it; "cmr2" keeps it from being taken for a
 * signature of something else. In answers about one key a record is sent brief: without magic and key.
 */
#pragma once

#include "dht/dht.h"

#define DHT_RECORD_FIXED_BYTES 203
#define DHT_RECORD_BRIEF_BYTES 36 /* less, when sent brief */
_Static_assert(DHT_RECORD_FIXED_BYTES + DHT_DATA_MAX_BYTES == LIMIT_DHT_RECORD_BYTES, "the limit follows the format");

/* Bytes of one encoded record, borrowed. */
struct dht_span {
    const uint8_t *at;
    size_t len;
};

/* False for anything but exactly one well-formed record; the signature is not looked at. A lease (DHT_NODE) is well
 * formed only under its own member's key; one by hand needs a name, and META its 16 bytes. */
bool dht_record_decode(const uint8_t *bytes, size_t len_bytes, struct dht_record *ret_record);
/* What decoding demands of its fields: they fit together, and the key is one for its kind. */
bool dht_record_is_consistent(const struct dht_record *record);
void dht_record_encode(const struct dht_record *record, struct buf *out);

/* The brief form of an encoded record, pointing into it; and back, of a record of `key` into ret_bytes: its length, or
 * 0 for one that is too long. */
struct dht_span dht_record_brief(const uint8_t *bytes, size_t len_bytes);
size_t dht_record_unbrief(const struct id *key, const struct dht_span *brief,
                          uint8_t ret_bytes[LIMIT_DHT_RECORD_BYTES]);

/* What stands in the brief form of a well-formed record, read in place. */
struct dht_version dht_brief_version(const uint8_t *brief);
uint64_t dht_brief_expiry_ms(const uint8_t *brief);
bool dht_brief_is_tombstone(const uint8_t *brief);
bool dht_brief_is_meta(const uint8_t *brief);
const uint8_t *dht_brief_public_key(const uint8_t *brief);
struct dht_rank dht_brief_rank(const uint8_t *brief, const struct id *member, enum dht_order order,
                               const struct dht_place *own);
uint64_t dht_brief_cleared_ms(const uint8_t *brief, uint64_t wall_ms); /* dht_record_cleared_ms */

/* Does an encoded record say that this key wrote it? */
bool dht_record_is_by(const struct dht_span *bytes, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES]);

/* Is this, which decoded to `record`, signed by the record's writer? */
bool dht_record_is_signed(const struct dht_record *record, const uint8_t *bytes, size_t len_bytes,
                          const struct dht_signatures *signatures);
/* Fill in member, public key and signature. ERR_NOMEM. */
int dht_record_sign(struct dht_record *record, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES],
                    const struct dht_signatures *signatures);

/* Where a member of `key` is kept when the holders of the key itself are full: BLAKE2b-256 of the key, the depth (u8)
 * and the first 4 x depth bits of the member's id (whole bytes, the rest of the last one zero). Depth 1 to
 * DHT_SHARD_DEPTH_MAX; the key is always the set's own. Such a record is signed under the shard's key. */
#define DHT_SHARD_DEPTH_MAX 4
#define DHT_SHARDS 16 /* of each shard of the depth before */
struct id dht_shard_key(const struct id *key, unsigned depth, const struct id *member);
/* The first 4 x (depth + 1) bits of the members in the i-th shard below the one of this prefix. */
struct id dht_shard_prefix(const struct id *prefix, unsigned depth, unsigned i);

/* The join: of two records of one member under one key the greater is kept, whatever the order of arrival. Version,
 * then tombstone, then expiry (so that a record signed anew replaces itself), then the hash of all bytes.
 * 0 only for identical records. */
int dht_record_compare(const struct dht_record *a, const struct dht_record *b);

/* Of META: members whose epoch is not beyond this have been cleared or have expired. */
uint64_t dht_record_cleared_ms(const struct dht_record *meta, uint64_t wall_ms);

/* Not lapsed, not good for longer than its kind may be, and by hand not stamped in the future. */
bool dht_record_is_timely(const struct dht_record *record, uint64_t wall_ms);
