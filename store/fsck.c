/*
 * Checking and rebuilding: a new index is made from the packs beside the present one, compared with it, and, if so
 * asked, put in its place. Names, pins, tables and what objects were used for come from the present index, which is
 * first walked by a child process: LMDB trusts its pages, and a damaged one may end whoever reads it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "node/base/file.h"
#include "node/base/scope.h"
#include "store/disk.h"
#include "store/gc.h"
#include "store/lock.h"
#include "store/open.h"
#include "store/packs.h"
#include "store/pending.h"
#include "store/read.h"
#include "store/rebuild.h"
#include "store/rot.h"

OWNED_DEFINE(owned_db, struct store_db, store_db_close)

struct paths {
    char *index; /* owned, all of them */
    char *fresh;
    char *old;
    char *packs;
};

static void release_paths(struct paths *paths)
{
    free(paths->index);
    free(paths->fresh);
    free(paths->old);
    free(paths->packs);
}

static int make_paths(const char *dir, struct paths *ret_paths, struct err *err)
{
    ret_paths->index = file_path("%s/index", dir);
    ret_paths->fresh = file_path("%s/index.new", dir);
    ret_paths->old = file_path("%s/index.old", dir);
    ret_paths->packs = file_path("%s/packs", dir);
    if (!ret_paths->index || !ret_paths->fresh || !ret_paths->old || !ret_paths->packs)
        return err_set(err, ERR_NOMEM, "no memory for paths");
    return file_make_dirs(ret_paths->packs, 0700, err);
}

/* ---- the present index ---- */

static int look_at_row(struct store_span key, struct store_span value, void *ctx)
{
    volatile uint8_t *sink = ctx;
    for (size_t i = 0; i < key.len; i++)
        *sink ^= key.data[i];
    for (size_t i = 0; i < value.len; i++)
        *sink ^= value.data[i];
    return 0;
}

static int walk_index(const char *path)
{
    OWNED(owned_db) struct store_db *db = NULL;
    int status = store_db_open(path, 0, STORE_DB_READ_ONLY, &db, NULL);
    if (status == 0)
        status = store_db_view(db, store_open_check_format, NULL, NULL) > 0 ? 0 : ERR_CORRUPT;
    struct store_span all = {0};
    uint8_t sink = 0;
    for (int table = 0; table < STORE_DB_TABLES && status == 0; table++)
        status = store_db_each(db, (enum store_db_table)table, all, all, look_at_row, &sink, NULL);
    return status;
}

static bool index_is_usable(const char *path)
{
    OWNED(owned_free) char *data = file_path("%s/data.mdb", path);
    if (!data || !file_exists(data))
        return false;
    pid_t child = fork();
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        for (int signal_ = SIGILL; signal_ <= SIGSEGV; signal_++) /* no handler of a tool's is to report this one */
            if (signal_ != SIGKILL)
                signal(signal_, SIG_DFL);
        alarm(600); /* damaged pages may form a ring */
        _exit(walk_index(path) == 0 ? 0 : 1);
    }
    int outcome = -1;
    while (child > 0 && waitpid(child, &outcome, 0) < 0 && errno == EINTR) {
    }
    return child > 0 && WIFEXITED(outcome) && WEXITSTATUS(outcome) == 0;
}

/* ---- copies ---- */

struct copy {
    struct store_db *to;
    enum store_db_table table;
    struct store_span key;
    struct store_span value;
    struct err *err;
};

static int put_row(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct copy *copy = ctx;
    return store_db_put(txn, copy->table, copy->key, copy->value, err);
}

static int copy_row(struct store_span key, struct store_span value, void *ctx)
{
    struct copy *copy = ctx;
    copy->key = key;
    copy->value = value;
    return store_db_update(copy->to, put_row, copy, copy->err);
}

