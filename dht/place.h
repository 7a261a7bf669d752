/*
 * Places in the network: Vivaldi coordinates (Dabek, Cox, Kaashoek and Morris, "Vivaldi: a decentralized network
 * coordinate system", 2004) in three dimensions and a height, with what Serf has added for use outside of laboratories
 * (serf.io, docs/internals/coordinates): gravity towards the origin, so that all together do not drift away.
 *
 * What others claim of their places is taken with care (faults 19, 20). No claim beyond what a round trip can be is
 * looked at, nobody is believed to be surer than half as sure as we are, and a sample pulls no harder than three times
 * what samples usually disagree by: an honest majority pulls back what a liar has moved.
 *
 * Arithmetic is + - * / and the square root, so that all compilers come to the same places.
 */
#pragma once

#include "dht/dht.h"
#include "node/base/wire.h"

#define DHT_PLACE_WIRE_BYTES 8

void dht_place_put(struct buf *out, const struct dht_place *place);
struct dht_place dht_place_get(struct wire *wire);
bool dht_place_is_known(const struct dht_place *place);

/* Our own place, finer than on the wire. */
struct dht_placing {
    double x[3]; /* ms */
    double height;
    double error; /* relative, 0 (sure) to 1 */
    double usual; /* the median of how far samples are from what they should be, ms */
    bool placed;  /* there was a sample */
};

void dht_placing_init(struct dht_placing *placing);
/* A round trip of rtt_ms to somebody who claims to be at `place`, with that error (0 to 255). What cannot be is passed
 * over. */
void dht_placing_add(struct dht_placing *placing, const struct dht_place *place, uint8_t error, double rtt_ms,
                     const struct rng *rng);
/* As others are told of it: the origin before the first sample, with an error of 255. */
struct dht_place dht_placing_place(const struct dht_placing *placing);
/* 0 to 255, as on the wire. */
uint8_t dht_placing_error(const struct dht_placing *placing);
