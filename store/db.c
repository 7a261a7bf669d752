#include "store/db.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "node/base/buf.h"
#include "node/base/file.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

#define MAP_DEFAULT_BYTES (1ull << 30)
#define MAP_MAX_BYTES (1ull << 42)
#define MAX_READERS 512
#define WALK_PAGE_BYTES 65536u
#define WALK_MAX_BYTES (WALK_PAGE_BYTES + (2u << 20)) /* a page and one largest row */
#define ABSENT 0                                      /* of LMDB's own tables */
#define FSCK_HINT "run `cmig-node fsck` to rebuild it from the packs"

struct store_db {
    MDB_env *env;                 /* owned */
    MDB_dbi dbi[STORE_DB_TABLES]; /* ABSENT: not in this file, which is read only */
    pthread_rwlock_t map_lock;    /* shared by transactions, exclusive for growing the map */
    char *path;                   /* owned; for messages */
};

struct store_db_txn {
    struct store_db *db;
    MDB_txn *txn;
    bool map_full;
};

OWNED_DEFINE(owned_db, struct store_db, store_db_close)

static const char *const table_names[STORE_DB_TABLES] = {
    [STORE_DB_META] = "meta",       [STORE_DB_PIECE] = "piece",   [STORE_DB_OBJECT] = "object",
    [STORE_DB_PARTIAL] = "partial", [STORE_DB_PIN] = "pin",       [STORE_DB_REF] = "ref",
    [STORE_DB_KEEP] = "keep",       [STORE_DB_PACK] = "pack",     [STORE_DB_FREE] = "free",
    [STORE_DB_ORPHAN] = "orphan",   [STORE_DB_USER] = "user",     [STORE_DB_ROT] = "rot",
    [STORE_DB_BROKEN] = "broken",   [STORE_DB_UNREAD] = "unread",
};

static int db_error(struct store_db *db, int code, const char *doing, struct err *err)
{
    switch (code) {
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_NOTFOUND: /* only where a table is opened: one that must be there is not */
        return err_set(err, ERR_CORRUPT, "the store's index '%s' is damaged (%s: %s); " FSCK_HINT, db->path, doing,
                       mdb_strerror(code));
    case MDB_PANIC:
        return err_set(err, ERR_IO, "the store's index '%s' stopped after a write failed; restart to go on", db->path);
    case MDB_MAP_FULL:
        return err_set(err, ERR_NOSPACE, "the store's index '%s' is full", db->path);
    case MDB_READERS_FULL:
        return err_set(err, ERR_BUSY, "too much reads the store's index '%s'; end other programs that have it open",
                       db->path);
    default:
        if (code > 0)
            return err_errno(err, code, "cannot %s the store's index '%s'", doing, db->path);
        return err_set(err, ERR_IO, "cannot %s the store's index '%s': %s", doing, db->path, mdb_strerror(code));
    }
}

static MDB_val val(struct store_span span)
{
    return (MDB_val){.mv_size = span.len, .mv_data = (void *)span.data};
}

static struct store_span span_of(const MDB_val *value)
{
    return (struct store_span){.data = value->mv_data, .len = value->mv_size};
}

/* ---- environment ---- */

/* Pages beyond the end of a file that was cut short would be a SIGBUS in the map. */
static int check_length(struct store_db *db, struct err *err)
{
    OWNED(owned_free) char *file = file_path("%s/data.mdb", db->path);
    struct stat st;
    if (!file || stat(file, &st) < 0)
        return err_set(err, ERR_IO, "cannot look at the store's index in '%s'", db->path);
    MDB_envinfo info;
    MDB_stat stat_;
    mdb_env_info(db->env, &info);
    mdb_env_stat(db->env, &stat_);
    uint64_t pages = (uint64_t)st.st_size / stat_.ms_psize;
    if (info.me_last_pgno >= pages)
        return err_set(err, ERR_CORRUPT, "the store's index '%s' is cut short: %llu pages of %llu; " FSCK_HINT,
                       db->path, (unsigned long long)pages, (unsigned long long)info.me_last_pgno + 1);
    return 0;
}

static int open_tables(struct store_db *db, enum store_db_mode mode, struct err *err)
{
    bool read_only = mode == STORE_DB_READ_ONLY;
    MDB_txn *txn;
    int code = mdb_txn_begin(db->env, NULL, read_only ? MDB_RDONLY : 0, &txn);
    if (code)
        return db_error(db, code, "begin in", err);
    for (int i = 0; i < STORE_DB_TABLES && code == 0; i++) {
        code = mdb_dbi_open(txn, table_names[i], read_only ? 0 : MDB_CREATE, &db->dbi[i]);
        if (code == MDB_NOTFOUND && i >= STORE_DB_ROT) { /* an index of format 1 */
            db->dbi[i] = ABSENT;
            code = 0;
        }
    }
    if (code == 0)
        code = mdb_txn_commit(txn);
    else
        mdb_txn_abort(txn);
    return code ? db_error(db, code, "open tables of", err) : 0;
}

