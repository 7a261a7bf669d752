#include <math.h>

#include "tests/unit/dht/rig.h"

#define NODES 100
#define PAIRS (NODES * NODES)

/* Nodes in a plane of 200 ms by 200, with 1 to 10 ms of their own, and what they believe. */
struct plane {
    struct rng rng;
    uint64_t rng_state;
    double x[NODES], y[NODES], height[NODES];
    struct dht_placing placing[NODES];
    unsigned liars; /* the first so many */
};

static struct plane *plane_new(unsigned liars)
{
    struct plane *plane = calloc(1, sizeof *plane);
    assert_non_null(plane);
    printf("seed %d\n", RIG_SEED);
    plane->rng_state = RIG_SEED;
    plane->rng = rng_seeded(&plane->rng_state);
    plane->liars = liars;
    for (unsigned i = 0; i < NODES; i++) {
        plane->x[i] = (double)rng_below(&plane->rng, 200);
        plane->y[i] = (double)rng_below(&plane->rng, 200);
        plane->height[i] = 1 + (double)rng_below(&plane->rng, 10);
        dht_placing_init(&plane->placing[i]);
    }
    return plane;
}

static double distance(const struct plane *plane, unsigned a, unsigned b)
{
    double dx = plane->x[a] - plane->x[b], dy = plane->y[a] - plane->y[b];
    return sqrt(dx * dx + dy * dy) + plane->height[a] + plane->height[b];
}

/* Up to a tenth more than the distance, in whole milliseconds; one in fifty took three times as long. */
static double measured(struct plane *plane, unsigned a, unsigned b)
{
    double ms = distance(plane, a, b) * (1 + (double)rng_below(&plane->rng, 100) / 1000);
    return floor(rng_below(&plane->rng, 50) == 0 ? 3 * ms : ms) + 0.5;
}

