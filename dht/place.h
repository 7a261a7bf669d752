/*
 * Places in the network: Vivaldi coordinates (Dabek, Cox, Kaashoek and Morris 2004) in three dimensions and a height.
 */
#pragma once

#include "dht/dht.h"
#include "node/base/wire.h"

#define DHT_PLACE_WIRE_BYTES 8

void dht_place_put(struct buf *out, const struct dht_place *place);
struct dht_place dht_place_get(struct wire *wire);
