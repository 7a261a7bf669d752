/*
 * Messages: one struct that is written and read by the grammar in message.c; docs/protocol-dht.md says it in prose.
 *
 * Decoding allocates nothing and copies no records: items point into the message's own bytes.
 */
#pragma once

#include "dht/book.h"
#include "dht/place.h"
#include "dht/record.h"

#define DHT_MESSAGE_VERSION 2
#define DHT_MESSAGE_HEADER_BYTES 11
#define DHT_MESSAGE_TRANSACTION_OFFSET 3
#define DHT_CONTACT_WIRE_BYTES (CRYPTO_SIGN_PUBLIC_BYTES + ADDR_WIRE_BYTES)
#define DHT_PLACED_BYTES 9 /* a place and its error, behind the header */
#define DHT_ITEMS_MAX 6    /* 6 brief records x 169 = 1,014 of the 1,100; 5 whole ones */
#define DHT_PARTS_MAX 16   /* messages of one answer */
#define DHT_DIGEST_BYTES 16
#define DHT_BRANCHES 16      /* a range is compared by its sixteenths, 4 bits of the key at a time */
#define DHT_COMPARED_KEYS 20 /* or by its keys, when they are so few: 20 x 48 = 960 */

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
    DHT_LEASE, /* not answered */
    DHT_REFUSED,
    DHT_COMPARE,
    DHT_COMPARED,
    DHT_WATCH,
    DHT_WATCHED,
    DHT_NOTIFY,
    DHT_NOTIFIED,
};

enum dht_message_flag {
    DHT_FROM_CLIENT = 1, /* the sender cannot be reached and stays out of tables */
    DHT_PLACED = 2,      /* the sender's place follows the header */
};

enum dht_store_status {
    DHT_ACCEPTED,  /* held, or held already */
    DHT_STALE,     /* a newer one is held; it comes along where it fits */
    DHT_FULL,      /* no room for another record of this key, of this member, or at all: try further away */
    DHT_SLOW_DOWN, /* cannot write now: again after wait_ms */
    DHT_BAD,       /* false signature, key, expiry or stamp; never to be sent again */
    DHT_STATUS_COUNT,
};

/* How two ranges of keys differ. */
enum dht_compared { DHT_SAME, DHT_BY_BRANCH, DHT_BY_KEY };

struct dht_key_digest {
    struct id key;
    uint8_t digest[DHT_DIGEST_BYTES];
};

struct dht_message {
    uint8_t type;
    uint8_t flags;
    uint64_t transaction;
    struct dht_place place; /* with DHT_PLACED: of the sender */
    uint8_t place_error;    /* 0 (sure) to 255 */

    struct id target; /* FIND_NODE, FIND_VALUE, WATCH, NOTIFY; COMPARE: the range's first key */

    /* FIND_VALUE: at most `limit` records whose rank is beyond `after` and whose member is not beyond `until`, in at
     * most `parts` messages, and at most `contacts_wanted` contacts */
    uint8_t order; /* enum dht_order; by distance: from `place` */
    uint16_t limit;
    uint8_t parts; /* VALUES: of how many it is one; 1 to DHT_PARTS_MAX */
    uint8_t contacts_wanted;
    bool want_lease;
    bool want_digest;
    bool ranged; /* `after` and `until` are set */
    struct dht_rank after;
    struct id until;

    struct dht_contact contacts[DHT_REPLICAS]; /* NODES, VALUES (first part) */
    size_t contact_count;

    struct dht_span
        records[DHT_ITEMS_MAX]; /* VALUES, NOTIFY: brief. STORE. LEASE: one. STORED: the newer one, or none */
    size_t record_count;
    struct dht_span leases[DHT_ITEMS_MAX]; /* VALUES */
    size_t lease_count;
    uint8_t part;                     /* VALUES: from 0 */
    bool more;                        /* VALUES: there are records beyond the last part's last */
    bool deeper;                      /* VALUES, WATCHED: some were refused for lack of room and are in shards */
    uint32_t total;                   /* VALUES, WATCHED: records held under the key, tombstones included */
    bool has_digest;                  /* VALUES */
    uint8_t digest[DHT_DIGEST_BYTES]; /* VALUES, WATCHED: of all records held under the key. COMPARE: of the range */

    uint8_t status[DHT_ITEMS_MAX]; /* STORED: enum dht_store_status, one for each record in order */
    uint32_t wait_ms;              /* STORED with DHT_SLOW_DOWN, REFUSED */

    uint8_t prefix_bits; /* COMPARE: of the target that all keys of the range share */
    uint8_t compared;    /* COMPARED: enum dht_compared */
    uint8_t branches[DHT_BRANCHES][DHT_DIGEST_BYTES];
    struct dht_key_digest keys[DHT_COMPARED_KEYS];
    size_t key_count;

    bool stop;         /* WATCH: no more */
    uint32_t lease_ms; /* WATCHED: for so long; 0: refused */
    uint64_t sequence; /* WATCHED: of the last change here. NOTIFY: of the first record */
    bool known;        /* NOTIFIED: the watch is still wanted */
};

enum dht_decode { DHT_DECODED, DHT_MALFORMED, DHT_UNKNOWN };

/* Unknown version, type or flag: DHT_UNKNOWN. Cut, padded or out of range: DHT_MALFORMED. The ids of contacts come from
 * the book where it knows their keys; `book` may be NULL. */
enum dht_decode dht_message_decode(const struct dht_book *book, const uint8_t *bytes, size_t len_bytes,
                                   struct dht_message *ret_message);
/* Append to `out`, whose `failed` tells whether it fitted. */
void dht_message_encode(const struct dht_message *message, struct buf *out);

void dht_contact_put(struct buf *buf, const struct dht_contact *contact);
/* Without its id. */
struct dht_contact dht_contact_get(struct wire *wire);
