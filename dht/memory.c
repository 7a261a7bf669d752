/* A storage in memory: one array of records ordered by (key, member), and a few blobs. */
#include <stdlib.h>
#include <string.h>

#include "dht/dht.h"
#include "node/base/scope.h"

struct row {
    struct id key;
    struct id member;
    size_t len;
    uint8_t bytes[];
};

#define BLOBS_MAX 8
#define BLOB_NAME_SIZE 32

struct blob {
    char name[BLOB_NAME_SIZE]; /* "": free */
    struct buf bytes;
};

struct dht_memory {
    struct row **rows; /* owned, each owned */
    size_t count;
    size_t cap;
    struct blob blobs[BLOBS_MAX];
};

int dht_memory_new(struct dht_memory **ret_memory, struct err *err)
{
    struct dht_memory *memory = calloc(1, sizeof *memory);
    if (!memory)
        return err_set(err, ERR_NOMEM, "no memory for the record storage");
    *ret_memory = memory;
    return 0;
}

void dht_memory_free(struct dht_memory *memory)
{
    if (!memory)
        return;
    for (size_t i = 0; i < memory->count; i++)
        free(memory->rows[i]);
    for (size_t i = 0; i < BLOBS_MAX; i++)
        buf_release(&memory->blobs[i].bytes);
    free(memory->rows);
    free(memory);
}

static int compare(const struct row *row, const struct id *key, const struct id *member)
{
    int order = id_compare(&row->key, key);
    return order ? order : id_compare(&row->member, member);
}

/* The first row that is not before (key, member). */
static size_t lower_bound(const struct dht_memory *memory, const struct id *key, const struct id *member)
{
    size_t low = 0;
    size_t high = memory->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(memory->rows[middle], key, member) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct row *row_at(const struct dht_memory *memory, size_t at, const struct id *key, const struct id *member)
{
    bool there = at < memory->count && compare(memory->rows[at], key, member) == 0;
    return there ? memory->rows[at] : NULL;
}

static int insert_at(struct dht_memory *memory, size_t at, struct row *row)
{
    if (memory->count == memory->cap) {
        size_t cap = memory->cap ? memory->cap * 2 : 16;
        struct row **rows = realloc(memory->rows, cap * sizeof *rows);
        if (!rows)
            return ERR_NOMEM;
        memory->rows = rows;
        memory->cap = cap;
    }
    memmove(memory->rows + at + 1, memory->rows + at, (memory->count - at) * sizeof *memory->rows);
    memory->rows[at] = row;
    memory->count++;
    return 0;
}

static int memory_put(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len_bytes)
{
    struct dht_memory *memory = ctx;
    OWNED(owned_free) struct row *row = malloc(sizeof *row + len_bytes);
    if (!row)
        return ERR_NOMEM;
    *row = (struct row){.key = *key, .member = *member, .len = len_bytes};
    memcpy(row->bytes, bytes, len_bytes);
    size_t at = lower_bound(memory, key, member);
    if (row_at(memory, at, key, member)) {
        free(memory->rows[at]);
        memory->rows[at] = STEAL(row);
        return 0;
    }
    int status = insert_at(memory, at, row);
    if (status == 0)
        (void)STEAL(row);
    return status;
}

int dht_memory_get(const struct dht_memory *memory, const struct id *key, const struct id *member,
                   struct buf *ret_bytes)
{
    const struct row *row = row_at(memory, lower_bound(memory, key, member), key, member);
    if (!row)
        return 0;
    int status = buf_add(ret_bytes, row->bytes, row->len);
    return status < 0 ? status : 1;
}

static int memory_remove(void *ctx, const struct id *key, const struct id *member)
{
    struct dht_memory *memory = ctx;
    size_t at = lower_bound(memory, key, member);
    struct row *row = row_at(memory, at, key, member);
    if (!row)
        return 0;
    free(row);
    memory->count--;
    memmove(memory->rows + at, memory->rows + at + 1, (memory->count - at) * sizeof *memory->rows);
    return 0;
}

static int memory_each(void *ctx, dht_storage_cb cb, void *cb_ctx)
{
    struct dht_memory *memory = ctx;
    for (size_t i = 0; i < memory->count; i++) {
        const struct row *row = memory->rows[i];
        if (!cb(cb_ctx, &row->key, &row->member, row->bytes, row->len))
            break;
    }
    return 0;
}

static struct blob *blob_named(struct dht_memory *memory, const char *name)
{
    for (size_t i = 0; i < BLOBS_MAX; i++)
        if (strcmp(memory->blobs[i].name, name) == 0)
            return &memory->blobs[i];
    return NULL;
}

static int memory_save(void *ctx, const char *name, const void *bytes, size_t len_bytes)
{
    struct blob *blob = blob_named(ctx, name);
    if (!blob)
        blob = blob_named(ctx, "");
    if (!blob || strlen(name) >= BLOB_NAME_SIZE)
        return ERR_LIMIT;
    strcpy(blob->name, name);
    buf_release(&blob->bytes);
    blob->bytes = BUF(LIMIT_DHT_BLOB_BYTES);
    return buf_add(&blob->bytes, bytes, len_bytes);
}

static int memory_load(void *ctx, const char *name, struct buf *ret_bytes)
{
    struct blob *blob = blob_named(ctx, name);
    if (!blob)
        return 0;
    int status = buf_add(ret_bytes, blob->bytes.data, blob->bytes.len);
    return status < 0 ? status : 1;
}

struct dht_storage dht_storage_memory(struct dht_memory *memory)
{
    return (struct dht_storage){
        .put = memory_put,
        .remove = memory_remove,
        .each = memory_each,
        .save = memory_save,
        .load = memory_load,
        .ctx = memory,
    };
}
