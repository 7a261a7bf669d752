/* What of a fetch is asked for as deltas, of whom, and the deltas as they come. */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "store/similar.h"
#include "transfer/gap.h"
#include "transfer/gap_code.h"
#include "transfer/have.h"

#define ASK_BYTES (4u << 20) /* of the object, in one request: others take other gaps */
#define REQUESTS_MAX 8u      /* on their way from one source: its signatures then are 0.5 MiB, seldom 1 */
#define LOOK_GAPS 256u
#define SIMILAR_BASES 2u
#define WORTH_SEARCHING_BYTES (64u << 10)
/* What a delta is expected to take, of the gap's bytes: an eighth, and its head. */
#define COST_SHIFT 3
#define COST_HEAD_BYTES 64u
/* When so much has come as deltas it is known whether they are worth it: not if they are longer than three quarters. */
#define TRIAL_BYTES (4u << 20)

/* ---- planning ---- */

void transfer_gaps_free(struct gaps *gaps)
{
    if (!gaps)
        return;
    for (unsigned i = 0; i < gaps->n_bases; i++) {
        store_recipe_free(gaps->loaded[i]);
        transfer_recipe_unref(gaps->bases[i]);
    }
    transfer_gap_plan_release(&gaps->plan);
    free(gaps->state);
    free(gaps);
}
OWNED_DEFINE(owned_gaps, struct gaps, transfer_gaps_free)

static bool is_known(const struct gaps *gaps, const struct id *object)
{
    for (unsigned i = 0; i < gaps->n_bases; i++) {
        if (id_equal(&gaps->basis_ids[i], object))
            return true;
    }
    return false;
}

static void add_basis(struct gaps *gaps, const struct fetch *fetch, const struct id *object)
{
    struct store *store = fetch->exchange->config.store;
    struct store_recipe *recipe = NULL;
    if (gaps->n_bases == GAP_BASES || id_equal(object, &fetch->object) || is_known(gaps, object) ||
        store_object_stat(store, object, NULL, NULL) != 1 || store_recipe_load(store, object, &recipe, NULL) != 1)
        return;
    if (recipe->root.chunking != fetch->recipe->recipe->root.chunking || recipe->root.chunk_count == 0) {
        store_recipe_free(recipe);
        return;
    }
    gaps->loaded[gaps->n_bases] = recipe;
    gaps->basis_ids[gaps->n_bases++] = *object;
}

/* Nobody has named one that is here: the store may know. */
static void add_similar(struct gaps *gaps, const struct fetch *fetch)
{
    struct id similar[SIMILAR_BASES];
    int n = store_similar_find(fetch->exchange->config.store, fetch->recipe->recipe, similar, SIMILAR_BASES, NULL);
    for (int i = 0; i < n; i++)
        add_basis(gaps, fetch, &similar[i]);
}

static uint64_t missing_bytes(const struct fetch *fetch)
{
    return fetch->total_bytes - fetch->local_bytes;
}

static uint8_t *list_missing(const struct fetch *fetch)
{
    uint8_t *missing = have_new(fetch->n_chunks);
    for (uint32_t i = 0; missing && i < fetch->n_chunks; i++) {
        if (fetch->state[i] == CHUNK_FREE)
            have_set(missing, i);
    }
    return missing;
}

struct gaps *transfer_gaps_new(struct fetch *fetch)
{
    OWNED(owned_gaps) struct gaps *gaps = calloc(1, sizeof *gaps);
    OWNED(owned_free) uint8_t *missing = list_missing(fetch);
    if (!gaps || !missing || fetch->n_free == 0)
        return NULL;
    for (unsigned i = 0; i < fetch->n_bases; i++)
        add_basis(gaps, fetch, &fetch->bases[i]);
    if (gaps->n_bases == 0 && missing_bytes(fetch) >= WORTH_SEARCHING_BYTES)
        add_similar(gaps, fetch);
    const struct store_recipe *bases[GAP_BASES];
    memcpy(bases, gaps->loaded, sizeof bases);
    if (gaps->n_bases == 0 ||
        transfer_gap_plan(fetch->recipe->recipe, missing, bases, gaps->n_bases, &gaps->plan) < 0 || gaps->plan.n == 0 ||
        !(gaps->state = calloc(gaps->plan.n, sizeof *gaps->state)))
        return NULL;
    return STEAL(gaps);
}

