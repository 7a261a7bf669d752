/*
 * Recipes: the list of an object's chunks, as bytes and in memory. Pure functions, no store and no disk, so that the
 * transfer floor can judge what a peer sends. The format is specified in docs/store-format.md.
 *
 * A recipe is one root record that names leaf records, and leaf records that name chunks. Every node derives the same
 * root from the same object, and objects that are nearly equal share most leaves: a leaf ends where a chunk id says so.
 *
 * 1. Chunk lengths are 1 to LIMIT_CHUNK_BYTES and add up to the size of the object; there are at most
 *    LIMIT_OBJECT_CHUNKS. An empty object has neither chunks nor leaves.
 * 2. Leaves end exactly where store_recipe_leaf_ends says, so one list of chunks has one encoding.
 * 3. Memory is bounded by what was checked: a root costs its own size; chunk entries (36 bytes each) are allocated for
 *    the count that the root declares only once the leaves' spans have been found consistent with it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/id.h"
#include "node/base/limits.h"

/* How an object was cut. The number is part of the recipe; cuts of one version never change (store/chunk.h). */
enum store_chunking {
    STORE_CHUNKING_ARCHIVE = 1, /* gear hash, 16/64/256 KiB */
    STORE_CHUNKING_PAGES = 2,   /* gear hash at page boundaries, 4 to 64 pages of 4096 bytes */
};
bool store_chunking_is_valid(unsigned number);

#define STORE_LEAF_MIN_CHUNKS 128u
#define STORE_LEAF_MAX_CHUNKS 2048u
#define STORE_LEAF_HEAD_BYTES 8u
#define STORE_LEAF_ENTRY_BYTES 36u
#define STORE_LEAF_MAX_BYTES (STORE_LEAF_HEAD_BYTES + STORE_LEAF_MAX_CHUNKS * STORE_LEAF_ENTRY_BYTES)
#define STORE_ROOT_HEAD_BYTES 56u
#define STORE_ROOT_ENTRY_BYTES 44u
#define STORE_ROOT_MAX_LEAVES (LIMIT_OBJECT_CHUNKS / STORE_LEAF_MIN_CHUNKS + 1)
/* 131,073 leaves x 44 bytes = 5.5 MiB, for an object of 1 TiB at the very worst; 30 KiB for one of 20 GiB. */
#define STORE_ROOT_MAX_BYTES (STORE_ROOT_HEAD_BYTES + STORE_ROOT_MAX_LEAVES * STORE_ROOT_ENTRY_BYTES)

struct store_chunk {
    struct id id; /* SHA-256 of the raw bytes */
    uint32_t length;
};

struct store_leaf {
    struct id id; /* SHA-256 of the leaf record */
    uint32_t chunk_count;
    uint64_t first_chunk; /* index of its first chunk in the object */
    uint64_t offset;      /* of its first byte in the object */
    uint64_t span_bytes;
};

/* A decoded root: what an object is, without its chunks. */
struct store_root {
    struct id object; /* SHA-256 of the whole object */
    uint64_t size_bytes;
    enum store_chunking chunking;
    uint32_t chunk_count;
    uint32_t leaf_count;
    struct store_leaf *leaves; /* owned */
};

/* ---- records ---- */

/* Does a leaf end after this chunk, being the count-th of its leaf (from 1)? The end of the object ends one too. */
bool store_recipe_leaf_ends(const struct id *chunk_id, uint32_t count_in_leaf);

/* Append the record to buf (its max at least STORE_LEAF_MAX_BYTES, STORE_ROOT_MAX_BYTES). ERR_NOMEM, ERR_LIMIT. */
int store_leaf_encode(const struct store_chunk *chunks, size_t count, struct buf *buf, struct err *err);
int store_root_encode(const struct store_root *root, struct buf *buf, struct err *err);

/* Decode hostile bytes. ERR_INVALID with the reason if they break a rule of the format; nothing is allocated then.
 * is_last: this leaf is the last of its object, so that it may be short. chunks has room for STORE_LEAF_MAX_CHUNKS. */
int store_leaf_decode(const void *data, size_t len_bytes, bool is_last, struct store_chunk *ret_chunks,
                      uint32_t *ret_count, struct err *err);
int store_root_decode(const void *data, size_t len_bytes, struct store_root *ret_root, struct err *err);
/* Safe on a zeroed struct. */
void store_root_release(struct store_root *root);
/* The leaf that holds the byte at `offset`, or NULL if offset >= size_bytes. */
const struct store_leaf *store_root_leaf_at(const struct store_root *root, uint64_t offset);

/* ---- a whole recipe in memory ---- */

struct store_recipe {
    struct id root_id; /* SHA-256 of the root record */
    struct store_root root;
    struct store_chunk *chunks; /* owned; root.chunk_count entries; those of leaves not yet added are zero */
    uint64_t *offsets;          /* owned; of each chunk in the object; set leaf by leaf */
    uint8_t *leaf_here;         /* owned; bitmap over leaves */
    uint32_t leaves_missing;
};

/* From the bytes of a root record; copies what it needs. ERR_INVALID, ERR_NOMEM. */
int store_recipe_from_root(const void *data, size_t len_bytes, struct store_recipe **ret_recipe, struct err *err);
/* Give it one leaf, in any order; adding one again is harmless. ERR_CORRUPT if the bytes are not those that the root
 * names, ERR_INVALID if they are but break a rule (then the root's maker is to blame). */
int store_recipe_add_leaf(struct store_recipe *recipe, uint32_t leaf, const void *data, size_t len_bytes,
                          struct err *err);
bool store_recipe_has_leaf(const struct store_recipe *recipe, uint32_t leaf);
bool store_recipe_complete(const struct store_recipe *recipe);
void store_recipe_free(struct store_recipe *recipe);
