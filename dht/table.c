#include "dht/table.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/wire.h"

#define FAILS_REPLACED 3
#define FAILS_REMOVED 6
#define CHECK_AGAIN_S 10
#define REFRESH_SLOWEST 3 /* walks in vain, each after twice the time: 1 h, 2 h, 4 h */
#define BUCKET_STEP 4     /* places are added by so many */

struct entry {
    dht_handle handle;
    uint32_t heard_s;
    uint32_t known_s;
    struct dht_rtt rtt;
    uint16_t check_s; /* after heard_s: asked whether it is still there */
    uint8_t fails;
};
_Static_assert(sizeof(struct entry) == 20, "a million tables of 400 entries");

/* The first `count` entries are the contacts, the next `spare_count` the spares, the latest to answer last. */
struct dht_bucket {
    uint8_t count;
    uint8_t spare_count;
    uint8_t places;
    uint8_t walks;      /* to it since somebody came or went, REFRESH_SLOWEST at most; 0: never was one */
    uint32_t touched_s; /* the last one */
    struct entry entries[];
};

/* ---- lifecycle ---- */

void dht_table_init(struct dht_table *table, struct dht_book *book, const struct id *self, unsigned block_per_bucket,
                    unsigned block_per_table)
{
    *table = (struct dht_table){
        .book = book,
        .self = *self,
        .block_per_bucket = block_per_bucket,
        .block_per_table = block_per_table,
        .check_wake_ms = UINT64_MAX,
        .refresh_wake_ms = UINT64_MAX,
    };
}

static unsigned held_by(const struct dht_bucket *bucket)
{
    return bucket ? bucket->count + bucket->spare_count : 0u;
}

void dht_table_release(struct dht_table *table)
{
    for (unsigned i = 0; i < table->bucket_count; i++) {
        for (unsigned at = 0; at < held_by(table->buckets[i]); at++)
            dht_book_unref(table->book, table->buckets[i]->entries[at].handle);
        free(table->buckets[i]);
    }
    free(table->buckets);
    *table = (struct dht_table){0};
}

/* ---- buckets and their entries ---- */

static const struct dht_contact *contact_of(const struct dht_table *table, const struct entry *entry)
{
    return dht_book_at(table->book, entry->handle);
}

/* The bucket of an id, NULL for our own id and where there is none yet. */
static struct dht_bucket *bucket_of(const struct dht_table *table, const struct id *id)
{
    unsigned shared = dht_shared_bits(&table->self, id);
    return shared < table->bucket_count ? table->buckets[shared] : NULL;
}

static struct entry *find_id(const struct dht_table *table, struct dht_bucket *bucket, const struct id *id)
{
    for (unsigned i = 0; i < held_by(bucket); i++)
        if (id_equal(&contact_of(table, &bucket->entries[i])->id, id))
            return &bucket->entries[i];
    return NULL;
}

/* The entry of a contact, whatever its address there. What the book does not know is in no table. */
static struct entry *find(const struct dht_table *table, struct dht_bucket *bucket, const struct dht_contact *contact)
{
    dht_handle handle;
    for (size_t cursor = 0; bucket && (handle = dht_book_next(table->book, contact->public_key, &cursor));)
        for (unsigned i = 0; i < held_by(bucket); i++)
            if (bucket->entries[i].handle == handle)
                return &bucket->entries[i];
    return NULL;
}

static bool is_spare(const struct dht_bucket *bucket, const struct entry *entry)
{
    return entry >= bucket->entries + bucket->count;
}

/* Out of the bucket, without its reference. */
static struct entry take_out(struct dht_bucket *bucket, struct entry *entry)
{
    struct entry taken = *entry;
    size_t behind = (size_t)(bucket->entries + held_by(bucket) - entry) - 1;
    if (is_spare(bucket, entry))
        bucket->spare_count--;
    else
        bucket->count--;
    memmove(entry, entry + 1, behind * sizeof *entry);
    return taken;
}

/* ---- when they are due ---- */

static uint64_t check_ms(const struct entry *entry)
{
    return ((uint64_t)entry->heard_s + entry->check_s) * 1000;
}

static uint64_t refresh_ms(const struct dht_bucket *bucket)
{
    if (!bucket || bucket->count == 0)
        return UINT64_MAX; /* what is as empty as that is walked through with its neighbours */
    return bucket->walks ? bucket->touched_s * 1000ull + ((uint64_t)DHT_REFRESH_MS << (bucket->walks - 1)) : 0;
}

