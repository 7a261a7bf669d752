#include "node/migrate/migrate.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/file.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/migrate/state.h"

#define KEPT_VERSIONS 2

OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)

int migrate_new(const struct migrate_config *config, struct migrate **ret_migrate, struct err *err)
{
    struct migrate *migrate = calloc(1, sizeof *migrate);
    if (!migrate)
        return err_set(err, ERR_NOMEM, "no memory for migrations");
    migrate->config = *config;
    migrate->config.dir = NULL; /* borrowed for this call only */
    migrate->dir = file_path("%s/migrate", config->dir);
    TAILQ_INIT(&migrate->sources);
    TAILQ_INIT(&migrate->targets);
    int status = migrate->dir ? file_make_dirs(migrate->dir, 0700, err) : err_set(err, ERR_NOMEM, "no memory");
    if (status < 0) {
        migrate_free(migrate);
        return status;
    }
    *ret_migrate = migrate;
    return 0;
}

void migrate_free(struct migrate *migrate)
{
    if (!migrate)
        return;
    source_free_all(migrate);
    target_free_all(migrate);
    free(migrate->dir);
    free(migrate);
}

int migrate_recover(struct migrate *migrate, struct err *err)
{
    OWNED(owned_free) struct journal_row *rows = NULL;
    size_t count = 0;
    int status = journal_all(migrate->config.store, &rows, &count, err);
    for (size_t i = 0; status == 0 && i < count; i++) {
        char id[GUID_TEXT_SIZE];
        log_info("migrate", "going on after a restart id=%s side=%c", guid_text(&rows[i].id, id), rows[i].side);
        status = rows[i].side == JOURNAL_SOURCE ? source_recover(migrate, &rows[i], err)
                                                : target_recover(migrate, &rows[i], err);
    }
    return status;
}

void migrate_stop(struct migrate *migrate)
{
    migrate->stopping = true;
    target_stop_all(migrate);
}

size_t migrate_busy(const struct migrate *migrate)
{
    return migrate->jobs_running + source_count(migrate) + target_unsettled(migrate);
}

void migrate_request(struct migrate *migrate, const struct id *peer, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES],
                     const char *method, const json_t *body, const struct migrate_answer *answer)
{
    if (strcmp(method, "migrate.verdict") == 0)
        source_answer_verdict(migrate, peer, body, answer);
    else
        target_request(migrate, peer, public_key, method, body, answer);
}

void migrate_refuse(const struct migrate_answer *answer, int code, const char *text)
{
    struct err err;
    err_set(&err, code, "%s", text);
    answer->refuse(answer->ctx, &err);
}

char *migrate_work_dir(const struct migrate *migrate, enum journal_side side, const struct guid *id)
{
    char text[GUID_TEXT_SIZE];
    return file_path("%s/%s-%c", migrate->dir, guid_text(id, text), (char)side);
}

int migrate_forget(struct migrate *migrate, enum journal_side side, const struct guid *id, struct err *err)
{
    OWNED(owned_free) char *work = migrate_work_dir(migrate, side, id);
    int status = work ? file_remove_tree(work, err) : err_set(err, ERR_NOMEM, "no memory for a path");
    return status < 0 ? status : journal_remove(migrate->config.store, side, id, err);
}

/* ---- removal by force ---- */

static bool is_migrating(const struct runtime_container *container)
{
    return container->state == RUNTIME_INCOMING || container->state == RUNTIME_OUTGOING;
}

int migrate_give_up(struct migrate *migrate, const char *name, struct err *err)
{
    OWNED(owned_container) struct runtime_container *container = NULL;
    int status = runtime_get(migrate->config.runtime, name, &container, err);
    if (status < 0 || !is_migrating(container))
        return status;
    if (source_is_busy(migrate, &container->id) || !target_give_up(migrate, &container->id))
        return err_set(err, ERR_CONFLICT, "container '%s' is migrating: wait for the end of that, or interrupt it",
                       name);
    return 0;
}

/* A decision stays until the destination has heard it, or it would believe the contrary. */
static int remove_row(struct migrate *migrate, const struct journal_row *row, struct err *err)
{
    OWNED(owned_free) char *work = migrate_work_dir(migrate, row->side, &row->id);
    if (row->side != JOURNAL_SOURCE || row->state != JOURNAL_COMMITTED)
        return migrate_forget(migrate, row->side, &row->id, err);
    return work ? file_remove_tree(work, err) : err_set(err, ERR_NOMEM, "no memory for a path");
}

int migrate_remove(struct migrate *migrate, const char *name, struct err *err)
{
    OWNED(owned_container) struct runtime_container *container = NULL;
    OWNED(owned_free) struct journal_row *rows = NULL;
    size_t count = 0;
    int status = runtime_get(migrate->config.runtime, name, &container, err);
    if (status < 0 || !is_migrating(container))
        return status;
    log_warn("migrate", "removed by force: its memory and volumes are gone from this node container=%s", name);
    status = runtime_discard(migrate->config.runtime, &container->id, true, err);
    if (status == 0)
        status = journal_all(migrate->config.store, &rows, &count, err);
    for (size_t i = 0; status == 0 && i < count; i++)
        if (memcmp(&rows[i].container, &container->id, sizeof container->id) == 0)
            status = remove_row(migrate, &rows[i], err);
    return status < 0 ? status : 1;
}

