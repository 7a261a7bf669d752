#include "tests/unit/dht/rig.h"

static struct id self_id(void)
{
    return rig_peer(60000).contact.id;
}

static const uint64_t rtt = 30;

/* A table, and the book that it is written in. */
static struct dht_table open_table(const struct id *self, unsigned block_per_bucket, unsigned block_per_table)
{
    struct dht_table table;
    struct dht_book *book;
    assert_int_equal(dht_book_new(&book, NULL), 0);
    dht_table_init(&table, book, self, block_per_bucket, block_per_table);
    return table;
}

static void close_table(struct dht_table *table)
{
    struct dht_book *book = table->book;
    dht_table_release(table);
    assert_int_equal(dht_book_count(book), 0);
    dht_book_free(book);
}

static void meet(struct dht_table *table, unsigned number)
{
    struct dht_contact contact = rig_peer(number).contact;
    dht_table_answered(table, &contact, &rtt, 1);
}

static void test_table__closest_are_the_closest(void **state)
{
    (void)state;
    struct id self = self_id();
    struct dht_table table = open_table(&self, 0, 0);
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
        struct dht_node node;
        size_t nearer = 0, within = 0;
        for (size_t cursor = 0; dht_table_next(&table, &cursor, &node);) {
            nearer += dht_closer(&target, &node.contact.id, &closest[count - 1].id) < 0;
            within += dht_shared_bits(&target, &node.contact.id) >= t % 8;
        }
        assert_int_equal(nearer, DHT_REPLICAS - 1);
        assert_int_equal(dht_table_count_within(&table, &target, t % 8), within);
    }
    close_table(&table);
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
    struct dht_table table = open_table(&self, 0, 0);
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
    dht_table_failed(&table, &old, 200);
    assert_int_equal(dht_table_closest(&table, &old.id, true, closest, 1), 1);
    assert_false(id_equal(&closest[0].id, &old.id)); /* one failure: no longer told to others */
    dht_table_failed(&table, &old, 200);
    struct dht_node node;
    assert_true(dht_table_find(&table, &old.id, &node));
    dht_table_failed(&table, &old, 200);
    assert_false(dht_table_find(&table, &old.id, &node));
    assert_int_equal(table.count, DHT_REPLICAS);
    assert_int_equal(dht_table_closest(&table, &later.id, true, closest, 1), 1);
    assert_true(id_equal(&closest[0].id, &later.id)); /* the latest spare came in */

    dht_table_remove(&table, &later.id);
    assert_int_equal(dht_table_closest(&table, &late.id, true, closest, 1), 1);
    assert_true(id_equal(&closest[0].id, &late.id));
    close_table(&table);
}

/* faults 16: a block of addresses gets so many places and no more */
static void test_table__address_blocks_are_capped(void **state)
{
    (void)state;
    struct id self = self_id();
    struct dht_table table = open_table(&self, 2, 3);
    for (unsigned i = 0; i < 200; i++) {
        struct dht_contact contact = rig_peer(i).contact;
        contact.addr.ip[1] = contact.addr.ip[2] = 7;
        contact.addr.ip[3] = (uint8_t)i;
        dht_table_answered(&table, &contact, &rtt, 1);
    }
    assert_int_equal(table.count, 3);
    close_table(&table);
}

/* Is the contact, met at `known_ms` and last heard at `heard_ms`, checked between those two times after that? */
static void assert_checked(struct dht_table *table, const struct dht_contact *expected, uint64_t from_ms,
                           uint64_t to_ms)
{
    struct dht_contact contact;
    assert_false(dht_table_take_check(table, from_ms - 1, &contact));
    assert_true(dht_table_take_check(table, to_ms, &contact));
    assert_true(id_equal(&contact.id, &expected->id));
    assert_false(dht_table_take_check(table, to_ms, &contact)); /* it has been asked */
}

/* After a quarter of an hour, or half of the time that it has been known, or four hours; and up to a quarter more. */
static void test_table__silent_contacts_are_checked(void **state)
{
    (void)state;
    const uint64_t minute = 60000, hour = 60 * minute;
    struct id self = self_id();
    struct dht_table table = open_table(&self, 0, 0);
    struct dht_contact contact, a = rig_peer(1).contact;
    assert_false(dht_table_take_check(&table, UINT64_MAX, &contact));
    assert_true(table.check_wake_ms == UINT64_MAX);
    dht_table_answered(&table, &a, &rtt, 1000);
    assert_in_range(table.check_wake_ms, 1000 + 15 * minute, 1000 + 19 * minute);
    assert_int_equal(dht_table_heard(&table, &a, 5 * minute), DHT_HEARD);
    assert_checked(&table, &a, 20 * minute, 24 * minute);
    dht_table_answered(&table, &a, &rtt, 2 * hour);
    assert_checked(&table, &a, 3 * hour, 3 * hour + 15 * minute);
    dht_table_answered(&table, &a, &rtt, 100 * hour);
    assert_checked(&table, &a, 104 * hour, 105 * hour);
    close_table(&table);
}

/* One that does not answer is asked again soon, and less and less soon; after six times it is gone. */
static void test_table__failing_contacts_are_asked_again(void **state)
{
    (void)state;
    struct id self = self_id();
    struct dht_table table = open_table(&self, 0, 0);
    struct dht_contact a = rig_peer(1).contact;
    uint64_t now = 1000000;
    dht_table_answered(&table, &a, &rtt, now);
    for (unsigned fails = 1; fails <= 6; fails++) {
        assert_int_equal(table.count, 1);
        assert_int_equal(dht_table_failed(&table, &a, now), fails);
        if (fails < 6)
            assert_checked(&table, &a, now + (10000u << fails), now + (10000u << fails));
        now += 1000000;
    }
    assert_int_equal(table.count, 0);
    close_table(&table);
}

