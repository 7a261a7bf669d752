/*
 * What a peer delivers: how fast, measured over windows while something is asked of it, and smoothed.
 *
 * And how long a peer is quiet at a time, and from when on that is unusual: a histogram in half octaves, in which a
 * wait counts by its length, so that the many short ones between two frames do not hide the long ones between two
 * bursts. What is old fades.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct goodput {
    uint64_t rate;     /* bytes/s, smoothed; 0: unknown */
    uint64_t best;     /* the best of late: it halves in about 4 s of transfer */
    uint64_t asked_ms; /* when bytes were asked for after none were */
    uint64_t bytes;    /* that came since */
    bool measured;     /* a window has been, since */
    bool open;         /* another one is, since start_ms */
    uint64_t start_ms;
    uint64_t window_bytes;
};

/* Something is asked for, and nothing was before. */
void transfer_goodput_begin(struct goodput *goodput, uint64_t now_ms);
/* Bytes have come. The first ones only begin a window: what was before them was waiting, not transfer. */
void transfer_goodput_add(struct goodput *goodput, uint64_t bytes, uint64_t now_ms);
/* Nothing more is asked for. If it was too little for a window, waiting counts as well, but for the round trip. */
void transfer_goodput_end(struct goodput *goodput, uint64_t now_ms, uint32_t rtt_ms);

#define LATENCY_BUCKETS 26 /* two for each power of two, up to 8 s */

struct latency {
    uint32_t total_ms;
    uint16_t waits_ms[LATENCY_BUCKETS];
};

void transfer_latency_add(struct latency *latency, uint64_t wait_ms);
/* Nine tenths of all waiting was in waits no longer than this. 0: nothing is known. */
uint64_t transfer_latency_p90_ms(const struct latency *latency);
