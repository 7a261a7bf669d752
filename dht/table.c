#include "dht/table.h"

#include <stdlib.h>
#include <string.h>

#define FAILS_REPLACED 3
#define FAILS_REMOVED 6
#define CHECK_AGAIN_MS 10000u
#define TIMEOUT_FIRST_MS 1000u
#define TIMEOUT_FLOOR_MS 200u
#define TIMEOUT_CEILING_MS 2000u

struct dht_bucket {
    struct dht_node nodes[DHT_REPLICAS];
    struct dht_node spares[DHT_SPARES]; /* the latest to answer last */
    unsigned count;
    unsigned spare_count;
};

void dht_rtt_add(struct dht_rtt *rtt, uint64_t sample_ms)
{
    uint32_t sample = sample_ms > 60000 ? 60000 : (uint32_t)sample_ms + (sample_ms == 0);
    if (!rtt->smooth_8ths) {
        *rtt = (struct dht_rtt){.smooth_8ths = sample * 8, .deviation_4ths = sample * 2};
        return;
    }
    uint32_t smooth = rtt->smooth_8ths / 8;
    uint32_t off = sample > smooth ? sample - smooth : smooth - sample;
    rtt->deviation_4ths += off - rtt->deviation_4ths / 4;
    rtt->smooth_8ths += sample - smooth;
}

unsigned dht_rtt_ms(const struct dht_rtt *rtt)
{
    return rtt->smooth_8ths / 8;
}

unsigned dht_rtt_timeout_ms(const struct dht_rtt *rtt)
{
    if (!rtt->smooth_8ths)
        return TIMEOUT_FIRST_MS;
    unsigned timeout = rtt->smooth_8ths / 8 + rtt->deviation_4ths; /* SRTT + 4 * RTTVAR */
    if (timeout < TIMEOUT_FLOOR_MS)
        return TIMEOUT_FLOOR_MS;
    return timeout > TIMEOUT_CEILING_MS ? TIMEOUT_CEILING_MS : timeout;
}

unsigned dht_shared_bits(const struct id *a, const struct id *b)
{
    for (unsigned i = 0; i < ID_BYTES; i++) {
        unsigned differing = a->b[i] ^ b->b[i];
        if (differing)
            return i * 8 + (unsigned)__builtin_clz(differing) - 24;
    }
    return ID_BYTES * 8;
}

int dht_closer(const struct id *target, const struct id *a, const struct id *b)
{
    for (size_t i = 0; i < ID_BYTES; i++) {
        int order = (a->b[i] ^ target->b[i]) - (b->b[i] ^ target->b[i]);
        if (order)
            return order;
    }
    return 0;
}

void dht_table_init(struct dht_table *table, const struct id *self, unsigned block_per_bucket, unsigned block_per_table)
{
    *table = (struct dht_table){
        .self = *self,
        .block_per_bucket = block_per_bucket,
        .block_per_table = block_per_table,
    };
}

void dht_table_release(struct dht_table *table)
{
    for (size_t i = 0; i < DHT_BUCKETS; i++)
        free(table->buckets[i]);
    *table = (struct dht_table){0};
}

/* The bucket of an id, NULL for our own id and where there is none yet. */
static struct dht_bucket *bucket_of(const struct dht_table *table, const struct id *id)
{
    unsigned shared = dht_shared_bits(&table->self, id);
    return shared < DHT_BUCKETS ? table->buckets[shared] : NULL;
}

static struct dht_node *find(struct dht_node *nodes, unsigned count, const struct id *id)
{
    for (unsigned i = 0; i < count; i++)
        if (id_equal(&nodes[i].contact.id, id))
            return &nodes[i];
    return NULL;
}

static void take_out(struct dht_node *nodes, unsigned *count, struct dht_node *node)
{
    size_t behind = (size_t)(nodes + *count - node) - 1;
    memmove(node, node + 1, behind * sizeof *node);
    (*count)--;
}

const struct dht_node *dht_table_get(const struct dht_table *table, const struct id *id)
{
    struct dht_bucket *bucket = bucket_of(table, id);
    if (!bucket)
        return NULL;
    struct dht_node *node = find(bucket->nodes, bucket->count, id);
    return node ? node : find(bucket->spares, bucket->spare_count, id);
}

static unsigned same_block(const struct dht_bucket *bucket, const struct addr *addr)
{
    unsigned same = 0;
    for (unsigned i = 0; bucket && i < bucket->count; i++)
        same += addr_block(&bucket->nodes[i].contact.addr) == addr_block(addr);
    return same;
}

/* Is there room for one more of this address block, in the bucket and in the table? */
static bool block_has_room(const struct dht_table *table, const struct dht_bucket *bucket, const struct addr *addr)
{
    if (table->block_per_bucket && same_block(bucket, addr) >= table->block_per_bucket)
        return false;
    if (!table->block_per_table)
        return true;
    unsigned same = 0;
    for (size_t i = 0; i < DHT_BUCKETS; i++)
        same += same_block(table->buckets[i], addr);
    return same < table->block_per_table;
}

