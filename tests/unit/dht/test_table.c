#include "tests/unit/dht/rig.h"

static struct id self_id(void)
{
    return rig_peer(60000).contact.id;
}

static const uint64_t rtt = 30;

static void meet(struct dht_table *table, unsigned number)
{
    struct dht_contact contact = rig_peer(number).contact;
    dht_table_answered(table, &contact, &rtt, 1);
}

static void test_table__closest_are_the_closest(void **state)
{
    (void)state;
    struct id self = self_id();
    struct dht_table table;
    dht_table_init(&table, &self, 0, 0);
    for (unsigned i = 0; i < 400; i++)
        meet(&table, i);
    assert_true(table.count > 60 && table.count < 400);
    for (unsigned t = 0; t < 50; t++) {
        struct id target = t == 0 ? self : rig_key(t);
        struct dht_contact closest[DHT_REPLICAS];
        size_t count = dht_table_closest(&table, &target, true, closest, DHT_REPLICAS);
        assert_int_equal(count, DHT_REPLICAS);
        for (size_t i = 1; i < count; i++)
            assert_true(dht_closer(&target, &closest[i - 1].id, &closest[i].id) < 0);
        const struct dht_node *node;
        size_t nearer = 0;
        for (size_t cursor = 0; dht_table_next(&table, &cursor, &node);)
            nearer += dht_closer(&target, &node->contact.id, &closest[count - 1].id) < 0;
        assert_int_equal(nearer, DHT_REPLICAS - 1);
    }
    dht_table_release(&table);
}

/* Peers that share no bit with us: they all go to one bucket. */
static struct dht_contact far_contact(const struct id *self, unsigned n)
{
    for (unsigned i = 0, seen = 0;; i++) {
        struct rig_peer peer = rig_peer(i);
        if (dht_shared_bits(self, &peer.contact.id) == 0 && seen++ == n)
            return peer.contact;
    }
}

static void test_table__old_contacts_stay_and_spares_step_in(void **state)
{
    (void)state;
    struct id self = self_id();
    struct dht_table table;
    dht_table_init(&table, &self, 0, 0);
    for (unsigned i = 0; i < DHT_REPLICAS; i++) {
        struct dht_contact contact = far_contact(&self, i);
        assert_true(dht_table_answered(&table, &contact, &rtt, i));
    }
    struct dht_contact late = far_contact(&self, DHT_REPLICAS);
    struct dht_contact later = far_contact(&self, DHT_REPLICAS + 1);
    assert_false(dht_table_has_room(&table, &late));
    assert_false(dht_table_answered(&table, &late, &rtt, 100));
    assert_false(dht_table_answered(&table, &later, &rtt, 101));
    assert_int_equal(table.count, DHT_REPLICAS);

    struct dht_contact old = far_contact(&self, 3);
    struct dht_contact closest[DHT_REPLICAS];
    dht_table_failed(&table, &old.id, 200);
    assert_int_equal(dht_table_closest(&table, &old.id, true, closest, 1), 1);
    assert_false(id_equal(&closest[0].id, &old.id)); /* one failure: no longer told to others */
    dht_table_failed(&table, &old.id, 200);
    assert_non_null(dht_table_get(&table, &old.id));
    dht_table_failed(&table, &old.id, 200);
    assert_null(dht_table_get(&table, &old.id));
    assert_int_equal(table.count, DHT_REPLICAS);
    assert_int_equal(dht_table_closest(&table, &later.id, true, closest, 1), 1);
    assert_true(id_equal(&closest[0].id, &later.id)); /* the latest spare came in */

    dht_table_remove(&table, &later.id);
    assert_int_equal(dht_table_closest(&table, &late.id, true, closest, 1), 1);
    assert_true(id_equal(&closest[0].id, &late.id));
    dht_table_release(&table);
}

/* faults 16: a block of addresses gets so many places and no more */
static void test_table__address_blocks_are_capped(void **state)
{
    (void)state;
    struct id self = self_id();
    struct dht_table table;
    dht_table_init(&table, &self, 2, 3);
    for (unsigned i = 0; i < 200; i++) {
        struct dht_contact contact = rig_peer(i).contact;
        contact.addr.ip[1] = contact.addr.ip[2] = 7;
        contact.addr.ip[3] = (uint8_t)i;
        dht_table_answered(&table, &contact, &rtt, 1);
    }
    assert_int_equal(table.count, 3);
    dht_table_release(&table);
}

static void test_table__silent_contacts_are_checked(void **state)
{
    (void)state;
    struct id self = self_id();
    struct dht_table table;
    struct dht_contact contact;
    struct dht_contact a = rig_peer(1).contact, b = rig_peer(2).contact;
    dht_table_init(&table, &self, 0, 0);
    assert_true(dht_table_check_ms(&table) == UINT64_MAX);
    dht_table_answered(&table, &a, &rtt, 1000);
    dht_table_answered(&table, &b, &rtt, 2000);
    assert_true(dht_table_check_ms(&table) == 1000 + DHT_SILENT_MS);
    dht_table_heard(&table, &a, 3000);
    assert_true(dht_table_check_ms(&table) == 2000 + DHT_SILENT_MS);
    assert_false(dht_table_take_check(&table, 1999 + DHT_SILENT_MS, &contact));
    assert_true(dht_table_take_check(&table, 2000 + DHT_SILENT_MS, &contact));
    assert_true(id_equal(&contact.id, &b.id));
    assert_false(dht_table_take_check(&table, 2000 + DHT_SILENT_MS, &contact));
    dht_table_release(&table);
}

static void test_table__refresh_targets_lie_in_their_bucket(void **state)
{
    (void)state;
    uint64_t seed = RIG_SEED;
    struct rng rng = rng_seeded(&seed);
    struct id self = self_id();
    struct dht_table table;
    struct id target;
    bool seen[DHT_BUCKETS] = {0};
    dht_table_init(&table, &self, 0, 0);
    for (unsigned i = 0; i < 300; i++)
        meet(&table, i);
    unsigned buckets = 0;
    for (; dht_table_take_refresh(&table, 1, &rng, &target); buckets++) {
        unsigned shared = dht_shared_bits(&self, &target);
        assert_false(seen[shared]);
        seen[shared] = true;
    }
    assert_true(buckets >= 6);
    for (unsigned i = 0; i < buckets; i++)
        assert_true(seen[i]);
    assert_true(dht_table_refresh_ms(&table) == 1 + DHT_SILENT_MS);
    dht_table_release(&table);
}

static void test_table__timeouts_follow_the_round_trips(void **state)
{
    (void)state;
    struct dht_rtt slow = {0}, quick = {0}, wild = {0};
    assert_int_equal(dht_rtt_timeout_ms(&slow), 1000);
    for (unsigned i = 0; i < 50; i++) {
        dht_rtt_add(&quick, 0);
        dht_rtt_add(&slow, 500);
        dht_rtt_add(&wild, i % 2 ? 900 : 100);
    }
    assert_int_equal(dht_rtt_timeout_ms(&quick), 200);
    assert_in_range(dht_rtt_ms(&slow), 490, 500);
    assert_in_range(dht_rtt_timeout_ms(&slow), 490, 560);
    assert_int_equal(dht_rtt_timeout_ms(&wild), 2000);
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table__closest_are_the_closest),
        cmocka_unit_test(test_table__old_contacts_stay_and_spares_step_in),
        cmocka_unit_test(test_table__address_blocks_are_capped),
        cmocka_unit_test(test_table__silent_contacts_are_checked),
        cmocka_unit_test(test_table__refresh_targets_lie_in_their_bucket),
        cmocka_unit_test(test_table__timeouts_follow_the_round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
