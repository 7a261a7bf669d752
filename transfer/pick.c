/*
 * Which run of chunks a source is asked for.
 *
 * Alone, in order. In a crowd, the rarest of some that are looked at in random places, so that all ask for different
 * things; a run goes on as long as what follows is not less rare. What nobody was asked for comes first, then what
 * somebody else is late with.
 *
 * And whether this source is the right one: not if another holder, at the rates measured, would be done with it sooner
 * behind all else that it has. What was measured decides over what was claimed; a claim decides only about a peer of
 * which nothing was measured, and about money.
 */
#include <math.h>

#include "node/base/limits.h"
#include "transfer/fetch.h"
#include "transfer/have.h"

#define LOOK_PLACES 8u /* that are compared for the rarest, */
#define LOOK_CHUNKS                                                                                                    \
    8u            /* and how many chunks in each: 64 random ones have one of the rarest twentieth with p = 0.96        \
                   */
#define ALIGN 16u /* places begin at multiples of it, so that runs meet */
#define CROWD_RUN_BYTES (256u << 10)
#define SLACK_MS 100u
#define OUTDONE_MS 40u /* somebody is better by more than SLACK_MS: for so long that does not change */
/* A chunk that a holder has dealt is on its way to somebody, and then at its neighbours', in about this time. */
#define SPREAD_MS 300u
#define AGAIN_MS 40u /* then one of those who miss it asks the holder twice in this time */

void transfer_pick_set(struct fetch *fetch, uint32_t chunk, enum chunk_state state)
{
    uint8_t *at = &fetch->state[chunk];
    if (*at == CHUNK_FREE && state != CHUNK_FREE) {
        have_clear(fetch->free_bits, chunk);
        fetch->n_free--;
    } else if (*at != CHUNK_FREE && state == CHUNK_FREE) {
        have_set(fetch->free_bits, chunk);
        have_clear(fetch->offered_bits, chunk);
        have_clear(fetch->doubled_bits, chunk);
        fetch->n_free++;
        fetch->n_freed++;
        fetch->exchange->look = true;
        if (chunk < fetch->low)
            fetch->low = chunk;
    }
    *at = (uint8_t)state;
}

void transfer_pick_asked(struct fetch *fetch, uint32_t chunk)
{
    if (fetch->state[chunk] == CHUNK_ASKED) {
        have_clear(fetch->offered_bits, chunk);
        have_set(fetch->doubled_bits, chunk);
    } else if (fetch->state[chunk] == CHUNK_FREE) {
        transfer_pick_set(fetch, chunk, CHUNK_ASKED);
    }
}

void transfer_pick_offer(struct fetch *fetch, uint32_t chunk)
{
    have_set(fetch->offered_bits, chunk);
    fetch->n_freed++;
    fetch->exchange->look = true;
}

bool transfer_pick_is_crowd(const struct fetch *fetch)
{
    return fetch->n_partial > 0 || fetch->n_watches > 0;
}

uint64_t transfer_pick_free_bytes(const struct fetch *fetch)
{
    return fetch->n_chunks ? (uint64_t)((double)fetch->total_bytes / fetch->n_chunks * fetch->n_free) : 0;
}

/* ---- which ---- */

/* What may be picked from. */
struct choice {
    const struct source *source;
    const uint8_t *set;  /* free, or offered */
    const uint8_t *held; /* by the source; NULL: all */
    bool offered;
};

static bool may_take(const struct choice *choice, uint32_t chunk)
{
    return have_get(choice->set, chunk) && (!choice->held || have_get(choice->held, chunk)) &&
           !(choice->offered && transfer_hedge_asked_of(choice->source, chunk));
}

static uint32_t next_of(const struct choice *choice, uint32_t chunk, uint32_t end)
{
    chunk = have_next(choice->set, choice->held, chunk, end);
    while (choice->offered && chunk < end && transfer_hedge_asked_of(choice->source, chunk))
        chunk = have_next(choice->set, choice->held, chunk + 1, end);
    return chunk;
}

