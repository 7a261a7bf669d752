/*
 * The registry as this node sees it: sorted sets by name, answered from memory.
 *
 * A set that is asked for is read whole from the mesh once and kept live by a watch from then on; when nobody has asked
 * for ten minutes only what was written here stays. What is written here changes the set at once, is durable when its
 * commit is (ledger.h), and is given to the mesh after that. The mesh is a struct of functions: struct sets_mesh.
 *
 * One thread. Wall times are for expiry and versions, monotonic ones for waiting.
 *
 * 1. Members that were written here are never dropped by lack of use, and are said to the mesh again after a restart.
 * 2. A writing function changes nothing when it fails.
 * 3. A set is looked at after sets_want has said SETS_READY, in the same turn.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/jobs.h"
#include "node/gateway/ledger.h"
#include "node/gateway/set.h"

struct sets;

/* What the registry wants of the mesh. */
struct sets_mesh {
    /* The next version, higher than all that were seen or given. */
    struct dht_version (*stamp)(void *ctx);
    /* Begin to watch a set and to read it whole: sets_took for each thing read or changed, sets_opened at the end of
     * the reading, both also from within. ERR_LIMIT: too many are open. `set` lives until close. */
    int (*open)(void *ctx, struct sets *sets, struct set *set, void **ret_handle, struct err *err);
    /* Nothing comes any more. */
    void (*close)(void *ctx, void *handle);
    /* Give what was written here to the mesh, which keeps it there from now on. A failure is tried again. */
    int (*write)(void *ctx, const struct set *set, const struct set_change *change, struct err *err);
    void *ctx; /* borrowed */
};

struct sets_config {
    struct sets_mesh mesh;
    struct ledger_disk disk;
    struct jobs jobs;
    struct clock clock;
    uint64_t seed; /* of hashes */
    /* A set that was waited for is there, or is not to be waited for any longer. Never from within sets_want. */
    void (*ready)(void *ctx);
    /* A commit ended: sets_durable has grown (status 0), or what waits for it will not be durable soon. */
    void (*committed)(void *ctx, int status, const struct err *err);
    void *ctx; /* borrowed */
};

/* Reads the ledger. */
int sets_new(const struct sets_config *config, struct sets **ret_sets, struct err *err);
/* Stop asking the mesh, and write what has gathered; free when sets_closed. */
void sets_close(struct sets *sets);
bool sets_closed(const struct sets *sets);
void sets_free(struct sets *sets);

/* Do what is due; returns when to call again, on the monotonic clock. */
uint64_t sets_tick(struct sets *sets);
/* Write what has gathered; to be called when the work of one turn of the loop is done. */
void sets_commit(struct sets *sets);

/* ---- asking ---- */

enum sets_state {
    SETS_READY,   /* look at it */
    SETS_WAIT,    /* it is being read: ask again after `ready` */
    SETS_UNKNOWN, /* the mesh could not be read, and nothing is known here */
    SETS_FULL,    /* LIMIT_SETS are in memory, and none can go */
};
/* Have a set in memory. *ret_set is set for SETS_READY; it may be empty, which to a client is the same as none. */
enum sets_state sets_want(struct sets *sets, const void *name, size_t name_len, struct set **ret_set);

/* All sets in memory that have living members: those used lately, or written here. */
size_t sets_count(struct sets *sets);
typedef void (*sets_each_cb)(void *ctx, struct set *set);
/* Some of them, and the next cursor, as names_scan. */
uint64_t sets_scan(struct sets *sets, uint64_t cursor, sets_each_cb cb, void *ctx);

/* Milliseconds that the set has left, -1: no end. */
int64_t sets_ttl_ms(const struct sets *sets, const struct set *set);
uint64_t sets_wall_ms(const struct sets *sets);

/* ---- writing: 0, or ERR_NOMEM or ERR_LIMIT ---- */

int sets_put(struct sets *sets, struct set *set, const void *name, size_t name_len, double score, struct err *err);
int sets_remove(struct sets *sets, struct set *set, struct set_member *member, struct err *err);
/* All of them, and the expiry. */
int sets_clear(struct sets *sets, struct set *set, struct err *err);
/* Let it be gone at `wall_ms`; 0: never. */
int sets_expire(struct sets *sets, struct set *set, uint64_t wall_ms, struct err *err);

/* How often something was written: a caller sees by it whether its work needs a commit. */
uint64_t sets_written(const struct sets *sets);
/* The commit that what is written now will be part of, and the last one that is durable. */
uint64_t sets_gathering(const struct sets *sets);
uint64_t sets_durable(const struct sets *sets);
/* Nothing more should be written until `committed`. */
bool sets_is_full(const struct sets *sets);
/* Nothing should be written: the ledger cannot be, why. NULL: all is well. */
const struct err *sets_failure(const struct sets *sets);

/* ---- for struct sets_mesh ---- */

void sets_took(struct sets *sets, struct set *set, const struct set_change *change);
/* The reading is over; a negative status: it may be incomplete. What was read is good for good_ms and then to be read
 * again; 0: it is kept live. */
void sets_opened(struct sets *sets, struct set *set, int status, uint64_t good_ms);

struct sets_stats {
    size_t sets;     /* in memory */
    size_t members;  /* tombstones included */
    size_t own_sets; /* with members written here */
    size_t live;     /* watched */
    size_t unsaid;   /* not given to the mesh yet */
    uint64_t durable;
    uint64_t bad_rows; /* found damaged at the start */
};
void sets_stats(const struct sets *sets, struct sets_stats *ret_stats);
