/* hops, fail, liars, memory: reads in a mesh of ideal tables whose nodes rest but for what is asked of them. */
#include <math.h>
#include <stdlib.h>

#include "tools/dhtsim/liar.h"
#include "tools/dhtsim/report.h"
#include "tools/dhtsim/scenario.h"
#include "tools/dhtsim/work.h"
#include "tools/sim/memory.h"
#include "tools/sim/plot.h"

#define PUBLISHED_PER_S 1000
#define FINDS_MAX 1000
#define CLOSEST 4

/* A mesh with records in it. */
struct stage {
    struct world *world;
    struct work work;
    struct work_figures figures;
};

static bool stage_begin(struct stage *stage, const struct options *options, size_t nodes, size_t keys,
                        uint64_t liars_percent)
{
    *stage = (struct stage){.world = world_new(options, nodes)};
    stage->world->resting = !options->awake && !options->join;
    if (liars_percent > 0)
        liar_choose(stage->world, liars_percent);
    world_boot(stage->world);
    stage->world->resting = !options->awake;
    work_init(&stage->work, stage->world, keys);
    stage->work.askers = (uint32_t)(options->askers < nodes ? options->askers : nodes);
    if (options->askers >= nodes)
        stage->work.askers = 0;
    return !stage->world->stopped && work_publish_many(&stage->work, keys, PUBLISHED_PER_S);
}

static void stage_end(struct stage *stage)
{
    work_figures_release(&stage->figures);
    work_release(&stage->work);
    world_free(stage->world);
}

static bool stage_read(struct stage *stage)
{
    const struct options *options = stage->world->options;
    return work_get_many(&stage->work, options->gets, options->gets_per_s, NULL, &stage->figures);
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole > 0 ? 100 * (double)part / (double)whole : 0;
}

static double ms(uint64_t us)
{
    return (double)us / 1000;
}

/* ---- the k closest: what dht_find finds beside what is true ---- */

struct finds {
    struct node_asked asked; /* first */
    struct id target;
    uint32_t found[DHT_REPLICAS];
    size_t count;
    bool done;
};

static void on_found(struct node_asked *asked, const uint32_t *numbers, size_t count)
{
    struct finds *find = (struct finds *)asked;
    find->done = true;
    find->count = count;
    for (size_t i = 0; i < count; i++)
        find->found[i] = numbers[i];
    node_rest(asked->node);
}

/* Of the truly closest four, how many percent a find names; mean of `count` finds. */
static double find_quality(struct stage *stage, size_t count)
{
    struct world *world = stage->world;
    struct finds *finds = memory_get(count * sizeof *finds);
    struct oracle oracle = {0};
    size_t named = 0;
    for (size_t i = 0; i < count; i++) {
        struct node *node = world_any_alive(world, &world->work, NULL);
        finds[i].asked.on_found = on_found;
        finds[i].target = node_key(1u << 30 | i);
        node->busy++;
        node_find(node, &finds[i].target, &finds[i].asked);
    }
    world_run_for(world, 15 * WORLD_SECOND_US);
    oracle_of_living(&oracle, world, true);
    for (size_t i = 0; i < count; i++) {
        uint32_t closest[CLOSEST];
        size_t true_count = oracle_closest(&oracle, &finds[i].target, closest, CLOSEST);
        for (size_t a = 0; a < finds[i].count; a++)
            for (size_t b = 0; b < true_count; b++)
                named += finds[i].found[a] == closest[b];
    }
    oracle_release(&oracle);
    free(finds);
    return percent(named, count * CLOSEST);
}

/* ---- hops ---- */

static void report_hops(struct report *report, struct plot plots[2], struct stage *stage, size_t nodes)
{
    struct work_figures *figures = &stage->figures;
    double mean = sample_mean(&figures->hops);
    double bound = 0.20 * log2((double)nodes);
    unsigned long long p99 = sample_permille(&figures->hops, 990);
    report_row(report);
    report_count(report, nodes);
    report_count(report, figures->asked);
    report_number(report, percent(figures->right, figures->asked), 3);
    report_number(report, mean, 2);
    report_number(report, bound, 2);
    report_count(report, sample_permille(&figures->hops, 500));
    report_count(report, p99);
    report_number(report, ms(sample_permille(&figures->first_us, 500)), 0);
    report_number(report, ms(sample_permille(&figures->first_us, 990)), 0);
    report_number(report, sample_mean(&figures->requests), 1);
    report_number(report, ms(sample_permille(&stage->work.acknowledged_us, 500)), 0);
    report_number(report, ms(sample_permille(&stage->work.acknowledged_us, 990)), 0);
    report_number(report, find_quality(stage, nodes < FINDS_MAX ? nodes : FINDS_MAX), 2);
    report_target(report, mean <= bound && p99 <= 5, "%zu nodes: mean hops %.2f (at most %.2f), p99 %llu (at most 5)",
                  nodes, mean, bound, p99);
    report_run(report, stage->world);
    plot_add(&plots[0], 0, (double)nodes, mean);
    plot_add(&plots[0], 1, (double)nodes, (double)p99);
    plot_add(&plots[0], 2, (double)nodes, bound);
    plot_add(&plots[1], 0, (double)nodes, ms(sample_permille(&figures->first_us, 500)));
    plot_add(&plots[1], 1, (double)nodes, ms(sample_permille(&figures->first_us, 990)));
    plot_add(&plots[1], 2, (double)nodes, ms(sample_permille(&stage->work.acknowledged_us, 500)));
    plot_add(&plots[1], 3, (double)nodes, ms(sample_permille(&stage->work.acknowledged_us, 990)));
}

