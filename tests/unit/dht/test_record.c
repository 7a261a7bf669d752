#include <math.h>

#include "tests/unit/dht/rig.h"

static struct dht_record sample(void)
{
    struct rig_peer peer = rig_peer(1);
    struct id key = rig_key(1);
    struct dht_record record = rig_record(&peer, &key, 1.5, 7);
    record.version.epoch = 3;
    record.size = 1234;
    record.data_len = 5;
    memcpy(record.data, "hello", 5);
    assert_int_equal(rig_sign(&record, &peer.key), 0);
    return record;
}

/* Whoever hears of a revocation may say it again; nobody can take it back or empty their set. */
static void test_record__revocations_stay(void **state)
{
    (void)state;
    struct rig_peer peer = rig_peer(1);
    struct dht_record plain = {.key = dht_key(DHT_REVOCATION, "cluster", 7),
                               .kind = DHT_REVOCATION,
                               .version = {0, 1},
                               .data = "signed by an issuer",
                               .data_len = 19};
    struct dht_record back;
    for (int turn = 0; turn < 4; turn++) {
        OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
        struct dht_record record = plain;
        record.tombstone = turn == 1;
        record.meta = turn == 2;
        record.data_len = record.meta ? 16 : 19;
        record.version.counter += turn == 3; /* newer, and good for a moment only: it would take the others' with it */
        assert_int_equal(rig_sign(&record, &peer.key), 0);
        dht_record_encode(&record, &bytes);
        assert_int_equal(dht_record_decode(bytes.data, bytes.len, &back), turn == 0);
    }
    struct rig_peer other = rig_peer(2);
    rig_sign(&plain, &peer.key);
    struct id member = plain.member;
    rig_sign(&plain, &other.key);
    assert_true(id_equal(&plain.member, &member));
}

/* Whatever its kind, its key must be one for that kind: else a name by hand could be somebody's id among providers,
 * META could clear them, and anything could stand over a lease. */
static void test_record__kind_is_that_of_the_key(void **state)
{
    (void)state;
    struct rig_peer writer = rig_peer(1);
    for (int of_key = DHT_OBJECT; of_key < DHT_KIND_COUNT; of_key++)
        for (int kind = DHT_OBJECT; kind < DHT_KIND_COUNT; kind++) {
            OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
            struct id own = writer.contact.id;
            struct dht_record back, record = {
                                        .key = dht_key((enum dht_kind)of_key, own.b, sizeof own.b),
                                        .kind = (uint8_t)kind,
                                        .version = {0, 1},
                                        .data = "name",
                                        .data_len = 4,
                                    };
            assert_int_equal(rig_sign(&record, &writer.key), 0);
            dht_record_encode(&record, &bytes);
            assert_int_equal(dht_record_decode(bytes.data, bytes.len, &back), kind == of_key);
        }
    struct id key = dht_key(DHT_SET, "set", 3), member = {{0x50}};
    struct id shard = dht_shard_key(&key, 1, &member);
    assert_int_equal(shard.b[ID_BYTES - 1], DHT_SET);
}

/* Who clears a set clears what was written until then, and not all that ever will be. */
static void test_record__nobody_clears_the_future(void **state)
{
    (void)state;
    struct rig_peer writer = rig_peer(1);
    struct id key = rig_set_key(1);
    struct dht_record back, now = rig_meta(&writer, &key, RIG_WALL_MS, 0, 0);
    struct dht_record later = rig_meta(&writer, &key, RIG_WALL_MS + 1, 0, 0);
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(&now, &bytes);
    assert_true(dht_record_decode(span.at, span.len, &back));
    span = rig_span(&later, &bytes);
    assert_false(dht_record_decode(span.at, span.len, &back));
}

static void test_record__round_trips(void **state)
{
    (void)state;
    struct dht_record record = sample();
    struct dht_record back;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(&record, &bytes);
    assert_int_equal(span.len, DHT_RECORD_FIXED_BYTES + 5);
    assert_true(dht_record_decode(span.at, span.len, &back));
    assert_true(rig_is_signed(&back, span.at, span.len));
    assert_int_equal(dht_record_compare(&record, &back), 0);
    assert_true(id_equal(&back.member, &record.member));
    assert_true(back.score == 1.5 && back.size == 1234 && back.version.epoch == 3 && back.data_len == 5);
}

/* faults 2: cut at every byte, and one byte too many */
static void test_record__cut_or_padded_is_refused(void **state)
{
    (void)state;
    struct dht_record record = sample();
    struct dht_record back;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES + 1);
    struct dht_span span = rig_span(&record, &bytes);
    for (size_t len = 0; len < span.len; len++)
        assert_false(dht_record_decode(span.at, len, &back));
    wire_put_u8(&bytes, 0);
    assert_false(dht_record_decode(bytes.data, bytes.len, &back));
}

/* faults 13: whichever bit is turned, it is malformed or not signed by its member */
static void test_record__every_turned_bit_shows(void **state)
{
    (void)state;
    struct dht_record record = sample();
    struct dht_record back;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(&record, &bytes);
    for (size_t i = 0; i < span.len; i++) {
        bytes.data[i] ^= 0x10;
        assert_false(dht_record_decode(span.at, span.len, &back) && rig_is_signed(&back, span.at, span.len));
        bytes.data[i] ^= 0x10;
    }
}

/* faults 14: somebody else's key in place of the signer's makes a record of somebody else, unsigned */
static void test_record__third_party_cannot_be_named(void **state)
{
    (void)state;
    struct dht_record record = sample();
    struct dht_record back;
    struct rig_peer other = rig_peer(2);
    memcpy(record.public_key, other.key.public_key, sizeof record.public_key);
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(&record, &bytes);
    assert_true(dht_record_decode(span.at, span.len, &back));
    assert_true(id_equal(&back.member, &other.contact.id));
    assert_false(rig_is_signed(&back, span.at, span.len));
}

