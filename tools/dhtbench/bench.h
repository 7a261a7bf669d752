/*
 * The measurements of dhtbench, one function a phase, in the order in which they are made; main.c calls them. Each adds
 * its figures to the report, and tools/bench knows what they are to be.
 */
#pragma once

#include "tools/dhtbench/fleet.h"
#include "tools/dhtbench/load.h"

#define BENCH_VALUE_BYTES 200

struct bench_figure {
    char name[48];
    double value;
};

struct bench {
    struct fleet *fleet;
    unsigned idle_s;
    size_t ops;                          /* one at a time */
    size_t many;                         /* 32 in flight */
    double idle_packets_s, idle_bytes_s; /* of all nodes together */
    size_t keys;                         /* put so far: numbers 0 to keys - 1 */
    struct memory memory_before;         /* without nodes */
    struct bench_figure figures[128];
    size_t figure_count;
};

/* ---- report.c ---- */

void bench_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The name is a printf format. */
void bench_add(struct bench *bench, double value, const char *name, ...) __attribute__((format(printf, 3, 4)));
/* PREFIX_p50_ms, _p90_ms, _p99_ms, _per_s, _cpu_ms, _packets, _bytes, _failed of a load; packets and bytes less those
 * that the nodes would have sent anyway. */
void bench_add_load(struct bench *bench, const struct load_result *result, const char *prefix);
/* One JSON object, to standard output. */
void bench_print(const struct bench *bench);

/* ---- the phases ---- */

void bench_boot(struct bench *bench);
void bench_idle(struct bench *bench);
void bench_values(struct bench *bench);
void bench_set(struct bench *bench, size_t members);
void bench_watch(struct bench *bench);
void bench_kill(struct bench *bench);

/* What number `n` is put under, and what is put there: random bytes made of the number, so that content can be judged
 * without being kept. */
struct id bench_key(size_t n);
void bench_value(size_t n, uint8_t ret_value[BENCH_VALUE_BYTES]);
/* Operations to put and get: op->number is the number. A get takes the first record that is signed by its writer, as
 * the other DHTs' gets of one value do. */
int bench_start_put(struct op *op);
int bench_start_get(struct op *op);
