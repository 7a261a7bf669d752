#include "dht/message.h"

#include "node/base/wire.h"

typedef void (*put_fn)(struct buf *buf, const struct dht_message *message);
typedef void (*get_fn)(struct wire *wire, struct dht_message *message);

static void put_nothing(struct buf *, const struct dht_message *);
static void get_nothing(struct wire *, struct dht_message *);
static void put_target(struct buf *, const struct dht_message *);
static void get_target(struct wire *, struct dht_message *);
static void put_contacts(struct buf *, const struct dht_message *);
static void get_contacts(struct wire *, struct dht_message *);
static void put_query(struct buf *, const struct dht_message *);
static void get_query(struct wire *, struct dht_message *);
static void put_values(struct buf *, const struct dht_message *);
static void get_values(struct wire *, struct dht_message *);
static void put_store(struct buf *, const struct dht_message *);
static void get_store(struct wire *, struct dht_message *);
static void put_stored(struct buf *, const struct dht_message *);
static void get_stored(struct wire *, struct dht_message *);
static void put_wait(struct buf *, const struct dht_message *);
static void get_wait(struct wire *, struct dht_message *);
static void put_lease(struct buf *, const struct dht_message *);
static void get_lease(struct wire *, struct dht_message *);
static void put_compare(struct buf *, const struct dht_message *);
static void get_compare(struct wire *, struct dht_message *);
static void put_compared(struct buf *, const struct dht_message *);
static void get_compared(struct wire *, struct dht_message *);
static void put_watch(struct buf *, const struct dht_message *);
static void get_watch(struct wire *, struct dht_message *);
static void put_watched(struct buf *, const struct dht_message *);
static void get_watched(struct wire *, struct dht_message *);
static void put_notify(struct buf *, const struct dht_message *);
static void get_notify(struct wire *, struct dht_message *);
static void put_notified(struct buf *, const struct dht_message *);
static void get_notified(struct wire *, struct dht_message *);

/* All messages, by type. */
static const struct {
    put_fn put;
    get_fn get;
} grammar[] = {
    [DHT_PING] = {put_nothing, get_nothing},    [DHT_PONG] = {put_nothing, get_nothing},
    [DHT_FIND_NODE] = {put_target, get_target}, [DHT_NODES] = {put_contacts, get_contacts},
    [DHT_FIND_VALUE] = {put_query, get_query},  [DHT_VALUES] = {put_values, get_values},
    [DHT_STORE] = {put_store, get_store},       [DHT_STORED] = {put_stored, get_stored},
    [DHT_LEASE] = {put_lease, get_lease},       [DHT_REFUSED] = {put_wait, get_wait},
    [DHT_COMPARE] = {put_compare, get_compare}, [DHT_COMPARED] = {put_compared, get_compared},
    [DHT_WATCH] = {put_watch, get_watch},       [DHT_WATCHED] = {put_watched, get_watched},
    [DHT_NOTIFY] = {put_notify, get_notify},    [DHT_NOTIFIED] = {put_notified, get_notified},
};

enum { WANT_LEASE = 1, RANGED = 2, WANT_DIGEST = 4 }; /* flags of FIND_VALUE */
enum { MORE = 1, DEEPER = 2, HAS_DIGEST = 4 };        /* flags of VALUES; WATCHED has DEEPER alone */
enum { STOP = 1 };                                    /* flags of WATCH */
enum { KNOWN = 1 };                                   /* flags of NOTIFIED */

void dht_message_encode(const struct dht_message *message, struct buf *out)
{
    wire_put_u8(out, DHT_MESSAGE_VERSION);
    wire_put_u8(out, message->type);
    wire_put_u8(out, message->flags);
    wire_put_u64(out, message->transaction);
    if (message->flags & DHT_PLACED) {
        dht_place_put(out, &message->place);
        wire_put_u8(out, message->place_error);
    }
    grammar[message->type].put(out, message);
}