int scenario_hops(const struct options *options)
{
    struct report report;
    struct plot plots[2] = {
        {.title = "Hops to the first value", .x_label = "nodes", .y_label = "hops", .log_x = true, .from_zero = true},
        {.title = "Time of reads and writes", .x_label = "nodes", .y_label = "ms", .log_x = true, .from_zero = true},
    };
    plot_line(&plots[0], "mean");
    plot_line(&plots[0], "p99");
    plot_line(&plots[0], "0.20 log2 N");
    plot_line(&plots[1], "first value p50");
    plot_line(&plots[1], "first value p99");
    plot_line(&plots[1], "write p50");
    plot_line(&plots[1], "write p99");
    report_init(&report, "hops", options->seed, options->json,
                "nodes gets right_% hops_mean bound hops_p50 hops_p99 first_p50_ms first_p99_ms requests write_p50_ms "
                "write_p99_ms closest_4_%");
    bool going = true;
    for (size_t i = 0; i < options->nodes.count && going; i++) {
        struct stage stage;
        going =
            stage_begin(&stage, options, options->nodes.values[i], options->keys.values[0], 0) && stage_read(&stage);
        if (stage.figures.asked > 0)
            report_hops(&report, plots, &stage, options->nodes.values[i]);
        stage_end(&stage);
    }
    report_print(&report);
    plot_write(&plots[0], options->plots, "hops");
    plot_write(&plots[1], options->plots, "latency");
    report_release(&report);
    return 0;
}

/* ---- fail ---- */

static void report_fail(struct report *report, struct plot plots[2], struct stage *stage, uint64_t dead,
                        double *healthy_ms)
{
    struct work_figures *figures = &stage->figures;
    double success = percent(figures->right, figures->asked);
    double first_ms = ms(sample_permille(&figures->first_us, 990));
    if (dead == 0)
        *healthy_ms = first_ms;
    report_row(report);
    report_count(report, stage->world->count);
    report_count(report, dead);
    report_count(report, figures->asked);
    report_number(report, success, 4);
    report_count(report, figures->asked - figures->right);
    report_number(report, sample_mean(&figures->hops), 2);
    report_number(report, ms(sample_permille(&figures->first_us, 500)), 0);
    report_number(report, first_ms, 0);
    report_number(report, *healthy_ms > 0 ? first_ms / *healthy_ms : 0, 2);
    report_number(report, ms(sample_permille(&figures->first_us, 1000)), 0);
    report_number(report, sample_mean(&figures->requests), 1);
    if (dead <= 30)
        report_target(report, figures->right == figures->asked, "%d %% dead: %.4f %% of %llu reads right (100)",
                      (int)dead, success, (unsigned long long)figures->asked);
    else if (dead <= 50)
        report_target(report, success >= 99.99, "%d %% dead: %.4f %% of %llu reads right (99.99)", (int)dead, success,
                      (unsigned long long)figures->asked);
    if (dead == 20 && *healthy_ms > 0)
        report_target(report, first_ms <= 1.8 * *healthy_ms, "20 %% dead: first value p99 %.2f x healthy (1.8)",
                      first_ms / *healthy_ms);
    report_run(report, stage->world);
    plot_add(&plots[0], 0, (double)dead, success);
    plot_add(&plots[1], 0, (double)dead, ms(sample_permille(&figures->first_us, 500)));
    plot_add(&plots[1], 1, (double)dead, first_ms);
}

