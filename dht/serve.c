#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define WORK_OF_A_REQUEST 256 /* rows looked at, about 10 us, cost as much as one more request */

/* No write tokens, as other Kademlias have them: `from` has proved its key and its address to the envelope below, so a
 * request cannot come from somebody else's address and no answer can be drawn upon a victim (faults 9, 11). */

void dht_serve_contacts(struct dht *dht, const struct dht_contact *from, const struct id *target, size_t wanted,
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
    dht_serve_contacts(dht, from, &request->target, DHT_REPLICAS, &answer);
    dht_rpc_answer(dht, from, request->transaction, &answer);
}

static void serve_store(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    struct dht_message answer = {.type = DHT_STORED, .record_count = request->record_count};
    size_t room = DHT_MESSAGE_MAX_BYTES - DHT_MESSAGE_HEADER_BYTES - DHT_PLACED_BYTES - 5 - 3 * request->record_count;
    uint8_t newer_bytes[DHT_MESSAGE_MAX_BYTES];
    size_t used = 0;
    for (size_t i = 0; i < request->record_count; i++) {
        const struct dht_span *record = &request->records[i];
        OWNED(buf_release) struct buf newer = BUF(LIMIT_DHT_RECORD_BYTES);
        answer.status[i] =
            (uint8_t)dht_hold_put(dht, record->at, record->len, dht_record_is_by(record, from->public_key), &newer);
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

static void dispatch(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    switch (request->type) {
    case DHT_PING:
        serve_ping(dht, from, request);
        break;
    case DHT_FIND_NODE:
        serve_find_node(dht, from, request);
        break;
    case DHT_FIND_VALUE:
        dht_values_serve(dht, from, request);
        break;
    case DHT_STORE:
        serve_store(dht, from, request);
        break;
    case DHT_LEASE:
        dht_lease_input(dht, from, &request->records[0]);
        break;
    case DHT_COMPARE:
        dht_compare_serve(dht, from, request);
        break;
    case DHT_WATCH:
        dht_watchers_serve(dht, from, request);
        break;
    case DHT_NOTIFY:
        dht_watch_serve_notify(dht, from, request);
        break;
    }
}

/* A page of a large set in an order that has no tree, a digest of one that has changed, forged records: whoever asks
 * for much of it asks less often. */
void dht_serve(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    uint32_t wait_ms = dht_allowance_take(dht, &from->id, 1);
    if (wait_ms > 0) {
        dht->stats.refused++;
        if (request->type != DHT_LEASE)
            dht_rpc_answer(dht, from, request->transaction,
                           &(struct dht_message){.type = DHT_REFUSED, .wait_ms = wait_ms});
        return;
    }
    dht->stats.answered++;
    uint64_t work = dht->hold.work;
    dispatch(dht, from, request);
    dht_allowance_take(dht, &from->id, (unsigned)((dht->hold.work - work) / WORK_OF_A_REQUEST));
}
