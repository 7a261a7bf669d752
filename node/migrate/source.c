#include <stdlib.h>
#include <string.h>

#include "node/base/file.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/image/image.h"
#include "node/migrate/bundle.h"
#include "node/migrate/state.h"

OWNED_DEFINE(owned_json, json_t, json_decref)
OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)

#define CALL_PATIENCE_MS 10000     /* the other side may be cut off for this long before the commit */
#define COPY_WAIT_MS 2000          /* one long poll */
#define PREPARE_PATIENCE_MS 120000 /* for the destination to restore; it reports meanwhile */
#define COMMIT_RETRY_MS 1000

/*
 *  ADMIT -> SNAPSHOT -> OFFER -> COPY -> STOP -> DIFFERENCE -> RESTORE -> COMMIT -> ANNOUNCE -> FINISH -> (done)
 *    |          |         |        |       |         |            |        |
 *    +----------+---------+--------+       +---------+------------+--------+
 *             ABANDON                               RETURN -> ABANDON
 *  (nothing has stopped: tell the destination)   (restore here from the own checkpoint first)
 *
 * Each step starts one thing and ends in `advance` or `fail`. From ANNOUNCE on nothing fails: it is tried again.
 */
enum step { ADMIT, SNAPSHOT, OFFER, COPY, STOP, DIFFERENCE, RESTORE, COMMIT, ANNOUNCE, FINISH, DONE, RETURN, ABANDON };

static const char *const phase_names[] = {"admit",  "copy",   "copy",   "copy", "stop",   "difference", "restore",
                                          "commit", "commit", "commit", "done", "return", "return"};

struct source {
    TAILQ_ENTRY(source)
    entry;
    struct migrate *owner;
    struct guid id;
    struct id target;
    struct runtime_container *container; /* owned: as it was at the start */
    struct migrate_watch watch;
    enum step step;
    bool cancelled;
    struct err err; /* why it failed */

    struct manifest manifest; /* of the step: first the running copy, then the final one */
    struct store_version version;
    char *work;    /* owned: directory with the dumps */
    uint64_t seen; /* of the destination's reports */
    uint64_t wait_until_ms;

    /* for the job under way */
    void (*work_fn)(struct source *source);
    int job_status;
    struct err job_err;

    /* for the report */
    uint64_t started_ms, stopped_ms, running_ms, phase_ms;
    json_t *phases; /* owned */
    json_t *costs;  /* owned: the destination's account, or NULL */
    unsigned attempts;
};

static void run(struct source *source, enum step step);

/* ---- reporting ---- */

static uint64_t now_of(const struct source *source)
{
    return clock_mono_ms(&source->owner->config.clock);
}

static void note_phase(struct source *source)
{
    uint64_t now = now_of(source);
    const char *name = phase_names[source->step];
    json_t *last = json_array_get(source->phases, json_array_size(source->phases) - 1);
    json_int_t ms = (json_int_t)(now - source->phase_ms);
    source->phase_ms = now;
    if (last && strcmp(json_string_value(json_object_get(last, "name")), name) == 0)
        json_object_set_new(last, "ms", json_integer(json_integer_value(json_object_get(last, "ms")) + ms));
    else
        json_array_append_new(source->phases, json_pack("{s:s, s:I}", "name", name, "ms", ms));
}

static void tell_phase(struct source *source, uint64_t done, uint64_t total, uint64_t rate)
{
    if (source->watch.on_phase)
        source->watch.on_phase(source->watch.ctx, phase_names[source->step], done, total, rate);
}

