#include "node/mesh/costs.h"

#include <stdlib.h>

#include "node/base/limits.h"

struct past_cost {
    TAILQ_ENTRY(past_cost)
    entry;
    struct id node;
    struct exchange_cost cost;
};

void costs_init(struct costs *costs, uint64_t seed)
{
    map_init(&costs->by_node, LIMIT_COSTS, seed);
    TAILQ_INIT(&costs->order);
}

static void drop(struct costs *costs, struct past_cost *past)
{
    map_remove(&costs->by_node, &past->node);
    TAILQ_REMOVE(&costs->order, past, entry);
    free(past);
}

void costs_release(struct costs *costs)
{
    while (!TAILQ_EMPTY(&costs->order))
        drop(costs, TAILQ_FIRST(&costs->order));
    map_release(&costs->by_node);
}

bool costs_add(const struct costs *costs, const struct id *node, struct exchange_cost *cost)
{
    const struct past_cost *past = map_get(&costs->by_node, node);
    if (!past)
        return false;
    if (cost->rtt_ms == 0)
        cost->rtt_ms = past->cost.rtt_ms;
    if (cost->goodput_bytes_per_s == 0)
        cost->goodput_bytes_per_s = past->cost.goodput_bytes_per_s;
    if (cost->price == 0)
        cost->price = past->cost.price;
    cost->received_bytes += past->cost.received_bytes;
    cost->sent_bytes += past->cost.sent_bytes;
    cost->failures += past->cost.failures;
    return true;
}

void costs_keep(struct costs *costs, const struct id *node, const struct exchange_cost *measured)
{
    struct exchange_cost all = *measured;
    costs_add(costs, node, &all);
    all.failures /= 2;
    all.waiting_runs = 0;
    all.load = 0;
    struct past_cost *old = map_get(&costs->by_node, node);
    if (!old && costs->by_node.count >= LIMIT_COSTS)
        old = TAILQ_FIRST(&costs->order);
    if (old)
        drop(costs, old);
    struct past_cost *past = malloc(sizeof *past);
    if (!past || map_set(&costs->by_node, node, past) < 0) {
        free(past);
        return;
    }
    past->node = *node;
    past->cost = all;
    TAILQ_INSERT_TAIL(&costs->order, past, entry);
}
