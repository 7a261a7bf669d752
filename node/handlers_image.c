#include "node/handlers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/file.h"
#include "node/image/image.h"
#include "node/upload.h"

/* A file without a name in the node's scratch directory, gone with its descriptor. */
static int open_spool(const struct node *node, int *ret_fd, struct err *err)
{
    OWNED(owned_free) char *path = file_path("%s/spool-XXXXXX", node->scratch);
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, errno, "cannot make a temporary file in '%s'", node->scratch);
    unlink(path);
    *ret_fd = fd;
    return 0;
}

static json_t *image_to_json(const struct image *image)
{
    char digest[DIGEST_TEXT_SIZE];
    uint64_t size_bytes = image->config_bytes;
    for (size_t i = 0; i < image->layer_count; i++)
        size_bytes += image->layers[i].size_bytes;
    return json_pack("{s:s, s:s, s:I, s:I, s:s}", "name", image->name, "digest", digest_text(&image->manifest, digest),
                     "size_bytes", (json_int_t)size_bytes, "layers", (json_int_t)image->layer_count, "created",
                     image->created);
}

static json_t *images_to_json(const struct image_list *list)
{
    json_t *images = json_array();
    for (size_t i = 0; i < list->count; i++)
        json_array_append_new(images, image_to_json(list->images[i]));
    return json_pack("{s:o}", "images", images);
}

/* ---- import ---- */

struct piece {
    struct id digest;
    uint64_t size_bytes;
};

struct import {
    struct node *node;
    const char *path; /* borrowed from the request; NULL: the spool has it */
    const char *name; /* borrowed, may be NULL */
    enum image_format format;
    int spool; /* owned; -1: none */
    struct image_list list;
    atomic_bool closed;   /* the client left while a job was under way */
    struct piece *pieces; /* owned: the objects of the images */
    size_t piece_count;
};

static int note_pieces(struct import *import, const struct id *ids, size_t count, struct err *err)
{
    struct piece *pieces = reallocarray(import->pieces, import->piece_count + count, sizeof *pieces);
    if (!pieces)
        return err_set(err, ERR_NOMEM, "no memory for an image's objects");
    import->pieces = pieces;
    for (size_t i = 0; i < count; i++) {
        struct store_object_info info;
        int here = store_object_stat(import->node->store, &ids[i], &info, err);
        if (here < 0)
            return here;
        if (here)
            pieces[import->piece_count++] = (struct piece){ids[i], info.size_bytes};
    }
    return 0;
}

/* All that others may want of it: to run it, and to have its layout again. */
static int note_image(struct import *import, const struct image *image, struct err *err)
{
    OWNED(owned_free) struct id *ids = NULL, *origin_ids = NULL;
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    size_t count = 0;
    int status = image_objects(image, &ids, &count, err);
    if (status == 0)
        status = note_pieces(import, ids, count, err);
    int known = status == 0 ? image_origin_get(import->node->store, image, &origin, err) : 0;
    if (known > 0)
        status = image_origin_objects(origin, true, &origin_ids, &count, err);
    if (known > 0 && status == 0)
        status = note_pieces(import, origin_ids, count, err);
    return known < 0 ? known : status;
}

/* The image; if the source held several, the first of them with the names of the others. */
static json_t *imported_to_json(const struct image_list *list)
{
    json_t *image = image_to_json(list->images[0]);
    json_t *others = json_array();
    for (size_t i = 1; i < list->count; i++)
        json_array_append_new(others, json_string(list->images[i]->name));
    if (list->count > 1)
        json_object_set(image, "others", others);
    json_decref(others);
    return image;
}

static bool import_is_cancelled(void *ctx)
{
    const struct import *import = ctx;
    return atomic_load(&import->closed);
}

static json_t *import_work(struct node *node, void *arg, struct err *err)
{
    struct import *import = arg;
    const struct image_import_options options = {import->format, import->name, node->scratch, import_is_cancelled,
                                                 import};
    int status = import->path ? image_import(node->store, import->path, &options, &import->list, err)
                              : image_import_fd(node->store, import->spool, &options, &import->list, err);
    if (status == 0 && import->list.count == 0)
        status = err_set(err, ERR_INVALID, "there is no image in it");
    for (size_t i = 0; status == 0 && i < import->list.count; i++)
        status = note_image(import, import->list.images[i], err);
    return status < 0 ? NULL : imported_to_json(&import->list);
}

