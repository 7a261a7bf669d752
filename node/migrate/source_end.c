/* A migration at its source once the container has stopped: hand it over, or run it here again; and after a restart. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/log.h"
#include "node/migrate/source.h"

OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)

#define ANNOUNCE_RETRY_MS 1000
#define ANNOUNCE_RETRY_MAX_MS 30000
#define RETURN_TRIES 3
#define RETURN_RETRY_MS 2000

/* ---- commit ---- */

static void work_commit(struct source *source)
{
    source->job_status = source_journal(source, JOURNAL_COMMITTED, &source->job_err);
}

static void on_committed(struct source *source)
{
    if (source->job_status < 0)
        source_fail(source, &source->job_err);
    else
        source_advance(source);
}

void source_end_commit(struct source *source)
{
    source->commit_tried = true;
    source_start_job(source, work_commit, on_committed);
}

/* ---- announce: until the destination has confirmed ---- */

static void announce_again(void *ctx)
{
    source_run(ctx, ANNOUNCE);
}

static void on_announced(void *ctx, int status, const struct err *err, const json_t *reply)
{
    struct source *source = ctx;
    if (status == 0) {
        source->running_ms = source_now(source);
        source_note_costs(source, reply);
        source_advance(source);
        return;
    }
    log_warn("migrate", "the destination has not confirmed the commit, trying again container=%s why=\"%s\"",
             source->name, err->text);
    if (source->owner->stopping) {
        err_set(&source->err, ERR_CANCELLED, "the node stops; the container is handed over when it starts again");
        source_close(source);
        return;
    }
    uint64_t delay_ms = source->announce_ms ? source->announce_ms : ANNOUNCE_RETRY_MS;
    source->announce_ms = 2 * delay_ms < ANNOUNCE_RETRY_MAX_MS ? 2 * delay_ms : ANNOUNCE_RETRY_MAX_MS;
    const struct migrate_ops *ops = &source->owner->config.ops;
    ops->after(ops->ctx, delay_ms, announce_again, source);
}

void source_end_announce(struct source *source)
{
    source->announcements++;
    source_call(source, "migrate.commit", json_pack("{s:I}", "epoch", (json_int_t)source->epoch), on_announced);
}

/* ---- finish ---- */

static void on_told(void *ctx, int status, const struct err *err, const json_t *reply)
{
    (void)ctx;
    (void)reply;
    if (status < 0)
        log_debug("migrate", "the destination did not hear the end why=\"%s\"", err->text);
}

/* Tell the destination how it ended without waiting for an answer: whoever has not heard it asks. */
static void tell_end(struct source *source, const char *method)
{
    char id[GUID_TEXT_SIZE];
    const struct migrate_ops *ops = &source->owner->config.ops;
    json_t *body = json_pack("{s:s, s:s}", "id", guid_text(&source->id, id), "why", source->err.text);
    ops->call(ops->ctx, &source->target, method, body, SOURCE_PATIENCE_MS, on_told, NULL);
}

/* The last snapshots become caches only now: while the container stood still there was no time for it. */
static void keep_last(struct source *source)
{
    struct err err;
    if (source->manifest.final && migrate_keep_all(source->owner, &source->manifest, source->version, &err) < 0)
        log_warn("migrate", "the last snapshots are not kept container=%s why=\"%s\"", source->name, err.text);
}

/* Of this migration: the container may have come back meanwhile, in a later epoch. */
static int discard(struct source *source, struct err *err)
{
    struct runtime *runtime = source->owner->config.runtime;
    OWNED(owned_container) struct runtime_container *now = NULL;
    char id[GUID_TEXT_SIZE];
    int status = runtime_get(runtime, guid_text(&source->container, id), &now, err);
    if (status == ERR_NOTFOUND || (status == 0 && (now->state != RUNTIME_OUTGOING || now->epoch >= source->epoch)))
        return 0;
    return status < 0 ? status : runtime_discard(runtime, &source->container, true, err);
}

