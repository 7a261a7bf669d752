#include "store/draft.h"

#include <stdlib.h>

#include "node/base/crypto.h"
#include "node/base/scope.h"
#include "store/gc.h"
#include "store/packs.h"
#include "store/read.h"
#include "store/tree.h"

/* At the end of the leaf that passes this, what has gathered is committed: 512 MiB of new data in the average. */
#define COMMIT_CHUNKS 8192

void store_draft_init(struct store_draft *draft, struct store *store)
{
    *draft = (struct store_draft){.store = store};
    store_batch_init(&draft->batch, store);
}

static void unhold_chunks(struct store_draft *draft)
{
    for (size_t i = 0; i < draft->held_count; i++)
        store_gc_unhold(draft->store, &draft->held_chunks[i]);
    draft->held_count = 0;
}

void store_draft_release(struct store_draft *draft)
{
    store_run_release(&draft->run);
    store_batch_release(&draft->batch);
    unhold_chunks(draft);
    for (size_t i = 0; i < draft->root.leaf_count; i++)
        store_gc_unhold(draft->store, &draft->root.leaves[i].id);
    if (draft->root_is_held)
        store_gc_unhold(draft->store, &draft->root_id);
    store_root_release(&draft->root);
    free(draft->chunks);
    free(draft->leaves);
    free(draft->held_chunks);
    if (draft->left_orphans)
        store_gc_run(draft->store, NULL); /* should it fail, the next one frees them */
    else
        store_gc_run_if_passed_over(draft->store);
}

/* Room for one more of `size` bytes. */
static int grow(void *array, size_t count, size_t *cap, size_t size, struct err *err)
{
    if (count < *cap)
        return 0;
    size_t more = *cap ? *cap * 2 : 64;
    void *grown = reallocarray(*(void **)array, more, size);
    if (!grown)
        return err_set(err, ERR_NOMEM, "no memory for a recipe of %zu parts", more);
    *(void **)array = grown;
    *cap = more;
    return 0;
}

/* 1 if the piece is here, and stays because it is held now; 0 if not, and it is not held. */
static int hold_if_here(struct store *store, enum store_piece_type type, const struct id *id, struct err *err)
{
    store_gc_gate_enter(store);
    int here = store_gc_hold(store, id, err);
    if (here == 0) {
        struct store_place place;
        here = store_read_find(store, type, id, &place, err);
        if (here != 1)
            store_gc_unhold(store, id);
    }
    store_gc_gate_leave(store);
    return here;
}

/* ---- commits ---- */

struct commit {
    struct store_draft *draft;
    bool with_root;
    store_db_cb last;
    void *ctx;
};

static int add_leaves(struct store_db_txn *txn, struct store_draft *draft, struct err *err)
{
    for (size_t i = 0; i < draft->leaf_count; i++) {
        const struct store_draft_leaf *leaf = &draft->leaves[i];
        if (leaf->entry == STORE_DRAFT_HERE)
            continue;
        struct store_batch_entry *entry = &draft->batch.entries[leaf->entry];
        int used = store_tree_add_leaf(txn, &leaf->id, &entry->place, draft->chunks + leaf->first_chunk,
                                       leaf->chunk_count, err);
        if (used < 0)
            return used;
        entry->used = used == 1;
    }
    return 0;
}

static int write_commit(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct commit *commit = ctx;
    struct store_draft *draft = commit->draft;
    int status = store_batch_place_chunks(&draft->batch, txn, true, err);
    if (status == 0)
        status = add_leaves(txn, draft, err);
    if (status == 0 && commit->with_root && draft->root_entry != STORE_DRAFT_HERE) {
        struct store_batch_entry *entry = &draft->batch.entries[draft->root_entry];
        int used = store_tree_add_root(txn, &draft->root_id, &entry->place, &draft->root, err);
        entry->used = used == 1;
        status = used < 0 ? used : 0;
    }
    if (status == 0 && commit->last)
        status = commit->last(txn, commit->ctx, err);
    return status;
}

