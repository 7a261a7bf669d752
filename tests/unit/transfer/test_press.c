/* When compressing again is tried. */
#include "tests/test.h"

#include <stdbool.h>

#include "transfer/press.h"

static void test_press__slower_is_more(void **state)
{
    (void)state;
    struct press press = {0};
    int before = 99;
    for (uint64_t rate = 1000; rate < 1ull << 40; rate *= 2) {
        int level = transfer_press_level(&press, rate);
        assert_true(level <= before);
        before = level;
    }
    assert_int_equal(before, 0);
    assert_int_equal(transfer_press_level(&press, 0), 0); /* not known */
    assert_true(transfer_press_level(&press, 100000) > 9);
    assert_int_equal(transfer_press_level(&press, 12500000), 0); /* 100 Mbit/s */
}

/* What gains nothing is tried more and more seldom, and at once again when it has gained. */
static void test_press__learns(void **state)
{
    (void)state;
    struct press press = {0};
    unsigned tried = 0;
    for (unsigned i = 0; i < 10000; i++) {
        if (transfer_press_level(&press, 100000) == 0)
            continue;
        transfer_press_judge(&press, 1000, 990);
        tried++;
    }
    assert_true(tried > 100 && tried < 200);
    while (transfer_press_level(&press, 100000) == 0) {
    }
    transfer_press_judge(&press, 1000, 900);
    assert_true(transfer_press_level(&press, 100000) > 0);
    transfer_press_judge(&press, 0, 0); /* nothing there was a frame: neither gain nor reason to try again soon */
    assert_true(press.skip_left <= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_press__slower_is_more),
        cmocka_unit_test(test_press__learns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
