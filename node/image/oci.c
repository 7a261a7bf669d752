/*
 * OCI image layout (image-spec v1.1: image-layout.md, image-index.md, manifest.md, descriptor.md).
 *
 *   index.json -> groups by name -> for each: pick -> follow -> (index -> pick -> follow)* -> manifest -> layers
 *
 * A digest becomes a path only after it was parsed, and a document is parsed only after its bytes had the digest.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/image/export.h"
#include "node/image/import.h"
#include "node/image/json.h"
#include "node/image/manifest.h"

#define INDEX_NESTING 4
#define INDEX_ENTRIES 1024

enum document { DOCUMENT_NONE, DOCUMENT_INDEX, DOCUMENT_MANIFEST, DOCUMENT_CONFIG, DOCUMENT_LAYER };

/* What may follow a layer's type (+gzip, +zstd, .gzip) is found out from its bytes. */
static const struct {
    const char *text;
    enum document document;
    bool prefix;
} media_types[] = {
    {"application/vnd.oci.image.index.v1+json", DOCUMENT_INDEX, false},
    {"application/vnd.docker.distribution.manifest.list.v2+json", DOCUMENT_INDEX, false},
    {"application/vnd.oci.image.manifest.v1+json", DOCUMENT_MANIFEST, false},
    {"application/vnd.docker.distribution.manifest.v2+json", DOCUMENT_MANIFEST, false},
    {"application/vnd.oci.image.config.v1+json", DOCUMENT_CONFIG, false},
    {"application/vnd.docker.container.image.v1+json", DOCUMENT_CONFIG, false},
    {"application/vnd.oci.image.layer.v1.tar", DOCUMENT_LAYER, true},
    {"application/vnd.oci.image.layer.nondistributable.v1.tar", DOCUMENT_LAYER, true},
    {"application/vnd.docker.image.rootfs.diff.tar", DOCUMENT_LAYER, true},
};

struct descriptor {
    const char *media_type; /* borrowed from the document */
    enum document document;
    struct id digest;
    uint64_t size_bytes;
};

static enum document document_of(const char *media_type)
{
    for (size_t i = 0; i < sizeof media_types / sizeof *media_types; i++) {
        const char *text = media_types[i].text;
        if (media_types[i].prefix ? strncmp(media_type, text, strlen(text)) == 0 : strcmp(media_type, text) == 0)
            return media_types[i].document;
    }
    return DOCUMENT_NONE;
}

static int take_descriptor(const json_t *json, uint64_t max_bytes, struct descriptor *ret_descriptor, struct err *err)
{
    if (!json_is_object(json))
        return err_set(err, ERR_INVALID, "a descriptor is not an object");
    struct descriptor descriptor;
    int status = image_json_need_string(json, "mediaType", &descriptor.media_type, err);
    if (status >= 0)
        status = image_json_need_digest(json, "digest", &descriptor.digest, err);
    if (status >= 0)
        status = image_json_need_size(json, "size", max_bytes, &descriptor.size_bytes, err);
    if (status < 0)
        return status;
    descriptor.document = document_of(descriptor.media_type);
    *ret_descriptor = descriptor;
    return 0;
}

static int expect(const struct descriptor *descriptor, enum document document, const char *what, struct err *err)
{
    if (descriptor->document == document)
        return 0;
    char text[100];
    return err_set(err, ERR_UNSUPPORTED, "media type '%s' is not one of %s",
                   log_text(descriptor->media_type, strlen(descriptor->media_type), text, sizeof text), what);
}

/* ---- blobs ---- */

static int read_blob(struct image_import *import, const struct descriptor *descriptor, struct buf *buf, struct err *err)
{
    char path[IMAGE_BLOB_PATH_SIZE];
    struct id digest;
    int status = image_source_read(&import->source, image_blob_path(&descriptor->digest, path), buf, err);
    if (status < 0)
        return status;
    if (buf->len != descriptor->size_bytes)
        return err_set(err, ERR_CORRUPT, "'%s' has %zu bytes, where its descriptor says %llu", path, buf->len,
                       (unsigned long long)descriptor->size_bytes);
    crypto_sha256(buf->data, buf->len, &digest);
    if (!id_equal(&digest, &descriptor->digest))
        return err_set(err, ERR_CORRUPT, "'%s' does not have its digest", path);
    return 0;
}

