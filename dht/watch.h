/*
 * The inside of watches, for watch*.c.
 *
 * watch.c has the keys and the watches of them, and tells; watch_holders.c finds holders that tell us of changes and
 * keeps them; watch_cover.c knows when changes may have been missed, and reads the key then.
 */
#pragma once

#include "dht/internal.h"
#include "dht/numbers.h"

#define DHT_WATCH_SEEN 64
#define DHT_WATCH_SEEN_BYTES 16

struct dht_watch {
    TAILQ_ENTRY(dht_watch)
    link;
    uint64_t number;
    bool over; /* freed by the next tick */
    dht_watch_cb changed;
    void *ctx; /* borrowed */
};

enum dht_holder_state { DHT_HOLDER_NONE, DHT_HOLDER_ASKED, DHT_HOLDER_TELLS };

struct dht_holder {
    struct dht_contact contact;
    enum dht_holder_state state;
    uint64_t since_ms; /* it tells us of changes */
    uint64_t renew_ms;
    struct dht_numbers numbers; /* of the changes that it tells */
    bool deeper;                /* it says that there are shards */
    bool is_quiet;              /* it has told none since it said `digest`, of all that it holds */
    uint8_t digest[DHT_DIGEST_BYTES];
};

struct dht_watched {
    TAILQ_ENTRY(dht_watched)
    link;
    struct dht *dht;
    struct id key;
    TAILQ_HEAD(, dht_watch) watches; /* owned; of a shard none */
    struct dht_watched *set;         /* whose shard this is; itself for a key that was asked for */
    unsigned depth;                  /* of the shard */
    struct id prefix;                /* the members in it begin with so many half bytes of this */
    bool divided;                    /* its shards are watched too */

    struct dht_holder holders[DHT_WATCH_HOLDERS];
    struct dht_contact candidates[DHT_REPLICAS];
    size_t candidate_count;
    size_t candidate_next;
    struct dht_lookup *lookup;
    uint64_t missing_ms; /* the next lookup if all candidates have failed */
    uint64_t look_ms;    /* the next one in any case */
    unsigned look_tries;

    uint64_t covered_ms; /* changes until then are known or on the way; 0: no holder has told us yet */
    uint64_t whole_ms;   /* of a set: so are those until then, by reading */
    bool missed;         /* the whole is to be read */
    bool reading;
    uint64_t request;
    uint64_t read_ms;   /* not before */
    uint64_t differ_ms; /* likewise, because holders differ: they will reconcile */

    /* Did anything change between a caller's reading and our being told? The digest of what was read, and that of the
     * first holder when it began to tell. */
    bool has_read_digest, has_first_digest;
    uint8_t read_digest[DHT_DIGEST_BYTES], first_digest[DHT_DIGEST_BYTES];

    uint8_t seen[DHT_WATCH_SEEN][DHT_WATCH_SEEN_BYTES]; /* hashes of the last records told */
    size_t seen_next;
};

/* ---- watch.c ---- */

/* Look at the watches again, not before at_ms and soon after it. */
void dht_watch_due(struct dht *dht, uint64_t at_ms);
struct dht_watched *dht_watch_find(const struct dht *dht, const struct id *key);
/* Tell those who watch the set. */
void dht_watch_tell(struct dht_watched *set, const struct dht_record *record);
/* The holders are full: the shards are watched from now on, as many as there is room for. */
void dht_watch_divide(struct dht *dht, struct dht_watched *watched);

/* ---- watch_holders.c ---- */

/* One that was asked or tells; NULL if the node is neither. */
struct dht_holder *dht_watch_find_holder(struct dht_watched *watched, const struct id *node);
/* It is to tell us no more. */
void dht_watch_stop_holder(struct dht *dht, struct dht_watched *watched, struct dht_holder *holder);
/* Renew, replace and look for holders, as it is due. */
void dht_watch_keep_holders(struct dht *dht, struct dht_watched *watched);

/* ---- watch_cover.c ---- */

/* The whole is to be read. */
void dht_watch_miss(struct dht *dht, struct dht_watched *watched);
/* The holder has agreed to tell us, or to go on. */
void dht_watch_note_agreed(struct dht *dht, struct dht_watched *watched, struct dht_holder *holder,
                           const struct dht_message *reply);
/* It has told so many changes, from this number on. */
void dht_watch_note_told(struct dht *dht, struct dht_watched *watched, struct dht_holder *holder, uint64_t sequence,
                         size_t count);
/* It tells us no more. */
void dht_watch_note_gone(struct dht *dht, struct dht_watched *watched);
/* Find what is missing, and read, as it is due. */
void dht_watch_mend(struct dht *dht, struct dht_watched *watched);
