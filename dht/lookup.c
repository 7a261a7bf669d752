/*
 * A candidate's states:
 *
 *   NEW --ask--> ASKED --slow--> ASKED_SLOW
 *                  |                 |
 *                  +----> ANSWERED <-+        or FAILED from either
 *
 * Each candidate belongs to the walk that heard of it first, so no node is in two walks: a liar can mislead the walks
 * that it is in and no others (S/Kademlia, Baumgart and Mies 2007). A walk is over when the closest one of its
 * candidates that did not fail has answered, or, of a single walk, the closest four; a slow one is passed over as long
 * as others are left.
 *
 * A read gathers on the way. When holders told it different things, each is given what it did not have.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

#define STARVED_AGAIN_MS 50

/* Something happened to it: the next tick looks at it. */
static void stir(struct dht *dht, struct dht_lookup *lookup)
{
    if (lookup->stirred)
        return;
    lookup->stirred = true;
    lookup->stirred_round = dht->lookups.round;
    TAILQ_INSERT_TAIL(&dht->lookups.stirred, lookup, stirred_link);
}

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
    for (size_t i = 0; dht->config.block_per_table && i < lookup->candidate_count; i++)
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

/* Who has answered us is asked there, wherever others say that it is (faults 17). */
static void offer_heard_of(struct dht *dht, struct dht_lookup *lookup, const struct dht_contact *contact, unsigned walk)
{
    const struct addr *proved = dht_table_addr(&dht->table, contact);
    struct dht_contact candidate = *contact;
    if (proved)
        candidate.addr = *proved;
    offer(dht, lookup, &candidate, walk);
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

bool dht_lookup_is_deeper(const struct dht_lookup *lookup)
{
    size_t holders = 0, said = 0;
    for (size_t i = 0; i < lookup->candidate_count; i++) {
        holders += lookup->candidates[i].total > 0;
        said += lookup->candidates[i].deeper;
    }
    return said >= 2 || (said > 0 && said >= holders);
}

/* ---- records ---- */

/* Are there as many live records as were asked for? *ret_last is then the rank of the last of them. */
static bool is_satisfied(const struct dht *dht, const struct dht_lookup *lookup, struct dht_rank *ret_last)
{
    size_t at;
    if (!dht_set_nth_live(&lookup->found, lookup->options.limit - 1, dht_wall_ms(dht), &at))
        return false;
    *ret_last = dht_set_rank(&lookup->found, lookup->found.records[at]);
    return true;
}

/* The signature is checked only of what is new to us: replicas mostly say the same. */
static void take_record(struct dht *dht, struct dht_lookup *lookup, const struct dht_record *record,
                        const struct dht_span *span)
{
    const struct dht_record *known = dht_set_find(&lookup->found, &record->member);
    if (known && dht_record_compare(record, known) <= 0)
        return;
    if (!dht_record_is_signed(record, span->at, span->len, &dht->config.signatures)) {
        dht->stats.bad_records++;
        return;
    }
    dht_set_add(&lookup->found, record);
    if (dht_is_by_hand(record->kind))
        dht_publish_seen(dht, &record->version);
}

static bool decode_timely(struct dht *dht, const struct dht_span *span, struct dht_record *ret_record)
{
    bool good = dht_record_decode(span->at, span->len, ret_record) &&
                dht_record_is_timely(ret_record, dht_wall_ms(dht)) && !dht_is_by_revoked(dht, ret_record);
    if (!good)
        dht->stats.bad_records++;
    return good;
}

static void take_lease(struct dht *dht, const struct dht_span *span)
{
    struct dht_record lease;
    if (decode_timely(dht, span, &lease) && lease.kind == DHT_NODE &&
        dht_record_is_signed(&lease, span->at, span->len, &dht->config.signatures))
        dht_alive_note(dht, &lease);
}

static int ask_value(struct dht *dht, struct dht_lookup *lookup, const struct dht_contact *to,
                     const struct dht_rank *after, dht_rpc_cb cb)
{
    const struct dht_set *found = &lookup->found;
    size_t limit = lookup->options.limit;
    struct dht_message request = {
        .type = DHT_FIND_VALUE,
        .parts = (uint8_t)(limit < DHT_PARTS_MAX ? limit : DHT_PARTS_MAX),
        .target = lookup->target,
        .order = (uint8_t)lookup->options.order,
        .limit = (uint16_t)limit,
        .contacts_wanted = after ? 0 : DHT_REPLICAS,
        .want_lease = lookup->options.want_lease,
        .want_digest = lookup->surveys,
        .ranged = after || found->ranged,
    };
    if (request.ranged) {
        request.after = after ? *after : found->after;
        memset(&request.until, 0xff, sizeof request.until);
    }
    return dht_rpc_ask(dht, to, &request, cb, lookup);
}

/* Any two records of the key differ in this, but for what a liar would make: it only decides who is given what. */
static uint64_t mark_of(const struct dht_record *record)
{
    uint64_t mark = wire_load_u64(record->member.b) ^ record->version.epoch * 0x9e3779b97f4a7c15u;
    mark ^= record->version.counter * 0xc2b2ae3d27d4eb4fu ^ record->expiry_wall_ms * 0x165667b19e3779f9u;
    return mark * 0xff51afd7ed558ccdu + record->tombstone;
}

/* Take the records of one part of an answer. */
static void take_values(struct dht *dht, struct dht_lookup *lookup, struct dht_candidate *holder,
                        const struct dht_message *reply)
{
    holder->total = reply->total;
    holder->deeper = reply->deeper;
    if (reply->has_digest) {
        holder->surveyed = true;
        memcpy(holder->digest, reply->digest, sizeof holder->digest);
    }
    for (size_t i = 0; i < reply->lease_count; i++)
        take_lease(dht, &reply->leases[i]);
    for (size_t i = 0; i < reply->record_count; i++) {
        struct dht_record record;
        uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
        struct dht_span whole = {bytes, dht_record_unbrief(&lookup->target, &reply->records[i], bytes)};
        if (!decode_timely(dht, &whole, &record))
            continue;
        take_record(dht, lookup, &record, &whole);
        holder->told += mark_of(&record);
        struct dht_rank rank = dht_set_rank(&lookup->found, &record);
        if (!record.meta && (!holder->ranked || dht_rank_compare(&holder->last, &rank) < 0)) {
            holder->ranked = true;
            holder->last = rank;
        }
    }
}

static void on_page(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                    const struct dht_message *reply);

/* A holder has told all that it was asked for: ask for the next records while they may belong to the answer. */
static void turn_page(struct dht *dht, struct dht_lookup *lookup, struct dht_candidate *holder,
                      const struct dht_message *reply)
{
    struct dht_rank end;
    bool told = holder->ranked && (!holder->paged || dht_rank_compare(&holder->asked, &holder->last) < 0);
    bool wanted = !is_satisfied(dht, lookup, &end) || dht_rank_compare(&holder->last, &end) < 0;
    holder->more = reply->more;
    if (!reply->more || lookup->surveys || !told || !wanted ||
        lookup->queries >= DHT_QUERIES_MAX + lookup->options.limit)
        return;
    lookup->queries++;
    holder->paged = true;
    holder->asked = holder->last;
    if (ask_value(dht, lookup, &holder->contact, &holder->last, on_page) == 0)
        lookup->pages++;
}

static void on_page(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                    const struct dht_message *reply)
{
    struct dht_lookup *lookup = owner;
    struct dht_candidate *holder = find(lookup, &peer->id);
    if (event == DHT_RPC_SLOW)
        return;
    stir(dht, lookup);
    if (holder && reply && reply->type == DHT_VALUES)
        take_values(dht, lookup, holder, reply);
    if (event == DHT_RPC_PART)
        return;
    lookup->pages--;
    if (holder && reply && reply->type == DHT_VALUES)
        turn_page(dht, lookup, holder, reply);
}

/* ---- repair ---- */

/* That of the set is known while its shards are read too, and is none of their holders' business. */
static const struct dht_record *meta_of(const struct dht_lookup *lookup)
{
    const struct dht_record *meta = lookup->found.meta;
    return meta && id_equal(&meta->key, &lookup->target) ? meta : NULL;
}

/* The records found, if all of them fit into one message: larger sets are left to the neighbours' comparing. */
static size_t spans_of(const struct dht_lookup *lookup, struct buf *bytes, struct dht_span spans[DHT_ITEMS_MAX])
{
    const struct dht_set *found = &lookup->found;
    const struct dht_record *meta = meta_of(lookup);
    size_t starts[DHT_ITEMS_MAX];
    size_t count = found->count + (meta != NULL);
    if (count > DHT_ITEMS_MAX)
        return 0;
    for (size_t i = 0; i < count; i++) {
        starts[i] = bytes->len;
        dht_record_encode(i < found->count ? found->records[i] : meta, bytes);
        spans[i].len = bytes->len - starts[i];
    }
    for (size_t i = 0; i < count; i++)
        spans[i].at = bytes->data + starts[i];
    return bytes->failed ? 0 : count;
}

/* Give the records to those of the closest that told something else. What a read found has been checked. */
static void repair(struct dht *dht, const struct dht_lookup *lookup)
{
    struct dht_message store = {.type = DHT_STORE};
    const struct dht_set *found = &lookup->found;
    OWNED(buf_release) struct buf bytes = BUF(DHT_MESSAGE_MAX_BYTES - DHT_MESSAGE_HEADER_BYTES - 1 - 2 * DHT_ITEMS_MAX);
    const struct dht_record *meta = meta_of(lookup);
    uint64_t all = meta ? mark_of(meta) : 0;
    for (size_t i = 0; i < found->count; i++)
        all += mark_of(found->records[i]);
    size_t seen = 0;
    for (size_t i = 0; i < lookup->candidate_count && seen < DHT_ENOUGH; i++) {
        const struct dht_candidate *holder = &lookup->candidates[i];
        if (holder->state != DHT_ANSWERED || ++seen == 0 || holder->more || holder->told == all)
            continue;
        if (store.record_count == 0)
            store.record_count = spans_of(lookup, &bytes, store.records);
        if (store.record_count == 0)
            return;
        dht->stats.repaired++;
        dht_rpc_ask(dht, &holder->contact, &store, NULL, NULL);
    }
}

/* ---- the walks ---- */

static void on_event(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                     const struct dht_message *reply)
{
    struct dht_lookup *lookup = owner;
    struct dht_candidate *candidate = find(lookup, &peer->id);
    stir(dht, lookup);
    if (!candidate)
        return; /* crowded out by closer ones */
    if (!reply || reply->type == DHT_REFUSED) {
        candidate->state = event == DHT_RPC_SLOW ? DHT_ASKED_SLOW : DHT_FAILED;
        return;
    }
    if (reply->type == DHT_VALUES)
        take_values(dht, lookup, candidate, reply);
    unsigned walk = candidate->walk;
    if (event == DHT_RPC_REPLY) {
        candidate->state = DHT_ANSWERED;
        lookup->answers++;
        if (reply->type == DHT_VALUES)
            turn_page(dht, lookup, candidate, reply);
    }
    for (size_t i = 0; i < reply->contact_count; i++) /* moves the candidates about */
        if (dht_contact_is_acceptable(dht, &reply->contacts[i]))
            offer_heard_of(dht, lookup, &reply->contacts[i], walk);
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
    unsigned enough = lookup->walks == 1 ? DHT_ENOUGH : 1;
    unsigned in_flight = 0;
    bool late = false;
    for (size_t i = 0; i < lookup->candidate_count; i++) {
        const struct dht_candidate *candidate = &lookup->candidates[i];
        if (candidate->walk != walk)
            continue;
        in_flight += candidate->state == DHT_ASKED;
        late |= candidate->state == DHT_ASKED_SLOW || candidate->state == DHT_FAILED;
    }
    bool near =
        dht->table.count < DHT_CANDIDATES; /* in a small mesh the closest that we know is most likely a holder */
    if (near && lookup->options.first_is_enough && lookup->walks == 1 && lookup->answers == 0 && !late)
        parallel = 1; /* when it is late several are asked at once */

    unsigned answered = 0;
    unsigned hopeful = 0; /* have answered, or are expected to: nobody further away is asked meanwhile */
    bool slow = false;
    for (size_t i = 0; i < lookup->candidate_count && hopeful < enough; i++) {
        struct dht_candidate *candidate = &lookup->candidates[i];
        if (candidate->walk != walk)
            continue;
        if (candidate->state == DHT_NEW && lookup->queries < DHT_QUERIES_MAX) {
            hopeful++;
            if (in_flight < parallel && ask(dht, lookup, candidate) == 0)
                in_flight++;
            continue;
        }
        answered += candidate->state == DHT_ANSWERED;
        hopeful += candidate->state == DHT_ANSWERED || candidate->state == DHT_ASKED;
        slow |= candidate->state == DHT_ASKED_SLOW;
    }
    lookup->starved |= hopeful > answered && in_flight == 0;
    return hopeful == answered && (!slow || answered == enough);
}

static void widen(struct dht *dht, struct dht_lookup *lookup)
{
    dht_rpc_abandon(dht, lookup);
    lookup->walks = DHT_WALKS;
    lookup->queries = 0;
    lookup->answers = 0;
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
    bool late = dht->now_ms >= lookup->deadline_ms;
    lookup->starved = false;
    lookup->finished =
        late || (lookup->options.first_is_enough && is_satisfied(dht, lookup, &last)) || all_walks_over(dht, lookup);
    bool widens = lookup->finished && lookup->reads && lookup->found.count == 0 && !meta_of(lookup) &&
                  lookup->walks == 1 && lookup->candidate_count > 0 && !late;
    if (widens) {
        widen(dht, lookup);
        lookup->finished = all_walks_over(dht, lookup);
    }
    if (lookup->starved)
        dht->lookups.due_ms = dht_min_ms(dht->lookups.due_ms, dht->now_ms + STARVED_AGAIN_MS);
}

static void read_with(struct dht *dht, struct dht_lookup *lookup, const struct dht_get_options *options)
{
    lookup->reads = true;
    lookup->options = *options;
    lookup->options.after = NULL;                                                    /* borrowed for the call alone */
    dht_set_init(&lookup->found, options->order, 2 * options->limit + DHT_REPLICAS); /* room for tombstones */
    if (options->order == DHT_BY_DISTANCE)
        lookup->found.own = dht_place(dht, NULL);
    lookup->found.ranged = options->after;
    if (options->after)
        lookup->found.after = *options->after;
}

static struct dht_lookup *make(struct dht *dht, const struct id *target, unsigned walks, uint64_t timeout_ms,
                               dht_lookup_cb cb, void *owner)
{
    struct dht_lookup *lookup = calloc(1, sizeof *lookup);
    if (!lookup)
        return NULL;
    lookup->target = *target;
    lookup->walks = walks;
    lookup->deadline_ms = dht->now_ms + timeout_ms;
    lookup->cb = cb;
    lookup->owner = owner;
    TAILQ_INSERT_TAIL(&dht->lookups.all, lookup, link);
    dht->lookups.due_ms = dht_min_ms(dht->lookups.due_ms, lookup->deadline_ms);
    dht_table_touch(&dht->table, target, dht->now_ms);
    return lookup;
}

static void begin(struct dht *dht, struct dht_lookup *lookup)
{
    seed(dht, lookup);
    all_walks_over(dht, lookup);
    stir(dht, lookup); /* if it is over already, the next tick says so */
}

struct dht_lookup *dht_lookup_start(struct dht *dht, const struct id *target, unsigned walks,
                                    const struct dht_get_options *options, uint64_t timeout_ms, dht_lookup_cb cb,
                                    void *owner)
{
    struct dht_lookup *lookup = make(dht, target, walks, timeout_ms, cb, owner);
    if (!lookup)
        return NULL;
    if (options)
        read_with(dht, lookup, options);
    begin(dht, lookup);
    return lookup;
}

#define SURVEY_RECORDS 4 /* as many as fit beside contacts and digest: small sets need nothing more */

struct dht_lookup *dht_lookup_survey(struct dht *dht, const struct id *target, uint64_t timeout_ms, dht_lookup_cb cb,
                                     void *owner)
{
    struct dht_get_options few = {.limit = SURVEY_RECORDS, .order = DHT_BY_MEMBER};
    struct dht_lookup *lookup = make(dht, target, 1, timeout_ms, cb, owner);
    if (!lookup)
        return NULL;
    read_with(dht, lookup, &few);
    lookup->surveys = true;
    begin(dht, lookup);
    return lookup;
}

/* No more events come for it. */
static void take_out(struct dht *dht, struct dht_lookup *lookup)
{
    TAILQ_REMOVE(&dht->lookups.all, lookup, link);
    if (lookup->stirred)
        TAILQ_REMOVE(&dht->lookups.stirred, lookup, stirred_link);
    lookup->stirred = false;
    dht_rpc_abandon(dht, lookup);
}

static void free_lookup(struct dht_lookup *lookup)
{
    dht_set_release(&lookup->found);
    free(lookup);
}

void dht_lookup_cancel(struct dht *dht, struct dht_lookup *lookup)
{
    take_out(dht, lookup);
    free_lookup(lookup);
}

void dht_lookup_init(struct dht *dht)
{
    TAILQ_INIT(&dht->lookups.all);
    TAILQ_INIT(&dht->lookups.stirred);
    dht->lookups.due_ms = UINT64_MAX;
}

void dht_lookup_release(struct dht *dht)
{
    while (!TAILQ_EMPTY(&dht->lookups.all))
        dht_lookup_cancel(dht, TAILQ_FIRST(&dht->lookups.all));
}

/* Some are late or starved: look at all of them, and for when that is the case again. */
static void stir_the_due(struct dht *dht)
{
    struct dht_lookup *lookup;
    dht->lookups.due_ms = UINT64_MAX;
    TAILQ_FOREACH (lookup, &dht->lookups.all, link) {
        if (lookup->starved || dht->now_ms >= lookup->deadline_ms)
            stir(dht, lookup);
        else
            dht->lookups.due_ms = dht_min_ms(dht->lookups.due_ms, lookup->deadline_ms);
    }
}

static void finish(struct dht *dht, struct dht_lookup *lookup)
{
    if (lookup->reads && !lookup->options.first_is_enough && !lookup->found.ranged && lookup->found.count > 0)
        repair(dht, lookup);
    take_out(dht, lookup);
    lookup->cb(dht, lookup, lookup->owner);
    free_lookup(lookup);
}

/* What a callback starts or stirs is left to the next tick, so this ends. */
void dht_lookup_tick(struct dht *dht)
{
    struct dht_lookups *lookups = &dht->lookups;
    struct dht_lookup *lookup;
    if (dht->now_ms >= lookups->due_ms)
        stir_the_due(dht);
    uint64_t round = lookups->round++;
    while ((lookup = TAILQ_FIRST(&lookups->stirred)) && lookup->stirred_round <= round) {
        TAILQ_REMOVE(&lookups->stirred, lookup, stirred_link);
        lookup->stirred = false;
        go_on(dht, lookup);
        if (lookup->finished)
            finish(dht, lookup);
        else
            lookups->due_ms = dht_min_ms(lookups->due_ms, lookup->deadline_ms);
    }
}

uint64_t dht_lookup_next_ms(const struct dht *dht)
{
    return TAILQ_EMPTY(&dht->lookups.stirred) ? dht->lookups.due_ms : dht->now_ms;
}
