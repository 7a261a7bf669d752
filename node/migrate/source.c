#include "node/migrate/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/log.h"
#include "node/migrate/bundle.h"

OWNED_DEFINE(owned_json, json_t, json_decref)
OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)

#define ADMIT_TRIES 20 /* it may be tidying up an earlier attempt */
#define ADMIT_RETRY_MS 250
#define COPY_WAIT_MS 2000          /* one long poll */
#define PREPARE_PATIENCE_MS 120000 /* for the destination to restore; it reports meanwhile */
#define RESERVE_BYTES (1 << 20)

static const char *const phase_names[] = {"admit",  "copy",   "copy",   "copy", "stop",   "difference", "restore",
                                          "commit", "commit", "commit", "done", "return", "return"};

/* ---- reporting ---- */

uint64_t source_now(const struct source *source)
{
    return clock_mono_ms(&source->owner->config.clock);
}

static void note_phase(struct source *source)
{
    uint64_t now = source_now(source);
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
    uint64_t now = source_now(source);
    json_int_t downtime = source->stopped_ms == 0 ? 0
                          : source->running_ms    ? (json_int_t)(source->running_ms - source->stopped_ms)
                                                  : (json_int_t)(now - source->stopped_ms);
    json_t *report =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:O, s:i}", "migration", guid_text(&source->id, id), "container",
                  source->name, "from", id_hex(&source->owner->config.self, from), "to", id_hex(&source->target, to),
                  "state", source->err.code ? "failed" : "complete", "total_ms", (json_int_t)(now - source->started_ms),
                  "downtime_ms", downtime, "phases", source->phases, "attempts", (int)source->attempts);
    static const char *const costs[] = {"bytes", "bytes_by_peer", "local_bytes"};
    for (size_t i = 0; report && i < 3; i++) {
        json_t *value = json_object_get(source->costs, costs[i]);
        json_object_set_new(report, costs[i], value ? json_incref(value) : i < 2 ? json_object() : json_integer(0));
    }
    return report;
}

void source_note_costs(struct source *source, const json_t *reply)
{
    json_t *costs = json_object_get(reply, "costs");
    if (!json_is_object(costs))
        return;
    json_decref(source->costs);
    source->costs = json_incref(costs);
}

static void source_free(struct source *source)
{
    TAILQ_REMOVE(&source->owner->sources, source, entry);
    manifest_release(&source->manifest);
    json_decref(source->phases);
    json_decref(source->costs);
    free(source->work);
    free(source);
}

void source_close(struct source *source)
{
    OWNED(owned_json) json_t *report = make_report(source);
    char id[GUID_TEXT_SIZE];
    if (source->err.code)
        log_warn("migrate", "failed id=%s container=%s why=\"%s\"", guid_text(&source->id, id), source->name,
                 source->err.text);
    else
        log_info("migrate", "complete id=%s container=%s downtime_ms=%lld", guid_text(&source->id, id), source->name,
                 (long long)json_integer_value(json_object_get(report, "downtime_ms")));
    if (source->watch.on_done)
        source->watch.on_done(source->watch.ctx, source->err.code ? &source->err : NULL, report);
    source_free(source);
}

/* ---- moving between steps ---- */

static bool before_stop(enum source_step step)
{
    return step < STOP;
}

void source_fail(struct source *source, const struct err *err)
{
    if (!source->err.code)
        source->err = *err;
    source_run(source, before_stop(source->step) ? ABANDON : RETURN);
}

static bool is_given_up(const struct source *source, struct err *ret_err)
{
    if (!source->cancelled && !source->owner->stopping)
        return false;
    err_set(ret_err, ERR_CANCELLED, source->cancelled ? "the migration was cancelled" : "the node stops");
    return true;
}

void source_advance(struct source *source)
{
    struct err err;
    if (source->step < COMMIT && is_given_up(source, &err))
        source_fail(source, &err);
    else
        source_run(source, (enum source_step)(source->step + 1));
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
    source->done_fn(source);
}

void source_start_job(struct source *source, void (*work)(struct source *source), void (*done)(struct source *source))
{
    source->work_fn = work;
    source->done_fn = done;
    source->owner->jobs_running++;
    jobs_submit(&source->owner->config.jobs, on_work, on_work_done, source);
}

