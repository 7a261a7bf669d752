#include "store/recover.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "node/base/crypto.h"
#include "node/base/scope.h"
#include "store/adopt.h"
#include "store/batch.h"
#include "store/checksum.h"
#include "store/tree.h"

#define RECORDS_PER_COMMIT 4096
/* No pack has more behind what is committed: it takes no further record from STORE_PACK_BYTES on. */
#define TAIL_MAX_BYTES (STORE_PACK_BYTES + STORE_RECORD_HEAD_BYTES + STORE_ROOT_MAX_BYTES)

struct recovery {
    struct store *store;     /* borrowed */
    struct store_pack *pack; /* borrowed */
    struct store_batch kept; /* chunks that wait for their commit */
    struct store_adopt adopt;
    uint64_t committed_bytes; /* of the pack, before any was kept */
    uint64_t owned_bytes;     /* of records that the index points to, before any was kept */
    bool owns_all;            /* all of those were seen: what else was seen lies over none of them */
    bool has_leftovers;
    struct err *err;
    uint8_t stored[LIMIT_CHUNK_BYTES];
    uint8_t raw[LIMIT_CHUNK_BYTES];
};

static void recovery_free(struct recovery *recovery)
{
    if (recovery)
        store_batch_release(&recovery->kept);
    free(recovery);
}

OWNED_DEFINE(owned_pack, struct store_pack, store_pack_unref)
OWNED_DEFINE(owned_recovery, struct recovery, recovery_free)

/* ---- what the index says of a record ---- */

/* MISFIT: the index points there, to a record of another length. */
enum claim { NOBODYS = 0, WANTED, MISFIT, OWNED_BY_INDEX };

struct query {
    const struct store_record *record;
    uint64_t pack;
    uint64_t offset;
};

static bool is_at(const struct store_place *place, const struct query *query)
{
    return place->pack == query->pack && place->offset == query->offset;
}

static enum claim owner_of(const struct store_place *place, const struct query *query)
{
    return place->stored_bytes == query->record->stored_bytes ? OWNED_BY_INDEX : MISFIT;
}

static int find_claim(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct query *query = ctx;
    const struct store_record *record = query->record;
    struct store_piece_row row = {0};
    struct store_unread unread; /* its place is not to be given to another */
    int got = store_rows_piece_get(txn, record->type, &record->id, &row, err);
    int refused = got < 0 ? got : store_rows_unread_get(txn, record->type, &record->id, &unread, err);
    if (refused < 0)
        return refused;
    if (is_at(&row.place, query))
        return (int)owner_of(&row.place, query);
    if (refused == 1 && is_at(&unread.place, query))
        return (int)owner_of(&unread.place, query);
    if (got == 0 || row.place.pack != 0 || record->type != STORE_PIECE_CHUNK)
        return NOBODYS;
    uint64_t end = query->offset + STORE_RECORD_HEAD_BYTES + record->stored_bytes;
    int freed = store_rows_free_overlaps(txn, query->pack, query->offset, end, err);
    return freed < 0 ? freed : freed == 1 ? NOBODYS : WANTED;
}

/* An enum claim, or a negative code. */
static int claim_of(struct recovery *recovery, const struct store_record *record, uint64_t offset)
{
    struct query query = {record, recovery->pack->number, offset};
    return record ? store_db_view(recovery->store->db, find_claim, &query, recovery->err) : NOBODYS;
}

/* ---- keeping ---- */

/* Leaves the stored bytes in `stored`. */
static bool has_its_bytes(struct recovery *recovery, const struct store_record *record, uint64_t offset)
{
    struct id id;
    if (store_pack_read(recovery->pack, offset, recovery->stored, record->stored_bytes, NULL) < 0 ||
        store_decode(record->encoding, recovery->stored, record->stored_bytes, recovery->raw, record->raw_bytes, NULL) <
            0)
        return false;
    crypto_sha256(recovery->raw, record->raw_bytes, &id);
    return id_equal(&id, &record->id);
}

static int place_kept(struct store_db_txn *txn, void *ctx, struct err *err)
{
    return store_batch_place_chunks(ctx, txn, false, err);
}

static int commit_kept(struct recovery *recovery)
{
    struct store_batch *kept = &recovery->kept;
    if (kept->count == 0)
        return 0;
    int status = store_batch_sync(kept, recovery->err);
    if (status == 0)
        status = store_db_update(recovery->store->db, place_kept, kept, recovery->err);
    if (status < 0)
        return status;
    store_batch_committed(kept);
    return 0;
}

/* The bytes are in `stored`. */
static int keep(struct recovery *recovery, const struct store_record *record, uint64_t offset)
{
    struct store_place place = {.pack = recovery->pack->number,
                                .offset = offset,
                                .stored_bytes = record->stored_bytes,
                                .raw_bytes = record->raw_bytes,
                                .encoding = record->encoding,
                                .checksum = store_checksum_of(recovery->stored, record->stored_bytes)};
    uint64_t bytes = store_rows_place_bytes(&place);
    recovery->store->pending_bytes += bytes; /* as of any record before its commit */
    recovery->pack->pending += bytes;
    store_pack_ref(recovery->pack);
    int status = store_batch_note(&recovery->kept, record->type, &record->id, &place, recovery->pack, recovery->err);
    return status == 0 && recovery->kept.count == RECORDS_PER_COMMIT ? commit_kept(recovery) : status;
}