static void lower(uint64_t *wake_ms, uint64_t ms)
{
    if (ms < *wake_ms)
        *wake_ms = ms;
}

/* Somebody came into the bucket or went: there may be more to find. */
static void stir(struct dht_table *table, struct dht_bucket *bucket)
{
    bucket->walks = bucket->walks > 0;
    lower(&table->refresh_wake_ms, refresh_ms(bucket));
}

static void drop(struct dht_table *table, struct dht_bucket *bucket, struct entry *entry)
{
    if (!is_spare(bucket, entry)) {
        table->count--;
        stir(table, bucket);
    }
    dht_book_unref(table->book, take_out(bucket, entry).handle);
}

/* Room for all buckets up to this one. */
static bool reach_bucket(struct dht_table *table, unsigned at)
{
    if (at < table->bucket_count)
        return true;
    struct dht_bucket **buckets = realloc(table->buckets, (at + 1) * sizeof *buckets);
    if (!buckets)
        return false;
    for (unsigned i = table->bucket_count; i <= at; i++)
        buckets[i] = NULL;
    table->buckets = buckets;
    table->bucket_count = at + 1;
    return true;
}

/* The bucket of an id, made if need be, with room for one more entry, unless it has as many as it may; NULL when out of
 * memory. */
static struct dht_bucket *make_room(struct dht_table *table, const struct id *id)
{
    unsigned at = dht_shared_bits(&table->self, id);
    if (!reach_bucket(table, at))
        return NULL;
    struct dht_bucket *bucket = table->buckets[at];
    if (bucket && (held_by(bucket) < bucket->places || held_by(bucket) == DHT_REPLICAS + DHT_SPARES))
        return bucket;
    unsigned places = (bucket ? bucket->places : 0u) + BUCKET_STEP;
    bucket = realloc(bucket, sizeof *bucket + places * sizeof *bucket->entries);
    if (!bucket)
        return NULL;
    if (!table->buckets[at])
        *bucket = (struct dht_bucket){0};
    bucket->places = (uint8_t)places;
    return table->buckets[at] = bucket;
}

/* Behind the other contacts, in front of the spares. There is room. */
static void put_in(struct dht_table *table, struct dht_bucket *bucket, const struct entry *entry)
{
    struct entry *place = bucket->entries + bucket->count;
    memmove(place + 1, place, bucket->spare_count * sizeof *place);
    *place = *entry;
    bucket->count++;
    table->count++;
    lower(&table->check_wake_ms, check_ms(entry));
    stir(table, bucket);
}

/* ---- address blocks ---- */

static unsigned same_block(const struct dht_table *table, const struct dht_bucket *bucket, const struct addr *addr)
{
    unsigned same = 0;
    for (unsigned i = 0; bucket && i < bucket->count; i++)
        same += addr_block(&contact_of(table, &bucket->entries[i])->addr) == addr_block(addr);
    return same;
}

/* Is there room for one more of this address block, in the bucket and in the table? */
static bool block_has_room(const struct dht_table *table, const struct dht_bucket *bucket, const struct addr *addr)
{
    if (table->block_per_bucket && same_block(table, bucket, addr) >= table->block_per_bucket)
        return false;
    if (!table->block_per_table)
        return true;
    unsigned same = 0;
    for (unsigned i = 0; i < table->bucket_count; i++)
        same += same_block(table, table->buckets[i], addr);
    return same < table->block_per_table;
}

bool dht_table_has_room(const struct dht_table *table, const struct dht_contact *contact)
{
    struct dht_bucket *bucket = bucket_of(table, &contact->id);
    if (id_equal(&table->self, &contact->id) || (bucket && bucket->count == DHT_REPLICAS))
        return false;
    return block_has_room(table, bucket, &contact->addr);
}

/* ---- what happens to contacts ---- */

/* Check it at that time, or so: an entry that was not heard of for longer than a 16-bit number of seconds at once. */
static void check_at(struct dht_table *table, struct entry *entry, uint64_t ms)
{
    uint64_t after_s = ms / 1000 - entry->heard_s;
    entry->check_s = (uint16_t)(after_s < UINT16_MAX ? after_s : UINT16_MAX);
    lower(&table->check_wake_ms, check_ms(entry));
}

