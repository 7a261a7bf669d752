/*
 * What is true: a sorted array of ids, which gives the exact k closest to any key.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/id.h"

struct world;

#define ORACLE_MAX 64 /* that can be asked for at once */

struct oracle_entry {
    struct id id;
    uint32_t number;
};

struct oracle {
    struct oracle_entry *entries; /* owned, sorted by id */
    size_t count;
    size_t cap;
};

void oracle_release(struct oracle *oracle);
void oracle_add(struct oracle *oracle, const struct id *id, uint32_t number);
/* After the last was added. */
void oracle_sort(struct oracle *oracle);
/* All that live now, in place of what was there; without liars unless they are asked for. */
void oracle_of_living(struct oracle *oracle, const struct world *world, bool with_liars);
/* The numbers of the closest to `target`, closest first; how many, at most `max`. */
size_t oracle_closest(const struct oracle *oracle, const struct id *target, uint32_t *ret_numbers, size_t max);
