#include "node/runtime/table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "node/base/scope.h"
#include "node/runtime/record.h"

#define ID_PREFIX_MIN 8

void runtime_lock(struct runtime *runtime)
{
    pthread_mutex_lock(&runtime->lock);
}

void runtime_unlock(struct runtime *runtime)
{
    pthread_mutex_unlock(&runtime->lock);
}

static struct runtime_entry *find_id(struct runtime *runtime, const struct guid *id)
{
    for (size_t i = 0; i < runtime->count; i++)
        if (memcmp(&runtime->entries[i]->container->id, id, sizeof *id) == 0)
            return runtime->entries[i];
    return NULL;
}

static struct runtime_entry *find_name(struct runtime *runtime, const char *name)
{
    for (size_t i = 0; i < runtime->count; i++)
        if (strcmp(runtime->entries[i]->container->spec.name, name) == 0)
            return runtime->entries[i];
    return NULL;
}

/* A name comes before an id: names are chosen by people, who may have chosen hex digits. */
struct runtime_entry *runtime_table_find(struct runtime *runtime, const char *name)
{
    struct runtime_entry *found = find_name(runtime, name);
    size_t len = strlen(name);
    if (found || len < ID_PREFIX_MIN)
        return found;
    for (size_t i = 0; i < runtime->count; i++) {
        char id[GUID_TEXT_SIZE];
        if (strncmp(guid_text(&runtime->entries[i]->container->id, id), name, len) != 0)
            continue;
        if (found)
            return NULL; /* not the only one: neither is meant */
        found = runtime->entries[i];
    }
    return found;
}

/* ---- volumes ---- */

/* Whether it has its volumes mounted, or may have them again without another runtime_run. */
static bool is_active(const struct runtime_container *container)
{
    return container->state != RUNTIME_EXITED && container->state != RUNTIME_STOPPED;
}

const char *runtime_table_user_of(struct runtime *runtime, const struct guid *volume, bool writers_only)
{
    for (size_t i = 0; i < runtime->count; i++) {
        const struct runtime_container *container = runtime->entries[i]->container;
        for (size_t v = 0; is_active(container) && v < container->spec.volume_count; v++) {
            const struct runtime_volume *other = &container->spec.volumes[v];
            if (memcmp(&other->guid, volume, sizeof *volume) == 0 && !(writers_only && other->read_only))
                return container->spec.name;
        }
    }
    return NULL;
}

static int check_volumes(struct runtime *runtime, const struct runtime_spec *spec, struct err *err)
{
    for (size_t i = 0; i < spec->volume_count; i++) {
        const struct runtime_volume *volume = &spec->volumes[i];
        const char *user = runtime_table_user_of(runtime, &volume->guid, volume->read_only);
        char guid[GUID_TEXT_SIZE];
        if (user)
            return err_set(err, ERR_BUSY, "volume %s is in use by container '%s'", guid_text(&volume->guid, guid),
                           user);
    }
    return 0;
}

/* ---- entries ---- */

static void entry_free(struct runtime_entry *entry)
{
    runtime_container_free(entry->container);
    runtime_bundle_release(&entry->bundle);
    owned_fd(&entry->pid_fd);
    free(entry);
}

OWNED_DEFINE(owned_entry, struct runtime_entry, entry_free)

static int check_new(struct runtime *runtime, const struct runtime_container *container, struct err *err)
{
    if (runtime->count == RUNTIME_MAX_CONTAINERS)
        return err_set(err, ERR_LIMIT, "this node has %d containers already", RUNTIME_MAX_CONTAINERS);
    if (find_name(runtime, container->spec.name))
        return err_set(err, ERR_EXISTS, "there is a container '%s' already", container->spec.name);
    if (find_id(runtime, &container->id))
        return err_set(err, ERR_EXISTS, "container '%s' is here already, under another name", container->spec.name);
    return is_active(container) ? check_volumes(runtime, &container->spec, err) : 0;
}

