/*
 * Records held for all, in memory; the storage is their log. What is refused for lack of room is refused loudly, and a
 * reader of the key is told of it for days, so that it looks into the shards too.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define DEEPER_MS DHT_RECORD_TTL_MS /* what was refused is in a shard for as long */
#define FORGOTTEN_AT_ONCE 64
#define WORK_OF_FORGERY 8192                    /* a signature checked in vain, in rows looked at: 50 us */
#define KEY_BYTES 64                            /* a slot in a map that is at least half full */
#define ROW_BYTES (sizeof(struct dht_row) + 32) /* with what the allocator and its place take */

/* ---- keys ---- */

#define HELD(node) TREE_OF(node, struct dht_held, in_order)

static int compare_keys(void *ctx, const struct tree_node *a, const struct tree_node *b)
{
    (void)ctx;
    return id_compare(&HELD(a)->key, &HELD(b)->key);
}

static int probe_key(const void *key, const struct tree_node *node)
{
    return id_compare(key, &HELD(node)->key);
}

struct dht_held *dht_hold_of_key(struct dht *dht, const struct id *key)
{
    return map_get(&dht->hold.by_key, key);
}

struct dht_held *dht_hold_make(struct dht *dht, const struct id *key)
{
    struct dht_held *held = dht_hold_of_key(dht, key);
    if (held)
        return held;
    OWNED(owned_free) struct dht_held *fresh = calloc(1, sizeof *held);
    if (!fresh || map_set(&dht->hold.by_key, key, fresh) < 0)
        return NULL;
    held = STEAL(fresh);
    held->key = *key;
    held->touched_ms = dht->now_ms;
    held->earliest_wall_ms = UINT64_MAX;
    tree_insert(&dht->hold.keys, &held->in_order);
    dht->hold.bytes += sizeof *held + KEY_BYTES;
    return held;
}

static void free_held(struct dht_hold *hold, struct dht_held *held)
{
    map_remove(&hold->by_key, &held->key);
    tree_remove(&hold->keys, &held->in_order);
    dht_rows_release(held);
    free(held);
}

void dht_hold_drop_empty(struct dht *dht, struct dht_held *held)
{
    if (held->count > 0 || held->watchers)
        return;
    dht->hold.dropped++;
    dht->hold.bytes -= sizeof *held + KEY_BYTES;
    free_held(&dht->hold, held);
}

struct dht_held *dht_hold_next(struct dht *dht, const struct id *from_key, bool inclusive)
{
    const struct tree *keys = &dht->hold.keys;
    size_t rank = inclusive ? tree_lower(keys, probe_key, from_key) : tree_upper(keys, probe_key, from_key);
    return HELD(tree_at(keys, rank));
}

/* ---- room ---- */

static size_t records_max(const struct dht *dht)
{
    return dht->config.records_max ? dht->config.records_max : LIMIT_DHT_RECORDS;
}

static size_t key_max(const struct dht *dht)
{
    return dht->config.key_max ? dht->config.key_max : LIMIT_DHT_RECORDS_PER_KEY;
}

bool dht_hold_is_deeper(const struct dht *dht, const struct dht_held *held)
{
    return dht->now_ms < held->deeper_until_ms || held->count >= key_max(dht) / 8 * 7;
}

static bool is_by_us(const struct dht *dht, const uint8_t *public_key)
{
    return memcmp(public_key, dht->self.public_key, CRYPTO_SIGN_PUBLIC_BYTES) == 0;
}

/* The map's keys are ids, so a public key, which is as long, stands for its writer. */
static struct id writer_of(const uint8_t *public_key)
{
    struct id writer;
    memcpy(writer.b, public_key, sizeof writer.b);
    return writer;
}

static uintptr_t count_of_writer(const struct dht *dht, const uint8_t *public_key)
{
    struct id writer = writer_of(public_key);
    return (uintptr_t)map_get(&dht->hold.writers, &writer);
}

static int set_count_of_writer(struct dht *dht, const uint8_t *public_key, uintptr_t count)
{
    struct id writer = writer_of(public_key);
    if (count > 0)
        return map_set(&dht->hold.writers, &writer, (void *)count);
    map_remove(&dht->hold.writers, &writer);
    return 0;
}

/* A writer may have a third of what nobody has, as queues share a buffer in Choudhury and Hahne 1998: one alone comes
 * to a quarter of all room, n to n / (n + 3) of it, so however many identities somebody has, others find some. */
static bool has_share(const struct dht *dht, const struct dht_record *record)
{
    size_t room = records_max(dht) - dht->hold.count;
    return count_of_writer(dht, record->public_key) * 3 < room;
}

