#include "node/handlers.h"

#include <stdlib.h>
#include <string.h>

#include "node/download.h"
#include "node/image/image.h"
#include "node/spec.h"
#include "node/upload.h"

#define PIN_OWNER "user"
#define LIST_MAX 10000 /* objects in one reply; x ~1 KiB of JSON in memory */
#define PROGRESS_MS 100

OWNED_DEFINE(owned_reader, struct store_reader, store_reader_close)

/* ---- put ---- */

struct put {
    struct node *node;
    enum store_kind kind;
    struct store_ingest *ingest; /* owned; made with the first bytes */
    struct store_object_info info;
};

static int put_open(struct put *put, struct err *err)
{
    if (put->ingest)
        return 0;
    return store_ingest_new(put->node->store, put->kind, STORE_CHUNKING_ARCHIVE, &put->ingest, err);
}

static int put_write(void *ctx, const void *data, size_t len_bytes, struct err *err)
{
    struct put *put = ctx;
    int status = put_open(put, err);
    return status < 0 ? status : store_ingest_write(put->ingest, data, len_bytes, err);
}

static json_t *put_finish(void *ctx, struct err *err)
{
    struct put *put = ctx;
    char digest[DIGEST_TEXT_SIZE];
    if (put_open(put, err) < 0 || store_ingest_finish(put->ingest, &put->info, err) < 0)
        return NULL;
    return json_pack("{s:s, s:I, s:I}", "digest", digest_text(&put->info.digest, digest), "size_bytes",
                     (json_int_t)put->info.size_bytes, "chunks", (json_int_t)put->info.chunk_count);
}

static void put_done(void *ctx)
{
    struct put *put = ctx;
    content_publish(put->node->content, &put->info.digest, put->info.size_bytes);
}

static void put_free(void *ctx)
{
    struct put *put = ctx;
    store_ingest_free(put->ingest);
    free(put);
}

/* "blob" if nothing is said. */
static bool find_kind(const char *name, enum store_kind *ret_kind)
{
    *ret_kind = STORE_BLOB;
    for (unsigned number = 0; name && number <= UINT8_MAX; number++) {
        *ret_kind = (enum store_kind)number;
        if (store_kind_is_valid(number) && strcmp(store_kind_name(*ret_kind), name) == 0)
            return true;
    }
    return !name;
}

void handlers_object_put(void *ctx, struct api_request *req)
{
    static const struct upload_sink sink = {
        .write = put_write, .finish = put_finish, .done = put_done, .free = put_free};
    struct node *node = ctx;
    enum store_kind kind;
    if (!find_kind(api_request_query(req, "kind"), &kind)) {
        handlers_refuse(req, ERR_INVALID, "the query field 'kind' is none of blob, layer, volume, checkpoint, cache");
        return;
    }
    struct put *put = calloc(1, sizeof *put);
    if (!put) {
        handlers_refuse(req, ERR_NOMEM, "no memory for an upload");
        return;
    }
    *put = (struct put){.node = node, .kind = kind};
    upload_begin(req, node->jobs, &sink, put, 201);
}

/* ---- list ---- */

struct list {
    struct store *store;
    json_t *objects; /* borrowed */
    struct id after; /* the digest that the list goes on after; zeros: from the beginning */
    uint64_t limit;
    bool more;
    struct err *err;
};

static json_t *object_to_json(struct store *store, const struct store_object_info *info, struct err *err)
{
    char digest[DIGEST_TEXT_SIZE], created[SPEC_TIME_SIZE];
    int pinned = store_pinned(store, &info->digest, err);
    if (pinned < 0)
        return NULL;
    return json_pack("{s:s, s:I, s:s, s:I, s:b, s:s}", "digest", digest_text(&info->digest, digest), "size_bytes",
                     (json_int_t)info->size_bytes, "kind", store_kind_name(info->kind), "chunks",
                     (json_int_t)info->chunk_count, "pinned", pinned, "created", spec_time(info->created_ms, created));
}

static int list_one(const struct store_object_info *info, void *ctx)
{
    struct list *list = ctx;
    if (id_compare(&info->digest, &list->after) <= 0 && !id_is_zero(&list->after))
        return 0;
    list->more = json_array_size(list->objects) == list->limit;
    if (list->more)
        return 1;
    json_t *object = object_to_json(list->store, info, list->err);
    if (!object)
        return list->err->code ? list->err->code : err_set(list->err, ERR_NOMEM, "no memory for a list");
    json_array_append_new(list->objects, object);
    return 0;
}

