/*
 * The network of a lab: nodes with an uplink and a downlink each, and between every ordered pair of them a path with a
 * delay and faults. Frames and the time go in, frames come out when they are due; no sockets, no clock, no thread.
 *
 *   uplink of the sender -> path (loss, delay, jitter, reordering, cut) -> downlink of the receiver
 *
 * 1. A link is a queue that lets bytes through at its rate, first in, first out, and drops at the tail what does not
 * fit.
 * 2. Each packet of a frame meets its own fate; a frame whose packets fare alike stays whole, and arrives when the last
 *    of them does.
 * 3. Jitter never overtakes; only packets that are chosen for it (`reorder`) come late, and others overtake them.
 * 4. A cut also loses what would arrive while it lasts.
 * 5. What is changed holds for packets that enter from then on.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"

#define NET_NODES 64
#define NET_NAME_SIZE 32
#define NET_FLYING_BYTES (256u << 20) /* on their way at once: 64 nodes x 100 Mbit/s x 0.3 s; more is dropped */
#define NET_NEVER UINT64_MAX

struct net_link {
    uint64_t rate_bits_per_s; /* 0: any */
    uint64_t queue_ns;        /* how long a packet may wait; or */
    uint64_t queue_bytes;     /* how many may, if not 0 */
    uint64_t free_ns;         /* when the last byte let in has passed */
    uint64_t dropped_packets;
};

struct net_path {
    uint64_t delay_ns;
    uint64_t jitter_ns; /* up to so much more */
    uint64_t late_ns;   /* what a reordered packet waits */
    double loss;        /* shares of packets, 0 to 1 */
    double reorder;
    bool cut;
    uint64_t last_ns;                  /* when the last frame that was not reordered comes out */
    uint64_t sent_bytes, sent_packets; /* into the path, from the uplink */
    uint64_t received_bytes, received_packets;
    uint64_t lost_packets; /* by chance or cut */
};

struct net_node {
    char name[NET_NAME_SIZE];
    uint32_t address; /* IPv4, host byte order */
    struct net_link up, down;
};

struct net_lateness { /* of what was handed out, against the time at which it was due */
    uint64_t frames;
    uint64_t sum_ns, max_ns;
    uint64_t late_frames; /* by more than 0.3 ms */
};

struct net;
typedef void (*net_deliver_cb)(void *ctx, unsigned node, const uint8_t *frame, size_t len_bytes);

/* The same seed draws the same fates, packet by packet. NULL without memory. `cb` is called by net_run only. */
struct net *net_new(uint64_t seed, net_deliver_cb cb, void *ctx);
void net_free(struct net *net);

/* Returns the node's number, counted from 0; ERR_EXISTS for a name or address that is taken, ERR_INVALID, ERR_LIMIT. */
int net_add_node(struct net *net, const char *name, uint32_t address, struct err *err);
unsigned net_node_count(const struct net *net);
/* Its number, or -1. */
int net_find_node(const struct net *net, const char *name);
/* Borrowed until net_free; settings may be changed. */
struct net_node *net_node(struct net *net, unsigned node);
struct net_path *net_path(struct net *net, unsigned from, unsigned to);
const struct net_lateness *net_lateness(const struct net *net);
/* All counters begin at 0 again. */
void net_zero_counters(struct net *net);

/* A frame that node `from` has sent at now_ns; copied. What has no target here is dropped. */
void net_send(struct net *net, unsigned from, const uint8_t *frame, size_t len_bytes, uint64_t now_ns);

/* Hand out what is due by now_ns; returns when to call again at the latest, NET_NEVER if nothing is on its way. */
uint64_t net_run(struct net *net, uint64_t now_ns);