/* ---- the documents on the way to an image, index.json first ---- */

static int note_document(struct image_import *import, const struct buf *bytes, struct err *err)
{
    if (import->document_count == LIMIT_IMAGE_DOCUMENTS)
        return err_set(err, ERR_LIMIT, "more than %d documents lead to an image", LIMIT_IMAGE_DOCUMENTS);
    if (buf_add(&import->document_bytes, bytes->data, bytes->len) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the documents of a layout");
    struct image_part *part = &import->documents[import->document_count++];
    part->size_bytes = bytes->len;
    crypto_sha256(bytes->data, bytes->len, &part->digest);
    return 0;
}

/* Back to index.json, for another image that is in it. */
static void rewind_documents(struct image_import *import)
{
    import->document_count = 1;
    import->document_bytes.len = (size_t)import->documents[0].size_bytes;
}

/* A document that could be read as two kinds would be one thing to one reader and another to the next
 * (CVE-2021-41190, faults 39). */
static int check_kind(const json_t *json, enum document document, const char *media_type, struct err *err)
{
    bool index = json_object_get(json, "manifests"), manifest = json_object_get(json, "layers") ||
                                                                json_object_get(json, "config") ||
                                                                json_object_get(json, "fsLayers");
    const char *own = NULL;
    if (!json_is_object(json) || json_integer_value(json_object_get(json, "schemaVersion")) != 2)
        return err_set(err, ERR_INVALID, "not a document of schemaVersion 2");
    if (index == manifest || index != (document == DOCUMENT_INDEX))
        return err_set(err, ERR_INVALID, "not clearly an index or clearly a manifest, as its media type says");
    int status = image_json_string(json, "mediaType", &own, err);
    if (status > 0 && strcmp(own, media_type) != 0)
        return err_set(err, ERR_INVALID, "its mediaType is not that of its descriptor");
    return status < 0 ? status : 0;
}

/* ---- a manifest ---- */

static void release_blobs(struct image_blob *blobs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(blobs[i].path);
}

static int take_layers(const json_t *layers, struct image_blob blobs[LIMIT_IMAGE_LAYERS], struct err *err)
{
    char path[IMAGE_BLOB_PATH_SIZE];
    for (size_t i = 0; i < json_array_size(layers); i++) {
        struct descriptor layer;
        int status = take_descriptor(json_array_get(layers, i), LIMIT_OBJECT_BYTES, &layer, err);
        if (status == 0)
            status = expect(&layer, DOCUMENT_LAYER, "the layer types", err);
        if (status < 0)
            return status;
        blobs[i] =
            (struct image_blob){strdup(image_blob_path(&layer.digest, path)), true, layer.digest, layer.size_bytes};
        if (!blobs[i].path)
            return err_set(err, ERR_NOMEM, "no memory for a layer's path");
    }
    return 0;
}

/* What the image is to be called, unless the import says otherwise. */
struct names {
    const char *const *list;
    size_t count;
};

static int import_manifest(struct image_import *import, const json_t *json, const struct names *names, struct err *err)
{
    struct descriptor config;
    const json_t *layers;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES);
    struct image_blob blobs[LIMIT_IMAGE_LAYERS] = {0};
    int status = take_descriptor(json_object_get(json, "config"), LIMIT_MANIFEST_BYTES, &config, err);
    if (status == 0)
        status = expect(&config, DOCUMENT_CONFIG, "the image config types", err);
    if (status == 0)
        status = image_json_need_array(json, "layers", &layers, err);
    if (status < 0)
        return status;
    size_t count = json_array_size(layers);
    if (count < 1 || count > LIMIT_IMAGE_LAYERS)
        return err_set(err, ERR_LIMIT, "an image has 1 to %d layers, not %zu", LIMIT_IMAGE_LAYERS, count);
    status = take_layers(layers, blobs, err);
    if (status == 0)
        status = read_blob(import, &config, &bytes, err);
    if (status == 0)
        status = image_import_one(import, &bytes, blobs, count, names->list, names->count, err);
    release_blobs(blobs, count);
    return status;
}

/* ---- an index ---- */

