#include "store/rebuild.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/scope.h"
#include "store/packs.h"
#include "store/read.h"
#include "store/rot.h"
#include "store/tree.h"
#include "store/unread.h"

#define ROWS_PER_TXN 1024

OWNED_DEFINE(owned_pack, struct store_pack, store_pack_unref)

void store_rebuild_say(struct store_rebuild *rebuild, const char *format, ...)
{
    if (!rebuild->cb)
        return;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    rebuild->cb(text, rebuild->ctx);
}

/* ---- records to rows ---- */

struct found {
    enum store_piece_type type;
    struct id id;
    struct store_place place;
    bool is_unread;
};

struct pack_scan {
    struct store_rebuild *rebuild;
    struct store_pack *pack;
    struct err *err;
    uint8_t *raw; /* owned; of the largest piece */
    struct found found[ROWS_PER_TXN];
    size_t count;
    uint64_t twice;
};

/* A second record of the same piece is counted in and out, and becomes a free range. */
static int write_one(struct pack_scan *scan, struct store_db_txn *txn, const struct found *found, struct err *err)
{
    struct store_piece_row row;
    uint64_t freed;
    int got = store_rows_piece_get(txn, found->type, &found->id, &row, err);
    int status = got < 0 ? got : store_rows_place_in(txn, &found->place, err);
    if (status < 0)
        return status;
    if (found->is_unread)
        return store_unread_note(txn, found->type, &found->id, &found->place, &freed, err);
    if (got == 1) {
        scan->twice++;
        return store_rows_place_out(txn, &found->place, err);
    }
    row = (struct store_piece_row){.place = found->place};
    return store_rows_piece_put(txn, found->type, &found->id, &row, err);
}

static int write_found(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct pack_scan *scan = ctx;
    int status = 0;
    scan->twice = 0;
    for (size_t i = 0; i < scan->count && status == 0; i++)
        status = write_one(scan, txn, &scan->found[i], err);
    return status;
}

static int flush(struct pack_scan *scan)
{
    int status = store_db_update(scan->rebuild->store.db, write_found, scan, scan->err);
    scan->rebuild->report->records_unused += status == 0 ? scan->twice : 0;
    scan->count = 0;
    return status;
}

static int remember_root(struct store_rebuild *rebuild, const struct store_record *record, struct err *err)
{
    if (rebuild->root_count == rebuild->roots_cap) {
        size_t cap = rebuild->roots_cap ? rebuild->roots_cap * 2 : 256;
        struct store_rebuild_root *grown = reallocarray(rebuild->roots, cap, sizeof *grown);
        if (!grown)
            return err_set(err, ERR_NOMEM, "no memory for a list of recipes");
        rebuild->roots = grown;
        rebuild->roots_cap = cap;
    }
    enum store_kind kind = store_kind_is_valid(record->kind) ? record->kind : STORE_BLOB;
    rebuild->roots[rebuild->root_count++] =
        (struct store_rebuild_root){.id = record->id, .kind = kind, .time_ms = record->time_ms};
    return 0;
}

/* Bytes that no row of the new index will point to. */
static int report_bad(struct pack_scan *scan, uint64_t offset, uint64_t len_bytes, const char *what)
{
    struct store_rebuild *rebuild = scan->rebuild;
    rebuild->report->records_bad++;
    store_rebuild_say(rebuild, "%s", what);
    return rebuild->repair ? store_pack_punch(scan->pack, offset, len_bytes, scan->err) : 0;
}

/* The record of a head that can be read cannot: it may be right. */
static int keep_unread(struct pack_scan *scan, const struct store_record *record, const struct store_place *place,
                       const char *what)
{
    scan->rebuild->report->records_unread++;
    store_rebuild_say(scan->rebuild, "%s", what);
    scan->found[scan->count++] = (struct found){record->type, record->id, *place, .is_unread = true};
    return scan->count == ROWS_PER_TXN ? flush(scan) : 0;
}

