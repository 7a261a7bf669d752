#include "node/gateway/journal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/buf.h"
#include "node/base/crypto.h"
#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

static const char table[] = "registry";
#define ROW_VERSION 1
#define ROW_SET 'k'
#define ROW_MEMBER 'm'
#define ROW_TOMBSTONE 1
#define SET_KEY_BYTES (1 + ID_BYTES)
#define MEMBER_KEY_BYTES (1 + 2 * ID_BYTES)
#define SET_HEAD_BYTES 33
#define MEMBER_HEAD_BYTES 26
#define BATCH_MAX_BYTES (768u << 20) /* one command may remove all members: 1 Mi x (96 + 26 + 512 B) */

/* Rows one after the other: key length (u8), value length (u32, or REMOVED), key, value. */
struct batch {
    struct buf rows;
    size_t count;
};
#define REMOVED UINT32_MAX
#define ROW_HEAD_BYTES 5

struct journal {
    struct journal_disk disk;
    struct jobs jobs;
    journal_cb done;
    void *ctx; /* borrowed */
    struct batch gathering, writing;
    uint64_t number;  /* of the batch that gathers */
    uint64_t durable; /* the one that is being written has durable + 1 */
    bool busy;
    bool failing;
    struct err failure; /* why the last try failed */
    int job_status;     /* the job's while busy, as job_err */
    struct err job_err;
};

/* ---- the store ---- */

static int apply_to_store(void *ctx, const struct store_table_op *ops, size_t count, struct err *err)
{
    return store_table_apply(ctx, table, ops, count, err);
}

static int each_of_store(void *ctx, store_table_cb cb, void *cb_ctx, struct err *err)
{
    return store_table_each(ctx, table, NULL, 0, NULL, 0, cb, cb_ctx, err);
}

struct journal_disk journal_disk_store(struct store *store)
{
    return (struct journal_disk){.apply = apply_to_store, .each = each_of_store, .ctx = store};
}

/* ---- lifecycle ---- */

int journal_new(const struct journal_disk *disk, struct jobs jobs, journal_cb done, void *ctx,
                struct journal **ret_journal, struct err *err)
{
    struct journal *journal = calloc(1, sizeof *journal);
    if (!journal)
        return err_set(err, ERR_NOMEM, "no memory for the registry's journal");
    *journal = (struct journal){.disk = *disk, .jobs = jobs, .done = done, .ctx = ctx, .number = 1};
    buf_init(&journal->gathering.rows, BATCH_MAX_BYTES);
    buf_init(&journal->writing.rows, BATCH_MAX_BYTES);
    *ret_journal = journal;
    return 0;
}

void journal_free(struct journal *journal)
{
    if (!journal)
        return;
    buf_release(&journal->gathering.rows);
    buf_release(&journal->writing.rows);
    free(journal);
}

/* ---- rows ---- */

static int add_row(struct journal *journal, const uint8_t *key, size_t key_len, const uint8_t *head, size_t head_len,
                   const void *name, size_t name_len)
{
    struct buf *rows = &journal->gathering.rows;
    size_t value_len = head ? head_len + name_len : 0;
    uint8_t *at = buf_reserve(rows, ROW_HEAD_BYTES + key_len + value_len);
    if (!at)
        return ERR_NOMEM;
    at[0] = (uint8_t)key_len;
    wire_store_u32(at + 1, head ? (uint32_t)value_len : REMOVED);
    memcpy(at + ROW_HEAD_BYTES, key, key_len);
    if (head) {
        memcpy(at + ROW_HEAD_BYTES + key_len, head, head_len);
        memcpy(at + ROW_HEAD_BYTES + key_len + head_len, name, name_len);
    }
    rows->len += ROW_HEAD_BYTES + key_len + value_len;
    journal->gathering.count++;
    return 0;
}

static void set_key(const struct set *set, uint8_t key[SET_KEY_BYTES])
{
    key[0] = ROW_SET;
    memcpy(key + 1, set->id.b, ID_BYTES);
}

