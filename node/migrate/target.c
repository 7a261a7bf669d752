#include "node/migrate/target.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/file.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/migrate/bundle.h"

OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)

#define TICK_MS 2000
#define SOURCE_SILENT_MS 60000 /* before it is prepared: then it is given up */
#define VERDICT_SILENT_MS 5000 /* when prepared: then the source is asked */
#define VERDICT_PATIENCE_MS 2000
#define RETRY_MAX_MS 60000
#define PROGRESS_STEP_MS 200 /* between two reports of progress alone */

const char *target_state_name(enum target_state state)
{
    static const char *const names[] = {
#define X(name, text) [name] = text,
        TARGET_STATES(X)
#undef X
    };
    return names[state];
}

/* ---- reports to the source ---- */

uint64_t target_now(const struct target *target)
{
    return clock_mono_ms(&target->owner->config.clock);
}

/* What of the container, as the manifest of now has it, did not have to come. */
static uint64_t local_bytes(const struct target *target)
{
    uint64_t size = 0;
    uint64_t moved = target->bytes[0] + target->bytes[1] + target->bytes[2];
    for (size_t i = 0; i < target->manifest.count; i++)
        size += target->manifest.objects[i].size_bytes;
    return size > moved ? size - moved : 0;
}

json_t *target_costs(const struct target *target)
{
    return json_pack("{s:{s:I, s:I, s:I}, s:O, s:I}", "bytes", "layers", (json_int_t)target->bytes[0], "volumes",
                     (json_int_t)target->bytes[1], "checkpoint", (json_int_t)target->bytes[2], "bytes_by_peer",
                     target->by_peer, "local_bytes", (json_int_t)local_bytes(target));
}

void target_answer_waiter(struct target *target)
{
    if (!target->waiter.reply)
        return;
    struct migrate_answer answer = target->waiter;
    target->waiter = (struct migrate_answer){0};
    uint64_t now = target_now(target);
    uint64_t spent = now > target->fetch_started_ms ? now - target->fetch_started_ms : 1;
    json_t *reply = json_pack("{s:s, s:I, s:I, s:I, s:I, s:o}", "state", target_state_name(target->state), "seen",
                              (json_int_t)target->seen, "done_bytes", (json_int_t)target->done_bytes, "total_bytes",
                              (json_int_t)target->total_bytes, "rate", (json_int_t)(target->done_bytes * 1000 / spent),
                              "costs", target_costs(target));
    if (target->state == FAILED) {
        json_object_set_new(reply, "code", json_string(err_name(target->err.code)));
        json_object_set_new(reply, "message", json_string(target->err.text));
    }
    target->told_ms = now;
    answer.reply(answer.ctx, reply);
}

void target_enter(struct target *target, enum target_state state)
{
    target->state = state;
    target->seen++;
    target_answer_waiter(target);
}

/* ---- jobs ---- */

static void start_job(struct target *target, job_work_cb work, job_done_cb done)
{
    target->job_running = true;
    target->owner->jobs_running++;
    err_clear(&target->job_err);
    target->job_status = 0;
    jobs_submit(&target->owner->config.jobs, work, done, target);
}

static void job_over(struct target *target)
{
    target->job_running = false;
    target->owner->jobs_running--;
}

/* Whether what goes wrong again and again may be tried now; each try doubles the time to the next. */
static bool may_retry(struct target *target)
{
    uint64_t now = target_now(target);
    if (now < target->retry_at_ms)
        return false;
    target->retry_ms = target->retry_ms == 0 ? TICK_MS : 2 * target->retry_ms;
    target->retry_ms = target->retry_ms < RETRY_MAX_MS ? target->retry_ms : RETRY_MAX_MS;
    target->retry_at_ms = now + target->retry_ms;
    return true;
}

static void reset_retry(struct target *target)
{
    target->retry_ms = target->retry_at_ms = 0;
}

/* ---- giving up ---- */

