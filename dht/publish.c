/*
 * Records of our own. What is to be kept alive is remembered here; the signed record is in the hold, like everybody
 * else's, and what has not been signed yet is a draft: a record is signed when it is sent (give.c), so that a member
 * rewritten a hundred times a second is signed once in that time.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define DAY_MS 86400000u
#define META_BYTES 16
#define KEYS_DEEP_MAX 4096

struct dht_draft {
    double score;
    struct dht_version version;
    uint64_t size;
    uint64_t ttl_ms;
    bool tombstone;
    bool meta;
    size_t data_len;
    uint8_t data[];
};

/* ---- entries, by (the key of the record, member) ---- */

#define ENTRY(node) TREE_OF(node, struct dht_published, by_place)

static int compare_places(const struct id *at, const struct id *member, const struct dht_published *entry)
{
    int order = id_compare(at, &entry->at);
    return order ? order : id_compare(member, &entry->member);
}

static int compare_entries(void *ctx, const struct tree_node *a, const struct tree_node *b)
{
    const struct dht_published *entry = ENTRY(a);
    (void)ctx;
    return compare_places(&entry->at, &entry->member, ENTRY(b));
}

static int probe_entry(const void *key, const struct tree_node *node)
{
    const struct dht_record_place *place = key;
    return compare_places(&place->at, &place->member, ENTRY(node));
}

int dht_publish_init(struct dht *dht, struct err *err)
{
    tree_init(&dht->publishing.entries, compare_entries, NULL);
    map_init(&dht->publishing.deep, KEYS_DEEP_MAX, rng_u64(&dht->config.rng));
    return dht_stamp_restore(dht, err);
}

static void free_entry(struct dht *dht, struct dht_published *entry)
{
    dht_give_stop(dht, entry);
    tree_remove(&dht->publishing.entries, &entry->by_place);
    free(entry->draft);
    free(entry);
}

void dht_publish_release(struct dht *dht)
{
    struct tree_node *first;
    while ((first = tree_at(&dht->publishing.entries, 0)))
        free_entry(dht, ENTRY(first));
    map_release(&dht->publishing.deep);
}

/* How deep new members of this key go: the last depth at which there was room. */
static unsigned depth_of(const struct dht *dht, const struct id *key)
{
    return (unsigned)(uintptr_t)map_get(&dht->publishing.deep, key);
}

static struct id key_at(const struct id *key, unsigned depth, const struct id *member)
{
    return depth ? dht_shard_key(key, depth, member) : *key;
}

static struct dht_published *entry_at(struct dht *dht, const struct id *at, const struct id *member)
{
    struct dht_record_place place = {*at, *member};
    return ENTRY(tree_find(&dht->publishing.entries, probe_entry, &place));
}

/* Fill in what the draft or the hold says; false if there is nothing of ours. */
static bool current_value(struct dht *dht, const struct dht_published *entry, struct dht_record *ret_record)
{
    const struct dht_draft *draft = entry->draft;
    if (!draft)
        return dht_hold_get(dht, &entry->at, &entry->member, ret_record);
    *ret_record = (struct dht_record){
        .key = entry->at,
        .member = entry->member,
        .kind = entry->kind,
        .tombstone = draft->tombstone,
        .meta = draft->meta,
        .score = draft->score,
        .version = draft->version,
        .size = draft->size,
        .data_len = draft->data_len,
    };
    memcpy(ret_record->data, draft->data, draft->data_len);
    return true;
}

/* What is known of (key, member), in the root or in the shards down to where its members go. */
struct known {
    struct dht_published *entry; /* NULL: it is not kept alive */
    bool there;                  /* there is a record */
    unsigned depth;
    struct dht_record record;
};

static void look_up(struct dht *dht, const struct id *key, const struct id *member, struct known *ret_known)
{
    unsigned deepest = depth_of(dht, key);
    for (unsigned depth = 0; depth <= deepest; depth++) {
        struct id at = key_at(key, depth, member);
        ret_known->depth = depth;
        ret_known->entry = entry_at(dht, &at, member);
        ret_known->there = ret_known->entry ? current_value(dht, ret_known->entry, &ret_known->record)
                                            : dht_hold_get(dht, &at, member, &ret_known->record);
        if (ret_known->entry || ret_known->there)
            return;
    }
}