static int check_record(const struct store_record *record, uint64_t offset, uint64_t len_bytes, void *ctx)
{
    struct pack_scan *scan = ctx;
    struct store_rebuild *rebuild = scan->rebuild;
    if (!record) {
        char text[128];
        snprintf(text, sizeof text, "pack %016llx has %llu bytes from byte %llu on that are no records",
                 (unsigned long long)scan->pack->number, (unsigned long long)len_bytes, (unsigned long long)offset);
        return report_bad(scan, offset, len_bytes, text);
    }
    struct store_place place = {.pack = scan->pack->number,
                                .offset = offset,
                                .stored_bytes = record->stored_bytes,
                                .raw_bytes = record->raw_bytes,
                                .encoding = record->encoding};
    struct err why = {0};
    int status = store_read_at(&rebuild->store, &place, &record->id, scan->raw, &why);
    if (status == ERR_CORRUPT && store_rot_look(&rebuild->store, &record->id, &place, NULL) == STORE_ROT_UNREADABLE)
        return keep_unread(scan, record, &place, why.text);
    if (status == ERR_CORRUPT)
        return report_bad(scan, offset, len_bytes, why.text);
    if (status < 0)
        return err_set(scan->err, status, "%s", why.text);
    status = store_read_checksum_at(&rebuild->store, &place, &place.checksum, scan->err);
    if (status < 0)
        return status;
    rebuild->report->records++;
    scan->found[scan->count++] = (struct found){record->type, record->id, place, .is_unread = false};
    if (record->type == STORE_PIECE_ROOT)
        status = remember_root(rebuild, record, scan->err);
    return status == 0 && scan->count == ROWS_PER_TXN ? flush(scan) : status;
}

static int write_pack_row(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct store_pack *pack = ctx;
    struct store_pack_row row = {.number = pack->number, .size_bytes = pack->size};
    return store_rows_pack_put(txn, &row, err);
}

