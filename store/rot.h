/*
 * What has rotted: forgotten at once, then traced to the objects that need it (store.h says what for).
 *
 * Nothing in the index leads from a chunk to the leaves that list it. So a finding is first one row of the rot table,
 * written with the change that forgets the place; tracing takes all rows there are in one walk over leaves, roots and
 * objects. A kill in between costs nothing.
 */
#pragma once

#include "store/core.h"
#include "store/rows.h"

void store_rot_init(struct store *store);
void store_rot_release(struct store *store);
/* After the index is open: count what waits. */
int store_rot_recover(struct store *store, struct err *err);

/* Why the record at this place cannot be read as it was written (enum store_rot_cause): opens its pack and reads it to
 * see. 0 if it can be read and is right, or a negative code if there is no telling. */
int store_rot_look(struct store *store, const struct id *id, const struct store_place *place, struct err *err);

/* A record was bad twice while the index pointed to it: forget it, if the index still does. If its pack is gone, is no
 * file or was cut, all pieces are forgotten that it took along; what the disk refuses to read keeps its place
 * (unread.h). Not inside a transaction. ERR_CORRUPT, be it forgotten or not: whoever found it has failed; but 0 if a
 * third look finds the right bytes, and ERR_IO if no pack is there at all or the disk reads nothing, which is no rot.
 */
int store_rot_found(struct store *store, enum store_piece_type type, const struct id *id,
                    const struct store_place *place, struct err *err);
/* All pieces whose records end behind `size_bytes` of a pack. */
int store_rot_found_pack(struct store *store, uint64_t number, uint64_t size_bytes, enum store_rot_cause cause,
                         struct err *err);
