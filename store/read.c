#include "store/read.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/scope.h"
#include "store/checksum.h"
#include "store/compress.h"
#include "store/packs.h"
#include "store/pending.h"
#include "store/rot.h"

/* A piece that was freed and stored again while it was being read is looked up anew; more often than this it does not
 * happen to the same reader. */
#define TRIES 4

OWNED_DEFINE(owned_pack, struct store_pack, store_pack_unref)
OWNED_DEFINE(owned_recipe, struct store_recipe, store_recipe_free)

int store_decode(enum store_encoding encoding, const void *data, size_t len_bytes, void *ret_data, size_t raw_bytes,
                 struct err *err)
{
    if (encoding == STORE_ZSTD)
        return store_compress_undo(data, len_bytes, ret_data, raw_bytes, err);
    if (encoding != STORE_RAW)
        return err_set(err, ERR_CORRUPT, "a chunk has the unknown encoding %d", (int)encoding);
    if (len_bytes != raw_bytes)
        return err_set(err, ERR_CORRUPT, "a chunk has %zu bytes, not %zu", len_bytes, raw_bytes);
    if (len_bytes > 0)
        memcpy(ret_data, data, len_bytes);
    return 0;
}

/* ---- by place ---- */

static int read_raw(struct store *store, const struct store_place *place, void *ret_data, struct err *err)
{
    OWNED(owned_pack) struct store_pack *pack = NULL;
    int status = store_packs_get(store, place->pack, &pack, err);
    if (status < 0)
        return status;
    if (place->encoding == STORE_RAW && place->stored_bytes == place->raw_bytes)
        return store_pack_read(pack, place->offset, ret_data, place->raw_bytes, err);
    OWNED(owned_free) uint8_t *stored = malloc(place->stored_bytes + 1);
    if (!stored)
        return err_set(err, ERR_NOMEM, "no memory to read a chunk");
    status = store_pack_read(pack, place->offset, stored, place->stored_bytes, err);
    return status < 0 ? status
                      : store_decode(place->encoding, stored, place->stored_bytes, ret_data, place->raw_bytes, err);
}

static int rotten(const struct store_place *place, const struct id *id, struct err *err)
{
    char text[ID_HEX_SIZE];
    return err_set(err, ERR_CORRUPT, "piece %s has rotted in pack %016llx at byte %llu", id_hex(id, text),
                   (unsigned long long)place->pack, (unsigned long long)place->offset);
}

int store_read_at(struct store *store, const struct store_place *place, const struct id *id, void *ret_data,
                  struct err *err)
{
    char text[ID_HEX_SIZE];
    int status = read_raw(store, place, ret_data, err);
    if (status < 0) {
        err_wrap(err, "cannot read piece %s", id_hex(id, text));
        return status;
    }
    struct id found;
    crypto_sha256(ret_data, place->raw_bytes, &found);
    return id_equal(&found, id) ? 0 : rotten(place, id, err);
}

int store_read_root_at(struct store *store, const struct store_place *place, const struct id *id,
                       struct store_root *ret_root, struct err *err)
{
    OWNED(owned_free) uint8_t *bytes = malloc(place->raw_bytes + 1);
    if (!bytes)
        return err_set(err, ERR_NOMEM, "no memory to read a recipe");
    int status = store_read_at(store, place, id, bytes, err);
    return status < 0 ? status : store_root_decode(bytes, place->raw_bytes, ret_root, err);
}

int store_read_leaf_at(struct store *store, const struct store_place *place, const struct id *id,
                       struct store_chunk *ret_chunks, uint32_t *ret_count, struct err *err)
{
    OWNED(owned_free) uint8_t *bytes = malloc(place->raw_bytes + 1);
    if (!bytes)
        return err_set(err, ERR_NOMEM, "no memory to read a recipe");
    int status = store_read_at(store, place, id, bytes, err);
    /* Whether it may be short was judged when it was stored. */
    return status < 0 ? status : store_leaf_decode(bytes, place->raw_bytes, true, ret_chunks, ret_count, err);
}

int store_read_checksum_at(struct store *store, const struct store_place *place, uint64_t *ret_checksum,
                           struct err *err)
{
    OWNED(owned_pack) struct store_pack *pack = NULL;
    OWNED(owned_free) uint8_t *stored = malloc(place->stored_bytes + 1);
    if (!stored)
        return err_set(err, ERR_NOMEM, "no memory to read a piece");
    int status = store_packs_get(store, place->pack, &pack, err);
    if (status == 0)
        status = store_pack_read(pack, place->offset, stored, place->stored_bytes, err);
    if (status == 0)
        *ret_checksum = store_checksum_of(stored, place->stored_bytes);
    return status;
}

