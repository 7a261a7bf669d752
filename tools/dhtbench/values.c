/* The phases about values under random keys: from boot to death. */
#include <string.h>
#include <unistd.h>

#include "tools/dhtbench/bench.h"

#define BOOT_TIMEOUT_MS 60000
#define SETTLE_S 10
#define OP_TIMEOUT_MS 120000
#define DRAIN_MS 500 /* what is still on its way when the last operation is over */
#define FLIGHT 32
#define KILL_GETS 200

/* ---- keys and values ---- */

static void fill(size_t n, uint64_t salt, void *ret_bytes, size_t len_bytes)
{
    uint64_t state = n * 0x9e3779b97f4a7c15u + salt;
    struct rng rng = rng_seeded(&state);
    rng.fill(rng.ctx, ret_bytes, len_bytes);
}

struct id bench_key(size_t n)
{
    uint8_t digest[ID_BYTES];
    fill(n, 1, digest, sizeof digest);
    return dht_key(DHT_OBJECT, digest, sizeof digest);
}

void bench_value(size_t n, uint8_t ret_value[BENCH_VALUE_BYTES])
{
    fill(n, 2, ret_value, BENCH_VALUE_BYTES);
}

static void on_put(void *ctx, const struct id *key, size_t accepted)
{
    (void)key;
    op_done(ctx, accepted > 0);
}

int bench_start_put(struct op *op)
{
    uint8_t bytes[BENCH_VALUE_BYTES];
    struct id key = bench_key(op->number);
    bench_value(op->number, bytes);
    struct dht_value value = {
        .size = op->number, .data = bytes, .data_len = sizeof bytes, .done = on_put, .done_ctx = op};
    return dht_publish(overlay_dht(op->node->overlay), fleet_now_ms(op->node), &key, DHT_OBJECT, &value, NULL);
}

static void on_got(void *ctx, const struct dht_found *found, size_t count)
{
    struct op *op = ctx;
    uint8_t expected[BENCH_VALUE_BYTES];
    bench_value(op->number, expected);
    op_done(op, count == 1 && found->record.data_len == sizeof expected &&
                    memcmp(found->record.data, expected, sizeof expected) == 0);
    overlay_changed(op->node->overlay);
}

static int start_read(struct op *op, const struct dht_get_options *options)
{
    struct bench *bench = op_ctx(op);
    op->number %= bench->keys;
    struct id key = bench_key(op->number);
    return dht_get(overlay_dht(op->node->overlay), fleet_now_ms(op->node), &key, options, on_got, op, NULL, NULL);
}

int bench_start_get(struct op *op)
{
    static const struct dht_get_options one = {.limit = 1, .first_is_enough = true};
    return start_read(op, &one);
}

/* What the four closest holders have together. */
static int start_get_all(struct op *op)
{
    return start_read(op, NULL);
}

/* ---- boot, idle ---- */

void bench_boot(struct bench *bench)
{
    unsigned nodes = bench->fleet->options.nodes;
    size_t contacts = nodes - 1 < 20 ? nodes - 1 : 20;
    uint64_t begin = counters_now_ns();
    uint64_t ms = 0;
    fleet_start(bench->fleet);
    while (fleet_ready(bench->fleet, contacts) < nodes && ms < BOOT_TIMEOUT_MS) {
        usleep(5000);
        ms = (counters_now_ns() - begin) / 1000000;
    }
    bench_add(bench, (double)(counters_now_ns() - begin) / 1e6, "boot_ms");
    bench_add(bench, fleet_ready(bench->fleet, contacts), "boot_ready");
    sleep(SETTLE_S);
}

void bench_idle(struct bench *bench)
{
    unsigned nodes = bench->fleet->options.nodes;
    struct counters before = counters_read();
    sleep(bench->idle_s);
    struct counters used = counters_since(&before);
    double seconds = (double)used.ns / 1e9;
    struct memory memory = counters_memory();
    bench->idle_packets_s = (double)used.packets / seconds;
    bench->idle_bytes_s = (double)used.bytes / seconds;
    bench_add(bench, seconds, "idle_s");
    bench_add(bench, bench->idle_packets_s / nodes, "idle_packets_per_s");
    bench_add(bench, bench->idle_bytes_s / nodes, "idle_bytes_per_s");
    bench_add(bench, (double)used.cpu_us / 1e4 / seconds, "idle_cpu_percent");
    bench_add(bench, (double)(memory.resident_kib - bench->memory_before.resident_kib) / nodes, "memory_kib");
    bench_add(bench, (double)(memory.anonymous_kib - bench->memory_before.anonymous_kib) / nodes, "memory_anon_kib");
}

/* ---- values ---- */

static void run(struct bench *bench, op_start_cb start, size_t first, size_t count, size_t flight, const char *name)
{
    struct load_result result;
    struct load_plan plan = {
        .start = start, .ctx = bench, .first = first, .count = count, .flight = flight, .timeout_ms = OP_TIMEOUT_MS};
    load_run(bench->fleet, &plan, &result);
    bench_add_load(bench, &result, name);
    load_result_release(&result);
    usleep(DRAIN_MS * 1000);
}

static void put(struct bench *bench, size_t count, size_t flight, const char *name)
{
    run(bench, bench_start_put, bench->keys, count, flight, name);
    bench->keys += count;
}

void bench_values(struct bench *bench)
{
    bench_say("put and get, one at a time and %d at a time", FLIGHT);
    put(bench, bench->ops, 1, "put1");
    run(bench, bench_start_get, 0, bench->ops, 1, "get1");
    run(bench, start_get_all, 0, bench->ops, 1, "getall1");
    put(bench, bench->many, FLIGHT, "put32");
    run(bench, bench_start_get, 0, bench->many, FLIGHT, "get32");
    run(bench, start_get_all, 0, bench->many, FLIGHT, "getall32");
}

/* ---- death ---- */

void bench_kill(struct bench *bench)
{
    bench_say("half of the nodes die at once, then %d gets at once", KILL_GETS);
    size_t first = bench->keys;
    put(bench, KILL_GETS, FLIGHT, "before_kill");
    fleet_kill_half(bench->fleet);
    run(bench, bench_start_get, first, KILL_GETS, KILL_GETS, "killed");
}
