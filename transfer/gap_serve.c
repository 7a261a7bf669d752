/*
 * Answers GAPS: finds the recipes, asks for signatures where the basis is not here, and makes deltas, some gaps at a
 * time, which then wait for their turn like all that is sent.
 *
 *   STAT --> RECIPES --> SIGN? --> READY --> job --> job ... --> done
 *                          |         ^
 *                          +-- SIGNS-+  when the signatures that were asked for have come
 *
 * Signatures are kept for the peer that sent them and used for no other: nobody but it is hurt by wrong ones.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/limits.h"
#include "node/base/wire.h"
#include "store/compress.h"
#include "transfer/gap.h"
#include "transfer/gap_code.h"
#include "transfer/rsync.h"

#define JOB_BYTES (1u << 20) /* of the object, made deltas of at once: some 20 ms at worst (librsync, no match) */
#define JOB_GAPS 32u
#define SIGNATURE_MS 10000u /* the next one has to have come; whoever waits for the deltas has given up before */

enum stage { STAGE_STAT, STAGE_RECIPES, STAGE_SIGNS, STAGE_READY };

/* A GAPS that waits. */
struct gap_order {
    TAILQ_ENTRY(gap_order)
    link;
    uint32_t request;
    uint8_t class;
    struct id object;
    struct id root;
    struct id basis;
    enum stage stage;
    bool has_basis;
    struct id basis_root; /* if it has */
    struct recipe_ref *recipe;
    struct recipe_ref *basis_recipe; /* NULL: not here */
    uint64_t awaited;                /* signatures, by number of the gap, */
    uint64_t awaited_until_ms;       /* the next of them */
    unsigned n;
    unsigned next;
    struct message_gap gaps[MESSAGE_GAPS_MAX];
};

static void free_order(struct gap_order *order)
{
    transfer_recipe_unref(order->recipe);
    transfer_recipe_unref(order->basis_recipe);
    free(order);
}

static struct gap_order *find_order(struct exchange_peer *peer, uint32_t request)
{
    struct gap_order *order;
    TAILQ_FOREACH (order, &peer->serving.orders, link) {
        if (order->request == request)
            return order;
    }
    return NULL;
}

static void drop_order(struct exchange_peer *peer, struct gap_order *order)
{
    TAILQ_REMOVE(&peer->serving.orders, order, link);
    peer->serving.n_orders--;
    peer->exchange->orders--;
    if (peer->serving.ordered == order)
        peer->serving.ordered = NULL;
    free_order(order);
}

static void refuse(struct exchange_peer *peer, struct gap_order *order)
{
    transfer_peer_send(peer, &(struct message){.type = MESSAGE_GONE, .request = order->request});
    drop_order(peer, order);
}

void transfer_gap_orders_release(struct exchange_peer *peer)
{
    while (!TAILQ_EMPTY(&peer->serving.orders))
        drop_order(peer, TAILQ_FIRST(&peer->serving.orders));
}

void transfer_gap_orders_shed(struct exchange_peer *peer, uint32_t retry_ms)
{
    struct gap_order *order;
    while ((order = TAILQ_FIRST(&peer->serving.orders))) {
        transfer_peer_send(peer,
                           &(struct message){.type = MESSAGE_BUSY, .request = order->request, .retry_ms = retry_ms});
        drop_order(peer, order);
    }
}

void transfer_gap_orders_cancel(struct exchange_peer *peer, uint32_t request)
{
    struct gap_order *order = find_order(peer, request);
    if (order)
        drop_order(peer, order);
}

int transfer_gap_orders_take(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    if (peer->serving.n_orders >= LIMIT_PEER_ORDERS) {
        transfer_peer_send(
            peer, &(struct message){.type = MESSAGE_BUSY, .request = message->request, .retry_ms = GAP_BUSY_RETRY_MS});
        return 0;
    }
    struct gap_order *order = calloc(1, sizeof *order);
    if (!order)
        return err_set(err, ERR_NOMEM, "no memory for a request");
    order->request = message->request;
    order->class = message->class;
    order->object = message->object;
    order->root = message->root;
    order->basis = message->basis;
    order->n = (unsigned)message->n_items;
    for (unsigned i = 0; i < order->n; i++)
        order->gaps[i] = transfer_message_gap(message, i);
    TAILQ_INSERT_TAIL(&peer->serving.orders, order, link);
    peer->serving.n_orders++;
    peer->exchange->orders++;
    transfer_gap_orders_pump(peer);
    return 0;
}

