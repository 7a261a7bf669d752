/* idle and load: what the mesh costs its nodes, when nobody uses it and when many do. */
#include <stdlib.h>

#include "tools/dhtsim/report.h"
#include "tools/dhtsim/scenario.h"
#include "tools/dhtsim/work.h"
#include "tools/sim/plot.h"

#define HOUR_US (3600ull * WORLD_SECOND_US)

/* ---- idle ---- */

static void forget_counts(struct world *world)
{
    for (size_t i = 0; i < world->count; i++)
        world->nodes[i].sent = world->nodes[i].received = 0;
    for (size_t i = 0; i < WORLD_TYPES; i++)
        world->by_type[i] = 0;
}

static void report_idle(struct report *report, const struct world *world, uint64_t hours)
{
    struct sample sent = {0};
    double seconds = (double)hours * 3600;
    for (size_t i = 0; i < world->count; i++)
        sample_add(&sent, world->nodes[i].sent);
    double mean = sample_mean(&sent) / seconds;
    report_row(report);
    report_count(report, world->count);
    report_count(report, hours);
    report_number(report, mean, 4);
    report_number(report, (double)sample_permille(&sent, 500) / seconds, 4);
    report_number(report, (double)sample_permille(&sent, 990) / seconds, 4);
    report_number(report, (double)sample_permille(&sent, 1000) / seconds, 4);
    report_target(report, mean <= 0.1, "%zu nodes: %.4f packets/s a node (at most 0.1)", world->count, mean);
    for (unsigned type = 0; type < WORLD_TYPES; type++)
        if (world->by_type[type] > 0)
            report_note(report, "  %-12s %.5f packets/s a node", tap_type_name(type) ? tap_type_name(type) : "other",
                        (double)world->by_type[type] / seconds / (double)world->count);
    sample_release(&sent);
}

int scenario_idle(const struct options *options)
{
    struct report report;
    bool going = true;
    report_init(&report, "idle", options->seed, options->json, "nodes hours packets_s_mean p50 p99 max");
    for (size_t i = 0; i < options->nodes.count && going; i++) {
        struct world *world = world_new(options, options->nodes.values[i]);
        world_boot(world);
        going = world_run_for(world, options->warm_hours * HOUR_US);
        forget_counts(world);
        going = going && world_run_for(world, options->hours * HOUR_US);
        report_idle(&report, world, options->hours);
        report_run(&report, world);
        world_free(world);
    }
    report_print(&report);
    report_release(&report);
    return 0;
}

/* ---- load ---- */

struct spread {
    struct sample records, requests;
};

static void take_spread(struct world *world, struct spread *spread)
{
    for (size_t i = 0; i < world->count; i++) {
        sample_add(&spread->records, node_records(&world->nodes[i]));
        sample_add(&spread->requests, world->nodes[i].received);
    }
}

static void report_sample(struct report *report, struct sample *sample)
{
    report_number(report, sample_mean(sample), 1);
    report_count(report, sample_permille(sample, 500));
    report_count(report, sample_permille(sample, 990));
    report_count(report, sample_permille(sample, 1000));
    report_number(report, sample_gini(sample), 3);
}

static bool load_once(const struct options *options, size_t keys, struct report *report, struct plot plots[2])
{
    struct world *world = world_new(options, options->nodes.values[0]);
    struct work work;
    struct work_figures figures = {0};
    struct random_zipf zipf;
    struct spread spread = {0};
    world->resting = !options->awake;
    world_boot(world);
    work_init(&work, world, keys);
    random_zipf_init(&zipf, keys);
    bool going = work_publish_many(&work, keys, 1000 + keys / 100);
    forget_counts(world);
    going = going && work_get_many(&work, options->gets, options->gets_per_s, &zipf, &figures);
    take_spread(world, &spread);
    report_row(report);
    report_count(report, world->count);
    report_count(report, keys);
    report_sample(report, &spread.records);
    report_sample(report, &spread.requests);
    report_number(report, figures.asked > 0 ? 100 * (double)figures.right / (double)figures.asked : 0, 3);
    report_run(report, world);
    struct sample *samples[2] = {&spread.records, &spread.requests};
    for (size_t i = 0; i < 2; i++) {
        plot_add(&plots[i], 0, (double)keys, sample_mean(samples[i]));
        plot_add(&plots[i], 1, (double)keys, (double)sample_permille(samples[i], 990));
        plot_add(&plots[i], 2, (double)keys, (double)sample_permille(samples[i], 1000));
    }
    sample_release(&spread.records);
    sample_release(&spread.requests);
    random_zipf_release(&zipf);
    work_figures_release(&figures);
    work_release(&work);
    world_free(world);
    return going;
}

int scenario_load(const struct options *options)
{
    struct report report;
    struct plot plots[2] = {
        {.title = "Records held by a node", .x_label = "keys", .y_label = "records", .log_x = true, .from_zero = true},
        {.title = "Packets to a node, reads with popular keys",
         .x_label = "keys",
         .y_label = "packets",
         .log_x = true,
         .from_zero = true},
    };
    for (size_t i = 0; i < 2; i++) {
        plot_line(&plots[i], "mean");
        plot_line(&plots[i], "p99");
        plot_line(&plots[i], "most");
    }
    report_init(
        &report, "load", options->seed, options->json,
        "nodes keys records_mean rec_p50 rec_p99 rec_max rec_gini packets_mean pkt_p50 pkt_p99 pkt_max pkt_gini "
        "reads_right_%");
    bool going = true;
    for (size_t i = 0; i < options->keys.count && going; i++)
        going = load_once(options, options->keys.values[i], &report, plots);
    report_print(&report);
    plot_write(&plots[0], options->plots, "load-records");
    plot_write(&plots[1], options->plots, "load-packets");
    report_release(&report);
    return 0;
}
