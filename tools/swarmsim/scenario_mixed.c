/* Receivers and wishes that are not alike: fast and slow wires, objects of all classes, nodes that come and go. */
#include <math.h>

#include "tools/sim/random.h"
#include "tools/swarmsim/node.h"
#include "tools/swarmsim/scenario.h"
#include "tools/swarmsim/stage.h"

#define GROUP_COLUMNS "done failed p50_s p50_x p99_x last_x"

static void report_group(struct report *report, struct swarm *swarm, uint8_t group)
{
    struct figures figures;
    figures_take(swarm, group, &figures);
    report_count(report, figures.done);
    report_count(report, figures.failed);
    report_number(report, figures.median_s, 2);
    report_number(report, figures.median_x, 3);
    report_number(report, figures.p99_x, 3);
    report_number(report, figures.last_x, 3);
}

static int finish(struct report *report, struct swarm *swarm)
{
    figures_note(report, swarm);
    figures_note_run(report, swarm);
    figures_plot(swarm, swarm->options->plots, report->scenario);
    swarm_release(swarm);
    report_print(report);
    report_release(report);
    return 0;
}

/* ---- fast and slow wires ---- */

enum { FAST, SLOW };

static void set_slow(struct node *node, const struct options *options)
{
    net_init_wires(&node->wires, stage_bytes_per_s(options->slow_up_mbit), stage_bytes_per_s(options->slow_down_mbit),
                   options->delay_ms * 1000);
}

/* For each receiver the ideal is what its own wire and the seed's allow. */
static void demand_by_wire(struct swarm *swarm, uint32_t node, uint64_t size_bytes, uint8_t group)
{
    uint64_t down = swarm->nodes[node].wires.down_bytes_per_s;
    uint64_t seed_up = swarm->nodes[STAGE_SEED].wires.up_bytes_per_s;
    swarm_demand(swarm, node, 0, EXCHANGE_LAYER, SWARM_START_US,
                 size_bytes * 1000000 / (down < seed_up ? down : seed_up));
    swarm->demands[swarm->n_demands - 1].group = group;
}

int scenario_mixed(const struct options *options)
{
    struct report report;
    struct swarm swarm;
    uint64_t size_bytes = options->size_mib << 20;
    uint32_t n = (uint32_t)options->receivers.values[0];
    uint32_t n_slow = (uint32_t)(n * options->slow_percent / 100);
    report_init(&report, "mixed", options->seed, options->json, "up_mbit down_mbit " GROUP_COLUMNS);
    stage_init(&swarm, options, n, 0, 1, &size_bytes);
    for (uint32_t i = 1; i <= n_slow; i++)
        set_slow(&swarm.nodes[i], options);
    for (uint32_t i = 1; i <= n; i++)
        demand_by_wire(&swarm, i, size_bytes, i <= n_slow ? SLOW : FAST);
    swarm_run(&swarm, SWARM_START_US + options->limit * stage_ideal_us(&swarm, size_bytes, 1, n));
    for (unsigned group = FAST; group <= SLOW; group++) {
        report_row(&report);
        report_count(&report, group == SLOW ? options->slow_up_mbit : options->up_mbit);
        report_count(&report, group == SLOW ? options->slow_down_mbit : options->down_mbit);
        report_group(&report, &swarm, (uint8_t)group);
    }
    return finish(&report, &swarm);
}

/* ---- all classes at once ---- */

int scenario_classes(const struct options *options)
{
    struct report report;
    struct swarm swarm;
    uint64_t sizes_bytes[EXCHANGE_CLASSES];
    uint32_t n = (uint32_t)options->receivers.values[0];
    report_init(&report, "classes", options->seed, options->json, "class mib " GROUP_COLUMNS);
    for (unsigned i = 0; i < EXCHANGE_CLASSES; i++)
        sizes_bytes[i] = options->size_mib << 20;
    stage_init(&swarm, options, n, 0, EXCHANGE_CLASSES, sizes_bytes);
    uint64_t one_us = stage_ideal_us(&swarm, sizes_bytes[0], 1, n);
    /* the last class is wished for first, so that being first is no merit */
    for (uint32_t i = 1; i <= n; i++) {
        for (unsigned class = EXCHANGE_CLASSES; class -- > 0;)
            swarm_demand(&swarm, i, class, (uint8_t) class, SWARM_START_US, (class + 1) * one_us);
    }
    swarm_run(&swarm, SWARM_START_US + options->limit * EXCHANGE_CLASSES * one_us);
    for (unsigned class = 0; class < EXCHANGE_CLASSES; class ++) {
        report_row(&report);
        report_count(&report, class);
        report_count(&report, options->size_mib);
        report_group(&report, &swarm, (uint8_t) class);
    }
    return finish(&report, &swarm);
}

/* ---- coming and going ---- */

struct churn {
    struct swarm *swarm;
    uint64_t ideal_us;
    uint64_t deaths;
    uint32_t next; /* the next node that has not lived yet */
};

static void end_life(struct swarm *swarm, void *ctx, uint64_t node);

/* Lives are exponential: whoever is there is as likely to go as anybody. */
static void begin_life(struct churn *churn)
{
    struct swarm *swarm = churn->swarm;
    if (churn->next == swarm->n_nodes)
        return;
    uint32_t node = churn->next++;
    double drawn = ((double)random_below(&swarm->rng, 1u << 20) + 1) / (1u << 20);
    uint64_t life_us = (uint64_t)(-log(drawn) * (double)swarm->options->life_s * 1e6);
    swarm_demand(swarm, node, 0, EXCHANGE_LAYER, swarm->now_us, churn->ideal_us);
    swarm_call_at(swarm, swarm->now_us + life_us, end_life, churn, node);
}

static void end_life(struct swarm *swarm, void *ctx, uint64_t node)
{
    struct churn *churn = ctx;
    if (!swarm->nodes[node].exchange)
        return; /* the run is over */
    churn->deaths++;
    swarm_excuse(swarm, (uint32_t)node);
    node_kill(&swarm->nodes[node]);
    begin_life(churn);
}

int scenario_churn(const struct options *options)
{
    struct report report;
    struct swarm swarm;
    struct churn churn = {.swarm = &swarm, .next = 1};
    uint64_t size_bytes = options->size_mib << 20;
    uint32_t n = (uint32_t)options->receivers.values[0];
    uint64_t lives = n + 2 * n * options->minutes * 60 / options->life_s;
    report_init(&report, "churn", options->seed, options->json, "receivers life_s came went " GROUP_COLUMNS);
    stage_init(&swarm, options, (uint32_t)lives, 0, 1, &size_bytes);
    churn.ideal_us = stage_ideal_us(&swarm, size_bytes, 1, n);
    for (uint32_t i = 0; i < n; i++)
        begin_life(&churn);
    swarm.waiting++; /* the end is when the time is over */
    swarm_run(&swarm, SWARM_START_US + options->minutes * 60 * 1000000);
    for (uint32_t i = 1; i < swarm.n_nodes; i++)
        swarm_excuse(&swarm, i);
    report_row(&report);
    report_count(&report, n);
    report_count(&report, options->life_s);
    report_count(&report, churn.next - 1);
    report_count(&report, churn.deaths);
    report_group(&report, &swarm, FIGURES_ALL);
    return finish(&report, &swarm);
}