void transfer_gaps_adopt(struct gaps *gaps, struct exchange *exchange)
{
    for (unsigned i = 0; gaps && i < gaps->n_bases; i++)
        gaps->bases[i] = transfer_recipes_add(exchange, STEAL(gaps->loaded[i]));
}

/* ---- asking ---- */

uint64_t transfer_gaps_cost(const struct gap *gap)
{
    return (gap->bytes >> COST_SHIFT) + COST_HEAD_BYTES;
}

static bool do_they_pay(const struct fetch *fetch)
{
    uint64_t gap_bytes = 0;
    uint64_t wire_bytes = 0;
    for (unsigned i = 0; i < EXCHANGE_CODECS; i++) {
        gap_bytes += fetch->deltas.gap_bytes[i];
        wire_bytes += fetch->deltas.wire_bytes[i];
    }
    return gap_bytes < TRIAL_BYTES || wire_bytes < gap_bytes / 4 * 3;
}

/* A gap of which a part has come from others, or is on its way, is one no more. */
static bool is_open(struct fetch *fetch, uint32_t number)
{
    struct gaps *gaps = fetch->gaps;
    const struct gap *gap = &gaps->plan.gaps[number];
    for (uint32_t chunk = gap->first; gaps->state[number] == GAP_OPEN && chunk < gap->first + gap->count; chunk++) {
        if (fetch->state[chunk] != CHUNK_FREE)
            transfer_gaps_give_up(gaps, number);
    }
    return gaps->state[number] == GAP_OPEN;
}

static bool may_ask(const struct source *source, uint32_t number)
{
    const struct gaps *gaps = source->fetch->gaps;
    const struct gap *gap = &gaps->plan.gaps[number];
    if (source->plain_bases >> gap->basis & 1 || !gaps->bases[gap->basis] || !is_open(source->fetch, number))
        return false;
    for (uint32_t chunk = gap->first; chunk < gap->first + gap->count; chunk++) {
        if (!transfer_source_holds(source, chunk))
            return false;
    }
    return true;
}

/* The first of some gaps that it may be asked for; plan.n: none. Alone, in order. In a crowd, from a random place, so
 * that all ask for different things. */
static size_t find_first(const struct source *source)
{
    struct fetch *fetch = source->fetch;
    struct gaps *gaps = fetch->gaps;
    size_t n = gaps->plan.n;
    while (gaps->low < n && !is_open(fetch, (uint32_t)gaps->low))
        gaps->low++;
    size_t from = gaps->low;
    if (from < n && transfer_pick_is_crowd(fetch))
        from += (size_t)rng_below(&fetch->exchange->config.rng, n - from);
    for (size_t i = 0; gaps->low < n && i < LOOK_GAPS && i < n - gaps->low; i++) {
        size_t number = from + i < n ? from + i : gaps->low + (from + i - n);
        if (may_ask(source, (uint32_t)number))
            return number;
    }
    return n;
}

/* That gap, and those behind it that may go along. */
static struct gap_request *collect(const struct source *source, size_t first, uint64_t most, uint64_t *ret_cost)
{
    const struct gap_plan *plan = &source->fetch->gaps->plan;
    struct gap_request *asked = calloc(1, sizeof *asked);
    uint64_t bytes = 0;
    uint64_t cost = 0;
    for (size_t i = first; asked && i < plan->n && i < first + LOOK_GAPS && asked->n < MESSAGE_GAPS_MAX; i++) {
        const struct gap *gap = &plan->gaps[i];
        uint64_t more = transfer_gaps_cost(gap);
        if (asked->n > 0 && (bytes + gap->bytes > ASK_BYTES || cost + more > most))
            break;
        if (gap->basis != plan->gaps[first].basis || !may_ask(source, (uint32_t)i))
            continue;
        asked->gaps[asked->n++] = (uint32_t)i;
        bytes += gap->bytes;
        cost += more;
    }
    *ret_cost = cost;
    return asked;
}

static void set_state(struct fetch *fetch, const struct gap *gap, enum chunk_state from, enum chunk_state to)
{
    for (uint32_t chunk = gap->first; chunk < gap->first + gap->count; chunk++) {
        if (fetch->state[chunk] == from)
            transfer_pick_set(fetch, chunk, to);
    }
}