static json_t *make_report(struct source *source)
{
    char id[GUID_TEXT_SIZE], from[ID_HEX_SIZE], to[ID_HEX_SIZE];
    uint64_t now = now_of(source);
    json_int_t downtime = source->stopped_ms == 0 ? 0
                          : source->running_ms    ? (json_int_t)(source->running_ms - source->stopped_ms)
                                                  : (json_int_t)(now - source->stopped_ms);
    json_t *report =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:O, s:i}", "migration", guid_text(&source->id, id), "container",
                  source->container->spec.name, "from", id_hex(&source->owner->config.self, from), "to",
                  id_hex(&source->target, to), "state", source->err.code ? "failed" : "complete", "total_ms",
                  (json_int_t)(now - source->started_ms), "downtime_ms", downtime, "phases", source->phases, "attempts",
                  (int)source->attempts);
    static const char *const costs[] = {"bytes", "bytes_by_peer", "local_bytes"};
    for (size_t i = 0; report && i < 3; i++) {
        json_t *value = json_object_get(source->costs, costs[i]);
        json_object_set_new(report, costs[i], value ? json_incref(value) : i < 2 ? json_object() : json_integer(0));
    }
    return report;
}

static void source_free(struct source *source)
{
    TAILQ_REMOVE(&source->owner->sources, source, entry);
    manifest_release(&source->manifest);
    runtime_container_free(source->container);
    json_decref(source->phases);
    json_decref(source->costs);
    free(source->work);
    free(source);
}

static void finish(struct source *source)
{
    OWNED(owned_json) json_t *report = make_report(source);
    char id[GUID_TEXT_SIZE];
    if (source->err.code)
        log_warn("migrate", "failed id=%s container=%s why=\"%s\"", guid_text(&source->id, id),
                 source->container->spec.name, source->err.text);
    else
        log_info("migrate", "complete id=%s container=%s downtime_ms=%lld", guid_text(&source->id, id),
                 source->container->spec.name, (long long)json_integer_value(json_object_get(report, "downtime_ms")));
    if (source->watch.on_done)
        source->watch.on_done(source->watch.ctx, source->err.code ? &source->err : NULL, report);
    source_free(source);
}

/* ---- moving between steps ---- */

static bool before_stop(enum step step)
{
    return step < STOP;
}

static void fail(struct source *source, const struct err *err)
{
    if (!source->err.code)
        source->err = *err;
    run(source, before_stop(source->step) ? ABANDON : RETURN);
}

static void advance(struct source *source)
{
    if ((source->cancelled || source->owner->stopping) && source->step < COMMIT) {
        struct err err;
        err_set(&err, ERR_CANCELLED, source->cancelled ? "the migration was cancelled" : "the node stops");
        fail(source, &err);
        return;
    }
    run(source, (enum step)(source->step + 1));
}

static void on_work(void *arg)
{
    struct source *source = arg;
    source->job_status = 0;
    err_clear(&source->job_err);
    source->work_fn(source);
}

static void on_work_done(void *arg)
{
    struct source *source = arg;
    source->owner->jobs_running--;
    if (source->job_status < 0 && source->step < ANNOUNCE)
        fail(source, &source->job_err);
    else
        advance(source);
}

static void start_job(struct source *source, void (*work)(struct source *source))
{
    source->work_fn = work;
    source->owner->jobs_running++;
    jobs_submit(&source->owner->config.jobs, on_work, on_work_done, source);
}

static void call_target(struct source *source, const char *method, json_t *body, uint64_t patience_ms,
                        migrate_reply_cb reply)
{
    char id[GUID_TEXT_SIZE];
    json_object_set_new(body, "id", json_string(guid_text(&source->id, id)));
    const struct migrate_ops *ops = &source->owner->config.ops;
    ops->call(ops->ctx, &source->target, method, body, patience_ms, reply, source);
}

/* Every error of the other side names it. */
static void fail_at_target(struct source *source, const struct err *err)
{
    const struct migrate_ops *ops = &source->owner->config.ops;
    char name[128];
    struct err named = *err;
    err_wrap(&named, "destination %s", ops->node_name(ops->ctx, &source->target, name, sizeof name));
    fail(source, &named);
}

