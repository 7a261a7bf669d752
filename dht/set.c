#include "dht/set.h"

#include <stdlib.h>
#include <string.h>

void dht_set_init(struct dht_set *set, enum dht_order order, size_t max)
{
    *set = (struct dht_set){.order = order, .max = max};
}

void dht_set_release(struct dht_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        free(set->records[i]);
    free(set->records);
    free(set->meta);
    *set = (struct dht_set){0};
}

struct dht_rank dht_set_rank(const struct dht_set *set, const struct dht_record *record)
{
    return dht_record_rank(record, set->order, &set->own);
}

static size_t place_of_member(const struct dht_set *set, const struct id *member)
{
    size_t at = 0;
    while (at < set->count && !id_equal(&set->records[at]->member, member))
        at++;
    return at;
}

const struct dht_record *dht_set_find(const struct dht_set *set, const struct id *member)
{
    size_t at = place_of_member(set, member);
    if (set->meta && id_is_zero(member))
        return set->meta;
    return at < set->count ? set->records[at] : NULL;
}

static void take_out(struct dht_set *set, size_t at)
{
    set->tombstones -= set->records[at]->tombstone;
    free(set->records[at]);
    set->count--;
    memmove(set->records + at, set->records + at + 1, (set->count - at) * sizeof *set->records);
}

static int make_room(struct dht_set *set)
{
    if (set->count < set->cap)
        return 0;
    size_t cap = set->cap ? set->cap * 2 : 16;
    struct dht_record **records = realloc(set->records, cap * sizeof *records);
    if (!records)
        return ERR_NOMEM;
    set->records = records;
    set->cap = cap;
    return 0;
}

static int join_meta(struct dht_set *set, const struct dht_record *meta)
{
    if (set->meta && dht_record_compare(meta, set->meta) <= 0)
        return 0;
    if (!set->meta)
        set->meta = malloc(sizeof *meta);
    if (!set->meta)
        return ERR_NOMEM;
    *set->meta = *meta;
    return 1;
}

int dht_set_add(struct dht_set *set, const struct dht_record *record)
{
    if (record->meta)
        return join_meta(set, record);
    size_t known = place_of_member(set, &record->member);
    if (known < set->count && dht_record_compare(record, set->records[known]) <= 0)
        return 0;
    struct dht_record *copy = make_room(set) < 0 ? NULL : malloc(sizeof *copy);
    if (!copy)
        return ERR_NOMEM;
    *copy = *record;
    if (known < set->count)
        take_out(set, known);

    struct dht_rank rank = dht_set_rank(set, record);
    size_t at = set->count;
    for (; at > 0; at--) {
        struct dht_rank before = dht_set_rank(set, set->records[at - 1]);
        if (dht_rank_compare(&before, &rank) < 0)
            break;
    }
    memmove(set->records + at + 1, set->records + at, (set->count - at) * sizeof *set->records);
    set->records[at] = copy;
    set->count++;
    set->tombstones += record->tombstone;
    while (set->count - set->tombstones > set->max || set->tombstones > set->max + DHT_SET_TOMBSTONES)
        take_out(set, set->count - 1);
    return 1;
}

bool dht_set_is_live(const struct dht_set *set, const struct dht_record *record, uint64_t wall_ms)
{
    if (record->tombstone || record->meta || record->expiry_wall_ms <= wall_ms)
        return false;
    if (set->meta && dht_is_by_hand(record->kind) && record->version.epoch <= dht_record_cleared_ms(set->meta, wall_ms))
        return false;
    struct dht_rank rank = dht_set_rank(set, record);
    return !set->ranged || dht_rank_compare(&rank, &set->after) > 0;
}

bool dht_set_nth_live(const struct dht_set *set, size_t n, uint64_t wall_ms, size_t *ret_at)
{
    for (size_t i = 0; i < set->count; i++)
        if (dht_set_is_live(set, set->records[i], wall_ms) && n-- == 0) {
            *ret_at = i;
            return true;
        }
    return false;
}
