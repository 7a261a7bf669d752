/* Names in the store: a reference of kind IMAGE_REF points from "repository:tag" to a manifest, and the objects of an
 * imported image are pinned by an owner that its manifest's digest tells, so that names come and go independently. */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/image/import.h"
#include "node/image/manifest.h"
#include "node/image/origin.h"

#define PREFIX_MIN_DIGITS 6

OWNED_DEFINE(owned_ingest, struct store_ingest, store_ingest_free)

const char *image_owner(const struct image *image, char owner[IMAGE_OWNER_SIZE])
{
    char hex[ID_HEX_SIZE];
    snprintf(owner, IMAGE_OWNER_SIZE, "image %s", id_hex(&image->manifest, hex));
    return owner;
}

/* ---- objects ---- */

int image_put_blob(struct store *store, const void *data, size_t len_bytes, struct err *err)
{
    OWNED(owned_ingest) struct store_ingest *ingest = NULL;
    struct store_object_info info;
    int status = store_ingest_new(store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, err);
    if (status == 0)
        status = store_ingest_write(ingest, data, len_bytes, err);
    return status == 0 ? store_ingest_finish(ingest, &info, err) : status;
}

int image_read_blob(struct store *store, const struct id *digest, struct buf *buf, struct err *err)
{
    struct store_object_info info;
    char text[DIGEST_TEXT_SIZE];
    size_t len = 0;
    int status = store_object_stat(store, digest, &info, err);
    if (status == 0)
        return err_set(err, ERR_NOTFOUND, "%s is not here", digest_text(digest, text));
    if (status > 0 && info.size_bytes > LIMIT_MANIFEST_BYTES)
        return err_set(err, ERR_LIMIT, "%s is larger than %u bytes", digest_text(digest, text), LIMIT_MANIFEST_BYTES);
    uint8_t *room = status < 0 ? NULL : buf_reserve(buf, (size_t)info.size_bytes);
    if (!room)
        return status < 0 ? status : err_set(err, ERR_NOMEM, "no memory for a document");
    status = store_object_read(store, digest, 0, room, (size_t)info.size_bytes, &len, err);
    buf->len += len;
    return status;
}

int image_load(struct store *store, const struct id *manifest, struct image **ret_image, struct err *err)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES);
    int status = image_read_blob(store, manifest, &bytes, err);
    return status == 0 ? image_parse(bytes.data, bytes.len, ret_image, err) : status;
}

static int check_object(struct store *store, const struct id *digest, uint64_t size_bytes, struct err *err)
{
    struct store_object_info info;
    char text[DIGEST_TEXT_SIZE];
    int status = store_object_stat(store, digest, &info, err);
    if (status == 0)
        return err_set(err, ERR_NOTFOUND, "%s is not here", digest_text(digest, text));
    if (status > 0 && size_bytes > 0 && info.size_bytes != size_bytes)
        return err_set(err, ERR_CORRUPT, "%s has another size than the image says", digest_text(digest, text));
    return status < 0 ? status : 0;
}

int image_check_objects(struct store *store, const struct image *image, struct err *err)
{
    int status = check_object(store, &image->manifest, 0, err);
    if (status == 0)
        status = check_object(store, &image->config, image->config_bytes, err);
    for (size_t i = 0; status == 0 && i < image->layer_count; i++)
        status = check_object(store, &image->layers[i].diff_id, image->layers[i].size_bytes, err);
    return status;
}

/* ---- pins and references ---- */

static int pin_all(struct store *store, const struct image *image, bool pin, struct err *err)
{
    char owner[IMAGE_OWNER_SIZE];
    OWNED(owned_free) struct id *ids = NULL;
    size_t count = 0;
    int status = image_objects(image, &ids, &count, err);
    image_owner(image, owner);
    for (size_t i = 0; status == 0 && i < count; i++)
        status = pin ? store_pin(store, &ids[i], owner, err) : store_unpin(store, &ids[i], owner, err);
    return status;
}

