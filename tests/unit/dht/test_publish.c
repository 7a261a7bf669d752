#include <math.h>

#include "tests/unit/dht/rig.h"

static int publish(struct rig *rig, unsigned number, double score, uint64_t epoch, uint64_t counter)
{
    struct id key = rig_key(number);
    struct dht_value value = {.score = score, .version = {epoch, counter}};
    return dht_publish(rig->dht, rig->now_ms, &key, DHT_OBJECT, &value, NULL);
}

static struct dht_record own(struct rig *rig, unsigned number)
{
    struct id key = rig_key(number);
    struct dht_record record;
    assert_int_equal(dht_hold_get(rig->dht, &key, &rig->dht->self.id, &record), 1);
    return record;
}

/* faults 19; and what is not for hands */
static void test_publish__refuses_what_makes_no_record(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1);
    struct dht_value value = {.data = "", .data_len = DHT_DATA_MAX_BYTES + 1};
    assert_int_equal(publish(rig, 1, NAN, 0, 0), ERR_INVALID);
    assert_int_equal(dht_publish(rig->dht, rig->now_ms, &key, DHT_OBJECT, &value, NULL), ERR_INVALID);
    value.data_len = 0;
    assert_int_equal(dht_publish(rig->dht, rig->now_ms, &key, DHT_NODE, &value, NULL), ERR_INVALID);
    assert_int_equal(rig_stats(rig).published, 0);
    rig_free(rig);
}

static void test_publish__versions_only_rise(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1);
    assert_int_equal(publish(rig, 1, 1, 3, 5), 0);
    assert_int_equal(publish(rig, 1, 1, 3, 5), 0); /* the same again */
    assert_int_equal(publish(rig, 1, 2, 3, 5), ERR_CONFLICT);
    assert_int_equal(publish(rig, 1, 2, 2, 9), ERR_CONFLICT);
    assert_int_equal(publish(rig, 1, 2, 3, 6), 0);
    assert_true(own(rig, 1).score == 2);
    assert_int_equal(dht_withdraw(rig->dht, rig->now_ms, &key, NULL), 0);
    assert_true(own(rig, 1).tombstone);
    assert_int_equal(publish(rig, 1, 2, 3, 6), ERR_CONFLICT);
    assert_int_equal(publish(rig, 1, 2, 4, 0), 0);
    assert_false(own(rig, 1).tombstone);
    rig_free(rig);
}

/* faults 60: counted versions rise over a restart with the wall clock gone back by a day */
static void test_publish__counting_survives_a_clock_that_goes_back(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    assert_int_equal(publish(rig, 1, 1, 0, 0), 0);
    assert_int_equal(publish(rig, 2, 1, 0, 0), 0);
    struct dht_version first = own(rig, 1).version, second = own(rig, 2).version;
    assert_true(dht_version_compare(&second, &first) > 0);
    rig_restart(rig);
    dht_set_wall(rig->dht, rig->now_ms, RIG_WALL_MS - 86400000);
    assert_int_equal(publish(rig, 3, 1, 0, 0), 0);
    struct dht_version third = own(rig, 3).version;
    assert_true(dht_version_compare(&third, &second) > 0);
    rig_free(rig);
}

/* After a restart the same is said again: nothing is signed or sent for it. */
static void test_publish__said_again_after_a_restart(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct dht_message store;
    assert_int_equal(publish(rig, 1, 1, 0, 0), 0);
    struct dht_record before = own(rig, 1);
    rig_restart(rig);
    assert_int_equal(publish(rig, 1, 1, 0, 0), 0);
    struct dht_record after = own(rig, 1);
    assert_int_equal(dht_record_compare(&before, &after), 0);
    assert_int_equal(rig_stats(rig).published, 1);
    rig_meet(rig, &peer);
    rig_run(rig, 2000);
    assert_false(rig_find(rig, DHT_STORE, &peer, &store));
    rig_free(rig);
}

/* Away for three days: what is said again then is signed anew, although nothing changed. */
static void test_publish__said_again_after_it_lapsed(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    assert_int_equal(publish(rig, 1, 1, 0, 0), 0);
    struct dht_version version = own(rig, 1).version;
    rig->now_ms += DHT_RECORD_TTL_MS + 1000;
    rig_restart(rig);
    assert_int_equal(publish(rig, 1, 1, 0, 0), 0);
    struct dht_record record = own(rig, 1);
    assert_true(dht_record_is_timely(&record, RIG_WALL_MS + rig->now_ms));
    assert_int_equal(dht_version_compare(&record.version, &version), 0);
    rig->now_ms += DHT_RECORD_TTL_MS + 1000; /* and asleep for three days, without a restart */
    dht_tick(rig->dht, rig->now_ms);
    record = own(rig, 1);
    assert_true(dht_record_is_timely(&record, RIG_WALL_MS + rig->now_ms));
    rig_free(rig);
}

