/*
 * The network between the nodes: how long a packet takes, and whether and how often it arrives.
 *
 * A node has a place in a cube and an access delay; the round trip of two nodes is their distance and both delays, 60
 * ms in the median unless told, and each packet takes half of it times a lognormal factor. Places and bad links are
 * functions of the seed and the numbers of the nodes.
 */
#pragma once

#include <stdbool.h>

#include "tools/dhtsim/options.h"
#include "tools/sim/random.h"

struct net_place {
    uint16_t at[3];     /* in 10 us of round trip */
    uint16_t access_10; /* likewise */
};

struct net {
    const struct options *options; /* borrowed */
    uint64_t seed;
    uint64_t stream;
    struct random_lognormal jitter;
    struct random_lognormal access;
    struct random_lognormal slowness;
    uint32_t loss, duplicate, reorder, one_way, slow; /* millionths */
    uint32_t split;                                   /* millionths of the nodes that are cut off now; 0: none */
};

void net_init(struct net *net, const struct options *options);
struct net_place net_place(const struct net *net, uint32_t number);
/* The round trip between two places without jitter. */
uint64_t net_rtt_us(const struct net_place *a, const struct net_place *b);

bool net_is_slow(const struct net *net, uint32_t number);
/* On which side of a split of so many millionths is the node? True: on the cut off one. */
bool net_is_cut_off(const struct net *net, uint32_t number, uint32_t split);
/* By how much its wall clock is off. */
int64_t net_skew_ms(const struct net *net, uint32_t number);

/* How often a packet arrives, 0 to 2 times, and how long each takes. */
unsigned net_send(struct net *net, uint32_t from, const struct net_place *from_place, uint32_t to,
                  const struct net_place *to_place, uint64_t ret_delay_us[2]);
