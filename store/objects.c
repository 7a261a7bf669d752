#include "store/objects.h"

#include <string.h>

#include "node/base/scope.h"
#include "store/gc.h"
#include "store/gone.h"
#include "store/read.h"
#include "store/tree.h"

OWNED_DEFINE(owned_recipe, struct store_recipe, store_recipe_free)

bool store_kind_is_valid(unsigned number)
{
    return number >= STORE_CACHE && number <= STORE_BLOB;
}

const char *store_kind_name(enum store_kind kind)
{
    static const char *const names[] = {
        [STORE_CACHE] = "cache", [STORE_CHECKPOINT] = "checkpoint", [STORE_VOLUME] = "volume", [STORE_LAYER] = "layer",
        [STORE_BLOB] = "blob",
    };
    return store_kind_is_valid(kind) ? names[kind] : "unknown";
}

/* ---- making and unmaking ---- */

/* It is complete from now on, or nobody wants it any more. 1 if there was a partial object. */
static int drop_partial(struct store_db_txn *txn, const struct id *digest, struct err *err)
{
    struct store_partial_info partial;
    int status = store_rows_broken_del(txn, digest, err);
    int got = status < 0 ? status : store_rows_partial_get(txn, digest, &partial, err);
    if (got != 1)
        return got;
    status = store_rows_partial_del(txn, digest, err);
    if (status >= 0)
        status = store_tree_unref(txn, STORE_PIECE_ROOT, &partial.root, err);
    return status < 0 ? status : 1;
}

int store_objects_commit(struct store_db_txn *txn, struct store_object_info *info, struct err *err)
{
    struct store_object_info there;
    int got = store_rows_object_get(txn, &info->digest, &there, err);
    if (got < 0)
        return got;
    int status = 0;
    if (got == 1) {
        if (there.kind < info->kind)
            there.kind = info->kind;
        *info = there;
    } else {
        status = store_tree_ref(txn, STORE_PIECE_ROOT, &info->root, err);
        if (status == 0)
            status = drop_partial(txn, &info->digest, err);
    }
    return status < 0 ? status : store_rows_object_put(txn, info, err);
}

int store_objects_break(struct store_db_txn *txn, const struct id *digest, uint64_t now_ms, struct err *err)
{
    struct store_object_info info;
    int got = store_rows_object_get(txn, digest, &info, err);
    if (got != 1)
        return got;
    /* The partial object takes over the reference to the root. */
    struct store_partial_info partial = {info.digest, info.root, info.kind, now_ms};
    struct store_broken broken = {info.digest, info.kind, now_ms};
    int status = store_rows_object_del(txn, digest, err);
    if (status >= 0)
        status = store_rows_partial_put(txn, &partial, err);
    return status < 0 ? status : store_rows_broken_put(txn, &broken, err);
}

struct demotion {
    const struct id *digest;
    uint64_t now_ms;
};

static int demote(struct store_db_txn *txn, void *ctx, struct err *err)
{
    const struct demotion *demotion = ctx;
    return store_objects_break(txn, demotion->digest, demotion->now_ms, err);
}

void store_objects_demote(struct store *store, const struct id *digest)
{
    struct demotion demotion = {digest, clock_wall_ms(&store->clock)};
    store_db_update(store->db, demote, &demotion, NULL);
}

int store_objects_check(struct store *store, const struct id *digest, uint64_t found_before, struct err *err)
{
    char text[DIGEST_TEXT_SIZE];
    OWNED(owned_recipe) struct store_recipe *recipe = NULL;
    if (store->rot.found == found_before)
        return 0;
    int got = store_recipe_load(store, digest, &recipe, err);
    if (got == 1)
        got = store_read_has_all(store, recipe, err);
    if (got == 1 || (got < 0 && got != ERR_CORRUPT))
        return got == 1 ? 0 : got;
    store_objects_demote(store, digest);
    return err_set(err, ERR_CONFLICT, "a part of object '%s' that was here has rotted meanwhile: once more, please",
                   digest_text(digest, text));
}

/* ---- queries and small changes ---- */

struct object_query {
    const struct id *digest;
    struct store_object_info info;
    uint64_t now_ms;
    uint32_t replicas;
};

