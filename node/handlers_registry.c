/* The registry: who provides what, and sets that are written by hand. */
#include "node/handlers.h"

#include <math.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/mesh/providers.h"

#define MEMBERS_SHOWN 16 /* unless more are asked for */

/* ---- why ---- */

static void on_why(void *ctx, json_t *reply)
{
    api_reply_json(ctx, 200, reply);
}

void handlers_why(void *ctx, struct api_request *req)
{
    struct node *node = ctx;
    struct policy policy;
    struct err err;
    const char *text = api_request_query(req, "policy");
    int status = text ? policy_parse(text, &policy, &err) : 0;
    if (status == 0)
        status = content_why(node->content, api_request_param(req, "key"), text ? &policy : NULL, on_why, req, &err);
    if (status < 0)
        api_reply_error(req, &err);
}

/* ---- keys ---- */

static const char *kind_name(enum dht_kind kind)
{
    static const char *const names[DHT_KIND_COUNT] = {
        [DHT_OBJECT] = "object", [DHT_VOLUME] = "volume", [DHT_SERVICE] = "service", [DHT_APP] = "app",
        [DHT_IMAGE] = "image",   [DHT_ROUTE] = "route",   [DHT_SET] = "set"};
    return names[kind] ? names[kind] : "";
}

/* "cmig:..." is what nodes provide, any other name a set by hand: as the gateway has it. */
static int parse_key(const struct api_request *req, struct provider_key *ret_key, struct err *err)
{
    const char *text = api_request_param(req, "key");
    size_t len = strlen(text);
    if (providers_is_key(text))
        return providers_parse(text, ret_key, err);
    if (len > LIMIT_SET_NAME_BYTES)
        return err_set(err, ERR_INVALID, "the name of a set has at most %d bytes", LIMIT_SET_NAME_BYTES);
    *ret_key = (struct provider_key){.kind = DHT_SET, .key = dht_key(DHT_SET, text, len)};
    return 0;
}

/* ---- members as JSON ---- */

/* JSON knows no infinities: "inf" and "-inf". */
static json_t *score_json(double score)
{
    return isinf(score) ? json_string(score > 0 ? "inf" : "-inf") : json_real(score);
}

/* The name of a member by hand as text, or as hex digits if it is none; of a provider its id. */
static json_t *member_json(const struct dht_record *record)
{
    char hex[2 * DHT_DATA_MAX_BYTES + 1];
    if (!dht_is_by_hand(record->kind))
        return json_string(id_hex(&record->member, hex));
    json_t *text = json_stringn((const char *)record->data, record->data_len);
    if (text)
        return text;
    hex_encode(record->data, record->data_len, hex);
    return json_sprintf("hex:%s", hex);
}

/* What a provider's record names: the digest of what it has of it. */
static json_t *digest_json(const struct dht_record *record)
{
    char text[DIGEST_TEXT_SIZE];
    struct id digest;
    if (dht_is_by_hand(record->kind) || record->data_len != ID_BYTES)
        return json_null();
    memcpy(digest.b, record->data, ID_BYTES);
    return json_string(digest_text(&digest, text));
}

static json_t *record_json(const struct node *node, const struct dht_record *record)
{
    char hex[ID_HEX_SIZE];
    struct id writer;
    crypto_id_of(record->public_key, sizeof record->public_key, &writer);
    return json_pack("{s:o, s:o, s:I, s:I, s:s, s:s, s:I, s:o}", "member", member_json(record), "score",
                     score_json(record->score), "epoch", (json_int_t)record->version.epoch, "counter",
                     (json_int_t)record->version.counter, "node", id_hex(&writer, hex), "name",
                     mesh_name_of(node->mesh, &writer), "size_bytes", (json_int_t)record->size, "digest",
                     digest_json(record));
}

/* ---- reading ---- */

struct reading {
    struct node *node;
    struct api_request *req;
    enum dht_kind kind;
};

static void on_read(void *ctx, const struct dht_found *found, size_t count)
{
    OWNED(owned_free) struct reading *reading = ctx;
    char address[ADDR_TEXT_SIZE];
    json_t *members = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *member = record_json(reading->node, &found[i].record);
        bool located = found[i].contact.addr.family;
        json_object_set_new(member, "address",
                            located ? json_string(addr_text(&found[i].contact.addr, address)) : json_null());
        json_array_append_new(members, member);
    }
    api_reply_json(reading->req, 200,
                   json_pack("{s:s, s:s, s:o}", "key", api_request_param(reading->req, "key"), "kind",
                             kind_name(reading->kind), "members", members));
}

static int parse_order(const struct api_request *req, enum dht_order *ret_order, struct err *err)
{
    static const char *const names[DHT_ORDER_COUNT] = {[DHT_BY_SCORE] = "score",
                                                       [DHT_BY_SCORE_LOW] = "low",
                                                       [DHT_BY_VERSION] = "version",
                                                       [DHT_BY_DISTANCE] = "nearest",
                                                       [DHT_BY_MEMBER] = "member"};
    const char *text = api_request_query(req, "order");
    for (size_t i = 0; i < DHT_ORDER_COUNT; i++)
        if (strcmp(text ? text : "score", names[i]) == 0) {
            *ret_order = (enum dht_order)i;
            return 0;
        }
    return err_set(err, ERR_INVALID, "the order '%.32s' is none of score, low, version, nearest, member", text);
}

