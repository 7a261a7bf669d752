#include "dht/record.h"

#include <math.h>
#include <string.h>

#include "dht/place.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

static const uint8_t magic[4] = {'c', 'm', 'r', '2'};
enum { FLAG_TOMBSTONE = 1, FLAG_META = 2 };
#define META_BYTES 16
#define KIND_AT (ID_BYTES - 1) /* in a key */

struct id dht_key(enum dht_kind kind, const void *name, size_t name_bytes)
{
    uint8_t first = (uint8_t)kind;
    struct id key;
    if (kind == DHT_NODE)
        memcpy(key.b, name, sizeof key.b);
    else
        crypto_blake2b(key.b, sizeof key.b, NULL, 0, &first, 1, name, name_bytes);
    key.b[KIND_AT] = (uint8_t)kind;
    return key;
}

struct id dht_lease_key(const struct id *node)
{
    return dht_key(DHT_NODE, node->b, sizeof node->b);
}

struct id dht_shard_key(const struct id *key, unsigned depth, const struct id *member)
{
    uint8_t prefix[1 + (DHT_SHARD_DEPTH_MAX + 1) / 2];
    size_t prefix_bytes = (depth + 1) / 2;
    prefix[0] = (uint8_t)depth;
    memcpy(prefix + 1, member->b, prefix_bytes);
    if (depth % 2 == 1)
        prefix[prefix_bytes] &= 0xf0;
    struct id shard;
    crypto_blake2b(shard.b, sizeof shard.b, NULL, 0, key->b, sizeof key->b, prefix, 1 + prefix_bytes);
    shard.b[KIND_AT] = key->b[KIND_AT];
    return shard;
}

