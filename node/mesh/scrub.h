/*
 * The scrub: all that is stored is read and checked, a little at a time, and what has rotted is fetched again.
 *
 * Owns the pace and the repairs; how bytes are checked and what is forgotten is the store's. Reading is done on the
 * pool, the rest on the loop's thread. What is found is logged, a few lines a step at most.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/jobs.h"
#include "node/mesh/content.h"
#include "store/store.h"

struct scrub;

/* days: in which all is read once; 0: only when scrub_hurry says so. Begins a moment after the start. */
int scrub_new(struct store *store, struct jobs jobs, struct clock clock, uv_loop_t *loop, struct content *content,
              unsigned days, struct scrub **ret_scrub, struct err *err);
/* Stop the timer; the loop then runs the close callback. Nothing is begun any more; a step under way ends. */
void scrub_close(struct scrub *scrub);
/* After the loop has ended. NULL is fine. */
void scrub_free(struct scrub *scrub);

/* Somebody who waits for a pass: told after each step, for the last time when the pass is over, or is given up because
 * the store cannot go on: then `why` says so, else it is NULL. */
struct scrub_watch {
    LIST_ENTRY(scrub_watch)
    entry;
    void (*on_step)(void *ctx, bool is_over, const struct err *why);
    void *ctx; /* borrowed */
};

/* Go through all that is stored from the beginning, as fast as the disk allows beside other work. The watch is the
 * caller's and stays until its last call or scrub_unwatch. */
void scrub_hurry(struct scrub *scrub, struct scrub_watch *watch);
void scrub_unwatch(struct scrub_watch *watch);

struct scrub_status {
    struct store_scrub store;
    bool hurries;       /* scrub_hurry's pass is not over */
    uint64_t rotten;    /* pieces found since the start of the node, by whoever read them */
    uint64_t broken;    /* objects that have lost bytes now, as the last step counted them */
    uint64_t repaired;  /* objects fetched again since the start of the node */
    uint64_t repairing; /* being fetched */
};
void scrub_get_status(const struct scrub *scrub, struct scrub_status *ret_status);