/* ---- keys of what is remembered ---- */

static struct id signature_key(const struct exchange_peer *peer, const struct id *basis, const struct message_gap *gap)
{
    uint8_t place[12];
    struct id names[2] = {peer->node, *basis};
    struct id key;
    wire_store_u64(place, gap->offset);
    wire_store_u32(place + 8, gap->length);
    crypto_blake2b(key.b, ID_BYTES, NULL, 0, names, sizeof names, place, sizeof place);
    return key;
}

/* A delta follows from the chunks, the range, and the signature if it was made from one. */
static struct id delta_key(const struct gap_order *order, const struct message_gap *gap, const uint8_t *signature,
                           size_t len)
{
    uint8_t place[20];
    struct id names[3] = {order->root, order->basis, {{0}}};
    struct id key;
    if (signature)
        crypto_id_of(signature, len, &names[2]);
    wire_store_u32(place, gap->first);
    wire_store_u32(place + 4, gap->count);
    wire_store_u64(place + 8, gap->offset);
    wire_store_u32(place + 16, gap->length);
    crypto_blake2b(key.b, ID_BYTES, NULL, 0, names, sizeof names, place, sizeof place);
    return key;
}

/* ---- jobs ---- */

struct delta {
    struct message_gap gap;
    uint32_t number;
    uint32_t gap_bytes;
    struct id key;
    uint8_t *signature; /* owned */
    size_t signature_bytes;
    uint8_t *frame; /* owned; found, or made */
    size_t frame_bytes;
    uint8_t codec;
    bool found;
};

struct order_job {
    struct job job;
    struct store *store;
    struct exchange_peer *peer; /* pinned */
    enum stage stage;
    struct id object;
    struct id basis;
    struct store_object_info basis_info;
    bool has_basis;
    bool wants_recipe;
    bool wants_basis;
    struct store_recipe *loaded; /* owned */
    struct store_recipe *loaded_basis;
    struct recipe_ref *recipe; /* refs, while deltas are made */
    struct recipe_ref *basis_recipe;
    unsigned n;
    unsigned made;
    struct delta deltas[JOB_GAPS];
};

static uint64_t gap_bytes(const struct store_recipe *recipe, const struct message_gap *gap)
{
    uint32_t last = gap->first + gap->count - 1;
    return recipe->offsets[last] + recipe->chunks[last].length - recipe->offsets[gap->first];
}

/* Room for one gap. */
struct desk {
    struct store_patch *patch; /* owned */
    uint8_t *frame;            /* owned */
    uint8_t data[LIMIT_GAP_BYTES];
    uint8_t range[LIMIT_GAP_BASIS_BYTES];
};

static int make_delta(struct order_job *order, struct delta *delta, struct desk *desk)
{
    const struct store_recipe *recipe = order->recipe->recipe;
    struct gap_against against = {.signature = delta->signature, .signature_bytes = delta->signature_bytes};
    int status =
        transfer_gap_read(order->store, recipe, recipe->offsets[delta->gap.first], delta->gap_bytes, desk->data, NULL);
    if (status == 0 && order->basis_recipe &&
        transfer_gap_read(order->store, order->basis_recipe->recipe, delta->gap.offset, delta->gap.length, desk->range,
                          NULL) == 0)
        against = (struct gap_against){.range = desk->range, .range_bytes = delta->gap.length};
    enum message_codec codec = MESSAGE_CODEC_PLAIN;
    if (status == 0)
        status = transfer_gap_encode(desk->patch, &against, desk->data, delta->gap_bytes, desk->frame,
                                     transfer_gap_bound(LIMIT_GAP_BYTES), &delta->frame_bytes, &codec, NULL);
    delta->codec = (uint8_t)codec;
    if (status == 0)
        delta->frame = malloc(delta->frame_bytes + 1);
    if (status < 0 || !delta->frame)
        return ERR_NOMEM;
    memcpy(delta->frame, desk->frame, delta->frame_bytes);
    return 0;
}

