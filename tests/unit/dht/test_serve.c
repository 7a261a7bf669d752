#include "tests/unit/dht/rig.h"

static void test_serve__ping(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    rig_input(rig, &peer, &(struct dht_message){.type = DHT_PING, .transaction = 5});
    struct dht_message pong = rig_last(rig);
    assert_int_equal(pong.type, DHT_PONG);
    assert_true(pong.transaction == 5);
    rig_free(rig);
}

/* Somebody who asks is asked in turn, and is in the tables only once it answers; a client never. */
static void test_serve__askers_are_verified_first(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1), client = rig_peer(2);
    struct dht_message message;
    rig_input(rig, &peer, &(struct dht_message){.type = DHT_PING});
    rig_input(rig, &peer, &(struct dht_message){.type = DHT_PING});
    assert_int_equal(rig->sent_count, 3); /* two answers and one question */
    assert_int_equal(rig_stats(rig).contacts, 0);
    rig_answer(rig, &peer, DHT_PING, (struct dht_message){.type = DHT_PONG});
    assert_int_equal(rig_stats(rig).contacts, 1);

    rig_input(rig, &client, &(struct dht_message){.type = DHT_PING, .flags = DHT_FROM_CLIENT});
    assert_false(rig_find(rig, DHT_PING, &client, &message));
    dht_add_contact(rig->dht, rig->now_ms, &client.contact);
    rig_answer(rig, &client, DHT_PING, (struct dht_message){.type = DHT_PONG, .flags = DHT_FROM_CLIENT});
    assert_int_equal(rig_stats(rig).contacts, 1);
    rig_free(rig);
}

static void test_serve__find_node_tells_the_closest_but_the_asker(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer asker = rig_peer(3);
    for (unsigned i = 0; i < 30; i++) {
        struct rig_peer peer = rig_peer(i);
        rig_meet(rig, &peer);
    }
    rig_input(rig, &asker, &(struct dht_message){.type = DHT_FIND_NODE, .target = asker.contact.id});
    struct dht_message answer = rig_last(rig);
    assert_int_equal(answer.type, DHT_NODES);
    assert_int_equal(answer.contact_count, DHT_REPLICAS);
    for (size_t i = 0; i < answer.contact_count; i++) {
        assert_false(id_equal(&answer.contacts[i].id, &asker.contact.id));
        if (i > 0)
            assert_true(dht_closer(&asker.contact.id, &answer.contacts[i - 1].id, &answer.contacts[i].id) < 0);
    }
    rig_free(rig);
}

/* A set larger than a message comes in pages, in order, each record once. */
static void test_serve__find_value_is_ranged(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer asker = rig_peer(3);
    struct id key = rig_key(1);
    for (unsigned i = 0; i < 20; i++) {
        struct rig_peer peer = rig_peer(100 + i);
        struct dht_record record = rig_record(&peer, &key, i * 7 % 20, 1);
        assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    }
    struct dht_message ask = {.type = DHT_FIND_VALUE, .target = key, .limit = 255};
    unsigned seen = 0;
    for (unsigned pages = 1;; pages++) {
        rig_input(rig, &asker, &ask);
        struct dht_message answer = rig_last(rig);
        assert_int_equal(answer.total, 20);
        for (size_t i = 0; i < answer.record_count; i++, seen++) {
            struct dht_record record;
            assert_true(dht_record_decode(answer.records[i].at, answer.records[i].len, &record));
            assert_true(record.score == (double)(19 - seen));
            ask.after = dht_record_rank(&record, DHT_BY_SCORE, NULL);
            ask.ranged = true;
        }
        assert_true(pages <= 5);
        if (!answer.more)
            break;
    }
    assert_int_equal(seen, 20);

    ask = (struct dht_message){.type = DHT_FIND_VALUE, .target = key, .limit = 2, .order = DHT_BY_SCORE_LOW};
    rig_input(rig, &asker, &ask);
    struct dht_message answer = rig_last(rig);
    assert_int_equal(answer.record_count, 2);
    assert_true(answer.more);
    rig_free(rig);
}

