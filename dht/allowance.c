/*
 * How much one sender may ask: 2,000 requests a second, and 4,000 at once. A reader on a loopback mesh of 50 needs
 * about 1,600 a second of each node for 10,000 reads a second.
 *
 * Senders are counted in a small table of slots without names: those that meet in a slot share an allowance, and nobody
 * can choose whom to meet, as the hash is seeded.
 */
#include <stdlib.h>

#include "dht/internal.h"
#include "node/base/wire.h"

#define ALLOWED_PER_MS 2
#define ALLOWED_BURST 4000
#define WAIT_MS 100

static struct dht_allowance_slot *slot_of(struct dht *dht, const struct id *from)
{
    struct dht_allowance *allowance = &dht->allowance;
    if (!allowance->slots) {
        allowance->slots = calloc(LIMIT_DHT_SOURCES, sizeof *allowance->slots);
        allowance->seed = rng_u64(&dht->config.rng);
    }
    if (!allowance->slots)
        return NULL;
    uint64_t hash = (wire_load_u64(from->b) ^ allowance->seed) * 0x9e3779b97f4a7c15u; /* Fibonacci hashing */
    return &allowance->slots[(hash >> 32) % LIMIT_DHT_SOURCES];
}

uint32_t dht_allowance_take(struct dht *dht, const struct id *from, unsigned cost)
{
    struct dht_allowance_slot *slot = slot_of(dht, from);
    if (!slot)
        return WAIT_MS;
    uint32_t now = (uint32_t)dht->now_ms; /* after 49 days of silence some of it is not given back */
    uint64_t given_back = (uint64_t)(now - slot->counted_ms) * ALLOWED_PER_MS;
    slot->used = slot->used > given_back ? slot->used - (uint32_t)given_back : 0;
    slot->counted_ms = now;
    if (slot->used >= ALLOWED_BURST)
        return WAIT_MS;
    slot->used += cost;
    return 0;
}

void dht_allowance_release(struct dht_allowance *allowance)
{
    free(allowance->slots);
}
