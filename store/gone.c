#include "store/gone.h"

void store_gone_init(struct store *store)
{
    pthread_mutex_init(&store->gone.lock, NULL);
}

void store_gone_release(struct store *store)
{
    pthread_mutex_destroy(&store->gone.lock);
}

void store_gone_note(struct store *store, const struct id *digest)
{
    struct store_gone *gone = &store->gone;
    pthread_mutex_lock(&gone->lock);
    gone->digests[(gone->first + gone->count) % STORE_GONE_MAX] = *digest;
    if (gone->count < STORE_GONE_MAX)
        gone->count++;
    else
        gone->first = (gone->first + 1) % STORE_GONE_MAX;
    pthread_mutex_unlock(&gone->lock);
}

size_t store_gone_take(struct store *store, struct id *ret_digests, size_t cap)
{
    struct store_gone *gone = &store->gone;
    size_t count = 0;
    pthread_mutex_lock(&gone->lock);
    for (; gone->count > 0 && count < cap; count++) {
        ret_digests[count] = gone->digests[gone->first];
        gone->first = (gone->first + 1) % STORE_GONE_MAX;
        gone->count--;
    }
    pthread_mutex_unlock(&gone->lock);
    return count;
}