static int open_env(struct store_db *db, uint64_t map_bytes, enum store_db_mode mode, struct err *err)
{
    static const unsigned flags[] = {
        [STORE_DB_LIVE] = 0, [STORE_DB_SCRATCH] = MDB_NOSYNC, [STORE_DB_READ_ONLY] = MDB_RDONLY | MDB_NOLOCK};
    int code = mdb_env_create(&db->env);
    if (code == 0)
        code = mdb_env_set_maxdbs(db->env, STORE_DB_TABLES);
    if (code == 0)
        code = mdb_env_set_maxreaders(db->env, MAX_READERS);
    if (code == 0)
        code = mdb_env_set_mapsize(db->env, (size_t)(map_bytes ? map_bytes : MAP_DEFAULT_BYTES));
    if (code == 0)
        code = mdb_env_open(db->env, db->path, MDB_NOTLS | flags[mode], 0600);
    return code ? db_error(db, code, "open", err) : 0;
}

int store_db_open(const char *path, uint64_t map_bytes, enum store_db_mode mode, struct store_db **ret_db,
                  struct err *err)
{
    struct store_db *made = calloc(1, sizeof *made);
    if (!made)
        return err_set(err, ERR_NOMEM, "no memory for the index");
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&made->map_lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    OWNED(owned_db) struct store_db *db = made;
    db->path = strdup(path);
    if (!db->path)
        return err_set(err, ERR_NOMEM, "no memory for the index");
    int status = open_env(db, map_bytes, mode, err);
    if (status == 0)
        status = check_length(db, err);
    if (status == 0)
        status = open_tables(db, mode, err);
    if (status < 0)
        return status;
    store_db_check_readers(db);
    *ret_db = STEAL(db);
    return 0;
}

void store_db_close(struct store_db *db)
{
    if (!db)
        return;
    if (db->env)
        mdb_env_close(db->env);
    pthread_rwlock_destroy(&db->map_lock);
    free(db->path);
    free(db);
}

int store_db_sync(struct store_db *db, struct err *err)
{
    int code = mdb_env_sync(db->env, 1);
    return code ? db_error(db, code, "make durable", err) : 0;
}

void store_db_check_readers(struct store_db *db)
{
    int dead;
    mdb_reader_check(db->env, &dead);
}

/* One line of mdb_reader_list: "pid thread txnid", or words. The txnid is "-" between two reads. */
static int oldest_reader(const char *line, void *ctx)
{
    uint64_t *oldest = ctx;
    unsigned long long transaction;
    if (sscanf(line, "%*d %*s %llu", &transaction) == 1 && transaction < *oldest)
        *oldest = transaction;
    return 0;
}

uint64_t store_db_reader_lag(struct store_db *db)
{
    uint64_t oldest = UINT64_MAX;
    MDB_envinfo info;
    mdb_env_info(db->env, &info);
    mdb_reader_list(db->env, oldest_reader, &oldest);
    return oldest < info.me_last_txnid ? info.me_last_txnid - oldest : 0;
}

/* ---- transactions ---- */

static int set_map(struct store_db *db, bool grow, struct err *err)
{
    pthread_rwlock_wrlock(&db->map_lock);
    MDB_envinfo info;
    mdb_env_info(db->env, &info);
    int code = 0;
    int status = 0;
    if (grow && info.me_mapsize >= MAP_MAX_BYTES)
        status = db_error(db, MDB_MAP_FULL, "grow", err);
    else
        code =
            mdb_env_set_mapsize(db->env, grow ? info.me_mapsize * 2 : 0); /* 0: as large as another process made it */
    pthread_rwlock_unlock(&db->map_lock);
    return code ? db_error(db, code, "grow", err) : status;
}

static int run_update(struct store_db_txn *txn, store_db_cb cb, void *ctx, struct err *err)
{
    int result = cb(txn, ctx, err);
    if (result < 0) {
        mdb_txn_abort(txn->txn);
        return result;
    }
    int code = mdb_txn_commit(txn->txn);
    txn->map_full |= code == MDB_MAP_FULL;
    return code ? db_error(txn->db, code, "commit to", err) : result;
}

