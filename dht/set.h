/*
 * What a reader has gathered: records of one key, one of each member, joined and in the order asked for; and META of a
 * set by hand, which stands aside and says which of them are gone.
 */
#pragma once

#include "dht/record.h"

#define DHT_SET_TOMBSTONES 4096 /* x 800 B; without them an old replica would bring back what they hide */

struct dht_set {
    struct dht_record **records; /* owned, each owned; by rank */
    size_t count;
    size_t cap;
    size_t max;        /* of those that are no tombstones; the last ones fall out */
    size_t tombstones; /* that there are: as many again, and DHT_SET_TOMBSTONES */
    enum dht_order order;
    struct dht_place own;    /* of the reader, for DHT_BY_DISTANCE */
    bool ranged;             /* only what is beyond `after` is live */
    struct dht_rank after;   /* rank */
    struct dht_record *meta; /* owned; NULL: none */
};

void dht_set_init(struct dht_set *set, enum dht_order order, size_t max);
void dht_set_release(struct dht_set *set);

struct dht_rank dht_set_rank(const struct dht_set *set, const struct dht_record *record);
/* The record of a member, or NULL. */
const struct dht_record *dht_set_find(const struct dht_set *set, const struct id *member);
/* Join one in. 1 if that changed the set, 0 if not, ERR_NOMEM. */
int dht_set_add(struct dht_set *set, const struct dht_record *record);
/* Is it to be told: no tombstone, not lapsed, not cleared, and in the range? */
bool dht_set_is_live(const struct dht_set *set, const struct dht_record *record, uint64_t wall_ms);
/* The place of the n-th live record (from 0); false if there are fewer. */
bool dht_set_nth_live(const struct dht_set *set, size_t n, uint64_t wall_ms, size_t *ret_at);
