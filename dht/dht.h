/*
 * The DHT: who has what, kept by everybody together. Kademlia (Maymounkov and Mazieres 2002) over 256-bit ids whose
 * values are sorted sets of signed member records.
 *
 * Owns routing tables, lookups, records and their merge, republishing, reconciliation, watches, network coordinates,
 * the lease of this node. Never touches a socket, a disk, a clock or a random source: bytes and the time go in,
 * datagrams and callbacks come out, what is to last goes to struct dht_storage. The wire format is in
 * docs/protocol-dht.md.
 *
 * One thread, the caller's. Times are milliseconds: `now_ms` on any clock that never goes back, `wall_ms` since 1970.
 *
 * 1. A node's id is the hash of its public key, so it is derived wherever a key is decoded and never read from a peer.
 * 2. A record is signed by its writer: the member it speaks of, or, in sets by hand, any node. Whoever passes it on
 *    changes nothing about it.
 * 3. A contact enters the tables only after it has answered us.
 * 4. Callbacks come from dht_input or dht_tick, never from within the call that asked for them; what ends a request
 *    comes exactly once, unless dht_cancel or dht_free comes first. They may call anything here but dht_free.
 * 5. Every call but the queries may send; after each of them dht_next_ms tells when dht_tick is wanted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/addr.h"
#include "node/base/buf.h"
#include "node/base/clock.h"
#include "node/base/crypto.h"
#include "node/base/err.h"
#include "node/base/id.h"
#include "node/base/limits.h"

/* The largest message given to `send`, and the largest that dht_input looks at: a datagram less the room that the
 * envelope below takes for its own header, nonce and tag. */
#define DHT_MESSAGE_MAX_BYTES 1100
_Static_assert(DHT_MESSAGE_MAX_BYTES < LIMIT_DATAGRAM_BYTES, "the envelope needs room");

#define DHT_DATA_MAX_BYTES 512
#define DHT_REPLICAS 16              /* k: holders of a key, contacts in a bucket and in a reply */
#define DHT_RECORD_TTL_MS 259200000u /* 3 days; published records are signed anew each day */
#define DHT_EXPIRY_MAX_MS                                                                                              \
    604800000u                   /* 7 days: no record may be good for longer, and tombstones are good for that long */
#define DHT_LEASE_TTL_MS 120000u /* a dead node is gone from all answers after this */
#define DHT_LEASE_RENEW_MS 60000u
#define DHT_ACKED 12 /* holders that have accepted a record when its `done` is called; all, where there are fewer */
#define DHT_SKEW_MS 60000u /* how far wall clocks of members may be apart */
#define DHT_GET_TIMEOUT_MS 5000u

struct dht;

struct dht_contact {
    struct id id; /* crypto_id_of(public_key) */
    uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES];
    struct addr addr; /* family 0: not known */
};

/* The contact of a key at an address, with its id. */
struct dht_contact dht_contact_of(const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES], const struct addr *addr);

/* Contacts, each kept once however many tables it is in. The nodes of a simulator share one; NULL in dht_config makes
 * the dht keep its own. */
struct dht_book;
int dht_book_new(struct dht_book **ret_book, struct err *err);
void dht_book_free(struct dht_book *book);

/* How records are signed and checked. A simulator of a million nodes brings something cheaper than Ed25519. */
struct dht_signatures {
    void (*sign)(void *ctx, const void *data, size_t len_bytes, uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES]);
    bool (*check)(void *ctx, const uint8_t signature[CRYPTO_SIGNATURE_BYTES], const void *data, size_t len_bytes,
                  const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES]);
    void *ctx; /* borrowed */
};

/* Ed25519 with this key, borrowed. */
struct dht_signatures dht_signatures_ed25519(const struct crypto_sign_key *key);

/* Where a node is in the network: a Vivaldi coordinate (Dabek et al. 2004) of three dimensions and a height, in tenths
 * of a millisecond. The distance of two of them is the round-trip time to expect. All zero: not known. */
struct dht_place {
    int16_t x[3];
    uint16_t height;
};

/* Expected round-trip time in tenths of a millisecond; UINT32_MAX if either place is not known. */
uint32_t dht_place_distance(const struct dht_place *a, const struct dht_place *b);

/* ---- keys and records ---- */