/* Does one more record fit? Our own do whatever others have filled up. */
static bool has_room(const struct dht *dht, const struct dht_held *held, const struct dht_record *record)
{
    if (is_by_us(dht, record->public_key))
        return dht->hold.count < records_max(dht) + LIMIT_DHT_PUBLISHED;
    return dht->hold.count < records_max(dht) && (!held || held->count < key_max(dht)) && has_share(dht, record);
}

/* Readers of a small key are not sent to its shards: who has used up its share could say so of any key. */
static void note_refused(struct dht *dht, struct dht_held *held)
{
    if (held && held->count >= key_max(dht) / 8)
        held->deeper_until_ms = dht->now_ms + DEEPER_MS;
}

/* ---- changes ---- */

/* Put the record, which is newer than `present` (NULL: nothing), in its place. All or nothing. */
static int place_row(struct dht *dht, struct dht_held *held, const struct dht_row *present,
                     const struct dht_record *record, struct dht_row *row)
{
    uint8_t before[CRYPTO_SIGN_PUBLIC_BYTES];
    size_t before_len = present ? present->len : 0;
    bool same_writer = false;
    if (present) {
        memcpy(before, dht_brief_public_key(present->brief), sizeof before);
        same_writer = memcmp(before, record->public_key, sizeof before) == 0;
    }
    uintptr_t count = count_of_writer(dht, record->public_key);
    if (!same_writer && set_count_of_writer(dht, record->public_key, count + 1) < 0)
        return ERR_NOMEM;
    size_t len = row->len;
    if (dht_rows_set(held, row) < 0) {
        if (!same_writer)
            set_count_of_writer(dht, record->public_key, count);
        return ERR_NOMEM;
    }
    if (present && !same_writer)
        set_count_of_writer(dht, before, count_of_writer(dht, before) - 1);
    dht->hold.count += !present;
    dht->hold.bytes += len - before_len + (present ? 0 : ROW_BYTES);
    held->earliest_wall_ms = dht_min_ms(held->earliest_wall_ms, record->expiry_wall_ms);
    held->digest_until_wall_ms = 0;
    return 0;
}

static int take_in(struct dht *dht, const struct dht_record *record, const uint8_t *bytes, size_t len, bool vouched)
{
    struct dht_held *held = dht_hold_make(dht, &record->key);
    OWNED(owned_free) struct dht_row *row = dht_row_new(&record->member, bytes, len, vouched);
    int status = held && row ? place_row(dht, held, dht_rows_find(held, &record->member), record, row) : ERR_NOMEM;
    if (status == 0)
        (void)STEAL(row);
    else if (held)
        dht_hold_drop_empty(dht, held);
    return status;
}

/* ---- the join ---- */

/* Which is newer, the record or the row? */
static int compare_with_row(const struct dht_held *held, const struct dht_row *row, const struct dht_record *record,
                            const struct dht_span *brief)
{
    struct dht_version version = dht_brief_version(row->brief);
    if (row->len == brief->len && memcmp(row->brief, brief->at, brief->len) == 0)
        return 0;
    int order = dht_version_compare(&record->version, &version);
    if (order)
        return order;
    struct dht_record present;
    dht_row_decode(held, row, &present);
    return dht_record_compare(record, &present);
}

static enum dht_store_status take_new(struct dht *dht, const struct dht_record *record, const uint8_t *bytes,
                                      size_t len, bool vouched)
{
    const struct dht_storage *storage = &dht->config.storage;
    bool logs = storage->put && record->kind != DHT_NODE; /* leases are over before they are read again */
    int status = logs ? storage->put(storage->ctx, &record->key, &record->member, bytes, len) : 0;
    if (status == 0)
        status = take_in(dht, record, bytes, len, vouched);
    if (status < 0)
        return DHT_SLOW_DOWN;
    dht->stats.stored++;
    return DHT_ACCEPTED;
}

/* The signature is checked last: what would change nothing costs no more than a look. What replaces somebody else's is
 * checked whoever hands it over, as a false one, when it is found out, would have taken the other with it. */
static enum dht_store_status join(struct dht *dht, const struct dht_record *record, const uint8_t *bytes, size_t len,
                                  bool first_hand, struct buf *ret_newer)
{
    struct dht_held *held = dht_hold_of_key(dht, &record->key);
    const struct dht_row *row = held ? dht_rows_find(held, &record->member) : NULL;
    struct dht_span brief = dht_record_brief(bytes, len);
    int order = row ? compare_with_row(held, row, record, &brief) : 1;
    if (order < 0 && ret_newer) {
        uint8_t newer[LIMIT_DHT_RECORD_BYTES];
        buf_add(ret_newer, newer, dht_row_bytes(held, row, newer));
    }
    if (held && order >= 0)
        held->touched_ms = dht->now_ms;
    if (order <= 0)
        return order < 0 ? DHT_STALE : DHT_ACCEPTED;
    if (!row && !has_room(dht, held, record)) {
        note_refused(dht, held);
        return DHT_FULL;
    }
    bool trusted = first_hand && (!row || memcmp(dht_brief_public_key(row->brief), record->public_key,
                                                 sizeof record->public_key) == 0);
    if (!trusted && !dht_record_is_signed(record, bytes, len, &dht->config.signatures)) {
        dht->hold.work += WORK_OF_FORGERY;
        return DHT_BAD;
    }
    return take_new(dht, record, bytes, len, !trusted || is_by_us(dht, record->public_key));
}