void handlers_registry_get(void *ctx, struct api_request *req)
{
    struct node *node = ctx;
    struct provider_key key;
    struct dht_get_options options = {0};
    uint64_t limit;
    struct err err;
    int status = parse_key(req, &key, &err);
    if (status == 0)
        status = parse_order(req, &options.order, &err);
    if (status == 0)
        status = api_request_query_u64(req, "limit", MEMBERS_SHOWN, LIMIT_DHT_GET_RECORDS, &limit, &err);
    if (status == 0 && limit == 0)
        status = err_set(&err, ERR_INVALID, "the query's 'limit' is at least 1");
    struct reading *reading = status == 0 ? malloc(sizeof *reading) : NULL;
    if (status == 0 && !reading)
        status = err_set(&err, ERR_NOMEM, "no memory for a reading");
    if (status == 0) {
        *reading = (struct reading){.node = node, .req = req, .kind = key.kind};
        options.limit = (size_t)limit;
        options.want_lease = !dht_is_by_hand(key.kind);
        status = dht_get(mesh_dht(node->mesh), clock_mono_ms(&node->clock), &key.key, &options, on_read, reading, NULL,
                         &err);
        mesh_dht_changed(node->mesh);
    }
    if (status < 0) {
        free(reading);
        api_reply_error(req, &err);
    }
}

/* ---- writing ---- */

static void on_written(void *ctx, int status, const struct err *err, size_t holders)
{
    struct api_request *req = ctx;
    const json_t *body = api_request_body(req);
    const char *member = body ? api_json_text(body, "member") : api_request_query(req, "member");
    if (status < 0)
        api_reply_error(req, err);
    else
        api_reply_json(req, 200,
                       json_pack("{s:s, s:s, s:I}", "key", api_request_param(req, "key"), "member", member, "holders",
                                 (json_int_t)holders));
}

static void write_member(struct node *node, struct api_request *req, const char *member, const double *score)
{
    struct hand_wish wish = {
        .set = api_request_param(req, "key"), .member = member, .removes = !score, .score = score ? *score : 0};
    struct err err;
    int status = 0;
    if (providers_is_key(wish.set))
        status = err_set(&err, ERR_INVALID, "what nodes provide is published by themselves: '%.80s' cannot be written",
                         wish.set);
    if (status == 0)
        status = gateway_write(node->gateway, &wish, on_written, req, &err);
    if (status < 0)
        api_reply_error(req, &err);
}

static int parse_score(const json_t *body, double *ret_score, struct err *err)
{
    const json_t *score = json_object_get(body, "score");
    const char *text = json_is_string(score) ? json_string_value(score) : "";
    bool is_infinite = strcmp(text, "inf") == 0 || strcmp(text, "-inf") == 0;
    if (!json_is_number(score) && !is_infinite)
        return err_set(err, ERR_INVALID, "the field 'score' is no number, and neither \"inf\" nor \"-inf\"");
    *ret_score = !is_infinite ? json_number_value(score) : *text == '-' ? -INFINITY : INFINITY;
    return 0;
}

void handlers_registry_set(void *node, struct api_request *req)
{
    const json_t *body = api_request_body(req);
    const char *member;
    double score;
    struct err err;
    if (api_json_only(body, "member score", &err) < 0 || api_json_get_str(body, "member", "", &member, &err) < 0 ||
        parse_score(body, &score, &err) < 0)
        api_reply_error(req, &err);
    else
        write_member(node, req, member, &score);
}

void handlers_registry_remove(void *node, struct api_request *req)
{
    const char *member = api_request_query(req, "member");
    write_member(node, req, member ? member : "", NULL);
}

/* ---- watching ---- */

struct watching {
    struct node *node;
    struct api_request *req;
    uint64_t watch;
};

static void end_watching(struct watching *watching)
{
    dht_unwatch(mesh_dht(watching->node->mesh), clock_mono_ms(&watching->node->clock), watching->watch);
    mesh_dht_changed(watching->node->mesh);
    free(watching);
}

static void on_changed(void *ctx, const struct id *key, const struct dht_record *record)
{
    struct watching *watching = ctx;
    json_t *event = record_json(watching->node, record);
    (void)key;
    if (record->meta)
        event = (json_decref(event), json_object());
    else
        json_object_set_new(event, "removed", json_boolean(record->tombstone));
    json_object_set_new(event, "event", json_string(record->meta ? API_EVENT_CLEARED : API_EVENT_CHANGE));
    int status = api_stream_event(watching->req, event);
    if (status != ERR_LIMIT)
        return;
    struct err err;
    err_set(&err, ERR_LIMIT, "the changes came faster than they were read");
    struct api_request *req = watching->req;
    end_watching(watching);
    api_stream_error(req, &err);
}

static void on_watch_closed(void *ctx, struct api_request *req)
{
    end_watching(ctx);
    api_stream_end(req);
}

void handlers_registry_watch(void *ctx, struct api_request *req)
{
    static const struct api_request_ops ops = {.on_closed = on_watch_closed};
    struct node *node = ctx;
    struct provider_key key;
    struct err err;
    struct watching *watching = NULL;
    int status = parse_key(req, &key, &err);
    if (status == 0) {
        watching = malloc(sizeof *watching);
        status = watching ? 0 : err_set(&err, ERR_NOMEM, "no memory for a watch");
    }
    if (status == 0) {
        *watching = (struct watching){.node = node, .req = req};
        status = dht_watch(mesh_dht(node->mesh), clock_mono_ms(&node->clock), &key.key, on_changed, watching,
                           &watching->watch, &err);
        mesh_dht_changed(node->mesh);
    }
    if (status < 0) {
        free(watching);
        api_reply_error(req, &err);
        return;
    }
    api_request_watch(req, &ops, watching);
    api_stream_begin(req, API_TYPE_EVENTS);
}
