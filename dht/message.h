/*
 * Messages: one struct that is written and read by the grammar in message.c; docs/protocol-dht.md says it in prose.
 *
 * Decoding allocates nothing and copies no records: items point into the message's own bytes.
 */
#pragma once

#include "dht/record.h"

#define DHT_MESSAGE_VERSION 1
#define DHT_MESSAGE_HEADER_BYTES 11
#define DHT_CONTACT_WIRE_BYTES (CRYPTO_SIGN_PUBLIC_BYTES + ADDR_WIRE_BYTES)
#define DHT_ITEMS_MAX 6 /* 6 x 178 = 1,068 of the 1,100 */

/* Requests are odd, the answer to each is one more; REFUSED may answer any. */
enum dht_message_type {
    DHT_PING = 1,
    DHT_PONG,
    DHT_FIND_NODE,
    DHT_NODES,
    DHT_FIND_VALUE,
    DHT_VALUES,
    DHT_STORE,
    DHT_STORED,
    DHT_REFUSED = 10,
};

enum dht_message_flag { DHT_FROM_CLIENT = 1 }; /* the sender cannot be reached and stays out of tables */

enum dht_store_status {
    DHT_ACCEPTED,  /* held, or held already */
    DHT_STALE,     /* a newer one is held; it comes along where it fits */
    DHT_FULL,      /* no room for another record of this key, of this member, or at all: try further away */
    DHT_SLOW_DOWN, /* cannot write now: again after wait_ms */
    DHT_BAD,       /* false signature, key or expiry; never to be sent again */
    DHT_STATUS_COUNT,
};

/* Bytes of one encoded record, borrowed. */
struct dht_span {
    const uint8_t *at;
    size_t len;
};

struct dht_message {
    uint8_t type;
    uint8_t flags;
    uint64_t transaction;

    struct id target; /* FIND_NODE, FIND_VALUE */

    /* FIND_VALUE: at most `limit` records whose rank is beyond `after`, and at most `contacts_wanted` contacts */
    uint8_t order; /* enum dht_order */
    uint8_t limit;
    uint8_t contacts_wanted;
    bool want_lease;
    bool ranged; /* `after` is set */
    struct dht_rank after;

    struct dht_contact contacts[DHT_REPLICAS]; /* NODES, VALUES */
    size_t contact_count;

    struct dht_span records[DHT_ITEMS_MAX]; /* VALUES, STORE; STORED: the newer one, or nothing */
    size_t record_count;
    struct dht_span leases[DHT_ITEMS_MAX]; /* VALUES */
    size_t lease_count;
    bool more;      /* VALUES: there are records beyond the last */
    uint32_t total; /* VALUES: records held under the key, tombstones included */

    uint8_t status[DHT_ITEMS_MAX]; /* STORED: enum dht_store_status, one for each record in order */
    uint32_t wait_ms;              /* STORED with DHT_SLOW_DOWN, REFUSED */
};

enum dht_decode { DHT_DECODED, DHT_MALFORMED, DHT_UNKNOWN };

/* Unknown version, type or flag: DHT_UNKNOWN. Cut, padded or out of range: DHT_MALFORMED. */
enum dht_decode dht_message_decode(const uint8_t *bytes, size_t len_bytes, struct dht_message *ret_message);
/* Append to `out`, whose `failed` tells whether it fitted. */
void dht_message_encode(const struct dht_message *message, struct buf *out);

void dht_contact_put(struct buf *buf, const struct dht_contact *contact);
struct dht_contact dht_contact_get(struct wire *wire);
