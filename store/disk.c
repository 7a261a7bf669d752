#include "store/disk.h"

#include <fcntl.h>
#include <string.h>

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

int store_disk_check_mounted(struct store *store, struct err *err)
{
    struct census census = {.store = store};
    struct store_span all = {0};
    int status = store_db_each(store->db, STORE_DB_PACK, all, all, count_pack, &census, err);
    if (status == 0 && census.expected > 1 && census.present == 0)
        return err_set(err, ERR_IO,
                       "none of %zu packs is in '%s': is a disk not mounted? If they are lost, run `cmig-node fsck`",
                       census.expected, store->packs_dir);
    return status;
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
    return err_set(
        err, ERR_IO,
        "the disk with '%s' refuses to read, wherever it is asked: nothing is forgotten; see what the kernel "
        "says of it (dmesg), and replace it if it stays so",
        store->packs_dir);
}
