#include "store/gc.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/scope.h"
#include "store/packs.h"
#include "store/read.h"
#include "store/rot.h"
#include "store/tree.h"
#include "store/unread.h"

/* Rows changed by one transaction, roughly: it stops behind the piece that passes this. The largest root has 131,073
 * leaves, the largest leaf 2048 chunks. */
#define WORK_PER_TXN 8192
#define FREE_ROWS_PER_TXN 1024

OWNED_DEFINE(owned_pack, struct store_pack, store_pack_unref)

void store_gc_init(struct store *store)
{
    uint64_t seed;
    crypto_random(&seed, sizeof seed);
    pthread_mutex_init(&store->gc.hold_lock, NULL);
    map_init(&store->gc.holds, LIMIT_STORE_HOLDS, seed);
    pthread_rwlock_init(&store->gc.gate, NULL);
    pthread_mutex_init(&store->gc.run_lock, NULL);
}

void store_gc_release(struct store *store)
{
    map_release(&store->gc.holds);
    pthread_mutex_destroy(&store->gc.hold_lock);
    pthread_rwlock_destroy(&store->gc.gate);
    pthread_mutex_destroy(&store->gc.run_lock);
}

/* ---- holds: the map's pointer is the count ---- */

int store_gc_hold(struct store *store, const struct id *id, struct err *err)
{
    pthread_mutex_lock(&store->gc.hold_lock);
    uintptr_t count = (uintptr_t)map_get(&store->gc.holds, id) + 1;
    int status = map_set(&store->gc.holds, id, (void *)count);
    pthread_mutex_unlock(&store->gc.hold_lock);
    return status < 0 ? err_set(err, status, "more than %u pieces are being worked on at once", LIMIT_STORE_HOLDS) : 0;
}

void store_gc_unhold(struct store *store, const struct id *id)
{
    pthread_mutex_lock(&store->gc.hold_lock);
    uintptr_t count = (uintptr_t)map_get(&store->gc.holds, id);
    if (count > 1)
        map_set(&store->gc.holds, id, (void *)(count - 1)); /* replacing needs no memory */
    else
        map_remove(&store->gc.holds, id);
    pthread_mutex_unlock(&store->gc.hold_lock);
}

static bool is_held(struct store *store, const struct id *id)
{
    pthread_mutex_lock(&store->gc.hold_lock);
    bool held = map_get(&store->gc.holds, id) != NULL;
    pthread_mutex_unlock(&store->gc.hold_lock);
    return held;
}

void store_gc_gate_enter(struct store *store)
{
    pthread_rwlock_rdlock(&store->gc.gate);
}

void store_gc_gate_leave(struct store *store)
{
    pthread_rwlock_unlock(&store->gc.gate);
}

/* ---- orphans ---- */

struct pass {
    struct store *store;
    uint8_t from[STORE_PIECE_KEY_BYTES]; /* the last orphan looked at */
    size_t from_len;
    /* results of one transaction */
    uint8_t next[STORE_PIECE_KEY_BYTES];
    size_t freed;
    size_t held;
    size_t work;
    uint64_t freed_bytes;
};

/* 1 if the record cannot be read: then it cannot be followed. */
static int unref_children(struct pass *pass, struct store_db_txn *txn, enum store_piece_type type,
                          const struct store_place *place, const struct id *id, struct err *err)
{
    struct store *store = pass->store;
    if (type == STORE_PIECE_CHUNK)
        return 0;
    int status = 0;
    if (type == STORE_PIECE_ROOT) {
        OWNED(store_root_release) struct store_root root = {0};
        if (store_read_root_at(store, place, id, &root, NULL) < 0)
            return 1;
        pass->work += root.leaf_count;
        for (size_t i = 0; i < root.leaf_count && status == 0; i++)
            status = store_tree_unref(txn, STORE_PIECE_LEAF, &root.leaves[i].id, err);
        return status;
    }
    OWNED(owned_free) struct store_chunk *chunks = malloc(STORE_LEAF_MAX_CHUNKS * sizeof *chunks);
    uint32_t count = 0;
    if (!chunks)
        return err_set(err, ERR_NOMEM, "no memory to free a recipe leaf");
    if (store_read_leaf_at(store, place, id, chunks, &count, NULL) < 0)
        return 1;
    pass->work += count;
    for (size_t i = 0; i < count && status == 0; i++)
        status = store_tree_unref(txn, STORE_PIECE_CHUNK, &chunks[i].id, err);
    return status;
}

