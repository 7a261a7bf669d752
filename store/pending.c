#include "store/pending.h"

#include <stdlib.h>

#include "node/base/crypto.h"

/* Looked up under one lock: writers wait for some 100 us at most. */
#define IDS_PER_LOCK 1024

struct store_pending_chunk {
    struct id id;
    struct store_place place;
    struct store_pending_chunk *next; /* of the same id */
};

void store_pending_init(struct store *store)
{
    uint64_t seed;
    crypto_random(&seed, sizeof seed);
    pthread_mutex_init(&store->pending.lock, NULL);
    map_init(&store->pending.by_id, LIMIT_STORE_PENDING, seed);
}

void store_pending_release(struct store *store)
{
    map_release(&store->pending.by_id);
    pthread_mutex_destroy(&store->pending.lock);
}

struct store_pending_chunk *store_pending_add(struct store *store, const struct id *id, const struct store_place *place)
{
    struct store_pending_chunk *chunk = malloc(sizeof *chunk);
    if (!chunk)
        return NULL;
    *chunk = (struct store_pending_chunk){.id = *id, .place = *place};
    pthread_mutex_lock(&store->pending.lock);
    chunk->next = map_get(&store->pending.by_id, id);
    int status = map_set(&store->pending.by_id, id, chunk);
    pthread_mutex_unlock(&store->pending.lock);
    if (status == 0)
        return chunk;
    free(chunk);
    return NULL;
}

/* Under the lock. */
static void take_out(struct store_pending *pending, struct store_pending_chunk *chunk)
{
    struct store_pending_chunk *first = map_get(&pending->by_id, &chunk->id);
    if (first != chunk) {
        while (first->next != chunk)
            first = first->next;
        first->next = chunk->next;
    } else if (chunk->next) {
        map_set(&pending->by_id, &chunk->id, chunk->next); /* replacing needs no memory */
    } else {
        map_remove(&pending->by_id, &chunk->id);
    }
}

void store_pending_remove(struct store *store, struct store_pending_chunk *chunk)
{
    if (!chunk)
        return;
    pthread_mutex_lock(&store->pending.lock);
    take_out(&store->pending, chunk);
    if (store->pending.by_id.count == 0) { /* an idle store needs no table */
        uint64_t seed = store->pending.by_id.seed;
        map_release(&store->pending.by_id);
        map_init(&store->pending.by_id, LIMIT_STORE_PENDING, seed);
    }
    pthread_mutex_unlock(&store->pending.lock);
    free(chunk);
}

bool store_pending_find(struct store *store, const struct id *id, struct store_place *ret_place)
{
    pthread_mutex_lock(&store->pending.lock);
    const struct store_pending_chunk *chunk = map_get(&store->pending.by_id, id);
    if (chunk)
        *ret_place = chunk->place;
    pthread_mutex_unlock(&store->pending.lock);
    return chunk != NULL;
}

void store_pending_have(struct store *store, const struct id *ids, size_t count, uint8_t *bitmap)
{
    for (size_t first = 0; first < count; first += IDS_PER_LOCK) {
        size_t end = count - first < IDS_PER_LOCK ? count : first + IDS_PER_LOCK;
        pthread_mutex_lock(&store->pending.lock);
        bool empty = store->pending.by_id.count == 0;
        for (size_t i = first; i < end && !empty; i++)
            if (map_get(&store->pending.by_id, &ids[i]))
                bitmap[i / 8] |= (uint8_t)(1u << i % 8);
        pthread_mutex_unlock(&store->pending.lock);
    }
}
