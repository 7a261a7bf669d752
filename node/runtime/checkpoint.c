/*
 * What migrations do with containers.
 *
 *   RUNNING --checkpoint--> OUTGOING --discard--> (gone)            at the source
 *      ^                      |
 *      +---resume--- restore -+                                     taken back
 *      |
 *      +---resume--- restore --- INCOMING <--incoming-- (nothing)   at the destination
 *
 * The record is written before the deed where a kill in between could otherwise lose the container: OUTGOING before the
 * last dump ends it, RUNNING before its tasks are let go. runtime_open looks which of the two it was.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/scope.h"
#include "node/runtime/poll.h"
#include "node/runtime/record.h"
#include "node/runtime/spec.h"
#include "node/runtime/stage.h"

OWNED_DEFINE(owned_dir, DIR, closedir)
OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)

static bool is_migrating(const struct runtime_container *container)
{
    return container->state == RUNTIME_INCOMING || container->state == RUNTIME_OUTGOING;
}

static int refuse_others(const struct runtime_container *container, struct err *err)
{
    if (is_migrating(container))
        return 0;
    return err_set(err, ERR_CONFLICT, "container '%s' is not migrating", container->spec.name);
}

int runtime_writable_path(struct runtime *runtime, const struct guid *id, char **ret_path, struct err *err)
{
    struct runtime_entry *entry;
    int status = runtime_table_take_id(runtime, id, &entry, err);
    if (status < 0)
        return status;
    char *path = strdup(entry->bundle.rw);
    runtime_table_give(runtime, entry);
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    *ret_path = path;
    return 0;
}

int runtime_next_version(struct runtime *runtime, const struct guid *id, uint64_t *ret_epoch, uint64_t *ret_counter,
                         struct err *err)
{
    struct runtime_entry *entry;
    int status = runtime_table_take_id(runtime, id, &entry, err);
    if (status < 0)
        return status;
    struct runtime_container next = *entry->container;
    next.counter++;
    status = runtime_table_save(runtime, entry, &next, err);
    runtime_table_give(runtime, entry);
    if (status < 0)
        return status;
    *ret_epoch = next.epoch;
    *ret_counter = next.counter;
    return 0;
}

/* ---- checkpoint ---- */

/* CRIU makes some of its files readable for others. Nobody gets into the directory meanwhile, it is 0700. */
static int close_images(const char *images_dir, struct err *err)
{
    OWNED(owned_dir) DIR *dir = opendir(images_dir);
    if (!dir)
        return err_errno(err, errno, "cannot list '%s'", images_dir);
    for (struct dirent *item; (item = readdir(dir));)
        if (strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0 &&
            fchmodat(dirfd(dir), item->d_name, 0600, 0) < 0)
            return err_errno(err, errno, "cannot set the mode of '%s/%s'", images_dir, item->d_name);
    return 0;
}

static int set_state(struct runtime *runtime, struct runtime_entry *entry, enum runtime_state state, struct err *err)
{
    struct runtime_container next = *entry->container;
    next.state = state;
    return runtime_table_save(runtime, entry, &next, err);
}

static int dump(struct runtime *runtime, struct runtime_entry *entry, const char *images_dir, bool leave_running,
                uint64_t *ret_frozen_ms, struct err *err)
{
    char id[GUID_TEXT_SIZE];
    guid_text(&entry->container->id, id);
    if (mkdir(images_dir, 0700) < 0)
        return err_errno(err, errno, "cannot make '%s'", images_dir);
    return runtime->driver->ops->checkpoint(runtime->driver, id, entry->bundle.bundle, images_dir, leave_running,
                                            ret_frozen_ms, err);
}

static int dump_and_go_on(struct runtime *runtime, struct runtime_entry *entry, const char *images_dir,
                          uint64_t *ret_frozen_ms, struct err *err)
{
    int status = dump(runtime, entry, images_dir, true, ret_frozen_ms, err);
    if (status == 0)
        status = close_images(images_dir, err);
    if (status < 0)
        file_remove_tree(images_dir, NULL);
    return status;
}

/* CRIU writes the inventory last, and ends the tasks after it. */
static bool is_whole(const char *images_dir)
{
    OWNED(owned_free) char *inventory = file_path("%s/inventory.img", images_dir);
    return inventory && file_exists(inventory);
}

static bool has_ended(struct runtime *runtime, struct runtime_entry *entry)
{
    struct driver_state real;
    char id[GUID_TEXT_SIZE];
    return runtime->driver->ops->inspect(runtime->driver, guid_text(&entry->container->id, id), &real, NULL) == 0 &&
           real.pid == 0;
}

