/*
 * The records of one key. Few: an array by member, which is all that most keys ever need. Many: two order-statistic
 * trees, so that neither a put nor a page of a large set looks at more than a few rows.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define FEW 32

/* One row of many. */
struct place {
    struct tree_node by_member;
    struct tree_node by_score; /* lowest first */
    struct dht_row *row;       /* owned */
};

struct dht_many {
    struct tree by_member;
    struct tree by_score;
};

/* ---- one row ---- */

struct dht_row *dht_row_new(const struct id *member, const uint8_t *bytes, size_t len_bytes, bool vouched)
{
    struct dht_span brief = dht_record_brief(bytes, len_bytes);
    struct dht_row *row = malloc(sizeof *row + brief.len);
    if (!row)
        return NULL;
    *row = (struct dht_row){.member = *member, .vouched = vouched, .len = (uint16_t)brief.len};
    memcpy(row->brief, brief.at, brief.len);
    return row;
}

size_t dht_row_bytes(const struct dht_held *held, const struct dht_row *row, uint8_t ret_bytes[LIMIT_DHT_RECORD_BYTES])
{
    return dht_record_unbrief(&held->key, &(struct dht_span){row->brief, row->len}, ret_bytes);
}

void dht_row_decode(const struct dht_held *held, const struct dht_row *row, struct dht_record *ret_record)
{
    uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
    dht_record_decode(bytes, dht_row_bytes(held, row, bytes), ret_record);
}

static uint64_t score_of(const struct dht_row *row)
{
    return dht_brief_rank(row->brief, &row->member, DHT_BY_SCORE_LOW, NULL).major;
}

/* ---- many ---- */

#define BY_MEMBER(node) TREE_OF(node, struct place, by_member)
#define BY_SCORE(node) TREE_OF(node, struct place, by_score)

static int compare_members(void *ctx, const struct tree_node *a, const struct tree_node *b)
{
    (void)ctx;
    return id_compare(&BY_MEMBER(a)->row->member, &BY_MEMBER(b)->row->member);
}

static int compare_scores(void *ctx, const struct tree_node *a, const struct tree_node *b)
{
    const struct dht_row *row_a = BY_SCORE(a)->row, *row_b = BY_SCORE(b)->row;
    uint64_t score_a = score_of(row_a), score_b = score_of(row_b);
    (void)ctx;
    return score_a != score_b ? (score_a < score_b ? -1 : 1) : id_compare(&row_a->member, &row_b->member);
}

static int probe_member(const void *key, const struct tree_node *node)
{
    return id_compare(key, &BY_MEMBER(node)->row->member);
}

/* The place of a rank by lowest score. */
static int probe_rank(const void *key, const struct tree_node *node)
{
    const struct dht_row *row = BY_SCORE(node)->row;
    struct dht_rank rank = {.major = score_of(row), .member = row->member};
    return dht_rank_compare(key, &rank);
}

/* All of one score. */
static int probe_score(const void *key, const struct tree_node *node)
{
    uint64_t sought, score = score_of(BY_SCORE(node)->row);
    memcpy(&sought, key, sizeof sought);
    return sought < score ? -1 : sought > score;
}

static void many_replace(struct dht_many *many, struct place *place, struct dht_row *row)
{
    tree_remove(&many->by_score, &place->by_score);
    free(place->row);
    place->row = row;
    tree_insert(&many->by_score, &place->by_score);
}

static int many_set(struct dht_many *many, struct dht_row *row)
{
    struct place *place = BY_MEMBER(tree_find(&many->by_member, probe_member, &row->member));
    if (place) {
        many_replace(many, place, row);
        return 0;
    }
    place = malloc(sizeof *place);
    if (!place)
        return ERR_NOMEM;
    place->row = row;
    tree_insert(&many->by_member, &place->by_member);
    tree_insert(&many->by_score, &place->by_score);
    return 0;
}

static void many_remove(struct dht_many *many, const struct id *member)
{
    struct place *place = BY_MEMBER(tree_find(&many->by_member, probe_member, member));
    tree_remove(&many->by_member, &place->by_member);
    tree_remove(&many->by_score, &place->by_score);
    free(place->row);
    free(place);
}

