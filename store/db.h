/*
 * The door to LMDB: one environment, a fixed set of tables, transactions as callbacks. Nothing else includes lmdb.h.
 *
 * 1. A transaction lives for one callback. Pointers got in it live until the next change in it or its end.
 * 2. A write callback may run more than once: when the map is full, the transaction is undone, the map grown and the
 *    callback run from the start. It therefore resets its outputs first, and touches nothing that lasts.
 * 3. When store_db_update returns 0 or more the change is on disk; when it returns less, nothing of it is.
 * 4. Callbacks do not start transactions of their own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"

struct store_db;
struct store_db_txn;

enum store_db_table {
    STORE_DB_META,
    STORE_DB_PIECE,
    STORE_DB_OBJECT,
    STORE_DB_PARTIAL,
    STORE_DB_PIN,
    STORE_DB_REF,
    STORE_DB_KEEP,
    STORE_DB_PACK,
    STORE_DB_FREE,
    STORE_DB_ORPHAN,
    STORE_DB_USER,
    STORE_DB_ROT,
    STORE_DB_BROKEN,
    STORE_DB_UNREAD,
    STORE_DB_TABLES
};

#define STORE_DB_KEY_MAX_BYTES 511

/* Borrowed bytes. */
struct store_span {
    const uint8_t *data;
    size_t len;
};

enum store_db_mode {
    STORE_DB_LIVE,      /* every commit is durable */
    STORE_DB_SCRATCH,   /* one that is being made and thrown away if that fails: durable after store_db_sync */
    STORE_DB_READ_ONLY, /* takes no lock and writes nothing; tables that an older format lacks are empty */
};

/* Open or make the environment in directory `path`. map_bytes: first size of the map, 0 for a default. ERR_CORRUPT if
 * the file is no usable index (damaged, cut short, another version). */
int store_db_open(const char *path, uint64_t map_bytes, enum store_db_mode mode, struct store_db **ret_db,
                  struct err *err);
int store_db_sync(struct store_db *db, struct err *err);
void store_db_close(struct store_db *db);
/* Forget readers of processes that have died. */
void store_db_check_readers(struct store_db *db);
/* How many commits ago the oldest reader that still reads began; 0: none reads. What it sees cannot be used again. */
uint64_t store_db_reader_lag(struct store_db *db);

/* A negative result of the callback undoes the transaction; the callback's result is returned. */
typedef int (*store_db_cb)(struct store_db_txn *txn, void *ctx, struct err *err);
int store_db_update(struct store_db *db, store_db_cb cb, void *ctx, struct err *err);
int store_db_view(struct store_db *db, store_db_cb cb, void *ctx, struct err *err);

/* 1 and the value, or 0. */
int store_db_get(struct store_db_txn *txn, enum store_db_table table, struct store_span key,
                 struct store_span *ret_value, struct err *err);
int store_db_put(struct store_db_txn *txn, enum store_db_table table, struct store_span key, struct store_span value,
                 struct err *err);
/* 1 if it was there, 0 if not. */
int store_db_del(struct store_db_txn *txn, enum store_db_table table, struct store_span key, struct err *err);
/* The first row whose key begins with the prefix and is >= from, or > from if `after`. 1 or 0. */
int store_db_next(struct store_db_txn *txn, enum store_db_table table, struct store_span prefix, struct store_span from,
                  bool after, struct store_span *ret_key, struct store_span *ret_value, struct err *err);
/* The last row whose key begins with the prefix, which is not empty. 1 or 0. */
int store_db_last(struct store_db_txn *txn, enum store_db_table table, struct store_span prefix,
                  struct store_span *ret_key, struct store_span *ret_value, struct err *err);
int store_db_count(struct store_db_txn *txn, enum store_db_table table, uint64_t *ret_count, struct err *err);

/* Walk over copies, with no transaction open during callbacks: these may do anything. Begins at `from`, which may be
 * empty. Ends with the callback's first result other than 0. */
typedef int (*store_db_row_cb)(struct store_span key, struct store_span value, void *ctx);
int store_db_each(struct store_db *db, enum store_db_table table, struct store_span prefix, struct store_span from,
                  store_db_row_cb cb, void *ctx, struct err *err);
