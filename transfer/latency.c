#include "transfer/latency.h"

#define LONGEST_MS 8191u
#define FADE_MS 8192u /* of waiting; then all of it counts half */

/* The waits of bucket 2 k are shorter than 2^(k + 1/2) ms, those of 2 k + 1 shorter than 2^(k + 1). */
static unsigned bucket_of(uint32_t wait_ms)
{
    unsigned k = 31 - (unsigned)__builtin_clz(wait_ms);
    return 2 * k + ((uint64_t)wait_ms * wait_ms >> (2 * k + 1) > 0);
}

static uint64_t end_of(unsigned bucket)
{
    uint64_t start = 1ull << bucket / 2;
    return bucket % 2 ? 2 * start : start + start * 414 / 1000 + 1;
}

static void fade(struct latency *latency)
{
    latency->total_ms = 0;
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        latency->waits_ms[i] /= 2;
        latency->total_ms += latency->waits_ms[i];
    }
}

void transfer_latency_add(struct latency *latency, uint64_t wait_ms)
{
    if (wait_ms == 0)
        return;
    uint32_t wait = wait_ms < LONGEST_MS ? (uint32_t)wait_ms : LONGEST_MS;
    uint16_t *at = &latency->waits_ms[bucket_of(wait)];
    *at = (uint16_t)(*at + wait);
    latency->total_ms += wait;
    if (latency->total_ms >= FADE_MS)
        fade(latency);
}

uint64_t transfer_latency_p90_ms(const struct latency *latency)
{
    uint32_t seen = 0;
    for (unsigned i = 0; i < LATENCY_BUCKETS && latency->total_ms > 0; i++) {
        seen += latency->waits_ms[i];
        if ((uint64_t)seen * 10 >= (uint64_t)latency->total_ms * 9)
            return end_of(i);
    }
    return 0;
}
