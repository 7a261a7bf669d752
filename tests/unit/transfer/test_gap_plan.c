#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/clock.h"
#include "node/base/scope.h"
#include "transfer/gap_plan.h"
#include "transfer/have.h"

#define KIB 1024u

/* A recipe from text: each letter is a chunk, the same letter the same bytes, of 64 KiB (capitals) or 16 KiB. */
static struct store_recipe *recipe_of(const char *text)
{
    struct store_recipe *recipe = calloc(1, sizeof *recipe);
    size_t n = strlen(text);
    recipe->root.chunking = STORE_CHUNKING_ARCHIVE;
    recipe->root.chunk_count = (uint32_t)n;
    recipe->chunks = calloc(n + 1, sizeof *recipe->chunks);
    recipe->offsets = calloc(n + 1, sizeof *recipe->offsets);
    for (size_t i = 0; i < n; i++) {
        recipe->chunks[i].length = text[i] >= 'a' ? 16 * KIB : 64 * KIB;
        recipe->chunks[i].id.b[0] = (uint8_t)text[i];
        recipe->offsets[i] = recipe->root.size_bytes;
        recipe->root.size_bytes += recipe->chunks[i].length;
    }
    return recipe;
}

static void drop(struct store_recipe *recipe)
{
    free(recipe->chunks);
    free(recipe->offsets);
    free(recipe);
}

/* What is not in the basis is missing. */
static struct gap_plan plan_for(const char *text, const char *basis_text)
{
    struct store_recipe *recipe = recipe_of(text);
    struct store_recipe *basis = recipe_of(basis_text);
    uint8_t *missing = have_new(recipe->root.chunk_count);
    for (uint32_t i = 0; i < recipe->root.chunk_count; i++) {
        if (!strchr(basis_text, text[i]))
            have_set(missing, i);
    }
    struct gap_plan plan = {0};
    const struct store_recipe *bases[] = {basis};
    assert_int_equal(transfer_gap_plan(recipe, missing, bases, 1, &plan), 0);
    free(missing);
    drop(recipe);
    drop(basis);
    return plan;
}

static void expect(const struct gap *gap, uint32_t first, uint32_t count, uint64_t offset, uint32_t range)
{
    assert_int_equal(gap->first, first);
    assert_int_equal(gap->count, count);
    assert_int_equal(gap->range_offset, offset);
    assert_int_equal(gap->range_bytes, range);
}

static void test_gap_plan__between_neighbours(void **state)
{
    (void)state;
    struct gap_plan plan = plan_for("ABXDE", "ABCDE");
    assert_int_equal(plan.n, 1);
    expect(&plan.gaps[0], 2, 1, 128 * KIB, 64 * KIB);
    assert_ptr_equal(transfer_gap_plan_find(&plan, 2), &plan.gaps[0]);
    assert_null(transfer_gap_plan_find(&plan, 1));
    assert_null(transfer_gap_plan_find(&plan, 3));
    transfer_gap_plan_release(&plan);
}

/* Something that was inserted earlier moves the range along. */
static void test_gap_plan__what_has_moved(void **state)
{
    (void)state;
    struct gap_plan plan = plan_for("XABYDE", "ABCDE");
    assert_int_equal(plan.n, 1); /* X is new: nothing was there */
    expect(&plan.gaps[0], 3, 1, 128 * KIB, 64 * KIB);
    transfer_gap_plan_release(&plan);
}

static void test_gap_plan__edges_count_as_neighbours(void **state)
{
    (void)state;
    struct gap_plan plan = plan_for("XBCDY", "ABCDE");
    assert_int_equal(plan.n, 2);
    expect(&plan.gaps[0], 0, 1, 0, 64 * KIB);
    expect(&plan.gaps[1], 4, 1, 256 * KIB, 64 * KIB);
    transfer_gap_plan_release(&plan);
}

/* A range of a quite different length is of something else. */
static void test_gap_plan__unlikely_lengths(void **state)
{
    (void)state;
    struct gap_plan plan = plan_for("AxE", "ABCDE"); /* 16 KiB in place of 192 */
    assert_int_equal(plan.n, 0);
    transfer_gap_plan_release(&plan);
    plan = plan_for("AVWXYZE", "AbE"); /* 320 in place of 16 */
    assert_int_equal(plan.n, 0);
    transfer_gap_plan_release(&plan);
    plan = plan_for("AXYE", "AbcdeE"); /* 128 in place of 64 */
    assert_int_equal(plan.n, 1);
    expect(&plan.gaps[0], 1, 2, 64 * KIB, 64 * KIB);
    transfer_gap_plan_release(&plan);
}

/* Nothing matches, but the basis was named: positions tell, and both guesses of them when lengths differ. */
static void test_gap_plan__nothing_matches(void **state)
{
    (void)state;
    struct gap_plan plan = plan_for("STUVWXYZstuvwxyz", "ABCDEFGHabcdefgh");
    assert_true(plan.n >= 2);
    uint32_t next = 0;
    for (size_t i = 0; i < plan.n; i++) {
        const struct gap *gap = &plan.gaps[i];
        uint64_t from = gap->first <= 8 ? 64ull * KIB * gap->first : (512 + 16ull * (gap->first - 8)) * KIB;
        assert_int_equal(gap->first, next);
        assert_true(gap->bytes <= LIMIT_GAP_BYTES);
        assert_true(gap->range_offset <= from);
        assert_true(gap->range_offset + gap->range_bytes >= from + gap->bytes);
        next = gap->first + gap->count;
    }
    assert_int_equal(next, 16);
    transfer_gap_plan_release(&plan);
}

