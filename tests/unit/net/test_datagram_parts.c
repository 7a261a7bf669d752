#include "tests/test.h"

#include <stdlib.h>

#include "node/base/crypto.h"
#include "node/net/datagram_parts.h"

static const struct addr here = {.family = 4, .port = 7421, .ip = {10, 0, 0, 1}};

static void test_datagram_parts__cookie_is_for_one_address_and_node(void **state)
{
    (void)state;
    uint64_t seed = 1, issued;
    struct net_cookies cookies;
    struct id id = {{1}}, other_id = {{2}};
    struct addr port = here, host = here;
    port.port++;
    host.ip[0]++;
    uint8_t cookie[COOKIE_BYTES];
    net_cookies_init(&cookies, rng_seeded(&seed));
    net_cookies_make(&cookies, 5000, &here, &id, cookie);
    assert_true(net_cookies_check(&cookies, 5000, &here, &id, cookie, &issued));
    assert_int_equal(issued, 5000);
    assert_false(net_cookies_check(&cookies, 5000, &port, &id, cookie, &issued));
    assert_false(net_cookies_check(&cookies, 5000, &host, &id, cookie, &issued));
    assert_false(net_cookies_check(&cookies, 5000, &here, &other_id, cookie, &issued));
    for (size_t i = 0; i < COOKIE_BYTES; i++) {
        cookie[i] ^= 1;
        assert_false(net_cookies_check(&cookies, 5001, &here, &id, cookie, &issued));
        cookie[i] ^= 1;
    }
}

static void test_datagram_parts__cookie_ends_but_outlives_one_rotation(void **state)
{
    (void)state;
    uint64_t seed = 1, issued;
    struct net_cookies cookies;
    struct id id = {{1}};
    uint8_t cookie[COOKIE_BYTES];
    net_cookies_init(&cookies, rng_seeded(&seed));
    uint64_t now = COOKIE_SECRET_MS - 1;
    net_cookies_make(&cookies, now, &here, &id, cookie);
    assert_true(net_cookies_check(&cookies, now + COOKIE_LIFE_MS, &here, &id, cookie, &issued));
    assert_false(net_cookies_check(&cookies, now + COOKIE_LIFE_MS + 1, &here, &id, cookie, &issued));
    assert_false(net_cookies_check(&cookies, now - 1, &here, &id, cookie, &issued));

    struct net_cookies restarted;
    net_cookies_init(&restarted, rng_seeded(&seed));
    assert_false(net_cookies_check(&restarted, now, &here, &id, cookie, &issued));
}

static void test_datagram_parts__ration_refills(void **state) /* faults 8 */
{
    (void)state;
    struct net_ration *ration = calloc(1, sizeof *ration);
    struct addr neighbour = here, other = here;
    neighbour.ip[3]++;
    other.ip[0]++;
    net_ration_init(ration, 10, 5, 42);
    for (int i = 0; i < 5; i++)
        assert_true(net_ration_take(ration, 1000, i % 2 ? &here : &neighbour));
    assert_false(net_ration_take(ration, 1000, &here));
    assert_true(net_ration_take(ration, 1000, &other));
    assert_false(net_ration_take(ration, 1099, &here));
    assert_true(net_ration_take(ration, 1100, &here));
    assert_false(net_ration_take(ration, 1100, &here));
    for (int i = 0; i < 5; i++)
        assert_true(net_ration_take(ration, 100000, &here));
    assert_false(net_ration_take(ration, 100000, &here));
    net_ration_release(ration);
    free(ration);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_datagram_parts__cookie_is_for_one_address_and_node),
        cmocka_unit_test(test_datagram_parts__cookie_ends_but_outlives_one_rotation),
        cmocka_unit_test(test_datagram_parts__ration_refills),
    };
    return crypto_init(NULL) < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
