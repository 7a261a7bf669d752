/* Chunks that have arrived become chunks that are here, or their sender is a liar. One job at a time takes all. */
#include <stdlib.h>

#include "node/base/limits.h"
#include "node/base/wire.h"
#include "transfer/fetch.h"

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
}

/* Ranges of what has come since the watchers were last told. */
static void add_range(struct buf *fresh, uint32_t chunk)
{
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

static void tell_watchers(struct fetch *fetch, const struct buf *fresh)
{
    for (size_t at = 0; at < fresh->len; at += 8 * MESSAGE_RANGES_MAX) {
        size_t left = (fresh->len - at) / 8;
        struct message more = {.type = MESSAGE_HAVE_MORE,
                               .root = fetch->root,
                               .items = fresh->data + at,
                               .n_items = left < MESSAGE_RANGES_MAX ? left : MESSAGE_RANGES_MAX};
        for (unsigned i = 0; i < fetch->n_watchers; i++)
            transfer_peer_send(fetch->watchers[i], &more);
    }
}

static void take_good(struct fetch *fetch, struct arrived *arrived, struct buf *fresh)
{
    const struct store_chunk *chunks = fetch->recipe->recipe->chunks;
    uint32_t length = chunks[arrived->chunk].length;
    fetch->n_missing--;
    fetch->wire_bytes += arrived->stored_bytes;
    arrived->source->bytes += length;
    if (arrived->source->peer)
        arrived->source->peer->asking.received_bytes += arrived->stored_bytes;
    for (uint32_t chunk = arrived->chunk; chunk != NO_CHUNK; chunk = fetch->next_alike[chunk]) {
        fetch->state[chunk] = CHUNK_HERE;
        fetch->done_bytes += length;
        fetch->fetched_bytes += length;
        add_range(fresh, chunk);
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
    /* 8 bytes for each chunk of LIMIT_FETCH_BYTES, were they of one byte, would be a lie of the recipe's maker */
    OWNED(buf_release) struct buf fresh = BUF(8 * (size_t)fetch->n_chunks);
    while (!TAILQ_EMPTY(&fetch->checking)) {
        struct arrived *arrived = TAILQ_FIRST(&fetch->checking);
        TAILQ_REMOVE(&fetch->checking, arrived, link);
        fetch->exchange->fetch_bytes -= fetch->recipe->recipe->chunks[arrived->chunk].length;
        if (arrived->status == 0)
            take_good(fetch, arrived, &fresh);
        else
            take_bad(fetch, arrived);
        free(arrived->data);
        free(arrived);
    }
    tell_watchers(fetch, &fresh);
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

void transfer_verify_start(struct fetch *fetch)
{
    if (fetch->working || TAILQ_EMPTY(&fetch->arrived))
        return;
    TAILQ_CONCAT(&fetch->checking, &fetch->arrived, link);
    fetch->working = true;
    fetch->job_status = 0;
    transfer_job_submit(fetch->exchange, &fetch->job, verify_work, verify_done);
}
