/*
 * What was written here, on disk before it is acknowledged: a log of entries, written in groups, read at the start.
 *
 * Entries gather in a batch; one batch at a time is written, by a job, and while it is the next one gathers. Each batch
 * has a number; "commit n is durable" covers all before it. A batch that cannot be written is tried again until it can.
 * Rows of a log are written beside each other, which costs a disk far less than as many rows in their places. When the
 * log has doubled its oldest rows are cleaned, a few with each commit: what is still true in them is said again at the
 * end, and they go.
 *
 * Row of table "registry":  'l' number(u64) -> 1(u8) entry...
 * entry: 'm' set(short) name(short) flags(u8: 1 tombstone) score(f64) epoch(u64) counter(u64)     a member
 *        'd' set(short) name(short)                                                               a member forgotten
 *        's' set(short) cleared(u64) expires(u64) epoch(u64) counter(u64)                         the set itself
 * Big-endian; short: a u16 length and bytes. Later entries replace earlier ones.
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
    int (*each)(void *ctx, const void *from, size_t from_len, store_table_cb cb, void *cb_ctx,
                struct err *err); /* as store_table_each */
    void *ctx;                    /* borrowed */
};
/* Table "registry" of a store. */
struct journal_disk journal_disk_store(struct store *store);

struct journal;

/* All borrowed for the call. */
struct journal_entry {
    const void *set;
    size_t set_len;
    bool forgotten; /* of change only the name is set */
    struct set_change change;
};

struct journal_config {
    struct journal_disk disk;
    struct jobs jobs;
    /* A batch was written (status 0), or was not and is tried again later. Not from within any call here. */
    void (*done)(void *ctx, int status, const struct err *err);
    /* Is this still what is to be found after a restart? */
    bool (*is_live)(void *ctx, const struct journal_entry *entry);
    void *ctx; /* borrowed */
};

int journal_new(const struct journal_config *config, struct journal **ret_journal, struct err *err);
/* Not while journal_is_busy. */
void journal_free(struct journal *journal);

/* Read all entries in order, once, before anything is put. Ends early when the callback returns other than 0. *ret_bad:
 * how many rows were damaged; the entries before the damage were read. */
typedef int (*journal_entry_cb)(void *ctx, const struct journal_entry *entry);
int journal_read(struct journal *journal, journal_entry_cb each, void *ctx, size_t *ret_bad, struct err *err);

/* Into the batch that gathers. ERR_NOMEM: not written, and the batch is as before. */
int journal_put_set(struct journal *journal, const struct set *set);
int journal_put_member(struct journal *journal, const struct set *set, const struct set_change *change);
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
/* Bytes of the log, and the batches that were not written yet. */
uint64_t journal_bytes(const struct journal *journal);
/* Begin to write what has gathered, unless a write is under way or a failed one waits; `again` tries that one. */
void journal_write(struct journal *journal, bool again);
