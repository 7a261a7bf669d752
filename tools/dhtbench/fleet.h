/*
 * Many nodes in one process, over loopback UDP: each with what the daemon has of the DHT - an identity of one cluster,
 * a socket, the overlay, its records in a store of its own - and nothing else.
 *
 * Nodes are dealt out to workers: a thread with a loop each, which runs from fleet_new to fleet_free. A node belongs to
 * its worker's thread; the main thread reaches it by fleet_call.
 */
#pragma once

#include <uv.h>

#include "dht/dht.h"
#include "node/base/scope.h"
#include "node/identity/identity.h"
#include "node/mesh/overlay.h"
#include "node/mesh/records.h"
#include "node/net/udp.h"
#include "node/net/work.h"
#include "store/store.h"

#define FLEET_MAX_NODES 1024
#define FLEET_MAX_WORKERS 16

struct fleet;
struct worker;

struct node {
    unsigned number;
    struct worker *worker;
    char *dir; /* owned, removed at the end */
    struct identity *identity;
    struct store *store; /* NULL: records are kept in memory alone */
    struct records *records;
    struct udp *udp;         /* NULL: dead */
    struct overlay *overlay; /* NULL: dead, and its memory is free again */
    struct addr addr;
};

typedef void (*fleet_job_cb)(struct worker *worker, void *ctx);

struct worker {
    struct fleet *fleet;
    unsigned number;
    uv_loop_t loop;
    uv_thread_t thread;
    uv_async_t wake;
    uv_timer_t house;
    struct work *work;
    struct node *nodes; /* owned */
    unsigned node_count;
    fleet_job_cb job; /* to be run in this turn of the loop */
    void *job_ctx;
};

struct fleet_options {
    unsigned nodes, workers;
    const char *dir; /* nodes keep their files beneath it */
    bool on_disk;
};

struct fleet {
    struct fleet_options options;
    struct clock clock;
    struct worker workers[FLEET_MAX_WORKERS];
    struct dht_contact first; /* the node that the others join by */
    uv_mutex_t mutex;
    uv_cond_t changed;
    struct fleet_memory *memory; /* owned: what fleet_alloc gave */
};

/* Identities and threads; no node runs yet. */
int fleet_new(const struct fleet_options *options, struct fleet **ret_fleet, struct err *err);
/* Ends what runs, waits for it and removes the files. */
void fleet_free(struct fleet *fleet);

/* Start all nodes; they join by the first one. */
void fleet_start(struct fleet *fleet);
/* How many nodes live, and how many of them know at least `contacts` others. */
unsigned fleet_alive(struct fleet *fleet);
unsigned fleet_ready(struct fleet *fleet, size_t contacts);
/* End every second node without a word to anybody. */
void fleet_kill_half(struct fleet *fleet);

/* Run `job` on the thread of one worker, or of each in turn; returns when it has returned. */
void fleet_call(struct worker *worker, fleet_job_cb job, void *ctx);
void fleet_call_all(struct fleet *fleet, fleet_job_cb job, void *ctx);

/* The n-th of the worker's living nodes, modulo their number; NULL if there is none. */
struct node *fleet_pick(struct worker *worker, uint64_t n);
uint64_t fleet_now_ms(const struct node *node);

/* Zeroed memory that lives as long as the fleet: for what callbacks of its nodes may still find. For the main thread.
 */
void *fleet_alloc(struct fleet *fleet, size_t len_bytes);

/* What cannot happen on a machine in order, and what no measurement makes sense after: says so and exits. */
_Noreturn void fleet_die(const char *what, const struct err *err);
