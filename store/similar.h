/*
 * Which objects here resemble one that is on its way: an older version, say, that nobody has named.
 *
 * Of each object a sketch is kept: the numerically lowest chunk ids, SIMILAR_SKETCH of them, first eight bytes each.
 * What two sketches share of the lowest of both estimates what the objects share of their chunks (Broder, "On the
 * resemblance and containment of documents", 1997: bottom-k). Sketches are made when they are first needed, kept in a
 * table as soon as making them again would take longer than a commit, and dropped when their object has gone.
 */
#pragma once

#include "store/store.h"

#define SIMILAR_SKETCH 32u
/* Shared, of SIMILAR_SKETCH: less may be chance, or a run of zeros. */
#define SIMILAR_LEAST 2u
#define SIMILAR_MAX 4u

/* The objects that share most with it, the most similar first; at most `max` and
 * SIMILAR_MAX. Of objects cut like the recipe only.
 * Returns how many, or a negative code. Blocks on the disk; the more, the more objects have come since last time. */
int store_similar_find(struct store *store, const struct store_recipe *recipe, struct id *ret_objects, unsigned max,
                       struct err *err);
