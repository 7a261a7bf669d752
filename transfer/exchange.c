#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "transfer/exchange.h"
#include "transfer/fetch.h"
#include "transfer/gap.h"

/* While something is being fetched, time matters to this grain; what is known to be due earlier comes earlier. */
#define TICK_MS 50
#define TICK_LEAST_MS 5
#define IDLE_TICK_MS 1000

static int take_have(struct exchange_peer *peer, const struct message *message, struct err *err);
static int take_have_not(struct exchange_peer *peer, const struct message *message, struct err *err);
static int take_have_more(struct exchange_peer *peer, const struct message *message, struct err *err);
static int take_cancel(struct exchange_peer *peer, const struct message *message, struct err *err);
static int take_busy(struct exchange_peer *peer, const struct message *message, struct err *err);
static int take_gone(struct exchange_peer *peer, const struct message *message, struct err *err);
static int take_map_is(struct exchange_peer *peer, const struct message *message, struct err *err);
static int take_recipe_need(struct exchange_peer *peer, const struct message *message, struct err *err);

typedef int (*take_fn)(struct exchange_peer *peer, const struct message *message, struct err *err);

static const take_fn TAKERS[] = {
    [MESSAGE_WANT] = transfer_serve_want,
    [MESSAGE_HAVE] = take_have,
    [MESSAGE_HAVE_NOT] = take_have_not,
    [MESSAGE_HAVE_MORE] = take_have_more,
    [MESSAGE_PIECES] = transfer_serve_run,
    [MESSAGE_RUN] = transfer_serve_run,
    [MESSAGE_CHUNK] = transfer_receive_chunk,
    [MESSAGE_MORE] = transfer_receive_more,
    [MESSAGE_CANCEL] = take_cancel,
    [MESSAGE_BUSY] = take_busy,
    [MESSAGE_GONE] = take_gone,
    [MESSAGE_MAP] = transfer_maps_ask,
    [MESSAGE_MAP_IS] = take_map_is,
    [MESSAGE_RECIPE_NEED] = take_recipe_need,
    [MESSAGE_RECIPE_PART] = transfer_maps_part,
    [MESSAGE_DEAL] = transfer_serve_run,
    [MESSAGE_DEALT] = transfer_dealt_take,
    [MESSAGE_GAPS] = transfer_gap_orders_take,
    [MESSAGE_SIGN] = transfer_gaps_sign,
    [MESSAGE_SIGNATURE] = transfer_gap_orders_signature,
    [MESSAGE_DELTA] = transfer_gaps_delta,
    [MESSAGE_LEAVES] = transfer_gap_leaves_take,
    [MESSAGE_PEERS] = transfer_peers_heard,
};

/* ---- entering and leaving: callbacks may remove peers and fetches, which are freed when the last caller leaves ----
 */

static void free_exchange(struct exchange *exchange)
{
    transfer_recipes_release(&exchange->recipes);
    transfer_gap_cache_release(&exchange->signatures);
    transfer_gap_cache_release(&exchange->deltas);
    transfer_deal_release(&exchange->deals);
    transfer_peers_release(exchange);
    map_release(&exchange->fetch_of);
    free(exchange);
}

static void free_peer(struct exchange_peer *peer)
{
    TAILQ_REMOVE(&peer->exchange->peers, peer, link);
    free(peer);
}

static void sweep(struct exchange *exchange)
{
    exchange->swept = true;
    exchange->lingers = false;
    for (struct fetch *fetch = TAILQ_FIRST(&exchange->fetches), *next; fetch; fetch = next) {
        next = TAILQ_NEXT(fetch, link);
        if (fetch->phase != FETCH_ENDED)
            continue;
        exchange->lingers |= fetch->working || fetch->assembly;
        if (!fetch->working)
            transfer_fetch_free(fetch);
    }
    for (struct exchange_peer *peer = TAILQ_FIRST(&exchange->peers), *next; peer; peer = next) {
        next = TAILQ_NEXT(peer, link);
        exchange->lingers |= peer->gone && peer->pins > 0;
        if (peer->gone && peer->pins == 0)
            free_peer(peer);
    }
}

void transfer_exchange_enter(struct exchange *exchange)
{
    exchange->depth++;
}

