#include "tests/unit/dht/rig.h"

#define MEMBERS 6
#define VERSIONS 4

/* Replicas that see the same records in any order, some twice, some late, hold the same in the end; and one that
 * joins what two others hold needs to have seen nothing itself. */
static void test_set__converges_in_any_order(void **state)
{
    (void)state;
    uint64_t seed = RIG_SEED;
    struct rng rng = rng_seeded(&seed);
    struct id key = rig_key(1);
    struct dht_record records[MEMBERS * VERSIONS * 2];
    size_t count = 0;
    printf("seed %d\n", RIG_SEED);
    for (unsigned m = 0; m < MEMBERS; m++) {
        struct rig_peer peer = rig_peer(m);
        for (unsigned v = 0; v < VERSIONS; v++)
            for (unsigned twin = 0; twin < 2; twin++) { /* two of one version: tombstone, or another score */
                struct dht_record record = rig_record(&peer, &key, (double)rng_below(&rng, 9), v);
                record.tombstone = rng_below(&rng, 4) == 0;
                assert_int_equal(rig_sign(&record, &peer.key), 0);
                records[count++] = record;
            }
    }
    struct dht_set whole, half, other;
    dht_set_init(&whole, DHT_BY_SCORE, MEMBERS);
    for (size_t i = 0; i < count; i++)
        dht_set_add(&whole, &records[i]);
    for (unsigned round = 0; round < 50; round++) {
        dht_set_init(&half, DHT_BY_SCORE, MEMBERS);
        dht_set_init(&other, DHT_BY_SCORE, MEMBERS);
        for (size_t i = count; i > 1; i--) { /* Fisher and Yates */
            size_t j = rng_below(&rng, i);
            struct dht_record swapped = records[i - 1];
            records[i - 1] = records[j];
            records[j] = swapped;
        }
        for (size_t i = 0; i < count; i++) /* each reaches one or both, perhaps more than once */
            for (uint64_t where = 1 + rng_below(&rng, 3), again = rng_below(&rng, 2) + 1; again > 0; again--) {
                if (where & 1)
                    dht_set_add(&half, &records[i]);
                if (where & 2)
                    dht_set_add(&other, &records[i]);
            }
        for (size_t i = 0; i < other.count; i++)
            dht_set_add(&half, other.records[i]);
        assert_int_equal(half.count, whole.count);
        for (size_t i = 0; i < whole.count; i++)
            assert_int_equal(dht_record_compare(half.records[i], whole.records[i]), 0);
        for (size_t i = 0; i < whole.count; i++)
            assert_int_equal(dht_set_add(&half, whole.records[i]), 0); /* idempotent */
        dht_set_release(&half);
        dht_set_release(&other);
    }
    dht_set_release(&whole);
}

static void test_set__keeps_the_first_of_the_order(void **state)
{
    (void)state;
    struct id key = rig_key(1);
    struct dht_set set;
    dht_set_init(&set, DHT_BY_SCORE, 5);
    for (unsigned i = 0; i < 20; i++) {
        struct rig_peer peer = rig_peer(i);
        struct dht_record record = rig_record(&peer, &key, i * 7 % 20, 1);
        assert_true(dht_set_add(&set, &record) >= 0);
    }
    assert_int_equal(set.count, 5);
    for (size_t i = 0; i < 5; i++)
        assert_true(set.records[i]->score == (double)(19 - i));
    dht_set_release(&set);
}

/* However many tombstones come first, those that live are not crowded out. */
static void test_set__tombstones_take_no_room(void **state)
{
    (void)state;
    struct id key = rig_key(1);
    struct dht_set set;
    dht_set_init(&set, DHT_BY_SCORE, 5);
    for (unsigned i = 0; i < 60; i++) {
        struct rig_peer peer = rig_peer(i);
        struct dht_record record = rig_record(&peer, &key, i, 1);
        record.tombstone = i >= 8;
        assert_true(dht_set_add(&set, &record) >= 0);
    }
    size_t at;
    for (size_t i = 0; i < 5; i++) {
        assert_true(dht_set_nth_live(&set, i, RIG_WALL_MS, &at));
        assert_true(set.records[at]->score == (double)(7 - i));
    }
    assert_int_equal(set.count, 57);
    assert_int_equal(set.tombstones, 52);
    dht_set_release(&set);
}

static void test_set__a_new_score_moves_the_member(void **state)
{
    (void)state;
    struct id key = rig_key(1);
    struct rig_peer a = rig_peer(1), b = rig_peer(2);
    struct dht_record first = rig_record(&a, &key, 1, 1), second = rig_record(&b, &key, 2, 1);
    struct dht_set set;
    size_t at;
    dht_set_init(&set, DHT_BY_SCORE, 5);
    dht_set_add(&set, &first);
    dht_set_add(&set, &second);
    first = rig_record(&a, &key, 3, 2);
    assert_int_equal(dht_set_add(&set, &first), 1);
    assert_int_equal(set.count, 2);
    assert_true(id_equal(&set.records[0]->member, &a.contact.id));
    first.tombstone = true;
    assert_int_equal(dht_set_add(&set, &first), 1);
    assert_true(dht_set_nth_live(&set, 0, RIG_WALL_MS, &at) && at == 1);
    assert_false(dht_set_nth_live(&set, 1, RIG_WALL_MS, &at));
    dht_set_release(&set);
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set__converges_in_any_order),
        cmocka_unit_test(test_set__keeps_the_first_of_the_order),
        cmocka_unit_test(test_set__tombstones_take_no_room),
        cmocka_unit_test(test_set__a_new_score_moves_the_member),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