static int run_commit(struct commit *commit, struct err *err)
{
    struct store_draft *draft = commit->draft;
    int status = store_batch_sync(&draft->batch, err);
    if (status == 0)
        status = store_db_update(draft->store->db, write_commit, commit, err);
    if (status < 0)
        return status;
    store_batch_committed(&draft->batch);
    unhold_chunks(draft);
    draft->chunk_count = draft->leaf_start = draft->leaf_count = 0;
    return 0;
}

/* ---- leaves and root ---- */

/* A record of the recipe, held from now on; written unless it is here. *ret_entry: where in the batch. */
static int write_node(struct store_draft *draft, const struct store_record *record, const struct buf *bytes,
                      size_t *ret_entry, struct err *err)
{
    int here = hold_if_here(draft->store, record->type, &record->id, err);
    if (here == 0) {
        int status = store_gc_hold(draft->store, &record->id, err);
        if (status < 0)
            return status;
        status = store_batch_write(&draft->batch, record, bytes->data, err);
        if (status < 0)
            store_gc_unhold(draft->store, &record->id);
        here = status;
        *ret_entry = draft->batch.count - 1;
    } else {
        *ret_entry = STORE_DRAFT_HERE;
    }
    return here < 0 ? here : 0;
}

/* Two equal leaves of one object: the first of them is in the batch or here. */
static bool is_pending(const struct store_draft *draft, const struct id *id)
{
    for (size_t i = 0; i < draft->leaf_count; i++)
        if (id_equal(&draft->leaves[i].id, id))
            return true;
    return false;
}

static int note_leaf(struct store_draft *draft, const struct id *id, size_t entry, size_t count, struct err *err)
{
    int status = grow(&draft->root.leaves, draft->root.leaf_count, &draft->leaves_cap, sizeof *draft->root.leaves, err);
    if (status == 0)
        status = grow(&draft->leaves, draft->leaf_count, &draft->pending_leaves_cap, sizeof *draft->leaves, err);
    if (status < 0) {
        store_gc_unhold(draft->store, id);
        return status;
    }
    draft->root.leaves[draft->root.leaf_count++] =
        (struct store_leaf){.id = *id, .chunk_count = (uint32_t)count, .span_bytes = draft->leaf_span_bytes};
    draft->leaves[draft->leaf_count++] =
        (struct store_draft_leaf){.id = *id, .entry = entry, .first_chunk = draft->leaf_start, .chunk_count = count};
    draft->leaf_start = draft->chunk_count;
    draft->leaf_span_bytes = 0;
    return 0;
}

static int end_leaf(struct store_draft *draft, struct err *err)
{
    size_t count = draft->chunk_count - draft->leaf_start;
    OWNED(buf_release) struct buf bytes = BUF(STORE_LEAF_MAX_BYTES);
    int status = store_draft_flush(draft, err); /* a leaf lies behind its chunks */
    if (status == 0)
        status = store_leaf_encode(draft->chunks + draft->leaf_start, count, &bytes, err);
    if (status < 0)
        return status;
    struct store_record record = {
        .type = STORE_PIECE_LEAF, .raw_bytes = (uint32_t)bytes.len, .stored_bytes = (uint32_t)bytes.len};
    crypto_sha256(bytes.data, bytes.len, &record.id);
    size_t entry = STORE_DRAFT_HERE;
    if (is_pending(draft, &record.id))
        status = store_gc_hold(draft->store, &record.id, err);
    else
        status = write_node(draft, &record, &bytes, &entry, err);
    if (status == 0)
        status = note_leaf(draft, &record.id, entry, count, err);
    if (status == 0 && draft->chunk_count >= COMMIT_CHUNKS) {
        struct commit commit = {.draft = draft};
        status = run_commit(&commit, err);
        draft->left_orphans = true;
    }
    return status;
}

static int write_root(struct store_draft *draft, enum store_kind kind, struct err *err)
{
    OWNED(buf_release) struct buf bytes = BUF(STORE_ROOT_MAX_BYTES);
    int status = store_root_encode(&draft->root, &bytes, err);
    if (status < 0)
        return status;
    struct store_record record = {.type = STORE_PIECE_ROOT,
                                  .kind = (uint8_t)kind,
                                  .is_ahead = draft->is_ahead,
                                  .raw_bytes = (uint32_t)bytes.len,
                                  .stored_bytes = (uint32_t)bytes.len,
                                  .time_ms = clock_wall_ms(&draft->store->clock)};
    crypto_sha256(bytes.data, bytes.len, &record.id);
    status = write_node(draft, &record, &bytes, &draft->root_entry, err);
    if (status < 0)
        return status;
    draft->root_id = record.id;
    draft->root_is_held = true;
    return 0;
}

