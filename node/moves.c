/* What migrations need of the node: calls, fetches, records, timers; and the calls of other nodes about them. */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/handlers.h"
#include "node/image/image.h"
#include "node/node.h"

/* ---- calls ---- */

struct asking {
    migrate_reply_cb reply;
    void *ctx;
};

static void on_reply(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len_bytes)
{
    struct asking *asking = ctx;
    struct err malformed;
    OWNED(owned_json) json_t *json = NULL;
    if (status == 0 && api_json_parse(data, len_bytes, &json, NULL) < 0) {
        status = err_set(&malformed, ERR_PROTOCOL, "the answer is no JSON object");
        err = &malformed;
    }
    asking->reply(asking->ctx, status, status < 0 ? err : NULL, status < 0 ? NULL : json);
    free(asking);
}

static void call_node(void *ctx, const struct id *node_id, const char *method, json_t *body, uint64_t patience_ms,
                      migrate_reply_cb reply, void *reply_ctx)
{
    struct node *node = ctx;
    if (node->closed) { /* nobody is called back any more: what waits goes on from the journal at the next start */
        json_decref(body);
        return;
    }
    OWNED(owned_free) char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct asking *asking = malloc(sizeof *asking);
    json_decref(body);
    if (!asking || !text)
        abort(); /* the contract is one callback */
    *asking = (struct asking){reply, reply_ctx};
    mesh_call(node->mesh, node_id, method, text, strlen(text), patience_ms, on_reply, asking);
}

static void reply_json(void *ctx, json_t *reply)
{
    OWNED(owned_free) char *text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;
    json_decref(reply);
    struct err err;
    if (text) {
        call_reply(ctx, text, strlen(text));
    } else {
        err_set(&err, ERR_NOMEM, "no memory for the answer");
        call_refuse(ctx, &err);
    }
}

static void refuse_json(void *ctx, const struct err *err)
{
    call_refuse(ctx, err);
}

void moves_request(struct node *node, struct link *link, const char *method, const uint8_t *data, size_t len_bytes,
                   struct call_request *request)
{
    struct migrate_answer answer = {.reply = reply_json, .refuse = refuse_json, .ctx = request};
    OWNED(owned_json) json_t *body = NULL;
    struct err err;
    if (api_json_parse(data, len_bytes, &body, NULL) < 0) {
        err_set(&err, ERR_PROTOCOL, "the request is no JSON object");
        call_refuse(request, &err);
    } else if (strncmp(method, "migrate.", 8) == 0) {
        migrate_request(node->migrate, &link_peer(link)->id, link_peer(link)->public_key, method, body, &answer);
    } else if (strncmp(method, "move.", 5) == 0) {
        handlers_move_request(node, method, body, &answer);
    } else {
        err_set(&err, ERR_UNSUPPORTED, "this node does not know that request: it runs cmig " CMIG_VERSION);
        call_refuse(request, &err);
    }
}

/* ---- fetches ---- */

_Static_assert(MIGRATE_POLICY_SIZE >= POLICY_TEXT_SIZE, "any policy can travel");

struct moving {
    struct content_fetch *fetch;
    migrate_fetch_progress_cb progress;
    migrate_fetch_done_cb done;
    void *ctx;
};

static void on_progress(void *ctx, const struct exchange_progress *progress)
{
    struct moving *moving = ctx;
    moving->progress(moving->ctx, progress->done_bytes, progress->total_bytes);
}

static void on_done(void *ctx, int status, const struct err *err, const struct exchange_stats *stats)
{
    struct moving *moving = ctx;
    size_t count = stats ? stats->n_shares : 0;
    OWNED(owned_free) struct migrate_share *shares = calloc(count ? count : 1, sizeof *shares);
    struct migrate_cost cost = {.shares = shares};
    if (stats) {
        cost.fetched_bytes = stats->fetched_bytes;
        cost.wire_bytes = stats->wire_bytes;
    }
    for (size_t i = 0; shares && i < count; i++)
        shares[cost.share_count++] = (struct migrate_share){stats->shares[i].node, stats->shares[i].bytes};
    moving->done(moving->ctx, status, err, &cost);
    free(moving);
}

/* Whatever a stopped container waits for comes first; layers are large and may wait. */
static enum exchange_class class_of(const struct migrate_wanted *wanted)
{
    if (wanted->frozen)
        return EXCHANGE_FREEZE;
    switch (wanted->object->role) {
    case MIGRATE_CHECKPOINT:
    case MIGRATE_PAGES:
    case MIGRATE_VOLUME:
    case MIGRATE_WRITABLE:
        return EXCHANGE_VOLUME;
    default:
        return EXCHANGE_LAYER;
    }
}

static struct id service_key(const struct runtime_container *container)
{
    OWNED(buf_release) struct buf name = BUF(MIGRATE_SERVICE_BYTES);
    migrate_service_name(container, &name);
    return dht_key(DHT_SERVICE, name.data, name.len);
}

/* Where holders of older versions stand: the volume's GUID; for memory the service, then the application. */
static size_t hints_of(const struct migrate_object *object, const struct runtime_container *container, struct id *hints)
{
    struct guid guid = container->id;
    switch (object->role) {
    case MIGRATE_VOLUME:
        guid_parse(object->name, &guid); /* checked by the manifest */
        hints[0] = dht_key(DHT_VOLUME, guid.b, GUID_BYTES);
        return 1;
    case MIGRATE_WRITABLE:
        hints[0] = dht_key(DHT_VOLUME, guid.b, GUID_BYTES);
        return 1;
    case MIGRATE_CHECKPOINT:
    case MIGRATE_PAGES:
        hints[0] = service_key(container);
        hints[1] = dht_key(DHT_APP, container->spec.image, strlen(container->spec.image));
        return 2;
    default:
        return 0;
    }
}