static void make_deltas(struct order_job *order)
{
    OWNED(owned_free) struct desk *desk = calloc(1, sizeof *desk);
    if (!desk)
        return;
    desk->frame = malloc(transfer_gap_bound(LIMIT_GAP_BYTES));
    if (desk->frame && store_patch_new(order->recipe->recipe->root.chunking, &desk->patch, NULL) == 0) {
        for (; order->made < order->n; order->made++) {
            struct delta *delta = &order->deltas[order->made];
            if (!delta->frame && make_delta(order, delta, desk) < 0)
                break;
        }
    }
    store_patch_free(desk->patch);
    free(desk->frame);
}

static void order_work(struct job *job)
{
    struct order_job *order = (struct order_job *)job;
    if (order->stage == STAGE_READY) {
        make_deltas(order);
    } else if (order->stage == STAGE_STAT) {
        order->has_basis = store_object_stat(order->store, &order->basis, &order->basis_info, NULL) == 1;
    } else {
        if (order->wants_recipe && store_recipe_load(order->store, &order->object, &order->loaded, NULL) != 1)
            order->loaded = NULL;
        if (order->wants_basis && store_recipe_load(order->store, &order->basis, &order->loaded_basis, NULL) != 1)
            order->loaded_basis = NULL;
    }
}

static void free_order_job(struct order_job *order)
{
    for (unsigned i = 0; i < order->n; i++) {
        free(order->deltas[i].signature);
        free(order->deltas[i].frame);
    }
    store_recipe_free(order->loaded);
    store_recipe_free(order->loaded_basis);
    transfer_recipe_unref(order->recipe);
    transfer_recipe_unref(order->basis_recipe);
    free(order);
}

/* ---- what a job found ---- */

static bool is_sane(const struct gap_order *order)
{
    const struct store_recipe *recipe = order->recipe->recipe;
    uint32_t n_chunks = recipe->root.chunk_count;
    uint64_t basis_bytes = order->basis_recipe ? order->basis_recipe->recipe->root.size_bytes : LIMIT_OBJECT_BYTES;
    for (unsigned i = 0; i < order->n; i++) {
        const struct message_gap *gap = &order->gaps[i];
        if (gap->count == 0 || gap->count > n_chunks || gap->first > n_chunks - gap->count ||
            gap_bytes(recipe, gap) > LIMIT_GAP_BYTES || gap->length == 0 || gap->length > LIMIT_GAP_BASIS_BYTES ||
            gap->offset > basis_bytes || gap->length > basis_bytes - gap->offset)
            return false;
    }
    return true;
}

/* Ask for the signatures that are not known here; then the order waits for them. */
static void ask_signatures(struct exchange_peer *peer, struct gap_order *order)
{
    OWNED(buf_release) struct buf numbers = BUF(4 * MESSAGE_GAPS_MAX);
    for (unsigned i = 0; i < order->n; i++) {
        struct id key = signature_key(peer, &order->basis, &order->gaps[i]);
        if (transfer_gap_cache_has(&peer->exchange->signatures, &key))
            continue;
        order->awaited |= 1ull << i;
        wire_put_u32(&numbers, i);
    }
    if (order->awaited == 0)
        return;
    order->stage = STAGE_SIGNS;
    order->awaited_until_ms = peer->exchange->now_ms + SIGNATURE_MS;
    transfer_peer_send(
        peer, &(struct message){
                  .type = MESSAGE_SIGN, .request = order->request, .items = numbers.data, .n_items = numbers.len / 4});
}

/* All is known that can be: go on, or refuse. */
static void settle_recipes(struct exchange_peer *peer, struct gap_order *order)
{
    if (!order->recipe || !is_sane(order)) {
        refuse(peer, order);
        return;
    }
    order->stage = STAGE_READY;
    if (!order->basis_recipe)
        ask_signatures(peer, order);
}