static void on_simple_reply(void *ctx, int status, const struct err *err, const json_t *reply)
{
    struct source *source = ctx;
    (void)reply;
    if (status < 0)
        fail_at_target(source, err);
    else
        advance(source);
}

/* ---- admit ---- */

static uint64_t bytes_needed(struct source *source)
{
    return bundle_memory_of(source->container->pid);
}

static void step_admit(struct source *source)
{
    OWNED(owned_json) json_t *abilities = NULL;
    struct err err;
    if (runtime_abilities(source->owner->config.runtime, &abilities, &err) < 0) {
        fail(source, &err);
        return;
    }
    json_t *body = json_pack("{s:o, s:O, s:I}", "container", runtime_container_to_json(source->container), "abilities",
                             abilities, "memory_bytes", (json_int_t)bytes_needed(source));
    call_target(source, "migrate.admit", body, CALL_PATIENCE_MS, on_simple_reply);
}

/* ---- copies of everything ---- */

static int add_image_objects(struct source *source, struct err *err)
{
    struct store *store = source->owner->config.store;
    OWNED(owned_image) struct image *image = NULL;
    OWNED(owned_free) struct id *ids = NULL;
    char name[DIGEST_TEXT_SIZE];
    size_t count = 0;
    int status = image_get(store, digest_text(&source->container->spec.manifest, name), &image, err);
    if (status == 0)
        status = image_objects(image, &ids, &count, err);
    for (size_t i = 0; status == 0 && i < count; i++) {
        struct store_object_info info;
        status = store_object_stat(store, &ids[i], &info, err);
        if (status == 0)
            return err_set(err, ERR_NOTFOUND, "a part of image '%s' is not in the store any more", image->name);
        struct migrate_object object = {
            .role = MIGRATE_IMAGE, .kind = info.kind, .digest = ids[i], .size_bytes = info.size_bytes};
        if (status > 0)
            status = manifest_add(&source->manifest, &object, err);
    }
    return status;
}

static int pack_one_tree(struct source *source, const char *path, enum migrate_role role, const char *name,
                         struct err *err)
{
    struct migrate_object object = {.role = role};
    snprintf(object.name, sizeof object.name, "%s", name);
    int status =
        bundle_pack_tree(source->owner->config.store, path, STORE_VOLUME, role == MIGRATE_WRITABLE, &object, err);
    object.role = role;
    return status < 0 ? status : manifest_add(&source->manifest, &object, err);
}

static int pack_volumes(struct source *source, struct err *err)
{
    struct runtime *runtime = source->owner->config.runtime;
    int status = 0;
    for (size_t i = 0; status == 0 && i < source->container->spec.volume_count; i++) {
        const struct runtime_volume *volume = &source->container->spec.volumes[i];
        char name[GUID_TEXT_SIZE];
        OWNED(owned_free) char *path = NULL;
        if (manifest_find(&source->manifest, MIGRATE_VOLUME, guid_text(&volume->guid, name)))
            continue; /* mounted at two places */
        status = runtime_volume_path(runtime, &volume->guid, false, &path, err);
        if (status == 0)
            status = pack_one_tree(source, path, MIGRATE_VOLUME, name, err);
    }
    OWNED(owned_free) char *writable = NULL;
    if (status == 0)
        status = runtime_writable_path(runtime, &source->container->id, &writable, err);
    return status < 0 ? status : pack_one_tree(source, writable, MIGRATE_WRITABLE, "", err);
}

/* A manifest of the container as it is now: dumped first, so that with the final one nothing runs any more while the
 * volumes are read. */