static bool send_gaps(const struct request *request)
{
    const struct fetch *fetch = request->source->fetch;
    const struct gaps *gaps = fetch->gaps;
    const struct gap_request *asked = request->gaps;
    OWNED(buf_release) struct buf items = BUF(MESSAGE_GAPS_MAX * MESSAGE_GAP_BYTES);
    for (unsigned i = 0; i < asked->n; i++) {
        const struct gap *gap = &gaps->plan.gaps[asked->gaps[i]];
        transfer_message_put_gap(&items, &(struct message_gap){.first = gap->first,
                                                               .count = gap->count,
                                                               .offset = gap->range_offset,
                                                               .length = gap->range_bytes});
    }
    uint8_t basis = gaps->plan.gaps[asked->gaps[0]].basis;
    return !items.failed && transfer_peer_send(request->source->peer, &(struct message){.type = MESSAGE_GAPS,
                                                                                        .request = request->number,
                                                                                        .class = fetch->class,
                                                                                        .object = fetch->object,
                                                                                        .root = fetch->root,
                                                                                        .basis = gaps->basis_ids[basis],
                                                                                        .items = items.data,
                                                                                        .n_items = asked->n});
}

static unsigned count_requests(const struct source *source)
{
    unsigned n = 0;
    const struct request *request;
    TAILQ_FOREACH (request, &source->peer->asking.requests, link) {
        n += request->gaps && request->source == source;
    }
    return n;
}

/* The request for these gaps, which takes them. Returns what it may bring; 0: no memory, or nobody there. */
static uint64_t ask(struct source *source, struct gap_request *asked, uint64_t cost)
{
    struct fetch *fetch = source->fetch;
    struct gaps *gaps = fetch->gaps;
    struct request *request = transfer_schedule_add(source, STORE_PIECE_CHUNK, cost);
    if (!request) {
        free(asked);
        return 0;
    }
    const struct gap *last = &gaps->plan.gaps[asked->gaps[asked->n - 1]];
    request->gaps = asked;
    request->first = gaps->plan.gaps[asked->gaps[0]].first;
    request->count = last->first + last->count - request->first;
    for (unsigned i = 0; i < asked->n; i++) {
        gaps->state[asked->gaps[i]] = GAP_ASKED;
        set_state(fetch, &gaps->plan.gaps[asked->gaps[i]], CHUNK_FREE, CHUNK_ASKED);
    }
    return send_gaps(request) ? cost : 0;
}

bool transfer_gaps_ask(struct source *source, uint64_t most, uint64_t *ret_bytes)
{
    struct fetch *fetch = source->fetch;
    struct gaps *gaps = fetch->gaps;
    *ret_bytes = 0;
    if (!gaps || source->delta_failures >= GAP_FAILURES || !do_they_pay(fetch))
        return false;
    size_t first = find_first(source);
    if (first == gaps->plan.n)
        return false;
    const struct gap *gap = &gaps->plan.gaps[first];
    if (count_requests(source) >= REQUESTS_MAX ||
        !transfer_pick_is_worthwhile(source, gap->first, transfer_gaps_cost(gap)))
        return true;
    uint64_t cost = 0;
    struct gap_request *asked = collect(source, first, most, &cost);
    if (asked)
        *ret_bytes = ask(source, asked, cost);
    return asked;
}

bool transfer_gaps_contains(const struct request *request, uint32_t chunk)
{
    const struct gap_request *asked = request->gaps;
    const struct gap_plan *plan = &request->source->fetch->gaps->plan;
    unsigned low = 0; /* gaps of a request are in order */
    unsigned high = asked->n;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        const struct gap *gap = &plan->gaps[asked->gaps[middle]];
        if (chunk < gap->first)
            high = middle;
        else if (chunk - gap->first >= gap->count)
            low = middle + 1;
        else
            return !(asked->came >> middle & 1);
    }
    return false;
}

void transfer_gaps_drop(struct request *request)
{
    struct gap_request *asked = request->gaps;
    if (!asked)
        return;
    struct gaps *gaps = request->source->fetch->gaps;
    for (unsigned i = 0; i < asked->n; i++) {
        uint32_t number = asked->gaps[i];
        if (asked->came >> i & 1 || gaps->state[number] != GAP_ASKED)
            continue;
        gaps->state[number] = GAP_OPEN;
        if (number < gaps->low)
            gaps->low = number;
    }
    free(STEAL(request->gaps));
}

