#include <stdlib.h>
#include <string.h>

#include "node/base/file.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/image/image.h"
#include "node/migrate/admit.h"
#include "node/migrate/bundle.h"
#include "node/migrate/state.h"

OWNED_DEFINE(owned_json, json_t, json_decref)

#define TICK_MS 2000
#define SOURCE_SILENT_MS 60000 /* before it is prepared: then it is given up */
#define VERDICT_SILENT_MS 5000 /* when prepared: then the source is asked */
#define VERDICT_PATIENCE_MS 2000
#define PROGRESS_STEP_MS 200 /* between two reports of progress alone */
#define MAX_TARGETS 64

/*
 *  ADMITTED --copy--> COPYING --all here, unpacked--> COPIED --restore--> RESTORING --restored, stopped--> PREPARED
 *      |                 |                              |                     |                               |
 *      +-----------------+------------ failure, abort or a silent source -----+-------> FAILED   verdict or commit
 *                                                       (all of it is discarded)                              |
 *                                                                               RUNNING <---resumed--- COMMITTED
 */
#define STATES(X)                                                                                                      \
    X(ADMITTED, "admitted")                                                                                            \
    X(COPYING, "copying")                                                                                              \
    X(COPIED, "copied")                                                                                                \
    X(RESTORING, "restoring")                                                                                          \
    X(PREPARED, "prepared")                                                                                            \
    X(COMMITTED, "committed")                                                                                          \
    X(RUNNING, "running")                                                                                              \
    X(FAILED, "failed")
enum state {
#define X(name, text) name,
    STATES(X)
#undef X
};
static const char *const state_names[] = {
#define X(name, text) [name] = text,
    STATES(X)
#undef X
};

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
    enum state state;
    struct err err; /* of FAILED */
    struct guid container;
    bool have_container; /* known to the runtime: to be discarded on failure */
    struct manifest manifest;
    struct store_version version;
    uint64_t epoch; /* to run with */
    char *work;     /* owned */

    struct fetching *fetches; /* owned, one an object of the manifest */
    size_t fetches_left;
    uint64_t done_bytes, total_bytes, fetch_started_ms;

    struct migrate_answer waiter; /* of a "wait"; reply NULL: none */
    uint64_t seen, told_ms;
    uint64_t heard_ms; /* of the source */
    bool asking;       /* for the verdict */
    bool job_running;
    bool abort_wanted; /* when the job is over */
    bool gone;         /* to be freed by the next tick that finds nothing under way */
    int job_status;
    struct err job_err;
    struct migrate_answer commit_answer; /* owed to a "commit" */

    uint64_t bytes[3]; /* layers, volumes, checkpoint */
    uint64_t local_bytes;
    json_t *by_peer; /* owned */
};

/* ---- reports to the source ---- */

static uint64_t now_of(const struct target *target)
{
    return clock_mono_ms(&target->owner->config.clock);
}

static json_t *costs_of(const struct target *target)
{
    return json_pack("{s:{s:I, s:I, s:I}, s:O, s:I}", "bytes", "layers", (json_int_t)target->bytes[0], "volumes",
                     (json_int_t)target->bytes[1], "checkpoint", (json_int_t)target->bytes[2], "bytes_by_peer",
                     target->by_peer, "local_bytes", (json_int_t)target->local_bytes);
}

static void answer_waiter(struct target *target)
{
    if (!target->waiter.reply)
        return;
    struct migrate_answer answer = target->waiter;
    target->waiter = (struct migrate_answer){0};
    uint64_t now = now_of(target);
    uint64_t spent = now > target->fetch_started_ms ? now - target->fetch_started_ms : 1;
    json_t *reply = json_pack("{s:s, s:I, s:I, s:I, s:I, s:o}", "state", state_names[target->state], "seen",
                              (json_int_t)target->seen, "done_bytes", (json_int_t)target->done_bytes, "total_bytes",
                              (json_int_t)target->total_bytes, "rate", (json_int_t)(target->done_bytes * 1000 / spent),
                              "costs", costs_of(target));
    if (target->state == FAILED) {
        json_object_set_new(reply, "code", json_string(err_name(target->err.code)));
        json_object_set_new(reply, "message", json_string(target->err.text));
    }
    target->told_ms = now;
    answer.reply(answer.ctx, reply);
}

