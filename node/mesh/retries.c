#include "node/mesh/retries.h"

#include <stdlib.h>

#include "node/base/limits.h"

struct retry {
    uint64_t at_ms;
    uint64_t wait_ms; /* before that */
    bool walk;        /* in which it was seen last */
};

void retries_init(struct retries *retries, uint64_t seed)
{
    *retries = (struct retries){0};
    map_init(&retries->by_id, LIMIT_RETRIES, seed);
}

void retries_release(struct retries *retries)
{
    size_t cursor = 0;
    struct id id;
    void *retry;
    while (map_next(&retries->by_id, &cursor, &id, &retry))
        free(retry);
    map_release(&retries->by_id);
}

static struct retry *find_or_add(struct retries *retries, const struct id *id)
{
    struct retry *retry = map_get(&retries->by_id, id);
    if (retry)
        return retry;
    retry = calloc(1, sizeof *retry);
    if (!retry || map_set(&retries->by_id, id, retry) < 0) {
        free(retry);
        return NULL;
    }
    retry->walk = retries->walk;
    return retry;
}

void retries_failed(struct retries *retries, const struct id *id, uint64_t now_ms)
{
    struct retry *retry = find_or_add(retries, id);
    if (!retry) {
        retries->rest_at_ms = now_ms + RETRIES_FIRST_MS;
        return;
    }
    uint64_t wait_ms = retry->wait_ms ? 2 * retry->wait_ms : RETRIES_FIRST_MS;
    retry->wait_ms = wait_ms < RETRIES_LONGEST_MS ? wait_ms : RETRIES_LONGEST_MS;
    retry->at_ms = now_ms + retry->wait_ms;
}

void retries_succeeded(struct retries *retries, const struct id *id)
{
    free(map_remove(&retries->by_id, id));
}

bool retries_is_due(const struct retries *retries, const struct id *id, uint64_t now_ms)
{
    const struct retry *retry = map_get(&retries->by_id, id);
    return now_ms >= (retry ? retry->at_ms : retries->rest_at_ms);
}

void retries_see(struct retries *retries, const struct id *id)
{
    struct retry *retry = map_get(&retries->by_id, id);
    if (retry)
        retry->walk = !retries->walk;
}

void retries_end_walk(struct retries *retries)
{
    size_t cursor = 0;
    struct id id;
    void *value;
    retries->walk = !retries->walk;
    while (map_next(&retries->by_id, &cursor, &id, &value)) {
        struct retry *retry = value;
        if (retry->walk == retries->walk)
            continue;
        map_remove(&retries->by_id, &id);
        free(retry);
        cursor = 0;
    }
}
