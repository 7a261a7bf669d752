/*
 * Smoothed round-trip time and deviation, as in RFC 6298, in fixed point: 4 bytes a contact.
 */
#pragma once

#include <stdint.h>

struct dht_rtt {
    uint16_t smooth_8ths; /* ms; 0: no sample yet */
    uint16_t deviation_4ths;
};

void dht_rtt_add(struct dht_rtt *rtt, uint64_t sample_ms);
unsigned dht_rtt_ms(const struct dht_rtt *rtt);
/* How long to wait before somebody else is asked too: 100 ms more than the round trip at least, 2 s at most; 1 s before
 * the first sample. */
unsigned dht_rtt_timeout_ms(const struct dht_rtt *rtt);
