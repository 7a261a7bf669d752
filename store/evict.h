/*
 * Room: what the quota and the floor of free disk allow, and which objects go when they do not.
 */
#pragma once

#include "store/core.h"

/* Before bytes are written: 0, if need be after eviction, or ERR_NOSPACE. Not inside a transaction or under a lock. */
int store_evict_make_room(struct store *store, uint64_t bytes, struct err *err);
/* May a partial object be forgotten when it is old? 1 or 0. */
int store_evict_may_drop(struct store *store, const struct store_partial_info *partial, struct err *err);
