/* Failed admissions by address block, and how long each block has to wait. */
#include <stdlib.h>

#include "node/identity/identity.h"

#define FREE_FAILURES 3    /* people mistype */
#define FIRST_WAIT_MS 1000 /* after the next one; then twice as long each time */
#define LONGEST_WAIT_MS 3600000
#define FORGET_MS (2 * LONGEST_WAIT_MS) /* without a failure for so long, it begins anew */

struct source {
    uint64_t block; /* addr_block; 0: free */
    uint64_t last_ms;
    uint64_t until_ms;
    unsigned failures;
};

struct admission_guard {
    struct source sources[LIMIT_ADMISSION_SOURCES];
};

int admission_guard_new(struct admission_guard **ret_guard, struct err *err)
{
    *ret_guard = calloc(1, sizeof **ret_guard);
    return *ret_guard ? 0 : err_set(err, ERR_NOMEM, "no memory for the admission guard");
}

void admission_guard_free(struct admission_guard *guard)
{
    free(guard);
}

bool admission_guard_allows(const struct admission_guard *guard, const struct addr *source, uint64_t now_ms)
{
    uint64_t block = addr_block(source);
    for (size_t i = 0; i < LIMIT_ADMISSION_SOURCES; i++)
        if (guard->sources[i].block == block)
            return now_ms >= guard->sources[i].until_ms;
    return true;
}

/* The block's own entry, else a free one, else the one that may try again soonest. */
static struct source *entry_for(struct admission_guard *guard, uint64_t block)
{
    struct source *best = &guard->sources[0];
    for (size_t i = 0; i < LIMIT_ADMISSION_SOURCES; i++) {
        struct source *source = &guard->sources[i];
        if (source->block == block)
            return source;
        if (source->until_ms < best->until_ms || source->block == 0)
            best = best->block == 0 ? best : source;
    }
    *best = (struct source){.block = block};
    return best;
}

void admission_guard_failed(struct admission_guard *guard, const struct addr *source, uint64_t now_ms)
{
    struct source *entry = entry_for(guard, addr_block(source));
    if (now_ms - entry->last_ms > FORGET_MS)
        entry->failures = 0;
    entry->last_ms = now_ms;
    entry->failures++;
    if (entry->failures <= FREE_FAILURES)
        return;
    unsigned doublings = entry->failures - FREE_FAILURES - 1;
    uint64_t wait_ms = doublings < 12 ? (uint64_t)FIRST_WAIT_MS << doublings : LONGEST_WAIT_MS;
    entry->until_ms = now_ms + (wait_ms < LONGEST_WAIT_MS ? wait_ms : LONGEST_WAIT_MS);
}