static void work_finish(struct source *source)
{
    struct err *err = &source->job_err;
    keep_last(source);
    int status = discard(source, err);
    if (status == 0)
        status = migrate_forget(source->owner, JOURNAL_SOURCE, &source->id, err);
    source->job_status = status;
}

/* The destination may forget the migration only after its source has: else nobody could confirm the commit to a source
 * that was killed in between. */
static void on_finished(struct source *source)
{
    if (source->job_status == 0)
        tell_end(source, "migrate.done");
    else
        log_error("migrate", "cannot tidy up after a migration, will be repeated at the next start why=\"%s\"",
                  source->job_err.text);
    source_run(source, DONE);
}

void source_end_finish(struct source *source)
{
    source_start_job(source, work_finish, on_finished);
}

/* ---- return: run the container here again, from the last dump ---- */

static int take_back(struct source *source, struct err *err)
{
    struct runtime *runtime = source->owner->config.runtime;
    OWNED(owned_container) struct runtime_container *now = NULL;
    OWNED(owned_free) char *images = source_final_images(source);
    OWNED(owned_free) char *reserve = source_reserve_path(source);
    char id[GUID_TEXT_SIZE];
    if (!images || !reserve)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    int status = runtime_get(runtime, guid_text(&source->container, id), &now, err);
    if (status == ERR_NOTFOUND || (status == 0 && now->state != RUNTIME_OUTGOING))
        return 0; /* it never stopped, or ended or was removed before that */
    unlink(reserve);
    if (status == 0)
        status = runtime_restore(runtime, &now->id, images, err);
    if (status == 0 || status == ERR_BUSY) /* busy: the dump has not ended it */
        status = runtime_resume(runtime, &now->id, now->epoch, err);
    return status;
}

/* A commit that failed to be written may all the same have reached the disk: the journal is set back first, and if that
 * fails nothing runs. */
static void work_return(struct source *source)
{
    int status = 0;
    if (source->commit_tried)
        status = source_journal(source, JOURNAL_STOPPED, &source->job_err);
    source->commit_tried = source->commit_tried && status < 0;
    if (status == 0)
        status = take_back(source, &source->job_err);
    source->job_status = status;
}

static void return_again(void *ctx)
{
    source_end_return(ctx);
}

static void on_returned(struct source *source)
{
    const struct migrate_ops *ops = &source->owner->config.ops;
    source->running_ms = source_now(source);
    if (source->job_status == 0) {
        source_run(source, ABANDON);
        return;
    }
    log_error("migrate", "cannot run the container here again container=%s why=\"%s\" dump=%s/final", source->name,
              source->job_err.text, source->work);
    if (++source->returns < RETURN_TRIES && !source->owner->stopping) {
        ops->after(ops->ctx, RETURN_RETRY_MS, return_again, source);
        return;
    }
    err_wrap(&source->err,
             "the container could not be run here again (%s); its last checkpoint is kept in '%s/final' and tried "
             "again when the node starts, 'cmig rm -f' gives it up; the migration failed because",
             source->job_err.text, source->work);
    source_close(source);
}

void source_end_return(struct source *source)
{
    source_start_job(source, work_return, on_returned);
}

/* ---- abandon ---- */

static void work_abandon(struct source *source)
{
    keep_last(source);
    source->job_status = migrate_forget(source->owner, JOURNAL_SOURCE, &source->id, &source->job_err);
}

static void on_abandoned(struct source *source)
{
    if (source->job_status < 0)
        log_warn("migrate", "cannot tidy up after a failed migration, will be repeated at the next start why=\"%s\"",
                 source->job_err.text);
    source_close(source);
}

void source_end_abandon(struct source *source)
{
    tell_end(source, "migrate.abort");
    source_start_job(source, work_abandon, on_abandoned);
}

/* ---- after a restart ---- */

static void recover_committed(void *ctx)
{
    source_run(ctx, ANNOUNCE);
}

