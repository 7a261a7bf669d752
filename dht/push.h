/*
 * Giving records to the nodes closest to their keys.
 */
#pragma once

#include <sys/queue.h>

#include "dht/message.h"
#include "node/base/map.h"

struct dht_lookup;

/* ---- region.c ---- */

#define DHT_REGION_NODES 32 /* 16, and as many to step over those that are dead or full */

struct dht_region;
/* The walk is over. No nodes: nobody was found. */
typedef void (*dht_region_cb)(struct dht *dht, struct dht_region *region, void *owner);

struct dht_region {
    TAILQ_ENTRY(dht_region)
    link;
    struct id key;
    unsigned bits;             /* all keys that share so many with `key` */
    unsigned users;            /* it is not freed before they are done */
    bool spoilt;               /* its nodes are others by now */
    uint64_t until_ms;         /* known until then */
    struct dht_lookup *lookup; /* while it is not known yet */
    dht_region_cb cb;
    void *owner;                                /* borrowed, for cb */
    struct dht_contact nodes[DHT_REGION_NODES]; /* closest to `key` first */
    size_t node_count;
};

TAILQ_HEAD(dht_region_list, dht_region);

struct dht_regions {
    struct dht_region_list list; /* owned; the oldest first */
    size_t count;
    size_t walking;
};

void dht_region_init(struct dht *dht);
void dht_region_release(struct dht *dht);
/* The region known now in which this key is, or NULL. Good until the next tick, unless `users` is raised. */
struct dht_region *dht_region_of(struct dht *dht, const struct id *key);
bool dht_region_is_known(const struct dht *dht, const struct dht_region *region);
bool dht_region_has(const struct dht_region *region, const struct id *key);
/* Find out the region of this key. NULL when out of memory. */
struct dht_region *dht_region_walk(struct dht *dht, const struct id *key, dht_region_cb cb, void *owner);
/* This node has come or gone: regions with it are no longer known. */
void dht_region_changed(struct dht *dht, const struct id *node);
/* Free what is no longer of use. */
void dht_region_tick(struct dht *dht);

/* ---- push.c ---- */

struct dht_ticket;
struct dht_lane;
struct dht_parcel;
TAILQ_HEAD(dht_lane_list, dht_lane);

/* It is settled: accepted by DHT_ACKED holders, or refused as full by more than half of them, or there is nobody left
 * to try. Called once; the parcel is borrowed for the call. */
typedef void (*dht_parcel_cb)(struct dht *dht, struct dht_parcel *parcel, void *owner);

/* A record on its way. */
struct dht_parcel {
    struct id key;
    struct dht_region *region; /* NULL: to one contact, and no other */
    uint32_t tried;            /* bits, by place in the region */
    size_t wanted;             /* holders */
    size_t open;               /* of them, without an answer yet */
    size_t accepted;
    size_t full;
    bool settled;
    dht_parcel_cb cb;           /* may be NULL */
    void *owner;                /* borrowed */
    struct dht_ticket *tickets; /* owned, `wanted` of them */
    size_t len;
    uint8_t bytes[];
};

struct dht_pushes {
    struct map lanes; /* contact's id to owned struct dht_lane; none that is idle */
    struct dht_lane_list stirred;
    struct dht_lane_list paused;
    size_t parcels;
    uint64_t wake_ms; /* none of the paused goes on before */
};

void dht_push_init(struct dht *dht);
void dht_push_release(struct dht *dht);
/* Give the encoded record, which is copied, to the sixteen nodes of the region closest to the key, stepping over those
 * that do not take it. 0, ERR_LIMIT (too many are under way) or ERR_NOTFOUND (nobody is in the region). */
int dht_push_to_region(struct dht *dht, struct dht_region *region, const struct id *key, const struct dht_span *record,
                       dht_parcel_cb cb, void *owner);
/* The same to this contact alone. */
int dht_push_to(struct dht *dht, const struct dht_contact *to, const struct dht_span *record, dht_parcel_cb cb,
                void *owner);
/* Was it refused because the holders are full? */
bool dht_push_is_full(const struct dht_parcel *parcel);
/* Send what waits. */
void dht_push_tick(struct dht *dht);
uint64_t dht_push_next_ms(const struct dht *dht);
