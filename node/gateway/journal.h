/*
 * What was written here, on disk before it is acknowledged: group commit of rows, and reading them at the start.
 *
 * Rows gather in a batch; one batch at a time is written, by a job, and while it is the next one gathers. Each batch
 * has a number; "commit n is durable" covers all before it. A batch that cannot be written is tried again until it can.
 *
 * The rows of table "registry":
 *   'k' set-id(32)                -> 1(u8) cleared(u64) expires(u64) epoch(u64) counter(u64) name
 *   'm' set-id(32) member-id(32)  -> 1(u8) flags(u8: 1 tombstone) score(f64) epoch(u64) counter(u64) name
 * set-id is dht_key of DHT_SET and the name, member-id BLAKE2b-256 of the name; big-endian, the first byte is the
 * version. A set has its 'k' row before it has members.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "node/base/jobs.h"
#include "node/gateway/set.h"
#include "store/store.h"

/* Where rows are kept. `apply` is called on another thread, one call at a time; `each` on the caller's. */
struct journal_disk {
    int (*apply)(void *ctx, const struct store_table_op *ops, size_t count, struct err *err); /* as store_table_apply */
    int (*each)(void *ctx, store_table_cb cb, void *cb_ctx, struct err *err);                 /* as store_table_each */
    void *ctx;                                                                                /* borrowed */
};
/* Table "registry" of a store. */
struct journal_disk journal_disk_store(struct store *store);

struct journal;

/* A batch was written (status 0), or was not and is tried again later. Not from within any call here. */
typedef void (*journal_cb)(void *ctx, int status, const struct err *err);

int journal_new(const struct journal_disk *disk, struct jobs jobs, journal_cb done, void *ctx,
                struct journal **ret_journal, struct err *err);
/* Not while journal_is_busy. */
void journal_free(struct journal *journal);

/* One row read: `set_name` is set for rows of sets, then change.meta is too; members come after their set. Borrowed. */
typedef int (*journal_row_cb)(void *ctx, const struct id *set, const void *set_name, size_t set_name_len,
                              const struct set_change *change);
/* Read all rows; those that are damaged are told to *ret_bad. Ends early when the callback returns other than 0. */
int journal_read(struct journal *journal, journal_row_cb each, void *ctx, size_t *ret_bad, struct err *err);

/* Into the batch that gathers. ERR_NOMEM: not written, and the batch is as before. */
int journal_put_set(struct journal *journal, const struct set *set);
int journal_put_member(struct journal *journal, const struct set *set, const struct set_change *change);
int journal_drop_set(struct journal *journal, const struct set *set);
int journal_drop_member(struct journal *journal, const struct set_member *member);

/* The number of the batch that gathers: when it is durable, so is what was put now. */
uint64_t journal_gathering(const struct journal *journal);
/* The last number that is durable. */
uint64_t journal_durable(const struct journal *journal);
/* The batch that gathers has LIMIT_SET_BATCH_BYTES: no more, please, until something is durable. */
bool journal_is_full(const struct journal *journal);
/* The last try failed, why: nothing should be promised. NULL: all is well. */
const struct err *journal_failure(const struct journal *journal);
bool journal_is_busy(const struct journal *journal);
/* Begin to write what has gathered, unless a write is under way or a failed one waits; `again` tries that one. */
void journal_write(struct journal *journal, bool again);