static void take_recipes(struct exchange_peer *peer, struct gap_order *order, struct order_job *found)
{
    if (found->loaded && id_equal(&found->loaded->root_id, &order->root))
        order->recipe = transfer_recipes_add(peer->exchange, STEAL(found->loaded));
    if (found->loaded_basis && id_equal(&found->loaded_basis->root_id, &order->basis_root))
        order->basis_recipe = transfer_recipes_add(peer->exchange, STEAL(found->loaded_basis));
    settle_recipes(peer, order);
}

/* Others may ask for the same: nodes that go from one version to the next together. */
static void remember(struct exchange *exchange, const struct delta *delta)
{
    OWNED(buf_release) struct buf entry = BUF(1 + 2 * LIMIT_GAP_BYTES);
    if (delta->found || delta->codec == MESSAGE_CODEC_PLAIN)
        return;
    wire_put_u8(&entry, delta->codec);
    buf_add(&entry, delta->frame, delta->frame_bytes);
    if (!entry.failed)
        transfer_gap_cache_put(&exchange->deltas, &delta->key, entry.data, entry.len);
}

static void take_deltas(struct exchange_peer *peer, struct gap_order *order, struct order_job *made)
{
    for (unsigned i = 0; i < made->made; i++) {
        struct delta *delta = &made->deltas[i];
        remember(peer->exchange, delta);
        struct message head = {.type = MESSAGE_DELTA,
                               .request = order->request,
                               .index = delta->number,
                               .codec = delta->codec,
                               .stored_bytes = (uint32_t)delta->frame_bytes,
                               .raw_bytes = delta->gap_bytes};
        if (transfer_serve_give(peer, order->class, &head, STEAL(delta->frame)) < 0)
            made->made = 0; /* the rest is asked for elsewhere */
    }
    order->next += made->made;
    if (made->made < made->n)
        refuse(peer, order);
    else if (order->next == order->n)
        drop_order(peer, order);
}

static void order_done(struct job *job)
{
    struct order_job *found = (struct order_job *)job;
    struct exchange_peer *peer = found->peer;
    bool useless = peer->gone || job->exchange->dead;
    struct gap_order *order = STEAL(peer->serving.ordered);
    peer->serving.ordering = false;
    if (order && found->stage == STAGE_STAT) {
        order->has_basis = found->has_basis;
        order->basis_root = found->basis_info.root;
        order->stage = STAGE_RECIPES;
    } else if (order && found->stage == STAGE_RECIPES) {
        take_recipes(peer, order, found);
    } else if (order) {
        take_deltas(peer, order, found);
    }
    free_order_job(found);
    if (!useless) {
        transfer_serve_pump_all(peer->exchange);
        transfer_gap_orders_pump(peer);
    }
    transfer_peer_unpin(peer);
}

/* ---- starting jobs ---- */

static uint8_t *copy_cached(struct gap_cache *cache, const struct id *key, size_t skip, size_t *ret_len)
{
    size_t len = 0;
    const uint8_t *data = transfer_gap_cache_get(cache, key, &len);
    uint8_t *copy = data ? malloc(len + 1) : NULL;
    if (!copy)
        return NULL;
    memcpy(copy, data + skip, len - skip);
    *ret_len = len - skip;
    return copy;
}

static void plan_delta(struct order_job *job, const struct gap_order *order, unsigned number)
{
    struct exchange *exchange = job->peer->exchange;
    struct delta *delta = &job->deltas[job->n++];
    delta->gap = order->gaps[number];
    delta->number = number;
    delta->gap_bytes = (uint32_t)gap_bytes(order->recipe->recipe, &delta->gap);
    if (!order->basis_recipe) {
        struct id key = signature_key(job->peer, &order->basis, &delta->gap);
        delta->signature = copy_cached(&exchange->signatures, &key, 0, &delta->signature_bytes);
    }
    size_t len = 0;
    delta->key = delta_key(order, &delta->gap, delta->signature, delta->signature_bytes);
    const uint8_t *codec = transfer_gap_cache_get(&exchange->deltas, &delta->key, &len);
    if (codec)
        delta->codec = *codec;
    delta->frame = copy_cached(&exchange->deltas, &delta->key, 1, &delta->frame_bytes);
    delta->found = delta->frame;
}