/* ---- by name ---- */

struct find {
    enum store_piece_type type;
    const struct id *id;
    struct store_piece_row row;
};

static int find_row(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct find *find = ctx;
    int got = store_rows_piece_get(txn, find->type, find->id, &find->row, err);
    return got == 1 ? find->row.place.pack != 0 : got;
}

int store_read_find(struct store *store, enum store_piece_type type, const struct id *id, struct store_place *ret_place,
                    struct err *err)
{
    struct find find = {.type = type, .id = id};
    int got = store_db_view(store->db, find_row, &find, err);
    if (got == 1)
        *ret_place = find.row.place;
    return got;
}

typedef int (*read_cb)(struct store *store, const struct store_place *place, const struct id *id, void *ret_data,
                       struct err *err);

/* Where the bytes of a piece can be read now, be they durable or not: what is committed between the two looks is in the
 * index by the second. */
static int find_readable(struct store *store, enum store_piece_type type, const struct id *id,
                         struct store_place *ret_place, struct err *err)
{
    if (store_pending_find(store, type, id, ret_place))
        return 1;
    return store_read_find(store, type, id, ret_place, err);
}

/* Bytes that were freed between the lookup and the read look like rot. It is rot if they are bad twice, and the index
 * pointed to them in between: they were not freed before the first time then. A disk that gives them at the third look,
 * again and again, is in trouble, but has lost nothing. */
static int find_and_read(struct store *store, enum store_piece_type type, const struct id *id, read_cb read,
                         void *ret_data, size_t cap_bytes, struct store_place *ret_place, struct err *err)
{
    struct store_place before = {0};
    int status = 0;
    for (int i = 0; i < TRIES; i++) {
        struct store_place place;
        int got = find_readable(store, type, id, &place, status < 0 ? NULL : err);
        if (got != 1)
            return got;
        if (place.raw_bytes > cap_bytes || place.stored_bytes > cap_bytes)
            return err_set(err, ERR_LIMIT, "a piece of %u bytes does not fit into %zu", place.raw_bytes, cap_bytes);
        status = read(store, &place, id, ret_data, err);
        *ret_place = place;
        if (status != ERR_CORRUPT)
            return status < 0 ? status : 1;
        if (store_rows_same_place(&before, &place)) {
            status = store_rot_found(store, type, id, &place, err);
            if (status < 0)
                return status;
            status = err_set(err, ERR_IO, "a piece can be read at one time and not at another");
            place.pack = 0;
        }
        before = place;
    }
    return status;
}

int store_read_piece(struct store *store, enum store_piece_type type, const struct id *id, void *ret_data,
                     size_t cap_bytes, struct store_place *ret_place, struct err *err)
{
    return find_and_read(store, type, id, store_read_at, ret_data, cap_bytes, ret_place, err);
}

int store_piece_read_raw(struct store *store, enum store_piece_type type, const struct id *id, void *ret_data,
                         size_t cap_bytes, size_t *ret_len, struct err *err)
{
    struct store_place place = {0};
    int got = store_read_piece(store, type, id, ret_data, cap_bytes, &place, err);
    if (got == 1)
        *ret_len = place.raw_bytes;
    return got;
}

/* What was stored before there were checksums is checked the long way. */
static int check_stored(const struct store_place *place, const struct id *id, const uint8_t *stored, struct err *err)
{
    if (place->checksum != STORE_CHECKSUM_NONE)
        return store_checksum_of(stored, place->stored_bytes) == place->checksum ? 0 : rotten(place, id, err);
    OWNED(owned_free) uint8_t *raw = malloc(place->raw_bytes + 1);
    if (!raw)
        return err_set(err, ERR_NOMEM, "no memory to check a chunk");
    int status = store_decode(place->encoding, stored, place->stored_bytes, raw, place->raw_bytes, err);
    struct id found;
    if (status == 0)
        crypto_sha256(raw, place->raw_bytes, &found);
    return status < 0 || id_equal(&found, id) ? status : rotten(place, id, err);
}

