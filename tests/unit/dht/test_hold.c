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

/* faults 10: one key takes so many members; those that are in may still be renewed, and our own always finds room */
static void test_hold__keys_fill_up(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1), other = rig_key(2);
    rig->key_max = 64;
    rig_restart(rig);
    for (unsigned i = 0; i < 64; i++) {
        struct rig_peer peer = rig_peer(i);
        struct dht_record record = rig_record(&peer, &key, i, 1);
        assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
        assert_int_equal(dht_hold_is_deeper(rig->dht, dht_hold_of_key(rig->dht, &key)), i >= 55);
    }
    struct rig_peer late = rig_peer(64), early = rig_peer(0), self = {.key = rig->key};
    struct dht_record record = rig_record(&late, &key, 1, 1);
    assert_int_equal(rig_hold(rig, &record), DHT_FULL);
    record = rig_record(&late, &other, 1, 1);
    assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    record = rig_record(&early, &key, 1, 2);
    assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    record = rig_record(&self, &key, 1, 1);
    assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    rig_free(rig);
}

/* Once a record was refused the others are in shards, and readers are told so for as long as they may live there. */
static void test_hold__a_refusal_is_remembered(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1);
    struct rig_peer peers[3] = {rig_peer(0), rig_peer(1), rig_peer(2)};
    rig->key_max = 2;
    rig_restart(rig);
    for (unsigned i = 0; i < 3; i++) {
        struct dht_record record = rig_record(&peers[i], &key, 1, 1);
        rig_hold(rig, &record);
    }
    dht_hold_remove(rig->dht, &key, &peers[0].contact.id);
    dht_set_now(rig->dht, rig->now_ms + DHT_RECORD_TTL_MS - 1);
    assert_true(dht_hold_is_deeper(rig->dht, dht_hold_of_key(rig->dht, &key)));
    rig_free(rig);
}

/* faults 10: one writer fills no more than its share, under however many members; what goes makes room again */
static void test_hold__records_max_is_for_all(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig->records_max = 20;
    rig_restart(rig);
    struct rig_peer writer = rig_peer(1);
    for (unsigned i = 0; i <= 20; i++) {
        struct id key = rig_key(i);
        struct dht_record record = rig_record(&writer, &key, 1, 1);
        assert_int_equal(rig_hold(rig, &record), i < 5 ? DHT_ACCEPTED : DHT_FULL);
    }
    for (unsigned i = 0; i < 20; i++) { /* of many writers each finds room for one, until there is none */
        struct rig_peer other = rig_peer(2 + i);
        struct id key = rig_key(i);
        struct dht_record record = rig_record(&other, &key, 1, 1);
        assert_int_equal(rig_hold(rig, &record), i < 15 ? DHT_ACCEPTED : DHT_FULL);
    }
    for (unsigned i = 0; i < 15; i++) {
        struct rig_peer other = rig_peer(2 + i);
        struct id key = rig_key(i);
        dht_hold_remove(rig->dht, &key, &other.contact.id);
    }
    struct id key = rig_key(3), late = rig_key(20);
    dht_hold_remove(rig->dht, &key, &writer.contact.id);
    struct dht_record record = rig_record(&writer, &late, 1, 1);
    assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    rig_free(rig);
}

/* Who has used up its share cannot send the readers of other keys to their shards. */
static void test_hold__a_small_key_has_no_shards(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig->records_max = 20;
    rig_restart(rig);
    struct rig_peer writer = rig_peer(1), greedy = rig_peer(2);
    struct id key = rig_key(100);
    struct dht_record record = rig_record(&writer, &key, 1, 1);
    assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    for (unsigned i = 0; i < 5; i++) {
        struct id filler = rig_key(i);
        record = rig_record(&greedy, &filler, 1, 1);
        rig_hold(rig, &record);
    }
    record = rig_record(&greedy, &key, 1, 1);
    assert_int_equal(rig_hold(rig, &record), DHT_FULL);
    assert_false(dht_hold_is_deeper(rig->dht, dht_hold_of_key(rig->dht, &key)));
    rig_free(rig);
}

/* A record that its writer hands over is trusted, as it can only harm its writer: unless it would replace somebody
 * else's, and take that with it when it is found to be false. */
