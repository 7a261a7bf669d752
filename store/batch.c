#include "store/batch.h"

#include <stdlib.h>

#include "node/base/crypto.h"
#include "node/base/scope.h"
#include "store/packs.h"
#include "store/pending.h"
#include "store/tree.h"

void store_batch_init(struct store_batch *batch, struct store *store)
{
    uint64_t seed;
    crypto_random(&seed, sizeof seed);
    *batch = (struct store_batch){.store = store};
    map_init(&batch->by_id, LIMIT_STORE_BATCH, seed);
}

static void clear(struct store_batch *batch)
{
    uint64_t seed = batch->by_id.seed;
    map_release(&batch->by_id);
    map_init(&batch->by_id, LIMIT_STORE_BATCH, seed);
    batch->count = 0;
    batch->bytes = 0;
}

void store_batch_release(struct store_batch *batch)
{
    store_batch_drop(batch);
    map_release(&batch->by_id);
    free(batch->entries);
    batch->entries = NULL;
}

static int make_room(struct store_batch *batch, struct err *err)
{
    if (batch->count < batch->cap)
        return 0;
    if (batch->count >= LIMIT_STORE_BATCH)
        return err_set(err, ERR_LIMIT, "more than %u records wait for one commit", LIMIT_STORE_BATCH);
    size_t cap = batch->cap ? batch->cap * 2 : 64;
    struct store_batch_entry *grown = reallocarray(batch->entries, cap, sizeof *grown);
    if (!grown)
        return err_set(err, ERR_NOMEM, "no memory for records that wait for a commit");
    batch->entries = grown;
    batch->cap = cap;
    return 0;
}

int store_batch_note(struct store_batch *batch, enum store_piece_type type, const struct id *id,
                     const struct store_place *place, struct store_pack *pack, struct err *err)
{
    int status = make_room(batch, err);
    if (status == 0 && type == STORE_PIECE_CHUNK && map_set(&batch->by_id, id, (void *)(batch->count + 1)) < 0)
        status = err_set(err, ERR_NOMEM, "no memory for records that wait for a commit");
    if (status < 0) {
        store_packs_settle_record(batch->store, pack, place, false);
        store_pack_unref(pack);
        return status;
    }
    struct store_batch_entry entry = {.type = type, .id = *id, .place = *place, .pack = pack};
    entry.pending = store_pending_add(batch->store, type, id, place);
    batch->entries[batch->count++] = entry;
    batch->bytes += store_rows_place_bytes(place);
    return 0;
}

int store_batch_write(struct store_batch *batch, const struct store_record *record, const void *body, struct err *err)
{
    struct store_place place;
    struct store_pack *pack;
    int status = store_packs_append(batch->store, record, &body, 1, &place, &pack, err);
    return status < 0 ? status : store_batch_note(batch, record->type, &record->id, &place, pack, err);
}

const struct store_batch_entry *store_batch_find(const struct store_batch *batch, const struct id *chunk_id)
{
    uintptr_t place = (uintptr_t)map_get(&batch->by_id, chunk_id);
    return place ? &batch->entries[place - 1] : NULL;
}

void store_batch_give_up(struct store_batch *batch, const struct id *chunk_id)
{
    uintptr_t place = (uintptr_t)map_get(&batch->by_id, chunk_id);
    if (place == 0)
        return;
    struct store_batch_entry *entry = &batch->entries[place - 1];
    store_pending_remove(batch->store, entry->pending);
    entry->pending = NULL;
    entry->bad = true;
    map_remove(&batch->by_id, chunk_id);
}

int store_batch_sync(struct store_batch *batch, struct err *err)
{
    struct store_pack *synced[8] = {0}; /* forgetting one costs a second sync, no more */
    size_t next = 0;
    for (size_t i = 0; i < batch->count; i++) {
        struct store_pack *pack = batch->entries[i].pack;
        bool done = false;
        for (size_t j = 0; j < 8; j++)
            done |= synced[j] == pack;
        if (done)
            continue;
        int status = store_pack_sync(pack, err);
        if (status < 0)
            return status;
        synced[next++ % 8] = pack;
    }
    return 0;
}

int store_batch_place_chunks(struct store_batch *batch, struct store_db_txn *txn, bool create, struct err *err)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct store_batch_entry *entry = &batch->entries[i];
        if (entry->type != STORE_PIECE_CHUNK || entry->bad)
            continue;
        int used = store_tree_place_chunk(txn, &entry->id, &entry->place, create, err);
        if (used < 0)
            return used;
        entry->used = used == 1;
    }
    return 0;
}

static void settle(struct store_batch *batch, bool committed)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct store_batch_entry *entry = &batch->entries[i];
        store_pending_remove(batch->store, entry->pending);
        store_packs_settle_record(batch->store, entry->pack, &entry->place, committed && entry->used);
        store_pack_unref(entry->pack);
    }
    clear(batch);
}

void store_batch_committed(struct store_batch *batch)
{
    settle(batch, true);
}

void store_batch_drop(struct store_batch *batch)
{
    settle(batch, false);
}

void store_batch_move(struct store_batch *from, struct store_batch *to)
{
    struct store_batch empty = *to;
    *to = *from;
    *from = empty;
}
