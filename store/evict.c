#include "store/evict.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "node/base/scope.h"
#include "store/gc.h"
#include "store/rows.h"

/* The file system is asked for its free space once per so many bytes. */
#define FLOOR_CHECK_BYTES (4u << 20)
/* Evicting for a few bytes at a time would walk all objects each time: at least so much, or a 16th of the quota. */
#define EVICT_STEP_BYTES (16u << 20)
/* As many as are kept sorted at once, x 64 B; eviction goes on with another walk if they do not suffice. */
#define CANDIDATES 4096

/* ---- what may go ---- */

struct judge {
    struct store *store;
    const struct store_object_info *info;
};

static int has_row_with_prefix(struct store_db_txn *txn, enum store_db_table table, const struct id *digest,
                               struct err *err)
{
    struct store_span prefix = {digest->b, ID_BYTES};
    struct store_span key;
    struct store_span value;
    return store_db_next(txn, table, prefix, prefix, false, &key, &value, err);
}

static bool is_cache(enum store_kind kind)
{
    return kind == STORE_CACHE || kind == STORE_CHECKPOINT;
}

/* Somebody pins it (running containers pin what they use), or a reference says keep. */
static int is_bound(struct store_db_txn *txn, const struct id *digest, struct err *err)
{
    int pinned = has_row_with_prefix(txn, STORE_DB_PIN, digest, err);
    return pinned != 0 ? pinned : has_row_with_prefix(txn, STORE_DB_KEEP, digest, err);
}

/* An object may be evicted if nobody pins it, no reference says keep, and losing it loses nothing: it is a cache by its
 * kind, or at least one other provider is known. replicas == 0 means none or unknown, so it may be the only copy. */
static int may_evict(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct judge *judge = ctx;
    if (!is_cache(judge->info->kind) && judge->info->replicas == 0)
        return 0;
    int bound = is_bound(txn, &judge->info->digest, err);
    return bound < 0 ? bound : !bound;
}

/* A partial object that is old is left over from something that nobody goes on with; but what was complete once and has
 * lost bytes may be the only copy of the others. */
static int may_drop(struct store_db_txn *txn, void *ctx, struct err *err)
{
    const struct store_partial_info *partial = ctx;
    struct store_broken broken;
    int bound = is_bound(txn, &partial->digest, err);
    if (bound != 0)
        return bound < 0 ? bound : 0;
    int was_complete = store_rows_broken_get(txn, &partial->digest, &broken, err);
    return was_complete < 0 ? was_complete : !was_complete || is_cache(partial->kind);
}

int store_evict_may_drop(struct store *store, const struct store_partial_info *partial, struct err *err)
{
    struct store_partial_info copy = *partial;
    return store_db_view(store->db, may_drop, &copy, err);
}

/* ---- in which order ---- */

struct candidate {
    enum store_kind kind; /* the enum is in the order of eviction, but for the two last, which are equal */
    uint64_t used_ms;
    struct id digest;
};

struct candidates {
    struct store *store;
    struct candidate list[CANDIDATES];
    size_t count;
    struct err *err;
};

static enum store_kind rank(enum store_kind kind)
{
    return kind == STORE_BLOB ? STORE_LAYER : kind;
}

static int compare(const void *a, const void *b)
{
    const struct candidate *x = a;
    const struct candidate *y = b;
    if (rank(x->kind) != rank(y->kind))
        return rank(x->kind) < rank(y->kind) ? -1 : 1;
    if (x->used_ms != y->used_ms)
        return x->used_ms < y->used_ms ? -1 : 1;
    return id_compare(&x->digest, &y->digest);
}

static int collect(const struct store_object_info *info, void *ctx)
{
    struct candidates *all = ctx;
    struct judge judge = {all->store, info};
    int may = store_db_view(all->store->db, may_evict, &judge, all->err);
    if (may != 1)
        return may;
    if (all->count == CANDIDATES) { /* keep the better half */
        qsort(all->list, all->count, sizeof all->list[0], compare);
        all->count /= 2;
    }
    all->list[all->count++] = (struct candidate){info->kind, info->used_ms, info->digest};
    return 0;
}