enum dht_store_status dht_hold_put(struct dht *dht, const uint8_t *bytes, size_t len_bytes, bool first_hand,
                                   struct buf *ret_newer)
{
    struct dht_record record;
    enum dht_store_status status = DHT_BAD;
    uint64_t stored = dht->stats.stored;
    if (dht_record_decode(bytes, len_bytes, &record) && dht_record_is_timely(&record, dht_wall_ms(dht)) &&
        !dht_is_by_revoked(dht, &record))
        status = join(dht, &record, bytes, len_bytes, first_hand, ret_newer);
    if (status == DHT_BAD)
        dht->stats.bad_records++;
    if (status == DHT_ACCEPTED && record.kind == DHT_NODE)
        dht_alive_note(dht, &record);
    if (dht->stats.stored > stored) {
        struct dht_held *held = dht_hold_of_key(dht, &record.key);
        if (dht_is_by_hand(record.kind))
            dht_publish_seen(dht, &record.version);
        dht_watch_changed(dht, held, &record, bytes, len_bytes);
    }
    return status;
}

/* ---- queries ---- */

static const struct dht_row *find_row(struct dht *dht, const struct id *key, const struct id *member,
                                      struct dht_held **ret_held)
{
    *ret_held = dht_hold_of_key(dht, key);
    return *ret_held ? dht_rows_find(*ret_held, member) : NULL;
}

int dht_hold_get(struct dht *dht, const struct id *key, const struct id *member, struct dht_record *ret_record)
{
    struct dht_held *held;
    const struct dht_row *row = find_row(dht, key, member, &held);
    if (row)
        dht_row_decode(held, row, ret_record);
    return row != NULL;
}

int dht_hold_get_bytes(struct dht *dht, const struct id *key, const struct id *member, struct buf *out)
{
    struct dht_held *held;
    const struct dht_row *row = find_row(dht, key, member, &held);
    uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
    if (!row)
        return 0;
    int status = buf_add(out, bytes, dht_row_bytes(held, row, bytes));
    return status < 0 ? status : 1;
}

void dht_hold_each_of(struct dht *dht, struct dht_held *held, dht_hold_cb cb, void *ctx)
{
    struct id key = held->key;
    struct id member;
    for (const struct dht_row *row = dht_rows_after(held, NULL); row; row = dht_rows_after(held, &member)) {
        struct dht_record record;
        uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
        size_t len = dht_row_bytes(held, row, bytes);
        uint64_t dropped = dht->hold.dropped;
        member = row->member;
        if (!dht_record_decode(bytes, len, &record) || !cb(ctx, held, &record, bytes, len))
            return;
        held = dropped == dht->hold.dropped ? held : dht_hold_of_key(dht, &key);
        if (!held)
            return;
    }
}

void dht_hold_digest(struct dht *dht, struct dht_held *held, uint8_t ret_digest[DHT_DIGEST_BYTES])
{
    uint64_t wall_ms = dht_wall_ms(dht);
    if (wall_ms >= held->digest_until_wall_ms) {
        dht->hold.work += held->count;
        if (dht_rows_digest(held, wall_ms, held->digest, &held->digest_until_wall_ms) < 0)
            held->digest_until_wall_ms = 0;
    }
    memcpy(ret_digest, held->digest, DHT_DIGEST_BYTES);
}

/* ---- removing ---- */

void dht_hold_remove(struct dht *dht, const struct id *key, const struct id *member)
{
    const struct dht_storage *storage = &dht->config.storage;
    struct dht_held *held;
    const struct dht_row *row = find_row(dht, key, member, &held);
    struct id of_key = *key, of_member = *member; /* either may be of what is freed */
    if (!row)
        return;
    if (storage->remove && row->brief[0] != DHT_NODE)
        storage->remove(storage->ctx, &of_key, &of_member);
    const uint8_t *writer = dht_brief_public_key(row->brief);
    set_count_of_writer(dht, writer, count_of_writer(dht, writer) - 1);
    dht->hold.bytes -= row->len + ROW_BYTES;
    dht->hold.count--;
    dht_rows_remove(held, &of_member);
    held->digest_until_wall_ms = 0;
    dht_hold_drop_empty(dht, held);
}

