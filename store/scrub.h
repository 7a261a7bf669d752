/*
 * The scrub's place in a store: kept in memory, and now and then in meta["scrub"] (docs/store-format.md).
 *
 * A pass goes through the rows of the pieces in the order of their keys, not through the packs: so it looks at what
 * counts and at nothing else, its cursor is a key, and what is written behind it waits for the next pass. The reads of
 * one step are sorted by their places.
 */
#pragma once

#include "store/core.h"

void store_scrub_init(struct store *store);
void store_scrub_release(struct store *store);
/* After the index is open: go on where the last process was, more or less. */
int store_scrub_recover(struct store *store, struct err *err);
/* At an orderly end. */
void store_scrub_save(struct store *store);

#define STORE_SCRUB_ROW_BYTES 105u
void store_scrub_encode(const struct store_scrub_mark *mark, uint8_t ret_row[STORE_SCRUB_ROW_BYTES]);
bool store_scrub_decode(const void *row, size_t len_bytes, struct store_scrub_mark *ret_mark);