static struct dht_published *make_entry(struct dht *dht, const struct id *key, enum dht_kind kind, unsigned depth,
                                        const struct id *member)
{
    struct dht_published *entry = calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    entry->key = *key;
    entry->at = key_at(key, depth, member);
    entry->member = *member;
    entry->kind = (uint8_t)kind;
    entry->depth = (uint8_t)depth;
    tree_insert(&dht->publishing.entries, &entry->by_place);
    return entry;
}

static bool is_ours(const struct dht *dht, const struct dht_record *record)
{
    return memcmp(record->public_key, dht->self.public_key, sizeof record->public_key) == 0;
}

/* ---- drafts ---- */

static struct dht_draft *make_draft(const struct dht_record *record, uint64_t ttl_ms)
{
    struct dht_draft *draft = malloc(sizeof *draft + record->data_len);
    if (!draft)
        return NULL;
    *draft = (struct dht_draft){
        .score = record->score,
        .version = record->version,
        .size = record->size,
        .ttl_ms = ttl_ms,
        .tombstone = record->tombstone,
        .meta = record->meta,
        .data_len = record->data_len,
    };
    memcpy(draft->data, record->data, record->data_len);
    return draft;
}

static uint64_t longest_ttl_ms(const struct dht_record *record)
{
    return record->tombstone || dht_is_by_hand(record->kind) ? DHT_EXPIRY_MAX_MS : DHT_RECORD_TTL_MS;
}

/* Of one that lives as long as it can: a day after it was signed. */
static uint64_t renew_wall_ms(const struct dht_record *record)
{
    return record->expiry_wall_ms - longest_ttl_ms(record) + DAY_MS;
}

/* This is its value from now on, and is to be sent. */
static int set_value(struct dht *dht, struct dht_published *entry, const struct dht_record *record, uint64_t ttl_ms)
{
    struct dht_draft *draft = make_draft(record, ttl_ms ? ttl_ms : longest_ttl_ms(record));
    if (!draft)
        return ERR_NOMEM;
    free(entry->draft);
    entry->draft = draft;
    entry->keeps = !record->tombstone && ttl_ms == 0;
    dht_give_soon(dht, entry);
    return 0;
}

/* A value of ours is new, or is said again. It replaces the one who is to be called back, too. */
static int take_value(struct dht *dht, struct known *known, const struct dht_record *record, uint64_t ttl_ms, bool same,
                      dht_done_cb done, void *done_ctx, struct err *err)
{
    struct dht_published *entry = known->entry;
    bool kept = entry;
    if (!entry && tree_count(&dht->publishing.entries) >= LIMIT_DHT_PUBLISHED)
        return err_set(err, ERR_LIMIT, "%d records are published already", LIMIT_DHT_PUBLISHED);
    unsigned depth = known->there ? known->depth : depth_of(dht, &record->key);
    if (!entry)
        entry = make_entry(dht, &record->key, record->kind, record->meta ? 0 : depth, &record->member);
    if (!entry)
        return err_set(err, ERR_NOMEM, "no memory for one more published record");
    known->entry = entry;
    int status = same ? 0 : set_value(dht, entry, record, ttl_ms);
    if (status < 0)
        return err_set(err, status, "no memory for a record to publish");
    if (same && done)
        dht_give_soon(dht, entry);
    else if (same && !kept)
        dht_give_later(dht, entry, true);
    if (same)
        entry->keeps = !record->tombstone && ttl_ms == 0;
    if (same && !kept)
        entry->renew_wall_ms = renew_wall_ms(&known->record);
    entry->done = done;
    entry->done_ctx = done_ctx;
    return 0;
}

/* ---- public ---- */

static int check_value(enum dht_kind kind, const struct dht_value *value, struct err *err)
{
    if (isnan(value->score))
        return err_set(err, ERR_INVALID, "a score is not a number");
    if (value->data_len > DHT_DATA_MAX_BYTES)
        return err_set(err, ERR_INVALID, "%zu bytes of data are more than %d", value->data_len, DHT_DATA_MAX_BYTES);
    if (kind < DHT_OBJECT || kind >= DHT_KIND_COUNT || kind == DHT_NODE || dht_is_by_hand(kind))
        return err_set(err, ERR_INVALID, "records of kind %d are not published", (int)kind);
    return 0;
}