/* What a key names; the number is on the wire and in the hash. */
enum dht_kind {
    DHT_OBJECT = 1, /* by SHA-256 digest, 32 bytes */
    DHT_VOLUME,     /* by GUID, 16 bytes */
    DHT_SERVICE,    /* by image tag, NUL, user */
    DHT_APP,        /* by image tag */
    DHT_IMAGE,      /* by repository:tag */
    DHT_ROUTE,      /* by name */
    DHT_NODE,       /* by node id, 32 bytes: the lease */
    DHT_REVOCATION, /* by cluster id, 32 bytes */
    DHT_SET,        /* by any name: a sorted set written by hand */
    DHT_CHANNEL,    /* by any name: messages of a moment */
    DHT_KIND_COUNT,
};

/* In sets by hand a member is a name (the record's data) that any node may write; in all others it is the node that
 * signs the record. A revocation is its own name: whoever hears of it says it again, and nobody can take it back. */
static inline bool dht_is_by_hand(enum dht_kind kind)
{
    return kind == DHT_SET || kind == DHT_CHANNEL || kind == DHT_REVOCATION;
}

/* BLAKE2b-256 of the kind as one byte and the name; of kind DHT_NODE the name itself, so that a node's lease is held by
 * its neighbours. The last byte is the kind instead, so that whoever holds or reads a record knows which kind its key
 * is for: nobody can put names by hand among providers, or either over a lease. */
struct id dht_key(enum dht_kind kind, const void *name, size_t name_bytes);
/* Of the lease of this node. */
struct id dht_lease_key(const struct id *node);

/* Which of two records of one member is newer: epochs first, then counters. By hand it is a hybrid logical clock
 * (Kulkarni et al. 2014): the epoch a wall clock's milliseconds, the counter what orders those of one millisecond. */
struct dht_version {
    uint64_t epoch;
    uint64_t counter;
};

int dht_version_compare(const struct dht_version *a, const struct dht_version *b);

struct dht_record {
    struct id key;
    struct id member;                             /* crypto_id_of(public_key); by hand of the data; zero for META */
    uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES]; /* of who signed */
    uint8_t kind;                                 /* enum dht_kind */
    bool tombstone;
    bool meta;    /* by hand: speaks of the whole set; data = cleared u64, expires u64, both ms since 1970 */
    double score; /* never NaN */
    struct dht_version version;
    uint64_t expiry_wall_ms;
    uint64_t size;          /* of what is offered, in bytes; what the publisher says */
    struct dht_place place; /* of the writer, when it signed */
    struct addr addr;       /* where the writer was reached when it signed; family 0: not known */
    size_t data_len;
    uint8_t data[DHT_DATA_MAX_BYTES]; /* opaque to the DHT, except in leases */
    uint8_t signature[CRYPTO_SIGNATURE_BYTES];
};

/* ---- storage ---- */

/* One stored record; `bytes` is borrowed for the call. False ends the walk. */
typedef bool (*dht_storage_cb)(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes,
                               size_t len_bytes);

/*
 * What outlives the process: encoded records by (key, member), and small blobs by name. The dht keeps all records in
 * memory and reads the storage once, at the start; when writes reach the disk is the storage's affair. Functions return
 * 0 or a negative code; `load` appends to ret_bytes and returns 1, or 0 if there is nothing.
 */
struct dht_storage {
    int (*put)(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len_bytes);
    int (*remove)(void *ctx, const struct id *key, const struct id *member); /* 0 too if there was none */
    int (*each)(void *ctx, dht_storage_cb cb, void *cb_ctx); /* as they were when the storage was opened */
    int (*save)(void *ctx, const char *name, const void *bytes, size_t len_bytes); /* at most LIMIT_DHT_BLOB_BYTES */
    int (*load)(void *ctx, const char *name, struct buf *ret_bytes);
    void *ctx; /* borrowed */
};

/* A storage in memory, for tests and simulators. */
struct dht_memory;
int dht_memory_new(struct dht_memory **ret_memory, struct err *err);
void dht_memory_free(struct dht_memory *memory);
struct dht_storage dht_storage_memory(struct dht_memory *memory);
/* What was put there: 1 and appended to ret_bytes, 0, or ERR_NOMEM. */
int dht_memory_get(const struct dht_memory *memory, const struct id *key, const struct id *member,
                   struct buf *ret_bytes);

