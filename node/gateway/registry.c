#include "node/gateway/registry.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/base/wire.h"
#include "node/gateway/view.h"

#define READ_TIMEOUT_MS 5000
#define VIEW_GOOD_MS 1000
#define MESSAGE_TTL_MS 60000
#define MARK_BYTES 16 /* in front of a message: 8 of this process, 8 that count */
#define MARKS 128     /* of messages that came last, because a watch may tell the same twice */
#define META_BYTES 16

_Static_assert(MARK_BYTES + LIMIT_RESP_MESSAGE_BYTES <= DHT_DATA_MAX_BYTES, "a message is the data of a record");
_Static_assert(LIMIT_SET_MEMBER_BYTES <= DHT_DATA_MAX_BYTES, "so is a member");

struct registry {
    struct registry_config config;
    uint64_t own_mark;
    uint64_t messages;
};

/* A set that is being read or kept live. */
struct open_set {
    struct registry *registry;
    struct sets *sets;
    struct set *set;
    bool is_view;
    struct view view;
    uint64_t watch;   /* of sets */
    uint64_t request; /* 0: the reading is over */
};

struct listening {
    struct registry *registry;
    struct channels *channels;
    struct channel *channel;
    uint64_t watch;
    uint8_t marks[MARKS][MARK_BYTES];
    size_t mark_count; /* ever */
};

int registry_new(const struct registry_config *config, struct registry **ret_registry, struct err *err)
{
    struct registry *registry = calloc(1, sizeof *registry);
    if (!registry)
        return err_set(err, ERR_NOMEM, "no memory for the registry");
    registry->config = *config;
    registry->own_mark = rng_u64(&config->rng);
    *ret_registry = registry;
    return 0;
}

void registry_free(struct registry *registry)
{
    free(registry);
}

static uint64_t now_of(const struct registry *registry)
{
    return clock_mono_ms(&registry->config.clock);
}

static void changed(const struct registry *registry)
{
    registry->config.changed(registry->config.ctx);
}

/* ---- reading ---- */

static void take_record(const struct open_set *open, const struct dht_record *record)
{
    struct set_change change = {.name = record->data,
                                .name_len = record->data_len,
                                .score = record->score,
                                .version = record->version,
                                .tombstone = record->tombstone,
                                .meta = record->meta};
    if (record->kind != DHT_SET || (record->meta && record->data_len != META_BYTES))
        return;
    if (record->meta) {
        change.cleared_ms = wire_load_u64(record->data);
        change.expires_ms = wire_load_u64(record->data + 8);
    }
    sets_took(open->sets, open->set, &change);
}

static void on_record(void *ctx, const struct dht_record *record)
{
    take_record(ctx, record);
}

static void on_changed(void *ctx, const struct id *key, const struct dht_record *record)
{
    (void)key;
    take_record(ctx, record);
}

static void on_collected(void *ctx, int status, size_t count)
{
    struct open_set *open = ctx;
    (void)count;
    open->request = 0;
    sets_opened(open->sets, open->set, status, 0);
}

static void on_view(void *ctx, const struct dht_found *found, size_t count)
{
    struct open_set *open = ctx;
    open->request = 0;
    for (size_t i = 0; i < count; i++) {
        const struct dht_record *record = &found[i].record;
        char hex[ID_HEX_SIZE];
        struct set_change change = {.name = id_hex(&record->member, hex),
                                    .name_len = ID_HEX_SIZE - 1,
                                    .score = open->view.by_version ? (double)record->version.counter : record->score,
                                    .version = {record->version.epoch + 1, record->version.counter}};
        sets_took(open->sets, open->set, &change);
    }
    sets_opened(open->sets, open->set, 0, VIEW_GOOD_MS);
}

static int read_view(struct open_set *open, struct err *err)
{
    struct dht_get_options options = {.limit = LIMIT_DHT_GET_RECORDS, .want_lease = true};
    return dht_get(open->registry->config.dht, now_of(open->registry), &open->view.key, &options, on_view, open,
                   &open->request, err);
}

/* The watch begins first, so that nothing is missed between the two. */
static int read_set(struct open_set *open, struct err *err)
{
    struct dht *dht = open->registry->config.dht;
    uint64_t now = now_of(open->registry);
    int status = dht_watch(dht, now, &open->set->id, on_changed, open, &open->watch, err);
    if (status < 0)
        return status;
    status = dht_collect(dht, now, &open->set->id, READ_TIMEOUT_MS, on_record, on_collected, open, &open->request, err);
    if (status < 0)
        dht_unwatch(dht, now, open->watch);
    return status;
}

static int open_set(void *ctx, struct sets *sets, struct set *set, void **ret_handle, struct err *err)
{
    struct registry *registry = ctx;
    OWNED(owned_free) struct open_set *open = calloc(1, sizeof *open);
    if (!open)
        return err_set(err, ERR_NOMEM, "no memory for a set");
    open->registry = registry;
    open->sets = sets;
    open->set = set;
    open->is_view = view_is_meant(set->name.bytes, set->name.len);
    if (open->is_view && !view_parse(set->name.bytes, set->name.len, &open->view))
        return err_set(err, ERR_INVALID, "there is no such view");
    int status = open->is_view ? read_view(open, err) : read_set(open, err);
    changed(registry);
    if (status < 0)
        return status;
    *ret_handle = STEAL(open);
    return 0;
}

