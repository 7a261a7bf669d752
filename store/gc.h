/*
 * Freeing what nothing refers to any more, and keeping it from those at work.
 *
 * Pieces of no references are rows of the orphan table; store_gc_run frees them, and what only they referred to, in
 * bounded transactions, then punches the freed ranges. Both lists are in the index, so a kill in between costs nothing.
 *
 * Whoever relies on a piece that nothing on disk refers to yet holds it: an ingest the chunks of its present leaf and
 * its finished leaves, an assembly or reader the root. To find a chunk here and rely on it, one enters the gate, holds
 * the id, looks, and leaves: inside the gate nothing is freed.
 */
#pragma once

#include "store/core.h"

void store_gc_init(struct store *store);
void store_gc_release(struct store *store);

/* ERR_LIMIT or ERR_NOMEM. An id may be held several times. */
int store_gc_hold(struct store *store, const struct id *id, struct err *err);
void store_gc_unhold(struct store *store, const struct id *id);

void store_gc_gate_enter(struct store *store);
void store_gc_gate_leave(struct store *store);

int store_gc_run(struct store *store, struct err *err);
/* After holds were given up: run, if orphans were passed over because of holds. Failing is left to the next run. */
void store_gc_run_if_passed_over(struct store *store);