static int run_view(struct store_db_txn *txn, store_db_cb cb, void *ctx, struct err *err)
{
    int result = cb(txn, ctx, err);
    mdb_txn_abort(txn->txn);
    return result;
}

/* A process that was killed while it read leaves its place taken; there are only so many. */
static int begin(struct store_db *db, bool write, MDB_txn **ret_txn)
{
    unsigned flags = write ? 0 : MDB_RDONLY;
    int code = mdb_txn_begin(db->env, NULL, flags, ret_txn);
    if (code != MDB_READERS_FULL)
        return code;
    store_db_check_readers(db);
    return mdb_txn_begin(db->env, NULL, flags, ret_txn);
}

static int run(struct store_db *db, bool write, store_db_cb cb, void *ctx, struct err *err)
{
    for (;;) {
        struct store_db_txn txn = {.db = db};
        pthread_rwlock_rdlock(&db->map_lock);
        int code = begin(db, write, &txn.txn);
        int result = 0;
        if (code == 0)
            result = write ? run_update(&txn, cb, ctx, err) : run_view(&txn, cb, ctx, err);
        pthread_rwlock_unlock(&db->map_lock);
        if (code != 0 && code != MDB_MAP_RESIZED)
            return db_error(db, code, "begin in", err);
        if (code == 0 && !txn.map_full)
            return result;
        int status = set_map(db, txn.map_full, err);
        if (status < 0)
            return status;
        err_clear(err);
    }
}

int store_db_update(struct store_db *db, store_db_cb cb, void *ctx, struct err *err)
{
    return run(db, true, cb, ctx, err);
}

int store_db_view(struct store_db *db, store_db_cb cb, void *ctx, struct err *err)
{
    return run(db, false, cb, ctx, err);
}

int store_db_get(struct store_db_txn *txn, enum store_db_table table, struct store_span key,
                 struct store_span *ret_value, struct err *err)
{
    MDB_val k = val(key);
    MDB_val v;
    if (txn->db->dbi[table] == ABSENT)
        return 0;
    int code = mdb_get(txn->txn, txn->db->dbi[table], &k, &v);
    if (code == MDB_NOTFOUND)
        return 0;
    if (code)
        return db_error(txn->db, code, "read", err);
    *ret_value = span_of(&v);
    return 1;
}

int store_db_put(struct store_db_txn *txn, enum store_db_table table, struct store_span key, struct store_span value,
                 struct err *err)
{
    MDB_val k = val(key);
    MDB_val v = val(value);
    int code = mdb_put(txn->txn, txn->db->dbi[table], &k, &v, 0);
    txn->map_full |= code == MDB_MAP_FULL;
    return code ? db_error(txn->db, code, "write", err) : 0;
}

int store_db_del(struct store_db_txn *txn, enum store_db_table table, struct store_span key, struct err *err)
{
    MDB_val k = val(key);
    int code = mdb_del(txn->txn, txn->db->dbi[table], &k, NULL);
    if (code == MDB_NOTFOUND)
        return 0;
    txn->map_full |= code == MDB_MAP_FULL;
    return code ? db_error(txn->db, code, "delete from", err) : 1;
}

static bool has_prefix(const MDB_val *key, struct store_span prefix)
{
    return key->mv_size >= prefix.len && (prefix.len == 0 || memcmp(key->mv_data, prefix.data, prefix.len) == 0);
}

static bool same_key(const MDB_val *key, struct store_span other)
{
    return key->mv_size == other.len && memcmp(key->mv_data, other.data, other.len) == 0;
}

static int found(struct store_db_txn *txn, int code, const MDB_val *key, const MDB_val *value, struct store_span prefix,
                 struct store_span *ret_key, struct store_span *ret_value, struct err *err)
{
    if (code == MDB_NOTFOUND || (code == 0 && !has_prefix(key, prefix)))
        return 0;
    if (code)
        return db_error(txn->db, code, "walk", err);
    *ret_key = span_of(key);
    *ret_value = span_of(value);
    return 1;
}

int store_db_next(struct store_db_txn *txn, enum store_db_table table, struct store_span prefix, struct store_span from,
                  bool after, struct store_span *ret_key, struct store_span *ret_value, struct err *err)
{
    MDB_cursor *cursor;
    if (txn->db->dbi[table] == ABSENT)
        return 0;
    int code = mdb_cursor_open(txn->txn, txn->db->dbi[table], &cursor);
    if (code)
        return db_error(txn->db, code, "walk", err);
    struct store_span start = from.len > 0 ? from : prefix;
    MDB_val k = val(start);
    MDB_val v;
    code = mdb_cursor_get(cursor, &k, &v, start.len > 0 ? MDB_SET_RANGE : MDB_FIRST);
    if (code == 0 && after && same_key(&k, from))
        code = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    mdb_cursor_close(cursor);
    return found(txn, code, &k, &v, prefix, ret_key, ret_value, err);
}