static json_t *list_work(struct node *node, void *arg, struct err *err)
{
    struct list *list = arg;
    OWNED(owned_json) json_t *reply = json_object();
    list->store = node->store;
    list->err = err;
    list->objects = json_array();
    json_object_set_new(reply, "objects", list->objects);
    if (store_object_each(node->store, list_one, list, err) < 0)
        return NULL;
    json_object_set_new(reply, "more", json_boolean(list->more));
    return STEAL(reply);
}

void handlers_object_list(void *ctx, struct api_request *req)
{
    const char *after = api_request_query(req, "after");
    struct list *list = calloc(1, sizeof *list);
    struct err err;
    if (!list) {
        handlers_refuse(req, ERR_NOMEM, "no memory for a list");
    } else if (api_request_query_u64(req, "limit", LIST_MAX, LIST_MAX, &list->limit, &err) < 0) {
        api_reply_error(req, &err);
        free(list);
    } else if (after && !digest_parse(after, &list->after)) {
        handlers_refuse(req, ERR_INVALID, "the query field 'after' is not 'sha256:' and 64 lower-case hex digits");
        free(list);
    } else {
        node_answer_from_job(ctx, req, list_work, list, free);
    }
}

/* ---- get ---- */

struct get {
    struct node *node;
    struct api_request *req;
    struct id digest;
    struct store_reader *reader; /* owned */
    uint64_t size_bytes;
    struct err err;
};

static int get_read(void *ctx, void *ret_data, size_t len_bytes, size_t *ret_len, struct err *err)
{
    struct get *get = ctx;
    return store_reader_read(get->reader, ret_data, len_bytes, ret_len, err);
}

static void get_free(void *ctx)
{
    struct get *get = ctx;
    if (get->reader)
        store_reader_close(get->reader);
    free(get);
}

static void get_work(void *arg)
{
    struct get *get = arg;
    char digest[DIGEST_TEXT_SIZE];
    struct store_object_info info;
    int here = store_object_stat(get->node->store, &get->digest, &info, &get->err);
    if (here == 0)
        err_set(&get->err, ERR_NOTFOUND, "object '%s' is not on this node", digest_text(&get->digest, digest));
    else if (here > 0 && store_reader_open(get->node->store, &get->digest, &get->reader, &get->err) == 0)
        get->size_bytes = info.size_bytes;
}

static void on_get_opened(void *arg)
{
    static const struct download_source source = {.read = get_read, .free = get_free};
    struct get *get = arg;
    if (get->reader) {
        download_begin(get->req, get->node->loop, get->node->jobs, &source, get, (int64_t)get->size_bytes);
        return;
    }
    api_reply_error(get->req, &get->err);
    get_free(get);
}

void handlers_object_get(void *ctx, struct api_request *req)
{
    struct node *node = ctx;
    struct id digest;
    if (!handlers_digest(req, &digest))
        return;
    struct get *get = calloc(1, sizeof *get);
    if (!get) {
        handlers_refuse(req, ERR_NOMEM, "no memory for a download");
        return;
    }
    *get = (struct get){.node = node, .req = req, .digest = digest};
    jobs_submit(&node->jobs, get_work, on_get_opened, get);
}

/* ---- remove ---- */

struct removal {
    struct node *node;
    struct id digest;
    bool force;
    bool removed;
};

static bool is_listed(const struct id *ids, size_t count, const struct id *digest)
{
    for (size_t i = 0; i < count; i++)
        if (id_equal(&ids[i], digest))
            return true;
    return false;
}

/* 1 if the image needs the object, to be run or to be given back as it came. */
static int image_needs(struct store *store, const struct image *image, const struct id *digest, struct err *err)
{
    OWNED(owned_free) struct id *ids = NULL, *origin_ids = NULL;
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    size_t count = 0;
    int status = image_objects(image, &ids, &count, err);
    if (status < 0 || is_listed(ids, count, digest))
        return status < 0 ? status : 1;
    status = image_origin_get(store, image, &origin, err);
    if (status > 0)
        status = image_origin_objects(origin, true, &origin_ids, &count, err);
    return status < 0 ? status : origin_ids && is_listed(origin_ids, count, digest);
}

/* ERR_CONFLICT if an image of this node needs the object. */
static int check_images(struct store *store, const struct id *digest, struct err *err)
{
    OWNED(image_list_release) struct image_list list = {0};
    int status = image_list(store, &list, err);
    for (size_t i = 0; status == 0 && i < list.count; i++) {
        status = image_needs(store, list.images[i], digest, err);
        if (status > 0)
            return err_set(err, ERR_CONFLICT, "the object is part of image '%s': remove that, or force it",
                           list.images[i]->name);
    }
    return status;
}

