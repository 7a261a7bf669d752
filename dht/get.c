/*
 * A read: READING (a lookup of the key; when its holders say that others are in shards, of those too, and so on down)
 * -> LIVING (who of the members lives, if that is wanted) -> told to the caller. What the deadline finds is told then.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define DEFAULT_LIMIT 16
#define FIND_TIMEOUT_MS 10000u
#define SHARDS_AT_ONCE 8
#define SHARDS_MAX 1024 /* of one read */

/* The lookup of the key itself, or of one of its shards. */
struct part {
    TAILQ_ENTRY(part)
    link;
    struct dht_request *request; /* borrowed */
    unsigned depth;              /* 0: the key itself */
    struct id prefix;            /* of the members in a shard: 4 x depth bits */
    struct dht_lookup *lookup;   /* NULL: waits */
};

TAILQ_HEAD(parts, part);

struct dht_request {
    TAILQ_ENTRY(dht_request)
    link;
    uint64_t number;
    struct id key;
    bool finds; /* contacts, not records */
    struct dht_get_options options;
    bool ranged;
    struct dht_rank after;
    uint64_t walk_deadline_ms, deadline_ms;
    struct parts waiting, reading; /* owned */
    size_t shards;                 /* that there were so far */
    size_t lookups;                /* under way */
    bool stirred;
    struct dht_set found;
    struct dht_contact contacts[DHT_REPLICAS];
    size_t contact_count;
    dht_get_cb get_cb;
    dht_find_cb find_cb;
    void *ctx; /* borrowed */
};

void dht_get_init(struct dht *dht)
{
    TAILQ_INIT(&dht->gets.requests);
}

static void free_parts(struct dht *dht, struct parts *parts)
{
    for (struct part *part; (part = TAILQ_FIRST(parts));) {
        TAILQ_REMOVE(parts, part, link);
        if (part->lookup)
            dht_lookup_cancel(dht, part->lookup);
        free(part);
    }
}

static void free_request(struct dht *dht, struct dht_request *request)
{
    TAILQ_REMOVE(&dht->gets.requests, request, link);
    dht->gets.count--;
    free_parts(dht, &request->waiting);
    free_parts(dht, &request->reading);
    dht_set_release(&request->found);
    free(request);
}

void dht_get_release(struct dht *dht)
{
    for (struct dht_request *request; (request = TAILQ_FIRST(&dht->gets.requests));)
        free_request(dht, request);
}

void dht_get_stir(struct dht *dht)
{
    struct dht_request *request;
    TAILQ_FOREACH (request, &dht->gets.requests, link)
        request->stirred = true;
}

/* ---- reading ---- */

/* What was found under a shard's key speaks of the set all the same. */
static void add_found(struct dht_request *request, const struct dht_record *record)
{
    struct dht_record mapped = *record;
    mapped.key = request->key;
    dht_set_add(&request->found, &mapped);
}

static void add_row(struct dht *dht, struct dht_request *request, const struct dht_held *held, struct dht_row *row)
{
    struct dht_record record;
    dht_row_decode(held, row, &record);
    if (dht_hold_check(dht, held, row))
        add_found(request, &record);
}

#define ROWS_AT_ONCE 64

/* What this node holds itself is part of the answer: as many as fit of those that live, and all tombstones before. */
static void add_held(struct dht *dht, struct dht_request *request, struct dht_held *held)
{
    struct dht_row *rows[ROWS_AT_ONCE], *meta = dht_rows_find(held, &(struct id){{0}});
    struct dht_rank last = request->after;
    struct dht_pick pick = {.order = request->options.order,
                            .own = &request->found.own,
                            .after = request->ranged ? &last : NULL,
                            .wall_ms = dht_wall_ms(dht)};
    size_t living = 0, count = ROWS_AT_ONCE;
    if (meta)
        add_row(dht, request, held, meta);
    while (count == ROWS_AT_ONCE && living < request->found.max) {
        count = dht_rows_pick(held, &pick, rows, ROWS_AT_ONCE);
        for (size_t i = 0; i < count; i++) {
            living += !dht_brief_is_tombstone(rows[i]->brief);
            last = dht_brief_rank(rows[i]->brief, &rows[i]->member, pick.order, pick.own);
            add_row(dht, request, held, rows[i]);
        }
        pick.after = &last;
    }
}

