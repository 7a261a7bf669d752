/*
 * Changes of the object table that several files make, inside or around a transaction.
 */
#pragma once

#include "store/core.h"
#include "store/rows.h"

/* In a transaction: the object exists from now on, with this root, whose reference it takes; what the row's partial
 * object referred to is given up. An object that is there stays, with the more lasting of both kinds; *info then
 * becomes what is there. */
int store_objects_commit(struct store_db_txn *txn, struct store_object_info *info, struct err *err);

/* A chunk of the object was found rotten at `place`: forget the chunk's bytes and make the object a partial one, so
 * that it can be fetched again. Best effort: the read has failed anyway. */
void store_objects_demote(struct store *store, const struct id *digest, const struct id *chunk_id,
                          const struct store_place *place);