/* Only what this migration has brought: not a container that waits here to be handed over to somebody else. */
static int discard_container(struct target *target, struct err *err)
{
    struct runtime *runtime = target->owner->config.runtime;
    OWNED(owned_container) struct runtime_container *now = NULL;
    char id[GUID_TEXT_SIZE];
    int status = runtime_get(runtime, guid_text(&target->container, id), &now, err);
    if (status == ERR_NOTFOUND || (status == 0 && now->state != RUNTIME_INCOMING))
        return 0;
    return status < 0 ? status : runtime_discard(runtime, &target->container, true, err);
}

static void work_discard(void *arg)
{
    struct target *target = arg;
    int status = target->have_container ? discard_container(target, &target->job_err) : 0;
    if (status == 0)
        status = migrate_forget(target->owner, JOURNAL_TARGET, &target->id, &target->job_err);
    target->job_status = status;
}

static void on_discarded(void *arg)
{
    struct target *target = arg;
    job_over(target);
    if (target->job_status < 0)
        log_error("migrate", "cannot tidy up after a failed migration, trying again why=\"%s\"", target->job_err.text);
    else
        target->gone = true; /* the tick keeps it for a while, so that the source can ask why */
}

static void discard(struct target *target)
{
    start_job(target, work_discard, on_discarded);
}

static void cancel_fetches(struct target *target)
{
    const struct migrate_ops *ops = &target->owner->config.ops;
    for (size_t i = 0; target->fetches && i < target->manifest.count; i++)
        if (target->fetches[i].handle)
            ops->fetch_cancel(ops->ctx, target->fetches[i].handle);
    free(target->fetches);
    target->fetches = NULL;
    target->fetches_left = 0;
}

void target_fail(struct target *target, const struct err *err)
{
    char id[GUID_TEXT_SIZE];
    log_warn("migrate", "not taken id=%s why=\"%s\"", guid_text(&target->id, id), err->text);
    target->err = *err;
    cancel_fetches(target);
    target_enter(target, FAILED);
    reset_retry(target);
    discard(target);
}

/* ---- fetching all objects of a manifest ---- */

static void note_cost(struct target *target, const struct migrate_object *object, const struct migrate_cost *cost)
{
    static const int kind_of_role[] = {[MIGRATE_IMAGE] = 0,    [MIGRATE_ORIGIN] = 0,     [MIGRATE_VOLUME] = 1,
                                       [MIGRATE_WRITABLE] = 1, [MIGRATE_CHECKPOINT] = 2, [MIGRATE_PAGES] = 2};
    target->bytes[kind_of_role[object->role]] += cost->fetched_bytes;
    for (size_t i = 0; i < cost->share_count; i++) {
        char id[ID_HEX_SIZE];
        id_hex(&cost->shares[i].node, id);
        json_int_t before = json_integer_value(json_object_get(target->by_peer, id));
        if (cost->shares[i].bytes > 0)
            json_object_set_new(target->by_peer, id, json_integer(before + (json_int_t)cost->shares[i].bytes));
    }
}

static void all_fetched(struct target *target);

static void on_fetched(void *ctx, int status, const struct err *err, const struct migrate_cost *cost)
{
    struct fetching *fetching = ctx;
    struct target *target = fetching->target;
    const struct migrate_object *object = &target->manifest.objects[fetching - target->fetches];
    fetching->handle = NULL;
    if (status < 0) {
        struct err wrapped = *err;
        err_wrap(&wrapped, "cannot fetch a %s of the container", migrate_role_name(object->role));
        target_fail(target, &wrapped);
        return;
    }
    note_cost(target, object, cost);
    target->done_bytes += object->size_bytes - fetching->done_bytes;
    fetching->done_bytes = object->size_bytes;
    if (--target->fetches_left == 0)
        all_fetched(target);
}

static void on_fetch_progress(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
    struct fetching *fetching = ctx;
    struct target *target = fetching->target;
    (void)total_bytes;
    target->done_bytes += done_bytes - fetching->done_bytes;
    fetching->done_bytes = done_bytes;
    if (target_now(target) >= target->told_ms + PROGRESS_STEP_MS) {
        target->seen++;
        target_answer_waiter(target);
    }
}