int store_draft_close(struct store_draft *draft, const struct id *object, enum store_kind kind,
                      enum store_chunking chunking, struct err *err)
{
    int status = draft->chunk_count > draft->leaf_start ? end_leaf(draft, err) : 0;
    if (status < 0)
        return status;
    draft->root.object = *object;
    draft->root.chunking = chunking;
    return write_root(draft, kind, err);
}

int store_draft_commit(struct store_draft *draft, store_db_cb last, void *ctx, struct err *err)
{
    struct commit commit = {.draft = draft, .with_root = true, .last = last, .ctx = ctx};
    int status = run_commit(&commit, err);
    if (status == 0) /* should the object be here with another recipe, this one is an orphan */
        draft->left_orphans = true;
    return status;
}

int store_draft_finish(struct store_draft *draft, const struct id *object, enum store_kind kind,
                       enum store_chunking chunking, store_db_cb last, void *ctx, struct err *err)
{
    int status = store_draft_close(draft, object, kind, chunking, err);
    return status < 0 ? status : store_draft_commit(draft, last, ctx, err);
}

/* ---- chunks ---- */

int store_draft_want(struct store_draft *draft, const struct store_chunk *chunk, struct err *err)
{
    if (draft->root.chunk_count >= LIMIT_OBJECT_CHUNKS || draft->root.size_bytes + chunk->length > LIMIT_OBJECT_BYTES)
        return err_set(err, ERR_LIMIT, "an object may have at most %u chunks and %llu bytes", LIMIT_OBJECT_CHUNKS,
                       (unsigned long long)LIMIT_OBJECT_BYTES);
    int status = grow(&draft->chunks, draft->chunk_count, &draft->chunks_cap, sizeof *draft->chunks, err);
    if (status < 0)
        return status;
    draft->chunks[draft->chunk_count++] = *chunk;
    draft->leaf_span_bytes += chunk->length;
    draft->root.chunk_count++;
    draft->root.size_bytes += chunk->length;
    bool ends = store_recipe_leaf_ends(&chunk->id, (uint32_t)(draft->chunk_count - draft->leaf_start));
    return ends ? end_leaf(draft, err) : 0;
}

static int write_chunk(struct store_draft *draft, const struct store_chunk *chunk, const void *data,
                       struct store_compress *press, struct err *err)
{
    size_t pressed_len = chunk->length;
    const uint8_t *pressed = press ? store_compress_chunk(press, data, chunk->length, &pressed_len) : NULL;
    struct store_record record = {.type = STORE_PIECE_CHUNK,
                                  .encoding = pressed ? STORE_ZSTD : STORE_RAW,
                                  .id = chunk->id,
                                  .raw_bytes = chunk->length,
                                  .stored_bytes = (uint32_t)pressed_len};
    int status = store_run_is_full(&draft->run, chunk->length) ? store_draft_flush(draft, err) : 0;
    if (status < 0)
        return status;
    return store_run_add(&draft->run, &record, pressed ? pressed : data, pressed != NULL, err);
}

int store_draft_add(struct store_draft *draft, const struct store_chunk *chunk, const void *data,
                    struct store_compress *press, struct err *err)
{
    int status = 0;
    if (!store_batch_find(&draft->batch, &chunk->id) && !store_run_has(&draft->run, &chunk->id)) {
        status = grow(&draft->held_chunks, draft->held_count, &draft->held_cap, sizeof *draft->held_chunks, err);
        int here = status < 0 ? status : hold_if_here(draft->store, STORE_PIECE_CHUNK, &chunk->id, err);
        if (here == 1)
            draft->held_chunks[draft->held_count++] = chunk->id;
        status = here == 0 ? write_chunk(draft, chunk, data, press, err) : here;
    }
    return status < 0 ? status : store_draft_want(draft, chunk, err);
}

int store_draft_flush(struct store_draft *draft, struct err *err)
{
    return store_run_write(&draft->run, &draft->batch, err);
}
