/*
 * A candidate's states:
 *
 *   NEW --ask--> ASKED --slow--> ASKED_SLOW
 *                  |                 |
 *                  +----> ANSWERED <-+        or FAILED from either
 *
 * Each candidate belongs to the walk that heard of it first, so no node is in two walks: a liar can mislead the walks
 * that it is in and no others (S/Kademlia, Baumgart and Mies 2007). A walk is over when the closest four of its
 * candidates that did not fail have answered; a slow one is passed over as long as others are left.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"

/* ---- candidates ---- */

static struct dht_candidate *find(struct dht_lookup *lookup, const struct id *id)
{
    for (size_t i = 0; i < lookup->candidate_count; i++)
        if (id_equal(&lookup->candidates[i].contact.id, id))
            return &lookup->candidates[i];
    return NULL;
}

/* Candidates of one address block are capped as in the table: sybils from one place cannot fill a walk (faults 16). */
static bool block_has_room(const struct dht *dht, const struct dht_lookup *lookup, const struct addr *addr)
{
    unsigned same = 0;
    for (size_t i = 0; i < lookup->candidate_count; i++)
        same += addr_block(&lookup->candidates[i].contact.addr) == addr_block(addr);
    return !dht->config.block_per_table || same < dht->config.block_per_table;
}

static void offer(struct dht *dht, struct dht_lookup *lookup, const struct dht_contact *contact, unsigned walk)
{
    if (find(lookup, &contact->id) || !block_has_room(dht, lookup, &contact->addr))
        return;
    struct dht_candidate *list = lookup->candidates;
    size_t at = lookup->candidate_count;
    while (at > 0 && dht_closer(&lookup->target, &contact->id, &list[at - 1].contact.id) < 0)
        at--;
    if (at == DHT_CANDIDATES)
        return;
    if (lookup->candidate_count < DHT_CANDIDATES)
        lookup->candidate_count++;
    memmove(list + at + 1, list + at, (lookup->candidate_count - at - 1) * sizeof *list);
    list[at] = (struct dht_candidate){.contact = *contact, .walk = (uint8_t)walk};
}

/* Begin with the closest that we know, dealt out to the walks. */
static void seed(struct dht *dht, struct dht_lookup *lookup)
{
    struct dht_contact contacts[DHT_REPLICAS];
    size_t count = dht_table_closest(&dht->table, &lookup->target, true, contacts, DHT_REPLICAS);
    if (count == 0)
        count = dht_table_closest(&dht->table, &lookup->target, false, contacts, DHT_REPLICAS);
    lookup->candidate_count = 0;
    for (size_t i = 0; i < count; i++)
        offer(dht, lookup, &contacts[i], (unsigned)(i % lookup->walks));
}

size_t dht_lookup_closest(const struct dht_lookup *lookup, bool all, struct dht_contact *ret_contacts, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < lookup->candidate_count && count < max; i++) {
        uint8_t state = lookup->candidates[i].state;
        if (state == DHT_ANSWERED || (all && state != DHT_FAILED && state != DHT_ASKED_SLOW))
            ret_contacts[count++] = lookup->candidates[i].contact;
    }
    return count;
}

/* ---- records ---- */

/* Are there as many live records as were asked for? *ret_last is then the rank of the last of them. */
static bool is_satisfied(const struct dht_lookup *lookup, struct dht_rank *ret_last)
{
    size_t at;
    if (!dht_set_nth_live(&lookup->found, lookup->options.limit - 1, &at))
        return false;
    *ret_last = dht_record_rank(lookup->found.records[at], lookup->options.order, NULL);
    return true;
}

/* The signature is checked only of what is new to us: replicas mostly say the same. */
static void take_record(struct dht *dht, struct dht_lookup *lookup, const struct dht_record *record,
                        const struct dht_span *span)
{
    const struct dht_record *known = dht_set_find(&lookup->found, &record->member);
    if (known && dht_record_compare(record, known) <= 0)
        return;
    if (dht_record_is_signed(record, span->at, span->len, &dht->config.signatures))
        dht_set_add(&lookup->found, record);
    else
        dht->stats.bad_records++;
}

static bool decode_timely(struct dht *dht, const struct dht_span *span, struct dht_record *ret_record)
{
    bool good = dht_record_decode(span->at, span->len, ret_record) &&
                dht_record_is_timely(ret_record, dht_wall_ms(dht)) && !dht_is_revoked(dht, &ret_record->member);
    if (!good)
        dht->stats.bad_records++;
    return good;
}

static void take_lease(struct dht *dht, const struct dht_span *span)
{
    struct dht_record lease;
    if (decode_timely(dht, span, &lease) && lease.kind == DHT_NODE &&
        dht_record_is_signed(&lease, span->at, span->len, &dht->config.signatures))
        dht_get_note_lease(dht, &lease);
}

