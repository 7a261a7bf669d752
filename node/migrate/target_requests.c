/* What sources ask of destinations, and what a destination does after a restart. */
#include <stdlib.h>
#include <string.h>

#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/migrate/admit.h"
#include "node/migrate/target.h"

#define MAX_TARGETS 64
#define GIVEN_UP_MS 60000 /* a prepared container whose source is silent for so long may be removed by force */

OWNED_DEFINE(owned_json, json_t, json_decref)

static struct target *target_find(struct migrate *migrate, const struct guid *id, const struct id *peer)
{
    struct target *target;
    TAILQ_FOREACH (target, &migrate->targets, entry)
        if (memcmp(&target->id, id, sizeof *id) == 0 && id_equal(&target->source, peer))
            return target;
    return NULL;
}

/* ---- admit ---- */

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

static const char *policy_of(const json_t *body)
{
    const char *text = json_string_value(json_object_get(body, "policy"));
    return text ? text : "";
}

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
    struct target *target = target_find(migrate, &admission->id, &admission->peer); /* asked twice at once */
    if (!target && admission->status == 0) {
        target = target_new(migrate, &admission->id, &admission->peer, &admission->container->id);
        if (!target)
            err_set(&admission->err, ERR_NOMEM, "no memory for a migration");
    }
    if (target) {
        memcpy(target->public_key, admission->public_key, sizeof target->public_key);
        strcpy(target->policy, policy_of(admission->body)); /* its length was checked */
        admission->answer.reply(admission->answer.ctx, json_object());
    } else {
        admission->answer.refuse(admission->answer.ctx, &admission->err);
    }
    if (admission->container)
        runtime_container_free(admission->container);
    json_decref(admission->body);
    free(admission);
}

/* An earlier attempt that has not been tidied up. The same source has given it up, or it would not ask again: of what
 * was prepared it alone can say so. */
static bool is_in_the_way(struct target *earlier, const struct id *peer)
{
    struct err err;
    if (earlier->gone || earlier->state == RUNNING)
        return false;
    if (!id_equal(&earlier->source, peer))
        return true;
    if (earlier->state == PREPARED && !earlier->job_running && !earlier->asking) {
        target_ask_verdict(earlier);
    } else if (earlier->state < PREPARED && earlier->job_running) {
        earlier->abort_wanted = true;
    } else if (earlier->state < PREPARED) {
        err_set(&err, ERR_CANCELLED, "the source has begun anew");
        target_fail(earlier, &err);
    }
    return true;
}

static int check_earlier(struct migrate *migrate, const struct id *peer, const json_t *body, struct err *err)
{
    struct guid container;
    struct target *target;
    size_t count = 0;
    const char *id = json_string_value(json_object_get(json_object_get(body, "container"), "id"));
    if (!id || !guid_parse(id, &container))
        return err_set(err, ERR_INVALID, "the request names no container");
    if (strlen(policy_of(body)) >= MIGRATE_POLICY_SIZE)
        return err_set(err, ERR_INVALID, "the policy is too long");
    TAILQ_FOREACH (target, &migrate->targets, entry) {
        count++;
        if (memcmp(&target->container, &container, sizeof container) == 0 && is_in_the_way(target, peer))
            return err_set(err, ERR_BUSY, "it is still tidying up an earlier attempt: try again in a moment");
    }
    return count < MAX_TARGETS ? 0 : err_set(err, ERR_LIMIT, "it takes part in too many migrations");
}

static void on_admit(struct migrate *migrate, const struct guid *id, const struct id *peer, const uint8_t *public_key,
                     const json_t *body, const struct migrate_answer *answer)
{
    struct err err;
    struct admission *admission = NULL;
    if (migrate->stopping) {
        err_set(&err, ERR_CANCELLED, "it is stopping");
    } else if (check_earlier(migrate, peer, body, &err) == 0) {
        err_set(&err, ERR_NOMEM, "no memory for a migration");
        admission = calloc(1, sizeof *admission);
    }
    if (!admission) {
        answer->refuse(answer->ctx, &err);
        return;
    }
    *admission = (struct admission){
        .migrate = migrate, .id = *id, .peer = *peer, .answer = *answer, .body = json_deep_copy(body)};
    memcpy(admission->public_key, public_key, sizeof admission->public_key);
    migrate->jobs_running++;
    jobs_submit(&migrate->config.jobs, work_admit, on_admitted, admission);
}

/* ---- manifests ---- */

static bool is_same_spec(const struct runtime_container *one, const struct runtime_container *other)
{
    OWNED(owned_json) json_t *a = runtime_spec_to_json(&one->spec);
    OWNED(owned_json) json_t *b = runtime_spec_to_json(&other->spec);
    return a && b && json_equal(a, b);
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
    if (final && !is_same_spec(target->manifest.container, manifest.container))
        return err_set(err, ERR_INVALID, "the container is not the one that was copied");
    manifest_release(&target->earlier);
    target->earlier = target->manifest;
    target->manifest = manifest;
    manifest = (struct manifest){0};
    target->version = (struct store_version){target->manifest.container->epoch, target->manifest.container->counter};
    target->epoch = target->manifest.container->epoch + 1;
    return 0;
}

