/*
 * Records of our own: the clock that stamps them, what is kept alive, what is given away when; and our lease.
 */
#pragma once

#include <sys/queue.h>

#include "dht/record.h"
#include "node/base/map.h"
#include "node/base/tree.h"

/* ---- stamp.c ---- */

struct dht_stamps {
    struct dht_version last;    /* the last one that was given */
    struct dht_version by_hand; /* the last one given or seen of those; lower, if the clock was set back */
    uint64_t saved_ms;          /* no epoch up to this one is used after a restart */
};

int dht_stamp_restore(struct dht *dht, struct err *err);
/* The next stamp as one number, for versions that count only; what storage->save returned. */
int dht_stamp_counter(struct dht *dht, uint64_t *ret_counter);
/* A stamp of somebody came by, in a record by hand: ours are higher from now on. One that is further ahead of our wall
 * clock than half of DHT_SKEW_MS moves nothing. */
void dht_publish_seen(struct dht *dht, const struct dht_version *version);

/* ---- publish.c ---- */

/* Where an entry is on its way: give.c. */
enum dht_entry_state {
    DHT_ENTRY_IDLE,
    DHT_ENTRY_FRESH,
    DHT_ENTRY_DUE,
    DHT_ENTRY_PAUSED,
    DHT_ENTRY_WALKING,
    DHT_ENTRY_SENDING,
    DHT_ENTRY_CHECKING
};

struct dht_draft;

struct dht_record_place {
    struct id at; /* the record's key */
    struct id member;
};

/* One record of ours that is to be given away, or kept alive. */
struct dht_published {
    struct tree_node by_place;
    struct tree_node in_queue; /* FRESH, DUE */
    TAILQ_ENTRY(dht_published)
    link; /* PAUSED */
    struct id key;
    struct id at; /* the record's key: the same, or that of a shard */
    struct id member;
    struct dht_draft *draft; /* owned: not signed yet; NULL: the hold has it */
    dht_done_cb done;        /* NULL once called */
    void *done_ctx;          /* borrowed */
    uint64_t again_ms;       /* PAUSED */
    uint64_t renew_wall_ms;  /* to be signed anew then */
    uint8_t kind;
    uint8_t depth;  /* of the shard; 0: none */
    uint8_t state;  /* enum dht_entry_state */
    uint8_t pauses; /* in a row */
    bool counted;   /* its versions are ours to choose */
    bool keeps;     /* to be renewed while we live; else forgotten once it has been given away */
    bool check;     /* DUE: the holders may have it */
    bool again;     /* SENDING, CHECKING: written anew meanwhile */
};

TAILQ_HEAD(dht_published_list, dht_published);

struct dht_publishing {
    struct tree entries; /* of owned struct dht_published, by (at, member) */
    struct map deep;     /* keys whose holders are full, to the depth of shards at which there was room */
};

int dht_publish_init(struct dht *dht, struct err *err);
void dht_publish_release(struct dht *dht);
/* Append the record to be sent, signed now if it was written since or is a day old. ERR_NOTFOUND: there is none any
 * more, as somebody else's is newer or it has lapsed. ERR_INVALID: nobody would take it now, as our clock was set back
 * and it is from the future. */
int dht_publish_encode(struct dht *dht, struct dht_published *entry, struct buf *out);
/* So many holders have accepted it: tells who wrote it, who may call anything but dht_free. The entry may be gone. */
void dht_publish_given(struct dht *dht, struct dht_published *entry, size_t accepted);
/* Its holders are full: it is a record of the next deeper shard from now on. False if that cannot be. */
bool dht_publish_goes_deeper(struct dht *dht, struct dht_published *entry);
/* Is this, of a holder, the same or a newer record? */
bool dht_publish_is_told(struct dht *dht, const struct dht_published *entry, const struct dht_span *brief);
/* A held record of ours has lapsed: it is renewed if it is to be kept alive, and else removed. */
void dht_publish_lapsed(struct dht *dht, const struct dht_record *record);
/* What is a day old of the next so many entries is to be renewed. True when those were the last ones. */
bool dht_publish_sweep(struct dht *dht, struct dht_record_place *cursor, size_t max);
/* The holders have a newer record of ours, so signed, than we sent them: our storage or clock went back. */
void dht_publish_overtaken(struct dht *dht, const struct dht_record *newer);

/* ---- give.c ---- */

#define DHT_PAUSES 10

struct dht_giving {
    struct tree fresh; /* of entries, by (at, member) */
    struct tree due;
    struct dht_published_list paused[DHT_PAUSES]; /* by pauses in a row, the first to go on first */
    struct id fresh_cursor;
    struct id cursor; /* of those that are due; outlives the process */
    bool joined;      /* as upkeep.c said when it was last looked at */
    bool due_walks;
    uint64_t due_ms; /* none is due before */
    size_t checks;
    size_t sending;
    bool starved; /* more could not be sent; when a parcel has arrived it can */
    uint64_t wake_ms;
};

void dht_give_init(struct dht *dht);
/* It has a new value, or is to be sent anyway. */
void dht_give_soon(struct dht *dht, struct dht_published *entry);
/* In its turn, if it is idle; `check`: only if the closest holder does not have it. */
void dht_give_later(struct dht *dht, struct dht_published *entry, bool check);
void dht_give_stop(struct dht *dht, struct dht_published *entry);
void dht_give_tick(struct dht *dht);
uint64_t dht_give_next_ms(const struct dht *dht);

/* ---- lease.c ---- */

struct dht_leasing {
    bool joined;    /* as upkeep.c said when it was last looked at */
    bool announced; /* since we joined, at this address */
    uint64_t due_ms;
};

/* The record of a LEASE message. */
void dht_lease_input(struct dht *dht, const struct dht_contact *from, const struct dht_span *span);
/* Our address is another one. */
void dht_lease_moved(struct dht *dht);
/* Holders have a newer lease of ours than we have. */
void dht_lease_overtaken(struct dht *dht, const struct dht_record *newer);
void dht_lease_tick(struct dht *dht);
uint64_t dht_lease_next_ms(const struct dht *dht);
