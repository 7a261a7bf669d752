#include "tests/test.h"

#include <string.h>

#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/scope.h"

static void test_buf__keeps_what_was_added(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf buf = BUF(100);
    assert_int_equal(buf_add(&buf, "abc", 3), 0);
    assert_int_equal(buf_addf(&buf, "-%d", 42), 0);
    assert_string_equal(buf_str(&buf), "abc-42");
    buf_consume(&buf, 4);
    assert_string_equal(buf_str(&buf), "42");
}

static void test_buf__never_passes_its_maximum(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf buf = BUF(4);
    assert_int_equal(buf_add(&buf, "abc", 3), 0);
    assert_int_equal(buf_add(&buf, "de", 2), ERR_LIMIT);
    assert_true(buf.failed);
    assert_int_equal(buf.len, 3);
    assert_int_equal(buf_addf(&buf, "%s", "xy"), ERR_LIMIT);
    assert_null(buf_reserve(&buf, SIZE_MAX));
    assert_int_equal(buf_add(&buf, "d", 1), 0);
    assert_true(buf.failed);
    buf_clear(&buf);
    assert_false(buf.failed);
}

static void test_buf__gives_its_memory_away(void **state)
{
    (void)state;
    struct buf buf = BUF(10);
    buf_add(&buf, "x", 1);
    OWNED(owned_free) uint8_t *data = buf_steal(&buf);
    assert_int_equal(data[0], 'x');
    assert_null(buf.data);
    assert_int_equal(buf.max, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf__keeps_what_was_added),
        cmocka_unit_test(test_buf__never_passes_its_maximum),
        cmocka_unit_test(test_buf__gives_its_memory_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