static void on_copied(struct source *source)
{
    if (source->job_status < 0)
        source_fail(source, &source->job_err);
    else
        source_advance(source);
}

void source_call(struct source *source, const char *method, json_t *body, migrate_reply_cb reply)
{
    char id[GUID_TEXT_SIZE];
    json_object_set_new(body, "id", json_string(guid_text(&source->id, id)));
    const struct migrate_ops *ops = &source->owner->config.ops;
    ops->call(ops->ctx, &source->target, method, body, SOURCE_PATIENCE_MS, reply, source);
}

/* Every error of the other side names it. */
static void fail_at_target(struct source *source, const struct err *err)
{
    const struct migrate_ops *ops = &source->owner->config.ops;
    char name[128];
    struct err named = *err;
    err_wrap(&named, "destination %s", ops->node_name(ops->ctx, &source->target, name, sizeof name));
    source_fail(source, &named);
}

static void on_simple_reply(void *ctx, int status, const struct err *err, const json_t *reply)
{
    struct source *source = ctx;
    (void)reply;
    if (status < 0)
        fail_at_target(source, err);
    else
        source_advance(source);
}

/* ---- admit ---- */

static json_t *make_request(struct source *source, struct err *err)
{
    struct runtime *runtime = source->owner->config.runtime;
    OWNED(owned_container) struct runtime_container *container = NULL;
    OWNED(owned_json) json_t *abilities = NULL;
    char id[GUID_TEXT_SIZE];
    int status = runtime_abilities(runtime, &abilities, err);
    if (status == 0)
        status = runtime_get(runtime, guid_text(&source->container, id), &container, err);
    if (status < 0)
        return NULL;
    return json_pack("{s:o, s:O, s:I, s:s*}", "container", runtime_container_to_json(container), "abilities", abilities,
                     "memory_bytes", (json_int_t)bundle_memory_of(container->pid), "policy",
                     source->policy[0] ? source->policy : NULL);
}

static void step_admit(struct source *source);

static void admit_again(void *ctx)
{
    step_admit(ctx);
}

static void on_admitted(void *ctx, int status, const struct err *err, const json_t *reply)
{
    struct source *source = ctx;
    const struct migrate_ops *ops = &source->owner->config.ops;
    if (status == ERR_BUSY && source->attempts < ADMIT_TRIES && !source->cancelled && !source->owner->stopping)
        ops->after(ops->ctx, ADMIT_RETRY_MS, admit_again, source);
    else
        on_simple_reply(source, status, err, reply);
}

static void step_admit(struct source *source)
{
    struct err err;
    err_set(&err, ERR_NOMEM, "no memory for a request");
    json_t *body = make_request(source, &err);
    source->attempts++;
    if (body)
        source_call(source, "migrate.admit", body, on_admitted);
    else
        source_fail(source, &err);
}

/* ---- copies of everything ---- */

char *source_final_images(const struct source *source)
{
    return file_path("%s/final", source->work);
}

char *source_reserve_path(const struct source *source)
{
    return file_path("%s/reserve", source->work);
}

int source_journal(struct source *source, enum journal_state state, struct err *err)
{
    struct journal_row row = {.side = JOURNAL_SOURCE,
                              .state = state,
                              .id = source->id,
                              .container = source->container,
                              .peer = source->target,
                              .epoch = source->epoch};
    return journal_write(source->owner->config.store, &row, err);
}

/* What an earlier migration of this container has left because it could not tidy up. It is over, for the container
 * runs here; were it to go on after a restart, it would take back or give away what is this one's. */
static int forget_earlier(struct source *source, struct err *err)
{
    struct migrate *owner = source->owner;
    OWNED(owned_free) struct journal_row *rows = NULL;
    size_t count = 0;
    int status = journal_all(owner->config.store, &rows, &count, err);
    for (size_t i = 0; status == 0 && i < count; i++)
        if (rows[i].side == JOURNAL_SOURCE && memcmp(&rows[i].container, &source->container, sizeof(struct guid)) == 0)
            status = migrate_forget(owner, JOURNAL_SOURCE, &rows[i].id, err);
    return status;
}