static struct part *add_part(struct dht_request *request, unsigned depth, const struct id *prefix)
{
    struct part *part = request->shards < SHARDS_MAX ? calloc(1, sizeof *part) : NULL;
    if (!part)
        return NULL;
    part->request = request;
    part->depth = depth;
    part->prefix = *prefix;
    request->shards++;
    TAILQ_INSERT_TAIL(&request->waiting, part, link);
    return part;
}

static struct id key_of(const struct part *part)
{
    const struct dht_request *request = part->request;
    return part->depth == 0 ? request->key : dht_shard_key(&request->key, part->depth, &part->prefix);
}

static void add_shards(struct dht_request *request, const struct part *part)
{
    if (part->depth == DHT_SHARD_DEPTH_MAX)
        return;
    for (unsigned i = 0; i < DHT_SHARDS; i++) {
        struct id prefix = dht_shard_prefix(&part->prefix, part->depth, i);
        add_part(request, part->depth + 1, &prefix);
    }
}

static void on_read(struct dht *dht, struct dht_lookup *lookup, void *owner);

static int start_part(struct dht *dht, struct part *part)
{
    struct dht_request *request = part->request;
    struct id key = key_of(part);
    struct dht_get_options options = request->options;
    options.after = request->ranged ? &request->after : NULL;
    uint64_t left_ms = request->walk_deadline_ms > dht->now_ms ? request->walk_deadline_ms - dht->now_ms : 0;
    part->lookup = dht_lookup_start(dht, &key, 1, request->finds ? NULL : &options, left_ms, on_read, part);
    if (!part->lookup)
        return ERR_NOMEM;
    if (request->found.meta) /* shards have none of their own, and the cleared are to be passed over there too */
        dht_set_add(&part->lookup->found, request->found.meta);
    TAILQ_REMOVE(&request->waiting, part, link);
    TAILQ_INSERT_TAIL(&request->reading, part, link);
    request->lookups++;
    return 0;
}

static void start_parts(struct dht *dht, struct dht_request *request)
{
    while (!TAILQ_EMPTY(&request->waiting) && request->lookups < SHARDS_AT_ONCE &&
           dht->now_ms < request->walk_deadline_ms)
        if (start_part(dht, TAILQ_FIRST(&request->waiting)) < 0)
            return;
}

static void on_read(struct dht *dht, struct dht_lookup *lookup, void *owner)
{
    struct part *part = owner;
    struct dht_request *request = part->request;
    struct id key = key_of(part);
    request->stirred = true;
    request->lookups--;
    part->lookup = NULL;
    TAILQ_REMOVE(&request->reading, part, link);
    if (request->finds) {
        request->contact_count = dht_lookup_closest(lookup, false, request->contacts, DHT_REPLICAS);
        free(part);
        return;
    }
    if (lookup->found.meta)
        add_found(request, lookup->found.meta);
    for (size_t i = 0; i < lookup->found.count; i++)
        add_found(request, lookup->found.records[i]);
    struct dht_held *held = dht_hold_of_key(dht, &key);
    if (held)
        add_held(dht, request, held);
    if (dht_lookup_is_deeper(lookup) || (held && dht_hold_is_deeper(dht, held)))
        add_shards(request, part);
    free(part);
}

/* ---- telling ---- */

/* Is it to be told? By hand nobody has to live. */
static enum dht_liveness told(struct dht *dht, const struct dht_request *request, const struct dht_record *record,
                              struct addr *ret_addr)
{
    if (!dht_set_is_live(&request->found, record, dht_wall_ms(dht)) || dht_is_by_revoked(dht, record))
        return DHT_DEAD;
    if (record->kind == DHT_NODE) {
        *ret_addr = dht_alive_addr(dht, record);
        return DHT_ALIVE;
    }
    bool wanted = request->options.want_lease && !dht_is_by_hand(record->kind);
    return wanted ? dht_alive_ask(dht, record, ret_addr) : DHT_ALIVE;
}

/* Fill `ret_found` with what can be told, at most the limit; false while something is still to be found out. Those who
 * may live count as if they did: no more are asked than are wanted. */
static bool gather(struct dht *dht, struct dht_request *request, struct dht_found *ret_found, size_t *ret_count)
{
    size_t count = 0, unknown = 0;
    for (size_t i = 0; i < request->found.count && count + unknown < request->options.limit; i++) {
        const struct dht_record *record = request->found.records[i];
        struct addr addr = {0};
        enum dht_liveness liveness = told(dht, request, record, &addr);
        unknown += liveness == DHT_UNKNOWN_YET;
        if (liveness == DHT_ALIVE)
            ret_found[count++] = (struct dht_found){*record, dht_contact_of(record->public_key, &addr)};
    }
    *ret_count = count;
    return unknown == 0;
}

