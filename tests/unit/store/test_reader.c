#include "fixture.h"

enum { BYTES = 1000000 };

static void test_reader__any_range_of_an_object(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(1, BYTES);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    struct store_recipe *recipe = fixture_recipe(f->store, &info.digest);
    uint64_t edge = recipe->offsets[2]; /* where two chunks meet */
    struct {
        uint64_t offset;
        size_t len;
        size_t wanted;
    } reads[] = {
        {0, 1, 1},         {0, BYTES, BYTES}, {0, BYTES + 5, BYTES},    {edge - 1, 2, 2},
        {edge, 1, 1},      {edge - 1, 1, 1},  {BYTES - 1, 9, 1},        {BYTES, 9, 0},
        {BYTES + 1, 9, 0}, {500000, 0, 0},    {300001, 400000, 400000},
    };
    uint8_t *back = malloc(BYTES + 5);
    for (size_t i = 0; i < sizeof reads / sizeof *reads; i++) {
        size_t got = 99;
        must(store_object_read(f->store, &info.digest, reads[i].offset, back, reads[i].len, &got, &err));
        assert_int_equal(got, reads[i].wanted);
        if (got > 0)
            assert_memory_equal(back, bytes + reads[i].offset, got);
    }
    free(back);
    store_recipe_free(recipe);
    free(bytes);
}

static void test_reader__steps_of_any_size(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(2, 100000);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, 100000, &info);
    static const size_t steps[] = {1, 2, 3, 7, 15, 4096};
    uint8_t back[4096];
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct store_reader *reader;
        must(store_reader_open(f->store, &info.digest, &reader, &err));
        size_t done = 0;
        size_t got;
        must(store_reader_read(reader, back, 0, &got, &err));
        assert_int_equal(got, 0);
        do {
            must(store_reader_read(reader, back, steps[i], &got, &err));
            assert_memory_equal(back, bytes + done, got);
            done += got;
        } while (got > 0);
        assert_int_equal(done, 100000);
        store_reader_close(reader);
    }
    free(bytes);
}

static void test_reader__reads_on_when_its_object_is_removed(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(3, BYTES);
    uint8_t *back = malloc(BYTES);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    struct store_reader *reader;
    must(store_reader_open(f->store, &info.digest, &reader, &err));
    assert_int_equal(store_object_remove(f->store, &info.digest, &err), 1);
    assert_int_equal(store_object_remove(f->store, &info.digest, &err), 0);
    size_t got;
    assert_int_equal(store_object_read(f->store, &info.digest, 0, back, 1, &got, &err), ERR_NOTFOUND);
    must(store_reader_read(reader, back, BYTES, &got, &err));
    assert_int_equal(got, BYTES);
    assert_memory_equal(back, bytes, BYTES);
    store_reader_close(reader);
    assert_int_equal(fixture_pack_bytes(f->store), 0); /* now it is gone for good */
    free(back);
    free(bytes);
}

static int count_objects(const struct store_object_info *info, void *ctx)
{
    (void)info;
    return ++*(int *)ctx == 3 ? -5 : 0;
}

static void test_reader__walk_ends_when_the_callback_says_so(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    for (int i = 0; i < 5; i++)
        fixture_put(f->store, STORE_BLOB, &i, sizeof i, NULL);
    int count = 0;
    assert_int_equal(store_object_each(f->store, count_objects, &count, &err), -5);
    assert_int_equal(count, 3);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_reader__any_range_of_an_object),
        on_store(test_reader__steps_of_any_size),
        on_store(test_reader__reads_on_when_its_object_is_removed),
        on_store(test_reader__walk_ends_when_the_callback_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
