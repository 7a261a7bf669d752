#include "node/base/map.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

struct map_slot {
    struct id key;
    void *value; /* NULL: empty */
};

#define MAP_FIRST_SLOTS 16

void map_init(struct map *map, size_t max_entries, uint64_t seed)
{
    *map = (struct map){.max = max_entries, .seed = seed};
}

void map_release(struct map *map)
{
    free(map->slots);
    map_init(map, map->max, map->seed);
}

static size_t home_of(const struct map *map, const struct id *key)
{
    uint64_t word;
    memcpy(&word, key->b, sizeof word);
    word = (word ^ map->seed) * 0x9e3779b97f4a7c15u;
    return (size_t)(word >> 17) & (map->cap - 1);
}

/* The slot that holds `key`, or the empty one where it would go. */
static size_t find(const struct map *map, const struct id *key)
{
    size_t at = home_of(map, key);
    while (map->slots[at].value && !id_equal(&map->slots[at].key, key))
        at = (at + 1) & (map->cap - 1);
    return at;
}

static int grow(struct map *map)
{
    size_t cap = map->cap ? map->cap * 2 : MAP_FIRST_SLOTS;
    struct map_slot *slots = calloc(cap, sizeof *slots);
    if (!slots)
        return ERR_NOMEM;
    struct map old = *map;
    map->slots = slots;
    map->cap = cap;
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].value)
            map->slots[find(map, &old.slots[i].key)] = old.slots[i];
    free(old.slots);
    return 0;
}

void *map_get(const struct map *map, const struct id *key)
{
    return map->cap ? map->slots[find(map, key)].value : NULL;
}

int map_set(struct map *map, const struct id *key, void *value)
{
    if (map_get(map, key)) {
        map->slots[find(map, key)].value = value;
        return 0;
    }
    if (map->count >= map->max)
        return ERR_LIMIT;
    if ((map->count + 1) * 4 > map->cap * 3) {
        int status = grow(map);
        if (status < 0)
            return status;
    }
    map->slots[find(map, key)] = (struct map_slot){.key = *key, .value = value};
    map->count++;
    return 0;
}

/* Backward-shift deletion (Knuth, TAOCP vol. 3, 6.4 R): later entries of the run move up, so no tombstones gather. */
static void close_gap(struct map *map, size_t gap)
{
    size_t mask = map->cap - 1;
    for (size_t at = (gap + 1) & mask; map->slots[at].value; at = (at + 1) & mask) {
        size_t home = home_of(map, &map->slots[at].key);
        if (((at - home) & mask) >= ((at - gap) & mask)) {
            map->slots[gap] = map->slots[at];
            gap = at;
        }
    }
    map->slots[gap].value = NULL;
}

void *map_remove(struct map *map, const struct id *key)
{
    if (!map->cap)
        return NULL;
    size_t at = find(map, key);
    void *value = map->slots[at].value;
    if (value) {
        close_gap(map, at);
        map->count--;
    }
    return value;
}

bool map_next(const struct map *map, size_t *cursor, struct id *ret_key, void **ret_value)
{
    for (; *cursor < map->cap; (*cursor)++) {
        const struct map_slot *slot = &map->slots[*cursor];
        if (slot->value) {
            if (ret_key)
                *ret_key = slot->key;
            *ret_value = slot->value;
            (*cursor)++;
            return true;
        }
    }
    return false;
}
