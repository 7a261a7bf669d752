/*
 * The inside of struct dht: one struct a file, and what each file offers to the others. Times without a word are on
 * the clock of now_ms, which is set on entry to every public call and never goes back.
 *
 *   dht.c      public calls, input and tick
 *   rpc.c      requests of ours (rpc.h)
 *   serve.c    requests of others: answers
 *   allowance.c how much each sender may ask
 *   values.c   of them, answers to FIND_VALUE
 *   rows.c     the records of one key, by member and by score
 *   hold.c     records held for all: validity, join, caps
 *   lookup.c   walks towards an id, reading records on the way
 *   alive.c    which members live
 *   get.c      reads of the first records in an order
 *   gather.c   all that is held under one key
 *   collect.c  reads of whole sets, shards included
 *   region.c   the nodes of parts of the key space, known for a while (push.h)
 *   push.c     giving records to the nodes closest to their key
 *   stamp.c    the hybrid logical clock (publish.h)
 *   publish.c  records of our own
 *   give.c     which of them are given away when
 *   lease.c    our lease
 *   sweep.c    the round over all held records: lapse, renewal; hand-over to newcomers (reconcile.h)
 *   range.c    digests of ranges of keys
 *   reconcile.c comparing what is held with neighbours, and mending the difference
 *   compare.c  answering those who compare
 *   watch.c    keys that this node watches, with watch_holders.c and watch_cover.c (see watch.h)
 *   watchers.c who watches keys here, and telling them
 *   upkeep.c   joining, checking contacts, refreshing buckets, saving (upkeep.h)
 *   lost.c     contacts that do not answer any more
 */
#pragma once

#include <sys/queue.h>

#include "dht/dht.h"
#include "dht/message.h"
#include "dht/publish.h"
#include "dht/push.h"
#include "dht/reconcile.h"
#include "dht/record.h"
#include "dht/rpc.h"
#include "dht/set.h"
#include "dht/table.h"
#include "dht/upkeep.h"
#include "node/base/map.h"
#include "node/base/tree.h"

#define DHT_PARALLEL 4 /* alpha: requests of one lookup in flight */
#define DHT_ENOUGH 4   /* beta: a walk is over when the closest so many have answered */
#define DHT_WALKS 4    /* disjoint walks of a write, and of a read that found nothing */

/* ---- allowance.c ---- */

struct dht_allowance_slot {
    uint32_t used; /* requests not given back yet */
    uint32_t counted_ms;
};

struct dht_allowance {
    struct dht_allowance_slot *slots; /* owned; LIMIT_DHT_SOURCES of them, NULL before the first request */
    uint64_t seed;
};

/* Count `cost` messages of this sender; how many ms it is to wait if it has no allowance left, else 0. */
uint32_t dht_allowance_take(struct dht *dht, const struct id *from, unsigned cost);
void dht_allowance_release(struct dht_allowance *allowance);

/* ---- serve.c ---- */

void dht_serve(struct dht *dht, const struct dht_contact *from, const struct dht_message *request);
/* Add the good contacts closest to the target, without the asker. */
void dht_serve_contacts(struct dht *dht, const struct dht_contact *from, const struct id *target, size_t wanted,
                        struct dht_message *answer);

/* ---- values.c ---- */

void dht_values_serve(struct dht *dht, const struct dht_contact *from, const struct dht_message *request);

/* ---- rows.c ---- */

/* A record as it is kept under its key: brief, so that it is sent as it is. */
struct dht_row {
    struct id member;
    uint8_t hash[DHT_DIGEST_BYTES]; /* BLAKE2b-128 of the brief form, once `hashed` */
    bool hashed;
    bool vouched;    /* the signature has been checked, or is ours */
    uint8_t told_by; /* gather.c: a bit for each source that has told it */
    uint16_t len;
    uint8_t brief[];
};

struct dht_held;
struct dht_many;

