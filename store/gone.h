/*
 * Digests of objects that have gone, until somebody takes them (store_gone_take): a ring, in memory only.
 */
#pragma once

#include "store/core.h"

void store_gone_init(struct store *store);
void store_gone_release(struct store *store);
/* It was here, whole or in part, and is no more. */
void store_gone_note(struct store *store, const struct id *digest);
