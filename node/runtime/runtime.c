#include "node/runtime/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/runtime/record.h"
#include "node/runtime/table.h"

OWNED_DEFINE(owned_dir, DIR, closedir)
OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)
OWNED_DEFINE(owned_runtime, struct runtime, runtime_close)

/* ---- opening ---- */

static char *copy_of(const char *text)
{
    return strdup(text ? text : "");
}

static int make_paths(struct runtime *runtime, const struct runtime_options *options, struct err *err)
{
    int status = file_make_dirs(options->dir, 0700, err);
    if (status < 0)
        return status;
    /* Absolute and without links: they go into mounts and into runc's state. */
    OWNED(owned_free) char *dir = realpath(options->dir, NULL);
    if (!dir)
        return err_errno(err, errno, "cannot resolve '%s'", options->dir);
    runtime->options = *options;
    runtime->options.dir = NULL;
    runtime->options.runc = copy_of(options->runc);
    runtime->options.criu = copy_of(options->criu);
    runtime->options.exec_helper = copy_of(options->exec_helper);
    runtime->containers_dir = file_path("%s/containers", dir);
    runtime->volumes_dir = file_path("%s/volumes", dir);
    runtime->layers_dir = file_path("%s/layers", dir);
    runtime->engine_dir = file_path("%s/runc", dir);
    if (!runtime->options.runc || !runtime->options.criu || !runtime->options.exec_helper || !runtime->containers_dir ||
        !runtime->volumes_dir || !runtime->layers_dir || !runtime->engine_dir)
        return err_set(err, ERR_NOMEM, "no memory for paths");
    status = file_make_dirs(runtime->containers_dir, 0700, err);
    if (status == 0)
        status = file_make_dirs(runtime->volumes_dir, 0700, err);
    if (status == 0)
        status = file_make_dirs(runtime->layers_dir, 0700, err);
    return status;
}

/* What the record says should be, and what really runs, brought together. */
static enum runtime_state reconcile(enum runtime_state state, enum driver_status real)
{
    bool runs = real == DRIVER_RUNNING || real == DRIVER_FROZEN;
    switch (state) {
    case RUNTIME_CREATED:  /* killed between starting it and noting that */
    case RUNTIME_OUTGOING: /* killed before the last dump had ended it */
        return runs ? RUNTIME_RUNNING : state;
    case RUNTIME_RUNNING:
        return runs || real == DRIVER_PAUSED ? state : RUNTIME_EXITED;
    case RUNTIME_EXITED:
    case RUNTIME_STOPPED:
    case RUNTIME_INCOMING:
        return state;
    }
    return state;
}

static int look_at(struct runtime *runtime, struct runtime_entry *entry, struct err *err)
{
    char id[GUID_TEXT_SIZE];
    guid_text(&entry->container->id, id);
    struct driver *driver = runtime->driver;
    struct driver_state real;
    int status = driver->ops->inspect(driver, id, &real, err);
    if (status < 0)
        return status;
    runtime_table_set_pid(runtime, entry, real.pid);
    struct runtime_container next = *entry->container;
    next.state = reconcile(next.state, real.status);
    if (next.state == RUNTIME_RUNNING && real.status != DRIVER_RUNNING)
        status = driver->ops->resume(driver, id, err);
    if (status < 0 || next.state == entry->container->state)
        return status;
    next.exit_code = -1;
    return runtime_table_save(runtime, entry, &next, err);
}

static int load(struct runtime *runtime, const struct guid *id, struct err *err)
{
    OWNED(runtime_bundle_release) struct runtime_bundle bundle = {0};
    int status = runtime_bundle_init(&bundle, runtime->containers_dir, id, err);
    if (status < 0)
        return status;
    /* Killed before the record was written, or after it was removed. */
    if (!file_exists(bundle.record)) {
        char text[GUID_TEXT_SIZE];
        if (runtime->driver)
            status = runtime->driver->ops->remove(runtime->driver, guid_text(id, text), err);
        return status < 0 ? status : runtime_bundle_remove(&bundle, err);
    }
    OWNED(owned_container) struct runtime_container *container = NULL;
    status = runtime_record_read(bundle.record, &container, err);
    if (status < 0)
        return status;
    if (memcmp(&container->id, id, sizeof *id) != 0)
        return err_set(err, ERR_CORRUPT, "'%s' is the record of another container", bundle.record);
    container->pid = 0;
    struct runtime_entry *entry;
    status = runtime_table_add(runtime, &container, &entry, err);
    if (status < 0)
        return status;
    if (runtime->driver)
        status = look_at(runtime, entry, err);
    runtime_table_give(runtime, entry);
    return status;
}

/* One that cannot be read does not keep the others from being found. */
static int load_all(struct runtime *runtime, struct err *err)
{
    OWNED(owned_dir) DIR *dir = opendir(runtime->containers_dir);
    if (!dir)
        return err_errno(err, errno, "cannot list '%s'", runtime->containers_dir);
    for (struct dirent *item; (item = readdir(dir));) {
        struct guid id;
        struct err failed = {0};
        if (guid_parse(item->d_name, &id) && load(runtime, &id, &failed) < 0)
            log_warn("runtime", "container id=%s error=\"%s\"", item->d_name, failed.text);
    }
    return 0;
}

int runtime_open(const struct runtime_options *options, struct runtime **ret_runtime, struct err *err)
{
    OWNED(owned_runtime) struct runtime *runtime = calloc(1, sizeof *runtime);
    if (!runtime)
        return err_set(err, ERR_NOMEM, "no memory for the runtime");
    pthread_mutex_init(&runtime->lock, NULL);
    pthread_cond_init(&runtime->given, NULL);
    pthread_rwlock_init(&runtime->layers, NULL);
    int status = make_paths(runtime, options, err);
    if (status < 0)
        return status;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return err_errno(err, errno, "cannot become the reaper of containers");
    if (geteuid() == 0)
        status =
            driver_runc_new(runtime->options.runc, runtime->options.criu, runtime->engine_dir, &runtime->driver, err);
    if (status == 0)
        status = load_all(runtime, err);
    if (status == 0)
        *ret_runtime = STEAL(runtime);
    return status;
}

int runtime_need_driver(const struct runtime *runtime, struct err *err)
{
    if (runtime->driver)
        return 0;
    return err_set(err, ERR_UNSUPPORTED, "containers need root: start cmig-node as root, or ask one that runs so");
}

void runtime_close(struct runtime *runtime)
{
    if (!runtime)
        return;
    while (runtime->count > 0)
        runtime_table_drop(runtime, runtime->entries[runtime->count - 1]);
    if (runtime->driver)
        runtime->driver->ops->free(runtime->driver);
    free((char *)runtime->options.runc);
    free((char *)runtime->options.criu);
    free((char *)runtime->options.exec_helper);
    free(runtime->containers_dir);
    free(runtime->volumes_dir);
    free(runtime->layers_dir);
    free(runtime->engine_dir);
    pthread_rwlock_destroy(&runtime->layers);
    pthread_cond_destroy(&runtime->given);
    pthread_mutex_destroy(&runtime->lock);
    free(runtime);
}