static void enter(struct target *target, enum state state)
{
    target->state = state;
    target->seen++;
    answer_waiter(target);
}

/* ---- giving up ---- */

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

static void work_discard(void *arg)
{
    struct target *target = arg;
    if (target->have_container)
        target->job_status = runtime_discard(target->owner->config.runtime, &target->container, true, &target->job_err);
    file_remove_tree(target->work, NULL);
    if (target->job_status == 0)
        target->job_status = journal_remove(target->owner->config.store, JOURNAL_TARGET, &target->id, &target->job_err);
}

static void on_discarded(void *arg)
{
    struct target *target = arg;
    job_over(target);
    if (target->job_status < 0)
        log_error("migrate", "cannot tidy up after a failed migration, will be repeated at the next start why=\"%s\"",
                  target->job_err.text);
    target->gone = true; /* the tick keeps it for a while, so that the source can ask why */
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

static void fail(struct target *target, const struct err *err)
{
    char id[GUID_TEXT_SIZE];
    log_warn("migrate", "not taken id=%s why=\"%s\"", guid_text(&target->id, id), err->text);
    target->err = *err;
    cancel_fetches(target);
    enter(target, FAILED);
    start_job(target, work_discard, on_discarded);
}

/* ---- fetching all objects of a manifest ---- */

static void note_cost(struct target *target, const struct migrate_object *object, const struct migrate_cost *cost)
{
    static const int kind_of_role[] = {[MIGRATE_IMAGE] = 0,
                                       [MIGRATE_VOLUME] = 1,
                                       [MIGRATE_WRITABLE] = 1,
                                       [MIGRATE_CHECKPOINT] = 2,
                                       [MIGRATE_PAGES] = 2};
    target->bytes[kind_of_role[object->role]] += cost->fetched_bytes;
    target->local_bytes += cost->local_bytes;
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
        fail(target, &wrapped);
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
    if (now_of(target) >= target->told_ms + PROGRESS_STEP_MS) {
        target->seen++;
        answer_waiter(target);
    }
}

static void fetch_all(struct target *target)
{
    const struct migrate_ops *ops = &target->owner->config.ops;
    const struct manifest *manifest = &target->manifest;
    struct err err = {0};
    target->fetch_started_ms = now_of(target);
    target->done_bytes = target->total_bytes = 0;
    target->fetches = calloc(manifest->count, sizeof *target->fetches);
    if (!target->fetches)
        err_set(&err, ERR_NOMEM, "no memory for fetching");
    target->fetches_left = manifest->count;
    for (size_t i = 0; !err.code && i < manifest->count; i++) {
        struct fetching *fetching = &target->fetches[i];
        fetching->target = target;
        target->total_bytes += manifest->objects[i].size_bytes;
        ops->fetch(ops->ctx, &manifest->objects[i], manifest->container, &target->source, on_fetch_progress, on_fetched,
                   fetching, &fetching->handle, &err);
    }
    if (err.code)
        fail(target, &err);
}

/* ---- making it real ---- */

static int unpack_volumes(struct target *target, struct err *err)
{
    struct runtime *runtime = target->owner->config.runtime;
    struct store *store = target->owner->config.store;
    int status = 0;
    for (size_t i = 0; status == 0 && i < target->manifest.count; i++) {
        const struct migrate_object *object = &target->manifest.objects[i];
        OWNED(owned_free) char *path = NULL;
        struct guid guid;
        if (object->role == MIGRATE_WRITABLE)
            status = runtime_writable_path(runtime, &target->container, &path, err);
        else if (object->role == MIGRATE_VOLUME && guid_parse(object->name, &guid))
            status = runtime_volume_path(runtime, &guid, true, &path, err);
        if (status == 0 && path)
            status = bundle_unpack_tree(store, &object->digest, path, object->role == MIGRATE_WRITABLE, err);
    }
    return status;
}

static void work_copy(void *arg)
{
    struct target *target = arg;
    struct migrate *owner = target->owner;
    struct err *err = &target->job_err;
    int status = image_adopt(owner->config.store, &target->manifest.container->spec.manifest, NULL, err);
    if (status == 0)
        status = runtime_incoming(owner->config.runtime, target->manifest.container, err);
    if (status == 0) {
        target->have_container = true;
        status = unpack_volumes(target, err);
    }
    target->job_status = status;
}

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
    int status = images ? unpack_volumes(target, err) : err_set(err, ERR_NOMEM, "no memory for a path");
    if (status == 0)
        status = file_make_dirs(target->work, 0700, err);
    if (status == 0)
        status = bundle_unpack_checkpoint(owner->config.store, &target->manifest, images, err);
    if (status == 0)
        status = runtime_restore(owner->config.runtime, &target->container, images, err);
    if (status == 0)
        status = migrate_keep_all(owner, &target->manifest, target->version, err);
    if (status == 0)
        status = write_journal(target, JOURNAL_PREPARED, err);
    target->job_status = status;
}