/* A row of an encoded record, not yet among others; NULL out of memory. */
struct dht_row *dht_row_new(const struct id *member, const uint8_t *bytes, size_t len_bytes, bool vouched);
/* Back to the whole record into ret_bytes: its length. */
size_t dht_row_bytes(const struct dht_held *held, const struct dht_row *row, uint8_t ret_bytes[LIMIT_DHT_RECORD_BYTES]);
void dht_row_decode(const struct dht_held *held, const struct dht_row *row, struct dht_record *ret_record);

void dht_rows_release(struct dht_held *held);
/* Borrowed until it is replaced or removed; NULL if there is none. */
struct dht_row *dht_rows_find(const struct dht_held *held, const struct id *member);
/* The row of the first member behind this one (NULL: of the first), or NULL. */
struct dht_row *dht_rows_after(const struct dht_held *held, const struct id *member);
/* Take over a row; the one of the same member is freed. 0, or ERR_NOMEM and nothing has changed. */
int dht_rows_set(struct dht_held *held, struct dht_row *row);
void dht_rows_remove(struct dht_held *held, const struct id *member);
/* BLAKE2b-128 over the hashes of all rows that have not lapsed, by member; zeros if there are none, and for leases.
 * *ret_until_wall_ms: the first of them lapses then. 0 or ERR_NOMEM. */
int dht_rows_digest(struct dht_held *held, uint64_t wall_ms, uint8_t ret_digest[DHT_DIGEST_BYTES],
                    uint64_t *ret_until_wall_ms);

/* Which rows, and in which order. But for DHT_BY_MEMBER it is the live members that are ordered: META and members that
 * it has cleared are left out. */
struct dht_pick {
    enum dht_order order;
    const struct dht_place *own;  /* of the reader, for DHT_BY_DISTANCE */
    const struct dht_rank *after; /* only what is beyond; NULL: from the first */
    const struct id *until;       /* no member beyond; NULL: to the last */
    uint64_t wall_ms;             /* what has lapsed by then is left out */
    uint64_t cleared_ms;          /* dht_meta_cleared_ms; members by hand that are not newer are left out */
    uint64_t *work;               /* rows looked at are added; NULL: not counted */
};

/* The first `max` of them, borrowed until something changes. */
size_t dht_rows_pick(const struct dht_held *held, const struct dht_pick *pick, struct dht_row **ret_rows, size_t max);

/* ---- hold.c ---- */

struct dht_watchers; /* watchers.c's */

/* What is known of one key: its records by member, and what others want to know of them. */
struct dht_held {
    struct tree_node in_order;
    struct id key;
    uint64_t touched_ms;           /* last time that somebody gave records of it to its holders */
    uint64_t earliest_wall_ms;     /* no record lapses before; may be too early */
    uint64_t deeper_until_ms;      /* see dht_hold_is_deeper */
    uint64_t digest_until_wall_ms; /* `digest` is that of the records until then; 0: to be made anew */
    struct dht_watchers *watchers; /* owned by watch.c, which keeps this alive with it */
    struct dht_row **few;          /* owned, by member; NULL while there are many */
    struct dht_many *many;         /* owned; NULL while there are few */
    uint32_t count;                /* records of this key */
    uint32_t cap;                  /* of few */
    uint8_t digest[DHT_DIGEST_BYTES];
};

struct dht_hold {
    struct map by_key;  /* to owned struct dht_held: one memory access where the tree needs a dozen */
    struct tree keys;   /* of the same, in order */
    struct map writers; /* public key to a count of records, kept in the pointer itself */
    size_t count;       /* records */
    size_t bytes;       /* of memory for all of it, about */
    uint64_t dropped;   /* keys of which nothing is held any more, so far */
    uint64_t work;      /* rows looked at for digests and orders so far, which a sender's allowance pays for */
};

int dht_hold_init(struct dht *dht, struct err *err);
void dht_hold_release(struct dht_hold *hold);
/* Join in an encoded record. first_hand: the authenticated sender is its writer, so the signature is not checked before
 * the record is given on (dht_hold_vouched). With DHT_STALE the newer one is appended to ret_newer (may be NULL). */