/* The least key that is greater than all keys with the prefix; false if there is none (all bytes 0xff). */
static bool prefix_end(struct store_span prefix, uint8_t *end, size_t *ret_len)
{
    size_t len = prefix.len;
    if (len == 0)
        return false;
    memcpy(end, prefix.data, len);
    while (len > 0 && end[len - 1] == 0xff)
        len--;
    if (len == 0)
        return false;
    end[len - 1]++;
    *ret_len = len;
    return true;
}

int store_db_last(struct store_db_txn *txn, enum store_db_table table, struct store_span prefix,
                  struct store_span *ret_key, struct store_span *ret_value, struct err *err)
{
    uint8_t end[STORE_DB_KEY_MAX_BYTES];
    size_t end_len;
    if (prefix.len > sizeof end || !prefix_end(prefix, end, &end_len))
        return err_set(err, ERR_INTERNAL, "no last row for a prefix of %zu bytes", prefix.len);
    MDB_cursor *cursor;
    int code = mdb_cursor_open(txn->txn, txn->db->dbi[table], &cursor);
    if (code)
        return db_error(txn->db, code, "walk", err);
    MDB_val k = {.mv_size = end_len, .mv_data = end};
    MDB_val v;
    code = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    if (code == 0 || code == MDB_NOTFOUND)
        code = mdb_cursor_get(cursor, &k, &v, code == 0 ? MDB_PREV : MDB_LAST);
    mdb_cursor_close(cursor);
    return found(txn, code, &k, &v, prefix, ret_key, ret_value, err);
}

int store_db_count(struct store_db_txn *txn, enum store_db_table table, uint64_t *ret_count, struct err *err)
{
    MDB_stat stat_;
    int code = mdb_stat(txn->txn, txn->db->dbi[table], &stat_);
    if (code)
        return db_error(txn->db, code, "count in", err);
    *ret_count = stat_.ms_entries;
    return 0;
}

/* ---- walking over copies ---- */

struct walk {
    enum store_db_table table;
    struct store_span prefix;
    uint8_t from[STORE_DB_KEY_MAX_BYTES];
    size_t from_len;
    bool after;
    struct buf page; /* rows as u32 length, key, u32 length, value */
};

static int fill_page(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct walk *walk = ctx;
    buf_clear(&walk->page);
    struct store_span key = {0};
    struct store_span value = {0};
    struct store_span from = {walk->from, walk->from_len};
    bool after = walk->after;
    int more;
    while ((more = store_db_next(txn, walk->table, walk->prefix, from, after, &key, &value, err)) == 1) {
        wire_put_long(&walk->page, key.data, key.len);
        wire_put_long(&walk->page, value.data, value.len);
        if (walk->page.failed)
            return err_set(err, ERR_NOMEM, "no memory to walk the index");
        from = key;
        after = true;
        if (walk->page.len >= WALK_PAGE_BYTES)
            break;
    }
    return more;
}

int store_db_each(struct store_db *db, enum store_db_table table, struct store_span prefix, struct store_span from,
                  store_db_row_cb cb, void *ctx, struct err *err)
{
    struct walk walk = {.table = table, .prefix = prefix, .page = BUF(WALK_MAX_BYTES)};
    if (from.len > sizeof walk.from)
        return err_set(err, ERR_INVALID, "a key of %zu bytes", from.len);
    if (from.len > 0)
        memcpy(walk.from, from.data, from.len);
    walk.from_len = from.len;
    int more = 1;
    int result = 0;
    while (more == 1 && result == 0) {
        more = store_db_view(db, fill_page, &walk, err);
        struct wire wire;
        wire_init(&wire, walk.page.data, walk.page.len);
        while (more >= 0 && result == 0 && wire_left(&wire) > 0) {
            struct store_span key;
            struct store_span value;
            key.data = wire_get_long(&wire, STORE_DB_KEY_MAX_BYTES, &key.len);
            value.data = wire_get_long(&wire, WALK_MAX_BYTES, &value.len);
            memcpy(walk.from, key.data, key.len);
            walk.from_len = key.len;
            walk.after = true;
            result = cb(key, value, ctx);
        }
    }
    buf_release(&walk.page);
    return more < 0 ? more : result;
}
