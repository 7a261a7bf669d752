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
    uint64_t owned_bytes; /* of records that the index points to */
    bool has_leftovers;
    bool saw_all; /* the disk gave all of the pack */
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

enum claim { NOBODYS = 0, WANTED, OWNED_BY_INDEX };

struct query {
    const struct store_record *record;
    uint64_t pack;
    uint64_t offset;
};

static bool is_at(const struct store_place *place, const struct query *query)
{
    return place->pack == query->pack && place->offset == query->offset;
}

static int find_claim(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct query *query = ctx;
    struct store_piece_row row;
    int got = store_rows_piece_get(txn, query->record->type, &query->record->id, &row, err);
    if (got < 0)
        return got;
    if (got == 0)
        row = (struct store_piece_row){0};
    struct store_unread unread; /* its place is not to be given to another */
    int refused = store_rows_unread_get(txn, query->record->type, &query->record->id, &unread, err);
    if (refused < 0)
        return refused;
    if (is_at(&row.place, query) || (refused == 1 && is_at(&unread.place, query)))
        return OWNED_BY_INDEX;
    if (got == 0 || row.place.pack != 0 || query->record->type != STORE_PIECE_CHUNK)
        return NOBODYS;
    int freed = store_rows_free_has(txn, query->pack, query->offset, err);
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
    recovery->owned_bytes += kept->bytes;
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

static int sort_out(const struct store_record *record, uint64_t offset, uint64_t len_bytes, void *ctx)
{
    struct recovery *recovery = ctx;
    int claim = claim_of(recovery, record, offset);
    if (claim < 0)
        return claim;
    if (claim == NOBODYS && record && record->type != STORE_PIECE_CHUNK) {
        int64_t adopted = store_adopt_look(&recovery->adopt, record, offset, recovery->err);
        if (adopted < 0)
            return (int)adopted;
        recovery->owned_bytes += (uint64_t)adopted;
    }
    if (claim == WANTED && !store_batch_find(&recovery->kept, &record->id) && has_its_bytes(recovery, record, offset))
        return keep(recovery, record, offset);
    if (claim == OWNED_BY_INDEX)
        recovery->owned_bytes += len_bytes;
    else
        recovery->has_leftovers = true;
    return 0;
}

/* ---- letting go ---- */

static int punch_leftover(const struct store_record *record, uint64_t offset, uint64_t len_bytes, void *ctx)
{
    struct recovery *recovery = ctx;
    int claim = claim_of(recovery, record, offset);
    if (claim < 0 || claim == OWNED_BY_INDEX)
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

static int sort_out_all(struct recovery *recovery)
{
    bool is_cut; /* the tail goes, whatever it is */
    int status = store_pack_scan(recovery->pack, sort_out, recovery, &is_cut, recovery->err);
    recovery->saw_all = status == 0;
    if (status == ERR_IO) { /* what lies before the bytes that the disk refuses has been seen */
        err_clear(recovery->err);
        status = 0;
    }
    return status < 0 ? status : commit_kept(recovery);
}

/* Is all that is left over really nobody's? */
static bool may_punch(const struct recovery *recovery, const struct store_pack_row *row)
{
    return recovery->has_leftovers && recovery->saw_all && recovery->owned_bytes == row->live_bytes;
}

static int recover(struct recovery *recovery, struct row_query *query)
{
    struct store_db *db = recovery->store->db;
    struct store_pack *pack = recovery->pack;
    bool is_cut;
    int status = store_db_view(db, get_row, query, recovery->err);
    if (status >= 0)
        status = cut(pack, query->row.size_bytes + TAIL_MAX_BYTES, recovery->err);
    if (status == 0)
        status = sort_out_all(recovery);
    if (status == 0)
        status = store_db_view(db, get_row, query, recovery->err);
    if (status >= 0)
        status = cut(pack, query->row.size_bytes, recovery->err);
    if (status == 0 && may_punch(recovery, &query->row))
        status = store_pack_scan(pack, punch_leftover, recovery, &is_cut, recovery->err);
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
    recovery->owned_bytes = 0;
    recovery->has_leftovers = false;
    recovery->saw_all = false;
    recovery->err = err;
    struct row_query query = {.number = number};
    return recover(recovery, &query);
}
