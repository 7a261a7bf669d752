#include "tests/test.h"

#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/net/udp.h"

struct side {
    struct udp *udp;
    struct addr addr;
    struct addr from; /* of the last datagram */
    unsigned received, wrong;
    size_t last_len;
    unsigned free_after; /* so many datagrams; 0: never */
};

static void on_datagram(void *ctx, const struct addr *from, const uint8_t *data, size_t len)
{
    struct side *side = ctx;
    side->received++;
    side->from = *from;
    side->last_len = len;
    for (size_t i = 0; i < len; i++)
        side->wrong += data[i] != (uint8_t)len;
    if (side->received == side->free_after)
        udp_free(STEAL(side->udp));
}

static void open_side(uv_loop_t *loop, struct side *side, struct addr addr)
{
    struct err err = {0};
    *side = (struct side){.addr = addr};
    if (udp_new(loop, &addr, on_datagram, side, &side->udp, &err) < 0)
        fail_msg("%s", err.text);
    side->addr.port = udp_port(side->udp);
}

static void say(struct side *from, const struct addr *to, size_t len)
{
    static uint8_t bytes[2000];
    memset(bytes, (int)(len & 0xff), len);
    udp_send(from->udp, to, bytes, len);
}

static void turn(uv_loop_t *loop)
{
    for (int i = 0; i < 20; i++)
        uv_run(loop, UV_RUN_NOWAIT);
}

static void close_all(uv_loop_t *loop, struct side *a, struct side *b)
{
    udp_free(a->udp);
    udp_free(b->udp);
    uv_run(loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(loop), 0);
}

static const struct addr loopback = {.family = 4, .ip = {127, 0, 0, 1}};

/* More than one call of the kernel takes, of all sizes; what is longer than a datagram of ours never arrives. */
static void test_udp__carries_datagrams_of_all_sizes(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct side a, b;
    uv_loop_init(&loop);
    open_side(&loop, &a, loopback);
    open_side(&loop, &b, loopback);
    for (size_t len = 1; len <= 50; len++)
        say(&a, &b.addr, len);
    say(&a, &b.addr, LIMIT_DATAGRAM_BYTES);
    turn(&loop);
    assert_int_equal(b.received, 51);
    assert_int_equal(b.wrong, 0);
    assert_int_equal(b.last_len, LIMIT_DATAGRAM_BYTES);
    assert_true(addr_equal(&b.from, &a.addr));
    say(&a, &b.addr, LIMIT_DATAGRAM_BYTES + 1); /* faults 2 */
    turn(&loop);
    assert_int_equal(b.received, 51);
    assert_int_equal(udp_stats(a.udp)->sent, 52);
    assert_int_equal(udp_stats(b.udp)->received, 52);
    close_all(&loop, &a, &b);
}

/* A socket may be freed by what it receives, with more behind it; its port is free at once. */
static void test_udp__may_be_freed_while_it_receives(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct side a, b;
    uv_loop_init(&loop);
    open_side(&loop, &a, loopback);
    open_side(&loop, &b, loopback);
    b.free_after = 3;
    for (size_t len = 1; len <= 10; len++)
        say(&a, &b.addr, len);
    turn(&loop);
    assert_int_equal(b.received, 3);
    assert_null(b.udp);
    struct addr again = b.addr;
    open_side(&loop, &b, again);
    close_all(&loop, &a, &b);
}

static void test_udp__taken_port_is_told(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct side a, b = {0};
    struct err err = {0};
    uv_loop_init(&loop);
    open_side(&loop, &a, loopback);
    assert_int_equal(udp_new(&loop, &a.addr, on_datagram, &b, &b.udp, &err), ERR_BUSY);
    close_all(&loop, &a, &b);
}

/* [::] takes and sends IPv4 too; addresses are told as what they are. */
static void test_udp__any_address_carries_both_families(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct side a, b;
    struct err err = {0};
    uv_loop_init(&loop);
    b = (struct side){.addr = {.family = 6}};
    if (udp_new(&loop, &b.addr, on_datagram, &b, &b.udp, &err) < 0) {
        uv_loop_close(&loop);
        skip(); /* a machine without IPv6 */
    }
    b.addr = loopback;
    b.addr.port = udp_port(b.udp);
    open_side(&loop, &a, loopback);
    say(&a, &b.addr, 7);
    turn(&loop);
    assert_int_equal(b.received, 1);
    assert_true(addr_equal(&b.from, &a.addr));
    say(&b, &a.addr, 9);
    turn(&loop);
    assert_int_equal(a.received, 1);
    assert_true(addr_equal(&a.from, &b.addr));
    close_all(&loop, &a, &b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_udp__carries_datagrams_of_all_sizes),
        cmocka_unit_test(test_udp__may_be_freed_while_it_receives),
        cmocka_unit_test(test_udp__taken_port_is_told),
        cmocka_unit_test(test_udp__any_address_carries_both_families),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
