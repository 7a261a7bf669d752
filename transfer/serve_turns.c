/*
 * Whose turn it is: slots are given and taken.
 *
 *     has work: queues --(had least, urgent first)--> in a slot --(TURN_BYTES, and others queue)--> takes the rest -->
 * queues |                                               |
 *        +--(WAIT_MS: refused, BUSY)                     +--(takes nothing for STALL_MS, others queue)--> refused: BUSY
 *
 * Where the link is what holds bytes back, they wait in sessions and sockets, in which all are equal. So only so many
 * peers are sent to at one time; more of them while that makes the whole faster. What is urgent gets a slot at once,
 * and while a stopped container waits the others have few.
 */
#include "node/base/limits.h"
#include "transfer/serve.h"

#define TURN_BYTES LIMIT_RUN_BYTES
#define LOOK_MS 10u   /* without news, slots are not given more often */
#define WAIT_MS 3000u /* a request that has not had its turn by then is better asked of another */
#define RETRY_MS 500u
#define RETRY_MAX_MS 5000u
#define PAUSE_MS 250u           /* who takes nothing for so long does not count as being sent to */
#define STALL_MS 5000u          /* and for so long, gives up its turn */
#define TAKEN_BYTES (32u << 10) /* what still waits in a session when a turn ends */

#define SLOTS_FIRST 8u
#define SLOTS_BEHIND_FREEZE 2u
#define PROBE_MS 1000u
#define PROBE_MAX_MS 16000u
#define PROBE_BYTES (1u << 20)
#define PROBE_REST 16u /* windows after a probe that did not pay */

/* Weights of the classes are 64, 16, 4 and 1. */
static uint64_t weighed(uint8_t class, uint64_t bytes)
{
    return bytes << (2 * class);
}

static bool is_urgent(uint8_t class)
{
    return class <= EXCHANGE_VOLUME;
}