static int snapshot(struct source *source, bool final, struct err *err)
{
    struct migrate *owner = source->owner;
    manifest_release(&source->manifest);
    source->manifest = (struct manifest){.id = source->id,
                                         .source = owner->config.self,
                                         .target = source->target,
                                         .final = final,
                                         .issued_ms = clock_wall_ms(&owner->config.clock)};
    OWNED(owned_free) char *images = file_path("%s/%s", source->work, final ? "final" : "first");
    if (!images)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    int status = file_make_dirs(source->work, 0700, err);
    if (status == 0)
        status = runtime_checkpoint(owner->config.runtime, &source->container->id, images, !final, NULL, err);
    char id[GUID_TEXT_SIZE];
    if (status == 0)
        status =
            runtime_get(owner->config.runtime, guid_text(&source->container->id, id), &source->manifest.container, err);
    if (status == 0)
        status = runtime_next_version(owner->config.runtime, &source->container->id, &source->version.epoch,
                                      &source->version.counter, err);
    if (status == 0)
        status = add_image_objects(source, err);
    if (status == 0)
        status = bundle_pack_checkpoint(owner->config.store, images, &source->manifest, err);
    if (status == 0)
        status = pack_volumes(source, err);
    if (status == 0)
        status = migrate_keep_all(owner, &source->manifest, source->version, err);
    if (!final)
        file_remove_tree(images, NULL);
    return status;
}

static int write_journal(struct source *source, enum journal_state state, struct err *err)
{
    struct journal_row row = {.side = JOURNAL_SOURCE,
                              .state = state,
                              .id = source->id,
                              .container = source->container->id,
                              .peer = source->target,
                              .epoch = source->container->epoch + 1};
    return journal_write(source->owner->config.store, &row, err);
}

static void work_snapshot(struct source *source)
{
    source->job_status = write_journal(source, JOURNAL_COPYING, &source->job_err);
    if (source->job_status == 0)
        source->job_status = snapshot(source, false, &source->job_err);
}

static void step_snapshot(struct source *source)
{
    start_job(source, work_snapshot);
}

static void send_manifest(struct source *source, const char *method)
{
    migrate_publish_all(source->owner, &source->manifest, source->version);
    json_t *body = json_pack("{s:o}", "manifest", manifest_seal(&source->manifest, &source->owner->config.ops));
    if (!body) {
        struct err err;
        err_set(&err, ERR_NOMEM, "no memory for the manifest");
        fail(source, &err);
        return;
    }
    call_target(source, method, body, CALL_PATIENCE_MS, on_simple_reply);
}

static void step_offer(struct source *source)
{
    send_manifest(source, "migrate.copy");
}

/* ---- waiting for the destination ---- */

static void poll_target(struct source *source);

static void note_costs(struct source *source, const json_t *reply)
{
    json_t *costs = json_object_get(reply, "costs");
    if (!json_is_object(costs))
        return;
    json_decref(source->costs);
    source->costs = json_incref(costs);
}

static void on_poll(void *ctx, int status, const struct err *err, const json_t *reply)
{
    struct source *source = ctx;
    if (status < 0) {
        fail_at_target(source, err);
        return;
    }
    const char *state = json_string_value(json_object_get(reply, "state"));
    source->seen = (uint64_t)json_integer_value(json_object_get(reply, "seen"));
    note_costs(source, reply);
    tell_phase(source, (uint64_t)json_integer_value(json_object_get(reply, "done_bytes")),
               (uint64_t)json_integer_value(json_object_get(reply, "total_bytes")),
               (uint64_t)json_integer_value(json_object_get(reply, "rate")));
    const char *wanted = source->step == COPY ? "copied" : "prepared";
    struct err failure = {0};
    if (!state || strcmp(state, "failed") == 0) {
        const char *code = json_string_value(json_object_get(reply, "code"));
        const char *message = json_string_value(json_object_get(reply, "message"));
        int number = code ? err_code_of_name(code) : 0;
        err_set(&failure, number ? number : ERR_INTERNAL, "%s", message ? message : "failed without saying why");
    } else if (source->cancelled || source->owner->stopping) {
        err_set(&failure, ERR_CANCELLED, source->cancelled ? "the migration was cancelled" : "the node stops");
        fail(source, &failure);
        return;
    } else if (source->step == RESTORE && now_of(source) > source->wait_until_ms) {
        err_set(&failure, ERR_TIMEOUT, "did not restore within %d s", PREPARE_PATIENCE_MS / 1000);
    }
    if (failure.code)
        fail_at_target(source, &failure);
    else if (strcmp(state, wanted) == 0)
        advance(source);
    else
        poll_target(source);
}

