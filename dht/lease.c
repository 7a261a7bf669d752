/*
 * The lease of this node: "I live, here", signed, good for two minutes, under the node's own id. It goes to the four
 * neighbours that are closest to us each minute, in a message that nobody answers; one that is lost is made good by the
 * next before the lease is over. When we join or move it goes to eight, as a STORE, so that it arrives.
 */
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

#define HOLDERS 4
#define HOLDERS_ANNOUNCED 8
#define RENEW_JITTER_MS 10000u /* before DHT_LEASE_RENEW_MS */
#define RETRY_MS 5000u

/* It has said that it goes: nobody waits for it any more. */
static void part_from(struct dht *dht, const struct dht_contact *contact)
{
    dht_table_remove(&dht->table, &contact->id);
    dht_region_changed(dht, &contact->id);
    dht_reconcile_lost(dht, &contact->id);
}

void dht_lease_input(struct dht *dht, const struct dht_contact *from, const struct dht_span *span)
{
    struct dht_record lease;
    if (!dht_record_decode(span->at, span->len, &lease) || lease.kind != DHT_NODE) {
        dht->stats.bad_records++;
        return;
    }
    bool own = id_equal(&lease.member, &from->id);
    if (dht_hold_put(dht, span->at, span->len, own, NULL) == DHT_ACCEPTED && own && lease.tombstone)
        part_from(dht, from);
}

/* A version above all of ours that are known. */
static int next_version(struct dht *dht, struct dht_version *ret_version)
{
    struct dht_record present;
    struct dht_version version = {0};
    int status = dht_stamp_counter(dht, &version.counter);
    struct id key = dht_lease_key(&dht->self.id);
    if (dht_hold_get(dht, &key, &dht->self.id, &present) && dht_version_compare(&version, &present.version) <= 0)
        version = (struct dht_version){present.version.epoch, present.version.counter + 1};
    *ret_version = version;
    return status;
}

/* Sign a new one and hold it, so that it is what we answer to who asks for our id. */
static int sign_lease(struct dht *dht, bool tombstone, struct buf *out)
{
    struct dht_record lease = {
        .key = dht_lease_key(&dht->self.id),
        .kind = DHT_NODE,
        .tombstone = tombstone,
        .expiry_wall_ms = dht_wall_ms(dht) + DHT_LEASE_TTL_MS,
        .place = dht_place(dht, NULL),
    };
    OWNED(buf_release) struct buf data = BUF(DHT_DATA_MAX_BYTES);
    bool reachable = addr_is_usable(&dht->self.addr) && !dht->config.client;
    wire_put_u8(&data, reachable);
    if (reachable) {
        lease.addr = dht->self.addr;
        addr_put(&data, &dht->self.addr);
    }
    int status = data.failed ? ERR_NOMEM : next_version(dht, &lease.version);
    if (status < 0)
        return status;
    memcpy(lease.data, data.data, data.len);
    lease.data_len = data.len;
    status = dht_record_sign(&lease, dht->self.public_key, &dht->config.signatures);
    if (status < 0)
        return status;
    dht_record_encode(&lease, out);
    if (out->failed)
        return ERR_NOMEM;
    dht_hold_put(dht, out->data, out->len, true, NULL);
    return 0;
}

static void tell_closest(struct dht *dht, const struct dht_span *lease, size_t holders)
{
    struct dht_contact closest[HOLDERS_ANNOUNCED];
    struct dht_message message = {.type = DHT_LEASE, .records = {*lease}, .record_count = 1};
    size_t count = dht_table_closest(&dht->table, &dht->self.id, true, closest, holders);
    for (size_t i = 0; i < count; i++)
        dht_rpc_tell(dht, &closest[i], &message);
}

static bool announce(struct dht *dht, const struct dht_span *lease)
{
    struct dht_contact closest[HOLDERS_ANNOUNCED];
    size_t count = dht_table_closest(&dht->table, &dht->self.id, true, closest, HOLDERS_ANNOUNCED);
    bool sent = false;
    for (size_t i = 0; i < count; i++)
        sent |= dht_push_to(dht, &closest[i], lease, NULL, NULL) == 0;
    return sent;
}

static void renew(struct dht *dht)
{
    struct dht_leasing *leasing = &dht->leasing;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    leasing->due_ms = dht->now_ms + RETRY_MS;
    if (sign_lease(dht, false, &bytes) < 0)
        return;
    struct dht_span lease = {bytes.data, bytes.len};
    if (leasing->announced)
        tell_closest(dht, &lease, HOLDERS);
    else if (!announce(dht, &lease))
        return;
    leasing->announced = true;
    leasing->due_ms = dht->now_ms + DHT_LEASE_RENEW_MS - rng_below(&dht->config.rng, RENEW_JITTER_MS);
}

void dht_leave(struct dht *dht, uint64_t now_ms)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    dht_set_now(dht, now_ms);
    if (sign_lease(dht, true, &bytes) == 0)
        tell_closest(dht, &(struct dht_span){bytes.data, bytes.len}, HOLDERS_ANNOUNCED);
    dht->leasing.due_ms = UINT64_MAX;
}

void dht_lease_moved(struct dht *dht)
{
    dht->leasing.announced = false;
    dht->leasing.due_ms = dht->now_ms;
}

void dht_lease_overtaken(struct dht *dht, const struct dht_record *newer)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    dht_record_encode(newer, &bytes);
    if (!bytes.failed)
        dht_hold_put(dht, bytes.data, bytes.len, false, NULL);
    dht->leasing.due_ms = dht->now_ms;
}

void dht_lease_tick(struct dht *dht)
{
    struct dht_leasing *leasing = &dht->leasing;
    if (dht->upkeep.joined && !leasing->joined)
        dht_lease_moved(dht);
    leasing->joined = dht->upkeep.joined;
    if (leasing->joined && dht->now_ms >= leasing->due_ms)
        renew(dht);
}

uint64_t dht_lease_next_ms(const struct dht *dht)
{
    if (!dht->upkeep.joined)
        return UINT64_MAX;
    return dht->leasing.joined ? dht->leasing.due_ms : dht->now_ms;
}
