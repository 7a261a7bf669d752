/*
 * churn: nodes come and go for days, and every acknowledged record is looked for each hour on the disks of the living.
 *
 * A record is due while its publisher lives, and, since signatures are renewed after one day of three, for two days
 * more; never for less than its three days.
 */
#include <stdlib.h>

#include "tools/dhtsim/report.h"
#include "tools/dhtsim/scenario.h"
#include "tools/dhtsim/work.h"
#include "tools/sim/plot.h"

#define MINUTE_US (60ull * WORLD_SECOND_US)
#define HOUR_US (60 * MINUTE_US)
#define SLACK_US (2 * HOUR_US)
#define SIGNED_US ((uint64_t)DHT_RECORD_TTL_MS * 1000 - SLACK_US)
#define SIGNED_AT_DEATH_US ((uint64_t)DHT_RECORD_TTL_MS * 1000 * 2 / 3 - SLACK_US)
#define SESSION_SIGMA 1.647 /* half end within the median, 80 % within four times of it: ln 4 / 0.8416 */
#define FOUND_LONGER 15     /* e^(sigma^2): the median session of those found alive, in median sessions */
#define PAUSE_SIGMA 1.0
#define NEAR 64 /* of the closest living are looked at for holders, before all are */

struct churn {
    struct world *world;
    struct work work;
    struct work_figures figures;
    struct random_lognormal session, pause;
    uint64_t stream;
    size_t stable; /* the first so many never die */
    uint64_t deaths, missing_ever, breaches;
    struct oracle living;
};

/* What one look at all records says. */
struct look {
    size_t due, missing, least;
    double replicas, in_place; /* mean holders among the living; of the 16 closest */
};

/* ---- coming and going ---- */

static void die(struct world *world, void *ctx, uint64_t number);

static void come(struct world *world, void *ctx, uint64_t number)
{
    struct churn *churn = ctx;
    struct node *node = &world->nodes[number];
    uint64_t rejoin = world->options->rejoin_percent * 10000;
    bool anew = !random_chance(&churn->stream, (uint32_t)rejoin);
    world_revive(world, node, anew);
    for (int i = 0; i < 2; i++) {
        struct node *seed = world_any_alive(world, &churn->stream, node);
        if (seed)
            node_join_through(node, seed);
    }
    for (size_t i = 0; i < churn->work.record_count && !anew; i++) {
        struct work_record *record = &churn->work.records[i];
        if (record->publisher != number || record->generation != node->generation)
            continue;
        record->last_us = UINT64_MAX;
        work_say(&churn->work, record);
    }
    uint64_t session_us = world->options->session_minutes * MINUTE_US;
    world_call_at(world, world->now_us + random_lognormal_draw(&churn->session, session_us, &churn->stream), die, churn,
                  number);
}

static void die(struct world *world, void *ctx, uint64_t number)
{
    struct churn *churn = ctx;
    struct node *node = &world->nodes[number];
    world_kill(world, node);
    churn->deaths++;
    for (size_t i = 0; i < churn->work.record_count; i++) {
        struct work_record *record = &churn->work.records[i];
        if (record->publisher != number || record->generation != node->generation)
            continue;
        uint64_t first_us = record->acknowledged_us + SIGNED_US;
        uint64_t renewed_us = world->now_us + SIGNED_AT_DEATH_US;
        record->last_us = first_us > renewed_us ? first_us : renewed_us;
    }
    uint64_t pause_us = world->options->pause_minutes * MINUTE_US;
    world_call_at(world, world->now_us + random_lognormal_draw(&churn->pause, pause_us, &churn->stream), come, churn,
                  number);
}

/* Who lives at a moment has by chance a long session: lengths weighted by themselves, for a lognormal the same law with
 * a greater median; and we see it at a random point of it. */
static void begin_sessions(struct churn *churn)
{
    struct world *world = churn->world;
    uint64_t median_us = world->options->session_minutes * MINUTE_US * FOUND_LONGER;
    for (size_t i = churn->stable; i < world->count; i++) {
        uint64_t length_us = random_lognormal_draw(&churn->session, median_us, &churn->stream);
        uint64_t left_us = length_us / 1024 * random_below(&churn->stream, 1024);
        world_call_at(world, world->now_us + left_us, die, churn, i);
    }
}

/* ---- looking ---- */

