/*
 * Whether a peer is asked for something, when, and how much of it.
 *
 * Nobody is dealt a share beforehand: there is one set of free chunks, and a peer whose credit allows takes the next
 * run that it holds (pick.c), or is asked to choose one (dealt.c). A fast peer comes back sooner and so carries more.
 *
 *   how much     what the peer delivers in two round trips, so that its pipe is full and finds its width soon, and in
 *                QUEUE_MS more, so that it stays full; no more than that waits in it. Of one of a crowd no more than
 *                twice its share of what is asked of all
 *   for whom     each class gets a share of what a peer is asked for by its weight, as long as it has work for the
 *                peer; what it left to others before counts for nothing. Fetches of one class take turns.
 *   stalled      nothing came for four times what was to be expected (400 to 1500 ms): not asked for more, and until
 *                it has given something that is right, for a little at a time only
 *   lost         nothing came for LOST_MS: its runs are taken away and it rests, longer each time
 *
 * What is late but not lost is in hedge.c.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "transfer/fetch.h"
#include "transfer/gap.h"
#include "transfer/have.h"

#define QUEUE_MS 150u
#define QUEUE_BYTES (4u << 20) /* of fast peers: memory */
#define FIRST_CREDIT_BYTES (1u << 20)
#define FIRST_CROWD_CREDIT_BYTES (256u << 10)
#define CROWD_CREDIT_BYTES (4u << 20) /* at least, of all */
#define CROWD_QUEUE_MS 820u
#define CROWD_WINDOW_BYTES (256u << 10) /* that each of many may be asked for at least */
#define CROWD_SHARES 2u
#define CROWD_LEFT_PARTS 2u /* of what nobody is asked for: near its end all is asked for by all */
#define RTT_MS 30000u
#define RTT_LOOK_MS 100u
#define STALL_MIN_MS 400u
#define STALL_MAX_MS 1500u
#define LOST_MS 5000u
#define REST_MS 5000u /* after the first loss; doubled by each that follows at once */
#define REST_DOUBLINGS 4u
#define BUSY_MIN_MS 50u
#define GONE_MS 10000u

/* A frozen container waits for the first: it goes practically before all. */
static const unsigned WEIGHTS[EXCHANGE_CLASSES] = {
    [EXCHANGE_FREEZE] = 64, [EXCHANGE_VOLUME] = 16, [EXCHANGE_LAYER] = 4, [EXCHANGE_PREFETCH] = 1};

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t within(uint64_t value, uint64_t low, uint64_t high)
{
    return value < low ? low : least(value, high);
}

static uint32_t rtt_ms(const struct exchange_peer *peer)
{
    return peer->out.rtt_ms(peer->out.ctx);
}

/* Without what waits on the way: the least that was seen in the last RTT_MS to 2 x RTT_MS. What is asked for would else
 * wait the longer, the more is asked for. */
static uint32_t base_rtt_ms(struct exchange_peer *peer)
{
    struct asking *asking = &peer->asking;
    uint64_t now = peer->exchange->now_ms;
    if (now < asking->looked_ms + RTT_LOOK_MS && asking->base_ms > 0)
        return asking->base_rtt_ms; /* asked for often, and not for nothing */
    asking->looked_ms = now;
    uint32_t rtt = rtt_ms(peer);
    if (asking->base_ms == 0 || now >= asking->base_ms + RTT_MS) {
        asking->least_rtt_ms[1] = asking->base_ms == 0 ? rtt : asking->least_rtt_ms[0];
        asking->least_rtt_ms[0] = rtt;
        asking->base_ms = now;
    }
    if (rtt < asking->least_rtt_ms[0])
        asking->least_rtt_ms[0] = rtt;
    asking->base_rtt_ms = (uint32_t)least(asking->least_rtt_ms[0], asking->least_rtt_ms[1]);
    return asking->base_rtt_ms;
}

uint64_t transfer_schedule_expect_ms(const struct exchange_peer *peer, uint64_t ahead, uint64_t bytes)
{
    uint64_t rate = peer->asking.goodput.rate;
    return rtt_ms(peer) + (rate ? (ahead + bytes) * 1000 / rate : 0);
}

static uint64_t limit_window(const struct asking *asking, uint64_t bytes)
{
    return within(asking->silences > 0 ? 0 : bytes, LIMIT_CREDIT_FLOOR_BYTES, LIMIT_CREDIT_BYTES);
}

