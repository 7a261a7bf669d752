#include "dht/numbers.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define LIFE (7ull << 32)

static void test_numbers__in_order(void **state)
{
    (void)state;
    struct dht_numbers numbers = {0};
    assert_true(dht_numbers_exist(&numbers, LIFE + 1, 0));
    assert_true(dht_numbers_hear(&numbers, LIFE + 1, 6, 0));
    assert_true(dht_numbers_hear(&numbers, LIFE + 7, 1, 0));
    assert_false(dht_numbers_missing(&numbers));
    assert_true(dht_numbers_exist(&numbers, LIFE + 8, 0));
    assert_false(dht_numbers_missing(&numbers));
}

static void test_numbers__a_gap_closes(void **state)
{
    (void)state;
    struct dht_numbers numbers = {0};
    dht_numbers_exist(&numbers, LIFE, 0);
    assert_true(dht_numbers_hear(&numbers, LIFE + 2, 2, 50));
    assert_true(dht_numbers_missing(&numbers));
    assert_true(dht_numbers_hear(&numbers, LIFE + 6, 1, 60));
    assert_int_equal(numbers.gap_ms, 50);
    assert_true(dht_numbers_hear(&numbers, LIFE + 4, 2, 70));
    assert_true(dht_numbers_missing(&numbers));
    assert_true(dht_numbers_hear(&numbers, LIFE + 0, 2, 80));
    assert_false(dht_numbers_missing(&numbers));
    assert_int_equal(numbers.next, LIFE + 7);
}

static void test_numbers__repeats_are_nothing_new(void **state)
{
    (void)state;
    struct dht_numbers numbers = {0};
    dht_numbers_exist(&numbers, LIFE, 0);
    for (int i = 0; i < 3; i++)
        assert_true(dht_numbers_hear(&numbers, LIFE, 5, 0));
    assert_int_equal(numbers.next, LIFE + 5);
}

static void test_numbers__known_and_not_heard(void **state)
{
    (void)state;
    struct dht_numbers numbers = {0};
    dht_numbers_exist(&numbers, LIFE, 0);
    assert_true(dht_numbers_exist(&numbers, LIFE + 2, 10));
    assert_true(dht_numbers_missing(&numbers));
    dht_numbers_give_up(&numbers);
    assert_false(dht_numbers_missing(&numbers));
    assert_true(dht_numbers_hear(&numbers, LIFE + 2, 1, 20));
    assert_false(dht_numbers_missing(&numbers));
}

static void test_numbers__too_far_ahead(void **state)
{
    (void)state;
    struct dht_numbers numbers = {0};
    dht_numbers_exist(&numbers, LIFE, 0);
    assert_false(dht_numbers_hear(&numbers, LIFE + 64, 1, 0));
    assert_false(dht_numbers_missing(&numbers));
    assert_int_equal(numbers.next, LIFE + 65);
}

static void test_numbers__used_up_without_records(void **state)
{
    (void)state;
    struct dht_numbers numbers = {0};
    dht_numbers_exist(&numbers, LIFE + 5, 0);
    assert_true(dht_numbers_hear(&numbers, LIFE + 5, 0, 0));
    assert_false(dht_numbers_hear(&numbers, LIFE + 9, 0, 0));
    assert_int_equal(numbers.next, LIFE + 9);
}

static void test_numbers__another_life(void **state)
{
    (void)state;
    struct dht_numbers numbers = {0};
    dht_numbers_exist(&numbers, LIFE + 5, 0);
    assert_false(dht_numbers_exist(&numbers, (9ull << 32) + 1, 0));
    assert_false(dht_numbers_hear(&numbers, (8ull << 32) + 1, 1, 0));
    assert_int_equal(numbers.next, (8ull << 32) + 2);
}

/* What a holder says may be any number. */
static void test_numbers__at_the_end_of_the_range(void **state)
{
    (void)state;
    struct dht_numbers numbers = {0};
    dht_numbers_exist(&numbers, UINT64_MAX - 1, 0);
    dht_numbers_hear(&numbers, UINT64_MAX, 6, 0);
    dht_numbers_exist(&numbers, 0, 0);
    dht_numbers_hear(&numbers, 0, 0, 0);
    assert_false(dht_numbers_missing(&numbers));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers__in_order),
        cmocka_unit_test(test_numbers__a_gap_closes),
        cmocka_unit_test(test_numbers__repeats_are_nothing_new),
        cmocka_unit_test(test_numbers__known_and_not_heard),
        cmocka_unit_test(test_numbers__too_far_ahead),
        cmocka_unit_test(test_numbers__used_up_without_records),
        cmocka_unit_test(test_numbers__another_life),
        cmocka_unit_test(test_numbers__at_the_end_of_the_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