int scenario_fail(const struct options *options)
{
    struct report report;
    struct plot plots[2] = {
        {.title = "Reads that succeed after a share has died at once",
         .x_label = "dead, %",
         .y_label = "right, %",
         .from_zero = true},
        {.title = "Time to the first value", .x_label = "dead, %", .y_label = "ms", .from_zero = true},
    };
    double healthy_ms = 0;
    bool going = true;
    plot_line(&plots[0], "right");
    plot_line(&plots[1], "p50");
    plot_line(&plots[1], "p99");
    report_init(&report, "fail", options->seed, options->json,
                "nodes dead_% gets right_% missed hops_mean first_p50_ms first_p99_ms x_healthy first_max_ms requests");
    for (size_t i = 0; i < options->dead_percent.count && going; i++) {
        struct stage stage;
        uint64_t dead = options->dead_percent.values[i];
        uint64_t stream = random_stream(options->seed, RANDOM_CHURN, dead);
        going = stage_begin(&stage, options, options->nodes.values[0], options->keys.values[0], 0);
        world_kill_share(stage.world, dead, &stream);
        going = going && stage_read(&stage);
        if (stage.figures.asked > 0)
            report_fail(&report, plots, &stage, dead, &healthy_ms);
        stage_end(&stage);
    }
    report_print(&report);
    plot_write(&plots[0], options->plots, "fail-success");
    plot_write(&plots[1], options->plots, "fail-latency");
    report_release(&report);
    return 0;
}

/* ---- liars ---- */

static void report_liars(struct report *report, struct plot *plot, struct stage *stage, uint64_t liars)
{
    struct work_figures *figures = &stage->figures;
    report_row(report);
    report_count(report, stage->world->count);
    report_count(report, liars);
    report_count(report, stage->work.record_count);
    report_number(report, percent(stage->work.acknowledged, stage->work.record_count), 2);
    report_count(report, figures->asked);
    report_number(report, percent(figures->right, figures->asked), 3);
    report_count(report, figures->wrong);
    report_number(report, ms(sample_permille(&figures->whole_us, 500)), 0);
    report_number(report, ms(sample_permille(&figures->whole_us, 990)), 0);
    report_number(report, sample_mean(&figures->requests), 1);
    report_target(report, figures->wrong == 0, "%d %% liars: %llu reads gave a record that nobody had published (0)",
                  (int)liars, (unsigned long long)figures->wrong);
    report_run(report, stage->world);
    plot_add(plot, 0, (double)liars, percent(figures->right, figures->asked));
    plot_add(plot, 1, (double)liars, percent(stage->work.acknowledged, stage->work.record_count));
}

int scenario_liars(const struct options *options)
{
    struct report report;
    struct plot plot = {
        .title = "Reads and writes among liars", .x_label = "liars, %", .y_label = "%", .from_zero = true};
    bool going = true;
    plot_line(&plot, "reads right");
    plot_line(&plot, "writes acknowledged");
    report_init(&report, "liars", options->seed, options->json,
                "nodes liars_% writes acknowledged_% gets right_% wrong p50_ms p99_ms requests");
    for (size_t i = 0; i < options->liars_percent.count && going; i++) {
        struct stage stage;
        uint64_t liars = options->liars_percent.values[i];
        going = stage_begin(&stage, options, options->nodes.values[0], options->keys.values[0], liars);
        stage.work.whole = true;
        going = going && stage_read(&stage);
        if (stage.figures.asked > 0)
            report_liars(&report, &plot, &stage, liars);
        stage_end(&stage);
    }
    report_print(&report);
    plot_write(&plot, options->plots, "liars");
    report_release(&report);
    return 0;
}

/* ---- memory ---- */

int scenario_memory(const struct options *options)
{
    struct report report;
    report_init(&report, "memory", options->seed, options->json,
                "nodes contacts_a_node bytes_a_node all_mib made_in_s");
    bool going = true;
    for (size_t i = 0; i < options->nodes.count && going; i++) {
        size_t nodes = options->nodes.values[i];
        struct world *world = world_new(options, nodes);
        size_t contacts = 0;
        world->resting = true;
        world_boot(world);
        for (size_t at = 0; at < nodes; at++)
            contacts += node_contacts(&world->nodes[at]);
        double resident = (double)memory_resident();
        double bound_gib = nodes > 100000 ? 22 : 2;
        report_row(&report);
        report_count(&report, nodes);
        report_number(&report, (double)contacts / (double)nodes, 1);
        report_number(&report, resident / (double)nodes, 0);
        report_number(&report, resident / (1 << 20), 0);
        report_number(&report, (double)world_elapsed_ms(world) / 1000, 1);
        report_target(&report, resident <= bound_gib * (1 << 30), "%zu nodes: %.2f GiB (at most %.0f)", nodes,
                      resident / (1 << 30), bound_gib);
        going = !world->stopped;
        world_free(world);
    }
    report_print(&report);
    report_release(&report);
    return 0;
}
