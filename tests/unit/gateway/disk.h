/* A disk for tests of the ledger: rows in memory, which outlive the ledger, and failures. Jobs run when told to. */
#pragma once

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/jobs.h"
#include "node/gateway/ledger.h"

#define DISK_ROWS 8192

struct disk_row {
    uint8_t key[16];
    size_t key_len;
    uint8_t *value;
    size_t value_len;
};

struct disk {
    struct disk_row rows[DISK_ROWS]; /* in order of their keys */
    size_t count;
    int status; /* of apply */
    size_t applied, deleted;
    job_work_cb work; /* one job waits */
    job_done_cb done;
    void *arg;
};

static inline int disk_compare(const struct disk_row *row, const void *key, size_t key_len)
{
    int order = memcmp(row->key, key, row->key_len < key_len ? row->key_len : key_len);
    return order != 0 ? order : (row->key_len > key_len) - (row->key_len < key_len);
}

static inline size_t disk_lower(const struct disk *disk, const void *key, size_t key_len)
{
    size_t i = 0;
    while (i < disk->count && disk_compare(&disk->rows[i], key, key_len) < 0)
        i++;
    return i;
}

static inline void disk_apply_op(struct disk *disk, const struct store_table_op *op)
{
    size_t i = disk_lower(disk, op->key, op->key_len);
    bool there = i < disk->count && disk_compare(&disk->rows[i], op->key, op->key_len) == 0;
    if (there) {
        free(disk->rows[i].value);
        disk->deleted += !op->value;
    }
    if (there && !op->value) {
        disk->count--;
        memmove(&disk->rows[i], &disk->rows[i + 1], (disk->count - i) * sizeof *disk->rows);
    }
    if (!op->value)
        return;
    if (!there) {
        if (disk->count == DISK_ROWS)
            abort();
        memmove(&disk->rows[i + 1], &disk->rows[i], (disk->count - i) * sizeof *disk->rows);
        disk->count++;
    }
    struct disk_row *row = &disk->rows[i];
    row->key_len = op->key_len;
    memcpy(row->key, op->key, op->key_len);
    row->value = malloc(op->value_len);
    row->value_len = op->value_len;
    memcpy(row->value, op->value, op->value_len);
}

static inline int disk_apply(void *ctx, const struct store_table_op *ops, size_t count, struct err *err)
{
    struct disk *disk = ctx;
    if (disk->status < 0)
        return err_set(err, disk->status, "the disk is full");
    for (size_t i = 0; i < count; i++)
        disk_apply_op(disk, &ops[i]);
    disk->applied++;
    return 0;
}

static inline int disk_each(void *ctx, const void *from, size_t from_len, store_table_cb cb, void *cb_ctx,
                            struct err *err)
{
    const struct disk *disk = ctx;
    (void)err;
    int status = 0;
    for (size_t i = disk_lower(disk, from ? from : "", from_len); i < disk->count && status == 0; i++)
        status = cb(disk->rows[i].key, disk->rows[i].key_len, disk->rows[i].value, disk->rows[i].value_len, cb_ctx);
    return status;
}

static inline struct ledger_disk disk_of(struct disk *disk)
{
    return (struct ledger_disk){disk_apply, disk_each, disk};
}

static inline void disk_submit(void *ctx, job_work_cb work, job_done_cb done, void *arg)
{
    struct disk *disk = ctx;
    if (disk->work)
        abort();
    disk->work = work;
    disk->done = done;
    disk->arg = arg;
}

static inline struct jobs disk_jobs(struct disk *disk)
{
    return (struct jobs){disk_submit, disk};
}

/* Do the job that waits. False: there is none. */
static inline bool disk_run(struct disk *disk)
{
    job_work_cb work = disk->work;
    if (!work)
        return false;
    disk->work = NULL;
    work(disk->arg);
    disk->done(disk->arg);
    return true;
}

static inline size_t disk_bytes(const struct disk *disk)
{
    size_t bytes = 0;
    for (size_t i = 0; i < disk->count; i++)
        bytes += disk->rows[i].value_len;
    return bytes;
}

static inline void disk_free(struct disk *disk)
{
    for (size_t i = 0; i < disk->count; i++)
        free(disk->rows[i].value);
    free(disk);
}