/* What stood for the object in the round before. */
static const struct id *basis_of(const struct target *target, const struct migrate_object *object)
{
    for (size_t i = 0; i < target->earlier.count; i++) {
        const struct migrate_object *before = &target->earlier.objects[i];
        if (before->role == object->role && strcmp(before->name, object->name) == 0 &&
            !id_equal(&before->digest, &object->digest))
            return &before->digest;
    }
    return NULL;
}

void target_fetch_all(struct target *target)
{
    const struct migrate_ops *ops = &target->owner->config.ops;
    const struct manifest *manifest = &target->manifest;
    struct err err = {0};
    target->fetch_started_ms = target_now(target);
    target->done_bytes = target->total_bytes = 0;
    target->fetches = calloc(manifest->count, sizeof *target->fetches);
    if (!target->fetches)
        err_set(&err, ERR_NOMEM, "no memory for fetching");
    target->fetches_left = manifest->count;
    for (size_t i = 0; !err.code && i < manifest->count; i++) {
        struct fetching *fetching = &target->fetches[i];
        fetching->target = target;
        target->total_bytes += manifest->objects[i].size_bytes;
        struct migrate_wanted wanted = {.object = &manifest->objects[i],
                                        .basis = basis_of(target, &manifest->objects[i]),
                                        .frozen = manifest->final,
                                        .container = manifest->container,
                                        .origin = &target->source,
                                        .policy = target->policy[0] ? target->policy : NULL};
        ops->fetch(ops->ctx, &wanted, on_fetch_progress, on_fetched, fetching, &fetching->handle, &err);
    }
    if (err.code)
        target_fail(target, &err);
}

/* ---- making it real ---- */

static int write_journal(struct target *target, enum journal_state state, struct err *err)
{
    struct journal_row row = {.side = JOURNAL_TARGET,
                              .state = state,
                              .id = target->id,
                              .container = target->container,
                              .peer = target->source,
                              .epoch = target->epoch};
    return journal_write(target->owner->config.store, &row, err);
}

static void work_restore(void *arg)
{
    struct target *target = arg;
    struct migrate *owner = target->owner;
    struct err *err = &target->job_err;
    OWNED(owned_free) char *images = file_path("%s/final", target->work);
    int status = images ? target_copy_volumes(target, err) : err_set(err, ERR_NOMEM, "no memory for a path");
    if (status == 0)
        status = file_make_dirs(target->work, 0700, err);
    if (status == 0)
        status = bundle_unpack_checkpoint(owner->config.store, &target->manifest, images, err);
    if (status == 0)
        status = runtime_restore(owner->config.runtime, &target->container, images, err);
    if (status == 0)
        status = write_journal(target, JOURNAL_PREPARED, err);
    target->job_status = status;
}

static void on_made(void *arg)
{
    struct target *target = arg;
    job_over(target);
    if (target->job_status < 0) {
        target_fail(target, &target->job_err);
    } else if (target->abort_wanted) {
        struct err err;
        err_set(&err, ERR_CANCELLED, "the source gave up");
        target_fail(target, &err);
    } else {
        target_enter(target, target->state == COPYING ? COPIED : PREPARED);
    }
}

static void all_fetched(struct target *target)
{
    free(target->fetches);
    target->fetches = NULL;
    start_job(target, target->state == COPYING ? target_copy_work : work_restore, on_made);
}

/* ---- the container is ours ---- */

