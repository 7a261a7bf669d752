#include "store/rot.h"

#include <stdlib.h>

#include "node/base/crypto.h"
#include "node/base/scope.h"
#include "store/checksum.h"
#include "store/disk.h"
#include "store/gc.h"
#include "store/objects.h"
#include "store/packs.h"
#include "store/read.h"
#include "store/unread.h"

/* Findings that are written, or traced, at a time. */
#define ROUND 1024

OWNED_DEFINE(owned_pack, struct store_pack, store_pack_unref)

const char *store_rot_cause_text(enum store_rot_cause cause)
{
    static const char *const texts[] = {
        [STORE_ROT_BYTES] = "bytes changed",  [STORE_ROT_UNREADABLE] = "unreadable", [STORE_ROT_CUT] = "pack cut short",
        [STORE_ROT_MISSING] = "pack missing", [STORE_ROT_ODD] = "pack is no file",
    };
    return cause >= STORE_ROT_BYTES && cause <= STORE_ROT_ODD ? texts[cause] : "unknown";
}

void store_rot_init(struct store *store)
{
    pthread_mutex_init(&store->rot.take_lock, NULL);
}

void store_rot_release(struct store *store)
{
    pthread_mutex_destroy(&store->rot.take_lock);
}

static int count_rows(struct store_db_txn *txn, void *ctx, struct err *err)
{
    return store_db_count(txn, STORE_DB_ROT, ctx, err);
}

int store_rot_recover(struct store *store, struct err *err)
{
    uint64_t count = 0;
    int status = store_db_view(store->db, count_rows, &count, err);
    store->rot.waiting = count;
    return status;
}

uint64_t store_rot_waiting(struct store *store)
{
    return store->rot.waiting;
}

/* ---- finding ---- */

/* 1 or 0, or ERR_NOMEM. */
static int is_right(const uint8_t *stored, const struct id *id, const struct store_place *place, struct err *err)
{
    if (place->checksum != STORE_CHECKSUM_NONE && place->checksum != store_checksum_of(stored, place->stored_bytes))
        return 0;
    OWNED(owned_free) uint8_t *raw = malloc(place->raw_bytes + 1);
    if (!raw)
        return err_set(err, ERR_NOMEM, "no memory to look at a piece");
    if (store_decode(place->encoding, stored, place->stored_bytes, raw, place->raw_bytes, NULL) < 0)
        return 0;
    struct id found;
    crypto_sha256(raw, place->raw_bytes, &found);
    return id_equal(&found, id);
}

int store_rot_look(struct store *store, const struct id *id, const struct store_place *place, struct err *err)
{
    OWNED(owned_pack) struct store_pack *pack = NULL;
    OWNED(owned_free) uint8_t *stored = malloc(place->stored_bytes + 1);
    uint64_t size = 0;
    if (!stored)
        return err_set(err, ERR_NOMEM, "no memory to look at a piece");
    enum store_pack_look look = store_pack_look(store->packs_dir, place->pack, &size);
    if (look != STORE_PACK_FILE)
        return look == STORE_PACK_ABSENT ? STORE_ROT_MISSING : STORE_ROT_ODD;
    if (size < place->offset + store_rows_place_bytes(place))
        return STORE_ROT_CUT;
    int status = store_packs_get(store, place->pack, &pack, err);
    if (status < 0)
        return status;
    status = store_pack_read(pack, place->offset, stored, place->stored_bytes, err);
    if (status < 0)
        return status == ERR_CORRUPT ? STORE_ROT_UNREADABLE : status;
    int right = is_right(stored, id, place, err);
    return right < 0 ? right : right ? 0 : STORE_ROT_BYTES;
}

struct findings {
    struct store_rot rots[ROUND];
    size_t count;
    uint64_t freed_bytes; /* of places that are punched now */
    uint64_t fresh;       /* those of which no finding waited already */
};

/* Bytes that are wrong are nobody's loss; those that were not seen may still be the right ones. */
static int give_up_place(struct store_db_txn *txn, struct findings *findings, const struct store_rot *rot,
                         const struct store_place *place, struct err *err)
{
    uint64_t freed = store_rows_place_bytes(place);
    int status = rot->cause == STORE_ROT_UNREADABLE ? store_unread_note(txn, rot->type, &rot->id, place, &freed, err)
                                                    : store_rows_place_out(txn, place, err);
    findings->freed_bytes += freed;
    return status;
}

