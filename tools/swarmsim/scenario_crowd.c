#include "tools/sim/plot.h"
#include "tools/swarmsim/figures.h"
#include "tools/swarmsim/node.h"
#include "tools/swarmsim/scenario.h"
#include "tools/swarmsim/swarm.h"

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What one receiver would need with the wire to itself. */
static uint64_t ideal_us(const struct options *options, uint64_t size_bytes)
{
    return size_bytes * 8 / min(options->down_mbit, options->up_mbit);
}

static void run_crowd(struct swarm *swarm, const struct options *options, uint32_t n_receivers)
{
    uint64_t size_bytes = options->size_mib << 20;
    swarm_init(swarm, options, n_receivers + 1, 1, &size_bytes);
    if (options->seed_up_mbit > 0)
        swarm->nodes[0].wires.up_bytes_per_s = options->seed_up_mbit * 1000000 / 8;
    swarm_give(swarm, 0, 0);
    for (uint32_t i = 1; i <= n_receivers; i++)
        swarm_demand(swarm, i, 0, EXCHANGE_LAYER, SWARM_START_US);
    swarm_run(swarm, SWARM_START_US + options->limit * ideal_us(options, size_bytes));
}

int scenario_crowd(const struct options *options)
{
    struct report report;
    uint64_t size_bytes = options->size_mib << 20;
    bool stopped = false;
    report_init(&report, "crowd", options->seed, options->json, "receivers mib " FIGURES_COLUMNS);
    for (size_t i = 0; i < options->receivers.count && !stopped; i++) {
        struct swarm swarm;
        struct figures figures;
        run_crowd(&swarm, options, (uint32_t)options->receivers.values[i]);
        figures_take(&swarm, ideal_us(options, size_bytes), &figures);
        report_row(&report);
        report_count(&report, options->receivers.values[i]);
        report_count(&report, options->size_mib);
        figures_report(&figures, &swarm, &report);
        figures_note_run(&report, &swarm);
        stopped = swarm.stopped;
        swarm_release(&swarm);
    }
    report_print(&report);
    report_release(&report);
    return 0;
}