static void on_made(void *arg)
{
    struct target *target = arg;
    job_over(target);
    if (target->job_status < 0) {
        fail(target, &target->job_err);
    } else if (target->abort_wanted) {
        struct err err;
        err_set(&err, ERR_CANCELLED, "the source gave up");
        fail(target, &err);
    } else {
        enter(target, target->state == COPYING ? COPIED : PREPARED);
    }
}

static void all_fetched(struct target *target)
{
    free(target->fetches);
    target->fetches = NULL;
    start_job(target, target->state == COPYING ? work_copy : work_restore, on_made);
}

/* ---- the end ---- */

/* Repeated after a restart, when the restored tasks may have been lost with a reboot: then they are restored again. */
static void work_commit(void *arg)
{
    struct target *target = arg;
    struct runtime *runtime = target->owner->config.runtime;
    struct err *err = &target->job_err;
    int status = write_journal(target, JOURNAL_COMMITTED, err);
    if (status == 0)
        status = runtime_resume(runtime, &target->container, target->epoch, err);
    OWNED(owned_free) char *images = file_path("%s/final", target->work);
    if (status < 0 && images && file_exists(images)) {
        log_warn("migrate", "restoring once more why=\"%s\"", err->text);
        status = runtime_restore(runtime, &target->container, images, err);
        if (status == 0)
            status = runtime_resume(runtime, &target->container, target->epoch, err);
    }
    if (status == 0)
        file_remove_tree(target->work, NULL);
    target->job_status = status;
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
    enter(target, RUNNING);
    if (answer.reply)
        answer.reply(answer.ctx, costs_of(target));
    migrate_publish_all(target->owner, &target->manifest, target->version);
}

static void commit(struct target *target, uint64_t epoch)
{
    target->epoch = epoch;
    target->state = COMMITTED;
    start_job(target, work_commit, on_committed);
}

/* ---- when the source is silent ---- */

static void target_free(struct target *target)
{
    TAILQ_REMOVE(&target->owner->targets, target, entry);
    manifest_release(&target->manifest);
    free(target->fetches);
    json_decref(target->by_peer);
    free(target->work);
    free(target);
}

