#include "tools/swarmsim/stage.h"

#include "node/base/limits.h"
#include "tools/sim/random.h"
#include "tools/swarmsim/node.h"

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint64_t stage_bytes_per_s(uint64_t mbit_per_s)
{
    return mbit_per_s * 1000000 / 8;
}

uint64_t stage_ideal_us(const struct swarm *swarm, uint64_t size_bytes, uint32_t first, uint32_t n_receivers)
{
    const struct wires *seed = &swarm->nodes[STAGE_SEED].wires;
    uint64_t all_up = seed->up_bytes_per_s;
    uint64_t least_down = UINT64_MAX;
    for (uint32_t i = first; i < first + n_receivers; i++) {
        const struct wires *wires = &swarm->nodes[i].wires;
        all_up += wires->up_bytes_per_s;
        if (wires->down_bytes_per_s < least_down)
            least_down = wires->down_bytes_per_s;
    }
    uint64_t once_us = size_bytes * 1000000 / seed->up_bytes_per_s;
    uint64_t slowest_us = size_bytes * 1000000 / least_down;
    uint64_t together_us = (uint64_t)((double)size_bytes * n_receivers * 1e6 / (double)all_up);
    return most(once_us, most(slowest_us, together_us));
}

void stage_init(struct swarm *swarm, const struct options *options, uint32_t n_receivers, uint32_t n_others,
                uint32_t n_objects, const uint64_t *sizes_bytes)
{
    swarm_init(swarm, options, 1 + n_receivers + n_others, n_objects, sizes_bytes);
    if (options->seed_up_mbit > 0)
        swarm->nodes[STAGE_SEED].wires.up_bytes_per_s = stage_bytes_per_s(options->seed_up_mbit);
    for (uint32_t i = 0; i < n_objects; i++)
        swarm_give(swarm, STAGE_SEED, i);
}

/* ---- trouble ---- */

static void kill_node(struct swarm *swarm, void *ctx, uint64_t unused)
{
    struct node *node = ctx;
    (void)unused;
    if (!node->exchange)
        return;
    swarm_excuse(swarm, node->number);
    node_kill(node);
}

void stage_kill_at(struct swarm *swarm, uint32_t node, uint64_t at_us)
{
    swarm_call_at(swarm, at_us, kill_node, &swarm->nodes[node], 0);
}

/* Nothing was heard of it for so long that everybody gave it up. */
static void give_up_silent(struct swarm *swarm, void *ctx, uint64_t unused)
{
    struct node *node = ctx;
    (void)unused;
    if (swarm->now_us < node->wires.silent_until_us)
        node_lose_sessions(node);
}

static void silence(struct swarm *swarm, void *ctx, uint64_t for_us)
{
    struct node *node = ctx;
    net_silence(swarm, node, swarm->now_us + for_us);
    swarm_call_at(swarm, swarm->now_us + (uint64_t)LIMIT_SESSION_DEAD_MS * 1000, give_up_silent, node, 0);
}

static void stall(struct swarm *swarm, void *ctx, uint64_t unused)
{
    (void)unused;
    swarm_excuse(swarm, ((struct node *)ctx)->number);
    silence(swarm, ctx, UINT64_C(3600) * 1000000);
}

void stage_trouble(struct swarm *swarm, uint32_t n_receivers, uint64_t ideal_us)
{
    const struct options *options = swarm->options;
    uint64_t bad = options->killed + options->stalled + options->cut;
    for (uint32_t i = 0; i < bad && i < n_receivers; i++) {
        uint32_t number = n_receivers - i; /* who they are makes no difference: all are alike */
        struct node *node = &swarm->nodes[number];
        uint64_t at_us = SWARM_START_US + ideal_us / 10 + random_below(&swarm->rng, (uint32_t)(ideal_us / 5 * 2));
        if (i < options->killed)
            stage_kill_at(swarm, number, at_us);
        else if (i < options->killed + options->stalled)
            swarm_call_at(swarm, at_us, stall, node, 0);
        else
            swarm_call_at(swarm, at_us, silence, node, options->cut_s * 1000000);
    }
    for (uint32_t i = 1 + n_receivers; i < swarm->n_nodes; i++) {
        for (uint32_t object = 0; object < swarm->catalogue.n_objects; object++)
            swarm_give(swarm, i, object);
        swarm->nodes[i].seed = false; /* what it sends is nothing */
        simstore_set_liar(swarm->nodes[i].store);
    }
}