/* Repeated after a restart, when the restored tasks may have been lost with a reboot: then they are restored again. */
static int let_run(struct target *target, struct err *err)
{
    struct runtime *runtime = target->owner->config.runtime;
    OWNED(owned_container) struct runtime_container *now = NULL;
    OWNED(owned_free) char *images = file_path("%s/final", target->work);
    char id[GUID_TEXT_SIZE];
    int status = runtime_get(runtime, guid_text(&target->container, id), &now, err);
    if (status < 0)
        return status;
    /* It has run: it may have ended, or moved on, or be on its way here in another migration. */
    if (now->epoch >= target->epoch && now->state != RUNTIME_RUNNING)
        return 0;
    status = runtime_resume(runtime, &target->container, target->epoch, err);
    if (status == 0 || now->state != RUNTIME_INCOMING || !images || !file_exists(images))
        return status;
    log_warn("migrate", "restoring once more why=\"%s\"", err->text);
    status = runtime_restore(runtime, &target->container, images, err);
    return status < 0 ? status : runtime_resume(runtime, &target->container, target->epoch, err);
}

static void work_commit(void *arg)
{
    struct target *target = arg;
    int status = write_journal(target, JOURNAL_COMMITTED, &target->job_err);
    target->job_status = status < 0 ? status : let_run(target, &target->job_err);
}

/* What the container need not stand still for. */
static void work_settle(void *arg)
{
    struct target *target = arg;
    struct err *err = &target->job_err;
    int status = file_remove_tree(target->work, err);
    if (status == 0)
        status = write_journal(target, JOURNAL_RUNNING, err);
    if (status == 0 && target->manifest.final)
        status = migrate_keep_all(target->owner, &target->manifest, target->version, err);
    target->job_status = status;
}

static void on_settled(void *arg)
{
    struct target *target = arg;
    job_over(target);
    target->settled = target->job_status == 0;
    if (!target->settled) {
        log_warn("migrate", "cannot tidy up after a migration, trying again why=\"%s\"", target->job_err.text);
        return;
    }
    migrate_publish_all(target->owner, &target->manifest, target->version);
    if (target->done_wanted)
        target_forget(target);
}

static void on_committed(void *arg)
{
    struct target *target = arg;
    job_over(target);
    struct migrate_answer answer = target->commit_answer;
    target->commit_answer = (struct migrate_answer){0};
    if (target->job_status < 0) {
        log_error("migrate", "the container is ours but does not run yet, trying again why=\"%s\"",
                  target->job_err.text);
        if (answer.refuse)
            answer.refuse(answer.ctx, &target->job_err);
        return; /* stays COMMITTED: the tick or the source tries again */
    }
    target_enter(target, RUNNING);
    reset_retry(target);
    if (answer.reply)
        answer.reply(answer.ctx, target_costs(target));
    start_job(target, work_settle, on_settled);
}

void target_commit(struct target *target)
{
    target->state = COMMITTED;
    start_job(target, work_commit, on_committed);
}

static void work_forget(void *arg)
{
    struct target *target = arg;
    target->job_status = migrate_forget(target->owner, JOURNAL_TARGET, &target->id, &target->job_err);
}

static void on_forgotten(void *arg)
{
    struct target *target = arg;
    job_over(target);
    if (target->job_status < 0)
        log_warn("migrate", "cannot forget a migration, trying again why=\"%s\"", target->job_err.text);
    else
        target->gone = true;
}

void target_forget(struct target *target)
{
    target->done_wanted = true;
    start_job(target, work_forget, on_forgotten);
}

/* ---- when the source is silent ---- */

static void target_free(struct target *target)
{
    TAILQ_REMOVE(&target->owner->targets, target, entry);
    target_answer_waiter(target);
    if (target->commit_answer.refuse)
        migrate_refuse(&target->commit_answer, ERR_CANCELLED, "the node stops");
    manifest_release(&target->manifest);
    manifest_release(&target->earlier);
    free(target->fetches);
    json_decref(target->by_peer);
    free(target->work);
    free(target);
}

/* A source that knows nothing of it has aborted it, or has been told that it runs here. */
static void take_verdict(struct target *target, const char *verdict)
{
    struct err failure;
    if (target->job_running || target->gone)
        return;
    if (target->state == PREPARED && strcmp(verdict, "committed") == 0) {
        target_commit(target);
    } else if (target->state == PREPARED && strcmp(verdict, "aborted") == 0) {
        err_set(&failure, ERR_CANCELLED, "the source runs the container again");
        target_fail(target, &failure);
    } else if (target->state == RUNNING && strcmp(verdict, "aborted") == 0) {
        target_forget(target);
    }
}

