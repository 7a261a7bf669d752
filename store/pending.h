/*
 * Pieces that were written and are not in the index yet: where readers find them meanwhile. Every batch (batch.h) keeps
 * its pieces here from the moment when they are written until they are committed or given up.
 *
 * 1. What is found here was checked against its id, and is not durable. Who decides what to keep, what to acknowledge
 *    or whom to tell looks into the index alone.
 * 2. A piece leaves before its range is punched and after its row is committed. So a reader that looks here first and
 *    into the index next misses nothing, and one whose bytes turn out to be wrong looks again.
 * 3. What does not fit (LIMIT_STORE_PENDING) is found after its commit only.
 */
#pragma once

#include "store/core.h"
#include "store/rows.h"

struct store_pending_piece; /* of one batch; several may have written the same piece */

void store_pending_init(struct store *store);
/* Every batch has been released before. */
void store_pending_release(struct store *store);

/* NULL if it did not fit. */
struct store_pending_piece *store_pending_add(struct store *store, enum store_piece_type type, const struct id *id,
                                              const struct store_place *place);
/* NULL is fine. */
void store_pending_remove(struct store *store, struct store_pending_piece *piece);

bool store_pending_find(struct store *store, enum store_piece_type type, const struct id *id,
                        struct store_place *ret_place);
/* Set the bits of the chunks that are here, as store_pieces_have does; the other bits stay. */
void store_pending_have(struct store *store, const struct id *ids, size_t count, uint8_t *bitmap);
