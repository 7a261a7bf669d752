/*
 * Ranges of keys: those that share their first so many bits. A range is told from another by its digest: of each of its
 * sixteenths a chain of BLAKE2b-128 over (what is chained so far, key, digest of the key's records) in key order, from
 * sixteen zeros on, and BLAKE2b-128 over the sixteen. Keys without records, and with leases alone, are left out, so
 * that two nodes that hold the same say the same.
 */
#include <string.h>

#include "dht/internal.h"

#define ID_BITS (ID_BYTES * 8)

static unsigned bit_of(const struct id *id, unsigned bit)
{
    return bit < ID_BITS ? (unsigned)id->b[bit / 8] >> (7 - bit % 8) & 1 : 0;
}

struct id dht_range_first(const struct id *key, unsigned bits)
{
    struct id first = {{0}};
    for (unsigned bit = 0; bit < bits; bit++)
        first.b[bit / 8] |= (uint8_t)(bit_of(key, bit) << (7 - bit % 8));
    return first;
}

struct dht_range dht_range_branch(const struct dht_range *range, unsigned branch)
{
    struct dht_range part = {range->first, range->bits + 4};
    for (unsigned i = 0; i < 4 && range->bits + i < ID_BITS; i++)
        if (branch >> (3 - i) & 1)
            part.first.b[(range->bits + i) / 8] |= (uint8_t)(0x80u >> (range->bits + i) % 8);
    return part;
}

static unsigned branch_of(const struct dht_range *range, const struct id *key)
{
    unsigned branch = 0;
    for (unsigned bit = range->bits; bit < range->bits + 4; bit++)
        branch = branch << 1 | bit_of(key, bit);
    return branch;
}

bool dht_range_has(const struct dht_range *range, const struct id *key)
{
    return dht_shared_bits(&range->first, key) >= range->bits;
}

struct dht_held *dht_range_next(struct dht *dht, const struct dht_range *range, const struct id *after)
{
    struct dht_held *held = dht_hold_next(dht, after ? after : &range->first, !after);
    return held && dht_range_has(range, &held->key) ? held : NULL;
}

void dht_digesting_init(struct dht_digesting *digesting, const struct dht_range *range)
{
    *digesting = (struct dht_digesting){.range = *range};
}

static void add_key(struct dht_digesting *digesting, const struct dht_key_digest *key)
{
    uint8_t *branch = digesting->branches[branch_of(&digesting->range, &key->key)];
    uint8_t chained[DHT_DIGEST_BYTES + sizeof *key];
    memcpy(chained, branch, DHT_DIGEST_BYTES);
    memcpy(chained + DHT_DIGEST_BYTES, key, sizeof *key);
    crypto_blake2b(branch, DHT_DIGEST_BYTES, NULL, 0, chained, sizeof chained, NULL, 0);
    if (digesting->key_count < DHT_COMPARED_KEYS)
        digesting->keys[digesting->key_count] = *key;
    digesting->key_count++;
}

bool dht_digesting_step(struct dht *dht, struct dht_digesting *digesting, size_t max)
{
    static const uint8_t nothing[DHT_DIGEST_BYTES];
    struct dht_held *held;
    while (max-- > 0) {
        held = dht_range_next(dht, &digesting->range, digesting->begun ? &digesting->cursor : NULL);
        if (!held) {
            crypto_blake2b(digesting->digest, DHT_DIGEST_BYTES, NULL, 0, digesting->branches,
                           sizeof digesting->branches, NULL, 0);
            return true;
        }
        struct dht_key_digest key = {.key = held->key};
        dht_hold_digest(dht, held, key.digest);
        digesting->begun = true;
        digesting->cursor = held->key;
        if (memcmp(key.digest, nothing, sizeof nothing) != 0)
            add_key(digesting, &key);
    }
    return false;
}
