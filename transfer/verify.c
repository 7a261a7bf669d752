/* Chunks that have arrived become chunks that are here, or their sender is a liar. One job at a time takes all. */
#include <stdlib.h>

#include "transfer/fetch.h"
#include "transfer/gap.h"

static void verify_work(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    struct arrived *arrived;
    TAILQ_FOREACH (arrived, &fetch->checking, link) {
        struct err err = {0};
        arrived->status = arrived->delta ? transfer_gaps_check(fetch, arrived, &err)
                                         : store_assembly_add(fetch->assembly, arrived->chunk, arrived->encoding,
                                                              arrived->data, arrived->stored_bytes, &err);
        if (arrived->status < 0 && arrived->status != ERR_CORRUPT) {
            fetch->job_status = arrived->status;
            fetch->job_err = err;
        }
    }
}

void transfer_verify_good(struct fetch *fetch, struct source *source, uint32_t chunk, uint64_t wire_bytes)
{
    uint32_t length = fetch->recipe->recipe->chunks[chunk].length;
    fetch->n_missing--;
    fetch->wire_bytes += wire_bytes;
    fetch->n_givers += source->bytes == 0 && length > 0;
    source->bytes += length;
    transfer_source_proved(source);
    if (source->peer)
        source->peer->asking.received_bytes += wire_bytes;
    for (; chunk != NO_CHUNK; chunk = fetch->next_alike[chunk]) {
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

void transfer_verify_settled(struct fetch *fetch, uint64_t bytes)
{
    fetch->exchange->fetch_bytes -= bytes;
    fetch->exchange->arrived_bytes -= bytes;
}

static void settle_all(struct fetch *fetch)
{
    while (!TAILQ_EMPTY(&fetch->checking)) {
        struct arrived *arrived = TAILQ_FIRST(&fetch->checking);
        TAILQ_REMOVE(&fetch->checking, arrived, link);
        transfer_verify_settled(fetch, arrived->counted_bytes);
        if (arrived->delta)
            transfer_gaps_settle(fetch, arrived);
        else if (arrived->status == 0)
            transfer_verify_good(fetch, arrived->source, arrived->chunk, arrived->stored_bytes);
        else
            take_bad(fetch, arrived);
        free(arrived->delta);
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
    if (exchange->look)
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
