#include "store/packs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/scope.h"
#include "store/checksum.h"
#include "store/disk.h"
#include "store/evict.h"
#include "store/recover.h"
#include "store/rot.h"

#define EVICT_FOR_FULL_DISK_BYTES (16u << 20)
#define CACHED (sizeof((struct store_packs *)0)->cached / sizeof((struct store_packs *)0)->cached[0])

OWNED_DEFINE(owned_pack, struct store_pack, store_pack_unref)

void store_packs_init(struct store *store)
{
    pthread_mutex_init(&store->packs.rotate_lock, NULL);
    pthread_mutex_init(&store->packs.lock, NULL);
}

void store_packs_release(struct store *store)
{
    struct store_packs *packs = &store->packs;
    store_pack_unref(packs->active);
    for (size_t i = 0; i < packs->written_count; i++)
        store_pack_unref(packs->written[i]);
    free(packs->written);
    for (size_t i = 0; i < CACHED; i++)
        store_pack_unref(packs->cached[i]);
    pthread_mutex_destroy(&packs->lock);
    pthread_mutex_destroy(&packs->rotate_lock);
}

/* ---- looking up ---- */

/* Under the lock. A new reference, or NULL. */
static struct store_pack *find_open(struct store_packs *packs, uint64_t number)
{
    for (size_t i = 0; i < packs->written_count; i++)
        if (packs->written[i]->number == number) {
            store_pack_ref(packs->written[i]);
            return packs->written[i];
        }
    for (size_t i = 0; i < CACHED && packs->cached[i]; i++) {
        struct store_pack *pack = packs->cached[i];
        if (pack->number != number)
            continue;
        memmove(&packs->cached[1], &packs->cached[0], i * sizeof packs->cached[0]);
        packs->cached[0] = pack;
        store_pack_ref(pack);
        return pack;
    }
    return NULL;
}

/* Under the lock; takes a reference of its own. */
static void cache(struct store_packs *packs, struct store_pack *pack)
{
    store_pack_unref(packs->cached[CACHED - 1]);
    memmove(&packs->cached[1], &packs->cached[0], (CACHED - 1) * sizeof packs->cached[0]);
    packs->cached[0] = pack;
    store_pack_ref(pack);
}

/* Under the lock. */
static void uncache(struct store_packs *packs, uint64_t number)
{
    for (size_t i = 0; i < CACHED && packs->cached[i]; i++) {
        if (packs->cached[i]->number != number)
            continue;
        store_pack_unref(packs->cached[i]);
        memmove(&packs->cached[i], &packs->cached[i + 1], (CACHED - 1 - i) * sizeof packs->cached[0]);
        packs->cached[CACHED - 1] = NULL;
        return;
    }
}

int store_packs_get(struct store *store, uint64_t number, struct store_pack **ret_pack, struct err *err)
{
    struct store_packs *packs = &store->packs;
    pthread_mutex_lock(&packs->lock);
    int status = 0;
    struct store_pack *pack = find_open(packs, number);
    if (!pack) {
        status = store_pack_open(store->packs_dir, number, false, &pack, err);
        if (status == 0)
            cache(packs, pack);
    }
    pthread_mutex_unlock(&packs->lock);
    if (status == ERR_NOTFOUND)
        return err_set(err, ERR_CORRUPT, "pack %016llx of the store is missing", (unsigned long long)number);
    if (status == 0)
        *ret_pack = pack;
    return status;
}

void store_packs_retire(struct store *store, uint64_t number)
{
    struct store_packs *packs = &store->packs;
    pthread_mutex_lock(&packs->lock);
    for (size_t i = 0; i < packs->written_count; i++)
        if (packs->written[i]->number == number)
            packs->written[i]->failed = true;
    uncache(packs, number);
    pthread_mutex_unlock(&packs->lock);
}

/* ---- rotation ---- */

struct rotation {
    struct store_pack_row fresh;
    const uint64_t *closed; /* borrowed: numbers of packs to mark as closed */
    size_t closed_count;
};

static int write_rotation(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct rotation *rotation = ctx;
    for (size_t i = 0; i < rotation->closed_count; i++) {
        struct store_pack_row row;
        int got = store_rows_pack_get(txn, rotation->closed[i], &row, err);
        if (got == 1) {
            row.open = false;
            got = store_rows_pack_put(txn, &row, err);
        }
        if (got < 0)
            return got;
    }
    return rotation->fresh.number ? store_rows_pack_put(txn, &rotation->fresh, err) : 0;
}

