#include "tests/unit/identity/forge.h"

static struct addr source(unsigned number)
{
    return (struct addr){.family = 4, .port = 1, .ip = {10, (uint8_t)(number >> 8), (uint8_t)number, 1}};
}

static struct admission_guard *make(void)
{
    struct admission_guard *guard = NULL;
    assert_int_equal(admission_guard_new(&guard, NULL), 0);
    return guard;
}

static void test_guard__waits_double_by_source(void **state) /* faults 86 */
{
    (void)state;
    OWNED(owned_admission_guard) struct admission_guard *guard = make();
    struct addr bad = source(1);
    struct addr other = source(2);
    uint64_t now = 1000;
    for (int i = 0; i < 3; i++) {
        assert_true(admission_guard_allows(guard, &bad, now));
        admission_guard_failed(guard, &bad, now);
    }
    assert_true(admission_guard_allows(guard, &bad, now));
    for (uint64_t wait = 1000; wait < 3600000; wait *= 2) {
        admission_guard_failed(guard, &bad, now);
        assert_false(admission_guard_allows(guard, &bad, now + wait - 1));
        assert_true(admission_guard_allows(guard, &bad, now + wait));
        assert_true(admission_guard_allows(guard, &other, now));
        now += wait;
    }
    for (int i = 0; i < 100; i++)
        admission_guard_failed(guard, &bad, now);
    assert_true(admission_guard_allows(guard, &bad, now + 3600000));
}

static void test_guard__a_neighbour_address_is_the_same_source(void **state)
{
    (void)state;
    OWNED(owned_admission_guard) struct admission_guard *guard = make();
    struct addr bad = source(1);
    struct addr neighbour = bad;
    neighbour.ip[3] = 77;
    neighbour.port = 99;
    for (int i = 0; i < 4; i++)
        admission_guard_failed(guard, &bad, 0);
    assert_false(admission_guard_allows(guard, &neighbour, 1));
}

static void test_guard__forgets_in_time(void **state)
{
    (void)state;
    OWNED(owned_admission_guard) struct admission_guard *guard = make();
    struct addr bad = source(1);
    for (int i = 0; i < 20; i++)
        admission_guard_failed(guard, &bad, 0);
    uint64_t later = 3 * 3600000;
    admission_guard_failed(guard, &bad, later);
    assert_true(admission_guard_allows(guard, &bad, later));
}

/* More sources than there is room for: who waits longest is kept. */
static void test_guard__full_table_keeps_the_worst(void **state)
{
    (void)state;
    OWNED(owned_admission_guard) struct admission_guard *guard = make();
    struct addr worst = source(1);
    for (int i = 0; i < 12; i++)
        admission_guard_failed(guard, &worst, 0);
    for (unsigned i = 2; i < 2000; i++) {
        struct addr addr = source(i);
        admission_guard_failed(guard, &addr, 0);
    }
    assert_false(admission_guard_allows(guard, &worst, 1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guard__waits_double_by_source),
        cmocka_unit_test(test_guard__a_neighbour_address_is_the_same_source),
        cmocka_unit_test(test_guard__forgets_in_time),
        cmocka_unit_test(test_guard__full_table_keeps_the_worst),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