static int check_unused(struct store *store, const struct id *digest, struct err *err)
{
    int pinned = store_pinned(store, digest, err);
    if (pinned < 0)
        return pinned;
    if (pinned)
        return err_set(err, ERR_CONFLICT, "the object is pinned: unpin it first, or force it");
    return check_images(store, digest, err);
}

static int compare_broken(const struct store_broken *broken, void *ctx)
{
    return id_equal(&broken->digest, ctx);
}

/* 1 or 0 */
static int is_broken(struct store *store, struct id *digest, struct err *err)
{
    return store_broken_each(store, compare_broken, digest, err);
}

static json_t *remove_work(struct node *node, void *arg, struct err *err)
{
    struct removal *removal = arg;
    char digest[DIGEST_TEXT_SIZE];
    digest_text(&removal->digest, digest);
    int here = store_object_stat(node->store, &removal->digest, NULL, err);
    bool is_whole = here == 1;
    if (here == 0) /* of one that has rotted, what is left */
        here = is_broken(node->store, &removal->digest, err);
    if (here == 0)
        err_set(err, ERR_NOTFOUND, "object '%s' is not on this node", digest);
    if (here <= 0 || (!removal->force && check_unused(node->store, &removal->digest, err) < 0) ||
        (is_whole ? store_object_remove : store_partial_drop)(node->store, &removal->digest, err) < 0)
        return NULL;
    removal->removed = true;
    return json_pack("{s:s}", "digest", digest);
}

static void removal_end(void *arg)
{
    OWNED(owned_free) struct removal *removal = arg;
    if (removal->removed)
        content_withdraw(removal->node->content, &removal->digest);
}

void handlers_object_remove(void *ctx, struct api_request *req)
{
    struct removal removal = {.node = ctx};
    struct err err;
    if (!handlers_digest(req, &removal.digest))
        return;
    if (handlers_query_flag(req, "force", &removal.force, &err) < 0) {
        api_reply_error(req, &err);
        return;
    }
    struct removal *copy = malloc(sizeof *copy);
    if (!copy) {
        handlers_refuse(req, ERR_NOMEM, "no memory for a removal");
        return;
    }
    *copy = removal;
    node_answer_from_job(ctx, req, remove_work, copy, removal_end);
}

/* ---- fetch ---- */

struct fetch {
    struct node *node;
    struct api_request *req;
    struct content_fetch *fetch; /* borrowed until its end */
    struct id digest;
    uint64_t told_ms;
};

static void on_progress(void *ctx, const struct exchange_progress *progress)
{
    struct fetch *fetch = ctx;
    uint64_t now = clock_mono_ms(&fetch->node->clock);
    if (now < fetch->told_ms + PROGRESS_MS)
        return;
    fetch->told_ms = now;
    api_stream_progress(fetch->req,
                        json_pack("{s:s, s:I, s:I, s:I, s:i}", "event", API_EVENT_PROGRESS, "done_bytes",
                                  (json_int_t)progress->done_bytes, "total_bytes", (json_int_t)progress->total_bytes,
                                  "rate", (json_int_t)progress->rate_bytes_per_s, "peers", (int)progress->peers));
}

static json_t *fetch_result(const struct fetch *fetch, const struct exchange_stats *stats)
{
    char digest[DIGEST_TEXT_SIZE], node[ID_HEX_SIZE];
    json_t *by_peer = json_object();
    for (size_t i = 0; i < stats->n_shares; i++)
        if (stats->shares[i].bytes > 0)
            json_object_set_new(by_peer, id_hex(&stats->shares[i].node, node),
                                json_integer((json_int_t)stats->shares[i].bytes));
    uint64_t delta_bytes = 0, delta_wire_bytes = stats->deltas.signature_bytes;
    for (size_t i = 0; i < EXCHANGE_CODECS; i++) {
        delta_bytes += stats->deltas.gap_bytes[i];
        delta_wire_bytes += stats->deltas.wire_bytes[i];
    }
    return json_pack("{s:s, s:s, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I}", "event", API_EVENT_RESULT, "digest",
                     digest_text(&fetch->digest, digest), "size_bytes", (json_int_t)stats->total_bytes, "bytes_by_peer",
                     by_peer, "local_bytes", (json_int_t)stats->local_bytes, "wire_bytes",
                     (json_int_t)stats->wire_bytes, "duplicate_bytes", (json_int_t)stats->duplicate_bytes,
                     "delta_bytes", (json_int_t)delta_bytes, "delta_wire_bytes", (json_int_t)delta_wire_bytes,
                     "duration_ms", (json_int_t)stats->duration_ms);
}

static void on_fetched(void *ctx, int status, const struct err *err, const struct exchange_stats *stats)
{
    OWNED(owned_free) struct fetch *fetch = ctx;
    if (status < 0) {
        api_stream_error(fetch->req, err);
        return;
    }
    api_stream_event(fetch->req, fetch_result(fetch, stats));
    api_stream_end(fetch->req);
}

