#include "node/mesh/records.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/log.h"
#include "node/base/scope.h"

static const char records_table[] = "dht-records";
static const char blobs_table[] = "dht-blobs";
#define RECORD_KEY_BYTES (2 * ID_BYTES)
#define MAX_CHANGES 65536
#define PAUSE_FLUSHES 20 /* after a failure: about 10 s */

/* One write that the disk has not seen. */
struct change {
    bool blob;
    uint8_t key[RECORD_KEY_BYTES];
    size_t key_len;
    uint8_t *value; /* owned; NULL: removed */
    size_t value_len;
};

struct batch {
    struct change *changes; /* owned */
    size_t count, cap;
};

struct records {
    struct store *store; /* borrowed */
    struct jobs jobs;
    struct dht_memory *memory; /* owned */
    struct dht_storage in_memory;
    struct batch waiting, writing;
    bool busy;
    bool closing;
    bool failing;   /* the last write failed: told once */
    unsigned pause; /* calls of records_flush that do nothing yet */
    struct err job_err;
    int job_status;
};

static void batch_clear(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        free(batch->changes[i].value);
    free(batch->changes);
    *batch = (struct batch){0};
}

/* A change that cannot be queued is lost to the disk only: the records are replicated, and refreshed by their owners.
 */
static void queue(struct records *records, bool blob, const void *key, size_t key_len, const void *value, size_t len)
{
    struct batch *batch = &records->waiting;
    if (records->closing || batch->count >= MAX_CHANGES || key_len > RECORD_KEY_BYTES)
        return;
    if (batch->count == batch->cap) {
        size_t cap = batch->cap ? batch->cap * 2 : 64;
        struct change *changes = realloc(batch->changes, cap * sizeof *changes);
        if (!changes)
            return;
        batch->changes = changes;
        batch->cap = cap;
    }
    struct change change = {.blob = blob, .key_len = key_len, .value_len = len};
    memcpy(change.key, key, key_len);
    if (value) {
        change.value = malloc(len ? len : 1);
        if (!change.value)
            return;
        memcpy(change.value, value, len);
    }
    batch->changes[batch->count++] = change;
}

static void record_key(const struct id *key, const struct id *member, uint8_t bytes[RECORD_KEY_BYTES])
{
    memcpy(bytes, key->b, ID_BYTES);
    memcpy(bytes + ID_BYTES, member->b, ID_BYTES);
}

/* ---- what the DHT calls ---- */

static int put_record(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len_bytes)
{
    struct records *records = ctx;
    int status = records->in_memory.put(records->in_memory.ctx, key, member, bytes, len_bytes);
    if (status == 0) {
        uint8_t row[RECORD_KEY_BYTES];
        record_key(key, member, row);
        queue(records, false, row, sizeof row, bytes, len_bytes);
    }
    return status;
}

static int get_record(void *ctx, const struct id *key, const struct id *member, struct buf *ret_bytes)
{
    struct records *records = ctx;
    return records->in_memory.get(records->in_memory.ctx, key, member, ret_bytes);
}

static int remove_record(void *ctx, const struct id *key, const struct id *member)
{
    struct records *records = ctx;
    uint8_t row[RECORD_KEY_BYTES];
    record_key(key, member, row);
    queue(records, false, row, sizeof row, NULL, 0);
    return records->in_memory.remove(records->in_memory.ctx, key, member);
}

static int each_record(void *ctx, const struct id *from_key, dht_storage_cb cb, void *cb_ctx)
{
    struct records *records = ctx;
    return records->in_memory.each(records->in_memory.ctx, from_key, cb, cb_ctx);
}

static int save_blob(void *ctx, const char *name, const void *bytes, size_t len_bytes)
{
    struct records *records = ctx;
    queue(records, true, name, strlen(name), bytes, len_bytes);
    return records->in_memory.save(records->in_memory.ctx, name, bytes, len_bytes);
}

static int load_blob(void *ctx, const char *name, struct buf *ret_bytes)
{
    struct records *records = ctx;
    return records->in_memory.load(records->in_memory.ctx, name, ret_bytes);
}

struct dht_storage records_storage(struct records *records)
{
    return (struct dht_storage){.put = put_record,
                                .get = get_record,
                                .remove = remove_record,
                                .each = each_record,
                                .save = save_blob,
                                .load = load_blob,
                                .ctx = records};
}

/* ---- the disk ---- */

static void on_written(void *arg);