/* Of one that was measured. */
static uint64_t window_of(struct exchange_peer *peer)
{
    const struct asking *asking = &peer->asking;
    uint64_t rate = asking->goodput.rate;
    return limit_window(asking, 2 * rate * base_rtt_ms(peer) / 1000 + least(rate * QUEUE_MS / 1000, QUEUE_BYTES));
}

/* Until something was measured, what it says is in use leaves the less for us. Where others have it as well, a lie
 * should not cost much, either. */
static uint64_t first_window(const struct source *source)
{
    const struct fetch *fetch = source->fetch;
    bool alone = !transfer_pick_is_crowd(fetch) && fetch->n_whole <= 1;
    uint64_t bytes = alone ? FIRST_CREDIT_BYTES : FIRST_CROWD_CREDIT_BYTES;
    return limit_window(&source->peer->asking, bytes * (256u - source->peer->asking.load) / 256);
}

/* In a crowd, holders have little at a time, and many are asked for the same: what is asked of all of them together
 * waits in their queues for CROWD_QUEUE_MS, or all would wait for all. With less, those whose holders have long queues
 * fall behind while others' uplinks have nothing to do; what waits at who is stalled is as good as not asked for. Who
 * deals is kept busy all the same. */
static bool is_sated(const struct fetch *fetch)
{
    const struct exchange *exchange = fetch->exchange;
    if (!transfer_pick_is_crowd(fetch))
        return false;
    uint64_t most =
        least(exchange->goodput.best * CROWD_QUEUE_MS / 1000, transfer_pick_free_bytes(fetch) / CROWD_LEFT_PARTS);
    uint64_t stalled = least(exchange->stalled_bytes, exchange->fetch_bytes);
    return exchange->fetch_bytes - stalled >= within(most, CROWD_CREDIT_BYTES, LIMIT_FETCH_BYTES);
}

/* The rate of one of many is that of its bursts, and between them it serves others. So no member of a crowd is asked
 * for more than CROWD_SHARES times its share of what may be asked of all. */
static uint64_t crowd_window(const struct source *source)
{
    const struct fetch *fetch = source->fetch;
    uint64_t all = fetch->exchange->goodput.best * (base_rtt_ms(source->peer) + CROWD_QUEUE_MS) / 1000;
    uint64_t bytes = CROWD_SHARES * all / (fetch->n_partial + fetch->n_whole);
    return bytes > CROWD_WINDOW_BYTES ? bytes : CROWD_WINDOW_BYTES;
}

/* Bytes that the peer may be asked for now. Half of the window has to be free: many small runs cost more than few. */
static uint64_t credit(const struct source *source)
{
    const struct asking *asking = &source->peer->asking;
    bool deals = transfer_dealt_applies(source);
    if (!deals && is_sated(source->fetch))
        return 0;
    uint64_t window = asking->goodput.rate > 0 ? window_of(source->peer) : first_window(source);
    if (!deals && transfer_pick_is_crowd(source->fetch))
        window = least(window, crowd_window(source));
    if (asking->asked_bytes > window / 2)
        return 0;
    return least(window - asking->asked_bytes, transfer_peer_room(source->peer, PACE_DOWN, source->fetch->class));
}

/* ---- requests ---- */

struct request *transfer_schedule_add(struct source *source, enum store_piece_type type, uint64_t bytes)
{
    struct request *request = calloc(1, sizeof *request);
    if (!request)
        return NULL;
    struct exchange *exchange = source->fetch->exchange;
    struct asking *asking = &source->peer->asking;
    request->number = ++asking->last_request;
    request->source = source;
    request->type = type;
    request->bytes = bytes;
    request->sent_ms = exchange->now_ms;
    if (TAILQ_EMPTY(&asking->requests)) {
        TAILQ_INSERT_TAIL(&exchange->asked, source->peer, asking.of_asked);
        asking->heard_ms = exchange->now_ms;
        asking->answered = asking->late = false;
        transfer_goodput_begin(&asking->goodput, exchange->now_ms);
    }
    TAILQ_INSERT_TAIL(&asking->requests, request, link);
    asking->n_records += type != STORE_PIECE_CHUNK;
    asking->asked_bytes += bytes;
    exchange->fetch_bytes += bytes;
    transfer_peer_take(source->peer, PACE_DOWN, source->fetch->class, bytes);
    return request;
}

