/*
 * docker-archive: what `docker save`, `podman save` and `skopeo copy docker-archive:` write. manifest.json is a list of
 * {Config, RepoTags, Layers}, whose values but the tags are paths inside the archive (moby, image/spec/spec.md).
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/limits.h"
#include "node/image/import.h"
#include "node/image/json.h"

#define ARCHIVE_IMAGES 256
#define IMAGE_TAGS 64

/* "<hex>.json" and "blobs/sha256/<hex>" say what the config's digest is; other names say nothing. */
static int check_config(const char *path, const struct buf *config, struct err *err)
{
    struct id named, digest;
    char hex[ID_HEX_SIZE];
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    size_t len = strcspn(name, ".");
    if (len != ID_HEX_SIZE - 1)
        return 0;
    memcpy(hex, name, len);
    hex[len] = '\0';
    if (!id_parse_hex(hex, &named))
        return 0;
    crypto_sha256(config->data, config->len, &digest);
    return id_equal(&named, &digest) ? 0 : err_set(err, ERR_CORRUPT, "the image's config does not have its digest");
}

static int take_layers(const json_t *json, struct image_blob blobs[LIMIT_IMAGE_LAYERS], size_t *ret_count,
                       struct err *err)
{
    const json_t *layers;
    int status = image_json_need_array(json, "Layers", &layers, err);
    if (status < 0)
        return status;
    size_t count = json_array_size(layers);
    if (count < 1 || count > LIMIT_IMAGE_LAYERS)
        return err_set(err, ERR_LIMIT, "an image has 1 to %d layers, not %zu", LIMIT_IMAGE_LAYERS, count);
    for (size_t i = 0; i < count; i++) {
        /* borrowed from the document, though the field could own */
        blobs[i].path = (char *)(uintptr_t)json_string_value(json_array_get(layers, i));
        if (!blobs[i].path)
            return err_set(err, ERR_INVALID, "field 'Layers' is not a list of strings");
    }
    *ret_count = count;
    return 0;
}

static int take_tags(const json_t *json, const char *tags[IMAGE_TAGS], size_t *ret_count, struct err *err)
{
    const json_t *array = NULL;
    int status = image_json_array(json, "RepoTags", &array, err);
    size_t count = json_array_size(array);
    if (status >= 0 && count > IMAGE_TAGS)
        return err_set(err, ERR_LIMIT, "an image has more than %d tags", IMAGE_TAGS);
    for (size_t i = 0; status >= 0 && i < count; i++) {
        tags[i] = json_string_value(json_array_get(array, i));
        if (!tags[i])
            return err_set(err, ERR_INVALID, "field 'RepoTags' is not a list of strings");
    }
    *ret_count = count;
    return status < 0 ? status : 0;
}

static int take_image(struct image_import *import, const struct buf *config, const struct image_blob *blobs,
                      size_t layer_count, const char *const *tags, size_t tag_count, struct err *err)
{
    struct id digest;
    crypto_sha256(config->data, config->len, &digest);
    int status = image_import_oci_config(import, &digest, tags, tag_count, err);
    if (status == 0)
        return image_import_one(import, config, blobs, layer_count, tags, tag_count, err);
    return status < 0 ? status : 0;
}

static int import_entry(struct image_import *import, const json_t *json, struct err *err)
{
    struct image_blob blobs[LIMIT_IMAGE_LAYERS] = {0};
    const char *tags[IMAGE_TAGS];
    const char *path;
    size_t layer_count = 0, tag_count = 0;
    OWNED(buf_release) struct buf config = BUF(LIMIT_MANIFEST_BYTES);
    if (!json_is_object(json))
        return err_set(err, ERR_INVALID, "an entry is not an object");
    int status = image_json_need_string(json, "Config", &path, err);
    if (status > 0)
        status = take_layers(json, blobs, &layer_count, err);
    if (status == 0)
        status = take_tags(json, tags, &tag_count, err);
    if (status == 0)
        status = image_source_read(&import->source, path, &config, err);
    if (status == 0)
        status = check_config(path, &config, err);
    if (status == 0)
        status = take_image(import, &config, blobs, layer_count, tags, tag_count, err);
    return status;
}

int image_import_docker(struct image_import *import, struct err *err)
{
    OWNED(owned_json) json_t *json = NULL;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES);
    int status = image_source_read(&import->source, "manifest.json", &bytes, err);
    if (status == 0)
        status = image_json_load(bytes.data, bytes.len, "'manifest.json'", &json, err);
    if (status < 0)
        return status;
    size_t count = json_array_size(json);
    if (!json_is_array(json) || count < 1 || count > ARCHIVE_IMAGES)
        return err_set(err, ERR_INVALID, "'manifest.json' is not a list of 1 to %d images", ARCHIVE_IMAGES);
    if (import->name && count > 1)
        return err_set(err, ERR_INVALID, "there are %zu images inside; one name does not fit them", count);
    for (size_t i = 0; status == 0 && i < count; i++)
        status = import_entry(import, json_array_get(json, i), err);
    return status < 0 ? err_wrap(err, "'manifest.json'") : 0;
}
