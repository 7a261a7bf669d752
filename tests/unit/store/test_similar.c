#include <sys/syscall.h>

#include "fixture.h"

#include "store/similar.h"

#define MIB (1u << 20)

static unsigned syncs;

/* In front of libc's. */
int fdatasync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fdatasync, fd);
}

static struct store_object_info put(struct fixture *f, uint64_t seed, size_t len, size_t changed)
{
    struct store_object_info info;
    uint8_t *bytes = fixture_bytes(seed, len);
    memset(bytes + len / 2, 0x5a, changed);
    fixture_put(f->store, STORE_BLOB, bytes, len, &info);
    free(bytes);
    return info;
}

static int find(struct fixture *f, const struct store_object_info *info, struct id ret_objects[SIMILAR_MAX])
{
    struct err err = {0};
    struct store_recipe *recipe = fixture_recipe(f->store, &info->digest);
    int n = store_similar_find(f->store, recipe, ret_objects, SIMILAR_MAX, &err);
    store_recipe_free(recipe);
    must(n);
    return n;
}

static void test_similar__older_versions_are_found_the_nearest_first(void **state)
{
    struct fixture *f = *state;
    struct id found[SIMILAR_MAX];
    for (uint64_t seed = 10; seed < 20; seed++)
        put(f, seed, 4 * MIB, 0);
    struct store_object_info oldest = put(f, 1, 4 * MIB, 2 * MIB);
    struct store_object_info older = put(f, 1, 4 * MIB, MIB / 2);
    struct store_object_info newest = put(f, 1, 4 * MIB, 0);
    for (int again = 0; again < 2; again++) { /* with sketches that are made, and with those that are kept */
        assert_int_equal(find(f, &newest, found), 2);
        assert_true(id_equal(&found[0], &older.digest));
        assert_true(id_equal(&found[1], &oldest.digest));
    }
    assert_int_equal(find(f, &oldest, found), 2);
    assert_true(id_equal(&found[0], &older.digest));
}

static void test_similar__nothing_resembles_noise(void **state)
{
    struct fixture *f = *state;
    struct id found[SIMILAR_MAX];
    put(f, 1, 2 * MIB, 0);
    put(f, 2, 2 * MIB, 0);
    struct store_object_info other = put(f, 3, 2 * MIB, 0);
    assert_int_equal(find(f, &other, found), 0);
}

static void test_similar__what_was_removed_is_not_found(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct id found[SIMILAR_MAX];
    struct store_object_info older = put(f, 1, 2 * MIB, MIB / 4);
    struct store_object_info newer = put(f, 1, 2 * MIB, 0);
    assert_int_equal(find(f, &newer, found), 1);
    must(store_object_remove(f->store, &older.digest, &err));
    assert_int_equal(find(f, &newer, found), 0);
}

enum { SMALL_BYTES = 400000, MANY = 140 };

static bool has_sketch(struct fixture *f, const struct store_object_info *info)
{
    struct err err = {0};
    OWNED(buf_release) struct buf value = BUF(1024);
    int got = store_table_get(f->store, "similar", info->digest.b, ID_BYTES, &value, &err);
    must(got);
    return got == 1;
}

/* Of few objects they are made again each time: to keep them would be to wait for the disk. */
static void test_similar__a_search_among_few_is_no_commit(void **state)
{
    struct fixture *f = *state;
    struct id found[SIMILAR_MAX];
    struct store_object_info older = put(f, 1, MIB, MIB / 8);
    struct store_object_info newer = put(f, 1, MIB, 0);
    syncs = 0;
    for (int again = 0; again < 2; again++) {
        assert_int_equal(find(f, &newer, found), 1);
        assert_true(id_equal(&found[0], &older.digest));
    }
    assert_int_equal(syncs, 0);
}