/* A record that lies in front of what is committed may lie over one that counts, and be punched with it when that turns
 * out to have rotted: it does not if all that count were seen where they are. */
static bool may_keep(const struct recovery *recovery, uint64_t offset)
{
    return recovery->owns_all || offset >= recovery->committed_bytes;
}

static int sort_out(const struct store_record *record, uint64_t offset, uint64_t len_bytes, void *ctx)
{
    (void)len_bytes;
    struct recovery *recovery = ctx;
    int claim = claim_of(recovery, record, offset);
    if (claim < 0)
        return claim;
    if (claim == NOBODYS && record && record->type != STORE_PIECE_CHUNK && may_keep(recovery, offset)) {
        int status = store_adopt_look(&recovery->adopt, record, offset, recovery->err);
        if (status < 0)
            return status;
    }
    if (claim == WANTED && may_keep(recovery, offset) && !store_batch_find(&recovery->kept, &record->id) &&
        has_its_bytes(recovery, record, offset))
        return keep(recovery, record, offset);
    recovery->has_leftovers |= claim < MISFIT;
    return 0;
}

static int add_owned(const struct store_record *record, uint64_t offset, uint64_t len_bytes, void *ctx)
{
    struct recovery *recovery = ctx;
    int claim = claim_of(recovery, record, offset);
    recovery->owned_bytes += claim == OWNED_BY_INDEX ? len_bytes : 0;
    return claim < 0 ? claim : 0;
}

/* ---- letting go ---- */

static int punch_leftover(const struct store_record *record, uint64_t offset, uint64_t len_bytes, void *ctx)
{
    struct recovery *recovery = ctx;
    int claim = claim_of(recovery, record, offset);
    if (claim < 0 || claim >= MISFIT)
        return claim < 0 ? claim : 0;
    return store_pack_punch(recovery->pack, offset, len_bytes, recovery->err);
}

static int cut(struct store_pack *pack, uint64_t size_bytes, struct err *err)
{
    if (pack->size <= size_bytes)
        return 0;
    if (ftruncate(pack->fd, (off_t)size_bytes) < 0)
        return err_errno(err, errno, "cannot truncate pack '%s'", pack->path);
    pack->size = size_bytes;
    return 0;
}

struct row_query {
    uint64_t number;
    struct store_pack_row row;
};

static int get_row(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct row_query *query = ctx;
    int got = store_rows_pack_get(txn, query->number, &query->row, err);
    return got == 0 ? err_set(err, ERR_INTERNAL, "a pack that is recovered has no row") : got;
}

/* 1 if the disk gave all of the pack, 0 if it refused some: what lies before that has been seen. */
static int scan(struct recovery *recovery, store_pack_scan_cb cb)
{
    bool is_cut; /* the tail goes, whatever it is */
    int status = store_pack_scan(recovery->pack, cb, recovery, &is_cut, recovery->err);
    if (status == ERR_IO) {
        err_clear(recovery->err);
        return 0;
    }
    return status < 0 ? status : 1;
}

/* Which records does the index point to, and are these all that it does? */
static int take_stock(struct recovery *recovery, const struct store_pack_row *row)
{
    recovery->committed_bytes = row->size_bytes;
    int saw_all = scan(recovery, add_owned);
    recovery->owns_all = saw_all == 1 && recovery->owned_bytes == row->live_bytes;
    return saw_all < 0 ? saw_all : 0;
}

static int sort_out_all(struct recovery *recovery)
{
    int status = scan(recovery, sort_out);
    return status < 0 ? status : commit_kept(recovery);
}

static int recover(struct recovery *recovery, struct row_query *query)
{
    struct store_db *db = recovery->store->db;
    struct store_pack *pack = recovery->pack;
    int status = store_db_view(db, get_row, query, recovery->err);
    if (status >= 0)
        status = cut(pack, query->row.size_bytes + TAIL_MAX_BYTES, recovery->err);
    if (status == 0)
        status = take_stock(recovery, &query->row);
    if (status == 0)
        status = sort_out_all(recovery);
    if (status == 0)
        status = store_db_view(db, get_row, query, recovery->err);
    if (status >= 0)
        status = cut(pack, query->row.size_bytes, recovery->err);
    if (status == 0 && recovery->has_leftovers && recovery->owns_all)
        status = scan(recovery, punch_leftover);
    store_pack_trim(pack);
    return status < 0 ? status : store_pack_sync(pack, recovery->err);
}

int store_recover_pack(struct store *store, uint64_t number, struct err *err)
{
    OWNED(owned_pack) struct store_pack *pack = NULL;
    int status = store_pack_open(store->packs_dir, number, false, &pack, err);
    if (status < 0)
        return status;
    OWNED(owned_recovery) struct recovery *recovery = malloc(sizeof *recovery);
    if (!recovery)
        return err_set(err, ERR_NOMEM, "no memory to recover a pack");
    recovery->store = store;
    recovery->pack = pack;
    store_batch_init(&recovery->kept, store);
    store_adopt_init(&recovery->adopt, store, pack);
    recovery->committed_bytes = recovery->owned_bytes = 0;
    recovery->owns_all = recovery->has_leftovers = false;
    recovery->err = err;
    struct row_query query = {.number = number};
    return recover(recovery, &query);
}
