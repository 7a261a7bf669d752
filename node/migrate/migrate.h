/*
 * Migrations: moving a running container with its volumes and memory to another node, so that exactly one copy runs.
 *
 * The source coordinates, the destination takes part; both are here. Owns the state machines, their journal (store
 * table "migrate") and DIR/migrate/<id>/. Talks to other nodes only through struct migrate_ops, so that tests can lose,
 * delay and cut what they like. All on one thread; what blocks goes through jobs.
 *
 * 1. Until the source has journalled "committed" the destination runs nothing: its restored tasks are stopped.
 * 2. Once the source has journalled "committed" it never runs the container again by itself.
 * 3. A destination that is prepared decides nothing alone: it waits for the source's verdict, after a restart too. A
 *    source that does not know a migration answers "aborted" (presumed abort; Mohan and Lindsay 1983).
 * 4. Any failure before the commit ends with the container running at the source.
 * 5. A destination acts only on manifests signed by the source of the migration, and on objects that fit their digests.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/clock.h"
#include "node/base/crypto.h"
#include "node/base/err.h"
#include "node/base/id.h"
#include "node/base/jobs.h"
#include "node/runtime/runtime.h"
#include "store/store.h"

struct migrate;

/* Store references that keep the snapshots of this node; the names are GUIDs of volumes or containers. The value of a
 * checkpoint's is the service's name. */
#define MIGRATE_REF_VOLUME 16
#define MIGRATE_REF_CHECKPOINT 17

/* What an object of a migration is for. */
#define MIGRATE_ROLES(X)                                                                                               \
    X(MIGRATE_IMAGE, "image")           /* manifest, config, layers; documents of the layout that it came in */        \
    X(MIGRATE_ORIGIN, "origin")         /* which layout that was */                                                    \
    X(MIGRATE_VOLUME, "volume")         /* archive of a read-write or read-only volume */                              \
    X(MIGRATE_WRITABLE, "writable")     /* archive of the container's writable layer and log */                        \
    X(MIGRATE_CHECKPOINT, "checkpoint") /* archive of CRIU's images but for the pages */                               \
    X(MIGRATE_PAGES, "pages")           /* one pages-N.img */

enum migrate_role {
#define X(name, text) name,
    MIGRATE_ROLES(X)
#undef X
        MIGRATE_ROLE_COUNT
};

struct migrate_object {
    enum migrate_role role;
    enum store_kind kind;
    struct id digest;
    uint64_t size_bytes;
    char name[64]; /* volumes: the GUID; pages: the file name; else empty */
};
#define MIGRATE_MAX_OBJECTS 512

/* What one fetch has cost, for the report. */
struct migrate_share {
    struct id node;
    uint64_t bytes;
};
struct migrate_cost {
    uint64_t fetched_bytes;             /* of the object */
    uint64_t wire_bytes;                /* as sent */
    const struct migrate_share *shares; /* borrowed for the callback */
    size_t share_count;
};

/* `reply` is borrowed and NULL when status is negative. */
typedef void (*migrate_reply_cb)(void *ctx, int status, const struct err *err, const json_t *reply);
typedef void (*migrate_fetch_progress_cb)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
typedef void (*migrate_fetch_done_cb)(void *ctx, int status, const struct err *err, const struct migrate_cost *cost);

/* An answer that is owed to another node: exactly one of the two is called. `reply` is stolen. */
struct migrate_answer {
    void (*reply)(void *ctx, json_t *reply);
    void (*refuse)(void *ctx, const struct err *err);
    void *ctx;
};

/* An object that is needed here. All is borrowed for the call. */
struct migrate_wanted {
    const struct migrate_object *object;
    const struct id *basis; /* what stood for the same thing in the round before; NULL: nothing did */
    bool frozen;            /* the container is stopped and waits for it */
    const struct runtime_container *container;
    const struct id *origin; /* the migration's source */
    const char *policy;      /* which other holders are turned to, as the user wrote it; NULL: this node's own */
};
#define MIGRATE_POLICY_SIZE 128

