/*
 * The index, row by row: what LMDB keeps for pieces, objects, partial objects and packs, as structs. Layouts are in
 * docs/store-format.md. Every function runs inside a transaction of db.h; lookups give 1 and the row, or 0.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/db.h"
#include "store/store.h"

/* Where a piece's record lies. pack 0: nowhere, the piece is wanted but absent. */
struct store_place {
    uint64_t pack;
    uint64_t offset;
    uint32_t stored_bytes;
    uint32_t raw_bytes;
    enum store_encoding encoding;
    uint64_t checksum; /* of the stored bytes (store/checksum.h); STORE_CHECKSUM_NONE: of format 1, which has none */
};
bool store_rows_same_place(const struct store_place *a, const struct store_place *b);
/* Of the whole record, head included. */
uint64_t store_rows_place_bytes(const struct store_place *place);

struct store_piece_row {
    struct store_place place;
    uint64_t refs; /* chunks: by leaves, each occurrence; leaves: by roots; roots: by objects and partial objects */
};
int store_rows_piece_get(struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                         struct store_piece_row *ret_row, struct err *err);
bool store_rows_piece_decode(enum store_piece_type type, struct store_span value, struct store_piece_row *ret_row);
int store_rows_piece_put(struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                         const struct store_piece_row *row, struct err *err);
int store_rows_piece_del(struct store_db_txn *txn, enum store_piece_type type, const struct id *id, struct err *err);

/* Pieces of no references, to be freed unless somebody at work holds them (store/gc.h). */
int store_rows_orphan_put(struct store_db_txn *txn, enum store_piece_type type, const struct id *id, struct err *err);
int store_rows_orphan_del(struct store_db_txn *txn, enum store_piece_type type, const struct id *id, struct err *err);
#define STORE_PIECE_KEY_BYTES (1 + ID_BYTES)
/* The type and id of a key of the piece and orphan tables. */
bool store_rows_piece_key(struct store_span key, enum store_piece_type *ret_type, struct id *ret_id);

int store_rows_object_get(struct store_db_txn *txn, const struct id *digest, struct store_object_info *ret_info,
                          struct err *err);
int store_rows_object_put(struct store_db_txn *txn, const struct store_object_info *info, struct err *err);
int store_rows_object_del(struct store_db_txn *txn, const struct id *digest, struct err *err);
bool store_rows_object_decode(struct store_span key, struct store_span value, struct store_object_info *ret_info);

int store_rows_partial_get(struct store_db_txn *txn, const struct id *digest, struct store_partial_info *ret_info,
                           struct err *err);
int store_rows_partial_put(struct store_db_txn *txn, const struct store_partial_info *info, struct err *err);
int store_rows_partial_del(struct store_db_txn *txn, const struct id *digest, struct err *err);
bool store_rows_partial_decode(struct store_span key, struct store_span value, struct store_partial_info *ret_info);

struct store_pack_row {
    uint64_t number;
    uint64_t size_bytes; /* up to the end of the last committed record */
    uint64_t live_bytes; /* of records that pieces point to */
    bool open;           /* may hold records that were never committed; looked through at the next start */
};
int store_rows_pack_get(struct store_db_txn *txn, uint64_t number, struct store_pack_row *ret_row, struct err *err);
int store_rows_pack_put(struct store_db_txn *txn, const struct store_pack_row *row, struct err *err);
int store_rows_pack_del(struct store_db_txn *txn, uint64_t number, struct err *err);
bool store_rows_pack_decode(struct store_span key, struct store_span value, struct store_pack_row *ret_row);

/* Count a record in its pack, or out of it; out of it also notes the range as one to be punched. */
int store_rows_place_in(struct store_db_txn *txn, const struct store_place *place, struct err *err);
int store_rows_place_out(struct store_db_txn *txn, const struct store_place *place, struct err *err);

/* Pieces whose bytes have rotted, until somebody takes the finding. */
int store_rows_rot_get(struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                       struct store_rot *ret_rot, struct err *err);
int store_rows_rot_put(struct store_db_txn *txn, const struct store_rot *rot, struct err *err);
int store_rows_rot_del(struct store_db_txn *txn, const struct store_rot *rot, struct err *err);
bool store_rows_rot_decode(struct store_span key, struct store_span value, struct store_rot *ret_rot);

/* Places that the disk refuses to read (unread.h). */
struct store_unread {
    enum store_piece_type type;
    struct id id; /* of the piece */
    struct store_place place;
};
int store_rows_unread_get(struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                          struct store_unread *ret_unread, struct err *err);
int store_rows_unread_put(struct store_db_txn *txn, const struct store_unread *unread, struct err *err);
int store_rows_unread_del(struct store_db_txn *txn, const struct store_unread *unread, struct err *err);
bool store_rows_unread_decode(struct store_span key, struct store_span value, struct store_unread *ret_unread);

/* Objects that were complete and are to be repaired. */
int store_rows_broken_get(struct store_db_txn *txn, const struct id *digest, struct store_broken *ret_broken,
                          struct err *err);
int store_rows_broken_put(struct store_db_txn *txn, const struct store_broken *broken, struct err *err);
int store_rows_broken_del(struct store_db_txn *txn, const struct id *digest, struct err *err);
bool store_rows_broken_decode(struct store_span key, struct store_span value, struct store_broken *ret_broken);

/* A range to be punched. */
struct store_free_row {
    uint64_t pack;
    uint64_t offset;
    uint64_t len_bytes;
};
bool store_rows_free_decode(struct store_span key, struct store_span value, struct store_free_row *ret_row);
/* 1 if one has any of the bytes from `offset` to `end`, or 0. */
int store_rows_free_overlaps(struct store_db_txn *txn, uint64_t pack, uint64_t offset, uint64_t end, struct err *err);
int store_rows_free_del(struct store_db_txn *txn, const struct store_free_row *row, struct err *err);