static int fetch_object(void *ctx, const struct migrate_wanted *wanted, migrate_fetch_progress_cb progress,
                        migrate_fetch_done_cb done, void *done_ctx, void **ret_handle, struct err *err)
{
    struct node *node = ctx;
    const struct migrate_object *object = wanted->object;
    struct policy policy;
    if (wanted->policy && policy_parse(wanted->policy, &policy, err) < 0)
        return err->code;
    struct moving *moving = malloc(sizeof *moving);
    if (!moving)
        return err_set(err, ERR_NOMEM, "no memory for a fetch");
    *moving = (struct moving){.progress = progress, .done = done, .ctx = done_ctx};
    struct id hints[CONTENT_MAX_HINTS];
    struct content_wish wish = {.digest = object->digest,
                                .kind = object->kind,
                                .class = class_of(wanted),
                                .bases = wanted->basis,
                                .base_count = wanted->basis ? 1 : 0,
                                .origin = wanted->origin,
                                .policy = wanted->policy ? &policy : NULL,
                                .hints = hints,
                                .hint_count = hints_of(object, wanted->container, hints),
                                .on_progress = on_progress,
                                .on_done = on_done,
                                .ctx = moving};
    int status = content_fetch(node->content, &wish, &moving->fetch, err);
    if (status < 0)
        free(moving);
    else
        *ret_handle = moving;
    return status;
}

static void fetch_cancel(void *ctx, void *handle)
{
    struct moving *moving = handle;
    (void)ctx;
    content_fetch_cancel(moving->fetch);
    free(moving);
}

/* ---- blobs of the layout that an image came in: nothing waits for them, so they come when the container runs ---- */

struct blobs {
    struct node *node;
    struct id manifest; /* the image's */
    struct id *ids;     /* owned */
    size_t count;
};

static void find_blobs(void *arg)
{
    struct blobs *blobs = arg;
    char name[DIGEST_TEXT_SIZE];
    OWNED(owned_image) struct image *image = NULL;
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    if (image_get(blobs->node->store, digest_text(&blobs->manifest, name), &image, NULL) == 0 &&
        image_origin_get(blobs->node->store, image, &origin, NULL) > 0)
        image_origin_objects(origin, true, &blobs->ids, &blobs->count, NULL);
}

static void on_blob(void *ctx, int status, const struct err *err, const struct exchange_stats *stats)
{
    (void)ctx;
    (void)stats;
    if (status < 0)
        log_info("migrate", "a blob of an image's layout did not come why=\"%s\"", err->text);
}

/* What is here already is done at once. */
static void on_blobs_found(void *arg)
{
    struct blobs *blobs = arg;
    for (size_t i = 0; i < blobs->count && !blobs->node->closed; i++) {
        struct content_fetch *fetch;
        const struct content_wish wish = {
            .digest = blobs->ids[i], .kind = STORE_LAYER, .class = EXCHANGE_PREFETCH, .on_done = on_blob};
        content_fetch(blobs->node->content, &wish, &fetch, NULL);
    }
    free(blobs->ids);
    free(blobs);
}

static void fetch_blobs(struct node *node, const struct id *manifest)
{
    struct blobs *blobs = malloc(sizeof *blobs);
    if (!blobs)
        return;
    *blobs = (struct blobs){.node = node, .manifest = *manifest};
    jobs_submit(&node->jobs, find_blobs, on_blobs_found, blobs);
}

/* ---- records ---- */

static void publish_checkpoint(struct content *content, const struct migrate_object *object,
                               const struct runtime_container *container, struct store_version version)
{
    OWNED(buf_release) struct buf name = BUF(MIGRATE_SERVICE_BYTES);
    migrate_service_name(container, &name);
    content_publish_key(content, DHT_SERVICE, name.data, name.len, &object->digest, object->size_bytes, version);
    content_publish_key(content, DHT_APP, container->spec.image, strlen(container->spec.image), &object->digest,
                        object->size_bytes, version);
}

static void publish(void *ctx, const struct migrate_object *object, const struct runtime_container *container,
                    struct store_version version)
{
    struct node *node = ctx;
    struct guid guid = container->id;
    content_publish(node->content, &object->digest, object->size_bytes);
    if (object->role == MIGRATE_CHECKPOINT)
        publish_checkpoint(node->content, object, container, version);
    if (object->role == MIGRATE_VOLUME)
        guid_parse(object->name, &guid);
    if (object->role == MIGRATE_ORIGIN)
        fetch_blobs(node, &container->spec.manifest);
    if (object->role == MIGRATE_VOLUME || object->role == MIGRATE_WRITABLE)
        content_publish_key(node->content, DHT_VOLUME, guid.b, GUID_BYTES, &object->digest, object->size_bytes,
                            version);
}

static void sign(void *ctx, const void *data, size_t len_bytes, uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES])
{
    struct node *node = ctx;
    identity_sign(node->identity, data, len_bytes, ret_signature);
}

static void after(void *ctx, uint64_t delay_ms, void (*cb)(void *cb_ctx), void *cb_ctx)
{
    struct node *node = ctx;
    timers_after(node->timers, delay_ms, cb, cb_ctx);
}

static const char *node_name(void *ctx, const struct id *node_id, char *text, size_t text_size)
{
    struct node *node = ctx;
    return mesh_describe(node->mesh, node_id, text, text_size);
}

struct migrate_ops moves_ops(struct node *node)
{
    return (struct migrate_ops){.call = call_node,
                                .fetch = fetch_object,
                                .fetch_cancel = fetch_cancel,
                                .publish = publish,
                                .sign = sign,
                                .after = after,
                                .node_name = node_name,
                                .ctx = node};
}