static void on_verdict(void *ctx, int status, const struct err *err, const json_t *reply)
{
    struct target *target = ctx;
    target->asking = false;
    if (status < 0) {
        log_warn("migrate", "%s, but the source gives no verdict why=\"%s\"", target_state_name(target->state),
                 err->text);
        return;
    }
    target->heard_ms = target_now(target);
    const char *verdict = json_string_value(json_object_get(reply, "verdict"));
    if (verdict)
        take_verdict(target, verdict);
}

void target_ask_verdict(struct target *target)
{
    const struct migrate_ops *ops = &target->owner->config.ops;
    char id[GUID_TEXT_SIZE];
    target->asking = true;
    ops->call(ops->ctx, &target->source, "migrate.verdict", json_pack("{s:s}", "id", guid_text(&target->id, id)),
              VERDICT_PATIENCE_MS, on_verdict, target);
}

/* Only what nothing else is under way for. */
static void go_on(struct target *target, uint64_t silent_ms)
{
    struct err err;
    switch (target->state) {
    case ADMITTED:
    case COPYING:
    case COPIED:
    case RESTORING:
        if (silent_ms > SOURCE_SILENT_MS) {
            err_set(&err, ERR_TIMEOUT, "the source has been silent for %d s", SOURCE_SILENT_MS / 1000);
            target_fail(target, &err);
        }
        break;
    case PREPARED:
        if (silent_ms > VERDICT_SILENT_MS)
            target_ask_verdict(target);
        break;
    case COMMITTED:
        if (may_retry(target))
            target_commit(target);
        break;
    case RUNNING:
        if (silent_ms > VERDICT_SILENT_MS && may_retry(target)) {
            if (target->done_wanted)
                target_forget(target);
            else if (!target->settled)
                start_job(target, work_settle, on_settled);
            else
                target_ask_verdict(target);
        }
        break;
    case FAILED:
        if (may_retry(target))
            discard(target);
        break;
    }
}

static void tick(void *ctx)
{
    struct target *target = ctx;
    const struct migrate_ops *ops = &target->owner->config.ops;
    uint64_t silent_ms = target_now(target) - target->heard_ms;
    bool idle = !target->job_running && !target->asking;
    target_answer_waiter(target);
    if (target->gone && idle && silent_ms > SOURCE_SILENT_MS) {
        target_free(target);
        return;
    }
    if (idle && !target->gone)
        go_on(target, silent_ms);
    ops->after(ops->ctx, TICK_MS, tick, target);
}

/* ---- beginning and end ---- */

struct target *target_new(struct migrate *migrate, const struct guid *id, const struct id *source,
                          const struct guid *container)
{
    struct target *target = calloc(1, sizeof *target);
    if (!target)
        return NULL;
    target->owner = migrate;
    target->id = *id;
    target->source = *source;
    target->container = *container;
    target->work = migrate_work_dir(migrate, JOURNAL_TARGET, id);
    target->by_peer = json_object();
    if (!target->work || !target->by_peer) {
        free(target->work);
        json_decref(target->by_peer);
        free(target);
        return NULL;
    }
    target->heard_ms = clock_mono_ms(&migrate->config.clock);
    TAILQ_INSERT_TAIL(&migrate->targets, target, entry);
    migrate->config.ops.after(migrate->config.ops.ctx, TICK_MS, tick, target);
    return target;
}

size_t target_unsettled(const struct migrate *migrate)
{
    size_t count = 0;
    const struct target *target;
    TAILQ_FOREACH (target, &migrate->targets, entry)
        count += target->state < PREPARED;
    return count;
}

void target_free_all(struct migrate *migrate)
{
    struct target *target;
    while ((target = TAILQ_FIRST(&migrate->targets))) {
        cancel_fetches(target);
        target_free(target);
    }
}
