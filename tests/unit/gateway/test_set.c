#include "node/gateway/set.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/clock.h"
#include "tests/test.h"

static struct set_change said(const char *name, double score, uint64_t epoch, bool tombstone)
{
    return (struct set_change){
        .name = name, .name_len = strlen(name), .score = score, .version = {epoch, 1}, .tombstone = tombstone};
}

static struct set_change said_of_set(uint64_t epoch, uint64_t cleared, uint64_t expires)
{
    return (struct set_change){.meta = true, .version = {epoch, 1}, .cleared_ms = cleared, .expires_ms = expires};
}

static void join(struct set *set, const char *name, double score, uint64_t epoch)
{
    struct set_change change = said(name, score, epoch, false);
    set_join(set, &change);
}

static void check_order(const struct set *set, const char *expected)
{
    char text[256] = "";
    for (size_t i = 0; i < set_count(set); i++) {
        strcat(text, i > 0 ? " " : "");
        strcat(text, set_at(set, i)->name.bytes);
    }
    assert_string_equal(text, expected);
}

static void count_forgotten(void *ctx, struct set_member *member)
{
    (void)member;
    ++*(size_t *)ctx;
}

static void test_set__orders_by_score_then_bytes(void **state)
{
    (void)state;
    struct set *set = set_new("s", 1, 1);
    join(set, "b", 1, 10);
    join(set, "a", 1, 10);
    join(set, "ab", 1, 10);
    join(set, "z", -INFINITY, 10);
    join(set, "\xff", 1, 10);
    join(set, "y", INFINITY, 10);
    check_order(set, "z a ab b \xff y");
    join(set, "y", -3, 11);
    check_order(set, "z y a ab b \xff");
    set_free(set);
}

static void test_set__greater_version_stays(void **state)
{
    (void)state;
    struct set *set = set_new("s", 1, 1);
    struct set_change removed = said("a", 0, 20, true);
    struct set_change again = said("a", 7, 20, false);
    join(set, "a", 1, 10);
    join(set, "a", 2, 9);
    assert_true(set_find(set, "a", 1)->score == 1);
    assert_non_null(set_join(set, &removed));
    assert_null(set_find(set, "a", 1));
    assert_int_equal(set_count(set), 0);
    /* Of equal versions the tombstone; and nothing older comes back. */
    assert_null(set_join(set, &again));
    join(set, "a", 3, 19);
    assert_null(set_find(set, "a", 1));
    join(set, "a", 4, 21);
    assert_true(set_find(set, "a", 1)->score == 4);
    set_free(set);
}

/* Any order of the same things said, each any number of times, gives one set. */
static void test_set__joins_in_any_order(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b", "c", "d"};
    struct set_change all[24];
    uint64_t seed = 5;
    struct rng rng = rng_seeded(&seed);
    for (size_t i = 0; i < 20; i++)
        all[i] = said(names[i % 4], (double)rng_below(&rng, 3), 10 + rng_below(&rng, 6), rng_below(&rng, 3) == 0);
    for (size_t i = 20; i < 24; i++)
        all[i] = said_of_set(10 + i, rng_below(&rng, 14), 0);
    /* Of one version and member there is one truth, as each is written by one node. */
    for (size_t i = 0; i < 20; i++)
        all[i].version.counter = i;
    char expected[256] = "?";
    for (int round = 0; round < 200; round++) {
        struct set *set = set_new("s", 1, 1);
        char text[256] = "";
        bool forgotten;
        size_t purged = 0;
        bool told[24] = {false};
        for (size_t left = 24; left > 0;) {
            size_t i = rng_below(&rng, 24);
            left -= !told[i];
            told[i] = true;
            if (all[i].meta)
                set_join_meta(set, &all[i], &forgotten);
            else
                set_join(set, &all[i]);
            if (rng_below(&rng, 4) == 0)
                set_purge(set, 1, count_forgotten, &purged);
        }
        set_purge(set, 1, count_forgotten, &purged);
        for (size_t i = 0; i < set_count(set); i++) {
            const struct set_member *member = set_at(set, i);
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s=%g ", member->name.bytes, member->score);
        }
        if (round == 0)
            strcpy(expected, text);
        assert_string_equal(text, expected);
        set_free(set);
    }
}

static void test_set__cleared_and_expired(void **state)
{
    (void)state;
    struct set *set = set_new("s", 1, 1);
    struct set_change clear = said_of_set(20, 15, 0), expire = said_of_set(21, 0, 100), keep = said_of_set(22, 15, 0);
    bool forgotten;
    size_t count = 0;
    join(set, "old", 1, 15);
    join(set, "new", 1, 16);
    assert_true(set_join_meta(set, &clear, &forgotten));
    set_purge(set, 50, count_forgotten, &count);
    assert_int_equal(count, 1);
    check_order(set, "new");
    join(set, "old", 1, 14);
    check_order(set, "new");
    /* Who sets an end and has not seen the clearing does not undo it. */
    assert_true(set_join_meta(set, &expire, &forgotten));
    assert_false(forgotten);
    join(set, "old", 1, 15);
    set_purge(set, 99, count_forgotten, &count);
    check_order(set, "new");
    set_purge(set, 100, count_forgotten, &count);
    check_order(set, "");
    /* It was not to end after all: what was forgotten is to be read again. */
    assert_true(set_join_meta(set, &keep, &forgotten));
    assert_true(forgotten);
    join(set, "new", 1, 16);
    check_order(set, "new");
    assert_false(set_join_meta(set, &expire, &forgotten));
    set_free(set);
}

static void check_range(struct set_range range, size_t begin, size_t end)
{
    assert_int_equal(range.begin, begin);
    assert_int_equal(range.end, end);
}

static void test_set__ranges(void **state)
{
    (void)state;
    struct set *set = set_new("s", 1, 1);
    struct set_scores scores = {1, 2, false, false};
    struct set_bound least = {.kind = SET_BOUND_LEAST}, most = {.kind = SET_BOUND_MOST};
    struct set_bound b = {SET_BOUND_NAME, "b", 1, false}, b_out = {SET_BOUND_NAME, "b", 1, true};
    join(set, "a", 1, 1);
    join(set, "b", 1, 1);
    join(set, "c", 2, 1);
    join(set, "d", 3, 1);
    check_range(set_range_of_scores(set, &scores), 0, 3);
    scores = (struct set_scores){1, 2, true, true};
    check_range(set_range_of_scores(set, &scores), 2, 2);
    scores = (struct set_scores){3, 1, false, false};
    assert_int_equal(set_range_of_scores(set, &scores).end, set_range_of_scores(set, &scores).begin);
    check_range(set_range_of_names(set, &least, &most), 0, 4);
    check_range(set_range_of_names(set, &b, &b), 1, 2);
    check_range(set_range_of_names(set, &b_out, &most), 2, 4);
    check_range(set_range_of_names(set, &least, &b_out), 0, 1);
    assert_int_equal(set_range_of_names(set, &most, &least).end - set_range_of_names(set, &most, &least).begin, 0);
    set_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set__orders_by_score_then_bytes),
        cmocka_unit_test(test_set__greater_version_stays),
        cmocka_unit_test(test_set__joins_in_any_order),
        cmocka_unit_test(test_set__cleared_and_expired),
        cmocka_unit_test(test_set__ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
