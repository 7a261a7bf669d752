#include "store/rows.h"

#include <string.h>

#include "node/base/wire.h"
#include "store/checksum.h"
#include "store/pack.h"

#define PIECE_ROW_BYTES 44
#define PIECE_ROW_BYTES_FORMAT_1 36 /* without the checksum */
#define OBJECT_ROW_BYTES 66
#define PARTIAL_ROW_BYTES 41
#define PACK_ROW_BYTES 17
#define FREE_KEY_BYTES 16
#define ROT_ROW_BYTES 29
#define BROKEN_ROW_BYTES 9

static int bad_row(const char *table, struct err *err)
{
    return err_set(err, ERR_CORRUPT, "a row of table '%s' in the store's index is malformed; run `cmig-node fsck`",
                   table);
}

static struct store_span span(const void *data, size_t len)
{
    return (struct store_span){.data = data, .len = len};
}

uint64_t store_rows_place_bytes(const struct store_place *place)
{
    return STORE_RECORD_HEAD_BYTES + place->stored_bytes;
}

bool store_rows_same_place(const struct store_place *a, const struct store_place *b)
{
    return a->pack == b->pack && a->offset == b->offset;
}

/* ---- pieces and orphans ---- */

static struct store_span piece_key(enum store_piece_type type, const struct id *id, uint8_t key[STORE_PIECE_KEY_BYTES])
{
    key[0] = (uint8_t)type;
    memcpy(key + 1, id->b, ID_BYTES);
    return span(key, STORE_PIECE_KEY_BYTES);
}

bool store_rows_piece_key(struct store_span key, enum store_piece_type *ret_type, struct id *ret_id)
{
    if (key.len != STORE_PIECE_KEY_BYTES || key.data[0] < STORE_PIECE_CHUNK || key.data[0] > STORE_PIECE_ROOT)
        return false;
    *ret_type = key.data[0];
    memcpy(ret_id->b, key.data + 1, ID_BYTES);
    return true;
}

bool store_rows_piece_decode(enum store_piece_type type, struct store_span value, struct store_piece_row *ret_row)
{
    if (value.len != PIECE_ROW_BYTES && value.len != PIECE_ROW_BYTES_FORMAT_1)
        return false;
    *ret_row = (struct store_piece_row){
        .place.pack = wire_load_u64(value.data),
        .place.offset = wire_load_u64(value.data + 8),
        .place.stored_bytes = wire_load_u32(value.data + 16),
        .place.raw_bytes = wire_load_u32(value.data + 20),
        .place.encoding = (enum store_encoding)wire_load_u32(value.data + 24),
        .refs = wire_load_u64(value.data + 28),
        .place.checksum = value.len == PIECE_ROW_BYTES ? wire_load_u64(value.data + 36) : STORE_CHECKSUM_NONE,
    };
    /* Buffers are sized by type and limit, so that a damaged row may not ask for more. */
    size_t max = store_pack_max_bytes(type);
    return ret_row->place.raw_bytes <= max && ret_row->place.stored_bytes <= max &&
           ret_row->place.encoding <= STORE_ZSTD;
}

int store_rows_piece_get(struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                         struct store_piece_row *ret_row, struct err *err)
{
    uint8_t key[STORE_PIECE_KEY_BYTES];
    struct store_span value;
    int got = store_db_get(txn, STORE_DB_PIECE, piece_key(type, id, key), &value, err);
    return got == 1 && !store_rows_piece_decode(type, value, ret_row) ? bad_row("piece", err) : got;
}