static bool lane_has_work(const struct lane *lane)
{
    return lane->n_batches > 0 || !TAILQ_EMPTY(&lane->runs);
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The most urgent class of its lanes that have work; EXCHANGE_CLASSES: none has. */
static uint8_t class_of(struct exchange_peer *peer)
{
    uint8_t class = transfer_serve_has_work(peer) ? 0 : EXCHANGE_CLASSES;
    while (class < EXCHANGE_CLASSES && !lane_has_work(transfer_serve_lane(peer, class)))
        class = (uint8_t)(class + 1);
    return class;
}

/* ---- in the order of having had least ---- */

void transfer_turns_init(struct serve *serve)
{
    TAILQ_INIT(&serve->slotted);
    TAILQ_INIT(&serve->queue);
    serve->slots = serve->slots_before = SLOTS_FIRST;
}

void transfer_turns_wake(struct exchange_peer *peer, uint8_t class)
{
    struct serve *serve = &peer->exchange->serve;
    struct lane *lane = transfer_serve_lane(peer, class);
    if (!lane_has_work(lane)) {
        lane->pass = later(lane->pass, serve->lane_pass[class]);
        if (serve->works[class] == 0)
            serve->class_pass[class] = later(serve->class_pass[class], serve->pass);
    }
    serve->look = true;
    if (peer->serving.in_slot || peer->serving.in_queue)
        return;
    peer->serving.in_queue = true;
    peer->serving.moved_ms = peer->exchange->now_ms;
    TAILQ_INSERT_TAIL(&serve->queue, peer, of_serve);
}

void transfer_turns_count(struct exchange_peer *peer, uint8_t class, uint64_t bytes)
{
    struct serve *serve = &peer->exchange->serve;
    struct lane *lane = transfer_serve_lane(peer, class);
    serve->lane_pass[class] = lane->pass;
    serve->pass = serve->class_pass[class];
    lane->pass += bytes;
    serve->class_pass[class] += weighed(class, bytes);
}

/* ---- ends of turns ---- */

static void leave_queue(struct exchange_peer *peer)
{
    TAILQ_REMOVE(&peer->exchange->serve.queue, peer, of_serve);
    peer->serving.in_queue = false;
}

static void leave_slot(struct exchange_peer *peer)
{
    struct serve *serve = &peer->exchange->serve;
    TAILQ_REMOVE(&serve->slotted, peer, of_serve);
    peer->serving.in_slot = false;
    peer->serving.turn_bytes = 0;
    serve->look = true;
}

void transfer_turns_leave(struct exchange_peer *peer)
{
    if (peer->serving.in_slot)
        leave_slot(peer);
    if (peer->serving.in_queue)
        leave_queue(peer);
}

/* How many slots there are for what is not urgent. */
static unsigned slots_now(const struct serve *serve)
{
    return serve->freezing ? SLOTS_BEHIND_FREEZE : serve->slots;
}

bool transfer_turns_is_over(const struct exchange_peer *peer)
{
    const struct serve *serve = &peer->exchange->serve;
    return peer->serving.turn_bytes >= TURN_BYTES &&
           (serve->waiting > 0 || serve->in_use - serve->urgent > slots_now(serve));
}

static bool is_reading(const struct exchange_peer *peer)
{
    bool reading = false;
    for (unsigned i = 0; i < EXCHANGE_CLASSES; i++)
        reading |= peer->serving.lanes[i].reading;
    return reading;
}

/* Has it taken nothing for so long, and for twice the time that the link takes for what waits in all sessions? */
static bool rests_since(const struct exchange_peer *peer, uint64_t ms)
{
    const struct serve *serve = &peer->exchange->serve;
    uint64_t queued = peer->serving.queued_bytes;
    if (serve->rate > LIMIT_SESSION_DRAIN_BYTES)
        ms = later(ms, 2 * queued * (serve->in_use + 1) * 1000 / serve->rate);
    return queued > 0 && peer->exchange->now_ms - peer->serving.moved_ms > ms;
}

/* It holds what others could have: memory, or a turn. */
static bool is_stalled(const struct exchange_peer *peer)
{
    const struct exchange *exchange = peer->exchange;
    if (exchange->serve_bytes > LIMIT_SERVE_BYTES / 2)
        return rests_since(peer, PAUSE_MS);
    return exchange->serve.waiting > 0 && rests_since(peer, STALL_MS);
}

/* It has nothing to do, or its turn is over; and it has taken what it was given. */
static bool is_done(const struct exchange_peer *peer)
{
    if (peer->failing)
        return true;
    bool over = peer->serving.n_batches == 0 && transfer_turns_is_over(peer);
    return (over || !transfer_serve_has_work(peer)) && peer->serving.queued_bytes <= TAKEN_BYTES && !is_reading(peer);
}

bool transfer_serve_drained(struct exchange_peer *peer)
{
    if (!peer->serving.in_slot && !peer->serving.in_queue)
        return false;
    bool was_open = transfer_serve_is_window_open(peer);
    transfer_serve_measure(peer);
    bool done = peer->serving.in_slot && is_done(peer);
    bool may_begin = peer->serving.in_queue && !was_open && transfer_serve_is_window_open(peer);
    peer->exchange->serve.look |= done || may_begin;
    return done || (transfer_serve_is_window_open(peer) && (peer->serving.in_queue || peer->serving.n_batches > 0));
}

static void end_turns(struct serve *serve)
{
    for (struct exchange_peer *peer = TAILQ_FIRST(&serve->slotted), *next; peer; peer = next) {
        next = TAILQ_NEXT(peer, of_serve);
        if (is_stalled(peer))
            transfer_serve_shed(peer, RETRY_MAX_MS);
        if (!is_done(peer))
            continue;
        leave_slot(peer);
        if (transfer_serve_has_work(peer) && !peer->failing) {
            peer->serving.in_queue = true;
            TAILQ_INSERT_TAIL(&serve->queue, peer, of_serve);
        }
    }
}

/* ---- beginnings ---- */

/* Who has waited in vain asks others meanwhile, and comes back; what it has had so far is remembered. */
static void refuse_late(struct exchange_peer *peer)
{
    const struct serve *serve = &peer->exchange->serve;
    uint64_t retry = RETRY_MS;
    if (serve->rate > 0)
        retry = later(retry, serve->waiting * (uint64_t)TURN_BYTES * 1000 / serve->rate / 4);
    retry = retry < RETRY_MAX_MS ? retry : RETRY_MAX_MS;
    for (unsigned i = 0; i < EXCHANGE_CLASSES && peer->serving.n_runs > 0; i++) {
        struct run *run;
        while ((run = TAILQ_FIRST(&peer->serving.lanes[i].runs)) && peer->exchange->now_ms - run->queued_ms > WAIT_MS)
            transfer_serve_refuse(peer, run, MESSAGE_BUSY, (uint32_t)retry);
    }
}

static void count_slots(struct serve *serve)
{
    struct exchange_peer *peer;
    serve->in_use = serve->urgent = 0;
    serve->freezing = false;
    TAILQ_FOREACH (peer, &serve->slotted, of_serve) {
        if (rests_since(peer, PAUSE_MS))
            continue;
        uint8_t class = class_of(peer);
        serve->in_use++;
        serve->urgent += is_urgent(class);
        serve->freezing |= class == EXCHANGE_FREEZE;
    }
}

/* Of those who wait, and have taken what they were sent before: urgent ones first, then who has had least. */
static struct exchange_peer *best_waiting(struct serve *serve)
{
    struct exchange_peer *peer, *best = NULL;
    uint8_t best_class = EXCHANGE_CLASSES;
    serve->waiting = 0;
    TAILQ_FOREACH (peer, &serve->queue, of_serve) {
        uint8_t class = class_of(peer);
        if (peer->failing || class == EXCHANGE_CLASSES || !transfer_serve_is_window_open(peer))
            continue;
        serve->waiting++;
        uint64_t had = transfer_serve_lane(peer, class)->pass;
        if (!best || class < best_class || (class == best_class && had < transfer_serve_lane(best, best_class)->pass)) {
            best = peer;
            best_class = class;
        }
    }
    return best;
}

static bool is_slot_free(const struct serve *serve, uint8_t class)
{
    return is_urgent(class) || serve->in_use - serve->urgent < slots_now(serve);
}

static void clear_queue(struct serve *serve)
{
    for (struct exchange_peer *peer = TAILQ_FIRST(&serve->queue), *next; peer; peer = next) {
        next = TAILQ_NEXT(peer, of_serve);
        if (is_stalled(peer))
            transfer_serve_shed(peer, RETRY_MAX_MS);
        refuse_late(peer);
        if (!transfer_serve_has_work(peer))
            leave_queue(peer);
    }
}

void transfer_turns_give(struct exchange *exchange)
{
    struct serve *serve = &exchange->serve;
    if (!serve->look && exchange->now_ms < serve->looked_ms + LOOK_MS)
        return;
    end_turns(serve);
    serve->look = false;
    serve->looked_ms = exchange->now_ms;
    clear_queue(serve);
    struct exchange_peer *peer;
    for (;;) {
        count_slots(serve);
        peer = best_waiting(serve);
        if (!peer || !is_slot_free(serve, class_of(peer)))
            return;
        leave_queue(peer);
        TAILQ_INSERT_TAIL(&serve->slotted, peer, of_serve);
        peer->serving.in_slot = true;
        peer->serving.moved_ms = exchange->now_ms;
    }
}

/* ---- how many ---- */

/* The window that ends had this rate: more slots if the last ones paid, by a twentieth, and fewer if not. */
static void judge_slots(struct serve *serve, uint64_t rate)
{
    if (serve->waiting == 0) {
        serve->rest = 0;
    } else if (serve->rest > 0) {
        serve->rest--;
    } else if (rate >= serve->rate + serve->rate / 20 || serve->slots == serve->slots_before) {
        serve->slots_before = serve->slots;
        serve->slots += serve->slots / 4;
        if (serve->slots > LIMIT_SERVE_SLOTS)
            serve->slots = LIMIT_SERVE_SLOTS;
    } else {
        serve->slots = serve->slots_before;
        serve->rest = PROBE_REST;
    }
}

void transfer_turns_probe(struct exchange *exchange)
{
    struct serve *serve = &exchange->serve;
    uint64_t elapsed = exchange->now_ms - serve->probe_ms;
    uint64_t bytes = serve->drained_bytes - serve->probe_bytes;
    if (elapsed < PROBE_MS || (bytes < PROBE_BYTES && serve->waiting > 0 && elapsed < PROBE_MAX_MS))
        return;
    uint64_t rate = bytes * 1000 / elapsed;
    judge_slots(serve, rate);
    serve->rate = rate;
    serve->probe_ms = exchange->now_ms;
    serve->probe_bytes = serve->drained_bytes;
}

uint8_t transfer_serve_load(const struct exchange *exchange)
{
    const struct serve *serve = &exchange->serve;
    uint64_t limit = exchange->pace.rates[PACE_UP].total;
    if (serve->waiting > 0)
        return UINT8_MAX;
    uint64_t load = UINT8_MAX * (uint64_t)serve->in_use / (serve->slots + 1);
    if (limit > 0 && serve->in_use > 0)
        load = later(load, UINT8_MAX * (serve->rate < limit ? serve->rate : limit) / limit);
    return load < UINT8_MAX ? (uint8_t)load : UINT8_MAX;
}
