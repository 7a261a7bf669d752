/*
 * What was measured of nodes, kept when their links have gone: a node that was slow does not become new by connecting
 * again (faults 20). Of the LIMIT_COSTS nodes that were linked last.
 */
#pragma once

#include <sys/queue.h>

#include "node/base/map.h"
#include "transfer/transfer.h"

struct past_cost;
TAILQ_HEAD(past_costs, past_cost);

struct costs {
    struct map by_node;      /* to struct past_cost */
    struct past_costs order; /* owned; the one that was kept first comes first */
};

void costs_init(struct costs *costs, uint64_t seed);
void costs_release(struct costs *costs);
/* The link to the node is gone; this was measured on it. Failures fade: half of them are kept. */
void costs_keep(struct costs *costs, const struct id *node, const struct exchange_cost *measured);
/* Add what was measured on earlier links; true if anything was. Of rates the latest counts. */
bool costs_add(const struct costs *costs, const struct id *node, struct exchange_cost *cost);