/* ---- lifecycle ---- */

/* Send one message of at most DHT_MESSAGE_MAX_BYTES; `bytes` is borrowed for the call. Losing it is allowed;
 * calling back into the same dht is not. */
typedef void (*dht_send_cb)(void *ctx, const struct dht_contact *to, const uint8_t *bytes, size_t len_bytes);

struct dht_config {
    const uint8_t *public_key;        /* of this node, CRYPTO_SIGN_PUBLIC_BYTES; borrowed for the call of dht_new */
    struct dht_signatures signatures; /* with that key */
    struct dht_book *book;            /* borrowed; NULL: one of its own */
    struct addr address;              /* where others reach this node; family 0: not known yet. Contacts on loopback
                                       * are taken from others only by a node that is there itself */
    bool client;                      /* cannot be reached: asks, but asks to be kept out of tables */
    unsigned block_per_bucket;        /* contacts of one address block (addr_block) in a bucket; 0: no cap. 2 on */
    unsigned block_per_table;         /* open networks; likewise in the whole table and in one lookup. 3 there. */
    uint32_t records_max;             /* held for all; 0: LIMIT_DHT_RECORDS */
    uint32_t key_max;                 /* of them, under one key; 0: LIMIT_DHT_RECORDS_PER_KEY. More go to shards */
    uint64_t now_ms;
    uint64_t wall_ms; /* at now_ms */
    struct rng rng;
    struct dht_storage storage; /* all NULL: nothing outlives the process */
    dht_send_cb send;
    void *send_ctx; /* borrowed */
};

/* Knows nobody yet. Reads the records of the storage. */
int dht_new(const struct dht_config *config, struct dht **ret_dht, struct err *err);
/* Saves nothing and calls nobody back. */
void dht_free(struct dht *dht);

/* Ask the contacts saved in an earlier life, and go on where republishing was. A storage without them is fine. */
int dht_restore(struct dht *dht, uint64_t now_ms, struct err *err);
/* Save the best contacts and the sweep's position. Happens by itself every few minutes too. */
int dht_save(struct dht *dht, struct err *err);

/* This node is about to stop on purpose: says so to those who hold its lease, so that it is out of all answers at once.
 * The dht is to be freed then, after what it sent has left. */
void dht_leave(struct dht *dht, uint64_t now_ms);

/* A message from `from`, whose key, membership and address the envelope has proved. Malformed, unknown and unasked
 * ones are counted and dropped. */
void dht_input(struct dht *dht, uint64_t now_ms, const struct dht_contact *from, const uint8_t *bytes,
               size_t len_bytes);
/* Do what is due; returns dht_next_ms. Early and late calls are harmless. */
uint64_t dht_tick(struct dht *dht, uint64_t now_ms);
/* When dht_tick wants to be called next, on the clock of now_ms; may be in the past. */
uint64_t dht_next_ms(const struct dht *dht);

/* What the wall clock shows. Told at the start and, so that steps of the clock are noticed, every minute or so. */
void dht_set_wall(struct dht *dht, uint64_t now_ms, uint64_t wall_ms);
/* Where others reach this node from now on; the lease is renewed with it. */
void dht_set_address(struct dht *dht, uint64_t now_ms, const struct addr *address);

/* ---- contacts ---- */

/* Join through this contact; it is asked again, with growing pauses, whenever the tables are empty.
 * ERR_LIMIT when LIMIT_DHT_SEEDS are known, ERR_INVALID for an unusable address. */
int dht_bootstrap(struct dht *dht, uint64_t now_ms, const struct dht_contact *contact, struct err *err);
/* Somebody who may be alive: asked once, and in the tables if it answers. */
void dht_add_contact(struct dht *dht, uint64_t now_ms, const struct dht_contact *contact);
/* Somebody who has answered elsewhere, after rtt_ms: into the tables as if it had answered here. For simulators. */
void dht_meet(struct dht *dht, uint64_t now_ms, const struct dht_contact *contact, unsigned rtt_ms);
/* A revoked node: out of the tables, its records dropped, its messages ignored, for the life of this dht. */
int dht_forget(struct dht *dht, const struct id *node, struct err *err);

/* One contact in the tables. rtt_ms is 0 before the first measurement; False ends the walk. */
typedef bool (*dht_contact_cb)(void *ctx, const struct dht_contact *contact, unsigned rtt_ms, uint64_t heard_ms);
void dht_contacts(const struct dht *dht, dht_contact_cb cb, void *ctx);

