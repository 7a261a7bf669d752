/*
 * Operations on the nodes of a fleet, so many in flight at a time, each by a random node: started on the workers'
 * threads, timed, and judged by what they brought.
 */
#pragma once

#include <stdbool.h>

#include "tools/dhtbench/counters.h"
#include "tools/dhtbench/fleet.h"

struct load;

/* One operation. `start` fills in what it needs and calls op_done once, later; what it returns negative at once is a
 * failure. */
struct op {
    struct load *load; /* of one worker */
    struct node *node; /* who asks */
    size_t number;     /* of the operation, from 0, over all workers */
    uint64_t began_ns;
    double ms;
    bool over, good;
};

typedef int (*op_start_cb)(struct op *op);

struct load_plan {
    op_start_cb start;
    void *ctx;     /* for `start`, as op_ctx(op) */
    size_t first;  /* number of the first operation */
    size_t count;  /* operations in all */
    size_t flight; /* in flight, over all workers; 1: one worker after the other */
    uint64_t timeout_ms;
};

struct load_result {
    size_t good, failed; /* failed: wrong, or not over in time */
    double seconds;
    double *ms; /* owned, sorted: of the good ones */
    struct counters counters;
};

void load_run(struct fleet *fleet, const struct load_plan *plan, struct load_result *ret_result);
void load_result_release(struct load_result *result);

void *op_ctx(const struct op *op);
void op_done(struct op *op, bool good);
