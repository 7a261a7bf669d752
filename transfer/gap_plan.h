/*
 * Which missing bytes of an object are compared with which bytes of an older one: pure functions of recipes.
 *
 * A gap is a run of missing chunks, cut to LIMIT_GAP_BYTES. What it is compared with is its range: the bytes
 * of the basis between those that its neighbours were found in. Neighbours are chunks that occur once in the basis, or
 * lie beside such a one in both objects; the ends of both objects count as neighbours too. Where the nearest ones are
 * not adjacent, the distance to them is carried over and the range widened, for it may have shifted on the way.
 *
 * 1. Gaps are in order, do not overlap, and consist of missing chunks only.
 * 2. A range lies inside its basis and has 1 to LIMIT_GAP_BASIS_BYTES. Missing chunks that nothing is compared with
 *    are in no gap.
 */
#pragma once

#include "store/recipe.h"

/* Chunks of one gap: 512 KiB of the shortest, single pages beside zeros. */
#define GAP_CHUNKS_MAX 128u

struct gap {
    uint32_t first; /* chunk of the object */
    uint32_t count;
    uint32_t bytes; /* of the object */
    uint32_t range_bytes;
    uint64_t range_offset; /* in the basis */
    uint8_t basis;         /* which one of those that were planned with */
};

struct gap_plan {
    struct gap *gaps; /* owned */
    size_t n;
};

/* missing: bitmap (transfer/have.h) over the chunks of the object. Only bases that were cut like the object are
 * considered. ERR_NOMEM. */
int transfer_gap_plan(const struct store_recipe *recipe, const uint8_t *missing,
                      const struct store_recipe *const *bases, unsigned n_bases, struct gap_plan *ret_plan);
/* Safe on a zeroed struct. */
void transfer_gap_plan_release(struct gap_plan *plan);
/* The gap that the chunk is in, or NULL. */
struct gap *transfer_gap_plan_find(const struct gap_plan *plan, uint32_t chunk);
