#include "node/mesh/records.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/log.h"
#include "node/base/map.h"
#include "node/base/scope.h"

static const char records_table[] = "dht-records";
static const char blobs_table[] = "dht-blobs";
#define RECORD_KEY_BYTES (2 * ID_BYTES)
#define MAX_CHANGES 65536
#define PAUSE_FLUSHES 20 /* after a failure: about 10 s */

/* The latest change of one row that the disk has not seen. */
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
    struct map places; /* hash of table and key to 1 + the place in `changes` */
};

struct records {
    struct store *store; /* borrowed */
    struct jobs jobs;
    struct batch waiting, writing;
    bool busy;
    bool closing;
    bool failing;   /* the last write failed: told once */
    unsigned pause; /* calls of records_flush that do nothing yet */
    struct err job_err;
    int job_status;
};

/* ---- batches ---- */

static void batch_init(struct batch *batch)
{
    uint64_t seed;
    crypto_random(&seed, sizeof seed);
    *batch = (struct batch){0};
    map_init(&batch->places, MAX_CHANGES, seed);
}

static void batch_clear(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        free(batch->changes[i].value);
    free(batch->changes);
    map_release(&batch->places);
    batch_init(batch);
}

static struct id hash_of(const struct change *change)
{
    struct id hash;
    uint8_t table = change->blob;
    crypto_blake2b(hash.b, sizeof hash.b, NULL, 0, &table, 1, change->key, change->key_len);
    return hash;
}

static struct change *batch_at(const struct batch *batch, const struct id *hash)
{
    size_t place = (size_t)(uintptr_t)map_get(&batch->places, hash);
    return place > 0 ? &batch->changes[place - 1] : NULL;
}

static struct change *batch_find(const struct batch *batch, const struct change *like)
{
    struct id hash = hash_of(like);
    return batch_at(batch, &hash);
}

/* A place for one more change; NULL if there is no room. */
static struct change *batch_extend(struct batch *batch, const struct id *hash)
{
    if (batch->count == batch->cap) {
        size_t cap = batch->cap ? batch->cap * 2 : 64;
        struct change *changes = realloc(batch->changes, cap * sizeof *changes);
        if (!changes)
            return NULL;
        batch->changes = changes;
        batch->cap = cap;
    }
    if (map_set(&batch->places, hash, (void *)(uintptr_t)(batch->count + 1)) < 0)
        return NULL;
    struct change *place = &batch->changes[batch->count++];
    place->value = NULL;
    return place;
}

/* Take over the change, in place of an earlier one of its row. One that does not fit is lost to the disk only: the
 * records are replicated, and refreshed by their owners. */
static void batch_set(struct batch *batch, const struct change *change)
{
    struct id hash = hash_of(change);
    struct change *place = batch_at(batch, &hash);
    if (!place)
        place = batch_extend(batch, &hash);
    if (!place) {
        free(change->value);
        return;
    }
    free(place->value);
    *place = *change;
}

static struct change change_of(bool blob, const void *key, size_t key_len)
{
    struct change change = {.blob = blob, .key_len = key_len < RECORD_KEY_BYTES ? key_len : RECORD_KEY_BYTES};
    memcpy(change.key, key, change.key_len);
    return change;
}

static void queue(struct records *records, struct change change, const void *value, size_t len)
{
    if (records->closing)
        return;
    if (value) {
        change.value = malloc(len ? len : 1);
        if (!change.value)
            return;
        memcpy(change.value, value, len);
        change.value_len = len;
    }
    batch_set(&records->waiting, &change);
}

/* ---- what the DHT calls ---- */

static struct change change_of_record(const struct id *key, const struct id *member)
{
    struct id row[] = {*key, *member};
    return change_of(false, row, sizeof row);
}

static int put_record(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len_bytes)
{
    queue(ctx, change_of_record(key, member), bytes, len_bytes);
    return 0;
}