/* It runs: so it is said in memory even if the record cannot be written, or it would be taken for one that has ended
 * with a dump. The record is put right by the next runtime_open. */
static void set_running_again(struct runtime *runtime, struct runtime_entry *entry)
{
    if (set_state(runtime, entry, RUNTIME_RUNNING, NULL) == 0)
        return;
    runtime_lock(runtime);
    entry->container->state = RUNTIME_RUNNING;
    runtime_unlock(runtime);
}

/* The last one: the container ends with it. Once it has ended the images are all that is left of it. */
static int dump_and_end(struct runtime *runtime, struct runtime_entry *entry, const char *images_dir,
                        uint64_t *ret_frozen_ms, struct err *err)
{
    int exit_code;
    int status = set_state(runtime, entry, RUNTIME_OUTGOING, err);
    if (status < 0)
        return status;
    status = dump(runtime, entry, images_dir, false, ret_frozen_ms, err);
    if (status < 0 && !(is_whole(images_dir) && has_ended(runtime, entry))) {
        file_remove_tree(images_dir, NULL); /* first: the disk may be full */
        set_running_again(runtime, entry);  /* runtime_poll sees if it does not */
        return status;
    }
    runtime_poll_wait(runtime, entry, 1000, &exit_code);
    runtime_table_set_pid(runtime, entry, 0);
    close_images(images_dir, NULL); /* the directory is closed in any case */
    return 0;
}

int runtime_checkpoint(struct runtime *runtime, const struct guid *id, const char *images_dir, bool leave_running,
                       uint64_t *ret_frozen_ms, struct err *err)
{
    struct runtime_entry *entry;
    uint64_t frozen_ms = 0;
    int status = runtime_need_driver(runtime, err);
    if (status == 0)
        status = runtime_table_take_id(runtime, id, &entry, err);
    if (status < 0)
        return status;
    if (entry->container->state != RUNTIME_RUNNING)
        status = err_set(err, ERR_CONFLICT, "container '%s' is not running", entry->container->spec.name);
    else if (leave_running)
        status = dump_and_go_on(runtime, entry, images_dir, &frozen_ms, err);
    else
        status = dump_and_end(runtime, entry, images_dir, &frozen_ms, err);
    if (status < 0)
        err_wrap(err, "checkpoint of '%s'", entry->container->spec.name);
    runtime_table_give(runtime, entry);
    if (status == 0 && ret_frozen_ms)
        *ret_frozen_ms = frozen_ms;
    return status;
}

/* ---- the other side ---- */

int runtime_incoming(struct runtime *runtime, const struct runtime_container *container, struct err *err)
{
    OWNED(owned_container) struct runtime_container *copy = NULL;
    struct runtime_entry *entry;
    int status = runtime_need_driver(runtime, err);
    if (status == 0)
        status = runtime_spec_check(&container->spec, true, err);
    if (status == 0)
        status = runtime_container_copy(container, &copy, err);
    if (status < 0)
        return status;
    copy->state = RUNTIME_INCOMING;
    copy->pid = 0;
    status = runtime_table_add(runtime, &copy, &entry, err);
    if (status < 0)
        return status;
    status = runtime_stage_make(runtime, entry, err);
    if (status == 0) {
        runtime_table_give(runtime, entry);
        return 0;
    }
    runtime_stage_remove(runtime, entry, NULL);
    runtime_table_drop(runtime, entry);
    return status;
}

/* Kill and forget what runs of it, and reap it. */
static int kill_tasks(struct runtime *runtime, struct runtime_entry *entry, struct err *err)
{
    char id[GUID_TEXT_SIZE];
    int exit_code;
    int status = runtime->driver->ops->remove(runtime->driver, guid_text(&entry->container->id, id), err);
    runtime_poll_collect(runtime, entry, &exit_code);
    return status;
}

