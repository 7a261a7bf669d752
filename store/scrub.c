#include "store/scrub.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/base/scope.h"
#include "node/base/wire.h"
#include "store/checksum.h"
#include "store/gc.h"
#include "store/packs.h"
#include "store/read.h"

#define PIECES_PER_STEP 256
#define SAVE_EVERY_MS 60000

OWNED_DEFINE(owned_pack, struct store_pack, store_pack_unref)

/* ---- the mark ---- */

static const struct store_span scrub_key = {(const uint8_t *)"scrub", 5};

void store_scrub_init(struct store *store)
{
    pthread_mutex_init(&store->scrub.lock, NULL);
}

void store_scrub_release(struct store *store)
{
    pthread_mutex_destroy(&store->scrub.lock);
}

/* Of SHA-256 digests each first number is as likely as another; nearly all bytes are in chunks, which come first. */
static uint32_t permille(const struct store_scrub_mark *mark)
{
    if (mark->type > STORE_PIECE_CHUNK)
        return 999;
    return mark->type == 0 ? 0 : (uint32_t)((uint64_t)wire_load_u32(mark->id.b) * 999 >> 32);
}

void store_scrub_encode(const struct store_scrub_mark *mark, uint8_t ret_row[STORE_SCRUB_ROW_BYTES])
{
    const struct store_scrub *now = &mark->now;
    const uint64_t numbers[] = {now->passes,
                                now->last_started_ms,
                                now->last_finished_ms,
                                now->last_bad,
                                now->started_ms,
                                now->pieces,
                                now->bytes,
                                now->bad,
                                now->mended};
    ret_row[0] = (uint8_t)mark->type;
    memcpy(ret_row + 1, mark->id.b, ID_BYTES);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        wire_store_u64(ret_row + 1 + ID_BYTES + 8 * i, numbers[i]);
}

bool store_scrub_decode(const void *row, size_t len_bytes, struct store_scrub_mark *ret_mark)
{
    struct wire wire;
    wire_init(&wire, row, len_bytes);
    struct store_scrub_mark mark = {.type = wire_get_u8(&wire)};
    mark.id = wire_get_id(&wire);
    struct store_scrub *now = &mark.now;
    uint64_t *const numbers[] = {&now->passes,
                                 &now->last_started_ms,
                                 &now->last_finished_ms,
                                 &now->last_bad,
                                 &now->started_ms,
                                 &now->pieces,
                                 &now->bytes,
                                 &now->bad,
                                 &now->mended};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        *numbers[i] = wire_get_u64(&wire);
    if (!wire_done(&wire) || mark.type > STORE_PIECE_ROOT)
        return false;
    now->permille = permille(&mark);
    *ret_mark = mark;
    return true;
}

static int load_mark(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct store_span value;
    int got = store_db_get(txn, STORE_DB_META, scrub_key, &value, err);
    if (got == 1 && !store_scrub_decode(value.data, value.len, ctx))
        return err_set(err, ERR_CORRUPT,
                       "the place of the scrub in the store's index is malformed; run `cmig-node fsck`");
    return got;
}

int store_scrub_recover(struct store *store, struct err *err)
{
    int got = store_db_view(store->db, load_mark, &store->scrub.mark, err);
    return got < 0 ? got : 0;
}

static int write_mark(struct store_db_txn *txn, void *ctx, struct err *err)
{
    uint8_t row[STORE_SCRUB_ROW_BYTES];
    store_scrub_encode(ctx, row);
    return store_db_put(txn, STORE_DB_META, scrub_key, (struct store_span){row, sizeof row}, err);
}

static struct store_scrub_mark get_mark(struct store *store)
{
    pthread_mutex_lock(&store->scrub.lock);
    struct store_scrub_mark mark = store->scrub.mark;
    pthread_mutex_unlock(&store->scrub.lock);
    return mark;
}

static int save_mark(struct store *store, struct err *err)
{
    struct store_scrub_mark mark = get_mark(store);
    store->scrub.saved_ms = clock_mono_ms(&store->clock);
    return store_db_update(store->db, write_mark, &mark, err);
}

