/*
 * Records of our own. The signed record itself is kept in the storage, like everybody else's; what is remembered here
 * is that it is to be kept alive. It is given to its holders as soon as possible, and from then on by the sweep.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

#define PARALLEL 8 /* first-time publications under way */
#define RETRY_MS 5000u
#define CLOCK_AHEAD_MS (DHT_SKEW_MS / 2) /* of the saved mark, so that it is seldom written, and others take it */
#define COUNTER_BITS 16                  /* of a stamp's counter, as in the paper */
#define COUNTER_MAX ((1u << COUNTER_BITS) - 1)
#define LEASE_WALK_MS 600000u /* until then the lease goes to the same holders without a walk */

static const char clock_name[] = "clock";

int dht_publish_init(struct dht *dht, struct err *err)
{
    struct dht_publishing *publishing = &dht->publishing;
    const struct dht_storage *storage = &dht->config.storage;
    TAILQ_INIT(&publishing->queue);
    map_init(&publishing->entries, LIMIT_DHT_PUBLISHED, rng_u64(&dht->config.rng));
    OWNED(buf_release) struct buf bytes = BUF(sizeof(uint64_t));
    int found = storage->load(storage->ctx, clock_name, &bytes);
    if (found < 0)
        return err_set(err, found, "the mark of the version clock cannot be read");
    if (found && bytes.len == sizeof(uint64_t))
        publishing->clock.epoch = publishing->clock_saved = wire_load_u64(bytes.data);
    return 0;
}

void dht_publish_release(struct dht *dht)
{
    void *entry;
    for (size_t cursor = 0; map_next(&dht->publishing.entries, &cursor, NULL, &entry);)
        free(entry);
    map_release(&dht->publishing.entries);
}

/* ---- versions and records ---- */

/* The hybrid logical clock: near the wall clock, and never back, over restarts too: none of the epochs up to the saved
 * mark is used before the mark is further. */
static int stamp(struct dht *dht, struct dht_version *ret_version)
{
    struct dht_version *clock = &dht->publishing.clock;
    const struct dht_storage *storage = &dht->config.storage;
    uint64_t wall_ms = dht_wall_ms(dht);
    struct dht_version next = {clock->epoch, clock->counter + 1};
    if (wall_ms > clock->epoch)
        next = (struct dht_version){.epoch = wall_ms};
    else if (next.counter > COUNTER_MAX)
        next = (struct dht_version){.epoch = clock->epoch + 1};
    if (next.epoch > dht->publishing.clock_saved) {
        uint8_t bytes[sizeof(uint64_t)];
        wire_store_u64(bytes, next.epoch + CLOCK_AHEAD_MS);
        int status = storage->save(storage->ctx, clock_name, bytes, sizeof bytes);
        if (status < 0)
            return status;
        dht->publishing.clock_saved = next.epoch + CLOCK_AHEAD_MS;
    }
    *ret_version = *clock = next;
    return 0;
}

struct dht_version dht_stamp(struct dht *dht, uint64_t now_ms)
{
    struct dht_version version;
    dht_set_now(dht, now_ms);
    if (stamp(dht, &version) < 0) /* the mark cannot be saved: right as long as we do not restart */
        version = (struct dht_version){dht->publishing.clock.epoch, ++dht->publishing.clock.counter};
    return version;
}

/* Somebody who stamps as far ahead as others let him may not draw us with him to where some would refuse ours. */
void dht_publish_seen(struct dht *dht, const struct dht_version *version)
{
    struct dht_version *clock = &dht->publishing.clock;
    struct dht_version seen = *version;
    if (seen.counter > COUNTER_MAX)
        seen = (struct dht_version){.epoch = version->epoch + 1};
    if (seen.epoch <= dht_wall_ms(dht) + DHT_SKEW_MS / 2 && dht_version_compare(&seen, clock) > 0)
        *clock = seen;
}

/* The same as one number. */
static int next_counter(struct dht *dht, uint64_t *ret_counter)
{
    struct dht_version version;
    int status = stamp(dht, &version);
    *ret_counter = version.epoch << COUNTER_BITS | version.counter;
    return status;
}