/* A chunk that occurs here and there (zeros) is no landmark, but beside one it is. */
static void test_gap_plan__repeated_chunks(void **state)
{
    (void)state;
    struct gap_plan plan = plan_for("AzXzC", "zAzBzCz");
    assert_int_equal(plan.n, 1);
    expect(&plan.gaps[0], 2, 1, 96 * KIB, 64 * KIB);
    transfer_gap_plan_release(&plan);
}

/* One chunk that lies elsewhere does not lead its neighbours astray. */
static void test_gap_plan__stray_matches(void **state)
{
    (void)state;
    struct gap_plan plan = plan_for("ABXHYEF", "ABCDEFGH");
    assert_int_equal(plan.n, 2);
    for (size_t i = 0; i < plan.n; i++) {
        assert_in_range(plan.gaps[i].range_offset, 64 * KIB, 256 * KIB);
        assert_true(plan.gaps[i].range_offset + plan.gaps[i].range_bytes <= 320 * KIB);
    }
    transfer_gap_plan_release(&plan);
}

/* The basis that fits better, gap by gap; one that was cut otherwise is not looked at. */
static void test_gap_plan__several_bases(void **state)
{
    (void)state;
    struct store_recipe *recipe = recipe_of("ABXDEFYH");
    struct store_recipe *first = recipe_of("ABCDE");
    struct store_recipe *second = recipe_of("EFGH");
    struct store_recipe *pages = recipe_of("ABXDEFYH");
    pages->root.chunking = STORE_CHUNKING_PAGES;
    uint8_t missing = 1u << 2 | 1u << 6;
    const struct store_recipe *bases[] = {pages, first, second};
    struct gap_plan plan = {0};
    assert_int_equal(transfer_gap_plan(recipe, &missing, bases, 3, &plan), 0);
    assert_int_equal(plan.n, 2);
    assert_int_equal(plan.gaps[0].basis, 1);
    expect(&plan.gaps[0], 2, 1, 128 * KIB, 64 * KIB);
    assert_int_equal(plan.gaps[1].basis, 2);
    expect(&plan.gaps[1], 6, 1, 128 * KIB, 64 * KIB);
    transfer_gap_plan_release(&plan);
    drop(recipe);
    drop(first);
    drop(second);
    drop(pages);
}

/* Whatever the recipes say: the rules of the header hold. */
static void test_gap_plan__any_recipes(void **state)
{
    (void)state;
    uint64_t seed = 5;
    struct rng rng = rng_seeded(&seed);
    for (unsigned run = 0; run < 3000; run++) {
        char texts[2][65] = {{0}};
        for (unsigned k = 0; k < 2; k++) {
            size_t n = (size_t)rng_below(&rng, 64);
            for (size_t i = 0; i < n; i++)
                texts[k][i] = (char)((rng_below(&rng, 2) ? 'A' : 'a') + (char)rng_below(&rng, run % 2 ? 26 : 4));
        }
        struct gap_plan plan = plan_for(texts[0], texts[1]);
        struct store_recipe *basis = recipe_of(texts[1]);
        uint32_t next = 0;
        for (size_t i = 0; i < plan.n; i++) {
            const struct gap *gap = &plan.gaps[i];
            assert_true(gap->first >= next && gap->count > 0 && gap->count <= GAP_CHUNKS_MAX);
            next = gap->first + gap->count;
            for (uint32_t c = gap->first; c < next; c++)
                assert_null(strchr(texts[1], texts[0][c]));
            assert_true(gap->bytes > 0 && gap->bytes <= LIMIT_GAP_BYTES);
            assert_true(gap->range_bytes > 0 && gap->range_bytes <= LIMIT_GAP_BASIS_BYTES);
            assert_true(gap->range_offset + gap->range_bytes <= basis->root.size_bytes);
        }
        assert_true(next <= strlen(texts[0]));
        drop(basis);
        transfer_gap_plan_release(&plan);
    }
}

/* Pages that changed among pages of zeros, of which the basis has many: no way back is gone twice. */
static void test_gap_plan__among_zeros(void **state)
{
    (void)state;
    enum { N = 100000 };
    char *text = calloc(1, N + 1);
    char *basis = calloc(1, N + 1);
    for (unsigned i = 0; i < N; i++) {
        text[i] = i % 2 ? 'n' : '0';
        basis[i] = i % 2 ? 'o' : '0';
    }
    struct store_recipe *recipe = recipe_of(text);
    const struct store_recipe *bases[] = {recipe_of(basis)};
    uint8_t *missing = have_new(N);
    for (uint32_t i = 1; i < N; i += 2)
        have_set(missing, i);
    struct clock clock = clock_system();
    uint64_t start = clock_mono_ms(&clock);
    struct gap_plan plan = {0};
    assert_int_equal(transfer_gap_plan(recipe, missing, bases, 1, &plan), 0);
    assert_true(clock_mono_ms(&clock) - start < 3000);
    assert_int_equal(plan.n, N / 2);
    drop(recipe);
    drop((struct store_recipe *)(uintptr_t)bases[0]);
    free(missing);
    transfer_gap_plan_release(&plan);
    free(text);
    free(basis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gap_plan__between_neighbours),
        cmocka_unit_test(test_gap_plan__what_has_moved),
        cmocka_unit_test(test_gap_plan__edges_count_as_neighbours),
        cmocka_unit_test(test_gap_plan__unlikely_lengths),
        cmocka_unit_test(test_gap_plan__nothing_matches),
        cmocka_unit_test(test_gap_plan__repeated_chunks),
        cmocka_unit_test(test_gap_plan__stray_matches),
        cmocka_unit_test(test_gap_plan__several_bases),
        cmocka_unit_test(test_gap_plan__any_recipes),
        cmocka_unit_test(test_gap_plan__among_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
