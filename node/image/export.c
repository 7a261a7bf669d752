/* An OCI image layout as a tar, in one pass: blobs first, since the documents that name them are known beforehand. */
#include "node/image/export.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/limits.h"
#include "node/image/json.h"

#define COPY_BYTES (256u << 10)
#define MANIFEST_MEDIA_TYPE "application/vnd.oci.image.manifest.v1+json"
#define INDEX_MEDIA_TYPE "application/vnd.oci.image.index.v1+json"
#define CONFIG_MEDIA_TYPE "application/vnd.oci.image.config.v1+json"
#define LAYER_MEDIA_TYPE "application/vnd.oci.image.layer.v1.tar"
#define LAYOUT "{\"imageLayoutVersion\":\"1.0.0\"}"

static json_t *descriptor(const char *media_type, const struct id *digest, uint64_t size_bytes)
{
    char text[DIGEST_TEXT_SIZE];
    return json_pack("{s:s, s:s, s:I}", "mediaType", media_type, "digest", digest_text(digest, text), "size",
                     (json_int_t)size_bytes);
}

static int make_manifest(const struct image *image, struct buf *buf, struct err *err)
{
    json_t *layers = json_array();
    for (size_t i = 0; layers && i < image->layer_count; i++) {
        const struct image_layer *layer = &image->layers[i];
        json_array_append_new(layers, descriptor(LAYER_MEDIA_TYPE, &layer->diff_id, layer->size_bytes));
    }
    OWNED(owned_json)
    json_t *json = json_pack("{s:i, s:s, s:o, s:o}", "schemaVersion", 2, "mediaType", MANIFEST_MEDIA_TYPE, "config",
                             descriptor(CONFIG_MEDIA_TYPE, &image->config, image->config_bytes), "layers", layers);
    if (!json || json_array_size(json_object_get(json, "layers")) != image->layer_count)
        return err_set(err, ERR_NOMEM, "no memory for a manifest");
    return image_json_dump(json, buf, err);
}

static int make_index(const struct image *image, const struct buf *manifest, struct buf *buf, struct err *err)
{
    char text[DIGEST_TEXT_SIZE];
    struct id digest;
    crypto_sha256(manifest->data, manifest->len, &digest);
    OWNED(owned_json)
    json_t *json = json_pack("{s:i, s:s, s:[{s:s, s:s, s:I, s:{s:s, s:s}, s:{s:s, s:s}}]}", "schemaVersion", 2,
                             "mediaType", INDEX_MEDIA_TYPE, "manifests", "mediaType", MANIFEST_MEDIA_TYPE, "digest",
                             digest_text(&digest, text), "size", (json_int_t)manifest->len, "platform", "os", "linux",
                             "architecture", image->architecture, "annotations", "io.containerd.image.name",
                             image->name, "org.opencontainers.image.ref.name", image->name);
    return json ? image_json_dump(json, buf, err) : err_set(err, ERR_NOMEM, "no memory for an index");
}

static int put_document(struct store_archive_writer *writer, const char *path, const void *data, size_t len_bytes,
                        struct err *err)
{
    int status = store_archive_writer_add_file(writer, path, len_bytes, err);
    return status == 0 ? store_archive_writer_add_data(writer, data, len_bytes, err) : status;
}

const char *image_blob_path(const struct id *digest, char path[IMAGE_BLOB_PATH_SIZE])
{
    char hex[ID_HEX_SIZE];
    snprintf(path, IMAGE_BLOB_PATH_SIZE, "blobs/sha256/%s", id_hex(digest, hex));
    return path;
}

static int copy_object(struct store *store, const struct id *digest, struct store_archive_writer *writer,
                       struct err *err)
{
    OWNED(owned_reader) struct store_reader *reader = NULL;
    OWNED(owned_free) uint8_t *piece = malloc(COPY_BYTES);
    if (!piece)
        return err_set(err, ERR_NOMEM, "no memory to copy a layer");
    int status = store_reader_open(store, digest, &reader, err);
    while (status == 0) {
        size_t len;
        status = store_reader_read(reader, piece, COPY_BYTES, &len, err);
        if (status < 0 || len == 0)
            break;
        status = store_archive_writer_add_data(writer, piece, len, err);
    }
    return status;
}

int image_export_object(struct store *store, const struct id *digest, struct store_archive_writer *writer,
                        struct err *err)
{
    char path[IMAGE_BLOB_PATH_SIZE], text[DIGEST_TEXT_SIZE];
    struct store_object_info info;
    int status = store_object_stat(store, digest, &info, err);
    if (status == 0)
        return err_set(err, ERR_NOTFOUND, "%s is not here", digest_text(digest, text));
    if (status > 0)
        status = store_archive_writer_add_file(writer, image_blob_path(digest, path), info.size_bytes, err);
    return status == 0 ? copy_object(store, digest, writer, err) : status;
}

/* Config and layers, each once; the first of image_objects is our own manifest, which no other tool would know. */
static int put_objects(struct store *store, const struct image *image, struct store_archive_writer *writer,
                       struct err *err)
{
    OWNED(owned_free) struct id *ids = NULL;
    size_t count;
    int status = image_objects(image, &ids, &count, err);
    for (size_t i = 1; status == 0 && i < count; i++)
        status = image_export_object(store, &ids[i], writer, err);
    return status;
}

int image_export_begin(const void *index, size_t index_bytes, store_archive_write_cb write_cb, void *ctx,
                       struct store_archive_writer **ret_writer, struct err *err)
{
    OWNED(owned_writer) struct store_archive_writer *writer = NULL;
    int status = store_archive_writer_new(write_cb, ctx, &writer, err);
    if (status == 0)
        status = put_document(writer, "oci-layout", LAYOUT, strlen(LAYOUT), err);
    if (status == 0)
        status = put_document(writer, "index.json", index, index_bytes, err);
    if (status == 0)
        status = store_archive_writer_add_dir(writer, "blobs", err);
    if (status == 0)
        status = store_archive_writer_add_dir(writer, "blobs/sha256", err);
    if (status == 0)
        *ret_writer = STEAL(writer);
    return status;
}

int image_export(struct store *store, const struct image *image, store_archive_write_cb write_cb, void *ctx,
                 struct err *err)
{
    char path[IMAGE_BLOB_PATH_SIZE];
    struct id digest;
    OWNED(buf_release) struct buf manifest = BUF(LIMIT_MANIFEST_BYTES), index = BUF(LIMIT_MANIFEST_BYTES);
    OWNED(owned_writer) struct store_archive_writer *writer = NULL;
    int status = make_manifest(image, &manifest, err);
    if (status == 0)
        status = make_index(image, &manifest, &index, err);
    if (status == 0)
        status = image_export_begin(index.data, index.len, write_cb, ctx, &writer, err);
    crypto_sha256(manifest.data, manifest.len, &digest);
    if (status == 0)
        status = put_document(writer, image_blob_path(&digest, path), manifest.data, manifest.len, err);
    if (status == 0)
        status = put_objects(store, image, writer, err);
    return status == 0 ? store_archive_writer_finish(writer, err) : status;
}