static int reserve_disk(struct source *source, struct err *err)
{
    OWNED(owned_free) char *path = source_reserve_path(source);
    OWNED(owned_fd) int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    int os_error = fd < 0 ? errno : posix_fallocate(fd, 0, RESERVE_BYTES);
    return os_error ? err_errno(err, os_error, "cannot set disk aside in '%s'", source->work) : 0;
}

static void work_snapshot(struct source *source)
{
    struct runtime *runtime = source->owner->config.runtime;
    struct err *err = &source->job_err;
    OWNED(owned_free) char *images = file_path("%s/first", source->work);
    int status = images ? forget_earlier(source, err) : err_set(err, ERR_NOMEM, "no memory for a path");
    if (status == 0)
        status = source_journal(source, JOURNAL_COPYING, err);
    if (status == 0)
        status = file_make_dirs(source->work, 0700, err);
    if (status == 0)
        status = source_snapshot_begin(source, false, err);
    if (status == 0)
        status = runtime_checkpoint(runtime, &source->container, images, true, NULL, err);
    if (status == 0)
        status = source_snapshot_pack(source, images, err);
    if (images)
        file_remove_tree(images, NULL);
    if (status == 0)
        status = migrate_keep_all(source->owner, &source->manifest, source->version, err);
    if (status == 0)
        status = reserve_disk(source, err);
    source->job_status = status;
}

static void step_snapshot(struct source *source)
{
    source_start_job(source, work_snapshot, on_copied);
}

static void send_manifest(struct source *source, const char *method)
{
    migrate_publish_all(source->owner, &source->manifest, source->version);
    json_t *body = json_pack("{s:o}", "manifest", manifest_seal(&source->manifest, &source->owner->config.ops));
    if (!body) {
        struct err err;
        err_set(&err, ERR_NOMEM, "no memory for the manifest");
        source_fail(source, &err);
        return;
    }
    source_call(source, method, body, on_simple_reply);
}

static void step_offer(struct source *source)
{
    send_manifest(source, "migrate.copy");
}

/* ---- waiting for the destination ---- */

static void poll_target(struct source *source);

static void on_poll(void *ctx, int status, const struct err *err, const json_t *reply)
{
    struct source *source = ctx;
    if (status < 0) {
        fail_at_target(source, err);
        return;
    }
    const char *state = json_string_value(json_object_get(reply, "state"));
    source->seen = (uint64_t)json_integer_value(json_object_get(reply, "seen"));
    source_note_costs(source, reply);
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
    } else if (is_given_up(source, &failure)) {
        source_fail(source, &failure);
        return;
    } else if (source->step == RESTORE && source_now(source) > source->wait_until_ms) {
        err_set(&failure, ERR_TIMEOUT, "did not restore within %d s", PREPARE_PATIENCE_MS / 1000);
    }
    if (failure.code)
        fail_at_target(source, &failure);
    else if (strcmp(state, wanted) == 0)
        source_advance(source);
    else
        poll_target(source);
}

static void poll_target(struct source *source)
{
    json_t *body = json_pack("{s:I, s:i}", "seen", (json_int_t)source->seen, "wait_ms", COPY_WAIT_MS);
    source_call(source, "migrate.wait", body, on_poll);
}

/* ---- stop ---- */

static void work_stop(struct source *source)
{
    struct err *err = &source->job_err;
    OWNED(owned_free) char *images = source_final_images(source);
    int status =
        images ? source_journal(source, JOURNAL_STOPPED, err) : err_set(err, ERR_NOMEM, "no memory for a path");
    if (status == 0)
        status = source_snapshot_begin(source, true, err);
    source->stopped_ms = source_now(source);
    if (status == 0)
        status = runtime_checkpoint(source->owner->config.runtime, &source->container, images, false, NULL, err);
    if (status == 0)
        status = source_snapshot_pack(source, images, err);
    source->job_status = status;
}

static void step_stop(struct source *source)
{
    source_start_job(source, work_stop, on_copied);
}

static void step_difference(struct source *source)
{
    source->wait_until_ms = source_now(source) + PREPARE_PATIENCE_MS;
    send_manifest(source, "migrate.restore");
}

/* ---- the machine ---- */

