#include "tests/test.h"

#include <string.h>

#include "node/base/addr.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

static void test_wire__reads_what_was_written(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf buf = BUF(1000);
    struct id id = {.b = {1, 2, 3}};
    wire_put_u8(&buf, 0xab);
    wire_put_u16(&buf, 0x1234);
    wire_put_u32(&buf, 0xdeadbeef);
    wire_put_u64(&buf, 0x0123456789abcdefu);
    wire_put_id(&buf, &id);
    wire_put_short(&buf, "short", 5);
    wire_put_long(&buf, "long", 4);
    assert_false(buf.failed);

    static const uint8_t golden[] = {0xab, 0x12, 0x34, 0xde, 0xad, 0xbe, 0xef, 1,
                                     0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
    assert_memory_equal(buf.data, golden, sizeof golden);

    struct wire in;
    wire_init(&in, buf.data, buf.len);
    assert_int_equal(wire_get_u8(&in), 0xab);
    assert_int_equal(wire_get_u16(&in), 0x1234);
    assert_int_equal(wire_get_u32(&in), 0xdeadbeef);
    assert_true(wire_get_u64(&in) == 0x0123456789abcdefu);
    struct id back = wire_get_id(&in);
    assert_true(id_equal(&id, &back));
    size_t len;
    assert_memory_equal(wire_get_short(&in, 5, &len), "short", 5);
    assert_memory_equal(wire_get_long(&in, 4, &len), "long", 4);
    assert_true(wire_done(&in));
}

static void test_wire__failure_sticks(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0, 9, 1, 2};
    struct wire in;
    wire_init(&in, bytes, sizeof bytes);
    size_t len = 77;
    assert_null(wire_get_short(&in, 100, &len));
    assert_int_equal(len, 0);
    assert_int_equal(wire_get_u8(&in), 0);
    assert_true(in.failed);
    assert_false(wire_done(&in));

    wire_init(&in, bytes, sizeof bytes);
    assert_null(wire_get_short(&in, 8, &len)); /* longer than its maximum */
    wire_init(&in, NULL, 0);
    assert_true(wire_done(&in));
    assert_int_equal(wire_get_u64(&in), 0);
    assert_true(in.failed);
}

static void test_wire__too_long_for_its_length_field(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf buf = BUF(100000);
    static uint8_t big[65536];
    wire_put_short(&buf, big, sizeof big);
    assert_true(buf.failed);
}

static void test_wire__addresses(void **state)
{
    (void)state;
    static const char *const good[] = {"1.2.3.4:5", "[::1]:7421", "[2001:db8::7]:65535"};
    for (size_t i = 0; i < 3; i++) {
        struct addr addr;
        char text[ADDR_TEXT_SIZE];
        assert_true(addr_parse(good[i], 1, &addr));
        assert_string_equal(addr_text(&addr, text), good[i]);
        OWNED(buf_release) struct buf buf = BUF(100);
        addr_put(&buf, &addr);
        assert_int_equal(buf.len, ADDR_WIRE_BYTES);
        struct wire in;
        wire_init(&in, buf.data, buf.len);
        struct addr back = addr_get(&in);
        assert_true(wire_done(&in));
        assert_true(addr_equal(&addr, &back));
    }
    static const char *const bad[] = {"",           ":",    "1.2.3",  "1.2.3.4:",    "1.2.3.4:0", "1.2.3.4:65536",
                                      "1.2.3.4:+5", "[::1", "[::1]x", "[1.2.3.4]:5", "host:80",   "1.2.3.4:5 "};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct addr addr;
        assert_false(addr_parse(bad[i], 1, &addr));
    }
    struct addr plain;
    assert_true(addr_parse("::1", 9, &plain));
    assert_int_equal(plain.port, 9);
    assert_true(addr_is_loopback(&plain));
    assert_true(addr_is_usable(&plain));
    assert_true(addr_parse("0.0.0.0", 9, &plain));
    assert_false(addr_is_usable(&plain));
    assert_true(addr_parse("224.0.0.1", 9, &plain));
    assert_false(addr_is_usable(&plain));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wire__reads_what_was_written),
        cmocka_unit_test(test_wire__failure_sticks),
        cmocka_unit_test(test_wire__too_long_for_its_length_field),
        cmocka_unit_test(test_wire__addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
