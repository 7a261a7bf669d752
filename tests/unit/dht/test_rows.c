#include "tests/unit/dht/rig.h"

#define MEMBERS 300
#define ROUNDS 3000

/* What rows should be: an array in any order. */
struct model {
    struct dht_record records[MEMBERS];
    size_t count;
};

static struct dht_record record_of(const struct id *key, const struct rng *rng, unsigned member)
{
    struct dht_record record = {
        .key = *key,
        .kind = DHT_SET,
        .score = (double)rng_below(rng, 12) - 5,
        .version = {1000 + rng_below(rng, 30), rng_below(rng, 3)},
        .expiry_wall_ms = RIG_WALL_MS + rng_below(rng, 10) * 1000,
        .place = {.x = {(int16_t)(1 + rng_below(rng, 20)), (int16_t)rng_below(rng, 20), 0}},
        .data_len = sizeof member,
    };
    memcpy(record.data, &member, sizeof member);
    crypto_id_of(record.data, record.data_len, &record.member);
    return record;
}

static size_t model_find(const struct model *model, const struct id *member)
{
    size_t at = 0;
    while (at < model->count && !id_equal(&model->records[at].member, member))
        at++;
    return at;
}

static void set_row(struct dht_held *held, const struct dht_record *record)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    dht_record_encode(record, &bytes);
    struct dht_row *row = dht_row_new(&record->member, bytes.data, bytes.len, true);
    assert_non_null(row);
    assert_int_equal(dht_rows_set(held, row), 0);
}

static bool is_wanted(const struct dht_record *record, const struct dht_pick *pick)
{
    struct dht_rank rank = dht_record_rank(record, pick->order, pick->own);
    return record->expiry_wall_ms > pick->wall_ms && (!pick->after || dht_rank_compare(&rank, pick->after) > 0) &&
           (!pick->until || id_compare(&record->member, pick->until) <= 0) &&
           (pick->order == DHT_BY_MEMBER || record->version.epoch > pick->cleared_ms);
}

/* The first wanted record of the model behind this rank, or NULL. */
static const struct dht_record *model_next(const struct model *model, const struct dht_pick *pick,
                                           const struct dht_rank *last)
{
    const struct dht_record *best = NULL;
    for (size_t i = 0; i < model->count; i++) {
        const struct dht_record *record = &model->records[i];
        struct dht_rank rank = dht_record_rank(record, pick->order, pick->own), best_rank = {0};
        if (best)
            best_rank = dht_record_rank(best, pick->order, pick->own);
        if (is_wanted(record, pick) && (!last || dht_rank_compare(&rank, last) > 0) &&
            (!best || dht_rank_compare(&rank, &best_rank) < 0))
            best = record;
    }
    return best;
}

static void check_pick(const struct dht_held *held, const struct model *model, const struct rng *rng)
{
    struct dht_place own = {.x = {7, 7, 0}, .height = 1};
    struct dht_row *rows[20];
    struct dht_rank after, last;
    struct id until;
    struct dht_pick pick = {.order = (enum dht_order)rng_below(rng, DHT_ORDER_COUNT),
                            .own = &own,
                            .wall_ms = RIG_WALL_MS + rng_below(rng, 5) * 1000,
                            .cleared_ms = rng_below(rng, 2) * (1000 + rng_below(rng, 10))};
    if (model->count > 0 && rng_below(rng, 2) == 0) {
        after = dht_record_rank(&model->records[rng_below(rng, model->count)], pick.order, &own);
        pick.after = &after;
    }
    if (rng_below(rng, 2) == 0) {
        rng->fill(rng->ctx, until.b, sizeof until.b);
        pick.until = &until;
    }
    size_t max = rng_below(rng, 20) + 1;
    size_t count = dht_rows_pick(held, &pick, rows, max);
    for (size_t i = 0; i <= count && i < max; i++) {
        const struct dht_record *expected = model_next(model, &pick, i > 0 ? &last : NULL);
        assert_int_equal(expected != NULL, i < count);
        if (!expected)
            break;
        assert_true(id_equal(&rows[i]->member, &expected->member));
        last = dht_record_rank(expected, pick.order, &own);
    }
}

static void check_walk(const struct dht_held *held, const struct model *model)
{
    const struct id *member = NULL;
    size_t count = 0;
    assert_int_equal(held->count, model->count);
    for (struct dht_row *row; (row = dht_rows_after(held, member)); member = &row->member, count++) {
        struct dht_record record;
        dht_row_decode(held, row, &record);
        size_t at = model_find(model, &row->member);
        assert_true(at < model->count);
        assert_int_equal(dht_record_compare(&record, &model->records[at]), 0);
        assert_true(!member || id_compare(member, &row->member) < 0);
    }
    assert_int_equal(count, model->count);
}

/* Inserted, replaced and removed at random, few or many: always what a plain array says, in all orders and ranges. */
static void agrees_with_a_model(unsigned members)
{
    struct dht_held held = {.key = rig_key(1)};
    struct model *model = calloc(1, sizeof *model);
    uint64_t seed = RIG_SEED + members;
    struct rng rng = rng_seeded(&seed);
    assert_non_null(model);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct dht_record record = record_of(&held.key, &rng, (unsigned)rng_below(&rng, members));
        size_t at = model_find(model, &record.member);
        if (rng_below(&rng, 4) == 0) {
            dht_rows_remove(&held, &record.member);
            if (at < model->count)
                model->records[at] = model->records[--model->count];
        } else {
            set_row(&held, &record);
            model->records[at] = record;
            model->count += at == model->count;
        }
        check_pick(&held, model, &rng);
        if (i % 100 == 0)
            check_walk(&held, model);
    }
    dht_rows_release(&held);
    assert_int_equal(held.count, 0);
    free(model);
}

static void test_rows__few_agree_with_a_model(void **state)
{
    (void)state;
    agrees_with_a_model(20);
}

static void test_rows__many_agree_with_a_model(void **state)
{
    (void)state;
    agrees_with_a_model(MEMBERS);
}

/* The digest is of what there is, not of how it came. */
static void test_rows__digest_knows_no_order(void **state)
{
    (void)state;
    uint64_t seed = RIG_SEED, until_ms;
    struct rng rng = rng_seeded(&seed);
    for (unsigned count = 1; count < 100; count += 9) {
        struct dht_held up = {.key = rig_key(1)}, down = {.key = rig_key(1)};
        struct dht_record records[100];
        uint8_t a[DHT_DIGEST_BYTES], b[DHT_DIGEST_BYTES];
        for (unsigned i = 0; i < count; i++)
            records[i] = record_of(&up.key, &rng, i);
        for (unsigned i = 0; i < count; i++) {
            set_row(&up, &records[i]);
            set_row(&down, &records[count - 1 - i]);
        }
        assert_int_equal(dht_rows_digest(&up, RIG_WALL_MS - 1, a, &until_ms), 0);
        assert_int_equal(dht_rows_digest(&down, RIG_WALL_MS - 1, b, &until_ms), 0);
        assert_memory_equal(a, b, sizeof a);
        records[0].score++;
        set_row(&up, &records[0]);
        assert_int_equal(dht_rows_digest(&up, RIG_WALL_MS - 1, a, &until_ms), 0);
        assert_memory_not_equal(a, b, sizeof a);
        dht_rows_release(&up);
        dht_rows_release(&down);
    }
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    printf("seed %d\n", RIG_SEED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows__few_agree_with_a_model),
        cmocka_unit_test(test_rows__many_agree_with_a_model),
        cmocka_unit_test(test_rows__digest_knows_no_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