static void on_manifest(struct target *target, const json_t *body, enum target_state from, enum target_state to,
                        const struct migrate_answer *answer)
{
    struct err err;
    if (target->state == to || target->state == (enum target_state)(to + 1)) {
        answer->reply(answer->ctx, json_object()); /* asked again: the first answer was lost */
    } else if (target->state == FAILED) {
        answer->refuse(answer->ctx, &target->err);
    } else if (target->state != from || target->job_running) {
        err_set(&err, ERR_CONFLICT, "the migration is %s, not %s", target_state_name(target->state),
                target_state_name(from));
        answer->refuse(answer->ctx, &err);
    } else if (take_manifest(target, body, to == RESTORING, &err) < 0) {
        answer->refuse(answer->ctx, &err);
        target_fail(target, &err);
    } else {
        answer->reply(answer->ctx, json_object());
        target_enter(target, to);
        target_fetch_all(target);
    }
}

static void on_wait(struct target *target, const json_t *body, const struct migrate_answer *answer)
{
    target_answer_waiter(target);
    target->waiter = *answer;
    bool news = (uint64_t)json_integer_value(json_object_get(body, "seen")) != target->seen;
    if (news || target->state == FAILED)
        target_answer_waiter(target);
}

static void on_commit(struct target *target, const struct migrate_answer *answer)
{
    bool ours = target->state == PREPARED || target->state == COMMITTED;
    if (target->state == RUNNING) {
        answer->reply(answer->ctx, target_costs(target));
    } else if (!ours || (target->state == PREPARED && target->job_running)) {
        migrate_refuse(answer, ERR_CONFLICT, "the migration is not prepared");
    } else {
        if (target->commit_answer.refuse)
            migrate_refuse(&target->commit_answer, ERR_BUSY, "asked again");
        target->commit_answer = *answer;
        if (!target->job_running)
            target_commit(target);
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
        target_fail(target, &err);
}

static void on_done(struct target *target, const struct migrate_answer *answer)
{
    if (target->state != RUNNING) {
        migrate_refuse(answer, ERR_CONFLICT, "the container does not run here");
        return;
    }
    answer->reply(answer->ctx, json_object());
    if (target->job_running)
        target->done_wanted = true;
    else if (!target->gone)
        target_forget(target);
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
    struct target *target = target_find(migrate, &id, peer);
    if (target)
        target->heard_ms = target_now(target);
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
        on_commit(target, answer);
    else if (strcmp(method, "migrate.abort") == 0)
        on_abort(target, answer);
    else if (strcmp(method, "migrate.done") == 0)
        on_done(target, answer);
    else
        migrate_refuse(answer, ERR_UNSUPPORTED, "this request is not known here");
}

/* ---- restart and stop ---- */

static void recover_now(void *ctx)
{
    struct target *target = ctx;
    struct err err;
    if (target->state == COMMITTED) {
        target_commit(target);
    } else if (target->state == PREPARED) {
        target_ask_verdict(target);
    } else if (target->state < PREPARED) {
        err_set(&err, ERR_CANCELLED, "the destination was restarted in the middle of the migration");
        target_fail(target, &err);
    } /* running: the tick asks whether the source still needs to know */
}

int target_recover(struct migrate *migrate, const struct journal_row *row, struct err *err)
{
    static const enum target_state states[] = {[JOURNAL_COPYING] = COPYING,
                                               [JOURNAL_STOPPED] = COPYING, /* is never written here */
                                               [JOURNAL_PREPARED] = PREPARED,
                                               [JOURNAL_COMMITTED] = COMMITTED,
                                               [JOURNAL_RUNNING] = RUNNING};
    struct target *target = target_new(migrate, &row->id, &row->peer, &row->container);
    if (!target)
        return err_set(err, ERR_NOMEM, "no memory for a migration");
    target->have_container = true;
    target->epoch = row->epoch;
    target->state = states[row->state];
    target->settled = row->state == JOURNAL_RUNNING;
    migrate->config.ops.after(migrate->config.ops.ctx, 0, recover_now, target);
    return 0;
}

void target_stop_all(struct migrate *migrate)
{
    struct target *target;
    struct err err;
    err_set(&err, ERR_CANCELLED, "the destination stops");
    TAILQ_FOREACH (target, &migrate->targets, entry) {
        if (target->state >= PREPARED)
            continue; /* the journal knows */
        if (target->job_running)
            target->abort_wanted = true;
        else
            target_fail(target, &err);
    }
}

/* ---- removal by force ---- */

static bool may_give_up(const struct target *target)
{
    bool silent = target_now(target) - target->heard_ms > GIVEN_UP_MS;
    bool waits = target->state == PREPARED && silent && !target->asking;
    return (waits || target->state == COMMITTED) && !target->job_running;
}

bool target_give_up(struct migrate *migrate, const struct guid *container)
{
    struct err err;
    struct target *target;
    err_set(&err, ERR_CANCELLED, "the container was removed by force");
    TAILQ_FOREACH (target, &migrate->targets, entry) {
        if (memcmp(&target->container, container, sizeof *container) != 0 || target->gone || target->state == RUNNING)
            continue;
        if (!may_give_up(target))
            return false;
        target_fail(target, &err);
    }
    return true;
}