enum dht_store_status dht_hold_put(struct dht *dht, const uint8_t *bytes, size_t len_bytes, bool first_hand,
                                   struct buf *ret_newer);
/* 1 and the record, or 0. */
int dht_hold_get(struct dht *dht, const struct id *key, const struct id *member, struct dht_record *ret_record);
/* The same, encoded: appended to `out`. 1, 0 or ERR_NOMEM. */
int dht_hold_get_bytes(struct dht *dht, const struct id *key, const struct id *member, struct buf *out);
void dht_hold_remove(struct dht *dht, const struct id *key, const struct id *member);
/* Remove what has lapsed, but not our own values; afterwards earliest_wall_ms is exact. `held` may be gone then. */
void dht_hold_lapse(struct dht *dht, struct dht_held *held);
/* All that a revoked node wrote. */
void dht_hold_remove_writer(struct dht *dht, const struct id *writer);

/* What is known of a key, or NULL. It is gone with its last record, unless it has watchers. */
struct dht_held *dht_hold_of_key(struct dht *dht, const struct id *key);
/* The same, made without records if need be, to be watched; NULL out of memory. */
struct dht_held *dht_hold_make(struct dht *dht, const struct id *key);
/* Free it if it has neither records nor watchers. */
void dht_hold_drop_empty(struct dht *dht, struct dht_held *held);
/* The next key in the order of keys, at or (not inclusive) after this one; NULL at the end. Some have watchers and no
 * records. */
struct dht_held *dht_hold_next(struct dht *dht, const struct id *from_key, bool inclusive);

/* The encoded record is borrowed for the call. False ends the walk. */
typedef bool (*dht_hold_cb)(void *ctx, struct dht_held *held, const struct dht_record *record, const uint8_t *bytes,
                            size_t len_bytes);
/* The records of one key by member, lapsed ones included. The callback may change and remove what it likes. */
void dht_hold_each_of(struct dht *dht, struct dht_held *held, dht_hold_cb cb, void *ctx);

/* BLAKE2b-128 over the hashes (BLAKE2b-128 of all bytes) of the key's records in the order of members, leases and the
 * lapsed left out; zeros if there are none. Cached. */
void dht_hold_digest(struct dht *dht, struct dht_held *held, uint8_t ret_digest[DHT_DIGEST_BYTES]);
/* Is the record signed by its writer? To be asked before it is given to somebody who takes our word; checked once, and
 * removed if it is not. */
bool dht_hold_vouched(struct dht *dht, struct dht_held *held, const struct id *member);
/* The same of a row at hand, which stays. */
bool dht_hold_check(struct dht *dht, const struct dht_held *held, struct dht_row *row);
/* Records of this key were refused for lack of room during the last three days, or soon will be: others are in shards.
 */
bool dht_hold_is_deeper(const struct dht *dht, const struct dht_held *held);

/* ---- lookup.c ---- */

#define DHT_CANDIDATES 64
#define DHT_QUERIES_MAX                                                                                                \
    128 /* then a lookup ends with what it has: nearer and nearer strangers cannot keep it going                       \
         */

enum dht_candidate_state { DHT_NEW, DHT_ASKED, DHT_ASKED_SLOW, DHT_ANSWERED, DHT_FAILED };

struct dht_candidate {
    struct dht_contact contact;
    uint8_t state; /* enum dht_candidate_state */
    uint8_t walk;
    bool more;      /* of a read: it has more records than it told */
    bool ranked;    /* `last` is the rank of the last record that it told */
    bool paged;     /* and it has been asked for what is beyond `asked` */
    uint64_t told;  /* the sum of its records' marks */
    uint32_t total; /* records held */
    bool deeper;    /* and others in shards */
    bool surveyed;  /* its digest is known */
    uint8_t digest[DHT_DIGEST_BYTES];
    struct dht_rank last, asked;
};