static int write_table(struct records *records, const char *table, bool blobs)
{
    size_t count = 0;
    const struct batch *batch = &records->writing;
    OWNED(owned_free) struct store_table_op *ops = calloc(batch->count, sizeof *ops);
    if (!ops)
        return err_set(&records->job_err, ERR_NOMEM, "no memory for the DHT's records");
    for (size_t i = 0; i < batch->count; i++) {
        const struct change *change = &batch->changes[i];
        if (change->blob == blobs)
            ops[count++] = (struct store_table_op){change->key, change->key_len, change->value, change->value_len};
    }
    return count ? store_table_apply(records->store, table, ops, count, &records->job_err) : 0;
}

static void work_write(void *arg)
{
    struct records *records = arg;
    records->job_status = write_table(records, records_table, false);
    if (records->job_status == 0)
        records->job_status = write_table(records, blobs_table, true);
}

/* What was not written comes before what has changed since, in one batch. */
static void put_back(struct records *records)
{
    struct batch *writing = &records->writing, *waiting = &records->waiting;
    size_t count = writing->count + waiting->count;
    struct change *changes =
        count <= MAX_CHANGES ? realloc(writing->changes, (count ? count : 1) * sizeof *changes) : NULL;
    if (!changes) {
        batch_clear(writing); /* lost to the disk only: see queue */
        return;
    }
    if (waiting->count > 0)
        memcpy(changes + writing->count, waiting->changes, waiting->count * sizeof *changes);
    free(waiting->changes);
    *waiting = (struct batch){.changes = changes, .count = count, .cap = count};
    *writing = (struct batch){0};
}

static void on_failed(struct records *records)
{
    if (!records->failing)
        log_error("dht", "records are not written and would be missing after a restart count=%zu why=\"%s\"",
                  records->writing.count, records->job_err.text);
    records->failing = true;
    records->pause = PAUSE_FLUSHES;
    if (records->closing)
        batch_clear(&records->writing);
    else
        put_back(records);
}

static void begin_write(struct records *records)
{
    records->writing = records->waiting;
    records->waiting = (struct batch){0};
    records->busy = true;
    jobs_submit(&records->jobs, work_write, on_written, records);
}

static void on_written(void *arg)
{
    struct records *records = arg;
    records->busy = false;
    if (records->job_status < 0) {
        on_failed(records);
    } else {
        if (records->failing)
            log_info("dht", "records are written again");
        records->failing = false;
        batch_clear(&records->writing);
    }
    if (records->closing && records->waiting.count > 0)
        begin_write(records);
}

void records_flush(struct records *records)
{
    if (records->pause > 0)
        records->pause--;
    else if (!records->busy && records->waiting.count > 0)
        begin_write(records);
}

void records_close(struct records *records)
{
    records->closing = true;
    if (!records->busy && records->waiting.count > 0)
        begin_write(records);
}

bool records_clean(const struct records *records)
{
    return !records->busy && records->waiting.count == 0;
}

static int load_record(const void *key, size_t key_len, const void *value, size_t value_len, void *ctx)
{
    struct records *records = ctx;
    struct id ids[2];
    if (key_len != sizeof ids)
        return 0;
    memcpy(ids, key, sizeof ids);
    return records->in_memory.put(records->in_memory.ctx, &ids[0], &ids[1], value, value_len);
}

static int load_named(const void *key, size_t key_len, const void *value, size_t value_len, void *ctx)
{
    struct records *records = ctx;
    char name[RECORD_KEY_BYTES + 1];
    if (key_len >= sizeof name)
        return 0;
    memcpy(name, key, key_len);
    name[key_len] = '\0';
    return records->in_memory.save(records->in_memory.ctx, name, value, value_len);
}

int records_new(struct store *store, struct jobs jobs, struct records **ret_records, struct err *err)
{
    struct records *records = calloc(1, sizeof *records);
    if (!records)
        return err_set(err, ERR_NOMEM, "no memory for the DHT's records");
    records->store = store;
    records->jobs = jobs;
    int status = dht_memory_new(&records->memory, err);
    if (status == 0) {
        records->in_memory = dht_storage_memory(records->memory);
        status = store_table_each(store, records_table, NULL, 0, NULL, 0, load_record, records, err);
    }
    if (status == 0)
        status = store_table_each(store, blobs_table, NULL, 0, NULL, 0, load_named, records, err);
    if (status < 0) {
        records_free(records);
        return err_wrap(err, "cannot load the DHT's records");
    }
    *ret_records = records;
    return 0;
}

void records_free(struct records *records)
{
    if (!records)
        return;
    batch_clear(&records->waiting);
    batch_clear(&records->writing);
    dht_memory_free(records->memory);
    free(records);
}
