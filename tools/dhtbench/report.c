#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "tools/dhtbench/bench.h"

void bench_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

void bench_add(struct bench *bench, double value, const char *name, ...)
{
    va_list args;
    if (bench->figure_count == sizeof bench->figures / sizeof *bench->figures)
        return;
    struct bench_figure *figure = &bench->figures[bench->figure_count++];
    va_start(args, name);
    vsnprintf(figure->name, sizeof figure->name, name, args);
    va_end(args);
    figure->value = isfinite(value) ? value : 0;
    bench_say("  %-28s %.3f", figure->name, figure->value);
}

void bench_add_load(struct bench *bench, const struct load_result *result, const char *prefix)
{
    double seconds = (double)result->counters.ns / 1e9;
    double ops = result->good > 0 ? (double)result->good : 1;
    bench_add(bench, counters_quantile(result->ms, result->good, 0.5), "%s_p50_ms", prefix);
    bench_add(bench, counters_quantile(result->ms, result->good, 0.9), "%s_p90_ms", prefix);
    bench_add(bench, counters_quantile(result->ms, result->good, 0.99), "%s_p99_ms", prefix);
    bench_add(bench, result->seconds > 0 ? (double)result->good / result->seconds : 0, "%s_per_s", prefix);
    bench_add(bench, (double)result->counters.cpu_us / 1000 / ops, "%s_cpu_ms", prefix);
    bench_add(bench, ((double)result->counters.packets - bench->idle_packets_s * seconds) / ops, "%s_packets", prefix);
    bench_add(bench, ((double)result->counters.bytes - bench->idle_bytes_s * seconds) / ops, "%s_bytes", prefix);
    bench_add(bench, (double)result->failed, "%s_failed", prefix);
}

void bench_print(const struct bench *bench)
{
    for (size_t i = 0; i < bench->figure_count; i++)
        printf("%s\"%s\": %.6g", i == 0 ? "{" : ", ", bench->figures[i].name, bench->figures[i].value);
    printf("}\n");
}
