#include "tests/unit/dht/rig.h"

#define HOUR_MS 3600000u

/* Let whoever was asked answer everything for so long, as one who holds nothing; the keys that were given are counted.
 */
static unsigned serve(struct rig *rig, const struct rig_peer *peers, size_t count, uint64_t ms, const struct id *key)
{
    unsigned given = 0;
    for (uint64_t end_ms = rig->now_ms + ms; rig->now_ms < end_ms;) {
        uint64_t next_ms = dht_next_ms(rig->dht);
        rig->sent_count = 0;
        rig->now_ms = next_ms < rig->now_ms ? rig->now_ms : next_ms < end_ms ? next_ms : end_ms;
        dht_tick(rig->dht, rig->now_ms);
        for (size_t at = 0; at < rig->sent_count; at++) {
            struct dht_message request = rig_message(rig, at);
            struct dht_message answer = {
                .type = (uint8_t)(request.type + 1), .transaction = request.transaction, .parts = 1};
            answer.record_count = request.type == DHT_STORE ? request.record_count : 0;
            for (size_t i = 0; i < answer.record_count; i++) {
                struct dht_record record;
                assert_true(dht_record_decode(request.records[i].at, request.records[i].len, &record));
                given += id_equal(&record.key, key);
            }
            for (size_t i = 0; i < count && request.type % 2 == 1 && request.type != DHT_LEASE; i++)
                if (id_equal(&peers[i].contact.id, &rig->sent[at].to.id))
                    rig_input(rig, &peers[i], &answer);
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

/* What an earlier life of ours published and this one does not say again lapses like everything else. */
static void test_sweep__what_is_not_said_again_lapses(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1);
    struct dht_value value = {.version = {1, 1}};
    assert_int_equal(dht_publish(rig->dht, rig->now_ms, &key, DHT_OBJECT, &value, NULL), 0);
    rig_run(rig, 1);
    rig_restart(rig);
    assert_int_equal(rig_stats(rig).records, 1);
    rig_run(rig, DHT_RECORD_TTL_MS + HOUR_MS);
    assert_int_equal(rig_stats(rig).records, 0);
    rig_free(rig);
}

/* A peer that shares so many leading bits with us. */
static struct rig_peer peer_at(const struct rig *rig, unsigned shared, unsigned *number)
{
    struct rig_peer peer;
    do
        peer = rig_peer((*number)++);
    while (dht_shared_bits(&peer.contact.id, &rig->dht->self.id) != shared);
    return peer;
}

/* A key that shares so many with us. */
static struct id key_at(const struct rig *rig, unsigned shared, unsigned *number)
{
    struct id key;
    do
        key = rig_key((*number)++);
    while (dht_shared_bits(&key, &rig->dht->self.id) != shared);
    return key;
}

/* Sixteen nodes in the other half and two in ours are two subtrees. A newcomer in the other half is a holder of our
 * half's keys if few others there are closer; it is given them by whoever is the closest to them. */
static void test_sweep__hands_over_to_a_newcomer(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[18];
    unsigned number = 0, key_number = 0;
    for (unsigned i = 0; i < 17; i++)
        peers[i] = peer_at(rig, i < 16 ? 0 : 1, &number);
    struct id near = key_at(rig, 2, &key_number), far = key_at(rig, 1, &key_number);
    struct rig_peer member = rig_peer(20000);
    struct dht_record near_record = rig_record(&member, &near, 1, 1), far_record = rig_record(&member, &far, 1, 1);
    for (unsigned i = 0; i < 15; i++)
        rig_meet(rig, &peers[i]);
    rig_meet(rig, &peers[16]);
    serve(rig, peers, 17, 20000, &near);
    assert_int_equal(rig_hold(rig, &near_record), DHT_ACCEPTED);
    assert_int_equal(rig_hold(rig, &far_record), DHT_ACCEPTED);
    assert_int_equal(dht_common_bits(rig->dht), 1);
    rig->sent_count = 0;
    rig_meet(rig, &peers[15]);
    struct dht_contact closest[DHT_REPLICAS];
    size_t count = dht_table_closest(&rig->dht->table, &near, true, closest, DHT_REPLICAS);
    bool among = false;
    for (size_t i = 0; i < count; i++)
        among |= id_equal(&closest[i].id, &peers[15].contact.id);
    unsigned given = serve(rig, &peers[15], 1, 10000, &near);
    assert_int_equal(given, among);
    rig_free(rig);
}

static void test_sweep__position_survives_a_restart(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(7), due = rig_key(8);
    rig->dht->sweep.cursor = key;
    rig->dht->giving.cursor = due;
    assert_int_equal(dht_save(rig->dht, NULL), 0);
    rig_restart(rig);
    assert_int_equal(dht_restore(rig->dht, rig->now_ms, NULL), 0);
    assert_true(id_equal(&rig->dht->sweep.cursor, &key));
    assert_true(id_equal(&rig->dht->giving.cursor, &due));
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sweep__lapsed_records_go),
        cmocka_unit_test(test_sweep__what_is_not_said_again_lapses),
        cmocka_unit_test(test_sweep__hands_over_to_a_newcomer),
        cmocka_unit_test(test_sweep__position_survives_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