static void member_key(const struct set *set, const void *name, size_t name_len, uint8_t key[MEMBER_KEY_BYTES])
{
    struct id id;
    crypto_id_of(name, name_len, &id);
    key[0] = ROW_MEMBER;
    memcpy(key + 1, set->id.b, ID_BYTES);
    memcpy(key + SET_KEY_BYTES, id.b, ID_BYTES);
}

int journal_put_set(struct journal *journal, const struct set *set)
{
    uint8_t key[SET_KEY_BYTES];
    uint8_t head[SET_HEAD_BYTES];
    set_key(set, key);
    head[0] = ROW_VERSION;
    wire_store_u64(head + 1, set->cleared_ms);
    wire_store_u64(head + 9, set->expires_ms);
    wire_store_u64(head + 17, set->meta_version.epoch);
    wire_store_u64(head + 25, set->meta_version.counter);
    return add_row(journal, key, sizeof key, head, sizeof head, set->name.bytes, set->name.len);
}

int journal_put_member(struct journal *journal, const struct set *set, const struct set_change *change)
{
    uint8_t key[MEMBER_KEY_BYTES];
    uint8_t head[MEMBER_HEAD_BYTES];
    uint64_t score;
    memcpy(&score, &change->score, sizeof score);
    member_key(set, change->name, change->name_len, key);
    head[0] = ROW_VERSION;
    head[1] = change->tombstone ? ROW_TOMBSTONE : 0;
    wire_store_u64(head + 2, score);
    wire_store_u64(head + 10, change->version.epoch);
    wire_store_u64(head + 18, change->version.counter);
    return add_row(journal, key, sizeof key, head, sizeof head, change->name, change->name_len);
}

int journal_drop_set(struct journal *journal, const struct set *set)
{
    uint8_t key[SET_KEY_BYTES];
    set_key(set, key);
    return add_row(journal, key, sizeof key, NULL, 0, NULL, 0);
}

int journal_drop_member(struct journal *journal, const struct set_member *member)
{
    uint8_t key[MEMBER_KEY_BYTES];
    member_key(member->set, member->name.bytes, member->name.len, key);
    return add_row(journal, key, sizeof key, NULL, 0, NULL, 0);
}

/* ---- reading ---- */

struct reading {
    journal_row_cb each;
    void *ctx;
    size_t bad;
};

static int read_set_row(struct reading *reading, const struct id *set, struct wire *wire)
{
    struct set_change change = {.meta = true};
    change.cleared_ms = wire_get_u64(wire);
    change.expires_ms = wire_get_u64(wire);
    change.version.epoch = wire_get_u64(wire);
    change.version.counter = wire_get_u64(wire);
    size_t len = wire_left(wire);
    const uint8_t *name = wire_get_bytes(wire, len);
    if (wire->failed || len > LIMIT_SET_NAME_BYTES)
        return ERR_CORRUPT;
    return reading->each(reading->ctx, set, name, len, &change);
}

static int read_member_row(struct reading *reading, const struct id *set, struct wire *wire)
{
    struct set_change change = {0};
    uint8_t flags = wire_get_u8(wire);
    uint64_t score = wire_get_u64(wire);
    memcpy(&change.score, &score, sizeof score);
    change.version.epoch = wire_get_u64(wire);
    change.version.counter = wire_get_u64(wire);
    change.name_len = wire_left(wire);
    change.name = wire_get_bytes(wire, change.name_len);
    change.tombstone = flags == ROW_TOMBSTONE;
    if (wire->failed || flags > ROW_TOMBSTONE || isnan(change.score) || change.name_len == 0 ||
        change.name_len > LIMIT_SET_MEMBER_BYTES)
        return ERR_CORRUPT;
    return reading->each(reading->ctx, set, NULL, 0, &change);
}