static int restore(struct runtime *runtime, struct runtime_entry *entry, const char *images_dir, struct err *err)
{
    struct driver *driver = runtime->driver;
    char id[GUID_TEXT_SIZE];
    guid_text(&entry->container->id, id);
    struct driver_state state;
    int status = refuse_others(entry->container, err);
    if (status == 0)
        status = driver->ops->inspect(driver, id, &state, err);
    if (status == 0 && (state.status == DRIVER_RUNNING || state.status == DRIVER_FROZEN))
        return err_set(err, ERR_BUSY, "the tasks of container '%s' run: nothing is to be restored",
                       entry->container->spec.name);
    if (status == 0)
        status = kill_tasks(runtime, entry, err);
    if (status == 0)
        status = runtime_stage_mount(runtime, entry, err);
    if (status < 0)
        return status;
    status = driver->ops->restore(driver, id, entry->bundle.bundle, images_dir, err);
    if (status == 0)
        status = driver->ops->inspect(driver, id, &state, err);
    if (status == 0 && state.status != DRIVER_PAUSED) {
        driver->ops->remove(driver, id, NULL);
        status = err_set(err, ERR_IO, "the restored tasks are not stopped");
    }
    if (status == 0)
        runtime_table_set_pid(runtime, entry, state.pid);
    else
        runtime_bundle_unmount(&entry->bundle);
    return status;
}

int runtime_restore(struct runtime *runtime, const struct guid *id, const char *images_dir, struct err *err)
{
    struct runtime_entry *entry;
    int status = runtime_need_driver(runtime, err);
    if (status == 0)
        status = runtime_table_take_id(runtime, id, &entry, err);
    if (status < 0)
        return status;
    status = restore(runtime, entry, images_dir, err);
    if (status < 0)
        err_wrap(err, "restore of '%s'", entry->container->spec.name);
    runtime_table_give(runtime, entry);
    return status;
}

static int resume(struct runtime *runtime, struct runtime_entry *entry, uint64_t epoch, struct err *err)
{
    struct driver *driver = runtime->driver;
    const struct runtime_container before = *entry->container;
    char id[GUID_TEXT_SIZE];
    guid_text(&before.id, id);
    bool again = before.state == RUNTIME_RUNNING && before.epoch == epoch;
    if (again)
        return driver->ops->resume(driver, id, err);
    int status = refuse_others(&before, err);
    struct driver_state state;
    if (status == 0)
        status = driver->ops->inspect(driver, id, &state, err);
    if (status == 0 && state.pid == 0)
        status = err_set(err, ERR_CONFLICT, "nothing of container '%s' has been restored", before.spec.name);
    struct runtime_container next = before;
    next.state = RUNTIME_RUNNING;
    next.counter = epoch == before.epoch ? before.counter : 0;
    next.epoch = epoch;
    if (status == 0)
        status = runtime_table_save(runtime, entry, &next, err);
    if (status < 0)
        return status;
    status = driver->ops->resume(driver, id, err);
    if (status < 0)
        runtime_table_save(runtime, entry, &before, NULL);
    return status;
}

int runtime_resume(struct runtime *runtime, const struct guid *id, uint64_t epoch, struct err *err)
{
    struct runtime_entry *entry;
    int status = runtime_need_driver(runtime, err);
    if (status == 0)
        status = runtime_table_take_id(runtime, id, &entry, err);
    if (status < 0)
        return status;
    status = resume(runtime, entry, epoch, err);
    runtime_table_give(runtime, entry);
    return status;
}

/* While it was in the table nobody else could use them: a volume has one writer. */
static int remove_volumes(struct runtime *runtime, const struct runtime_spec *spec, struct err *err)
{
    int status = 0;
    for (size_t i = 0; status == 0 && i < spec->volume_count; i++) {
        OWNED(owned_free) char *path = NULL;
        if (spec->volumes[i].read_only)
            continue;
        status = runtime_volume_path(runtime, &spec->volumes[i].guid, false, &path, err);
        if (status == 0)
            status = file_remove_tree(path, err);
    }
    return status;
}

/* The record goes last: after a kill it is still there, to be discarded again. */
static int discard(struct runtime *runtime, struct runtime_entry *entry, bool volumes, struct err *err)
{
    int status = refuse_others(entry->container, err);
    if (status == 0)
        status = kill_tasks(runtime, entry, err);
    if (status == 0)
        runtime_bundle_unmount(&entry->bundle);
    if (status == 0 && volumes)
        status = remove_volumes(runtime, &entry->container->spec, err);
    return status < 0 ? status : runtime_stage_remove(runtime, entry, err);
}

int runtime_discard(struct runtime *runtime, const struct guid *id, bool volumes, struct err *err)
{
    struct runtime_entry *entry;
    int status = runtime_need_driver(runtime, err);
    if (status < 0)
        return status;
    if (runtime_table_take_id(runtime, id, &entry, NULL) < 0)
        return 0;
    status = discard(runtime, entry, volumes, err);
    if (status < 0)
        runtime_table_give(runtime, entry);
    else
        runtime_table_drop(runtime, entry);
    return status;
}