enum dht_decode dht_message_decode(const struct dht_book *book, const uint8_t *bytes, size_t len_bytes,
                                   struct dht_message *ret_message)
{
    struct dht_message *message = ret_message;
    *message = (struct dht_message){0};
    struct wire wire;
    wire_init(&wire, bytes, len_bytes);
    uint8_t version = wire_get_u8(&wire);
    message->type = wire_get_u8(&wire);
    message->flags = wire_get_u8(&wire);
    message->transaction = wire_get_u64(&wire);
    if (wire.failed || len_bytes > DHT_MESSAGE_MAX_BYTES)
        return DHT_MALFORMED;
    bool known = message->type < sizeof grammar / sizeof *grammar && grammar[message->type].get;
    if (version != DHT_MESSAGE_VERSION || !known || (message->flags & ~(DHT_FROM_CLIENT | DHT_PLACED)))
        return DHT_UNKNOWN;
    if (message->flags & DHT_PLACED) {
        message->place = dht_place_get(&wire);
        message->place_error = wire_get_u8(&wire);
    }
    grammar[message->type].get(&wire, message);
    if (!wire_done(&wire))
        return DHT_MALFORMED;
    for (size_t i = 0; i < message->contact_count; i++)
        message->contacts[i].id = dht_book_id_of(book, message->contacts[i].public_key);
    return DHT_DECODED;
}

/* A count of at most max; more fails the cursor. */
static size_t get_count(struct wire *wire, size_t max)
{
    size_t count = wire_get_u8(wire);
    if (count > max)
        wire->failed = true;
    return wire->failed ? 0 : count;
}

/* A flag byte of which only `known` may be set. */
static uint8_t get_flags(struct wire *wire, uint8_t known)
{
    uint8_t flags = wire_get_u8(wire);
    if (flags & ~known)
        wire->failed = true;
    return flags;
}

static void put_nothing(struct buf *buf, const struct dht_message *message)
{
    (void)buf;
    (void)message;
}

static void get_nothing(struct wire *wire, struct dht_message *message)
{
    (void)wire;
    (void)message;
}

static void put_target(struct buf *buf, const struct dht_message *message)
{
    wire_put_id(buf, &message->target);
}

static void get_target(struct wire *wire, struct dht_message *message)
{
    message->target = wire_get_id(wire);
}

void dht_contact_put(struct buf *buf, const struct dht_contact *contact)
{
    buf_add(buf, contact->public_key, sizeof contact->public_key);
    addr_put(buf, &contact->addr);
}

struct dht_contact dht_contact_get(struct wire *wire)
{
    struct dht_contact contact = {0};
    wire_get_copy(wire, contact.public_key, sizeof contact.public_key);
    contact.addr = addr_get(wire);
    return contact;
}

static void put_contacts(struct buf *buf, const struct dht_message *message)
{
    wire_put_u8(buf, (uint8_t)message->contact_count);
    for (size_t i = 0; i < message->contact_count; i++)
        dht_contact_put(buf, &message->contacts[i]);
}

static void get_contacts(struct wire *wire, struct dht_message *message)
{
    message->contact_count = get_count(wire, DHT_REPLICAS);
    for (size_t i = 0; i < message->contact_count && !wire->failed; i++)
        message->contacts[i] = dht_contact_get(wire);
}

static void put_spans(struct buf *buf, const struct dht_span *spans, size_t count)
{
    wire_put_u8(buf, (uint8_t)count);
    for (size_t i = 0; i < count; i++)
        wire_put_short(buf, spans[i].at, spans[i].len);
}

static size_t get_spans(struct wire *wire, struct dht_span spans[DHT_ITEMS_MAX])
{
    size_t count = get_count(wire, DHT_ITEMS_MAX);
    for (size_t i = 0; i < count; i++)
        spans[i].at = wire_get_short(wire, LIMIT_DHT_RECORD_BYTES, &spans[i].len);
    return wire->failed ? 0 : count;
}