static void set_mark(struct store *store, const struct store_scrub_mark *mark)
{
    pthread_mutex_lock(&store->scrub.lock);
    store->scrub.mark = *mark;
    pthread_mutex_unlock(&store->scrub.lock);
}

void store_scrub_save(struct store *store)
{
    if (get_mark(store).now.started_ms != 0)
        save_mark(store, NULL); /* should it fail, some pieces are looked at twice */
}

/* ---- one piece ---- */

struct checked {
    enum store_piece_type type;
    struct id id;
    struct store_place place;
    uint64_t checksum; /* of the stored bytes, which are sound */
    bool row_is_wrong; /* about that */
};

struct step {
    struct store *store;
    struct store_scrub_mark mark;
    struct checked pieces[PIECES_PER_STEP];
    size_t count;
    bool rows_are_wrong;
    uint64_t want_bytes;
    uint8_t *stored; /* owned; head and body of one record */
    size_t stored_cap;
};

static bool head_fits(const struct checked *piece, const uint8_t *head)
{
    struct store_record record;
    return store_pack_decode_head(head, &record) && record.type == piece->type && id_equal(&record.id, &piece->id) &&
           record.encoding == piece->place.encoding && record.raw_bytes == piece->place.raw_bytes &&
           record.stored_bytes == piece->place.stored_bytes;
}

/* From the disk: what memory holds of the file would say nothing about it. */
static int read_record(struct step *step, const struct store_place *place, struct err *err)
{
    OWNED(owned_pack) struct store_pack *pack = NULL;
    size_t len = (size_t)store_rows_place_bytes(place);
    int status = store_packs_get(step->store, place->pack, &pack, err);
    if (status < 0)
        return status;
    if (len > step->stored_cap) {
        uint8_t *grown = realloc(step->stored, len);
        if (!grown)
            return err_set(err, ERR_NOMEM, "no memory to check a piece");
        step->stored = grown;
        step->stored_cap = len;
    }
    posix_fadvise(pack->fd, (off_t)place->offset, (off_t)len, POSIX_FADV_DONTNEED);
    status = file_pread_all(pack->fd, step->stored, len, place->offset, pack->path, err);
    posix_fadvise(pack->fd, (off_t)place->offset, (off_t)len, POSIX_FADV_DONTNEED);
    return status == ERR_IO ? ERR_CORRUPT : status;
}

static int check_body(struct step *step, struct checked *piece, struct err *err)
{
    const struct store_place *place = &piece->place;
    const uint8_t *body = step->stored + STORE_RECORD_HEAD_BYTES;
    OWNED(owned_free) uint8_t *decoded = NULL;
    piece->checksum = store_checksum_of(body, place->stored_bytes);
    if (place->encoding != STORE_RAW) {
        decoded = malloc(place->raw_bytes + 1);
        if (!decoded)
            return err_set(err, ERR_NOMEM, "no memory to check a piece");
        int status = store_decode(place->encoding, body, place->stored_bytes, decoded, place->raw_bytes, err);
        if (status < 0)
            return status;
        body = decoded;
    }
    struct id id;
    crypto_sha256(body, place->raw_bytes, &id);
    return id_equal(&id, &piece->id) ? 0 : ERR_CORRUPT;
}

/* The index still points to this very record. */
static int is_there(struct store *store, const struct checked *piece, struct err *err)
{
    struct store_place place;
    int got = store_read_find(store, piece->type, &piece->id, &place, err);
    return got == 1 ? store_rows_same_place(&place, &piece->place) : got;
}

/* The body is sound: the head can be written again from what the index knows. Inside the gate, so that the range is not
 * freed meanwhile. Of a root, kind and time are only for those who have lost the index: the kind as it stands there. */