/* The rows stay where they are; only their places go. */
static void forget_places(struct dht_many *many)
{
    struct place *place;
    while ((place = BY_MEMBER(many->by_member.root))) {
        tree_remove(&many->by_member, &place->by_member);
        free(place);
    }
    free(many);
}

/* From few to many; they are never few again, or a set around the limit would be rebuilt all the time. */
static int spread(struct dht_held *held)
{
    struct dht_many *many = calloc(1, sizeof *many);
    if (!many)
        return ERR_NOMEM;
    tree_init(&many->by_member, compare_members, NULL);
    tree_init(&many->by_score, compare_scores, NULL);
    for (uint32_t i = 0; i < held->count; i++)
        if (many_set(many, held->few[i]) < 0) {
            forget_places(many);
            return ERR_NOMEM;
        }
    free(held->few);
    held->few = NULL;
    held->cap = 0;
    held->many = many;
    return 0;
}

/* ---- few ---- */

/* The first row that is not before the member. */
static uint32_t few_at(const struct dht_held *held, const struct id *member)
{
    uint32_t low = 0, high = held->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (id_compare(&held->few[middle]->member, member) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int few_insert(struct dht_held *held, uint32_t at, struct dht_row *row)
{
    if (held->count == held->cap) {
        uint32_t cap = held->cap ? held->cap * 2 : 1;
        struct dht_row **few = realloc(held->few, cap * sizeof *few);
        if (!few)
            return ERR_NOMEM;
        held->few = few;
        held->cap = cap;
    }
    memmove(held->few + at + 1, held->few + at, (held->count - at) * sizeof *held->few);
    held->few[at] = row;
    return 0;
}

/* ---- both ---- */

static struct dht_row *row_at(const struct dht_held *held, size_t rank)
{
    if (rank >= held->count)
        return NULL;
    return held->many ? BY_MEMBER(tree_at(&held->many->by_member, rank))->row : held->few[rank];
}

void dht_rows_release(struct dht_held *held)
{
    struct place *place;
    while (held->many && (place = BY_MEMBER(held->many->by_member.root))) {
        tree_remove(&held->many->by_member, &place->by_member);
        free(place->row);
        free(place);
    }
    for (uint32_t i = 0; held->few && i < held->count; i++)
        free(held->few[i]);
    free(held->few);
    free(held->many);
    held->few = NULL;
    held->many = NULL;
    held->count = held->cap = 0;
}

struct dht_row *dht_rows_find(const struct dht_held *held, const struct id *member)
{
    if (held->many) {
        struct place *place = BY_MEMBER(tree_find(&held->many->by_member, probe_member, member));
        return place ? place->row : NULL;
    }
    struct dht_row *row = row_at(held, few_at(held, member));
    return row && id_equal(&row->member, member) ? row : NULL;
}

/* How many rows are of members up to this one. */
static size_t rank_after(const struct dht_held *held, const struct id *member)
{
    if (!member)
        return 0;
    if (held->many)
        return tree_upper(&held->many->by_member, probe_member, member);
    uint32_t at = few_at(held, member);
    return at < held->count && id_equal(&held->few[at]->member, member) ? at + 1 : at;
}

struct dht_row *dht_rows_after(const struct dht_held *held, const struct id *member)
{
    return row_at(held, rank_after(held, member));
}

int dht_rows_set(struct dht_held *held, struct dht_row *row)
{
    bool replaces = dht_rows_find(held, &row->member);
    if (!held->many && !replaces && held->count == FEW && spread(held) < 0)
        return ERR_NOMEM;
    int status = 0;
    uint32_t at = held->many ? 0 : few_at(held, &row->member);
    if (held->many) {
        status = many_set(held->many, row);
    } else if (replaces) {
        free(held->few[at]);
        held->few[at] = row;
    } else {
        status = few_insert(held, at, row);
    }
    held->count += status == 0 && !replaces;
    return status;
}

void dht_rows_remove(struct dht_held *held, const struct id *member)
{
    if (!dht_rows_find(held, member))
        return;
    if (held->many) {
        many_remove(held->many, member);
    } else {
        uint32_t at = few_at(held, member);
        free(held->few[at]);
        memmove(held->few + at, held->few + at + 1, (held->count - at - 1) * sizeof *held->few);
    }
    held->count--;
}

/* ---- walks ---- */

typedef bool (*row_cb)(void *ctx, struct dht_row *row);

/* By member, from this rank on. */
static void each_from(const struct dht_held *held, size_t rank, row_cb cb, void *ctx)
{
    struct tree_cursor cursor;
    if (!held->many) {
        while (rank < held->count && cb(ctx, held->few[rank]))
            rank++;
        return;
    }
    struct tree_node *node = tree_seek(&held->many->by_member, &cursor, rank);
    while (node && cb(ctx, BY_MEMBER(node)->row))
        node = tree_next(&cursor);
}

struct digesting {
    uint64_t wall_ms;
    uint64_t until_wall_ms;
    size_t count;
    uint8_t *hashes; /* owned */
};

static bool add_hash(void *ctx, struct dht_row *row)
{
    struct digesting *digesting = ctx;
    uint64_t expiry_ms = dht_brief_expiry_ms(row->brief);
    if (expiry_ms <= digesting->wall_ms || row->brief[0] == DHT_NODE)
        return true;
    digesting->until_wall_ms = dht_min_ms(digesting->until_wall_ms, expiry_ms);
    if (!row->hashed)
        crypto_blake2b(row->hash, sizeof row->hash, NULL, 0, row->brief, row->len, NULL, 0);
    row->hashed = true;
    memcpy(digesting->hashes + digesting->count++ * sizeof row->hash, row->hash, sizeof row->hash);
    return true;
}

int dht_rows_digest(struct dht_held *held, uint64_t wall_ms, uint8_t ret_digest[DHT_DIGEST_BYTES],
                    uint64_t *ret_until_wall_ms)
{
    struct digesting digesting = {.wall_ms = wall_ms, .until_wall_ms = UINT64_MAX};
    memset(ret_digest, 0, DHT_DIGEST_BYTES);
    OWNED(owned_free) uint8_t *hashes = digesting.hashes = malloc((size_t)held->count * DHT_DIGEST_BYTES + 1);
    if (!hashes)
        return ERR_NOMEM;
    each_from(held, 0, add_hash, &digesting);
    *ret_until_wall_ms = digesting.until_wall_ms;
    if (digesting.count > 0)
        crypto_blake2b(ret_digest, DHT_DIGEST_BYTES, NULL, 0, hashes, digesting.count * DHT_DIGEST_BYTES, NULL, 0);
    return 0;
}

/* ---- picking ---- */

struct picking {
    const struct dht_pick *pick;
    struct dht_row **rows;
    struct dht_rank *ranks; /* owned by dht_rows_pick; only of orders that need a look at all */
    size_t count;
    size_t max;
};

static bool is_wanted(const struct dht_pick *pick, const struct dht_row *row)
{
    if (pick->work)
        ++*pick->work;
    if (dht_brief_expiry_ms(row->brief) <= pick->wall_ms || (pick->until && id_compare(&row->member, pick->until) > 0))
        return false;
    if (pick->order == DHT_BY_MEMBER)
        return true;
    bool cleared = pick->cleared_ms > 0 && dht_brief_version(row->brief).epoch <= pick->cleared_ms;
    return !cleared && !id_is_zero(&row->member);
}

/* Rows come in the order that is wanted. */
static bool append(void *ctx, struct dht_row *row)
{
    struct picking *picking = ctx;
    if (picking->pick->order == DHT_BY_MEMBER && picking->pick->until &&
        id_compare(&row->member, picking->pick->until) > 0)
        return false;
    if (is_wanted(picking->pick, row))
        picking->rows[picking->count++] = row;
    return picking->count < picking->max;
}

/* Rows come in any order, and the first ones stay. */
static bool insert(void *ctx, struct dht_row *row)
{
    struct picking *picking = ctx;
    const struct dht_pick *pick = picking->pick;
    struct dht_rank rank = dht_brief_rank(row->brief, &row->member, pick->order, pick->own);
    bool full = picking->count == picking->max;
    if (!is_wanted(pick, row) || (full && dht_rank_compare(&picking->ranks[picking->max - 1], &rank) < 0) ||
        (pick->after && dht_rank_compare(&rank, pick->after) <= 0))
        return true;
    size_t low = 0, high = picking->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (dht_rank_compare(&picking->ranks[middle], &rank) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == picking->max)
        return true;
    if (picking->count < picking->max)
        picking->count++;
    size_t behind = picking->count - low - 1;
    memmove(picking->ranks + low + 1, picking->ranks + low, behind * sizeof *picking->ranks);
    memmove(picking->rows + low + 1, picking->rows + low, behind * sizeof *picking->rows);
    picking->ranks[low] = rank;
    picking->rows[low] = row;
    return true;
}

static void pick_lowest(const struct dht_many *many, struct picking *picking)
{
    const struct tree *tree = &many->by_score;
    const struct dht_rank *after = picking->pick->after;
    struct tree_cursor cursor;
    struct tree_node *node = tree_seek(tree, &cursor, after ? tree_upper(tree, probe_rank, after) : 0);
    while (node && append(picking, BY_SCORE(node)->row))
        node = tree_next(&cursor);
}

/* All of the score just before this rank, upwards; returns the rank that they begin at. */
static size_t pick_group(const struct tree *tree, size_t end, struct picking *picking)
{
    struct tree_cursor cursor;
    struct dht_row *last = BY_SCORE(tree_seek(tree, &cursor, end - 1))->row;
    struct place *before = BY_SCORE(tree_prev(&cursor));
    uint64_t score = score_of(last);
    if (!before || score_of(before->row) != score) {
        append(picking, last);
        return end - 1;
    }
    size_t start = tree_lower(tree, probe_score, &score);
    struct tree_node *node = tree_seek(tree, &cursor, start);
    for (size_t rank = start; rank < end && picking->count < picking->max; rank++, node = tree_next(&cursor))
        append(picking, BY_SCORE(node)->row);
    return start;
}

/* From the highest score down, but the members of one score upwards, as in any order. */
static void pick_highest(const struct dht_many *many, struct picking *picking)
{
    const struct tree *tree = &many->by_score;
    const struct dht_rank *after = picking->pick->after;
    size_t end = tree_count(tree); /* of the scores that are left */
    if (after) {
        uint64_t score = ~after->major;
        struct dht_rank low = {.major = score, .member = after->member};
        struct tree_cursor cursor;
        end = tree_upper(tree, probe_score, &score);
        size_t rank = tree_upper(tree, probe_rank, &low);
        struct tree_node *node = tree_seek(tree, &cursor, rank);
        for (; node && rank < end && picking->count < picking->max; rank++, node = tree_next(&cursor))
            append(picking, BY_SCORE(node)->row);
        end = tree_lower(tree, probe_score, &score);
    }
    while (end > 0 && picking->count < picking->max)
        end = pick_group(tree, end, picking);
}

size_t dht_rows_pick(const struct dht_held *held, const struct dht_pick *pick, struct dht_row **ret_rows, size_t max)
{
    struct picking picking = {.pick = pick, .rows = ret_rows, .max = max};
    if (max == 0)
        return 0;
    if (pick->order == DHT_BY_MEMBER) {
        each_from(held, rank_after(held, pick->after ? &pick->after->member : NULL), append, &picking);
    } else if (held->many && pick->order == DHT_BY_SCORE_LOW) {
        pick_lowest(held->many, &picking);
    } else if (held->many && pick->order == DHT_BY_SCORE) {
        pick_highest(held->many, &picking);
    } else {
        OWNED(owned_free) struct dht_rank *ranks = picking.ranks = calloc(max, sizeof *ranks);
        if (ranks)
            each_from(held, 0, insert, &picking);
    }
    return picking.count;
}
