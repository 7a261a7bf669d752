#include "transfer/pace.h"

#define RATE_MAX (1ull << 40)       /* bytes/s; what is above is a limit of nothing */
#define ELAPSED_MAX_MS (1ull << 20) /* x RATE_MAX < 2^63 */
#define DEBT_MAX (1ll << 61)

static uint64_t rate_of(uint64_t rate)
{
    return rate < RATE_MAX ? rate : 0;
}

static int64_t burst_of(uint64_t rate)
{
    int64_t burst = (int64_t)(rate * PACE_BURST_MS);
    return burst > PACE_PART_BYTES * 1000 ? burst : PACE_PART_BYTES * 1000;
}

/* A bucket that was never used, or not for long, is full. */
static void fill(struct pace_bucket *bucket, uint64_t rate, uint64_t now_ms)
{
    uint64_t elapsed = now_ms > bucket->at_ms ? now_ms - bucket->at_ms : 0;
    if (elapsed > ELAPSED_MAX_MS)
        elapsed = ELAPSED_MAX_MS;
    bool fresh = bucket->at_ms == 0;
    int64_t full = burst_of(rate);
    bucket->level += (int64_t)(rate * elapsed);
    if (fresh || bucket->level > full)
        bucket->level = full;
    bucket->at_ms = now_ms;
}

static uint64_t room_in(struct pace_bucket *bucket, uint64_t rate, uint64_t now_ms)
{
    if (rate_of(rate) == 0)
        return UINT64_MAX;
    fill(bucket, rate, now_ms);
    return bucket->level >= 1000 ? (uint64_t)bucket->level / 1000 : 0;
}

static void change(struct pace_bucket *bucket, uint64_t rate, int64_t milli_bytes, uint64_t now_ms)
{
    if (rate_of(rate) == 0)
        return;
    fill(bucket, rate, now_ms);
    bucket->level += milli_bytes;
    if (bucket->level < -DEBT_MAX)
        bucket->level = -DEBT_MAX;
}

static void change_all(struct pace *pace, struct pace_peer *peer, enum pace_way way, unsigned class,
                       int64_t milli_bytes, uint64_t now_ms)
{
    const struct exchange_rates *rates = &pace->rates[way];
    change(&pace->total[way], rates->total, milli_bytes, now_ms);
    change(&pace->classes[way][class], rates->classes[class], milli_bytes, now_ms);
    change(&peer->ways[way], rates->peer, milli_bytes, now_ms);
}

static int64_t milli(uint64_t bytes)
{
    return (int64_t)((bytes < RATE_MAX ? bytes : RATE_MAX) * 1000);
}

void transfer_pace_set(struct pace *pace, const struct exchange_limits *limits)
{
    pace->rates[PACE_UP] = limits->up;
    pace->rates[PACE_DOWN] = limits->down;
}

uint64_t transfer_pace_room(struct pace *pace, struct pace_peer *peer, enum pace_way way, unsigned class,
                            uint64_t now_ms)
{
    const struct exchange_rates *rates = &pace->rates[way];
    uint64_t room = room_in(&pace->total[way], rates->total, now_ms);
    uint64_t of_class = room_in(&pace->classes[way][class], rates->classes[class], now_ms);
    uint64_t of_peer = room_in(&peer->ways[way], rates->peer, now_ms);
    room = room < of_class ? room : of_class;
    return room < of_peer ? room : of_peer;
}

void transfer_pace_take(struct pace *pace, struct pace_peer *peer, enum pace_way way, unsigned class, uint64_t bytes,
                        uint64_t now_ms)
{
    change_all(pace, peer, way, class, -milli(bytes), now_ms);
}

void transfer_pace_give_back(struct pace *pace, struct pace_peer *peer, enum pace_way way, unsigned class,
                             uint64_t bytes, uint64_t now_ms)
{
    change_all(pace, peer, way, class, milli(bytes), now_ms);
}

size_t transfer_pace_part(uint64_t room, size_t want_bytes)
{
    if (room == 0)
        return 0;
    uint64_t part = room > PACE_PART_BYTES ? room : PACE_PART_BYTES;
    return part < want_bytes ? (size_t)part : want_bytes;
}

bool transfer_pace_is_limited(const struct pace *pace, enum pace_way way)
{
    const struct exchange_rates *rates = &pace->rates[way];
    uint64_t any = rate_of(rates->total) | rate_of(rates->peer);
    for (unsigned i = 0; i < EXCHANGE_CLASSES; i++)
        any |= rate_of(rates->classes[i]);
    return any != 0;
}