/* Whoever had the name: if its manifest is gone, so are the pins' reasons, but nobody can tell what they were. */
static int let_go(struct store *store, const struct id *manifest, struct err *err)
{
    OWNED(owned_image) struct image *image = NULL;
    if (image_load(store, manifest, &image, NULL) < 0)
        return 0;
    int status = image_origin_forget(store, image, err);
    return status == 0 ? pin_all(store, image, false, err) : status;
}

static int set_name(struct store *store, const struct image *image, struct err *err)
{
    struct store_ref before, ref = {.kind = IMAGE_REF, .name = image->name, .digest = image->manifest, .keep = true};
    int had = store_ref_latest(store, IMAGE_REF, image->name, &before, NULL, err);
    int status = had < 0 ? had : store_ref_set(store, &ref, err);
    if (status == 0 && had && !id_equal(&before.digest, &image->manifest))
        status = let_go(store, &before.digest, err);
    return status;
}

/* Pinned first and looked for then: what was evicted between import and pin is missed here, not later. */
int image_register(struct store *store, const struct image *image, const struct image_origin *origin, struct err *err)
{
    int status = origin ? image_origin_register(store, image, origin, true, err) : 0;
    if (status == 0)
        status = pin_all(store, image, true, err);
    if (status == 0)
        status = image_check_objects(store, image, err);
    if (status == 0)
        status = set_name(store, image, err);
    if (status < 0) {
        image_origin_forget(store, image, NULL);
        pin_all(store, image, false, NULL);
    }
    return status;
}

/* ---- the public verbs ---- */

struct listing {
    struct store *store;
    struct image_list list;
    struct err *err;
};

static int add_named(const struct store_ref *ref, void *ctx)
{
    struct listing *listing = ctx;
    OWNED(owned_image) struct image *image = NULL;
    int status = image_load(listing->store, &ref->digest, &image, listing->err);
    if (status == ERR_NOTFOUND || status == ERR_INVALID)
        return 0;
    if (status == 0 && listing->list.count == LIMIT_IMAGES)
        status = err_set(listing->err, ERR_LIMIT, "more than %d images", LIMIT_IMAGES);
    if (status == 0) {
        struct image **more = realloc(listing->list.images, (listing->list.count + 1) * sizeof *more);
        if (more) {
            listing->list.images = more;
            more[listing->list.count++] = STEAL(image);
        } else {
            status = err_set(listing->err, ERR_NOMEM, "no memory for a list of images");
        }
    }
    return status;
}

static int compare_images(const void *a, const void *b)
{
    return strcmp((*(struct image *const *)a)->name, (*(struct image *const *)b)->name);
}

int image_list(struct store *store, struct image_list *ret_list, struct err *err)
{
    struct listing listing = {.store = store, .err = err};
    int status = store_ref_each(store, IMAGE_REF, NULL, add_named, &listing, err);
    if (status < 0) {
        image_list_release(&listing.list);
        return status;
    }
    if (listing.list.count > 0)
        qsort(listing.list.images, listing.list.count, sizeof *listing.list.images, compare_images);
    *ret_list = listing.list;
    return 0;
}

struct search {
    const char *prefix; /* of the manifest's digest in hex */
    struct id found;
    unsigned count; /* of different manifests */
};

static int match_prefix(const struct store_ref *ref, void *ctx)
{
    struct search *search = ctx;
    char hex[ID_HEX_SIZE];
    if (strncmp(id_hex(&ref->digest, hex), search->prefix, strlen(search->prefix)) != 0)
        return 0;
    if (search->count == 0 || !id_equal(&search->found, &ref->digest))
        search->count++;
    search->found = ref->digest;
    return 0;
}

static bool is_prefix(const char *text)
{
    size_t len = strlen(text);
    return len >= PREFIX_MIN_DIGITS && len < ID_HEX_SIZE && strspn(text, "0123456789abcdef") == len;
}

static int find_by_prefix(struct store *store, const char *prefix, struct id *ret_manifest, struct err *err)
{
    struct search search = {.prefix = prefix};
    if (!is_prefix(prefix))
        return 0;
    int status = store_ref_each(store, IMAGE_REF, NULL, match_prefix, &search, err);
    if (status < 0 || search.count == 0)
        return status;
    if (search.count > 1)
        return err_set(err, ERR_CONFLICT, "more than one image's digest begins with '%s'", prefix);
    *ret_manifest = search.found;
    return 1;
}