struct id dht_shard_prefix(const struct id *prefix, unsigned depth, unsigned i)
{
    struct id longer = *prefix;
    longer.b[depth / 2] |= (uint8_t)(depth % 2 == 0 ? i << 4 : i);
    return longer;
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

/* An address, or 19 zeros. */
static void put_addr(const struct addr *addr, struct buf *out)
{
    static const uint8_t none[ADDR_WIRE_BYTES];
    if (addr->family)
        addr_put(out, addr);
    else
        buf_add(out, none, sizeof none);
}

static struct addr get_addr(struct wire *wire)
{
    static const uint8_t none[ADDR_WIRE_BYTES];
    const uint8_t *bytes = wire_get_bytes(wire, ADDR_WIRE_BYTES);
    if (!bytes || memcmp(bytes, none, sizeof none) == 0)
        return (struct addr){0};
    struct wire own;
    wire_init(&own, bytes, ADDR_WIRE_BYTES);
    struct addr addr = addr_get(&own);
    wire->failed |= own.failed;
    return addr;
}

static void put_signed_part(const struct dht_record *record, struct buf *out)
{
    buf_add(out, magic, sizeof magic);
    wire_put_id(out, &record->key);
    wire_put_u8(out, record->kind);
    wire_put_u8(out, (uint8_t)((record->tombstone ? FLAG_TOMBSTONE : 0) | (record->meta ? FLAG_META : 0)));
    buf_add(out, record->public_key, sizeof record->public_key);
    wire_put_u64(out, score_bits(record->score));
    wire_put_u64(out, record->version.epoch);
    wire_put_u64(out, record->version.counter);
    wire_put_u64(out, record->expiry_wall_ms);
    wire_put_u64(out, record->size);
    dht_place_put(out, &record->place);
    put_addr(&record->addr, out);
    wire_put_short(out, record->data, record->data_len);
}

void dht_record_encode(const struct dht_record *record, struct buf *out)
{
    put_signed_part(record, out);
    buf_add(out, record->signature, sizeof record->signature);
}

/* Who the record speaks of. */
static struct id member_of(const struct dht_record *record)
{
    struct id member = {{0}};
    if (!dht_is_by_hand(record->kind))
        crypto_id_of(record->public_key, sizeof record->public_key, &member);
    else if (!record->meta)
        crypto_id_of(record->data, record->data_len, &member);
    return member;
}

/* Nobody can clear more than what was written before. */
static bool is_good_meta(const struct dht_record *record)
{
    return record->data_len == META_BYTES && wire_load_u64(record->data) <= record->version.epoch;
}

/* All revocations are of one version: of two of them the one that is good for longer stays. */
static bool is_good_revocation(const struct dht_record *record)
{
    return !record->meta && !record->tombstone && record->data_len > 0 && record->version.epoch == 0 &&
           record->version.counter == 1;
}

bool dht_record_is_consistent(const struct dht_record *record)
{
    if (record->kind < DHT_OBJECT || record->kind >= DHT_KIND_COUNT || record->key.b[KIND_AT] != record->kind ||
        isnan(record->score))
        return false;
    if (record->kind == DHT_REVOCATION)
        return is_good_revocation(record);
    if (dht_is_by_hand(record->kind))
        return record->meta ? is_good_meta(record) : record->data_len > 0;
    struct id lease_key = dht_lease_key(&record->member);
    return !record->meta && (record->kind != DHT_NODE || id_equal(&record->key, &lease_key));
}

bool dht_record_decode(const uint8_t *bytes, size_t len_bytes, struct dht_record *ret_record)
{
    struct wire wire;
    wire_init(&wire, bytes, len_bytes);
    uint8_t start[sizeof magic];
    wire_get_copy(&wire, start, sizeof start);

    struct dht_record *record = ret_record;
    record->key = wire_get_id(&wire);
    record->kind = wire_get_u8(&wire);
    uint8_t flags = wire_get_u8(&wire);
    record->tombstone = flags & FLAG_TOMBSTONE;
    record->meta = flags & FLAG_META;
    wire_get_copy(&wire, record->public_key, sizeof record->public_key);
    uint64_t bits = wire_get_u64(&wire);
    memcpy(&record->score, &bits, sizeof bits);
    record->version.epoch = wire_get_u64(&wire);
    record->version.counter = wire_get_u64(&wire);
    record->expiry_wall_ms = wire_get_u64(&wire);
    record->size = wire_get_u64(&wire);
    record->place = dht_place_get(&wire);
    record->addr = get_addr(&wire);
    const uint8_t *data = wire_get_short(&wire, DHT_DATA_MAX_BYTES, &record->data_len);
    if (data && record->data_len > 0)
        memcpy(record->data, data, record->data_len);
    wire_get_copy(&wire, record->signature, sizeof record->signature);
    if (!wire_done(&wire) || memcmp(start, magic, sizeof magic) != 0 || (flags & ~(FLAG_TOMBSTONE | FLAG_META)))
        return false;
    record->member = member_of(record);
    return dht_record_is_consistent(record);
}

struct dht_span dht_record_brief(const uint8_t *bytes, size_t len_bytes)
{
    return (struct dht_span){bytes + DHT_RECORD_BRIEF_BYTES, len_bytes - DHT_RECORD_BRIEF_BYTES};
}

size_t dht_record_unbrief(const struct id *key, const struct dht_span *brief, uint8_t ret_bytes[LIMIT_DHT_RECORD_BYTES])
{
    if (brief->len > LIMIT_DHT_RECORD_BYTES - DHT_RECORD_BRIEF_BYTES)
        return 0;
    memcpy(ret_bytes, magic, sizeof magic);
    memcpy(ret_bytes + sizeof magic, key->b, sizeof key->b);
    memcpy(ret_bytes + DHT_RECORD_BRIEF_BYTES, brief->at, brief->len);
    return DHT_RECORD_BRIEF_BYTES + brief->len;
}

static void sign_ed25519(void *ctx, const void *data, size_t len_bytes, uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES])
{
    crypto_signature_make(ret_signature, data, len_bytes, ctx);
}

static bool check_ed25519(void *ctx, const uint8_t signature[CRYPTO_SIGNATURE_BYTES], const void *data,
                          size_t len_bytes, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES])
{
    (void)ctx;
    return crypto_signature_check(signature, data, len_bytes, public_key);
}

struct dht_signatures dht_signatures_ed25519(const struct crypto_sign_key *key)
{
    return (struct dht_signatures){.sign = sign_ed25519, .check = check_ed25519, .ctx = (void *)(uintptr_t)key};
}

bool dht_record_is_signed(const struct dht_record *record, const uint8_t *bytes, size_t len_bytes,
                          const struct dht_signatures *signatures)
{
    return signatures->check(signatures->ctx, record->signature, bytes, len_bytes - CRYPTO_SIGNATURE_BYTES,
                             record->public_key);
}

int dht_record_sign(struct dht_record *record, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES],
                    const struct dht_signatures *signatures)
{
    memcpy(record->public_key, public_key, sizeof record->public_key);
    record->member = member_of(record);
    OWNED(buf_release) struct buf part = BUF(LIMIT_DHT_RECORD_BYTES);
    put_signed_part(record, &part);
    if (part.failed)
        return ERR_NOMEM;
    signatures->sign(signatures->ctx, part.data, part.len, record->signature);
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
    if (dht_is_by_hand(record->kind) && record->version.epoch > wall_ms + DHT_SKEW_MS)
        return false;
    return record->expiry_wall_ms > wall_ms && record->expiry_wall_ms - wall_ms <= longest + DHT_SKEW_MS;
}