/* The row stays while anything refers to the piece: it is wanted from now on. */
static int forget(struct store_db_txn *txn, struct findings *findings, size_t i, struct err *err)
{
    const struct store_rot *rot = &findings->rots[i];
    struct store_piece_row row;
    int got = store_rows_piece_get(txn, rot->type, &rot->id, &row, err);
    if (got != 1 || row.place.pack != rot->pack || row.place.offset != rot->offset)
        return got < 0 ? got : 0;
    int status = give_up_place(txn, findings, rot, &row.place, err);
    row.place = (struct store_place){0};
    if (status == 0)
        status = store_rows_piece_put(txn, rot->type, &rot->id, &row, err);
    int waits = status < 0 ? status : store_rows_rot_del(txn, rot, err);
    findings->fresh += waits == 0;
    return waits < 0 ? waits : store_rows_rot_put(txn, rot, err);
}

static int forget_all(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct findings *findings = ctx;
    int status = 0;
    findings->freed_bytes = findings->fresh = 0;
    for (size_t i = 0; i < findings->count && status == 0; i++)
        status = forget(txn, findings, i, err);
    return status;
}

static int flush(struct store *store, struct findings *findings, struct err *err)
{
    if (findings->count == 0)
        return 0;
    store->rot.found++;
    int status = store_db_update(store->db, forget_all, findings, err);
    if (status == 0) {
        store->live_bytes -= findings->freed_bytes;
        store->rot.waiting += findings->fresh;
    }
    findings->count = 0;
    return status;
}

static struct store_rot rot_of(struct store *store, enum store_piece_type type, const struct id *id,
                               const struct store_place *place, enum store_rot_cause cause)
{
    return (struct store_rot){.type = type,
                              .id = *id,
                              .pack = place->pack,
                              .offset = place->offset,
                              .stored_bytes = place->stored_bytes,
                              .cause = cause,
                              .found_ms = clock_wall_ms(&store->clock)};
}

struct pack_walk {
    struct store *store;
    uint64_t number;
    uint64_t size_bytes;
    enum store_rot_cause cause;
    struct findings *findings;
    struct err *err;
};

static int collect(struct store_span key, struct store_span value, void *ctx)
{
    struct pack_walk *walk = ctx;
    enum store_piece_type type;
    struct id id;
    struct store_piece_row row;
    if (!store_rows_piece_key(key, &type, &id) || !store_rows_piece_decode(type, value, &row) ||
        row.place.pack != walk->number || row.place.offset + store_rows_place_bytes(&row.place) <= walk->size_bytes)
        return 0;
    struct findings *findings = walk->findings;
    findings->rots[findings->count++] = rot_of(walk->store, type, &id, &row.place, walk->cause);
    return findings->count == ROUND ? flush(walk->store, findings, walk->err) : 0;
}

int store_rot_found_pack(struct store *store, uint64_t number, uint64_t size_bytes, enum store_rot_cause cause,
                         struct err *err)
{
    OWNED(owned_free) struct findings *findings = calloc(1, sizeof *findings);
    if (!findings)
        return err_set(err, ERR_NOMEM, "no memory for what has rotted");
    struct pack_walk walk = {store, number, size_bytes, cause, findings, err};
    struct store_span all = {0};
    int status = store_db_each(store->db, STORE_DB_PIECE, all, all, collect, &walk, err);
    return status < 0 ? status : flush(store, findings, err);
}

static int forget_one(struct store *store, const struct store_rot *rot)
{
    OWNED(owned_free) struct findings *findings = calloc(1, sizeof *findings);
    if (!findings)
        return ERR_NOMEM;
    findings->rots[findings->count++] = *rot;
    return flush(store, findings, NULL);
}

int store_rot_found(struct store *store, enum store_piece_type type, const struct id *id,
                    const struct store_place *place, struct err *err)
{
    if (store->is_scratch)
        return ERR_CORRUPT;
    uint64_t size = 0;
    int cause = store_rot_look(store, id, place, err);
    int status = cause == STORE_ROT_MISSING      ? store_disk_check_mounted(store, err)
                 : cause == STORE_ROT_UNREADABLE ? store_disk_check_answers(store, err)
                                                 : 0;
    if (cause <= 0 || status < 0)
        return cause <= 0 ? cause : status;
    struct store_rot rot = rot_of(store, type, id, place, (enum store_rot_cause)cause);
    if (cause >= STORE_ROT_CUT) {
        store_packs_retire(store, place->pack);
        store_pack_look(store->packs_dir, place->pack, &size);
        status = store_rot_found_pack(store, place->pack, size, rot.cause, NULL);
    } else {
        status = forget_one(store, &rot);
    }
    if (status == 0)
        store_gc_run(store, NULL);
    return ERR_CORRUPT;
}