/* ---- publishing ---- */

/* The record is safe: `accepted` holders of the key have it, at least DHT_ACKED or all that were found. 0: nobody took
 * it, and it will be tried again. Not called for a value that was replaced meanwhile. */
typedef void (*dht_done_cb)(void *ctx, const struct id *key, size_t accepted);

struct dht_value {
    double score;
    /* Of two values of this node under one key the one with the higher version is the truth for everybody.
     * {0, 0}: the dht counts by itself, higher each time and after a restart. */
    struct dht_version version;
    uint64_t size;
    const void *data; /* borrowed for the call */
    size_t data_len;
    dht_done_cb done; /* may be NULL */
    void *done_ctx;   /* borrowed */
};

/* Say under `key` that this node has it; kept, and repeated to the holders of the key, until dht_withdraw or dht_free.
 * After a restart it is to be said again; what the holders still have is then not sent again. Saying the same again
 * changes nothing. ERR_INVALID for NaN, more than DHT_DATA_MAX_BYTES, a key of another kind, kind DHT_NODE or one by
 * hand; ERR_CONFLICT for another value without a higher version; ERR_LIMIT past LIMIT_DHT_PUBLISHED. */
int dht_publish(struct dht *dht, uint64_t now_ms, const struct id *key, enum dht_kind kind,
                const struct dht_value *value, struct err *err);
/* Say that this node no longer has it: a tombstone of the same version. Only a higher version can be published
 * afterwards. 0 too if nothing is published there. */
int dht_withdraw(struct dht *dht, uint64_t now_ms, const struct id *key, struct err *err);

/* The next stamp for what is written by hand: higher than all that this dht has given or seen, in this life and
 * earlier ones, and near the wall clock. */
struct dht_version dht_stamp(struct dht *dht, uint64_t now_ms);

/* One member of a set by hand. */
struct dht_member {
    const void *name; /* 1 to DHT_DATA_MAX_BYTES, borrowed for the call */
    size_t name_len;
    bool meta; /* the name is the 16 bytes of the set's own state (struct dht_record) */
    bool tombstone;
    double score;
    struct dht_version version; /* from dht_stamp; after a restart the same as then */
    uint64_t ttl_ms;            /* 0: until somebody writes it anew; the dht renews it while this node lives */
    dht_done_cb done;           /* may be NULL */
    void *done_ctx;             /* borrowed */
};

/* Write one by hand: to the holders as soon as possible, and kept there. Of two writes of one member that wait to be
 * sent only the newer one is. Errors as dht_publish; ERR_CONFLICT if something newer is known. */
int dht_write(struct dht *dht, uint64_t now_ms, const struct id *key, enum dht_kind kind,
              const struct dht_member *member, struct err *err);

/* ---- asking ---- */

enum dht_order {
    DHT_BY_SCORE,     /* highest first */
    DHT_BY_SCORE_LOW, /* lowest first */
    DHT_BY_VERSION,   /* newest first */
    DHT_BY_DISTANCE,  /* by the place in the record: nearest to this node first, those of no known place last */
    DHT_BY_MEMBER,    /* by member id */
    DHT_ORDER_COUNT,
};

/* The place of a record in an order: ascending, whatever the order's name. It is the cursor of a ranged read too. */
struct dht_rank {
    uint64_t major, minor;
    struct id member;
};

/* `own` is the reader's place, for DHT_BY_DISTANCE; NULL for the others. */
struct dht_rank dht_record_rank(const struct dht_record *record, enum dht_order order, const struct dht_place *own);
int dht_rank_compare(const struct dht_rank *a, const struct dht_rank *b);

struct dht_get_options {
    size_t limit; /* 0: 16; at most LIMIT_DHT_GET_RECORDS */
    enum dht_order order;
    const struct dht_rank *after; /* only what comes behind it; borrowed for the call; NULL: from the first */
    bool want_lease;              /* drop members that are not alive, and tell the addresses of the others */
    bool first_is_enough; /* end at the first holder that has `limit` records instead of asking the closest four */
    uint64_t timeout_ms;  /* 0: DHT_GET_TIMEOUT_MS */
};