int runtime_table_add(struct runtime *runtime, struct runtime_container **container, struct runtime_entry **ret_entry,
                      struct err *err)
{
    OWNED(owned_entry) struct runtime_entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        return err_set(err, ERR_NOMEM, "no memory for a container");
    entry->pid_fd = -1;
    entry->taken = true;
    int status = runtime_bundle_init(&entry->bundle, runtime->containers_dir, &(*container)->id, err);
    if (status < 0)
        return status;
    runtime_lock(runtime);
    status = check_new(runtime, *container, err);
    if (status == 0) {
        entry->container = STEAL(*container);
        runtime->entries[runtime->count++] = entry;
    }
    runtime_unlock(runtime);
    if (status == 0)
        *ret_entry = STEAL(entry);
    return status;
}

int runtime_table_take(struct runtime *runtime, const char *name, struct runtime_entry **ret_entry, struct err *err)
{
    runtime_lock(runtime);
    struct runtime_entry *entry;
    /* Looked up anew after each wait: who had it may have removed it. */
    while ((entry = runtime_table_find(runtime, name)) && entry->taken)
        pthread_cond_wait(&runtime->given, &runtime->lock);
    if (entry)
        entry->taken = true;
    runtime_unlock(runtime);
    if (!entry)
        return err_set(err, ERR_NOTFOUND, "there is no container '%.80s'", name);
    *ret_entry = entry;
    return 0;
}

int runtime_table_take_id(struct runtime *runtime, const struct guid *id, struct runtime_entry **ret_entry,
                          struct err *err)
{
    runtime_lock(runtime);
    struct runtime_entry *entry;
    while ((entry = find_id(runtime, id)) && entry->taken)
        pthread_cond_wait(&runtime->given, &runtime->lock);
    if (entry)
        entry->taken = true;
    runtime_unlock(runtime);
    char text[GUID_TEXT_SIZE];
    if (!entry)
        return err_set(err, ERR_NOTFOUND, "there is no container %s", guid_text(id, text));
    *ret_entry = entry;
    return 0;
}

struct runtime_entry *runtime_table_try(struct runtime *runtime, size_t index)
{
    runtime_lock(runtime);
    struct runtime_entry *entry = index < runtime->count ? runtime->entries[index] : NULL;
    if (entry && entry->taken)
        entry = NULL;
    if (entry)
        entry->taken = true;
    runtime_unlock(runtime);
    return entry;
}

void runtime_table_give(struct runtime *runtime, struct runtime_entry *entry)
{
    runtime_lock(runtime);
    entry->taken = false;
    pthread_cond_broadcast(&runtime->given);
    runtime_unlock(runtime);
}

void runtime_table_drop(struct runtime *runtime, struct runtime_entry *entry)
{
    runtime_lock(runtime);
    for (size_t i = 0; i < runtime->count; i++)
        if (runtime->entries[i] == entry)
            runtime->entries[i] = runtime->entries[--runtime->count];
    pthread_cond_broadcast(&runtime->given);
    runtime_unlock(runtime);
    entry_free(entry);
}

int runtime_table_save(struct runtime *runtime, struct runtime_entry *entry, const struct runtime_container *next,
                       struct err *err)
{
    int status = runtime_record_write(entry->bundle.record, next, err);
    if (status < 0)
        return status;
    runtime_lock(runtime);
    if (next != entry->container)
        *entry->container = *next;
    runtime_unlock(runtime);
    return 0;
}

void runtime_table_set_pid(struct runtime *runtime, struct runtime_entry *entry, pid_t pid)
{
    owned_fd(&entry->pid_fd);
    entry->pid_fd = pid > 0 ? pidfd_open(pid, 0) : -1;
    runtime_lock(runtime);
    entry->container->pid = entry->pid_fd >= 0 ? pid : 0;
    runtime_unlock(runtime);
}
