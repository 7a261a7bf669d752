#include "node/image/import.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/crypto.h"
#include "node/base/limits.h"
#include "node/image/json.h"
#include "node/image/manifest.h"
#include "node/image/origin.h"
#include "node/image/trial.h"

#define COPY_BYTES (64u << 10)

OWNED_DEFINE(owned_ingest, struct store_ingest, store_ingest_free)
OWNED_DEFINE(owned_sha256, struct crypto_sha256, crypto_sha256_free)

/* ---- one layer: file -> digest of the file -> decompression -> digest of the tar -> store ---- */

struct pipe {
    struct image_source_feed feed;
    struct crypto_sha256 *packed; /* owned */
    struct crypto_sha256 *plain;  /* owned */
    struct store_ingest *ingest;  /* owned */
    uint64_t plain_bytes;
};

static void pipe_release(struct pipe *pipe)
{
    crypto_sha256_free(pipe->packed);
    crypto_sha256_free(pipe->plain);
    store_ingest_free(pipe->ingest);
}

static int pipe_open(struct pipe *pipe, const struct image_import *import, int fd, struct err *err)
{
    pipe->feed = (struct image_source_feed){.fd = fd, .options = import->options};
    int status = crypto_sha256_new(&pipe->packed, err);
    if (status == 0)
        status = crypto_sha256_new(&pipe->plain, err);
    if (status == 0)
        status = store_ingest_new(import->store, STORE_LAYER, STORE_CHUNKING_ARCHIVE, &pipe->ingest, err);
    return status;
}

static ssize_t pipe_read(void *ctx, void *ret_data, size_t room_bytes, struct err *err)
{
    struct pipe *pipe = ctx;
    ssize_t got = image_source_feed(&pipe->feed, ret_data, room_bytes, err);
    if (got > 0)
        crypto_sha256_add(pipe->packed, ret_data, (size_t)got);
    return got;
}

static int pipe_write(void *ctx, const void *data, size_t len_bytes, struct err *err)
{
    struct pipe *pipe = ctx;
    crypto_sha256_add(pipe->plain, data, len_bytes);
    pipe->plain_bytes += len_bytes;
    return store_ingest_write(pipe->ingest, data, len_bytes, err);
}

/* Both digests are compared before the store is told to keep anything. */
static int pipe_check(struct pipe *pipe, const struct image_blob *blob, const struct id *diff_id, struct err *err)
{
    struct id packed, plain;
    crypto_sha256_take(pipe->packed, &packed);
    crypto_sha256_take(pipe->plain, &plain);
    if (pipe->plain_bytes == 0)
        return err_set(err, ERR_INVALID, "it is empty");
    if (blob->has_digest && !id_equal(&packed, &blob->digest))
        return err_set(err, ERR_CORRUPT, "it does not have the digest that the image's manifest gives");
    if (diff_id && !id_equal(&plain, diff_id))
        return err_set(err, ERR_CORRUPT, "it does not have the diff_id that the image's config gives");
    return 0;
}

/* diff_id NULL: whatever comes. */
static int ingest_layer(const struct image_import *import, int fd, const struct image_blob *blob,
                        const struct id *diff_id, struct store_object_info *ret_info, struct err *err)
{
    OWNED(pipe_release) struct pipe pipe = {0};
    int status = pipe_open(&pipe, import, fd, err);
    if (status == 0)
        status = store_archive_expand(pipe_read, &pipe, pipe_write, &pipe, LIMIT_OBJECT_BYTES, err);
    if (status == 0)
        status = pipe_check(&pipe, blob, diff_id, err);
    return status == 0 ? store_ingest_finish(pipe.ingest, ret_info, err) : status;
}

/* A layer that is here already was verified when it came. */
static int import_layer(const struct image_import *import, int fd, const struct image_blob *blob,
                        struct image_layer *layer, struct err *err)
{
    struct store_object_info info;
    int status = store_object_stat(import->store, &layer->diff_id, &info, err);
    if (status == 0)
        status = ingest_layer(import, fd, blob, &layer->diff_id, &info, err);
    if (status < 0)
        return status;
    layer->size_bytes = info.size_bytes;
    return 0;
}

/* ---- how its blob can be had again ---- */

static int copy_blob(const struct image_trial *trial, struct crypto_sha256 *hash, struct store_ingest *ingest,
                     struct err *err)
{
    struct image_source_feed feed = {.fd = trial->blob_fd, .options = trial->import->options};
    OWNED(owned_free) uint8_t *piece = malloc(COPY_BYTES);
    if (!piece)
        return err_set(err, ERR_NOMEM, "no memory to copy a blob");
    for (;;) {
        ssize_t got = image_source_feed(&feed, piece, COPY_BYTES, err);
        if (got <= 0)
            return (int)got;
        crypto_sha256_add(hash, piece, (size_t)got);
        int status = store_ingest_write(ingest, piece, (size_t)got, err);
        if (status < 0)
            return status;
    }
}

