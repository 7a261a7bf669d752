#include "tests/unit/dht/rig.h"

static unsigned allowed(struct rig *rig, const struct id *from, unsigned asked)
{
    unsigned taken = 0;
    for (unsigned i = 0; i < asked; i++)
        taken += dht_allowance_take(rig->dht, from, 1) == 0;
    return taken;
}

/* faults 8: 4,000 at once, 2,000 a second, and others are not affected */
static void test_allowance__is_by_sender(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id greedy = rig_key(1);
    assert_int_equal(allowed(rig, &greedy, 10000), 4000);
    assert_in_range(dht_allowance_take(rig->dht, &greedy, 1), 1, 1000);
    dht_set_now(rig->dht, rig->now_ms + 1000);
    assert_int_equal(allowed(rig, &greedy, 10000), 2000);
    unsigned unaffected = 0;
    for (unsigned i = 2; i < 102; i++) {
        struct id other = rig_key(i);
        unaffected += dht_allowance_take(rig->dht, &other, 1) == 0;
    }
    assert_in_range(unaffected, 97, 100); /* one in 256 shares its slot */
    dht_set_now(rig->dht, rig->now_ms + 3600000);
    assert_int_equal(allowed(rig, &greedy, 10000), 4000);
    rig_free(rig);
}

/* What costs more takes more. */
static void test_allowance__has_prices(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id from = rig_key(1);
    unsigned taken = 0;
    while (dht_allowance_take(rig->dht, &from, 16) == 0)
        taken++;
    assert_int_equal(taken, 250);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allowance__is_by_sender),
        cmocka_unit_test(test_allowance__has_prices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
