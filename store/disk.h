/*
 * Is the disk with the packs there, and does it answer? Asked before anything is forgotten because it cannot be had:
 * one pack may get lost and one sector may die, but where nothing at all can be had, nothing has been lost yet.
 */
#pragma once

#include "store/core.h"

/* ERR_IO if packs that hold something should be there, several of them, and none is. One pack may get lost; all of them
 * are on a disk that is not mounted: nothing to be forgotten. Not inside a transaction. */
int store_disk_check_mounted(struct store *store, struct err *err);
/* Somewhere the disk refused to read. ERR_IO if it refuses wherever it is asked, as it does when it is away; 0 if some
 * other place can be read, so that only that one is bad. A few short reads. Not inside a transaction. */
int store_disk_check_answers(struct store *store, struct err *err);
