#include "tests/unit/dht/rig.h"

/* faults 12: equal is no news, lower is answered with what is newer, and the newer one stays */
static void test_hold__keeps_the_newest(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct id key = rig_key(1);
    struct dht_record first = rig_record(&peer, &key, 1, 1), second = rig_record(&peer, &key, 2, 2), held;
    assert_int_equal(rig_hold(rig, &first), DHT_ACCEPTED);
    assert_int_equal(rig_hold(rig, &first), DHT_ACCEPTED);
    assert_int_equal(rig_stats(rig).stored, 1);
    assert_int_equal(rig_hold(rig, &second), DHT_ACCEPTED);

    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    OWNED(buf_release) struct buf newer = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(&first, &bytes);
    assert_int_equal(dht_hold_put(rig->dht, span.at, span.len, false, &newer), DHT_STALE);
    assert_true(dht_record_decode(newer.data, newer.len, &held));
    assert_int_equal(dht_record_compare(&held, &second), 0);
    assert_int_equal(dht_hold_get(rig->dht, &key, &peer.contact.id, &held), 1);
    assert_int_equal(dht_record_compare(&held, &second), 0);
    assert_int_equal(rig_stats(rig).records, 1);
    rig_free(rig);
}

/* faults 12: a counter of 2^64-1 is as good as any; nothing wraps */
static void test_hold__highest_version_is_the_end(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct id key = rig_key(1);
    struct dht_record last = rig_record(&peer, &key, 1, UINT64_MAX), wrapped = rig_record(&peer, &key, 1, 0);
    assert_int_equal(rig_hold(rig, &last), DHT_ACCEPTED);
    assert_int_equal(rig_hold(rig, &wrapped), DHT_STALE);
    rig_free(rig);
}

/* faults 12, 13, 61: false signature, lapsed, good for too long, of a revoked member: refused, and nothing is kept */
static void test_hold__refuses_what_is_false(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct id key = rig_key(1);
    struct dht_record good = rig_record(&peer, &key, 1, 5);
    assert_int_equal(rig_hold(rig, &good), DHT_ACCEPTED);

    struct dht_record record = rig_record(&peer, &key, 1, 6);
    record.signature[5] ^= 1;
    assert_int_equal(rig_hold(rig, &record), DHT_BAD);
    record = rig_record(&peer, &key, 1, 6);
    record.expiry_wall_ms = RIG_WALL_MS;
    rig_sign(&record, &peer.key);
    assert_int_equal(rig_hold(rig, &record), DHT_BAD);
    record.expiry_wall_ms = RIG_WALL_MS + 315360000000u;
    rig_sign(&record, &peer.key);
    assert_int_equal(rig_hold(rig, &record), DHT_BAD);

    struct rig_peer revoked = rig_peer(2);
    assert_int_equal(dht_forget(rig->dht, &revoked.contact.id, NULL), 0);
    record = rig_record(&revoked, &key, 1, 1);
    assert_int_equal(rig_hold(rig, &record), DHT_BAD);

    assert_int_equal(dht_hold_get(rig->dht, &key, &peer.contact.id, &record), 1);
    assert_int_equal(dht_record_compare(&record, &good), 0);
    assert_int_equal(rig_stats(rig).records, 1);
    assert_int_equal(rig_stats(rig).bad_records, 4);
    rig_free(rig);
}

/* What a tombstone hides cannot come back while it could still be good itself. */
static void test_hold__tombstone_outlives_what_it_hides(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct id key = rig_key(1);
    struct dht_record old = rig_record(&peer, &key, 1, 1), tombstone = old;
    tombstone.tombstone = true;
    tombstone.expiry_wall_ms = RIG_WALL_MS + DHT_EXPIRY_MAX_MS;
    rig_sign(&tombstone, &peer.key);
    assert_int_equal(rig_hold(rig, &old), DHT_ACCEPTED);
    assert_int_equal(rig_hold(rig, &tombstone), DHT_ACCEPTED);
    for (uint64_t hour = 0; hour < 7 * 24; hour++) {
        enum dht_store_status status = rig_hold(rig, &old);
        assert_true(status == DHT_STALE || status == DHT_BAD);
        rig_run(rig, 3600000);
    }
    rig_run(rig, 3600000);
    assert_int_equal(rig_stats(rig).records, 0); /* gone at last, when the old one has lapsed too */
    assert_int_equal(rig_hold(rig, &old), DHT_BAD);
    rig_free(rig);
}

/* faults 10: one key takes so many members; those that are in may still be renewed */
static void test_hold__keys_fill_up(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1), other = rig_key(2);
    for (unsigned i = 0; i < LIMIT_DHT_RECORDS_PER_KEY; i++) {
        struct rig_peer peer = rig_peer(i);
        struct dht_record record = rig_record(&peer, &key, i, 1);
        assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    }
    struct rig_peer late = rig_peer(LIMIT_DHT_RECORDS_PER_KEY), early = rig_peer(0);
    struct dht_record record = rig_record(&late, &key, 1, 1);
    assert_int_equal(rig_hold(rig, &record), DHT_FULL);
    record = rig_record(&late, &other, 1, 1);
    assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    record = rig_record(&early, &key, 1, 2);
    assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    rig_free(rig);
}

static int failing_put(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len)
{
    (void)ctx, (void)key, (void)member, (void)bytes, (void)len;
    return ERR_NOSPACE;
}

/* faults 50: a storage that cannot write is said so, and nothing is counted */
static void test_hold__full_disk_asks_to_slow_down(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct id key = rig_key(1);
    struct dht_record record = rig_record(&peer, &key, 1, 1);
    rig->storage.put = failing_put;
    rig_restart(rig);
    assert_int_equal(rig_hold(rig, &record), DHT_SLOW_DOWN);
    assert_int_equal(rig_stats(rig).records, 0);
    assert_null(dht_hold_of_key(rig->dht, &key));
    rig_free(rig);
}

static void test_hold__counts_what_it_finds(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer a = rig_peer(1), b = rig_peer(2);
    for (unsigned i = 0; i < 100; i++) {
        struct id key = rig_key(i);
        struct dht_record one = rig_record(&a, &key, 1, 1), two = rig_record(&b, &key, 1, 1);
        rig_hold(rig, &one);
        rig_hold(rig, &two);
    }
    rig_restart(rig);
    assert_int_equal(rig_stats(rig).records, 200);
    struct id key = rig_key(5);
    assert_int_equal(dht_hold_of_key(rig->dht, &key)->count, 2);
    dht_hold_remove_writer(rig->dht, &a.contact.id);
    assert_int_equal(rig_stats(rig).records, 100);
    assert_int_equal(dht_hold_of_key(rig->dht, &key)->count, 1);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hold__keeps_the_newest),
        cmocka_unit_test(test_hold__highest_version_is_the_end),
        cmocka_unit_test(test_hold__refuses_what_is_false),
        cmocka_unit_test(test_hold__tombstone_outlives_what_it_hides),
        cmocka_unit_test(test_hold__keys_fill_up),
        cmocka_unit_test(test_hold__full_disk_asks_to_slow_down),
        cmocka_unit_test(test_hold__counts_what_it_finds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