static void poll_target(struct source *source)
{
    json_t *body = json_pack("{s:I, s:i}", "seen", (json_int_t)source->seen, "wait_ms", COPY_WAIT_MS);
    call_target(source, "migrate.wait", body, CALL_PATIENCE_MS, on_poll);
}

/* ---- stop and hand over ---- */

static void work_stop(struct source *source)
{
    source->job_status = write_journal(source, JOURNAL_STOPPED, &source->job_err);
    if (source->job_status == 0)
        source->job_status = snapshot(source, true, &source->job_err);
}

static void step_stop(struct source *source)
{
    source->stopped_ms = now_of(source);
    start_job(source, work_stop);
}

static void step_difference(struct source *source)
{
    source->wait_until_ms = now_of(source) + PREPARE_PATIENCE_MS;
    send_manifest(source, "migrate.restore");
}

static void work_commit(struct source *source)
{
    source->job_status = write_journal(source, JOURNAL_COMMITTED, &source->job_err);
}

static void step_commit(struct source *source)
{
    start_job(source, work_commit);
}

static void announce_again(void *ctx)
{
    run(ctx, ANNOUNCE);
}

static void on_announced(void *ctx, int status, const struct err *err, const json_t *reply)
{
    struct source *source = ctx;
    (void)reply;
    if (status == 0) {
        source->running_ms = now_of(source);
        note_costs(source, reply);
        advance(source);
        return;
    }
    log_warn("migrate", "the destination has not confirmed the commit, trying again why=\"%s\"", err->text);
    if (source->owner->stopping) {
        err_set(&source->err, ERR_CANCELLED, "the node stops; the container is handed over when it starts again");
        finish(source);
        return;
    }
    const struct migrate_ops *ops = &source->owner->config.ops;
    ops->after(ops->ctx, COMMIT_RETRY_MS, announce_again, source);
}

static void step_announce(struct source *source)
{
    source->attempts++;
    call_target(source, "migrate.commit", json_pack("{s:I}", "epoch", (json_int_t)(source->container->epoch + 1)),
                CALL_PATIENCE_MS, on_announced);
}

/* The container is somewhere else now; its snapshots stay as caches. A failure here is repeated by the recovery. */
static void work_finish(struct source *source)
{
    struct err *err = &source->job_err;
    int status = runtime_discard(source->owner->config.runtime, &source->container->id, true, err);
    if (status == 0)
        status = file_remove_tree(source->work, err);
    if (status == 0)
        status = journal_remove(source->owner->config.store, JOURNAL_SOURCE, &source->id, err);
    if (status < 0)
        log_error("migrate", "cannot tidy up after a migration, will be repeated at the next start why=\"%s\"",
                  err->text);
}

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
    ops->call(ops->ctx, &source->target, method, body, CALL_PATIENCE_MS, on_told, NULL);
}

static void step_finish(struct source *source)
{
    tell_end(source, "migrate.done");
    start_job(source, work_finish);
}

/* ---- failing ---- */

/* Run the container here again, from the last dump. A commit that failed to be written may all the same have reached
 * the disk: the journal is set back first, and if that fails nothing runs. */
static void work_return(struct source *source)
{
    struct runtime *runtime = source->owner->config.runtime;
    struct err *err = &source->job_err;
    OWNED(owned_container) struct runtime_container *now = NULL;
    OWNED(owned_free) char *images = file_path("%s/final", source->work);
    char id[GUID_TEXT_SIZE];
    int status = images ? write_journal(source, JOURNAL_STOPPED, err) : err_set(err, ERR_NOMEM, "no memory for a path");
    if (status == 0)
        status = runtime_get(runtime, guid_text(&source->container->id, id), &now, err);
    if (status == 0 && now->state == RUNTIME_OUTGOING)
        status = runtime_restore(runtime, &now->id, images, err);
    if (status == 0 && now->state == RUNTIME_OUTGOING)
        status = runtime_resume(runtime, &now->id, now->epoch, err);
    source->job_status = status;
}