static int read_stored(struct store *store, const struct store_place *place, const struct id *id, void *ret_data,
                       struct err *err)
{
    OWNED(owned_pack) struct store_pack *pack = NULL;
    int status = store_packs_get(store, place->pack, &pack, err);
    if (status == 0)
        status = store_pack_read(pack, place->offset, ret_data, place->stored_bytes, err);
    return status < 0 ? status : check_stored(place, id, ret_data, err);
}

static struct store_piece piece_of(const struct store_place *place)
{
    return (struct store_piece){
        .stored_bytes = place->stored_bytes, .raw_bytes = place->raw_bytes, .encoding = place->encoding};
}

int store_piece_read(struct store *store, enum store_piece_type type, const struct id *id, void *ret_data,
                     size_t cap_bytes, struct store_piece *ret_piece, struct err *err)
{
    struct store_place place = {0};
    int got = find_and_read(store, type, id, read_stored, ret_data, cap_bytes, &place, err);
    if (got == 1)
        *ret_piece = piece_of(&place);
    return got;
}

struct find_all {
    enum store_piece_type type;
    const struct id *ids;
    size_t count;
    struct store_place *places; /* pack 0: not found */
};

static int find_rows(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct find_all *all = ctx;
    for (size_t i = 0; i < all->count; i++) {
        struct store_piece_row row;
        if (all->places[i].pack != 0)
            continue;
        int got = store_rows_piece_get(txn, all->type, &all->ids[i], &row, err);
        if (got < 0)
            return got;
        if (got == 1)
            all->places[i] = row.place;
    }
    return 0;
}

/* As find_readable, with one look at the index for all. */
static void find_all_readable(struct store *store, struct find_all *all)
{
    for (size_t i = 0; i < all->count; i++)
        store_pending_find(store, all->type, &all->ids[i], &all->places[i]);
    store_db_view(store->db, find_rows, all, NULL);
}

size_t store_pieces_read(struct store *store, enum store_piece_type type, const struct id *ids, size_t count,
                         void *ret_data, size_t cap_bytes, struct store_piece *ret_pieces)
{
    struct store_place places[STORE_PIECES_MAX] = {0};
    if (count > STORE_PIECES_MAX)
        count = STORE_PIECES_MAX;
    find_all_readable(store, &(struct find_all){.type = type, .ids = ids, .count = count, .places = places});
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t *at = (uint8_t *)ret_data + used;
        size_t room = cap_bytes - used;
        if (places[i].pack != 0 && places[i].stored_bytes <= room &&
            read_stored(store, &places[i], &ids[i], at, NULL) == 0)
            ret_pieces[i] = piece_of(&places[i]);
        else if (store_piece_read(store, type, &ids[i], at, room, &ret_pieces[i], NULL) != 1)
            return i; /* what looks rotten was looked at again by this */
        used += ret_pieces[i].stored_bytes;
    }
    return count;
}

struct have {
    const struct id *ids;
    size_t count;
    uint8_t *bitmap;
};

static int fill_bitmap(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct have *have = ctx;
    for (size_t i = 0; i < have->count; i++) {
        struct store_piece_row row;
        if (have->bitmap[i / 8] & 1u << i % 8)
            continue;
        int got = store_rows_piece_get(txn, STORE_PIECE_CHUNK, &have->ids[i], &row, err);
        if (got < 0)
            return got;
        if (got == 1 && row.place.pack != 0)
            have->bitmap[i / 8] |= (uint8_t)(1u << i % 8);
    }
    return 0;
}

int store_pieces_have(struct store *store, const struct id *ids, size_t count, uint8_t *ret_bitmap, struct err *err)
{
    memset(ret_bitmap, 0, (count + 7) / 8);
    store_pending_have(store, ids, count, ret_bitmap); /* before the index, as in find_readable */
    struct have have = {.ids = ids, .count = count, .bitmap = ret_bitmap};
    return store_db_view(store->db, fill_bitmap, &have, err);
}

/* ---- recipes ---- */

static int has_recipe(struct store_db_txn *txn, void *ctx, struct err *err)
{
    const struct store_recipe *recipe = ctx;
    struct store_piece_row row;
    int got = store_rows_piece_get(txn, STORE_PIECE_ROOT, &recipe->root_id, &row, err);
    for (uint32_t i = 0; i < recipe->root.leaf_count && got == 1 && row.place.pack != 0; i++)
        got = store_rows_piece_get(txn, STORE_PIECE_LEAF, &recipe->root.leaves[i].id, &row, err);
    return got == 1 ? row.place.pack != 0 : got;
}

