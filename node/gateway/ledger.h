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
struct ledger_disk {
    int (*apply)(void *ctx, const struct store_table_op *ops, size_t count, struct err *err); /* as store_table_apply */
    int (*each)(void *ctx, const void *from, size_t from_len, store_table_cb cb, void *cb_ctx,
                struct err *err); /* as store_table_each */
    void *ctx;                    /* borrowed */
};
/* Table "registry" of a store. */
struct ledger_disk ledger_disk_store(struct store *store);

struct ledger;

/* All borrowed for the call. */
struct ledger_entry {
    const void *set;
    size_t set_len;
    bool forgotten; /* of change only the name is set */
    struct set_change change;
};

struct ledger_config {
    struct ledger_disk disk;
    struct jobs jobs;
    /* A batch was written (status 0), or was not and is tried again later. Not from within any call here. */
    void (*done)(void *ctx, int status, const struct err *err);
    /* Is this still what is to be found after a restart? */
    bool (*is_live)(void *ctx, const struct ledger_entry *entry);
    void *ctx; /* borrowed */
};

int ledger_new(const struct ledger_config *config, struct ledger **ret_ledger, struct err *err);
/* Not while ledger_is_busy. */
void ledger_free(struct ledger *ledger);

/* Read all entries in order, once, before anything is put. Ends early when the callback returns other than 0. *ret_bad:
 * how many rows were damaged; the entries before the damage were read. */
typedef int (*ledger_entry_cb)(void *ctx, const struct ledger_entry *entry);
int ledger_read(struct ledger *ledger, ledger_entry_cb each, void *ctx, size_t *ret_bad, struct err *err);

/* Into the batch that gathers. ERR_NOMEM: not written, and the batch is as before. */
int ledger_put_set(struct ledger *ledger, const struct set *set);
int ledger_put_member(struct ledger *ledger, const struct set *set, const struct set_change *change);
int ledger_drop_member(struct ledger *ledger, const struct set_member *member);

/* The number of the batch that gathers: when it is durable, so is what was put now. */
uint64_t ledger_gathering(const struct ledger *ledger);
/* The last number that is durable. */
uint64_t ledger_durable(const struct ledger *ledger);
/* The batch that gathers has LIMIT_SET_BATCH_BYTES: no more, please, until something is durable. */
bool ledger_is_full(const struct ledger *ledger);
/* The last try failed, why: nothing should be promised. NULL: all is well. */
const struct err *ledger_failure(const struct ledger *ledger);
bool ledger_is_busy(const struct ledger *ledger);
/* Bytes of the log, and the batches that were not written yet. */
uint64_t ledger_bytes(const struct ledger *ledger);
/* Begin to write what has gathered, unless a write is under way or a failed one waits; `again` tries that one. */
void ledger_write(struct ledger *ledger, bool again);
