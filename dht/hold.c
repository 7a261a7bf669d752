#include <stdlib.h>

#include "dht/internal.h"
#include "node/base/scope.h"

/* ---- counting ---- */

static size_t member_count(const struct dht *dht, const struct id *member)
{
    return (size_t)(uintptr_t)map_get(&dht->hold.members, member);
}

struct dht_held *dht_hold_of_key(struct dht *dht, const struct id *key)
{
    return map_get(&dht->hold.keys, key);
}

/* Count one more; all or nothing. */
static int count_in(struct dht *dht, const struct id *key, const struct id *member)
{
    struct dht_held *held = dht_hold_of_key(dht, key);
    if (!held) {
        OWNED(owned_free) struct dht_held *fresh = calloc(1, sizeof *fresh);
        if (!fresh || map_set(&dht->hold.keys, key, fresh) < 0)
            return ERR_NOMEM;
        held = STEAL(fresh);
        held->touched_ms = dht->now_ms;
    }
    uintptr_t members = member_count(dht, member) + 1;
    if (map_set(&dht->hold.members, member, (void *)members) < 0) {
        if (held->count == 0)
            free(map_remove(&dht->hold.keys, key));
        return ERR_NOMEM;
    }
    held->count++;
    dht->hold.count++;
    return 0;
}

static void count_out(struct dht *dht, const struct id *key, const struct id *member)
{
    struct dht_held *held = dht_hold_of_key(dht, key);
    if (!held)
        return;
    if (--held->count == 0)
        free(map_remove(&dht->hold.keys, key));
    uintptr_t members = member_count(dht, member) - 1;
    if (members > 0)
        map_set(&dht->hold.members, member, (void *)members);
    else
        map_remove(&dht->hold.members, member);
    dht->hold.count--;
}

struct counting {
    struct dht *dht;
    int status;
};

static bool count_record(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len)
{
    struct counting *counting = ctx;
    (void)bytes;
    (void)len;
    counting->status = count_in(counting->dht, key, member);
    return counting->status == 0;
}

int dht_hold_init(struct dht *dht, struct err *err)
{
    map_init(&dht->hold.keys, LIMIT_DHT_RECORDS, rng_u64(&dht->config.rng));
    map_init(&dht->hold.members, LIMIT_DHT_RECORDS, rng_u64(&dht->config.rng));
    const struct dht_storage *storage = &dht->config.storage;
    struct counting counting = {.dht = dht};
    int status = storage->each(storage->ctx, &(struct id){{0}}, count_record, &counting);
    if (status == 0)
        status = counting.status;
    return status < 0 ? err_set(err, status, "stored records cannot be counted") : 0;
}

void dht_hold_release(struct dht_hold *hold)
{
    void *held;
    for (size_t cursor = 0; map_next(&hold->keys, &cursor, NULL, &held);)
        free(held);
    map_release(&hold->keys);
    map_release(&hold->members);
}

/* ---- records ---- */

int dht_hold_get(struct dht *dht, const struct id *key, const struct id *member, struct dht_record *ret_record)
{
    const struct dht_storage *storage = &dht->config.storage;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    int found = storage->get(storage->ctx, key, member, &bytes);
    return found == 1 && dht_record_decode(bytes.data, bytes.len, ret_record);
}

/* Another record fits under this key and for this member. Our own are bound by LIMIT_DHT_PUBLISHED instead. */
static bool has_room(struct dht *dht, const struct dht_record *record)
{
    const struct dht_held *held = dht_hold_of_key(dht, &record->key);
    if (dht->hold.count >= LIMIT_DHT_RECORDS)
        return false;
    if (id_equal(&record->member, &dht->self.id))
        return true;
    return (!held || held->count < LIMIT_DHT_RECORDS_PER_KEY) &&
           member_count(dht, &record->member) < LIMIT_DHT_RECORDS_PER_MEMBER;
}

static enum dht_store_status write_new(struct dht *dht, const struct dht_record *record, const uint8_t *bytes,
                                       size_t len, bool replaces)
{
    const struct dht_storage *storage = &dht->config.storage;
    if (!replaces && !has_room(dht, record))
        return DHT_FULL;
    if (!replaces && count_in(dht, &record->key, &record->member) < 0)
        return DHT_SLOW_DOWN;
    if (storage->put(storage->ctx, &record->key, &record->member, bytes, len) < 0) {
        if (!replaces)
            count_out(dht, &record->key, &record->member);
        return DHT_SLOW_DOWN;
    }
    dht->stats.stored++;
    return DHT_ACCEPTED;
}

/* The signature is checked last: what would change nothing costs no more than a read. */
static enum dht_store_status join(struct dht *dht, const struct dht_record *record, const uint8_t *bytes, size_t len,
                                  struct buf *ret_newer)
{
    struct dht_record present;
    bool replaces = dht_hold_get(dht, &record->key, &record->member, &present);
    int order = replaces ? dht_record_compare(record, &present) : 1;
    if (order < 0 && ret_newer)
        dht_record_encode(&present, ret_newer);
    if (order <= 0)
        return order < 0 ? DHT_STALE : DHT_ACCEPTED;
    if (!dht_record_is_signed(record, bytes, len, &dht->config.signatures))
        return DHT_BAD;
    return write_new(dht, record, bytes, len, replaces);
}

enum dht_store_status dht_hold_put(struct dht *dht, const uint8_t *bytes, size_t len_bytes, bool first_hand,
                                   struct buf *ret_newer)
{
    (void)first_hand;
    struct dht_record record;
    enum dht_store_status status = DHT_BAD;
    if (dht_record_decode(bytes, len_bytes, &record) && dht_record_is_timely(&record, dht_wall_ms(dht)) &&
        !dht_is_revoked(dht, &record.member))
        status = join(dht, &record, bytes, len_bytes, ret_newer);
    if (status == DHT_BAD)
        dht->stats.bad_records++;
    struct dht_held *held = status == DHT_ACCEPTED ? dht_hold_of_key(dht, &record.key) : NULL;
    if (held)
        held->touched_ms = dht->now_ms;
    if (status == DHT_ACCEPTED && record.kind == DHT_NODE)
        dht_get_note_lease(dht, &record);
    return status;
}

void dht_hold_remove(struct dht *dht, const struct id *key, const struct id *member)
{
    const struct dht_storage *storage = &dht->config.storage;
    struct dht_record present;
    if (dht_hold_get(dht, key, member, &present) && storage->remove(storage->ctx, key, member) == 0)
        count_out(dht, key, member);
}

#define REMOVED_AT_ONCE 64

struct removing {
    const struct id *member;
    struct id keys[REMOVED_AT_ONCE];
    size_t count;
};

static bool collect_of_member(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes,
                              size_t len)
{
    struct removing *removing = ctx;
    (void)bytes;
    (void)len;
    if (id_equal(member, removing->member))
        removing->keys[removing->count++] = *key;
    return removing->count < REMOVED_AT_ONCE;
}

void dht_hold_remove_writer(struct dht *dht, const struct id *member)
{
    const struct dht_storage *storage = &dht->config.storage;
    struct id from = {{0}};
    for (bool more = true; more;) {
        struct removing removing = {.member = member};
        storage->each(storage->ctx, &from, collect_of_member, &removing);
        for (size_t i = 0; i < removing.count; i++)
            dht_hold_remove(dht, &removing.keys[i], member);
        more = removing.count == REMOVED_AT_ONCE;
        if (more)
            from = removing.keys[REMOVED_AT_ONCE - 1];
    }
}