static int give_up_place(struct pass *pass, struct store_db_txn *txn, const struct store_place *place, struct err *err)
{
    if (place->pack == 0)
        return 0;
    pass->freed_bytes += store_rows_place_bytes(place);
    return store_rows_place_out(txn, place, err);
}

/* A recipe's record that cannot be followed stays an orphan, without a place: its references still count. Should the
 * same record come again, or the disk that refuses to read it think better of it (unread.h), it gets a place, and is
 * freed with what it refers to; if not, that stays until fsck counts anew. */
static int keep_lost(struct pass *pass, struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                     struct store_piece_row *row, struct err *err)
{
    if (row->place.pack == 0)
        return 0;
    uint64_t freed = 0;
    bool is_bad = store_rot_look(pass->store, id, &row->place, NULL) == STORE_ROT_BYTES;
    int status = is_bad ? give_up_place(pass, txn, &row->place, err)
                        : store_unread_note(txn, type, id, &row->place, &freed, err);
    pass->freed_bytes += freed;
    row->place = (struct store_place){0};
    return status < 0 ? status : store_rows_piece_put(txn, type, id, row, err);
}

static int free_orphan(struct pass *pass, struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                       struct err *err)
{
    struct store_piece_row row;
    int got = store_rows_piece_get(txn, type, id, &row, err);
    if (got < 0)
        return got;
    bool is_unused = got == 1 && row.refs == 0;
    pass->work++;
    int status = is_unused ? unref_children(pass, txn, type, &row.place, id, err) : 0;
    if (status != 0)
        return status < 0 ? status : keep_lost(pass, txn, type, id, &row, err);
    status = store_rows_orphan_del(txn, type, id, err);
    if (status >= 0 && is_unused)
        status = give_up_place(pass, txn, &row.place, err);
    if (status >= 0 && is_unused)
        status = store_rows_piece_del(txn, type, id, err);
    pass->freed++;
    return status < 0 ? status : 0;
}

static int free_some(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct pass *pass = ctx;
    pass->freed = pass->held = pass->work = 0;
    pass->freed_bytes = 0;
    memcpy(pass->next, pass->from, sizeof pass->next);
    size_t next_len = pass->from_len;
    while (pass->work < WORK_PER_TXN) {
        struct store_span key;
        struct store_span value;
        struct store_span from = {pass->next, next_len};
        struct store_span all = {0};
        int got = store_db_next(txn, STORE_DB_ORPHAN, all, from, next_len > 0, &key, &value, err);
        if (got != 1)
            return got;
        enum store_piece_type type;
        struct id id;
        if (!store_rows_piece_key(key, &type, &id))
            return err_set(err, ERR_CORRUPT, "a row of the orphans in the store's index is malformed");
        memcpy(pass->next, key.data, key.len);
        next_len = key.len;
        if (is_held(pass->store, &id)) {
            pass->held++;
            continue;
        }
        int status = free_orphan(pass, txn, type, &id, err);
        if (status < 0)
            return status;
    }
    return 0;
}

/* From the first orphan to the last. *ret_freed tells whether another pass may find more. */
static int run_pass(struct store *store, bool *ret_freed, struct err *err)
{
    struct pass pass = {.store = store};
    do {
        pthread_rwlock_wrlock(&store->gc.gate);
        int status = store_db_update(store->db, free_some, &pass, err);
        pthread_rwlock_unlock(&store->gc.gate);
        if (status < 0)
            return status;
        store->live_bytes -= pass.freed_bytes;
        if (pass.held > 0)
            store->gc.passed_over = true;
        *ret_freed |= pass.freed > 0;
        memcpy(pass.from, pass.next, sizeof pass.from);
        pass.from_len = sizeof pass.from;
    } while (pass.work >= WORK_PER_TXN);
    return 0;
}

/* ---- ranges ---- */

struct ranges {
    struct store_free_row rows[FREE_ROWS_PER_TXN];
    size_t count;
};

