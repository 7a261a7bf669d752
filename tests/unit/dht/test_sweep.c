#include "tests/unit/dht/rig.h"

#define HOUR_MS 3600000u

/* Let the peer answer everything for so long; the keys that it was given are counted. */
static unsigned serve(struct rig *rig, const struct rig_peer *peer, uint64_t ms, const struct id *key)
{
    unsigned given = 0;
    for (uint64_t end_ms = rig->now_ms + ms; rig->now_ms < end_ms;) {
        uint64_t next_ms = dht_next_ms(rig->dht);
        rig->sent_count = 0;
        rig->now_ms = next_ms < rig->now_ms ? rig->now_ms : next_ms < end_ms ? next_ms : end_ms;
        dht_tick(rig->dht, rig->now_ms);
        for (size_t at = 0; at < rig->sent_count; at++) {
            struct dht_message request = rig_message(rig, at);
            struct dht_message answer = {.type = (uint8_t)(request.type + 1), .transaction = request.transaction};
            answer.record_count = request.type == DHT_STORE ? request.record_count : 0;
            for (size_t i = 0; i < answer.record_count; i++) {
                struct dht_record record;
                assert_true(dht_record_decode(request.records[i].at, request.records[i].len, &record));
                given += id_equal(&record.key, key);
            }
            if (request.type % 2 == 1)
                rig_input(rig, peer, &answer);
        }
    }
    return given;
}

static void test_sweep__lapsed_records_go(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer member = rig_peer(1);
    for (unsigned i = 0; i < 300; i++) {
        struct id key = rig_key(i);
        struct dht_record record = rig_record(&member, &key, 1, 1);
        record.expiry_wall_ms = RIG_WALL_MS + (i % 3 ? 1 : 2) * HOUR_MS;
        rig_sign(&record, &member.key);
        assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    }
    rig_run(rig, HOUR_MS + HOUR_MS / 2);
    assert_int_equal(rig_stats(rig).records, 100);
    rig_run(rig, HOUR_MS);
    assert_int_equal(rig_stats(rig).records, 0);
    rig_free(rig);
}

/* A held record is given on after an hour in which nobody else did, and not before. */
static void test_sweep__replicates_what_nobody_else_does(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1), member = rig_peer(2);
    struct id key = rig_key(1);
    struct dht_record record = rig_record(&member, &key, 1, 1);
    rig_meet(rig, &peer);
    serve(rig, &peer, 60000, &key);
    assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    assert_int_equal(serve(rig, &peer, HOUR_MS - 1, &key), 0);
    assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED); /* another holder gave it to us */
    assert_int_equal(serve(rig, &peer, HOUR_MS - 1, &key), 0);
    assert_int_equal(serve(rig, &peer, HOUR_MS / 2, &key), 1);
    rig_free(rig);
}

/* Our own records never lapse while they are published: signed anew each day, the version stays. */
static void test_sweep__renews_what_is_published(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct id key = rig_key(1);
    struct dht_value value = {.version = {1, 1}};
    struct dht_record record;
    rig_meet(rig, &peer);
    assert_int_equal(dht_publish(rig->dht, rig->now_ms, &key, DHT_OBJECT, &value, NULL), 0);
    for (unsigned day = 1; day <= 5; day++) {
        serve(rig, &peer, 24 * HOUR_MS, &key);
        assert_int_equal(dht_hold_get(rig->dht, &key, &rig->dht->self.id, &record), 1);
        assert_true(record.expiry_wall_ms > RIG_WALL_MS + rig->now_ms + 24 * HOUR_MS);
        assert_int_equal(record.version.counter, 1);
    }
    rig_free(rig);
}

/* Somebody new close to a key is given its records at once, if we are the closest of those who had them; by others
 * if they are. */
static void test_sweep__hands_over_to_a_newcomer(void **state)
{
    (void)state;
    for (unsigned closer = 0; closer < 2; closer++) {
        struct rig *rig = rig_new();
        struct rig_peer member = rig_peer(2), newcomer = rig_peer(1), old = rig_peer(100);
        struct id key = rig_key(1);
        for (unsigned i = 100; (dht_closer(&key, &old.contact.id, &rig->dht->self.id) < 0) != closer; i++)
            old = rig_peer(i);
        rig_meet(rig, &old);
        serve(rig, &old, 10000, &key);
        struct dht_record record = rig_record(&member, &key, 1, 1);
        assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
        rig_meet(rig, &newcomer);
        assert_int_equal(serve(rig, &newcomer, 60000, &key), closer ? 0 : 1);
        rig_free(rig);
    }
}

static void test_sweep__position_survives_a_restart(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(7);
    rig->dht->sweep.cursor = key;
    assert_int_equal(dht_save(rig->dht, NULL), 0);
    rig_restart(rig);
    assert_int_equal(dht_restore(rig->dht, rig->now_ms, NULL), 0);
    assert_true(id_equal(&rig->dht->sweep.cursor, &key));
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sweep__lapsed_records_go),
        cmocka_unit_test(test_sweep__replicates_what_nobody_else_does),
        cmocka_unit_test(test_sweep__renews_what_is_published),
        cmocka_unit_test(test_sweep__hands_over_to_a_newcomer),
        cmocka_unit_test(test_sweep__position_survives_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