static void on_verdict(void *ctx, int status, const struct err *err, const json_t *reply)
{
    struct target *target = ctx;
    target->asking = false;
    if (status < 0) {
        log_warn("migrate", "prepared, but the source gives no verdict why=\"%s\"", err->text);
        return;
    }
    target->heard_ms = now_of(target);
    const char *verdict = json_string_value(json_object_get(reply, "verdict"));
    if (target->state != PREPARED || target->job_running || !verdict)
        return;
    if (strcmp(verdict, "committed") == 0) {
        commit(target, (uint64_t)json_integer_value(json_object_get(reply, "epoch")));
    } else if (strcmp(verdict, "aborted") == 0) {
        struct err failure;
        err_set(&failure, ERR_CANCELLED, "the source runs the container again");
        fail(target, &failure);
    }
}

static void ask_verdict(struct target *target)
{
    const struct migrate_ops *ops = &target->owner->config.ops;
    char id[GUID_TEXT_SIZE];
    target->asking = true;
    ops->call(ops->ctx, &target->source, "migrate.verdict", json_pack("{s:s}", "id", guid_text(&target->id, id)),
              VERDICT_PATIENCE_MS, on_verdict, target);
}

static void tick(void *ctx)
{
    struct target *target = ctx;
    uint64_t silent_ms = now_of(target) - target->heard_ms;
    bool idle = !target->job_running && !target->asking && target->fetches_left == 0;
    if (target->gone && idle && silent_ms > SOURCE_SILENT_MS) {
        answer_waiter(target);
        target_free(target);
        return;
    }
    answer_waiter(target);
    if (target->state == PREPARED && idle && silent_ms > VERDICT_SILENT_MS) {
        ask_verdict(target);
    } else if (target->state == COMMITTED && idle) {
        commit(target, target->epoch);
    } else if (target->state < PREPARED && !target->job_running && silent_ms > SOURCE_SILENT_MS) {
        struct err err;
        err_set(&err, ERR_TIMEOUT, "the source has been silent for %d s", SOURCE_SILENT_MS / 1000);
        fail(target, &err);
    }
    const struct migrate_ops *ops = &target->owner->config.ops;
    ops->after(ops->ctx, TICK_MS, tick, target);
}

/* ---- requests ---- */

static struct target *target_new(struct migrate *migrate, const struct guid *id, const struct id *source,
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

struct admission {
    struct migrate *migrate;
    struct guid id;
    struct id peer;
    uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES];
    json_t *body; /* owned */
    struct migrate_answer answer;
    struct runtime_container *container; /* owned */
    int status;
    struct err err;
};

static void work_admit(void *arg)
{
    struct admission *admission = arg;
    struct migrate *migrate = admission->migrate;
    admission->status = admit_check(migrate, admission->body, &admission->container, &admission->err);
    if (admission->status == 0) {
        struct journal_row row = {.side = JOURNAL_TARGET,
                                  .state = JOURNAL_COPYING,
                                  .id = admission->id,
                                  .container = admission->container->id,
                                  .peer = admission->peer};
        admission->status = journal_write(migrate->config.store, &row, &admission->err);
    }
}

static void on_admitted(void *arg)
{
    struct admission *admission = arg;
    struct migrate *migrate = admission->migrate;
    migrate->jobs_running--;
    struct target *target = NULL;
    if (admission->status == 0) {
        target = target_new(migrate, &admission->id, &admission->peer, &admission->container->id);
        if (!target)
            err_set(&admission->err, ERR_NOMEM, "no memory for a migration");
    }
    if (target) {
        memcpy(target->public_key, admission->public_key, sizeof target->public_key);
        admission->answer.reply(admission->answer.ctx, json_object());
    } else {
        admission->answer.refuse(admission->answer.ctx, &admission->err);
    }
    if (admission->container)
        runtime_container_free(admission->container);
    json_decref(admission->body);
    free(admission);
}

