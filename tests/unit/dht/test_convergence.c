/* Replicas that exchange records come to the same, in whatever order, how often and with what losses it happens. */
#include "tests/unit/dht/rig.h"

#define REPLICAS 5
#define MEMBERS 40
#define WRITES 1500

struct giving {
    struct rig *to;
    const struct rng *rng;
    unsigned loss_percent;
};

static bool give(void *ctx, struct dht_held *held, const struct dht_record *record, const uint8_t *bytes,
                 size_t len_bytes)
{
    struct giving *giving = ctx;
    (void)held, (void)record;
    for (unsigned copies = 1 + (unsigned)rng_below(giving->rng, 2); copies > 0; copies--)
        if (rng_below(giving->rng, 100) >= giving->loss_percent)
            dht_hold_put(giving->to->dht, bytes, len_bytes, true, NULL);
    return true;
}

static void exchange(struct rig *from, struct giving *giving, const struct id *key)
{
    struct dht_held *held = dht_hold_of_key(from->dht, key);
    if (held && from != giving->to)
        dht_hold_each_of(from->dht, held, give, giving);
}

static struct dht_record write_of(const struct rng *rng, const struct id *key, uint64_t stamp)
{
    struct dht_record record = {
        .key = *key,
        .kind = DHT_SET,
        .tombstone = rng_below(rng, 3) == 0,
        .score = (double)rng_below(rng, 5),
        .version = {RIG_WALL_MS - 100000 + stamp, rng_below(rng, 2)},
        .expiry_wall_ms = RIG_WALL_MS + DHT_RECORD_TTL_MS + rng_below(rng, 2),
        .data_len = 1,
    };
    record.data[0] = (uint8_t)rng_below(rng, MEMBERS);
    record.public_key[0] = (uint8_t)rng_below(rng, 3); /* one of three writers */
    crypto_id_of(record.data, record.data_len, &record.member);
    if (record.data[0] == 0) { /* the set itself */
        record.meta = true;
        record.tombstone = false;
        record.member = (struct id){{0}};
        record.data_len = 16;
    }
    return record;
}

/* Thousands of records: what they are signed with is not what this is about. */
static bool trust(void *ctx, const uint8_t signature[CRYPTO_SIGNATURE_BYTES], const void *data, size_t len_bytes,
                  const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES])
{
    (void)ctx, (void)signature, (void)data, (void)len_bytes, (void)public_key;
    return true;
}

static void hold(struct rig *rig, const struct dht_record *record)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(record, &bytes);
    dht_hold_put(rig->dht, span.at, span.len, true, NULL);
}

static void converges(uint64_t seed)
{
    struct rig *replicas[REPLICAS];
    struct rng rng = rng_seeded(&seed);
    struct id key = dht_key(DHT_SET, "s", 1);
    struct dht_record greatest[MEMBERS] = {0};
    for (unsigned i = 0; i < REPLICAS; i++) {
        replicas[i] = rig_new();
        replicas[i]->dht->config.signatures.check = trust;
    }
    for (unsigned i = 0; i < WRITES; i++) {
        struct dht_record record = write_of(&rng, &key, rng_below(&rng, 50));
        struct dht_record *best = &greatest[record.meta ? 0 : record.data[0]];
        if (best->kind == 0 || dht_record_compare(&record, best) > 0)
            *best = record;
        hold(replicas[rng_below(&rng, REPLICAS)], &record);
        struct giving giving = {replicas[rng_below(&rng, REPLICAS)], &rng, 60};
        if (i % 50 == 0)
            exchange(replicas[rng_below(&rng, REPLICAS)], &giving, &key);
    }
    for (unsigned round = 0; round < 2; round++) /* nothing is lost any more; twice changes nothing */
        for (unsigned i = 0; i < REPLICAS * REPLICAS; i++) {
            struct giving giving = {replicas[i % REPLICAS], &rng, 0};
            exchange(replicas[i / REPLICAS], &giving, &key);
        }
    uint8_t digest[DHT_DIGEST_BYTES], other[DHT_DIGEST_BYTES];
    dht_hold_digest(replicas[0]->dht, dht_hold_of_key(replicas[0]->dht, &key), digest);
    for (unsigned i = 0; i < REPLICAS; i++) {
        dht_hold_digest(replicas[i]->dht, dht_hold_of_key(replicas[i]->dht, &key), other);
        assert_memory_equal(digest, other, sizeof digest);
    }
    for (unsigned m = 0; m < MEMBERS; m++) { /* and it is the greatest of each that has come back, gone or not */
        struct dht_record record;
        assert_int_equal(dht_hold_get(replicas[0]->dht, &key, &greatest[m].member, &record), 1);
        assert_int_equal(dht_record_compare(&record, &greatest[m]), 0);
    }
    for (unsigned i = 0; i < REPLICAS; i++)
        rig_free(replicas[i]);
}

static void test_convergence__any_order_with_losses_and_copies(void **state)
{
    (void)state;
    for (uint64_t seed = RIG_SEED; seed < RIG_SEED + 10; seed++)
        converges(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convergence__any_order_with_losses_and_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