/* Take the packs out of `written` that nobody writes to and that have nothing pending: *ret_packs, references. */
static size_t take_quiet(struct store_packs *packs, struct store_pack ***ret_packs)
{
    pthread_mutex_lock(&packs->lock);
    size_t quiet = 0;
    size_t kept = 0;
    struct store_pack **taken = calloc(packs->written_count + 1, sizeof *taken);
    for (size_t i = 0; i < packs->written_count; i++) {
        struct store_pack *pack = packs->written[i];
        if (taken && pack != packs->active && pack->pending == 0)
            taken[quiet++] = pack;
        else
            packs->written[kept++] = pack;
    }
    packs->written_count = kept;
    pthread_mutex_unlock(&packs->lock);
    *ret_packs = taken;
    return quiet;
}

/* A pack that is closed is not looked through at the next start: so what was punched has to be durable before. One that
 * cannot be synced stays open in the index. The numbers of those that can be closed. */
static size_t sync_quiet(struct store_pack **packs, size_t count, uint64_t *ret_numbers)
{
    size_t synced = 0;
    for (size_t i = 0; i < count; i++) {
        store_pack_trim(packs[i]);
        if (ret_numbers && store_pack_sync(packs[i], NULL) == 0)
            ret_numbers[synced++] = packs[i]->number;
        store_pack_unref(packs[i]);
    }
    return synced;
}

static int close_quiet(struct store *store, uint64_t fresh, struct err *err)
{
    OWNED(owned_free) struct store_pack **packs = NULL;
    size_t count = take_quiet(&store->packs, &packs);
    OWNED(owned_free) uint64_t *numbers = calloc(count + 1, sizeof *numbers);
    struct rotation rotation = {.fresh = {.number = fresh, .open = true}, .closed = numbers};
    rotation.closed_count = sync_quiet(packs, count, numbers);
    if (!packs || !numbers)
        return err_set(err, ERR_NOMEM, "no memory to close packs");
    if (fresh == 0 && rotation.closed_count == 0)
        return 0;
    int status = store_db_update(store->db, write_rotation, &rotation, err);
    for (size_t i = 0; i < rotation.closed_count && status == 0; i++)
        status = store_packs_remove_if_empty(store, numbers[i], err);
    return status;
}

/* Under the lock. */
static int activate(struct store_packs *packs, struct store_pack *pack, struct err *err)
{
    struct store_pack **grown = reallocarray(packs->written, packs->written_count + 1, sizeof *packs->written);
    if (!grown)
        return err_set(err, ERR_NOMEM, "no memory for a pack");
    packs->written = grown;
    packs->written[packs->written_count++] = pack;
    store_pack_ref(pack);
    store_pack_unref(packs->active);
    packs->active = pack;
    store_pack_ref(pack);
    return 0;
}

static bool is_usable(const struct store *store, const struct store_pack *pack)
{
    return pack && !pack->failed && pack->size < store->pack_bytes;
}

static int rotate(struct store *store, struct err *err)
{
    struct store_packs *packs = &store->packs;
    pthread_mutex_lock(&packs->lock);
    bool done = is_usable(store, packs->active); /* by another thread, while this one waited */
    if (!done && packs->active) {
        store_pack_unref(packs->active);
        packs->active = NULL;
    }
    uint64_t number = packs->last_number + 1;
    pthread_mutex_unlock(&packs->lock);
    if (done)
        return 0;

    OWNED(owned_pack) struct store_pack *pack = NULL;
    int status = store_disk_check_mounted(store, err); /* under a disk that is away nobody would find it */
    if (status == 0)
        status = store_pack_open(store->packs_dir, number, true, &pack, err);
    pthread_mutex_lock(&packs->lock);
    if (status == 0 || status == ERR_EXISTS)
        packs->last_number = number;
    pthread_mutex_unlock(&packs->lock);
    if (status < 0)
        return status;
    status = close_quiet(store, number, err);
    if (status < 0) {
        unlink(pack->path);
        return status;
    }
    pthread_mutex_lock(&packs->lock);
    status = activate(packs, pack, err);
    pthread_mutex_unlock(&packs->lock);
    return status;
}

/* ---- writing ---- */