static void plan_deltas(struct order_job *job, const struct gap_order *order)
{
    uint64_t bytes = 0;
    for (unsigned i = order->next; i < order->n && job->n < JOB_GAPS; i++) {
        bytes += gap_bytes(order->recipe->recipe, &order->gaps[i]);
        if (job->n > 0 && bytes > JOB_BYTES)
            break;
        plan_delta(job, order, i);
    }
    job->recipe = transfer_recipe_ref(order->recipe);
    job->basis_recipe = transfer_recipe_ref(order->basis_recipe);
}

static bool start(struct exchange_peer *peer, struct gap_order *order)
{
    struct order_job *job = calloc(1, sizeof *job);
    if (!job)
        return false;
    job->store = peer->exchange->config.store;
    job->peer = peer;
    job->stage = order->stage;
    job->object = order->object;
    job->basis = order->basis;
    job->wants_recipe = !order->recipe;
    job->wants_basis = order->has_basis && !order->basis_recipe;
    if (order->stage == STAGE_READY)
        plan_deltas(job, order);
    peer->serving.ordering = true;
    peer->serving.ordered = order;
    transfer_peer_pin(peer);
    transfer_job_submit(peer->exchange, &job->job, order_work, order_done);
    return true;
}

/* The recipes may be in memory already. */
static void find_recipes(struct exchange_peer *peer, struct gap_order *order)
{
    if (!order->recipe)
        order->recipe = transfer_recipes_get(peer->exchange, &order->root);
    if (order->has_basis && !order->basis_recipe)
        order->basis_recipe = transfer_recipes_get(peer->exchange, &order->basis_root);
    if (order->recipe && (order->basis_recipe || !order->has_basis))
        settle_recipes(peer, order);
}

static bool is_due(struct exchange_peer *peer, const struct gap_order *order)
{
    return order->stage < STAGE_SIGNS || (order->stage == STAGE_READY && transfer_serve_wants_more(peer, order->class));
}

/* It holds recipes in memory. */
static bool is_forsaken(const struct exchange_peer *peer, const struct gap_order *order)
{
    return order->stage == STAGE_SIGNS && peer->exchange->now_ms >= order->awaited_until_ms;
}

void transfer_gap_orders_pump(struct exchange_peer *peer)
{
    for (struct gap_order *order = TAILQ_FIRST(&peer->serving.orders), *next; order; order = next) {
        next = TAILQ_NEXT(order, link);
        if (is_forsaken(peer, order)) {
            refuse(peer, order);
            continue;
        }
        if (peer->failing || peer->serving.ordering || peer->exchange->serve_bytes >= LIMIT_SERVE_BYTES)
            continue;
        uint32_t request = order->request;
        if (order->stage == STAGE_RECIPES)
            find_recipes(peer, order);
        order = find_order(peer, request); /* it may have been refused */
        if (order && is_due(peer, order))
            start(peer, order);
    }
}

/* ---- signatures ---- */

int transfer_gap_orders_signature(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct gap_order *order = find_order(peer, message->request);
    if (!order)
        return 0; /* it was cancelled meanwhile */
    if (message->index >= order->n || !(order->awaited >> message->index & 1))
        return err_set(err, ERR_PROTOCOL, "a signature that nobody asked for");
    const struct message_gap *gap = &order->gaps[message->index];
    int status = transfer_rsync_check(message->items, message->n_items, gap->length, err);
    if (status < 0)
        return status == ERR_INVALID ? err_set(err, ERR_PROTOCOL, "a signature that is none") : status;
    struct id key = signature_key(peer, &order->basis, gap);
    transfer_gap_cache_put(&peer->exchange->signatures, &key, message->items, message->n_items);
    order->awaited &= ~(1ull << message->index);
    order->awaited_until_ms = peer->exchange->now_ms + SIGNATURE_MS;
    if (order->awaited == 0) {
        order->stage = STAGE_READY;
        transfer_gap_orders_pump(peer);
    }
    return 0;
}
