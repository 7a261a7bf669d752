/*
 * Pieces as they arrive: matched with their request, put together, handed on. Nothing here trusts a number: what a
 * piece may be follows from the recipe, and its digest is checked by whoever gets it.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "transfer/fetch.h"
#include "transfer/gap.h"
#include "transfer/have.h"

struct request *transfer_receive_find(struct exchange_peer *peer, uint32_t number)
{
    struct request *request;
    TAILQ_FOREACH (request, &peer->asking.requests, link) {
        if (request->number == number)
            return request;
    }
    return NULL;
}

int transfer_receive_stray(struct exchange_peer *peer, uint32_t number, size_t bytes, struct err *err)
{
    struct asking *asking = &peer->asking;
    asking->stray_bytes += bytes;
    for (size_t i = 0; i < sizeof asking->dropped / sizeof asking->dropped[0]; i++) {
        if (number != 0 && asking->dropped[i] == number)
            return 0;
    }
    if (++asking->strikes < LIMIT_PEER_STRIKES)
        return 0;
    return err_set(err, ERR_PROTOCOL, "%u answers to what was not asked", asking->strikes);
}

/* What the recipe says of the length of a piece, or the most that it can be. 0 if there is no such piece. */
static uint32_t raw_limit(const struct request *request, uint32_t at)
{
    switch (request->type) {
    case STORE_PIECE_CHUNK:
        return request->source->fetch->recipe->recipe->chunks[request->first + at].length;
    case STORE_PIECE_LEAF:
        return STORE_LEAF_MAX_BYTES;
    default:
        return STORE_ROOT_MAX_BYTES;
    }
}

static bool piece_fits(const struct request *request, uint32_t at, const struct message *message)
{
    if (request->gaps || request->by_basis || at >= request->count || have_get(request->came, at))
        return false;
    uint32_t limit = raw_limit(request, at);
    if (request->type == STORE_PIECE_CHUNK ? message->raw_bytes != limit : message->raw_bytes > limit)
        return false;
    return message->encoding == STORE_ZSTD ? message->raw_bytes <= LIMIT_CHUNK_BYTES
                                           : message->stored_bytes == message->raw_bytes;
}

/* The piece is whole. The request may be freed by this. */
static void finish_piece(struct request *request)
{
    struct source *source = request->source;
    struct fetch *fetch = source->fetch;
    struct exchange_peer *peer = source->peer;
    struct arrival arrival = request->arrival;
    request->arrival = (struct arrival){0};
    if (request->gaps) {
        transfer_gaps_arrived(request, &arrival);
        return;
    }
    have_set(request->came, arrival.at);
    request->n_came++;
    if (request->type != STORE_PIECE_CHUNK) {
        transfer_fetch_take_record(fetch, source, request, &arrival);
    } else {
        /* stays counted in fetch_bytes until it is stored */
        request->bytes -= arrival.raw_bytes;
        peer->asking.asked_bytes -= arrival.raw_bytes;
        transfer_peer_give_back(peer, PACE_DOWN, fetch->class, arrival.raw_bytes - arrival.stored_bytes);
        transfer_fetch_take_chunk(fetch, source, request->first + arrival.at, &arrival);
    }
}

/* Of the object: what it takes to send it is not what is measured. */
static uint64_t object_bytes(const struct arrival *arrival, uint32_t stored_bytes)
{
    return (uint64_t)stored_bytes * arrival->raw_bytes / arrival->stored_bytes;
}

/* All of it has come. Whoever was asked for records can be asked for more of them. */
static void end_request(struct request *request)
{
    struct fetch *fetch = request->source->fetch;
    bool are_records = request->type != STORE_PIECE_CHUNK;
    transfer_schedule_drop(request, false);
    if (are_records)
        transfer_fetch_step(fetch);
}

static int append(struct exchange_peer *peer, struct request *request, const struct message *message, struct err *err)
{
    struct arrival *arrival = &request->arrival;
    if (message->n_items > arrival->stored_bytes - arrival->have_bytes)
        return err_set(err, ERR_PROTOCOL, "more bytes than the piece has");
    memcpy(arrival->data + arrival->have_bytes, message->items, message->n_items);
    uint64_t before = object_bytes(arrival, arrival->have_bytes);
    arrival->have_bytes += (uint32_t)message->n_items;
    if (request->gaps && arrival->encoding != MESSAGE_CODEC_PLAIN)
        transfer_schedule_alive(peer); /* few bytes that took work say nothing of the way here */
    else
        transfer_schedule_heard(peer, object_bytes(arrival, arrival->have_bytes) - before);
    if (arrival->have_bytes < arrival->stored_bytes)
        return 0;
    uint32_t number = request->number;
    finish_piece(request);
    /* a lie, a last piece or a callback may have ended the request */
    request = transfer_receive_find(peer, number);
    if (request && request->n_came == request->count)
        end_request(request);
    transfer_schedule_peer(peer);
    return 0;
}

int transfer_receive_begin(struct request *request, uint32_t at, uint8_t encoding, const struct message *message,
                           struct err *err)
{
    request->arrival = (struct arrival){.data = malloc(message->stored_bytes),
                                        .at = at,
                                        .encoding = encoding,
                                        .stored_bytes = message->stored_bytes,
                                        .raw_bytes = message->raw_bytes};
    if (!request->arrival.data)
        return err_set(err, ERR_NOMEM, "no memory for a piece");
    return append(request->source->peer, request, message, err);
}

int transfer_receive_chunk(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct request *request = transfer_receive_find(peer, message->request);
    if (!request)
        return transfer_receive_stray(peer, message->request, message->n_items, err);
    if (request->arrival.data)
        return err_set(err, ERR_PROTOCOL, "a piece begins inside another");
    uint32_t at = message->index - request->first;
    if (!piece_fits(request, at, message)) {
        transfer_source_lied(request->source, "sent a piece that was not asked for, or of a wrong length");
        return 0;
    }
    return transfer_receive_begin(request, at, message->encoding, message, err);
}

int transfer_receive_more(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct request *request = transfer_receive_find(peer, message->request);
    if (!request)
        return transfer_receive_stray(peer, message->request, message->n_items, err);
    if (!request->arrival.data)
        return err_set(err, ERR_PROTOCOL, "the rest of a piece that was not begun");
    return append(peer, request, message, err);
}
