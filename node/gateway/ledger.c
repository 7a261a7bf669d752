#include "node/gateway/ledger.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/buf.h"
#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

static const char table[] = "registry";
#define ROW 'l'
#define ROW_KEY_BYTES 9
#define ROW_BYTES (256u << 10) /* a row is closed by the entry that passes this */
#define FORMAT 1
#define ENTRY_MEMBER 'm'
#define ENTRY_FORGOTTEN 'd'
#define ENTRY_SET 's'
#define TOMBSTONE 1
/* One command may remove all members, 1 Mi x (30 + 512 B and a short name of the set); one that would need more fails.
 */
#define BATCH_MAX_BYTES (1u << 30)
#define CLEAN_BYTES (128u << 10) /* of old rows, with each commit of a cleaning */
#define CLEAN_ROWS 256
#define CLEAN_SLACK_BYTES (16u << 20) /* a log that is smaller is not worth cleaning */

_Static_assert(ROW_BYTES + 2048 < STORE_TABLE_VALUE_MAX_BYTES, "a row and one more entry are a value");

struct batch {
    struct buf rows; /* one after the other */
    size_t *ends;    /* owned: of the rows but the last */
    size_t end_count, end_cap;
    uint64_t first;      /* number of the first row */
    uint64_t clean_from; /* rows that go: from this number */
    uint64_t clean_to;   /* to before this one */
};