/* faults 19 */
static void test_record__score_that_is_no_number_is_refused(void **state)
{
    (void)state;
    struct rig_peer peer = rig_peer(1);
    struct id key = rig_key(1);
    struct dht_record back;
    const double scores[] = {NAN, INFINITY, -INFINITY, 0, -1, 1e308};
    for (size_t i = 0; i < 6; i++) {
        struct dht_record record = rig_record(&peer, &key, scores[i], 1);
        OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
        struct dht_span span = rig_span(&record, &bytes);
        assert_int_equal(dht_record_decode(span.at, span.len, &back), i > 0);
    }
}

static void test_record__lease_stands_under_its_own_key_only(void **state)
{
    (void)state;
    struct rig_peer peer = rig_peer(1);
    struct dht_record lease = rig_lease(&peer, 1, RIG_WALL_MS);
    struct dht_record back;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(&lease, &bytes);
    assert_true(dht_record_decode(span.at, span.len, &back));
    lease.key = rig_key(1);
    span = rig_span(&lease, &bytes);
    assert_false(dht_record_decode(span.at, span.len, &back));
}

/* Version before tombstone before expiry; then the hash, so that two different records are never equal. */
static void test_record__join_order_is_total(void **state)
{
    (void)state;
    struct dht_record low = sample();
    struct dht_record high = low;
    high.expiry_wall_ms++;
    assert_true(dht_record_compare(&low, &high) < 0);
    low.tombstone = true;
    assert_true(dht_record_compare(&low, &high) > 0);
    high.version.counter++;
    assert_true(dht_record_compare(&low, &high) < 0);
    low.version.epoch++;
    assert_true(dht_record_compare(&low, &high) > 0);
    high = low;
    high.score = 2;
    assert_true(dht_record_compare(&low, &high) != 0);
    assert_int_equal(dht_record_compare(&low, &high) > 0, dht_record_compare(&high, &low) < 0);
}

/* faults 12, 61: lapsed, or good for ten years */
static void test_record__expiry_has_bounds(void **state)
{
    (void)state;
    struct rig_peer peer = rig_peer(1);
    struct dht_record record = sample();
    record.expiry_wall_ms = RIG_WALL_MS;
    assert_false(dht_record_is_timely(&record, RIG_WALL_MS));
    assert_true(dht_record_is_timely(&record, RIG_WALL_MS - 1));
    record.expiry_wall_ms = RIG_WALL_MS + DHT_EXPIRY_MAX_MS + DHT_SKEW_MS;
    assert_true(dht_record_is_timely(&record, RIG_WALL_MS));
    assert_false(dht_record_is_timely(&record, RIG_WALL_MS - 1));
    record.expiry_wall_ms = UINT64_MAX;
    assert_false(dht_record_is_timely(&record, RIG_WALL_MS));
    struct dht_record lease = rig_lease(&peer, 1, RIG_WALL_MS + DHT_LEASE_TTL_MS + DHT_SKEW_MS + 1);
    assert_false(dht_record_is_timely(&lease, RIG_WALL_MS));
}

static void test_record__ranks_follow_the_order_asked_for(void **state)
{
    (void)state;
    const double rising[] = {-INFINITY, -1e300, -2, -1, 0, 1e-300, 1, 2, INFINITY};
    struct dht_record low = sample();
    struct dht_record high = low;
    for (size_t i = 0; i + 1 < sizeof rising / sizeof *rising; i++) {
        low.score = rising[i];
        high.score = rising[i + 1];
        struct dht_rank first = dht_record_rank(&high, DHT_BY_SCORE, NULL);
        struct dht_rank second = dht_record_rank(&low, DHT_BY_SCORE, NULL);
        assert_true(dht_rank_compare(&first, &second) < 0);
        first = dht_record_rank(&low, DHT_BY_SCORE_LOW, NULL);
        second = dht_record_rank(&high, DHT_BY_SCORE_LOW, NULL);
        assert_true(dht_rank_compare(&first, &second) < 0);
    }
    low.score = -0.0;
    high.score = 0.0;
    struct dht_rank zero = dht_record_rank(&low, DHT_BY_SCORE, NULL);
    struct dht_rank other_zero = dht_record_rank(&high, DHT_BY_SCORE, NULL);
    assert_int_equal(dht_rank_compare(&zero, &other_zero), 0);
    high.version.epoch++;
    struct dht_rank newer = dht_record_rank(&high, DHT_BY_VERSION, NULL);
    struct dht_rank older = dht_record_rank(&low, DHT_BY_VERSION, NULL);
    assert_true(dht_rank_compare(&newer, &older) < 0);
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record__revocations_stay),
        cmocka_unit_test(test_record__kind_is_that_of_the_key),
        cmocka_unit_test(test_record__nobody_clears_the_future),
        cmocka_unit_test(test_record__round_trips),
        cmocka_unit_test(test_record__cut_or_padded_is_refused),
        cmocka_unit_test(test_record__every_turned_bit_shows),
        cmocka_unit_test(test_record__third_party_cannot_be_named),
        cmocka_unit_test(test_record__score_that_is_no_number_is_refused),
        cmocka_unit_test(test_record__lease_stands_under_its_own_key_only),
        cmocka_unit_test(test_record__join_order_is_total),
        cmocka_unit_test(test_record__expiry_has_bounds),
        cmocka_unit_test(test_record__ranks_follow_the_order_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