/* A place in the active pack, and a reference to that; NULL if there is none with room. */
static struct store_pack *reserve(struct store *store, uint64_t bytes, uint64_t *ret_offset)
{
    struct store_packs *packs = &store->packs;
    pthread_mutex_lock(&packs->lock);
    struct store_pack *pack = is_usable(store, packs->active) ? packs->active : NULL;
    if (pack) {
        store_pack_ref(pack);
        *ret_offset = pack->size;
        pack->size += bytes;
        pack->pending += bytes;
    }
    pthread_mutex_unlock(&packs->lock);
    return pack;
}

static int reserve_or_rotate(struct store *store, uint64_t bytes, uint64_t *ret_offset, struct store_pack **ret_pack,
                             struct err *err)
{
    for (;;) {
        *ret_pack = reserve(store, bytes, ret_offset);
        if (*ret_pack)
            return 0;
        pthread_mutex_lock(&store->packs.rotate_lock);
        int status = rotate(store, err);
        pthread_mutex_unlock(&store->packs.rotate_lock);
        if (status < 0)
            return status;
    }
}

/* Where each lies behind the first; *ret_bytes of all. */
static void lay_out(const struct store_record *records, const void *const *bodies, size_t count,
                    struct store_place *ret_places, uint64_t *ret_bytes)
{
    *ret_bytes = 0;
    for (size_t i = 0; i < count; i++) {
        ret_places[i] = (struct store_place){.offset = *ret_bytes,
                                             .stored_bytes = records[i].stored_bytes,
                                             .raw_bytes = records[i].raw_bytes,
                                             .encoding = records[i].encoding,
                                             .checksum = store_checksum_of(bodies[i], records[i].stored_bytes)};
        *ret_bytes += store_rows_place_bytes(&ret_places[i]);
    }
}

static int append(struct store *store, const struct store_record *records, const void *const *bodies, size_t count,
                  struct store_place *ret_places, struct store_pack **ret_pack, struct err *err)
{
    uint64_t bytes, offset;
    lay_out(records, bodies, count, ret_places, &bytes);
    int status = store_evict_make_room(store, bytes, err);
    if (status < 0)
        return status;
    OWNED(owned_pack) struct store_pack *pack = NULL;
    status = reserve_or_rotate(store, bytes, &offset, &pack, err);
    if (status < 0)
        return status;
    for (size_t i = 0; i < count; i++) {
        ret_places[i].pack = pack->number;
        ret_places[i].offset += offset;
    }
    store->pending_bytes += bytes;
    status = store_pack_write(pack, records, bodies, count, offset, err);
    if (status < 0) {
        pack->pending -= bytes;
        store->pending_bytes -= bytes;
        return status;
    }
    *ret_pack = STEAL(pack);
    return 0;
}

int store_packs_append(struct store *store, const struct store_record *records, const void *const *bodies, size_t count,
                       struct store_place *ret_places, struct store_pack **ret_pack, struct err *err)
{
    int status = append(store, records, bodies, count, ret_places, ret_pack, err);
    uint64_t freed;
    /* Somebody else filled the disk: caches make way. */
    if (status == ERR_NOSPACE && store_evict(store, EVICT_FOR_FULL_DISK_BYTES, &freed, NULL) == 0 && freed > 0)
        status = append(store, records, bodies, count, ret_places, ret_pack, err);
    return status;
}

void store_packs_settle_record(struct store *store, struct store_pack *pack, const struct store_place *place,
                               bool committed)
{
    uint64_t bytes = store_rows_place_bytes(place);
    if (committed)
        store->live_bytes += bytes;
    else /* should it fail, the next start or fsck finds it */
        store_pack_punch(pack, place->offset, bytes, NULL);
    store->pending_bytes -= bytes;
    pack->pending -= bytes;
}

void store_packs_settle(struct store *store)
{
    pthread_mutex_lock(&store->packs.rotate_lock);
    pthread_mutex_lock(&store->packs.lock);
    store_pack_unref(store->packs.active);
    store->packs.active = NULL;
    pthread_mutex_unlock(&store->packs.lock);
    close_quiet(store, 0, NULL); /* if it fails, the next start looks through them */
    pthread_mutex_unlock(&store->packs.rotate_lock);
}

/* ---- removing ---- */

