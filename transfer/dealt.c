/*
 * Runs that the holder chooses. In a crowd, a whole holder knows better than those who ask it what has not been sent
 * yet: it is told what is free here, and deals of that what it has dealt the least. When it has dealt everything once
 * it says so, and is from then on asked for runs, of what others do not bring sooner. Where most have everything there
 * is nothing to save.
 *
 * A holder that deals what is not needed, on purpose or because it has come meanwhile, loses the right to choose after
 * EMPTY_DEALS in a row; each costs a round trip, as it is cancelled when it is named.
 */
#include "node/base/limits.h"
#include "node/base/wire.h"
#include "transfer/fetch.h"
#include "transfer/have.h"

#define DEAL_BYTES (256u << 10)
#define EMPTY_DEALS 8u
#define FIRST_DEAL_BYTES (8u << 20) /* of less, holders who do not know of each other would choose the same */

/* Those who come first to a holder do not know yet that they are a crowd. */
static bool may_be_crowd(const struct source *source)
{
    return source->peer->asking.goodput.rate == 0 && transfer_pick_free_bytes(source->fetch) >= FIRST_DEAL_BYTES;
}

/* It may have something again for who still misses a lot. */
static bool is_dealt_out(const struct source *source)
{
    const struct fetch *fetch = source->fetch;
    return source->dealt_out && (source->empty_deals >= EMPTY_DEALS || fetch->n_free < fetch->n_chunks / 2 ||
                                 fetch->exchange->now_ms < source->spread_ms);
}

bool transfer_dealt_applies(const struct source *source)
{
    const struct fetch *fetch = source->fetch;
    return source->state == SOURCE_WHOLE && fetch->n_free > 0 && !is_dealt_out(source) &&
           ((transfer_pick_is_crowd(fetch) && fetch->n_whole <= fetch->n_partial + fetch->n_watches) ||
            may_be_crowd(source));
}

bool transfer_dealt_is_awaited(const struct source *source)
{
    const struct request *request;
    TAILQ_FOREACH (request, &source->peer->asking.requests, link) {
        if (request->source == source && request->dealing)
            return true;
    }
    return false;
}

/* Adds the ranges of what is free from `first` to `end`. False if there is no room for all. */
static bool add_ranges(const struct fetch *fetch, uint32_t first, uint32_t end, struct buf *ranges)
{
    const uint8_t *state = fetch->state;
    uint32_t at = have_next(fetch->free_bits, NULL, first, end);
    for (; at < end && !ranges->failed; at = have_next(fetch->free_bits, NULL, at, end)) {
        uint32_t start = at;
        while (at < end && state[at] == CHUNK_FREE)
            at++;
        uint8_t *range = buf_reserve(ranges, 8);
        if (range) {
            wire_store_u32(range, start);
            wire_store_u32(range + 4, at - start);
            ranges->len += 8;
        }
    }
    return !ranges->failed;
}

/* Of too many ranges, those from a random place on. They are sent in order. */
static bool send_deal(struct source *source, struct request *request)
{
    struct fetch *fetch = source->fetch;
    uint32_t from = (uint32_t)rng_below(&fetch->exchange->config.rng, fetch->n_chunks);
    OWNED(buf_release) struct buf behind = BUF(8 * MESSAGE_DEAL_RANGES_MAX);
    request->all = add_ranges(fetch, from, fetch->n_chunks, &behind);
    OWNED(buf_release) struct buf ranges = BUF(8 * MESSAGE_DEAL_RANGES_MAX);
    ranges.max -= behind.len;
    request->all &= add_ranges(fetch, 0, from, &ranges);
    ranges.max += behind.len;
    if (behind.len > 0)
        buf_add(&ranges, behind.data, behind.len);
    return transfer_peer_send(source->peer, &(struct message){.type = MESSAGE_DEAL,
                                                              .request = request->number,
                                                              .class = fetch->class,
                                                              .object = fetch->object,
                                                              .root = fetch->root,
                                                              .size_bytes = request->bytes,
                                                              .items = ranges.data,
                                                              .n_items = ranges.len / 8});
}

bool transfer_dealt_ask(struct source *source, uint64_t most, uint64_t *ret_bytes)
{
    struct fetch *fetch = source->fetch;
    uint64_t bytes = most < DEAL_BYTES ? most : DEAL_BYTES;
    if (fetch->dealing_bytes >= transfer_pick_free_bytes(fetch) ||
        !transfer_pick_is_worthwhile(source, NO_CHUNK, bytes))
        return false;
    struct request *request = transfer_schedule_add(source, STORE_PIECE_CHUNK, bytes);
    if (!request)
        return false;
    request->dealing = true;
    fetch->dealing_bytes += bytes;
    *ret_bytes = bytes;
    return send_deal(source, request);
}

/* Nothing came of a deal. After some of these, or when everything has been dealt, the holder is asked for runs. */
static void take_empty(struct source *source, bool all)
{
    source->empty_deals++;
    source->dealt_out = all || source->empty_deals >= EMPTY_DEALS;
    source->spread_ms = source->fetch->exchange->now_ms + transfer_pick_spread_ms(source->fetch);
}

static bool take_chunks(struct fetch *fetch, const struct request *request)
{
    bool needed = false;
    for (uint32_t chunk = request->first; chunk < request->first + request->count; chunk++) {
        transfer_pick_asked(fetch, chunk);
        needed |= fetch->state[chunk] == CHUNK_ASKED;
    }
    return needed;
}

static bool fits(const struct fetch *fetch, const struct message *message, uint64_t *ret_bytes)
{
    const struct store_chunk *chunks = fetch->recipe->recipe->chunks;
    if (message->first > fetch->n_chunks || message->count > fetch->n_chunks - message->first)
        return false;
    *ret_bytes = 0;
    for (uint32_t i = 0; i < message->count; i++)
        *ret_bytes += chunks[message->first + i].length;
    return message->count <= 1 || *ret_bytes <= LIMIT_RUN_BYTES;
}

int transfer_dealt_take(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct request *request = transfer_receive_find(peer, message->request);
    if (!request)
        return transfer_receive_stray(peer, message->request, 0, err);
    struct source *source = request->source;
    struct fetch *fetch = source->fetch;
    uint64_t bytes;
    if (!request->dealing || !fits(fetch, message, &bytes))
        return err_set(err, ERR_PROTOCOL, "a deal of what was not asked for");
    if (message->count == 0) {
        take_empty(source, request->all);
        transfer_schedule_drop(request, false);
    } else {
        transfer_schedule_alive(peer);
        fetch->dealing_bytes -= request->bytes;
        request->dealing = false;
        request->first = message->first;
        request->count = message->count;
        transfer_schedule_resize(request, bytes);
        if (take_chunks(fetch, request)) {
            source->empty_deals = 0;
        } else {
            take_empty(source, false);
            transfer_schedule_drop(request, true);
        }
    }
    transfer_schedule_peer(peer);
    return 0;
}