static void test_hold__no_forgery_replaces_what_others_wrote(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer honest = rig_peer(1), liar = rig_peer(2);
    struct id key = rig_set_key(1);
    struct dht_record good = rig_member(&honest, &key, "x", 1, 3000), held;
    struct dht_record forged = rig_member(&liar, &key, "x", 2, 2000), fresh = rig_member(&liar, &key, "y", 2, 2000);
    forged.signature[3] ^= 1;
    fresh.signature[3] ^= 1;
    assert_int_equal(rig_hold(rig, &good), DHT_ACCEPTED);
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(&forged, &bytes);
    assert_int_equal(dht_hold_put(rig->dht, span.at, span.len, true, NULL), DHT_BAD);
    span = rig_span(&fresh, &bytes);
    assert_int_equal(dht_hold_put(rig->dht, span.at, span.len, true, NULL), DHT_ACCEPTED);
    assert_int_equal(dht_hold_get(rig->dht, &key, &good.member, &held), 1);
    assert_int_equal(dht_record_compare(&held, &good), 0);
    rig_free(rig);
}

/* By hand, one member's record may pass from writer to writer: each is counted for whom it is of now. */
static void test_hold__counts_by_writer(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer a = rig_peer(1), b = rig_peer(2);
    struct id key = dht_key(DHT_SET, "s", 1);
    struct dht_record first = rig_member(&a, &key, "x", 1, 3000), second = rig_member(&b, &key, "x", 2, 2000),
                      third = rig_member(&b, &key, "y", 3, 1000);
    assert_int_equal(rig_hold(rig, &first), DHT_ACCEPTED);
    assert_int_equal(rig_hold(rig, &second), DHT_ACCEPTED);
    assert_int_equal(rig_hold(rig, &third), DHT_ACCEPTED);
    assert_int_equal(rig_hold(rig, &first), DHT_STALE);
    assert_int_equal(dht_hold_of_key(rig->dht, &key)->count, 2);
    struct id writer;
    memcpy(writer.b, a.key.public_key, sizeof writer.b);
    assert_null(map_get(&rig->dht->hold.writers, &writer));
    memcpy(writer.b, b.key.public_key, sizeof writer.b);
    assert_true(map_get(&rig->dht->hold.writers, &writer) == (void *)2);

    assert_int_equal(dht_forget(rig->dht, &b.contact.id, NULL), 0); /* with all that it wrote */
    assert_int_equal(rig_stats(rig).records, 0);
    assert_int_equal(rig->dht->hold.writers.count, 0);
    assert_int_equal(rig_hold(rig, &third), DHT_BAD);
    rig_free(rig);
}

/* faults 61: by hand, nothing from the future */
static void test_hold__refuses_stamps_of_tomorrow(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer writer = rig_peer(1);
    struct id key = dht_key(DHT_SET, "s", 1);
    struct dht_record record = rig_member(&writer, &key, "x", 1, 0);
    record.version.epoch = RIG_WALL_MS + rig->now_ms + DHT_SKEW_MS + 1000;
    rig_sign(&record, &writer.key);
    assert_int_equal(rig_hold(rig, &record), DHT_BAD);
    record.version.epoch -= 2000;
    rig_sign(&record, &writer.key);
    assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    rig_free(rig);
}

