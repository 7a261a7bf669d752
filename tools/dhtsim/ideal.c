/* Tables as a mesh has them that has been there for long: from the sorted ids, without a packet. */
#include <stdlib.h>

#include "node/base/wire.h"
#include "tools/dhtsim/world.h"
#include "tools/sim/memory.h"

#define BITS 64 /* of an id: a million nodes are told apart by 40 */

struct entry {
    uint64_t prefix;
    uint32_t number;
};

static int by_prefix(const void *a, const void *b)
{
    const struct entry *left = a;
    const struct entry *right = b;
    if (left->prefix != right->prefix)
        return left->prefix < right->prefix ? -1 : 1;
    return left->number < right->number ? -1 : left->number > right->number;
}

/* The subtrees that contain one entry, from all to itself alone: [low, high), and where the half with a set bit begins.
 */
struct path {
    size_t low[BITS + 1], high[BITS + 1], middle[BITS + 1];
    unsigned depth; /* the last level known */
};

static size_t first_with_bit(const struct entry *entries, size_t low, size_t high, unsigned bit)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (entries[middle].prefix >> (BITS - 1 - bit) & 1)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* From the path of an earlier entry to that of `at`: what they share is kept. */
static void descend(struct path *path, const struct entry *entries, size_t at)
{
    while (path->high[path->depth] <= at)
        path->depth--;
    while (path->depth < BITS && path->high[path->depth] - path->low[path->depth] > 1) {
        unsigned level = path->depth;
        size_t middle = first_with_bit(entries, path->low[level], path->high[level], level);
        path->middle[level] = middle;
        path->low[level + 1] = at < middle ? path->low[level] : middle;
        path->high[level + 1] = at < middle ? middle : path->high[level];
        path->depth++;
    }
}

/* Whom a node is going to meet; looked up all at once, because each is somewhere else in memory. */
struct picks {
    const struct node *nodes[BITS * DHT_REPLICAS];
    size_t count;
};

/* Up to 16 of entries[low, high), all different. */
static void pick_some(struct world *world, struct picks *picks, const struct entry *entries, size_t low, size_t high,
                      uint64_t *stream)
{
    size_t count = high - low;
    size_t picked[DHT_REPLICAS];
    size_t wanted = count < DHT_REPLICAS ? count : DHT_REPLICAS;
    for (size_t i = 0; i < wanted;) {
        picked[i] = count <= DHT_REPLICAS ? i : random_below(stream, count);
        size_t same = 0;
        while (same < i && picked[same] != picked[i])
            same++;
        if (same < i)
            continue;
        const struct node *other = &world->nodes[entries[low + picked[i]].number];
        __builtin_prefetch(other);
        __builtin_prefetch(&other->place);
        picks->nodes[picks->count++] = other;
        i++;
    }
}

static void make_table(struct world *world, struct node *node, const struct path *path, const struct entry *entries,
                       size_t at)
{
    uint64_t stream = random_stream(world->options->seed, RANDOM_TABLES, node->number);
    struct picks picks;
    picks.count = 0;
    for (unsigned level = 0; level < path->depth; level++) {
        if (at < path->middle[level])
            pick_some(world, &picks, entries, path->middle[level], path->high[level], &stream);
        else
            pick_some(world, &picks, entries, path->low[level], path->middle[level], &stream);
    }
    for (size_t i = 0; i < picks.count; i++)
        node_meet(node, picks.nodes[i]);
}

void world_make_tables(struct world *world)
{
    struct entry *entries = memory_get(world->count * sizeof *entries);
    size_t count = 0;
    for (size_t i = 0; i < world->count; i++)
        if (world->nodes[i].dht)
            entries[count++] = (struct entry){wire_load_u64(world->nodes[i].id.b), (uint32_t)i};
    qsort(entries, count, sizeof *entries, by_prefix);

    struct path path = {.high = {count}};
    for (size_t at = 0; at < count && !world->stopped; at++) {
        descend(&path, entries, at);
        make_table(world, &world->nodes[entries[at].number], &path, entries, at);
        world_tell(world, "tables", at, count);
    }
    free(entries);
}
