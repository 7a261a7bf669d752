/*
 * The set of packs of a store: which one is written, when the next begins, which are open for reading.
 *
 * 1. At most one pack is active. A pack that failed to sync, or is full, is never active again.
 * 2. A pack's row is in the index before its first record is written, so that no file is without a row but by accident;
 *    files without one are left alone.
 * 3. There is one struct store_pack for each pack that is being written, whoever asks.
 */
#pragma once

#include "store/core.h"
#include "store/rows.h"

void store_packs_init(struct store *store);
void store_packs_release(struct store *store);
/* After the index is open: truncate, look through and close the packs that a killed process left open. */
int store_packs_recover(struct store *store, struct err *err);
/* At an orderly end: mark as closed what has no pending records. */
void store_packs_settle(struct store *store);

/* A reference to a pack, to be given back with store_pack_unref. ERR_CORRUPT if it is missing. */
int store_packs_get(struct store *store, uint64_t number, struct store_pack **ret_pack, struct err *err);

/* Write records, at most STORE_PACK_WRITE_RECORDS, next to each other somewhere, not durably. *ret_pack is a reference.
 * ERR_NOSPACE as store.h says. */
int store_packs_append(struct store *store, const struct store_record *records, const void *const *bodies, size_t count,
                       struct store_place *ret_places, struct store_pack **ret_pack, struct err *err);
/* The record is committed, or given up: then it is punched. */
void store_packs_settle_record(struct store *store, struct store_pack *pack, const struct store_place *place,
                               bool committed);

/* Its file is not what it was: write no more to it, and open it anew to read it. */
void store_packs_retire(struct store *store, uint64_t number);
/* Delete a pack that holds nothing any more, unless it is being written. Not inside a transaction. */
int store_packs_remove_if_empty(struct store *store, uint64_t number, struct err *err);