static void on_return_done(void *arg)
{
    struct source *source = arg;
    source->owner->jobs_running--;
    source->running_ms = now_of(source);
    if (source->job_status < 0) {
        log_error("migrate", "cannot run the container here again why=\"%s\" dump=%s/final", source->job_err.text,
                  source->work);
        err_wrap(&source->err,
                 "and the container could not be run here again (%s); its last checkpoint is kept in "
                 "'%s/final' and tried again when the node starts; the migration failed because",
                 source->job_err.text, source->work);
        finish(source);
        return;
    }
    run(source, ABANDON);
}

static void step_return(struct source *source)
{
    source->work_fn = work_return;
    source->owner->jobs_running++;
    jobs_submit(&source->owner->config.jobs, on_work, on_return_done, source);
}

static void work_abandon(struct source *source)
{
    file_remove_tree(source->work, NULL);
    source->job_status = journal_remove(source->owner->config.store, JOURNAL_SOURCE, &source->id, &source->job_err);
}

static void on_abandoned(void *arg)
{
    struct source *source = arg;
    source->owner->jobs_running--;
    finish(source);
}

static void step_abandon(struct source *source)
{
    tell_end(source, "migrate.abort");
    source->work_fn = work_abandon;
    source->owner->jobs_running++;
    jobs_submit(&source->owner->config.jobs, on_work, on_abandoned, source);
}

static void run(struct source *source, enum step step)
{
    static void (*const steps[])(struct source * source) = {
        [ADMIT] = step_admit,    [SNAPSHOT] = step_snapshot, [OFFER] = step_offer,
        [COPY] = poll_target,    [STOP] = step_stop,         [DIFFERENCE] = step_difference,
        [RESTORE] = poll_target, [COMMIT] = step_commit,     [ANNOUNCE] = step_announce,
        [FINISH] = step_finish,  [RETURN] = step_return,     [ABANDON] = step_abandon,
        [DONE] = finish,
    };
    note_phase(source);
    source->step = step;
    if (step != DONE)
        tell_phase(source, 0, 0, 0);
    steps[step](source);
}

/* ---- beginning ---- */

static struct source *source_new(struct migrate *migrate, const struct guid *id, const struct id *target,
                                 struct runtime_container *container)
{
    struct source *source = calloc(1, sizeof *source);
    if (!source)
        return NULL;
    source->owner = migrate;
    source->id = *id;
    source->target = *target;
    source->work = migrate_work_dir(migrate, JOURNAL_SOURCE, id);
    source->phases = json_array();
    if (!source->work || !source->phases) {
        free(source->work);
        json_decref(source->phases);
        free(source);
        return NULL;
    }
    source->container = container;
    source->started_ms = source->phase_ms = clock_mono_ms(&migrate->config.clock);
    TAILQ_INSERT_TAIL(&migrate->sources, source, entry);
    return source;
}

static struct source *find_source(struct migrate *migrate, const struct guid *id)
{
    struct source *source;
    TAILQ_FOREACH (source, &migrate->sources, entry)
        if (memcmp(&source->id, id, sizeof *id) == 0)
            return source;
    return NULL;
}

static void begin(void *ctx)
{
    struct source *source = ctx;
    source->step = ADMIT;
    tell_phase(source, 0, 0, 0);
    step_admit(source);
}

