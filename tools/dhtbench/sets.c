/* The phases about one large set, and about being told of changes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/dhtbench/bench.h"

#define FLIGHT 32
#define BLOCK 1000
#define FILL_TIMEOUT_MS 60000
#define TOP 16
#define TOP_READS 200
#define WHOLE_READS 9
#define WHOLE_TIMEOUT_MS 10000
#define WATCHES 100
#define PUSH_MS 3000 /* what has not been told by then is lost */

/* ---- one set ---- */

struct set {
    struct id key;
    size_t members;
};

/* Scores are the members' numbers in another order, so that the best are not the last that were written. */
static size_t score_of(const struct set *set, size_t member)
{
    return member * 7919 % set->members;
}

static int name_of(size_t member, char ret_name[32])
{
    return snprintf(ret_name, 32, "member-%06zu", member);
}

static void on_written(void *ctx, const struct id *key, size_t accepted)
{
    (void)key;
    op_done(ctx, accepted > 0);
}

static int start_write(struct op *op)
{
    const struct set *set = op_ctx(op);
    struct dht *dht = overlay_dht(op->node->overlay);
    char name[32];
    struct dht_member member = {.name = name,
                                .name_len = (size_t)name_of(op->number, name),
                                .score = (double)score_of(set, op->number),
                                .version = dht_stamp(dht, fleet_now_ms(op->node)),
                                .done = on_written,
                                .done_ctx = op};
    return dht_write(dht, fleet_now_ms(op->node), &set->key, DHT_SET, &member, NULL);
}

static bool is_member(const struct set *set, const struct dht_record *record, size_t *ret_member)
{
    char name[32], text[32];
    size_t member;
    if (record->data_len >= sizeof text)
        return false;
    memcpy(text, record->data, record->data_len);
    text[record->data_len] = '\0';
    if (sscanf(text, "member-%zu", &member) != 1 || member >= set->members)
        return false;
    name_of(member, name);
    *ret_member = member;
    return strcmp(name, text) == 0 && record->score == (double)score_of(set, member) && !record->tombstone;
}

static void on_top(void *ctx, const struct dht_found *found, size_t count)
{
    struct op *op = ctx;
    const struct set *set = op_ctx(op);
    size_t member;
    bool good = count == TOP;
    for (size_t i = 0; i < count; i++)
        good = good && is_member(set, &found[i].record, &member) &&
               found[i].record.score == (double)(set->members - 1 - i);
    op_done(op, good);
    overlay_changed(op->node->overlay);
}

static int start_top(struct op *op)
{
    const struct set *set = op_ctx(op);
    struct dht_get_options options = {.limit = TOP, .order = DHT_BY_SCORE, .first_is_enough = true};
    return dht_get(overlay_dht(op->node->overlay), fleet_now_ms(op->node), &set->key, &options, on_top, op, NULL, NULL);
}

/* ---- the whole of it ---- */

struct whole {
    struct op *op;
    size_t distinct;
    bool wrong;
    uint8_t seen[]; /* by member */
};

static void on_each(void *ctx, const struct dht_record *record)
{
    struct whole *whole = ctx;
    size_t member;
    if (!is_member(op_ctx(whole->op), record, &member)) {
        whole->wrong = true;
        return;
    }
    whole->distinct += !whole->seen[member];
    whole->seen[member] = 1;
}

static void on_whole(void *ctx, int status, size_t count)
{
    struct whole *whole = ctx;
    const struct set *set = op_ctx(whole->op);
    bool good = status == 0 && !whole->wrong && whole->distinct == set->members && count == set->members;
    if (!good)
        bench_say("  whole set: status %d, %zu told, %zu distinct of %zu%s", status, count, whole->distinct,
                  set->members, whole->wrong ? ", some wrong" : "");
    op_done(whole->op, good);
    overlay_changed(whole->op->node->overlay);
    free(whole);
}

static int start_whole(struct op *op)
{
    const struct set *set = op_ctx(op);
    struct whole *whole = calloc(1, sizeof *whole + set->members);
    if (!whole)
        return ERR_NOMEM;
    whole->op = op;
    int status = dht_collect(overlay_dht(op->node->overlay), fleet_now_ms(op->node), &set->key, WHOLE_TIMEOUT_MS,
                             on_each, on_whole, whole, NULL, NULL);
    if (status < 0)
        free(whole);
    return status;
}