/* Our own values are publish.c's to renew or to remove. */
static bool is_lapsed(const struct dht *dht, const struct dht_row *row)
{
    bool ours = is_by_us(dht, dht_brief_public_key(row->brief)) && !dht_brief_is_tombstone(row->brief);
    return !ours && dht_brief_expiry_ms(row->brief) <= dht_wall_ms(dht);
}

void dht_hold_lapse(struct dht *dht, struct dht_held *held)
{
    struct id key = held->key, member;
    uint64_t earliest_ms = UINT64_MAX;
    for (const struct dht_row *row = dht_rows_after(held, NULL); row; row = dht_rows_after(held, &member)) {
        member = row->member;
        if (!is_lapsed(dht, row)) {
            earliest_ms = dht_min_ms(earliest_ms, dht_brief_expiry_ms(row->brief));
            continue;
        }
        bool last = held->count == 1 && !held->watchers;
        dht_hold_remove(dht, &key, &member);
        if (last)
            return;
    }
    held->earliest_wall_ms = earliest_ms;
}

bool dht_hold_check(struct dht *dht, const struct dht_held *held, struct dht_row *row)
{
    struct dht_record record;
    uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
    if (row->vouched)
        return true;
    size_t len = dht_row_bytes(held, row, bytes);
    row->vouched =
        dht_record_decode(bytes, len, &record) && dht_record_is_signed(&record, bytes, len, &dht->config.signatures);
    return row->vouched;
}

bool dht_hold_vouched(struct dht *dht, struct dht_held *held, const struct id *member)
{
    struct dht_row *row = dht_rows_find(held, member);
    if (!row || dht_hold_check(dht, held, row))
        return row;
    dht->stats.bad_records++;
    dht_hold_remove(dht, &held->key, member);
    return false;
}

struct removing {
    struct dht *dht;
    const struct id *writer;
};

static bool remove_if_by(void *ctx, struct dht_held *held, const struct dht_record *record, const uint8_t *bytes,
                         size_t len_bytes)
{
    struct removing *removing = ctx;
    struct id writer;
    (void)bytes, (void)len_bytes;
    crypto_id_of(record->public_key, sizeof record->public_key, &writer);
    if (id_equal(&writer, removing->writer))
        dht_hold_remove(removing->dht, &held->key, &record->member);
    return true;
}

void dht_hold_remove_writer(struct dht *dht, const struct id *writer)
{
    struct removing removing = {.dht = dht, .writer = writer};
    struct id key = {{0}};
    bool inclusive = true;
    for (struct dht_held *held; (held = dht_hold_next(dht, &key, inclusive)); inclusive = false) {
        key = held->key;
        dht_hold_each_of(dht, held, remove_if_by, &removing);
    }
}

/* ---- the start and the end ---- */

struct loading {
    struct dht *dht;
    int status;
    struct id unfit[FORGOTTEN_AT_ONCE][2]; /* of another version of this program */
    size_t unfit_count;
};

static bool load(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len)
{
    struct loading *loading = ctx;
    struct dht_record record;
    bool fits =
        dht_record_decode(bytes, len, &record) && id_equal(&record.key, key) && id_equal(&record.member, member);
    if (fits) {
        loading->status = take_in(loading->dht, &record, bytes, len, is_by_us(loading->dht, record.public_key));
    } else if (loading->unfit_count < FORGOTTEN_AT_ONCE) {
        loading->unfit[loading->unfit_count][0] = *key;
        loading->unfit[loading->unfit_count++][1] = *member;
    }
    return loading->status == 0;
}

int dht_hold_init(struct dht *dht, struct err *err)
{
    const struct dht_storage *storage = &dht->config.storage;
    struct loading loading = {.dht = dht};
    tree_init(&dht->hold.keys, compare_keys, NULL);
    map_init(&dht->hold.by_key, SIZE_MAX, rng_u64(&dht->config.rng)); /* records and watchers have their own bounds */
    map_init(&dht->hold.writers, records_max(dht) + LIMIT_DHT_PUBLISHED, rng_u64(&dht->config.rng));
    int status = storage->each ? storage->each(storage->ctx, load, &loading) : 0;
    if (status == 0)
        status = loading.status;
    for (size_t i = 0; status == 0 && storage->remove && i < loading.unfit_count; i++)
        storage->remove(storage->ctx, &loading.unfit[i][0], &loading.unfit[i][1]);
    return status < 0 ? err_set(err, status, "stored records cannot be loaded") : 0;
}

void dht_hold_release(struct dht_hold *hold)
{
    for (struct dht_held *held; (held = HELD(hold->keys.root));)
        free_held(hold, held);
    map_release(&hold->by_key);
    map_release(&hold->writers);
}