/* A version of our own counting that is higher than `present` (NULL: none). */
static int next_version(struct dht *dht, const struct dht_record *present, struct dht_version *ret_version)
{
    struct dht_version version = {0};
    int status = next_counter(dht, &version.counter);
    if (present && dht_version_compare(&version, &present->version) <= 0) {
        version.epoch = present->version.epoch + (present->version.counter == UINT64_MAX);
        version.counter = present->version.counter + 1;
    }
    if (status == 0)
        *ret_version = version;
    return status;
}

/* Sign and keep; the record lives for ttl_ms. */
static int put_own(struct dht *dht, struct dht_record *record, uint64_t ttl_ms)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    record->expiry_wall_ms = dht_wall_ms(dht) + ttl_ms;
    int status = dht_record_sign(record, dht->self.public_key, &dht->config.signatures);
    if (status < 0)
        return status;
    dht_record_encode(record, &bytes);
    if (bytes.failed)
        return ERR_NOMEM;
    switch (dht_hold_put(dht, bytes.data, bytes.len, true, NULL)) {
    case DHT_ACCEPTED:
        return 0;
    case DHT_STALE:
        return ERR_CONFLICT;
    case DHT_FULL:
        return ERR_LIMIT;
    default:
        return ERR_IO;
    }
}

static struct dht_published *entry_of(struct dht *dht, const struct id *key)
{
    return map_get(&dht->publishing.entries, key);
}

static struct dht_published *make_entry(struct dht *dht, const struct id *key)
{
    struct dht_published *entry = entry_of(dht, key);
    if (entry)
        return entry;
    OWNED(owned_free) struct dht_published *fresh = calloc(1, sizeof *fresh);
    if (!fresh || map_set(&dht->publishing.entries, key, fresh) < 0)
        return NULL;
    fresh->key = *key;
    return STEAL(fresh);
}

static void enqueue(struct dht *dht, struct dht_published *entry)
{
    entry->again = entry->pushing;
    if (entry->queued || entry->pushing)
        return;
    entry->queued = true;
    TAILQ_INSERT_TAIL(&dht->publishing.queue, entry, link);
}

/* ---- public ---- */

static int check_value(enum dht_kind kind, const struct dht_value *value, struct err *err)
{
    if (isnan(value->score))
        return err_set(err, ERR_INVALID, "a score is not a number");
    if (value->data_len > DHT_DATA_MAX_BYTES)
        return err_set(err, ERR_INVALID, "%zu bytes of data are more than %d", value->data_len, DHT_DATA_MAX_BYTES);
    if (kind < DHT_OBJECT || kind > DHT_REVOCATION || kind == DHT_NODE)
        return err_set(err, ERR_INVALID, "records of kind %d are not published by hand", (int)kind);
    return 0;
}

static bool is_same(const struct dht_record *record, const struct dht_value *value, bool counted)
{
    return !record->tombstone && record->score == value->score && record->size == value->size &&
           (counted || dht_version_compare(&record->version, &value->version) == 0) &&
           record->data_len == value->data_len &&
           (value->data_len == 0 || memcmp(record->data, value->data, value->data_len) == 0);
}

static struct dht_record record_of(const struct id *key, enum dht_kind kind, const struct dht_value *value)
{
    struct dht_record record = {
        .key = *key,
        .kind = (uint8_t)kind,
        .score = value->score,
        .version = value->version,
        .size = value->size,
        .data_len = value->data_len,
    };
    if (value->data_len > 0)
        memcpy(record.data, value->data, value->data_len);
    return record;
}

int dht_publish(struct dht *dht, uint64_t now_ms, const struct id *key, enum dht_kind kind,
                const struct dht_value *value, struct err *err)
{
    dht_set_now(dht, now_ms);
    int status = check_value(kind, value, err);
    if (status < 0)
        return status;
    if (!entry_of(dht, key) && dht->publishing.entries.count >= LIMIT_DHT_PUBLISHED)
        return err_set(err, ERR_LIMIT, "%d keys are published already", LIMIT_DHT_PUBLISHED);
    bool counted = value->version.epoch == 0 && value->version.counter == 0;
    struct dht_record present;
    bool there = dht_hold_get(dht, key, &dht->self.id, &present);
    bool same = there && is_same(&present, value, counted);
    if (!same) {
        struct dht_record record = record_of(key, kind, value);
        if (there && !counted && dht_version_compare(&value->version, &present.version) <= 0)
            return err_set(err, ERR_CONFLICT, "another value of this version or a higher one is published already");
        if (counted)
            status = next_version(dht, there ? &present : NULL, &record.version);
        if (status == 0)
            status = put_own(dht, &record, DHT_RECORD_TTL_MS);
        if (status < 0)
            return err_set(err, status, "a record to publish cannot be kept");
    }
    struct dht_published *entry = make_entry(dht, key);
    if (!entry)
        return err_set(err, ERR_NOMEM, "no memory for one more published key");
    entry->counted = counted;
    entry->withdrawn = false;
    if (!same || dht_publish_renew(dht, key)) /* it may have grown old while we were away */
        enqueue(dht, entry);
    return 0;
}

