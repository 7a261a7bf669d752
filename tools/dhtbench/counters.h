/*
 * What is counted around a measurement: packets and bytes of the loopback device (which nothing else should be using:
 * tools/bench gives each program a network namespace of its own), CPU time and memory of this process, time.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define COUNTERS_FRAME_BYTES 14 /* of a link header, which loopback counts though it has none */

struct counters {
    uint64_t ns; /* monotonic */
    uint64_t packets;
    uint64_t bytes; /* with IP and UDP headers */
    uint64_t cpu_us;
};

uint64_t counters_now_ns(void);
struct counters counters_read(void);
struct counters counters_since(const struct counters *begin);

/* Resident memory in KiB; of it, what is not files. */
struct memory {
    uint64_t resident_kib, anonymous_kib;
};
struct memory counters_memory(void);

/* The p-th quantile (0 to 1) of sorted values; 0 for none. */
double counters_quantile(const double *sorted, size_t count, double p);
void counters_sort(double *values, size_t count);