static void close_set(void *ctx, void *handle)
{
    struct registry *registry = ctx;
    OWNED(owned_free) struct open_set *open = handle;
    if (open->request != 0)
        dht_cancel(registry->config.dht, open->request);
    if (!open->is_view)
        dht_unwatch(registry->config.dht, now_of(registry), open->watch);
    changed(registry);
}

/* ---- writing ---- */

static struct dht_version stamp(void *ctx)
{
    const struct registry *registry = ctx;
    return dht_stamp(registry->config.dht, now_of(registry));
}

/* What hides others is kept for as long as anything that it hides could be. */
static uint64_t ttl_of(const struct registry *registry, const struct set_change *change)
{
    bool ends = change->meta ? change->expires_ms <= clock_wall_ms(&registry->config.clock) : change->tombstone;
    return ends ? DHT_EXPIRY_MAX_MS : 0;
}

int registry_say(struct registry *registry, const struct set *set, const struct set_change *change, dht_done_cb done,
                 void *ctx, struct err *err)
{
    uint8_t state[META_BYTES];
    struct dht_member member = {.name = change->name,
                                .name_len = change->name_len,
                                .meta = change->meta,
                                .tombstone = change->tombstone,
                                .score = change->score,
                                .version = change->version,
                                .ttl_ms = ttl_of(registry, change),
                                .done = done,
                                .done_ctx = ctx};
    if (change->meta) {
        wire_store_u64(state, change->cleared_ms);
        wire_store_u64(state + 8, change->expires_ms);
        member.name = state;
        member.name_len = sizeof state;
    }
    int status = dht_write(registry->config.dht, now_of(registry), &set->id, DHT_SET, &member, err);
    changed(registry);
    return status;
}

static int write_change(void *ctx, const struct set *set, const struct set_change *change, struct err *err)
{
    return registry_say(ctx, set, change, NULL, NULL, err);
}

struct sets_mesh registry_sets(struct registry *registry)
{
    return (struct sets_mesh){stamp, open_set, close_set, write_change, registry};
}

/* ---- channels ---- */

static bool is_known_mark(const struct listening *listening, const uint8_t *mark)
{
    if (wire_load_u64(mark) == listening->registry->own_mark)
        return true;
    size_t count = listening->mark_count < MARKS ? listening->mark_count : MARKS;
    for (size_t i = 0; i < count; i++)
        if (memcmp(listening->marks[i], mark, MARK_BYTES) == 0)
            return true;
    return false;
}

static void on_message(void *ctx, const struct id *key, const struct dht_record *record)
{
    struct listening *listening = ctx;
    (void)key;
    if (record->kind != DHT_CHANNEL || record->meta || record->tombstone || record->data_len < MARK_BYTES ||
        is_known_mark(listening, record->data))
        return;
    memcpy(listening->marks[listening->mark_count++ % MARKS], record->data, MARK_BYTES);
    channels_deliver(listening->channels, listening->channel, record->data + MARK_BYTES, record->data_len - MARK_BYTES);
}

static int listen_to(void *ctx, struct channels *channels, struct channel *channel, const void *name, size_t name_len,
                     void **ret_handle, struct err *err)
{
    struct registry *registry = ctx;
    OWNED(owned_free) struct listening *listening = calloc(1, sizeof *listening);
    if (!listening)
        return err_set(err, ERR_NOMEM, "no memory for a channel");
    listening->registry = registry;
    listening->channels = channels;
    listening->channel = channel;
    struct id key = dht_key(DHT_CHANNEL, name, name_len);
    int status = dht_watch(registry->config.dht, now_of(registry), &key, on_message, listening, &listening->watch, err);
    changed(registry);
    if (status < 0)
        return status;
    *ret_handle = STEAL(listening);
    return 0;
}

static void ignore(void *ctx, void *handle)
{
    struct registry *registry = ctx;
    OWNED(owned_free) struct listening *listening = handle;
    dht_unwatch(registry->config.dht, now_of(registry), listening->watch);
    changed(registry);
}

static int publish(void *ctx, const void *name, size_t name_len, const void *message, size_t len_bytes, struct err *err)
{
    struct registry *registry = ctx;
    uint8_t data[DHT_DATA_MAX_BYTES];
    uint64_t now = now_of(registry);
    if (len_bytes > LIMIT_RESP_MESSAGE_BYTES)
        return err_set(err, ERR_LIMIT, "a message has at most %d bytes", LIMIT_RESP_MESSAGE_BYTES);
    wire_store_u64(data, registry->own_mark);
    wire_store_u64(data + 8, ++registry->messages);
    memcpy(data + MARK_BYTES, message, len_bytes);
    struct id key = dht_key(DHT_CHANNEL, name, name_len);
    struct dht_member member = {.name = data,
                                .name_len = MARK_BYTES + len_bytes,
                                .version = dht_stamp(registry->config.dht, now),
                                .ttl_ms = MESSAGE_TTL_MS};
    int status = dht_write(registry->config.dht, now, &key, DHT_CHANNEL, &member, err);
    changed(registry);
    return status;
}

struct channels_mesh registry_channels(struct registry *registry)
{
    return (struct channels_mesh){listen_to, ignore, publish, registry};
}
