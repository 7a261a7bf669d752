#include "tools/sim/random.h"

#include <math.h>
#include <stdlib.h>

#include "tools/sim/memory.h"

uint64_t random_mix(uint64_t value)
{
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

uint64_t random_stream(uint64_t seed, enum random_purpose purpose, uint64_t number)
{
    return random_mix(random_mix(seed + 0x9e3779b97f4a7c15u * (uint64_t)(purpose + 1)) ^ number);
}

uint64_t random_next(uint64_t *state)
{
    return random_mix(*state += 0x9e3779b97f4a7c15u);
}

uint64_t random_below(uint64_t *state, uint64_t bound)
{
    return (random_next(state) >> 32) * bound >> 32;
}

int random_chance(uint64_t *state, uint32_t millionths)
{
    return millionths > 0 && random_below(state, 1000000) < millionths;
}

/* The standard normal deviate below which a share `p` lies. */
static double normal_quantile(double p)
{
    double low = -10;
    double high = 10;
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        if (erfc(-middle / sqrt(2)) / 2 < p)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Rounded to integers at once, so that the last digits of a library's exp decide nothing. */
void random_lognormal_init(struct random_lognormal *law, double sigma)
{
    for (size_t i = 0; i < RANDOM_QUANTILES; i++) {
        double z = normal_quantile(((double)i + 0.5) / RANDOM_QUANTILES);
        law->factor_16[i] = (uint64_t)llround(exp(sigma * z) * 65536);
    }
}

uint64_t random_lognormal_draw(const struct random_lognormal *law, uint64_t median, uint64_t *state)
{
    return median * law->factor_16[random_below(state, RANDOM_QUANTILES)] >> 16;
}

#define ZIPF_UNIT (1u << 20)

void random_zipf_init(struct random_zipf *zipf, size_t count)
{
    zipf->cumulated = memory_get(count * sizeof *zipf->cumulated);
    zipf->count = count;
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        zipf->cumulated[i] = sum += 1 + ZIPF_UNIT / (i + 1);
}

void random_zipf_release(struct random_zipf *zipf)
{
    free(zipf->cumulated);
}

size_t random_zipf_draw(const struct random_zipf *zipf, uint64_t *state)
{
    uint64_t drawn = random_next(state) % zipf->cumulated[zipf->count - 1];
    size_t low = 0;
    size_t high = zipf->count - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (zipf->cumulated[middle] > drawn)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}
