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

/* In a transaction: the object, if it is one, has lost bytes: it becomes a partial object, and broken. */
int store_objects_break(struct store_db_txn *txn, const struct id *digest, uint64_t now_ms, struct err *err);
/* The same by itself, where a read found that something is absent or has rotted. Best effort: the read has failed
 * anyway. */
void store_objects_demote(struct store *store, const struct id *digest);

/* After the commit of an object whose parts were looked up when rot.found was `found_before`: has one of them rotted
 * since, and been traced before there was an object? Then it is broken, and this is ERR_CONFLICT. */
int store_objects_check(struct store *store, const struct id *digest, uint64_t found_before, struct err *err);
