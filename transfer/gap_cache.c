#include "transfer/gap_cache.h"

#include <stdlib.h>
#include <string.h>

#define LEAST_BYTES 256u /* what an entry takes besides its bytes, about; so many fit at the most */

struct gap_cached {
    TAILQ_ENTRY(gap_cached)
    link;
    struct id key;
    size_t len;
    uint8_t data[];
};

void transfer_gap_cache_init(struct gap_cache *cache, size_t max_bytes, uint64_t seed)
{
    *cache = (struct gap_cache){.max_bytes = max_bytes};
    map_init(&cache->by_key, max_bytes / LEAST_BYTES, seed);
    TAILQ_INIT(&cache->used);
}

static void forget(struct gap_cache *cache, struct gap_cached *cached)
{
    map_remove(&cache->by_key, &cached->key);
    TAILQ_REMOVE(&cache->used, cached, link);
    cache->bytes -= cached->len + LEAST_BYTES;
    free(cached);
}

void transfer_gap_cache_release(struct gap_cache *cache)
{
    while (!TAILQ_EMPTY(&cache->used))
        forget(cache, TAILQ_FIRST(&cache->used));
    map_release(&cache->by_key);
}

const uint8_t *transfer_gap_cache_get(struct gap_cache *cache, const struct id *key, size_t *ret_len)
{
    struct gap_cached *cached = map_get(&cache->by_key, key);
    if (!cached)
        return NULL;
    TAILQ_REMOVE(&cache->used, cached, link);
    TAILQ_INSERT_TAIL(&cache->used, cached, link);
    *ret_len = cached->len;
    return cached->data;
}

bool transfer_gap_cache_has(const struct gap_cache *cache, const struct id *key)
{
    return map_get(&cache->by_key, key);
}

void transfer_gap_cache_put(struct gap_cache *cache, const struct id *key, const void *data, size_t len_bytes)
{
    struct gap_cached *cached = map_get(&cache->by_key, key);
    if (cached)
        forget(cache, cached);
    if (len_bytes + LEAST_BYTES > cache->max_bytes || !(cached = malloc(sizeof *cached + len_bytes)))
        return;
    while (cache->bytes + len_bytes + LEAST_BYTES > cache->max_bytes)
        forget(cache, TAILQ_FIRST(&cache->used));
    cached->key = *key;
    cached->len = len_bytes;
    memcpy(cached->data, data, len_bytes);
    if (map_set(&cache->by_key, key, cached) < 0) {
        free(cached);
        return;
    }
    TAILQ_INSERT_TAIL(&cache->used, cached, link);
    cache->bytes += len_bytes + LEAST_BYTES;
}
