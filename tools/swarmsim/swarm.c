#include "tools/swarmsim/swarm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tools/sim/memory.h"
#include "tools/sim/random.h"
#include "tools/swarmsim/node.h"

#define LOOK_EVERY 65536u /* events, then it is looked at whether the user wants to stop */
#define TELL_MS 2000u

struct call {
    struct event event;
    swarm_call_cb call;
    void *ctx; /* borrowed */
    uint64_t argument;
    struct call *next_spare;
    struct call *next; /* of all */
};

/* ---- beginning and end ---- */

static uint64_t bytes_per_s(uint64_t mbit_per_s)
{
    return mbit_per_s * 1000000 / 8;
}

void swarm_init(struct swarm *swarm, const struct options *options, uint32_t n_nodes, uint32_t n_objects,
                const uint64_t *sizes_bytes)
{
    *swarm = (struct swarm){.options = options,
                            .timeline = timeline_new(),
                            .nodes = memory_get(n_nodes * sizeof *swarm->nodes),
                            .n_nodes = n_nodes,
                            .providers = memory_get(n_objects * sizeof *swarm->providers),
                            .now_us = SWARM_START_US,
                            .rng = random_stream(options->seed, RANDOM_WORK, 0)};
    catalogue_init(&swarm->catalogue, n_objects, sizes_bytes,
                   random_stream(options->seed, RANDOM_IDENTITY, UINT64_MAX));
    for (uint32_t i = 0; i < n_nodes; i++) {
        net_init_wires(&swarm->nodes[i].wires, bytes_per_s(options->up_mbit), bytes_per_s(options->down_mbit),
                       options->delay_ms * 1000);
        node_init(swarm, &swarm->nodes[i], i);
    }
}

static void drain(struct swarm *swarm)
{
    struct timed *timed;
    while ((timed = timeline_take(swarm->timeline, UINT64_MAX / 4))) {
        struct event *event = (struct event *)timed;
        event->happen(swarm, event);
    }
}

void swarm_release(struct swarm *swarm)
{
    for (uint32_t i = 0; i < swarm->n_nodes; i++) {
        if (swarm->nodes[i].exchange)
            node_kill(&swarm->nodes[i]);
    }
    drain(swarm);
    for (uint32_t i = 0; i < swarm->n_nodes; i++)
        node_release(&swarm->nodes[i]);
    for (uint32_t i = 0; i < swarm->catalogue.n_objects; i++)
        free(swarm->providers[i].nodes);
    while (swarm->all_calls) {
        struct call *next = swarm->all_calls->next;
        free(swarm->all_calls);
        swarm->all_calls = next;
    }
    net_pool_release(&swarm->pool);
    catalogue_release(&swarm->catalogue);
    timeline_free(swarm->timeline);
    free(swarm->nodes);
    free(swarm->providers);
    free(swarm->demands);
    free(swarm->sent_in);
}

/* ---- what is known of the world ---- */

void swarm_provide(struct swarm *swarm, uint32_t node, uint32_t object)
{
    struct providers *providers = &swarm->providers[object];
    providers->nodes = memory_grow(providers->nodes, &providers->cap, providers->count + 1, sizeof *providers->nodes);
    providers->nodes[providers->count++] = node;
}

void swarm_give(struct swarm *swarm, uint32_t node, uint32_t object)
{
    simstore_fill(swarm->nodes[node].store, object);
    swarm->nodes[node].seed = true;
    swarm_provide(swarm, node, object);
}

static void begin_demand(struct swarm *swarm, void *ctx, uint64_t demand)
{
    struct node *node = ctx;
    if (node->exchange)
        node_wish(node, demand);
    (void)swarm;
}

