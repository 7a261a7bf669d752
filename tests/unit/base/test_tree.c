#include "node/base/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/clock.h"
#include "tests/test.h"

#define ITEMS_MAX 2000

struct item {
    uint32_t group; /* the order is by group, then value */
    uint32_t value;
    struct tree_node node;
};

/* The same nodes in a sorted array: what the tree must agree with. */
struct model {
    struct tree tree;
    size_t compared;
    size_t count;
    struct item *sorted[ITEMS_MAX];
    struct item items[ITEMS_MAX];
};

static int order_of(const struct item *a, const struct item *b)
{
    if (a->group != b->group)
        return a->group < b->group ? -1 : 1;
    return (a->value > b->value) - (a->value < b->value);
}

static int compare(void *ctx, const struct tree_node *a, const struct tree_node *b)
{
    ++*(size_t *)ctx;
    return order_of(TREE_OF(a, struct item, node), TREE_OF(b, struct item, node));
}

static int probe_item(const void *key, const struct tree_node *node)
{
    return order_of(key, TREE_OF(node, struct item, node));
}

static int probe_group(const void *key, const struct tree_node *node)
{
    uint32_t group = *(const uint32_t *)key;
    const struct item *item = TREE_OF(node, struct item, node);
    return (group > item->group) - (group < item->group);
}

static struct model *model_new(void)
{
    struct model *model = calloc(1, sizeof *model);
    assert_non_null(model);
    tree_init(&model->tree, compare, &model->compared);
    return model;
}

static size_t model_lower(const struct model *model, const struct item *item)
{
    size_t rank = 0;
    while (rank < model->count && order_of(model->sorted[rank], item) < 0)
        rank++;
    return rank;
}

static void model_insert(struct model *model, struct item *item)
{
    size_t rank = model_lower(model, item);
    struct item *there = rank < model->count && order_of(model->sorted[rank], item) == 0 ? model->sorted[rank] : NULL;
    assert_ptr_equal(TREE_OF(tree_insert(&model->tree, &item->node), struct item, node), there);
    if (there)
        return;
    memmove(&model->sorted[rank + 1], &model->sorted[rank], (model->count - rank) * sizeof(struct item *));
    model->sorted[rank] = item;
    model->count++;
}

static void model_remove(struct model *model, size_t rank)
{
    assert_true(tree_remove(&model->tree, &model->sorted[rank]->node));
    model->count--;
    memmove(&model->sorted[rank], &model->sorted[rank + 1], (model->count - rank) * sizeof(struct item *));
}

/* Every count and weight from the bottom up; returns the height. */
static size_t check_shape(const struct tree_node *node)
{
    if (!node)
        return 0;
    size_t left_height = check_shape(node->left);
    size_t right_height = check_shape(node->right);
    uint64_t left = node->left ? node->left->count : 0;
    uint64_t right = node->right ? node->right->count : 0;
    assert_int_equal(node->count, left + right + 1);
    assert_true(left + 1 <= 3 * (right + 1) && right + 1 <= 3 * (left + 1));
    return 1 + (left_height > right_height ? left_height : right_height);
}

static void check_all(const struct model *model)
{
    assert_true(check_shape(model->tree.root) <= TREE_HEIGHT_MAX);
    assert_int_equal(tree_count(&model->tree), model->count);
    struct tree_cursor cursor;
    struct tree_node *node = tree_seek(&model->tree, &cursor, 0);
    for (size_t rank = 0; rank < model->count; rank++, node = tree_next(&cursor)) {
        assert_ptr_equal(TREE_OF(node, struct item, node), model->sorted[rank]);
        assert_ptr_equal(tree_at(&model->tree, rank), node);
        assert_int_equal(tree_rank(&model->tree, node), rank);
    }
    assert_null(node);
    node = model->count ? tree_seek(&model->tree, &cursor, model->count - 1) : NULL;
    for (size_t rank = model->count; rank-- > 0; node = tree_prev(&cursor))
        assert_ptr_equal(TREE_OF(node, struct item, node), model->sorted[rank]);
    assert_null(node);
}

