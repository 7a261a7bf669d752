/*
 * The destination's side of one migration: the state machine that target.c drives. Not for other folders.
 *
 *  ADMITTED --copy--> COPYING --all here, unpacked--> COPIED --restore--> RESTORING --restored, stopped--> PREPARED
 *      |                 |                              |                     |                               |
 *      +-----------------+------------ failure, abort or a silent source -----+-------> FAILED   verdict or commit
 *                                                       (all of it is discarded)                              |
 *                                                                               RUNNING <---resumed--- COMMITTED
 *
 * FAILED and RUNNING are forgotten once everything is tidied up and the source knows. Requests of the source and what
 * happens after a restart are in target_requests.c, the unpacking in target_copy.c.
 */
#pragma once

#include "node/migrate/state.h"

#define TARGET_STATES(X)                                                                                               \
    X(ADMITTED, "admitted")                                                                                            \
    X(COPYING, "copying")                                                                                              \
    X(COPIED, "copied")                                                                                                \
    X(RESTORING, "restoring")                                                                                          \
    X(PREPARED, "prepared")                                                                                            \
    X(COMMITTED, "committed")                                                                                          \
    X(RUNNING, "running")                                                                                              \
    X(FAILED, "failed")
enum target_state {
#define X(name, text) name,
    TARGET_STATES(X)
#undef X
};
const char *target_state_name(enum target_state state);

struct fetching {
    struct target *target;
    void *handle; /* NULL when done */
    uint64_t done_bytes;
};

struct target {
    TAILQ_ENTRY(target)
    entry;
    struct migrate *owner;
    struct guid id;
    struct id source;
    uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES];
    enum target_state state;
    struct err err; /* of FAILED */
    struct guid container;
    bool have_container; /* known to the runtime: to be discarded on failure */
    struct manifest manifest;
    struct manifest earlier; /* the copy round's, while the final one is followed */
    struct store_version version;
    uint64_t epoch;                   /* to run with */
    char *work;                       /* owned */
    char policy[MIGRATE_POLICY_SIZE]; /* of the user who moves it; "": this node's own */

    struct fetching *fetches; /* owned, one an object of the manifest */
    size_t fetches_left;
    uint64_t done_bytes, total_bytes, fetch_started_ms;

    struct migrate_answer waiter; /* of a "wait"; reply NULL: none */
    uint64_t seen, told_ms;
    uint64_t heard_ms;    /* of the source */
    uint64_t retry_ms;    /* at least until the next try of what has failed or was not answered */
    uint64_t retry_at_ms; /* when that is */
    bool settled;         /* RUNNING, and the journal says so */
    bool asking;          /* for the verdict */
    bool job_running;
    bool abort_wanted; /* when the job is over */
    bool done_wanted;  /* the same; the source has forgotten the migration */
    bool gone;         /* to be freed by the next tick that finds nothing under way */
    int job_status;
    struct err job_err;
    struct migrate_answer commit_answer; /* owed to a "commit" */

    uint64_t bytes[3]; /* layers, volumes, checkpoint */
    json_t *by_peer;   /* owned */
};

struct target *target_new(struct migrate *migrate, const struct guid *id, const struct id *source,
                          const struct guid *container);
uint64_t target_now(const struct target *target);

/* What the source is told of costs; a new object. */
json_t *target_costs(const struct target *target);
/* Answer the "wait" that is owed, if one is. */
void target_answer_waiter(struct target *target);
void target_enter(struct target *target, enum target_state state);

/* Each begins what its name says; no job may be running. */
void target_fetch_all(struct target *target);
/* Adopt the image, make the container and fill its volumes; the result is in target->job_status. In target_copy.c. */
void target_copy_work(void *arg);
/* The volumes and the writable layer as the manifest has them. Blocks. */
int target_copy_volumes(struct target *target, struct err *err);
void target_fail(struct target *target, const struct err *err);
void target_commit(struct target *target);
void target_forget(struct target *target);
void target_ask_verdict(struct target *target);