static int mend_head(struct step *step, const struct checked *piece, struct err *err)
{
    struct store *store = step->store;
    const struct store_place *place = &piece->place;
    uint8_t head[STORE_RECORD_HEAD_BYTES];
    struct store_record record = {.type = piece->type,
                                  .encoding = place->encoding,
                                  .id = piece->id,
                                  .raw_bytes = place->raw_bytes,
                                  .stored_bytes = place->stored_bytes};
    if (piece->type == STORE_PIECE_ROOT) {
        record.kind = store_kind_is_valid(step->stored[6]) ? step->stored[6] : STORE_BLOB;
        record.time_ms = clock_wall_ms(&store->clock);
    }
    store_pack_encode_head(&record, head);
    OWNED(owned_pack) struct store_pack *pack = NULL;
    int status = store_packs_get(store, place->pack, &pack, err);
    if (status < 0)
        return status;
    store_gc_gate_enter(store);
    int there = is_there(store, piece, err);
    if (there == 1)
        status = file_pwrite_all(pack->fd, head, sizeof head, place->offset, pack->path, err);
    store_gc_gate_leave(store);
    if (there == 1 && status == 0)
        status = store_pack_sync(pack, err);
    return there < 0 ? there : status < 0 ? status : there;
}

static int mend_row(struct store_db_txn *txn, const struct checked *piece, struct err *err)
{
    struct store_piece_row row;
    int got = store_rows_piece_get(txn, piece->type, &piece->id, &row, err);
    if (got != 1 || !store_rows_same_place(&row.place, &piece->place))
        return got < 0 ? got : 0;
    row.place.checksum = piece->checksum;
    return store_rows_piece_put(txn, piece->type, &piece->id, &row, err);
}

static int mend_rows(struct store_db_txn *txn, void *ctx, struct err *err)
{
    const struct step *step = ctx;
    int status = 0;
    for (size_t i = 0; i < step->count && status == 0; i++)
        if (step->pieces[i].row_is_wrong)
            status = mend_row(txn, &step->pieces[i], err);
    return status;
}

/* The bytes are sound; is what was written down about them? What cannot be mended waits for the next pass: it must not
 * keep this one from finding rot. */
static void mend(struct step *step, struct checked *piece)
{
    int head = head_fits(piece, step->stored) ? 0 : mend_head(step, piece, NULL);
    piece->row_is_wrong = piece->place.checksum != piece->checksum;
    step->rows_are_wrong |= piece->row_is_wrong;
    bool old = piece->place.checksum == STORE_CHECKSUM_NONE; /* of format 1: nothing is wrong with it */
    if (head == 1 || (piece->row_is_wrong && !old))
        step->mark.now.mended++;
}

/* Bad bytes may be freed ones: reading by name tells, and reports them if they are not. */
static int confirm(struct step *step, const struct checked *piece, struct err *err)
{
    size_t cap = store_pack_max_bytes(piece->type);
    OWNED(owned_free) uint8_t *raw = malloc(cap);
    size_t len;
    if (!raw)
        return err_set(err, ERR_NOMEM, "no memory to check a piece");
    int got = store_piece_read_raw(step->store, piece->type, &piece->id, raw, cap, &len, err);
    step->mark.now.bad += got == ERR_CORRUPT;
    return got < 0 && got != ERR_CORRUPT ? got : 0;
}

static int check_piece(struct step *step, struct checked *piece, struct err *err)
{
    int status = read_record(step, &piece->place, err);
    if (status == 0)
        status = check_body(step, piece, err);
    step->mark.now.pieces++;
    step->mark.now.bytes += store_rows_place_bytes(&piece->place);
    if (status == ERR_CORRUPT)
        return confirm(step, piece, err);
    if (status == 0)
        mend(step, piece);
    return status;
}

/* ---- one step ---- */

