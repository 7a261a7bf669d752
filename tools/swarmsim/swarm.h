/*
 * A swarm: nodes whose exchanges are the daemon's own, on virtual time and a virtual network.
 *
 *   swarm.c  nodes, what happens to them, time
 *   node.c   one node; the only file that calls the exchange, and what stands around it in the daemon: who is dialled
 *   net.c    wires, sessions, messages on their way
 *   store.c  what is in the nodes' stores, without the bytes
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/sim/timeline.h"
#include "tools/swarmsim/net.h"
#include "tools/swarmsim/options.h"
#include "tools/swarmsim/store.h"

struct node;
struct swarm;

/* One who wants an object, from when on, and how that ended. */
struct demand {
    uint32_t node;
    uint32_t object;
    uint8_t class;
    uint8_t group; /* for figures; the class, unless set otherwise */
    uint64_t start_us;
    uint64_t ideal_us; /* that it would take at best */
    uint64_t end_us;   /* 0: not yet */
    int status;        /* of the end */
    uint64_t duplicate_bytes;
    bool excused; /* its node was killed or fell silent: nobody waits for it */
};

/* Who the DHT says has an object. */
struct providers {
    uint32_t *nodes; /* owned */
    size_t count, cap;
};

struct tally {
    uint64_t messages[256]; /* by type, when they have left */
    uint64_t wire_bytes;    /* of all that has left */
    uint64_t chunk_bytes;   /* of objects */
    uint64_t seed_bytes;    /* of those, from nodes that had all at the start */
    uint64_t refused;       /* sessions */
    uint64_t liars_named;
    uint64_t protocol_errors;
    uint64_t ticks; /* calls of exchange_tick */
};

struct swarm {
    const struct options *options;
    struct timeline *timeline; /* owned */
    struct catalogue catalogue;
    struct node *nodes; /* owned */
    uint32_t n_nodes;
    struct providers *providers; /* owned; of each object */
    struct demand *demands;      /* owned */
    size_t n_demands, demand_cap;
    size_t waiting; /* demands that have not ended and are not excused */
    struct message_pool pool;
    struct call *spare_calls; /* owned */
    struct call *all_calls;
    uint64_t now_us;
    uint64_t rng;
    uint64_t events;
    uint64_t hash; /* of everything that arrived */
    struct tally tally;
    uint64_t *sent_in; /* owned; wire bytes that left in each SWARM_SLOT_US */
    size_t sent_cap;
    uint64_t ran_ms; /* of real time */
    bool stopped;    /* by the user */
};

#define SWARM_START_US 1000000u
/* Utilisation is looked at by slots of this length. */
#define SWARM_SLOT_US 250000u

/* Nodes with empty stores and wires as the options say; objects of these sizes that nobody has yet. */
void swarm_init(struct swarm *swarm, const struct options *options, uint32_t n_nodes, uint32_t n_objects,
                const uint64_t *sizes_bytes);
void swarm_release(struct swarm *swarm);

/* The node has all of the object, and the DHT knows. */
void swarm_give(struct swarm *swarm, uint32_t node, uint32_t object);
/* From start_us on the node wants the object, which would take it ideal_us at best. */
void swarm_demand(struct swarm *swarm, uint32_t node, uint32_t object, uint8_t class, uint64_t start_us,
                  uint64_t ideal_us);
/* Nobody waits for what this node still wants. */
void swarm_excuse(struct swarm *swarm, uint32_t node);
/* Until every demand has ended, at most until end_us. */
void swarm_run(struct swarm *swarm, uint64_t end_us);

/* For the parts. */
static inline uint64_t swarm_ms(const struct swarm *swarm)
{
    return 1000000 + swarm->now_us / 1000;
}

static inline void swarm_at(struct swarm *swarm, struct event *event, uint64_t at_us)
{
    timeline_add(swarm->timeline, &event->timed, at_us);
}

typedef void (*swarm_call_cb)(struct swarm *swarm, void *ctx, uint64_t argument);
/* Call back at some time. */
void swarm_call_at(struct swarm *swarm, uint64_t at_us, swarm_call_cb call, void *ctx, uint64_t argument);
/* The DHT knows the node as one who has some of the object. */
void swarm_provide(struct swarm *swarm, uint32_t node, uint32_t object);
void swarm_count_sent(struct swarm *swarm, uint32_t node, uint8_t type, uint32_t wire_bytes, uint32_t chunk_bytes);