/* The blob as it is, because nothing here would make it. */
static int keep_blob(const struct image_trial *trial, struct err *err)
{
    OWNED(owned_ingest) struct store_ingest *ingest = NULL;
    OWNED(owned_sha256) struct crypto_sha256 *hash = NULL;
    struct store_object_info info;
    struct id digest;
    int status = crypto_sha256_new(&hash, err);
    if (status == 0)
        status = store_ingest_new(trial->import->store, STORE_LAYER, STORE_CHUNKING_ARCHIVE, &ingest, err);
    if (status == 0)
        status = copy_blob(trial, hash, ingest, err);
    if (status < 0)
        return status;
    crypto_sha256_take(hash, &digest);
    if (!id_equal(&digest, &trial->blob.digest))
        return err_set(err, ERR_CORRUPT, "it does not have the digest that the image's manifest gives");
    return store_ingest_finish(ingest, &info, err);
}

static int find_packing(const struct image_trial *trial, struct image_packing *ret_packing, struct err *err)
{
    struct image_packing packing = {.codec = IMAGE_CODEC_PLAIN};
    int status = 1;
    bool plain = id_equal(&trial->blob.digest, &trial->layer.diff_id);
    if (plain && trial->blob.size_bytes != trial->layer.size_bytes)
        return err_set(err, ERR_CORRUPT, "it does not have the size that its digest has");
    if (!plain)
        status = image_origin_find(trial->import->store, &trial->blob, &trial->layer.diff_id, &packing, err);
    if (status == 0)
        status = image_trial_run(trial, &packing, err);
    if (status == 0) {
        packing.codec = IMAGE_CODEC_OPAQUE;
        status = keep_blob(trial, err);
    }
    if (status >= 0)
        *ret_packing = packing;
    return status < 0 ? status : 0;
}

/* origin NULL: nobody wants the blob back. */
static int import_blob(const struct image_import *import, const struct image_blob *blob, struct image_layer *layer,
                       struct image_origin_layer *origin, struct err *err)
{
    OWNED(owned_fd) int fd = -1;
    uint64_t size;
    int status = image_source_open_file(&import->source, blob->path, &fd, &size, err);
    if (status < 0)
        return status;
    if (blob->has_digest && size != blob->size_bytes)
        return err_set(err, ERR_CORRUPT, "'%.100s' has %llu bytes, where the manifest says %llu", blob->path,
                       (unsigned long long)size, (unsigned long long)blob->size_bytes);
    status = import_layer(import, fd, blob, layer, err);
    if (status == 0 && origin) {
        struct image_trial trial = {import, *layer, fd, {blob->digest, size}};
        origin->blob = trial.blob;
        status = find_packing(&trial, &origin->packing, err);
    }
    return status < 0 ? err_wrap(err, "layer '%.100s'", blob->path) : 0;
}

/* The origin, for a layout that has documents; *ret_origin stays NULL for other sources. */
static int begin_origin(const struct image_import *import, const struct image *image, struct image_origin **ret_origin,
                        struct err *err)
{
    if (import->document_count == 0)
        return 0;
    int status = image_origin_new(image, ret_origin, err);
    if (status < 0)
        return status;
    (*ret_origin)->document_count = import->document_count;
    memcpy((*ret_origin)->documents, import->documents, sizeof import->documents);
    return 0;
}

static int end_origin(const struct image_import *import, struct image_origin *origin, struct err *err)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES);
    const uint8_t *document = import->document_bytes.data;
    int status = 0;
    if (!origin)
        return 0;
    for (size_t i = 0; status == 0 && i < origin->document_count; i++) {
        size_t len = (size_t)origin->documents[i].size_bytes;
        status = image_put_blob(import->store, document, len, err);
        document += len;
    }
    if (status == 0)
        status = image_origin_seal(origin, &bytes, err);
    return status == 0 ? image_put_blob(import->store, bytes.data, bytes.len, err) : status;
}

/* ---- names ---- */

static int keep(struct image_list *list, struct image *image, struct err *err)
{
    struct image **more = realloc(list->images, (list->count + 1) * sizeof *more);
    if (!more)
        return err_set(err, ERR_NOMEM, "no memory for a list of images");
    list->images = more;
    list->images[list->count++] = image;
    return 0;
}

/* The image under one name; its layers are in the store, and their sizes in `layers`. */
static int give_name(struct image_import *import, const struct buf *config, const struct image *layers,
                     const struct image_origin *origin, const char *name, struct err *err)
{
    char complete[NAME_MAX_BYTES + 1];
    OWNED(buf_release) struct buf manifest = BUF(LIMIT_MANIFEST_BYTES);
    OWNED(owned_image) struct image *image = NULL;
    int status = image_source_check(import->options, err);
    if (status == 0)
        status = image_name_complete(name, complete, err);
    if (status == 0)
        status = image_config_parse(config->data, config->len, &image, err);
    if (status < 0)
        return status;
    memcpy(image->layers, layers->layers, layers->layer_count * sizeof *layers->layers);
    status = image_manifest_seal(image, complete, &manifest, err);
    if (status == 0)
        status = image_put_blob(import->store, config->data, config->len, err);
    if (status == 0)
        status = image_put_blob(import->store, manifest.data, manifest.len, err);
    if (status == 0)
        status = image_register(import->store, image, origin, err);
    if (status == 0)
        status = keep(&import->list, image, err);
    if (status == 0)
        (void)STEAL(image);
    return status;
}