struct dht_lookup;
/* The lookup is freed when this returns. */
typedef void (*dht_lookup_cb)(struct dht *dht, struct dht_lookup *lookup, void *owner);

struct dht_lookup {
    TAILQ_ENTRY(dht_lookup)
    link;
    struct id target;
    unsigned walks;
    struct dht_candidate candidates[DHT_CANDIDATES]; /* closest first */
    size_t candidate_count;
    unsigned queries;
    unsigned answers;
    unsigned pages; /* further ranges asked for and not answered */
    uint64_t deadline_ms;
    TAILQ_ENTRY(dht_lookup)
    stirred_link; /* something happened since it was looked at, */
    bool stirred;
    uint64_t stirred_round; /* in this round of ticks */
    bool starved;           /* could not ask, because too much was pending */
    bool finished;
    bool reads;   /* for records, else for contacts */
    bool surveys; /* with each holder's digest */
    struct dht_get_options options;
    struct dht_set found;
    dht_lookup_cb cb;
    void *owner; /* borrowed */
};

TAILQ_HEAD(dht_lookup_list, dht_lookup);

struct dht_lookups {
    struct dht_lookup_list all; /* owned */
    struct dht_lookup_list stirred;
    uint64_t round;  /* of ticks */
    uint64_t due_ms; /* none is late or starved before */
};

void dht_lookup_init(struct dht *dht);
void dht_lookup_release(struct dht *dht);

/* Walk towards `target` over so many disjoint paths; `options` NULL for contacts alone. A read over one path that finds
 * nothing starts again over four. NULL when out of memory. */
struct dht_lookup *dht_lookup_start(struct dht *dht, const struct id *target, unsigned walks,
                                    const struct dht_get_options *options, uint64_t timeout_ms, dht_lookup_cb cb,
                                    void *owner);
/* A read of the first few records by member that learns of each candidate how many it holds, and their digest. */
struct dht_lookup *dht_lookup_survey(struct dht *dht, const struct id *target, uint64_t timeout_ms, dht_lookup_cb cb,
                                     void *owner);
void dht_lookup_cancel(struct dht *dht, struct dht_lookup *lookup);
/* Are there shards? Two holders say so, or all that hold anything: one liar sends nobody to sixteen times as many. */
bool dht_lookup_is_deeper(const struct dht_lookup *lookup);
/* The closest that answered, or, if `all`, those too that were heard of and did not fail. */
size_t dht_lookup_closest(const struct dht_lookup *lookup, bool all, struct dht_contact *ret_contacts, size_t max);
/* Go on, give up what is too late and tell the owners of what is finished. */
void dht_lookup_tick(struct dht *dht);
uint64_t dht_lookup_next_ms(const struct dht *dht);

/* ---- alive.c ---- */

struct dht_alive;
TAILQ_HEAD(dht_alive_list, dht_alive);

struct dht_living {
    struct map members;          /* to struct dht_alive */
    struct dht_alive_list order; /* owned */
    size_t lookups, pings;       /* under way */
};

enum dht_liveness { DHT_ALIVE, DHT_DEAD, DHT_UNKNOWN_YET };

void dht_alive_init(struct dht *dht);
void dht_alive_release(struct dht *dht);
/* Does the member of this record live, and where? While that is being found out DHT_UNKNOWN_YET; dht_get_stir follows.
 */
enum dht_liveness dht_alive_ask(struct dht *dht, const struct dht_record *record, struct addr *ret_addr);
/* A lease came by; kept if it is somebody's latest. */
void dht_alive_note(struct dht *dht, const struct dht_record *lease);
void dht_alive_forget(struct dht *dht, const struct id *member);
/* The first address of a lease at which a node can be; family 0 if there is none. */
struct addr dht_alive_addr(const struct dht *dht, const struct dht_record *lease);

/* ---- get.c ---- */

struct dht_request;
TAILQ_HEAD(dht_requests, dht_request);

