/*
 * Which peer is asked for which run of chunks, when, and how much of it.
 *
 * Nobody is dealt a share beforehand: there is one set of free chunks, and a peer whose credit allows takes the next
 * run that it holds. A fast peer comes back sooner and so carries more. Credit is what the peer delivers in a round
 * trip and CREDIT_MS more, so that its pipe stays full and no more than that waits in it.
 *
 *   which run    the rarest among partial holders, from a random place, so that a crowd asks for different things; in
 *                order when everybody has everything
 *   whether      not if another holder, at the rates measured, would be done with it sooner behind all else that it has
 *   stalled      nothing came for four times what was to be expected (400 to 1500 ms): its runs are offered to others
 *                too, and stay its own as well
 *   lost         nothing came for LOST_MS: its runs are taken away and it rests, longer each time
 *   the end      nothing is free: a peer takes over a run from one that would need more than twice as long
 *
 * Whoever delivers first wins; what the others need not send any more is cancelled.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "transfer/fetch.h"
#include "transfer/have.h"

#define CREDIT_MS 200u
#define STALL_MIN_MS 400u
#define STALL_MAX_MS 1500u
#define LOST_MS 5000u
#define REST_MS 5000u /* after the first loss; doubled by each that follows at once */
#define REST_DOUBLINGS 4u
#define BUSY_MIN_MS 50u
#define GONE_MS 10000u
#define RATE_WINDOW_MS 100u /* one measurement of goodput */
#define RATE_LEAST_MS 5u    /* shorter ones say nothing */
#define SLACK_MS 100u
#define LOOK_AT 1024u /* free chunks, before the rarest of them is taken */
#define SPREAD_ALIGN 16u

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

/* How long until `bytes` have come that are asked for behind `ahead` others. Not knowing better: at once. */
static uint64_t expect_ms(const struct exchange_peer *peer, uint64_t ahead, uint64_t bytes)
{
    uint64_t rate = peer->asking.goodput;
    return rtt_ms(peer) + (rate ? (ahead + bytes) * 1000 / rate : 0);
}

/* Bytes that the peer may be asked for now. Half of the window has to be free: many small runs cost more than few. */
static uint64_t credit(const struct exchange_peer *peer)
{
    const struct asking *asking = &peer->asking;
    uint64_t window =
        within(asking->goodput * (rtt_ms(peer) + CREDIT_MS) / 1000, LIMIT_CREDIT_FLOOR_BYTES, LIMIT_CREDIT_BYTES);
    return asking->asked_bytes <= window / 2 ? window - asking->asked_bytes : 0;
}

/* ---- requests ---- */

static struct request *add_request(struct source *source, enum store_piece_type type, uint64_t bytes)
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
    if (TAILQ_EMPTY(&asking->requests))
        asking->heard_ms = exchange->now_ms;
    TAILQ_INSERT_TAIL(&asking->requests, request, link);
    asking->asked_bytes += bytes;
    exchange->fetch_bytes += bytes;
    return request;
}

static bool contains(const struct request *request, uint32_t chunk)
{
    return request->type == STORE_PIECE_CHUNK && chunk - request->first < request->count &&
           !have_get(request->came, chunk - request->first);
}

/* Is the chunk asked of this source (but in `except`)? */
static bool asked_of(const struct source *source, uint32_t chunk, const struct request *except)
{
    const struct request *request;
    if (!source->peer)
        return false;
    TAILQ_FOREACH (request, &source->peer->asking.requests, link) {
        if (request != except && request->source == source && contains(request, chunk))
            return true;
    }
    return false;
}

static bool asked_elsewhere(struct fetch *fetch, uint32_t chunk, const struct request *except)
{
    const struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        if (asked_of(source, chunk, except))
            return true;
    }
    return false;
}

static void set_free(struct fetch *fetch, uint32_t chunk)
{
    fetch->state[chunk] = CHUNK_FREE;
    fetch->n_free++;
    if (chunk < fetch->low)
        fetch->low = chunk;
}

static void wake_sources(struct fetch *fetch)
{
    struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        source->exhausted = false;
    }
}

static void free_chunks(struct request *request)
{
    struct fetch *fetch = request->source->fetch;
    for (uint32_t chunk = request->first; chunk < request->first + request->count; chunk++) {
        if (contains(request, chunk) && fetch->state[chunk] == CHUNK_ASKED &&
            !(fetch->doubled && asked_elsewhere(fetch, chunk, request)))
            set_free(fetch, chunk);
    }
    wake_sources(fetch);
}

