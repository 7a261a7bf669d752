#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

/* No write tokens, as other Kademlias have them: `from` has proved its key and its address to the envelope below, so a
 * request cannot come from somebody else's address and no answer can be drawn upon a victim (faults 9, 11). */

#define CONTACTS_WITH_RECORDS 4 /* the closest, so that there is room for records */

/* The good contacts closest to the target, without the asker. */
static void add_contacts(struct dht *dht, const struct dht_contact *from, const struct id *target, size_t wanted,
                         struct dht_message *answer)
{
    struct dht_contact contacts[DHT_REPLICAS + 1];
    size_t count = dht_table_closest(&dht->table, target, true, contacts, wanted + 1);
    for (size_t i = 0; i < count && answer->contact_count < wanted; i++)
        if (!id_equal(&contacts[i].id, &from->id))
            answer->contacts[answer->contact_count++] = contacts[i];
}

static void serve_ping(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    dht_rpc_answer(dht, from, request->transaction, &(struct dht_message){.type = DHT_PONG});
}

static void serve_find_node(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    struct dht_message answer = {.type = DHT_NODES};
    add_contacts(dht, from, &request->target, DHT_REPLICAS, &answer);
    dht_rpc_answer(dht, from, request->transaction, &answer);
}

struct pick {
    struct dht_rank rank;
    size_t len;
    uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
};

/* The first few records of a key beyond the cursor. */
struct picking {
    struct dht *dht;
    const struct dht_message *request;
    struct pick picks[DHT_ITEMS_MAX];
    size_t count;
    size_t max;
    uint32_t total;
    size_t beyond; /* records beyond the cursor */
};

static void keep_if_early(struct picking *picking, const struct dht_rank *rank, const uint8_t *bytes, size_t len)
{
    size_t at = picking->count;
    while (at > 0 && dht_rank_compare(rank, &picking->picks[at - 1].rank) < 0)
        at--;
    if (at >= picking->max)
        return;
    if (picking->count < picking->max)
        picking->count++;
    struct pick *pick = &picking->picks[at];
    memmove(pick + 1, pick, (picking->count - at - 1) * sizeof *pick);
    pick->rank = *rank;
    pick->len = len;
    memcpy(pick->bytes, bytes, len);
}

static bool pick_record(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len)
{
    struct picking *picking = ctx;
    struct dht_record record;
    if (!id_equal(key, &picking->request->target))
        return false;
    if (!dht_record_decode(bytes, len, &record) || !dht_record_is_timely(&record, dht_wall_ms(picking->dht)) ||
        dht_is_revoked(picking->dht, member))
        return true;
    picking->total++;
    struct dht_rank rank = dht_record_rank(&record, picking->request->order, NULL);
    if (picking->request->ranged && dht_rank_compare(&rank, &picking->request->after) <= 0)
        return true;
    picking->beyond++;
    keep_if_early(picking, &rank, bytes, len);
    return true;
}

/* Append the lease of a member if one is held that has not lapsed. */
static bool held_lease(struct dht *dht, const struct id *member, struct buf *out)
{
    struct id key = dht_key(DHT_NODE, member->b, sizeof member->b);
    struct dht_record lease;
    bool held = dht_hold_get(dht, &key, member, &lease) && dht_record_is_timely(&lease, dht_wall_ms(dht));
    if (held && !lease.tombstone)
        dht_record_encode(&lease, out);
    return held && !lease.tombstone && !out->failed;
}

/* Records as they fit, each with its member's lease if that is wanted and here: a second page costs one message more,
 * a lease that has to be looked for a whole walk. The first record goes even if its lease does not fit. */
