#include "store/similar.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

#define TABLE "similar"
#define NEW_AT_ONCE                                                                                                    \
    256u /* sketches made in a search: of 256 MiB each, some 0.2 s; the others' turn comes next time                   \
          */
/* Sketches are kept when making them again would take as long as a commit does at its best: half a millisecond, for
 * chunks to be looked at and recipes to be read, of which one takes as long as so many chunks. */
#define KEEP_CHUNKS 4096u
#define RECIPE_CHUNKS 32u
#define ROW_MAX_BYTES (1 + SIMILAR_SKETCH * 8)
#define KNOWN_MAX_BYTES ((size_t)LIMIT_SIMILAR_OBJECTS * ID_BYTES)
#define LEAST_CHUNKS 4u /* of an object that is worth a sketch */

/* Ascending, all different. */
struct sketch {
    unsigned n;
    uint64_t lowest[SIMILAR_SKETCH];
};

struct found {
    struct id object;
    unsigned shared;
};

/* Of a table. */
struct row {
    struct id object;
    uint8_t value[ROW_MAX_BYTES];
    size_t len;
};

struct search {
    struct store *store;
    enum store_chunking chunking;
    struct id self;
    struct sketch sketch;
    struct buf known; /* ids of objects that have a sketch, in order */
    size_t passed;    /* of these, those before the object that is looked at */
    struct buf stale; /* ids of those that are not here any more */
    struct row made[NEW_AT_ONCE];
    unsigned n_made;
    uint64_t chunks;                /* that those were made of */
    struct found best[SIMILAR_MAX]; /* the best first */
    unsigned n_best;
};

static void search_free(struct search *search)
{
    if (!search)
        return;
    buf_release(&search->known);
    buf_release(&search->stale);
    free(search);
}
OWNED_DEFINE(owned_search, struct search, search_free)

/* ---- sketches ---- */

static void insert(struct sketch *sketch, uint64_t value)
{
    unsigned at = sketch->n;
    while (at > 0 && sketch->lowest[at - 1] > value)
        at--;
    if (at == SIMILAR_SKETCH || (at > 0 && sketch->lowest[at - 1] == value))
        return;
    unsigned moved = sketch->n < SIMILAR_SKETCH ? sketch->n - at : SIMILAR_SKETCH - 1 - at;
    memmove(sketch->lowest + at + 1, sketch->lowest + at, moved * sizeof sketch->lowest[0]);
    sketch->lowest[at] = value;
    if (sketch->n < SIMILAR_SKETCH)
        sketch->n++;
}

static struct sketch make_sketch(const struct store_recipe *recipe)
{
    struct sketch sketch = {0};
    for (uint32_t i = 0; i < recipe->root.chunk_count; i++)
        insert(&sketch, wire_load_u64(recipe->chunks[i].id.b));
    return sketch;
}

/* How many of the lowest of both are in both. */
static unsigned count_shared(const struct sketch *a, const struct sketch *b)
{
    unsigned i = 0;
    unsigned k = 0;
    unsigned shared = 0;
    for (unsigned seen = 0; seen < SIMILAR_SKETCH && i < a->n && k < b->n; seen++) {
        uint64_t x = a->lowest[i];
        uint64_t y = b->lowest[k];
        shared += x == y;
        i += x <= y;
        k += y <= x;
    }
    return shared;
}

/* ---- rows: how the object was cut, then the sketch ---- */

static bool decode_row(const void *value, size_t len, enum store_chunking *ret_chunking, struct sketch *ret_sketch)
{
    struct wire wire;
    struct sketch sketch = {0};
    wire_init(&wire, value, len);
    *ret_chunking = wire_get_u8(&wire);
    while (wire_left(&wire) > 0 && !wire.failed && sketch.n < SIMILAR_SKETCH)
        sketch.lowest[sketch.n++] = wire_get_u64(&wire);
    *ret_sketch = sketch;
    return wire_done(&wire);
}

static void encode_row(const struct id *object, enum store_chunking chunking, const struct sketch *sketch,
                       struct row *ret_row)
{
    ret_row->object = *object;
    ret_row->value[0] = (uint8_t)chunking;
    for (unsigned i = 0; i < sketch->n; i++)
        wire_store_u64(ret_row->value + 1 + 8 * (size_t)i, sketch->lowest[i]);
    ret_row->len = 1 + 8 * (size_t)sketch->n;
}

/* ---- the search ---- */

