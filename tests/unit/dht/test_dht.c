#include "tests/unit/dht/rig.h"

/* faults 1, 2: nothing is answered, everything is counted */
static void test_dht__rubbish_is_dropped_and_counted(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    static uint8_t huge[65507] = {DHT_MESSAGE_VERSION, DHT_PING};
    dht_input(rig->dht, rig->now_ms, &peer.contact, huge, 0);
    dht_input(rig->dht, rig->now_ms, &peer.contact, huge, 1);
    dht_input(rig->dht, rig->now_ms, &peer.contact, huge, sizeof huge);
    assert_int_equal(rig_stats(rig).dropped_short, 3);
    huge[1] = 200;
    dht_input(rig->dht, rig->now_ms, &peer.contact, huge, DHT_MESSAGE_HEADER_BYTES);
    huge[1] = DHT_PING;
    huge[2] = 0xff;
    dht_input(rig->dht, rig->now_ms, &peer.contact, huge, DHT_MESSAGE_HEADER_BYTES);
    assert_int_equal(rig_stats(rig).dropped_type, 2);
    assert_int_equal(rig_stats(rig).received, 5);
    assert_int_equal(rig->sent_count, 0);
    rig_free(rig);
}

/* faults 85 */
static void test_dht__revoked_are_ignored(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct id key = rig_key(1);
    struct dht_record record = rig_record(&peer, &key, 1, 1);
    rig_meet(rig, &peer);
    assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    assert_int_equal(dht_forget(rig->dht, &peer.contact.id, NULL), 0);
    assert_int_equal(rig_stats(rig).contacts, 0);
    assert_int_equal(rig_stats(rig).records, 0);
    rig->sent_count = 0;
    rig_input(rig, &peer, &(struct dht_message){.type = DHT_PING});
    dht_add_contact(rig->dht, rig->now_ms, &peer.contact);
    assert_int_equal(rig->sent_count, 0);
    assert_int_equal(rig_stats(rig).dropped_revoked, 1);
    rig_free(rig);
}

static bool count_contact(void *ctx, const struct dht_contact *contact, unsigned rtt_ms, uint64_t heard_ms)
{
    (void)contact;
    assert_int_equal(rtt_ms, 1);
    assert_int_equal(heard_ms, 1000);
    return ++*(unsigned *)ctx != 5;
}

static void test_dht__contacts_are_shown(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    unsigned seen = 0;
    for (unsigned i = 0; i < 8; i++) {
        struct rig_peer peer = rig_peer(i);
        rig_meet(rig, &peer);
    }
    assert_int_equal(rig_stats(rig).contacts, 8);
    dht_contacts(rig->dht, count_contact, &seen);
    assert_int_equal(seen, 5);
    rig_free(rig);
}

/* faults 60: a monotonic clock that went back is not believed; the wall clock may jump as it likes */
static void test_dht__time_only_goes_on(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    dht_tick(rig->dht, 5000);
    dht_tick(rig->dht, 10);
    assert_true(rig->dht->now_ms == 5000);
    dht_set_wall(rig->dht, 6000, 1);
    assert_true(dht_wall_ms(rig->dht) == 1);
    dht_set_wall(rig->dht, 6000, RIG_WALL_MS);
    assert_true(dht_wall_ms(rig->dht) == RIG_WALL_MS);
    rig_free(rig);
}

/* With nothing to do a node asks for hardly any ticks. */
static void test_dht__idles_quietly(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    unsigned ticks = 0;
    for (uint64_t next_ms; (next_ms = dht_next_ms(rig->dht)) < 3600000; ticks++)
        dht_tick(rig->dht, next_ms);
    assert_true(ticks < 10);
    assert_int_equal(rig->sent_count, 0);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dht__rubbish_is_dropped_and_counted),
        cmocka_unit_test(test_dht__revoked_are_ignored),
        cmocka_unit_test(test_dht__contacts_are_shown),
        cmocka_unit_test(test_dht__time_only_goes_on),
        cmocka_unit_test(test_dht__idles_quietly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
