#include "tools/sim/sample.h"

#include <stdlib.h>

#include "tools/sim/memory.h"

void sample_release(struct sample *sample)
{
    free(sample->values);
    *sample = (struct sample){0};
}

void sample_add(struct sample *sample, uint64_t value)
{
    sample->values = memory_grow(sample->values, &sample->cap, sample->count + 1, sizeof *sample->values);
    sample->values[sample->count++] = value;
}

double sample_mean(const struct sample *sample)
{
    double sum = 0;
    for (size_t i = 0; i < sample->count; i++)
        sum += (double)sample->values[i];
    return sample->count > 0 ? sum / (double)sample->count : 0;
}

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static void sort(struct sample *sample)
{
    if (sample->count > 0)
        qsort(sample->values, sample->count, sizeof *sample->values, by_value);
}

uint64_t sample_permille(struct sample *sample, unsigned permille)
{
    if (sample->count == 0)
        return 0;
    sort(sample);
    size_t rank = (sample->count * permille + 999) / 1000;
    return sample->values[rank > 0 ? rank - 1 : 0];
}

size_t sample_up_to(struct sample *sample, uint64_t bound)
{
    size_t low = 0;
    size_t high = sample->count;
    sort(sample);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (sample->values[middle] <= bound)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

double sample_gini(struct sample *sample)
{
    double sum = 0;
    double weighted = 0;
    sort(sample);
    for (size_t i = 0; i < sample->count; i++) {
        sum += (double)sample->values[i];
        weighted += (double)(i + 1) * (double)sample->values[i];
    }
    double count = (double)sample->count;
    return sum > 0 ? 2 * weighted / (count * sum) - (count + 1) / count : 0;
}
