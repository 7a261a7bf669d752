#include "store/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/base/scope.h"
#include "store/packs.h"
#include "store/rows.h"

/* Places that are asked before a disk is said to be away. Of a disk of which half can be read one in 256 findings is
 * put off by that, which costs nothing. */
#define PROBES 8
#define PICKS (4 * PROBES) /* some pieces have no place */

OWNED_DEFINE(owned_pack, struct store_pack, store_pack_unref)

/* ---- the marker ---- */

#define MARK_TEXT_BYTES ID_HEX_SIZE /* in hex, and a newline instead of the NUL */

static const struct store_span disk_key = {(const uint8_t *)"disk", 4};

static char *mark_path(const struct store *store)
{
    return file_path("%s/disk", store->packs_dir);
}

/* 1, or 0 if there is none, or it is damaged or cannot be read: then packs have to tell. From the disk: what memory
 * holds of it would say nothing about that. */
static int read_mark(const struct store *store, struct id *ret_mark, struct err *err)
{
    OWNED(owned_free) char *path = mark_path(store);
    char text[MARK_TEXT_BYTES];
    struct stat st;
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    OWNED(owned_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ENXIO))
        return 0;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(err, errno, "cannot look at '%s'", path);
    if (!S_ISREG(st.st_mode) || st.st_size != (off_t)MARK_TEXT_BYTES)
        return 0;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (file_pread_all(fd, text, MARK_TEXT_BYTES, 0, path, NULL) < 0)
        return 0;
    bool is_line = text[MARK_TEXT_BYTES - 1] == '\n';
    text[MARK_TEXT_BYTES - 1] = 0;
    return is_line && id_parse_hex(text, ret_mark);
}

static int write_mark(const struct store *store, const struct id *mark, struct err *err)
{
    OWNED(owned_free) char *path = mark_path(store);
    char text[MARK_TEXT_BYTES];
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    id_hex(mark, text);
    text[MARK_TEXT_BYTES - 1] = '\n';
    return file_write_atomic(path, text, MARK_TEXT_BYTES, 0600, err);
}

/* What the index knows: 1, or 0. */
static int get_mark(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct id *mark = ctx;
    struct store_span value;
    int got = store_db_get(txn, STORE_DB_META, disk_key, &value, err);
    if (got != 1 || value.len != ID_BYTES)
        return got < 0 ? got : 0;
    memcpy(mark->b, value.data, ID_BYTES);
    return 1;
}

static int put_mark(struct store_db_txn *txn, void *ctx, struct err *err)
{
    const struct id *mark = ctx;
    return store_db_put(txn, STORE_DB_META, disk_key, (struct store_span){mark->b, ID_BYTES}, err);
}

/* ---- is it there? ---- */

struct census {
    struct store *store;
    size_t expected; /* packs that hold something */
    size_t present;
};

static int count_pack(struct store_span key, struct store_span value, void *ctx)
{
    struct census *census = ctx;
    struct store_pack_row row;
    uint64_t size;
    if (!store_rows_pack_decode(key, value, &row) || row.live_bytes == 0)
        return 0;
    census->expected++;
    census->present += store_pack_look(census->store->packs_dir, row.number, &size) != STORE_PACK_ABSENT;
    return 0;
}

/* There is no marker: do packs tell that the disk is there? A store that never had one may have no pack either. */
static int check_packs(struct store *store, bool had_mark, struct err *err)
{
    struct census census = {.store = store};
    struct store_span all = {0};
    int status = store_db_each(store->db, STORE_DB_PACK, all, all, count_pack, &census, err);
    if (status < 0 || census.present > 0 || (census.expected == 0 && !had_mark))
        return status;
    return err_set(
        err, ERR_IO,
        "neither the marker 'disk' nor any of %zu packs is in '%s': its disk is not mounted, so mount it; if "
        "it is lost, run `cmig-node fsck --repair`",
        census.expected, store->packs_dir);
}

