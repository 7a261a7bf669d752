/*
 * Bytes that took work to make or to get, by what they were made from: signatures and deltas. What is named by digests
 * never goes stale; what was not used for longest goes when there is no room.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "node/base/id.h"
#include "node/base/map.h"

struct gap_cached;
TAILQ_HEAD(gap_cached_list, gap_cached);

struct gap_cache {
    struct map by_key;
    struct gap_cached_list used; /* owned; the one used last at the end */
    size_t bytes;
    size_t max_bytes;
};

void transfer_gap_cache_init(struct gap_cache *cache, size_t max_bytes, uint64_t seed);
void transfer_gap_cache_release(struct gap_cache *cache);
/* The bytes, borrowed until the cache is next changed; NULL: not here. */
const uint8_t *transfer_gap_cache_get(struct gap_cache *cache, const struct id *key, size_t *ret_len);
bool transfer_gap_cache_has(const struct gap_cache *cache, const struct id *key);
/* Copies. Without memory, or if it is larger than the cache, nothing happens. */
void transfer_gap_cache_put(struct gap_cache *cache, const struct id *key, const void *data, size_t len_bytes);