static int copy_names(struct store_rebuild *rebuild, struct err *err)
{
    static const enum store_db_table tables[] = {STORE_DB_PIN, STORE_DB_REF, STORE_DB_KEEP, STORE_DB_USER};
    struct store_span all = {0};
    int status = 0;
    for (size_t i = 0; i < sizeof tables / sizeof *tables && status == 0; i++) {
        struct copy copy = {.to = rebuild->store.db, .table = tables[i], .err = err};
        status = store_db_each(rebuild->former, tables[i], all, all, copy_row, &copy, err);
    }
    return status;
}

/* ---- objects ---- */

static int put_object(struct store_db_txn *txn, void *ctx, struct err *err)
{
    return store_rows_object_put(txn, ctx, err);
}

static int put_partial(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct store_object_info *info = ctx;
    struct store_partial_info partial = {info->digest, info->root, info->kind, info->used_ms};
    return store_rows_partial_put(txn, &partial, err);
}

static int put_broken(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct store_object_info *info = ctx;
    struct store_broken broken = {info->digest, info->kind, info->used_ms};
    return store_rows_broken_put(txn, &broken, err);
}

static int is_complete(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct store_object_info *info = ctx;
    struct store_object_info there;
    return store_rows_object_get(txn, &info->digest, &there, err);
}

static int has_object(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct store_object_info *info = ctx;
    struct store_object_info there;
    struct store_partial_info partial;
    int got = store_rows_object_get(txn, &info->digest, &there, err);
    return got != 0 ? got : store_rows_partial_get(txn, &info->digest, &partial, err);
}

struct objects {
    struct store_rebuild *rebuild;
    struct err *err;
};

/* Make the row of an object, or partial object, whose recipe is `info->root`. What the index took for
 * complete, and is not, is listed as broken. */
static int restore(struct store_rebuild *rebuild, struct store_object_info *info, bool was_complete, struct err *err)
{
    char text[DIGEST_TEXT_SIZE];
    struct id root_id = info->root;
    int complete = store_rebuild_follow(rebuild, &root_id, info, err);
    if (complete == ERR_NOTFOUND) {
        store_rebuild_say(rebuild, "object '%s' is lost: %s", digest_text(&info->digest, text), err->text);
        rebuild->report->objects_lost++;
        err_clear(err);
        return was_complete ? store_db_update(rebuild->store.db, put_broken, info, err) : 0;
    }
    if (complete < 0)
        return complete;
    rebuild->report->objects += complete == 1;
    if (complete == 0 && was_complete) {
        int status = store_db_update(rebuild->store.db, put_broken, info, err);
        if (status < 0)
            return status;
        rebuild->report->objects_broken++;
        store_rebuild_say(rebuild, "object '%s' has lost chunks, and is a partial one now",
                          digest_text(&info->digest, text));
    }
    return store_db_update(rebuild->store.db, complete ? put_object : put_partial, info, err);
}

static int restore_object(const struct store_span key, struct store_span value, void *ctx)
{
    struct objects *objects = ctx;
    struct store_object_info info;
    return store_rows_object_decode(key, value, &info) ? restore(objects->rebuild, &info, true, objects->err) : 0;
}

static int restore_partial(const struct store_span key, struct store_span value, void *ctx)
{
    struct objects *objects = ctx;
    struct store_partial_info partial;
    if (!store_rows_partial_decode(key, value, &partial))
        return 0;
    struct store_object_info info = {.digest = partial.digest,
                                     .root = partial.root,
                                     .kind = partial.kind,
                                     .created_ms = partial.started_ms,
                                     .used_ms = partial.started_ms};
    return restore(objects->rebuild, &info, false, objects->err);
}

/* What was broken before, and still is. */
static int restore_broken(const struct store_span key, struct store_span value, void *ctx)
{
    struct objects *objects = ctx;
    struct store_db *db = objects->rebuild->store.db;
    struct store_broken broken;
    if (!store_rows_broken_decode(key, value, &broken))
        return 0;
    struct store_object_info info = {.digest = broken.digest, .kind = broken.kind, .used_ms = broken.since_ms};
    int complete = store_db_view(db, is_complete, &info, objects->err);
    return complete == 0 ? store_db_update(db, put_broken, &info, objects->err) : complete < 0 ? complete : 0;
}

