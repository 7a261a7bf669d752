#include "dht/numbers.h"

#define BEYOND_MAX 64

static void begin(struct dht_numbers *numbers, uint64_t next)
{
    *numbers = (struct dht_numbers){.next = next, .end = next};
}

static bool is_of_this_life(const struct dht_numbers *numbers, uint64_t number)
{
    return numbers->next >> 32 == number >> 32;
}

static void extend(struct dht_numbers *numbers, uint64_t end, uint64_t now_ms)
{
    if (end <= numbers->end)
        return;
    if (!dht_numbers_missing(numbers))
        numbers->gap_ms = now_ms;
    numbers->end = end;
}

static bool hear_one(struct dht_numbers *numbers, uint64_t number)
{
    if (number < numbers->next)
        return true;
    if (number - numbers->next >= BEYOND_MAX)
        return false;
    numbers->beyond |= 1ull << (number - numbers->next);
    for (; numbers->beyond & 1; numbers->beyond >>= 1)
        numbers->next++;
    return true;
}

bool dht_numbers_hear(struct dht_numbers *numbers, uint64_t sequence, size_t count, uint64_t now_ms)
{
    bool first = numbers->next == 0;
    bool whole = !first && is_of_this_life(numbers, sequence) && (count > 0 || sequence <= numbers->next);
    if (whole)
        extend(numbers, sequence + count, now_ms);
    for (size_t i = 0; i < count && whole; i++)
        whole = hear_one(numbers, sequence + i);
    if (!whole)
        begin(numbers, sequence + count);
    return whole || first;
}

bool dht_numbers_exist(struct dht_numbers *numbers, uint64_t end, uint64_t now_ms)
{
    bool first = numbers->next == 0;
    if (!first && is_of_this_life(numbers, end)) {
        extend(numbers, end, now_ms);
        return true;
    }
    begin(numbers, end);
    return first;
}

bool dht_numbers_missing(const struct dht_numbers *numbers)
{
    return numbers->next < numbers->end;
}

void dht_numbers_give_up(struct dht_numbers *numbers)
{
    begin(numbers, numbers->end);
}
