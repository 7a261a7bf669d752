/*
 * partition: a mesh is cut in two, both sides go on writing, and the cut is healed. The reference of every key is its
 * publisher's last word; how long until all 16 true holders have it, and nothing else?
 */
#include <stdlib.h>

#include "tools/dhtsim/report.h"
#include "tools/dhtsim/scenario.h"
#include "tools/dhtsim/work.h"
#include "tools/sim/plot.h"

#define MINUTE_US (60ull * WORLD_SECOND_US)
#define BEFORE_US (10 * MINUTE_US)
#define MEMBERS 3 /* of a key */

/* Minutes after the heal at which is looked. */
static const unsigned looks[] = {0, 1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 180};
#define LOOKS (sizeof looks / sizeof looks[0])

struct state {
    size_t whole;   /* records whose 16 closest holders all have the last word */
    size_t unheard; /* of which none of the 16 has it */
    double holders; /* of 16, with the last word: mean */
};

static bool has_last_word(const struct node *node, const struct work_record *record)
{
    uint64_t size;
    enum node_held held = node_holds(node, &record->key, &record->member, &size);
    if (record->withdrawn)
        return held == NODE_TOMBSTONE;
    return held == NODE_RECORD && size == NODE_SIZE(record->number, record->version);
}

static struct state look(const struct work *work, const struct oracle *living)
{
    struct state state = {0};
    size_t holders = 0;
    for (size_t i = 0; i < work->record_count; i++) {
        const struct work_record *record = &work->records[i];
        uint32_t closest[DHT_REPLICAS];
        size_t count = oracle_closest(living, &record->key, closest, DHT_REPLICAS);
        size_t with = 0;
        for (size_t at = 0; at < count; at++)
            with += has_last_word(&work->world->nodes[closest[at]], record);
        holders += with;
        state.whole += with == count;
        state.unheard += with == 0;
    }
    state.holders = (double)holders / (double)work->record_count;
    return state;
}

/* While cut: of the old records a third changes and a third is withdrawn; and new ones come, on both sides. Which third
 * is not by the place in the key, so that keys have all mixtures. */
static void write_while_cut(struct world *world, void *ctx, uint64_t number)
{
    struct work *work = ctx;
    struct work_record *record = &work->records[number];
    uint64_t lot = random_below(&world->work, 3);
    if (lot == 0) {
        record->version++;
        work_say(work, record);
    } else if (lot == 1) {
        record->withdrawn = true;
        node_withdraw(&world->nodes[record->publisher], &record->key);
    } else {
        work_publish(work, world_any_alive(world, &world->work, NULL));
    }
}

static bool live_cut(struct work *work, size_t old)
{
    struct world *world = work->world;
    uint64_t cut_us = world->options->split_minutes * MINUTE_US;
    world->net.split = (uint32_t)world->options->split_percent * 10000;
    for (size_t i = 0; i < old; i++)
        world_call_at(world, world->now_us + cut_us / 2 + i * (cut_us / 3) / old, write_while_cut, work, i);
    bool going = world_run_for(world, cut_us);
    world->net.split = 0;
    return going;
}

static void report_look(struct report *report, struct plot *plot, struct work *work, const struct oracle *living,
                        unsigned minutes, struct work_figures *figures)
{
    struct state state = look(work, living);
    double reads = figures->asked > 0 ? (double)figures->asked : 1;
    report_row(report);
    report_count(report, minutes);
    report_count(report, work->record_count);
    report_number(report, 100 * (double)state.whole / (double)work->record_count, 2);
    report_number(report, state.holders, 2);
    report_count(report, state.unheard);
    report_number(report, 100 * (double)figures->right / reads, 2);
    report_count(report, figures->old);
    report_count(report, figures->empty);
    report_count(report, figures->wrong);
    plot_add(plot, 0, minutes, 100 * (double)state.whole / (double)work->record_count);
    plot_add(plot, 1, minutes, 100 * (double)figures->right / reads);
    plot_add(plot, 2, minutes, 100 * state.holders / DHT_REPLICAS);
    if (minutes == looks[LOOKS - 1]) {
        report_target(report, figures->right == figures->asked,
                      "3 hours after the heal %llu of %llu reads were right, %llu gave what was replaced or withdrawn",
                      (unsigned long long)figures->right, (unsigned long long)figures->asked,
                      (unsigned long long)figures->old);
        report_note(report, "%zu of %zu records are the same at all 16 holders", state.whole, work->record_count);
    }
}

static void live_healed(struct work *work, struct report *report, struct plot *plot)
{
    struct world *world = work->world;
    struct oracle living = {0};
    uint64_t healed_us = world->now_us;
    oracle_of_living(&living, world, true);
    for (size_t i = 0; i < LOOKS; i++) {
        struct work_figures figures = {0};
        uint64_t at_us = healed_us + looks[i] * MINUTE_US;
        if ((at_us > world->now_us && !world_run_until(world, at_us)) ||
            !work_get_many(work, world->options->gets, 100, NULL, &figures)) {
            work_figures_release(&figures);
            break;
        }
        report_look(report, plot, work, &living, looks[i], &figures);
        work_figures_release(&figures);
    }
    oracle_release(&living);
}

int scenario_partition(const struct options *options)
{
    struct report report;
    struct plot plot = {.title = "After the heal", .x_label = "minutes", .y_label = "%", .from_zero = true};
    struct world *world = world_new(options, options->nodes.values[0]);
    struct work work;
    size_t records = options->keys.values[0] * MEMBERS;
    plot_line(&plot, "records whole");
    plot_line(&plot, "reads right");
    plot_line(&plot, "holders right");
    report_init(&report, "partition", options->seed, options->json,
                "minutes records whole_% right_of_16 unheard reads_right_% old empty wrong");
    world->disks = true;
    world->check = check_new(world->count);
    world_boot(world);
    work_init(&work, world, records + records / 3 + 1);
    work.whole = true;
    work.members = MEMBERS;
    bool going = work_publish_many(&work, records, 20) && world_run_for(world, BEFORE_US) && live_cut(&work, records);
    if (going)
        live_healed(&work, &report, &plot);
    uint64_t breaches = check_look(world);
    report_target(&report, breaches == 0, "%llu contacts in tables had never answered (0)",
                  (unsigned long long)breaches);
    report_run(&report, world);
    report_print(&report);
    plot_write(&plot, options->plots, "partition");
    work_release(&work);
    world_free(world);
    report_release(&report);
    return 0;
}