struct ledger {
    struct ledger_config config;
    struct batch gathering, writing;
    uint64_t number;      /* of the batch that gathers */
    uint64_t durable;     /* the one that is being written has durable + 1 */
    uint64_t next_row;    /* the number that the next row gets */
    uint64_t clean_row;   /* the oldest row that is not cleaned */
    uint64_t clean_end;   /* a cleaning goes on until it is there; 0: none is under way */
    uint64_t bytes;       /* of all rows */
    uint64_t clean_bytes; /* when the log has more, it is cleaned */
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

static int each_of_store(void *ctx, const void *from, size_t from_len, store_table_cb cb, void *cb_ctx, struct err *err)
{
    return store_table_each(ctx, table, NULL, 0, from, from_len, cb, cb_ctx, err);
}

struct ledger_disk ledger_disk_store(struct store *store)
{
    return (struct ledger_disk){.apply = apply_to_store, .each = each_of_store, .ctx = store};
}

/* ---- lifecycle ---- */

int ledger_new(const struct ledger_config *config, struct ledger **ret_ledger, struct err *err)
{
    struct ledger *ledger = calloc(1, sizeof *ledger);
    if (!ledger)
        return err_set(err, ERR_NOMEM, "no memory for the registry's ledger");
    ledger->config = *config;
    ledger->number = 1;
    ledger->clean_bytes = CLEAN_SLACK_BYTES;
    buf_init(&ledger->gathering.rows, BATCH_MAX_BYTES);
    buf_init(&ledger->writing.rows, BATCH_MAX_BYTES);
    *ret_ledger = ledger;
    return 0;
}

void ledger_free(struct ledger *ledger)
{
    if (!ledger)
        return;
    buf_release(&ledger->gathering.rows);
    buf_release(&ledger->writing.rows);
    free(ledger->gathering.ends);
    free(ledger->writing.ends);
    free(ledger);
}

/* ---- rows and entries ---- */

static int end_row(struct batch *batch)
{
    if (batch->end_count == batch->end_cap) {
        size_t cap = batch->end_cap ? batch->end_cap * 2 : 8;
        size_t *ends = realloc(batch->ends, cap * sizeof *ends);
        if (!ends)
            return ERR_NOMEM;
        batch->ends = ends;
        batch->end_cap = cap;
    }
    batch->ends[batch->end_count++] = batch->rows.len;
    return 0;
}

/* Have a row to add an entry to; *ret_start is where the batch is cut off again if that fails. */
static struct buf *begin_entry(struct batch *batch, size_t *ret_start)
{
    struct buf *rows = &batch->rows;
    size_t begin = batch->end_count > 0 ? batch->ends[batch->end_count - 1] : 0;
    if (rows->len - begin >= ROW_BYTES && end_row(batch) == 0)
        begin = rows->len;
    *ret_start = rows->len;
    if (rows->len == begin)
        wire_put_u8(rows, FORMAT);
    return rows;
}

static int end_entry(struct buf *rows, size_t start)
{
    if (!rows->failed)
        return 0;
    rows->len = start;
    rows->failed = false;
    return ERR_NOMEM;
}

static void put_version(struct buf *rows, const struct dht_version *version)
{
    wire_put_u64(rows, version->epoch);
    wire_put_u64(rows, version->counter);
}

int ledger_put_set(struct ledger *ledger, const struct set *set)
{
    size_t start;
    struct buf *rows = begin_entry(&ledger->gathering, &start);
    wire_put_u8(rows, ENTRY_SET);
    wire_put_short(rows, set->name.bytes, set->name.len);
    wire_put_u64(rows, set->cleared_ms);
    wire_put_u64(rows, set->expires_ms);
    put_version(rows, &set->meta_version);
    return end_entry(rows, start);
}

int ledger_put_member(struct ledger *ledger, const struct set *set, const struct set_change *change)
{
    size_t start;
    uint64_t score;
    struct buf *rows = begin_entry(&ledger->gathering, &start);
    memcpy(&score, &change->score, sizeof score);
    wire_put_u8(rows, ENTRY_MEMBER);
    wire_put_short(rows, set->name.bytes, set->name.len);
    wire_put_short(rows, change->name, change->name_len);
    wire_put_u8(rows, change->tombstone ? TOMBSTONE : 0);
    wire_put_u64(rows, score);
    put_version(rows, &change->version);
    return end_entry(rows, start);
}

int ledger_drop_member(struct ledger *ledger, const struct set_member *member)
{
    size_t start;
    struct buf *rows = begin_entry(&ledger->gathering, &start);
    wire_put_u8(rows, ENTRY_FORGOTTEN);
    wire_put_short(rows, member->set->name.bytes, member->set->name.len);
    wire_put_short(rows, member->name.bytes, member->name.len);
    return end_entry(rows, start);
}

static struct dht_version get_version(struct wire *wire)
{
    uint64_t epoch = wire_get_u64(wire);
    return (struct dht_version){epoch, wire_get_u64(wire)};
}

static bool get_member(struct wire *wire, uint8_t type, struct set_change *change)
{
    change->name = wire_get_short(wire, LIMIT_SET_MEMBER_BYTES, &change->name_len);
    if (type == ENTRY_FORGOTTEN)
        return !wire->failed && change->name_len > 0;
    uint8_t flags = wire_get_u8(wire);
    uint64_t score = wire_get_u64(wire);
    change->version = get_version(wire);
    change->tombstone = flags == TOMBSTONE;
    memcpy(&change->score, &score, sizeof score);
    return !wire->failed && change->name_len > 0 && flags <= TOMBSTONE && !isnan(change->score);
}

static bool get_entry(struct wire *wire, struct ledger_entry *entry)
{
    *entry = (struct ledger_entry){0};
    uint8_t type = wire_get_u8(wire);
    entry->set = wire_get_short(wire, LIMIT_SET_NAME_BYTES, &entry->set_len);
    entry->forgotten = type == ENTRY_FORGOTTEN;
    entry->change.meta = type == ENTRY_SET;
    if (type == ENTRY_MEMBER || type == ENTRY_FORGOTTEN)
        return get_member(wire, type, &entry->change);
    entry->change.cleared_ms = wire_get_u64(wire);
    entry->change.expires_ms = wire_get_u64(wire);
    entry->change.version = get_version(wire);
    return !wire->failed && type == ENTRY_SET;
}

/* ---- reading ---- */

static bool parse_key(const void *key, size_t key_len, uint64_t *ret_number)
{
    const uint8_t *bytes = key;
    if (key_len != ROW_KEY_BYTES || bytes[0] != ROW)
        return false;
    *ret_number = wire_load_u64(bytes + 1);
    return true;
}

static void make_key(uint64_t number, uint8_t key[ROW_KEY_BYTES])
{
    key[0] = ROW;
    wire_store_u64(key + 1, number);
}

struct reading {
    struct ledger *ledger;
    ledger_entry_cb each;
    void *ctx;
    bool found;
    size_t bad;
};

static int read_row(const void *key, size_t key_len, const void *value, size_t value_len, void *ctx)
{
    struct reading *reading = ctx;
    struct ledger *ledger = reading->ledger;
    struct ledger_entry entry;
    struct wire wire;
    uint64_t number;
    if (!parse_key(key, key_len, &number)) {
        reading->bad++;
        return 0;
    }
    if (!reading->found)
        ledger->clean_row = number;
    reading->found = true;
    ledger->next_row = number + 1;
    ledger->bytes += value_len;
    wire_init(&wire, value, value_len);
    bool good = wire_get_u8(&wire) == FORMAT;
    int status = 0;
    while (good && status == 0 && wire_left(&wire) > 0)
        if ((good = get_entry(&wire, &entry)))
            status = reading->each(reading->ctx, &entry);
    reading->bad += !good;
    return status;
}

int ledger_read(struct ledger *ledger, ledger_entry_cb each, void *ctx, size_t *ret_bad, struct err *err)
{
    struct reading reading = {.ledger = ledger, .each = each, .ctx = ctx};
    int status = ledger->config.disk.each(ledger->config.disk.ctx, NULL, 0, read_row, &reading, err);
    *ret_bad = reading.bad;
    ledger->gathering.first = ledger->next_row;
    return status;
}

/* ---- cleaning ---- */

struct cleaning {
    struct ledger *ledger;
    size_t bytes, rows;
};

/* Say again what is still true in a row, which then may go. */
static int clean_row(const void *key, size_t key_len, const void *value, size_t value_len, void *ctx)
{
    struct cleaning *cleaning = ctx;
    struct ledger *ledger = cleaning->ledger;
    struct batch *batch = &ledger->gathering;
    struct ledger_entry entry;
    struct wire wire;
    uint64_t number;
    if (!parse_key(key, key_len, &number) || number >= ledger->clean_end || cleaning->bytes >= CLEAN_BYTES ||
        cleaning->rows >= CLEAN_ROWS)
        return 1;
    wire_init(&wire, value, value_len);
    wire_get_u8(&wire);
    while (wire_left(&wire) > 0) {
        const uint8_t *at = wire.at;
        size_t start;
        if (!get_entry(&wire, &entry))
            break;
        if (entry.forgotten || !ledger->config.is_live(ledger->config.ctx, &entry))
            continue;
        struct buf *rows = begin_entry(batch, &start);
        buf_add(rows, at, (size_t)(wire.at - at));
        if (end_entry(rows, start) < 0)
            return 1;
    }
    batch->clean_to = ledger->clean_row = number + 1;
    cleaning->bytes += value_len;
    cleaning->rows++;
    ledger->bytes -= value_len;
    return 0;
}

static void clean(struct ledger *ledger)
{
    struct cleaning cleaning = {.ledger = ledger};
    uint8_t key[ROW_KEY_BYTES];
    struct err err;
    if (ledger->clean_end == 0 && ledger->bytes > ledger->clean_bytes)
        ledger->clean_end = ledger->next_row;
    ledger->gathering.clean_from = ledger->gathering.clean_to = ledger->clean_row;
    if (ledger->clean_end == 0)
        return;
    make_key(ledger->clean_row, key);
    int status = ledger->config.disk.each(ledger->config.disk.ctx, key, sizeof key, clean_row, &cleaning, &err);
    /* A disk that cannot be read now can be later: the rows stay until then. */
    if (status >= 0 && (cleaning.rows == 0 || ledger->clean_row >= ledger->clean_end)) {
        ledger->clean_end = 0;
        ledger->clean_bytes = 2 * ledger->bytes + CLEAN_SLACK_BYTES;
    }
}

/* ---- writing ---- */

/* What is to be done for a batch: its rows, and those that go. */
struct plan {
    uint8_t (*keys)[ROW_KEY_BYTES]; /* owned */
    struct store_table_op *ops;     /* owned */
    size_t count;
};

static void release_plan(struct plan *plan)
{
    free(plan->keys);
    free(plan->ops);
}

static void plan_op(struct plan *plan, uint64_t number, const uint8_t *value, size_t len)
{
    uint8_t *key = plan->keys[plan->count];
    make_key(number, key);
    plan->ops[plan->count++] = (struct store_table_op){key, ROW_KEY_BYTES, value, len};
}

/* On another thread, which has `writing`, `job_err` and `job_status` to itself while `busy`. */
static void write_batch(void *arg)
{
    struct ledger *ledger = arg;
    const struct batch *batch = &ledger->writing;
    size_t most = batch->end_count + 1 + (batch->clean_to - batch->clean_from);
    OWNED(release_plan) struct plan plan = {calloc(most, ROW_KEY_BYTES), calloc(most, sizeof *plan.ops), 0};
    if (!plan.keys || !plan.ops) {
        ledger->job_status = err_set(&ledger->job_err, ERR_NOMEM, "no memory for a commit");
        return;
    }
    size_t begin = 0;
    for (size_t i = 0; i <= batch->end_count; i++) {
        size_t end = i < batch->end_count ? batch->ends[i] : batch->rows.len;
        plan_op(&plan, batch->first + i, batch->rows.data + begin, end - begin);
        begin = end;
    }
    for (uint64_t number = batch->clean_from; number < batch->clean_to; number++)
        plan_op(&plan, number, NULL, 0);
    ledger->job_status = ledger->config.disk.apply(ledger->config.disk.ctx, plan.ops, plan.count, &ledger->job_err);
}

static void on_batch_written(void *arg)
{
    struct ledger *ledger = arg;
    ledger->busy = false;
    ledger->failing = ledger->job_status < 0;
    if (ledger->failing) {
        ledger->failure = ledger->job_err;
    } else {
        struct batch *batch = &ledger->writing;
        ledger->durable++;
        batch->end_count = 0;
        buf_clear(&batch->rows);
        if (batch->rows.cap > LIMIT_SET_BATCH_BYTES)
            buf_release(&batch->rows);
    }
    ledger->config.done(ledger->config.ctx, ledger->job_status, &ledger->failure);
}

/* The batch that has gathered is the one to write; an empty one gathers. */
static void turn(struct ledger *ledger)
{
    clean(ledger);
    struct batch empty = ledger->writing;
    ledger->writing = ledger->gathering;
    ledger->gathering = empty;
    ledger->bytes += ledger->writing.rows.len;
    ledger->next_row = ledger->writing.first + ledger->writing.end_count + 1;
    ledger->gathering.first = ledger->next_row;
    ledger->number++;
}

void ledger_write(struct ledger *ledger, bool again)
{
    if (ledger->busy || (ledger->failing && !again))
        return;
    if (!ledger->failing) {
        if (ledger->gathering.rows.len == 0)
            return;
        turn(ledger);
    }
    ledger->busy = true;
    jobs_submit(&ledger->config.jobs, write_batch, on_batch_written, ledger);
}

uint64_t ledger_gathering(const struct ledger *ledger)
{
    return ledger->number;
}

uint64_t ledger_durable(const struct ledger *ledger)
{
    return ledger->durable;
}

bool ledger_is_full(const struct ledger *ledger)
{
    return ledger->gathering.rows.len >= LIMIT_SET_BATCH_BYTES;
}

const struct err *ledger_failure(const struct ledger *ledger)
{
    return ledger->failing ? &ledger->failure : NULL;
}

bool ledger_is_busy(const struct ledger *ledger)
{
    return ledger->busy;
}

uint64_t ledger_bytes(const struct ledger *ledger)
{
    return ledger->bytes + ledger->gathering.rows.len;
}
