#include "node/mesh/costs.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "node/base/limits.h"

static struct id node_id(unsigned number)
{
    return (struct id){{(uint8_t)number, (uint8_t)(number >> 8), 1}};
}

/* faults 20: who comes back is what it was. */
static void test_costs__outlive_the_link(void **state)
{
    (void)state;
    struct costs costs;
    struct id node = node_id(1), other = node_id(2);
    struct exchange_cost cost = {
        .rtt_ms = 30, .goodput_bytes_per_s = 1000, .received_bytes = 500, .failures = 4, .waiting_runs = 3};
    costs_init(&costs, 1);
    assert_false(costs_add(&costs, &node, &cost));
    costs_keep(&costs, &node, &cost);
    struct exchange_cost now = {.rtt_ms = 20, .received_bytes = 100, .failures = 1};
    assert_false(costs_add(&costs, &other, &now));
    assert_true(costs_add(&costs, &node, &now));
    assert_int_equal(now.rtt_ms, 20);
    assert_int_equal(now.goodput_bytes_per_s, 1000);
    assert_int_equal(now.received_bytes, 600);
    assert_int_equal(now.failures, 3);
    assert_int_equal(now.waiting_runs, 0);
    costs_release(&costs);
}

static void test_costs__add_up_over_links(void **state)
{
    (void)state;
    struct costs costs;
    struct id node = node_id(1);
    struct exchange_cost first = {.rtt_ms = 30, .goodput_bytes_per_s = 1000, .received_bytes = 500};
    struct exchange_cost second = {.rtt_ms = 40, .goodput_bytes_per_s = 10, .received_bytes = 50};
    struct exchange_cost sum = {0};
    costs_init(&costs, 1);
    costs_keep(&costs, &node, &first);
    costs_keep(&costs, &node, &second);
    assert_true(costs_add(&costs, &node, &sum));
    assert_int_equal(sum.goodput_bytes_per_s, 10);
    assert_int_equal(sum.received_bytes, 550);
    assert_int_equal(costs.by_node.count, 1);
    costs_release(&costs);
}

static void test_costs__of_so_many(void **state)
{
    (void)state;
    struct costs costs;
    struct exchange_cost cost = {.rtt_ms = 1};
    costs_init(&costs, 1);
    for (unsigned i = 0; i <= LIMIT_COSTS; i++) {
        struct id node = node_id(i);
        costs_keep(&costs, &node, &cost);
    }
    struct id first = node_id(0), last = node_id(LIMIT_COSTS);
    assert_int_equal(costs.by_node.count, LIMIT_COSTS);
    assert_false(costs_add(&costs, &first, &cost));
    assert_true(costs_add(&costs, &last, &cost));
    costs_release(&costs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_costs__outlive_the_link),
        cmocka_unit_test(test_costs__add_up_over_links),
        cmocka_unit_test(test_costs__of_so_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
