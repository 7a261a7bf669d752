#include "transfer/goodput.h"

#define WINDOW_MS 100u
#define WINDOW_LEAST_MS 5u /* shorter ones say nothing */

#define LONGEST_MS 8191u
#define FADE_MS 8192u /* of waiting; then all of it counts half */

static void take_sample(struct goodput *goodput, uint64_t bytes, uint64_t took_ms)
{
    uint64_t rate = bytes * 1000 / took_ms;
    /* up sooner than down: what is asked for follows it, and so does the next sample */
    unsigned parts = rate > goodput->rate ? 2 : 4;
    goodput->rate = goodput->rate ? ((parts - 1) * goodput->rate + rate) / parts : rate;
    goodput->best -= goodput->best / 64;
    if (goodput->best < goodput->rate)
        goodput->best = goodput->rate;
    goodput->measured = true;
}

void transfer_goodput_begin(struct goodput *goodput, uint64_t now_ms)
{
    *goodput = (struct goodput){.rate = goodput->rate, .best = goodput->best, .asked_ms = now_ms};
}

void transfer_goodput_add(struct goodput *goodput, uint64_t bytes, uint64_t now_ms)
{
    goodput->bytes += bytes;
    if (goodput->open) {
        goodput->window_bytes += bytes;
        if (now_ms - goodput->start_ms < WINDOW_MS)
            return;
        take_sample(goodput, goodput->window_bytes, now_ms - goodput->start_ms);
    }
    goodput->open = true;
    goodput->start_ms = now_ms;
    goodput->window_bytes = 0;
}

void transfer_goodput_end(struct goodput *goodput, uint64_t now_ms, uint32_t rtt_ms)
{
    uint64_t took = now_ms - goodput->start_ms;
    uint64_t waited = now_ms - goodput->asked_ms;
    if (goodput->open && goodput->window_bytes > 0 && took >= WINDOW_LEAST_MS)
        take_sample(goodput, goodput->window_bytes, took);
    else if (!goodput->measured && goodput->bytes > 0 && waited >= rtt_ms + WINDOW_LEAST_MS)
        take_sample(goodput, goodput->bytes, waited - rtt_ms);
    goodput->open = false;
}

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
