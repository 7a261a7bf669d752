/*
 * What is late is asked of others as well; whoever delivers first wins, and what the others need not send any more is
 * cancelled.
 *
 *   late         nothing came of a peer for longer than it uses to be quiet (goodput.c), at least two round trips and
 *                LATE_MS: when nothing else is free, or it is even stalled and no crowd's queues explain it, its runs
 *                are offered, each to one other at a time. So this costs nothing in the middle of a transfer and little
 *                time at its end. Who was silent before, and has given nothing since, is late at once.
 *   the end      nothing is free or offered: a peer takes over a run from one that would need more than twice as long
 */
#include "transfer/fetch.h"
#include "transfer/gap.h"
#include "transfer/have.h"

#define LATE_MS 30u
#define LATE_UNKNOWN_MS 400u /* of a peer of which nothing is known */
#define LATE_CROWD_MS 1000u  /* the same, where many wait for it */
#define LATE_MAX_MS 1500u
#define SLACK_MS 100u

bool transfer_hedge_contains(const struct request *request, uint32_t chunk)
{
    if (request->gaps)
        return transfer_gaps_contains(request, chunk);
    return request->type == STORE_PIECE_CHUNK && chunk - request->first < request->count &&
           !have_get(request->came, chunk - request->first);
}

static bool asked_of(const struct exchange_peer *peer, const struct fetch *fetch, uint32_t chunk,
                     const struct request *except)
{
    const struct request *request;
    TAILQ_FOREACH (request, &peer->asking.requests, link) {
        if (request != except && request->source->fetch == fetch && transfer_hedge_contains(request, chunk))
            return true;
    }
    return false;
}

bool transfer_hedge_asked_of(const struct source *source, uint32_t chunk)
{
    return source->peer && asked_of(source->peer, source->fetch, chunk, NULL);
}

bool transfer_hedge_asked_elsewhere(struct fetch *fetch, uint32_t chunk, const struct request *except)
{
    const struct exchange_peer *peer;
    TAILQ_FOREACH (peer, &fetch->exchange->asked, asking.of_asked) {
        if (asked_of(peer, fetch, chunk, except))
            return true;
    }
    return false;
}

/* ---- late ---- */

/* Let others have what has not come of the request; its peer may still be the first. */
static void offer(struct request *request)
{
    struct fetch *fetch = request->source->fetch;
    request->offered = true;
    for (uint32_t chunk = request->first; chunk < request->first + request->count; chunk++) {
        if (transfer_hedge_contains(request, chunk) && fetch->state[chunk] == CHUNK_ASKED)
            transfer_pick_offer(fetch, chunk);
    }
}

static uint64_t late_after_ms(const struct exchange_peer *peer)
{
    const struct asking *asking = &peer->asking;
    const struct fetch *fetch = TAILQ_FIRST(&asking->requests)->source->fetch;
    uint64_t least_ms = 2 * (uint64_t)peer->out.rtt_ms(peer->out.ctx) + LATE_MS;
    uint64_t usual_ms = transfer_latency_p90_ms(asking->answered ? &asking->next : &asking->first);
    if (usual_ms == 0)
        usual_ms = transfer_pick_is_crowd(fetch) && !asking->answered ? LATE_CROWD_MS : LATE_UNKNOWN_MS;
    if (usual_ms > LATE_MAX_MS)
        usual_ms = LATE_MAX_MS;
    if (asking->silences > 0)
        usual_ms = 0;
    return usual_ms > least_ms ? usual_ms : least_ms;
}

uint64_t transfer_hedge_tick(struct exchange_peer *peer)
{
    struct asking *asking = &peer->asking;
    uint64_t late_ms = asking->heard_ms + late_after_ms(peer);
    if (peer->exchange->now_ms < late_ms)
        return late_ms;
    asking->late = true;
    bool again = false;
    struct request *request;
    TAILQ_FOREACH (request, &asking->requests, link) {
        if (request->type != STORE_PIECE_CHUNK || request->dealing || request->offered)
            continue;
        if (request->source->fetch->n_free == 0 || (asking->stalled && !transfer_pick_is_crowd(request->source->fetch)))
            offer(request);
        else
            again = true; /* others have better things to do */
    }
    return again ? peer->exchange->now_ms + LATE_MS : UINT64_MAX;
}

