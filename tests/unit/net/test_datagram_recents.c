#include "tests/test.h"

#include <string.h>

#include "node/base/clock.h"
#include "node/base/limits.h"
#include "node/net/datagram_recents.h"

static void add(struct net_recents *recents, uint64_t number, size_t len)
{
    uint8_t payload[1200];
    memset(payload, (int)(number & 0xff), sizeof payload);
    struct net_recent *recent = net_recents_add(recents, payload, len);
    assert_non_null(recent);
    recent->counter = recent->sent_ms = number;
}

/* Walks from the oldest to `last` without a gap, each with its own payload. Returns how many there are. */
static size_t walk(const struct net_recents *recents, uint64_t last)
{
    size_t count = 0;
    uint64_t before = 0;
    struct net_recent *recent = NULL;
    while ((recent = net_recents_after(recents, recent))) {
        assert_true(before == 0 || recent->counter == before + 1);
        for (size_t i = 0; i < recent->len; i++)
            assert_int_equal(recent->payload[i], recent->counter & 0xff);
        before = recent->counter;
        count++;
    }
    assert_int_equal(before, last);
    return count;
}

/* Whatever the sizes, the latest are kept, in order, and as many as there is room for. */
static void test_datagram_recents__keeps_the_latest(void **state)
{
    (void)state;
    uint64_t seed = 7421;
    struct rng rng = rng_seeded(&seed);
    struct net_recents recents = {0};
    for (uint64_t number = 1; number <= 20000; number++) {
        add(&recents, number, (size_t)rng_below(&rng, number % 3 ? 100 : 1149));
        size_t count = walk(&recents, number);
        assert_true(count == number || count * (sizeof(struct net_recent) + 1156) > LIMIT_DATAGRAM_RECENT_BYTES / 2);
    }
    net_recents_release(&recents);
    assert_null(net_recents_after(&recents, NULL));
}

static void test_datagram_recents__largest_fill_the_ring_exactly(void **state)
{
    (void)state;
    struct net_recents recents = {0};
    size_t len = 512 - sizeof(struct net_recent);
    for (uint64_t number = 1; number <= 1000; number++) {
        add(&recents, number, len);
        size_t most = LIMIT_DATAGRAM_RECENT_BYTES / 512;
        assert_int_equal(walk(&recents, number), number < most ? number : most);
    }
    net_recents_release(&recents);
}

/* What is old goes, and with the last one the memory. */
static void test_datagram_recents__expire(void **state)
{
    (void)state;
    struct net_recents recents = {0};
    for (uint64_t number = 1; number <= 500; number++)
        add(&recents, number, 200);
    net_recents_expire(&recents, 490);
    assert_int_equal(walk(&recents, 500), 11);
    net_recents_expire(&recents, 501);
    assert_null(recents.bytes);
    add(&recents, 501, 0);
    assert_int_equal(walk(&recents, 501), 1);
    net_recents_release(&recents);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_datagram_recents__keeps_the_latest),
        cmocka_unit_test(test_datagram_recents__largest_fill_the_ring_exactly),
        cmocka_unit_test(test_datagram_recents__expire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