/* ---- tracing ---- */

struct trace {
    struct store *store;
    struct store_rot rots[ROUND];
    size_t count;
    size_t ended;                         /* of these, those that wait no more */
    struct map bad[STORE_PIECE_ROOT + 1]; /* by type: ids of what is absent or needs what is; values mean nothing */
    struct store_broken *broken;          /* owned */
    size_t broken_count;
    size_t broken_cap;
    struct err *err;
};

static void release_trace(struct trace *trace)
{
    for (size_t type = 0; type <= STORE_PIECE_ROOT; type++)
        map_release(&trace->bad[type]);
    free(trace->broken);
    trace->broken = NULL;
}

static int mark(struct trace *trace, enum store_piece_type type, const struct id *id)
{
    int status = map_set(&trace->bad[type], id, trace);
    return status < 0 ? err_set(trace->err, status, "no memory to trace what has rotted") : 0;
}

/* What came again meanwhile needs no tracing. */
static int take_rows(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct trace *trace = ctx;
    trace->count = 0;
    struct store_span key = {0};
    struct store_span value;
    struct store_span all = {0};
    while (trace->count < ROUND) {
        struct store_rot *rot = &trace->rots[trace->count];
        int got = store_db_next(txn, STORE_DB_ROT, all, key, key.len > 0, &key, &value, err);
        if (got != 1)
            return got;
        if (!store_rows_rot_decode(key, value, rot))
            return err_set(err, ERR_CORRUPT, "a row of the rot in the store's index is malformed");
        struct store_piece_row row;
        got = store_rows_piece_get(txn, rot->type, &rot->id, &row, err);
        int status = got == 1 && row.place.pack == 0 ? mark(trace, rot->type, &rot->id) : got;
        if (status < 0)
            return status;
        trace->count++;
    }
    return 0;
}

/* A leaf or root whose own bytes turn out to be bad is a finding of its own, and traced in the next round. One that
 * cannot be read for another reason may need what has rotted: then the findings wait for better times. */
static int look_into(struct trace *trace, enum store_piece_type type, const struct id *id, uint8_t *raw)
{
    size_t len = 0;
    bool needs = false;
    int got = store_piece_read_raw(trace->store, type, id, raw, STORE_ROOT_MAX_BYTES, &len, trace->err);
    if (got != 1)
        return got == ERR_CORRUPT ? 0 : got;
    size_t head = type == STORE_PIECE_LEAF ? STORE_LEAF_HEAD_BYTES : STORE_ROOT_HEAD_BYTES;
    size_t step = type == STORE_PIECE_LEAF ? STORE_LEAF_ENTRY_BYTES : STORE_ROOT_ENTRY_BYTES;
    for (size_t at = head; at + step <= len && !needs; at += step) {
        struct id child;
        memcpy(child.b, raw + at, ID_BYTES);
        needs = map_get(&trace->bad[type - 1], &child) != NULL;
    }
    return needs ? mark(trace, type, id) : 0;
}

struct node_walk {
    struct trace *trace;
    uint8_t *raw; /* borrowed */
};

static int each_node(struct store_span key, struct store_span value, void *ctx)
{
    (void)value;
    struct node_walk *walk = ctx;
    enum store_piece_type type;
    struct id id;
    return store_rows_piece_key(key, &type, &id) ? look_into(walk->trace, type, &id, walk->raw) : 0;
}

/* The leaves that list a bad chunk, or the roots that list a bad leaf. */
static int trace_nodes(struct trace *trace, enum store_piece_type type)
{
    if (trace->bad[type - 1].count == 0)
        return 0;
    OWNED(owned_free) uint8_t *raw = malloc(STORE_ROOT_MAX_BYTES);
    if (!raw)
        return err_set(trace->err, ERR_NOMEM, "no memory to read a recipe");
    struct node_walk walk = {trace, raw};
    uint8_t prefix = (uint8_t)type;
    struct store_span none = {0};
    return store_db_each(trace->store->db, STORE_DB_PIECE, (struct store_span){&prefix, 1}, none, each_node, &walk,
                         trace->err);
}

