#include "store/open.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/base/scope.h"
#include "node/base/wire.h"
#include "store/disk.h"
#include "store/evict.h"
#include "store/gc.h"
#include "store/gone.h"
#include "store/lock.h"
#include "store/packs.h"
#include "store/pending.h"
#include "store/rot.h"
#include "store/scrub.h"
#include "store/unread.h"

OWNED_DEFINE(owned_store, struct store, store_close)

static const struct store_span format_key = {(const uint8_t *)"format", 6};

int store_open_write_format(struct store_db_txn *txn, void *ctx, struct err *err)
{
    (void)ctx;
    uint8_t version[4];
    wire_store_u32(version, STORE_FORMAT_VERSION);
    struct store_span value = {version, sizeof version};
    return store_db_put(txn, STORE_DB_META, format_key, value, err);
}

int store_open_check_format(struct store_db_txn *txn, void *ctx, struct err *err)
{
    (void)ctx;
    struct store_span value;
    int got = store_db_get(txn, STORE_DB_META, format_key, &value, err);
    if (got != 1)
        return got;
    uint32_t version = value.len == 4 ? wire_load_u32(value.data) : 0;
    if (version < STORE_FORMAT_OLDEST || version > STORE_FORMAT_VERSION)
        return err_set(err, ERR_UNSUPPORTED, "the store is of format %u, this program knows %u to %u", version,
                       STORE_FORMAT_OLDEST, STORE_FORMAT_VERSION);
    return (int)version;
}

static int has_packs(struct store *store, struct err *err)
{
    OWNED(owned_free) uint64_t *numbers = NULL;
    size_t count;
    int status = store_pack_list(store->packs_dir, &numbers, &count, err);
    return status < 0 ? status : count > 0;
}

/* An index that says nothing is new, or it was lost: packs tell. One of an older format is one of this from now on: its
 * rows are read as they are. */
static int check_format(struct store *store, struct err *err)
{
    int got = store_db_view(store->db, store_open_check_format, NULL, err);
    if (got == (int)STORE_FORMAT_VERSION)
        return 0;
    int packs = got == 0 ? has_packs(store, err) : got < 0 ? got : 0;
    if (packs < 0)
        return packs;
    if (packs)
        return err_set(err, ERR_CORRUPT,
                       "the index of store '%s' is empty, but there are packs; run `cmig-node fsck` to rebuild it",
                       store->dir);
    return store_db_update(store->db, store_open_write_format, NULL, err);
}

static int make_dirs(struct store *store, struct err *err)
{
    OWNED(owned_free) char *index = file_path("%s/index", store->dir);
    store->packs_dir = file_path("%s/packs", store->dir);
    if (!index || !store->packs_dir)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    int status = file_make_dirs(index, 0700, err);
    if (status == 0)
        status = file_make_dirs(store->packs_dir, 0700, err);
    return status < 0 ? status : file_sync_dir(store->dir, err);
}

static int open_index(struct store *store, uint64_t map_bytes, struct err *err)
{
    OWNED(owned_free) char *index = file_path("%s/index", store->dir);
    if (!index)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    int status = store_db_open(index, map_bytes, STORE_DB_LIVE, &store->db, err);
    if (status == 0)
        status = file_sync_dir(index, err);
    return status < 0 ? status : check_format(store, err);
}

int store_open(const struct store_options *options, struct store **ret_store, struct err *err)
{
    struct store *made = calloc(1, sizeof *made);
    if (!made)
        return err_set(err, ERR_NOMEM, "no memory for a store");
    made->lock_fd = -1;
    made->clock = options->clock;
    made->quota_bytes = options->quota_bytes;
    made->floor_bytes = options->floor_bytes;
    made->pack_bytes = options->pack_bytes ? options->pack_bytes : STORE_PACK_BYTES;
    store_gc_init(made);
    store_packs_init(made);
    store_pending_init(made);
    store_rot_init(made);
    store_gone_init(made);
    store_scrub_init(made);
    OWNED(owned_store) struct store *store = made;
    store->dir = strdup(options->dir);
    if (!store->dir)
        return err_set(err, ERR_NOMEM, "no memory for a store");
    int status = store_lock_take(store->dir, &store->lock_fd, err);
    if (status == 0)
        status = make_dirs(store, err);
    if (status == 0)
        status = open_index(store, options->index_map_bytes, err);
    if (status == 0)
        status = store_disk_recover(store, err);
    if (status == 0)
        status = store_rot_recover(store, err);
    if (status == 0)
        status = store_scrub_recover(store, err);
    if (status == 0)
        status = store_packs_recover(store, err);
    if (status == 0)
        status = store_gc_run(store, err);
    if (status < 0)
        return err_wrap(err, "cannot open store '%s'", options->dir);
    *ret_store = STEAL(store);
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    if (store->db) {
        store_scrub_save(store);
        store_packs_settle(store);
    }
    store_packs_release(store);
    store_db_close(store->db);
    store_pending_release(store);
    store_rot_release(store);
    store_gone_release(store);
    store_scrub_release(store);
    store_gc_release(store);
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    free(store->packs_dir);
    free(store->dir);
    free(store);
}

/* ---- maintenance ---- */

struct sweep {
    struct store *store;
    uint64_t now_ms;
    struct err *err;
};

static int drop_if_old(const struct store_partial_info *info, void *ctx)
{
    struct sweep *sweep = ctx;
    if (sweep->now_ms < info->started_ms || sweep->now_ms - info->started_ms < STORE_PARTIAL_KEEP_MS)
        return 0;
    int may = store_evict_may_drop(sweep->store, info, sweep->err);
    if (may != 1)
        return may;
    int dropped = store_partial_drop(sweep->store, &info->digest, sweep->err);
    return dropped < 0 ? dropped : 0;
}

int store_maintain(struct store *store, struct err *err)
{
    store_db_check_readers(store->db);
    struct sweep sweep = {store, clock_wall_ms(&store->clock), err};
    int status = store_partial_each(store, drop_if_old, &sweep, err);
    if (status == 0)
        status = store_unread_sweep(store, err);
    return status < 0 ? status : store_gc_run(store, err);
}