/* Tell the mesh: each object, and the names. A name that is given to another image later is newer. */
static void import_publish(void *ctx)
{
    const struct import *import = ctx;
    struct content *content = import->node->content;
    struct store_version version = {.counter = clock_wall_ms(&import->node->clock)};
    for (size_t i = 0; i < import->piece_count; i++)
        content_publish(content, &import->pieces[i].digest, import->pieces[i].size_bytes);
    for (size_t i = 0; i < import->list.count; i++) {
        const struct image *image = import->list.images[i];
        content_publish_key(content, DHT_IMAGE, image->name, strlen(image->name), &image->manifest, image->config_bytes,
                            version);
    }
}

static void import_free(void *ctx)
{
    struct import *import = ctx;
    owned_fd(&import->spool);
    image_list_release(&import->list);
    free(import->pieces);
    free(import);
}

static void import_end(void *arg)
{
    import_publish(arg);
    import_free(arg);
}

static void import_cancel(void *ctx)
{
    struct import *import = ctx;
    atomic_store(&import->closed, true);
}

static void on_import_closed(void *ctx, struct api_request *req)
{
    (void)req;
    import_cancel(ctx);
}

static int spool_write(void *ctx, const void *data, size_t len_bytes, struct err *err)
{
    struct import *import = ctx;
    int status = import->spool < 0 ? open_spool(import->node, &import->spool, err) : 0;
    return status < 0 ? status : file_write_all(import->spool, data, len_bytes, "temporary file", err);
}

static json_t *spool_finish(void *ctx, struct err *err)
{
    struct import *import = ctx;
    if (import->spool < 0) {
        err_set(err, ERR_INVALID, "the upload is empty");
        return NULL;
    }
    return import_work(import->node, import, err);
}

static int import_options(const struct api_request *req, struct import *import, struct err *err)
{
    const json_t *body = api_request_body(req);
    const char *format = NULL;
    int status = 0;
    if (body) {
        status = api_json_only(body, "path name format", err);
        if (status == 0)
            status = api_json_get_str(body, "path", NULL, &import->path, err);
        if (status == 0)
            status = api_json_get_str(body, "name", NULL, &import->name, err);
        if (status == 0)
            status = api_json_get_str(body, "format", NULL, &format, err);
        if (status == 0 && (!import->path || import->path[0] != '/'))
            status = err_set(err, ERR_INVALID, "the field 'path' is missing or not absolute");
    } else {
        import->name = api_request_query(req, "name");
        format = api_request_query(req, "format");
    }
    if (status == 0 && format && strcmp(format, "auto") != 0 && !image_format_parse(format, &import->format))
        status = err_set(err, ERR_INVALID, "the format '%.32s' is none of auto, oci, docker, rootfs", format);
    return status;
}

void handlers_image_import(void *ctx, struct api_request *req)
{
    static const struct upload_sink sink = {spool_write, spool_finish, import_publish, import_free, import_cancel};
    static const struct api_request_ops ops = {.on_closed = on_import_closed};
    struct node *node = ctx;
    struct err err;
    struct import *import = calloc(1, sizeof *import);
    if (!import) {
        handlers_refuse(req, ERR_NOMEM, "no memory for an import");
        return;
    }
    *import = (struct import){.node = node, .format = IMAGE_FORMAT_ANY, .spool = -1};
    if (import_options(req, import, &err) < 0) {
        api_reply_error(req, &err);
        import_free(import);
    } else if (import->path) {
        api_request_watch(req, &ops, import);
        handlers_answer(node, req, 201, import_work, import, import_end);
    } else {
        upload_begin(req, node->jobs, &sink, import, 201);
    }
}

/* ---- list, show and remove ---- */

static json_t *list_work(struct node *node, void *arg, struct err *err)
{
    (void)arg;
    OWNED(image_list_release) struct image_list list = {0};
    return image_list(node->store, &list, err) < 0 ? NULL : images_to_json(&list);
}

