#include "node/migrate/admit.h"

#include <stdio.h>
#include <string.h>

#include "node/base/file.h"
#include "node/base/scope.h"

OWNED_DEFINE(owned_json, json_t, json_decref)
OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)

/* Dotted numbers; what cannot be read counts as 0. */
static int compare_versions(const char *a, const char *b)
{
    int x[3] = {0}, y[3] = {0};
    sscanf(a, "%d.%d.%d", &x[0], &x[1], &x[2]);
    sscanf(b, "%d.%d.%d", &y[0], &y[1], &y[2]);
    for (int i = 0; i < 3; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

static const char *text_of(const json_t *json, const char *field)
{
    const char *text = json_string_value(json_object_get(json, field));
    return text ? text : "";
}

static bool array_has(const json_t *array, const char *text)
{
    size_t index;
    json_t *item;
    json_array_foreach(array, index, item)
    {
        const char *value = json_string_value(item);
        if (value && strcmp(value, text) == 0)
            return true;
    }
    return false;
}

/* A restored process goes on using what the old CPU had (CRIU's cpuinfo check; research: SIGILL otherwise). */
static int check_cpu(const json_t *theirs, const json_t *ours, struct err *err)
{
    const json_t *needed = json_object_get(theirs, "cpu_flags");
    const json_t *present = json_object_get(ours, "cpu_flags");
    size_t index;
    json_t *flag;
    json_array_foreach(needed, index, flag)
    {
        const char *name = json_string_value(flag);
        if (name && !array_has(present, name))
            return err_set(err, ERR_UNSUPPORTED, "its CPU lacks '%s', which the container's processes may be using",
                           name);
    }
    return 0;
}

static int check_abilities(const json_t *theirs, const json_t *ours, struct err *err)
{
    if (!json_is_true(json_object_get(ours, "containers")))
        return err_set(err, ERR_UNSUPPORTED, "it cannot run containers: %s", text_of(ours, "why"));
    if (strcmp(text_of(theirs, "arch"), text_of(ours, "arch")) != 0)
        return err_set(err, ERR_UNSUPPORTED, "its architecture is %s, not %s", text_of(ours, "arch"),
                       text_of(theirs, "arch"));
    if (compare_versions(text_of(ours, "criu"), text_of(theirs, "criu")) < 0)
        return err_set(err, ERR_UNSUPPORTED, "its CRIU %s is older than the source's %s: upgrade it",
                       text_of(ours, "criu"), text_of(theirs, "criu"));
    return check_cpu(theirs, ours, err);
}

static uint64_t memory_available(void)
{
    OWNED(buf_release) struct buf text = BUF(16384);
    unsigned long long kib = 0;
    if (file_read("/proc/meminfo", &text, NULL) < 0)
        return UINT64_MAX;
    const char *at = strstr(buf_str(&text), "MemAvailable:");
    return at && sscanf(at, "MemAvailable: %llu", &kib) == 1 ? kib * 1024 : UINT64_MAX;
}

static int check_room(struct migrate *migrate, uint64_t memory_bytes, struct err *err)
{
    uint64_t available = memory_available();
    if (available < memory_bytes)
        return err_set(err, ERR_NOSPACE, "it has %llu MiB of memory free, the container uses %llu MiB",
                       (unsigned long long)available >> 20, (unsigned long long)memory_bytes >> 20);
    struct store_usage usage;
    int status = store_usage(migrate->config.store, &usage, err);
    /* The dump lies in the store and once more as files. */
    if (status == 0 && usage.disk_free_bytes < 2 * memory_bytes)
        return err_set(err, ERR_NOSPACE, "it has %llu MiB of disk free, the checkpoint needs up to %llu MiB",
                       (unsigned long long)usage.disk_free_bytes >> 20, (unsigned long long)memory_bytes >> 19);
    return status;
}

static int check_free_name(struct migrate *migrate, const struct runtime_container *container, struct err *err)
{
    OWNED(owned_container) struct runtime_container *other = NULL;
    char id[GUID_TEXT_SIZE];
    if (runtime_get(migrate->config.runtime, container->spec.name, &other, NULL) == 0)
        return err_set(err, ERR_EXISTS, "it has a container named '%s' already: remove or rename that one",
                       container->spec.name);
    if (runtime_get(migrate->config.runtime, guid_text(&container->id, id), &other, NULL) == 0)
        return err_set(err, ERR_EXISTS, "it has this container already");
    return 0;
}

int admit_check(struct migrate *migrate, const json_t *body, struct runtime_container **ret_container, struct err *err)
{
    OWNED(owned_container) struct runtime_container *container = NULL;
    OWNED(owned_json) json_t *abilities = NULL;
    json_int_t memory = json_integer_value(json_object_get(body, "memory_bytes"));
    if (memory < 0)
        return err_set(err, ERR_INVALID, "the request asks for a negative amount of memory");
    int status = runtime_container_from_json(json_object_get(body, "container"), &container, err);
    if (status == 0)
        status = runtime_abilities(migrate->config.runtime, &abilities, err);
    if (status == 0)
        status = check_abilities(json_object_get(body, "abilities"), abilities, err);
    if (status == 0)
        status = check_free_name(migrate, container, err);
    if (status == 0)
        status = check_room(migrate, (uint64_t)memory, err);
    if (status == 0)
        *ret_container = STEAL(container);
    return status;
}