static void fill(struct bench *bench, struct set *set)
{
    double first = 0, slowest = 0, fastest = 0, last = 0;
    size_t failed = 0;
    struct counters before = counters_read();
    for (size_t done = 0; done < set->members; done += BLOCK) {
        struct load_result result;
        struct load_plan plan = {.start = start_write,
                                 .ctx = set,
                                 .first = done,
                                 .count = BLOCK,
                                 .flight = FLIGHT,
                                 .timeout_ms = FILL_TIMEOUT_MS};
        load_run(bench->fleet, &plan, &result);
        last = (double)result.good / result.seconds;
        bench_say("  members to %zu: %.0f per s, %.3f ms of CPU each, p99 %.2f ms, %zu failed", done + BLOCK, last,
                  (double)result.counters.cpu_us / 1000 / BLOCK, counters_quantile(result.ms, result.good, 0.99),
                  result.failed);
        first = done == 0 ? last : first;
        slowest = done == 0 || last < slowest ? last : slowest;
        fastest = last > fastest ? last : fastest;
        failed += result.failed;
        load_result_release(&result);
        if (failed > BLOCK / 2)
            break;
    }
    bench_add(bench, first, "set%zu_first_per_s", set->members);
    bench_add(bench, last, "set%zu_last_per_s", set->members);
    bench_add(bench, fastest > 0 ? slowest / fastest : 0, "set%zu_flatness", set->members);
    struct counters used = counters_since(&before);
    bench_add(bench, (double)used.cpu_us / 1000 / (double)set->members, "set%zu_cpu_ms", set->members);
    bench_add(bench, (double)used.packets / (double)set->members, "set%zu_packets", set->members);
    bench_add(bench, (double)failed, "set%zu_failed", set->members);
}

static void read_set(struct bench *bench, struct set *set, op_start_cb start, size_t count, const char *what)
{
    char prefix[32];
    struct load_result result;
    struct load_plan plan = {
        .start = start, .ctx = set, .count = count, .flight = 1, .timeout_ms = count * WHOLE_TIMEOUT_MS};
    load_run(bench->fleet, &plan, &result);
    snprintf(prefix, sizeof prefix, "%s%zu", what, set->members);
    bench_add_load(bench, &result, prefix);
    load_result_release(&result);
}

void bench_set(struct bench *bench, size_t members)
{
    struct set *set = fleet_alloc(bench->fleet, sizeof *set);
    char name[32];
    int len = snprintf(name, sizeof name, "bench-%zu", members);
    *set = (struct set){.key = dht_key(DHT_SET, name, (size_t)len), .members = members};
    bench_say("one set of %zu members", members);
    fill(bench, set);
    sleep(1);
    read_set(bench, set, start_top, TOP_READS, "top");
    read_set(bench, set, start_whole, WHOLE_READS, "whole");
}

/* ---- being told ---- */

struct watched {
    struct id key;
    uint64_t put_ns, told_ns, watch;
    size_t number;
};

struct watching {
    size_t first; /* number of the first value */
    struct watched watched[WATCHES];
};

static void on_change(void *ctx, const struct id *key, const struct dht_record *record)
{
    struct watched *watched = ctx;
    uint8_t expected[BENCH_VALUE_BYTES];
    (void)key;
    bench_value(watched->number, expected);
    if (record->data_len == sizeof expected && memcmp(record->data, expected, sizeof expected) == 0 &&
        !__atomic_load_n(&watched->told_ns, __ATOMIC_RELAXED))
        __atomic_store_n(&watched->told_ns, counters_now_ns(), __ATOMIC_RELAXED);
}

static void start_watches(struct worker *worker, void *ctx)
{
    struct watching *watching = ctx;
    struct err err = {0};
    for (size_t i = worker->number; i < WATCHES; i += worker->fleet->options.workers) {
        struct node *node = fleet_pick(worker, i);
        struct watched *watched = &watching->watched[i];
        watched->number = watching->first + i;
        watched->key = bench_key(watched->number);
        if (dht_watch(overlay_dht(node->overlay), fleet_now_ms(node), &watched->key, on_change, watched,
                      &watched->watch, &err) < 0)
            fleet_die("cannot watch", &err);
        overlay_changed(node->overlay);
    }
}

static int start_push(struct op *op)
{
    struct watching *watching = op_ctx(op);
    struct watched *watched = &watching->watched[op->number - watching->first];
    watched->put_ns = op->began_ns;
    return bench_start_put(op);
}

/* The watches stay: they are part of what the nodes do from now on. */
void bench_watch(struct bench *bench)
{
    struct watching *watching = fleet_alloc(bench->fleet, sizeof *watching);
    double ms[WATCHES];
    size_t told = 0;
    struct load_result result;
    bench_say("%d watches on %d keys", WATCHES, WATCHES);
    watching->first = bench->keys;
    fleet_call_all(bench->fleet, start_watches, watching);
    sleep(2);
    struct load_plan plan = {.start = start_push,
                             .ctx = watching,
                             .first = watching->first,
                             .count = WATCHES,
                             .flight = 1,
                             .timeout_ms = FILL_TIMEOUT_MS};
    load_run(bench->fleet, &plan, &result);
    load_result_release(&result);
    bench->keys += WATCHES;
    usleep(PUSH_MS * 1000);
    for (size_t i = 0; i < WATCHES; i++) {
        const struct watched *watched = &watching->watched[i];
        uint64_t at = __atomic_load_n(&watched->told_ns, __ATOMIC_RELAXED);
        if (at)
            ms[told++] = (double)(at - watched->put_ns) / 1e6;
    }
    counters_sort(ms, told);
    bench_add(bench, (double)told, "watch_told");
    bench_add(bench, counters_quantile(ms, told, 0.5), "watch_p50_ms");
    bench_add(bench, counters_quantile(ms, told, 0.99), "watch_p99_ms");
}
