#include "tools/dhtsim/world.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node/base/wire.h"
#include "tools/dhtsim/hash.h"
#include "tools/dhtsim/liar.h"
#include "tools/sim/memory.h"

#define TELL_EVERY_MS 2000
#define LOOK_EVERY_EVENTS 8192
#define JOINS_PER_S 50
#define JOIN_SEEDS 3
#define JOIN_SETTLE_US (60ull * WORLD_SECOND_US)

/* ---- making ---- */

static uint64_t machine_ms(void)
{
    struct clock clock = clock_system();
    return clock_mono_ms(&clock);
}

struct world *world_new(const struct options *options, size_t nodes)
{
    struct world *world = memory_get(sizeof *world);
    world->options = options;
    world->started_ms = world->told_ms = machine_ms();
    world->wheel = wheel_new();
    world->shared = node_shared_new(options);
    world->work = random_stream(options->seed, RANDOM_WORK, nodes);
    net_init(&world->net, options);
    world->nodes = memory_get(nodes * sizeof *world->nodes);
    world->count = nodes;
    for (size_t i = 0; i < nodes; i++)
        node_init(&world->nodes[i], world, (uint32_t)i, 0);
    return world;
}

void world_free(struct world *world)
{
    for (size_t i = 0; i < world->count; i++) {
        node_stop(&world->nodes[i]);
        node_wipe(&world->nodes[i]);
        free(world->nodes[i].secret);
    }
    node_shared_free(world->shared);
    tap_release(&world->tap);
    oracle_release(&world->liars);
    check_free(world->check);
    wheel_free(world->wheel);
    free(world->nodes);
    free(world);
}

static void start(struct world *world, struct node *node)
{
    if (world->disks)
        node_give_disk(node);
    node_start(node);
    world->alive++;
}

static void join_later(struct world *world, void *ctx, uint64_t number)
{
    struct node *node = &world->nodes[number];
    (void)ctx;
    start(world, node);
    for (int i = 0; i < JOIN_SEEDS && number > 0; i++)
        node_join_through(node, &world->nodes[random_below(&world->work, number)]);
    world_arm(world, node);
}

void world_boot(struct world *world)
{
    if (world->options->join) {
        for (size_t i = 0; i < world->count; i++)
            world_call_at(world, i * WORLD_SECOND_US / JOINS_PER_S, join_later, NULL, i);
        world_run_for(world, world->count * WORLD_SECOND_US / JOINS_PER_S + JOIN_SETTLE_US);
        return;
    }
    for (size_t i = 0; i < world->count; i++)
        start(world, &world->nodes[i]);
    world_make_tables(world);
    for (size_t i = 0; i < world->count; i++)
        world_arm(world, &world->nodes[i]);
}

/* ---- packets ---- */

static void queue_packet(struct world *world, const struct node *from, const struct node *to, uint16_t to_generation,
                         uint64_t delay_us, const uint8_t *bytes, size_t len_bytes)
{
    struct event *event = wheel_make(world->wheel, len_bytes);
    event->kind = EVENT_PACKET;
    event->from = from->number;
    event->from_generation = from->generation;
    event->to = to->number;
    event->to_generation = to_generation;
    memcpy(event->bytes, bytes, len_bytes);
    wheel_add(world->wheel, event, world->now_us + delay_us);
}

void world_send(struct world *world, struct node *from, const struct addr *to_addr, const uint8_t *bytes,
                size_t len_bytes)
{
    uint32_t number;
    uint16_t generation;
    uint64_t delay_us[2];
    world->sent++;
    from->sent++;
    world->by_type[tap_type(bytes, len_bytes)]++;
    if (!node_of_addr(to_addr, &number, &generation) || number >= world->count)
        return;
    const struct node *to = &world->nodes[number];
    if (from->trace)
        tap_sent(world, from, number, bytes, len_bytes);
    unsigned copies = net_send(&world->net, from->number, &from->place, number, &to->place, delay_us);
    world->lost += copies == 0;
    for (unsigned i = 0; i < copies; i++)
        queue_packet(world, from, to, generation, delay_us[i], bytes, len_bytes);
}

static void hash_arrival(struct world *world, const struct event *event)
{
    uint8_t head[16];
    wire_store_u64(head, event->timed.at_us);
    wire_store_u32(head + 8, event->from);
    wire_store_u32(head + 12, event->to);
    world->hash = hash_bytes(hash_bytes(world->hash, head, sizeof head), event->bytes, event->len);
}

static void arrive(struct world *world, const struct event *event)
{
    struct node *to = &world->nodes[event->to];
    const struct node *from = &world->nodes[event->from];
    if (!to->dht || to->generation != event->to_generation || from->generation != event->from_generation) {
        world->lost++;
        return;
    }
    world->arrived++;
    to->received++;
    hash_arrival(world, event);
    if (tap_type(event->bytes, event->len) % 2 == 0) /* an answer */
        check_answered(world->check, to->number, from->number);
    if (to->trace)
        tap_arrived(world, to, event->from, event->bytes, event->len);
    if (to->liar && liar_answers(world, to, from, event->bytes, event->len))
        return;
    node_input(to, from, event->bytes, event->len);
    world_arm(world, to);
}

