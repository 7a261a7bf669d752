/*
 * What an assembly consists of, for the files that make it: assembly.c (chunks come, and are checked and written) and
 * assembly_commit.c (what was written becomes durable).
 *
 * The recipe of a new object of few chunks is written at once and committed later, together with the first chunks that
 * are, or with all of them and the object: an object that comes at once costs one commit. Until then it is in `draft`,
 * its records are in `batch`, and a kill or a power cut leaves it to adopt.h.
 */
#pragma once

#include "node/base/crypto.h"
#include "store/batch.h"
#include "store/draft.h"

enum store_assembly_state { STORE_CHUNK_MISSING = 0, STORE_CHUNK_CLAIMED, STORE_CHUNK_HERE };

struct store_assembly {
    struct store *store; /* borrowed */
    struct id digest;
    enum store_kind kind;
    const struct store_recipe *recipe; /* borrowed */
    bool is_held;                      /* the root is */
    uint32_t *by_id;                   /* owned; the recipe's chunks in order of their ids */

    pthread_mutex_t lock; /* states, counts and batch */
    uint8_t *states;      /* owned; enum store_assembly_state */
    uint64_t rot_found;   /* of the store, when it was last looked up what is here */
    uint32_t missing_chunks;
    uint64_t missing_bytes;
    struct store_batch batch;

    pthread_mutex_t sync_lock; /* one sync at a time */
    struct store_draft *draft; /* owned; the recipe, if it was written and waits for a commit; under sync_lock */
    bool is_recorded;          /* the index has the recipe and the partial object; under sync_lock */

    pthread_mutex_t hash_lock;  /* hash and hashed */
    struct crypto_sha256 *hash; /* owned */
    uint32_t hashed;            /* the chunks before this one are in the hash; they fit, be they here yet or not */
};

/* Under the lock: every place of the recipe that wants this chunk. */
void store_assembly_mark(struct store_assembly *assembly, const struct id *id, enum store_assembly_state state);
/* ERR_CORRUPT of an assembly blames who sent a chunk or a recipe. What the store says of its own index or packs becomes
 * ERR_IO. */
int store_assembly_blame_nobody(int status, struct err *err);
/* Under the lock: ERR_CONFLICT while chunks are missing. */
int store_assembly_check_complete(const struct store_assembly *assembly, struct err *err);

/* ---- assembly_commit.c ---- */

/* Nothing has been added yet. `is_here`: the index has all of the recipe already. */
int store_assembly_commit_recipe(struct store_assembly *assembly, bool is_here, struct err *err);
/* What was added becomes durable, and with it the partial object or, if it is not NULL, the whole one; then all chunks
 * have to be here, and *object is what the store says of it. After a failure they are missing again. */
int store_assembly_commit_chunks(struct store_assembly *assembly, struct store_object_info *object, struct err *err);
/* The recipe lied: the partial object goes. */
void store_assembly_commit_undo(struct store_assembly *assembly);
/* A recipe that still waits is dropped; its records have gone with the batch. */
void store_assembly_commit_release(struct store_assembly *assembly);
