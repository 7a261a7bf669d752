#include "tests/test.h"

#include <string.h>

#include "transfer/gap_cache.h"

static struct id key(unsigned i)
{
    struct id id = {{0}};
    id.b[0] = (uint8_t)i;
    id.b[1] = (uint8_t)(i >> 8);
    return id;
}

static bool has(struct gap_cache *cache, unsigned i, char fill)
{
    struct id id = key(i);
    size_t len = 0;
    const uint8_t *data = transfer_gap_cache_get(cache, &id, &len);
    return data && len == 1000 && data[0] == fill && data[999] == fill;
}

static void put(struct gap_cache *cache, unsigned i, char fill)
{
    struct id id = key(i);
    char data[1000];
    memset(data, fill, sizeof data);
    transfer_gap_cache_put(cache, &id, data, sizeof data);
}

static void test_gap_cache__what_was_not_used_goes_first(void **state)
{
    (void)state;
    struct gap_cache cache;
    transfer_gap_cache_init(&cache, 10 * 1256, 7);
    for (unsigned i = 0; i < 10; i++)
        put(&cache, i, 'a');
    assert_true(has(&cache, 0, 'a')); /* used: 1 is the oldest now */
    put(&cache, 10, 'b');
    assert_true(has(&cache, 0, 'a'));
    assert_false(has(&cache, 1, 'a'));
    assert_true(has(&cache, 10, 'b'));
    transfer_gap_cache_release(&cache);
}

static void test_gap_cache__the_same_key_again(void **state)
{
    (void)state;
    struct gap_cache cache;
    transfer_gap_cache_init(&cache, 3 * 1256, 7);
    put(&cache, 1, 'a');
    put(&cache, 1, 'b');
    assert_true(has(&cache, 1, 'b'));
    assert_int_equal(cache.by_key.count, 1);
    assert_int_equal(cache.bytes, 1256);
    transfer_gap_cache_release(&cache);
}

static void test_gap_cache__never_more_than_it_may(void **state)
{
    (void)state;
    struct gap_cache cache;
    static const uint8_t DATA[5000];
    transfer_gap_cache_init(&cache, 4096, 7);
    for (unsigned i = 0; i < 2000; i++) {
        struct id id = key(i);
        transfer_gap_cache_put(&cache, &id, DATA, i % sizeof DATA);
        assert_true(cache.bytes <= 4096);
    }
    struct id id = key(9999);
    transfer_gap_cache_put(&cache, &id, DATA, 4096); /* larger than all */
    assert_false(transfer_gap_cache_has(&cache, &id));
    transfer_gap_cache_release(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gap_cache__what_was_not_used_goes_first),
        cmocka_unit_test(test_gap_cache__the_same_key_again),
        cmocka_unit_test(test_gap_cache__never_more_than_it_may),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