static void check_place(const struct model *model, const struct rng *rng)
{
    struct item key = {.group = (uint32_t)rng_below(rng, 22), .value = (uint32_t)rng_below(rng, 1000)};
    size_t lower = model_lower(model, &key);
    bool there = lower < model->count && order_of(model->sorted[lower], &key) == 0;
    assert_int_equal(tree_lower(&model->tree, probe_item, &key), lower);
    assert_int_equal(tree_upper(&model->tree, probe_item, &key), lower + there);
    assert_ptr_equal(TREE_OF(tree_find(&model->tree, probe_item, &key), struct item, node),
                     there ? model->sorted[lower] : NULL);

    size_t first = model_lower(model, &(struct item){.group = key.group});
    size_t after = model_lower(model, &(struct item){.group = key.group + 1});
    assert_int_equal(tree_lower(&model->tree, probe_group, &key.group), first);
    assert_int_equal(tree_upper(&model->tree, probe_group, &key.group), after);
    assert_ptr_equal(TREE_OF(tree_find(&model->tree, probe_group, &key.group), struct item, node),
                     first < after ? model->sorted[first] : NULL);
}

static void test_tree__agrees_with_a_sorted_array(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct model *model = model_new();
        uint64_t rng_state = seed;
        struct rng rng = rng_seeded(&rng_state);
        size_t used = 0;
        for (int step = 0; used < ITEMS_MAX; step++) {
            /* It grows and shrinks in turns, and is empty now and then. */
            bool grow = rng_below(&rng, 100) < (step / 500 % 2 ? 30u : 70u);
            if (grow) {
                struct item *item = &model->items[used++];
                *item = (struct item){(uint32_t)rng_below(&rng, 20), (uint32_t)rng_below(&rng, 1000), {0}};
                model_insert(model, item);
            } else if (model->count > 0) {
                model_remove(model, rng_below(&rng, model->count));
            }
            check_place(model, &rng);
            if (step % 50 == 0)
                check_all(model);
        }
        while (model->count > 0)
            model_remove(model, rng_below(&rng, model->count));
        check_all(model);
        assert_null(model->tree.root);
        free(model);
    }
}

static void test_tree__in_order_and_against_it(void **state)
{
    (void)state;
    for (int backwards = 0; backwards < 2; backwards++) {
        struct model *model = model_new();
        for (uint32_t i = 0; i < ITEMS_MAX; i++) {
            model->items[i].value = backwards ? ITEMS_MAX - i : i;
            model_insert(model, &model->items[i]);
        }
        check_all(model);
        while (model->count > 0) {
            model_remove(model, backwards ? model->count - 1 : 0);
            check_shape(model->tree.root);
        }
        free(model);
    }
}

static void test_tree__what_is_not_there(void **state)
{
    (void)state;
    struct model *model = model_new();
    struct tree_cursor cursor;
    assert_int_equal(tree_count(&model->tree), 0);
    assert_null(tree_at(&model->tree, 0));
    assert_null(tree_seek(&model->tree, &cursor, 0));
    assert_null(tree_next(&cursor));
    assert_null(tree_prev(&cursor));

    struct item one = {.value = 1};
    struct item same = {.value = 1};
    assert_false(tree_remove(&model->tree, &one.node));
    model_insert(model, &one);
    assert_false(tree_remove(&model->tree, &same.node));
    assert_null(tree_at(&model->tree, 1));
    assert_null(tree_seek(&model->tree, &cursor, SIZE_MAX));
    assert_ptr_equal(tree_seek(&model->tree, &cursor, 0), &one.node);
    assert_null(tree_next(&cursor));
    assert_null(tree_next(&cursor));
    free(model);
}

/* A rank is found in height-many comparisons; a walk compares nothing at all. */
static void test_tree__costs_a_logarithm(void **state)
{
    (void)state;
    struct model *model = model_new();
    for (uint32_t i = 0; i < ITEMS_MAX; i++) {
        model->items[i].value = i;
        model_insert(model, &model->items[i]);
    }
    for (uint32_t i = 0; i < ITEMS_MAX; i++) {
        model->compared = 0;
        assert_int_equal(tree_rank(&model->tree, &model->items[i].node), i);
        assert_true(model->compared <= 26); /* log(2001) / log(4/3) */
    }
    model->compared = 0;
    struct tree_cursor cursor;
    size_t walked = 0;
    for (struct tree_node *node = tree_seek(&model->tree, &cursor, 0); node; node = tree_next(&cursor))
        walked++;
    assert_int_equal(walked, ITEMS_MAX);
    assert_int_equal(model->compared, 0);
    free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree__agrees_with_a_sorted_array),
        cmocka_unit_test(test_tree__in_order_and_against_it),
        cmocka_unit_test(test_tree__what_is_not_there),
        cmocka_unit_test(test_tree__costs_a_logarithm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