static int scan_pack(struct store_rebuild *rebuild, uint64_t number, struct pack_scan *scan, struct err *err)
{
    OWNED(owned_pack) struct store_pack *pack = NULL;
    int status = store_packs_get(&rebuild->store, number, &pack, err);
    if (status == ERR_CORRUPT) { /* a link, a directory ... under the name of a pack */
        rebuild->report->records_bad++;
        store_rebuild_say(rebuild, "%s", err->text);
        err_clear(err);
        return 0;
    }
    if (status == 0)
        status = store_db_update(rebuild->store.db, write_pack_row, pack, err);
    if (status < 0)
        return status;
    scan->pack = pack;
    bool cut = false;
    status = store_pack_scan(pack, check_record, scan, &cut, err);
    if (status == 0)
        status = flush(scan);
    if (status < 0)
        return status;
    rebuild->report->packs++;
    if (cut) { /* not a bad record, but one that was being written when the end came */
        rebuild->report->tails_truncated++;
        rebuild->report->records_bad--;
    }
    return 0;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int store_rebuild_scan(struct store_rebuild *rebuild, struct err *err)
{
    OWNED(owned_free) uint64_t *numbers = NULL;
    size_t count = 0;
    int status = store_pack_list(rebuild->store.packs_dir, &numbers, &count, err);
    if (status < 0)
        return status;
    OWNED(owned_free) struct pack_scan *scan = calloc(1, sizeof *scan);
    OWNED(owned_free) uint8_t *raw = malloc(STORE_ROOT_MAX_BYTES);
    if (!scan || !raw)
        return err_set(err, ERR_NOMEM, "no memory to scan packs");
    *scan = (struct pack_scan){.rebuild = rebuild, .err = err, .raw = raw};
    if (count > 0)
        qsort(numbers, count, sizeof *numbers, compare_numbers);
    for (size_t i = 0; i < count && status == 0; i++)
        status = scan_pack(rebuild, numbers[i], scan, err);
    const struct store_fsck_report *report = rebuild->report;
    if (status == 0 && report->records_unread > report->records)
        return err_set(err, ERR_IO,
                       "the disk with '%s' refuses to read %llu records of %llu: nothing was changed; see what the "
                       "kernel says of it (dmesg)",
                       rebuild->store.packs_dir, (unsigned long long)report->records_unread,
                       (unsigned long long)(report->records_unread + report->records));
    return status;
}

/* ---- recipes to references ---- */

struct follow {
    const struct id *root_id;
    const struct store_root *root;
    const struct id *leaf_id;
    const struct store_chunk *chunks;
    uint32_t count;
};

/* The leaf's own row, and those of its chunks when it is the first to be counted. */
static int count_leaf(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct follow *follow = ctx;
    struct store_piece_row row;
    int got = store_rows_piece_get(txn, STORE_PIECE_LEAF, follow->leaf_id, &row, err);
    if (got != 1)
        return got < 0 ? got : err_set(err, ERR_INTERNAL, "a recipe leaf that was read has no row");
    int status = 0;
    for (uint32_t i = 0; i < follow->count && row.refs == 0 && status == 0; i++)
        status = store_tree_want_chunk(txn, &follow->chunks[i], err);
    row.refs++;
    return status < 0 ? status : store_rows_piece_put(txn, STORE_PIECE_LEAF, follow->leaf_id, &row, err);
}

static int count_root(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct follow *follow = ctx;
    return store_tree_ref(txn, STORE_PIECE_ROOT, follow->root_id, err);
}

/* A leaf as its root describes it, or ERR_NOTFOUND. */
static int load_leaf(struct store_rebuild *rebuild, const struct store_leaf *leaf, struct store_chunk *chunks,
                     struct err *err)
{
    uint32_t count = 0;
    uint64_t span = 0;
    if (store_read_leaf(&rebuild->store, &leaf->id, chunks, &count, NULL) < 0 || count != leaf->chunk_count)
        return err_set(err, ERR_NOTFOUND, "a leaf is missing");
    for (uint32_t i = 0; i < count; i++)
        span += chunks[i].length;
    return span == leaf->span_bytes ? 0 : err_set(err, ERR_NOTFOUND, "a leaf does not fit");
}

/* 1 if all chunks are here, in length too, when they are hashed as well; 0 if not. */
static int hash_leaf(struct store_rebuild *rebuild, const struct store_chunk *chunks, uint32_t count,
                     struct crypto_sha256 *hash, struct err *err)
{
    OWNED(owned_free) uint8_t *raw = malloc(LIMIT_CHUNK_BYTES);
    if (!raw)
        return err_set(err, ERR_NOMEM, "no memory to read a chunk");
    for (uint32_t i = 0; i < count; i++) {
        struct store_place place;
        int got =
            store_read_piece(&rebuild->store, STORE_PIECE_CHUNK, &chunks[i].id, raw, LIMIT_CHUNK_BYTES, &place, err);
        if (got != 1 || place.raw_bytes != chunks[i].length)
            return got == ERR_CORRUPT || got >= 0 ? 0 : got;
        crypto_sha256_add(hash, raw, place.raw_bytes);
    }
    return 1;
}

static void owned_hash(struct crypto_sha256 **hash)
{
    crypto_sha256_free(*hash);
}

/* 1 complete, 0 not, ERR_NOTFOUND for a recipe of other bytes. */
static int check_object(struct store_rebuild *rebuild, const struct store_root *root, const struct id *digest,
                        struct store_chunk *chunks, struct err *err)
{
    OWNED(owned_hash) struct crypto_sha256 *hash = NULL;
    int complete = crypto_sha256_new(&hash, err);
    if (complete < 0)
        return complete;
    complete = 1;
    for (uint32_t i = 0; i < root->leaf_count && complete == 1; i++) {
        complete = load_leaf(rebuild, &root->leaves[i], chunks, err);
        if (complete == 0)
            complete = hash_leaf(rebuild, chunks, root->leaves[i].chunk_count, hash, err);
    }
    if (complete != 1)
        return complete;
    struct id whole;
    crypto_sha256_take(hash, &whole);
    return id_equal(&whole, digest) ? 1 : err_set(err, ERR_NOTFOUND, "the recipe is one of other bytes");
}

static int check_leaves(struct store_rebuild *rebuild, const struct store_root *root, struct store_chunk *chunks,
                        struct err *err)
{
    int status = 0;
    for (uint32_t i = 0; i < root->leaf_count && status == 0; i++)
        status = load_leaf(rebuild, &root->leaves[i], chunks, err);
    return status;
}

static int count_all(struct store_rebuild *rebuild, const struct id *root_id, const struct store_root *root,
                     struct store_chunk *chunks, struct err *err)
{
    int status = 0;
    for (uint32_t i = 0; i < root->leaf_count && status == 0; i++) {
        const struct store_leaf *leaf = &root->leaves[i];
        struct follow follow = {.leaf_id = &leaf->id, .chunks = chunks, .count = leaf->chunk_count};
        status = load_leaf(rebuild, leaf, chunks, err);
        if (status == 0)
            status = store_db_update(rebuild->store.db, count_leaf, &follow, err);
    }
    struct follow follow = {.root_id = root_id};
    return status < 0 ? status : store_db_update(rebuild->store.db, count_root, &follow, err);
}

int store_rebuild_follow(struct store_rebuild *rebuild, const struct id *root_id, struct store_object_info *info,
                         struct err *err)
{
    OWNED(store_root_release) struct store_root root = {0};
    OWNED(owned_free) struct store_chunk *chunks = malloc(STORE_LEAF_MAX_CHUNKS * sizeof *chunks);
    if (!chunks)
        return err_set(err, ERR_NOMEM, "no memory to follow a recipe");
    if (store_read_root(&rebuild->store, root_id, &root, NULL) != 1 || !id_equal(&root.object, &info->digest))
        return err_set(err, ERR_NOTFOUND, "the recipe cannot be used");
    int status = check_leaves(rebuild, &root, chunks, err);
    if (status < 0)
        return status;
    int complete = check_object(rebuild, &root, &info->digest, chunks, err);
    if (complete < 0)
        return complete;
    info->root = *root_id;
    info->size_bytes = root.size_bytes;
    info->chunk_count = root.chunk_count;
    info->chunking = root.chunking;
    status = count_all(rebuild, root_id, &root, chunks, err);
    return status < 0 ? status : complete;
}

/* ---- what is left over ---- */

struct unused {
    struct store_rebuild *rebuild;
    struct err *err;
    enum store_piece_type type;
    struct id id;
};

static int drop_piece(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct unused *unused = ctx;
    struct store_piece_row row;
    int got = store_rows_piece_get(txn, unused->type, &unused->id, &row, err);
    if (got != 1 || row.refs > 0)
        return got < 0 ? got : 0;
    int status = store_rows_place_out(txn, &row.place, err);
    if (status == 0)
        status = store_rows_piece_del(txn, unused->type, &unused->id, err);
    return status < 0 ? status : 1;
}

static int is_unused(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct unused *unused = ctx;
    struct store_piece_row row;
    int got = store_rows_piece_get(txn, unused->type, &unused->id, &row, err);
    return got == 1 ? row.refs == 0 : got;
}

static int drop_if_unused(struct store_span key, struct store_span value, void *ctx)
{
    (void)value;
    struct unused *unused = ctx;
    if (!store_rows_piece_key(key, &unused->type, &unused->id))
        return 0;
    struct store_db *db = unused->rebuild->store.db;
    int result = store_db_view(db, is_unused, unused, unused->err);
    if (result == 1)
        result = store_db_update(db, drop_piece, unused, unused->err);
    if (result == 1)
        unused->rebuild->report->records_unused++;
    return result < 0 ? result : 0;
}

int store_rebuild_drop_unused(struct store_rebuild *rebuild, struct err *err)
{
    struct unused unused = {.rebuild = rebuild, .err = err};
    struct store_span all = {0};
    return store_db_each(rebuild->store.db, STORE_DB_PIECE, all, all, drop_if_unused, &unused, err);
}
