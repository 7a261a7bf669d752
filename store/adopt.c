#include "store/adopt.h"

#include <stdlib.h>

#include "node/base/crypto.h"
#include "node/base/scope.h"
#include "store/checksum.h"
#include "store/tree.h"

struct adoption {
    struct store_adopt *adopt;   /* borrowed */
    struct store_recipe *recipe; /* owned */
    enum store_kind kind;
    struct store_place root;
    struct store_place *leaves; /* owned; of the recipe's, in order */
    uint64_t owned_bytes;       /* of records that rows point to; set by the transaction */
};

static void adoption_release(struct adoption *adoption)
{
    store_recipe_free(adoption->recipe);
    free(adoption->leaves);
}

void store_adopt_init(struct store_adopt *adopt, struct store *store, struct store_pack *pack)
{
    *adopt = (struct store_adopt){.store = store, .pack = pack};
}

/* ---- what is there ---- */

/* The bytes of a record, if they have this digest, and their place; NULL otherwise. */
static uint8_t *take(const struct store_adopt *adopt, const struct id *id, uint64_t offset, uint32_t bytes,
                     struct store_place *ret_place)
{
    OWNED(owned_free) uint8_t *raw = malloc((size_t)bytes + 1);
    struct id found;
    if (!raw || store_pack_read(adopt->pack, offset, raw, bytes, NULL) < 0)
        return NULL;
    crypto_sha256(raw, bytes, &found);
    if (!id_equal(&found, id))
        return NULL;
    *ret_place = (struct store_place){.pack = adopt->pack->number,
                                      .offset = offset,
                                      .stored_bytes = bytes,
                                      .raw_bytes = bytes,
                                      .encoding = STORE_RAW,
                                      .checksum = store_checksum_of(raw, bytes)};
    return STEAL(raw);
}

/* The latest that was seen: what lies before may be one that was freed. */
static bool take_leaf(struct adoption *adoption, uint32_t leaf)
{
    const struct store_adopt *adopt = adoption->adopt;
    const struct id *id = &adoption->recipe->root.leaves[leaf].id;
    for (uint64_t i = 1; i <= STORE_ADOPT_LEAVES && i <= adopt->seen; i++) {
        const struct store_adopt_leaf *seen = &adopt->leaves[(adopt->seen - i) % STORE_ADOPT_LEAVES];
        if (!id_equal(&seen->id, id))
            continue;
        OWNED(owned_free) uint8_t *raw = take(adopt, id, seen->offset, seen->bytes, &adoption->leaves[leaf]);
        if (raw)
            return store_recipe_add_leaf(adoption->recipe, leaf, raw, seen->bytes, NULL) == 0;
    }
    return false;
}

static bool take_recipe(struct adoption *adoption, const struct store_record *record, uint64_t offset)
{
    OWNED(owned_free)
    uint8_t *raw = take(adoption->adopt, &record->id, offset, record->stored_bytes, &adoption->root);
    if (!raw || store_recipe_from_root(raw, record->stored_bytes, &adoption->recipe, NULL) < 0)
        return false;
    uint32_t count = adoption->recipe->root.leaf_count;
    adoption->leaves = calloc((size_t)count + 1, sizeof *adoption->leaves);
    for (uint32_t i = 0; adoption->leaves && i < count; i++)
        if (!take_leaf(adoption, i))
            return false;
    return adoption->leaves != NULL;
}

/* ---- its rows ---- */

static int is_freed(struct store_db_txn *txn, const struct store_place *place, struct err *err)
{
    return store_rows_free_overlaps(txn, place->pack, place->offset, place->offset + store_rows_place_bytes(place),
                                    err);
}

/* 1 if the object is to be left as it is: the index knows it, or the recipe was given up and waits to be punched. */
static int is_known(struct store_db_txn *txn, const struct adoption *adoption, struct err *err)
{
    const struct store_root *root = &adoption->recipe->root;
    struct store_object_info object;
    struct store_partial_info partial;
    int known = store_rows_object_get(txn, &root->object, &object, err);
    if (known == 0)
        known = store_rows_partial_get(txn, &root->object, &partial, err);
    if (known == 0)
        known = is_freed(txn, &adoption->root, err);
    for (uint32_t i = 0; i < root->leaf_count && known == 0; i++)
        known = is_freed(txn, &adoption->leaves[i], err);
    return known;
}

static int count_used(struct adoption *adoption, int used, const struct store_place *place)
{
    if (used == 1)
        adoption->owned_bytes += store_rows_place_bytes(place);
    return used < 0 ? used : 0;
}

static int write_rows(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct adoption *adoption = ctx;
    const struct store_recipe *recipe = adoption->recipe;
    adoption->owned_bytes = 0;
    int status = is_known(txn, adoption, err);
    if (status != 0)
        return status < 0 ? status : 0;
    const struct store_chunk *chunks = recipe->chunks;
    for (uint32_t i = 0; i < recipe->root.leaf_count && status == 0; i++) {
        const struct store_leaf *leaf = &recipe->root.leaves[i];
        status = store_tree_add_leaf(txn, &leaf->id, &adoption->leaves[i], chunks + leaf->first_chunk,
                                     leaf->chunk_count, err);
        status = count_used(adoption, status, &adoption->leaves[i]);
    }
    if (status == 0)
        status = count_used(adoption, store_tree_add_root(txn, &recipe->root_id, &adoption->root, &recipe->root, err),
                            &adoption->root);
    if (status == 0)
        status = store_tree_ref(txn, STORE_PIECE_ROOT, &recipe->root_id, err);
    struct store_partial_info partial = {recipe->root.object, recipe->root_id, adoption->kind,
                                         clock_wall_ms(&adoption->adopt->store->clock)};
    return status < 0 ? status : store_rows_partial_put(txn, &partial, err);
}

static int adopt_recipe(struct store_adopt *adopt, const struct store_record *record, uint64_t offset, struct err *err)
{
    OWNED(adoption_release) struct adoption adoption = {.adopt = adopt, .kind = record->kind};
    if (!store_kind_is_valid(record->kind) || !take_recipe(&adoption, record, offset))
        return 0;
    int status = store_pack_sync(adopt->pack, err);
    if (status == 0)
        status = store_db_update(adopt->store->db, write_rows, &adoption, err);
    if (status == ERR_CORRUPT) { /* it contradicts a chunk that is here, and was no recipe of true bytes */
        err_clear(err);
        return 0;
    }
    if (status < 0)
        return status;
    adopt->store->live_bytes += adoption.owned_bytes;
    return 0;
}

int store_adopt_look(struct store_adopt *adopt, const struct store_record *record, uint64_t offset, struct err *err)
{
    if (record->encoding != STORE_RAW || record->raw_bytes != record->stored_bytes)
        return 0;
    if (record->type == STORE_PIECE_LEAF)
        adopt->leaves[adopt->seen++ % STORE_ADOPT_LEAVES] =
            (struct store_adopt_leaf){record->id, offset, record->stored_bytes};
    return record->type == STORE_PIECE_ROOT && record->is_ahead ? adopt_recipe(adopt, record, offset, err) : 0;
}