int store_disk_check_mounted(struct store *store, struct err *err)
{
    struct id mark, known;
    int got = read_mark(store, &mark, err);
    int knows = got < 0 ? got : store_db_view(store->db, get_mark, &known, err);
    if (knows < 0)
        return knows;
    bool is_it = got == 1 && knows == 1 && id_equal(&mark, &known);
    return is_it ? 0 : check_packs(store, knows == 1, err);
}

/* A marker that only the packs have is that of an index that was made anew, or was killed when it began. */
int store_disk_recover(struct store *store, struct err *err)
{
    struct id mark, known;
    int got = read_mark(store, &mark, err);
    int knows = got < 0 ? got : store_db_view(store->db, get_mark, &known, err);
    if (knows < 0)
        return knows;
    if (got == 1 && knows == 1)
        return id_equal(&mark, &known)
                   ? 0
                   : err_set(err, ERR_CONFLICT,
                             "the packs in '%s' are those of another store: is the wrong disk mounted there? If not, "
                             "run `cmig-node fsck --repair`",
                             store->packs_dir);
    int status = check_packs(store, knows == 1, err);
    if (status == 0 && got == 0) {
        if (knows == 1)
            mark = known;
        else
            crypto_random(mark.b, ID_BYTES);
        status = write_mark(store, &mark, err);
    }
    return status == 0 && knows == 0 ? store_db_update(store->db, put_mark, &mark, err) : status;
}

/* ---- does it answer? ---- */

struct sample {
    struct store_place places[PROBES];
    size_t count;
};

/* The first piece at or behind a random key. */
static int pick(struct store_db_txn *txn, struct store_place *ret_place, struct err *err)
{
    uint8_t from[STORE_PIECE_KEY_BYTES] = {STORE_PIECE_CHUNK};
    struct store_span all = {0};
    struct store_span key;
    struct store_span value;
    enum store_piece_type type;
    struct id id;
    struct store_piece_row row;
    crypto_random(from + 1, ID_BYTES);
    int got = store_db_next(txn, STORE_DB_PIECE, all, (struct store_span){from, sizeof from}, false, &key, &value, err);
    if (got == 0)
        got = store_db_next(txn, STORE_DB_PIECE, all, all, false, &key, &value, err);
    if (got != 1 || !store_rows_piece_key(key, &type, &id) || !store_rows_piece_decode(type, value, &row))
        return got < 0 ? got : 0;
    *ret_place = row.place;
    return row.place.pack != 0;
}

static int take_sample(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct sample *sample = ctx;
    sample->count = 0;
    for (int i = 0; i < PICKS && sample->count < PROBES; i++) {
        int got = pick(txn, &sample->places[sample->count], err);
        if (got < 0)
            return got;
        sample->count += (size_t)got;
    }
    return 0;
}

/* From the disk: what memory holds of the file would say nothing about it. */
static bool can_read(struct store *store, const struct store_place *place)
{
    OWNED(owned_pack) struct store_pack *pack = NULL;
    uint8_t head[STORE_RECORD_HEAD_BYTES];
    if (store_packs_get(store, place->pack, &pack, NULL) < 0)
        return false;
    posix_fadvise(pack->fd, (off_t)place->offset, sizeof head, POSIX_FADV_DONTNEED);
    return file_pread_all(pack->fd, head, sizeof head, place->offset, pack->path, NULL) == 0;
}

int store_disk_check_answers(struct store *store, struct err *err)
{
    struct sample sample;
    int status = store_db_view(store->db, take_sample, &sample, err);
    if (status < 0)
        return status;
    for (size_t i = 0; i < sample.count; i++)
        if (can_read(store, &sample.places[i]))
            return 0;
    struct id mark;
    if (read_mark(store, &mark, NULL) == 1)
        return 0;
    return err_set(
        err, ERR_IO,
        "the disk with '%s' refuses to read, wherever it is asked: nothing is forgotten; see what the kernel "
        "says of it (dmesg), and replace it if it stays so",
        store->packs_dir);
}