static void close_rate_window(struct exchange_peer *peer)
{
    struct asking *asking = &peer->asking;
    uint64_t took = peer->exchange->now_ms - asking->window_ms;
    if (asking->window_open && took >= RATE_LEAST_MS) {
        uint64_t rate = asking->window_bytes * 1000 / took;
        asking->goodput = asking->goodput ? (3 * asking->goodput + rate) / 4 : rate;
    }
    asking->window_open = false;
}

void transfer_schedule_drop(struct request *request, bool tell_peer)
{
    struct exchange_peer *peer = request->source->peer;
    struct asking *asking = &peer->asking;
    bool unfinished = request->n_came < request->count;
    TAILQ_REMOVE(&asking->requests, request, link);
    asking->asked_bytes -= request->bytes;
    peer->exchange->fetch_bytes -= request->bytes;
    if (unfinished)
        asking->dropped[asking->n_dropped++ % (sizeof asking->dropped / sizeof asking->dropped[0])] = request->number;
    if (unfinished && tell_peer)
        transfer_peer_send(peer, &(struct message){.type = MESSAGE_CANCEL, .request = request->number});
    if (request->type == STORE_PIECE_CHUNK)
        free_chunks(request);
    if (TAILQ_EMPTY(&asking->requests)) {
        close_rate_window(peer);
        asking->stalled = false;
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
    struct request *request = add_request(source, type, 0);
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

static bool ask_run(struct source *source, uint32_t first, uint32_t count, uint64_t bytes)
{
    struct fetch *fetch = source->fetch;
    struct request *request = add_request(source, STORE_PIECE_CHUNK, bytes);
    if (!request)
        return false;
    request->first = first;
    request->count = count;
    memset(fetch->state + first, CHUNK_ASKED, count);
    fetch->n_free -= count;
    return transfer_peer_send(source->peer, &(struct message){.type = MESSAGE_RUN,
                                                              .request = request->number,
                                                              .object = fetch->object,
                                                              .root = fetch->root,
                                                              .first = first,
                                                              .count = count});
}

/* ---- which run ---- */

static bool may_take(const struct source *source, uint32_t chunk)
{
    const struct fetch *fetch = source->fetch;
    return fetch->state[chunk] == CHUNK_FREE && transfer_source_holds(source, chunk) &&
           !(fetch->doubled && asked_of(source, chunk, NULL));
}

/* Whoever has not all is in the way to it, perhaps: then it pays to look for what is rare, and to ask for other things
 * than they do at this moment. */
static bool is_crowd(struct fetch *fetch)
{
    const struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        if (source->state != SOURCE_WHOLE && source->peer)
            return true;
    }
    return false;
}

/* The first chunk from `chunk` on, before `end`, that the source may take; `end` if there is none. */
static uint32_t next_for(const struct source *source, uint32_t chunk, uint32_t end)
{
    const uint8_t *state = source->fetch->state;
    for (; chunk < end; chunk++) {
        const uint8_t *free_chunk = memchr(state + chunk, CHUNK_FREE, end - chunk);
        if (!free_chunk)
            return end;
        chunk = (uint32_t)(free_chunk - state);
        if (may_take(source, chunk))
            return chunk;
    }
    return end;
}

/* The rarest of what is free from `first` to `end`; *looked counts those that were compared. */
static uint32_t rarest_for(const struct source *source, uint32_t first, uint32_t end, uint32_t best, unsigned *looked)
{
    const uint16_t *held_by = source->fetch->held_by;
    unsigned rarest_possible = source->state == SOURCE_PARTIAL ? 1 : 0;
    for (uint32_t chunk = next_for(source, first, end); chunk < end; chunk = next_for(source, chunk + 1, end)) {
        if (best == NO_CHUNK || held_by[chunk] < held_by[best])
            best = chunk;
        if (held_by[best] <= rarest_possible || ++*looked >= LOOK_AT) {
            *looked = LOOK_AT;
            break;
        }
    }
    return best;
}

static uint32_t pick_start(struct source *source)
{
    struct fetch *fetch = source->fetch;
    uint32_t n = fetch->n_chunks;
    if (!is_crowd(fetch)) {
        uint32_t chunk = next_for(source, fetch->low, n);
        if (!fetch->doubled)
            fetch->low = chunk;
        return chunk < n ? chunk : NO_CHUNK;
    }
    uint32_t from = (uint32_t)rng_below(&fetch->exchange->config.rng, n) / SPREAD_ALIGN * SPREAD_ALIGN;
    unsigned looked = 0;
    uint32_t best = rarest_for(source, from, n, NO_CHUNK, &looked);
    return looked < LOOK_AT ? rarest_for(source, 0, from, best, &looked) : best;
}

/* The origin counts double, so that it is spared where others serve. */
static uint64_t cost_ms(const struct source *source, uint64_t ahead, uint64_t bytes)
{
    return expect_ms(source->peer, source->peer->asking.asked_bytes + ahead, bytes) * (source->origin ? 2 : 1);
}

/* Would some other holder be done with this run sooner, even behind all that it is asked for and its share of what is
 * still free? Then this peer would only be in the way. Whoever is the soonest of all by that reckoning never thinks so:
 * one of them takes the run. */
static bool is_worthwhile(const struct source *source, uint32_t first, uint64_t bytes)
{
    struct fetch *fetch = source->fetch;
    double free_bytes = (double)fetch->total_bytes / fetch->n_chunks * fetch->n_free;
    double all_rates = (double)source->peer->asking.goodput;
    const struct source *other;
    TAILQ_FOREACH (other, &fetch->sources, link) {
        if (other != source && transfer_source_usable(other) && transfer_source_holds(other, first))
            all_rates += (double)other->peer->asking.goodput;
    }
    uint64_t mine = cost_ms(source, 0, bytes);
    TAILQ_FOREACH (other, &fetch->sources, link) {
        uint64_t rate = other->peer ? other->peer->asking.goodput : 0;
        if (other == source || rate == 0 || !transfer_source_usable(other) || !transfer_source_holds(other, first))
            continue;
        uint64_t share = (uint64_t)(free_bytes * (double)rate / all_rates);
        if (cost_ms(other, share, bytes) + SLACK_MS < mine)
            return false;
    }
    return true;
}

static bool take_run(struct source *source)
{
    struct fetch *fetch = source->fetch;
    if (fetch->n_free == 0 || source->exhausted)
        return false;
    uint32_t first = pick_start(source);
    if (first == NO_CHUNK) {
        source->exhausted = true;
        return false;
    }
    const struct store_chunk *chunks = fetch->recipe->recipe->chunks;
    uint64_t most = least(credit(source->peer), LIMIT_RUN_BYTES);
    uint64_t bytes = chunks[first].length;
    uint32_t count = 1;
    while (count < LIMIT_RUN_CHUNKS && first + count < fetch->n_chunks && may_take(source, first + count) &&
           bytes + chunks[first + count].length <= most)
        bytes += chunks[first + count++].length;
    return is_worthwhile(source, first, bytes) && ask_run(source, first, count, bytes);
}

/* ---- stalls and the end ---- */

/* Let others have what has not come of the request; its peer may still be the first. */
static void offer(struct request *request)
{
    struct fetch *fetch = request->source->fetch;
    request->offered = true;
    fetch->doubled = true;
    for (uint32_t chunk = request->first; chunk < request->first + request->count; chunk++) {
        if (contains(request, chunk) && fetch->state[chunk] == CHUNK_ASKED)
            set_free(fetch, chunk);
    }
    wake_sources(fetch);
}

static bool could_give(const struct source *source, const struct request *request)
{
    for (uint32_t chunk = request->first; chunk < request->first + request->count; chunk++) {
        if (contains(request, chunk) && source->fetch->state[chunk] == CHUNK_ASKED &&
            transfer_source_holds(source, chunk))
            return true;
    }
    return false;
}

/* Of the requests to `other`, the one that comes last, if this source would have it in less than half that time. */
static struct request *find_slow(const struct source *source, const struct source *other, uint64_t *ret_ms)
{
    struct request *slow = NULL;
    uint64_t ahead = 0;
    struct request *request;
    TAILQ_FOREACH (request, &other->peer->asking.requests, link) {
        uint64_t theirs = expect_ms(other->peer, ahead, request->bytes);
        uint64_t mine = expect_ms(source->peer, source->peer->asking.asked_bytes, request->bytes);
        ahead += request->bytes;
        if (request->source == other && request->type == STORE_PIECE_CHUNK && !request->offered &&
            theirs > 2 * mine + SLACK_MS && could_give(source, request)) {
            slow = request;
            *ret_ms = theirs;
        }
    }
    return slow;
}

static bool take_over(struct source *source)
{
    struct fetch *fetch = source->fetch;
    if (fetch->n_free > 0)
        return false;
    struct request *slowest = NULL;
    uint64_t slowest_ms = 0;
    const struct source *other;
    TAILQ_FOREACH (other, &fetch->sources, link) {
        if (other == source || !other->peer)
            continue;
        uint64_t ms = 0;
        struct request *slow = find_slow(source, other, &ms);
        if (slow && ms > slowest_ms) {
            slowest = slow;
            slowest_ms = ms;
        }
    }
    if (!slowest)
        return false;
    offer(slowest);
    return take_run(source);
}

void transfer_schedule_settled(struct fetch *fetch, uint32_t chunk)
{
    if (!fetch->doubled)
        return;
    struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        struct request *request = source->peer ? TAILQ_FIRST(&source->peer->asking.requests) : NULL;
        for (struct request *next; request; request = next) {
            next = TAILQ_NEXT(request, link);
            if (request->source != source || !contains(request, chunk))
                continue;
            bool needed = false;
            for (uint32_t i = request->first; i < request->first + request->count; i++)
                needed |= contains(request, i) && fetch->state[i] <= CHUNK_ASKED;
            if (!needed)
                transfer_schedule_drop(request, true);
        }
    }
}

