/*
 * Records that have been written to packs and are not in the index yet. A batch is synced, then committed by a
 * transaction that places its chunks, then emptied; or it is dropped, and its records are punched. Meanwhile anybody
 * may read its pieces (pending.h). Used by one thread at a time.
 */
#pragma once

#include "store/core.h"
#include "store/rows.h"

struct store_batch_entry {
    enum store_piece_type type;
    struct id id;
    struct store_place place;
    struct store_pack *pack;             /* owned reference */
    struct store_pending_piece *pending; /* owned; by it others read them until the commit */
    bool used;                           /* set by the transaction: the index points to this record */
    bool bad;                            /* given up: it is not placed */
};

struct store_batch {
    struct store *store;               /* borrowed */
    struct store_batch_entry *entries; /* owned */
    size_t count;
    size_t cap;
    struct map by_id; /* chunk id -> place in entries, plus one */
    uint64_t bytes;
};

void store_batch_init(struct store_batch *batch, struct store *store);
/* Drops what is still in it. */
void store_batch_release(struct store_batch *batch);

/* Write a record and remember it. raw bytes are `body` itself unless encoded. */
int store_batch_write(struct store_batch *batch, const struct store_record *record, const void *body, struct err *err);
/* Remember a record that was written with store_packs_append; takes over the reference, also on failure, when the
 * record is given up. */
int store_batch_note(struct store_batch *batch, enum store_piece_type type, const struct id *id,
                     const struct store_place *place, struct store_pack *pack, struct err *err);
/* The chunk's entry, or NULL; lives until the batch changes. */
const struct store_batch_entry *store_batch_find(const struct store_batch *batch, const struct id *chunk_id);

/* The chunk's bytes have rotted before the commit: it is as if it had not been written. */
void store_batch_give_up(struct store_batch *batch, const struct id *chunk_id);

int store_batch_sync(struct store_batch *batch, struct err *err);
/* In a transaction: give the chunks their places (store_tree_place_chunk). */
int store_batch_place_chunks(struct store_batch *batch, struct store_db_txn *txn, bool create, struct err *err);
/* After the commit: count what is used, punch what was surplus, empty the batch. */
void store_batch_committed(struct store_batch *batch);
void store_batch_drop(struct store_batch *batch);
/* Move everything from one batch to another that is empty. */
void store_batch_move(struct store_batch *from, struct store_batch *to);
