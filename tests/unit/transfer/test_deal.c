/* What a holder chooses to send: each chunk once before any twice, wherever askers stand. */
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "transfer/deal.h"

enum { CHUNKS = 1000, CHUNK = 65536 };

struct fixture {
    struct deals deals;
    struct store_chunk chunks[CHUNKS];
    struct id root;
    uint64_t seed;
    struct rng rng;
};

static void setup(struct fixture *f)
{
    *f = (struct fixture){.seed = 7, .root = {.b = {1}}};
    f->rng = rng_seeded(&f->seed);
    transfer_deal_init(&f->deals);
    for (unsigned i = 0; i < CHUNKS; i++)
        f->chunks[i].length = CHUNK;
}

static bool choose(struct fixture *f, const struct deal_range *asked, size_t n, uint64_t size, uint64_t now_ms,
                   struct deal_range *ret)
{
    struct deal_wish wish = {
        .root = &f->root, .chunks = f->chunks, .n_chunks = CHUNKS, .asked = asked, .n_asked = n, .size_bytes = size};
    return transfer_deal_choose(&f->deals, &wish, &f->rng, now_ms, ret);
}

static void test_deal__each_once_before_any_twice(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    uint8_t sent[CHUNKS] = {0};
    struct deal_range all = {0, CHUNKS}, stretch;
    unsigned n_chunks = 0, n_stretches = 0;
    while (choose(&f, &all, 1, LIMIT_RUN_BYTES, 1000, &stretch)) {
        assert_true(stretch.count > 0 && stretch.count * CHUNK <= LIMIT_RUN_BYTES);
        assert_true(stretch.first + stretch.count <= CHUNKS);
        for (uint32_t i = 0; i < stretch.count; i++)
            assert_int_equal(sent[stretch.first + i]++, 0);
        transfer_deal_mark(&f.deals, &f.root, CHUNKS, stretch, 1000);
        n_chunks += stretch.count;
        n_stretches++;
    }
    assert_int_equal(n_chunks, CHUNKS);
    assert_true(n_stretches < 2 * (CHUNKS / 16 + 1)); /* few are short */
    transfer_deal_release(&f.deals);
}

/* One after the other they are spread over the object, and not its beginning for all. */
static void test_deal__spread_over_the_object(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct deal_range all = {0, CHUNKS}, stretch;
    unsigned parts[4] = {0};
    for (unsigned i = 0; i < 20; i++) {
        assert_true(choose(&f, &all, 1, LIMIT_RUN_BYTES, 1000, &stretch));
        transfer_deal_mark(&f.deals, &f.root, CHUNKS, stretch, 1000);
        parts[stretch.first * 4 / CHUNKS]++;
    }
    for (unsigned i = 0; i < 4; i++)
        assert_true(parts[i] > 0);
    transfer_deal_release(&f.deals);
}

static void test_deal__only_what_was_asked(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct deal_range asked[] = {{10, 3}, {500, 1}, {998, 2}}, stretch;
    unsigned n = 0;
    while (choose(&f, asked, 3, LIMIT_RUN_BYTES, 1000, &stretch)) {
        for (uint32_t i = stretch.first; i < stretch.first + stretch.count; i++)
            assert_true((i >= 10 && i < 13) || i == 500 || i >= 998);
        transfer_deal_mark(&f.deals, &f.root, CHUNKS, stretch, 1000);
        n += stretch.count;
    }
    assert_int_equal(n, 6);
    transfer_deal_release(&f.deals);
}

static void test_deal__size_is_kept(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct deal_range all = {0, CHUNKS}, stretch;
    assert_true(choose(&f, &all, 1, 3 * CHUNK, 1000, &stretch));
    assert_true(stretch.count <= 3);
    assert_true(choose(&f, &all, 1, 1, 1000, &stretch)); /* one chunk at least */
    assert_int_equal(stretch.count, 1);
    for (unsigned i = 0; i < CHUNKS; i++)
        f.chunks[i].length = 100; /* then it is the number that counts */
    assert_true(choose(&f, &all, 1, UINT64_MAX, 1000, &stretch));
    assert_true(stretch.count <= LIMIT_RUN_CHUNKS);
    transfer_deal_release(&f.deals);
}

