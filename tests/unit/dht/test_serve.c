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
    struct dht_message ask = {.type = DHT_FIND_VALUE, .target = key, .limit = 255, .parts = 1};
    memset(&ask.until, 0xff, sizeof ask.until);
    unsigned seen = 0;
    for (unsigned pages = 1;; pages++) {
        rig_input(rig, &asker, &ask);
        struct dht_message answer = rig_last(rig);
        assert_int_equal(answer.total, 20);
        for (size_t i = 0; i < answer.record_count; i++, seen++) {
            struct dht_record record = rig_value(&answer, i, &key);
            assert_true(record.score == (double)(19 - seen));
            ask.after = dht_record_rank(&record, DHT_BY_SCORE, NULL);
            ask.ranged = true;
        }
        assert_true(pages <= 5);
        if (!answer.more)
            break;
    }
    assert_int_equal(seen, 20);

    ask =
        (struct dht_message){.type = DHT_FIND_VALUE, .target = key, .limit = 2, .parts = 1, .order = DHT_BY_SCORE_LOW};
    rig_input(rig, &asker, &ask);
    struct dht_message answer = rig_last(rig);
    assert_int_equal(answer.record_count, 2);
    assert_true(answer.more);
    rig_free(rig);
}

/* All orders over a set large enough for trees, and over a small one; each record once, in rank order, and no message
 * more than was asked for. */
static void read_in_order(struct rig *rig, const struct rig_peer *asker, const struct id *key, unsigned count,
                          enum dht_order order, uint8_t parts)
{
    struct dht_message ask = {.type = DHT_FIND_VALUE,
                              .flags = DHT_PLACED | DHT_FROM_CLIENT,
                              .place = {.x = {50}},
                              .target = *key,
                              .order = (uint8_t)order,
                              .limit = UINT16_MAX,
                              .parts = parts};
    unsigned seen = 0;
    memset(&ask.until, 0xff, sizeof ask.until);
    for (bool more = true; more; ask.ranged = true) {
        rig->sent_count = 0;
        rig_input(rig, asker, &ask);
        assert_in_range(rig->sent_count, 1, parts);
        for (size_t p = 0; p < rig->sent_count; p++) {
            struct dht_message answer = rig_message(rig, p);
            assert_int_equal(answer.part, p);
            assert_int_equal(answer.parts, rig->sent_count);
            more = answer.more;
            for (size_t i = 0; i < answer.record_count; i++, seen++) {
                struct dht_record record = rig_value(&answer, i, key);
                struct dht_rank rank = dht_record_rank(&record, order, &ask.place);
                assert_true(seen == 0 || dht_rank_compare(&ask.after, &rank) < 0);
                ask.after = rank;
            }
        }
    }
    assert_int_equal(seen, count);
}

static void test_serve__orders_and_parts(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer asker = rig_peer(3);
    struct id small = rig_key(1), large = rig_key(2);
    for (unsigned i = 0; i < 150; i++) {
        struct rig_peer peer = rig_peer(100 + i);
        struct dht_record record = rig_record(&peer, i < 10 ? &small : &large, i * 7 % 20, i * 13 % 40);
        record.place = (struct dht_place){.x = {(int16_t)(i * 31 % 100), 3, 0}, .height = (uint16_t)(i % 3)};
        rig_sign(&record, &peer.key);
        assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    }
    for (int order = 0; order < DHT_ORDER_COUNT; order++)
        for (uint8_t parts = 1; parts <= DHT_PARTS_MAX; parts = (uint8_t)(parts * 4)) {
            read_in_order(rig, &asker, &small, 10, (enum dht_order)order, parts);
            read_in_order(rig, &asker, &large, 140, (enum dht_order)order, parts);
        }
    rig_free(rig);
}

