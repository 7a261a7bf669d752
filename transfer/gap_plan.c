#include "transfer/gap_plan.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"
#include "node/base/scope.h"
#include "transfer/have.h"

#define NO_MATCH UINT32_MAX
/* Around a range whose middle is guessed: an insertion and a deletion inside one gap shift what is between them. */
#define MARGIN_BYTES (16u << 10)
#define MARGIN_MAX_BYTES (256u << 10)
#define DRIFT_SHIFT 6 /* far from any match the margin grows by a 64th of the distance */
#define RATIO_MAX 4   /* a range more than so much longer or shorter than its gap is of something else */

/* How sure a range is, best last. */
enum footing { FOOTING_NONE, FOOTING_FAR, FOOTING_ONE_SIDE, FOOTING_BOTH_SIDES };

/* The chunks of one basis, and where those of the object are in it. */
struct matching {
    const struct store_recipe *basis;
    uint8_t number;  /* of the basis */
    uint32_t *match; /* owned; of each chunk of the object: the chunk of the basis, or NO_MATCH */
    uint32_t left;   /* cursors of one walk over the object: the end of the last match before it, */
    uint32_t seen;   /* as far as was looked for that, */
    uint32_t right;  /* and the next match after it */
};

/* Bytes of the object without what they are compared with, and the two guesses where that is. */
struct stretch {
    uint64_t start;
    uint64_t end;
    int64_t by_left;  /* place of `start` in the basis, by the nearest match on the left */
    int64_t by_right; /* place of `end`, by the one on the right */
    uint64_t left_distance;
    uint64_t right_distance;
};

void transfer_gap_plan_release(struct gap_plan *plan)
{
    free(STEAL(plan->gaps));
    plan->n = 0;
}

struct gap *transfer_gap_plan_find(const struct gap_plan *plan, uint32_t chunk)
{
    size_t low = 0;
    size_t high = plan->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct gap *gap = &plan->gaps[middle];
        if (chunk < gap->first)
            high = middle;
        else if (chunk - gap->first >= gap->count)
            low = middle + 1;
        else
            return gap;
    }
    return NULL;
}

/* ---- matches ---- */

static int compare_ids(const void *a, const void *b, void *ctx)
{
    const struct store_chunk *chunks = ctx;
    return id_compare(&chunks[*(const uint32_t *)a].id, &chunks[*(const uint32_t *)b].id);
}