int image_import_one(struct image_import *import, const struct buf *config, const struct image_blob *layers,
                     size_t layer_count, const char *const *names, size_t name_count, struct err *err)
{
    OWNED(owned_image) struct image *image = NULL;
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    int status = image_config_parse(config->data, config->len, &image, err);
    if (status < 0)
        return status;
    if (image->layer_count != layer_count)
        return err_set(err, ERR_INVALID, "the image's manifest has %zu layers and its config %zu", layer_count,
                       image->layer_count);
    if (!import->name && name_count == 0)
        return err_set(err, ERR_INVALID, "the image has no name; give it one with --name");
    status = begin_origin(import, image, &origin, err);
    for (size_t i = 0; status == 0 && i < layer_count; i++)
        status = import_blob(import, &layers[i], &image->layers[i], origin ? &origin->layers[i] : NULL, err);
    if (status == 0)
        status = end_origin(import, origin, err);
    if (import->name)
        return status < 0 ? status : give_name(import, config, image, origin, import->name, err);
    for (size_t i = 0; status == 0 && i < name_count; i++)
        status = give_name(import, config, image, origin, names[i], err);
    return status;
}

/* ---- a root file system: one layer, and a config of ours ---- */

static int go_on(void *ctx, const struct store_archive_entry *entry)
{
    (void)ctx;
    (void)entry;
    return 0;
}

static int make_config(const struct id *diff_id, struct buf *config, struct err *err)
{
    char digest[DIGEST_TEXT_SIZE];
    OWNED(owned_json)
    json_t *json = json_pack("{s:s, s:s, s:{}, s:{s:s, s:[s]}}", "os", "linux", "architecture", image_machine(),
                             "config", "rootfs", "type", "layers", "diff_ids", digest_text(diff_id, digest));
    return json ? image_json_dump(json, config, err) : err_set(err, ERR_NOMEM, "no memory for a config");
}

/* No digest says what it should be, so it is at least read to its end as an archive first. */
static int import_rootfs(struct image_import *import, struct err *err)
{
    struct image_source_feed feed = {.fd = import->source.file_fd, .options = import->options};
    struct image_blob blob = {0};
    struct store_object_info info;
    OWNED(buf_release) struct buf config = BUF(LIMIT_MANIFEST_BYTES);
    OWNED(owned_image) struct image *image = NULL;
    if (!import->name)
        return err_set(err, ERR_INVALID, "a root file system has no name; give it one with --name");
    int status = store_archive_scan(image_source_feed, &feed, go_on, NULL, err);
    if (status == 0)
        status = ingest_layer(import, import->source.file_fd, &blob, NULL, &info, err);
    if (status == 0)
        status = make_config(&info.digest, &config, err);
    if (status == 0)
        status = image_config_parse(config.data, config.len, &image, err);
    if (status < 0)
        return status;
    image->layers[0].size_bytes = info.size_bytes;
    return give_name(import, &config, image, NULL, import->name, err);
}

/* ---- the import ---- */

static int import_source(struct image_import *import, struct err *err)
{
    switch (import->source.format) {
    case IMAGE_FORMAT_OCI:
        return image_import_oci(import, err);
    case IMAGE_FORMAT_DOCKER:
        return image_import_docker(import, err);
    default:
        return import_rootfs(import, err);
    }
}

int image_import_fd(struct store *store, int fd, const struct image_import_options *options,
                    struct image_list *ret_list, struct err *err)
{
    char complete[NAME_MAX_BYTES + 1];
    struct image_import import = {
        .store = store, .options = options, .document_bytes = BUF(LIMIT_IMAGE_DOCUMENTS * LIMIT_MANIFEST_BYTES)};
    if (options->name) {
        int status = image_name_complete(options->name, complete, err);
        if (status < 0)
            return status;
        import.name = complete;
    }
    int status = image_source_open(fd, options, &import.source, err);
    if (status < 0)
        return status;
    status = import_source(&import, err);
    image_source_close(&import.source);
    buf_release(&import.document_bytes);
    if (status < 0 || !ret_list)
        image_list_release(&import.list);
    else
        *ret_list = import.list;
    return status;
}

int image_import(struct store *store, const char *source_path, const struct image_import_options *options,
                 struct image_list *ret_list, struct err *err)
{
    OWNED(owned_fd) int fd = open(source_path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, errno, "cannot open '%s'", source_path);
    int status = image_import_fd(store, fd, options, ret_list, err);
    return status < 0 ? err_wrap(err, "cannot import '%s'", source_path) : 0;
}
