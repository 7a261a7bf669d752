/*
 * When what has failed is tried again: each id for itself, after a minute, and twice as long after each further failure
 * in a row, up to RETRIES_LONGEST_MS. So what nobody can give holds up nothing else.
 *
 * Bounded by LIMIT_RETRIES: ids beyond that share one wait, of a minute. Whoever walks over all ids there are, now and
 * then, thereby forgets those that are not there any more. Not for two threads at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "node/base/id.h"
#include "node/base/map.h"

#define RETRIES_FIRST_MS 60000u
#define RETRIES_LONGEST_MS (RETRIES_FIRST_MS << 6)

struct retries {
    struct map by_id; /* id -> owned struct retry */
    bool walk;        /* changes with each walk */
    uint64_t rest_at_ms;
};

void retries_init(struct retries *retries, uint64_t seed);
void retries_release(struct retries *retries);

/* now_ms: of a monotonic clock. */
void retries_failed(struct retries *retries, const struct id *id, uint64_t now_ms);
void retries_succeeded(struct retries *retries, const struct id *id);
bool retries_is_due(const struct retries *retries, const struct id *id, uint64_t now_ms);

/* A walk: retries_see for each id there is, then the end, which forgets the others. */
void retries_see(struct retries *retries, const struct id *id);
void retries_end_walk(struct retries *retries);
