/* Recipes of small objects, which come with the HAVE: what they spare, and what becomes of those that are wrong. */
#include "tests/unit/transfer/mesh.h"

#include "node/base/scope.h"
#include "node/base/wire.h"
#include "transfer/exchange.h"

#define MIB (1u << 20)
#define INDEX_AT 32u /* of a RECIPE_PART */
#define ITEMS_AT 36u

struct tried {
    uint64_t took_ms;
    unsigned liars;
    unsigned parts;
};

static unsigned *parts_seen(struct mesh_link *link)
{
    return &link->mesh->nodes[9].provided; /* of a node that is not there */
}

static bool count_parts(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)data;
    (void)len;
    *parts_seen(link) += type == MESSAGE_RECIPE_PART;
    return true;
}

static bool lose_parts(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    (void)data;
    (void)len;
    return type != MESSAGE_RECIPE_PART;
}

static bool lose_leaves(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    (void)len;
    return type != MESSAGE_RECIPE_PART || wire_load_u32(data + INDEX_AT) == MESSAGE_PART_ROOT;
}

static bool other_leaf(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    (void)len;
    if (type == MESSAGE_RECIPE_PART && wire_load_u32(data + INDEX_AT) == 0)
        wire_store_u32(data + INDEX_AT, 1);
    return true;
}

static bool other_recipe(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    (void)len;
    if (type == MESSAGE_RECIPE_PART)
        data[0] ^= 1;
    return true;
}

static bool wrong_root(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    if (type == MESSAGE_RECIPE_PART && wire_load_u32(data + INDEX_AT) == MESSAGE_PART_ROOT)
        data[len - 1] ^= 1;
    return true;
}

static bool wrong_leaf(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    if (type == MESSAGE_RECIPE_PART && wire_load_u32(data + INDEX_AT) == 0)
        data[len - 1] ^= 1;
    return true;
}

/* Node 1 fetches from node 0, whose messages are meddled with, and half a second later from node 2 too. */
static struct tried try(size_t size, bool (*meddle)(struct mesh_link *, uint8_t, uint8_t *, size_t))
{
    struct mesh *mesh = mesh_new(3);
    OWNED(owned_free) uint8_t *data = mesh_bytes(size, 31);
    struct id object = mesh_put(&mesh->nodes[0], data, size);
    mesh_put(&mesh->nodes[2], data, size);
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    link->back->meddle = meddle;
    struct mesh_wish wish;
    mesh_fetch(mesh, 1, &object, &wish);
    mesh_ask(&wish, link, false);
    uint64_t began_ms = mesh_ms(mesh);
    while (!wish.done && mesh_ms(mesh) < began_ms + 500)
        mesh_step(mesh);
    if (!wish.done)
        mesh_ask(&wish, mesh_join(mesh, 1, 2), false);
    mesh_wait(mesh, &wish, 5000);
    assert_int_equal(wish.status, 0);
    assert_true(mesh_has(&mesh->nodes[1], &object, data, size));
    struct tried tried = {mesh_ms(mesh) - began_ms, mesh->nodes[1].liars, *parts_seen(link)};
    mesh_free(mesh);
    return tried;
}

static void test_recipes__small_ones_are_told(void **state)
{
    (void)state;
    static const size_t SIZES[] = {0, 1, 70000, 500000};
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        uint64_t asked_ms = try(SIZES[i], lose_parts).took_ms;
        assert_in_range(asked_ms, 0, 45); /* one thing after the other, without a tick in between */
        struct tried told = try(SIZES[i], count_parts);
        assert_int_equal(told.parts, SIZES[i] == 0 ? 1 : 2);
        /* a round trip is 2 ms: one each for root and leaf */
        assert_in_range(told.took_ms, 0, asked_ms - (SIZES[i] == 0 ? 1 : 3));
    }
    assert_int_equal(try(4 * MIB, count_parts).parts, 0);
}

/* faults 37: nor does a part of another recipe, or one that no recipe has, do any harm */
static void test_recipes__what_is_not_told_is_asked_for(void **state)
{
    (void)state;
    static bool (*const LOSSES[])(struct mesh_link *, uint8_t, uint8_t *, size_t) = {lose_parts, lose_leaves,
                                                                                     other_leaf, other_recipe};
    for (size_t i = 0; i < sizeof LOSSES / sizeof LOSSES[0]; i++) {
        struct tried tried = try(500000, LOSSES[i]);
        assert_int_equal(tried.liars, 0);
        assert_in_range(tried.took_ms, 0, 200);
    }
}

/* faults 33 */
static void test_recipes__who_tells_wrong_ones_is_named(void **state)
{
    (void)state;
    assert_int_equal(try(500000, wrong_root).liars, 1);
    assert_int_equal(try(500000, wrong_leaf).liars, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recipes__small_ones_are_told),
        cmocka_unit_test(test_recipes__what_is_not_told_is_asked_for),
        cmocka_unit_test(test_recipes__who_tells_wrong_ones_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