int migrate_start(struct migrate *migrate, const char *name, const struct id *target, const struct migrate_watch *watch,
                  struct guid *ret_id, struct err *err)
{
    OWNED(owned_container) struct runtime_container *container = NULL;
    if (migrate->stopping)
        return err_set(err, ERR_CANCELLED, "the node stops");
    int status = runtime_get(migrate->config.runtime, name, &container, err);
    if (status < 0)
        return status;
    if (id_equal(target, &migrate->config.self))
        return err_set(err, ERR_CONFLICT, "container '%s' is on that node already", name);
    struct source *source;
    TAILQ_FOREACH (source, &migrate->sources, entry)
        if (memcmp(&source->container->id, &container->id, sizeof container->id) == 0)
            return err_set(err, ERR_CONFLICT, "container '%s' is being migrated already", name);
    if (container->state != RUNTIME_RUNNING)
        return err_set(err, ERR_CONFLICT, "container '%s' does not run: only running containers can be migrated", name);
    struct guid id;
    crypto_random(&id, sizeof id);
    source = source_new(migrate, &id, target, container);
    if (!source)
        return err_set(err, ERR_NOMEM, "no memory for a migration");
    container = NULL;
    source->watch = *watch;
    *ret_id = id;
    migrate->config.ops.after(migrate->config.ops.ctx, 0, begin, source);
    return 0;
}

void migrate_cancel(struct migrate *migrate, const struct guid *id)
{
    struct source *source = find_source(migrate, id);
    if (source)
        source->cancelled = true;
}

void migrate_unwatch(struct migrate *migrate, const struct guid *id)
{
    struct source *source = find_source(migrate, id);
    if (source)
        source->watch = (struct migrate_watch){0};
}

/* ---- after a restart, and what destinations ask after theirs ---- */

static void recover_committed(void *ctx)
{
    struct source *source = ctx;
    source->step = ANNOUNCE;
    step_announce(source);
}

static void recover_stopped(void *ctx)
{
    struct source *source = ctx;
    source->step = RETURN;
    err_set(&source->err, ERR_CANCELLED, "the node was restarted in the middle of the migration");
    step_return(source);
}

int source_recover(struct migrate *migrate, const struct journal_row *row, struct err *err)
{
    OWNED(owned_container) struct runtime_container *container = NULL;
    char id[GUID_TEXT_SIZE];
    int status = runtime_get(migrate->config.runtime, guid_text(&row->container, id), &container, err);
    if (status == ERR_NOTFOUND) /* all but the last entry was tidied up */
        return journal_remove(migrate->config.store, JOURNAL_SOURCE, &row->id, err);
    if (status < 0)
        return status;
    struct source *source = source_new(migrate, &row->id, &row->peer, container);
    if (!source)
        return err_set(err, ERR_NOMEM, "no memory for a migration");
    container = NULL;
    const struct migrate_ops *ops = &migrate->config.ops;
    ops->after(ops->ctx, 0, row->state == JOURNAL_COMMITTED ? recover_committed : recover_stopped, source);
    return 0;
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
    const char *verdict = "aborted";
    int found = journal_read(migrate->config.store, JOURNAL_SOURCE, &id, &row, &err);
    if (found < 0) {
        answer->refuse(answer->ctx, &err);
        return;
    }
    if (found && id_equal(&row.peer, peer)) {
        const struct source *source = find_source(migrate, &id);
        bool failing = source && (source->step == RETURN || source->step == ABANDON);
        verdict = row.state == JOURNAL_COMMITTED ? "committed" : failing ? "aborted" : "pending";
    }
    answer->reply(answer->ctx,
                  json_pack("{s:s, s:I}", "verdict", verdict, "epoch", (json_int_t)(found ? row.epoch : 0)));
}

void source_free_all(struct migrate *migrate)
{
    struct source *source;
    while ((source = TAILQ_FIRST(&migrate->sources)))
        source_free(source);
}

size_t source_count(const struct migrate *migrate)
{
    size_t count = 0;
    const struct source *source;
    TAILQ_FOREACH (source, &migrate->sources, entry)
        count++;
    return count;
}
