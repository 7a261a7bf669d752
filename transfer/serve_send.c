/*
 * Whose turn it is, and the sending.
 *
 * Classes share what is sent by weight, peers within a class by bytes: each class and each lane counts what it has had
 * (divided by its weight), and the one that has had least goes next; who comes back from having nothing to do starts
 * where the others are (Waldspurger and Weihl 1995, "stride scheduling").
 *
 * That order is exact where a limit of ours holds the bytes back. Where the link does, they queue in sessions and
 * sockets, in which all are equal: so only so many peers are sent to at a time, those that hold a slot, and no more is
 * queued for one than it takes in WINDOW_MS. Slots become more while that makes the whole faster.
 *
 *     waits for a slot --(least had, urgent first)--> in its turn --(TURN_BYTES, and others wait)--> last bytes -->
 * waits
 *                                                         |
 *                                                         +--(nothing taken for STALL_MS, others wait)--> refused: BUSY
 */
#include "node/base/limits.h"
#include "transfer/serve.h"

#define CHUNK_HEAD_BYTES 17u
#define DELTA_HEAD_BYTES 17u
#define MORE_HEAD_BYTES 4u
#define FRAME_BYTES 19u /* around a message: length, type, tag */

#define TURN_BYTES LIMIT_RUN_BYTES
#define WAIT_MS 3000u /* a request that has not had its turn by then is better asked of another */
#define RETRY_MS 500u
#define RETRY_MAX_MS 5000u
#define PAUSE_MS 500u  /* who takes nothing for so long does not count as being sent to */
#define STALL_MS 5000u /* and for so long, gives up its turn */

#define WINDOW_MS 250u
#define WINDOW_MIN_BYTES (32u << 10)
#define SAMPLE_MS 100u

#define SLOTS_FIRST 8u
#define SLOTS_BEHIND_FREEZE 2u /* while a stopped container waits */
#define PROBE_MS 1000u
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

static bool is_class_idle(const struct exchange *exchange, uint8_t class)
{
    const struct exchange_peer *peer;
    TAILQ_FOREACH (peer, &exchange->peers, link) {
        if (lane_has_work(&peer->serving.lanes[class]))
            return false;
    }
    return true;
}

void transfer_serve_wake(struct exchange_peer *peer, uint8_t class)
{
    struct serve *serve = &peer->exchange->serve;
    struct lane *lane = transfer_serve_lane(peer, class);
    if (lane_has_work(lane))
        return;
    lane->pass = later(lane->pass, serve->lane_pass[class]);
    if (is_class_idle(peer->exchange, class))
        serve->class_pass[class] = later(serve->class_pass[class], serve->pass);
}

/* ---- how fast a peer takes what is sent to it ---- */

static size_t queued(const struct exchange_peer *peer)
{
    return LIMIT_SESSION_BULK_BYTES - peer->out.room(peer->out.ctx);
}

static void begin_sample(struct exchange_peer *peer)
{
    peer->serving.sample_ms = peer->exchange->now_ms;
    peer->serving.sample_bytes = peer->serving.drained_bytes;
}

static void set_window(struct exchange_peer *peer, uint64_t bytes)
{
    bytes = later(bytes, WINDOW_MIN_BYTES);
    peer->serving.window_bytes = bytes < LIMIT_SESSION_BULK_BYTES ? (uint32_t)bytes : LIMIT_SESSION_BULK_BYTES;
}

/* Its rate is known from times in which it always had something to take. */
static void measure(struct exchange_peer *peer)
{
    struct serving *serving = &peer->serving;
    uint64_t now = peer->exchange->now_ms;
    size_t waits = queued(peer);
    if (waits < serving->queued_bytes) {
        serving->drained_bytes += serving->queued_bytes - waits;
        peer->exchange->serve.drained_bytes += serving->queued_bytes - waits;
        serving->moved_ms = now;
    }
    serving->queued_bytes = waits;
    if (waits == 0)
        serving->moved_ms = now;
    if (waits == 0 && serving->was_full) {
        set_window(peer, 2ull * serving->window_bytes);
        serving->was_full = false;
    }
    if (serving->n_batches == 0) { /* what it is waiting for is us */
        begin_sample(peer);
        return;
    }
    if (now - serving->sample_ms < SAMPLE_MS)
        return;
    uint64_t rate = (serving->drained_bytes - serving->sample_bytes) * 1000 / (now - serving->sample_ms);
    serving->rate = serving->rate == 0 ? rate : (serving->rate + rate) / 2;
    if (waits > 0)
        set_window(peer, serving->rate * WINDOW_MS / 1000);
    begin_sample(peer);
}

