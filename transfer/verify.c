/*
 * Chunks that have arrived become chunks that are here, or their sender is a liar. One job at a time takes all.
 *
 * Watchers are told of what the store can read back, which is what it has synced. So with watchers there is a sync
 * every SYNC_BYTES or SYNC_MS; without, the store's own suffice.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/wire.h"
#include "transfer/fetch.h"

#define SYNC_BYTES (1u << 20)
#define SYNC_MS 200

static void verify_work(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    struct arrived *arrived;
    TAILQ_FOREACH (arrived, &fetch->checking, link) {
        struct err err = {0};
        arrived->status = store_assembly_add(fetch->assembly, arrived->chunk, arrived->encoding, arrived->data,
                                             arrived->stored_bytes, &err);
        if (arrived->status < 0 && arrived->status != ERR_CORRUPT) {
            fetch->job_status = arrived->status;
            fetch->job_err = err;
        }
    }
    fetch->sync = fetch->sync && store_assembly_sync(fetch->assembly, NULL) == 0;
}

static void add_fresh(struct fetch *fetch, uint32_t chunk)
{
    struct buf *fresh = &fetch->fresh;
    fetch->state[chunk] = CHUNK_FRESH;
    fetch->fresh_bytes += fetch->recipe->recipe->chunks[chunk].length;
    if (fresh->len >= 8) {
        uint8_t *last = fresh->data + fresh->len - 8;
        uint32_t count = wire_load_u32(last + 4);
        if (wire_load_u32(last) + count == chunk) {
            wire_store_u32(last + 4, count + 1);
            return;
        }
    }
    wire_put_u32(fresh, chunk);
    wire_put_u32(fresh, 1);
}

/* What was fresh can be served now: tell those who wait for it. */
static void announce(struct fetch *fetch)
{
    const struct buf *fresh = &fetch->fresh;
    for (size_t at = 0; at < fresh->len; at += 8)
        memset(fetch->state + wire_load_u32(fresh->data + at), CHUNK_HERE, wire_load_u32(fresh->data + at + 4));
    for (size_t at = 0; at < fresh->len; at += 8 * MESSAGE_RANGES_MAX) {
        size_t left = (fresh->len - at) / 8;
        struct message more = {.type = MESSAGE_HAVE_MORE,
                               .root = fetch->root,
                               .items = fresh->data + at,
                               .n_items = left < MESSAGE_RANGES_MAX ? left : MESSAGE_RANGES_MAX};
        for (unsigned i = 0; i < fetch->n_watchers; i++)
            transfer_peer_send(fetch->watchers[i], &more);
    }
    buf_clear(&fetch->fresh);
    fetch->fresh_bytes = 0;
    fetch->synced_ms = fetch->exchange->now_ms;
}

static void take_good(struct fetch *fetch, struct arrived *arrived)
{
    const struct store_chunk *chunks = fetch->recipe->recipe->chunks;
    uint32_t length = chunks[arrived->chunk].length;
    fetch->n_missing--;
    fetch->wire_bytes += arrived->stored_bytes;
    arrived->source->bytes += length;
    if (arrived->source->peer)
        arrived->source->peer->asking.received_bytes += arrived->stored_bytes;
    for (uint32_t chunk = arrived->chunk; chunk != NO_CHUNK; chunk = fetch->next_alike[chunk]) {
        fetch->done_bytes += length;
        fetch->fetched_bytes += length;
        add_fresh(fetch, chunk);
    }
    fetch->progress_ms = fetch->exchange->now_ms;
}

static void take_bad(struct fetch *fetch, struct arrived *arrived)
{
    fetch->state[arrived->chunk] = CHUNK_FREE;
    fetch->n_free++;
    if (arrived->chunk < fetch->low)
        fetch->low = arrived->chunk;
    struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        source->exhausted = false;
    }
    if (arrived->status == ERR_CORRUPT)
        transfer_source_lied(arrived->source, "sent a chunk that does not fit its digest");
}

static void settle_all(struct fetch *fetch)
{
    while (!TAILQ_EMPTY(&fetch->checking)) {
        struct arrived *arrived = TAILQ_FIRST(&fetch->checking);
        TAILQ_REMOVE(&fetch->checking, arrived, link);
        fetch->exchange->fetch_bytes -= fetch->recipe->recipe->chunks[arrived->chunk].length;
        if (arrived->status == 0)
            take_good(fetch, arrived);
        else
            take_bad(fetch, arrived);
        free(arrived->data);
        free(arrived);
    }
    if (fetch->sync && fetch->phase != FETCH_ENDED)
        announce(fetch);
}

static void verify_done(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    struct exchange *exchange = job->exchange;
    fetch->working = false;
    if (fetch->phase == FETCH_ENDED) {
        transfer_arrived_discard(fetch, &fetch->checking);
        return;
    }
    settle_all(fetch);
    if (fetch->phase == FETCH_ENDED)
        return; /* a callback cancelled it */
    if (fetch->job_status < 0) {
        transfer_fetch_end(fetch, fetch->job_status, &fetch->job_err);
        return;
    }
    transfer_fetch_step(fetch);
    transfer_schedule_all(exchange);
}

static bool is_sync_due(const struct fetch *fetch)
{
    return fetch->n_watchers > 0 && fetch->fresh_bytes > 0 &&
           (fetch->fresh_bytes >= SYNC_BYTES || fetch->exchange->now_ms >= fetch->synced_ms + SYNC_MS);
}

void transfer_verify_start(struct fetch *fetch)
{
    bool sync = is_sync_due(fetch);
    if (fetch->working || (TAILQ_EMPTY(&fetch->arrived) && !sync))
        return;
    fetch->sync = sync;
    TAILQ_CONCAT(&fetch->checking, &fetch->arrived, link);
    fetch->working = true;
    fetch->job_status = 0;
    transfer_job_submit(fetch->exchange, &fetch->job, verify_work, verify_done);
}