static int get_object(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct object_query *query = ctx;
    return store_rows_object_get(txn, query->digest, &query->info, err);
}

int store_object_stat(struct store *store, const struct id *digest, struct store_object_info *ret_info, struct err *err)
{
    struct object_query query = {.digest = digest};
    int got = store_db_view(store->db, get_object, &query, err);
    if (got == 1 && ret_info)
        *ret_info = query.info;
    return got;
}

static int remove_object(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct object_query *query = ctx;
    int got = get_object(txn, ctx, err);
    if (got != 1)
        return got;
    int status = store_rows_object_del(txn, query->digest, err);
    if (status >= 0)
        status = store_tree_unref(txn, STORE_PIECE_ROOT, &query->info.root, err);
    return status < 0 ? status : 1;
}

int store_object_remove(struct store *store, const struct id *digest, struct err *err)
{
    struct object_query query = {.digest = digest};
    int gone = store_db_update(store->db, remove_object, &query, err);
    if (gone != 1)
        return gone;
    store_gone_note(store, digest);
    int status = store_gc_run(store, err);
    return status < 0 ? status : 1;
}

static int touch_object(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct object_query *query = ctx;
    int got = get_object(txn, ctx, err);
    if (got != 1)
        return got;
    query->info.used_ms = query->now_ms;
    int status = store_rows_object_put(txn, &query->info, err);
    return status < 0 ? status : 1;
}

int store_object_touch(struct store *store, const struct id *digest, struct err *err)
{
    struct object_query query = {.digest = digest, .now_ms = clock_wall_ms(&store->clock)};
    int got = store_db_view(store->db, get_object, &query, err);
    if (got != 1)
        return got;
    /* Also when the wall clock went back. */
    uint64_t age = query.now_ms - query.info.used_ms;
    return age < STORE_USED_STEP_MS ? 1 : store_db_update(store->db, touch_object, &query, err);
}

static int set_replicas(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct object_query *query = ctx;
    int got = get_object(txn, ctx, err);
    if (got != 1)
        return got;
    query->info.replicas = query->replicas;
    int status = store_rows_object_put(txn, &query->info, err);
    return status < 0 ? status : 1;
}

int store_object_set_replicas(struct store *store, const struct id *digest, uint32_t replicas, struct err *err)
{
    struct object_query query = {.digest = digest, .replicas = replicas};
    int got = store_db_view(store->db, get_object, &query, err);
    if (got != 1 || query.info.replicas == replicas)
        return got;
    return store_db_update(store->db, set_replicas, &query, err);
}

struct object_walk {
    store_object_cb cb;
    void *ctx;
};

static int each_object(struct store_span key, struct store_span value, void *ctx)
{
    struct object_walk *walk = ctx;
    struct store_object_info info;
    return store_rows_object_decode(key, value, &info) ? walk->cb(&info, walk->ctx) : 0;
}

int store_object_each(struct store *store, store_object_cb cb, void *ctx, struct err *err)
{
    struct object_walk walk = {cb, ctx};
    struct store_span all = {0};
    return store_db_each(store->db, STORE_DB_OBJECT, all, all, each_object, &walk, err);
}

/* ---- partial objects ---- */

struct partial_walk {
    store_partial_cb cb;
    void *ctx;
};

static int each_partial(struct store_span key, struct store_span value, void *ctx)
{
    struct partial_walk *walk = ctx;
    struct store_partial_info info;
    return store_rows_partial_decode(key, value, &info) ? walk->cb(&info, walk->ctx) : 0;
}

int store_partial_each(struct store *store, store_partial_cb cb, void *ctx, struct err *err)
{
    struct partial_walk walk = {cb, ctx};
    struct store_span all = {0};
    return store_db_each(store->db, STORE_DB_PARTIAL, all, all, each_partial, &walk, err);
}

static int remove_partial(struct store_db_txn *txn, void *ctx, struct err *err)
{
    return drop_partial(txn, ctx, err);
}

int store_partial_drop(struct store *store, const struct id *digest, struct err *err)
{
    struct id id = *digest;
    int gone = store_db_update(store->db, remove_partial, &id, err);
    if (gone != 1)
        return gone;
    store_gone_note(store, digest);
    int status = store_gc_run(store, err);
    return status < 0 ? status : 1;
}
