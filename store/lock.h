/*
 * One opener at a time: DIR/lock, held with flock for as long as its descriptor is open, holds the owner's pid.
 */
#pragma once

#include "node/base/err.h"

/* Makes the directory if need be. ERR_BUSY "store in use by pid N"; ERR_UNSUPPORTED on a network file system, where
 * LMDB cannot work. */
int store_lock_take(const char *dir, int *ret_fd, struct err *err);