static void add_records(struct picking *picking, struct dht_message *answer, struct buf *leases)
{
    size_t room = DHT_MESSAGE_MAX_BYTES - DHT_MESSAGE_HEADER_BYTES - 8 - answer->contact_count * DHT_CONTACT_WIRE_BYTES;
    size_t starts[DHT_ITEMS_MAX];
    for (size_t i = 0; i < picking->count; i++) {
        const struct pick *pick = &picking->picks[i];
        size_t start = leases->len;
        bool lease = picking->request->want_lease && held_lease(picking->dht, &pick->rank.member, leases);
        size_t lease_bytes = lease ? 2 + leases->len - start : 0;
        if (i == 0 && 2 + pick->len + lease_bytes > room)
            lease_bytes = 0;
        if (2 + pick->len + lease_bytes > room)
            break;
        room -= 2 + pick->len + lease_bytes;
        answer->records[answer->record_count++] = dht_record_brief(pick->bytes, pick->len);
        if (lease_bytes > 0) {
            starts[answer->lease_count] = start;
            answer->leases[answer->lease_count++].len = lease_bytes - 2;
        }
    }
    for (size_t i = 0; i < answer->lease_count; i++)
        answer->leases[i].at = leases->data + starts[i];
    answer->more = picking->beyond > answer->record_count;
    answer->total = picking->total;
}

static void serve_find_value(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    struct picking picking = {
        .dht = dht,
        .request = request,
        .max = request->limit < DHT_ITEMS_MAX ? request->limit : DHT_ITEMS_MAX,
    };
    const struct dht_storage *storage = &dht->config.storage;
    if (dht_hold_of_key(dht, &request->target))
        storage->each(storage->ctx, &request->target, pick_record, &picking);

    struct dht_message answer = {.type = DHT_VALUES, .parts = 1};
    size_t wanted = request->contacts_wanted;
    if (picking.count > 0 && wanted > CONTACTS_WITH_RECORDS)
        wanted = CONTACTS_WITH_RECORDS;
    add_contacts(dht, from, &request->target, wanted, &answer);
    OWNED(buf_release) struct buf leases = BUF(DHT_ITEMS_MAX * LIMIT_DHT_RECORD_BYTES);
    add_records(&picking, &answer, &leases);
    dht_rpc_answer(dht, from, request->transaction, &answer);
}

static void serve_store(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    struct dht_message answer = {.type = DHT_STORED, .record_count = request->record_count};
    size_t room = DHT_MESSAGE_MAX_BYTES - DHT_MESSAGE_HEADER_BYTES - 5 - 3 * request->record_count;
    uint8_t newer_bytes[DHT_MESSAGE_MAX_BYTES];
    size_t used = 0;
    for (size_t i = 0; i < request->record_count; i++) {
        OWNED(buf_release) struct buf newer = BUF(LIMIT_DHT_RECORD_BYTES);
        answer.status[i] = (uint8_t)dht_hold_put(dht, request->records[i].at, request->records[i].len, false, &newer);
        if (answer.status[i] == DHT_SLOW_DOWN)
            answer.wait_ms = 10000;
        answer.records[i].at = newer_bytes + used;
        if (newer.len > 0 && newer.len <= room - used) {
            memcpy(newer_bytes + used, newer.data, newer.len);
            answer.records[i].len = newer.len;
            used += newer.len;
        }
    }
    dht_rpc_answer(dht, from, request->transaction, &answer);
}

void dht_serve(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    uint32_t wait_ms = dht_allowance_take(dht, &from->id, 1);
    if (wait_ms > 0) {
        dht->stats.refused++;
        dht_rpc_answer(dht, from, request->transaction, &(struct dht_message){.type = DHT_REFUSED, .wait_ms = wait_ms});
        return;
    }
    dht->stats.answered++;
    switch (request->type) {
    case DHT_PING:
        serve_ping(dht, from, request);
        break;
    case DHT_FIND_NODE:
        serve_find_node(dht, from, request);
        break;
    case DHT_FIND_VALUE:
        serve_find_value(dht, from, request);
        break;
    case DHT_STORE:
        serve_store(dht, from, request);
        break;
    case DHT_WATCH:
        dht_watchers_serve(dht, from, request);
        break;
    case DHT_NOTIFY:
        dht_watch_serve_notify(dht, from, request);
        break;
    }
}
