/*
 * Which members live, for reads that want only those. In order of what it costs: their lease is known, they have been
 * heard lately, they answer at the address in their record, their lease is found at their neighbours. What was found
 * out is remembered, the latest used.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

#define ABSENT_MS 10000u /* a member that gave no sign is not looked for again so soon */
#define QUESTIONS_MAX 32 /* lookups under way at once, of all reads; and pings */
#define LOOKUP_MS (DHT_GET_TIMEOUT_MS / 2)

struct dht_alive {
    TAILQ_ENTRY(dht_alive)
    link; /* the latest used last */
    struct id member;
    bool leased; /* the next four are its lease's */
    bool left;   /* it said that it would */
    struct dht_version version;
    uint64_t expiry_wall_ms;
    uint64_t until_ms;                         /* it answered a ping */
    struct addr addr;                          /* of the lease, or where it answered */
    uint64_t silent_until_ms, absent_until_ms; /* no answer to a ping; no lease */
    bool pinged;                               /* under way */
    struct dht_lookup *lookup;                 /* under way, or NULL */
};

void dht_alive_init(struct dht *dht)
{
    TAILQ_INIT(&dht->living.order);
    map_init(&dht->living.members, LIMIT_DHT_LEASES, rng_u64(&dht->config.rng));
}

static void free_alive(struct dht *dht, struct dht_alive *alive)
{
    struct dht_living *living = &dht->living;
    map_remove(&living->members, &alive->member);
    TAILQ_REMOVE(&living->order, alive, link);
    if (alive->lookup) {
        dht_lookup_cancel(dht, alive->lookup);
        living->lookups--;
    }
    if (alive->pinged) {
        dht_rpc_abandon(dht, alive);
        living->pings--;
    }
    free(alive);
}

void dht_alive_release(struct dht *dht)
{
    for (struct dht_alive *alive; (alive = TAILQ_FIRST(&dht->living.order));)
        free_alive(dht, alive);
    map_release(&dht->living.members);
}

void dht_alive_forget(struct dht *dht, const struct id *member)
{
    struct dht_alive *alive = map_get(&dht->living.members, member);
    if (alive)
        free_alive(dht, alive);
}

/* The longest unused that nobody waits for goes. */
static void make_room(struct dht *dht)
{
    struct dht_alive *alive;
    if (dht->living.members.count < LIMIT_DHT_LEASES)
        return;
    TAILQ_FOREACH (alive, &dht->living.order, link)
        if (!alive->lookup && !alive->pinged) {
            free_alive(dht, alive);
            return;
        }
}

/* What is remembered of a member, made if need be; NULL without room. */
static struct dht_alive *entry_of(struct dht *dht, const struct id *member)
{
    struct dht_living *living = &dht->living;
    struct dht_alive *alive = map_get(&living->members, member);
    if (alive) {
        TAILQ_REMOVE(&living->order, alive, link);
        TAILQ_INSERT_TAIL(&living->order, alive, link);
        return alive;
    }
    make_room(dht);
    OWNED(owned_free) struct dht_alive *fresh = calloc(1, sizeof *fresh);
    if (!fresh || map_set(&living->members, member, fresh) < 0)
        return NULL;
    fresh->member = *member;
    TAILQ_INSERT_TAIL(&living->order, fresh, link);
    return STEAL(fresh);
}

struct addr dht_alive_addr(const struct dht *dht, const struct dht_record *lease)
{
    struct wire wire;
    wire_init(&wire, lease->data, lease->data_len);
    for (unsigned left = wire_get_u8(&wire); left > 0 && !wire.failed; left--) {
        struct dht_contact contact = {.id = lease->member, .addr = addr_get(&wire)};
        if (!wire.failed && dht_contact_is_acceptable(dht, &contact))
            return contact.addr;
    }
    return (struct addr){0};
}

static void keep_lease(const struct dht *dht, struct dht_alive *alive, const struct dht_record *lease)
{
    if (alive->leased && dht_version_compare(&lease->version, &alive->version) < 0)
        return;
    alive->leased = true;
    alive->left = lease->tombstone;
    alive->version = lease->version;
    alive->expiry_wall_ms = lease->expiry_wall_ms;
    alive->addr = dht_alive_addr(dht, lease);
}

