#include "store/tree.h"

int store_tree_place_chunk(struct store_db_txn *txn, const struct id *id, const struct store_place *place, bool create,
                           struct err *err)
{
    struct store_piece_row row = {0};
    int got = store_rows_piece_get(txn, STORE_PIECE_CHUNK, id, &row, err);
    if (got < 0)
        return got;
    if (got == 1 ? row.place.pack != 0 : !create)
        return 0;
    row.place = *place;
    int status = store_rows_piece_put(txn, STORE_PIECE_CHUNK, id, &row, err);
    if (status == 0)
        status = store_rows_place_in(txn, place, err);
    return status < 0 ? status : 1;
}

/* A leaf or root of no references. */
static int add_node(struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                    const struct store_place *place, struct err *err)
{
    struct store_piece_row row = {.place = *place};
    int status = store_rows_piece_put(txn, type, id, &row, err);
    if (status == 0)
        status = store_rows_orphan_put(txn, type, id, err);
    if (status == 0)
        status = store_rows_place_in(txn, place, err);
    return status;
}

/* The row of a leaf or root that is there already: 1 if it had lost its place and has this one now. */
static int place_again(struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                       struct store_piece_row *row, const struct store_place *place, struct err *err)
{
    if (row->place.pack != 0)
        return 0;
    row->place = *place;
    int status = store_rows_piece_put(txn, type, id, row, err);
    if (status == 0)
        status = store_rows_place_in(txn, place, err);
    return status < 0 ? status : 1;
}

int store_tree_want_chunk(struct store_db_txn *txn, const struct store_chunk *chunk, struct err *err)
{
    struct store_piece_row row = {0};
    int got = store_rows_piece_get(txn, STORE_PIECE_CHUNK, &chunk->id, &row, err);
    if (got < 0)
        return got;
    /* The length of a chunk that is still to come is hearsay: it is not written down. */
    if (row.place.pack != 0 && row.place.raw_bytes != chunk->length) {
        char text[ID_SHORT_SIZE];
        return err_set(err, ERR_CORRUPT, "a recipe gives chunk %s the length %u, here it has %u",
                       id_short(&chunk->id, text), chunk->length, row.place.raw_bytes);
    }
    if (got == 1 && row.refs == 0) {
        int status = store_rows_orphan_del(txn, STORE_PIECE_CHUNK, &chunk->id, err);
        if (status < 0)
            return status;
    }
    row.refs++;
    return store_rows_piece_put(txn, STORE_PIECE_CHUNK, &chunk->id, &row, err);
}

int store_tree_add_leaf(struct store_db_txn *txn, const struct id *id, const struct store_place *place,
                        const struct store_chunk *chunks, size_t count, struct err *err)
{
    struct store_piece_row row;
    int got = store_rows_piece_get(txn, STORE_PIECE_LEAF, id, &row, err);
    if (got != 0)
        return got < 0 ? got : place_again(txn, STORE_PIECE_LEAF, id, &row, place, err);
    int status = add_node(txn, STORE_PIECE_LEAF, id, place, err);
    for (size_t i = 0; i < count && status == 0; i++)
        status = store_tree_want_chunk(txn, &chunks[i], err);
    return status < 0 ? status : 1;
}

int store_tree_add_root(struct store_db_txn *txn, const struct id *id, const struct store_place *place,
                        const struct store_root *root, struct err *err)
{
    struct store_piece_row row;
    int got = store_rows_piece_get(txn, STORE_PIECE_ROOT, id, &row, err);
    if (got != 0)
        return got < 0 ? got : place_again(txn, STORE_PIECE_ROOT, id, &row, place, err);
    int status = add_node(txn, STORE_PIECE_ROOT, id, place, err);
    for (size_t i = 0; i < root->leaf_count && status == 0; i++)
        status = store_tree_ref(txn, STORE_PIECE_LEAF, &root->leaves[i].id, err);
    return status < 0 ? status : 1;
}

int store_tree_ref(struct store_db_txn *txn, enum store_piece_type type, const struct id *id, struct err *err)
{
    struct store_piece_row row;
    int got = store_rows_piece_get(txn, type, id, &row, err);
    if (got < 0)
        return got;
    if (got == 0) {
        char text[ID_SHORT_SIZE];
        return err_set(err, ERR_INTERNAL, "piece %s of type %d is referred to but not there", id_short(id, text), type);
    }
    if (row.refs == 0) {
        int status = store_rows_orphan_del(txn, type, id, err);
        if (status < 0)
            return status;
    }
    row.refs++;
    return store_rows_piece_put(txn, type, id, &row, err);
}

int store_tree_unref(struct store_db_txn *txn, enum store_piece_type type, const struct id *id, struct err *err)
{
    struct store_piece_row row;
    int got = store_rows_piece_get(txn, type, id, &row, err);
    if (got != 1 || row.refs == 0)
        return got < 0 ? got : 0;
    row.refs--;
    int status = store_rows_piece_put(txn, type, id, &row, err);
    if (status == 0 && row.refs == 0)
        status = store_rows_orphan_put(txn, type, id, err);
    return status;
}
