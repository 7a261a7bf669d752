/*
 * How long a peer is quiet at a time, and from when on that is unusual: a histogram in half octaves, in which a wait
 * counts by its length, so that the many short ones between two frames do not hide the long ones between two bursts.
 * What is old fades.
 */
#pragma once

#include <stdint.h>

#define LATENCY_BUCKETS 26 /* two for each power of two, up to 8 s */

struct latency {
    uint32_t total_ms;
    uint16_t waits_ms[LATENCY_BUCKETS];
};

void transfer_latency_add(struct latency *latency, uint64_t wait_ms);
/* Nine tenths of all waiting was in waits no longer than this. 0: nothing is known. */
uint64_t transfer_latency_p90_ms(const struct latency *latency);