/* What has lapsed goes, our own values excepted, and the key tells when to look again. */
static void test_hold__lapses(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[3] = {rig_peer(0), rig_peer(1), {.key = rig->key}};
    struct id key = rig_key(1);
    for (unsigned i = 0; i < 3; i++) {
        struct dht_record record = rig_record(&peers[i], &key, 1, 1);
        record.expiry_wall_ms = RIG_WALL_MS + 100000 * (3 - i);
        rig_sign(&record, &peers[i].key);
        assert_int_equal(rig_hold(rig, &record), DHT_ACCEPTED);
    }
    uint8_t all[DHT_DIGEST_BYTES], some[DHT_DIGEST_BYTES];
    struct dht_held *held = dht_hold_of_key(rig->dht, &key);
    dht_hold_digest(rig->dht, held, all);
    dht_set_now(rig->dht, 250000);
    dht_hold_digest(rig->dht, held, some); /* of what has not lapsed, swept or not */
    assert_memory_not_equal(all, some, sizeof all);
    dht_hold_lapse(rig->dht, held);
    assert_int_equal(held->count, 2);
    dht_hold_digest(rig->dht, held, all);
    assert_memory_equal(all, some, sizeof all);
    assert_true(held->earliest_wall_ms == RIG_WALL_MS + 100000); /* ours */
    dht_hold_remove(rig->dht, &key, &rig->dht->self.id);
    dht_hold_lapse(rig->dht, held);
    assert_true(held->earliest_wall_ms == RIG_WALL_MS + 300000);
    dht_set_now(rig->dht, 300000);
    dht_hold_lapse(rig->dht, held);
    assert_null(dht_hold_of_key(rig->dht, &key));
    assert_int_equal(rig_stats(rig).records, 0);
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

/* ---- a model ---- */

#define KEYS 7
#define MEMBERS 60
#define OPERATIONS 20000

struct model {
    struct dht_record records[KEYS][MEMBERS];
    bool there[KEYS][MEMBERS];
};

static void check_key(struct rig *rig, const struct model *model, unsigned key_number)
{
    struct id key = rig_key(key_number);
    struct dht_held *held = dht_hold_of_key(rig->dht, &key);
    size_t count = 0;
    for (unsigned m = 0; m < MEMBERS; m++) {
        const struct dht_record *expected = &model->records[key_number][m];
        struct dht_record got;
        bool there = model->there[key_number][m];
        count += there;
        if (expected->kind == 0)
            continue; /* never was */
        assert_int_equal(dht_hold_get(rig->dht, &key, &expected->member, &got), there);
        if (there)
            assert_int_equal(dht_record_compare(&got, expected), 0);
    }
    assert_int_equal(held ? held->count : 0, count);
}

static void check_all(struct rig *rig, const struct model *model)
{
    struct id key = {{0}};
    size_t keys = 0, records = 0;
    for (struct dht_held *held; (held = dht_hold_next(rig->dht, &key, keys == 0)); keys++) {
        assert_true(keys == 0 || id_compare(&key, &held->key) < 0);
        key = held->key;
        records += held->count;
    }
    for (unsigned k = 0; k < KEYS; k++) {
        check_key(rig, model, k);
        for (unsigned m = 0; m < MEMBERS; m++)
            records -= model->there[k][m];
    }
    assert_int_equal(records, 0);
}

/* Puts in any order of versions and removals, over keys of few members and of many, and restarts now and then: what is
 * held is always the greatest of what came since it was removed. */
static void test_hold__agrees_with_a_model(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct model *model = calloc(1, sizeof *model);
    struct rig_peer peers[MEMBERS];
    uint64_t seed = RIG_SEED;
    struct rng rng = rng_seeded(&seed);
    assert_non_null(model);
    for (unsigned i = 0; i < MEMBERS; i++)
        peers[i] = rig_peer(i);
    for (unsigned i = 0; i < OPERATIONS; i++) {
        unsigned k = (unsigned)rng_below(&rng, KEYS), m = (unsigned)rng_below(&rng, k < 3 ? 3 : MEMBERS);
        struct id key = rig_key(k);
        struct dht_record *record = &model->records[k][m];
        bool *there = &model->there[k][m];
        if (rng_below(&rng, 10) == 0) {
            dht_hold_remove(rig->dht, &key, &peers[m].contact.id);
            *there = false;
        } else {
            struct dht_record next = {.key = key,
                                      .kind = DHT_OBJECT,
                                      .tombstone = rng_below(&rng, 4) == 0,
                                      .score = (double)rng_below(&rng, 10),
                                      .version = {0, rng_below(&rng, 6)},
                                      .expiry_wall_ms = RIG_WALL_MS + 1000000 + rng_below(&rng, 3)};
            memcpy(next.public_key, peers[m].key.public_key, sizeof next.public_key);
            next.member = peers[m].contact.id;
            OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
            dht_record_encode(&next, &bytes); /* by its writer itself: nobody looks at the signature */
            int order = *there ? dht_record_compare(&next, record) : 1;
            enum dht_store_status status = dht_hold_put(rig->dht, bytes.data, bytes.len, true, NULL);
            assert_int_equal(status, order < 0 ? DHT_STALE : DHT_ACCEPTED);
            if (order > 0)
                *record = next;
            *there = true;
        }
        check_key(rig, model, k);
        if (i % 1000 == 999) {
            rig_restart(rig);
            check_all(rig, model);
        }
    }
    free(model);
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
        cmocka_unit_test(test_hold__a_refusal_is_remembered),
        cmocka_unit_test(test_hold__records_max_is_for_all),
        cmocka_unit_test(test_hold__a_small_key_has_no_shards),
        cmocka_unit_test(test_hold__no_forgery_replaces_what_others_wrote),
        cmocka_unit_test(test_hold__counts_by_writer),
        cmocka_unit_test(test_hold__refuses_stamps_of_tomorrow),
        cmocka_unit_test(test_hold__lapses),
        cmocka_unit_test(test_hold__agrees_with_a_model),
        cmocka_unit_test(test_hold__full_disk_asks_to_slow_down),
        cmocka_unit_test(test_hold__counts_what_it_finds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