/* Up to a quarter more, each by another share, so that those who came together are not checked together. */
static uint64_t spread(const struct dht_table *table, const struct entry *entry, uint64_t ms)
{
    uint32_t share = (wire_load_u32(table->self.b) ^ entry->handle) * 0x9e3779b1u; /* Fibonacci hashing */
    return ms + (ms / 4 * (share >> 16) >> 16);
}

/* It is alive now. */
static void refresh(struct dht_table *table, struct entry *entry, uint64_t now_ms)
{
    entry->heard_s = (uint32_t)(now_ms / 1000);
    entry->fails = 0;
    uint64_t pause_ms = (uint64_t)(entry->heard_s - entry->known_s) * 1000 / 2;
    if (pause_ms < DHT_CHECK_MS)
        pause_ms = DHT_CHECK_MS;
    if (pause_ms > DHT_CHECK_LONGEST_MS)
        pause_ms = DHT_CHECK_LONGEST_MS;
    check_at(table, entry, now_ms + spread(table, entry, pause_ms));
}

/* From now on at this address; its old one stays if there is no memory for the new. */
static void readdress(struct dht_table *table, struct entry *entry, const struct dht_contact *contact)
{
    dht_handle handle = dht_book_ref(table->book, contact);
    if (!handle)
        return;
    dht_book_unref(table->book, entry->handle);
    entry->handle = handle;
}

/* A spare for this full bucket, in place of the one that answered longest ago if there are enough. */
static void add_spare(struct dht_table *table, struct dht_bucket *bucket, const struct entry *entry)
{
    if (bucket->spare_count == DHT_SPARES)
        drop(table, bucket, bucket->entries + bucket->count);
    bucket->entries[held_by(bucket)] = *entry;
    bucket->spare_count++;
}

static bool add(struct dht_table *table, const struct entry *entry)
{
    struct dht_bucket *bucket = make_room(table, &contact_of(table, entry)->id);
    if (!bucket) {
        dht_book_unref(table->book, entry->handle);
        return false;
    }
    if (bucket->count == DHT_REPLICAS) {
        add_spare(table, bucket, entry);
        return false;
    }
    put_in(table, bucket, entry);
    return true;
}

bool dht_table_answered(struct dht_table *table, const struct dht_contact *contact, const uint64_t *sample_ms,
                        uint64_t now_ms)
{
    if (id_equal(&table->self, &contact->id))
        return false;
    struct dht_bucket *bucket = bucket_of(table, &contact->id);
    struct entry *known = find(table, bucket, contact);
    struct entry fresh = {.known_s = (uint32_t)(now_ms / 1000)};
    struct entry *entry = known ? known : &fresh;
    if (known)
        readdress(table, known, contact);
    else if (!block_has_room(table, bucket, &contact->addr) || !(fresh.handle = dht_book_ref(table->book, contact)))
        return false;
    refresh(table, entry, now_ms);
    if (sample_ms)
        dht_rtt_add(&entry->rtt, *sample_ms);
    if (!known)
        return add(table, &fresh);
    if (!is_spare(bucket, known))
        return false;
    fresh = take_out(bucket, known);
    if (bucket->count < DHT_REPLICAS && block_has_room(table, bucket, &contact->addr))
        return add(table, &fresh);
    add_spare(table, bucket, &fresh); /* now the latest */
    return false;
}

enum dht_heard dht_table_heard(struct dht_table *table, const struct dht_contact *contact, uint64_t now_ms)
{
    struct entry *known = find(table, bucket_of(table, &contact->id), contact);
    if (!known)
        return DHT_HEARD_NEW;
    if (!addr_equal(&contact_of(table, known)->addr, &contact->addr))
        return DHT_HEARD_AWAY;
    if (known->fails == 0)
        refresh(table, known, now_ms);
    return DHT_HEARD;
}

/* Out of its bucket; the latest spare that may comes in. */
static void replace(struct dht_table *table, struct dht_bucket *bucket, struct entry *entry)
{
    drop(table, bucket, entry);
    for (unsigned i = held_by(bucket); i-- > bucket->count;) {
        if (!block_has_room(table, bucket, &contact_of(table, &bucket->entries[i])->addr))
            continue;
        struct entry spare = take_out(bucket, &bucket->entries[i]);
        put_in(table, bucket, &spare);
        return;
    }
}

