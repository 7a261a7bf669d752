#include "node/runtime/stage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/buf.h"
#include "node/base/file.h"
#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/runtime/cgroup.h"
#include "node/runtime/config.h"

#define OWNER_SIZE 64
#define HOST_FILE_MAX_BYTES (1u << 20) /* of /etc/resolv.conf, /etc/hosts */

int runtime_stage_image(struct runtime *runtime, const struct id *manifest, struct image **ret_image, struct err *err)
{
    struct store_object_info info;
    char text[DIGEST_TEXT_SIZE];
    digest_text(manifest, text);
    int found = store_object_stat(runtime->options.store, manifest, &info, err);
    if (found < 0)
        return found;
    if (!found)
        return err_set(err, ERR_NOTFOUND, "image manifest %s is not in the store", text);
    if (info.size_bytes > LIMIT_MANIFEST_BYTES)
        return err_set(err, ERR_INVALID, "object %s is too large for an image manifest", text);
    OWNED(owned_free) char *data = malloc(LIMIT_MANIFEST_BYTES);
    if (!data)
        return err_set(err, ERR_NOMEM, "no memory for an image manifest");
    size_t len;
    int status = store_object_read(runtime->options.store, manifest, 0, data, LIMIT_MANIFEST_BYTES, &len, err);
    return status < 0 ? status : image_parse(data, len, ret_image, err);
}

/* ---- pins ---- */

static const char *owner_of(const struct runtime_container *container, char owner[OWNER_SIZE])
{
    char id[GUID_TEXT_SIZE];
    snprintf(owner, OWNER_SIZE, "container %s", guid_text(&container->id, id));
    return owner;
}

static int pin(struct runtime *runtime, const struct runtime_container *container, const struct image *image, bool on,
               struct err *err)
{
    char owner[OWNER_SIZE];
    owner_of(container, owner);
    OWNED(owned_free) struct id *ids = NULL;
    size_t count = 0;
    int status = image_objects(image, &ids, &count, err);
    for (size_t i = 0; status >= 0 && i < count; i++)
        status = on ? store_pin(runtime->options.store, &ids[i], owner, err)
                    : store_unpin(runtime->options.store, &ids[i], owner, err);
    return status < 0 ? status : 0;
}

/* ---- making ---- */

int runtime_stage_make(struct runtime *runtime, struct runtime_entry *entry, struct err *err)
{
    const struct runtime_container *container = entry->container;
    OWNED(owned_image) struct image *image = NULL;
    int status = runtime_stage_image(runtime, &container->spec.manifest, &image, err);
    if (status == 0)
        status = runtime_bundle_make(&entry->bundle, container->spec.uid, container->spec.gid, err);
    /* Before the pins: after a kill there is someone to take them back. */
    if (status == 0)
        status = runtime_table_save(runtime, entry, container, err);
    if (status == 0)
        status = pin(runtime, container, image, true, err);
    if (status < 0)
        return status;
    pthread_rwlock_rdlock(&runtime->layers);
    status = image_unpack_layers(runtime->options.store, image, runtime->layers_dir, err);
    pthread_rwlock_unlock(&runtime->layers);
    return status;
}

/* One that is made here belongs to the container's user, who could not write it otherwise. */
static int make_volumes(struct runtime *runtime, const struct runtime_spec *spec, struct err *err)
{
    for (size_t i = 0; i < spec->volume_count; i++) {
        OWNED(owned_free) char *path = NULL;
        int status = runtime_volume_path(runtime, &spec->volumes[i].guid, false, &path, err);
        if (status < 0)
            return status;
        if (mkdir(path, 0755) < 0) {
            if (errno == EEXIST)
                continue;
            return err_errno(err, errno, "cannot make volume '%s'", path);
        }
        if (chmod(path, 0755) < 0 || chown(path, spec->uid, spec->gid) < 0)
            return err_errno(err, errno, "cannot give volume '%s' to user %u", path, spec->uid);
    }
    return 0;
}

/* Empty where the host has none: the mounts of a container are the same on every node. */
static int copy_host_file(const struct runtime_bundle *bundle, const char *name, struct err *err)
{
    OWNED(owned_free) char *source = file_path("/etc/%s", name);
    OWNED(owned_free) char *target = file_path("%s/%s", bundle->bundle, name);
    OWNED(buf_release) struct buf content = BUF(HOST_FILE_MAX_BYTES);
    if (!source || !target)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    if (file_read(source, &content, NULL) < 0)
        buf_clear(&content);
    return file_write_atomic(target, content.data, content.len, 0644, err);
}

