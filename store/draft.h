/*
 * A recipe being written into the store: chunks come one by one, leaves and root follow from them. An ingest brings the
 * chunks' bytes along; an assembly begins with a recipe whose chunks are still to come.
 *
 * What was written is in a batch until a commit; what is relied on is held. Commits happen by themselves at the ends of
 * leaves when enough has gathered, and once at the end. Used by one thread at a time.
 */
#pragma once

#include "store/batch.h"
#include "store/compress.h"
#include "store/run.h"

#define STORE_DRAFT_HERE SIZE_MAX

struct store_draft_leaf {
    struct id id;
    size_t
        entry; /* in the batch, or STORE_DRAFT_HERE: it needs no record, being in the store or earlier in this draft */
    size_t first_chunk; /* in `chunks` */
    size_t chunk_count;
};

struct store_draft {
    struct store *store; /* borrowed */
    struct store_batch batch;
    struct store_run run;   /* before it is in the batch */
    struct store_root root; /* grows by a leaf at a time */
    size_t leaves_cap;
    /* since the last commit */
    struct store_chunk *chunks; /* owned */
    size_t chunk_count;
    size_t chunks_cap;
    size_t leaf_start; /* where the present leaf begins in `chunks` */
    uint64_t leaf_span_bytes;
    struct store_draft_leaf *leaves; /* owned */
    size_t leaf_count;
    size_t pending_leaves_cap;
    struct id *held_chunks; /* owned */
    size_t held_count;
    size_t held_cap;
    bool is_ahead; /* set before the first chunk by who commits the recipe later, with chunks that are still to come */
    bool root_is_held;
    struct id root_id;
    size_t root_entry; /* as in leaves; once the root has been written */
    bool left_orphans; /* something was committed that may not become part of an object */
};

void store_draft_init(struct store_draft *draft, struct store *store);
/* Drops what was not committed, and lets go of the rest: without a finish it is freed. */
void store_draft_release(struct store_draft *draft);

/* The next chunk and its bytes, which are written unless they are here: borrowed until the next flush. press may be
 * NULL. */
int store_draft_add(struct store_draft *draft, const struct store_chunk *chunk, const void *data,
                    struct store_compress *press, struct err *err);
/* Write what was borrowed. */
int store_draft_flush(struct store_draft *draft, struct err *err);
/* The next chunk, by name: it is here or is to come. */
int store_draft_want(struct store_draft *draft, const struct store_chunk *chunk, struct err *err);

/* All chunks are there: end the last leaf and write the root. */
int store_draft_close(struct store_draft *draft, const struct id *object, enum store_kind kind,
                      enum store_chunking chunking, struct err *err);
/* Then: sync and commit, with what others have put into the batch since, which may be chunks of this recipe. `last`
 * runs at the end of the transaction, when the root has its row, and makes somebody refer to it. */
int store_draft_commit(struct store_draft *draft, store_db_cb last, void *ctx, struct err *err);
/* Both. */
int store_draft_finish(struct store_draft *draft, const struct id *object, enum store_kind kind,
                       enum store_chunking chunking, store_db_cb last, void *ctx, struct err *err);