/* ---- giving peers something to do ---- */

static bool give_work(struct exchange_peer *peer, bool (*take)(struct source *source))
{
    struct fetch *fetch;
    TAILQ_FOREACH (fetch, &peer->exchange->fetches, link) {
        struct source *source = fetch->phase == FETCH_CHUNKS ? transfer_source_of(fetch, peer) : NULL;
        if (source && source->state >= SOURCE_PARTIAL && transfer_source_usable(source) && take(source))
            return true;
    }
    return false;
}

void transfer_schedule_peer(struct exchange_peer *peer)
{
    while (!peer->failing && credit(peer) > 0 && peer->exchange->fetch_bytes < LIMIT_FETCH_BYTES) {
        if (!give_work(peer, take_run) && !give_work(peer, take_over))
            return;
    }
}

void transfer_schedule_all(struct exchange *exchange)
{
    struct exchange_peer *peer;
    TAILQ_FOREACH (peer, &exchange->peers, link) {
        transfer_schedule_peer(peer);
    }
}

/* ---- time and answers ---- */

void transfer_schedule_heard(struct exchange_peer *peer, size_t bytes)
{
    struct asking *asking = &peer->asking;
    uint64_t now = peer->exchange->now_ms;
    asking->heard_ms = now;
    asking->stalled = false;
    asking->lost_in_a_row = 0;
    if (!asking->window_open) {
        /* what came before the first bytes was waiting, not transfer */
        asking->window_open = true;
        asking->window_ms = now;
        asking->window_bytes = 0;
        return;
    }
    asking->window_bytes += bytes;
    if (now - asking->window_ms < RATE_WINDOW_MS)
        return;
    close_rate_window(peer);
    asking->window_open = true;
    asking->window_ms = now;
    asking->window_bytes = 0;
}

