/*
 * What a store is made of, for the files of this folder.
 *
 * Locks, in the order in which they may be taken (each may be skipped, none may be taken against the order):
 *   assembly locks, rot.take_lock < packs.rotate_lock < gc.run_lock < gc.gate < LMDB's write lock < packs.lock,
 * gc.hold_lock, pending.lock, gone.lock
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "node/base/map.h"
#include "store/db.h"
#include "store/pack.h"
#include "store/store.h"

struct store_packs {
    pthread_mutex_t rotate_lock; /* held while a new pack is made */
    pthread_mutex_t lock;        /* the rest of this struct */
    struct store_pack *active;   /* owned reference; NULL until something is written */
    struct store_pack **written; /* owned references: the active one and those with records not yet committed */
    size_t written_count;
    struct store_pack *cached[32]; /* owned references: lately read, latest first */
    uint64_t last_number;
};

struct store_gc {
    pthread_mutex_t hold_lock;
    struct map holds;      /* id -> how often it is held, as a number; under hold_lock */
    pthread_rwlock_t gate; /* exclusive while orphans are freed, shared while a dedup decision is made */
    pthread_mutex_t run_lock;
    atomic_bool passed_over; /* orphans were left alone because they were held */
};

struct store_pending {
    pthread_mutex_t lock;
    struct map by_id; /* id -> owned struct store_pending_piece, the first of a list; under lock */
};

struct store_rot_state {
    pthread_mutex_t take_lock;
    atomic_uint_fast64_t waiting; /* rows of the rot table */
    atomic_uint_fast64_t found;   /* moves before pieces are forgotten: who relies on some looks again when it has */
};

struct store_gone {
    pthread_mutex_t lock;
    struct id digests[STORE_GONE_MAX]; /* a ring */
    size_t first, count;
};

/* How far a scrub has come. */
struct store_scrub_mark {
    unsigned type; /* of the last piece that was looked at, 0 before the first of a pass */
    struct id id;  /* likewise */
    struct store_scrub now;
};

struct store_scrub_state {
    atomic_bool is_busy;  /* a step runs */
    pthread_mutex_t lock; /* the rest, briefly */
    struct store_scrub_mark mark;
    uint64_t saved_ms; /* monotonic */
};

struct store {
    char *dir;       /* owned */
    char *packs_dir; /* owned */
    int lock_fd;     /* owned; DIR/lock */
    struct clock clock;
    uint64_t quota_bytes;
    uint64_t floor_bytes;
    uint64_t pack_bytes;
    struct store_db *db; /* owned */
    bool is_scratch;     /* an index in the making (fsck.c): no pack is touched */
    struct store_packs packs;
    struct store_gc gc;
    struct store_pending pending;
    struct store_rot_state rot;
    struct store_gone gone;
    struct store_scrub_state scrub;
    atomic_uint_fast64_t live_bytes;      /* in packs, committed */
    atomic_uint_fast64_t pending_bytes;   /* in packs, not yet committed */
    atomic_uint_fast64_t unchecked_bytes; /* written since the free disk was last looked at */
};
