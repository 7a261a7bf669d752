/*
 * References between pieces: objects and partial objects refer to roots, roots to leaves, leaves to chunks. A piece
 * whose count falls to zero becomes an orphan, which gc.h frees. Everything here runs inside a write transaction.
 *
 * 1. While a leaf's row exists, each chunk that it lists has a row that counts the leaf once per occurrence; so do
 *    leaves with respect to roots. A chunk's row may be there before its bytes are (place.pack is 0): it is wanted.
 * 2. Rows of roots and leaves have a place unless that has rotted (rot.h). They count what they refer to all the same.
 */
#pragma once

#include "store/rows.h"

/* A chunk's bytes were written at `place`. 1 if its row now points there, 0 if the bytes are surplus: the row points
 * to others already or, unless `create`, nobody wants the chunk. A row made here has no references yet: the leaf is
 * added in the same transaction. */
int store_tree_place_chunk(struct store_db_txn *txn, const struct id *id, const struct store_place *place, bool create,
                           struct err *err);
/* One more reference to a chunk, by a leaf; makes the row of a chunk that is still to come. ERR_CORRUPT as below. */
int store_tree_want_chunk(struct store_db_txn *txn, const struct store_chunk *chunk, struct err *err);
/* Add a leaf, an orphan at first, or a root, likewise, or give a place to one that has lost its own. 1 if its row now
 * points to `place`, 0 if it was there and `place` is surplus. ERR_CORRUPT if a chunk is known with another length. */
int store_tree_add_leaf(struct store_db_txn *txn, const struct id *id, const struct store_place *place,
                        const struct store_chunk *chunks, size_t count, struct err *err);
int store_tree_add_root(struct store_db_txn *txn, const struct id *id, const struct store_place *place,
                        const struct store_root *root, struct err *err);
int store_tree_ref(struct store_db_txn *txn, enum store_piece_type type, const struct id *id, struct err *err);
/* What is not there is fine. */
int store_tree_unref(struct store_db_txn *txn, enum store_piece_type type, const struct id *id, struct err *err);
