#include "tools/dhtsim/check.h"

#include <stdio.h>
#include <stdlib.h>

#include "tools/dhtsim/world.h"
#include "tools/sim/memory.h"

#define NODES_MAX 20000 /* x 20,000 bits = 48 MiB */
#define TOLD_MAX 10

struct check {
    size_t nodes;
    uint64_t told;
    uint64_t answered[]; /* a bit for each pair, `to` first */
};

struct check *check_new(size_t nodes)
{
    if (nodes > NODES_MAX)
        return NULL;
    struct check *check = memory_get(sizeof *check + (nodes * nodes + 63) / 64 * sizeof check->answered[0]);
    check->nodes = nodes;
    return check;
}

void check_free(struct check *check)
{
    free(check);
}

static uint64_t *word_of(struct check *check, uint32_t to, uint32_t from)
{
    return &check->answered[(to * check->nodes + from) / 64];
}

static uint64_t bit_of(const struct check *check, uint32_t to, uint32_t from)
{
    return 1ull << (to * check->nodes + from) % 64;
}

void check_answered(struct check *check, uint32_t to, uint32_t from)
{
    if (check)
        *word_of(check, to, from) |= bit_of(check, to, from);
}

void check_forget(struct check *check, uint32_t number)
{
    for (uint32_t other = 0; check && other < check->nodes; other++) {
        *word_of(check, number, other) &= ~bit_of(check, number, other);
        *word_of(check, other, number) &= ~bit_of(check, other, number);
    }
}

static bool has_answered(struct check *check, uint32_t to, uint32_t from)
{
    return *word_of(check, to, from) & bit_of(check, to, from);
}

struct looking {
    struct world *world;
    const struct node *node;
    uint64_t breaches;
};

static void tell(struct looking *looking, const char *what, uint32_t other)
{
    struct check *check = looking->world->check;
    looking->breaches++;
    if (check->told++ < TOLD_MAX)
        fprintf(stderr, "dhtsim: at %.3f s node %u %s %u\n", (double)looking->world->now_us / 1e6,
                looking->node->number, what, other);
}

static bool look_at_contact(void *ctx, const struct dht_contact *contact, unsigned rtt_ms, uint64_t heard_ms)
{
    struct looking *looking = ctx;
    uint32_t number;
    uint16_t generation;
    (void)rtt_ms;
    (void)heard_ms;
    if (!node_of_addr(&contact->addr, &number, &generation) || number >= looking->world->count)
        tell(looking, "knows an address of nobody,", 0);
    else if (looking->world->nodes[number].generation == generation &&
             !has_answered(looking->world->check, looking->node->number, number))
        tell(looking, "has in its tables, though it never answered,", number);
    return true;
}

uint64_t check_look(struct world *world)
{
    struct looking looking = {.world = world};
    for (size_t i = 0; i < world->count && world->check; i++) {
        looking.node = &world->nodes[i];
        if (!looking.node->dht)
            continue;
        node_each_contact(looking.node, look_at_contact, &looking);
        if (node_records(looking.node) > LIMIT_DHT_RECORDS)
            tell(&looking, "holds more records than it may,", 0);
    }
    return looking.breaches;
}