bool dht_table_has_room(const struct dht_table *table, const struct dht_contact *contact)
{
    struct dht_bucket *bucket = bucket_of(table, &contact->id);
    if (id_equal(&table->self, &contact->id) || (bucket && bucket->count == DHT_REPLICAS))
        return false;
    return block_has_room(table, bucket, &contact->addr);
}

static struct dht_bucket *make_bucket(struct dht_table *table, const struct id *id)
{
    struct dht_bucket **place = &table->buckets[dht_shared_bits(&table->self, id)];
    if (!*place)
        *place = calloc(1, sizeof **place);
    return *place;
}

static void add_spare(struct dht_bucket *bucket, const struct dht_node *node)
{
    struct dht_node *known = find(bucket->spares, bucket->spare_count, &node->contact.id);
    if (known)
        take_out(bucket->spares, &bucket->spare_count, known);
    else if (bucket->spare_count == DHT_SPARES)
        take_out(bucket->spares, &bucket->spare_count, bucket->spares);
    bucket->spares[bucket->spare_count++] = *node;
}

/* It is alive now, at this address. */
static void refresh_node(struct dht_node *node, const struct dht_contact *contact, const uint64_t *sample_ms,
                         uint64_t now_ms)
{
    node->contact = *contact;
    node->heard_ms = now_ms;
    node->check_ms = now_ms + DHT_SILENT_MS;
    node->fails = 0;
    if (sample_ms)
        dht_rtt_add(&node->rtt, *sample_ms);
}

bool dht_table_answered(struct dht_table *table, const struct dht_contact *contact, const uint64_t *sample_ms,
                        uint64_t now_ms)
{
    if (id_equal(&table->self, &contact->id))
        return false;
    struct dht_node *known = (struct dht_node *)dht_table_get(table, &contact->id);
    struct dht_node fresh = known ? *known : (struct dht_node){0};
    refresh_node(&fresh, contact, sample_ms, now_ms);
    struct dht_bucket *bucket = bucket_of(table, &contact->id);
    if (known && known >= bucket->nodes && known < bucket->nodes + DHT_REPLICAS) {
        *known = fresh;
        return false;
    }
    if (!block_has_room(table, bucket, &contact->addr))
        return false;
    bucket = make_bucket(table, &contact->id);
    if (!bucket)
        return false;
    if (bucket->count == DHT_REPLICAS) {
        add_spare(bucket, &fresh);
        return false;
    }
    bucket->nodes[bucket->count++] = fresh;
    table->count++;
    return true;
}

void dht_table_heard(struct dht_table *table, const struct dht_contact *contact, uint64_t now_ms)
{
    struct dht_node *known = (struct dht_node *)dht_table_get(table, &contact->id);
    if (known && known->fails == 0 && addr_equal(&known->contact.addr, &contact->addr))
        refresh_node(known, contact, NULL, now_ms);
}

/* Out of its bucket; the latest spare that may comes in. */
static void replace(struct dht_table *table, struct dht_bucket *bucket, struct dht_node *node)
{
    take_out(bucket->nodes, &bucket->count, node);
    table->count--;
    for (unsigned i = bucket->spare_count; i-- > 0;) {
        struct dht_node spare = bucket->spares[i];
        if (!block_has_room(table, bucket, &spare.contact.addr))
            continue;
        take_out(bucket->spares, &bucket->spare_count, &bucket->spares[i]);
        bucket->nodes[bucket->count++] = spare;
        table->count++;
        return;
    }
}

void dht_table_failed(struct dht_table *table, const struct id *id, uint64_t now_ms)
{
    struct dht_bucket *bucket = bucket_of(table, id);
    if (!bucket)
        return;
    struct dht_node *spare = find(bucket->spares, bucket->spare_count, id);
    if (spare)
        take_out(bucket->spares, &bucket->spare_count, spare);
    struct dht_node *node = find(bucket->nodes, bucket->count, id);
    if (!node)
        return;
    node->fails++;
    node->check_ms = now_ms + ((uint64_t)CHECK_AGAIN_MS << node->fails);
    if (node->fails >= FAILS_REMOVED || (node->fails >= FAILS_REPLACED && bucket->spare_count > 0))
        replace(table, bucket, node);
}

void dht_table_remove(struct dht_table *table, const struct id *id)
{
    struct dht_bucket *bucket = bucket_of(table, id);
    struct dht_node *spare = bucket ? find(bucket->spares, bucket->spare_count, id) : NULL;
    if (spare)
        take_out(bucket->spares, &bucket->spare_count, spare);
    struct dht_node *node = bucket ? find(bucket->nodes, bucket->count, id) : NULL;
    if (node)
        replace(table, bucket, node);
}

/* A sorted list of the closest so far. */
struct closest {
    const struct id *target;
    struct dht_contact *contacts;
    size_t count;
    size_t max;
};