/* The only chunk of the basis with this id; NO_MATCH if there is none, or more than one. */
static uint32_t find_only(const struct store_recipe *basis, const uint32_t *order, const struct id *id)
{
    uint32_t n = basis->root.chunk_count;
    uint32_t low = 0;
    uint32_t high = n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (id_compare(&basis->chunks[order[middle]].id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == n || !id_equal(&basis->chunks[order[low]].id, id))
        return NO_MATCH;
    bool again = low + 1 < n && id_equal(&basis->chunks[order[low + 1]].id, id);
    return again ? NO_MATCH : order[low];
}

static bool is_chunk(const struct store_recipe *basis, uint32_t at, const struct id *id)
{
    return at < basis->root.chunk_count && id_equal(&basis->chunks[at].id, id);
}

static void match_all(const struct store_recipe *recipe, const struct store_recipe *basis, const uint32_t *order,
                      uint32_t *match)
{
    uint32_t n = recipe->root.chunk_count;
    for (uint32_t i = 0; i < n; i++) {
        const struct id *id = &recipe->chunks[i].id;
        bool goes_on = i > 0 && match[i - 1] != NO_MATCH && is_chunk(basis, match[i - 1] + 1, id);
        match[i] = goes_on ? match[i - 1] + 1 : find_only(basis, order, id);
    }
    for (uint32_t i = n; i-- > 1;) {
        if (match[i - 1] == NO_MATCH && match[i] != NO_MATCH && match[i] > 0 &&
            is_chunk(basis, match[i] - 1, &recipe->chunks[i - 1].id))
            match[i - 1] = match[i] - 1;
    }
}

static bool is_solid(const uint32_t *match, uint32_t n, uint32_t i)
{
    return (i > 0 && match[i - 1] != NO_MATCH && match[i - 1] + 1 == match[i]) ||
           (i + 1 < n && match[i + 1] == match[i] + 1);
}

/* A match of one chunk alone counts only if it lies between the solid ones around it: runs of zeros of one length, say,
 * occur here and there. */
static void drop_strays(uint32_t *match, uint32_t n, uint32_t n_basis)
{
    uint32_t after = 0; /* no solid match before this chunk is after it */
    int64_t last = -1;
    int64_t next = n_basis;
    for (uint32_t i = 0; i < n; i++) {
        if (match[i] == NO_MATCH)
            continue;
        if (is_solid(match, n, i)) {
            last = match[i];
            continue;
        }
        if (after <= i) {
            for (after = i + 1; after < n && (match[after] == NO_MATCH || !is_solid(match, n, after));)
                after++;
            next = after < n ? match[after] : n_basis;
        }
        if (last < next && (match[i] <= last || match[i] >= next))
            match[i] = NO_MATCH;
    }
}

static int make_matching(const struct store_recipe *recipe, const struct store_recipe *basis, uint8_t number,
                         struct matching *ret_matching)
{
    uint32_t n = basis->root.chunk_count;
    OWNED(owned_free) uint32_t *order = malloc(((size_t)n + 1) * sizeof *order);
    uint32_t *match = malloc(((size_t)recipe->root.chunk_count + 1) * sizeof *match);
    if (!order || !match) {
        free(match);
        return ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    qsort_r(order, n, sizeof *order, compare_ids, basis->chunks);
    match_all(recipe, basis, order, match);
    drop_strays(match, recipe->root.chunk_count, n);
    *ret_matching = (struct matching){.basis = basis, .number = number, .match = match};
    return 0;
}

/* ---- ranges ---- */

static uint64_t chunk_end(const struct store_recipe *recipe, uint32_t chunk)
{
    return recipe->offsets[chunk] + recipe->chunks[chunk].length;
}

/* Move on to the run of chunks `first` to `end` - 1, which lies behind those of former calls. */
static void seek(struct matching *matching, uint32_t n_chunks, uint32_t first, uint32_t end)
{
    for (; matching->seen < first; matching->seen++) {
        if (matching->match[matching->seen] != NO_MATCH)
            matching->left = matching->seen + 1;
    }
    if (matching->right < end)
        matching->right = end;
    while (matching->right < n_chunks && matching->match[matching->right] == NO_MATCH)
        matching->right++;
}

/* Both neighbours of the run, carried over to its edges. */
static struct stretch locate(const struct store_recipe *recipe, struct matching *matching, uint32_t first, uint32_t end)
{
    const struct store_recipe *basis = matching->basis;
    uint32_t n = recipe->root.chunk_count;
    seek(matching, n, first, end);
    struct stretch stretch = {.start = recipe->offsets[first], .end = chunk_end(recipe, end - 1)};
    uint32_t left = matching->left;
    uint64_t known = left > 0 ? chunk_end(recipe, left - 1) : 0;
    uint64_t place = left > 0 ? chunk_end(basis, matching->match[left - 1]) : 0;
    stretch.left_distance = stretch.start - known;
    stretch.by_left = (int64_t)(place + stretch.left_distance);
    uint32_t right = matching->right;
    known = right < n ? recipe->offsets[right] : recipe->root.size_bytes;
    place = right < n ? basis->offsets[matching->match[right]] : basis->root.size_bytes;
    stretch.right_distance = known - stretch.end;
    stretch.by_right = (int64_t)place - (int64_t)stretch.right_distance;
    return stretch;
}

/* Do the two sides agree on a range of a likely length? */
static bool is_plausible(const struct stretch *stretch)
{
    int64_t length = (int64_t)(stretch->end - stretch->start);
    int64_t between = stretch->by_right - stretch->by_left;
    return between * RATIO_MAX > length && between < length * RATIO_MAX;
}

static enum footing judge(const struct stretch *stretch)
{
    bool left = stretch->left_distance == 0;
    bool right = stretch->right_distance == 0;
    if (is_plausible(stretch))
        return left && right ? FOOTING_BOTH_SIDES : FOOTING_FAR;
    if (left && right && stretch->by_right >= stretch->by_left)
        return FOOTING_NONE; /* what is between them in the object is new, or what was between them is gone */
    return left || right ? FOOTING_ONE_SIDE : FOOTING_NONE;
}

static int64_t clip(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* The range for the bytes from..to of the stretch. */
static void set_range(const struct stretch *stretch, enum footing footing, const struct store_recipe *basis,
                      uint64_t from, uint64_t to, struct gap *gap)
{
    int64_t left = stretch->by_left + (int64_t)(from - stretch->start);
    int64_t right = stretch->by_right - (int64_t)(stretch->end - to);
    int64_t length = (int64_t)(to - from);
    int64_t low = left < right - length ? left : right - length;
    int64_t high = right > left + length ? right : left + length;
    if (footing == FOOTING_ONE_SIDE || high - low > (int64_t)LIMIT_GAP_BASIS_BYTES) {
        bool trust_left = stretch->left_distance <= stretch->right_distance;
        low = trust_left ? left : right - length;
        high = low + length;
    }
    uint64_t distance =
        stretch->left_distance < stretch->right_distance ? stretch->left_distance : stretch->right_distance;
    int64_t margin = clip((int64_t)(MARGIN_BYTES + (distance >> DRIFT_SHIFT)), 0, MARGIN_MAX_BYTES);
    int64_t first = footing == FOOTING_BOTH_SIDES ? stretch->by_left : 0;
    int64_t last = footing == FOOTING_BOTH_SIDES ? stretch->by_right : (int64_t)basis->root.size_bytes;
    low = clip(low - margin, first, last);
    high = clip(high + margin, low, last);
    gap->range_offset = (uint64_t)low;
    gap->range_bytes = (uint32_t)clip(high - low, 0, LIMIT_GAP_BASIS_BYTES);
}

/* ---- gaps ---- */

static int add_gap(struct gap_plan *plan, size_t *cap, const struct gap *gap)
{
    if (plan->n == *cap) {
        size_t more = *cap ? 2 * *cap : 64;
        struct gap *gaps = reallocarray(plan->gaps, more, sizeof *gaps);
        if (!gaps)
            return ERR_NOMEM;
        plan->gaps = gaps;
        *cap = more;
    }
    plan->gaps[plan->n++] = *gap;
    return 0;
}

/* Cut the run of missing chunks first..end - 1 into gaps against the basis that fits best there. */
static int add_run(struct gap_plan *plan, size_t *cap, const struct store_recipe *recipe, struct matching *matchings,
                   unsigned n_bases, uint32_t first, uint32_t end)
{
    enum footing footing = FOOTING_NONE;
    struct stretch stretch = {0};
    const struct matching *best = NULL;
    for (unsigned i = 0; i < n_bases; i++) {
        struct stretch candidate = locate(recipe, &matchings[i], first, end);
        enum footing sure = judge(&candidate);
        if (sure > footing) {
            footing = sure;
            stretch = candidate;
            best = &matchings[i];
        }
    }
    struct gap gap = {.basis = best ? best->number : 0};
    int status = 0;
    for (uint32_t at = first; footing != FOOTING_NONE && at < end && status == 0; at += gap.count) {
        gap.first = at;
        gap.count = 1;
        gap.bytes = recipe->chunks[at].length;
        while (at + gap.count < end && gap.count < GAP_CHUNKS_MAX &&
               gap.bytes + recipe->chunks[at + gap.count].length <= LIMIT_GAP_BYTES)
            gap.bytes += recipe->chunks[at + gap.count++].length;
        uint64_t from = recipe->offsets[at];
        set_range(&stretch, footing, best->basis, from, from + gap.bytes, &gap);
        if (gap.range_bytes > 0)
            status = add_gap(plan, cap, &gap);
    }
    return status;
}

static int add_all(struct gap_plan *plan, const struct store_recipe *recipe, const uint8_t *missing,
                   struct matching *matchings, unsigned n_bases)
{
    size_t cap = 0;
    int status = 0;
    uint32_t n = recipe->root.chunk_count;
    for (uint32_t first = 0, end; first < n && status == 0; first = end) {
        end = first + 1;
        if (!have_get(missing, first))
            continue;
        while (end < n && have_get(missing, end))
            end++;
        status = add_run(plan, &cap, recipe, matchings, n_bases, first, end);
    }
    return status;
}

int transfer_gap_plan(const struct store_recipe *recipe, const uint8_t *missing,
                      const struct store_recipe *const *bases, unsigned n_bases, struct gap_plan *ret_plan)
{
    struct matching *matchings = calloc((size_t)n_bases + 1, sizeof *matchings);
    struct gap_plan plan = {0};
    int status = matchings ? 0 : ERR_NOMEM;
    unsigned n = 0;
    for (unsigned i = 0; i < n_bases && status == 0; i++) {
        if (bases[i]->root.chunking == recipe->root.chunking)
            status = make_matching(recipe, bases[i], (uint8_t)i, &matchings[n++]);
    }
    if (status == 0)
        status = add_all(&plan, recipe, missing, matchings, n);
    for (unsigned i = 0; i < n; i++)
        free(matchings[i].match);
    free(matchings);
    if (status == 0)
        *ret_plan = plan;
    else
        transfer_gap_plan_release(&plan);
    return status;
}
