/*
 * A queue in a ring: entries of several sizes, each in one piece.
 *
 *      0        first          next      end?             what is behind the last entry when it does not reach
 *      |  free  |  entries ... |  free   |                the end of the memory belongs to nobody
 *      0        next           first     end
 *      |  entries ... |  free  |  entries ... |  nobody's
 */
#include "node/net/datagram_recents.h"

#include <string.h>
#include <sys/mman.h>

#include "node/base/limits.h"

#define ALIGN _Alignof(struct net_recent)

/* Of the system and back to it, so that a busy minute does not leave holes in the heap. */
static uint8_t *make_bytes(void)
{
    void *bytes = mmap(NULL, LIMIT_DATAGRAM_RECENT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return bytes == MAP_FAILED ? NULL : bytes;
}

void net_recents_release(struct net_recents *recents)
{
    if (recents->bytes)
        munmap(recents->bytes, LIMIT_DATAGRAM_RECENT_BYTES);
    *recents = (struct net_recents){0};
}

static struct net_recent *at(const struct net_recents *recents, size_t offset)
{
    return (struct net_recent *)(void *)(recents->bytes + offset);
}

static void drop_oldest(struct net_recents *recents)
{
    recents->first += at(recents, recents->first)->size;
    recents->count--;
    if (recents->count == 0)
        recents->first = recents->next = 0;
    else if (recents->first == recents->end && recents->first > recents->next)
        recents->first = 0;
}

/* So much in one piece at recents->next. */
static bool has_room(struct net_recents *recents, size_t size)
{
    bool wrapped = recents->count > 0 && recents->next <= recents->first;
    if (wrapped)
        return recents->first - recents->next >= size;
    if (LIMIT_DATAGRAM_RECENT_BYTES - recents->next >= size)
        return true;
    if (recents->count > 0 && recents->first < size)
        return false;
    recents->end = recents->next;
    recents->next = 0;
    return true;
}

struct net_recent *net_recents_add(struct net_recents *recents, const void *payload, size_t len_bytes)
{
    size_t size = (sizeof(struct net_recent) + len_bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (!recents->bytes)
        recents->bytes = make_bytes();
    if (!recents->bytes)
        return NULL;
    while (!has_room(recents, size))
        drop_oldest(recents);
    struct net_recent *recent = at(recents, recents->next);
    *recent = (struct net_recent){.size = (uint32_t)size, .len = (uint32_t)len_bytes};
    if (len_bytes > 0)
        memcpy(recent->payload, payload, len_bytes);
    recents->next += size;
    recents->count++;
    return recent;
}

void net_recents_expire(struct net_recents *recents, uint64_t before_ms)
{
    while (recents->count > 0 && at(recents, recents->first)->sent_ms < before_ms)
        drop_oldest(recents);
    if (recents->count == 0)
        net_recents_release(recents);
}

struct net_recent *net_recents_after(const struct net_recents *recents, const struct net_recent *recent)
{
    if (recents->count == 0)
        return NULL;
    if (!recent)
        return at(recents, recents->first);
    size_t offset = (size_t)((const uint8_t *)recent - recents->bytes) + recent->size;
    if (offset == recents->next)
        return NULL;
    return at(recents, recents->next <= recents->first && offset == recents->end ? 0 : offset);
}
