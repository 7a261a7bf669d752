/*
 * What a reader has gathered: records of one key, one of each member, joined and in the order asked for.
 */
#pragma once

#include "dht/record.h"

struct dht_set {
    struct dht_record **records; /* owned, each owned; by rank */
    size_t count;
    size_t cap;
    size_t max; /* the last ones fall out */
    enum dht_order order;
};

void dht_set_init(struct dht_set *set, enum dht_order order, size_t max);
void dht_set_release(struct dht_set *set);

/* The record of a member, or NULL. */
const struct dht_record *dht_set_find(const struct dht_set *set, const struct id *member);
/* Join one in. 1 if that changed the set, 0 if not, ERR_NOMEM. */
int dht_set_add(struct dht_set *set, const struct dht_record *record);
/* The place of the n-th record (from 0) that is no tombstone; false if there are fewer. */
bool dht_set_nth_live(const struct dht_set *set, size_t n, size_t *ret_at);