/* Who says that another has moved changes nothing; it has moved when it has answered from there. */
static void test_table__addresses_are_those_that_answered(void **state)
{
    (void)state;
    struct id self = self_id();
    struct dht_table table = open_table(&self, 0, 0);
    struct dht_contact a = rig_peer(1).contact, moved = a;
    struct dht_node node;
    moved.addr.port = 9;
    assert_int_equal(dht_table_heard(&table, &a, 1000), DHT_HEARD_NEW);
    assert_null(dht_table_addr(&table, &a));
    dht_table_answered(&table, &a, &rtt, 1000);
    assert_int_equal(dht_table_failed(&table, &moved, 2000), 0); /* nobody is there, but it never was */
    assert_int_equal(dht_table_addr(&table, &moved)->port, 7421);
    assert_int_equal(dht_table_heard(&table, &moved, 50000), DHT_HEARD_AWAY);
    assert_true(dht_table_find(&table, &a.id, &node));
    assert_true(addr_equal(&node.contact.addr, &a.addr));
    assert_true(node.heard_ms == 1000);
    assert_false(dht_table_answered(&table, &moved, NULL, 60000)); /* not new */
    assert_true(dht_table_find(&table, &a.id, &node));
    assert_int_equal(node.contact.addr.port, 9);
    assert_true(node.heard_ms == 60000 && node.known_ms == 1000);
    assert_int_equal(dht_rtt_ms(&node.rtt), 30);
    close_table(&table);
}

/* Two nodes share a book, and one of them is lied to about where a third one is. */
static void test_table__shared_books_keep_addresses_apart(void **state)
{
    (void)state;
    struct id self = self_id(), other = rig_peer(60001).contact.id;
    struct dht_table table = open_table(&self, 0, 0), lied_to;
    struct dht_contact a = rig_peer(1).contact, lie = a;
    struct dht_node node;
    lie.addr.port = 9;
    dht_table_init(&lied_to, table.book, &other, 0, 0);
    dht_table_answered(&table, &a, &rtt, 1000);
    dht_table_answered(&lied_to, &lie, &rtt, 1000);
    assert_int_equal(dht_book_count(table.book), 2);
    assert_true(dht_table_find(&table, &a.id, &node));
    assert_true(addr_equal(&node.contact.addr, &a.addr));
    dht_table_release(&lied_to);
    close_table(&table);
}

/* What a table costs whose owner is one of a million: 16 contacts and 8 spares in each of 16 buckets. */
static void test_table__is_small(void **state)
{
    (void)state;
    struct id self = self_id();
    struct dht_table table = open_table(&self, 0, 0);
    for (unsigned i = 0; i < 400; i++) {
        struct dht_contact contact = {.addr = rig_peer(0).contact.addr};
        memcpy(contact.public_key, &i, sizeof i);
        contact.id = self; /* no hash has so many bits of ours */
        contact.id.b[i / 25 / 8] ^= (uint8_t)(0x80 >> i / 25 % 8);
        contact.id.b[31] = (uint8_t)i;
        dht_table_answered(&table, &contact, &rtt, 1);
    }
    assert_int_equal(table.count, 256);
    assert_in_range(dht_table_bytes(&table), 256 * 20, 8192);
    close_table(&table);
}

static void test_table__refresh_targets_lie_in_their_bucket(void **state)
{
    (void)state;
    uint64_t seed = RIG_SEED;
    struct rng rng = rng_seeded(&seed);
    struct id self = self_id();
    struct id target;
    bool seen[DHT_BUCKETS] = {0};
    struct dht_table table = open_table(&self, 0, 0);
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
    assert_true(table.refresh_wake_ms == DHT_REFRESH_MS);
    struct dht_contact closest;
    assert_int_equal(dht_table_closest(&table, &self, true, &closest, 1), 1);
    for (buckets = 0; dht_table_take_refresh(&table, DHT_REFRESH_MS, &rng, &target); buckets++)
        assert_in_range(dht_shared_bits(&self, &target), 3, DHT_BUCKETS); /* the first ones are full of good ones */
    assert_in_range(buckets, 1, 6);
    struct dht_node node;
    for (size_t cursor = 0; dht_table_next(&table, &cursor, &node) && dht_shared_bits(&self, &node.contact.id) > 0;)
        ;
    dht_table_failed(&table, &node.contact, 1);
    seen[0] = false;
    while (dht_table_take_refresh(&table, 2 * DHT_REFRESH_MS, &rng, &target))
        seen[0] |= dht_shared_bits(&self, &target) == 0;
    assert_true(seen[0]);
    close_table(&table);
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table__closest_are_the_closest),
        cmocka_unit_test(test_table__old_contacts_stay_and_spares_step_in),
        cmocka_unit_test(test_table__address_blocks_are_capped),
        cmocka_unit_test(test_table__silent_contacts_are_checked),
        cmocka_unit_test(test_table__failing_contacts_are_asked_again),
        cmocka_unit_test(test_table__addresses_are_those_that_answered),
        cmocka_unit_test(test_table__shared_books_keep_addresses_apart),
        cmocka_unit_test(test_table__is_small),
        cmocka_unit_test(test_table__refresh_targets_lie_in_their_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