static bool is_due(const struct churn *churn, const struct work_record *record)
{
    return record->accepted > 0 && !record->withdrawn && churn->world->now_us < record->last_us;
}

static bool has(const struct node *node, const struct work_record *record)
{
    uint64_t size;
    return node->dht && node_holds(node, &record->key, &record->member, &size) == NODE_RECORD;
}

static bool anybody_has(const struct world *world, const struct work_record *record)
{
    for (size_t i = 0; i < world->count; i++)
        if (has(&world->nodes[i], record))
            return true;
    return false;
}

static struct look look(struct churn *churn)
{
    struct look look = {.least = SIZE_MAX};
    size_t replicas = 0;
    size_t in_place = 0;
    oracle_of_living(&churn->living, churn->world, true);
    for (size_t i = 0; i < churn->work.record_count; i++) {
        struct work_record *record = &churn->work.records[i];
        if (!is_due(churn, record))
            continue;
        uint32_t near[NEAR];
        size_t count = oracle_closest(&churn->living, &record->key, near, NEAR);
        size_t holders = 0;
        for (size_t at = 0; at < count; at++) {
            bool holds = has(&churn->world->nodes[near[at]], record);
            holders += holds;
            in_place += holds && at < DHT_REPLICAS;
        }
        bool missing = holders == 0 && !anybody_has(churn->world, record);
        churn->missing_ever += missing && !record->missing;
        record->missing = missing;
        look.missing += missing;
        look.least = holders < look.least ? holders : look.least;
        replicas += holders;
        look.due++;
    }
    look.replicas = look.due > 0 ? (double)replicas / (double)look.due : 0;
    look.in_place = look.due > 0 ? (double)in_place / (double)look.due : 0;
    return look;
}

static void read_some(struct churn *churn, uint64_t count)
{
    struct world *world = churn->world;
    for (uint64_t i = 0; i < count; i++) {
        struct work_record *record = &churn->work.records[random_below(&churn->stream, churn->work.record_count)];
        struct node *node = world_any_alive(world, &churn->stream, NULL);
        if (node && (record->withdrawn || is_due(churn, record)))
            work_get(&churn->work, node, record);
    }
}

/* Over all hours a tenth of the records, of publishers that never die: reads find nothing from the next look on. */
static void withdraw_some(struct churn *churn, uint64_t hours)
{
    struct work *work = &churn->work;
    size_t first = random_below(&churn->stream, work->record_count);
    size_t wanted = work->record_max / 10 / hours + 1;
    for (size_t i = 0; i < work->record_count && wanted > 0; i++) {
        struct work_record *record = &work->records[(first + i) % work->record_count];
        if (!is_due(churn, record) || record->publisher >= churn->stable)
            continue;
        record->withdrawn = true;
        node_withdraw(&churn->world->nodes[record->publisher], &record->key);
        wanted--;
    }
}

/* ---- hours and days ---- */

struct day {
    uint64_t sent, right, ended;
};

static void publish_one(struct world *world, void *ctx, uint64_t argument)
{
    struct churn *churn = ctx;
    (void)argument;
    struct node *node = churn->stable > 0 ? &world->nodes[random_below(&churn->stream, churn->stable)]
                                          : world_any_alive(world, &churn->stream, NULL);
    if (node)
        work_publish(&churn->work, node);
}

/* A third of the records come from anybody, the others from those that stay. */
static void publish_any(struct world *world, void *ctx, uint64_t argument)
{
    struct churn *churn = ctx;
    if (argument % 3 != 0) {
        publish_one(world, ctx, argument);
        return;
    }
    struct node *node = world_any_alive(world, &churn->stream, NULL);
    if (node)
        work_publish(&churn->work, node);
}

static void plan_publishing(struct churn *churn, uint64_t end_us)
{
    struct world *world = churn->world;
    size_t count = churn->work.record_max;
    size_t early = count / 2;
    for (size_t i = 0; i < early; i++)
        world_call_at(world, world->now_us + i * 5 * MINUTE_US / (early + 1), publish_any, churn, i);
    for (size_t i = early; i < count; i++)
        world_call_at(world, world->now_us + (i - early) * ((end_us - world->now_us) / (count - early)), publish_any,
                      churn, i);
}

static uint64_t ended(const struct work_figures *figures)
{
    return figures->requests.count;
}

