/*
 * One pack that a process left open when it was killed, or when the power failed: what counts stays, the rest goes.
 *
 * Records lie behind the committed size, and in front of it where several wrote at once, that no commit has reached:
 * after a kill all of them, whole, after a power cut those that the disk had got. What they hold is hearsay, so each is
 * checked against its SHA-256, and goes by the way of any chunk: synced, then committed.
 *
 * 1. Kept are chunks that the index wants and lacks: those of partial objects. Among these are objects whose recipe had
 *    been written ahead of its chunks and waited for a commit (adopt.h). What an ingest had written is nobody's.
 * 2. A range that is to be punched (the free table) is never used again, nor is one in front of what is committed,
 *    unless all that counts was seen: it may lie over something, and be punched with it.
 * 3. Nothing is punched unless all that counts was seen: where a head has rotted, what follows may be a piece's body,
 *    and what looks like a record in it may reach over others.
 */
#pragma once

#include "store/core.h"
#include "store/rows.h"

/* While the store opens, before anybody else uses it. The row is of a file that is there. Reads the heads of the whole
 * pack, twice, and the bodies of what is kept (0.25 s of CPU for 256 MiB); counts that in store->live_bytes. The pack
 * is not closed in the index. */
int store_recover_pack(struct store *store, uint64_t number, struct err *err);
