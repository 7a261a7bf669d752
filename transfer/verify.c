/* Chunks that have arrived become chunks that are here, or their sender is a liar. One job at a time takes all. */
#include <stdlib.h>

#include "transfer/fetch.h"
#include "transfer/gap.h"

#define TOGETHER 64u

static void note_failure(struct fetch *fetch, int status, const struct err *err)
{
    if (status >= 0 || status == ERR_CORRUPT)
        return;
    fetch->job_status = status;
    fetch->job_err = *err;
}

/* As many chunks as stand next to each other in the list. Returns who comes after them. */
static struct arrived *add_chunks(struct fetch *fetch, struct arrived *first)
{
    struct store_arrival arrivals[TOGETHER];
    struct arrived *arrived = first;
    struct err err = {0};
    size_t count = 0;
    for (; arrived && !arrived->delta && count < TOGETHER; arrived = TAILQ_NEXT(arrived, link))
        arrivals[count++] = (struct store_arrival){.chunk = arrived->chunk,
                                                   .encoding = arrived->encoding,
                                                   .data = arrived->data,
                                                   .len_bytes = arrived->stored_bytes};
    note_failure(fetch, store_assembly_add_all(fetch->assembly, arrivals, count, &err), &err);
    for (size_t i = 0; i < count; i++, first = TAILQ_NEXT(first, link))
        first->status = arrivals[i].ret_status;
    return arrived;
}

static void verify_work(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    for (struct arrived *arrived = TAILQ_FIRST(&fetch->checking); arrived;) {
        if (!arrived->delta) {
            arrived = add_chunks(fetch, arrived);
            continue;
        }
        struct err err = {0};
        arrived->status = transfer_gaps_check(fetch, arrived, &err);
        note_failure(fetch, arrived->status, &err);
        arrived = TAILQ_NEXT(arrived, link);
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