void transfer_schedule_resize(struct request *request, uint64_t bytes)
{
    struct exchange_peer *peer = request->source->peer;
    if (bytes > request->bytes)
        transfer_peer_take(peer, PACE_DOWN, request->source->fetch->class, bytes - request->bytes);
    else
        transfer_peer_give_back(peer, PACE_DOWN, request->source->fetch->class, request->bytes - bytes);
    peer->asking.asked_bytes += bytes - request->bytes;
    peer->exchange->fetch_bytes += bytes - request->bytes;
    request->bytes = bytes;
}

static void free_chunks(struct request *request)
{
    struct fetch *fetch = request->source->fetch;
    for (uint32_t chunk = request->first; chunk < request->first + request->count; chunk++) {
        if (transfer_hedge_contains(request, chunk) && fetch->state[chunk] == CHUNK_ASKED &&
            !(have_get(fetch->doubled_bits, chunk) && transfer_hedge_asked_elsewhere(fetch, chunk, request)))
            transfer_pick_set(fetch, chunk, CHUNK_FREE);
    }
}

void transfer_schedule_drop(struct request *request, bool tell_peer)
{
    struct exchange_peer *peer = request->source->peer;
    struct asking *asking = &peer->asking;
    bool unfinished = request->dealing || request->n_came < request->count;
    TAILQ_REMOVE(&asking->requests, request, link);
    asking->n_records -= request->type != STORE_PIECE_CHUNK;
    asking->asked_bytes -= request->bytes;
    peer->exchange->fetch_bytes -= request->bytes;
    transfer_peer_give_back(peer, PACE_DOWN, request->source->fetch->class, request->bytes);
    if (request->dealing)
        request->source->fetch->dealing_bytes -= request->bytes;
    if (unfinished)
        asking->dropped[asking->n_dropped++ % (sizeof asking->dropped / sizeof asking->dropped[0])] = request->number;
    if (unfinished && tell_peer)
        transfer_peer_send(peer, &(struct message){.type = MESSAGE_CANCEL, .request = request->number});
    if (request->type == STORE_PIECE_CHUNK)
        free_chunks(request);
    transfer_gaps_drop(request);
    if (TAILQ_EMPTY(&asking->requests)) {
        TAILQ_REMOVE(&peer->exchange->asked, peer, asking.of_asked);
        transfer_goodput_end(&asking->goodput, peer->exchange->now_ms, rtt_ms(peer));
        asking->stalled = asking->late = false;
    }
    free(request->arrival.data);
    free(request);
}

void transfer_schedule_drop_all(struct exchange_peer *peer, const struct fetch *fetch, bool tell_peer)
{
    for (struct request *request = TAILQ_FIRST(&peer->asking.requests), *next; request; request = next) {
        next = TAILQ_NEXT(request, link);
        if (!fetch || request->source->fetch == fetch)
            transfer_schedule_drop(request, tell_peer);
    }
}

struct request *transfer_schedule_records(struct source *source, enum store_piece_type type, const struct id *ids,
                                          const uint32_t *leaves, uint32_t n)
{
    struct request *request = transfer_schedule_add(source, type, 0);
    if (!request)
        return NULL;
    request->count = n;
    if (leaves)
        memcpy(request->leaves, leaves, n * sizeof *leaves);
    transfer_peer_send(
        source->peer,
        &(struct message){
            .type = MESSAGE_PIECES, .request = request->number, .piece = (uint8_t)type, .items = ids->b, .n_items = n});
    return request;
}

static bool ask_run(struct source *source, const struct pick *pick)
{
    struct fetch *fetch = source->fetch;
    struct request *request = transfer_schedule_add(source, STORE_PIECE_CHUNK, pick->bytes);
    if (!request)
        return false;
    request->first = pick->first;
    request->count = pick->count;
    for (uint32_t chunk = pick->first; chunk < pick->first + pick->count; chunk++)
        transfer_pick_asked(fetch, chunk);
    return transfer_peer_send(source->peer, &(struct message){.type = MESSAGE_RUN,
                                                              .request = request->number,
                                                              .class = fetch->class,
                                                              .object = fetch->object,
                                                              .root = fetch->root,
                                                              .first = pick->first,
                                                              .count = pick->count});
}

/* ---- giving peers something to do ---- */

/* One more request for this fetch. Returns the bytes that it may bring; 0: there is nothing to ask this source for. */
static uint64_t take_run(struct source *source)
{
    uint64_t most = least(credit(source), LIMIT_RUN_BYTES);
    uint64_t deltas;
    if (transfer_gaps_ask(source, most, &deltas))
        return deltas;
    struct pick pick;
    uint64_t dealt;
    if (transfer_dealt_applies(source))
        return transfer_dealt_ask(source, most, &dealt) ? dealt : 0;
    if (transfer_dealt_is_awaited(source) || !transfer_pick_run(source, most, &pick) || !ask_run(source, &pick))
        return 0;
    return pick.bytes;
}

