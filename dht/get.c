/*
 * A read: READING (a lookup of the key) -> LEASES (of the members found, if wanted; shared between reads and cached)
 * -> told to the caller. What the deadline finds is told then.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define DEFAULT_LIMIT 16
#define ABSENT_MS 10000u     /* a member without a lease is not looked for again so soon */
#define LEASE_LOOKUPS_MAX 32 /* under way at once, of all reads */
#define FIND_TIMEOUT_MS 10000u

struct dht_request {
    TAILQ_ENTRY(dht_request)
    link;
    uint64_t number;
    struct id key;
    bool finds; /* contacts, not records */
    struct dht_get_options options;
    uint64_t deadline_ms;
    struct dht_lookup *lookup; /* while READING */
    bool stirred;
    struct dht_set found; /* taken from the lookup */
    struct dht_contact contacts[DHT_REPLICAS];
    size_t contact_count;
    dht_get_cb get_cb;
    dht_find_cb find_cb;
    void *ctx; /* borrowed */
};

void dht_get_init(struct dht *dht)
{
    TAILQ_INIT(&dht->gets.requests);
    TAILQ_INIT(&dht->gets.lease_order);
    map_init(&dht->gets.leases, LIMIT_DHT_LEASES, rng_u64(&dht->config.rng));
}

static void free_request(struct dht *dht, struct dht_request *request)
{
    TAILQ_REMOVE(&dht->gets.requests, request, link);
    dht->gets.count--;
    if (request->lookup)
        dht_lookup_cancel(dht, request->lookup);
    dht_set_release(&request->found);
    free(request);
}

/* ---- leases ---- */

static void free_lease(struct dht *dht, struct dht_lease *lease)
{
    map_remove(&dht->gets.leases, &lease->member);
    TAILQ_REMOVE(&dht->gets.lease_order, lease, link);
    if (lease->lookup) {
        dht_lookup_cancel(dht, lease->lookup);
        dht->gets.lease_lookups--;
    }
    free(lease);
}

void dht_get_release(struct dht *dht)
{
    struct dht_request *request;
    while ((request = TAILQ_FIRST(&dht->gets.requests)))
        free_request(dht, request);
    struct dht_lease *lease;
    while ((lease = TAILQ_FIRST(&dht->gets.lease_order)))
        free_lease(dht, lease);
    map_release(&dht->gets.leases);
}

void dht_get_forget_lease(struct dht *dht, const struct id *member)
{
    struct dht_lease *lease = map_get(&dht->gets.leases, member);
    if (lease)
        free_lease(dht, lease);
}

/* The longest unused that nobody waits for goes. */
static void make_room(struct dht *dht)
{
    if (dht->gets.leases.count < LIMIT_DHT_LEASES)
        return;
    struct dht_lease *lease;
    TAILQ_FOREACH (lease, &dht->gets.lease_order, link)
        if (!lease->lookup) {
            free_lease(dht, lease);
            return;
        }
}

/* What is remembered of a member, made if need be; NULL without room. */
static struct dht_lease *lease_of(struct dht *dht, const struct id *member)
{
    struct dht_lease *lease = map_get(&dht->gets.leases, member);
    if (lease) {
        TAILQ_REMOVE(&dht->gets.lease_order, lease, link);
        TAILQ_INSERT_TAIL(&dht->gets.lease_order, lease, link);
        return lease;
    }
    make_room(dht);
    OWNED(owned_free) struct dht_lease *fresh = calloc(1, sizeof *fresh);
    if (!fresh || map_set(&dht->gets.leases, member, fresh) < 0)
        return NULL;
    fresh->member = *member;
    TAILQ_INSERT_TAIL(&dht->gets.lease_order, fresh, link);
    return STEAL(fresh);
}

static void keep_lease(struct dht_lease *lease, const struct dht_record *record)
{
    if (lease->known && dht_record_compare(record, &lease->record) <= 0)
        return;
    lease->record = *record;
    lease->known = true;
}

/* Only what somebody reads is remembered: holders see the leases of strangers every minute. */
void dht_get_note_lease(struct dht *dht, const struct dht_record *lease)
{
    struct dht_lease *cached = map_get(&dht->gets.leases, &lease->member);
    bool wanted = cached || !TAILQ_EMPTY(&dht->gets.requests);
    if (!cached && wanted)
        cached = lease_of(dht, &lease->member);
    if (cached)
        keep_lease(cached, lease);
}