struct dht_gets {
    struct dht_requests requests; /* owned; dht_get and dht_find */
    size_t count;
    uint64_t last_request; /* of dht_collect too */
};

void dht_get_init(struct dht *dht);
void dht_get_release(struct dht *dht);
/* Something became known of who lives. */
void dht_get_stir(struct dht *dht);
void dht_get_tick(struct dht *dht);
uint64_t dht_get_next_ms(const struct dht *dht);

/* ---- gather.c: gather.h ---- */

struct dht_gather;
TAILQ_HEAD(dht_gathers, dht_gather);

/* ---- collect.c ---- */

struct dht_collecting;
TAILQ_HEAD(dht_collects, dht_collecting);

void dht_collect_init(struct dht *dht);
void dht_collect_release(struct dht *dht);
void dht_collect_cancel(struct dht *dht, uint64_t number);
void dht_collect_tick(struct dht *dht);
uint64_t dht_collect_next_ms(const struct dht *dht);

/* ---- watch.c ---- */

#define DHT_WATCH_HOLDERS 3

struct dht_watched;
TAILQ_HEAD(dht_watched_list, dht_watched);

struct dht_watching {
    struct map keys;              /* to struct dht_watched */
    struct dht_watched_list list; /* owned */
    size_t count;                 /* watches */
    uint64_t last_watch;
    size_t lookups;  /* under way */
    bool some_over;  /* watches to be freed */
    uint64_t due_ms; /* nothing is to be done before */
};

void dht_watch_init(struct dht *dht);
void dht_watch_release(struct dht *dht);
/* A NOTIFY came in. */
void dht_watch_serve_notify(struct dht *dht, const struct dht_contact *from, const struct dht_message *request);
/* A watched key's record changed in our own hold; its signature is known to be good. */
void dht_watch_hear(struct dht *dht, const struct id *key, const uint8_t *bytes, size_t len_bytes);
/* This was read of a key: is it what was there when we began to be told of changes? */
void dht_watch_read(struct dht *dht, struct dht_held *rows);
/* More of them changed than was kept: the key is read. */
void dht_watch_missed(struct dht *dht, const struct id *key);
void dht_watch_tick(struct dht *dht);
uint64_t dht_watch_next_ms(const struct dht *dht);

/* ---- watchers.c ---- */

#define DHT_WATCH_LEASE_MS 120000u
#define DHT_NOTIFY_WINDOW 8  /* NOTIFYs to one watcher that it has not answered */
#define DHT_CHANGES_KEPT 256 /* of one key, for watchers whose window is full */

struct dht_change;
TAILQ_HEAD(dht_changes, dht_change);

struct dht_watcher {
    struct dht_contact contact;
    uint64_t until_ms; /* of its lease */
    uint64_t next;     /* the first change that it has not been sent */
    uint8_t in_flight;
    bool slow; /* its last answer is overdue: one NOTIFY at a time until it comes */
};

/* Those who watch one key. Its changes are numbered when they have been vouched for; the upper half of the numbers is
 * random, so that those of another life are not taken for them. */
struct dht_watchers {
    TAILQ_ENTRY(dht_watchers)
    link;
    TAILQ_ENTRY(dht_watchers)
    stirred_link;
    struct dht_held *held; /* of the key; it keeps this, and is kept by it */
    bool stirred;
    bool self;         /* this node watches the key itself */
    bool lost;         /* more changed than was kept */
    uint64_t sequence; /* of the last change */
    uint64_t told;     /* of the last that this node itself was told of */
    bool surveyed;     /* the next two are known */
    uint32_t total;    /* records held */
    uint8_t digest[DHT_DIGEST_BYTES];
    struct dht_changes changes; /* owned; not sent to everybody, in order, those without a number last */
    size_t change_count;
    struct dht_watcher *items; /* owned */
    size_t count;
    size_t cap;
    size_t in_flight;
};

TAILQ_HEAD(dht_watchers_list, dht_watchers);