/* The name that an entry of the outermost index has; NULL if none. containerd's is the longer one. */
static const char *name_of(const json_t *entry)
{
    const json_t *annotations = json_object_get(entry, "annotations");
    const char *name = json_string_value(json_object_get(annotations, "io.containerd.image.name"));
    return name ? name : json_string_value(json_object_get(annotations, "org.opencontainers.image.ref.name"));
}

static bool same_name(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Attestations have "unknown" for both, so they match nothing. */
static bool fits(const json_t *entry)
{
    const json_t *platform = json_object_get(entry, "platform");
    if (!platform)
        return true;
    const char *os = json_string_value(json_object_get(platform, "os"));
    const char *architecture = json_string_value(json_object_get(platform, "architecture"));
    return os && architecture && strcmp(os, "linux") == 0 && strcmp(architecture, image_machine()) == 0;
}

/* The first entry for this machine; of the outermost index, with that name. */
static int pick(const json_t *manifests, bool by_name, const char *name, struct descriptor *ret_descriptor,
                struct err *err)
{
    for (size_t i = 0; i < json_array_size(manifests); i++) {
        const json_t *entry = json_array_get(manifests, i);
        if (fits(entry) && (!by_name || same_name(name_of(entry), name)))
            return take_descriptor(entry, LIMIT_MANIFEST_BYTES, ret_descriptor, err);
    }
    return err_set(err, ERR_UNSUPPORTED, "the image has no variant for this machine, linux/%s", image_machine());
}

static int take_manifests(const json_t *json, const json_t **ret_manifests, struct err *err)
{
    int status = image_json_need_array(json, "manifests", ret_manifests, err);
    size_t count = status < 0 ? 0 : json_array_size(*ret_manifests);
    if (status >= 0 && (count < 1 || count > INDEX_ENTRIES))
        return err_set(err, ERR_LIMIT, "an index has 1 to %d entries, not %zu", INDEX_ENTRIES, count);
    return status < 0 ? status : 0;
}

static int read_document(struct image_import *import, const struct descriptor *descriptor, struct buf *bytes,
                         json_t **ret_json, struct err *err)
{
    int status = read_blob(import, descriptor, bytes, err);
    if (status == 0)
        status = image_json_load(bytes->data, bytes->len, "the image's manifest", ret_json, err);
    if (status == 0)
        status = check_kind(*ret_json, descriptor->document, descriptor->media_type, err);
    return status;
}

static int follow(struct image_import *import, const struct descriptor *descriptor, const struct names *names,
                  unsigned nesting, struct err *err)
{
    OWNED(owned_json) json_t *json = NULL;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES);
    const json_t *manifests;
    struct descriptor inner;
    bool index = descriptor->document == DOCUMENT_INDEX;
    if (!index && descriptor->document != DOCUMENT_MANIFEST)
        return expect(descriptor, DOCUMENT_MANIFEST, "the index and manifest types", err);
    if (nesting > INDEX_NESTING)
        return err_set(err, ERR_LIMIT, "more than %d indexes in each other", INDEX_NESTING);
    int status = read_document(import, descriptor, &bytes, &json, err);
    if (status == 0)
        status = note_document(import, &bytes, err);
    if (status < 0 || !index)
        return status < 0 ? err_wrap(err, "the image's manifest") : import_manifest(import, json, names, err);
    status = take_manifests(json, &manifests, err);
    if (status == 0)
        status = pick(manifests, false, NULL, &inner, err);
    return status < 0 ? status : follow(import, &inner, names, nesting + 1, err);
}

/* ---- the layout ---- */

static int check_layout(struct image_import *import, struct err *err)
{
    OWNED(owned_json) json_t *json = NULL;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES);
    const char *version;
    int status = image_source_read(&import->source, "oci-layout", &bytes, err);
    if (status == 0)
        status = image_json_load(bytes.data, bytes.len, "'oci-layout'", &json, err);
    if (status == 0)
        status = image_json_need_string(json, "imageLayoutVersion", &version, err);
    if (status > 0 && strcmp(version, "1.0.0") != 0)
        return err_set(err, ERR_UNSUPPORTED, "the OCI image layout has another version than 1.0.0");
    return status < 0 ? status : 0;
}