static int put_piece_row(struct store_db_txn *txn, enum store_db_table table, enum store_piece_type type,
                         const struct id *id, const struct store_piece_row *row, struct err *err)
{
    uint8_t key[STORE_PIECE_KEY_BYTES];
    uint8_t value[PIECE_ROW_BYTES];
    wire_store_u64(value, row->place.pack);
    wire_store_u64(value + 8, row->place.offset);
    wire_store_u32(value + 16, row->place.stored_bytes);
    wire_store_u32(value + 20, row->place.raw_bytes);
    wire_store_u32(value + 24, row->place.encoding);
    wire_store_u64(value + 28, row->refs);
    wire_store_u64(value + 36, row->place.checksum);
    return store_db_put(txn, table, piece_key(type, id, key), span(value, sizeof value), err);
}

int store_rows_piece_put(struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                         const struct store_piece_row *row, struct err *err)
{
    return put_piece_row(txn, STORE_DB_PIECE, type, id, row, err);
}

int store_rows_piece_del(struct store_db_txn *txn, enum store_piece_type type, const struct id *id, struct err *err)
{
    uint8_t key[STORE_PIECE_KEY_BYTES];
    return store_db_del(txn, STORE_DB_PIECE, piece_key(type, id, key), err);
}

int store_rows_orphan_put(struct store_db_txn *txn, enum store_piece_type type, const struct id *id, struct err *err)
{
    uint8_t key[STORE_PIECE_KEY_BYTES];
    return store_db_put(txn, STORE_DB_ORPHAN, piece_key(type, id, key), span("", 0), err);
}

int store_rows_orphan_del(struct store_db_txn *txn, enum store_piece_type type, const struct id *id, struct err *err)
{
    uint8_t key[STORE_PIECE_KEY_BYTES];
    return store_db_del(txn, STORE_DB_ORPHAN, piece_key(type, id, key), err);
}

/* ---- objects ---- */

bool store_rows_object_decode(struct store_span key, struct store_span value, struct store_object_info *ret_info)
{
    if (key.len != ID_BYTES || value.len != OBJECT_ROW_BYTES)
        return false;
    const uint8_t *at = value.data;
    if (!store_kind_is_valid(at[64]) || !store_chunking_is_valid(at[65]))
        return false;
    struct store_object_info info = {
        .size_bytes = wire_load_u64(at + 32),
        .chunk_count = wire_load_u32(at + 40),
        .replicas = wire_load_u32(at + 44),
        .created_ms = wire_load_u64(at + 48),
        .used_ms = wire_load_u64(at + 56),
        .kind = at[64],
        .chunking = at[65],
    };
    memcpy(info.digest.b, key.data, ID_BYTES);
    memcpy(info.root.b, at, ID_BYTES);
    *ret_info = info;
    return true;
}

int store_rows_object_get(struct store_db_txn *txn, const struct id *digest, struct store_object_info *ret_info,
                          struct err *err)
{
    struct store_span value;
    int got = store_db_get(txn, STORE_DB_OBJECT, span(digest->b, ID_BYTES), &value, err);
    if (got == 1 && !store_rows_object_decode(span(digest->b, ID_BYTES), value, ret_info))
        return bad_row("object", err);
    return got;
}

int store_rows_object_put(struct store_db_txn *txn, const struct store_object_info *info, struct err *err)
{
    uint8_t value[OBJECT_ROW_BYTES];
    memcpy(value, info->root.b, ID_BYTES);
    wire_store_u64(value + 32, info->size_bytes);
    wire_store_u32(value + 40, info->chunk_count);
    wire_store_u32(value + 44, info->replicas);
    wire_store_u64(value + 48, info->created_ms);
    wire_store_u64(value + 56, info->used_ms);
    value[64] = (uint8_t)info->kind;
    value[65] = (uint8_t)info->chunking;
    return store_db_put(txn, STORE_DB_OBJECT, span(info->digest.b, ID_BYTES), span(value, sizeof value), err);
}

int store_rows_object_del(struct store_db_txn *txn, const struct id *digest, struct err *err)
{
    return store_db_del(txn, STORE_DB_OBJECT, span(digest->b, ID_BYTES), err);
}

/* ---- partial objects ---- */