/* IEEE 754 bits as a number in the order of the scores: negative ones are kept as magnitudes, so they turn around. */
static uint64_t ordered_bits(double score)
{
    uint64_t bits = score_bits(score == 0 ? 0 : score); /* -0.0 is 0.0 */
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}

static struct dht_rank rank_of(enum dht_order order, const struct id *member, double score,
                               const struct dht_version *version, const struct dht_place *place,
                               const struct dht_place *own)
{
    struct dht_rank rank = {.member = *member};
    switch (order) {
    case DHT_BY_SCORE:
        rank.major = ~ordered_bits(score);
        break;
    case DHT_BY_SCORE_LOW:
        rank.major = ordered_bits(score);
        break;
    case DHT_BY_VERSION:
        rank.major = ~version->epoch;
        rank.minor = ~version->counter;
        break;
    case DHT_BY_DISTANCE:
        rank.major = dht_place_distance(place, own);
        break;
    default: /* by member alone */
        break;
    }
    return rank;
}

struct dht_rank dht_record_rank(const struct dht_record *record, enum dht_order order, const struct dht_place *own)
{
    return rank_of(order, &record->member, record->score, &record->version, &record->place, own);
}

int dht_rank_compare(const struct dht_rank *a, const struct dht_rank *b)
{
    int order = compare_u64(a->major, b->major);
    if (!order)
        order = compare_u64(a->minor, b->minor);
    return order ? order : id_compare(&a->member, &b->member);
}

/* ---- the brief form, in place ---- */

enum {
    BRIEF_FLAGS = 1,
    BRIEF_PUBLIC_KEY = 2,
    BRIEF_SCORE = 34,
    BRIEF_EPOCH = 42,
    BRIEF_COUNTER = 50,
    BRIEF_EXPIRY = 58,
    BRIEF_PLACE = 74,
    BRIEF_DATA = 103,
};
_Static_assert(DHT_RECORD_BRIEF_BYTES + BRIEF_DATA + CRYPTO_SIGNATURE_BYTES == DHT_RECORD_FIXED_BYTES,
               "the offsets follow the format");

struct dht_version dht_brief_version(const uint8_t *brief)
{
    return (struct dht_version){wire_load_u64(brief + BRIEF_EPOCH), wire_load_u64(brief + BRIEF_COUNTER)};
}

uint64_t dht_brief_expiry_ms(const uint8_t *brief)
{
    return wire_load_u64(brief + BRIEF_EXPIRY);
}

bool dht_brief_is_tombstone(const uint8_t *brief)
{
    return brief[BRIEF_FLAGS] & FLAG_TOMBSTONE;
}

bool dht_brief_is_meta(const uint8_t *brief)
{
    return brief[BRIEF_FLAGS] & FLAG_META;
}

bool dht_record_is_by(const struct dht_span *bytes, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES])
{
    return bytes->len >= DHT_RECORD_FIXED_BYTES &&
           memcmp(bytes->at + DHT_RECORD_BRIEF_BYTES + BRIEF_PUBLIC_KEY, public_key, CRYPTO_SIGN_PUBLIC_BYTES) == 0;
}

const uint8_t *dht_brief_public_key(const uint8_t *brief)
{
    return brief + BRIEF_PUBLIC_KEY;
}

struct dht_rank dht_brief_rank(const uint8_t *brief, const struct id *member, enum dht_order order,
                               const struct dht_place *own)
{
    uint64_t bits = wire_load_u64(brief + BRIEF_SCORE);
    double score;
    memcpy(&score, &bits, sizeof score);
    struct dht_version version = dht_brief_version(brief);
    struct wire wire;
    wire_init(&wire, brief + BRIEF_PLACE, DHT_PLACE_WIRE_BYTES);
    struct dht_place place = dht_place_get(&wire);
    return rank_of(order, member, score, &version, &place, own);
}

static uint64_t cleared_ms(const uint8_t data[META_BYTES], bool tombstone, uint64_t wall_ms)
{
    uint64_t cleared = wire_load_u64(data);
    uint64_t expires = wire_load_u64(data + sizeof cleared);
    bool expired = expires != 0 && expires <= wall_ms;
    if (tombstone)
        return 0;
    return expired && expires > cleared ? expires : cleared;
}

uint64_t dht_brief_cleared_ms(const uint8_t *brief, uint64_t wall_ms)
{
    return cleared_ms(brief + BRIEF_DATA, dht_brief_is_tombstone(brief), wall_ms);
}

uint64_t dht_record_cleared_ms(const struct dht_record *meta, uint64_t wall_ms)
{
    return cleared_ms(meta->data, meta->tombstone, wall_ms);
}