/* A slice by member: beyond `after` and not beyond `until`; the digest comes with the first part if it is wanted. */
static void test_serve__slices_by_member(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer asker = rig_peer(3);
    struct id key = rig_key(2);
    unsigned inside = 0;
    struct dht_message ask = {.type = DHT_FIND_VALUE,
                              .target = key,
                              .order = DHT_BY_MEMBER,
                              .limit = UINT16_MAX,
                              .parts = DHT_PARTS_MAX,
                              .ranged = true,
                              .want_digest = true};
    ask.flags = DHT_FROM_CLIENT;
    memset(&ask.after.member, 0x3f, ID_BYTES);
    memset(&ask.until, 0x8f, ID_BYTES);
    for (unsigned i = 0; i < 60; i++) {
        struct rig_peer peer = rig_peer(100 + i);
        struct dht_record record = rig_record(&peer, &key, i, 1);
        assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
        inside += record.member.b[0] >= 0x40 && record.member.b[0] < 0x90;
    }
    rig_input(rig, &asker, &ask);
    unsigned seen = 0;
    for (size_t p = 0; p < rig->sent_count; p++) {
        struct dht_message answer = rig_message(rig, p);
        seen += (unsigned)answer.record_count;
        assert_int_equal(answer.has_digest, p == 0);
        assert_false(answer.more);
        assert_int_equal(answer.total, 60);
    }
    assert_int_equal(seen, inside);
    assert_true(inside > 0 && inside < 60);
    uint8_t digest[DHT_DIGEST_BYTES];
    dht_hold_digest(rig->dht, dht_hold_of_key(rig->dht, &key), digest);
    struct dht_message first = rig_message(rig, 0);
    assert_memory_equal(first.digest, digest, sizeof digest);
    rig_free(rig);
}

/* In the orders of live members META is told first, and what it has cleared or what has expired with it is not. */
static void test_serve__meta_clears(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer asker = rig_peer(3), writer = rig_peer(4);
    struct id key = dht_key(DHT_SET, "s", 1);
    struct dht_record old = rig_member(&writer, &key, "old", 3, 5000), new = rig_member(&writer, &key, "new", 1, 1000),
                      meta = rig_meta(&writer, &key, RIG_WALL_MS - 3000, RIG_WALL_MS + 60000, 2000);
    assert_int_equal(rig_hold(rig, &old), DHT_ACCEPTED);
    assert_int_equal(rig_hold(rig, &new), DHT_ACCEPTED);
    assert_int_equal(rig_hold(rig, &meta), DHT_ACCEPTED);
    struct dht_message ask = {.type = DHT_FIND_VALUE, .target = key, .limit = 16, .parts = 1};
    rig_input(rig, &asker, &ask);
    struct dht_message answer = rig_last(rig);
    assert_int_equal(answer.record_count, 2);
    assert_true(rig_value(&answer, 0, &key).meta);
    assert_int_equal(rig_value(&answer, 1, &key).data_len, 3);
    assert_memory_equal(rig_value(&answer, 1, &key).data, "new", 3);

    rig_run(rig, 61000);
    rig_input(rig, &asker, &ask);
    assert_true(rig_find(rig, DHT_VALUES, &asker, &answer));
    assert_int_equal(answer.record_count, 1);
    ask.order = DHT_BY_MEMBER; /* who collects is told everything */
    rig_input(rig, &asker, &ask);
    assert_true(rig_find(rig, DHT_VALUES, &asker, &answer));
    assert_int_equal(answer.record_count, 3);
    rig_free(rig);
}

