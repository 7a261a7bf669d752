#include "tools/dhtbench/counters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "node/base/scope.h"

uint64_t counters_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void read_loopback(uint64_t *ret_packets, uint64_t *ret_bytes)
{
    OWNED(owned_file) FILE *file = fopen("/proc/net/dev", "re");
    char line[512];
    while (file && fgets(line, sizeof line, file)) {
        unsigned long long bytes, packets;
        if (sscanf(line, " lo: %llu %llu", &bytes, &packets) != 2)
            continue;
        *ret_packets = packets;
        *ret_bytes = bytes - packets * COUNTERS_FRAME_BYTES;
    }
}

static uint64_t micros(const struct timeval *time)
{
    return (uint64_t)time->tv_sec * 1000000u + (uint64_t)time->tv_usec;
}

struct counters counters_read(void)
{
    struct counters counters = {.ns = counters_now_ns()};
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    counters.cpu_us = micros(&usage.ru_utime) + micros(&usage.ru_stime);
    read_loopback(&counters.packets, &counters.bytes);
    return counters;
}

struct counters counters_since(const struct counters *begin)
{
    struct counters end = counters_read();
    return (struct counters){.ns = end.ns - begin->ns,
                             .packets = end.packets - begin->packets,
                             .bytes = end.bytes - begin->bytes,
                             .cpu_us = end.cpu_us - begin->cpu_us};
}

struct memory counters_memory(void)
{
    OWNED(owned_file) FILE *file = fopen("/proc/self/status", "re");
    struct memory memory = {0};
    char line[256];
    while (file && fgets(line, sizeof line, file)) {
        unsigned long long kib;
        if (sscanf(line, "VmRSS: %llu", &kib) == 1)
            memory.resident_kib = kib;
        if (sscanf(line, "RssAnon: %llu", &kib) == 1)
            memory.anonymous_kib = kib;
    }
    return memory;
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

void counters_sort(double *values, size_t count)
{
    if (count > 0)
        qsort(values, count, sizeof *values, compare);
}

double counters_quantile(const double *sorted, size_t count, double p)
{
    if (count == 0)
        return 0;
    size_t at = (size_t)(p * (double)count);
    return sorted[at < count ? at : count - 1];
}
