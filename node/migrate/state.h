/* What the rooms of a migration share: the owner, steps that run as jobs, and the journal. Not for other folders. */
#pragma once

#include <sys/queue.h>

#include "node/migrate/manifest.h"

struct source;
struct target;
TAILQ_HEAD(source_list, source);
TAILQ_HEAD(target_list, target);

struct migrate {
    struct migrate_config config;
    char *dir; /* owned: DIR/migrate */
    struct source_list sources;
    struct target_list targets;
    size_t jobs_running;
    bool stopping;
};

/* ---- journal: store table "migrate", one row a migration and side; durable when these return; for jobs ---- */

enum journal_side { JOURNAL_SOURCE = 's', JOURNAL_TARGET = 't' };
/* X(name, text): COPYING: nothing has stopped. STOPPED: the source's container is down. PREPARED: the destination is
 * restored and waits. COMMITTED: the container is the destination's. RUNNING: at the destination, it has been let run;
 * what becomes of it from now on is no longer this migration's business. */
#define JOURNAL_STATES(X)                                                                                              \
    X(JOURNAL_COPYING, "copying")                                                                                      \
    X(JOURNAL_STOPPED, "stopped")                                                                                      \
    X(JOURNAL_PREPARED, "prepared")                                                                                    \
    X(JOURNAL_COMMITTED, "committed")                                                                                  \
    X(JOURNAL_RUNNING, "running")
enum journal_state {
#define X(name, text) name,
    JOURNAL_STATES(X)
#undef X
};

struct journal_row {
    enum journal_side side;
    enum journal_state state;
    struct guid id;
    struct guid container;
    struct id peer; /* the other side */
    uint64_t epoch; /* that the destination runs with */
};

int journal_write(struct store *store, const struct journal_row *row, struct err *err);
int journal_remove(struct store *store, enum journal_side side, const struct guid *id, struct err *err);
/* 1 and the row, or 0. Cheap enough for the loop. */
int journal_read(struct store *store, enum journal_side side, const struct guid *id, struct journal_row *ret_row,
                 struct err *err);
/* All rows, allocated into *ret_rows (free). One that cannot be read is logged and left out. */
int journal_all(struct store *store, struct journal_row **ret_rows, size_t *ret_count, struct err *err);

/* ---- steps ---- */

/* Allocated "DIR/migrate/<id>-<side>": what a migration keeps on disk besides objects. */
char *migrate_work_dir(const struct migrate *migrate, enum journal_side side, const struct guid *id);
/* Remove that directory, then the row. For jobs. */
int migrate_forget(struct migrate *migrate, enum journal_side side, const struct guid *id, struct err *err);

/* References and records for all snapshots of a manifest, in this version. For jobs. */
int migrate_keep_all(struct migrate *migrate, const struct manifest *manifest, struct store_version version,
                     struct err *err);
/* Tell the mesh about all snapshots of a manifest. On the loop. */
void migrate_publish_all(struct migrate *migrate, const struct manifest *manifest, struct store_version version);

/* source.c, source_end.c */
int source_recover(struct migrate *migrate, const struct journal_row *row, struct err *err);
void source_free_all(struct migrate *migrate);
size_t source_count(const struct migrate *migrate);
void source_answer_verdict(struct migrate *migrate, const struct id *peer, const json_t *body,
                           const struct migrate_answer *answer);
/* Whether a migration of the container is under way that has not yet begun to wait for its destination. */
bool source_is_busy(struct migrate *migrate, const struct guid *container);

/* target.c, target_requests.c */
int target_recover(struct migrate *migrate, const struct journal_row *row, struct err *err);
void target_free_all(struct migrate *migrate);
void target_request(struct migrate *migrate, const struct id *peer, const uint8_t *public_key, const char *method,
                    const json_t *body, const struct migrate_answer *answer);
void target_stop_all(struct migrate *migrate);
/* Those whose end is not in the journal yet. */
size_t target_unsettled(const struct migrate *migrate);
/* Stop waiting for the source of a container, or trying to run it; false if that is too early. */
bool target_give_up(struct migrate *migrate, const struct guid *container);

void migrate_refuse(const struct migrate_answer *answer, int code, const char *text);
