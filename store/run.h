/*
 * Chunks on their way into a batch: gathered, and then written next to each other with one call. The kernel takes large
 * pieces for half of what it takes for small ones. Bodies are borrowed until the write, and those that would not live
 * so long are copied. Used by one thread at a time.
 */
#pragma once

#include "store/batch.h"

/* Before compression. For larger writes the page cache takes huge pages, which are slower to come by. */
#define STORE_RUN_BYTES (1u << 20)
#define STORE_RUN_RECORDS 64u /* as many of the smallest chunks */

struct store_run {
    struct store_record records[STORE_RUN_RECORDS];
    const void *bodies[STORE_RUN_RECORDS];
    size_t count;
    size_t raw_bytes;
    uint8_t *copies; /* owned; STORE_RUN_BYTES, made with the first copy */
    size_t copied_bytes;
};

void store_run_release(struct store_run *run);
bool store_run_has(const struct store_run *run, const struct id *id);
/* Is there no room for a record of so many bytes? An empty one has room for any chunk. */
bool store_run_is_full(const struct store_run *run, size_t raw_bytes);
/* A record that there is room for. */
int store_run_add(struct store_run *run, const struct store_record *record, const void *body, bool copy,
                  struct err *err);
/* Write and note all of it, and begin anew, also after an error: then what was not noted is given up. */
int store_run_write(struct store_run *run, struct store_batch *batch, struct err *err);
/* The second half of that, for a batch that several threads use: to be called with its lock, after store_packs_append
 * of what the run has. Takes over the reference to the pack. */
int store_run_note(struct store_run *run, struct store_batch *batch, const struct store_place *places,
                   struct store_pack *pack, struct err *err);