static void on_admit(struct migrate *migrate, const struct guid *id, const struct id *peer, const uint8_t *public_key,
                     const json_t *body, const struct migrate_answer *answer)
{
    size_t count = 0;
    struct target *target;
    TAILQ_FOREACH (target, &migrate->targets, entry)
        count++;
    struct admission *admission = count < MAX_TARGETS && !migrate->stopping ? calloc(1, sizeof *admission) : NULL;
    if (!admission) {
        migrate_refuse(answer, migrate->stopping ? ERR_CANCELLED : ERR_LIMIT,
                       migrate->stopping ? "it is stopping" : "it takes part in too many migrations");
        return;
    }
    *admission = (struct admission){
        .migrate = migrate, .id = *id, .peer = *peer, .answer = *answer, .body = json_deep_copy(body)};
    memcpy(admission->public_key, public_key, sizeof admission->public_key);
    migrate->jobs_running++;
    jobs_submit(&migrate->config.jobs, work_admit, on_admitted, admission);
}

/* Take the manifest out of a request: signed by the source, and for this migration and container. */
static int take_manifest(struct target *target, const json_t *body, bool final, struct err *err)
{
    OWNED(manifest_release) struct manifest manifest = {0};
    int status = manifest_open(json_object_get(body, "manifest"), target->public_key, &manifest, err);
    if (status < 0)
        return status;
    if (memcmp(&manifest.id, &target->id, sizeof target->id) != 0 || !id_equal(&manifest.source, &target->source) ||
        !id_equal(&manifest.target, &target->owner->config.self) || manifest.final != final ||
        memcmp(&manifest.container->id, &target->container, sizeof target->container) != 0)
        return err_set(err, ERR_DENIED, "the manifest belongs to another migration");
    manifest_release(&target->manifest);
    target->manifest = manifest;
    manifest = (struct manifest){0};
    target->version = (struct store_version){target->manifest.container->epoch, target->manifest.container->counter};
    target->epoch = target->manifest.container->epoch + 1;
    return 0;
}

static void on_manifest(struct target *target, const json_t *body, enum state from, enum state to,
                        const struct migrate_answer *answer)
{
    struct err err;
    if (target->state == to || target->state == (enum state)(to + 1)) { /* asked again: the first answer was lost */
        answer->reply(answer->ctx, json_object());
    } else if (target->state != from || target->job_running) {
        err_set(&err, ERR_CONFLICT, "the migration is %s, not %s", state_names[target->state], state_names[from]);
        answer->refuse(answer->ctx, &err);
    } else if (take_manifest(target, body, to == RESTORING, &err) < 0) {
        answer->refuse(answer->ctx, &err);
        fail(target, &err);
    } else {
        answer->reply(answer->ctx, json_object());
        enter(target, to);
        fetch_all(target);
    }
}

static void on_wait(struct target *target, const json_t *body, const struct migrate_answer *answer)
{
    answer_waiter(target);
    target->waiter = *answer;
    bool news = (uint64_t)json_integer_value(json_object_get(body, "seen")) != target->seen;
    if (news || target->state == FAILED)
        answer_waiter(target);
}

static void on_commit(struct target *target, const json_t *body, const struct migrate_answer *answer)
{
    if (target->state == RUNNING) {
        answer->reply(answer->ctx, costs_of(target));
    } else if (target->state == COMMITTED && target->job_running) {
        if (target->commit_answer.refuse)
            migrate_refuse(&target->commit_answer, ERR_BUSY, "asked again");
        target->commit_answer = *answer;
    } else if ((target->state == PREPARED || target->state == COMMITTED) && !target->job_running) {
        target->commit_answer = *answer;
        commit(target, (uint64_t)json_integer_value(json_object_get(body, "epoch")));
    } else {
        migrate_refuse(answer, ERR_CONFLICT, "the migration is not prepared");
    }
}

static void on_abort(struct target *target, const struct migrate_answer *answer)
{
    struct err err;
    err_set(&err, ERR_CANCELLED, "the source gave up");
    if (target->state == COMMITTED || target->state == RUNNING) {
        migrate_refuse(answer, ERR_CONFLICT, "the container runs here");
        return;
    }
    answer->reply(answer->ctx, json_object());
    if (target->state == FAILED)
        return;
    if (target->job_running)
        target->abort_wanted = true;
    else
        fail(target, &err);
}