static void put_query(struct buf *buf, const struct dht_message *message)
{
    put_target(buf, message);
    wire_put_u8(buf, message->order);
    wire_put_u16(buf, message->limit);
    wire_put_u8(buf, message->parts);
    wire_put_u8(buf, message->contacts_wanted);
    wire_put_u8(buf, (uint8_t)((message->want_lease ? WANT_LEASE : 0) | (message->ranged ? RANGED : 0) |
                               (message->want_digest ? WANT_DIGEST : 0)));
    if (!message->ranged)
        return;
    wire_put_u64(buf, message->after.major);
    wire_put_u64(buf, message->after.minor);
    wire_put_id(buf, &message->after.member);
    wire_put_id(buf, &message->until);
}

static void get_query(struct wire *wire, struct dht_message *message)
{
    get_target(wire, message);
    message->order = wire_get_u8(wire);
    message->limit = wire_get_u16(wire);
    message->parts = wire_get_u8(wire);
    message->contacts_wanted = wire_get_u8(wire);
    uint8_t flags = get_flags(wire, WANT_LEASE | RANGED | WANT_DIGEST);
    message->want_lease = flags & WANT_LEASE;
    message->ranged = flags & RANGED;
    message->want_digest = flags & WANT_DIGEST;
    if (message->ranged) {
        message->after.major = wire_get_u64(wire);
        message->after.minor = wire_get_u64(wire);
        message->after.member = wire_get_id(wire);
        message->until = wire_get_id(wire);
    }
    if (message->order >= DHT_ORDER_COUNT || message->contacts_wanted > DHT_REPLICAS || message->parts == 0 ||
        message->parts > DHT_PARTS_MAX)
        wire->failed = true;
}

static void put_values(struct buf *buf, const struct dht_message *message)
{
    wire_put_u8(buf, (uint8_t)((message->more ? MORE : 0) | (message->deeper ? DEEPER : 0) |
                               (message->has_digest ? HAS_DIGEST : 0)));
    wire_put_u8(buf, message->part);
    wire_put_u8(buf, message->parts);
    wire_put_u32(buf, message->total);
    put_contacts(buf, message);
    put_spans(buf, message->records, message->record_count);
    put_spans(buf, message->leases, message->lease_count);
    if (message->has_digest)
        buf_add(buf, message->digest, sizeof message->digest);
}

static void get_values(struct wire *wire, struct dht_message *message)
{
    uint8_t flags = get_flags(wire, MORE | DEEPER | HAS_DIGEST);
    message->more = flags & MORE;
    message->deeper = flags & DEEPER;
    message->has_digest = flags & HAS_DIGEST;
    message->part = wire_get_u8(wire);
    message->parts = wire_get_u8(wire);
    message->total = wire_get_u32(wire);
    get_contacts(wire, message);
    message->record_count = get_spans(wire, message->records);
    message->lease_count = get_spans(wire, message->leases);
    if (message->has_digest)
        wire_get_copy(wire, message->digest, sizeof message->digest);
    if (message->parts > DHT_PARTS_MAX || message->part >= message->parts)
        wire->failed = true;
}

static void put_store(struct buf *buf, const struct dht_message *message)
{
    put_spans(buf, message->records, message->record_count);
}

static void get_store(struct wire *wire, struct dht_message *message)
{
    message->record_count = get_spans(wire, message->records);
}

static void put_stored(struct buf *buf, const struct dht_message *message)
{
    wire_put_u32(buf, message->wait_ms);
    put_spans(buf, message->records, message->record_count);
    buf_add(buf, message->status, message->record_count);
}

static void get_stored(struct wire *wire, struct dht_message *message)
{
    message->wait_ms = wire_get_u32(wire);
    message->record_count = get_spans(wire, message->records);
    wire_get_copy(wire, message->status, message->record_count);
    for (size_t i = 0; i < message->record_count; i++)
        if (message->status[i] >= DHT_STATUS_COUNT)
            wire->failed = true;
}