/* Only what somebody reads is remembered: holders see the leases of strangers every minute. */
void dht_alive_note(struct dht *dht, const struct dht_record *lease)
{
    struct dht_alive *alive = map_get(&dht->living.members, &lease->member);
    if (!alive && dht->gets.count > 0)
        alive = entry_of(dht, &lease->member);
    if (alive)
        keep_lease(dht, alive, lease);
}

/* ---- finding out ---- */

static void on_lease(struct dht *dht, struct dht_lookup *lookup, void *owner)
{
    struct dht_alive *alive = owner;
    alive->lookup = NULL;
    dht->living.lookups--;
    const struct dht_record *lease = dht_set_find(&lookup->found, &alive->member);
    if (lease)
        keep_lease(dht, alive, lease);
    else
        alive->absent_until_ms = dht->now_ms + ABSENT_MS;
    dht_get_stir(dht);
}

static void look_for_lease(struct dht *dht, struct dht_alive *alive)
{
    struct dht_get_options one = {.limit = 1, .first_is_enough = true, .order = DHT_BY_VERSION};
    if (alive->lookup || alive->absent_until_ms > dht->now_ms || dht->living.lookups >= QUESTIONS_MAX)
        return;
    struct id key = dht_lease_key(&alive->member);
    alive->lookup = dht_lookup_start(dht, &key, 1, &one, LOOKUP_MS, on_lease, alive);
    dht->living.lookups += alive->lookup != NULL;
}

static void on_ping(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                    const struct dht_message *reply)
{
    struct dht_alive *alive = owner;
    (void)reply;
    if (event == DHT_RPC_SLOW) {
        look_for_lease(dht, alive);
        return;
    }
    alive->pinged = false;
    dht->living.pings--;
    if (event == DHT_RPC_REPLY) {
        alive->until_ms = dht->now_ms + DHT_LEASE_TTL_MS;
        alive->addr = peer->addr;
    } else {
        alive->silent_until_ms = dht->now_ms + ABSENT_MS;
    }
    dht_get_stir(dht);
}

/* True if it was asked. */
static bool ping(struct dht *dht, struct dht_alive *alive, const struct dht_record *record)
{
    struct dht_contact contact = dht_contact_of(record->public_key, &record->addr);
    if (alive->silent_until_ms > dht->now_ms || dht->living.pings >= QUESTIONS_MAX ||
        !dht_contact_is_acceptable(dht, &contact))
        return false;
    if (dht_rpc_ask(dht, &contact, &(struct dht_message){.type = DHT_PING}, on_ping, alive) < 0)
        return false;
    alive->pinged = true;
    dht->living.pings++;
    return true;
}

static bool was_heard(const struct dht *dht, const struct id *member, struct addr *ret_addr)
{
    struct dht_node node;
    if (!dht_table_find(&dht->table, member, &node) || node.fails > 0 ||
        node.heard_ms + DHT_LEASE_TTL_MS <= dht->now_ms)
        return false;
    *ret_addr = node.contact.addr;
    return true;
}

enum dht_liveness dht_alive_ask(struct dht *dht, const struct dht_record *record, struct addr *ret_addr)
{
    if (id_equal(&record->member, &dht->self.id)) {
        *ret_addr = dht->self.addr;
        return DHT_ALIVE;
    }
    struct dht_alive *alive = entry_of(dht, &record->member);
    struct dht_record lease;
    if (!alive)
        return DHT_DEAD;
    struct id key = dht_lease_key(&record->member);
    if (!alive->leased && dht_hold_get(dht, &key, &record->member, &lease))
        keep_lease(dht, alive, &lease);
    bool leased = alive->leased && alive->expiry_wall_ms > dht_wall_ms(dht);
    if (leased && alive->left)
        return DHT_DEAD;
    if (leased || alive->until_ms > dht->now_ms) {
        *ret_addr = alive->addr;
        return DHT_ALIVE;
    }
    if (was_heard(dht, &record->member, ret_addr))
        return DHT_ALIVE;
    if (alive->pinged || alive->lookup)
        return DHT_UNKNOWN_YET;
    if (alive->absent_until_ms > dht->now_ms)
        return DHT_DEAD;
    if (!ping(dht, alive, record))
        look_for_lease(dht, alive);
    return DHT_UNKNOWN_YET;
}
