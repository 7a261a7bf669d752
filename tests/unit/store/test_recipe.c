#include "store/recipe.h"

#include "fixture.h"
#include "node/base/wire.h"

enum { CHUNKS = 3000 };

/* A root and its leaves, as a sender would have them. */
struct recipe_bytes {
    struct store_chunk chunks[CHUNKS];
    struct buf root;
    struct buf leaves[CHUNKS / STORE_LEAF_MIN_CHUNKS + 1];
    uint32_t leaf_count;
    uint64_t size_bytes;
};

static void make_recipe(struct recipe_bytes *r, uint64_t seed)
{
    struct err err = {0};
    struct store_leaf leaves[CHUNKS / STORE_LEAF_MIN_CHUNKS + 1];
    struct rng rng = rng_seeded(&seed);
    *r = (struct recipe_bytes){.root = BUF(STORE_ROOT_MAX_BYTES)};
    size_t start = 0;
    uint64_t span = 0;
    for (size_t i = 0; i < CHUNKS; i++) {
        rng.fill(rng.ctx, &r->chunks[i].id, sizeof r->chunks[i].id);
        r->chunks[i].length = 1 + (uint32_t)rng_below(&rng, LIMIT_CHUNK_BYTES);
        span += r->chunks[i].length;
        uint32_t count = (uint32_t)(i + 1 - start);
        if (!store_recipe_leaf_ends(&r->chunks[i].id, count) && i + 1 < CHUNKS)
            continue;
        struct buf *bytes = &r->leaves[r->leaf_count];
        *bytes = BUF(STORE_LEAF_MAX_BYTES);
        must(store_leaf_encode(r->chunks + start, count, bytes, &err));
        leaves[r->leaf_count] = (struct store_leaf){.chunk_count = count, .span_bytes = span};
        crypto_sha256(bytes->data, bytes->len, &leaves[r->leaf_count++].id);
        r->size_bytes += span;
        span = 0;
        start = i + 1;
    }
    struct store_root root = {.size_bytes = r->size_bytes,
                              .chunking = STORE_CHUNKING_ARCHIVE,
                              .chunk_count = CHUNKS,
                              .leaf_count = r->leaf_count,
                              .leaves = leaves};
    must(store_root_encode(&root, &r->root, &err));
}

static void release_recipe(struct recipe_bytes *r)
{
    buf_release(&r->root);
    for (uint32_t i = 0; i < r->leaf_count; i++)
        buf_release(&r->leaves[i]);
}

static void test_recipe__leaves_arrive_in_any_order(void **state)
{
    (void)state;
    struct err err = {0};
    struct recipe_bytes r;
    make_recipe(&r, 1);
    assert_true(r.leaf_count > 3);
    struct store_recipe *recipe;
    must(store_recipe_from_root(r.root.data, r.root.len, &recipe, &err));
    assert_int_equal(recipe->root.size_bytes, r.size_bytes);
    for (uint32_t i = r.leaf_count; i-- > 0;) {
        assert_false(store_recipe_complete(recipe));
        must(store_recipe_add_leaf(recipe, i, r.leaves[i].data, r.leaves[i].len, &err));
        must(store_recipe_add_leaf(recipe, i, r.leaves[i].data, r.leaves[i].len, &err)); /* harmless */
        assert_true(store_recipe_has_leaf(recipe, i));
    }
    assert_true(store_recipe_complete(recipe));
    uint64_t offset = 0;
    for (size_t i = 0; i < CHUNKS; i++) {
        assert_memory_equal(&recipe->chunks[i], &r.chunks[i], sizeof r.chunks[i]);
        assert_int_equal(recipe->offsets[i], offset);
        const struct store_leaf *leaf = store_root_leaf_at(&recipe->root, offset);
        assert_in_range(i, leaf->first_chunk, leaf->first_chunk + leaf->chunk_count - 1);
        offset += r.chunks[i].length;
    }
    assert_null(store_root_leaf_at(&recipe->root, offset));
    store_recipe_free(recipe);
    release_recipe(&r);
}

static void test_recipe__leaves_of_other_bytes_are_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct recipe_bytes r;
    make_recipe(&r, 2);
    struct store_recipe *recipe;
    must(store_recipe_from_root(r.root.data, r.root.len, &recipe, &err));
    assert_int_equal(store_recipe_add_leaf(recipe, 0, r.leaves[1].data, r.leaves[1].len, &err), ERR_CORRUPT);
    assert_int_equal(store_recipe_add_leaf(recipe, 0, r.leaves[0].data, r.leaves[0].len - 1, &err), ERR_CORRUPT);
    r.leaves[0].data[20] ^= 1;
    assert_int_equal(store_recipe_add_leaf(recipe, 0, r.leaves[0].data, r.leaves[0].len, &err), ERR_CORRUPT);
    assert_int_equal(store_recipe_add_leaf(recipe, r.leaf_count, r.leaves[0].data, r.leaves[0].len, &err), ERR_INVALID);
    assert_false(store_recipe_has_leaf(recipe, 0));
    store_recipe_free(recipe);
    release_recipe(&r);
}

static void expect_bad_root(const struct buf *root, size_t at, size_t width, uint64_t value)
{
    struct err err = {0};
    uint8_t *copy = malloc(root->len);
    memcpy(copy, root->data, root->len);
    for (size_t i = 0; i < width; i++)
        copy[at + i] = (uint8_t)(value >> (8 * (width - 1 - i)));
    struct store_recipe *recipe = NULL;
    assert_int_equal(store_recipe_from_root(copy, root->len, &recipe, &err), ERR_INVALID);
    assert_null(recipe);
    free(copy);
}