static void stall(struct exchange_peer *peer)
{
    peer->asking.stalled = true;
    for (struct request *request = TAILQ_FIRST(&peer->asking.requests), *next; request; request = next) {
        next = TAILQ_NEXT(request, link);
        if (request->type == STORE_PIECE_CHUNK && !request->offered)
            offer(request);
    }
}

static void lose(struct exchange_peer *peer)
{
    struct asking *asking = &peer->asking;
    struct fetch *fetch;
    TAILQ_FOREACH (fetch, &peer->exchange->fetches, link) {
        struct source *source = transfer_source_of(fetch, peer);
        if (source)
            source->failures++;
    }
    asking->failures++;
    unsigned doublings = asking->lost_in_a_row < REST_DOUBLINGS ? asking->lost_in_a_row : REST_DOUBLINGS;
    asking->lost_in_a_row++;
    asking->not_before_ms = peer->exchange->now_ms + ((uint64_t)REST_MS << doublings);
    transfer_schedule_drop_all(peer, NULL, true);
}

void transfer_schedule_tick(struct exchange_peer *peer)
{
    struct asking *asking = &peer->asking;
    if (TAILQ_EMPTY(&asking->requests))
        return;
    uint64_t quiet = peer->exchange->now_ms - asking->heard_ms;
    uint64_t expected = 4 * expect_ms(peer, 0, SESSION_FRAME_BYTES);
    if (quiet >= LOST_MS)
        lose(peer);
    else if (!asking->stalled && quiet >= within(expected, STALL_MIN_MS, STALL_MAX_MS))
        stall(peer);
}

void transfer_schedule_busy(struct request *request, uint32_t retry_ms)
{
    struct exchange_peer *peer = request->source->peer;
    peer->asking.not_before_ms = peer->exchange->now_ms + within(retry_ms, BUSY_MIN_MS, REST_MS);
    transfer_schedule_drop(request, false);
}

void transfer_schedule_gone(struct request *request)
{
    struct source *source = request->source;
    source->failures++;
    source->peer->asking.failures++;
    transfer_schedule_drop(request, false);
    transfer_source_forget(source, GONE_MS);
    transfer_schedule_all(source->fetch->exchange);
    transfer_fetch_step(source->fetch);
}
