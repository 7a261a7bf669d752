#include "tests/test.h"

#include "transfer/gap.h"

#define MBIT (1000000u / 8)

static struct gap_costs costs_at(uint64_t goodput, double share)
{
    return (struct gap_costs){
        .gap_bytes = 8 << 20, .range_bytes = 8 << 20, .literal_share = share, .goodput = goodput, .rtt_ms = 5};
}

static bool pays(uint64_t goodput, double share)
{
    struct gap_costs costs = costs_at(goodput, share);
    return transfer_gaps_signatures_pay(&costs);
}

static void test_gap_sign__slow_links_and_small_changes(void **state)
{
    (void)state;
    assert_true(pays(10 * MBIT, 0.1));
    assert_true(pays(100 * MBIT, 0.1));
    assert_true(pays(800 * MBIT, 0.1));
    assert_false(pays(4000 * MBIT, 0.1));
    assert_true(pays(100 * MBIT, 0.5));
    assert_false(pays(1000 * MBIT, 0.5));
    assert_false(pays(1000 * MBIT, 1));
}

/* Signatures of a long range for little: the way there and back is longer than that of the bytes. */
static void test_gap_sign__far_away(void **state)
{
    (void)state;
    struct gap_costs costs = costs_at(100 * MBIT, 0.1);
    costs.gap_bytes = costs.range_bytes = 100000;
    assert_true(transfer_gaps_signatures_pay(&costs));
    costs.rtt_ms = 200;
    assert_false(transfer_gaps_signatures_pay(&costs));
}

static void test_gap_sign__unknown_links_and_money(void **state)
{
    (void)state;
    assert_true(pays(0, 0.9));
    struct gap_costs costs = costs_at(4000 * MBIT, 0.9);
    assert_false(transfer_gaps_signatures_pay(&costs));
    costs.price = 1;
    assert_true(transfer_gaps_signatures_pay(&costs));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gap_sign__slow_links_and_small_changes),
        cmocka_unit_test(test_gap_sign__far_away),
        cmocka_unit_test(test_gap_sign__unknown_links_and_money),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
