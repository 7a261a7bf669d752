/* An image as it was imported: the documents as they were, and each layer's blob made again of its tar. */
#include <stdlib.h>

#include "node/base/crypto.h"
#include "node/image/export.h"
#include "node/image/import.h"
#include "node/image/origin.h"
#include "node/image/recompress.h"

#define COPY_BYTES (256u << 10)

OWNED_DEFINE(owned_sha256, struct crypto_sha256, crypto_sha256_free)

/* What an encoder gives, on its way into the archive, which knows its size beforehand. */
struct sink {
    struct store_archive_writer *writer; /* borrowed */
    struct crypto_sha256 *hash;          /* borrowed */
    uint64_t left_bytes;
};

static int differs(struct err *err)
{
    return err_set(err, ERR_CORRUPT, "it cannot be made as it was: by another zlib or zstd than then, or it never was");
}

static int take_output(void *ctx, const void *data, size_t len_bytes, struct err *err)
{
    struct sink *sink = ctx;
    if (len_bytes > sink->left_bytes)
        return differs(err);
    sink->left_bytes -= len_bytes;
    crypto_sha256_add(sink->hash, data, len_bytes);
    return store_archive_writer_add_data(sink->writer, data, len_bytes, err);
}

static int press_all(struct store_reader *reader, struct image_recompress *press, struct err *err)
{
    OWNED(owned_free) uint8_t *piece = malloc(COPY_BYTES);
    size_t len = 0;
    int status = piece ? 0 : err_set(err, ERR_NOMEM, "no memory to make a blob");
    do {
        if (status == 0)
            status = store_reader_read(reader, piece, COPY_BYTES, &len, err);
        if (status == 0 && len > 0)
            status = image_recompress_write(press, piece, len, err);
    } while (status == 0 && len > 0);
    return status == 0 ? image_recompress_finish(press, err) : status;
}

static int make_blob(struct store *store, const struct image_layer *layer, const struct image_origin_layer *origin,
                     struct store_archive_writer *writer, struct err *err)
{
    char path[IMAGE_BLOB_PATH_SIZE];
    struct id digest;
    OWNED(owned_sha256) struct crypto_sha256 *hash = NULL;
    OWNED(owned_reader) struct store_reader *reader = NULL;
    OWNED(owned_recompress) struct image_recompress *press = NULL;
    struct sink sink = {.writer = writer, .left_bytes = origin->blob.size_bytes};
    int status = crypto_sha256_new(&hash, err);
    sink.hash = hash;
    if (status == 0)
        status = store_reader_open(store, &layer->diff_id, &reader, err);
    if (status == 0)
        status = image_recompress_new(&origin->packing, layer->size_bytes, take_output, &sink, &press, err);
    if (status == 0)
        status = store_archive_writer_add_file(writer, image_blob_path(&origin->blob.digest, path),
                                               origin->blob.size_bytes, err);
    if (status == 0)
        status = press_all(reader, press, err);
    if (status < 0)
        return status;
    crypto_sha256_take(hash, &digest);
    return sink.left_bytes == 0 && id_equal(&digest, &origin->blob.digest) ? 0 : differs(err);
}

/* Was it written for a lower layer already? */
static bool is_repeated(const struct image_origin *origin, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (id_equal(&origin->layers[i].blob.digest, &origin->layers[at].blob.digest))
            return true;
    return false;
}

static int put_blobs(struct store *store, const struct image *image, const struct image_origin *origin,
                     struct store_archive_writer *writer, struct err *err)
{
    char text[DIGEST_TEXT_SIZE];
    for (size_t i = 0; i < origin->layer_count; i++) {
        const struct image_origin_layer *layer = &origin->layers[i];
        bool opaque = layer->packing.codec == IMAGE_CODEC_OPAQUE;
        if (is_repeated(origin, i))
            continue;
        int status = opaque ? image_export_object(store, &layer->blob.digest, writer, err)
                            : make_blob(store, &image->layers[i], layer, writer, err);
        if (status < 0)
            return err_wrap(err, "layer %s", digest_text(&layer->blob.digest, text));
    }
    return 0;
}

int image_export_original(struct store *store, const struct image *image, store_archive_write_cb write_cb, void *ctx,
                          struct err *err)
{
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    OWNED(owned_writer) struct store_archive_writer *writer = NULL;
    OWNED(buf_release) struct buf index = BUF(LIMIT_MANIFEST_BYTES);
    int known = image_origin_get(store, image, &origin, err);
    if (known <= 0)
        return known < 0 ? known : err_set(err, ERR_NOTFOUND, "it is not known here in which layout the image came");
    int status = image_origin_check(store, origin, image, err);
    if (status == 0)
        status = image_read_blob(store, &origin->documents[0].digest, &index, err);
    if (status == 0)
        status = image_export_begin(index.data, index.len, write_cb, ctx, &writer, err);
    for (size_t i = 1; status == 0 && i < origin->document_count; i++)
        status = image_export_object(store, &origin->documents[i].digest, writer, err);
    if (status == 0)
        status = image_export_object(store, &image->config, writer, err);
    if (status == 0)
        status = put_blobs(store, image, origin, writer, err);
    return status == 0 ? store_archive_writer_finish(writer, err) : status;
}
