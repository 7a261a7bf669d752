/* What users do with containers. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/scope.h"
#include "node/runtime/poll.h"
#include "node/runtime/record.h"
#include "node/runtime/spec.h"
#include "node/runtime/stage.h"

#define KILL_WAIT_MS 10000

OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)

/* ---- run ---- */

/* A random GUID, version 4 of RFC 4122. */
static void make_id(struct guid *ret_id)
{
    crypto_random(ret_id->b, sizeof ret_id->b);
    ret_id->b[6] = (uint8_t)((ret_id->b[6] & 0x0f) | 0x40);
    ret_id->b[8] = (uint8_t)((ret_id->b[8] & 0x3f) | 0x80);
}

static int new_container(struct runtime *runtime, const struct runtime_spec *spec,
                         struct runtime_container **ret_container, struct err *err)
{
    OWNED(owned_container) struct runtime_container *container = calloc(1, sizeof *container);
    if (!container)
        return err_set(err, ERR_NOMEM, "no memory for a container");
    make_id(&container->id);
    container->state = RUNTIME_CREATED;
    container->epoch = 1;
    container->created_ms = clock_wall_ms(&runtime->options.clock);
    int status = runtime_spec_copy(spec, &container->spec, err);
    if (status == 0)
        *ret_container = STEAL(container);
    return status;
}

static int start(struct runtime *runtime, struct runtime_entry *entry, struct err *err)
{
    char id[GUID_TEXT_SIZE];
    guid_text(&entry->container->id, id);
    pid_t pid = 0;
    int status = runtime_stage_make(runtime, entry, err);
    if (status == 0)
        status = runtime_stage_mount(runtime, entry, err);
    if (status == 0)
        status = runtime->driver->ops->create(runtime->driver, id, entry->bundle.bundle, &pid, err);
    if (status < 0)
        return status;
    runtime_table_set_pid(runtime, entry, pid);
    struct runtime_container next = *entry->container;
    next.state = RUNTIME_RUNNING;
    next.started_ms = clock_wall_ms(&runtime->options.clock);
    return runtime_table_save(runtime, entry, &next, err);
}

/* Take back a container that could not be started: the error that counts is the one that is set already. */
static void undo(struct runtime *runtime, struct runtime_entry *entry)
{
    char id[GUID_TEXT_SIZE];
    int exit_code;
    runtime->driver->ops->remove(runtime->driver, guid_text(&entry->container->id, id), NULL);
    runtime_poll_collect(runtime, entry, &exit_code);
    runtime_stage_remove(runtime, entry, NULL);
    runtime_table_drop(runtime, entry);
}

int runtime_run(struct runtime *runtime, struct runtime_spec *spec, struct runtime_container **ret_container,
                struct err *err)
{
    OWNED(owned_container) struct runtime_container *container = NULL;
    OWNED(owned_container) struct runtime_container *answer = NULL;
    struct runtime_entry *entry;
    int status = runtime_need_driver(runtime, err);
    if (status == 0)
        status = runtime_spec_check(spec, true, err);
    if (status == 0)
        status = new_container(runtime, spec, &container, err);
    if (status == 0)
        status = runtime_table_add(runtime, &container, &entry, err);
    if (status < 0)
        return status;
    status = start(runtime, entry, err);
    if (status == 0)
        status = runtime_container_copy(entry->container, &answer, err);
    if (status < 0) {
        undo(runtime, entry);
        return status;
    }
    runtime_table_give(runtime, entry);
    runtime_spec_release(spec);
    *ret_container = STEAL(answer);
    return 0;
}

/* ---- stop, remove ---- */

static int refuse_migrating(const struct runtime_container *container, struct err *err)
{
    if (container->state != RUNTIME_INCOMING && container->state != RUNTIME_OUTGOING)
        return 0;
    return err_set(err, ERR_CONFLICT, "container '%s' is migrating: if that came to a halt, 'cmig rm -f' gives it up",
                   container->spec.name);
}