/* Is that what is known already, versions aside? */
static bool is_same(const struct dht_record *a, const struct dht_record *b)
{
    return a->tombstone == b->tombstone && a->score == b->score && a->size == b->size && a->data_len == b->data_len &&
           memcmp(a->data, b->data, a->data_len) == 0;
}

/* A version of our own counting that is higher than `present` (NULL: none). */
static int next_version(struct dht *dht, const struct dht_record *present, struct dht_version *ret_version)
{
    struct dht_version version = {0};
    int status = dht_stamp_counter(dht, &version.counter);
    if (present && dht_version_compare(&version, &present->version) <= 0) {
        version.epoch = present->version.epoch + (present->version.counter == UINT64_MAX);
        version.counter = present->version.counter + 1;
    }
    if (status == 0)
        *ret_version = version;
    return status;
}

int dht_publish(struct dht *dht, uint64_t now_ms, const struct id *key, enum dht_kind kind,
                const struct dht_value *value, struct err *err)
{
    dht_set_now(dht, now_ms);
    int status = check_value(kind, value, err);
    if (status < 0)
        return status;
    struct dht_record record = {
        .key = *key,
        .member = dht->self.id,
        .kind = (uint8_t)kind,
        .score = value->score,
        .version = value->version,
        .size = value->size,
        .data_len = value->data_len,
    };
    if (value->data_len > 0)
        memcpy(record.data, value->data, value->data_len);
    if (!dht_record_is_consistent(&record))
        return err_set(err, ERR_INVALID, "the key is not one for kind %d", (int)kind);
    bool counted = value->version.epoch == 0 && value->version.counter == 0;
    struct known known;
    look_up(dht, key, &dht->self.id, &known);
    int order = counted || !known.there ? 1 : dht_version_compare(&value->version, &known.record.version);
    bool same = known.there && is_same(&record, &known.record) && (counted || order == 0);
    if (!same && order <= 0)
        return err_set(err, ERR_CONFLICT, "another value of this version or a higher one is published already");
    if (!same && counted)
        status = next_version(dht, known.there ? &known.record : NULL, &record.version);
    if (status < 0)
        return err_set(err, status, "the mark of the version clock cannot be saved");
    status = take_value(dht, &known, &record, 0, same, value->done, value->done_ctx, err);
    if (status == 0)
        known.entry->counted = counted;
    return status;
}

int dht_withdraw(struct dht *dht, uint64_t now_ms, const struct id *key, struct err *err)
{
    struct known known;
    dht_set_now(dht, now_ms);
    look_up(dht, key, &dht->self.id, &known);
    if (!known.there || known.record.tombstone)
        return 0;
    /* No record of the same version or a lower one can outlive this, wherever it is. */
    known.record.key = *key;
    known.record.tombstone = true;
    known.record.data_len = 0;
    return take_value(dht, &known, &known.record, 0, false, NULL, NULL, err);
}

static int check_member(enum dht_kind kind, const struct dht_member *member, struct err *err)
{
    if (!dht_is_by_hand(kind))
        return err_set(err, ERR_INVALID, "records of kind %d are not written by hand", (int)kind);
    if (isnan(member->score))
        return err_set(err, ERR_INVALID, "a score is not a number");
    if (member->name_len == 0 || member->name_len > DHT_DATA_MAX_BYTES)
        return err_set(err, ERR_INVALID, "a member's name has %zu bytes, not 1 to %d", member->name_len,
                       DHT_DATA_MAX_BYTES);
    if (member->meta && member->name_len != META_BYTES)
        return err_set(err, ERR_INVALID, "the state of a set has %zu bytes, not %d", member->name_len, META_BYTES);
    if (member->ttl_ms > DHT_EXPIRY_MAX_MS)
        return err_set(err, ERR_INVALID, "no record is good for longer than 7 days");
    return 0;
}