static int evict_round(struct store *store, uint64_t want_bytes, uint64_t *freed, size_t *ret_gone, struct err *err)
{
    OWNED(owned_free) struct candidates *all = calloc(1, sizeof *all);
    if (!all)
        return err_set(err, ERR_NOMEM, "no memory for eviction");
    all->store = store;
    all->err = err;
    int status = store_object_each(store, collect, all, err);
    qsort(all->list, all->count, sizeof all->list[0], compare);
    for (size_t i = 0; i < all->count && status == 0 && *freed < want_bytes; i++) {
        uint64_t before = store->live_bytes;
        int gone = store_object_remove(store, &all->list[i].digest, err);
        uint64_t after = store->live_bytes;
        if (gone == 1)
            ++*ret_gone;
        if (after < before)
            *freed += before - after;
        status = gone < 0 ? gone : 0;
    }
    return status;
}

int store_evict(struct store *store, uint64_t want_bytes, uint64_t *ret_freed, struct err *err)
{
    uint64_t freed = 0;
    size_t gone;
    int status;
    do {
        gone = 0;
        status = evict_round(store, want_bytes, &freed, &gone, err);
    } while (status == 0 && gone > 0 && freed < want_bytes);
    if (status < 0)
        return status;
    *ret_freed = freed;
    return 0;
}

/* ---- room ---- */

static int disk_free(struct store *store, uint64_t *ret_bytes, struct err *err)
{
    struct statvfs fs;
    if (statvfs(store->packs_dir, &fs) < 0)
        return err_errno(err, errno, "cannot look at the file system of '%s'", store->packs_dir);
    *ret_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return 0;
}

/* How many bytes too few there are for `bytes` more. */
static int lack(struct store *store, uint64_t bytes, uint64_t *ret_lack, struct err *err)
{
    *ret_lack = 0;
    uint64_t used = store->live_bytes + store->pending_bytes;
    if (store->quota_bytes && used + bytes > store->quota_bytes)
        *ret_lack = used + bytes - store->quota_bytes;
    store->unchecked_bytes += bytes;
    if (store->floor_bytes == 0 || (store->unchecked_bytes < FLOOR_CHECK_BYTES && bytes < FLOOR_CHECK_BYTES))
        return 0;
    uint64_t left = 0;
    int status = disk_free(store, &left, err);
    if (status < 0)
        return status;
    if (left < store->floor_bytes + bytes) {
        if (*ret_lack < store->floor_bytes + bytes - left)
            *ret_lack = store->floor_bytes + bytes - left;
    } else {
        store->unchecked_bytes = 0;
    }
    return 0;
}

int store_evict_make_room(struct store *store, uint64_t bytes, struct err *err)
{
    uint64_t missing;
    int status = lack(store, bytes, &missing, err);
    if (status < 0 || missing == 0)
        return status;
    uint64_t step = EVICT_STEP_BYTES;
    if (store->quota_bytes && store->quota_bytes / 16 < step)
        step = store->quota_bytes / 16;
    uint64_t freed;
    status = store_evict(store, missing < step ? step : missing, &freed, err);
    if (status == 0)
        status = lack(store, bytes, &missing, err);
    if (status < 0)
        return status;
    if (missing > 0)
        return err_set(err, ERR_NOSPACE,
                       "the store lacks %llu bytes for %llu more (quota %llu, %llu in use, free-disk floor %llu), and "
                       "nothing may be evicted",
                       (unsigned long long)missing, (unsigned long long)bytes, (unsigned long long)store->quota_bytes,
                       (unsigned long long)(store->live_bytes + store->pending_bytes),
                       (unsigned long long)store->floor_bytes);
    return 0;
}

/* ---- usage ---- */

static int add_size(struct store_span key, struct store_span value, void *ctx)
{
    struct store_usage *usage = ctx;
    struct store_object_info info;
    if (store_rows_object_decode(key, value, &info)) {
        usage->objects++;
        usage->object_bytes += info.size_bytes;
    }
    return 0;
}

int store_usage(struct store *store, struct store_usage *ret_usage, struct err *err)
{
    struct store_usage usage = {.quota_bytes = store->quota_bytes, .reader_lag = store_db_reader_lag(store->db)};
    struct store_span all = {0};
    int status = store_db_each(store->db, STORE_DB_OBJECT, all, all, add_size, &usage, err);
    if (status == 0)
        status = disk_free(store, &usage.disk_free_bytes, err);
    if (status < 0)
        return status;
    usage.pack_bytes = store->live_bytes + store->pending_bytes;
    *ret_usage = usage;
    return 0;
}