bool store_rows_partial_decode(struct store_span key, struct store_span value, struct store_partial_info *ret_info)
{
    if (key.len != ID_BYTES || value.len != PARTIAL_ROW_BYTES || !store_kind_is_valid(value.data[40]))
        return false;
    struct store_partial_info info = {.started_ms = wire_load_u64(value.data + 32), .kind = value.data[40]};
    memcpy(info.digest.b, key.data, ID_BYTES);
    memcpy(info.root.b, value.data, ID_BYTES);
    *ret_info = info;
    return true;
}

int store_rows_partial_get(struct store_db_txn *txn, const struct id *digest, struct store_partial_info *ret_info,
                           struct err *err)
{
    struct store_span value;
    int got = store_db_get(txn, STORE_DB_PARTIAL, span(digest->b, ID_BYTES), &value, err);
    if (got == 1 && !store_rows_partial_decode(span(digest->b, ID_BYTES), value, ret_info))
        return bad_row("partial", err);
    return got;
}

int store_rows_partial_put(struct store_db_txn *txn, const struct store_partial_info *info, struct err *err)
{
    uint8_t value[PARTIAL_ROW_BYTES];
    memcpy(value, info->root.b, ID_BYTES);
    wire_store_u64(value + 32, info->started_ms);
    value[40] = (uint8_t)info->kind;
    return store_db_put(txn, STORE_DB_PARTIAL, span(info->digest.b, ID_BYTES), span(value, sizeof value), err);
}

int store_rows_partial_del(struct store_db_txn *txn, const struct id *digest, struct err *err)
{
    return store_db_del(txn, STORE_DB_PARTIAL, span(digest->b, ID_BYTES), err);
}

/* ---- rot ---- */

bool store_rows_rot_decode(struct store_span key, struct store_span value, struct store_rot *ret_rot)
{
    struct store_rot rot = {0};
    if (!store_rows_piece_key(key, &rot.type, &rot.id) || value.len != ROT_ROW_BYTES)
        return false;
    rot.pack = wire_load_u64(value.data);
    rot.offset = wire_load_u64(value.data + 8);
    rot.stored_bytes = wire_load_u32(value.data + 16);
    rot.cause = value.data[20];
    rot.found_ms = wire_load_u64(value.data + 21);
    *ret_rot = rot;
    return true;
}

int store_rows_rot_get(struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                       struct store_rot *ret_rot, struct err *err)
{
    uint8_t bytes[STORE_PIECE_KEY_BYTES];
    struct store_span key = piece_key(type, id, bytes);
    struct store_span value;
    int got = store_db_get(txn, STORE_DB_ROT, key, &value, err);
    return got == 1 && !store_rows_rot_decode(key, value, ret_rot) ? bad_row("rot", err) : got;
}

int store_rows_rot_put(struct store_db_txn *txn, const struct store_rot *rot, struct err *err)
{
    uint8_t key[STORE_PIECE_KEY_BYTES];
    uint8_t value[ROT_ROW_BYTES];
    wire_store_u64(value, rot->pack);
    wire_store_u64(value + 8, rot->offset);
    wire_store_u32(value + 16, rot->stored_bytes);
    value[20] = (uint8_t)rot->cause;
    wire_store_u64(value + 21, rot->found_ms);
    return store_db_put(txn, STORE_DB_ROT, piece_key(rot->type, &rot->id, key), span(value, sizeof value), err);
}

int store_rows_rot_del(struct store_db_txn *txn, const struct store_rot *rot, struct err *err)
{
    uint8_t key[STORE_PIECE_KEY_BYTES];
    return store_db_del(txn, STORE_DB_ROT, piece_key(rot->type, &rot->id, key), err);
}

bool store_rows_unread_decode(struct store_span key, struct store_span value, struct store_unread *ret_unread)
{
    struct store_unread unread;
    struct store_piece_row row;
    if (!store_rows_piece_key(key, &unread.type, &unread.id) || !store_rows_piece_decode(unread.type, value, &row))
        return false;
    unread.place = row.place;
    *ret_unread = unread;
    return unread.place.pack != 0;
}