int dht_withdraw(struct dht *dht, uint64_t now_ms, const struct id *key, struct err *err)
{
    struct dht_record record;
    dht_set_now(dht, now_ms);
    if (!dht_hold_get(dht, key, &dht->self.id, &record) || record.tombstone)
        return 0;
    struct dht_published *entry = make_entry(dht, key);
    if (!entry)
        return err_set(err, ERR_NOMEM, "no memory to withdraw a record");
    record.tombstone = true;
    record.data_len = 0;
    /* No record of the same version or a lower one can outlive this, wherever it is. */
    int status = put_own(dht, &record, DHT_EXPIRY_MAX_MS);
    if (status < 0)
        return err_set(err, status, "a tombstone cannot be kept");
    entry->withdrawn = true;
    enqueue(dht, entry);
    return 0;
}

bool dht_publish_keeps(struct dht *dht, const struct id *key)
{
    const struct dht_published *entry = entry_of(dht, key);
    return entry && !entry->withdrawn;
}

bool dht_publish_renew(struct dht *dht, const struct id *key)
{
    struct dht_record record;
    return dht_publish_keeps(dht, key) && dht_hold_get(dht, key, &dht->self.id, &record) && !record.tombstone &&
           record.expiry_wall_ms < dht_wall_ms(dht) + DHT_RECORD_TTL_MS / 3 * 2 &&
           put_own(dht, &record, DHT_RECORD_TTL_MS) == 0; /* else the next round tries again */
}

void dht_publish_overtaken(struct dht *dht, const struct dht_record *newer)
{
    struct dht_publishing *publishing = &dht->publishing;
    struct dht_published *entry = entry_of(dht, &newer->key);
    struct dht_record present;
    if (newer->kind == DHT_NODE)
        publishing->lease_ms = dht->now_ms;
    bool ours_to_count = entry && entry->counted && dht_hold_get(dht, &newer->key, &dht->self.id, &present);
    if (!ours_to_count || dht_record_compare(newer, &present) <= 0)
        return;
    if (next_version(dht, newer, &present.version) == 0 &&
        put_own(dht, &present, present.tombstone ? DHT_EXPIRY_MAX_MS : DHT_RECORD_TTL_MS) == 0)
        enqueue(dht, entry);
}

/* ---- giving away ---- */

/* Our record under `key`, as a push wants it. */
static int own_record(struct dht *dht, const struct id *key, struct buf *out)
{
    const struct dht_storage *storage = &dht->config.storage;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    int found = storage->get(storage->ctx, key, &dht->self.id, &bytes);
    if (found == 1)
        wire_put_short(out, bytes.data, bytes.len);
    return found == 1 && !out->failed ? 0 : ERR_NOTFOUND;
}

static void on_pushed(struct dht *dht, struct dht_push *push, void *owner)
{
    struct dht_published *entry = owner;
    struct dht_contact taker;
    bool taken = dht_push_done(push, &taker, 1) > 0;
    bool again = entry->again || !taken;
    dht->publishing.pushing--;
    entry->pushing = false;
    if (again) {
        enqueue(dht, entry);
    } else if (entry->withdrawn) {
        map_remove(&dht->publishing.entries, &entry->key);
        free(entry);
    }
    if (!taken)
        dht->publishing.queue_ms = dht_jittered_ms(dht, RETRY_MS);
}