/* faults 38 */
static void test_recipe__roots_that_lie_are_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct recipe_bytes r;
    make_recipe(&r, 3);
    expect_bad_root(&r.root, 0, 4, 0);                        /* magic */
    expect_bad_root(&r.root, 4, 1, 9);                        /* chunking */
    expect_bad_root(&r.root, 5, 1, 1);                        /* reserved */
    expect_bad_root(&r.root, 40, 8, r.size_bytes + 1);        /* sum != size */
    expect_bad_root(&r.root, 40, 8, UINT64_MAX);              /* beyond any object */
    expect_bad_root(&r.root, 48, 4, CHUNKS + 1);              /* sum != chunks */
    expect_bad_root(&r.root, 48, 4, LIMIT_OBJECT_CHUNKS + 1); /* 16 Mi chunks and one */
    expect_bad_root(&r.root, 52, 4, r.leaf_count + 1);        /* more leaves than bytes */
    expect_bad_root(&r.root, 52, 4, UINT32_MAX);
    expect_bad_root(&r.root, 56 + 32, 4, 0); /* an empty leaf */
    expect_bad_root(&r.root, 56 + 32, 4, STORE_LEAF_MAX_CHUNKS + 1);
    expect_bad_root(&r.root, 56 + 36, 8, 0); /* a leaf of no bytes */
    expect_bad_root(&r.root, 56 + 36, 8, UINT64_MAX);
    struct store_recipe *recipe = NULL;
    for (size_t len = 0; len < r.root.len; len++)
        assert_int_equal(store_recipe_from_root(r.root.data, len, &recipe, &err), ERR_INVALID);
    release_recipe(&r);
}

/* faults 38 */
static void test_recipe__leaves_that_lie_are_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct store_chunk *back = malloc(STORE_LEAF_MAX_CHUNKS * sizeof *back);
    struct recipe_bytes r;
    make_recipe(&r, 4);
    struct buf *leaf = &r.leaves[0];
    uint32_t count;
    must(store_leaf_decode(leaf->data, leaf->len, false, back, &count, &err));
    for (size_t len = 0; len < leaf->len; len++)
        assert_int_equal(store_leaf_decode(leaf->data, len, true, back, &count, &err), ERR_INVALID);
    uint32_t length = wire_load_u32(leaf->data + 40);
    wire_store_u32(leaf->data + 40, 0); /* a chunk of no bytes */
    assert_int_equal(store_leaf_decode(leaf->data, leaf->len, false, back, &count, &err), ERR_INVALID);
    wire_store_u32(leaf->data + 40, LIMIT_CHUNK_BYTES + 1);
    assert_int_equal(store_leaf_decode(leaf->data, leaf->len, false, back, &count, &err), ERR_INVALID);
    wire_store_u32(leaf->data + 40, length);
    /* cut one chunk too early: only the last leaf may be */
    wire_store_u32(leaf->data + 4, wire_load_u32(leaf->data + 4) - 1);
    leaf->len -= STORE_LEAF_ENTRY_BYTES;
    assert_int_equal(store_leaf_decode(leaf->data, leaf->len, false, back, &count, &err), ERR_INVALID);
    must(store_leaf_decode(leaf->data, leaf->len, true, back, &count, &err));
    free(back);
    release_recipe(&r);
}

static void test_recipe__of_an_empty_object(void **state)
{
    (void)state;
    struct err err = {0};
    struct buf bytes = BUF(STORE_ROOT_MAX_BYTES);
    struct store_root root = {.chunking = STORE_CHUNKING_PAGES};
    must(store_root_encode(&root, &bytes, &err));
    assert_int_equal(bytes.len, STORE_ROOT_HEAD_BYTES);
    struct store_recipe *recipe;
    must(store_recipe_from_root(bytes.data, bytes.len, &recipe, &err));
    assert_true(store_recipe_complete(recipe));
    store_recipe_free(recipe);
    buf_release(&bytes);
}

static void test_recipe__near_identical_objects_share_leaves(void **state)
{
    (void)state;
    struct recipe_bytes *two = calloc(2, sizeof *two);
    make_recipe(&two[0], 5);
    make_recipe(&two[1], 5);
    /* one chunk put in near the front: rebuild the second's leaves over the shifted list */
    struct store_chunk *shifted = malloc((CHUNKS + 1) * sizeof *shifted);
    memset(&shifted[0], 7, sizeof shifted[0]);
    shifted[0].length = 5;
    memcpy(shifted + 1, two[0].chunks, CHUNKS * sizeof *shifted);
    size_t shared = 0;
    size_t start = 0;
    for (size_t i = 0; i <= CHUNKS; i++) {
        if (!store_recipe_leaf_ends(&shifted[i].id, (uint32_t)(i + 1 - start)) && i < CHUNKS)
            continue;
        struct err err = {0};
        struct buf leaf = BUF(STORE_LEAF_MAX_BYTES);
        must(store_leaf_encode(shifted + start, i + 1 - start, &leaf, &err));
        for (uint32_t j = 0; j < two[0].leaf_count; j++)
            shared += two[0].leaves[j].len == leaf.len && memcmp(two[0].leaves[j].data, leaf.data, leaf.len) == 0;
        buf_release(&leaf);
        start = i + 1;
    }
    assert_true(shared + 2 >= two[0].leaf_count);
    free(shifted);
    release_recipe(&two[0]);
    release_recipe(&two[1]);
    free(two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recipe__leaves_arrive_in_any_order),
        cmocka_unit_test(test_recipe__leaves_of_other_bytes_are_refused),
        cmocka_unit_test(test_recipe__roots_that_lie_are_refused),
        cmocka_unit_test(test_recipe__leaves_that_lie_are_refused),
        cmocka_unit_test(test_recipe__of_an_empty_object),
        cmocka_unit_test(test_recipe__near_identical_objects_share_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