int dht_write(struct dht *dht, uint64_t now_ms, const struct id *key, enum dht_kind kind,
              const struct dht_member *member, struct err *err)
{
    dht_set_now(dht, now_ms);
    int status = check_member(kind, member, err);
    if (status < 0)
        return status;
    struct dht_record record = {
        .key = *key,
        .kind = (uint8_t)kind,
        .tombstone = member->tombstone,
        .meta = member->meta,
        .score = member->score,
        .version = member->version,
        .data_len = member->name_len,
    };
    memcpy(record.data, member->name, member->name_len);
    if (!member->meta)
        crypto_id_of(member->name, member->name_len, &record.member);
    if (!dht_record_is_consistent(&record))
        return err_set(err, ERR_INVALID, "the key, the version or the state does not fit kind %d", (int)kind);
    struct known known;
    look_up(dht, key, &record.member, &known);
    int order = known.there ? dht_version_compare(&record.version, &known.record.version) : 1;
    if (order == 0)
        order = (int)record.tombstone - (int)known.record.tombstone;
    bool same = order == 0 && is_same(&record, &known.record);
    if (!same && order <= 0)
        return err_set(err, ERR_CONFLICT, "something newer is known of the member");
    if (same && !is_ours(dht, &known.record))
        return 0;
    dht_publish_seen(dht, &member->version);
    return take_value(dht, &known, &record, member->ttl_ms, same, member->done, member->done_ctx, err);
}

/* ---- for those who send and renew ---- */

/* A day old; or the clock has been set back since it was signed, and it would live too long for others to take it. */
static bool is_due(const struct dht *dht, uint64_t renew_at_wall_ms)
{
    uint64_t wall_ms = dht_wall_ms(dht);
    return wall_ms >= renew_at_wall_ms || renew_at_wall_ms > wall_ms + DAY_MS + DHT_SKEW_MS;
}

/* Has the whole set been cleared since, as far as we know? */
static bool is_cleared(struct dht *dht, const struct dht_published *entry, const struct dht_record *record)
{
    struct dht_record meta;
    return dht_is_by_hand(record->kind) && !record->meta && dht_hold_get(dht, &entry->key, &(struct id){{0}}, &meta) &&
           meta.meta && record->version.epoch <= dht_record_cleared_ms(&meta, dht_wall_ms(dht));
}

/* Sign a record of ours to live for so long, and hold it. */
static int sign_and_hold(struct dht *dht, struct dht_record *record, uint64_t ttl_ms, struct buf *out,
                         enum dht_store_status *ret_status)
{
    record->expiry_wall_ms = dht_wall_ms(dht) + ttl_ms;
    record->place = dht_place(dht, NULL);
    record->addr = dht->config.client ? (struct addr){0} : dht->self.addr;
    int status = dht_record_sign(record, dht->self.public_key, &dht->config.signatures);
    if (status < 0)
        return status;
    size_t start = out->len;
    dht_record_encode(record, out);
    if (out->failed)
        return ERR_NOMEM;
    *ret_status = dht_hold_put(dht, out->data + start, out->len - start, true, NULL);
    return 0;
}

int dht_publish_encode(struct dht *dht, struct dht_published *entry, struct buf *out)
{
    struct dht_record record;
    if (!current_value(dht, entry, &record))
        return ERR_NOTFOUND;
    const struct dht_draft *draft = entry->draft;
    if (!draft && !is_ours(dht, &record))
        return ERR_NOTFOUND; /* somebody else wrote it since */
    if (!draft && !entry->keeps && record.expiry_wall_ms <= dht_wall_ms(dht))
        return ERR_NOTFOUND;
    if (!draft && entry->keeps && is_cleared(dht, entry, &record))
        return ERR_NOTFOUND;
    if (!draft && !(entry->keeps && is_due(dht, renew_wall_ms(&record))))
        return dht_hold_get_bytes(dht, &entry->at, &entry->member, out) == 1 ? 0 : ERR_NOMEM;
    if (!draft && renew_wall_ms(&record) > dht_wall_ms(dht) + DAY_MS) /* it must not win over the one signed now */
        dht_hold_remove(dht, &entry->at, &entry->member);
    enum dht_store_status held;
    int status = sign_and_hold(dht, &record, draft ? draft->ttl_ms : longest_ttl_ms(&record), out, &held);
    if (status < 0)
        return status;
    if (held == DHT_STALE || held == DHT_BAD)
        return held == DHT_STALE ? ERR_NOTFOUND : ERR_INVALID;
    entry->renew_wall_ms = renew_wall_ms(&record);
    if (held == DHT_ACCEPTED) { /* else there is no room for it, and the draft stays */
        free(entry->draft);
        entry->draft = NULL;
    }
    return 0;
}