static int remove_record(void *ctx, const struct id *key, const struct id *member)
{
    queue(ctx, change_of_record(key, member), NULL, 0);
    return 0;
}

struct loading {
    dht_storage_cb cb;
    void *ctx;
};

static int load_record(const void *key, size_t key_len, const void *value, size_t value_len, void *ctx)
{
    struct loading *loading = ctx;
    struct id ids[2];
    if (key_len != sizeof ids)
        return 0;
    memcpy(ids, key, sizeof ids);
    return loading->cb(loading->ctx, &ids[0], &ids[1], value, value_len) ? 0 : 1;
}

static int each_record(void *ctx, dht_storage_cb cb, void *cb_ctx)
{
    struct records *records = ctx;
    struct loading loading = {cb, cb_ctx};
    struct err err;
    int status = store_table_each(records->store, records_table, NULL, 0, NULL, 0, load_record, &loading, &err);
    if (status < 0)
        log_error("dht", "records cannot be read why=\"%s\"", err.text);
    return status < 0 ? status : 0;
}

static int save_blob(void *ctx, const char *name, const void *bytes, size_t len_bytes)
{
    if (strlen(name) > RECORD_KEY_BYTES)
        return ERR_INVALID;
    queue(ctx, change_of(true, name, strlen(name)), bytes, len_bytes);
    return 0;
}

static int load_blob(void *ctx, const char *name, struct buf *ret_bytes)
{
    struct records *records = ctx;
    struct change like = change_of(true, name, strlen(name));
    const struct change *change = batch_find(&records->waiting, &like);
    if (!change)
        change = batch_find(&records->writing, &like);
    if (!change)
        return store_table_get(records->store, blobs_table, name, strlen(name), ret_bytes, NULL);
    int status = buf_add(ret_bytes, change->value, change->value_len);
    return status < 0 ? status : 1;
}

struct dht_storage records_storage(struct records *records)
{
    return (struct dht_storage){.put = put_record,
                                .remove = remove_record,
                                .each = each_record,
                                .save = save_blob,
                                .load = load_blob,
                                .ctx = records};
}

/* ---- the disk ---- */

static void on_written(void *arg);

static int compare_rows(const void *a, const void *b)
{
    const struct store_table_op *x = a, *y = b;
    int order = memcmp(x->key, y->key, x->key_len < y->key_len ? x->key_len : y->key_len);
    return order != 0 ? order : (x->key_len > y->key_len) - (x->key_len < y->key_len);
}

/* In the order of the keys, which is that of the pages. */
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
    qsort(ops, count, sizeof *ops, compare_rows);
    return count ? store_table_apply(records->store, table, ops, count, &records->job_err) : 0;
}

static void work_write(void *arg)
{
    struct records *records = arg;
    records->job_status = write_table(records, records_table, false);
    if (records->job_status == 0)
        records->job_status = write_table(records, blobs_table, true);
}

/* What was not written joins what has changed since, unless that was the same row. */
static void put_back(struct records *records)
{
    struct batch *writing = &records->writing;
    for (size_t i = 0; i < writing->count; i++) {
        struct change *change = &writing->changes[i];
        if (batch_find(&records->waiting, change))
            continue;
        struct change again = *change;
        change->value = NULL;
        batch_set(&records->waiting, &again);
    }
    batch_clear(writing);
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
    batch_clear(&records->writing);
    records->writing = records->waiting;
    batch_init(&records->waiting);
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

int records_new(struct store *store, struct jobs jobs, struct records **ret_records, struct err *err)
{
    struct records *records = calloc(1, sizeof *records);
    if (!records)
        return err_set(err, ERR_NOMEM, "no memory for the DHT's records");
    records->store = store;
    records->jobs = jobs;
    batch_init(&records->waiting);
    batch_init(&records->writing);
    *ret_records = records;
    return 0;
}

void records_free(struct records *records)
{
    if (!records)
        return;
    batch_clear(&records->waiting);
    batch_clear(&records->writing);
    free(records);
}