void source_run(struct source *source, enum source_step step)
{
    static void (*const steps[])(struct source * source) = {
        [ADMIT] = step_admit,           [SNAPSHOT] = step_snapshot,   [OFFER] = step_offer,
        [COPY] = poll_target,           [STOP] = step_stop,           [DIFFERENCE] = step_difference,
        [RESTORE] = poll_target,        [COMMIT] = source_end_commit, [ANNOUNCE] = source_end_announce,
        [FINISH] = source_end_finish,   [DONE] = source_close,        [RETURN] = source_end_return,
        [ABANDON] = source_end_abandon,
    };
    note_phase(source);
    source->step = step;
    if (step != DONE)
        tell_phase(source, 0, 0, 0);
    steps[step](source);
}

/* ---- beginning ---- */

struct source *source_new(struct migrate *migrate, const struct guid *id, const struct id *target,
                          const struct guid *container, const char *name, uint64_t epoch)
{
    struct source *source = calloc(1, sizeof *source);
    if (!source)
        return NULL;
    source->owner = migrate;
    source->id = *id;
    source->target = *target;
    source->container = *container;
    source->epoch = epoch;
    snprintf(source->name, sizeof source->name, "%s", name);
    source->work = migrate_work_dir(migrate, JOURNAL_SOURCE, id);
    source->phases = json_array();
    if (!source->work || !source->phases) {
        free(source->work);
        json_decref(source->phases);
        free(source);
        return NULL;
    }
    source->started_ms = source->phase_ms = clock_mono_ms(&migrate->config.clock);
    TAILQ_INSERT_TAIL(&migrate->sources, source, entry);
    return source;
}

struct source *source_find(struct migrate *migrate, const struct guid *id)
{
    struct source *source;
    TAILQ_FOREACH (source, &migrate->sources, entry)
        if (memcmp(&source->id, id, sizeof *id) == 0)
            return source;
    return NULL;
}

struct source *source_of_container(struct migrate *migrate, const struct guid *container)
{
    struct source *source;
    TAILQ_FOREACH (source, &migrate->sources, entry)
        if (memcmp(&source->container, container, sizeof *container) == 0)
            return source;
    return NULL;
}

static void begin(void *ctx)
{
    struct source *source = ctx;
    tell_phase(source, 0, 0, 0);
    step_admit(source);
}

int migrate_start(struct migrate *migrate, const struct migrate_order *order, const struct migrate_watch *watch,
                  struct guid *ret_id, struct err *err)
{
    OWNED(owned_container) struct runtime_container *container = NULL;
    const char *name = order->container;
    if (migrate->stopping)
        return err_set(err, ERR_CANCELLED, "the node stops");
    if (order->policy && strlen(order->policy) >= MIGRATE_POLICY_SIZE)
        return err_set(err, ERR_INVALID, "the policy is too long");
    int status = runtime_get(migrate->config.runtime, name, &container, err);
    if (status < 0)
        return status;
    if (id_equal(&order->target, &migrate->config.self))
        return err_set(err, ERR_CONFLICT, "container '%s' is on that node already", name);
    if (source_of_container(migrate, &container->id))
        return err_set(err, ERR_CONFLICT, "container '%s' is being migrated already", name);
    if (container->state != RUNTIME_RUNNING)
        return err_set(err, ERR_CONFLICT, "container '%s' does not run: only running containers can be migrated", name);
    struct guid id;
    crypto_random(&id, sizeof id);
    struct source *source =
        source_new(migrate, &id, &order->target, &container->id, container->spec.name, container->epoch + 1);
    if (!source)
        return err_set(err, ERR_NOMEM, "no memory for a migration");
    strcpy(source->policy, order->policy ? order->policy : "");
    source->watch = *watch;
    *ret_id = id;
    migrate->config.ops.after(migrate->config.ops.ctx, 0, begin, source);
    return 0;
}

void migrate_cancel(struct migrate *migrate, const struct guid *id)
{
    struct source *source = source_find(migrate, id);
    if (source)
        source->cancelled = true;
}

void migrate_unwatch(struct migrate *migrate, const struct guid *id)
{
    struct source *source = source_find(migrate, id);
    if (source)
        source->watch = (struct migrate_watch){0};
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
