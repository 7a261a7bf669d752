#include "tests/unit/dht/rig.h"

static void test_rtt__timeouts_follow_the_round_trips(void **state)
{
    (void)state;
    struct dht_rtt slow = {0}, quick = {0}, wild = {0};
    assert_int_equal(dht_rtt_timeout_ms(&slow), 1000);
    for (unsigned i = 0; i < 50; i++) {
        dht_rtt_add(&quick, 0);
        dht_rtt_add(&slow, 500);
        dht_rtt_add(&wild, i % 2 ? 900 : 100);
    }
    assert_int_equal(dht_rtt_timeout_ms(&quick), 101);
    assert_in_range(dht_rtt_ms(&slow), 490, 500);
    assert_in_range(dht_rtt_timeout_ms(&slow), 590, 600);
    assert_int_equal(dht_rtt_timeout_ms(&wild), 2000);
}

/* faults 20: one wild sample does not undo what many have told */
static void test_rtt__samples_are_bounded(void **state)
{
    (void)state;
    struct dht_rtt rtt = {0};
    dht_rtt_add(&rtt, UINT64_MAX);
    assert_in_range(dht_rtt_ms(&rtt), 1000, 8000);
    assert_int_equal(dht_rtt_timeout_ms(&rtt), 2000);
    rtt = (struct dht_rtt){0};
    for (unsigned i = 0; i < 50; i++)
        dht_rtt_add(&rtt, 40);
    dht_rtt_add(&rtt, UINT64_MAX);
    assert_in_range(dht_rtt_ms(&rtt), 40, 40 + 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rtt__timeouts_follow_the_round_trips),
        cmocka_unit_test(test_rtt__samples_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
