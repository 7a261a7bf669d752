#include "store/pending.h"

#include <stdlib.h>

#include "node/base/crypto.h"

/* Looked up under one lock: writers wait for some 100 us at most. */
#define IDS_PER_LOCK 1024

struct store_pending_piece {
    enum store_piece_type type;
    struct id id;
    struct store_place place;
    struct store_pending_piece *next; /* of the same id; perhaps of another type: anything may be somebody's chunk */
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

struct store_pending_piece *store_pending_add(struct store *store, enum store_piece_type type, const struct id *id,
                                              const struct store_place *place)
{
    struct store_pending_piece *piece = malloc(sizeof *piece);
    if (!piece)
        return NULL;
    *piece = (struct store_pending_piece){.type = type, .id = *id, .place = *place};
    pthread_mutex_lock(&store->pending.lock);
    piece->next = map_get(&store->pending.by_id, id);
    int status = map_set(&store->pending.by_id, id, piece);
    pthread_mutex_unlock(&store->pending.lock);
    if (status == 0)
        return piece;
    free(piece);
    return NULL;
}

/* Under the lock. */
static void take_out(struct store_pending *pending, struct store_pending_piece *piece)
{
    struct store_pending_piece *first = map_get(&pending->by_id, &piece->id);
    if (first != piece) {
        while (first->next != piece)
            first = first->next;
        first->next = piece->next;
    } else if (piece->next) {
        map_set(&pending->by_id, &piece->id, piece->next); /* replacing needs no memory */
    } else {
        map_remove(&pending->by_id, &piece->id);
    }
}

void store_pending_remove(struct store *store, struct store_pending_piece *piece)
{
    if (!piece)
        return;
    pthread_mutex_lock(&store->pending.lock);
    take_out(&store->pending, piece);
    if (store->pending.by_id.count == 0) { /* an idle store needs no table */
        uint64_t seed = store->pending.by_id.seed;
        map_release(&store->pending.by_id);
        map_init(&store->pending.by_id, LIMIT_STORE_PENDING, seed);
    }
    pthread_mutex_unlock(&store->pending.lock);
    free(piece);
}

/* Under the lock. */
static const struct store_pending_piece *look_up(const struct store_pending *pending, enum store_piece_type type,
                                                 const struct id *id)
{
    const struct store_pending_piece *piece = map_get(&pending->by_id, id);
    while (piece && piece->type != type)
        piece = piece->next;
    return piece;
}

bool store_pending_find(struct store *store, enum store_piece_type type, const struct id *id,
                        struct store_place *ret_place)
{
    pthread_mutex_lock(&store->pending.lock);
    const struct store_pending_piece *piece = look_up(&store->pending, type, id);
    if (piece)
        *ret_place = piece->place;
    pthread_mutex_unlock(&store->pending.lock);
    return piece != NULL;
}

void store_pending_have(struct store *store, const struct id *ids, size_t count, uint8_t *bitmap)
{
    for (size_t first = 0; first < count; first += IDS_PER_LOCK) {
        size_t end = count - first < IDS_PER_LOCK ? count : first + IDS_PER_LOCK;
        pthread_mutex_lock(&store->pending.lock);
        bool empty = store->pending.by_id.count == 0;
        for (size_t i = first; i < end && !empty; i++)
            if (look_up(&store->pending, STORE_PIECE_CHUNK, &ids[i]))
                bitmap[i / 8] |= (uint8_t)(1u << i % 8);
        pthread_mutex_unlock(&store->pending.lock);
    }
}