void transfer_exchange_leave(struct exchange *exchange)
{
    if (--exchange->depth > 0)
        return;
    while (!exchange->swept)
        sweep(exchange);
    if (exchange->dead && exchange->jobs == 0)
        free_exchange(exchange);
}

/* ---- jobs ---- */

static void run_job(void *arg)
{
    struct job *job = arg;
    job->work(job);
}

static void end_job(void *arg)
{
    struct job *job = arg;
    struct exchange *exchange = job->exchange;
    transfer_exchange_enter(exchange);
    exchange->jobs--;
    exchange->swept &= !exchange->lingers;
    job->done(job);
    transfer_exchange_leave(exchange);
}

void transfer_job_submit(struct exchange *exchange, struct job *job, void (*work)(struct job *job),
                         void (*done)(struct job *job))
{
    *job = (struct job){.exchange = exchange, .work = work, .done = done};
    exchange->jobs++;
    jobs_submit(&exchange->config.jobs, run_job, end_job, job);
}

/* ---- lifecycle ---- */

int exchange_new(const struct exchange_config *config, struct exchange **ret_exchange, struct err *err)
{
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (!exchange)
        return err_set(err, ERR_NOMEM, "no memory for an exchange");
    exchange->config = *config;
    exchange->swept = true;
    TAILQ_INIT(&exchange->peers);
    TAILQ_INIT(&exchange->asked);
    TAILQ_INIT(&exchange->fetches);
    transfer_deal_init(&exchange->deals);
    transfer_turns_init(&exchange->serve);
    map_init(&exchange->fetch_of, LIMIT_FETCHES, rng_u64(&config->rng));
    exchange->tell_ms = UINT64_MAX;
    map_init(&exchange->interests, LIMIT_INTERESTS, rng_u64(&config->rng));
    transfer_gap_cache_init(&exchange->signatures, LIMIT_SIGNATURES_BYTES, rng_u64(&config->rng));
    transfer_gap_cache_init(&exchange->deltas, LIMIT_DELTAS_BYTES, rng_u64(&config->rng));
    map_init(&exchange->recipes.map, LIMIT_RECIPES, rng_u64(&config->rng));
    *ret_exchange = exchange;
    return 0;
}

void exchange_free(struct exchange *exchange)
{
    if (!exchange)
        return;
    transfer_exchange_enter(exchange);
    struct exchange_peer *peer;
    TAILQ_FOREACH (peer, &exchange->peers, link) {
        peer->failing = true; /* nothing is sent any more */
    }
    struct fetch *fetch;
    TAILQ_FOREACH (fetch, &exchange->fetches, link) {
        struct exchange_fetch *wish;
        TAILQ_FOREACH (wish, &fetch->wishes, link) {
            wish->cancelled = true;
        }
        transfer_fetch_end(fetch, ERR_CANCELLED, NULL);
    }
    TAILQ_FOREACH (peer, &exchange->peers, link) {
        if (!peer->gone)
            exchange_peer_remove(peer, exchange->now_ms);
    }
    exchange->dead = true;
    exchange->swept = false;
    transfer_exchange_leave(exchange);
}

/* What peers ask of us that is not simply read. Returns whether any of it, or of what is, waits. */
static bool tick_serving(struct exchange *exchange)
{
    struct exchange_peer *peer;
    unsigned waiting = exchange->lessons + exchange->orders;
    for (peer = waiting > 0 ? TAILQ_FIRST(&exchange->peers) : NULL; peer; peer = TAILQ_NEXT(peer, link)) {
        if (peer->gone)
            continue;
        transfer_maps_tick(peer);
        transfer_gap_orders_pump(peer);
    }
    waiting = exchange->lessons + exchange->orders;
    for (unsigned i = 0; i < EXCHANGE_CLASSES; i++)
        waiting += exchange->serve.works[i];
    return waiting > 0;
}

/* What we ask of peers. Returns when something of it is due. */
static uint64_t tick_asking(struct exchange *exchange)
{
    uint64_t due_ms = UINT64_MAX;
    exchange->stalled_bytes = 0;
    for (struct exchange_peer *peer = TAILQ_FIRST(&exchange->asked), *next; peer; peer = next) {
        next = TAILQ_NEXT(peer, asking.of_asked);
        uint64_t peer_ms = transfer_schedule_tick(peer);
        due_ms = peer_ms < due_ms ? peer_ms : due_ms;
    }
    return due_ms;
}

