#include "dht/record.h"

#include <math.h>
#include <string.h>

#include "node/base/scope.h"
#include "node/base/wire.h"

static const uint8_t magic[4] = {'c', 'm', 'r', '1'};
enum { FLAG_TOMBSTONE = 1 };

struct id dht_key(enum dht_kind kind, const void *name, size_t name_bytes)
{
    uint8_t first = (uint8_t)kind;
    struct id key;
    crypto_blake2b(key.b, sizeof key.b, NULL, 0, &first, 1, name, name_bytes);
    return key;
}

struct dht_contact dht_contact_of(const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES], const struct addr *addr)
{
    struct dht_contact contact = {.addr = *addr};
    memcpy(contact.public_key, public_key, sizeof contact.public_key);
    crypto_id_of(public_key, sizeof contact.public_key, &contact.id);
    return contact;
}

static int compare_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

int dht_version_compare(const struct dht_version *a, const struct dht_version *b)
{
    int epochs = compare_u64(a->epoch, b->epoch);
    return epochs ? epochs : compare_u64(a->counter, b->counter);
}

static uint64_t score_bits(double score)
{
    uint64_t bits;
    memcpy(&bits, &score, sizeof bits);
    return bits;
}

static void put_signed_part(const struct dht_record *record, struct buf *out)
{
    buf_add(out, magic, sizeof magic);
    wire_put_u8(out, record->kind);
    wire_put_u8(out, record->tombstone ? FLAG_TOMBSTONE : 0);
    wire_put_id(out, &record->key);
    buf_add(out, record->public_key, sizeof record->public_key);
    wire_put_u64(out, score_bits(record->score));
    wire_put_u64(out, record->version.epoch);
    wire_put_u64(out, record->version.counter);
    wire_put_u64(out, record->expiry_wall_ms);
    wire_put_u64(out, record->size);
    wire_put_short(out, record->data, record->data_len);
}

void dht_record_encode(const struct dht_record *record, struct buf *out)
{
    put_signed_part(record, out);
    buf_add(out, record->signature, sizeof record->signature);
}

static bool is_consistent(const struct dht_record *record)
{
    if (record->kind < DHT_OBJECT || record->kind > DHT_REVOCATION || isnan(record->score))
        return false;
    if (record->kind != DHT_NODE)
        return true;
    struct id own = dht_key(DHT_NODE, record->member.b, sizeof record->member.b);
    return id_equal(&own, &record->key);
}

bool dht_record_decode(const uint8_t *bytes, size_t len_bytes, struct dht_record *ret_record)
{
    struct wire wire;
    wire_init(&wire, bytes, len_bytes);
    uint8_t start[sizeof magic];
    wire_get_copy(&wire, start, sizeof start);

    struct dht_record *record = ret_record;
    record->kind = wire_get_u8(&wire);
    uint8_t flags = wire_get_u8(&wire);
    record->tombstone = flags & FLAG_TOMBSTONE;
    record->key = wire_get_id(&wire);
    wire_get_copy(&wire, record->public_key, sizeof record->public_key);
    uint64_t bits = wire_get_u64(&wire);
    memcpy(&record->score, &bits, sizeof bits);
    record->version.epoch = wire_get_u64(&wire);
    record->version.counter = wire_get_u64(&wire);
    record->expiry_wall_ms = wire_get_u64(&wire);
    record->size = wire_get_u64(&wire);
    const uint8_t *data = wire_get_short(&wire, DHT_DATA_MAX_BYTES, &record->data_len);
    if (data && record->data_len > 0)
        memcpy(record->data, data, record->data_len);
    wire_get_copy(&wire, record->signature, sizeof record->signature);
    if (!wire_done(&wire) || memcmp(start, magic, sizeof magic) != 0 || (flags & ~FLAG_TOMBSTONE))
        return false;
    crypto_id_of(record->public_key, sizeof record->public_key, &record->member);
    return is_consistent(record);
}

bool dht_record_is_signed(const struct dht_record *record, const uint8_t *bytes, size_t len_bytes)
{
    return crypto_signature_check(record->signature, bytes, len_bytes - CRYPTO_SIGNATURE_BYTES, record->public_key);
}

int dht_record_sign(struct dht_record *record, const struct crypto_sign_key *key)
{
    memcpy(record->public_key, key->public_key, sizeof record->public_key);
    crypto_id_of(record->public_key, sizeof record->public_key, &record->member);
    OWNED(buf_release) struct buf part = BUF(LIMIT_DHT_RECORD_BYTES);
    put_signed_part(record, &part);
    if (part.failed)
        return ERR_NOMEM;
    crypto_signature_make(record->signature, part.data, part.len, key);
    return 0;
}

/* Zeros when memory is short, in which case the tie goes to neither. */
static struct id hash_of(const struct dht_record *record)
{
    struct id hash = {{0}};
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    dht_record_encode(record, &bytes);
    if (!bytes.failed)
        crypto_id_of(bytes.data, bytes.len, &hash);
    return hash;
}

int dht_record_compare(const struct dht_record *a, const struct dht_record *b)
{
    int order = dht_version_compare(&a->version, &b->version);
    if (!order)
        order = (int)a->tombstone - (int)b->tombstone;
    if (!order)
        order = compare_u64(a->expiry_wall_ms, b->expiry_wall_ms);
    if (order)
        return order;
    struct id hash_a = hash_of(a);
    struct id hash_b = hash_of(b);
    return id_compare(&hash_a, &hash_b);
}

bool dht_record_is_timely(const struct dht_record *record, uint64_t wall_ms)
{
    uint64_t longest = record->kind == DHT_NODE ? DHT_LEASE_TTL_MS : DHT_EXPIRY_MAX_MS;
    return record->expiry_wall_ms > wall_ms && record->expiry_wall_ms - wall_ms <= longest + DHT_SKEW_MS;
}

/* IEEE 754 bits as a number in the order of the scores: negative ones are kept as magnitudes, so they turn around. */
static uint64_t ordered_bits(double score)
{
    uint64_t bits = score_bits(score == 0 ? 0 : score); /* -0.0 is 0.0 */
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}

struct dht_rank dht_record_rank(const struct dht_record *record, enum dht_order order)
{
    struct dht_rank rank = {.member = record->member};
    if (order == DHT_BY_VERSION) {
        rank.major = ~record->version.epoch;
        rank.minor = ~record->version.counter;
    } else {
        uint64_t bits = ordered_bits(record->score);
        rank.major = order == DHT_BY_SCORE ? ~bits : bits;
    }
    return rank;
}

int dht_rank_compare(const struct dht_rank *a, const struct dht_rank *b)
{
    int order = compare_u64(a->major, b->major);
    if (!order)
        order = compare_u64(a->minor, b->minor);
    return order ? order : id_compare(&a->member, &b->member);
}
