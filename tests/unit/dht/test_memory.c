#include "tests/unit/dht/rig.h"

struct seen {
    size_t count;
    size_t stop_at;
    struct id key, member;
};

static bool see(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len)
{
    struct seen *seen = ctx;
    int order = id_compare(key, &seen->key);
    assert_true(order > 0 || (order == 0 && id_compare(member, &seen->member) > 0) || seen->count == 0);
    assert_int_equal(len, 1);
    assert_non_null(bytes);
    seen->key = *key;
    seen->member = *member;
    return ++seen->count != seen->stop_at;
}

static void test_memory__keeps_rows_in_order(void **state)
{
    (void)state;
    struct dht_memory *memory;
    assert_int_equal(dht_memory_new(&memory, NULL), 0);
    struct dht_storage storage = dht_storage_memory(memory);
    for (unsigned i = 0; i < 100; i++) {
        struct id key = rig_key(i % 10), member = rig_key(i);
        assert_int_equal(storage.put(storage.ctx, &key, &member, (uint8_t[]){1}, 1), 0);
        assert_int_equal(storage.put(storage.ctx, &key, &member, (uint8_t[]){(uint8_t)i}, 1), 0);
    }
    struct seen all = {0}, some = {.stop_at = 7};
    storage.each(storage.ctx, see, &all);
    assert_int_equal(all.count, 100);
    storage.each(storage.ctx, see, &some);
    assert_int_equal(some.count, 7);

    struct id key = rig_key(3), member = rig_key(13);
    OWNED(buf_release) struct buf bytes = BUF(10);
    assert_int_equal(dht_memory_get(memory, &key, &member, &bytes), 1);
    assert_int_equal(bytes.data[0], 13);
    assert_int_equal(storage.remove(storage.ctx, &key, &member), 0);
    assert_int_equal(storage.remove(storage.ctx, &key, &member), 0);
    assert_int_equal(dht_memory_get(memory, &key, &member, &bytes), 0);
    struct seen rest = {0};
    storage.each(storage.ctx, see, &rest);
    assert_int_equal(rest.count, 99);
    dht_memory_free(memory);
}

static void test_memory__keeps_blobs(void **state)
{
    (void)state;
    struct dht_memory *memory;
    assert_int_equal(dht_memory_new(&memory, NULL), 0);
    struct dht_storage storage = dht_storage_memory(memory);
    OWNED(buf_release) struct buf bytes = BUF(10);
    assert_int_equal(storage.load(storage.ctx, "a", &bytes), 0);
    assert_int_equal(storage.save(storage.ctx, "a", "first", 5), 0);
    assert_int_equal(storage.save(storage.ctx, "b", "other", 5), 0);
    assert_int_equal(storage.save(storage.ctx, "a", "2nd", 3), 0);
    assert_int_equal(storage.load(storage.ctx, "a", &bytes), 1);
    assert_int_equal(bytes.len, 3);
    assert_memory_equal(bytes.data, "2nd", 3);
    dht_memory_free(memory);
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory__keeps_rows_in_order),
        cmocka_unit_test(test_memory__keeps_blobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
