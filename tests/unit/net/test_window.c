#include "tests/test.h"

#include "node/net/window.h"

static void test_window__each_counter_once(void **state) /* faults 5, 6 */
{
    (void)state;
    struct net_window window = {0};
    for (uint64_t c = 1; c <= 3000; c += 2) {
        assert_true(net_window_is_fresh(&window, c));
        net_window_mark(&window, c);
        assert_false(net_window_is_fresh(&window, c));
    }
    for (uint64_t c = 3000 - WINDOW_BITS + 1; c < 3000; c += 2)
        assert_int_equal(net_window_is_fresh(&window, c), c % 2 == 0);
}

static void test_window__too_old_is_refused(void **state)
{
    (void)state;
    struct net_window window = {0};
    net_window_mark(&window, 5000);
    assert_false(net_window_is_fresh(&window, 5000 - WINDOW_BITS));
    assert_true(net_window_is_fresh(&window, 5000 - WINDOW_BITS + 1));
    assert_false(net_window_is_fresh(&window, 0));
}

static void test_window__jumps_leave_nothing_behind(void **state)
{
    (void)state;
    for (uint64_t jump = WINDOW_BITS - 2; jump < WINDOW_BITS + 3; jump++) {
        struct net_window window = {0};
        for (uint64_t c = 1; c <= 2 * WINDOW_BITS; c++)
            net_window_mark(&window, c);
        uint64_t top = 2 * WINDOW_BITS + jump;
        net_window_mark(&window, top);
        for (uint64_t c = 2 * WINDOW_BITS + 1; c < top; c++)
            assert_int_equal(net_window_is_fresh(&window, c), top - c < WINDOW_BITS);
    }
}

static void test_window__last_counter_of_all(void **state)
{
    (void)state;
    struct net_window window = {0};
    net_window_mark(&window, UINT64_MAX);
    assert_false(net_window_is_fresh(&window, UINT64_MAX));
    assert_true(net_window_is_fresh(&window, UINT64_MAX - 1));
    assert_false(net_window_is_fresh(&window, 1));
}

static void test_window__closed_takes_only_what_comes_after(void **state)
{
    (void)state;
    struct net_window window = {0};
    net_window_close(&window, 700);
    for (uint64_t c = 0; c <= 700; c++)
        assert_false(net_window_is_fresh(&window, c));
    net_window_mark(&window, 705);
    assert_true(net_window_is_fresh(&window, 703));
    assert_false(net_window_is_fresh(&window, 700));
    net_window_close(&window, 702);
    assert_false(net_window_is_fresh(&window, 703));
    assert_true(net_window_is_fresh(&window, 706));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window__each_counter_once),
        cmocka_unit_test(test_window__too_old_is_refused),
        cmocka_unit_test(test_window__jumps_leave_nothing_behind),
        cmocka_unit_test(test_window__last_counter_of_all),
        cmocka_unit_test(test_window__closed_takes_only_what_comes_after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
