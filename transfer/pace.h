/*
 * Limits on how fast bytes go out and come in: token buckets for all of it, for each peer and for each class.
 *
 * Pure: rates, bytes and the time go in, how much may move comes out. Who moves bytes asks for room, moves some, and
 * says how many; a bucket may be overdrawn by what was moved at once and is then shut until time has made up for it, so
 * that over any length of time a rate is passed by PACE_BURST_MS of it and one such part, never by more. Buckets have
 * no rate of their own: a new limit counts from the next question on.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transfer/transfer.h"

#define PACE_BURST_MS 20      /* what a limit allows gathers for so long while nobody moves anything */
#define PACE_STEP_MS 5        /* who found no room asks again after this */
#define PACE_PART_BYTES 4096u /* the least worth moving at once: 33 ms of 1 Mbit/s that a ping waits behind */

enum pace_way { PACE_UP, PACE_DOWN, PACE_WAYS };

/* Zeroed is full. */
struct pace_bucket {
    int64_t level; /* thousandths of a byte: bytes/s x ms; negative: overdrawn */
    uint64_t at_ms;
};

struct pace {
    struct exchange_rates rates[PACE_WAYS];
    struct pace_bucket total[PACE_WAYS];
    struct pace_bucket classes[PACE_WAYS][EXCHANGE_CLASSES];
};

/* What belongs to one peer. */
struct pace_peer {
    struct pace_bucket ways[PACE_WAYS];
};

void transfer_pace_set(struct pace *pace, const struct exchange_limits *limits);

/* How many bytes of this class may move now, to or from this peer: UINT64_MAX without a limit, 0: none before time has
 * passed. More may be moved at once than there is room for. */
uint64_t transfer_pace_room(struct pace *pace, struct pace_peer *peer, enum pace_way way, unsigned class,
                            uint64_t now_ms);
void transfer_pace_take(struct pace *pace, struct pace_peer *peer, enum pace_way way, unsigned class, uint64_t bytes,
                        uint64_t now_ms);
/* What was taken and does not move after all. */
void transfer_pace_give_back(struct pace *pace, struct pace_peer *peer, enum pace_way way, unsigned class,
                             uint64_t bytes, uint64_t now_ms);

/* How much of want_bytes to move at once with so much room: little where the limit is low. 0 without room. */
size_t transfer_pace_part(uint64_t room, size_t want_bytes);

/* Is there any limit this way? Then what waits is to be looked at every PACE_STEP_MS. */
bool transfer_pace_is_limited(const struct pace *pace, enum pace_way way);