static int write_config(struct runtime *runtime, struct runtime_entry *entry, struct err *err)
{
    if (access(runtime->options.exec_helper, X_OK) < 0)
        return err_set(err, ERR_UNSUPPORTED, "the helper '%s' is not there: install cmig-exec beside cmig-node",
                       runtime->options.exec_helper);
    char id[GUID_TEXT_SIZE], cgroup[CGROUP_PATH_SIZE];
    guid_text(&entry->container->id, id);
    const struct runtime_config config = {
        .spec = &entry->container->spec,
        .bundle = entry->bundle.bundle,
        .log = entry->bundle.log,
        .exec_helper = runtime->options.exec_helper,
        .volumes_dir = runtime->volumes_dir,
        .cgroup = runtime_cgroup_path(runtime->engine_dir, id, cgroup),
    };
    return runtime_config_write(&config, err);
}

int runtime_stage_mount(struct runtime *runtime, struct runtime_entry *entry, struct err *err)
{
    OWNED(owned_image) struct image *image = NULL;
    int status = runtime_stage_image(runtime, &entry->container->spec.manifest, &image, err);
    if (status == 0)
        status = make_volumes(runtime, &entry->container->spec, err);
    if (status == 0)
        status = runtime_bundle_mount(&entry->bundle, image, runtime->layers_dir, err);
    if (status == 0)
        status = copy_host_file(&entry->bundle, "resolv.conf", err);
    if (status == 0)
        status = copy_host_file(&entry->bundle, "hosts", err);
    return status < 0 ? status : write_config(runtime, entry, err);
}

int runtime_stage_remove(struct runtime *runtime, struct runtime_entry *entry, struct err *err)
{
    /* A manifest that cannot be read any more cannot say what it pinned: those pins stay, which loses only disk. */
    OWNED(owned_image) struct image *image = NULL;
    if (runtime_stage_image(runtime, &entry->container->spec.manifest, &image, NULL) == 0)
        pin(runtime, entry->container, image, false, NULL);
    return runtime_bundle_remove(&entry->bundle, err);
}

/* ---- layers that nobody needs ---- */

static int add_layers(struct buf *in_use, const struct image *image)
{
    int status = 0;
    for (size_t i = 0; status == 0 && i < image->layer_count; i++)
        status = buf_add(in_use, &image->layers[i].diff_id, sizeof image->layers[i].diff_id);
    return status;
}

/* Without the lock while the store is read, so not by walking the table: a copy of the manifests first. */
static int add_layers_of_containers(struct runtime *runtime, struct buf *in_use, struct err *err)
{
    OWNED(owned_free) struct id *manifests = calloc(RUNTIME_MAX_CONTAINERS, sizeof *manifests);
    if (!manifests)
        return err_set(err, ERR_NOMEM, "no memory for a list of images");
    runtime_lock(runtime);
    size_t count = runtime->count;
    for (size_t i = 0; i < count; i++)
        manifests[i] = runtime->entries[i]->container->spec.manifest;
    runtime_unlock(runtime);
    int status = 0;
    for (size_t i = 0; status == 0 && i < count; i++) {
        OWNED(owned_image) struct image *image = NULL;
        status = runtime_stage_image(runtime, &manifests[i], &image, err);
        if (status == 0 && add_layers(in_use, image) < 0)
            status = err_set(err, ERR_LIMIT, "too many layers are in use");
    }
    return status;
}

int runtime_maintain(struct runtime *runtime, struct err *err)
{
    struct image_list images = {0};
    OWNED(buf_release) struct buf in_use = BUF(sizeof(struct id) * LIMIT_IMAGES * LIMIT_IMAGE_LAYERS);
    pthread_rwlock_wrlock(&runtime->layers);
    int status = image_list(runtime->options.store, &images, err);
    for (size_t i = 0; status == 0 && i < images.count; i++)
        if (add_layers(&in_use, images.images[i]) < 0)
            status = err_set(err, ERR_LIMIT, "too many layers are in use");
    if (status == 0)
        status = add_layers_of_containers(runtime, &in_use, err);
    if (status == 0)
        status = image_layers_gc(runtime->layers_dir, (const struct id *)(void *)in_use.data,
                                 in_use.len / sizeof(struct id), NULL, err);
    pthread_rwlock_unlock(&runtime->layers);
    image_list_release(&images);
    return status;
}