static void on_fetch_closed(void *ctx, struct api_request *req)
{
    OWNED(owned_free) struct fetch *fetch = ctx;
    content_fetch_cancel(fetch->fetch);
    api_stream_end(req);
}

/* What the body of a request to fetch says, all of it optional. */
struct fetch_wish {
    struct policy policy;
    struct id basis;
    bool has_policy, has_basis, prefetch;
};

static int parse_fetch(const json_t *body, struct fetch_wish *ret_wish, struct err *err)
{
    const char *policy, *basis;
    int status = api_json_only(body, "policy basis prefetch", err);
    if (status == 0)
        status = api_json_get_str(body, "policy", NULL, &policy, err);
    if (status == 0)
        status = api_json_get_str(body, "basis", NULL, &basis, err);
    if (status == 0)
        status = api_json_get_bool(body, "prefetch", false, &ret_wish->prefetch, err);
    if (status < 0)
        return status;
    ret_wish->has_policy = policy != NULL;
    ret_wish->has_basis = basis != NULL;
    if (basis && !digest_parse(basis, &ret_wish->basis))
        return err_set(err, ERR_INVALID, "the basis is named by 'sha256:' and 64 lower-case hex digits");
    return policy ? policy_parse(policy, &ret_wish->policy, err) : 0;
}

void handlers_object_fetch(void *ctx, struct api_request *req)
{
    static const struct api_request_ops ops = {.on_closed = on_fetch_closed};
    struct node *node = ctx;
    struct id digest;
    struct err err = {0};
    struct fetch_wish asked = {0};
    if (!handlers_digest(req, &digest))
        return;
    if (parse_fetch(api_request_body(req), &asked, &err) < 0) {
        api_reply_error(req, &err);
        return;
    }
    struct fetch *fetch = calloc(1, sizeof *fetch);
    if (!fetch) {
        handlers_refuse(req, ERR_NOMEM, "no memory for a fetch");
        return;
    }
    *fetch = (struct fetch){.node = node, .req = req, .digest = digest};
    struct content_wish wish = {.digest = digest,
                                .kind = STORE_BLOB,
                                .class = asked.prefetch ? EXCHANGE_PREFETCH : EXCHANGE_LAYER,
                                .bases = &asked.basis,
                                .base_count = asked.has_basis,
                                .policy = asked.has_policy ? &asked.policy : NULL,
                                .on_progress = on_progress,
                                .on_done = on_fetched,
                                .ctx = fetch};
    if (content_fetch(node->content, &wish, &fetch->fetch, &err) < 0) {
        api_reply_error(req, &err);
        free(fetch);
        return;
    }
    api_request_watch(req, &ops, fetch);
    api_stream_begin(req, API_TYPE_EVENTS);
}

/* ---- pins ---- */

struct pin {
    struct id digest;
    bool pinned;
};

static json_t *pin_work(struct node *node, void *arg, struct err *err)
{
    const struct pin *pin = arg;
    char digest[DIGEST_TEXT_SIZE];
    int here = pin->pinned ? store_object_stat(node->store, &pin->digest, NULL, err) : 1;
    if (here == 0) /* the store would pin it in advance, but nobody means that who mistypes a digest */
        err_set(err, ERR_NOTFOUND, "object '%s' is not on this node", digest_text(&pin->digest, digest));
    if (here <= 0)
        return NULL;
    int status = pin->pinned ? store_pin(node->store, &pin->digest, PIN_OWNER, err)
                             : store_unpin(node->store, &pin->digest, PIN_OWNER, err);
    return status < 0 ? NULL
                      : json_pack("{s:s, s:b}", "digest", digest_text(&pin->digest, digest), "pinned", pin->pinned);
}

static void change_pin(struct node *node, struct api_request *req, bool pinned)
{
    struct id digest;
    if (!handlers_digest(req, &digest))
        return;
    struct pin *pin = malloc(sizeof *pin);
    if (!pin) {
        handlers_refuse(req, ERR_NOMEM, "no memory for a pin");
        return;
    }
    *pin = (struct pin){.digest = digest, .pinned = pinned};
    node_answer_from_job(node, req, pin_work, pin, free);
}

void handlers_object_pin(void *ctx, struct api_request *req)
{
    struct err err;
    if (api_json_only(api_request_body(req), "", &err) < 0)
        api_reply_error(req, &err);
    else
        change_pin(ctx, req, true);
}

void handlers_object_unpin(void *ctx, struct api_request *req)
{
    change_pin(ctx, req, false);
}
