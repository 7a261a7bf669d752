/*
 * Contacts that do not answer any more, the closest to us of a day. Now and then one is asked again, so that the parts
 * of a mesh that was cut for hours, and which have forgotten each other by then, find together: one neighbour of the
 * other side in the table is enough for the walk to ourselves to find the others.
 */
#include <stdlib.h>

#include "dht/internal.h"

#define ASK_MS 300000u /* one of them */
#define KEEP_S 86400u  /* then it is not coming back */
#define FOUND_MS 5000u /* and walk: others may be back, too */

void dht_lost_release(struct dht *dht)
{
    struct dht_lost *lost = &dht->lost;
    for (unsigned i = 0; i < lost->count; i++)
        dht_book_unref(dht->config.book, lost->contacts[i].handle);
    free(lost->contacts);
    *lost = (struct dht_lost){0};
}

static const struct dht_contact *contact_at(const struct dht *dht, unsigned at)
{
    return dht_book_at(dht->config.book, dht->lost.contacts[at].handle);
}

static void drop(struct dht *dht, unsigned at)
{
    struct dht_lost *lost = &dht->lost;
    dht_book_unref(dht->config.book, lost->contacts[at].handle);
    lost->contacts[at] = lost->contacts[--lost->count];
}

static unsigned find(const struct dht *dht, const struct id *id)
{
    unsigned at = 0;
    while (at < dht->lost.count && !id_equal(&contact_at(dht, at)->id, id))
        at++;
    return at;
}

/* One place free; false if all who have one are closer than this one. */
static bool make_room(struct dht *dht, const struct id *id)
{
    if (dht->lost.count < DHT_LOST_MAX)
        return true;
    unsigned farthest = 0;
    for (unsigned i = 1; i < dht->lost.count; i++)
        if (dht_closer(&dht->self.id, &contact_at(dht, farthest)->id, &contact_at(dht, i)->id) < 0)
            farthest = i;
    if (dht_closer(&dht->self.id, &contact_at(dht, farthest)->id, id) < 0)
        return false;
    drop(dht, farthest);
    return true;
}

void dht_lost_add(struct dht *dht, const struct dht_contact *contact)
{
    struct dht_lost *lost = &dht->lost;
    if (!lost->contacts)
        lost->contacts = calloc(DHT_LOST_MAX, sizeof *lost->contacts);
    if (!lost->contacts || find(dht, &contact->id) < lost->count || !make_room(dht, &contact->id))
        return;
    dht_handle handle = dht_book_ref(dht->config.book, contact);
    if (!handle)
        return;
    if (lost->count == 0)
        lost->ask_ms = dht_jittered_ms(dht, ASK_MS);
    lost->contacts[lost->count++] =
        (struct dht_lost_contact){.handle = handle, .since_s = (uint32_t)(dht->now_ms / 1000)};
}

/* It is in the table by now. */
static void on_event(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                     const struct dht_message *reply)
{
    (void)owner;
    (void)reply;
    unsigned at = find(dht, &peer->id);
    if (event != DHT_RPC_REPLY || at == dht->lost.count)
        return;
    drop(dht, at);
    dht_wake_by(&dht->upkeep.self_ms, dht_jittered_ms(dht, FOUND_MS));
}

void dht_lost_tick(struct dht *dht)
{
    struct dht_lost *lost = &dht->lost;
    if (dht->now_ms < dht_lost_next_ms(dht))
        return;
    lost->ask_ms = dht_jittered_ms(dht, ASK_MS);
    unsigned at = lost->next++ % lost->count;
    struct dht_contact contact = *contact_at(dht, at);
    if (dht->now_ms / 1000 - lost->contacts[at].since_s > KEEP_S || dht_is_revoked(dht, &contact.id))
        drop(dht, at);
    else
        dht_rpc_ask(dht, &contact, &(struct dht_message){.type = DHT_PING}, on_event, NULL);
}

uint64_t dht_lost_next_ms(const struct dht *dht)
{
    return dht->lost.count > 0 ? dht->lost.ask_ms : UINT64_MAX;
}