static int restore_known(struct store_rebuild *rebuild, struct err *err)
{
    struct objects objects = {rebuild, err};
    struct store_span all = {0};
    int status = store_db_each(rebuild->former, STORE_DB_OBJECT, all, all, restore_object, &objects, err);
    if (status == 0)
        status = store_db_each(rebuild->former, STORE_DB_PARTIAL, all, all, restore_partial, &objects, err);
    if (status == 0)
        status = store_db_each(rebuild->former, STORE_DB_BROKEN, all, all, restore_broken, &objects, err);
    return status;
}

/* Without an index every recipe counts, the first of an object that is usable. */
static int restore_found(struct store_rebuild *rebuild, struct err *err)
{
    int status = 0;
    for (size_t i = 0; i < rebuild->root_count && status == 0; i++) {
        const struct store_rebuild_root *found = &rebuild->roots[i];
        OWNED(store_root_release) struct store_root root = {0};
        if (store_read_root(&rebuild->store, &found->id, &root, NULL) != 1)
            continue;
        struct store_object_info info = {.digest = root.object,
                                         .root = found->id,
                                         .kind = found->kind,
                                         .created_ms = found->time_ms,
                                         .used_ms = found->time_ms};
        int got = store_db_view(rebuild->store.db, has_object, &info, err);
        status = got != 0 ? (got < 0 ? got : 0) : restore(rebuild, &info, true, err);
    }
    return status;
}

/* ---- comparing ---- */

struct compare {
    struct store_rebuild *rebuild;
    enum store_piece_type type;
    struct id id;
    struct store_piece_row row;
    struct err *err;
};

static int get_piece(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct compare *compare = ctx;
    return store_rows_piece_get(txn, compare->type, &compare->id, &compare->row, err);
}

/* A piece of the present index against the new one. Those of no references may be an orphan, which is nobody's. */
static int compare_piece(struct store_span key, struct store_span value, void *ctx)
{
    (void)value;
    struct compare *compare = ctx;
    struct store_rebuild *rebuild = compare->rebuild;
    if (!store_rows_piece_key(key, &compare->type, &compare->id))
        return 0;
    int got = store_db_view(rebuild->former, get_piece, compare, compare->err);
    if (got != 1)
        return got;
    struct store_piece_row before = compare->row;
    compare->row = (struct store_piece_row){0};
    got = store_db_view(rebuild->store.db, get_piece, compare, compare->err);
    if (got < 0)
        return got;
    bool was_here = before.place.pack != 0;
    if (compare->row.refs == before.refs && (before.refs == 0 || (compare->row.place.pack != 0) == was_here))
        return 0;
    char text[ID_HEX_SIZE];
    rebuild->report->rows_wrong++;
    store_rebuild_say(rebuild, "piece %s: index has %llu references and %s, packs have %llu and %s",
                      id_hex(&compare->id, text), (unsigned long long)before.refs, was_here ? "a place" : "no place",
                      (unsigned long long)compare->row.refs, compare->row.place.pack != 0 ? "one" : "none");
    return 0;
}

/* ---- the whole ---- */

static int rebuild_index(struct store_rebuild *rebuild, struct err *err)
{
    int status = store_db_update(rebuild->store.db, store_open_write_format, NULL, err);
    if (status == 0)
        status = store_rebuild_scan(rebuild, err);
    if (status == 0)
        status = rebuild->former ? restore_known(rebuild, err) : restore_found(rebuild, err);
    if (status == 0 && rebuild->former) {
        struct compare compare = {.rebuild = rebuild, .err = err};
        struct store_span all = {0};
        status = store_db_each(rebuild->former, STORE_DB_PIECE, all, all, compare_piece, &compare, err);
    }
    if (status == 0)
        status = store_rebuild_drop_unused(rebuild, err);
    if (status == 0 && rebuild->former)
        status = copy_names(rebuild, err);
    return status;
}