/* ---- the end ---- */

static bool could_give(const struct source *source, const struct request *request)
{
    for (uint32_t chunk = request->first; chunk < request->first + request->count; chunk++) {
        if (transfer_hedge_contains(request, chunk) && source->fetch->state[chunk] == CHUNK_ASKED &&
            transfer_source_holds(source, chunk))
            return true;
    }
    return false;
}

/* How long this source would need for the request; of one that was never measured it is hoped that it is no slower. */
static uint64_t own_ms(const struct source *source, const struct exchange_peer *other, const struct request *request)
{
    const struct exchange_peer *peer = source->peer;
    if (peer->asking.goodput.rate == 0)
        return transfer_schedule_expect_ms(other, 0, request->bytes);
    return transfer_schedule_expect_ms(peer, peer->asking.asked_bytes, request->bytes);
}

/* Of the requests to `other`, the one that comes last, if this source would have it in less than half that time. */
static struct request *find_slow(const struct source *source, const struct exchange_peer *other, uint64_t *ret_ms)
{
    struct request *slow = NULL;
    uint64_t ahead = 0;
    struct request *request;
    TAILQ_FOREACH (request, &other->asking.requests, link) {
        uint64_t theirs = transfer_schedule_expect_ms(other, ahead, request->bytes);
        uint64_t mine = own_ms(source, other, request);
        ahead += request->bytes;
        if (request->source->fetch == source->fetch && request->type == STORE_PIECE_CHUNK && !request->dealing &&
            !request->offered && theirs > 2 * mine + SLACK_MS && could_give(source, request)) {
            slow = request;
            *ret_ms = theirs;
        }
    }
    return slow;
}

bool transfer_hedge_take_over(struct source *source)
{
    struct fetch *fetch = source->fetch;
    struct request *slowest = NULL;
    uint64_t slowest_ms = 0;
    const struct exchange_peer *other;
    if (fetch->n_free > 0)
        return false;
    TAILQ_FOREACH (other, &fetch->exchange->asked, asking.of_asked) {
        if (other == source->peer)
            continue;
        uint64_t ms = 0;
        struct request *slow = find_slow(source, other, &ms);
        if (slow && ms > slowest_ms) {
            slowest = slow;
            slowest_ms = ms;
        }
    }
    if (slowest)
        offer(slowest);
    return slowest;
}

static bool is_needed(const struct request *request)
{
    const uint8_t *state = request->source->fetch->state;
    for (uint32_t chunk = request->first; chunk < request->first + request->count; chunk++) {
        if (transfer_hedge_contains(request, chunk) && state[chunk] <= CHUNK_ASKED)
            return true;
    }
    return false;
}

void transfer_hedge_settled(struct fetch *fetch, uint32_t chunk)
{
    have_clear(fetch->offered_bits, chunk);
    if (!have_get(fetch->doubled_bits, chunk))
        return;
    have_clear(fetch->doubled_bits, chunk);
    struct exchange_peer *peer = TAILQ_FIRST(&fetch->exchange->asked);
    for (struct exchange_peer *next_peer; peer; peer = next_peer) {
        next_peer = TAILQ_NEXT(peer, asking.of_asked); /* who has no requests any more is not asked */
        struct request *request = TAILQ_FIRST(&peer->asking.requests);
        for (struct request *next; request; request = next) {
            next = TAILQ_NEXT(request, link);
            if (request->source->fetch == fetch && transfer_hedge_contains(request, chunk) && !is_needed(request))
                transfer_schedule_drop(request, true);
        }
    }
}