static void compare(struct search *search, const struct id *object, enum store_chunking chunking,
                    const struct sketch *sketch)
{
    unsigned shared = count_shared(&search->sketch, sketch);
    if (chunking != search->chunking || shared < SIMILAR_LEAST || id_equal(object, &search->self))
        return;
    unsigned at = search->n_best;
    while (at > 0 && search->best[at - 1].shared < shared)
        at--;
    if (at == SIMILAR_MAX)
        return;
    if (search->n_best < SIMILAR_MAX)
        search->n_best++;
    memmove(search->best + at + 1, search->best + at, (search->n_best - 1 - at) * sizeof search->best[0]);
    search->best[at] = (struct found){.object = *object, .shared = shared};
}

static int look_at_row(const void *key, size_t key_len, const void *value, size_t value_len, void *ctx)
{
    struct search *search = ctx;
    enum store_chunking chunking;
    struct sketch sketch;
    struct id object;
    if (key_len != ID_BYTES)
        return 0;
    memcpy(object.b, key, ID_BYTES);
    if (!decode_row(value, value_len, &chunking, &sketch))
        return 0; /* made anew below */
    compare(search, &object, chunking, &sketch);
    return search->known.len < KNOWN_MAX_BYTES ? buf_add(&search->known, key, key_len) : 1;
}

/* Both objects and sketches come in order: does this one have a sketch? */
static bool has_sketch(struct search *search, const struct id *object)
{
    for (; search->passed < search->known.len; search->passed += ID_BYTES) {
        int order = memcmp(search->known.data + search->passed, object->b, ID_BYTES);
        if (order > 0)
            return false;
        if (order == 0) {
            search->passed += ID_BYTES;
            return true;
        }
        buf_add(&search->stale, search->known.data + search->passed, ID_BYTES);
    }
    return false;
}

static int look_at_object(const struct store_object_info *info, void *ctx)
{
    struct search *search = ctx;
    struct store_recipe *recipe = NULL;
    if (has_sketch(search, &info->digest) || info->chunk_count < LEAST_CHUNKS || search->n_made == NEW_AT_ONCE ||
        search->known.len + search->n_made * ID_BYTES >= KNOWN_MAX_BYTES ||
        store_recipe_load(search->store, &info->digest, &recipe, NULL) != 1)
        return 0;
    struct sketch sketch = make_sketch(recipe);
    store_recipe_free(recipe);
    compare(search, &info->digest, info->chunking, &sketch);
    search->chunks += RECIPE_CHUNKS + info->chunk_count;
    encode_row(&info->digest, info->chunking, &sketch, &search->made[search->n_made++]);
    return 0;
}

/* In one change: each waits for the disk. Should it fail, they are made and dropped again next time. */
static void keep_and_drop(struct search *search)
{
    for (size_t at = search->passed; at < search->known.len; at += ID_BYTES)
        buf_add(&search->stale, search->known.data + at, ID_BYTES);
    size_t count = 0, n_stale = search->stale.len / ID_BYTES;
    if (search->chunks + RECIPE_CHUNKS * n_stale < KEEP_CHUNKS)
        return;
    OWNED(owned_free) struct store_table_op *ops = calloc(search->n_made + n_stale + 1, sizeof *ops);
    if (!ops)
        return;
    for (size_t i = 0; i < n_stale; i++)
        ops[count++] = (struct store_table_op){.key = search->stale.data + i * ID_BYTES, .key_len = ID_BYTES};
    for (size_t i = 0; i < search->n_made; i++)
        ops[count++] =
            (struct store_table_op){search->made[i].object.b, ID_BYTES, search->made[i].value, search->made[i].len};
    if (count > 0)
        store_table_apply(search->store, TABLE, ops, count, NULL);
}

int store_similar_find(struct store *store, const struct store_recipe *recipe, struct id *ret_objects, unsigned max,
                       struct err *err)
{
    OWNED(owned_search) struct search *search = calloc(1, sizeof *search);
    if (!search)
        return err_set(err, ERR_NOMEM, "no memory to look for objects that resemble another");
    search->store = store;
    search->chunking = recipe->root.chunking;
    search->self = recipe->root.object;
    search->sketch = make_sketch(recipe);
    search->known = BUF(KNOWN_MAX_BYTES);
    search->stale = BUF(KNOWN_MAX_BYTES);
    int status = store_table_each(store, TABLE, NULL, 0, NULL, 0, look_at_row, search, err);
    if (status >= 0)
        status = store_object_each(store, look_at_object, search, err);
    if (status < 0)
        return status;
    keep_and_drop(search);
    unsigned n = 0;
    for (unsigned i = 0; i < search->n_best && n < max; i++) {
        if (store_object_stat(store, &search->best[i].object, NULL, NULL) == 1)
            ret_objects[n++] = search->best[i].object;
    }
    return (int)n;
}
