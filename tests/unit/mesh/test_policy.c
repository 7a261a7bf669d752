#include "node/mesh/policy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MIB 1048576.0

/* Nothing is known of it but its number. */
static struct policy_candidate somebody(uint8_t number)
{
    return (struct policy_candidate){.node = {{number}}, .rtt_s = -1, .distance_s = -1, .index = number};
}

static struct policy parsed(const char *text)
{
    struct policy policy;
    struct err err = {0};
    if (policy_parse(text, &policy, &err) < 0)
        fail_msg("'%s': %s", text, err.text);
    return policy;
}

/* The candidates stand in this order of numbers. */
static void assert_order(const char *text, struct policy_candidate *candidates, size_t count, const char *numbers)
{
    struct policy policy = parsed(text);
    policy_rank(&policy, candidates, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(candidates[i].index, numbers[i] - '0');
        assert_true(candidates[i].value >= 0 && candidates[i].value <= 1 + 1e-9);
        assert_true(candidates[i].cost_s > 0 && isfinite(candidates[i].cost_s));
        assert_true(i == 0 || candidates[i].value <= candidates[i - 1].value);
    }
}

static void test_policy__text(void **state)
{
    (void)state;
    char text[POLICY_TEXT_SIZE];
    struct policy policy = parsed("0.6*cost+0.3*score+0.1*version");
    assert_true(fabs(policy.weight[POLICY_COST] - 0.6) < 1e-9);
    assert_string_equal(policy_text(&policy, text), "0.3*score+0.1*version+0.6*cost");
    policy = parsed("3*cost+nearest");
    assert_string_equal(policy_text(&policy, text), "0.75*cost+0.25*nearest");
    policy = parsed("nearest");
    assert_string_equal(policy_text(&policy, text), "nearest");
    policy = policy_default();
    assert_string_equal(policy_text(&policy, text), "cost");
    policy = parsed("0.333333*score+0.333333*version+0.333333*cost+1000*nearest");
    policy = parsed(policy_text(&policy, text));
}

static void test_policy__no_text(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",          "+",        "cost+",     "+cost",      "cheap",
        "cost cost", "0*cost",   "-1*cost",   "*cost",      "nan*cost",
        "inf*cost",  "1e3*cost", "0x1*cost",  "1.2.3*cost", "1001*cost",
        "cost+cost", "1*",       "1*1*score", "COST",       "0.5*cost+0.5*aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct policy policy;
        struct err err = {0};
        if (policy_parse(bad[i], &policy, &err) != ERR_INVALID)
            fail_msg("'%s' is taken for a policy", bad[i]);
        assert_true(*err.text);
    }
}

static void test_policy__each_by_itself(void **state)
{
    (void)state;
    struct policy_candidate all[3] = {somebody(1), somebody(2), somebody(3)};
    all[0].score = 5;
    all[1].score = 9;
    all[2].score = -3;
    assert_order("score", all, 3, "213");
    for (size_t i = 0; i < 3; i++) {
        static const struct dht_version versions[] = {{0}, {2, 1}, {1, 9}, {2, 2}};
        all[i].score = 0;
        all[i].version = versions[all[i].index];
    }
    assert_order("version", all, 3, "312");
    for (size_t i = 0; i < 3; i++)
        all[i].distance_s = 0.01 * (double)all[i].index;
    assert_order("nearest", all, 3, "123");
    assert_order("cost", all, 3, "123");
    all[2].rtt_s = 0.001; /* measured, so where it should be does not matter */
    all[2].goodput_bytes_per_s = MIB / 4;
    assert_order("nearest", all, 3, "312");
    assert_order("cost", all, 3, "123");
}

static void test_policy__the_values_of_a_mixture(void **state)
{
    (void)state;
    struct policy_candidate all[3] = {somebody(1), somebody(2), somebody(3)};
    for (size_t i = 0; i < 3; i++) {
        all[i].rtt_s = 0.5 * (double)(i + 1);
        all[i].goodput_bytes_per_s = 2 * MIB / (double)(i + 1); /* costs 1, 2, 3 */
        all[i].received_bytes = POLICY_PROVED_BYTES;
        all[i].score = (double)(10 * i);
        all[i].version.counter = i / 2; /* 0, 0, 1 */
    }
    assert_order("0.6*cost+0.3*score+0.1*version", all, 3, "132");
    assert_true(fabs(all[0].cost_s - 1) < 1e-9);
    assert_true(fabs(all[0].value - 0.6) < 1e-9);
    assert_true(fabs(all[1].value - (0.6 / 3 + 0.3 + 0.1)) < 1e-9);
    assert_true(fabs(all[2].value - (0.6 / 2 + 0.3 / 2)) < 1e-9);
}

static void test_policy__equals_by_cost_then_id(void **state)
{
    (void)state;
    struct policy_candidate all[3] = {somebody(3), somebody(2), somebody(1)};
    assert_order("score", all, 3, "123");
    all[0].rtt_s = 3;
    assert_order("score", all, 3, "231");
    assert_order("score", all, 1, "2");
    policy_rank(&(struct policy){.weight = {1}}, all, 0);
}