/* ---- snapshots as caches ---- */

void migrate_service_name(const struct runtime_container *container, struct buf *name)
{
    buf_add(name, container->spec.image, strlen(container->spec.image) + 1);
    buf_add_str(name, container->spec.user);
}

struct old_versions {
    struct store_version versions[KEPT_VERSIONS];
    struct id digests[KEPT_VERSIONS];
    size_t count; /* of all seen; the arrays hold the last KEPT_VERSIONS, oldest first */
    struct store_version drop;
    struct id drop_digest;
};

static int note_version(const struct store_ref *ref, void *ctx)
{
    struct old_versions *old = ctx;
    if (old->count >= KEPT_VERSIONS) {
        old->drop = old->versions[0];
        old->drop_digest = old->digests[0];
        memmove(&old->versions[0], &old->versions[1], sizeof old->versions - sizeof old->versions[0]);
        memmove(&old->digests[0], &old->digests[1], sizeof old->digests - sizeof old->digests[0]);
    }
    size_t at = old->count < KEPT_VERSIONS ? old->count : KEPT_VERSIONS - 1;
    old->versions[at] = ref->version;
    old->digests[at] = ref->digest;
    old->count++;
    return 0;
}

static bool still_named(const struct old_versions *old, const struct id *digest)
{
    for (size_t i = 0; i < KEPT_VERSIONS; i++)
        if (id_equal(&old->digests[i], digest))
            return true;
    return false;
}

/* Set a reference, and drop all but the two newest of its name. */
static int keep(struct store *store, const struct store_ref *ref, struct err *err)
{
    int status = store_ref_set(store, ref, err);
    for (;;) {
        struct old_versions old = {0};
        if (status == 0)
            status = store_ref_each(store, ref->kind, ref->name, note_version, &old, err);
        if (status < 0 || old.count <= KEPT_VERSIONS)
            return status;
        status = store_ref_remove(store, ref->kind, ref->name, old.drop, err);
        if (status >= 0 && !still_named(&old, &old.drop_digest))
            status = store_object_remove(store, &old.drop_digest, err);
        status = status < 0 ? status : 0;
    }
}

/* The name under which versions of an object follow each other, or NULL for what has no versions. */
static const char *version_name(const struct migrate_object *object, const struct guid *container,
                                char text[GUID_TEXT_SIZE + 64], uint8_t *ret_kind)
{
    char id[GUID_TEXT_SIZE];
    guid_text(container, id);
    *ret_kind = MIGRATE_REF_CHECKPOINT;
    switch (object->role) {
    case MIGRATE_VOLUME:
        *ret_kind = MIGRATE_REF_VOLUME;
        snprintf(text, GUID_TEXT_SIZE + 64, "%s", object->name);
        return text;
    case MIGRATE_WRITABLE:
        *ret_kind = MIGRATE_REF_VOLUME;
        snprintf(text, GUID_TEXT_SIZE + 64, "%s", id);
        return text;
    case MIGRATE_CHECKPOINT:
        snprintf(text, GUID_TEXT_SIZE + 64, "%s", id);
        return text;
    case MIGRATE_PAGES:
        snprintf(text, GUID_TEXT_SIZE + 64, "%s/%s", id, object->name);
        return text;
    default:
        return NULL;
    }
}

int migrate_keep_all(struct migrate *migrate, const struct manifest *manifest, struct store_version version,
                     struct err *err)
{
    OWNED(buf_release) struct buf service = BUF(MIGRATE_SERVICE_BYTES);
    migrate_service_name(manifest->container, &service);
    int status = service.failed ? err_set(err, ERR_NOMEM, "no memory for a name") : 0;
    for (size_t i = 0; status == 0 && i < manifest->count; i++) {
        const struct migrate_object *object = &manifest->objects[i];
        char text[GUID_TEXT_SIZE + 64];
        struct store_ref ref = {.version = version, .digest = object->digest};
        ref.name = version_name(object, &manifest->container->id, text, &ref.kind);
        if (object->role == MIGRATE_CHECKPOINT) {
            ref.value = service.data;
            ref.value_len = service.len;
        }
        if (ref.name)
            status = keep(migrate->config.store, &ref, err);
    }
    return status;
}

void migrate_publish_all(struct migrate *migrate, const struct manifest *manifest, struct store_version version)
{
    const struct migrate_ops *ops = &migrate->config.ops;
    for (size_t i = 0; i < manifest->count; i++)
        ops->publish(ops->ctx, &manifest->objects[i], manifest->container, version);
}
