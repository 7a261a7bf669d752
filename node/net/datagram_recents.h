/*
 * Datagrams that were sent, in case their receiver asks who we are: the latest, in one piece of memory that is there
 * only while there are any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/addr.h"
#include "node/base/crypto.h"
#include "node/base/id.h"

struct net_recent {
    uint32_t size; /* of this, in the memory */
    uint32_t len;
    struct id id; /* to whom */
    struct addr addr;
    bool hello;       /* nothing to send again */
    uint64_t counter; /* of the packet */
    uint64_t sent_ms;
    uint8_t tag[CRYPTO_AEAD_TAG_BYTES];
    uint8_t payload[];
};

struct net_recents {
    uint8_t *bytes; /* owned; LIMIT_DATAGRAM_RECENT_BYTES, or NULL when there are none */
    size_t first;   /* offset of the oldest */
    size_t next;    /* of the free room behind the latest */
    size_t end;     /* of the last before the end of the memory, when the latest are at its beginning again */
    size_t count;
};

void net_recents_release(struct net_recents *recents);
/* Room for one more, at the cost of the oldest; `payload` is copied, the other fields are the caller's to fill in. NULL
 * when out of memory. Borrowed until the next call. */
struct net_recent *net_recents_add(struct net_recents *recents, const void *payload, size_t len_bytes);
/* Forget what was sent before. */
void net_recents_expire(struct net_recents *recents, uint64_t before_ms);
/* Walk from the oldest (`recent` NULL) to the latest, and then NULL. Nothing may be added meanwhile. */
struct net_recent *net_recents_after(const struct net_recents *recents, const struct net_recent *recent);