int store_rows_unread_get(struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                          struct store_unread *ret_unread, struct err *err)
{
    uint8_t bytes[STORE_PIECE_KEY_BYTES];
    struct store_span key = piece_key(type, id, bytes);
    struct store_span value;
    int got = store_db_get(txn, STORE_DB_UNREAD, key, &value, err);
    return got == 1 && !store_rows_unread_decode(key, value, ret_unread) ? bad_row("unread", err) : got;
}

int store_rows_unread_put(struct store_db_txn *txn, const struct store_unread *unread, struct err *err)
{
    struct store_piece_row row = {.place = unread->place};
    return put_piece_row(txn, STORE_DB_UNREAD, unread->type, &unread->id, &row, err);
}

int store_rows_unread_del(struct store_db_txn *txn, const struct store_unread *unread, struct err *err)
{
    uint8_t key[STORE_PIECE_KEY_BYTES];
    return store_db_del(txn, STORE_DB_UNREAD, piece_key(unread->type, &unread->id, key), err);
}

bool store_rows_broken_decode(struct store_span key, struct store_span value, struct store_broken *ret_broken)
{
    if (key.len != ID_BYTES || value.len != BROKEN_ROW_BYTES || !store_kind_is_valid(value.data[8]))
        return false;
    *ret_broken = (struct store_broken){.kind = value.data[8], .since_ms = wire_load_u64(value.data)};
    memcpy(ret_broken->digest.b, key.data, ID_BYTES);
    return true;
}

int store_rows_broken_get(struct store_db_txn *txn, const struct id *digest, struct store_broken *ret_broken,
                          struct err *err)
{
    struct store_span key = span(digest->b, ID_BYTES);
    struct store_span value;
    int got = store_db_get(txn, STORE_DB_BROKEN, key, &value, err);
    return got == 1 && !store_rows_broken_decode(key, value, ret_broken) ? bad_row("broken", err) : got;
}

int store_rows_broken_put(struct store_db_txn *txn, const struct store_broken *broken, struct err *err)
{
    uint8_t value[BROKEN_ROW_BYTES];
    wire_store_u64(value, broken->since_ms);
    value[8] = (uint8_t)broken->kind;
    return store_db_put(txn, STORE_DB_BROKEN, span(broken->digest.b, ID_BYTES), span(value, sizeof value), err);
}

int store_rows_broken_del(struct store_db_txn *txn, const struct id *digest, struct err *err)
{
    return store_db_del(txn, STORE_DB_BROKEN, span(digest->b, ID_BYTES), err);
}

/* ---- packs ---- */

bool store_rows_pack_decode(struct store_span key, struct store_span value, struct store_pack_row *ret_row)
{
    if (key.len != 8 || value.len != PACK_ROW_BYTES)
        return false;
    *ret_row = (struct store_pack_row){
        .number = wire_load_u64(key.data),
        .size_bytes = wire_load_u64(value.data),
        .live_bytes = wire_load_u64(value.data + 8),
        .open = value.data[16] != 0,
    };
    return true;
}

int store_rows_pack_get(struct store_db_txn *txn, uint64_t number, struct store_pack_row *ret_row, struct err *err)
{
    uint8_t key[8];
    wire_store_u64(key, number);
    struct store_span value;
    int got = store_db_get(txn, STORE_DB_PACK, span(key, sizeof key), &value, err);
    if (got == 1 && !store_rows_pack_decode(span(key, sizeof key), value, ret_row))
        return bad_row("pack", err);
    return got;
}