void exchange_tick(struct exchange *exchange, uint64_t now_ms, uint64_t *ret_wake_ms)
{
    transfer_exchange_enter(exchange);
    exchange->now_ms = now_ms;
    bool busy = transfer_peers_tick(exchange);
    busy |= tick_serving(exchange);
    uint64_t due_ms = tick_asking(exchange);
    struct fetch *fetch;
    bool fetching = false;
    TAILQ_FOREACH (fetch, &exchange->fetches, link) {
        if (fetch->phase == FETCH_ENDED)
            continue;
        transfer_fetch_tick(fetch);
        fetching = true;
    }
    bool paced = transfer_pace_is_limited(&exchange->pace, PACE_DOWN);
    if (fetching && (exchange->look || paced || now_ms >= exchange->look_ms))
        transfer_schedule_all(exchange);
    transfer_serve_pump_all(exchange);
    transfer_watch_tell_all(exchange);
    due_ms = exchange->tell_ms < due_ms ? exchange->tell_ms : due_ms;
    due_ms = due_ms < now_ms + TICK_MS ? due_ms : now_ms + TICK_MS;
    if (due_ms < now_ms + TICK_LEAST_MS)
        due_ms = now_ms + TICK_LEAST_MS;
    *ret_wake_ms = fetching ? due_ms : busy ? now_ms + IDLE_TICK_MS : UINT64_MAX;
    if ((fetching && paced) || (busy && transfer_pace_is_limited(&exchange->pace, PACE_UP)))
        *ret_wake_ms = now_ms + PACE_STEP_MS;
    transfer_exchange_leave(exchange);
}

void exchange_set_limits(struct exchange *exchange, const struct exchange_limits *limits, uint64_t now_ms)
{
    transfer_exchange_enter(exchange);
    exchange->now_ms = now_ms;
    transfer_pace_set(&exchange->pace, limits);
    transfer_serve_pump_all(exchange);
    transfer_schedule_all(exchange);
    transfer_exchange_leave(exchange);
}

/* ---- peers ---- */

int exchange_peer_add(struct exchange *exchange, const struct id *node, const struct exchange_link *link,
                      struct exchange_peer **ret_peer, struct err *err)
{
    struct exchange_peer *peer = calloc(1, sizeof *peer);
    if (!peer)
        return err_set(err, ERR_NOMEM, "no memory for a peer");
    peer->exchange = exchange;
    peer->node = *node;
    peer->out = *link;
    TAILQ_INIT(&peer->asking.requests);
    TAILQ_INIT(&peer->asking.sources);
    transfer_serve_init(peer);
    TAILQ_INIT(&peer->serving.orders);
    TAILQ_INSERT_TAIL(&exchange->peers, peer, link);
    *ret_peer = peer;
    return 0;
}

void exchange_peer_remove(struct exchange_peer *peer, uint64_t now_ms)
{
    struct exchange *exchange = peer->exchange;
    transfer_exchange_enter(exchange);
    exchange->now_ms = now_ms;
    peer->gone = peer->failing = true;
    struct request *request;
    TAILQ_FOREACH (request, &peer->asking.requests, link) {
        request->source->broke_off = true;
    }
    transfer_schedule_drop_all(peer, NULL, false);
    transfer_serve_release(peer);
    transfer_gap_orders_release(peer);
    transfer_maps_release(peer);
    transfer_peers_lose(peer);
    while (!TAILQ_EMPTY(&peer->asking.sources))
        transfer_source_lose(TAILQ_FIRST(&peer->asking.sources));
    exchange->swept = false;
    if (!exchange->dead)
        transfer_schedule_all(exchange);
    transfer_exchange_leave(exchange);
}

void transfer_peer_pin(struct exchange_peer *peer)
{
    peer->pins++;
}

void transfer_peer_unpin(struct exchange_peer *peer)
{
    peer->pins--;
}