static uint64_t take_late(struct source *source)
{
    return transfer_hedge_take_over(source) ? take_run(source) : 0;
}

/* Of this class, whichever fetch comes next. */
static bool give_class(struct exchange_peer *peer, unsigned class, uint64_t (*take)(struct source *source))
{
    struct asking *asking = &peer->asking;
    struct source *source;
    TAILQ_FOREACH (source, &asking->sources, of_peer) {
        struct fetch *fetch = source->fetch;
        if (fetch->class != class || fetch->phase != FETCH_CHUNKS || source->state < SOURCE_PARTIAL ||
            !transfer_source_usable(source) || credit(source) == 0)
            continue;
        uint64_t bytes = take(source);
        if (bytes == 0)
            continue;
        asking->served[class] += bytes * WEIGHTS[EXCHANGE_FREEZE] / WEIGHTS[class];
        TAILQ_REMOVE(&asking->sources, source, of_peer);
        TAILQ_INSERT_TAIL(&asking->sources, source, of_peer);
        return true;
    }
    return false;
}

/* The class that was served least of those that were not tried; EXCHANGE_CLASSES: all were. */
static unsigned next_class(const struct asking *asking, const bool tried[EXCHANGE_CLASSES])
{
    unsigned best = EXCHANGE_CLASSES;
    for (unsigned i = 0; i < EXCHANGE_CLASSES; i++) {
        if (!tried[i] && (best == EXCHANGE_CLASSES || asking->served[i] < asking->served[best]))
            best = i;
    }
    return best;
}

static bool give_work(struct exchange_peer *peer, uint64_t (*take)(struct source *source))
{
    struct asking *asking = &peer->asking;
    bool tried[EXCHANGE_CLASSES] = {false};
    for (unsigned class; (class = next_class(asking, tried)) < EXCHANGE_CLASSES;) {
        uint64_t before = asking->served[class];
        tried[class] = true;
        if (!give_class(peer, class, take))
            continue;
        for (unsigned idle = 0; idle < EXCHANGE_CLASSES; idle++) {
            if (tried[idle] && asking->served[idle] < before)
                asking->served[idle] = before; /* it had no work: nothing is saved up for later */
        }
        return true;
    }
    return false;
}

/* In a crowd, most peers may not. */
static bool may_be_asked(struct exchange_peer *peer)
{
    const struct asking *asking = &peer->asking;
    return !peer->failing && !asking->stalled && peer->exchange->now_ms >= asking->not_before_ms &&
           !TAILQ_EMPTY(&asking->sources) &&
           (asking->asked_bytes == 0 || asking->goodput.rate == 0 || asking->asked_bytes <= window_of(peer) / 2);
}

static bool has_room(const struct exchange *exchange)
{
    return exchange->fetch_bytes < LIMIT_FETCH_BYTES && exchange->arrived_bytes < LIMIT_ARRIVED_BYTES;
}

/* Is so much on its way that nobody but who deals is to be asked for more? Even if not, more than one fetch may be
 * sated. */
static bool is_enough_asked(struct exchange *exchange)
{
    const struct fetch *fetch;
    bool any = false;
    bool all = true;
    TAILQ_FOREACH (fetch, &exchange->fetches, link) {
        bool sated = fetch->phase == FETCH_CHUNKS && is_sated(fetch);
        any |= sated;
        all &= sated || fetch->phase != FETCH_CHUNKS;
    }
    exchange->look |= any || !has_room(exchange);
    return all || !has_room(exchange);
}

static bool may_deal(const struct exchange_peer *peer)
{
    const struct source *source;
    TAILQ_FOREACH (source, &peer->asking.sources, of_peer) {
        if (source->state == SOURCE_WHOLE && source->fetch->phase == FETCH_CHUNKS && transfer_dealt_applies(source))
            return true;
    }
    return false;
}

static bool give_peer(struct exchange_peer *peer)
{
    bool gave = false;
    while (has_room(peer->exchange) && may_be_asked(peer) && (!is_enough_asked(peer->exchange) || may_deal(peer)) &&
           (give_work(peer, take_run) || give_work(peer, take_late)))
        gave = true;
    peer->exchange->look |= !has_room(peer->exchange); /* it comes when something has been stored */
    return gave;
}

