#include <stdlib.h>

#include "node/base/scope.h"
#include "store/assembly.h"
#include "store/objects.h"
#include "store/tree.h"

/* Of an object whose recipe waits for its chunks: one leaf's worth, 128 MiB in the average. */
#define WAITS_CHUNKS STORE_LEAF_MAX_CHUNKS

static void draft_free(struct store_draft *draft)
{
    if (draft)
        store_draft_release(draft);
    free(draft);
}

OWNED_DEFINE(owned_draft, struct store_draft, draft_free)

/* Unless the object has become whole meanwhile, by somebody else. */
static int write_partial(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct store_assembly *assembly = ctx;
    struct store_object_info object;
    int whole = store_rows_object_get(txn, &assembly->digest, &object, err);
    if (whole != 0)
        return whole < 0 ? whole : 0;
    struct store_partial_info now = {.digest = assembly->digest,
                                     .root = assembly->recipe->root_id,
                                     .kind = assembly->kind,
                                     .started_ms = clock_wall_ms(&assembly->store->clock)};
    struct store_partial_info before;
    int got = store_rows_partial_get(txn, &assembly->digest, &before, err);
    if (got < 0)
        return got;
    int status = 0;
    if (got == 0 || !id_equal(&before.root, &now.root)) {
        status = store_tree_ref(txn, STORE_PIECE_ROOT, &now.root, err);
        if (status == 0 && got == 1) /* another recipe of the same object is given up; what both list stays */
            status = store_tree_unref(txn, STORE_PIECE_ROOT, &before.root, err);
    }
    return status < 0 ? status : store_rows_partial_put(txn, &now, err);
}

/* ---- the recipe ---- */

static int write_recipe(struct store_assembly *assembly, struct store_draft **ret_draft, struct err *err)
{
    const struct store_root *root = &assembly->recipe->root;
    OWNED(owned_draft) struct store_draft *draft = malloc(sizeof *draft);
    if (!draft)
        return err_set(err, ERR_NOMEM, "no memory to write a recipe");
    store_draft_init(draft, assembly->store);
    draft->is_ahead = true;
    int status = 0;
    for (uint32_t i = 0; i < root->chunk_count && status == 0; i++)
        status = store_draft_want(draft, &assembly->recipe->chunks[i], err);
    if (status == 0)
        status = store_draft_close(draft, &root->object, assembly->kind, root->chunking, err);
    if (status == 0)
        *ret_draft = STEAL(draft);
    return status;
}

/* A recipe can wait for its chunks if none of them is here, which others might free meanwhile, and if all of it is new
 * and lies in one pack, where the next start finds it. */
static bool can_wait(const struct store_assembly *assembly, const struct store_draft *draft)
{
    const struct store_batch *batch = &draft->batch;
    const struct store_root *root = &assembly->recipe->root;
    if (root->chunk_count > WAITS_CHUNKS || assembly->missing_chunks != root->chunk_count ||
        batch->count != (size_t)root->leaf_count + 1)
        return false;
    for (size_t i = 1; i < batch->count; i++)
        if (batch->entries[i].pack != batch->entries[0].pack)
            return false;
    return true;
}

/* Under sync_lock, or before others know of the assembly. */
static int record_recipe(struct store_assembly *assembly, struct store_draft *draft, struct err *err)
{
    int status = store_draft_commit(draft, write_partial, assembly, err);
    if (status == 0)
        draft->left_orphans = false;
    assembly->is_recorded = status == 0;
    return status;
}

int store_assembly_commit_recipe(struct store_assembly *assembly, bool is_here, struct err *err)
{
    OWNED(owned_draft) struct store_draft *draft = NULL;
    if (is_here) {
        int status = store_db_update(assembly->store->db, write_partial, assembly, err);
        assembly->is_recorded = status == 0;
        return status;
    }
    int status = write_recipe(assembly, &draft, err);
    if (status < 0 || !can_wait(assembly, draft))
        return status < 0 ? status : record_recipe(assembly, draft, err);
    store_batch_move(&draft->batch, &assembly->batch);
    assembly->draft = STEAL(draft);
    return 0;
}