static void closest_offer(struct closest *list, const struct dht_contact *contact)
{
    size_t at = list->count;
    while (at > 0 && dht_closer(list->target, &contact->id, &list->contacts[at - 1].id) < 0)
        at--;
    if (at == list->max)
        return;
    if (list->count < list->max)
        list->count++;
    memmove(list->contacts + at + 1, list->contacts + at, (list->count - at - 1) * sizeof *contact);
    list->contacts[at] = *contact;
}

static void closest_offer_bucket(struct closest *list, const struct dht_bucket *bucket, bool good_only)
{
    for (unsigned i = 0; bucket && i < bucket->count; i++)
        if (!good_only || bucket->nodes[i].fails == 0)
            closest_offer(list, &bucket->nodes[i].contact);
}

/* The target's own bucket holds the closest; then come, all alike, the deeper ones; then the others, each farther than
 * the one before. So whole groups can be taken in that order until there are enough. */
size_t dht_table_closest(const struct dht_table *table, const struct id *target, bool good_only,
                         struct dht_contact *ret_contacts, size_t max)
{
    struct closest list = {.target = target, .contacts = ret_contacts, .max = max};
    unsigned home = dht_shared_bits(&table->self, target);
    if (home < DHT_BUCKETS)
        closest_offer_bucket(&list, table->buckets[home], good_only);
    bool deeper = list.count < max;
    for (unsigned i = home + 1; deeper && i < DHT_BUCKETS; i++)
        closest_offer_bucket(&list, table->buckets[i], good_only);
    for (unsigned i = home; list.count < max && i-- > 0;)
        closest_offer_bucket(&list, table->buckets[i], good_only);
    return list.count;
}

bool dht_table_next(const struct dht_table *table, size_t *cursor, const struct dht_node **ret_node)
{
    while (*cursor < DHT_BUCKETS * DHT_REPLICAS) {
        const struct dht_bucket *bucket = table->buckets[*cursor / DHT_REPLICAS];
        size_t at = *cursor % DHT_REPLICAS;
        if (bucket && at < bucket->count) {
            *ret_node = &bucket->nodes[at];
            (*cursor)++;
            return true;
        }
        *cursor += DHT_REPLICAS - at; /* the next bucket */
    }
    return false;
}

/* The contact that is to be checked first, or NULL. */
static struct dht_node *first_check(const struct dht_table *table)
{
    struct dht_node *first = NULL;
    const struct dht_node *node;
    for (size_t cursor = 0; dht_table_next(table, &cursor, &node);)
        if (!first || node->check_ms < first->check_ms)
            first = (struct dht_node *)node;
    return first;
}

uint64_t dht_table_check_ms(const struct dht_table *table)
{
    const struct dht_node *first = first_check(table);
    return first ? first->check_ms : UINT64_MAX;
}

bool dht_table_take_check(struct dht_table *table, uint64_t now_ms, struct dht_contact *ret_contact)
{
    struct dht_node *first = first_check(table);
    if (!first || first->check_ms > now_ms)
        return false;
    first->check_ms = now_ms + CHECK_AGAIN_MS;
    *ret_contact = first->contact;
    return true;
}

/* One more than the deepest bucket in use. */
static unsigned depth(const struct dht_table *table)
{
    for (unsigned i = DHT_BUCKETS; i > 0; i--)
        if (table->buckets[i - 1] && table->buckets[i - 1]->count > 0)
            return i;
    return 0;
}

void dht_table_touch(struct dht_table *table, const struct id *target, uint64_t now_ms)
{
    unsigned shared = dht_shared_bits(&table->self, target);
    if (shared < DHT_BUCKETS)
        table->refresh_ms[shared] = now_ms + DHT_SILENT_MS;
}

uint64_t dht_table_refresh_ms(const struct dht_table *table)
{
    uint64_t first = UINT64_MAX;
    for (unsigned i = depth(table); i-- > 0;)
        if (table->refresh_ms[i] < first)
            first = table->refresh_ms[i];
    return first;
}

bool dht_table_take_refresh(struct dht_table *table, uint64_t now_ms, const struct rng *rng, struct id *ret_target)
{
    for (unsigned i = depth(table); i-- > 0;) {
        if (table->refresh_ms[i] > now_ms)
            continue;
        table->refresh_ms[i] = now_ms + DHT_SILENT_MS;
        /* Our own first i bits, the next one turned, the rest random. */
        struct id target;
        rng->fill(rng->ctx, target.b, sizeof target.b);
        memcpy(target.b, table->self.b, i / 8);
        uint8_t kept = (uint8_t)(0xff00 >> (i % 8));
        uint8_t turned = (uint8_t)(0x80 >> (i % 8));
        uint8_t own = table->self.b[i / 8];
        uint8_t random = target.b[i / 8] & (uint8_t) ~(kept | turned);
        target.b[i / 8] = (uint8_t)((own & kept) | (~own & turned) | random);
        *ret_target = target;
        return true;
    }
    return false;
}
