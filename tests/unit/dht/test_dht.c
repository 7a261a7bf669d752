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

static void ignore_send(void *ctx, const struct dht_contact *to, const uint8_t *bytes, size_t len_bytes)
{
    (void)ctx;
    (void)to;
    (void)bytes;
    (void)len_bytes;
}

/* One of a million, in a simulator: full buckets, spares, nothing under way, the contacts in a book of all. */
static void test_dht__is_small(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct dht_book *book;
    struct dht *dht;
    assert_int_equal(dht_book_new(&book, NULL), 0);
    struct dht_config config = rig->dht->config;
    config.public_key = rig->key.public_key;
    config.book = book;
    config.send = ignore_send;
    config.storage = (struct dht_storage){0};
    assert_int_equal(dht_new(&config, &dht, NULL), 0);
    for (unsigned i = 0; i < 17 * 24; i++) {
        struct dht_contact contact = rig_peer(i).contact; /* whose id is as close to ours as it takes */
        memcpy(contact.id.b, dht->self.id.b, ID_BYTES / 2);
        contact.id.b[i / 24 / 8] ^= (uint8_t)(0x80 >> i / 24 % 8);
        dht_meet(dht, rig->now_ms, &contact, 20);
    }
    struct dht_stats stats;
    dht_stats(dht, &stats);
    assert_int_equal(stats.contacts, 17 * 16);
    assert_true(stats.joined);
    printf("%zu bytes\n", stats.memory_bytes);
    assert_int_equal(dht_save(dht, NULL), 0); /* nowhere */
    assert_in_range(stats.memory_bytes, 17 * 16 * 20, 12 * 1024);
    dht_free(dht);
    dht_book_free(book);
    rig_free(rig);
}

/* Met elsewhere: in the tables without a packet, and nothing is hurried afterwards. */
static void test_dht__meets_without_packets(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    for (unsigned i = 0; i < 30; i++) {
        struct rig_peer peer = rig_peer(i);
        dht_meet(rig->dht, rig->now_ms, &peer.contact, 25);
    }
    assert_true(rig_stats(rig).joined);
    assert_true(rig_stats(rig).contacts >= 20);
    struct dht_message message;
    rig_run(rig, 10000);
    assert_false(rig_find(rig, DHT_PING, NULL, &message));
    assert_true(rig->dht->upkeep.self_ms > rig->now_ms);
    assert_true(rig->dht->table.refresh_wake_ms > rig->now_ms);
    rig_free(rig);
}

/* Somebody who asks is asked back, once, and is in the tables when it has answered; one that asks from another address
 * than we know is there when it answers from there. */
static void test_dht__askers_are_asked(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    rig_input(rig, &peer, &(struct dht_message){.type = DHT_PING});
    rig_input(rig, &peer, &(struct dht_message){.type = DHT_PING});
    assert_int_equal(rig->sent_count, 3);
    assert_int_equal(rig_stats(rig).contacts, 0);
    rig_answer(rig, &peer, DHT_PING, (struct dht_message){.type = DHT_PONG});
    assert_int_equal(rig_stats(rig).contacts, 1);

    rig->sent_count = 0;
    struct rig_peer moved = peer;
    moved.contact.addr.port = 9;
    struct dht_node node;
    rig_input(rig, &moved, &(struct dht_message){.type = DHT_PING});
    assert_true(dht_table_find(&rig->dht->table, &peer.contact.id, &node));
    assert_int_equal(node.contact.addr.port, 7421);
    rig_answer(rig, &moved, DHT_PING, (struct dht_message){.type = DHT_PONG});
    assert_true(dht_table_find(&rig->dht->table, &peer.contact.id, &node));
    assert_int_equal(node.contact.addr.port, 9);
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
        cmocka_unit_test(test_dht__is_small),
        cmocka_unit_test(test_dht__meets_without_packets),
        cmocka_unit_test(test_dht__askers_are_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
