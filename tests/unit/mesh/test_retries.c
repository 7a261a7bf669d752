#include "node/mesh/retries.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "node/base/limits.h"

static struct id id_of(unsigned n)
{
    return (struct id){{(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16)}};
}

static void test_retries__each_waits_for_itself_and_longer_each_time(void **state)
{
    (void)state;
    struct retries retries;
    struct id hopeless = id_of(1);
    struct id other = id_of(2);
    uint64_t now = 5000;
    retries_init(&retries, 7);
    assert_true(retries_is_due(&retries, &hopeless, now));
    uint64_t wait = RETRIES_FIRST_MS;
    for (int i = 0; i < 10; i++) {
        retries_failed(&retries, &hopeless, now);
        assert_false(retries_is_due(&retries, &hopeless, now + wait - 1));
        assert_true(retries_is_due(&retries, &hopeless, now + wait));
        assert_true(retries_is_due(&retries, &other, now));
        now += wait;
        wait = 2 * wait < RETRIES_LONGEST_MS ? 2 * wait : RETRIES_LONGEST_MS;
    }
    assert_int_equal(wait, 64 * 60000);
    retries_succeeded(&retries, &hopeless);
    assert_true(retries_is_due(&retries, &hopeless, 0));
    retries_failed(&retries, &hopeless, now);
    assert_true(retries_is_due(&retries, &hopeless, now + RETRIES_FIRST_MS));
    retries_release(&retries);
}

static void test_retries__what_is_not_there_any_more_is_forgotten(void **state)
{
    (void)state;
    struct retries retries;
    retries_init(&retries, 7);
    for (unsigned n = 0; n < 100; n++) {
        struct id id = id_of(n);
        retries_failed(&retries, &id, 0);
    }
    for (int round = 0; round < 3; round++) {
        for (unsigned n = 0; n < 100; n += 2) {
            struct id id = id_of(n);
            retries_see(&retries, &id);
        }
        retries_end_walk(&retries);
        assert_int_equal(retries.by_id.count, 50);
    }
    struct id even = id_of(4);
    struct id odd = id_of(5);
    assert_false(retries_is_due(&retries, &even, 1));
    assert_true(retries_is_due(&retries, &odd, 1));
    retries_end_walk(&retries);
    assert_int_equal(retries.by_id.count, 0);
    retries_release(&retries);
}

static void test_retries__those_beyond_the_limit_share_a_wait(void **state)
{
    (void)state;
    struct retries retries;
    retries_init(&retries, 7);
    for (unsigned n = 0; n <= LIMIT_RETRIES; n++) {
        struct id id = id_of(n);
        retries_failed(&retries, &id, 1000);
    }
    assert_int_equal(retries.by_id.count, LIMIT_RETRIES);
    struct id beyond = id_of(LIMIT_RETRIES + 7);
    struct id within = id_of(3);
    assert_false(retries_is_due(&retries, &beyond, 1000 + RETRIES_FIRST_MS - 1));
    assert_true(retries_is_due(&retries, &beyond, 1000 + RETRIES_FIRST_MS));
    retries_failed(&retries, &within, 1000 + RETRIES_FIRST_MS); /* has its place */
    assert_true(retries_is_due(&retries, &beyond, 1000 + RETRIES_FIRST_MS));
    assert_false(retries_is_due(&retries, &within, 1000 + RETRIES_FIRST_MS));
    retries_release(&retries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_retries__each_waits_for_itself_and_longer_each_time),
        cmocka_unit_test(test_retries__what_is_not_there_any_more_is_forgotten),
        cmocka_unit_test(test_retries__those_beyond_the_limit_share_a_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
