/*
 * The world: nodes, the network between them and the one timeline, in microseconds.
 *
 * The same options give the same run: every packet that arrives goes into a running hash, which says so.
 */
#pragma once

#include "tools/dhtsim/check.h"
#include "tools/dhtsim/node.h"
#include "tools/dhtsim/oracle.h"
#include "tools/dhtsim/tap.h"
#include "tools/dhtsim/wheel.h"

#define WORLD_SECOND_US 1000000u
#define WORLD_WALL_START_MS 1767225600000u /* 2026-01-01 */
#define WORLD_TYPES 64                     /* message types that are counted apart */

struct world {
    const struct options *options; /* borrowed */
    uint64_t now_us;
    struct wheel *wheel; /* owned */
    struct net net;
    struct node *nodes; /* owned */
    size_t count;
    size_t alive;
    bool disks;   /* records outlive the process that holds them */
    bool resting; /* only busy nodes do their upkeep */
    struct node_shared *shared;
    struct tap tap;
    struct oracle liars;
    struct check *check; /* owned; NULL: invariants are not looked at */
    uint64_t work;       /* stream of the workload */
    uint64_t hash;       /* of all that arrived, in order */
    uint64_t events;
    uint64_t sent;
    uint64_t arrived;
    uint64_t lost; /* by the network, and at the dead */
    uint64_t by_type[WORLD_TYPES];
    uint64_t started_ms; /* of this machine's clock, like the next two: for what is said of the run alone */
    uint64_t ran_ms;     /* spent in world_run_until */
    uint64_t told_ms;
    bool stopped; /* Ctrl-C */
};

/* So many nodes, none of them running. */
struct world *world_new(const struct options *options, size_t nodes);
void world_free(struct world *world);

/* Start all nodes and make them a mesh: with ideal tables, or by joining through random others. */
void world_boot(struct world *world);
/* Ideal tables for the living: of each subtree beside a node's own path up to 16 random members. ideal.c */
void world_make_tables(struct world *world);

/* Let time pass. False when the user has stopped the run. */
bool world_run_until(struct world *world, uint64_t end_us);
bool world_run_for(struct world *world, uint64_t us);
void world_call_at(struct world *world, uint64_t at_us, event_call_cb cb, void *ctx, uint64_t argument);

/* For node.c: a packet leaves `from`. */
void world_send(struct world *world, struct node *from, const struct addr *to, const uint8_t *bytes, size_t len_bytes);
/* The node may want to be called at another time than before. */
void world_arm(struct world *world, struct node *node);

void world_kill(struct world *world, struct node *node);
/* Kill a random share of the living. */
void world_kill_share(struct world *world, uint64_t percent, uint64_t *stream);
/* A dead number runs again: as who it was, or as somebody new. It knows nobody yet. */
void world_revive(struct world *world, struct node *node, bool anew);
/* A living node, no liar, other than `but` (may be NULL). NULL if there is none. */
struct node *world_any_alive(struct world *world, uint64_t *stream, const struct node *but);

/* Tell on standard error, now and then, how far it is: `at` of `end`; 0 of 0 is the virtual time alone. */
void world_tell(struct world *world, const char *what, uint64_t at, uint64_t end);
/* By the machine's own clock, since the world was made. */
uint64_t world_elapsed_ms(const struct world *world);