/* Each honest node measures somebody; liars claim to be sure of somewhere else, and are slow to answer. */
static void measure_all(struct plane *plane, unsigned rounds)
{
    static const struct dht_place lie = {{3000, 3000, 0}, 5};
    for (unsigned i = 0; i < rounds * NODES; i++) {
        unsigned from = i % NODES, to = (unsigned)rng_below(&plane->rng, NODES);
        bool lies = to < plane->liars;
        struct dht_place place = lies ? lie : dht_placing_place(&plane->placing[to]);
        uint8_t error = lies ? 0 : dht_placing_error(&plane->placing[to]);
        if (from >= plane->liars && from != to)
            dht_placing_add(&plane->placing[from], &place, error, measured(plane, from, to) + (lies ? 1500 : 0),
                            &plane->rng);
    }
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

/* The median of the relative errors of what honest nodes expect of each other. */
static double median_error(const struct plane *plane)
{
    static double errors[PAIRS];
    size_t count = 0;
    for (unsigned a = plane->liars; a < NODES; a++)
        for (unsigned b = a + 1; b < NODES; b++) {
            struct dht_place place_a = dht_placing_place(&plane->placing[a]);
            struct dht_place place_b = dht_placing_place(&plane->placing[b]);
            double expected = dht_place_distance(&place_a, &place_b) / 10.0;
            errors[count++] = fabs(expected - distance(plane, a, b)) / distance(plane, a, b);
        }
    qsort(errors, count, sizeof *errors, by_value);
    return errors[count / 2];
}

static void test_place__nodes_find_their_places(void **state)
{
    (void)state;
    struct plane *plane = plane_new(0);
    measure_all(plane, 300);
    double error = median_error(plane);
    printf("median error %.3f\n", error);
    assert_true(error < 0.1);
    assert_true(plane->placing[50].error < 0.3);
    free(plane);
}

/* faults 19, 20: a tenth of all nodes lie about their place, their error and their distance */
static void test_place__liars_are_outvoted(void **state)
{
    (void)state;
    struct plane *plane = plane_new(NODES / 10);
    measure_all(plane, 400);
    double error = median_error(plane);
    printf("median error %.3f\n", error);
    assert_true(error < 0.12);
    free(plane);
}

/* faults 20: one who moves away a little each time, and answers a little later, takes nobody along */
static void test_place__frogs_notice(void **state)
{
    (void)state;
    struct plane *plane = plane_new(0);
    measure_all(plane, 300);
    for (int i = 0; i < 2000; i++) {
        struct dht_place lie = dht_placing_place(&plane->placing[0]);
        lie.x[0] = (int16_t)(lie.x[0] + i);
        dht_placing_add(&plane->placing[50], &lie, 0, distance(plane, 50, 0), &plane->rng);
        for (unsigned honest = 1; honest <= 4; honest++) {
            struct dht_place place = dht_placing_place(&plane->placing[honest]);
            dht_placing_add(&plane->placing[50], &place, 30, measured(plane, 50, honest), &plane->rng);
        }
    }
    struct dht_place place = dht_placing_place(&plane->placing[50]);
    double worst = 0;
    for (unsigned honest = 1; honest <= 4; honest++) {
        struct dht_place other = dht_placing_place(&plane->placing[honest]);
        double off = fabs(dht_place_distance(&place, &other) / 10.0 - distance(plane, 50, honest));
        worst = off > worst ? off : worst;
    }
    printf("worst %.1f ms\n", worst);
    assert_true(worst < 30);
    free(plane);
}

/* faults 19: what no round trip and no place can be changes nothing */
static void test_place__the_absurd_is_passed_over(void **state)
{
    (void)state;
    uint64_t rng_state = RIG_SEED;
    struct rng rng = rng_seeded(&rng_state);
    const double times[] = {0, -1, NAN, INFINITY, -INFINITY, 1e308, 10001};
    const struct dht_place good = {{100, 0, 0}, 10}, nowhere = {0}, high = {{1, 0, 0}, 65535};
    struct dht_placing placing, before;
    dht_placing_init(&placing);
    dht_placing_add(&placing, &good, 10, 50, &rng);
    before = placing;
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        dht_placing_add(&placing, &good, 0, times[i], &rng);
    dht_placing_add(&placing, &nowhere, 0, 50, &rng);
    dht_placing_add(&placing, &high, 0, 50, &rng);
    assert_memory_equal(&placing, &before, offsetof(struct dht_placing, placed));
}

/* Whatever is claimed, a place stays one that can be written, and a sample moves it by no more than the first does. */
static void test_place__stays_finite(void **state)
{
    (void)state;
    uint64_t rng_state = RIG_SEED;
    struct rng rng = rng_seeded(&rng_state);
    struct dht_placing placing;
    dht_placing_init(&placing);
    for (unsigned i = 0; i < 100000; i++) {
        struct dht_placing before = placing;
        struct dht_place claim;
        rng.fill(rng.ctx, &claim, sizeof claim);
        dht_placing_add(&placing, &claim, (uint8_t)i, (double)(1 + rng_below(&rng, 10000)), &rng);
        double moved = 0;
        for (unsigned k = 0; k < 3; k++)
            moved += fabs(placing.x[k] - before.x[k]);
        assert_true(moved < 500);
        assert_true(placing.error > 0 && placing.error <= 1);
        assert_true(placing.height > 0 && placing.height <= 5000);
    }
}

static void test_place__distances(void **state)
{
    (void)state;
    struct dht_place a = {{30, 0, 0}, 1}, b = {{0, 40, 0}, 2}, nowhere = {0};
    assert_int_equal(dht_place_distance(&a, &b), 53);
    assert_int_equal(dht_place_distance(&a, &nowhere), UINT32_MAX);
    struct dht_place far = {{INT16_MIN, INT16_MIN, INT16_MIN}, UINT16_MAX};
    struct dht_place farther = {{INT16_MAX, INT16_MAX, INT16_MAX}, UINT16_MAX};
    assert_in_range(dht_place_distance(&far, &farther), 200000, 300000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_place__nodes_find_their_places),
        cmocka_unit_test(test_place__liars_are_outvoted),
        cmocka_unit_test(test_place__frogs_notice),
        cmocka_unit_test(test_place__the_absurd_is_passed_over),
        cmocka_unit_test(test_place__stays_finite),
        cmocka_unit_test(test_place__distances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