static int each_object(const struct store_object_info *info, void *ctx)
{
    struct trace *trace = ctx;
    if (!map_get(&trace->bad[STORE_PIECE_ROOT], &info->root))
        return 0;
    if (trace->broken_count == trace->broken_cap) {
        size_t cap = trace->broken_cap ? trace->broken_cap * 2 : 16;
        struct store_broken *grown = reallocarray(trace->broken, cap, sizeof *grown);
        if (!grown)
            return err_set(trace->err, ERR_NOMEM, "no memory for a list of broken objects");
        trace->broken = grown;
        trace->broken_cap = cap;
    }
    trace->broken[trace->broken_count++] = (struct store_broken){.digest = info->digest};
    return 0;
}

/* What came again meanwhile, and has rotted again, is a finding that was not traced yet. */
static int end_finding(struct store_db_txn *txn, const struct store_rot *rot, struct err *err)
{
    struct store_rot now;
    int got = store_rows_rot_get(txn, rot->type, &rot->id, &now, err);
    if (got != 1 || now.pack != rot->pack || now.offset != rot->offset)
        return got < 0 ? got : 0;
    return store_rows_rot_del(txn, rot, err);
}

static int write_round(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct trace *trace = ctx;
    int status = 0;
    trace->ended = 0;
    for (size_t i = 0; i < trace->broken_count && status >= 0; i++)
        status = store_objects_break(txn, &trace->broken[i].digest, clock_wall_ms(&trace->store->clock), err);
    for (size_t i = 0; i < trace->count && status >= 0; i++) {
        status = end_finding(txn, &trace->rots[i], err);
        trace->ended += status == 1;
    }
    return status < 0 ? status : 0;
}

/* One walk for up to ROUND findings; trace->count is how many they were. */
static int run_round(struct trace *trace)
{
    struct store_db *db = trace->store->db;
    struct err *err = trace->err;
    uint64_t seed;
    crypto_random(&seed, sizeof seed);
    for (size_t type = 0; type <= STORE_PIECE_ROOT; type++)
        map_init(&trace->bad[type], LIMIT_STORE_TRACED, seed);
    int status = store_db_view(db, take_rows, trace, err);
    if (status == 0)
        status = trace_nodes(trace, STORE_PIECE_LEAF);
    if (status == 0)
        status = trace_nodes(trace, STORE_PIECE_ROOT);
    if (status == 0 && trace->bad[STORE_PIECE_ROOT].count > 0)
        status = store_object_each(trace->store, each_object, trace, err);
    return status < 0 || trace->count == 0 ? status : store_db_update(db, write_round, trace, err);
}

static int64_t take_round(struct store *store, store_rot_cb cb, void *ctx, struct err *err)
{
    OWNED(owned_free) struct trace *trace = calloc(1, sizeof *trace);
    struct err own = {0};
    if (!trace)
        return err_set(err, ERR_NOMEM, "no memory to trace what has rotted");
    trace->store = store;
    trace->err = err ? err : &own;
    pthread_mutex_lock(&store->rot.take_lock);
    int status = run_round(trace);
    pthread_mutex_unlock(&store->rot.take_lock);
    release_trace(trace);
    if (status < 0)
        return status;
    store->rot.waiting -= trace->ended;
    for (size_t i = 0; i < trace->count && cb; i++)
        cb(&trace->rots[i], ctx);
    return (int64_t)trace->count;
}

int64_t store_rot_take(struct store *store, store_rot_cb cb, void *ctx, struct err *err)
{
    int64_t total = 0;
    int64_t took = store_rot_waiting(store) > 0;
    while (took > 0) {
        took = take_round(store, cb, ctx, err);
        if (took > 0)
            total += took;
    }
    if (took == 0 && total > 0)
        took = store_gc_run(store, err);
    return took < 0 ? took : total;
}

/* ---- what is to be repaired ---- */

struct broken_walk {
    store_broken_cb cb;
    void *ctx;
};

static int each_broken(struct store_span key, struct store_span value, void *ctx)
{
    struct broken_walk *walk = ctx;
    struct store_broken broken;
    return store_rows_broken_decode(key, value, &broken) ? walk->cb(&broken, walk->ctx) : 0;
}

int store_broken_each(struct store *store, store_broken_cb cb, void *ctx, struct err *err)
{
    struct broken_walk walk = {cb, ctx};
    struct store_span all = {0};
    return store_db_each(store->db, STORE_DB_BROKEN, all, all, each_broken, &walk, err);
}