/* The next pieces that have a place; the mark moves behind them. */
static int collect(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct step *step = ctx;
    uint8_t key_bytes[STORE_PIECE_KEY_BYTES];
    uint64_t bytes = 0;
    step->count = 0;
    while (step->count < PIECES_PER_STEP && bytes < step->want_bytes) {
        struct store_span key;
        struct store_span value;
        struct store_span all = {0};
        key_bytes[0] = (uint8_t)step->mark.type;
        memcpy(key_bytes + 1, step->mark.id.b, ID_BYTES);
        int got = store_db_next(txn, STORE_DB_PIECE, all, (struct store_span){key_bytes, sizeof key_bytes}, true, &key,
                                &value, err);
        if (got != 1)
            return got;
        struct checked *piece = &step->pieces[step->count];
        struct store_piece_row row;
        if (!store_rows_piece_key(key, &piece->type, &piece->id) || !store_rows_piece_decode(piece->type, value, &row))
            return err_set(err, ERR_CORRUPT, "a row of the pieces in the store's index is malformed");
        step->mark.type = piece->type;
        step->mark.id = piece->id;
        if (row.place.pack == 0)
            continue;
        piece->place = row.place;
        piece->row_is_wrong = false;
        bytes += store_rows_place_bytes(&row.place);
        step->count++;
    }
    return 1;
}

static int compare_places(const void *a, const void *b)
{
    const struct store_place *x = &((const struct checked *)a)->place;
    const struct store_place *y = &((const struct checked *)b)->place;
    if (x->pack != y->pack)
        return x->pack < y->pack ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static void end_pass(struct step *step)
{
    struct store_scrub *now = &step->mark.now;
    *now = (struct store_scrub){.passes = now->passes + 1,
                                .last_started_ms = now->started_ms,
                                .last_finished_ms = clock_wall_ms(&step->store->clock),
                                .last_bad = now->bad};
    step->mark.type = 0;
    step->mark.id = (struct id){0};
}

static int run_step(struct step *step, struct err *err)
{
    struct store *store = step->store;
    step->mark = get_mark(store);
    struct store_scrub *now = &step->mark.now;
    if (now->started_ms == 0)
        now->started_ms = clock_wall_ms(&store->clock);
    int more = store_db_view(store->db, collect, step, err);
    if (more < 0)
        return more;
    qsort(step->pieces, step->count, sizeof *step->pieces, compare_places);
    int status = 0;
    for (size_t i = 0; i < step->count && status == 0; i++)
        status = check_piece(step, &step->pieces[i], err);
    if (status < 0)
        return status;
    if (step->rows_are_wrong)
        store_db_update(store->db, mend_rows, step, NULL);
    now->permille = permille(&step->mark);
    if (more == 0)
        end_pass(step);
    set_mark(store, &step->mark);
    if (more == 0 || clock_mono_ms(&store->clock) - store->scrub.saved_ms >= SAVE_EVERY_MS)
        status = save_mark(store, err);
    return status < 0 ? status : more;
}

int store_scrub_step(struct store *store, uint64_t want_bytes, struct store_scrub *ret_scrub, struct err *err)
{
    if (atomic_exchange(&store->scrub.is_busy, true))
        return err_set(err, ERR_BUSY, "the store is being scrubbed");
    OWNED(owned_free) struct step *step = calloc(1, sizeof *step);
    int more = ERR_NOMEM;
    if (step) {
        step->store = store;
        step->want_bytes = want_bytes > 0 ? want_bytes : 1;
        more = run_step(step, err);
        free(step->stored);
    } else {
        err_set(err, ERR_NOMEM, "no memory to scrub");
    }
    store->scrub.is_busy = false;
    if (more >= 0 && ret_scrub)
        store_scrub_status(store, ret_scrub);
    return more;
}

void store_scrub_status(struct store *store, struct store_scrub *ret_scrub)
{
    *ret_scrub = get_mark(store).now;
}

int store_scrub_restart(struct store *store, struct err *err)
{
    if (atomic_exchange(&store->scrub.is_busy, true))
        return err_set(err, ERR_BUSY, "the store is being scrubbed");
    struct store_scrub_mark mark = {.now = get_mark(store).now};
    mark.now.started_ms = clock_wall_ms(&store->clock);
    mark.now.pieces = mark.now.bytes = mark.now.bad = mark.now.mended = mark.now.permille = 0;
    set_mark(store, &mark);
    int status = save_mark(store, err);
    store->scrub.is_busy = false;
    return status;
}
