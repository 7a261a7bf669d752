/* Everybody wants the same thing from one seed: at once, with trouble, or one after the other. */
#include <stdio.h>

#include "tools/sim/random.h"
#include "tools/swarmsim/node.h"
#include "tools/swarmsim/scenario.h"
#include "tools/swarmsim/stage.h"

static void report_crowd(struct report *report, struct swarm *swarm, uint64_t n_receivers)
{
    const struct options *options = swarm->options;
    struct figures figures;
    char name[64];
    figures_take(swarm, FIGURES_ALL, &figures);
    report_row(report);
    report_count(report, n_receivers);
    report_count(report, options->size_mib);
    figures_report(&figures, swarm, report);
    figures_note_run(report, swarm);
    snprintf(name, sizeof name, "%s-%llu", report->scenario, (unsigned long long)n_receivers);
    figures_plot(swarm, options->plots, name);
}

static void demand_all_at_once(struct swarm *swarm, uint32_t n_receivers, uint64_t ideal_us)
{
    for (uint32_t i = 1; i <= n_receivers; i++)
        swarm_demand(swarm, i, 0, EXCHANGE_LAYER, SWARM_START_US, ideal_us);
}

static int run_crowds(const struct options *options, const char *name)
{
    struct report report;
    uint64_t size_bytes = options->size_mib << 20;
    bool stopped = false;
    report_init(&report, name, options->seed, options->json, "receivers mib " FIGURES_COLUMNS);
    for (size_t i = 0; i < options->receivers.count && !stopped; i++) {
        struct swarm swarm;
        uint32_t n = (uint32_t)options->receivers.values[i];
        stage_init(&swarm, options, n, (uint32_t)options->liars, 1, &size_bytes);
        uint64_t ideal_us = stage_ideal_us(&swarm, size_bytes, 1, n);
        demand_all_at_once(&swarm, n, ideal_us);
        stage_trouble(&swarm, n, ideal_us);
        swarm_run(&swarm, SWARM_START_US + options->limit * ideal_us);
        report_crowd(&report, &swarm, n);
        stopped = swarm.stopped;
        swarm_release(&swarm);
    }
    report_print(&report);
    report_release(&report);
    return 0;
}

int scenario_crowd(const struct options *options)
{
    return run_crowds(options, "crowd");
}

int scenario_faults(const struct options *options)
{
    return run_crowds(options, "faults");
}

/* ---- one after the other ---- */

static void leave_when_done(struct swarm *swarm, void *ctx, uint64_t demand_number)
{
    const struct demand *demand = &swarm->demands[demand_number];
    struct node *node = ctx;
    uint64_t stay_us = swarm->options->stay_s * 1000000;
    if (!node->exchange)
        return;
    if (demand->end_us > 0 && swarm->now_us >= demand->end_us + stay_us) {
        node_kill(node);
        return;
    }
    uint64_t next_us = demand->end_us > 0 ? demand->end_us + stay_us : swarm->now_us + 1000000;
    swarm_call_at(swarm, next_us, leave_when_done, ctx, demand_number);
}

static void demand_over_time(struct swarm *swarm, uint32_t n_receivers, uint64_t ideal_us)
{
    const struct options *options = swarm->options;
    for (uint32_t i = 1; i <= n_receivers; i++) {
        uint64_t after_us = options->over_s * 1000 * random_below(&swarm->rng, 1001);
        swarm_demand(swarm, i, 0, EXCHANGE_LAYER, SWARM_START_US + after_us, ideal_us);
        if (options->stay_s > 0)
            swarm_call_at(swarm, SWARM_START_US + after_us + 1000000, leave_when_done, &swarm->nodes[i],
                          swarm->n_demands - 1);
    }
}

int scenario_arrivals(const struct options *options)
{
    struct report report;
    uint64_t size_bytes = options->size_mib << 20;
    bool stopped = false;
    report_init(&report, "arrivals", options->seed, options->json, "receivers mib " FIGURES_COLUMNS);
    for (size_t i = 0; i < options->receivers.count && !stopped; i++) {
        struct swarm swarm;
        uint32_t n = (uint32_t)options->receivers.values[i];
        stage_init(&swarm, options, n, 0, 1, &size_bytes);
        uint64_t ideal_us = stage_ideal_us(&swarm, size_bytes, 1, n);
        demand_over_time(&swarm, n, ideal_us);
        swarm_run(&swarm, SWARM_START_US + options->over_s * 1000000 + options->limit * ideal_us);
        report_crowd(&report, &swarm, n);
        stopped = swarm.stopped;
        swarm_release(&swarm);
    }
    report_print(&report);
    report_release(&report);
    return 0;
}
