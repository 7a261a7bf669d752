/*
 * The geometry of ids: distance is XOR, read as a 256-bit number (Maymounkov and Mazieres 2002, section 2.1).
 */
#pragma once

#include "node/base/clock.h"
#include "node/base/id.h"

/* Leading bits that two ids share: 0 to 256. */
unsigned dht_shared_bits(const struct id *a, const struct id *b);
/* Do they differ in this bit, counted from the first? */
bool dht_differ_at(const struct id *a, const struct id *b, unsigned bit);
/* Which of a and b is closer to the target: <0 if a is. */
int dht_closer(const struct id *target, const struct id *a, const struct id *b);
/* A random id that shares exactly so many leading bits with this one: 0 to 255. */
struct id dht_id_apart(const struct id *id, unsigned bits, const struct rng *rng);