/* What a sender writes itself is not checked on arrival, but before it is given on; what others wrote is. */
static void test_serve__first_hand_is_vouched_for_later(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer writer = rig_peer(4), other = rig_peer(5);
    struct id key = rig_key(1);
    struct dht_record record = rig_record(&writer, &key, 1, 1);
    record.signature[7] ^= 1;
    OWNED(buf_release) struct buf a = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_message store = {.type = DHT_STORE, .record_count = 1, .records = {rig_span(&record, &a)}};
    rig_input(rig, &other, &store);
    assert_int_equal(rig_last(rig).status[0], DHT_BAD);
    rig_input(rig, &writer, &store);
    assert_true(rig_find(rig, DHT_STORED, &writer, &(struct dht_message){0}));
    assert_int_equal(rig_stats(rig).records, 1);
    struct dht_held *held = dht_hold_of_key(rig->dht, &key);
    assert_false(dht_hold_vouched(rig->dht, held, &record.member));
    assert_int_equal(rig_stats(rig).records, 0);

    struct dht_record good = rig_record(&writer, &key, 1, 2);
    store.records[0] = rig_span(&good, &a);
    rig_input(rig, &writer, &store);
    assert_true(dht_hold_vouched(rig->dht, dht_hold_of_key(rig->dht, &key), &record.member));
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
    struct dht_message ask = {.type = DHT_FIND_VALUE, .target = key, .limit = 16, .parts = 1, .want_lease = true};
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

/* faults 8: forged records of others cost a check each, so who sends them may send fewer */
static void test_serve__forgeries_are_paid_for(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer flooder = rig_peer(1), victim = rig_peer(2);
    unsigned checked = 0;
    for (unsigned i = 0; i < 1000; i++) {
        OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
        struct id key = rig_key(i);
        struct dht_record forged = rig_record(&victim, &key, 1, 1);
        forged.signature[9] ^= 1;
        struct dht_message store = {
            .type = DHT_STORE, .flags = DHT_FROM_CLIENT, .records = {rig_span(&forged, &bytes)}, .record_count = 1};
        rig->sent_count = 0;
        rig_input(rig, &flooder, &store);
        checked += rig_last(rig).type == DHT_STORED;
    }
    assert_in_range(checked, 100, 150);
    rig_free(rig);
}

/* An order that has no tree looks at all rows: of a large set that is asked for less often. */
static void test_serve__long_looks_are_paid_for(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer writer = rig_peer(1), asker = rig_peer(2);
    struct id key = rig_set_key(1);
    for (unsigned i = 0; i < 1024; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        struct dht_record member = rig_member(&writer, &key, name, 1, 1000);
        assert_int_equal(rig_hold(rig, &member), DHT_ACCEPTED);
    }
    struct dht_message ask = {.type = DHT_FIND_VALUE, .flags = DHT_FROM_CLIENT, .target = key, .limit = 1, .parts = 1};
    static const uint8_t orders[] = {DHT_BY_SCORE, DHT_BY_VERSION};
    for (unsigned turn = 0; turn < 2; turn++) {
        unsigned answered = 0;
        ask.order = orders[turn];
        for (unsigned i = 0; i < 2000; i++) {
            rig->sent_count = 0;
            rig_input(rig, &asker, &ask);
            answered += rig_last(rig).type == DHT_VALUES;
        }
        if (turn == 0)
            assert_int_equal(answered, 2000);
        else
            assert_in_range(answered, 300, 500);
    }
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_serve__ping),
        cmocka_unit_test(test_serve__askers_are_verified_first),
        cmocka_unit_test(test_serve__find_node_tells_the_closest_but_the_asker),
        cmocka_unit_test(test_serve__find_value_is_ranged),
        cmocka_unit_test(test_serve__orders_and_parts),
        cmocka_unit_test(test_serve__slices_by_member),
        cmocka_unit_test(test_serve__meta_clears),
        cmocka_unit_test(test_serve__first_hand_is_vouched_for_later),
        cmocka_unit_test(test_serve__find_value_brings_contacts_and_leases),
        cmocka_unit_test(test_serve__store_answers_for_each_record),
        cmocka_unit_test(test_serve__flood_is_told_to_slow_down),
        cmocka_unit_test(test_serve__forgeries_are_paid_for),
        cmocka_unit_test(test_serve__long_looks_are_paid_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