static void test_deal__what_was_not_sent_comes_again(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct deal_range all = {0, CHUNKS}, stretch;
    transfer_deal_mark(&f.deals, &f.root, CHUNKS, all, 1000);
    assert_false(choose(&f, &all, 1, LIMIT_RUN_BYTES, 1000, &stretch));
    transfer_deal_unmark(&f.deals, &f.root, (struct deal_range){700, 2});
    assert_true(choose(&f, &all, 1, LIMIT_RUN_BYTES, 1000, &stretch));
    assert_int_equal(stretch.first, 700);
    assert_int_equal(stretch.count, 2);
    transfer_deal_unmark(&f.deals, &f.root, (struct deal_range){700, 2}); /* of what was not marked: nothing */
    for (unsigned i = 0; i < 600; i++)
        transfer_deal_mark(&f.deals, &f.root, CHUNKS, all, 1000); /* counts stop, and do not begin again */
    assert_false(choose(&f, &all, 1, LIMIT_RUN_BYTES, 1000, &stretch));
    transfer_deal_release(&f.deals);
}

/* Who still misses what was sent some time ago gets it: those to whom it was sent have gone, or do not pass it on. */
static void test_deal__again_when_it_did_not_spread(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct deal_range all = {0, CHUNKS}, stretch;
    transfer_deal_mark(&f.deals, &f.root, CHUNKS, all, 1000);
    assert_false(choose(&f, &all, 1, LIMIT_RUN_BYTES, 900 + DEAL_SPREAD_MS, &stretch));
    assert_true(choose(&f, &all, 1, LIMIT_RUN_BYTES, 1200 + DEAL_SPREAD_MS, &stretch));
    /* what was never sent comes first */
    transfer_deal_unmark(&f.deals, &f.root, (struct deal_range){7, 1});
    assert_true(choose(&f, &all, 1, LIMIT_RUN_BYTES, 1200 + DEAL_SPREAD_MS, &stretch));
    assert_int_equal(stretch.first, 7);
    assert_int_equal(stretch.count, 1);
    transfer_deal_release(&f.deals);
}

/* Of many objects the last used are known; of one that is forgotten nothing is unmarked. */
static void test_deal__bounded(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct deal_range one = {0, 1}, stretch;
    for (unsigned i = 0; i < 3 * LIMIT_DEALS; i++) {
        f.root.b[1] = (uint8_t)i;
        transfer_deal_mark(&f.deals, &f.root, CHUNKS, one, 1000);
        assert_true(f.deals.n <= LIMIT_DEALS && f.deals.chunks <= LIMIT_DEAL_CHUNKS);
    }
    assert_false(choose(&f, &one, 1, CHUNK, 1000, &stretch));
    f.root.b[1] = 0;
    transfer_deal_unmark(&f.deals, &f.root, one);
    assert_true(choose(&f, &one, 1, CHUNK, 1000, &stretch));
    transfer_deal_mark(&f.deals, &f.root, LIMIT_DEAL_CHUNKS + 1, one, 1000);
    assert_true(f.deals.chunks <= LIMIT_DEAL_CHUNKS);
    transfer_deal_release(&f.deals);
}

/* Ranges of which peers may think are passed over: backwards, overlapping, empty, beyond the end, around the end. */
static void test_deal__hostile_ranges(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct deal_range stretch;
    struct deal_range none[] = {{CHUNKS, 1}, {0, 0}, {UINT32_MAX, UINT32_MAX}, {5, UINT32_MAX}, {0, CHUNKS + 1}};
    assert_false(choose(&f, none, sizeof none / sizeof none[0], LIMIT_RUN_BYTES, 1000, &stretch));
    assert_false(choose(&f, none, 0, LIMIT_RUN_BYTES, 1000, &stretch));
    struct deal_range mixed[] = {{100, 10}, {105, 10}, {0, 50}, {100, 10}, {200, 1}};
    unsigned n = 0;
    while (choose(&f, mixed, sizeof mixed / sizeof mixed[0], LIMIT_RUN_BYTES, 1000, &stretch)) {
        transfer_deal_mark(&f.deals, &f.root, CHUNKS, stretch, 1000);
        n += stretch.count;
    }
    assert_int_equal(n, 11);
    transfer_deal_release(&f.deals);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deal__each_once_before_any_twice),
        cmocka_unit_test(test_deal__spread_over_the_object),
        cmocka_unit_test(test_deal__only_what_was_asked),
        cmocka_unit_test(test_deal__size_is_kept),
        cmocka_unit_test(test_deal__what_was_not_sent_comes_again),
        cmocka_unit_test(test_deal__again_when_it_did_not_spread),
        cmocka_unit_test(test_deal__bounded),
        cmocka_unit_test(test_deal__hostile_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
