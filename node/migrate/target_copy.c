/* What a destination makes of the objects of a manifest once they are all here. For jobs. */
#include "node/image/image.h"
#include "node/migrate/bundle.h"
#include "node/migrate/target.h"

int target_copy_volumes(struct target *target, struct err *err)
{
    struct runtime *runtime = target->owner->config.runtime;
    struct store *store = target->owner->config.store;
    int status = 0;
    for (size_t i = 0; status == 0 && i < target->manifest.count; i++) {
        const struct migrate_object *object = &target->manifest.objects[i];
        OWNED(owned_free) char *path = NULL;
        struct guid guid;
        if (object->role == MIGRATE_WRITABLE)
            status = runtime_writable_path(runtime, &target->container, &path, err);
        else if (object->role == MIGRATE_VOLUME && guid_parse(object->name, &guid))
            status = runtime_volume_path(runtime, &guid, true, &path, err);
        if (status == 0 && path)
            status = bundle_unpack_tree(store, &object->digest, path, object->role == MIGRATE_WRITABLE, err);
    }
    return status;
}

/* How the image came is of use to whoever exports it here. The container does not need it: an origin that does not fit
 * is left. */
static int adopt_image(struct target *target, struct err *err)
{
    struct store *store = target->owner->config.store;
    OWNED(owned_image) struct image *image = NULL;
    const struct migrate_object *origin = manifest_find(&target->manifest, MIGRATE_ORIGIN, NULL);
    int status = image_adopt(store, &target->manifest.container->spec.manifest, &image, err);
    if (status == 0 && origin)
        image_adopt_origin(store, image, &origin->digest, NULL);
    return status;
}

void target_copy_work(void *arg)
{
    struct target *target = arg;
    struct migrate *owner = target->owner;
    struct err *err = &target->job_err;
    int status = adopt_image(target, err);
    if (status == 0)
        status = runtime_incoming(owner->config.runtime, target->manifest.container, err);
    if (status == 0) {
        target->have_container = true;
        status = target_copy_volumes(target, err);
    }
    if (status == 0)
        status = migrate_keep_all(owner, &target->manifest, target->version, err);
    target->job_status = status;
}