static void report_day(struct report *report, const struct churn *churn, uint64_t day, const struct look *look,
                       const struct day *before)
{
    const struct world *world = churn->world;
    const struct work_figures *figures = &churn->figures;
    uint64_t reads = ended(figures) - before->ended;
    report_row(report);
    report_count(report, day);
    report_count(report, world->alive);
    report_count(report, churn->deaths);
    report_count(report, look->due);
    report_count(report, look->missing);
    report_number(report, look->replicas, 2);
    report_number(report, look->in_place, 2);
    report_count(report, look->due > 0 ? look->least : 0);
    report_number(report, (double)(world->sent - before->sent) / (86400.0 * (double)world->count), 3);
    report_number(report, reads > 0 ? 100 * (double)(figures->right - before->right) / (double)reads : 0, 3);
}

static void live(struct churn *churn, struct report *report, struct plot *plot)
{
    struct world *world = churn->world;
    uint64_t hours = world->options->days * 24;
    struct day before = {.sent = world->sent};
    for (uint64_t hour = 1; hour <= hours; hour++) {
        if (!world_run_for(world, HOUR_US / 2))
            return;
        withdraw_some(churn, hours);
        if (!world_run_for(world, HOUR_US / 2))
            return;
        struct look now = look(churn);
        churn->breaches += check_look(world);
        plot_add(plot, 0, (double)hour / 24, now.replicas);
        plot_add(plot, 1, (double)hour / 24, now.in_place);
        plot_add(plot, 2, (double)hour / 24, now.due > 0 ? (double)now.least : 0);
        if (hour % 24 == 0) {
            report_day(report, churn, hour / 24, &now, &before);
            before = (struct day){.sent = world->sent, .right = churn->figures.right, .ended = ended(&churn->figures)};
        }
        read_some(churn, world->options->gets);
    }
    world_run_for(world, MINUTE_US);
}

static void churn_begin(struct churn *churn, const struct options *options)
{
    size_t nodes = options->nodes.values[0];
    *churn = (struct churn){
        .world = world_new(options, nodes),
        .stream = random_stream(options->seed, RANDOM_CHURN, 0),
        .stable = nodes * options->stable_percent / 100,
    };
    random_lognormal_init(&churn->session, SESSION_SIGMA);
    random_lognormal_init(&churn->pause, PAUSE_SIGMA);
    churn->world->disks = true;
    churn->world->check = check_new(nodes);
    work_init(&churn->work, churn->world, options->keys.values[0]);
    churn->work.figures = &churn->figures;
    churn->work.whole = true;
    world_boot(churn->world);
    plan_publishing(churn, churn->world->now_us + options->days * 24 * HOUR_US);
    begin_sessions(churn);
}

int scenario_churn(const struct options *options)
{
    struct churn churn;
    struct report report;
    struct plot plot = {
        .title = "Living holders of a record", .x_label = "days", .y_label = "holders", .from_zero = true};
    plot_line(&plot, "mean");
    plot_line(&plot, "of the 16 closest");
    plot_line(&plot, "least");
    report_init(&report, "churn", options->seed, options->json,
                "day living deaths due missing replicas of_16_closest least packets_s_node reads_right_%");
    churn_begin(&churn, options);
    live(&churn, &report, &plot);
    report_note(&report, "%zu records published, %zu acknowledged; %llu deaths; %llu of %llu reads right, %llu empty",
                churn.work.record_count, churn.work.acknowledged, (unsigned long long)churn.deaths,
                (unsigned long long)churn.figures.right, (unsigned long long)ended(&churn.figures),
                (unsigned long long)churn.figures.empty);
    report_target(&report, churn.missing_ever == 0,
                  "%llu acknowledged records were at some hour with no living node (0)",
                  (unsigned long long)churn.missing_ever);
    report_target(&report, churn.figures.old == 0, "%llu reads gave a record that was withdrawn (0)",
                  (unsigned long long)churn.figures.old);
    report_target(&report, churn.breaches == 0, "%llu contacts in tables had never answered (0)",
                  (unsigned long long)churn.breaches);
    report_run(&report, churn.world);
    report_print(&report);
    plot_write(&plot, options->plots, "churn");
    oracle_release(&churn.living);
    work_figures_release(&churn.figures);
    work_release(&churn.work);
    world_free(churn.world);
    report_release(&report);
    return 0;
}
