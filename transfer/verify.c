/* Chunks that have arrived become chunks that are here, or their sender is a liar. One job at a time takes all. */
#include <stdlib.h>

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
        transfer_pick_set(fetch, chunk, CHUNK_HERE);
        transfer_watch_came(fetch, chunk);
    }
    fetch->progress_ms = fetch->exchange->now_ms;
}

static void take_bad(struct fetch *fetch, struct arrived *arrived)
{
    transfer_pick_set(fetch, arrived->chunk, CHUNK_FREE);
    if (arrived->status == ERR_CORRUPT)
        transfer_source_lied(arrived->source, "sent a chunk that does not fit its digest");
}

void transfer_verify_settled(struct fetch *fetch, uint32_t chunk)
{
    uint32_t length = fetch->recipe->recipe->chunks[chunk].length;
    fetch->exchange->fetch_bytes -= length;
    fetch->exchange->arrived_bytes -= length;
}

static void settle_all(struct fetch *fetch)
{
    while (!TAILQ_EMPTY(&fetch->checking)) {
        struct arrived *arrived = TAILQ_FIRST(&fetch->checking);
        TAILQ_REMOVE(&fetch->checking, arrived, link);
        transfer_verify_settled(fetch, arrived->chunk);
        if (arrived->status == 0)
            take_good(fetch, arrived);
        else
            take_bad(fetch, arrived);
        free(arrived->data);
        free(arrived);
    }
    transfer_watch_tell(fetch);
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