static int ask_value(struct dht *dht, struct dht_lookup *lookup, const struct dht_contact *to,
                     const struct dht_rank *after, dht_rpc_cb cb)
{
    size_t limit = lookup->options.limit;
    struct dht_message request = {
        .type = DHT_FIND_VALUE,
        .parts = 1,
        .target = lookup->target,
        .order = (uint8_t)lookup->options.order,
        .limit = (uint8_t)(limit < UINT8_MAX ? limit : UINT8_MAX),
        .contacts_wanted = after ? 0 : DHT_REPLICAS,
        .want_lease = lookup->options.want_lease,
        .ranged = after,
    };
    if (after)
        request.after = *after;
    return dht_rpc_ask(dht, to, &request, cb, lookup);
}

static void on_page(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                    const struct dht_message *reply);

/* Take the records of a holder, and ask it for the next ones while they may belong to the answer. */
static void take_values(struct dht *dht, struct dht_lookup *lookup, const struct dht_contact *peer,
                        const struct dht_message *reply)
{
    struct dht_rank last = {0};
    for (size_t i = 0; i < reply->lease_count; i++)
        take_lease(dht, &reply->leases[i]);
    for (size_t i = 0; i < reply->record_count; i++) {
        struct dht_record record;
        uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
        struct dht_span whole = {bytes, dht_record_unbrief(&lookup->target, &reply->records[i], bytes)};
        if (!decode_timely(dht, &whole, &record))
            continue;
        take_record(dht, lookup, &record, &whole);
        last = dht_record_rank(&record, lookup->options.order, NULL);
    }
    struct dht_rank end;
    bool wanted = !is_satisfied(lookup, &end) || dht_rank_compare(&last, &end) < 0;
    if (!reply->more || reply->record_count == 0 || !wanted ||
        lookup->queries >= DHT_QUERIES_MAX + lookup->options.limit)
        return;
    lookup->queries++;
    if (ask_value(dht, lookup, peer, &last, on_page) == 0)
        lookup->pages++;
}

static void on_page(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                    const struct dht_message *reply)
{
    struct dht_lookup *lookup = owner;
    if (event == DHT_RPC_SLOW)
        return;
    lookup->stirred = true;
    lookup->pages--;
    if (event == DHT_RPC_REPLY && reply->type == DHT_VALUES)
        take_values(dht, lookup, peer, reply);
}

/* ---- the walks ---- */

static void on_event(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                     const struct dht_message *reply)
{
    struct dht_lookup *lookup = owner;
    struct dht_candidate *candidate = find(lookup, &peer->id);
    lookup->stirred = true;
    if (!candidate)
        return; /* crowded out by closer ones */
    if (event != DHT_RPC_REPLY) {
        candidate->state = event == DHT_RPC_SLOW ? DHT_ASKED_SLOW : DHT_FAILED;
        return;
    }
    if (reply->type == DHT_REFUSED) {
        candidate->state = DHT_FAILED;
        return;
    }
    candidate->state = DHT_ANSWERED;
    unsigned walk = candidate->walk;
    for (size_t i = 0; i < reply->contact_count; i++)
        if (dht_contact_is_acceptable(dht, &reply->contacts[i]))
            offer(dht, lookup, &reply->contacts[i], walk);
    if (reply->type == DHT_VALUES)
        take_values(dht, lookup, peer, reply);
}

static int ask(struct dht *dht, struct dht_lookup *lookup, struct dht_candidate *candidate)
{
    struct dht_message request = {.type = DHT_FIND_NODE, .target = lookup->target};
    int status = lookup->reads ? ask_value(dht, lookup, &candidate->contact, NULL, on_event)
                               : dht_rpc_ask(dht, &candidate->contact, &request, on_event, lookup);
    if (status == 0) {
        candidate->state = DHT_ASKED;
        lookup->queries++;
    }
    return status;
}

/* Ask the next of this walk, as many as may be in flight. True when the walk is over. */
static bool advance(struct dht *dht, struct dht_lookup *lookup, unsigned walk)
{
    unsigned parallel = DHT_PARALLEL / lookup->walks;
    unsigned in_flight = 0;
    for (size_t i = 0; i < lookup->candidate_count; i++)
        in_flight += lookup->candidates[i].walk == walk && lookup->candidates[i].state == DHT_ASKED;

    unsigned answered = 0;
    bool waiting = false;
    bool slow = false;
    for (size_t i = 0; i < lookup->candidate_count && answered < DHT_ENOUGH; i++) {
        struct dht_candidate *candidate = &lookup->candidates[i];
        if (candidate->walk != walk)
            continue;
        if (candidate->state == DHT_NEW && lookup->queries < DHT_QUERIES_MAX) {
            waiting = true;
            if (in_flight < parallel && ask(dht, lookup, candidate) == 0)
                in_flight++;
        }
        answered += candidate->state == DHT_ANSWERED;
        waiting |= candidate->state == DHT_ASKED;
        slow |= candidate->state == DHT_ASKED_SLOW;
    }
    lookup->starved |= waiting && in_flight == 0;
    return !waiting && (!slow || answered == DHT_ENOUGH);
}