static int take_ranges(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct ranges *ranges = ctx;
    ranges->count = 0;
    struct store_span key = {0};
    struct store_span value;
    struct store_span all = {0};
    while (ranges->count < FREE_ROWS_PER_TXN) {
        int got = store_db_next(txn, STORE_DB_FREE, all, key, key.len > 0, &key, &value, err);
        if (got != 1)
            return got;
        if (!store_rows_free_decode(key, value, &ranges->rows[ranges->count]))
            return err_set(err, ERR_CORRUPT, "a row of the freed ranges in the store's index is malformed");
        ranges->count++;
    }
    return 0;
}

static int forget_ranges(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct ranges *ranges = ctx;
    int status = 0;
    for (size_t i = 0; i < ranges->count && status >= 0; i++)
        status = store_rows_free_del(txn, &ranges->rows[i], err);
    return status < 0 ? status : 0;
}

static int punch_range(struct store *store, uint64_t number, uint64_t offset, uint64_t len_bytes, struct err *err)
{
    OWNED(owned_pack) struct store_pack *pack = NULL;
    int status = store_packs_get(store, number, &pack, err);
    if (status == ERR_CORRUPT) { /* the pack is gone, and the range with it */
        err_clear(err);
        return 0;
    }
    return status < 0 ? status : store_pack_punch(pack, offset, len_bytes, err);
}

/* Neighbouring records of a pack as one range: whole pages are then freed where they meet. */
static int punch_ranges(struct store *store, const struct ranges *ranges, struct err *err)
{
    int status = 0;
    for (size_t i = 0; i < ranges->count && status == 0;) {
        struct store_free_row run = ranges->rows[i++];
        while (i < ranges->count && ranges->rows[i].pack == run.pack &&
               ranges->rows[i].offset == run.offset + run.len_bytes)
            run.len_bytes += ranges->rows[i++].len_bytes;
        status = punch_range(store, run.pack, run.offset, run.len_bytes, err);
    }
    return status;
}

/* Before the rows are forgotten: a range that was punched in vain would be nobody's. If it fails, that is what happens
 * should the power fail as well, and fsck finds it. */
static void sync_packs(struct store *store, const struct ranges *ranges)
{
    for (size_t i = 0; i < ranges->count; i++) {
        OWNED(owned_pack) struct store_pack *pack = NULL;
        if ((i == 0 || ranges->rows[i].pack != ranges->rows[i - 1].pack) &&
            store_packs_get(store, ranges->rows[i].pack, &pack, NULL) == 0)
            store_pack_sync(pack, NULL);
    }
}

static int remove_empty(struct store *store, const struct ranges *ranges, struct err *err)
{
    int status = 0;
    for (size_t i = 0; i < ranges->count && status == 0; i++)
        if (i == 0 || ranges->rows[i].pack != ranges->rows[i - 1].pack)
            status = store_packs_remove_if_empty(store, ranges->rows[i].pack, err);
    return status;
}

static int free_ranges(struct store *store, struct err *err)
{
    OWNED(owned_free) struct ranges *ranges = malloc(sizeof *ranges);
    if (!ranges)
        return err_set(err, ERR_NOMEM, "no memory to free ranges of packs");
    int status;
    do {
        status = store_db_view(store->db, take_ranges, ranges, err);
        if (status == 0 && ranges->count == 0)
            break;
        if (status == 0)
            status = punch_ranges(store, ranges, err);
        if (status == 0)
            sync_packs(store, ranges);
        if (status == 0)
            status = store_db_update(store->db, forget_ranges, ranges, err);
        if (status == 0)
            status = remove_empty(store, ranges, err);
    } while (status == 0);
    return status;
}

int store_gc_run(struct store *store, struct err *err)
{
    pthread_mutex_lock(&store->gc.run_lock);
    store->gc.passed_over = false;
    bool freed;
    int status;
    do {
        freed = false;
        status = run_pass(store, &freed, err);
    } while (status == 0 && freed);
    if (status == 0)
        status = free_ranges(store, err);
    pthread_mutex_unlock(&store->gc.run_lock);
    return status;
}

void store_gc_run_if_passed_over(struct store *store)
{
    if (store->gc.passed_over)
        store_gc_run(store, NULL);
}
