#include "tests/test.h"

#include "transfer/goodput.h"

static void test_goodput__stream(void **state)
{
    (void)state;
    struct goodput goodput = {0};
    transfer_goodput_begin(&goodput, 1000);
    assert_int_equal(goodput.rate, 0);
    /* 50 ms of waiting do not count, then 1 MB/s */
    for (uint64_t now = 1050; now <= 2050; now += 10)
        transfer_goodput_add(&goodput, 10000, now);
    assert_in_range(goodput.rate, 990000, 1010000);
    assert_int_equal(goodput.best, goodput.rate);
    /* five times slower: that is believed soon, the best is not forgotten as soon */
    for (uint64_t now = 2060; now <= 4060; now += 10)
        transfer_goodput_add(&goodput, 2000, now);
    assert_in_range(goodput.rate, 190000, 220000);
    assert_true(goodput.best > 600000);
}

/* An answer that comes at once, as those of partial holders do: its waiting is all that can be measured. */
static void test_goodput__one_answer(void **state)
{
    (void)state;
    struct goodput goodput = {0};
    transfer_goodput_begin(&goodput, 1000);
    transfer_goodput_add(&goodput, 100000, 1110);
    transfer_goodput_end(&goodput, 1110, 10);
    assert_int_equal(goodput.rate, 1000000);
    /* one that came too soon to tell says nothing */
    struct goodput quick = {0};
    transfer_goodput_begin(&quick, 1000);
    transfer_goodput_add(&quick, 100000, 1011);
    transfer_goodput_end(&quick, 1011, 10);
    assert_int_equal(quick.rate, 0);
}

static void test_goodput__p90(void **state)
{
    (void)state;
    struct latency latency = {0};
    assert_int_equal(transfer_latency_p90_ms(&latency), 0);
    transfer_latency_add(&latency, 0);
    assert_int_equal(transfer_latency_p90_ms(&latency), 0);
    for (unsigned i = 0; i < 100; i++)
        transfer_latency_add(&latency, 20);
    /* the bucket of 20 ends at 16 times the root of 2 */
    assert_in_range(transfer_latency_p90_ms(&latency), 20, 23);
    /* one long wait is not usual, bursts every 200 ms are */
    transfer_latency_add(&latency, 200);
    assert_in_range(transfer_latency_p90_ms(&latency), 20, 23);
    for (unsigned i = 0; i < 100; i++) {
        transfer_latency_add(&latency, 200);
        for (unsigned k = 0; k < 50; k++)
            transfer_latency_add(&latency, 1);
    }
    assert_in_range(transfer_latency_p90_ms(&latency), 200, 257);
    /* what is old fades */
    for (unsigned i = 0; i < 10000; i++)
        transfer_latency_add(&latency, 5);
    assert_in_range(transfer_latency_p90_ms(&latency), 5, 6);
    /* and nothing is too long to be counted */
    for (unsigned i = 0; i < 100; i++)
        transfer_latency_add(&latency, UINT64_MAX);
    assert_int_equal(transfer_latency_p90_ms(&latency), 8192);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goodput__stream),
        cmocka_unit_test(test_goodput__one_answer),
        cmocka_unit_test(test_goodput__p90),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