/* ---- timers ---- */

static bool may_act(const struct world *world, const struct node *node)
{
    return node->dht && (!world->resting || node->busy > 0);
}

static void arm_from(struct world *world, struct node *node, uint64_t earliest_us)
{
    if (!may_act(world, node))
        return;
    uint64_t next_us = node_next_us(node);
    if (next_us < earliest_us)
        next_us = earliest_us;
    if (next_us >= node->armed_us || next_us == UINT64_MAX)
        return; /* the timer comes earlier, and looks again then */
    struct event *event = wheel_make(world->wheel, 0);
    event->kind = EVENT_TIMER;
    event->to = node->number;
    event->to_generation = node->generation;
    wheel_add(world->wheel, event, next_us);
    node->armed_us = next_us;
}

void world_arm(struct world *world, struct node *node)
{
    arm_from(world, node, world->now_us);
}

static void wake(struct world *world, const struct event *event)
{
    struct node *node = &world->nodes[event->to];
    if (node->generation != event->to_generation || node->armed_us != event->timed.at_us)
        return; /* an earlier timer took its place */
    node->armed_us = UINT64_MAX;
    if (!may_act(world, node))
        return;
    if (node_next_us(node) <= world->now_us)
        node_tick(node);
    arm_from(world, node, world->now_us + 1000); /* one that wants it at once again waits for the next millisecond */
}

/* ---- the timeline ---- */

void world_call_at(struct world *world, uint64_t at_us, event_call_cb cb, void *ctx, uint64_t argument)
{
    struct event *event = wheel_make(world->wheel, sizeof event->call);
    event->kind = EVENT_CALL;
    event->call = (struct event_call){.cb = cb, .ctx = ctx, .argument = argument};
    wheel_add(world->wheel, event, at_us);
}

static void happen(struct world *world, const struct event *event)
{
    switch ((enum event_kind)event->kind) {
    case EVENT_PACKET:
        arrive(world, event);
        break;
    case EVENT_TIMER:
        wake(world, event);
        break;
    case EVENT_CALL:
        event->call.cb(world, event->call.ctx, event->call.argument);
        break;
    }
}

/* The signal is blocked and only looked at, so that a run ends between two events. The second one kills. */
static bool is_interrupted(void)
{
    sigset_t interrupt;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    struct timespec no_time = {0};
    if (sigtimedwait(&interrupt, NULL, &no_time) != SIGINT)
        return false;
    sigprocmask(SIG_UNBLOCK, &interrupt, NULL);
    return true;
}

void world_tell(struct world *world, const char *what, uint64_t at, uint64_t end)
{
    if (at % LOOK_EVERY_EVENTS != 0)
        return;
    world->stopped |= is_interrupted();
    uint64_t now_ms = machine_ms();
    if (world->options->quiet || now_ms < world->told_ms + TELL_EVERY_MS)
        return;
    double elapsed_s = (double)(now_ms - world->started_ms) / 1000;
    fprintf(stderr, "dhtsim: %.0f s: %s", elapsed_s, what);
    if (end > 0)
        fprintf(stderr, " %llu of %llu", (unsigned long long)at, (unsigned long long)end);
    fprintf(stderr, ", virtual %.1f s, %.1f M packets, %zu MiB\n", (double)world->now_us / 1e6,
            (double)world->arrived / 1e6, memory_resident() >> 20);
    world->told_ms = now_ms;
}

bool world_run_until(struct world *world, uint64_t end_us)
{
    struct event *event;
    uint64_t began_ms = machine_ms();
    while (!world->stopped && (event = wheel_take(world->wheel, end_us))) {
        world->now_us = event->timed.at_us;
        happen(world, event);
        wheel_give_back(world->wheel, event);
        world_tell(world, "running", ++world->events, 0);
    }
    world->ran_ms += machine_ms() - began_ms;
    if (!world->stopped)
        world->now_us = end_us;
    return !world->stopped;
}

bool world_run_for(struct world *world, uint64_t us)
{
    return world_run_until(world, world->now_us + us);
}

/* ---- life and death ---- */

void world_kill(struct world *world, struct node *node)
{
    if (!node->dht)
        return;
    node_stop(node);
    world->alive--;
}

void world_kill_share(struct world *world, uint64_t percent, uint64_t *stream)
{
    size_t wanted = world->alive * percent / 100;
    while (wanted > 0) {
        struct node *node = &world->nodes[random_below(stream, world->count)];
        wanted -= node->dht != NULL;
        world_kill(world, node);
    }
}

void world_revive(struct world *world, struct node *node, bool anew)
{
    if (anew) {
        check_forget(world->check, node->number);
        node_wipe(node);
        node_init(node, world, node->number, (uint16_t)(node->generation + 1));
    }
    start(world, node);
}

struct node *world_any_alive(struct world *world, uint64_t *stream, const struct node *but)
{
    for (size_t tries = 0; tries < 64 * world->count; tries++) {
        struct node *node = &world->nodes[random_below(stream, world->count)];
        if (node->dht && node != but && !node->liar)
            return node;
    }
    return NULL;
}

uint64_t world_elapsed_ms(const struct world *world)
{
    return machine_ms() - world->started_ms;
}