/* In one step where the file system can; else there is a moment without an index, when fsck is to be run again. */
static int put_in_place(const struct paths *paths)
{
    if (renameat2(AT_FDCWD, paths->fresh, AT_FDCWD, paths->index, RENAME_EXCHANGE) == 0)
        return rename(paths->fresh, paths->old); /* what was the index until now */
    if (errno != ENOENT && rename(paths->index, paths->old) < 0)
        return -1;
    return rename(paths->fresh, paths->index);
}

static int swap_index(const char *dir, const struct paths *paths, struct err *err)
{
    int status = file_remove_tree(paths->old, err);
    if (status == 0)
        status = file_sync_dir(paths->fresh, err);
    if (status < 0)
        return status;
    if (put_in_place(paths) < 0)
        return err_errno(err, errno, "cannot put '%s' in its place", paths->fresh);
    return file_sync_dir(dir, err);
}

/* Everything will look lost: whoever reads that is to know what else it may be. */
static void say_if_away(struct store_rebuild *rebuild)
{
    struct err why;
    struct store known = {.packs_dir = rebuild->store.packs_dir, .db = rebuild->former};
    if (rebuild->former && store_disk_check_mounted(&known, &why) == ERR_IO)
        store_rebuild_say(rebuild, "%s", why.text);
}

static int run(struct store_rebuild *rebuild, const struct paths *paths, struct err *err)
{
    int status = file_remove_tree(paths->fresh, err);
    if (status == 0)
        status = file_make_dirs(paths->fresh, 0700, err);
    OWNED(owned_db) struct store_db *former = NULL;
    rebuild->report->index_usable = index_is_usable(paths->index);
    if (status == 0 && rebuild->report->index_usable)
        status = store_db_open(paths->index, 0, STORE_DB_READ_ONLY, &former, err);
    if (status == 0)
        status = store_db_open(paths->fresh, 0, STORE_DB_SCRATCH, &rebuild->store.db, err);
    if (status < 0)
        return status;
    rebuild->former = former;
    say_if_away(rebuild);
    if (!former)
        store_rebuild_say(rebuild, "the index cannot be used; names, pins and tables in it are lost");
    store_gc_init(&rebuild->store);
    store_packs_init(&rebuild->store);
    store_pending_init(&rebuild->store);
    store_rot_init(&rebuild->store);
    status = rebuild_index(rebuild, err);
    if (status == 0)
        status = store_db_sync(rebuild->store.db, err);
    store_packs_release(&rebuild->store);
    store_pending_release(&rebuild->store);
    store_rot_release(&rebuild->store);
    store_gc_release(&rebuild->store);
    store_db_close(rebuild->store.db);
    free(rebuild->roots);
    return status;
}

static bool is_sound(const struct store_fsck_report *report)
{
    return report->index_usable && report->records_bad == 0 && report->records_unread == 0 && report->rows_wrong == 0 &&
           report->objects_broken == 0 && report->objects_lost == 0;
}

int store_fsck(const char *dir, bool repair, struct clock clock, struct store_fsck_report *ret_report, store_fsck_cb cb,
               void *ctx, struct err *err)
{
    struct err own = {0}; /* text of what is found on the way is taken from it */
    err = err ? err : &own;
    OWNED(owned_fd) int lock = -1;
    OWNED(release_paths) struct paths paths = {0};
    int status = store_lock_take(dir, &lock, err);
    if (status == 0)
        status = make_paths(dir, &paths, err);
    if (status < 0)
        return status;
    struct store_fsck_report report = {0};
    struct store_rebuild rebuild = {.store = {.packs_dir = paths.packs, .clock = clock, .is_scratch = true},
                                    .repair = repair,
                                    .report = &report,
                                    .cb = cb,
                                    .ctx = ctx};
    status = run(&rebuild, &paths, err);
    if (status == 0 && repair) {
        status = swap_index(dir, &paths, err);
        report.repaired = status == 0;
    } else {
        file_remove_tree(paths.fresh, NULL);
    }
    if (status < 0)
        return err_wrap(err, "cannot check store '%s'", dir);
    *ret_report = report;
    return is_sound(&report);
}