/* That it does not answer at an address where it never was says nothing: others may have made that up. */
unsigned dht_table_failed(struct dht_table *table, const struct dht_contact *contact, uint64_t now_ms)
{
    struct dht_bucket *bucket = bucket_of(table, &contact->id);
    struct entry *entry = find(table, bucket, contact);
    if (!entry || !addr_equal(&contact_of(table, entry)->addr, &contact->addr))
        return 0;
    if (is_spare(bucket, entry)) {
        drop(table, bucket, entry);
        return 1;
    }
    unsigned fails = ++entry->fails;
    check_at(table, entry, now_ms + ((uint64_t)CHECK_AGAIN_S * 1000 << fails));
    if (fails >= FAILS_REMOVED || (fails >= FAILS_REPLACED && bucket->spare_count > 0))
        replace(table, bucket, entry);
    return fails;
}

void dht_table_remove(struct dht_table *table, const struct id *id)
{
    struct dht_bucket *bucket = bucket_of(table, id);
    struct entry *entry = find_id(table, bucket, id);
    if (entry && is_spare(bucket, entry))
        drop(table, bucket, entry);
    else if (entry)
        replace(table, bucket, entry);
}

/* ---- queries ---- */

static void fill_node(const struct dht_table *table, const struct entry *entry, struct dht_node *ret_node)
{
    *ret_node = (struct dht_node){
        .contact = *contact_of(table, entry),
        .rtt = entry->rtt,
        .heard_ms = (uint64_t)entry->heard_s * 1000,
        .known_ms = (uint64_t)entry->known_s * 1000,
        .fails = entry->fails,
    };
}

bool dht_table_find(const struct dht_table *table, const struct id *id, struct dht_node *ret_node)
{
    const struct entry *entry = find_id(table, bucket_of(table, id), id);
    if (entry)
        fill_node(table, entry, ret_node);
    return entry;
}

const struct dht_rtt *dht_table_rtt(const struct dht_table *table, const struct dht_contact *contact)
{
    const struct entry *entry = find(table, bucket_of(table, &contact->id), contact);
    return entry ? &entry->rtt : NULL;
}

const struct addr *dht_table_addr(const struct dht_table *table, const struct dht_contact *contact)
{
    const struct entry *entry = find(table, bucket_of(table, &contact->id), contact);
    return entry && entry->fails == 0 ? &contact_of(table, entry)->addr : NULL;
}

/* A sorted list of the closest so far. */
struct closest {
    const struct id *target;
    const struct dht_contact *contacts[DHT_CLOSEST_MAX];
    size_t count;
    size_t max;
};

static void offer(struct closest *list, const struct dht_contact *contact)
{
    size_t at = list->count;
    while (at > 0 && dht_closer(list->target, &contact->id, &list->contacts[at - 1]->id) < 0)
        at--;
    if (at == list->max)
        return;
    if (list->count < list->max)
        list->count++;
    memmove(&list->contacts[at + 1], &list->contacts[at], (list->count - at - 1) * sizeof *list->contacts);
    list->contacts[at] = contact;
}

static void offer_bucket(const struct dht_table *table, unsigned at, bool good_only, struct closest *list)
{
    const struct dht_bucket *bucket = table->buckets[at];
    for (unsigned i = 0; bucket && i < bucket->count; i++)
        if (!good_only || bucket->entries[i].fails == 0)
            offer(list, contact_of(table, &bucket->entries[i]));
}

/* Contacts of bucket i differ from us in bit i, and not before. So where the target differs from us in bit i, bucket i
 * is closer to it than all deeper buckets are, and where it does not, farther: whole buckets are taken in that order
 * until there are enough, and sorted each by itself. */
size_t dht_table_closest(const struct dht_table *table, const struct id *target, bool good_only,
                         struct dht_contact *ret_contacts, size_t max)
{
    struct closest list = {.target = target, .max = max < DHT_CLOSEST_MAX ? max : DHT_CLOSEST_MAX};
    for (unsigned i = 0; i < table->bucket_count && list.count < list.max; i++)
        if (dht_differ_at(&table->self, target, i))
            offer_bucket(table, i, good_only, &list);
    for (unsigned i = table->bucket_count; list.count < list.max && i-- > 0;)
        if (!dht_differ_at(&table->self, target, i))
            offer_bucket(table, i, good_only, &list);
    for (size_t i = 0; i < list.count; i++)
        ret_contacts[i] = *list.contacts[i];
    return list.count;
}