/* Let the peer answer all walks with nobody new and accept all stores, for so long. */
static unsigned serve(struct rig *rig, const struct rig_peer *peer, uint64_t ms)
{
    unsigned stores = 0;
    size_t at = rig->sent_count;
    for (uint64_t end_ms = rig->now_ms + ms; rig->now_ms < end_ms;) {
        rig_run(rig, 100);
        for (; at < rig->sent_count; at++) {
            struct dht_message request = rig_message(rig, at);
            struct dht_message answer = {.type = (uint8_t)(request.type + 1), .transaction = request.transaction};
            if (request.type == DHT_STORE)
                answer.record_count = request.record_count;
            stores += request.type == DHT_STORE;
            rig_input(rig, peer, &answer);
        }
        if (at > RIG_SENT_MAX / 2)
            at = rig->sent_count = 0;
    }
    return stores;
}

static void test_publish__gives_to_the_holders_until_withdrawn(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct id key = rig_key(1);
    rig_meet(rig, &peer);
    serve(rig, &peer, 5000); /* joined, and the lease is out */
    assert_int_equal(publish(rig, 1, 1, 0, 0), 0);
    assert_int_equal(serve(rig, &peer, 5000), 1);
    assert_int_equal(dht_withdraw(rig->dht, rig->now_ms, &key, NULL), 0);
    assert_int_equal(rig_stats(rig).published, 1);
    assert_int_equal(serve(rig, &peer, 5000), 1);
    assert_int_equal(rig_stats(rig).published, 0);
    rig_free(rig);
}

/* One lease a minute, each newer and good for two. */
static void test_publish__lease_is_renewed_each_minute(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct id key = dht_key(DHT_NODE, rig->dht->self.id.b, ID_BYTES);
    struct dht_record lease, next;
    rig_meet(rig, &peer);
    assert_int_equal(serve(rig, &peer, 10000), 1);
    assert_int_equal(dht_hold_get(rig->dht, &key, &rig->dht->self.id, &lease), 1);
    assert_in_range(lease.expiry_wall_ms - RIG_WALL_MS, DHT_LEASE_TTL_MS, DHT_LEASE_TTL_MS + 10000);
    assert_int_equal(serve(rig, &peer, 5 * DHT_LEASE_RENEW_MS), 5);
    assert_int_equal(dht_hold_get(rig->dht, &key, &rig->dht->self.id, &next), 1);
    assert_true(dht_version_compare(&next.version, &lease.version) > 0);

    struct addr moved = {.family = 4, .port = 9, .ip = {172, 16, 0, 2}};
    dht_set_address(rig->dht, rig->now_ms, &moved);
    assert_int_equal(serve(rig, &peer, 1000), 1);
    rig_free(rig);
}

/* faults 59: the storage was lost; holders know a later version of ours, so we count on from there. */
static void test_publish__overtaken_by_an_earlier_life(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer self = {.key = rig->key};
    struct id key = rig_key(1);
    assert_int_equal(publish(rig, 1, 7, 0, 0), 0);
    struct dht_record earlier = rig_record(&self, &key, 3, own(rig, 1).version.counter + 1000000);
    dht_publish_overtaken(rig->dht, &earlier);
    struct dht_record record = own(rig, 1);
    assert_true(record.score == 7);
    assert_true(dht_version_compare(&record.version, &earlier.version) > 0);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_publish__refuses_what_makes_no_record),
        cmocka_unit_test(test_publish__versions_only_rise),
        cmocka_unit_test(test_publish__counting_survives_a_clock_that_goes_back),
        cmocka_unit_test(test_publish__said_again_after_a_restart),
        cmocka_unit_test(test_publish__said_again_after_it_lapsed),
        cmocka_unit_test(test_publish__gives_to_the_holders_until_withdrawn),
        cmocka_unit_test(test_publish__lease_is_renewed_each_minute),
        cmocka_unit_test(test_publish__overtaken_by_an_earlier_life),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