/* ---- chunks ---- */

struct commit {
    struct store_assembly *assembly;  /* borrowed */
    struct store_batch *batch;        /* borrowed */
    struct store_object_info *object; /* borrowed; NULL: not whole yet */
};

static int write_object(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct commit *commit = ctx;
    return commit->object ? store_objects_commit(txn, commit->object, err) : write_partial(txn, commit->assembly, err);
}

static int write_chunks(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct commit *commit = ctx;
    int status = store_batch_place_chunks(commit->batch, txn, false, err);
    return status < 0 || !commit->object ? status : store_objects_commit(txn, commit->object, err);
}

static void lose(struct store_assembly *assembly, const struct store_batch *batch)
{
    pthread_mutex_lock(&assembly->lock);
    for (size_t i = 0; i < batch->count; i++)
        store_assembly_mark(assembly, &batch->entries[i].id, STORE_CHUNK_MISSING);
    pthread_mutex_unlock(&assembly->lock);
}

/* The recipe goes to disk with its first chunks, from whose batch it came. */
static int commit_with_recipe(struct commit *commit, struct err *err)
{
    struct store_assembly *assembly = commit->assembly;
    OWNED(owned_draft) struct store_draft *draft = STEAL(assembly->draft);
    store_batch_move(commit->batch, &draft->batch);
    int status = store_draft_commit(draft, write_object, commit, err);
    if (status == 0) /* the object may be here by now, with another recipe */
        draft->left_orphans = commit->object && !id_equal(&commit->object->root, &draft->root_id);
    else
        lose(assembly, &draft->batch);
    assembly->is_recorded = status == 0;
    return status;
}

static int commit_batch(struct commit *commit, struct err *err)
{
    int status = store_batch_sync(commit->batch, err);
    if (status == 0)
        status = store_db_update(commit->assembly->store->db, write_chunks, commit, err);
    if (status == 0)
        store_batch_committed(commit->batch);
    else
        lose(commit->assembly, commit->batch);
    return status;
}

/* Under sync_lock. The commit with which the recipe was to go has failed. */
static int record_again(struct store_assembly *assembly, struct err *err)
{
    OWNED(owned_draft) struct store_draft *draft = NULL;
    int status = write_recipe(assembly, &draft, err);
    return status < 0 ? status : record_recipe(assembly, draft, err);
}

/* A sync before this one may have lost some of the chunks. */
int store_assembly_commit_chunks(struct store_assembly *assembly, struct store_object_info *object, struct err *err)
{
    struct store_batch batch;
    struct commit commit = {assembly, &batch, object};
    store_batch_init(&batch, assembly->store);
    pthread_mutex_lock(&assembly->sync_lock);
    int status = assembly->draft || assembly->is_recorded ? 0 : record_again(assembly, err);
    pthread_mutex_lock(&assembly->lock);
    if (status == 0 && object)
        status = store_assembly_check_complete(assembly, err);
    if (status == 0)
        store_batch_move(&assembly->batch, &batch);
    pthread_mutex_unlock(&assembly->lock);
    if (status == 0)
        status = assembly->draft ? commit_with_recipe(&commit, err) : commit_batch(&commit, err);
    pthread_mutex_unlock(&assembly->sync_lock);
    store_batch_release(&batch);
    return store_assembly_blame_nobody(status, err);
}

void store_assembly_commit_undo(struct store_assembly *assembly)
{
    pthread_mutex_lock(&assembly->sync_lock);
    if (assembly->is_recorded)
        store_partial_drop(assembly->store, &assembly->digest, NULL);
    pthread_mutex_unlock(&assembly->sync_lock);
}

void store_assembly_commit_release(struct store_assembly *assembly)
{
    draft_free(STEAL(assembly->draft));
}
