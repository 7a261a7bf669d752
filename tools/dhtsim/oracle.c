#include "tools/dhtsim/oracle.h"

#include <stdlib.h>

#include "tools/dhtsim/world.h"
#include "tools/sim/memory.h"

void oracle_release(struct oracle *oracle)
{
    free(oracle->entries);
    *oracle = (struct oracle){0};
}

void oracle_add(struct oracle *oracle, const struct id *id, uint32_t number)
{
    oracle->entries = memory_grow(oracle->entries, &oracle->cap, oracle->count + 1, sizeof *oracle->entries);
    oracle->entries[oracle->count++] = (struct oracle_entry){*id, number};
}

static int by_id(const void *a, const void *b)
{
    return id_compare(&((const struct oracle_entry *)a)->id, &((const struct oracle_entry *)b)->id);
}

void oracle_sort(struct oracle *oracle)
{
    if (oracle->count > 0)
        qsort(oracle->entries, oracle->count, sizeof *oracle->entries, by_id);
}

void oracle_of_living(struct oracle *oracle, const struct world *world, bool with_liars)
{
    oracle->count = 0;
    for (size_t i = 0; i < world->count; i++)
        if (world->nodes[i].dht && (with_liars || !world->nodes[i].liar))
            oracle_add(oracle, &world->nodes[i].id, (uint32_t)i);
    oracle_sort(oracle);
}

static int bit_of(const struct id *id, unsigned bit)
{
    return id->b[bit / 8] >> (7 - bit % 8) & 1;
}

/* The smallest subtree with the target's path that has at least `max` entries: all in it are closer than all outside.
 */
static void narrow(const struct oracle *oracle, const struct id *target, size_t max, size_t *ret_low, size_t *ret_high)
{
    size_t low = 0;
    size_t high = oracle->count;
    for (unsigned bit = 0; bit < ID_BYTES * 8 && high - low > max; bit++) {
        size_t from = low;
        size_t to = high;
        while (from < to) {
            size_t middle = from + (to - from) / 2;
            if (bit_of(&oracle->entries[middle].id, bit))
                to = middle;
            else
                from = middle + 1;
        }
        size_t count = bit_of(target, bit) ? high - from : from - low;
        if (count < max)
            break;
        if (bit_of(target, bit))
            low = from;
        else
            high = from;
    }
    *ret_low = low;
    *ret_high = high;
}

static int closer(const struct id *target, const struct id *a, const struct id *b)
{
    for (size_t i = 0; i < ID_BYTES; i++) {
        int order = (a->b[i] ^ target->b[i]) - (b->b[i] ^ target->b[i]);
        if (order)
            return order;
    }
    return 0;
}

size_t oracle_closest(const struct oracle *oracle, const struct id *target, uint32_t *ret_numbers, size_t max)
{
    size_t best[ORACLE_MAX];
    size_t count = 0;
    size_t low, high;
    if (max > ORACLE_MAX)
        max = ORACLE_MAX;
    narrow(oracle, target, max, &low, &high);
    for (size_t i = low; i < high; i++) {
        size_t at = count;
        while (at > 0 && closer(target, &oracle->entries[i].id, &oracle->entries[best[at - 1]].id) < 0)
            at--;
        if (at == max)
            continue;
        count += count < max;
        for (size_t move = count - 1; move > at; move--)
            best[move] = best[move - 1];
        best[at] = i;
    }
    for (size_t i = 0; i < count; i++)
        ret_numbers[i] = oracle->entries[best[i]].number;
    return count;
}