/* Ask, wait, insist. A signal that fails because it has ended meanwhile is no failure. */
static int end(struct runtime *runtime, struct runtime_entry *entry, uint64_t timeout_ms, int *ret_exit_code,
               struct err *err)
{
    struct driver *driver = runtime->driver;
    char id[GUID_TEXT_SIZE];
    guid_text(&entry->container->id, id);
    int status = driver->ops->signal(driver, id, SIGTERM, err);
    if (runtime_poll_wait(runtime, entry, status == 0 ? timeout_ms : 0, ret_exit_code))
        return 0;
    status = driver->ops->signal(driver, id, SIGKILL, err);
    if (runtime_poll_wait(runtime, entry, KILL_WAIT_MS, ret_exit_code))
        return 0;
    return status < 0 ? status : err_set(err, ERR_TIMEOUT, "'%s' does not end", entry->container->spec.name);
}

static int stop(struct runtime *runtime, struct runtime_entry *entry, uint64_t timeout_ms, struct err *err)
{
    int status = refuse_migrating(entry->container, err);
    if (status < 0 || entry->container->state != RUNTIME_RUNNING)
        return status;
    int exit_code = -1;
    bool by_itself = runtime_poll_collect(runtime, entry, &exit_code);
    if (!by_itself && entry->pid_fd >= 0)
        status = end(runtime, entry, timeout_ms, &exit_code, err);
    if (status < 0)
        return status;
    struct runtime_container next = *entry->container;
    next.state = by_itself ? RUNTIME_EXITED : RUNTIME_STOPPED;
    next.exit_code = exit_code;
    status = runtime_table_save(runtime, entry, &next, err);
    char id[GUID_TEXT_SIZE];
    if (status == 0)
        status = runtime->driver->ops->remove(runtime->driver, guid_text(&next.id, id), err);
    runtime_bundle_unmount(&entry->bundle);
    return status;
}

int runtime_stop(struct runtime *runtime, const char *name, uint64_t timeout_ms, struct err *err)
{
    struct runtime_entry *entry;
    int status = runtime_need_driver(runtime, err);
    if (status == 0)
        status = runtime_table_take(runtime, name, &entry, err);
    if (status < 0)
        return status;
    status = stop(runtime, entry, timeout_ms, err);
    runtime_table_give(runtime, entry);
    return status;
}

static int remove_ended(struct runtime *runtime, struct runtime_entry *entry, struct err *err)
{
    int exit_code;
    int status = refuse_migrating(entry->container, err);
    if (status < 0)
        return status;
    if (entry->container->state == RUNTIME_RUNNING && !runtime_poll_collect(runtime, entry, &exit_code))
        return err_set(err, ERR_CONFLICT, "container '%s' is running: stop it first", entry->container->spec.name);
    char id[GUID_TEXT_SIZE];
    status = runtime->driver->ops->remove(runtime->driver, guid_text(&entry->container->id, id), err);
    return status < 0 ? status : runtime_stage_remove(runtime, entry, err);
}

int runtime_remove(struct runtime *runtime, const char *name, struct err *err)
{
    struct runtime_entry *entry;
    int status = runtime_need_driver(runtime, err);
    if (status == 0)
        status = runtime_table_take(runtime, name, &entry, err);
    if (status < 0)
        return status;
    status = remove_ended(runtime, entry, err);
    if (status < 0)
        runtime_table_give(runtime, entry);
    else
        runtime_table_drop(runtime, entry);
    return status;
}

/* ---- looking ---- */

int runtime_get(struct runtime *runtime, const char *name, struct runtime_container **ret_container, struct err *err)
{
    runtime_lock(runtime);
    struct runtime_entry *entry = runtime_table_find(runtime, name);
    int status = entry ? runtime_container_copy(entry->container, ret_container, err)
                       : err_set(err, ERR_NOTFOUND, "there is no container '%.80s'", name);
    runtime_unlock(runtime);
    return status;
}

void runtime_each(struct runtime *runtime, runtime_each_cb each, void *ctx)
{
    runtime_lock(runtime);
    for (size_t i = 0; i < runtime->count; i++)
        each(ctx, runtime->entries[i]->container);
    runtime_unlock(runtime);
}

size_t runtime_count(struct runtime *runtime)
{
    runtime_lock(runtime);
    size_t count = runtime->count;
    runtime_unlock(runtime);
    return count;
}

int runtime_log_path(struct runtime *runtime, const char *name, char **ret_path, struct err *err)
{
    runtime_lock(runtime);
    struct runtime_entry *entry = runtime_table_find(runtime, name);
    char *path = entry ? strdup(entry->bundle.log) : NULL;
    runtime_unlock(runtime);
    if (!entry)
        return err_set(err, ERR_NOTFOUND, "there is no container '%.80s'", name);
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    *ret_path = path;
    return 0;
}