static int has_all(struct store_db_txn *txn, void *ctx, struct err *err)
{
    const struct store_recipe *recipe = ctx;
    struct store_piece_row row;
    int got = has_recipe(txn, ctx, err);
    for (uint32_t i = 0; i < recipe->root.chunk_count && got == 1; i++) {
        got = store_rows_piece_get(txn, STORE_PIECE_CHUNK, &recipe->chunks[i].id, &row, err);
        if (got == 1)
            got = row.place.pack != 0;
    }
    return got;
}

int store_read_has_all(struct store *store, const struct store_recipe *recipe, struct err *err)
{
    return store_db_view(store->db, has_all, (void *)recipe, err);
}

int store_read_has_recipe(struct store *store, const struct store_recipe *recipe, struct err *err)
{
    return store_db_view(store->db, has_recipe, (void *)recipe, err);
}

static int read_whole(struct store *store, enum store_piece_type type, const struct id *id, uint8_t **ret_bytes,
                      size_t *ret_len, struct err *err)
{
    struct store_place place;
    int got = store_read_find(store, type, id, &place, err);
    if (got != 1)
        return got;
    OWNED(owned_free) uint8_t *bytes = malloc(place.raw_bytes + 1);
    if (!bytes)
        return err_set(err, ERR_NOMEM, "no memory to read a recipe");
    got = store_piece_read_raw(store, type, id, bytes, place.raw_bytes, ret_len, err);
    if (got == 1)
        *ret_bytes = STEAL(bytes);
    return got;
}

int store_read_root(struct store *store, const struct id *id, struct store_root *ret_root, struct err *err)
{
    OWNED(owned_free) uint8_t *bytes = NULL;
    size_t len = 0;
    int got = read_whole(store, STORE_PIECE_ROOT, id, &bytes, &len, err);
    if (got != 1)
        return got;
    int status = store_root_decode(bytes, len, ret_root, err);
    return status < 0 ? status : 1;
}

int store_read_leaf(struct store *store, const struct id *id, struct store_chunk *ret_chunks, uint32_t *ret_count,
                    struct err *err)
{
    OWNED(owned_free) uint8_t *bytes = NULL;
    size_t len = 0;
    char text[ID_HEX_SIZE];
    int got = read_whole(store, STORE_PIECE_LEAF, id, &bytes, &len, err);
    if (got == 0)
        return err_set(err, ERR_CORRUPT, "recipe leaf %s is missing; run `cmig-node fsck`", id_hex(id, text));
    return got < 0 ? got : store_leaf_decode(bytes, len, true, ret_chunks, ret_count, err);
}

struct root_query {
    const struct id *digest;
    struct id root;
};

static int find_root(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct root_query *query = ctx;
    struct store_object_info info = {0};
    int got = store_rows_object_get(txn, query->digest, &info, err);
    query->root = info.root;
    if (got != 0)
        return got;
    struct store_partial_info partial = {0};
    got = store_rows_partial_get(txn, query->digest, &partial, err);
    query->root = partial.root;
    return got;
}

int store_recipe_load(struct store *store, const struct id *digest, struct store_recipe **ret_recipe, struct err *err)
{
    struct root_query query = {.digest = digest};
    int got = store_db_view(store->db, find_root, &query, err);
    OWNED(owned_free) uint8_t *bytes = NULL;
    size_t len = 0;
    if (got == 1)
        got = read_whole(store, STORE_PIECE_ROOT, &query.root, &bytes, &len, err);
    if (got != 1)
        return got;
    OWNED(owned_recipe) struct store_recipe *recipe = NULL;
    int status = store_recipe_from_root(bytes, len, &recipe, err);
    for (uint32_t i = 0; status == 0 && i < recipe->root.leaf_count; i++) {
        OWNED(owned_free) uint8_t *leaf = NULL;
        got = read_whole(store, STORE_PIECE_LEAF, &recipe->root.leaves[i].id, &leaf, &len, err);
        if (got == 0) /* removed meanwhile */
            return 0;
        status = got < 0 ? got : store_recipe_add_leaf(recipe, i, leaf, len, err);
    }
    if (status < 0)
        return status;
    *ret_recipe = STEAL(recipe);
    return 1;
}