bool transfer_peer_send(struct exchange_peer *peer, const struct message *message)
{
    if (peer->failing)
        return false;
    uint8_t head[MESSAGE_HEAD_BYTES];
    size_t head_bytes = transfer_message_encode(message, head);
    size_t list_bytes = message->n_items * transfer_message_item_bytes(message->type);
    int status = peer->out.send(peer->out.ctx, (uint8_t)message->type, head, head_bytes, message->items, list_bytes);
    peer->failing = status < 0;
    return status >= 0;
}

int exchange_peer_input(struct exchange_peer *peer, uint64_t now_ms, uint8_t type, const uint8_t *data,
                        size_t len_bytes, struct err *err)
{
    struct exchange *exchange = peer->exchange;
    struct message message;
    int status = transfer_message_decode(type, data, len_bytes, &message, err);
    if (status < 0)
        return status;
    transfer_exchange_enter(exchange);
    exchange->now_ms = now_ms;
    if (!peer->gone) {
        transfer_peers_seen(peer, &message);
        status = TAKERS[message.type] ? TAKERS[message.type](peer, &message, err) : 0;
    }
    transfer_watch_tell_all(exchange);
    transfer_exchange_leave(exchange);
    return status;
}

void exchange_peer_writable(struct exchange_peer *peer, uint64_t now_ms)
{
    struct exchange *exchange = peer->exchange;
    transfer_exchange_enter(exchange);
    exchange->now_ms = now_ms;
    if (transfer_serve_drained(peer))
        transfer_serve_pump_all(exchange);
    transfer_gap_orders_pump(peer);
    struct source *source;
    TAILQ_FOREACH (source, &peer->asking.sources, of_peer) {
        transfer_source_push(source);
    }
    transfer_exchange_leave(exchange);
}

void exchange_peer_cost(const struct exchange_peer *peer, struct exchange_cost *ret_cost)
{
    *ret_cost = (struct exchange_cost){.rtt_ms = peer->out.rtt_ms(peer->out.ctx),
                                       .goodput_bytes_per_s = peer->asking.goodput.rate,
                                       .received_bytes = peer->asking.received_bytes,
                                       .sent_bytes = peer->serving.sent_bytes,
                                       .failures = peer->asking.failures,
                                       .waiting_runs = peer->serving.n_runs,
                                       .load = peer->asking.load,
                                       .price = peer->asking.price};
}

void exchange_set_price(struct exchange *exchange, uint32_t price)
{
    exchange->price = price;
}

/* ---- messages about fetches of ours: what belongs to none (any more) is ignored ---- */

static struct source *source_for(struct exchange_peer *peer, struct fetch *fetch)
{
    return fetch ? transfer_source_of(fetch, peer) : NULL;
}

static int take_have(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    (void)err;
    struct source *source = source_for(peer, transfer_fetch_find(peer->exchange, &message->object));
    if (source)
        transfer_source_have(source, message);
    return 0;
}

static int take_have_not(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    (void)err;
    struct source *source = source_for(peer, transfer_fetch_find(peer->exchange, &message->object));
    if (source)
        transfer_source_have_not(source);
    return 0;
}

static int take_have_more(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct source *source = source_for(peer, transfer_fetch_by_root(peer->exchange, &message->root));
    return source ? transfer_source_more(source, message, err) : 0;
}

static int take_map_is(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct source *source = source_for(peer, transfer_fetch_by_root(peer->exchange, &message->root));
    return source ? transfer_source_map(source, message, err) : 0;
}

static int take_recipe_need(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct source *source = source_for(peer, transfer_fetch_by_root(peer->exchange, &message->root));
    return source ? transfer_source_need(source, message, err) : 0;
}

static int take_cancel(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    (void)err;
    transfer_gap_orders_cancel(peer, message->request);
    transfer_serve_cancel(peer, message->request);
    return 0;
}

static int take_busy(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct request *request = transfer_receive_find(peer, message->request);
    if (!request)
        return transfer_receive_stray(peer, message->request, 0, err);
    transfer_schedule_busy(request, message->retry_ms);
    return 0;
}

static int take_gone(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct request *request = transfer_receive_find(peer, message->request);
    if (!request)
        return transfer_receive_stray(peer, message->request, 0, err);
    transfer_schedule_gone(request);
    return 0;
}