/* The first address of a lease at which a node can be; family 0 if there is none. */
static struct addr lease_addr(const struct dht *dht, const struct dht_record *lease)
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

static void on_lease(struct dht *dht, struct dht_lookup *lookup, void *owner)
{
    struct dht_lease *lease = owner;
    lease->lookup = NULL;
    dht->gets.lease_lookups--;
    for (size_t i = 0; i < lookup->found.count; i++)
        if (id_equal(&lookup->found.records[i]->member, &lease->member))
            keep_lease(lease, lookup->found.records[i]);
    if (lookup->found.count == 0)
        lease->absent_until_ms = dht->now_ms + ABSENT_MS;
    struct dht_request *request;
    TAILQ_FOREACH (request, &dht->gets.requests, link)
        request->stirred = true;
}

enum liveness { ALIVE, DEAD, UNKNOWN };

/* Does the member live, by its lease? UNKNOWN while that is being found out. */
static enum liveness liveness_of(struct dht *dht, const struct id *member, struct addr *ret_addr)
{
    if (id_equal(member, &dht->self.id)) {
        *ret_addr = dht->self.addr;
        return ALIVE;
    }
    struct dht_lease *lease = lease_of(dht, member);
    struct id key = dht_key(DHT_NODE, member->b, sizeof member->b);
    if (lease && !lease->known)
        lease->known = dht_hold_get(dht, &key, member, &lease->record);
    if (lease && lease->known && lease->record.expiry_wall_ms > dht_wall_ms(dht)) {
        *ret_addr = lease_addr(dht, &lease->record);
        return lease->record.tombstone ? DEAD : ALIVE;
    }
    if (!lease || lease->absent_until_ms > dht->now_ms)
        return DEAD;
    if (!lease->lookup && dht->gets.lease_lookups < LEASE_LOOKUPS_MAX) {
        struct dht_get_options one = {.limit = 1, .first_is_enough = true, .order = DHT_BY_VERSION};
        lease->lookup = dht_lookup_start(dht, &key, 1, &one, DHT_GET_TIMEOUT_MS / 2, on_lease, lease);
        dht->gets.lease_lookups += lease->lookup != NULL;
    }
    return UNKNOWN;
}

/* ---- reads ---- */

/* What this node holds itself is part of the answer. */
static bool add_held(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len)
{
    struct dht_request *request = ctx;
    struct dht_record record;
    (void)member;
    if (!id_equal(key, &request->key))
        return false;
    if (dht_record_decode(bytes, len, &record))
        dht_set_add(&request->found, &record);
    return true;
}

static void on_read(struct dht *dht, struct dht_lookup *lookup, void *owner)
{
    struct dht_request *request = owner;
    const struct dht_storage *storage = &dht->config.storage;
    request->lookup = NULL;
    request->stirred = true;
    if (request->finds) {
        request->contact_count = dht_lookup_closest(lookup, false, request->contacts, DHT_REPLICAS);
        return;
    }
    request->found = lookup->found;
    dht_set_init(&lookup->found, lookup->options.order, 0);
    storage->each(storage->ctx, &request->key, add_held, request);
}

/* Is it to be told? Tombstones, the lapsed and the dead are not. */
static enum liveness told(struct dht *dht, const struct dht_request *request, const struct dht_record *record,
                          struct addr *ret_addr)
{
    if (record->tombstone || !dht_record_is_timely(record, dht_wall_ms(dht)) || dht_is_revoked(dht, &record->member))
        return DEAD;
    if (record->kind == DHT_NODE) {
        *ret_addr = lease_addr(dht, record);
        return ALIVE;
    }
    return request->options.want_lease ? liveness_of(dht, &record->member, ret_addr) : ALIVE;
}

/* Fill `ret_found` with what can be told, at most the limit; false while something is still to be found out. */
static bool gather(struct dht *dht, struct dht_request *request, struct dht_found *ret_found, size_t *ret_count)
{
    bool complete = true;
    size_t count = 0;
    for (size_t i = 0; i < request->found.count && count < request->options.limit; i++) {
        const struct dht_record *record = request->found.records[i];
        struct addr addr = {0};
        enum liveness liveness = told(dht, request, record, &addr);
        complete &= liveness != UNKNOWN;
        if (liveness == ALIVE)
            ret_found[count++] = (struct dht_found){*record, dht_contact_of(record->public_key, &addr)};
    }
    *ret_count = count;
    return complete;
}