static int is_empty(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct store_pack_row row;
    int got = store_rows_pack_get(txn, *(uint64_t *)ctx, &row, err);
    return got == 1 ? row.live_bytes == 0 && !row.open : got;
}

static int delete_row(struct store_db_txn *txn, void *ctx, struct err *err)
{
    return store_rows_pack_del(txn, *(uint64_t *)ctx, err);
}

/* A directory that has taken the name of a pack is somebody's: it is moved out of the way. */
static int remove_file(const char *path, struct err *err)
{
    if (unlink(path) == 0 || errno == ENOENT)
        return 0;
    OWNED(owned_free) char *aside = errno == EISDIR || errno == EPERM ? file_path("%s.odd", path) : NULL;
    if (aside && rename(path, aside) == 0)
        return 0;
    return err_errno(err, errno, "cannot remove pack '%s'", path);
}

/* First the file, then the row: a row without a file and without live bytes is tidied up at the next start. A pack that
 * is closed is never written again, so what is empty stays empty. */
int store_packs_remove_if_empty(struct store *store, uint64_t number, struct err *err)
{
    int empty = store_db_view(store->db, is_empty, &number, err);
    if (empty != 1)
        return empty;
    pthread_mutex_lock(&store->packs.lock);
    uncache(&store->packs, number);
    pthread_mutex_unlock(&store->packs.lock);
    OWNED(owned_free) char *path = file_path("%s/%016llx.pack", store->packs_dir, (unsigned long long)number);
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    int status = remove_file(path, err);
    if (status == 0) /* without its row it would be nobody's for ever */
        status = file_sync_dir(store->packs_dir, err);
    if (status == 0)
        status = store_db_update(store->db, delete_row, &number, err);
    return status < 0 ? status : 0;
}

/* ---- recovery ---- */

struct recovery {
    struct store *store;
    struct err *err;
};

/* 1 if its file is there. What a file that is gone or too short took along is forgotten here and now. */
static int look_at_pack(struct store *store, const struct store_pack_row *row, struct err *err)
{
    uint64_t size;
    enum store_pack_look look = store_pack_look(store->packs_dir, row->number, &size);
    if (look == STORE_PACK_FILE && size >= row->size_bytes)
        return 1;
    enum store_rot_cause cause = look == STORE_PACK_FILE     ? STORE_ROT_CUT
                                 : look == STORE_PACK_ABSENT ? STORE_ROT_MISSING
                                                             : STORE_ROT_ODD;
    int status = store_rot_found_pack(store, row->number, size, cause, err);
    return status < 0 ? status : look == STORE_PACK_FILE;
}

static int recover_row(struct store_span key, struct store_span value, void *ctx)
{
    struct recovery *recovery = ctx;
    struct store *store = recovery->store;
    struct store_pack_row row;
    if (!store_rows_pack_decode(key, value, &row))
        return err_set(recovery->err, ERR_CORRUPT,
                       "a row of the packs in the store's index is malformed; run "
                       "`cmig-node fsck`");
    store->live_bytes += row.live_bytes;
    if (row.number > store->packs.last_number)
        store->packs.last_number = row.number;
    int there = look_at_pack(store, &row, recovery->err);
    int status = there < 0 ? there : 0;
    if (row.open && status == 0) {
        status = there ? store_recover_pack(store, row.number, recovery->err) : 0;
        struct rotation rotation = {.closed = &row.number, .closed_count = 1};
        if (status == 0)
            status = store_db_update(store->db, write_rotation, &rotation, recovery->err);
    }
    return status == 0 ? store_packs_remove_if_empty(store, row.number, recovery->err) : status;
}

/* Numbers of files that have no row are not used again: they are somebody's, and fsck may need them. */
static int note_numbers(struct store *store, struct err *err)
{
    OWNED(owned_free) uint64_t *numbers = NULL;
    size_t count = 0;
    int status = store_pack_list(store->packs_dir, &numbers, &count, err);
    for (size_t i = 0; i < count && status == 0; i++)
        if (numbers[i] > store->packs.last_number)
            store->packs.last_number = numbers[i];
    return status;
}

int store_packs_recover(struct store *store, struct err *err)
{
    struct recovery recovery = {.store = store, .err = err};
    struct store_span all = {0};
    int status = note_numbers(store, err);
    return status < 0 ? status : store_db_each(store->db, STORE_DB_PACK, all, all, recover_row, &recovery, err);
}