static void look_at(const struct choice *choice, uint32_t first, uint32_t end, uint32_t *best, unsigned *n)
{
    const uint16_t *held_by = choice->source->fetch->held_by;
    uint32_t chunk = next_of(choice, first, end);
    for (; chunk < end && *n < LOOK_CHUNKS; chunk = next_of(choice, chunk + 1, end)) {
        if (*best == NO_CHUNK || held_by[chunk] < held_by[*best])
            *best = chunk;
        ++*n;
    }
}

static uint32_t pick_rarest(const struct choice *choice)
{
    struct fetch *fetch = choice->source->fetch;
    uint16_t rarest_possible = choice->held ? 1 : 0;
    uint32_t best = NO_CHUNK;
    for (unsigned i = 0; i < LOOK_PLACES; i++) {
        uint32_t from = (uint32_t)rng_below(&fetch->exchange->config.rng, fetch->n_chunks) / ALIGN * ALIGN;
        unsigned n = 0;
        look_at(choice, from, fetch->n_chunks, &best, &n);
        look_at(choice, 0, from, &best, &n);
        if (n < LOOK_CHUNKS || fetch->held_by[best] <= rarest_possible)
            break; /* those are all, or there is no rarer one */
    }
    return best;
}

static uint32_t pick_first(const struct choice *choice)
{
    struct fetch *fetch = choice->source->fetch;
    uint32_t n = fetch->n_chunks;
    fetch->low = have_next(fetch->free_bits, NULL, fetch->low, n);
    uint32_t chunk = next_of(choice, choice->offered ? 0 : fetch->low, n);
    return chunk < n ? chunk : NO_CHUNK;
}

/* The last pieces in small ones: each can go on from whoever has it as soon as it is there. */
static uint64_t most_in_crowd(const struct fetch *fetch, bool offered, uint64_t most)
{
    uint64_t share = transfer_pick_free_bytes(fetch) / (2 * (uint64_t)fetch->n_sources);
    uint64_t run = share < CROWD_RUN_BYTES && !offered ? share : CROWD_RUN_BYTES;
    return run < most ? run : most;
}

static struct pick extend(const struct choice *choice, uint32_t first, uint64_t most, bool crowd)
{
    const struct fetch *fetch = choice->source->fetch;
    const struct store_chunk *chunks = fetch->recipe->recipe->chunks;
    struct pick pick = {.first = first, .count = 1, .bytes = chunks[first].length};
    for (uint32_t next = first + 1; next < fetch->n_chunks && pick.count < LIMIT_RUN_CHUNKS; next++) {
        if (!may_take(choice, next) || pick.bytes + chunks[next].length > most ||
            (crowd && fetch->held_by[next] > fetch->held_by[first]))
            break;
        pick.bytes += chunks[next].length;
        pick.count++;
    }
    return pick;
}

/* A holder that has dealt everything: what nobody else has yet is most likely on its way to somebody. Should it be lost
 * with who got it, one of those who miss it is to ask again, not all at once. */
static bool is_still_spreading(struct source *source, uint32_t chunk)
{
    struct fetch *fetch = source->fetch;
    if (!source->dealt_out || fetch->held_by[chunk] > 0)
        return false;
    if (fetch->exchange->now_ms < source->spread_ms)
        return true;
    source->spread_ms =
        fetch->exchange->now_ms + rng_below(&fetch->exchange->config.rng, AGAIN_MS * (uint64_t)fetch->n_partial + 1);
    return false;
}

uint64_t transfer_pick_spread_ms(const struct fetch *fetch)
{
    return SPREAD_MS * (1 + rng_below(&fetch->exchange->config.rng, fetch->n_partial / 2 + 1));
}