/* faults 19 */
static void test_policy__claims_that_cannot_be(void **state)
{
    (void)state;
    assert_true(policy_claim_s(NAN) < 0);
    assert_true(policy_claim_s(INFINITY) < 0);
    assert_true(policy_claim_s(-INFINITY) < 0);
    assert_true(policy_claim_s(0) < 0);
    assert_true(policy_claim_s(-0.0) < 0);
    assert_true(policy_claim_s(5) < 0); /* a cost below zero */
    assert_true(policy_claim_s(-1e308) == 3600);
    assert_true(policy_claim_s(-1e-308) == 0.001);
    struct policy_candidate all[6] = {somebody(1), somebody(2), somebody(3), somebody(4), somebody(5), somebody(6)};
    all[0].score = -0.2;
    all[1].score = INFINITY;
    all[2].score = -INFINITY;
    all[3].score = -1e308;
    all[4].score = 1e308;
    all[5].score = NAN;
    assert_order("cost", all, 6, "123564"); /* those that claim nothing cost as much as strangers */
    assert_order("cost+score", all, 6, "125364");
}

/* faults 20: a node claims to be cheap and is slow. */
static void test_policy__measurements_override_claims(void **state)
{
    (void)state;
    struct policy_candidate all[2] = {somebody(1), somebody(2)};
    all[0].rtt_s = all[1].rtt_s = 0.01;
    all[0].score = -0.001;
    all[1].score = -0.5;
    assert_order("cost", all, 2, "12"); /* nothing is measured: the claim counts */
    all[0].goodput_bytes_per_s = MIB / 8;
    all[0].received_bytes = 65536; /* slower than it claims: counts from the first run */
    assert_order("cost", all, 2, "21");
    all[0].goodput_bytes_per_s = 100 * MIB; /* faster than it claims: only when it has been proved */
    all[0].received_bytes = 65536;
    assert_true(all[0].index == 2);
    all[0].score = -2;
    all[1].goodput_bytes_per_s = 1.25 * MIB;
    all[1].received_bytes = 10 * POLICY_PROVED_BYTES;
    assert_order("cost", all, 2, "12");
    all[1].received_bytes = POLICY_PROVED_BYTES;
    assert_order("cost", all, 2, "21");
}

/* What a node says of its load delays it only as long as nothing proves otherwise. */
static void test_policy__load_is_a_claim(void **state)
{
    (void)state;
    struct policy_candidate all[3] = {somebody(1), somebody(2), somebody(3)};
    all[0].load = 1;
    all[1].load = 0.2;
    assert_order("cost", all, 3, "321");
    struct policy_candidate proved[2] = {somebody(1), somebody(2)};
    for (size_t i = 0; i < 2; i++) {
        proved[i].rtt_s = 0.01;
        proved[i].goodput_bytes_per_s = i == 0 ? 2 * MIB : MIB;
        proved[i].received_bytes = POLICY_PROVED_BYTES;
    }
    proved[0].load = 1;
    assert_order("cost", proved, 2, "12");
}

static void test_policy__money(void **state)
{
    (void)state;
    struct policy_candidate all[3] = {somebody(1), somebody(2), somebody(3)};
    all[0].price = 4000;
    all[1].price = 1000;
    all[2].price = 2000;
    assert_order("money", all, 3, "231");
    assert_true(fabs(all[1].value - 0.5) < 1e-9);
    for (size_t i = 0; i < 3; i++) {
        if (all[i].index == 1)
            all[i].price = 0;
    }
    assert_order("money", all, 3, "123");
    assert_true(all[0].value == 1 && all[1].value == 0);
    all[0].price = all[1].price = all[2].price = 7;
    assert_order("money", all, 3, "123");
    assert_true(all[2].value == 1);
}

static void test_policy__failures_cost(void **state)
{
    (void)state;
    struct policy_candidate all[2] = {somebody(1), somebody(2)};
    all[0].rtt_s = 0.001;
    all[1].rtt_s = 0.1;
    assert_order("cost", all, 2, "12");
    all[0].failures = 1;
    assert_order("cost", all, 2, "21");
}

/* The DHT is read in the order that suits the heaviest term. */
static void test_policy__order_of_reading(void **state)
{
    (void)state;
    struct policy policy = parsed("0.4*score+0.6*nearest");
    assert_int_equal(policy_order(&policy), DHT_BY_DISTANCE);
    policy = parsed("0.6*score+0.4*cost");
    assert_int_equal(policy_order(&policy), DHT_BY_SCORE);
    policy = parsed("version");
    assert_int_equal(policy_order(&policy), DHT_BY_VERSION);
    policy = policy_default();
    assert_int_equal(policy_order(&policy), DHT_BY_DISTANCE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policy__text),
        cmocka_unit_test(test_policy__no_text),
        cmocka_unit_test(test_policy__each_by_itself),
        cmocka_unit_test(test_policy__the_values_of_a_mixture),
        cmocka_unit_test(test_policy__equals_by_cost_then_id),
        cmocka_unit_test(test_policy__claims_that_cannot_be),
        cmocka_unit_test(test_policy__measurements_override_claims),
        cmocka_unit_test(test_policy__load_is_a_claim),
        cmocka_unit_test(test_policy__money),
        cmocka_unit_test(test_policy__failures_cost),
        cmocka_unit_test(test_policy__order_of_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
