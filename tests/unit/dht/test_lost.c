#include "tests/unit/dht/rig.h"

#define HOUR_MS 3600000u

static unsigned asked(const struct rig *rig, const struct rig_peer *peer)
{
    unsigned count = 0;
    for (size_t i = 0; i < rig->sent_count; i++)
        count += rig_message(rig, i).type == DHT_PING && id_equal(&rig->sent[i].to.id, &peer->contact.id);
    return count;
}

/* It is asked for a day, each few minutes, and then no more. */
static void test_lost__are_asked_for_a_day(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    dht_lost_add(rig->dht, &peer.contact);
    dht_lost_add(rig->dht, &peer.contact);
    assert_int_equal(rig->dht->lost.count, 1);
    rig_run(rig, HOUR_MS);
    assert_in_range(asked(rig, &peer), 2 * 9, 2 * 16); /* each question is repeated */
    for (unsigned hour = 0; hour < 24; hour++) {
        rig->sent_count = 0;
        rig_run(rig, HOUR_MS);
    }
    assert_int_equal(rig->dht->lost.count, 0);
    rig->sent_count = 0;
    rig_run(rig, HOUR_MS);
    assert_int_equal(asked(rig, &peer), 0);
    rig_free(rig);
}

/* Who answers is in the table, and soon we look for the others. */
static void test_lost__are_found(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct dht_message request;
    dht_lost_add(rig->dht, &peer.contact);
    while (!rig_find(rig, DHT_PING, &peer, &request))
        rig_run(rig, 1000);
    rig->dht->upkeep.self_ms = rig->now_ms + HOUR_MS;
    rig_answer(rig, &peer, DHT_PING, (struct dht_message){.type = DHT_PONG});
    assert_int_equal(rig_stats(rig).contacts, 1);
    assert_int_equal(rig->dht->lost.count, 0);
    assert_true(rig->dht->upkeep.self_ms <= rig->now_ms + 10000);
    rig_free(rig);
}

/* Of many, the sixteen that are closest to us; none that is revoked is asked. */
static void test_lost__are_the_closest(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct dht_contact closest[DHT_LOST_MAX];
    struct dht_table table;
    struct dht_book *book;
    assert_int_equal(dht_book_new(&book, NULL), 0);
    dht_table_init(&table, book, &rig->dht->self.id, 0, 0);
    for (unsigned i = 0; i < 200; i++) {
        struct rig_peer peer = rig_peer(i);
        dht_lost_add(rig->dht, &peer.contact);
        dht_table_answered(&table, &peer.contact, NULL, 1000);
    }
    assert_int_equal(rig->dht->lost.count, DHT_LOST_MAX);
    assert_int_equal(dht_table_closest(&table, &rig->dht->self.id, true, closest, DHT_LOST_MAX), DHT_LOST_MAX);
    for (unsigned i = 0; i < DHT_LOST_MAX; i++) {
        bool found = false;
        for (unsigned at = 0; at < DHT_LOST_MAX; at++)
            found |=
                id_equal(&dht_book_at(rig->dht->config.book, rig->dht->lost.contacts[at].handle)->id, &closest[i].id);
        assert_true(found);
        dht_forget(rig->dht, &closest[i].id, NULL);
    }
    rig_run(rig, 4 * HOUR_MS);
    assert_int_equal(rig->sent_count, 0);
    assert_int_equal(rig->dht->lost.count, 0);
    dht_table_release(&table);
    dht_book_free(book);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost__are_asked_for_a_day),
        cmocka_unit_test(test_lost__are_found),
        cmocka_unit_test(test_lost__are_the_closest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
