#include "tools/dhtsim/hash.h"

#include <endian.h>
#include <string.h>

#include "tools/sim/random.h"

/* Little-endian everywhere, so that all machines agree. */
static uint64_t load(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return le64toh(word);
}

uint64_t hash_bytes(uint64_t seed, const void *data, size_t len_bytes)
{
    const uint8_t *at = data;
    uint64_t hash = seed ^ (uint64_t)len_bytes * 0x9e3779b97f4a7c15u;
    for (; len_bytes >= 8; len_bytes -= 8, at += 8) {
        hash = (hash ^ load(at)) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 29;
    }
    uint8_t rest[8] = {0};
    memcpy(rest, at, len_bytes);
    return random_mix(hash ^ load(rest));
}