static void recover_stopped(void *ctx)
{
    struct source *source = ctx;
    err_set(&source->err, ERR_CANCELLED, "the node was restarted in the middle of the migration");
    source_run(source, RETURN);
}

/* Nothing to run and nothing to hand over: unless the container is there and its record cannot be read. */
static int recover_nothing(struct migrate *migrate, const struct journal_row *row, struct err *err)
{
    OWNED(owned_free) char *work = migrate_work_dir(migrate, JOURNAL_SOURCE, &row->id);
    OWNED(owned_free) char *images = work ? file_path("%s/final", work) : NULL;
    if (!images)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    if (!file_exists(images))
        return migrate_forget(migrate, JOURNAL_SOURCE, &row->id, err);
    log_error("migrate", "the container of a migration cannot be found, its last checkpoint is kept dump=%s", images);
    return 0;
}

int source_recover(struct migrate *migrate, const struct journal_row *row, struct err *err)
{
    OWNED(owned_container) struct runtime_container *container = NULL;
    const struct migrate_ops *ops = &migrate->config.ops;
    bool committed = row->state == JOURNAL_COMMITTED;
    char id[GUID_TEXT_SIZE];
    int status = runtime_get(migrate->config.runtime, guid_text(&row->container, id), &container, err);
    if (status == ERR_NOTFOUND && !committed)
        return recover_nothing(migrate, row, err);
    if (status < 0 && status != ERR_NOTFOUND)
        return status;
    struct source *source =
        source_new(migrate, &row->id, &row->peer, &row->container, container ? container->spec.name : id, row->epoch);
    if (!source)
        return err_set(err, ERR_NOMEM, "no memory for a migration");
    ops->after(ops->ctx, 0, committed ? recover_committed : recover_stopped, source);
    return 0;
}

/* ---- what destinations ask after their restart ---- */

/* Whether it is known not to wait here for a return: one whose record cannot be read may. */
static bool is_settled(struct migrate *migrate, const struct journal_row *row)
{
    OWNED(owned_container) struct runtime_container *now = NULL;
    char id[GUID_TEXT_SIZE];
    if (runtime_get(migrate->config.runtime, guid_text(&row->container, id), &now, NULL) < 0)
        return row->state == JOURNAL_COPYING;
    return now->state != RUNTIME_OUTGOING;
}

/* "pending" as long as the journal is being written, or is about to be: what can be read of it may not be durable. */
static const char *verdict_of(struct migrate *migrate, const struct journal_row *row)
{
    const struct source *source = source_find(migrate, &row->id);
    if (source && source->step == ABANDON)
        return "aborted";
    if (source && (source->step <= COMMIT || source->step == RETURN))
        return "pending";
    if (row->state == JOURNAL_COMMITTED)
        return "committed";
    return is_settled(migrate, row) ? "aborted" : "pending";
}

void source_answer_verdict(struct migrate *migrate, const struct id *peer, const json_t *body,
                           const struct migrate_answer *answer)
{
    struct guid id;
    struct journal_row row;
    struct err err;
    const char *text = json_string_value(json_object_get(body, "id"));
    if (!text || !guid_parse(text, &id)) {
        migrate_refuse(answer, ERR_INVALID, "the question names no migration");
        return;
    }
    int found = journal_read(migrate->config.store, JOURNAL_SOURCE, &id, &row, &err);
    if (found < 0) {
        answer->refuse(answer->ctx, &err);
        return;
    }
    bool known = found && id_equal(&row.peer, peer);
    answer->reply(answer->ctx, json_pack("{s:s, s:I}", "verdict", known ? verdict_of(migrate, &row) : "aborted",
                                         "epoch", (json_int_t)(known ? row.epoch : 0)));
}

bool source_is_busy(struct migrate *migrate, const struct guid *container)
{
    const struct source *source = source_of_container(migrate, container);
    return source && (source->step != ANNOUNCE || source->announcements < 2);
}