struct dht_notifying {
    struct dht_watchers_list all;     /* owned */
    struct dht_watchers_list stirred; /* something may be to be sent */
    size_t stirred_count;
    struct map sources; /* how many each node has; the count is in the pointer itself */
    size_t count;
    size_t in_flight;
    size_t change_bytes;
    uint64_t sweep_ms; /* leases are looked at then */
    uint64_t again_ms; /* what could not be sent is tried again */
};

void dht_watchers_init(struct dht *dht);
void dht_watchers_release(struct dht *dht);
/* A WATCH came in. */
void dht_watchers_serve(struct dht *dht, const struct dht_contact *from, const struct dht_message *request);
/* A record came into the hold, or replaced another. Told to all who watch its key, ourselves included, at the end of
 * the dht_input or dht_tick that we are in; nothing is called back from here, and the hold is not touched. */
void dht_watch_changed(struct dht *dht, struct dht_held *held, const struct dht_record *record, const uint8_t *bytes,
                       size_t len_bytes);
/* This node watches the key itself, or does so no more. 0 or ERR_NOMEM. */
int dht_watchers_self(struct dht *dht, const struct id *key, bool watches);
/* A revoked node watches nothing. */
void dht_watchers_forget(struct dht *dht, const struct id *node);
void dht_watchers_tick(struct dht *dht);
/* Send what changed. The last thing in each dht_input and dht_tick. */
void dht_watchers_flush(struct dht *dht);
uint64_t dht_watchers_next_ms(const struct dht *dht);

/* ---- dht.c ---- */

struct dht {
    struct dht_config config;
    struct dht_book *own_book; /* owned; NULL if config.book is somebody else's */
    struct dht_contact self;
    uint64_t now_ms;
    uint64_t wall_offset_ms; /* wall clock less now_ms, modulo 2^64 */
    struct map revoked;
    struct dht_table table;
    struct dht_rpcs rpcs;
    struct dht_placing placing;
    struct dht_allowance allowance;
    struct dht_hold hold;
    struct dht_lookups lookups;
    struct dht_living living;
    struct dht_gets gets;
    struct dht_gathers gathers;
    struct dht_collects collects;
    struct dht_regions regions;
    struct dht_pushes pushes;
    struct dht_stamps stamps;
    struct dht_publishing publishing;
    struct dht_giving giving;
    struct dht_leasing leasing;
    struct dht_reconciling reconciling;
    struct dht_compares compares;
    struct dht_sweep sweep;
    struct dht_watching watching;
    struct dht_notifying notifying;
    struct dht_upkeep upkeep;
    struct dht_lost lost;
    struct dht_stats stats;
};

/* Every public call begins with this. */
void dht_set_now(struct dht *dht, uint64_t now_ms);
uint64_t dht_wall_ms(const struct dht *dht);
bool dht_is_revoked(const struct dht *dht, const struct id *id);
/* Who wrote it, that is, whatever member it speaks of. */
bool dht_is_by_revoked(const struct dht *dht, const struct dht_record *record);
/* May this contact, which somebody else told us of, be talked to? Not ourselves, not the revoked, only addresses where
 * a node can be, and this machine's loopback only if we are there ourselves. */
bool dht_contact_is_acceptable(const struct dht *dht, const struct dht_contact *contact);
/* A moment between 3/4 and 5/4 of `ms` from now. */
uint64_t dht_jittered_ms(struct dht *dht, uint64_t ms);

/* How the ticks stay cheap, as dht_next_ms is called after every packet: each module keeps one `wake_ms`, never later
 * than the first thing that it has to do, and lowers it with this when something comes up. Its tick returns at once
 * before that moment, and else does what is due and works the moment out anew; its next_ms only returns it. */
static inline void dht_wake_by(uint64_t *wake_ms, uint64_t ms)
{
    if (ms < *wake_ms)
        *wake_ms = ms;
}

static inline uint64_t dht_min_ms(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
