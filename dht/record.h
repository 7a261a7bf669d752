/*
 * Member records: their bytes, their signature, and the two orders over them.
 *
 *   "cmr1"  kind u8  flags u8  key 32  public key 32  score f64  epoch u64  counter u64  expiry u64  size u64
 *   data (u16 length, at most 512)  signature 64
 *
 * Big-endian; flags: bit 0 tombstone, the rest zero; the score as IEEE 754 bits. The signature is Ed25519 over all
 * that stands before it; "cmr1" keeps it from being taken for a signature of something else.
 */
#pragma once

#include "dht/dht.h"

#define DHT_RECORD_FIXED_BYTES 176
_Static_assert(DHT_RECORD_FIXED_BYTES + DHT_DATA_MAX_BYTES == LIMIT_DHT_RECORD_BYTES, "the limit follows the format");

/* False for anything but exactly one well-formed record; the signature is not looked at. A lease (DHT_NODE) is well
 * formed only under its own member's key. */
bool dht_record_decode(const uint8_t *bytes, size_t len_bytes, struct dht_record *ret_record);
void dht_record_encode(const struct dht_record *record, struct buf *out);

/* Is this, which decoded to `record`, signed by the record's member? */
bool dht_record_is_signed(const struct dht_record *record, const uint8_t *bytes, size_t len_bytes);
/* Fill in member, public key and signature. ERR_NOMEM. */
int dht_record_sign(struct dht_record *record, const struct crypto_sign_key *key);

/* The join: of two records of one member under one key the greater is kept, whatever the order of arrival. Version,
 * then tombstone, then expiry (so that a record signed anew replaces itself), then the hash of all bytes.
 * 0 only for identical records. */
int dht_record_compare(const struct dht_record *a, const struct dht_record *b);

/* Not lapsed, and not good for longer than its kind may be. */
bool dht_record_is_timely(const struct dht_record *record, uint64_t wall_ms);

/* The place of a record in the order that a reader asks for: ascending. It is the cursor of a ranged read too. */
struct dht_rank {
    uint64_t major, minor;
    struct id member;
};

struct dht_rank dht_record_rank(const struct dht_record *record, enum dht_order order);
int dht_rank_compare(const struct dht_rank *a, const struct dht_rank *b);
