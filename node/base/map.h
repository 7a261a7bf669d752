/*
 * A hash map from a 256-bit id to a pointer, with a maximum. Open addressing, so that lookups touch one cache line in
 * the common case; ids are hashes or are checked against attackers by their owner, so their first bytes are the hash,
 * mixed with a seed that the maker gives.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/id.h"

struct map_slot;

struct map {
    struct map_slot *slots; /* owned */
    size_t cap;             /* power of two, or 0 */
    size_t count;
    size_t max;
    uint64_t seed;
};

/* An empty map of at most max_entries. Allocates nothing. */
void map_init(struct map *map, size_t max_entries, uint64_t seed);
/* Free the table, not the values. */
void map_release(struct map *map);

/* The value, or NULL. */
void *map_get(const struct map *map, const struct id *key);
/* Set or replace; value is not NULL and stays the caller's. 0, ERR_LIMIT or ERR_NOMEM. */
int map_set(struct map *map, const struct id *key, void *value);
/* Take out and return the value, or NULL. */
void *map_remove(struct map *map, const struct id *key);

/* Walk: start with *cursor = 0; false at the end. The map may not change during a walk, but for removing the entry
 * just returned when the walk then starts again. */
bool map_next(const struct map *map, size_t *cursor, struct id *ret_key, void **ret_value);