void transfer_gaps_give_up(struct gaps *gaps, uint32_t gap)
{
    gaps->state[gap] = GAP_PLAIN;
}

/* ---- deltas as they come ---- */

/* Is the delta one that was asked for, of the right length? */
static bool is_expected(const struct request *request, const struct message *message)
{
    uint32_t i = message->index;
    if (request->by_basis)
        return i < request->count && !have_get(request->came, i) && message->raw_bytes <= STORE_LEAF_MAX_BYTES &&
               message->stored_bytes <= transfer_gap_bound(STORE_LEAF_MAX_BYTES);
    const struct gap_request *asked = request->gaps;
    if (!asked || i >= asked->n || asked->came >> i & 1)
        return false;
    uint32_t bytes = request->source->fetch->gaps->plan.gaps[asked->gaps[i]].bytes;
    return message->raw_bytes == bytes && message->stored_bytes <= transfer_gap_bound(bytes);
}

int transfer_gaps_delta(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct request *request = transfer_receive_find(peer, message->request);
    if (!request)
        return transfer_receive_stray(peer, message->request, message->n_items, err);
    if (request->arrival.data)
        return err_set(err, ERR_PROTOCOL, "a delta begins inside another");
    if (!is_expected(request, message)) {
        transfer_source_lied(request->source, "sent a delta that was not asked for, or of a wrong length");
        return 0;
    }
    return transfer_receive_begin(request, message->index, message->codec, message, err);
}

/* It was reckoned with `cost` bytes. */
static void settle_pace(struct exchange_peer *peer, uint8_t class, uint64_t cost, uint64_t stored_bytes)
{
    if (stored_bytes > cost)
        transfer_peer_take(peer, PACE_DOWN, class, stored_bytes - cost);
    else
        transfer_peer_give_back(peer, PACE_DOWN, class, cost - stored_bytes);
}

void transfer_gaps_arrived(struct request *request, struct arrival *arrival)
{
    struct source *source = request->source;
    struct fetch *fetch = source->fetch;
    struct gap_request *asked = request->gaps;
    uint32_t number = asked->gaps[arrival->at];
    const struct gap *gap = &fetch->gaps->plan.gaps[number];
    uint64_t cost = transfer_gaps_cost(gap);
    struct arrived *arrived = calloc(1, sizeof *arrived);
    struct gap_arrival *delta = calloc(1, sizeof *delta);
    source->gone_in_a_row = 0;
    fetch->exchange->arrived_bytes += cost;
    asked->came |= 1ull << arrival->at;
    if (asked->came == UINT64_MAX >> (64 - asked->n))
        request->n_came = request->count;
    request->bytes -= cost; /* stays counted in fetch_bytes until its chunks are stored */
    source->peer->asking.asked_bytes -= cost;
    settle_pace(source->peer, fetch->class, cost, arrival->stored_bytes);
    if (!arrived || !delta) {
        free(arrived);
        free(delta);
        free(arrival->data);
        transfer_verify_settled(fetch, cost);
        set_state(fetch, gap, CHUNK_ASKED, CHUNK_FREE);
        transfer_gaps_give_up(fetch->gaps, number);
        return;
    }
    delta->gap = number;
    delta->codec = arrival->encoding;
    for (uint32_t i = 0; i < gap->count; i++) {
        if (fetch->state[gap->first + i] > CHUNK_ASKED) {
            fetch->duplicate_bytes += fetch->recipe->recipe->chunks[gap->first + i].length;
            continue;
        }
        have_set(delta->wanted, i);
        transfer_pick_set(fetch, gap->first + i, CHUNK_ARRIVED);
    }
    *arrived = (struct arrived){.source = source,
                                .chunk = gap->first,
                                .data = arrival->data,
                                .stored_bytes = arrival->stored_bytes,
                                .counted_bytes = cost,
                                .delta = delta};
    TAILQ_INSERT_TAIL(&fetch->arrived, arrived, link);
    for (uint32_t i = 0; i < gap->count; i++)
        transfer_hedge_settled(fetch, gap->first + i);
    transfer_verify_start(fetch);
}
