/*
 * Sending: of all that is read, what goes next, and how much.
 *
 * Classes share what is sent by weight, peers within a class by bytes: each class and each lane counts what it has had
 * (divided by its weight), and the one that has had least goes next; who comes back from having nothing to do starts
 * where the others are (Waldspurger and Weihl 1995, "stride scheduling"). Where a limit of ours holds bytes back, that
 * order is exact; for where the link does, see serve_turns.c. No more is queued in a session than its peer takes in
 * WINDOW_MS.
 */
#include "node/base/limits.h"
#include "transfer/serve.h"

#define CHUNK_HEAD_BYTES 17u
#define DELTA_HEAD_BYTES 17u
#define MORE_HEAD_BYTES 4u
#define FRAME_BYTES 19u /* around a message: length, type, tag */

#define WINDOW_MS 250u
#define WINDOW_MIN_BYTES (32u << 10)
#define SAMPLE_MS 100u
#define MEASURE_MS 20u

/* ---- how fast a peer takes what is sent to it ---- */

bool transfer_serve_is_window_open(const struct exchange_peer *peer)
{
    return peer->serving.queued_bytes < peer->serving.window_bytes;
}

static void set_window(struct serving *serving, uint64_t bytes)
{
    if (bytes < WINDOW_MIN_BYTES)
        bytes = WINDOW_MIN_BYTES;
    serving->window_bytes = bytes < LIMIT_SESSION_BULK_BYTES ? (uint32_t)bytes : LIMIT_SESSION_BULK_BYTES;
}

/* What has left its session since we looked last. */
static void measure_drain(struct exchange_peer *peer)
{
    struct serving *serving = &peer->serving;
    size_t waits = LIMIT_SESSION_BULK_BYTES - peer->out.room(peer->out.ctx);
    size_t drained = waits < serving->queued_bytes ? serving->queued_bytes - waits : 0;
    serving->drained_bytes += drained;
    peer->exchange->serve.drained_bytes += drained;
    serving->queued_bytes = waits;
    if (drained > 0 || waits == 0)
        serving->moved_ms = peer->exchange->now_ms;
}

static void begin_sample(struct serving *serving, uint64_t now_ms)
{
    serving->sample_ms = now_ms;
    serving->sample_bytes = serving->drained_bytes;
}

/* Its rate is known from times in which it always had something to take. */
void transfer_serve_measure(struct exchange_peer *peer)
{
    struct serving *serving = &peer->serving;
    uint64_t now = peer->exchange->now_ms;
    measure_drain(peer);
    if (serving->queued_bytes == 0 && serving->was_full) {
        set_window(serving, 2ull * serving->window_bytes);
        serving->was_full = false;
    }
    if (serving->n_batches == 0) {
        begin_sample(serving, now);
        return;
    }
    if (now - serving->sample_ms < SAMPLE_MS)
        return;
    uint64_t rate = (serving->drained_bytes - serving->sample_bytes) * 1000 / (now - serving->sample_ms);
    serving->rate = serving->rate == 0 ? rate : (serving->rate + rate) / 2;
    if (serving->queued_bytes > 0)
        set_window(serving, serving->rate * WINDOW_MS / 1000);
    begin_sample(serving, now);
}

/* ---- one part ---- */

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

static void count_part(struct exchange_peer *peer, struct batch *batch, uint32_t part, uint32_t all)
{
    struct serving *serving = &peer->serving;
    transfer_peer_take(peer, PACE_UP, batch->class, all);
    transfer_turns_count(peer, batch->class, all);
    serving->queued_bytes = LIMIT_SESSION_BULK_BYTES - peer->out.room(peer->out.ctx);
    serving->was_full |= !transfer_serve_is_window_open(peer);
    serving->sent_bytes += part;
    batch->sent += part;
    if (batch->sent < piece_of(batch)->piece.stored_bytes)
        return;
    batch->sent = 0;
    batch->at++;
    clear_lane(peer, transfer_serve_lane(peer, batch->class));
}

static void send_part(struct exchange_peer *peer, struct batch *batch, uint64_t room)
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
    if (transfer_peer_send(peer, &message))
        count_part(peer, batch, part, part + head + FRAME_BYTES);
}

/* ---- which ---- */

struct choice {
    struct exchange_peer *peer;
    struct batch *batch;
    uint64_t room;
    uint64_t class_pass;
    uint64_t lane_pass;
};

static bool is_before(uint64_t class_pass, uint64_t lane_pass, const struct choice *best)
{
    if (!best->peer || class_pass != best->class_pass)
        return !best->peer || class_pass < best->class_pass;
    return lane_pass < best->lane_pass;
}

static void consider(struct exchange_peer *peer, unsigned class, struct choice *best)
{
    struct lane *lane = transfer_serve_lane(peer, class);
    uint64_t class_pass = peer->exchange->serve.class_pass[class];
    if (lane->n_batches == 0 || !is_before(class_pass, lane->pass, best))
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
    TAILQ_FOREACH (peer, &exchange->serve.slotted, of_serve) {
        if (peer->failing || peer->serving.n_batches == 0 || !transfer_serve_is_window_open(peer))
            continue;
        for (unsigned i = 0; i < EXCHANGE_CLASSES; i++)
            consider(peer, i, ret_choice);
    }
    return ret_choice->peer;
}

/* ---- all of it ---- */

static void read_on(struct exchange *exchange)
{
    struct exchange_peer *peer;
    for (unsigned i = 0; i < EXCHANGE_CLASSES; i++) {
        TAILQ_FOREACH (peer, &exchange->serve.slotted, of_serve) {
            if (peer->serving.n_runs == 0 || transfer_turns_is_over(peer))
                continue;
            if (exchange->serve_bytes >= LIMIT_SERVE_BYTES || !transfer_serve_read(peer, &peer->serving.lanes[i]))
                return;
        }
    }
}

static void send_all(struct exchange *exchange)
{
    struct choice next;
    while (exchange->serve.n_batches > 0 && choose(exchange, &next))
        send_part(next.peer, next.batch, next.room);
}

/* Whoever takes something is measured then (transfer_serve_drained); who takes nothing is to be noticed, too. */
static void measure_all(struct exchange *exchange)
{
    struct serve *serve = &exchange->serve;
    struct exchange_peer *peer;
    if (exchange->now_ms < serve->measured_ms + MEASURE_MS)
        return;
    serve->measured_ms = exchange->now_ms;
    TAILQ_FOREACH (peer, &serve->slotted, of_serve) {
        transfer_serve_measure(peer);
    }
    TAILQ_FOREACH (peer, &serve->queue, of_serve) {
        transfer_serve_measure(peer);
    }
}

void transfer_serve_pump_all(struct exchange *exchange)
{
    measure_all(exchange);
    send_all(exchange);
    transfer_turns_give(exchange);
    send_all(exchange); /* whose turn begins may have deltas that wait; nothing that is read would wake it for them */
    read_on(exchange);
    transfer_turns_probe(exchange);
}