/* However many are made, and dropped: a search waits for the disk once. */
static void test_similar__a_search_is_one_commit(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct id found[SIMILAR_MAX];
    struct store_object_info infos[MANY];
    for (uint64_t i = 0; i < MANY; i++)
        infos[i] = put(f, i, SMALL_BYTES, 0);
    syncs = 0;
    assert_int_equal(find(f, &infos[MANY - 1], found), 0);
    unsigned of_one_commit = syncs;
    assert_in_range(of_one_commit, 1, 2);
    assert_true(has_sketch(f, &infos[0]) && has_sketch(f, &infos[MANY - 1]));
    for (int i = 0; i < MANY - 5; i++)
        must(store_object_remove(f->store, &infos[i].digest, &err));
    syncs = 0;
    assert_int_equal(find(f, &infos[MANY - 1], found), 0);
    assert_int_equal(syncs, of_one_commit);
    assert_true(!has_sketch(f, &infos[0]) && has_sketch(f, &infos[MANY - 1]));
    syncs = 0;
    assert_int_equal(find(f, &infos[MANY - 1], found), 0);
    assert_int_equal(syncs, 0);
}

/* More than are looked through: the search still ends, and finds what it has seen. */
static void test_similar__too_many_sketches(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct id found[SIMILAR_MAX];
    enum { COUNT = LIMIT_SIMILAR_OBJECTS + 8 };
    static const uint8_t value[1 + 8] = {STORE_CHUNKING_ARCHIVE};
    OWNED(owned_free) struct id *ids = calloc(COUNT, sizeof *ids);
    OWNED(owned_free) struct store_table_op *ops = calloc(COUNT, sizeof *ops);
    for (uint32_t i = 0; i < COUNT; i++) {
        ids[i] = (struct id){{0xff, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i}};
        ops[i] = (struct store_table_op){ids[i].b, ID_BYTES, value, sizeof value};
    }
    must(store_table_apply(f->store, "similar", ops, COUNT, &err));
    struct store_object_info older = put(f, 1, 2 * MIB, MIB / 4);
    struct store_object_info newer = put(f, 1, 2 * MIB, 0);
    for (int again = 0; again < 2; again++) { /* the second time what is stale is gone */
        assert_int_equal(find(f, &newer, found), again);
        assert_true(again == 0 || id_equal(&found[0], &older.digest));
    }
}

/* A sketch that says nothing sensible is made anew. */
static void test_similar__a_bad_sketch_is_replaced(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct id found[SIMILAR_MAX];
    struct store_object_info older = put(f, 1, 2 * MIB, MIB / 4);
    struct store_object_info newer = put(f, 1, 2 * MIB, 0);
    must(store_table_put(f->store, "similar", older.digest.b, ID_BYTES, "\1abc", 4, &err));
    assert_int_equal(find(f, &newer, found), 1);
    assert_true(id_equal(&found[0], &older.digest));
}

/* Of images of memory and archives the chunks are cut differently: they are never compared. */
static void test_similar__only_what_was_cut_alike(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct id found[SIMILAR_MAX];
    uint8_t *bytes = fixture_bytes(1, 2 * MIB);
    struct store_ingest *ingest = NULL;
    struct store_object_info pages;
    must(store_ingest_new(f->store, STORE_CHECKPOINT, STORE_CHUNKING_PAGES, &ingest, &err));
    must(store_ingest_write(ingest, bytes, 2 * MIB, &err));
    must(store_ingest_finish(ingest, &pages, &err));
    store_ingest_free(ingest);
    free(bytes);
    struct store_object_info archive = put(f, 1, 2 * MIB, MIB / 4);
    assert_int_equal(find(f, &archive, found), 0);
    assert_int_equal(find(f, &pages, found), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_similar__older_versions_are_found_the_nearest_first, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_similar__nothing_resembles_noise, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_similar__what_was_removed_is_not_found, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_similar__a_search_among_few_is_no_commit, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_similar__a_search_is_one_commit, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_similar__too_many_sketches, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_similar__a_bad_sketch_is_replaced, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_similar__only_what_was_cut_alike, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