static bool is_first_of_its_name(const json_t *manifests, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (same_name(name_of(json_array_get(manifests, i)), name_of(json_array_get(manifests, at))))
            return false;
    return true;
}

/* Entries without a name count only where no entry has one. */
static size_t count_names(const json_t *manifests, bool *ret_named)
{
    size_t named = 0;
    for (size_t i = 0; i < json_array_size(manifests); i++)
        named += name_of(json_array_get(manifests, i)) && is_first_of_its_name(manifests, i);
    *ret_named = named > 0;
    return named > 0 ? named : 1;
}

static int import_groups(struct image_import *import, const json_t *manifests, struct err *err)
{
    bool named;
    size_t count = count_names(manifests, &named);
    if (import->name && count > 1)
        return err_set(err, ERR_INVALID, "there are %zu images inside; one name does not fit them", count);
    for (size_t i = 0; i < json_array_size(manifests); i++) {
        struct descriptor descriptor;
        const char *name = name_of(json_array_get(manifests, i));
        if (named != (name != NULL) || !is_first_of_its_name(manifests, i))
            continue;
        rewind_documents(import);
        int status = pick(manifests, true, name, &descriptor, err);
        if (status == 0)
            status = follow(import, &descriptor, &(struct names){&name, name ? 1 : 0}, 0, err);
        if (status < 0)
            return status;
    }
    return 0;
}

/* index.json is the first of the documents. `json` owns what *ret_manifests borrows. */
static int open_layout(struct image_import *import, json_t **ret_json, const json_t **ret_manifests, struct err *err)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES);
    import->document_count = 0;
    buf_clear(&import->document_bytes);
    int status = check_layout(import, err);
    if (status == 0)
        status = image_source_read(&import->source, "index.json", &bytes, err);
    if (status == 0)
        status = image_json_load(bytes.data, bytes.len, "'index.json'", ret_json, err);
    if (status == 0)
        status = check_kind(*ret_json, DOCUMENT_INDEX, media_types[0].text, err);
    if (status == 0)
        status = take_manifests(*ret_json, ret_manifests, err);
    return status == 0 ? note_document(import, &bytes, err) : status;
}

int image_import_oci(struct image_import *import, struct err *err)
{
    OWNED(owned_json) json_t *json = NULL;
    const json_t *manifests;
    int status = open_layout(import, &json, &manifests, err);
    return status == 0 ? import_groups(import, manifests, err) : status;
}

/* ---- the layout around a docker archive ---- */

/* Does following this entry end at a manifest with that config? */
static bool ends_at(struct image_import *import, const struct descriptor *descriptor, const struct id *config,
                    unsigned nesting)
{
    OWNED(owned_json) json_t *json = NULL;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES);
    const json_t *manifests;
    struct descriptor inner;
    bool index = descriptor->document == DOCUMENT_INDEX;
    if ((!index && descriptor->document != DOCUMENT_MANIFEST) || nesting > INDEX_NESTING ||
        read_document(import, descriptor, &bytes, &json, NULL) < 0)
        return false;
    if (!index)
        return take_descriptor(json_object_get(json, "config"), LIMIT_MANIFEST_BYTES, &inner, NULL) == 0 &&
               id_equal(&inner.digest, config);
    return take_manifests(json, &manifests, NULL) == 0 && pick(manifests, false, NULL, &inner, NULL) == 0 &&
           ends_at(import, &inner, config, nesting + 1);
}

int image_import_oci_config(struct image_import *import, const struct id *config, const char *const *names,
                            size_t name_count, struct err *err)
{
    OWNED(owned_json) json_t *json = NULL;
    const json_t *manifests;
    struct descriptor descriptor;
    if (open_layout(import, &json, &manifests, NULL) == 0)
        for (size_t i = 0; i < json_array_size(manifests); i++) {
            const json_t *entry = json_array_get(manifests, i);
            if (!fits(entry) || take_descriptor(entry, LIMIT_MANIFEST_BYTES, &descriptor, NULL) < 0 ||
                !ends_at(import, &descriptor, config, 0))
                continue;
            int status = follow(import, &descriptor, &(struct names){names, name_count}, 0, err);
            return status < 0 ? status : 1;
        }
    import->document_count = 0;
    return 0;
}
