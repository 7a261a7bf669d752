#include "dht/distance.h"

#include <endian.h>
#include <string.h>

/* The i-th 8 bytes as a number. */
static uint64_t word(const struct id *id, size_t i)
{
    uint64_t value;
    memcpy(&value, id->b + i * sizeof value, sizeof value);
    return be64toh(value);
}

unsigned dht_shared_bits(const struct id *a, const struct id *b)
{
    for (unsigned i = 0; i < ID_BYTES / 8; i++) {
        uint64_t differing = word(a, i) ^ word(b, i);
        if (differing)
            return i * 64 + (unsigned)__builtin_clzll(differing);
    }
    return ID_BYTES * 8;
}

int dht_closer(const struct id *target, const struct id *a, const struct id *b)
{
    for (size_t i = 0; i < ID_BYTES / 8; i++) {
        uint64_t from_a = word(a, i) ^ word(target, i);
        uint64_t from_b = word(b, i) ^ word(target, i);
        if (from_a != from_b)
            return from_a < from_b ? -1 : 1;
    }
    return 0;
}

bool dht_differ_at(const struct id *a, const struct id *b, unsigned bit)
{
    return (a->b[bit / 8] ^ b->b[bit / 8]) >> (7 - bit % 8) & 1;
}

struct id dht_id_apart(const struct id *id, unsigned bits, const struct rng *rng)
{
    struct id target;
    rng->fill(rng->ctx, target.b, sizeof target.b);
    memcpy(target.b, id->b, bits / 8);
    uint8_t kept = (uint8_t)(0xff00 >> (bits % 8));
    uint8_t turned = (uint8_t)(0x80 >> (bits % 8));
    uint8_t own = id->b[bits / 8];
    uint8_t random = target.b[bits / 8] & (uint8_t) ~(kept | turned);
    target.b[bits / 8] = (uint8_t)((own & kept) | (~own & turned) | random);
    return target;
}