/* The largest records leave room for contacts; a lease that is held comes along. */
static void test_serve__find_value_brings_contacts_and_leases(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer asker = rig_peer(3), member = rig_peer(50);
    struct id key = rig_key(1);
    for (unsigned i = 0; i < 20; i++) {
        struct rig_peer peer = rig_peer(i);
        rig_meet(rig, &peer);
    }
    struct dht_record record = rig_record(&member, &key, 1, 1);
    record.data_len = DHT_DATA_MAX_BYTES;
    rig_sign(&record, &member.key);
    struct dht_record lease = rig_lease(&member, 1, RIG_WALL_MS + DHT_LEASE_TTL_MS);
    assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    assert_int_equal(rig_hold(rig, &lease), DHT_ACCEPTED);
    struct dht_message ask = {.type = DHT_FIND_VALUE, .target = key, .limit = 16, .want_lease = true};
    rig_input(rig, &asker, &ask);
    struct dht_message answer = rig_last(rig);
    assert_int_equal(answer.record_count, 1);
    assert_int_equal(answer.lease_count, 1);
    assert_int_equal(answer.contact_count, 0);
    ask.contacts_wanted = 16;
    rig_input(rig, &asker, &ask);
    answer = rig_last(rig);
    assert_int_equal(answer.record_count, 1);
    assert_int_equal(answer.contact_count, 4);

    rig_run(rig, DHT_LEASE_TTL_MS); /* lapsed: no longer told */
    ask.contacts_wanted = 0;
    rig_input(rig, &asker, &ask);
    assert_true(rig_find(rig, DHT_VALUES, &asker, &answer));
    assert_int_equal(answer.lease_count, 0);
    rig_free(rig);
}

static void test_serve__store_answers_for_each_record(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer asker = rig_peer(3), member = rig_peer(50);
    struct id key = rig_key(1), other = rig_key(2);
    struct dht_record new = rig_record(&member, &key, 1, 2), old = rig_record(&member, &key, 1, 1),
                      bad = rig_record(&member, &other, 1, 1);
    bad.signature[0] ^= 1;
    OWNED(buf_release) struct buf a = BUF(LIMIT_DHT_RECORD_BYTES);
    OWNED(buf_release) struct buf b = BUF(LIMIT_DHT_RECORD_BYTES);
    OWNED(buf_release) struct buf c = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_message store = {
        .type = DHT_STORE, .record_count = 3, .records = {rig_span(&new, &a), rig_span(&old, &b), rig_span(&bad, &c)}};
    rig_input(rig, &asker, &store);
    struct dht_message answer = rig_last(rig);
    assert_int_equal(answer.type, DHT_STORED);
    assert_int_equal(answer.record_count, 3);
    assert_int_equal(answer.status[0], DHT_ACCEPTED);
    assert_int_equal(answer.status[1], DHT_STALE);
    assert_int_equal(answer.status[2], DHT_BAD);
    struct dht_record newer;
    assert_true(dht_record_decode(answer.records[1].at, answer.records[1].len, &newer));
    assert_int_equal(dht_record_compare(&newer, &new), 0);
    rig_free(rig);
}

/* faults 8, 27: over its allowance a sender is told to wait, and others are not */
static void test_serve__flood_is_told_to_slow_down(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer flooder = rig_peer(1), other = rig_peer(2);
    struct dht_message refused;
    struct dht_message ping = {.type = DHT_PING, .flags = DHT_FROM_CLIENT, .transaction = 9};
    for (unsigned i = 0; i < 4000; i++) {
        rig->sent_count = 0;
        rig_input(rig, &flooder, &ping);
    }
    assert_int_equal(rig_last(rig).type, DHT_PONG);
    rig_input(rig, &flooder, &ping);
    refused = rig_last(rig);
    assert_int_equal(refused.type, DHT_REFUSED);
    assert_true(refused.transaction == 9 && refused.wait_ms > 0);
    rig_input(rig, &other, &ping);
    assert_int_equal(rig_last(rig).type, DHT_PONG);
    rig->now_ms += refused.wait_ms;
    rig_input(rig, &flooder, &ping);
    assert_int_equal(rig_last(rig).type, DHT_PONG);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_serve__ping),
        cmocka_unit_test(test_serve__askers_are_verified_first),
        cmocka_unit_test(test_serve__find_node_tells_the_closest_but_the_asker),
        cmocka_unit_test(test_serve__find_value_is_ranged),
        cmocka_unit_test(test_serve__find_value_brings_contacts_and_leases),
        cmocka_unit_test(test_serve__store_answers_for_each_record),
        cmocka_unit_test(test_serve__flood_is_told_to_slow_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