int store_rows_pack_put(struct store_db_txn *txn, const struct store_pack_row *row, struct err *err)
{
    uint8_t key[8];
    uint8_t value[PACK_ROW_BYTES];
    wire_store_u64(key, row->number);
    wire_store_u64(value, row->size_bytes);
    wire_store_u64(value + 8, row->live_bytes);
    value[16] = row->open;
    return store_db_put(txn, STORE_DB_PACK, span(key, sizeof key), span(value, sizeof value), err);
}

int store_rows_pack_del(struct store_db_txn *txn, uint64_t number, struct err *err)
{
    uint8_t key[8];
    wire_store_u64(key, number);
    return store_db_del(txn, STORE_DB_PACK, span(key, sizeof key), err);
}

int store_rows_place_in(struct store_db_txn *txn, const struct store_place *place, struct err *err)
{
    struct store_pack_row row = {0};
    int got = store_rows_pack_get(txn, place->pack, &row, err);
    if (got < 0)
        return got;
    if (got == 0)
        return err_set(err, ERR_INTERNAL, "pack %llx is written but not in the index", (unsigned long long)place->pack);
    uint64_t end = place->offset + store_rows_place_bytes(place);
    row.live_bytes += store_rows_place_bytes(place);
    if (row.size_bytes < end)
        row.size_bytes = end;
    return store_rows_pack_put(txn, &row, err);
}

static struct store_span free_key(uint64_t pack, uint64_t offset, uint8_t key[FREE_KEY_BYTES])
{
    wire_store_u64(key, pack);
    wire_store_u64(key + 8, offset);
    return span(key, FREE_KEY_BYTES);
}

int store_rows_place_out(struct store_db_txn *txn, const struct store_place *place, struct err *err)
{
    if (place->pack == 0)
        return 0;
    struct store_pack_row row = {0};
    int got = store_rows_pack_get(txn, place->pack, &row, err);
    if (got != 1)
        return got;
    uint64_t bytes = store_rows_place_bytes(place);
    row.live_bytes -= bytes < row.live_bytes ? bytes : row.live_bytes;
    int status = store_rows_pack_put(txn, &row, err);
    if (status < 0)
        return status;
    uint8_t key[FREE_KEY_BYTES];
    uint8_t value[8];
    wire_store_u64(value, bytes);
    return store_db_put(txn, STORE_DB_FREE, free_key(place->pack, place->offset, key), span(value, sizeof value), err);
}

bool store_rows_free_decode(struct store_span key, struct store_span value, struct store_free_row *ret_row)
{
    if (key.len != FREE_KEY_BYTES || value.len != 8)
        return false;
    *ret_row = (struct store_free_row){
        .pack = wire_load_u64(key.data),
        .offset = wire_load_u64(key.data + 8),
        .len_bytes = wire_load_u64(value.data),
    };
    return true;
}

/* A range is one record: none that reaches over `offset` begins further in front of it than the largest is long. */
int store_rows_free_overlaps(struct store_db_txn *txn, uint64_t pack, uint64_t offset, uint64_t end, struct err *err)
{
    uint64_t most = STORE_RECORD_HEAD_BYTES + STORE_ROOT_MAX_BYTES;
    uint8_t key_bytes[FREE_KEY_BYTES];
    struct store_span key = free_key(pack, offset > most ? offset - most : 0, key_bytes);
    struct store_span value;
    struct store_span all = {0};
    struct store_free_row row;
    for (bool after = false;; after = true) {
        int got = store_db_next(txn, STORE_DB_FREE, all, key, after, &key, &value, err);
        if (got == 1 && !store_rows_free_decode(key, value, &row))
            return bad_row("free", err);
        if (got != 1 || row.pack != pack || row.offset >= end)
            return got < 0 ? got : 0;
        if (row.offset + row.len_bytes > offset)
            return 1;
    }
}

int store_rows_free_del(struct store_db_txn *txn, const struct store_free_row *row, struct err *err)
{
    uint8_t key[FREE_KEY_BYTES];
    return store_db_del(txn, STORE_DB_FREE, free_key(row->pack, row->offset, key), err);
}