/* Tell the caller, and free the request, if all is known or time is up. */
static void try_finish(struct dht *dht, struct dht_request *request)
{
    bool late = dht->now_ms >= request->deadline_ms;
    request->stirred = false;
    start_parts(dht, request);
    if (request->lookups > 0 && !late)
        return;
    size_t room = request->found.count < request->options.limit ? request->found.count : request->options.limit;
    OWNED(owned_free) struct dht_found *found = calloc(room + 1, sizeof *found);
    size_t count = 0;
    if (!request->finds && found && !gather(dht, request, found, &count) && !late)
        return;
    struct dht_request told_of = *request;
    free_request(dht, request);
    if (told_of.finds)
        told_of.find_cb(told_of.ctx, told_of.contacts, told_of.contact_count);
    else
        told_of.get_cb(told_of.ctx, found, count);
}

static struct dht_request *first_due(struct dht *dht)
{
    struct dht_request *request;
    TAILQ_FOREACH (request, &dht->gets.requests, link)
        if (request->stirred || dht->now_ms >= request->deadline_ms)
            break;
    return request;
}

void dht_get_tick(struct dht *dht)
{
    for (struct dht_request *request; (request = first_due(dht));)
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

static int start(struct dht *dht, const struct dht_request *filled, uint64_t timeout_ms, uint64_t *ret_request,
                 struct err *err)
{
    if (dht->gets.count >= LIMIT_DHT_REQUESTS)
        return err_set(err, ERR_LIMIT, "%zu requests are under way already", dht->gets.count);
    struct dht_request *request = malloc(sizeof *request);
    if (!request)
        return err_set(err, ERR_NOMEM, "no memory for a request");
    *request = *filled;
    TAILQ_INIT(&request->waiting);
    TAILQ_INIT(&request->reading);
    request->number = ++dht->gets.last_request;
    request->deadline_ms = dht->now_ms + timeout_ms;
    request->walk_deadline_ms = request->deadline_ms - timeout_ms / 4; /* the rest is for finding out who lives */
    dht_set_init(&request->found, request->options.order, 2 * request->options.limit + DHT_REPLICAS);
    if (request->options.order == DHT_BY_DISTANCE)
        request->found.own = dht_place(dht, NULL);
    request->found.ranged = request->ranged;
    request->found.after = request->after;
    dht->gets.count++;
    TAILQ_INSERT_TAIL(&dht->gets.requests, request, link);
    struct part *part = add_part(request, 0, &(struct id){{0}});
    if (!part || start_part(dht, part) < 0) {
        free_request(dht, request);
        return err_set(err, ERR_NOMEM, "no memory for a lookup");
    }
    if (ret_request)
        *ret_request = request->number;
    return 0;
}

int dht_get(struct dht *dht, uint64_t now_ms, const struct id *key, const struct dht_get_options *options,
            dht_get_cb cb, void *ctx, uint64_t *ret_request, struct err *err)
{
    struct dht_request request = {.key = *key, .get_cb = cb, .ctx = ctx};
    dht_set_now(dht, now_ms);
    if (options)
        request.options = *options;
    request.ranged = request.options.after;
    if (request.ranged)
        request.after = *request.options.after;
    if (request.options.limit == 0)
        request.options.limit = DEFAULT_LIMIT;
    if (request.options.timeout_ms == 0)
        request.options.timeout_ms = DHT_GET_TIMEOUT_MS;
    if (request.options.limit > LIMIT_DHT_GET_RECORDS)
        return err_set(err, ERR_LIMIT, "%zu records are more than the %d of one read", request.options.limit,
                       LIMIT_DHT_GET_RECORDS);
    return start(dht, &request, request.options.timeout_ms, ret_request, err);
}

int dht_find(struct dht *dht, uint64_t now_ms, const struct id *target, dht_find_cb cb, void *ctx,
             uint64_t *ret_request, struct err *err)
{
    struct dht_request request = {.key = *target, .finds = true, .find_cb = cb, .ctx = ctx};
    dht_set_now(dht, now_ms);
    return start(dht, &request, FIND_TIMEOUT_MS, ret_request, err);
}

void dht_cancel(struct dht *dht, uint64_t number)
{
    struct dht_request *request;
    TAILQ_FOREACH (request, &dht->gets.requests, link)
        if (request->number == number)
            break;
    if (request)
        free_request(dht, request);
    else
        dht_collect_cancel(dht, number);
}
