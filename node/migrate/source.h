/*
 * The source's side of one migration: the state machine that source.c drives. Not for other folders.
 *
 *  ADMIT -> SNAPSHOT -> OFFER -> COPY -> STOP -> DIFFERENCE -> RESTORE -> COMMIT -> ANNOUNCE -> FINISH -> (done)
 *    |          |         |        |       |         |            |        |
 *    +----------+---------+--------+       +---------+------------+--------+
 *             ABANDON                               RETURN -> ABANDON
 *  (nothing has stopped: tell the destination)   (restore here from the own checkpoint first)
 *
 * Each step starts one thing and ends in source_advance or source_fail. From ANNOUNCE on nothing fails: it is tried
 * again. The steps until the container has stopped are in source.c, those after it in source_end.c.
 */
#pragma once

#include "node/base/scope.h"
#include "node/migrate/state.h"

#define SOURCE_PATIENCE_MS 10000 /* the other side may be cut off for this long before the commit */

enum source_step {
    ADMIT,
    SNAPSHOT,
    OFFER,
    COPY,
    STOP,
    DIFFERENCE,
    RESTORE,
    COMMIT,
    ANNOUNCE,
    FINISH,
    DONE,
    RETURN,
    ABANDON
};

struct source {
    TAILQ_ENTRY(source)
    entry;
    struct migrate *owner;
    struct guid id;
    struct id target;
    struct guid container;
    char name[NAME_MAX_BYTES + 1];    /* of the container */
    uint64_t epoch;                   /* that the destination is to run it with */
    char policy[MIGRATE_POLICY_SIZE]; /* "": the destination's own */
    struct migrate_watch watch;
    enum source_step step;
    bool cancelled;
    struct err err; /* why it failed */

    struct manifest manifest; /* of the step: first the running copy, then the final one */
    struct store_version version;
    char *work;    /* owned: directory with the dumps */
    uint64_t seen; /* of the destination's reports */
    uint64_t wait_until_ms;
    bool commit_tried; /* the journal may say "committed" */
    unsigned returns;  /* times that it could not be run here again */
    unsigned announcements;
    uint64_t announce_ms; /* until the next announcement, if this one fails */

    /* for the job under way */
    void (*work_fn)(struct source *source);
    void (*done_fn)(struct source *source);
    int job_status;
    struct err job_err;

    /* for the report */
    uint64_t started_ms, stopped_ms, running_ms, phase_ms;
    json_t *phases;    /* owned */
    json_t *costs;     /* owned: the destination's account, or NULL */
    unsigned attempts; /* to be admitted */
};

/* `epoch` is the one that the destination is to run the container with; `name` is its name, or its id. */
struct source *source_new(struct migrate *migrate, const struct guid *id, const struct id *target,
                          const struct guid *container, const char *name, uint64_t epoch);
struct source *source_find(struct migrate *migrate, const struct guid *id);
struct source *source_of_container(struct migrate *migrate, const struct guid *container);
/* Tell the watch how it ended, and free it. */
void source_close(struct source *source);

/* Go to a step, to the one after this, or back. */
void source_run(struct source *source, enum source_step step);
void source_advance(struct source *source);
void source_fail(struct source *source, const struct err *err);

/* Run `work` as a job, then `done` on the loop. */
void source_start_job(struct source *source, void (*work)(struct source *source), void (*done)(struct source *source));
/* `id` is added to the body. */
void source_call(struct source *source, const char *method, json_t *body, migrate_reply_cb reply);
void source_note_costs(struct source *source, const json_t *reply);
uint64_t source_now(const struct source *source);
int source_journal(struct source *source, enum journal_state state, struct err *err);
/* Allocated path of the last dump. */
char *source_final_images(const struct source *source);
/* Disk that is set aside while a container is away from its place, so that it can be taken back on a full disk. */
char *source_reserve_path(const struct source *source);

/* source_snapshot.c: begin the manifest of a snapshot, which gets its version here; then, once the container has been
 * dumped into `images`, add all that moves: after the last dump nothing runs any more while the volumes are read. */
int source_snapshot_begin(struct source *source, bool final, struct err *err);
int source_snapshot_pack(struct source *source, const char *images, struct err *err);

/* The steps of source_end.c. */
void source_end_commit(struct source *source);
void source_end_announce(struct source *source);
void source_end_finish(struct source *source);
void source_end_return(struct source *source);
void source_end_abandon(struct source *source);
