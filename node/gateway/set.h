/*
 * One sorted set as this node sees it: members by (score, bytes), by name, and the state of the set itself.
 *
 * Pure data: no clock, no network, no disk. What comes from anywhere is joined: of two versions of a member the greater
 * stays, of two equal ones a tombstone. A set that was cleared or has expired hides what was written before; what is
 * hidden is forgotten by set_purge.
 *
 * 1. `order` holds the living members; `members` holds tombstones too, which keep older versions from coming back.
 * 2. No member has a version.epoch at or below `floor`.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "dht/dht.h"
#include "node/base/tree.h"
#include "node/gateway/names.h"

/* Something that was said of a set, here or elsewhere: of a member, or, if `meta`, of the set itself. */
struct set_change {
    const void *name; /* borrowed: the member's */
    size_t name_len;
    double score;
    struct dht_version version;
    bool tombstone;
    bool meta;
    uint64_t cleared_ms; /* wall; members written until then are gone */
    uint64_t expires_ms; /* wall, 0: never; when it has come, members written until then are gone */
};

struct set;

struct set_member {
    struct tree_node node;
    struct name name;
    struct set *set; /* borrowed */
    double score;
    struct dht_version version;
    bool tombstone;
    bool own;    /* the version was written here */
    bool unsaid; /* in the queue of what the mesh has not been given yet */
    uint64_t commit;
    TAILQ_ENTRY(set_member)
    unsaid_entry;
    char bytes[]; /* of the name, and a NUL */
};

/* How much of the mesh's set this is, and what is to be done with it. */
struct set_life {
    void *handle;     /* the mesh's, while the set is kept live; NULL: it is not */
    bool queued;      /* to be opened as soon as there is a turn */
    bool loading;     /* queued or being read: in the list of these */
    bool known;       /* was read whole since it is kept live */
    bool late;        /* nobody waits for the reading any longer */
    bool used;        /* in the list of those that were used lately */
    bool in_ledger;   /* what was said of the set itself is in the ledger */
    bool meta_unsaid; /* in the queue of those whose state the mesh has not been given yet */
    uint64_t meta_commit;
    uint64_t deadline_ms;
    uint64_t retry_ms; /* not to be read again before */
    uint64_t good_ms;  /* what was read is not good for longer; 0: it is kept live */
    uint64_t used_ms;
    TAILQ_ENTRY(set)
    used_entry;
    TAILQ_ENTRY(set)
    loading_entry;
    TAILQ_ENTRY(set)
    unsaid_entry;
};

struct set {
    struct name name;
    struct id id; /* dht_key of DHT_SET and the name */
    struct tree order;
    struct names members;
    size_t own_count; /* members with `own` */

    struct dht_version meta_version; /* {0, 0}: nothing was said of the set itself */
    uint64_t cleared_ms;
    uint64_t expires_ms;
    uint64_t floor; /* version.epoch up to which members are forgotten */
    bool meta_own;  /* that version was written here */

    /* The rest belongs to sets.c. */
    struct set_life life;
    char bytes[]; /* of the name, and a NUL */
};

/* Empty. NULL: no memory. */
struct set *set_new(const void *name, size_t name_len, uint64_t seed);
void set_free(struct set *set);

/* Called for each member that is about to be forgotten, for good. */
typedef void (*set_forget_cb)(void *ctx, struct set_member *member);

/* The member of that name, made as a tombstone without a version if there is none. NULL: no memory. */
struct set_member *set_reserve(struct set *set, const void *name, size_t name_len);
/* Take in what was said of a member; returns the member if that changed anything, or NULL. ERR_NOMEM counts as no
 * change: the DHT will say it again. */
struct set_member *set_join(struct set *set, const struct set_change *change);
/* The same for what was said of the set itself; true if it changed anything. *ret_forgotten: members that it brings
 * back were forgotten, and have to be read again. */
bool set_join_meta(struct set *set, const struct set_change *change, bool *ret_forgotten);
/* Forget what was cleared, or has expired at `wall_ms`. */
void set_purge(struct set *set, uint64_t wall_ms, set_forget_cb forget, void *ctx);
/* Forget one member, living or not. */
void set_forget(struct set *set, struct set_member *member);

struct set_member *set_find(const struct set *set, const void *name, size_t name_len); /* living, or NULL */
struct set_member *set_find_any(const struct set *set, const void *name, size_t name_len);

static inline size_t set_count(const struct set *set)
{
    return tree_count(&set->order);
}

/* The living member of that rank, or NULL. */
static inline struct set_member *set_at(const struct set *set, size_t rank)
{
    return TREE_OF(tree_at(&set->order, rank), struct set_member, node);
}

/* ---- ranges: half-open intervals of ranks ---- */

struct set_range {
    size_t begin, end; /* begin <= end <= count */
};

/* Scores from min to max, each included or not. */
struct set_scores {
    double min, max;
    bool min_excluded, max_excluded;
};
struct set_range set_range_of_scores(const struct set *set, const struct set_scores *scores);

/* One end of an interval of names: before everything, after everything, or at a name, included or not. */
struct set_bound {
    enum { SET_BOUND_LEAST, SET_BOUND_MOST, SET_BOUND_NAME } kind;
    const void *name; /* borrowed */
    size_t name_len;
    bool excluded;
};
/* Names from min to max, in a set whose members all have one score. */
struct set_range set_range_of_names(const struct set *set, const struct set_bound *min, const struct set_bound *max);
