/*
 * The store as the simulator has it: struct store of store/store.h, as bitmaps over objects that exist but have no
 * bytes. store.c defines those functions of store/store.h that the transfer floor calls, and so takes the place of the
 * real ones in this program; recipes are the real ones.
 *
 * A chunk travels as STORE_ZSTD with a stored form of 8 bytes that say which chunk it is: what is sent is counted and
 * charged by its raw bytes, and nothing is copied.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/map.h"
#include "store/store.h"

#define CATALOGUE_CHUNK_BYTES LIMIT_CHUNK_BYTES

/* What exists in the world, the same for all nodes. */
struct catalogue {
    struct catalogue_object *objects; /* owned */
    uint32_t n_objects;
    struct map records; /* id of a leaf or root -> struct catalogue_record */
};

struct catalogue_object {
    uint64_t size_bytes;
    uint32_t number;
    struct id digest;
    struct store_recipe *recipe;      /* owned; complete */
    struct catalogue_record *records; /* owned; the root, then the leaves */
};

struct catalogue_record {
    uint32_t object;
    enum store_piece_type type;
    uint8_t *data; /* owned */
    size_t len;
};

void catalogue_init(struct catalogue *catalogue, uint32_t n_objects, const uint64_t *sizes_bytes, uint64_t seed);
void catalogue_release(struct catalogue *catalogue);
/* Its number, or UINT32_MAX. */
uint32_t catalogue_find(const struct catalogue *catalogue, const struct id *digest);

/* Empty. */
struct store *simstore_new(const struct catalogue *catalogue);
void simstore_free(struct store *store);
/* The store has all of the object. */
void simstore_fill(struct store *store, uint32_t object);
/* From now on it gives chunks that are not those that were asked for. */
void simstore_set_liar(struct store *store);