static int read_row(const void *key, size_t key_len, const void *value, size_t value_len, void *ctx)
{
    struct reading *reading = ctx;
    struct wire key_wire, wire;
    wire_init(&key_wire, key, key_len);
    wire_init(&wire, value, value_len);
    uint8_t type = wire_get_u8(&key_wire);
    struct id set = wire_get_id(&key_wire);
    int status = ERR_CORRUPT;
    if (wire_get_u8(&wire) == ROW_VERSION && type == ROW_SET && key_len == SET_KEY_BYTES)
        status = read_set_row(reading, &set, &wire);
    else if (!wire.failed && type == ROW_MEMBER && key_len == MEMBER_KEY_BYTES)
        status = read_member_row(reading, &set, &wire);
    if (status != ERR_CORRUPT)
        return status;
    reading->bad++;
    return 0;
}

int journal_read(struct journal *journal, journal_row_cb each, void *ctx, size_t *ret_bad, struct err *err)
{
    struct reading reading = {each, ctx, 0};
    int status = journal->disk.each(journal->disk.ctx, read_row, &reading, err);
    *ret_bad = reading.bad;
    return status;
}

/* ---- writing ---- */

/* Point into the rows of a batch; ops has room for all of them. */
static void ops_of(const struct batch *batch, struct store_table_op *ops)
{
    const uint8_t *at = batch->rows.data;
    for (size_t i = 0; i < batch->count; i++) {
        size_t key_len = at[0];
        uint32_t value_len = wire_load_u32(at + 1);
        const uint8_t *key = at + ROW_HEAD_BYTES;
        bool removed = value_len == REMOVED;
        ops[i] = (struct store_table_op){key, key_len, removed ? NULL : key + key_len, removed ? 0 : value_len};
        at = key + key_len + ops[i].value_len;
    }
}

/* On another thread, which has `writing`, `job_err` and `job_status` to itself while `busy`. */
static void write_batch(void *arg)
{
    struct journal *journal = arg;
    const struct batch *batch = &journal->writing;
    OWNED(owned_free) struct store_table_op *ops = malloc(batch->count * sizeof *ops);
    if (!ops) {
        journal->job_status = err_set(&journal->job_err, ERR_NOMEM, "no memory for %zu rows", batch->count);
        return;
    }
    ops_of(batch, ops);
    journal->job_status = journal->disk.apply(journal->disk.ctx, ops, batch->count, &journal->job_err);
}

static void on_batch_written(void *arg)
{
    struct journal *journal = arg;
    journal->busy = false;
    journal->failing = journal->job_status < 0;
    if (journal->failing) {
        journal->failure = journal->job_err;
    } else {
        journal->durable++;
        journal->writing.count = 0;
        buf_clear(&journal->writing.rows);
        if (journal->writing.rows.cap > LIMIT_SET_BATCH_BYTES)
            buf_release(&journal->writing.rows);
    }
    journal->done(journal->ctx, journal->job_status, &journal->failure);
}

void journal_write(struct journal *journal, bool again)
{
    if (journal->busy || (journal->failing && !again))
        return;
    if (!journal->failing) {
        if (journal->gathering.count == 0)
            return;
        struct batch empty = journal->writing;
        journal->writing = journal->gathering;
        journal->gathering = empty;
        journal->number++;
    }
    journal->busy = true;
    jobs_submit(&journal->jobs, write_batch, on_batch_written, journal);
}

uint64_t journal_gathering(const struct journal *journal)
{
    return journal->number;
}

uint64_t journal_durable(const struct journal *journal)
{
    return journal->durable;
}

bool journal_is_full(const struct journal *journal)
{
    return journal->gathering.rows.len >= LIMIT_SET_BATCH_BYTES;
}

const struct err *journal_failure(const struct journal *journal)
{
    return journal->failing ? &journal->failure : NULL;
}

bool journal_is_busy(const struct journal *journal)
{
    return journal->busy;
}
