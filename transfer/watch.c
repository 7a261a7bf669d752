/*
 * What those who want the same object are told of what comes: a receiver is a source as soon as it has something.
 *
 * Chunks are announced together, at most every WATCH_MIN_MS. While a transfer is neither young nor near its end there
 * is plenty to ask for, and news may be older: up to WATCH_MAX_MS, and the older the more are told, so that a large
 * crowd does not talk more than it sends.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/wire.h"
#include "transfer/fetch.h"
#include "transfer/have.h"

#define WATCH_MIN_MS 10u
#define WATCH_MAX_MS 500u
#define WATCH_PARTS 64u /* of the time that has passed, or of that which is left: so old may news be, */
#define WATCH_PARTS_LEAST 24u
#define WATCH_FEW 16u /* twice as old for twice so many who are told */

static void tell_have(struct fetch *fetch, struct exchange_peer *peer, bool whole)
{
    struct exchange *exchange = fetch->exchange;
    transfer_peer_send(peer, &(struct message){.type = MESSAGE_HAVE,
                                               .object = fetch->object,
                                               .root = whole ? fetch->info.root : fetch->root,
                                               .size_bytes = fetch->total_bytes,
                                               .flags = whole ? MESSAGE_HAVE_WHOLE : 0,
                                               .load = transfer_serve_load(exchange),
                                               .price = exchange->price});
}

void transfer_watch_tell_have(struct fetch *fetch, bool whole)
{
    struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        if (source->watches)
            tell_have(fetch, source->peer, whole);
    }
}

static struct source *watch(struct fetch *fetch, struct exchange_peer *peer)
{
    struct source *source = transfer_source_add(fetch, peer, false);
    if (source && source->peer == peer && source->state != SOURCE_WHOLE)
        transfer_source_watch(source, true);
    return source;
}

bool transfer_fetch_answer_want(struct exchange_peer *peer, const struct id *object)
{
    struct fetch *fetch = transfer_fetch_find(peer->exchange, object);
    if (!fetch)
        return false;
    struct source *source = watch(fetch, peer);
    if (source && source->peer && source->state == SOURCE_NONE)
        transfer_source_ask(source); /* it had nothing when it was asked; now it has begun */
    if (fetch->phase == FETCH_LOOK)
        return false; /* the object may be here: the store knows */
    if (fetch->phase == FETCH_CHUNKS || fetch->phase == FETCH_FINISH)
        tell_have(fetch, peer, false);
    else
        transfer_peer_send(peer, &(struct message){.type = MESSAGE_HAVE_NOT, .object = *object});
    return true;
}

bool transfer_fetch_answer_map(struct exchange_peer *peer, const struct message *message)
{
    struct fetch *fetch = transfer_fetch_by_root(peer->exchange, &message->root);
    OWNED(owned_free) uint8_t *bits = fetch ? have_new(fetch->n_chunks) : NULL;
    if (!bits)
        return false;
    for (uint32_t i = 0; i < fetch->n_chunks; i++) {
        if (fetch->state[i] == CHUNK_HERE)
            have_set(bits, i);
    }
    watch(fetch, peer);
    transfer_maps_send(peer, &message->root, bits, fetch->n_chunks);
    return true;
}

/* ---- what comes ---- */

static uint64_t due_ms(const struct fetch *fetch)
{
    uint64_t passed = fetch->exchange->now_ms - fetch->started_ms;
    uint64_t missing = fetch->total_bytes - fetch->done_bytes;
    uint64_t left = (uint64_t)((double)passed * (double)missing / (double)(fetch->fetched_bytes + 1));
    uint64_t parts = WATCH_PARTS / (1 + fetch->n_watches / WATCH_FEW);
    uint64_t wait = (passed < left ? passed : left) / (parts > WATCH_PARTS_LEAST ? parts : WATCH_PARTS_LEAST);
    return fetch->untold_ms + (wait < WATCH_MIN_MS ? WATCH_MIN_MS : wait < WATCH_MAX_MS ? wait : WATCH_MAX_MS);
}

void transfer_watch_came(struct fetch *fetch, uint32_t chunk)
{
    struct buf *untold = &fetch->untold;
    if (untold->len >= 8) {
        uint8_t *last = untold->data + untold->len - 8;
        uint32_t count = wire_load_u32(last + 4);
        if (wire_load_u32(last) + count == chunk) {
            wire_store_u32(last + 4, count + 1);
            return;
        }
    }
    wire_put_u32(untold, chunk);
    wire_put_u32(untold, 1);
}

static void tell(struct fetch *fetch, struct exchange_peer *peer)
{
    const struct buf *untold = &fetch->untold;
    for (size_t at = 0; at < untold->len; at += 8 * MESSAGE_RANGES_MAX) {
        size_t left = (untold->len - at) / 8;
        transfer_peer_send(peer, &(struct message){.type = MESSAGE_HAVE_MORE,
                                                   .root = fetch->root,
                                                   .items = untold->data + at,
                                                   .n_items = left < MESSAGE_RANGES_MAX ? left : MESSAGE_RANGES_MAX});
    }
}

void transfer_watch_tell(struct fetch *fetch)
{
    struct exchange *exchange = fetch->exchange;
    if (fetch->untold.len == 0 || fetch->phase == FETCH_ENDED)
        return;
    uint64_t due = due_ms(fetch);
    if (exchange->now_ms < due && fetch->n_missing > 0) {
        if (due < exchange->tell_ms)
            exchange->tell_ms = due;
        return;
    }
    struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        if (source->watches)
            tell(fetch, source->peer);
    }
    buf_clear(&fetch->untold);
    fetch->untold_ms = exchange->now_ms;
}

void transfer_watch_tell_all(struct exchange *exchange)
{
    if (exchange->now_ms < exchange->tell_ms)
        return;
    exchange->tell_ms = UINT64_MAX;
    struct fetch *fetch;
    TAILQ_FOREACH (fetch, &exchange->fetches, link) {
        transfer_watch_tell(fetch);
    }
}