/* ---- slots ---- */

/* The most urgent class of its lanes that have work; EXCHANGE_CLASSES: none has. */
static uint8_t class_of(struct exchange_peer *peer)
{
    uint8_t class = 0;
    while (class < EXCHANGE_CLASSES && !lane_has_work(transfer_serve_lane(peer, class)))
        class++;
    return class;
}

static bool is_window_open(const struct exchange_peer *peer)
{
    return peer->serving.queued_bytes < peer->serving.window_bytes;
}

static bool has_no_slot(const struct exchange_peer *peer)
{
    return !peer->gone && !peer->failing && !peer->serving.in_slot && transfer_serve_has_work(peer);
}

/* Who has not taken what it was sent the last time waits for itself. */
static bool is_waiting(const struct exchange_peer *peer)
{
    return has_no_slot(peer) && is_window_open(peer);
}

static bool rests_since(const struct exchange_peer *peer, uint64_t ms)
{
    return peer->serving.queued_bytes > 0 && peer->exchange->now_ms - peer->serving.moved_ms > ms;
}

static void leave_slot(struct exchange_peer *peer)
{
    peer->serving.in_slot = false;
    peer->serving.turn_bytes = 0;
}

/* How many slots there are for what is not urgent. */
static unsigned slots_now(const struct serve *serve)
{
    return serve->freezing ? SLOTS_BEHIND_FREEZE : serve->slots;
}

static bool is_turn_over(const struct exchange_peer *peer)
{
    const struct serve *serve = &peer->exchange->serve;
    return peer->serving.turn_bytes >= TURN_BYTES &&
           (serve->waiting > 0 || serve->in_use - serve->urgent > slots_now(serve));
}

static bool is_reading(struct exchange_peer *peer)
{
    bool reading = false;
    for (uint8_t class = 0; class < EXCHANGE_CLASSES; class++)
        reading |= transfer_serve_lane(peer, class)->reading;
    return reading;
}

/* It holds what others could have: memory, or a turn. */
static bool is_stalled(const struct exchange_peer *peer)
{
    const struct exchange *exchange = peer->exchange;
    return exchange->serve_bytes > LIMIT_SERVE_BYTES / 2 ? rests_since(peer, PAUSE_MS)
                                                         : exchange->serve.waiting > 0 && rests_since(peer, STALL_MS);
}

/* It has nothing to do, or its turn is over; and it has taken what it was given. */
static bool is_done(struct exchange_peer *peer)
{
    if (peer->failing)
        return true;
    bool over = peer->serving.n_batches == 0 && is_turn_over(peer);
    return (over || !transfer_serve_has_work(peer)) && !is_reading(peer) &&
           peer->serving.queued_bytes <= WINDOW_MIN_BYTES;
}

static void end_turns(struct exchange *exchange)
{
    struct exchange_peer *peer;
    TAILQ_FOREACH (peer, &exchange->peers, link) {
        if (!peer->serving.in_slot)
            continue;
        if (is_stalled(peer))
            transfer_serve_shed(peer, RETRY_MAX_MS);
        if (is_done(peer))
            leave_slot(peer);
    }
}

/* Who has waited in vain asks others meanwhile, and comes back; what it has had so far is remembered. */
static void refuse_late(struct exchange_peer *peer)
{
    struct serve *serve = &peer->exchange->serve;
    uint64_t retry = RETRY_MS;
    if (serve->rate > 0)
        retry = later(retry, serve->waiting * (uint64_t)TURN_BYTES * 1000 / serve->rate / 4);
    for (uint8_t class = 0; class < EXCHANGE_CLASSES; class++) {
        struct run *run;
        while ((run = TAILQ_FIRST(&transfer_serve_lane(peer, class)->runs)) &&
               peer->exchange->now_ms - run->queued_ms > WAIT_MS)
            transfer_serve_refuse(peer, run, MESSAGE_BUSY, (uint32_t)(retry < RETRY_MAX_MS ? retry : RETRY_MAX_MS));
    }
}