void handlers_image_list(void *node, struct api_request *req)
{
    node_answer_from_job(node, req, list_work, NULL, NULL);
}

static json_t *layer_to_json(const struct image_layer *layer, const struct image_origin_layer *origin)
{
    char digest[DIGEST_TEXT_SIZE];
    json_t *json = json_pack("{s:s, s:I}", "digest", digest_text(&layer->diff_id, digest), "size_bytes",
                             (json_int_t)layer->size_bytes);
    if (!origin)
        return json;
    json_object_set_new(json, "blob", json_string(digest_text(&origin->blob.digest, digest)));
    json_object_set_new(json, "blob_bytes", json_integer((json_int_t)origin->blob.size_bytes));
    json_object_set_new(json, "codec", json_string(image_codec_name(origin->packing.codec)));
    json_object_set_new(json, "level", json_integer(origin->packing.level));
    return json;
}

static json_t *show_work(struct node *node, void *arg, struct err *err)
{
    OWNED(owned_image) struct image *image = NULL;
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    char digest[DIGEST_TEXT_SIZE];
    if (image_get(node->store, arg, &image, err) < 0 || image_origin_get(node->store, image, &origin, err) < 0)
        return NULL;
    json_t *json = image_to_json(image), *layers = json_array();
    for (size_t i = 0; i < image->layer_count; i++)
        json_array_append_new(layers, layer_to_json(&image->layers[i], origin ? &origin->layers[i] : NULL));
    json_object_set_new(json, "layers", layers);
    const char *manifest = origin ? digest_text(&origin->documents[origin->document_count - 1].digest, digest) : NULL;
    json_object_set_new(json, "oci_manifest", manifest ? json_string(manifest) : json_null());
    return json;
}

void handlers_image_show(void *node, struct api_request *req)
{
    /* the parameter lives as long as the request, which waits for its answer */
    node_answer_from_job(node, req, show_work, (void *)(uintptr_t)api_request_param(req, "name"), NULL);
}

struct removal {
    const char *name; /* borrowed from the request */
    bool force;
};

struct user_search {
    const struct image *image;
    char user[NAME_MAX_BYTES + 1]; /* the name of a container, or "" */
};

static void look_for_user(void *ctx, const struct runtime_container *container)
{
    struct user_search *search = ctx;
    if (id_equal(&container->spec.manifest, &search->image->manifest))
        snprintf(search->user, sizeof search->user, "%s", container->spec.name);
}

static json_t *remove_work(struct node *node, void *arg, struct err *err)
{
    const struct removal *removal = arg;
    OWNED(owned_image) struct image *image = NULL;
    if (image_get(node->store, removal->name, &image, err) < 0)
        return NULL;
    struct user_search search = {.image = image};
    runtime_each(node->runtime, look_for_user, &search);
    if (*search.user && !removal->force) {
        err_set(err, ERR_CONFLICT, "image '%s' is used by container '%s': remove that first, or force it", image->name,
                search.user);
        return NULL;
    }
    if (image_remove(node->store, image->name, err) < 0)
        return NULL;
    return json_pack("{s:s}", "name", image->name);
}

void handlers_image_remove(void *node, struct api_request *req)
{
    struct err err;
    bool force;
    if (handlers_query_flag(req, "force", &force, &err) < 0) {
        api_reply_error(req, &err);
        return;
    }
    struct removal *removal = malloc(sizeof *removal);
    if (!removal) {
        handlers_refuse(req, ERR_NOMEM, "no memory for a removal");
        return;
    }
    *removal = (struct removal){.name = api_request_param(req, "name"), .force = force};
    node_answer_from_job(node, req, remove_work, removal, free);
}

/* ---- export ---- */

/* Written to a spool first: what fails half-way is then an error with a text, not a short archive. The layout as it was
 * imported may want blobs that were not needed here so far: those are fetched before.
 *
 *   plan (job) -> fetch, one after the other -> write (job) -> reply
 */
struct export
{
    struct node *node;
    struct api_request *req;
    bool original;
    struct id *missing; /* owned */
    size_t missing_count;
    struct content_fetch *fetch; /* borrowed until its end; NULL: none is under way */
    bool closed;                 /* the client left */
    int spool;                   /* owned; -1: none */
    uint64_t size_bytes;
    struct err err;
};

