/*
 * Is the disk with the packs there, and does it answer? Asked before anything is forgotten because it cannot be had:
 * one pack may get lost and one sector may die, but where nothing at all can be had, nothing has been lost yet.
 *
 * The packs have a marker beside them, `packs/disk`: a number of 256 bits, drawn when the store is made, which the
 * index knows too (meta["disk"]). An empty directory under which a disk is to be mounted has none; so a pack that is
 * not there is known to be lost, or away with its disk, be it the only one.
 */
#pragma once

#include "store/core.h"

/* After the index is open: ERR_IO if the disk is not there, ERR_CONFLICT if another store's is. A store that has no
 * marker yet, or whose packs are there without it, gets one. */
int store_disk_recover(struct store *store, struct err *err);
/* ERR_IO if neither the marker nor any pack that holds something is there. Not inside a transaction. */
int store_disk_check_mounted(struct store *store, struct err *err);
/* Somewhere the disk refused to read. ERR_IO if it refuses wherever it is asked, as it does when it is away; 0 if some
 * other place can be read, so that only that one is bad. A few short reads. Not inside a transaction. */
int store_disk_check_answers(struct store *store, struct err *err);