struct migrate_ops {
    /* Ask another node, trying again (dialling if needed) until patience_ms have passed without an answer. The callback
     * comes once, never from inside. A refusal by the other node is final and carries its code. `body` is stolen. */
    void (*call)(void *ctx, const struct id *node, const char *method, json_t *body, uint64_t patience_ms,
                 migrate_reply_cb reply, void *reply_ctx);
    /* Bring an object here from whoever has it, or has an older version of it. The callback comes once, never from
     * inside, unless fetch_cancel comes first. */
    int (*fetch)(void *ctx, const struct migrate_wanted *wanted, migrate_fetch_progress_cb progress,
                 migrate_fetch_done_cb done, void *done_ctx, void **ret_handle, struct err *err);
    void (*fetch_cancel)(void *ctx, void *handle);
    /* This node holds a snapshot or checkpoint of the container in this version: tell the mesh. */
    void (*publish)(void *ctx, const struct migrate_object *object, const struct runtime_container *container,
                    struct store_version version);
    void (*sign)(void *ctx, const void *data, size_t len_bytes, uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES]);
    /* Call back once after delay_ms. */
    void (*after)(void *ctx, uint64_t delay_ms, void (*cb)(void *cb_ctx), void *cb_ctx);
    /* "name (short id)" of a node for messages; returns `text`. */
    const char *(*node_name)(void *ctx, const struct id *node, char *text, size_t text_size);
    void *ctx; /* borrowed */
};

struct migrate_config {
    const char *dir; /* the node's state directory; copied */
    struct id self;
    struct store *store;     /* borrowed */
    struct runtime *runtime; /* borrowed */
    struct jobs jobs;
    struct clock clock;
    struct migrate_ops ops;
};

/* What a checkpoint of the container is found under besides the container itself: the service's name in the DHT, image,
 * NUL, user (the application's is the image alone). Appended to `name`, at most MIGRATE_SERVICE_BYTES. */
#define MIGRATE_SERVICE_BYTES (2 * (NAME_MAX_BYTES + 1))
void migrate_service_name(const struct runtime_container *container, struct buf *name);

int migrate_new(const struct migrate_config *config, struct migrate **ret_migrate, struct err *err);
/* No job may be under way (see migrate_busy). What is unfinished goes on from the journal next time. */
void migrate_free(struct migrate *migrate);
/* Read the journal: take back, go on committing, or ask for verdicts. Blocks for the reading only. */
int migrate_recover(struct migrate *migrate, struct err *err);
/* Start no further steps; migrations before their commit end in ERR_CANCELLED as soon as their step is over. */
void migrate_stop(struct migrate *migrate);
/* Jobs under way, and migrations that have not come to rest: neither ended nor waiting for another node's verdict. */
size_t migrate_busy(const struct migrate *migrate);

/* ---- the source ---- */

struct migrate_watch {
    /* Both optional, on the loop. Phases: admit, copy, stop, difference, restore, commit, and on failure return. */
    void (*on_phase)(void *ctx, const char *phase, uint64_t done_bytes, uint64_t total_bytes, uint64_t rate);
    /* The end. `report` (borrowed) also on failure, as far as it came; err is NULL on success. */
    void (*on_done)(void *ctx, const struct err *err, const json_t *report);
    void *ctx; /* borrowed */
};

/* What a user asks for. All is borrowed for the call. */
struct migrate_order {
    const char *container; /* name or id */
    struct id target;
    const char
        *policy; /* what the destination chooses its providers by; travels as text. NULL: the destination's own */
};
/* Begin to move a running container of this node. ERR_CONFLICT if it does not run or is being moved already,
 * ERR_INVALID if the policy has MIGRATE_POLICY_SIZE bytes or more. */
int migrate_start(struct migrate *migrate, const struct migrate_order *order, const struct migrate_watch *watch,
                  struct guid *ret_id, struct err *err);
/* Give up, if the commit has not been reached; the watch is told. */
void migrate_cancel(struct migrate *migrate, const struct guid *id);
/* Nobody watches any more; the migration goes on. */
void migrate_unwatch(struct migrate *migrate, const struct guid *id);

/* ---- removal by force ---- */

/* Whether an INCOMING or OUTGOING container may be removed by force; others always may. ERR_CONFLICT while its
 * migration can come to an end by itself. What waits here for a source that is silent is given up with this call: it
 * will not run here any more. On the loop; migrate_remove comes next. */
int migrate_give_up(struct migrate *migrate, const char *container, struct err *err);
/* Remove an INCOMING or OUTGOING container with its last checkpoint and its volumes. If its hand-over was committed the
 * destination is still told so. 1 if it was one of these, 0 if not: then nothing was done. For jobs. */
int migrate_remove(struct migrate *migrate, const char *container, struct err *err);

/* ---- requests of other nodes ---- */

/* A call whose method begins with "migrate.". `peer` and `public_key` were proven by the session. */
void migrate_request(struct migrate *migrate, const struct id *peer, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES],
                     const char *method, const json_t *body, const struct migrate_answer *answer);