/* Count who works and who waits; the best of those who wait, urgent ones first, then who has had least. */
static struct exchange_peer *look_around(struct exchange *exchange)
{
    struct serve *serve = &exchange->serve;
    struct exchange_peer *peer, *best = NULL;
    uint8_t best_class = EXCHANGE_CLASSES;
    serve->in_use = serve->urgent = serve->waiting = 0;
    serve->freezing = false;
    TAILQ_FOREACH (peer, &exchange->peers, link) {
        uint8_t class = class_of(peer);
        bool works = peer->serving.in_slot && !rests_since(peer, PAUSE_MS);
        serve->in_use += works;
        serve->urgent += works && is_urgent(class);
        serve->freezing |= works && class == EXCHANGE_FREEZE;
        if (!is_waiting(peer))
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
    if (is_urgent(class))
        return true;
    return serve->in_use - serve->urgent < slots_now(serve);
}

static void give_slots(struct exchange *exchange)
{
    struct exchange_peer *peer;
    if (exchange->serve.slots == 0)
        exchange->serve.slots = exchange->serve.slots_before = SLOTS_FIRST;
    end_turns(exchange);
    while ((peer = look_around(exchange)) && is_slot_free(&exchange->serve, class_of(peer))) {
        peer->serving.in_slot = true;
        peer->serving.moved_ms = exchange->now_ms;
    }
    TAILQ_FOREACH (peer, &exchange->peers, link) {
        if (has_no_slot(peer))
            refuse_late(peer);
    }
}

/* Do more slots make it faster? Tried while some wait; what does not pay by a twentieth is taken back. */
static void probe_slots(struct exchange *exchange)
{
    struct serve *serve = &exchange->serve;
    uint64_t elapsed = exchange->now_ms - serve->probe_ms;
    uint64_t bytes = serve->drained_bytes - serve->probe_bytes;
    if (elapsed < PROBE_MS || (bytes < PROBE_BYTES && serve->waiting > 0 && elapsed < 16 * PROBE_MS))
        return;
    uint64_t rate = bytes * 1000 / elapsed;
    if (serve->waiting == 0) {
        serve->rest = 0;
    } else if (serve->rest > 0) {
        serve->rest--;
    } else if (serve->rate == 0 || rate >= serve->rate + serve->rate / 20 || serve->slots == serve->slots_before) {
        serve->slots_before = serve->slots;
        serve->slots += serve->slots / 4;
        if (serve->slots > LIMIT_SERVE_SLOTS)
            serve->slots = LIMIT_SERVE_SLOTS;
    } else {
        serve->slots = serve->slots_before;
        serve->rest = PROBE_REST;
    }
    serve->rate = rate;
    serve->probe_ms = exchange->now_ms;
    serve->probe_bytes = serve->drained_bytes;
}

/* ---- sending ---- */

static const struct batch_piece *piece_of(const struct batch *batch)
{
    return &batch->pieces[batch->at];
}

/* Batches that have nothing left make room. The first one then has a piece to send. */
static struct batch *clear_lane(struct exchange_peer *peer, struct lane *lane)
{
    struct batch *batch;
    while ((batch = TAILQ_FIRST(&lane->batches)) && batch->at == batch->n) {
        if (batch->gone)
            transfer_peer_send(peer, &(struct message){.type = MESSAGE_GONE, .request = batch->request});
        transfer_serve_drop_batch(peer, batch);
    }
    return batch;
}

static uint32_t head_bytes(const struct batch *batch)
{
    if (batch->sent > 0)
        return MORE_HEAD_BYTES;
    return piece_of(batch)->type == MESSAGE_CHUNK ? CHUNK_HEAD_BYTES : DELTA_HEAD_BYTES;
}

static void count_turn(struct exchange_peer *peer, uint8_t class, uint64_t bytes)
{
    struct serve *serve = &peer->exchange->serve;
    struct lane *lane = transfer_serve_lane(peer, class);
    serve->lane_pass[class] = lane->pass;
    serve->pass = serve->class_pass[class];
    lane->pass += bytes;
    serve->class_pass[class] += weighed(class, bytes);
}

static bool send_part(struct exchange_peer *peer, struct batch *batch, uint64_t room)
{
    const struct batch_piece *piece = piece_of(batch);
    uint32_t left = piece->piece.stored_bytes - batch->sent;
    uint32_t head = head_bytes(batch);
    uint32_t most = SESSION_FRAME_BYTES - head;
    uint32_t part = (uint32_t)transfer_pace_part(room, left < most ? left : most);
    struct message message = {.type = batch->sent == 0 ? piece->type : MESSAGE_MORE,
                              .request = batch->request,
                              .index = piece->index,
                              .codec = piece->codec,
                              .encoding = (uint8_t)piece->piece.encoding,
                              .stored_bytes = piece->piece.stored_bytes,
                              .raw_bytes = piece->piece.raw_bytes,
                              .items = batch->data + piece->offset + batch->sent,
                              .n_items = part};
    if (!transfer_peer_send(peer, &message))
        return false;
    uint32_t all = part + head + FRAME_BYTES;
    transfer_peer_take(peer, PACE_UP, batch->class, all);
    peer->serving.queued_bytes += all;
    peer->serving.was_full |= !is_window_open(peer);
    peer->serving.sent_bytes += part;
    batch->sent += part;
    count_turn(peer, batch->class, all);
    if (part == left) {
        batch->sent = 0;
        batch->at++;
        clear_lane(peer, transfer_serve_lane(peer, batch->class));
    }
    return true;
}

struct choice {
    struct exchange_peer *peer;
    struct batch *batch;
    uint64_t room;
    uint64_t class_pass;
    uint64_t lane_pass;
};

static void consider(struct exchange_peer *peer, uint8_t class, struct choice *best)
{
    struct lane *lane = transfer_serve_lane(peer, class);
    uint64_t class_pass = peer->exchange->serve.class_pass[class];
    if (lane->n_batches == 0 || (best->peer && (class_pass > best->class_pass ||
                                                (class_pass == best->class_pass && lane->pass >= best->lane_pass))))
        return;
    struct batch *batch = clear_lane(peer, lane);
    uint64_t room = batch ? transfer_peer_room(peer, PACE_UP, class) : 0;
    if (room > 0)
        *best = (struct choice){peer, batch, room, class_pass, lane->pass};
}

/* Of all that is read, what is to be sent next; false: nothing, or nothing can be now. */
static bool choose(struct exchange *exchange, struct choice *ret_choice)
{
    struct exchange_peer *peer;
    *ret_choice = (struct choice){0};
    TAILQ_FOREACH (peer, &exchange->peers, link) {
        if (!peer->serving.in_slot || peer->failing || peer->serving.n_batches == 0 || !is_window_open(peer))
            continue;
        for (uint8_t class = 0; class < EXCHANGE_CLASSES; class++)
            consider(peer, class, ret_choice);
    }
    return ret_choice->peer;
}

/* ---- all of it ---- */

static void read_on(struct exchange *exchange)
{
    struct exchange_peer *peer;
    for (uint8_t class = 0; class < EXCHANGE_CLASSES; class++) {
        TAILQ_FOREACH (peer, &exchange->peers, link) {
            if (!peer->serving.in_slot || is_turn_over(peer))
                continue;
            if (exchange->serve_bytes >= LIMIT_SERVE_BYTES || !transfer_serve_read(peer, &peer->serving.lanes[class]))
                return;
        }
    }
}

void transfer_serve_pump_all(struct exchange *exchange)
{
    struct exchange_peer *peer;
    TAILQ_FOREACH (peer, &exchange->peers, link) {
        if (!peer->gone)
            measure(peer);
    }
    struct choice next;
    while (choose(exchange, &next) && send_part(next.peer, next.batch, next.room)) {
    }
    give_slots(exchange);
    read_on(exchange);
    probe_slots(exchange);
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