static void widen(struct dht *dht, struct dht_lookup *lookup)
{
    dht_rpc_abandon(dht, lookup);
    lookup->walks = DHT_WALKS;
    lookup->queries = 0;
    lookup->pages = 0;
    seed(dht, lookup);
}

static bool all_walks_over(struct dht *dht, struct dht_lookup *lookup)
{
    bool over = lookup->pages == 0;
    for (unsigned walk = 0; walk < lookup->walks; walk++)
        over &= advance(dht, lookup, walk);
    return over;
}

static void go_on(struct dht *dht, struct dht_lookup *lookup)
{
    struct dht_rank last;
    lookup->stirred = false;
    lookup->starved = false;
    lookup->finished = dht->now_ms >= lookup->deadline_ms ||
                       (lookup->options.first_is_enough && is_satisfied(lookup, &last)) || all_walks_over(dht, lookup);
    bool widens = lookup->finished && lookup->reads && lookup->found.count == 0 && lookup->walks == 1 &&
                  lookup->candidate_count > 0 && dht->now_ms < lookup->deadline_ms;
    if (widens) {
        widen(dht, lookup);
        lookup->finished = all_walks_over(dht, lookup);
    }
}

struct dht_lookup *dht_lookup_start(struct dht *dht, const struct id *target, unsigned walks,
                                    const struct dht_get_options *options, uint64_t timeout_ms, dht_lookup_cb cb,
                                    void *owner)
{
    struct dht_lookup *lookup = calloc(1, sizeof *lookup);
    if (!lookup)
        return NULL;
    lookup->target = *target;
    lookup->walks = walks;
    lookup->deadline_ms = dht->now_ms + timeout_ms;
    lookup->reads = options;
    if (options) {
        lookup->options = *options;
        dht_set_init(&lookup->found, options->order, 2 * options->limit + DHT_REPLICAS); /* room for tombstones */
    }
    lookup->cb = cb;
    lookup->owner = owner;
    TAILQ_INSERT_TAIL(&dht->lookups, lookup, link);
    dht_table_touch(&dht->table, target, dht->now_ms);
    seed(dht, lookup);
    all_walks_over(dht, lookup);
    lookup->stirred = true; /* if it is over already, the next tick says so */
    return lookup;
}

static void free_lookup(struct dht_lookup *lookup)
{
    dht_set_release(&lookup->found);
    free(lookup);
}

void dht_lookup_cancel(struct dht *dht, struct dht_lookup *lookup)
{
    TAILQ_REMOVE(&dht->lookups, lookup, link);
    dht_rpc_abandon(dht, lookup);
    free_lookup(lookup);
}

static struct dht_lookup *first_finished(struct dht *dht)
{
    struct dht_lookup *lookup;
    TAILQ_FOREACH (lookup, &dht->lookups, link)
        if (lookup->finished)
            break;
    return lookup;
}

/* What a callback starts is not finished before the next tick, so this ends. */
void dht_lookup_tick(struct dht *dht)
{
    struct dht_lookup *lookup;
    TAILQ_FOREACH (lookup, &dht->lookups, link)
        if (lookup->stirred || lookup->starved || dht->now_ms >= lookup->deadline_ms)
            go_on(dht, lookup);
    while ((lookup = first_finished(dht))) {
        TAILQ_REMOVE(&dht->lookups, lookup, link);
        dht_rpc_abandon(dht, lookup);
        lookup->cb(dht, lookup, lookup->owner);
        free_lookup(lookup);
    }
}

#define STARVED_AGAIN_MS 50

uint64_t dht_lookup_next_ms(const struct dht *dht)
{
    uint64_t next = UINT64_MAX;
    const struct dht_lookup *lookup;
    TAILQ_FOREACH (lookup, &dht->lookups, link) {
        next = dht_min_ms(next, lookup->deadline_ms);
        if (lookup->stirred)
            return dht->now_ms;
        if (lookup->starved)
            next = dht_min_ms(next, dht->now_ms + STARVED_AGAIN_MS);
    }
    return next;
}