/* 1, 0 or an error. A name that looks like hex is a name first. */
static int find(struct store *store, const char *name, struct id *ret_manifest, struct err *err)
{
    struct store_ref ref;
    char complete[NAME_MAX_BYTES + 1];
    if (digest_parse(name, ret_manifest))
        return 1;
    int status = image_name_complete(name, complete, err);
    if (status == 0)
        status = store_ref_latest(store, IMAGE_REF, complete, &ref, NULL, err);
    if (status == 0)
        return find_by_prefix(store, name, ret_manifest, err);
    if (status > 0)
        *ret_manifest = ref.digest;
    return status;
}

static int no_image(const char *name, struct err *err)
{
    char text[NAME_MAX_BYTES + 1];
    return err_set(err, ERR_NOTFOUND, "no image '%s'", log_text(name, strlen(name), text, sizeof text));
}

int image_get(struct store *store, const char *name, struct image **ret_image, struct err *err)
{
    struct id manifest;
    int status = find(store, name, &manifest, err);
    if (status > 0)
        status = image_load(store, &manifest, ret_image, err);
    else if (status == 0)
        status = no_image(name, err);
    return status;
}

int image_remove(struct store *store, const char *name, struct err *err)
{
    struct store_ref ref;
    char complete[NAME_MAX_BYTES + 1];
    int status = image_name_complete(name, complete, err);
    if (status == 0)
        status = store_ref_latest(store, IMAGE_REF, complete, &ref, NULL, err);
    if (status <= 0)
        return status < 0 ? status : no_image(name, err);
    status = store_ref_remove(store, IMAGE_REF, complete, ref.version, err);
    return status < 0 ? status : let_go(store, &ref.digest, err);
}

/* ---- images from peers ---- */

/* The manifest is what we would have made of this config ourselves: nobody can slip another entry point under it. */
static int check_derivation(struct store *store, const struct image *image, struct err *err)
{
    OWNED(buf_release) struct buf config = BUF(LIMIT_MANIFEST_BYTES);
    OWNED(buf_release) struct buf manifest = BUF(LIMIT_MANIFEST_BYTES);
    OWNED(owned_image) struct image *derived = NULL;
    int status = image_read_blob(store, &image->config, &config, err);
    if (status == 0)
        status = image_config_parse(config.data, config.len, &derived, err);
    if (status < 0)
        return status;
    if (derived->layer_count != image->layer_count)
        return err_set(err, ERR_INVALID, "the image's manifest and config disagree about the layers");
    for (size_t i = 0; i < image->layer_count; i++)
        derived->layers[i].size_bytes = image->layers[i].size_bytes;
    status = image_manifest_seal(derived, image->name, &manifest, err);
    if (status == 0 && !id_equal(&derived->manifest, &image->manifest))
        return err_set(err, ERR_INVALID, "the image's manifest is not derived from its config");
    return status;
}

/* A name that means something here goes on meaning it: a peer's image must not come to be run in place of ours. Nobody
 * asked to keep this one: it is a cache, but for what containers pin. */
static int adopt_name(struct store *store, const struct image *image, struct err *err)
{
    struct store_ref taken, ref = {.kind = IMAGE_REF, .name = image->name, .digest = image->manifest};
    int status = store_ref_latest(store, IMAGE_REF, image->name, &taken, NULL, err);
    if (status != 0)
        return status < 0 ? status : 0;
    return store_ref_set(store, &ref, err);
}

int image_adopt(struct store *store, const struct id *manifest, struct image **ret_image, struct err *err)
{
    OWNED(owned_image) struct image *image = NULL;
    int status = image_load(store, manifest, &image, err);
    if (status == 0)
        status = image_check_objects(store, image, err);
    if (status == 0)
        status = check_derivation(store, image, err);
    if (status == 0)
        status = adopt_name(store, image, err);
    if (status == 0 && ret_image)
        *ret_image = STEAL(image);
    return status;
}
