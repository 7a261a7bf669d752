/*
 * Regions: parts of the key space whose nodes are known for a while, so that many records are given away after one
 * walk.
 *
 * A walk to a key finds the sixteen nodes closest to it and more. Let p be the bits that the key shares with the
 * sixteenth: all nodes that share more than p with the key are among the first fifteen. So the subtree of p + 1 bits is
 * known completely, and for each key in it the closest nodes are all of those, and then some of its sibling, of which
 * enough are known. Where fewer than sixteen were found, they are everybody.
 *
 *   WALKING (lookup) ---- over ----> KNOWN ---- old, or a node of it failed, and nobody uses it ----> freed
 */
#include <stdlib.h>

#include "dht/internal.h"

#define WALK_MS 10000u
#define KNOWN_MS 30000u
#define REGIONS_KEPT 32 /* unused ones; x 2.8 KiB */

void dht_region_init(struct dht *dht)
{
    TAILQ_INIT(&dht->regions.list);
}

static void free_region(struct dht *dht, struct dht_region *region)
{
    TAILQ_REMOVE(&dht->regions.list, region, link);
    dht->regions.count--;
    if (region->lookup) {
        dht->regions.walking--;
        dht_lookup_cancel(dht, region->lookup);
    }
    free(region);
}

void dht_region_release(struct dht *dht)
{
    while (!TAILQ_EMPTY(&dht->regions.list))
        free_region(dht, TAILQ_FIRST(&dht->regions.list));
}

bool dht_region_is_known(const struct dht *dht, const struct dht_region *region)
{
    return !region->lookup && !region->spoilt && dht->now_ms < region->until_ms;
}

void dht_region_tick(struct dht *dht)
{
    struct dht_region *next;
    for (struct dht_region *region = TAILQ_FIRST(&dht->regions.list); region; region = next) {
        bool crowded = dht->regions.count > REGIONS_KEPT;
        next = TAILQ_NEXT(region, link);
        if (!region->lookup && region->users == 0 && (crowded || !dht_region_is_known(dht, region)))
            free_region(dht, region);
    }
}

bool dht_region_has(const struct dht_region *region, const struct id *key)
{
    return dht_shared_bits(&region->key, key) >= region->bits;
}

struct dht_region *dht_region_of(struct dht *dht, const struct id *key)
{
    struct dht_region *region;
    TAILQ_FOREACH (region, &dht->regions.list, link)
        if (dht_region_is_known(dht, region) && dht_region_has(region, key))
            break;
    return region;
}

/* How far what was found reaches. A walk that found fewer than the tables know has failed, and tells of its key only.
 */
static unsigned known_bits(const struct dht *dht, const struct dht_region *region)
{
    unsigned all = ID_BYTES * 8;
    unsigned shared = all;
    if (region->node_count >= DHT_REPLICAS)
        shared = dht_shared_bits(&region->key, &region->nodes[DHT_REPLICAS - 1].id);
    else if (region->node_count > 0 && region->node_count >= dht_table_count_within(&dht->table, &dht->self.id, 0))
        return 0;
    return shared < all ? shared + 1 : all;
}

static void on_walked(struct dht *dht, struct dht_lookup *lookup, void *owner)
{
    struct dht_region *region = owner;
    region->lookup = NULL;
    dht->regions.walking--;
    region->node_count = dht_lookup_closest(lookup, true, region->nodes, DHT_REGION_NODES);
    region->bits = known_bits(dht, region);
    region->until_ms = dht->now_ms + KNOWN_MS;
    region->users++;
    region->cb(dht, region, region->owner);
    region->users--;
}

struct dht_region *dht_region_walk(struct dht *dht, const struct id *key, dht_region_cb cb, void *owner)
{
    struct dht_region *region = calloc(1, sizeof *region);
    if (!region)
        return NULL;
    region->key = *key;
    region->cb = cb;
    region->owner = owner;
    region->lookup = dht_lookup_start(dht, key, DHT_WALKS, NULL, WALK_MS, on_walked, region);
    if (!region->lookup) {
        free(region);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&dht->regions.list, region, link);
    dht->regions.count++;
    dht->regions.walking++;
    return region;
}

void dht_region_changed(struct dht *dht, const struct id *node)
{
    struct dht_region *region;
    TAILQ_FOREACH (region, &dht->regions.list, link)
        region->spoilt |= !region->lookup && dht_region_has(region, node);
}
