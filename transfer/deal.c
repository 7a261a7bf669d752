#include "transfer/deal.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"

#define ALIGN_CHUNKS 16u /* stretches begin at multiples of this where they can, so that few short ones remain */
#define RANGES_MAX 512u
#define UNIT_MS 64u

struct deal {
    TAILQ_ENTRY(deal)
    link;
    struct id root;
    uint32_t n_chunks;
    uint64_t used_ms;
    uint16_t sent[]; /* when, in UNIT_MS; 0: never */
};

void transfer_deal_init(struct deals *deals)
{
    *deals = (struct deals){0};
    TAILQ_INIT(&deals->list);
}

static void forget(struct deals *deals, struct deal *deal)
{
    TAILQ_REMOVE(&deals->list, deal, link);
    deals->n--;
    deals->chunks -= deal->n_chunks;
    free(deal);
}

void transfer_deal_release(struct deals *deals)
{
    while (!TAILQ_EMPTY(&deals->list))
        forget(deals, TAILQ_FIRST(&deals->list));
}

static struct deal *find(struct deals *deals, const struct id *root)
{
    struct deal *deal;
    TAILQ_FOREACH (deal, &deals->list, link) {
        if (id_equal(&deal->root, root))
            return deal;
    }
    return NULL;
}

static struct deal *add(struct deals *deals, const struct id *root, uint32_t n_chunks)
{
    while (!TAILQ_EMPTY(&deals->list) && (deals->n == LIMIT_DEALS || deals->chunks + n_chunks > LIMIT_DEAL_CHUNKS))
        forget(deals, TAILQ_LAST(&deals->list, deal_list));
    struct deal *deal =
        n_chunks <= LIMIT_DEAL_CHUNKS ? calloc(1, sizeof *deal + n_chunks * sizeof deal->sent[0]) : NULL;
    if (!deal)
        return NULL;
    deal->root = *root;
    deal->n_chunks = n_chunks;
    TAILQ_INSERT_HEAD(&deals->list, deal, link);
    deals->n++;
    deals->chunks += n_chunks;
    return deal;
}

/* What is remembered of this recipe, which is used now. NULL: no memory. */
static struct deal *use(struct deals *deals, const struct id *root, uint32_t n_chunks, uint64_t now_ms)
{
    struct deal *deal = find(deals, root);
    if (!deal)
        deal = add(deals, root, n_chunks);
    if (!deal)
        return NULL;
    if (now_ms - deal->used_ms > DEAL_IDLE_MS)
        memset(deal->sent, 0, deal->n_chunks * sizeof deal->sent[0]);
    deal->used_ms = now_ms;
    TAILQ_REMOVE(&deals->list, deal, link);
    TAILQ_INSERT_HEAD(&deals->list, deal, link);
    return deal;
}

/* ---- choosing ---- */

/* The ranges that can be served: in order, apart from each other, within the object. */
static size_t sift(const struct deal_wish *wish, struct deal_range ret_ranges[RANGES_MAX], uint64_t *ret_chunks)
{
    uint32_t end = 0;
    size_t n = 0;
    *ret_chunks = 0;
    for (size_t i = 0; i < wish->n_asked && n < RANGES_MAX; i++) {
        struct deal_range range = wish->asked[i];
        if (range.first < end || range.count == 0 || range.first > wish->n_chunks ||
            range.count > wish->n_chunks - range.first)
            continue;
        end = range.first + range.count;
        *ret_chunks += range.count;
        ret_ranges[n++] = range;
    }
    return n;
}

static uint16_t units(uint64_t now_ms)
{
    return (uint16_t)(now_ms / UNIT_MS % UINT16_MAX + 1);
}

/* What may be sent, if `again` also to those who miss it although it was. */
struct due {
    const struct deal *deal;
    uint16_t now;
    bool again;
};

static bool is_due(const struct due *due, uint32_t chunk)
{
    uint16_t sent = due->deal->sent[chunk];
    return sent == 0 || (due->again && (uint16_t)(due->now - sent) > DEAL_SPREAD_MS / UNIT_MS);
}

static bool next_due(const struct due *due, uint32_t from, uint32_t to, uint32_t *ret_chunk)
{
    while (from < to && !is_due(due, from))
        from++;
    *ret_chunk = from;
    return from < to;
}

/* The first chunk that is due from number `skip` of what is asked on, and then from the front. */
static bool land(const struct due *due, const struct deal_range *ranges, size_t n, uint64_t skip, size_t *ret_range,
                 uint32_t *ret_chunk)
{
    size_t i = 0;
    while (skip >= ranges[i].count)
        skip -= ranges[i++].count;
    for (size_t k = 0; k <= n; k++) {
        const struct deal_range *range = &ranges[(i + k) % n];
        uint32_t from = range->first + (k == 0 ? (uint32_t)skip : 0);
        if (next_due(due, from, range->first + range->count, ret_chunk)) {
            *ret_range = (i + k) % n;
            return true;
        }
    }
    return false;
}

static struct deal_range stretch_around(const struct due *due, const struct deal_wish *wish,
                                        const struct deal_range *range, uint32_t chunk)
{
    uint32_t aligned = chunk - chunk % ALIGN_CHUNKS;
    uint32_t low = aligned > range->first ? aligned : range->first;
    uint32_t first = chunk;
    while (first > low && is_due(due, first - 1))
        first--;
    uint64_t most = wish->size_bytes < LIMIT_RUN_BYTES ? wish->size_bytes : LIMIT_RUN_BYTES;
    uint64_t bytes = wish->chunks[first].length;
    uint32_t end = first + 1;
    while (end < range->first + range->count && end - first < LIMIT_RUN_CHUNKS && is_due(due, end) &&
           bytes + wish->chunks[end].length <= most)
        bytes += wish->chunks[end++].length;
    return (struct deal_range){first, end - first};
}

bool transfer_deal_choose(struct deals *deals, const struct deal_wish *wish, const struct rng *rng, uint64_t now_ms,
                          struct deal_range *ret_stretch)
{
    struct deal_range ranges[RANGES_MAX];
    uint64_t asked;
    size_t n = sift(wish, ranges, &asked);
    struct due due = {.deal = n > 0 ? use(deals, wish->root, wish->n_chunks, now_ms) : NULL, .now = units(now_ms)};
    if (!due.deal)
        return false;
    size_t range;
    uint32_t chunk;
    uint64_t skip = rng_below(rng, asked);
    if (!land(&due, ranges, n, skip, &range, &chunk)) {
        due.again = true;
        if (!land(&due, ranges, n, skip, &range, &chunk))
            return false;
    }
    *ret_stretch = stretch_around(&due, wish, &ranges[range], chunk);
    return true;
}

/* ---- remembering ---- */

void transfer_deal_mark(struct deals *deals, const struct id *root, uint32_t n_chunks, struct deal_range stretch,
                        uint64_t now_ms)
{
    struct deal *deal = use(deals, root, n_chunks, now_ms);
    for (uint32_t i = 0; deal && i < stretch.count; i++)
        deal->sent[stretch.first + i] = units(now_ms);
}

void transfer_deal_unmark(struct deals *deals, const struct id *root, struct deal_range stretch)
{
    struct deal *deal = find(deals, root);
    for (uint32_t i = 0; deal && i < stretch.count; i++)
        deal->sent[stretch.first + i] = 0;
}
