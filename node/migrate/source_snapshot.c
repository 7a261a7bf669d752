/* What a source puts into its manifests. All of it for jobs. */
#include <string.h>

#include "node/image/image.h"
#include "node/migrate/bundle.h"
#include "node/migrate/source.h"

/* 1, or 0 if it is not here any more. */
static int add_object(struct source *source, enum migrate_role role, const struct id *digest, struct err *err)
{
    struct store_object_info info;
    int here = store_object_stat(source->owner->config.store, digest, &info, err);
    if (here <= 0)
        return here;
    struct migrate_object object = {.role = role, .kind = info.kind, .digest = *digest, .size_bytes = info.size_bytes};
    int status = manifest_add(&source->manifest, &object, err);
    return status < 0 ? status : 1;
}

/* What tells in which layout the image came: documents of a few KiB. Blobs that cannot be made of the layers are
 * fetched by whoever exports the image there. */
static int add_image_origin(struct source *source, const struct image *image, struct err *err)
{
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    OWNED(owned_free) struct id *ids = NULL;
    size_t count = 0;
    int status = image_origin_get(source->owner->config.store, image, &origin, err);
    if (status > 0)
        status = image_origin_objects(origin, false, &ids, &count, err);
    for (size_t i = 0; status >= 0 && i < count; i++)
        status = add_object(source, i == 0 ? MIGRATE_ORIGIN : MIGRATE_IMAGE, &ids[i], err);
    return status < 0 ? status : 0;
}

static int add_image_objects(struct source *source, struct err *err)
{
    OWNED(owned_image) struct image *image = NULL;
    OWNED(owned_free) struct id *ids = NULL;
    char name[DIGEST_TEXT_SIZE];
    size_t count = 0;
    int status = image_get(source->owner->config.store, digest_text(&source->manifest.container->spec.manifest, name),
                           &image, err);
    if (status == 0)
        status = image_objects(image, &ids, &count, err);
    for (size_t i = 0; status >= 0 && i < count; i++) {
        status = add_object(source, MIGRATE_IMAGE, &ids[i], err);
        if (status == 0)
            return err_set(err, ERR_NOTFOUND, "a part of image '%s' is not in the store any more", image->name);
    }
    return status < 0 ? status : add_image_origin(source, image, err);
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
    const struct runtime_spec *spec = &source->manifest.container->spec;
    int status = 0;
    for (size_t i = 0; status == 0 && i < spec->volume_count; i++) {
        const struct runtime_volume *volume = &spec->volumes[i];
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
        status = runtime_writable_path(runtime, &source->container, &writable, err);
    return status < 0 ? status : pack_one_tree(source, writable, MIGRATE_WRITABLE, "", err);
}

int source_snapshot_begin(struct source *source, bool final, struct err *err)
{
    struct migrate *owner = source->owner;
    char id[GUID_TEXT_SIZE];
    manifest_release(&source->manifest);
    source->manifest = (struct manifest){.id = source->id,
                                         .source = owner->config.self,
                                         .target = source->target,
                                         .final = final,
                                         .issued_ms = clock_wall_ms(&owner->config.clock)};
    int status = runtime_next_version(owner->config.runtime, &source->container, &source->version.epoch,
                                      &source->version.counter, err);
    if (status == 0)
        status =
            runtime_get(owner->config.runtime, guid_text(&source->container, id), &source->manifest.container, err);
    return status;
}

int source_snapshot_pack(struct source *source, const char *images, struct err *err)
{
    int status = add_image_objects(source, err);
    if (status == 0)
        status = bundle_pack_checkpoint(source->owner->config.store, images, &source->manifest, err);
    if (status == 0)
        status = pack_volumes(source, err);
    return status;
}