bool dht_publish_is_told(struct dht *dht, const struct dht_published *entry, const struct dht_span *brief)
{
    struct dht_record held, told;
    uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
    size_t len = dht_record_unbrief(&entry->at, brief, bytes);
    return current_value(dht, entry, &held) && dht_record_decode(bytes, len, &told) &&
           id_equal(&told.member, &held.member) && dht_record_compare(&told, &held) >= 0;
}

void dht_publish_given(struct dht *dht, struct dht_published *entry, size_t accepted)
{
    dht_done_cb done = entry->done;
    void *done_ctx = entry->done_ctx;
    struct id key = entry->key;
    entry->done = NULL;
    if (accepted > 0 && !entry->keeps)
        free_entry(dht, entry);
    if (done)
        done(done_ctx, &key, accepted);
}

bool dht_publish_goes_deeper(struct dht *dht, struct dht_published *entry)
{
    struct dht_record record;
    if (entry->depth == DHT_SHARD_DEPTH_MAX || id_is_zero(&entry->member) || !current_value(dht, entry, &record))
        return false;
    uint64_t wall_ms = dht_wall_ms(dht);
    if (!entry->keeps && record.expiry_wall_ms <= wall_ms)
        return false;
    if (!entry->draft)
        entry->draft = make_draft(&record, entry->keeps ? longest_ttl_ms(&record) : record.expiry_wall_ms - wall_ms);
    if (!entry->draft)
        return false;
    dht_hold_remove(dht, &entry->at, &entry->member);
    tree_remove(&dht->publishing.entries, &entry->by_place);
    entry->depth++;
    entry->at = key_at(&entry->key, entry->depth, &entry->member);
    tree_insert(&dht->publishing.entries, &entry->by_place);
    if (entry->depth > depth_of(dht, &entry->key))
        map_set(&dht->publishing.deep, &entry->key, (void *)(uintptr_t)entry->depth);
    return true;
}

void dht_publish_lapsed(struct dht *dht, const struct dht_record *record)
{
    struct dht_published *entry = entry_at(dht, &record->key, &record->member);
    if (entry && entry->keeps)
        dht_give_later(dht, entry, false);
    else
        dht_hold_remove(dht, &record->key, &record->member);
}

bool dht_publish_sweep(struct dht *dht, struct dht_record_place *cursor, size_t max)
{
    struct tree_cursor walk;
    const struct tree *entries = &dht->publishing.entries;
    struct tree_node *node = tree_seek(entries, &walk, tree_lower(entries, probe_entry, cursor));
    for (; node && max > 0; node = tree_next(&walk), max--)
        if (ENTRY(node)->keeps && is_due(dht, ENTRY(node)->renew_wall_ms))
            dht_give_later(dht, ENTRY(node), false);
    *cursor = node ? (struct dht_record_place){ENTRY(node)->at, ENTRY(node)->member} : (struct dht_record_place){0};
    return !node;
}

void dht_publish_overtaken(struct dht *dht, const struct dht_record *newer)
{
    struct dht_published *entry = entry_at(dht, &newer->key, &dht->self.id);
    struct dht_record present;
    if (newer->kind == DHT_NODE)
        dht_lease_overtaken(dht, newer);
    bool ours_to_count = entry && entry->counted && current_value(dht, entry, &present);
    if (!ours_to_count || dht_record_compare(newer, &present) <= 0)
        return;
    if (next_version(dht, newer, &present.version) == 0)
        set_value(dht, entry, &present, present.tombstone ? DHT_EXPIRY_MAX_MS : 0);
}