void transfer_schedule_peer(struct exchange_peer *peer)
{
    give_peer(peer);
}

static void give_dealers(struct exchange *exchange)
{
    struct fetch *fetch;
    TAILQ_FOREACH (fetch, &exchange->fetches, link) {
        for (struct source *source = TAILQ_FIRST(&fetch->wholes), *next; source; source = next) {
            next = TAILQ_NEXT(source, of_wholes);
            give_peer(source->peer);
        }
    }
}

/* Who was asked longest ago comes first. Of very many, one is looked at in a millisecond unless there is cause to. */
void transfer_schedule_all(struct exchange *exchange)
{
    struct exchange_peer *last = TAILQ_LAST(&exchange->peers, peer_list);
    struct exchange_peer *peer = TAILQ_FIRST(&exchange->peers);
    exchange->look = false;
    exchange->look_ms = exchange->now_ms;
    for (struct exchange_peer *next; peer && !is_enough_asked(exchange); peer = next) {
        next = peer == last ? NULL : TAILQ_NEXT(peer, link);
        exchange->look_ms++;
        if (!give_peer(peer))
            continue;
        TAILQ_REMOVE(&exchange->peers, peer, link);
        TAILQ_INSERT_TAIL(&exchange->peers, peer, link);
    }
    give_dealers(exchange);
}

/* ---- time and answers ---- */

void transfer_schedule_alive(struct exchange_peer *peer)
{
    struct asking *asking = &peer->asking;
    uint64_t now = peer->exchange->now_ms;
    transfer_latency_add(asking->answered ? &asking->next : &asking->first, now - asking->heard_ms);
    asking->heard_ms = now;
    asking->answered = true;
    asking->stalled = asking->late = false;
    asking->lost_in_a_row = 0;
}

void transfer_schedule_heard(struct exchange_peer *peer, uint64_t bytes)
{
    uint64_t now = peer->exchange->now_ms;
    transfer_schedule_alive(peer);
    transfer_goodput_add(&peer->asking.goodput, bytes, now);
    transfer_goodput_add(&peer->exchange->goodput, bytes, now);
}

static void lose(struct exchange_peer *peer)
{
    struct asking *asking = &peer->asking;
    struct source *source;
    TAILQ_FOREACH (source, &asking->sources, of_peer) {
        source->failures++;
    }
    asking->failures++;
    unsigned doublings = asking->lost_in_a_row < REST_DOUBLINGS ? asking->lost_in_a_row : REST_DOUBLINGS;
    asking->lost_in_a_row++;
    asking->not_before_ms = peer->exchange->now_ms + ((uint64_t)REST_MS << doublings);
    transfer_schedule_drop_all(peer, NULL, true);
}

uint64_t transfer_schedule_tick(struct exchange_peer *peer)
{
    struct asking *asking = &peer->asking;
    uint64_t quiet = peer->exchange->now_ms - asking->heard_ms;
    uint64_t expected = 4 * transfer_schedule_expect_ms(peer, 0, SESSION_FRAME_BYTES);
    if (quiet >= LOST_MS) {
        lose(peer);
        return UINT64_MAX;
    }
    if (!asking->stalled && quiet >= within(expected, STALL_MIN_MS, STALL_MAX_MS)) {
        asking->stalled = true;
        asking->silences++;
    }
    if (asking->stalled)
        peer->exchange->stalled_bytes += asking->asked_bytes;
    uint64_t records_ms = transfer_roots_tick(peer);
    return least(records_ms, transfer_hedge_tick(peer));
}

void transfer_schedule_busy(struct request *request, uint32_t retry_ms)
{
    struct exchange_peer *peer = request->source->peer;
    peer->asking.not_before_ms = peer->exchange->now_ms + within(retry_ms, BUSY_MIN_MS, REST_MS);
    transfer_schedule_drop(request, false);
}

/* Who says more than once that it has not what it named is believed for longer. */
void transfer_schedule_gone(struct request *request)
{
    struct source *source = request->source;
    source->failures++;
    source->peer->asking.failures++;
    unsigned doublings = source->gone_in_a_row < REST_DOUBLINGS ? source->gone_in_a_row : REST_DOUBLINGS;
    source->gone_in_a_row++;
    transfer_schedule_drop(request, false);
    transfer_source_forget(source, GONE_MS << doublings);
    transfer_schedule_all(source->fetch->exchange);
    transfer_fetch_step(source->fetch);
}
