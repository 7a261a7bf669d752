#include "store/unread.h"

#include <string.h>

#include "node/base/crypto.h"
#include "store/disk.h"
#include "store/rot.h"

#define LOOKS 256  /* in a sweep */
#define REFUSALS 8 /* a disk may take half a minute for each */
#define NO_CAUSE (-1)

int store_unread_note(struct store_db_txn *txn, enum store_piece_type type, const struct id *id,
                      const struct store_place *place, uint64_t *ret_freed_bytes, struct err *err)
{
    struct store_unread unread = {type, *id, *place};
    struct store_unread former;
    *ret_freed_bytes = 0;
    int got = store_rows_unread_get(txn, type, id, &former, err);
    if (got == 1 && !store_rows_same_place(&former.place, place)) {
        *ret_freed_bytes = store_rows_place_bytes(&former.place);
        got = store_rows_place_out(txn, &former.place, err);
    }
    return got < 0 ? got : store_rows_unread_put(txn, &unread, err);
}

/* ---- the sweep ---- */

struct sweep {
    uint8_t key[STORE_PIECE_KEY_BYTES]; /* of the last place looked at */
    size_t key_len;
    struct store_unread unread; /* the present one */
    int cause;                  /* why it cannot be read now, as store_rot_look says; NO_CAUSE: not looked at */
    uint64_t freed_bytes;
};

static int next_unread(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct sweep *sweep = ctx;
    struct store_span all = {0};
    struct store_span from = {sweep->key, sweep->key_len};
    struct store_span key;
    struct store_span value;
    int got = store_db_next(txn, STORE_DB_UNREAD, all, from, from.len > 0, &key, &value, err);
    if (got != 1)
        return got;
    if (!store_rows_unread_decode(key, value, &sweep->unread))
        return err_set(err, ERR_CORRUPT, "a row of the unread places in the store's index is malformed");
    memcpy(sweep->key, key.data, key.len);
    sweep->key_len = key.len;
    return 1;
}

/* Everything is looked up again: much may have happened while the disk was asked. */
static int settle(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct sweep *sweep = ctx;
    const struct store_unread *unread = &sweep->unread;
    struct store_unread now;
    struct store_piece_row row;
    sweep->freed_bytes = 0;
    int got = store_rows_unread_get(txn, unread->type, &unread->id, &now, err);
    if (got != 1 || !store_rows_same_place(&now.place, &unread->place))
        return got < 0 ? got : 0;
    got = store_rows_piece_get(txn, unread->type, &unread->id, &row, err);
    if (got < 0)
        return got;
    bool is_wanted = got == 1 && row.place.pack == 0;
    int status = 0;
    if (is_wanted && (sweep->cause == STORE_ROT_UNREADABLE || sweep->cause == NO_CAUSE))
        return 0;
    if (is_wanted && sweep->cause == 0) {
        row.place = unread->place;
        status = store_rows_piece_put(txn, unread->type, &unread->id, &row, err);
    } else {
        sweep->freed_bytes = store_rows_place_bytes(&unread->place);
        status = store_rows_place_out(txn, &unread->place, err);
    }
    return status < 0 ? status : store_rows_unread_del(txn, unread, err);
}

static int look_again(struct store *store, struct sweep *sweep, struct err *err)
{
    sweep->cause = store_rot_look(store, &sweep->unread.id, &sweep->unread.place, NULL);
    if (sweep->cause < 0)
        sweep->cause = NO_CAUSE;
    /* Asked after the look: the disk may have gone since the sweep began. */
    int status = sweep->cause == STORE_ROT_MISSING ? store_disk_check_mounted(store, err) : 0;
    if (status < 0)
        return status;
    status = store_db_update(store->db, settle, sweep, err);
    if (status >= 0)
        store->live_bytes -= sweep->freed_bytes;
    return status < 0 ? status : 0;
}

static int count_unread(struct store_db_txn *txn, void *ctx, struct err *err)
{
    return store_db_count(txn, STORE_DB_UNREAD, ctx, err);
}

int store_unread_sweep(struct store *store, struct err *err)
{
    struct sweep sweep = {.key = {STORE_PIECE_CHUNK}, .key_len = sizeof sweep.key};
    int refusals = 0;
    uint64_t count;
    int status = store_db_view(store->db, count_unread, &count, err);
    if (status == 0 && count > 0)
        status = store_disk_check_mounted(store, err);
    if (status < 0 || count == 0)
        return status;
    bool is_round = false; /* from a random place to the end, then from the first on: so that all get their turn */
    crypto_random(sweep.key + 1, ID_BYTES);
    for (int i = 0; i < LOOKS && refusals < REFUSALS; i++) {
        int got = store_db_view(store->db, next_unread, &sweep, err);
        if (got == 0 && !is_round) {
            is_round = true;
            sweep.key_len = 0;
            continue;
        }
        if (got == 1)
            status = look_again(store, &sweep, err);
        if (got != 1 || status < 0)
            return got < 0 ? got : status;
        refusals += sweep.cause == STORE_ROT_UNREADABLE;
    }
    return 0;
}