bool transfer_pick_run(struct source *source, uint64_t most, struct pick *ret_pick)
{
    struct fetch *fetch = source->fetch;
    if (source->exhausted && source->exhausted_at == fetch->n_freed)
        return false;
    bool crowd = transfer_pick_is_crowd(fetch);
    if (crowd && fetch->n_free > 0 && fetch->exchange->now_ms < source->outdone_ms)
        return false;
    struct choice choice = {.source = source, .set = fetch->free_bits, .held = source->bits};
    uint32_t first = NO_CHUNK;
    if (source->state == SOURCE_WHOLE || source->bits) {
        first = crowd ? pick_rarest(&choice) : pick_first(&choice);
        if (first == NO_CHUNK) {
            choice.set = fetch->offered_bits;
            choice.offered = true;
            first = crowd ? pick_rarest(&choice) : pick_first(&choice);
        }
    }
    source->exhausted = first == NO_CHUNK;
    source->exhausted_at = fetch->n_freed;
    if (source->exhausted || (crowd && !choice.offered && is_still_spreading(source, first)))
        return false;
    *ret_pick = extend(&choice, first, crowd ? most_in_crowd(fetch, choice.offered, most) : most, crowd);
    if (transfer_pick_is_worthwhile(source, first, ret_pick->bytes))
        return true;
    source->outdone_ms = fetch->exchange->now_ms + OUTDONE_MS;
    return false;
}

/* ---- whether ---- */

/* The origin counts double, so that it is spared where others serve, and so does who asks for a unit of money a GiB. */
static double weight_of(const struct source *source)
{
    uint32_t price = source->peer->asking.price;
    return (source->origin ? 2 : 1) * (1 + (price < 7000 ? price : 7000) / 1000.0);
}

static bool is_rival(const struct source *other, const struct source *source, uint32_t chunk)
{
    return other != source &&
           (chunk == NO_CHUNK ? other->state == SOURCE_WHOLE : transfer_source_holds(other, chunk)) &&
           transfer_source_usable(other) && !other->peer->asking.late && other->peer->asking.goodput.rate > 0;
}

/* Bytes/s. Of one that was never measured it is hoped that it is as good as the others, less what it says is in use. */
static double rate_of(const struct source *source, double rivals_rate, unsigned n_rivals)
{
    const struct asking *asking = &source->peer->asking;
    if (asking->goodput.rate > 0 || n_rivals == 0)
        return (double)asking->goodput.rate;
    return rivals_rate / n_rivals * (256 - asking->load) / 256;
}

/* Weighted, for `bytes` behind all that it is asked for. If it is beyond `most_ms` in any case, perhaps too little. */
static double cost_ms(const struct source *source, double bytes, double rate, double most_ms)
{
    const struct exchange_peer *peer = source->peer;
    double weight = weight_of(source);
    double waiting_ms = rate > 0 ? ((double)peer->asking.asked_bytes + bytes) * 1000 / rate : 0;
    return (waiting_ms + (waiting_ms * weight < most_ms ? peer->out.rtt_ms(peer->out.ctx) : 0)) * weight;
}

/* Others are reckoned with their share of all that is still free. Whoever is the soonest of all never thinks that
 * another one is: so one of them takes the run. */
bool transfer_pick_is_worthwhile(const struct source *source, uint32_t chunk, uint64_t bytes)
{
    struct fetch *fetch = source->fetch;
    double free_bytes = (double)transfer_pick_free_bytes(fetch);
    double rivals_rate = 0;
    unsigned n_rivals = 0;
    const struct source *rivals[LIMIT_SESSIONS];
    const struct source *other;
    TAILQ_FOREACH (other, &fetch->sources, link) {
        if (!is_rival(other, source, chunk))
            continue;
        rivals_rate += (double)other->peer->asking.goodput.rate;
        rivals[n_rivals++] = other;
    }
    if (n_rivals == 0)
        return true;
    double rate = rate_of(source, rivals_rate, n_rivals);
    double mine_ms = cost_ms(source, (double)bytes, rate, INFINITY);
    for (unsigned i = 0; i < n_rivals; i++) {
        double other_rate = (double)rivals[i]->peer->asking.goodput.rate;
        double share = free_bytes * other_rate / (rivals_rate + rate);
        if (cost_ms(rivals[i], share + (double)bytes, other_rate, mine_ms) + SLACK_MS < mine_ms)
            return false;
    }
    return true;
}
