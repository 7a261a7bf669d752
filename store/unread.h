/*
 * Places that the disk refused to read: kept until it is known what lies there.
 *
 * Bytes that are wrong may be freed: nothing is lost with them. Bytes that cannot be read may be the right ones, and
 * be read again when a cable is in place. So their piece has no place any more, is fetched again, and its former place
 * is a row of the unread table meanwhile. The range counts as live in its pack, which therefore stays.
 *
 * A place leaves the table when it can be read and is right (the piece gets it back), when it can be read and is
 * wrong, or when nobody wants the piece, or it came again elsewhere: then it is freed like any other.
 */
#pragma once

#include "store/core.h"
#include "store/rows.h"

/* The piece is to lose this place, by the caller. Of a place that was noted before *ret_freed_bytes are freed: those
 * the caller takes from store->live_bytes when the transaction is done. */
int store_unread_note(struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                      const struct store_place *place, uint64_t *ret_freed_bytes, struct err *err);

/* Look at some of them again; what is freed is punched by the next store_gc_run. Reads at most 64 MiB, and ends when
 * the disk has refused a few. ERR_IO if it is not mounted. Not inside a transaction. */
int store_unread_sweep(struct store *store, struct err *err);