/* Tell the caller, and free the request, if all is known or time is up. */
static void try_finish(struct dht *dht, struct dht_request *request)
{
    bool late = dht->now_ms >= request->deadline_ms;
    request->stirred = false;
    if (request->lookup)
        return; /* its own deadline is earlier */
    size_t room = request->found.count < request->options.limit ? request->found.count : request->options.limit;
    OWNED(owned_free) struct dht_found *found = calloc(room + 1, sizeof *found);
    size_t count = 0;
    if (!request->finds && found && !gather(dht, request, found, &count) && !late)
        return;
    struct dht_request told_of = *request;
    request->found = (struct dht_set){0};
    free_request(dht, request);
    if (told_of.finds)
        told_of.find_cb(told_of.ctx, told_of.contacts, told_of.contact_count);
    else
        told_of.get_cb(told_of.ctx, found, count);
    dht_set_release(&told_of.found);
}

static struct dht_request *first_due(struct dht *dht)
{
    struct dht_request *request;
    TAILQ_FOREACH (request, &dht->gets.requests, link)
        if (request->stirred || (!request->lookup && dht->now_ms >= request->deadline_ms))
            break;
    return request;
}

void dht_get_tick(struct dht *dht)
{
    struct dht_request *request;
    while ((request = first_due(dht)))
        try_finish(dht, request);
}

uint64_t dht_get_next_ms(const struct dht *dht)
{
    uint64_t next = UINT64_MAX;
    const struct dht_request *request;
    TAILQ_FOREACH (request, &dht->gets.requests, link)
        next = dht_min_ms(next, request->stirred ? dht->now_ms : request->deadline_ms);
    return next;
}

/* ---- public ---- */

static int start(struct dht *dht, struct dht_request *filled, const struct dht_get_options *options,
                 uint64_t timeout_ms, uint64_t *ret_request, struct err *err)
{
    OWNED(owned_free) struct dht_request *request = NULL;
    if (dht->gets.count >= LIMIT_DHT_REQUESTS)
        return err_set(err, ERR_LIMIT, "%zu requests are under way already", dht->gets.count);
    request = malloc(sizeof *request);
    if (!request)
        return err_set(err, ERR_NOMEM, "no memory for a request");
    *request = *filled;
    request->number = ++dht->gets.last_request;
    request->deadline_ms = dht->now_ms + timeout_ms;
    uint64_t walk_ms = timeout_ms - timeout_ms / 4; /* the rest is for leases */
    request->lookup = dht_lookup_start(dht, &request->key, 1, options, walk_ms, on_read, request);
    if (!request->lookup)
        return err_set(err, ERR_NOMEM, "no memory for a lookup");
    if (ret_request)
        *ret_request = request->number;
    dht->gets.count++;
    TAILQ_INSERT_TAIL(&dht->gets.requests, request, link);
    (void)STEAL(request);
    return 0;
}

int dht_get(struct dht *dht, uint64_t now_ms, const struct id *key, const struct dht_get_options *options,
            dht_get_cb cb, void *ctx, uint64_t *ret_request, struct err *err)
{
    struct dht_request request = {.key = *key, .get_cb = cb, .ctx = ctx};
    dht_set_now(dht, now_ms);
    if (options)
        request.options = *options;
    if (request.options.limit == 0)
        request.options.limit = DEFAULT_LIMIT;
    if (request.options.timeout_ms == 0)
        request.options.timeout_ms = DHT_GET_TIMEOUT_MS;
    if (request.options.limit > LIMIT_DHT_GET_RECORDS)
        return err_set(err, ERR_LIMIT, "%zu records are more than the %d of one read", request.options.limit,
                       LIMIT_DHT_GET_RECORDS);
    return start(dht, &request, &request.options, request.options.timeout_ms, ret_request, err);
}

int dht_find(struct dht *dht, uint64_t now_ms, const struct id *target, dht_find_cb cb, void *ctx,
             uint64_t *ret_request, struct err *err)
{
    struct dht_request request = {.key = *target, .finds = true, .find_cb = cb, .ctx = ctx};
    dht_set_now(dht, now_ms);
    return start(dht, &request, NULL, FIND_TIMEOUT_MS, ret_request, err);
}

void dht_cancel(struct dht *dht, uint64_t number)
{
    struct dht_request *request;
    TAILQ_FOREACH (request, &dht->gets.requests, link)
        if (request->number == number)
            break;
    if (request)
        free_request(dht, request);
}