struct dht_found {
    struct dht_record record;
    struct dht_contact contact; /* the member's; addr from its lease, family 0 if unknown or not asked for */
};

/* In the order asked for, without tombstones and lapsed records; none is an answer. Borrowed for the call. */
typedef void (*dht_get_cb)(void *ctx, const struct dht_found *found, size_t count);

/* Read a key. What the deadline finds done is given then. *ret_request is for dht_cancel; may be NULL. ERR_LIMIT past
 * LIMIT_DHT_REQUESTS at once. `options` may be NULL. */
int dht_get(struct dht *dht, uint64_t now_ms, const struct id *key, const struct dht_get_options *options,
            dht_get_cb cb, void *ctx, uint64_t *ret_request, struct err *err);

/* The closest contacts that answered, closest first, at most DHT_REPLICAS. Borrowed for the call. */
typedef void (*dht_find_cb)(void *ctx, const struct dht_contact *contacts, size_t count);

int dht_find(struct dht *dht, uint64_t now_ms, const struct id *target, dht_find_cb cb, void *ctx,
             uint64_t *ret_request, struct err *err);

/* One record of a whole set, tombstones and META included; borrowed for the call. */
typedef void (*dht_each_cb)(void *ctx, const struct dht_record *record);
/* The end of it: 0, or ERR_TIMEOUT when it may be incomplete. `count` records were told. */
typedef void (*dht_collected_cb)(void *ctx, int status, size_t count);

/* Read a whole set, shards included, at most LIMIT_DHT_COLLECT records: from several holders at once. What at least
 * three holders agree on, by digest, is taken as it is; of all else each signature is checked. */
int dht_collect(struct dht *dht, uint64_t now_ms, const struct id *key, uint64_t timeout_ms, dht_each_cb each,
                dht_collected_cb collected, void *ctx, uint64_t *ret_request, struct err *err);

/* Something under a watched key has changed: `record` is new, tombstones and META included; borrowed for the call. The
 * same record may come more than once. */
typedef void (*dht_watch_cb)(void *ctx, const struct id *key, const struct dht_record *record);

/* Be told of changes under `key` from now on, until dht_unwatch. What is there already is for dht_collect: start the
 * watch first, and nothing is missed between the two. ERR_LIMIT past LIMIT_DHT_WATCHES. */
int dht_watch(struct dht *dht, uint64_t now_ms, const struct id *key, dht_watch_cb changed, void *ctx,
              uint64_t *ret_watch, struct err *err);
void dht_unwatch(struct dht *dht, uint64_t now_ms, uint64_t watch);

/* Its callbacks will not come. A request that is over is fine. */
void dht_cancel(struct dht *dht, uint64_t request);

/* ---- queries ---- */

/* Where this node is, by its own measurements; and how wrong that may be, 0 (sure) to 1 (ret_error may be NULL). */
struct dht_place dht_place(const struct dht *dht, double *ret_error);

struct dht_stats {
    size_t contacts;  /* in the tables */
    size_t pending;   /* requests without an answer yet */
    size_t requests;  /* dht_get and dht_find under way */
    size_t published; /* by dht_publish */
    size_t records;   /* held, tombstones included */
    bool joined;      /* the first walk to our own id is over and found somebody */
    uint64_t sent;    /* messages */
    uint64_t received;
    uint64_t answered;      /* requests of others */
    uint64_t timeouts;      /* of ours */
    uint64_t dropped_short; /* cut, padded, or with fields out of range */
    uint64_t dropped_type;  /* of a version, type or flags that we do not know */
    uint64_t dropped_stray; /* answers to nothing that we asked them */
    uint64_t dropped_revoked;
    uint64_t refused;     /* requests over the sender's allowance, told to slow down */
    uint64_t bad_records; /* with a false signature, key or expiry */
    uint64_t stored;      /* records taken in */
    uint64_t stale;       /* stores of ours that met something newer */
    uint64_t full;        /* stores of ours that were refused for lack of room */
    size_t watches;       /* of ours */
    size_t watchers;      /* others who watch keys here */
    uint64_t notified;    /* changes told to watchers */
    uint64_t compared;    /* ranges compared with neighbours */
    uint64_t repaired;    /* records that came or went because of that */
    size_t memory_bytes;  /* of tables and records, about */
};

void dht_stats(const struct dht *dht, struct dht_stats *ret_stats);