void swarm_demand(struct swarm *swarm, uint32_t node, uint32_t object, uint8_t class, uint64_t start_us,
                  uint64_t ideal_us)
{
    swarm->demands = memory_grow(swarm->demands, &swarm->demand_cap, swarm->n_demands + 1, sizeof *swarm->demands);
    swarm->demands[swarm->n_demands] = (struct demand){
        .node = node, .object = object, .class = class, .group = class, .start_us = start_us, .ideal_us = ideal_us};
    swarm->waiting++;
    swarm_call_at(swarm, start_us, begin_demand, &swarm->nodes[node], swarm->n_demands++);
}

void swarm_excuse(struct swarm *swarm, uint32_t node)
{
    for (size_t i = 0; i < swarm->n_demands; i++) {
        struct demand *demand = &swarm->demands[i];
        if (demand->node != node || demand->excused || demand->end_us > 0)
            continue;
        demand->excused = true;
        swarm->waiting--;
    }
}

void swarm_count_sent(struct swarm *swarm, uint32_t node, uint8_t type, uint32_t wire_bytes, uint32_t chunk_bytes)
{
    struct tally *tally = &swarm->tally;
    size_t slot = (swarm->now_us - SWARM_START_US) / SWARM_SLOT_US;
    size_t had = swarm->sent_cap;
    swarm->sent_in = memory_grow(swarm->sent_in, &swarm->sent_cap, slot + 1, sizeof *swarm->sent_in);
    for (; had < swarm->sent_cap; had++)
        swarm->sent_in[had] = 0;
    swarm->sent_in[slot] += wire_bytes;
    tally->messages[type]++;
    tally->wire_bytes += wire_bytes;
    tally->chunk_bytes += chunk_bytes;
    if (swarm->nodes[node].seed)
        tally->seed_bytes += chunk_bytes;
}

/* ---- time ---- */

static void do_call(struct swarm *swarm, struct event *event)
{
    struct call *call = (struct call *)event;
    swarm_call_cb cb = call->call;
    void *ctx = call->ctx;
    uint64_t argument = call->argument;
    call->next_spare = swarm->spare_calls;
    swarm->spare_calls = call;
    cb(swarm, ctx, argument);
}

void swarm_call_at(struct swarm *swarm, uint64_t at_us, swarm_call_cb cb, void *ctx, uint64_t argument)
{
    struct call *call = swarm->spare_calls;
    if (call) {
        swarm->spare_calls = call->next_spare;
    } else {
        call = memory_get(sizeof *call);
        call->next = swarm->all_calls;
        swarm->all_calls = call;
    }
    call->event.happen = do_call;
    call->call = cb;
    call->ctx = ctx;
    call->argument = argument;
    swarm_at(swarm, &call->event, at_us);
}

static uint64_t machine_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Ctrl-C is blocked by main and looked for here. */
static bool wants_to_stop(void)
{
    sigset_t pending;
    return sigpending(&pending) == 0 && sigismember(&pending, SIGINT) == 1;
}

static void tell(const struct swarm *swarm, uint64_t *told_ms)
{
    uint64_t now_ms = machine_ms();
    if (swarm->options->quiet || now_ms < *told_ms + TELL_MS)
        return;
    *told_ms = now_ms;
    fprintf(stderr, "\r%.1f virtual s, %zu of %zu wait, %llu M events, %zu MiB  ", (double)swarm->now_us / 1e6,
            swarm->waiting, swarm->n_demands, (unsigned long long)(swarm->events / 1000000), memory_resident() >> 20);
}

void swarm_run(struct swarm *swarm, uint64_t end_us)
{
    uint64_t began_ms = machine_ms();
    uint64_t told_ms = began_ms;
    struct timed *timed;
    while (swarm->waiting > 0 && !swarm->stopped && (timed = timeline_take(swarm->timeline, end_us))) {
        struct event *event = (struct event *)timed;
        swarm->now_us = timed->at_us;
        event->happen(swarm, event);
        if (++swarm->events % LOOK_EVERY == 0) {
            swarm->stopped = wants_to_stop();
            tell(swarm, &told_ms);
        }
    }
    if (told_ms > began_ms)
        fprintf(stderr, "\n");
    swarm->ran_ms += machine_ms() - began_ms;
}