size_t dht_table_count_within(const struct dht_table *table, const struct id *key, unsigned bits)
{
    size_t count = 0;
    unsigned shared = dht_shared_bits(&table->self, key);
    unsigned first = shared < bits ? shared : bits; /* all others share fewer bits with the key */
    unsigned end = shared < bits ? shared + 1 : table->bucket_count;
    for (unsigned i = first; i < end && i < table->bucket_count; i++) {
        const struct dht_bucket *bucket = table->buckets[i];
        for (unsigned at = 0; bucket && at < bucket->count; at++)
            count += bucket->entries[at].fails == 0 &&
                     (shared >= bits || dht_shared_bits(&contact_of(table, &bucket->entries[at])->id, key) >= bits);
    }
    return count;
}

bool dht_table_next(const struct dht_table *table, size_t *cursor, struct dht_node *ret_node)
{
    while (*cursor < (size_t)table->bucket_count * DHT_REPLICAS) {
        const struct dht_bucket *bucket = table->buckets[*cursor / DHT_REPLICAS];
        size_t at = *cursor % DHT_REPLICAS;
        if (bucket && at < bucket->count) {
            fill_node(table, &bucket->entries[at], ret_node);
            (*cursor)++;
            return true;
        }
        *cursor += DHT_REPLICAS - at; /* the next bucket */
    }
    return false;
}

size_t dht_table_bytes(const struct dht_table *table)
{
    size_t bytes = table->bucket_count * sizeof(struct dht_bucket *);
    for (unsigned i = 0; i < table->bucket_count; i++)
        if (table->buckets[i])
            bytes += sizeof(struct dht_bucket) + table->buckets[i]->places * sizeof(struct entry);
    return bytes;
}

/* ---- checking and refreshing ---- */

/* The contact that is to be checked first, or NULL. */
static struct entry *first_check(const struct dht_table *table)
{
    struct entry *first = NULL;
    for (unsigned i = 0; i < table->bucket_count; i++) {
        struct dht_bucket *bucket = table->buckets[i];
        for (unsigned at = 0; bucket && at < bucket->count; at++)
            if (!first || check_ms(&bucket->entries[at]) < check_ms(first))
                first = &bucket->entries[at];
    }
    return first;
}

bool dht_table_take_check(struct dht_table *table, uint64_t now_ms, struct dht_contact *ret_contact)
{
    if (now_ms < table->check_wake_ms)
        return false;
    struct entry *first = first_check(table);
    table->check_wake_ms = first ? check_ms(first) : UINT64_MAX;
    if (!first || check_ms(first) > now_ms)
        return false;
    *ret_contact = *contact_of(table, first);
    check_at(table, first, now_ms + CHECK_AGAIN_S * 1000);
    return true;
}

static bool is_full_of_good(const struct dht_bucket *bucket)
{
    unsigned good = 0;
    for (unsigned i = 0; i < bucket->count; i++)
        good += bucket->entries[i].fails == 0;
    return good == DHT_REPLICAS;
}

static void touch_bucket(struct dht_bucket *bucket, uint64_t now_ms)
{
    if (!bucket)
        return;
    if (bucket->walks == 0)
        bucket->walks = 1;
    bucket->touched_s = (uint32_t)(now_ms / 1000);
}

void dht_table_touch(struct dht_table *table, const struct id *target, uint64_t now_ms)
{
    touch_bucket(bucket_of(table, target), now_ms);
}

void dht_table_touch_near(struct dht_table *table, const struct id *farthest, uint64_t now_ms)
{
    for (unsigned i = dht_shared_bits(&table->self, farthest) + 1; i < table->bucket_count; i++)
        touch_bucket(table->buckets[i], now_ms);
}

bool dht_table_take_refresh(struct dht_table *table, uint64_t now_ms, const struct rng *rng, struct id *ret_target)
{
    if (now_ms < table->refresh_wake_ms)
        return false;
    uint64_t wake_ms = UINT64_MAX;
    for (unsigned i = table->bucket_count; i-- > 0;) {
        struct dht_bucket *bucket = table->buckets[i];
        uint64_t due_ms = refresh_ms(bucket);
        if (due_ms <= now_ms) {
            bool needed = bucket->walks == 0 || !is_full_of_good(bucket);
            if (needed && bucket->walks > 0 && bucket->walks < REFRESH_SLOWEST)
                bucket->walks++;
            touch_bucket(bucket, now_ms);
            if (needed) {
                *ret_target = dht_id_apart(&table->self, i, rng);
                return true;
            }
            due_ms = refresh_ms(bucket);
        }
        lower(&wake_ms, due_ms);
    }
    table->refresh_wake_ms = wake_ms;
    return false;
}