static void export_end(struct export *export)
{
    if (export->err.code)
        api_reply_error(export->req, &export->err);
    else
        api_reply_fd(export->req, "application/x-tar", steal_fd(&export->spool), 0, export->size_bytes);
    owned_fd(&export->spool);
    free(export->missing);
    free(export);
}

static int export_write(void *ctx, const void *data, size_t len_bytes, struct err *err)
{
    struct export *export = ctx;
    export->size_bytes += len_bytes;
    return file_write_all(export->spool, data, len_bytes, "temporary file", err);
}

static void export_work(void *arg)
{
    struct export *export = arg;
    OWNED(owned_image) struct image *image = NULL;
    struct store *store = export->node->store;
    int status = image_get(store, api_request_param(export->req, "name"), &image, &export->err);
    if (status == 0)
        status = open_spool(export->node, &export->spool, &export->err);
    if (status == 0 && export->original)
        image_export_original(store, image, export_write, export, &export->err);
    else if (status == 0)
        image_export(store, image, export_write, export, &export->err);
}

static void on_exported(void *arg)
{
    export_end(arg);
}

static void export_next(struct export *export);

static void on_blob_fetched(void *ctx, int status, const struct err *err, const struct exchange_stats *stats)
{
    struct export *export = ctx;
    (void)stats;
    export->fetch = NULL;
    if (status < 0) {
        export->err = *err;
        err_wrap(&export->err, "a blob of the layout");
        export_end(export);
        return;
    }
    export->missing_count--;
    export_next(export);
}

static void export_next(struct export *export)
{
    struct node *node = export->node;
    if (export->missing_count == 0) {
        jobs_submit(&node->jobs, export_work, on_exported, export);
        return;
    }
    struct content_wish wish = {.digest = export->missing[export->missing_count - 1],
                                .kind = STORE_LAYER,
                                .on_done = on_blob_fetched,
                                .ctx = export};
    if (content_fetch(node->content, &wish, &export->fetch, &export->err) < 0)
        export_end(export);
}

/* What the layout needs and is not here. */
static void plan_work(void *arg)
{
    struct export *export = arg;
    struct store *store = export->node->store;
    OWNED(owned_image) struct image *image = NULL;
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    size_t count = 0;
    int status = image_get(store, api_request_param(export->req, "name"), &image, &export->err);
    if (status == 0)
        status = image_origin_get(store, image, &origin, &export->err);
    if (status > 0)
        status = image_origin_objects(origin, true, &export->missing, &count, &export->err);
    for (size_t i = 0; status >= 0 && i < count; i++) {
        status = store_object_stat(store, &export->missing[i], NULL, &export->err);
        if (status == 0)
            export->missing[export->missing_count++] = export->missing[i];
    }
}

static void on_planned(void *arg)
{
    struct export *export = arg;
    if (export->closed)
        err_set(&export->err, ERR_CANCELLED, "the client left");
    if (export->err.code)
        export_end(export);
    else
        export_next(export);
}

/* A job that is under way comes to its end. */
static void on_export_closed(void *ctx, struct api_request *req)
{
    struct export *export = ctx;
    (void)req;
    export->closed = true;
    if (!export->fetch)
        return;
    content_fetch_cancel(export->fetch);
    err_set(&export->err, ERR_CANCELLED, "the client left");
    export_end(export);
}

void handlers_image_export(void *ctx, struct api_request *req)
{
    static const struct api_request_ops ops = {.on_closed = on_export_closed};
    struct node *node = ctx;
    struct err err;
    bool original;
    if (handlers_query_flag(req, "original", &original, &err) < 0) {
        api_reply_error(req, &err);
        return;
    }
    struct export *export = calloc(1, sizeof *export);
    if (!export) {
        handlers_refuse(req, ERR_NOMEM, "no memory for an export");
        return;
    }
    *export = (struct export){.node = node, .req = req, .original = original, .spool = -1};
    api_request_watch(req, &ops, export);
    if (original)
        jobs_submit(&node->jobs, plan_work, on_planned, export);
    else
        jobs_submit(&node->jobs, export_work, on_exported, export);
}
