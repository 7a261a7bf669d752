/*
 * Reading pieces back, checked: by place, for those who have one, and by name.
 */
#pragma once

#include "store/core.h"
#include "store/rows.h"

/* The raw bytes of the record at `place`, checked against `id`; ret_data has room for place->raw_bytes. ERR_CORRUPT. */
int store_read_at(struct store *store, const struct store_place *place, const struct id *id, void *ret_data,
                  struct err *err);
int store_read_root_at(struct store *store, const struct store_place *place, const struct id *id,
                       struct store_root *ret_root, struct err *err);
/* chunks has room for STORE_LEAF_MAX_CHUNKS. */
int store_read_leaf_at(struct store *store, const struct store_place *place, const struct id *id,
                       struct store_chunk *ret_chunks, uint32_t *ret_count, struct err *err);

/* The checksum of the stored bytes at `place`. */
int store_read_checksum_at(struct store *store, const struct store_place *place, uint64_t *ret_checksum,
                           struct err *err);

/* Where a piece lies: 1, or 0 if it is not here (or wanted, but absent). */
int store_read_find(struct store *store, enum store_piece_type type, const struct id *id, struct store_place *ret_place,
                    struct err *err);
/* Are the root and all leaves of a recipe here? 1 or 0. */
int store_read_has_recipe(struct store *store, const struct store_recipe *recipe, struct err *err);
/* These and all chunks, durably? 1 or 0. */
int store_read_has_all(struct store *store, const struct store_recipe *recipe, struct err *err);
/* Find and read. 1, 0, or ERR_CORRUPT, when the piece has rotted and is forgotten. */
int store_read_piece(struct store *store, enum store_piece_type type, const struct id *id, void *ret_data,
                     size_t cap_bytes, struct store_place *ret_place, struct err *err);
/* 1 or 0. */
int store_read_root(struct store *store, const struct id *id, struct store_root *ret_root, struct err *err);
/* A leaf must be there: ERR_CORRUPT if not. */
int store_read_leaf(struct store *store, const struct id *id, struct store_chunk *ret_chunks, uint32_t *ret_count,
                    struct err *err);