static void work_forget(void *arg)
{
    struct target *target = arg;
    target->job_status = journal_remove(target->owner->config.store, JOURNAL_TARGET, &target->id, &target->job_err);
}

static void on_forgotten(void *arg)
{
    struct target *target = arg;
    job_over(target);
    target->gone = true;
}

static struct target *find_target(struct migrate *migrate, const struct guid *id, const struct id *peer)
{
    struct target *target;
    TAILQ_FOREACH (target, &migrate->targets, entry)
        if (memcmp(&target->id, id, sizeof *id) == 0 && id_equal(&target->source, peer))
            return target;
    return NULL;
}

void target_request(struct migrate *migrate, const struct id *peer, const uint8_t *public_key, const char *method,
                    const json_t *body, const struct migrate_answer *answer)
{
    struct guid id;
    const char *text = json_string_value(json_object_get(body, "id"));
    if (!text || !guid_parse(text, &id)) {
        migrate_refuse(answer, ERR_INVALID, "the request names no migration");
        return;
    }
    struct target *target = find_target(migrate, &id, peer);
    if (target)
        target->heard_ms = now_of(target);
    if (strcmp(method, "migrate.admit") == 0 && !target)
        on_admit(migrate, &id, peer, public_key, body, answer);
    else if (!target)
        migrate_refuse(answer, ERR_NOTFOUND, "there is no such migration");
    else if (strcmp(method, "migrate.admit") == 0)
        answer->reply(answer->ctx, json_object());
    else if (strcmp(method, "migrate.copy") == 0)
        on_manifest(target, body, ADMITTED, COPYING, answer);
    else if (strcmp(method, "migrate.restore") == 0)
        on_manifest(target, body, COPIED, RESTORING, answer);
    else if (strcmp(method, "migrate.wait") == 0)
        on_wait(target, body, answer);
    else if (strcmp(method, "migrate.commit") == 0)
        on_commit(target, body, answer);
    else if (strcmp(method, "migrate.abort") == 0)
        on_abort(target, answer);
    else if (strcmp(method, "migrate.done") == 0 && target->state == RUNNING && !target->job_running) {
        answer->reply(answer->ctx, json_object());
        start_job(target, work_forget, on_forgotten);
    } else {
        migrate_refuse(answer, ERR_UNSUPPORTED, "this request is not known here");
    }
}

/* ---- restart and stop ---- */

static void recover_now(void *ctx)
{
    struct target *target = ctx;
    struct err err;
    if (target->state == COMMITTED) {
        commit(target, target->epoch);
    } else if (target->state == PREPARED) {
        ask_verdict(target);
    } else {
        err_set(&err, ERR_CANCELLED, "the destination was restarted in the middle of the migration");
        fail(target, &err);
    }
}

int target_recover(struct migrate *migrate, const struct journal_row *row, struct err *err)
{
    struct target *target = target_new(migrate, &row->id, &row->peer, &row->container);
    if (!target)
        return err_set(err, ERR_NOMEM, "no memory for a migration");
    target->have_container = true;
    target->epoch = row->epoch;
    target->state = row->state == JOURNAL_COMMITTED ? COMMITTED : row->state == JOURNAL_PREPARED ? PREPARED : COPYING;
    migrate->config.ops.after(migrate->config.ops.ctx, 0, recover_now, target);
    return 0;
}

void target_stop_all(struct migrate *migrate)
{
    struct target *target;
    TAILQ_FOREACH (target, &migrate->targets, entry) {
        if (target->state >= PREPARED)
            continue; /* the journal knows */
        if (target->job_running)
            target->abort_wanted = true;
        else {
            struct err err;
            err_set(&err, ERR_CANCELLED, "the destination stops");
            fail(target, &err);
        }
    }
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