static void put_wait(struct buf *buf, const struct dht_message *message)
{
    wire_put_u32(buf, message->wait_ms);
}

static void get_wait(struct wire *wire, struct dht_message *message)
{
    message->wait_ms = wire_get_u32(wire);
}

static void put_lease(struct buf *buf, const struct dht_message *message)
{
    wire_put_short(buf, message->records[0].at, message->records[0].len);
}

static void get_lease(struct wire *wire, struct dht_message *message)
{
    message->records[0].at = wire_get_short(wire, LIMIT_DHT_RECORD_BYTES, &message->records[0].len);
    message->record_count = 1;
}

static void put_compare(struct buf *buf, const struct dht_message *message)
{
    wire_put_u8(buf, message->prefix_bits);
    put_target(buf, message);
    buf_add(buf, message->digest, sizeof message->digest);
}

static void get_compare(struct wire *wire, struct dht_message *message)
{
    message->prefix_bits = wire_get_u8(wire);
    get_target(wire, message);
    wire_get_copy(wire, message->digest, sizeof message->digest);
}

static void put_compared(struct buf *buf, const struct dht_message *message)
{
    wire_put_u8(buf, message->compared);
    if (message->compared == DHT_BY_BRANCH)
        buf_add(buf, message->branches, sizeof message->branches);
    if (message->compared != DHT_BY_KEY)
        return;
    wire_put_u8(buf, (uint8_t)message->key_count);
    for (size_t i = 0; i < message->key_count; i++) {
        wire_put_id(buf, &message->keys[i].key);
        buf_add(buf, message->keys[i].digest, sizeof message->keys[i].digest);
    }
}

static void get_compared(struct wire *wire, struct dht_message *message)
{
    message->compared = wire_get_u8(wire);
    if (message->compared > DHT_BY_KEY)
        wire->failed = true;
    if (message->compared == DHT_BY_BRANCH)
        wire_get_copy(wire, message->branches, sizeof message->branches);
    if (message->compared != DHT_BY_KEY)
        return;
    message->key_count = get_count(wire, DHT_COMPARED_KEYS);
    for (size_t i = 0; i < message->key_count; i++) {
        message->keys[i].key = wire_get_id(wire);
        wire_get_copy(wire, message->keys[i].digest, sizeof message->keys[i].digest);
    }
}

static void put_watch(struct buf *buf, const struct dht_message *message)
{
    put_target(buf, message);
    wire_put_u8(buf, message->stop ? STOP : 0);
}

static void get_watch(struct wire *wire, struct dht_message *message)
{
    get_target(wire, message);
    message->stop = get_flags(wire, STOP);
}

static void put_watched(struct buf *buf, const struct dht_message *message)
{
    wire_put_u8(buf, message->deeper ? DEEPER : 0);
    wire_put_u32(buf, message->lease_ms);
    wire_put_u64(buf, message->sequence);
    wire_put_u32(buf, message->total);
    buf_add(buf, message->digest, sizeof message->digest);
}

static void get_watched(struct wire *wire, struct dht_message *message)
{
    message->deeper = get_flags(wire, DEEPER);
    message->lease_ms = wire_get_u32(wire);
    message->sequence = wire_get_u64(wire);
    message->total = wire_get_u32(wire);
    wire_get_copy(wire, message->digest, sizeof message->digest);
}

static void put_notify(struct buf *buf, const struct dht_message *message)
{
    put_target(buf, message);
    wire_put_u64(buf, message->sequence);
    put_spans(buf, message->records, message->record_count);
}

static void get_notify(struct wire *wire, struct dht_message *message)
{
    get_target(wire, message);
    message->sequence = wire_get_u64(wire);
    message->record_count = get_spans(wire, message->records);
}

static void put_notified(struct buf *buf, const struct dht_message *message)
{
    wire_put_u8(buf, message->known ? KNOWN : 0);
}

static void get_notified(struct wire *wire, struct dht_message *message)
{
    message->known = get_flags(wire, KNOWN);
}
