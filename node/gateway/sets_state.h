/* What the files of struct sets share: sets.c (lifecycle, asking, time), sets_live.c (what comes from the mesh and goes
 * there), sets_write.c. */
#pragma once

#include <stddef.h>

#include "node/gateway/sets.h"

TAILQ_HEAD(set_list, set);
TAILQ_HEAD(member_list, set_member);

struct sets {
    struct sets_config config;
    struct ledger *ledger;   /* owned */
    struct names names;      /* of the sets, owned */
    struct set_list used;    /* least recently used first */
    struct set_list loading; /* in the order in which they were asked for */
    struct set_list unsaid_sets;
    struct member_list unsaid; /* in the order of their commits */
    size_t unsaid_count;
    size_t member_count;
    size_t opening; /* of `loading`, those that the mesh is reading */
    size_t live;
    uint64_t written;
    uint64_t said_written; /* the same when the mesh was last given something */
    uint64_t bad_rows;
    uint64_t say_ms; /* nothing is given to the mesh before */
    uint64_t commit_ms;
    uint64_t sweep_ms;
    bool closing;
};

static inline uint64_t sets_mono_ms(const struct sets *sets)
{
    return clock_mono_ms(&sets->config.clock);
}

static inline struct set *sets_set_of(struct name *name)
{
    return (struct set *)((char *)name - offsetof(struct set, name));
}

static inline struct set_member *sets_member_of(struct name *name)
{
    return (struct set_member *)((char *)name - offsetof(struct set_member, name));
}

/* Was anything in it, or about it, written here? */
static inline bool sets_is_own(const struct set *set)
{
    return set->own_count > 0 || set->meta_own;
}

/* ---- sets_live.c ---- */

/* Queue what the mesh is to be given when the commit is durable, or take it out again. */
void sets_say_member(struct sets *sets, struct set_member *member, uint64_t commit);
void sets_unsay_member(struct sets *sets, struct set_member *member);
void sets_say_set(struct sets *sets, struct set *set, uint64_t commit);
void sets_unsay_set(struct sets *sets, struct set *set);
/* Give the mesh what is durable, a bounded share of it. */
void sets_say(struct sets *sets);
bool sets_has_to_say(const struct sets *sets);

/* Forget a member, and its row. */
void sets_forget_member(struct sets *sets, struct set_member *member);
/* Forget what was cleared, or has expired. */
void sets_purge(struct sets *sets, struct set *set);
/* No longer keep the set live. */
void sets_let_go(struct sets *sets, struct set *set);
/* And only what was written here stays. */
void sets_forget_foreign(struct sets *sets, struct set *set);
void sets_drop(struct sets *sets, struct set *set);
/* Only what was written here stays; of a set in which nothing was, nothing does. */
void sets_cool(struct sets *sets, struct set *set);
/* Cool the set that was not used for longest, among those that are kept live if `live`. False: there is none. */
bool sets_cool_oldest(struct sets *sets, bool live, const struct set *spared);
/* It is in the list of those used lately no longer. */
void sets_unuse(struct sets *sets, struct set *set);

void sets_begin_loading(struct sets *sets, struct set *set);
void sets_open_queued(struct sets *sets);
bool sets_knows_something(const struct set *set);

/* ---- sets_write.c ---- */

int sets_write_meta(struct sets *sets, struct set *set, uint64_t cleared_ms, uint64_t expires_ms, struct err *err);