static void push_entry(struct dht *dht, struct dht_published *entry)
{
    OWNED(buf_release) struct buf records = BUF(2 + LIMIT_DHT_RECORD_BYTES);
    TAILQ_REMOVE(&dht->publishing.queue, entry, link);
    entry->queued = false;
    if (own_record(dht, &entry->key, &records) < 0)
        return; /* lapsed meanwhile */
    if (dht_push_start(dht, &entry->key, &records, NULL, 0, on_pushed, entry) == 0) {
        entry->pushing = true;
        dht->publishing.pushing++;
    } else {
        enqueue(dht, entry);
        dht->publishing.queue_ms = dht_jittered_ms(dht, RETRY_MS);
    }
}

static bool queue_is_due(const struct dht *dht)
{
    const struct dht_publishing *publishing = &dht->publishing;
    return !TAILQ_EMPTY(&publishing->queue) && publishing->pushing < PARALLEL && dht->upkeep.joined;
}

/* ---- the lease ---- */

static void on_lease_pushed(struct dht *dht, struct dht_push *push, void *owner)
{
    struct dht_publishing *publishing = &dht->publishing;
    (void)owner;
    publishing->lease_pushing = false;
    size_t before = push->wanted;
    publishing->lease_holder_count = dht_push_done(push, publishing->lease_holders, DHT_REPLICAS);
    if (publishing->lease_holder_count == 0)
        publishing->lease_ms = dht_min_ms(publishing->lease_ms, dht_jittered_ms(dht, RETRY_MS));
    if (publishing->lease_holder_count < before / 4 * 3)
        publishing->lease_walk_ms = dht->now_ms;
}

static int sign_lease(struct dht *dht, const struct id *key, struct buf *out)
{
    struct dht_record lease = {.key = *key, .kind = DHT_NODE};
    OWNED(buf_release) struct buf data = BUF(DHT_DATA_MAX_BYTES);
    bool reachable = addr_is_usable(&dht->self.addr) && !dht->config.client;
    wire_put_u8(&data, reachable);
    if (reachable)
        addr_put(&data, &dht->self.addr);
    struct dht_record present;
    bool there = dht_hold_get(dht, key, &dht->self.id, &present);
    int status = data.failed ? ERR_NOMEM : next_version(dht, there ? &present : NULL, &lease.version);
    if (status < 0)
        return status;
    memcpy(lease.data, data.data, data.len);
    lease.data_len = data.len;
    status = put_own(dht, &lease, DHT_LEASE_TTL_MS);
    return status < 0 ? status : own_record(dht, key, out);
}

static void renew_lease(struct dht *dht)
{
    struct dht_publishing *publishing = &dht->publishing;
    struct id key = dht_key(DHT_NODE, dht->self.id.b, sizeof dht->self.id.b);
    OWNED(buf_release) struct buf records = BUF(2 + LIMIT_DHT_RECORD_BYTES);
    publishing->lease_ms = dht->now_ms + RETRY_MS;
    if (sign_lease(dht, &key, &records) < 0)
        return;
    bool walk = dht->now_ms >= publishing->lease_walk_ms;
    if (walk)
        publishing->lease_walk_ms = dht->now_ms + LEASE_WALK_MS;
    if (dht_push_start(dht, &key, &records, publishing->lease_holders, walk ? 0 : publishing->lease_holder_count,
                       on_lease_pushed, NULL) < 0)
        return;
    publishing->lease_pushing = true;
    publishing->lease_ms = dht->now_ms + DHT_LEASE_RENEW_MS;
}

static bool lease_is_possible(const struct dht *dht)
{
    return dht->upkeep.joined && !dht->publishing.lease_pushing;
}

void dht_publish_tick(struct dht *dht)
{
    struct dht_publishing *publishing = &dht->publishing;
    if (lease_is_possible(dht) && dht->now_ms >= publishing->lease_ms)
        renew_lease(dht);
    while (queue_is_due(dht) && dht->now_ms >= publishing->queue_ms)
        push_entry(dht, TAILQ_FIRST(&publishing->queue));
}

uint64_t dht_publish_next_ms(const struct dht *dht)
{
    uint64_t next = lease_is_possible(dht) ? dht->publishing.lease_ms : UINT64_MAX;
    return queue_is_due(dht) ? dht_min_ms(next, dht->publishing.queue_ms) : next;
}
