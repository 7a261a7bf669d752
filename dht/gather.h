/*
 * Reading all that is held under one key, from several holders at once. Collections (collect.c) are made of these: one
 * for the key and one for each shard.
 */
#pragma once

#include "dht/internal.h"

/* It is over: `complete`, or for want of time or holders not. What is in `rows` may be taken out; the gather itself is
 * freed when this returns, in which others may be started and none may be freed. `deeper`: there are shards. */
typedef void (*dht_gather_cb)(struct dht *dht, struct dht_gather *gather, void *owner);

enum dht_gather_state { DHT_WALKING, DHT_READING, DHT_CHECKING, DHT_GATHERED };

#define DHT_SOURCES_MAX 4

struct dht_slice;

/* Who the whole set is read from: holders that say they have the same. */
struct dht_gather_source {
    struct dht_gather_holder {
        struct dht_contact contact;
        unsigned window; /* requests that may be under way, */
        unsigned asked;  /* and are */
        unsigned parts;  /* of an answer: fewer where some are lost */
        unsigned fails;  /* in a row */
        uint64_t again_ms;
    } holders[DHT_SOURCES_MAX];
    size_t holder_count;
    struct dht_slice *slices; /* owned */
    size_t slice_count;
    size_t first_waiting; /* those before are not to be asked for */
    size_t done;
};

struct dht_gather {
    TAILQ_ENTRY(dht_gather)
    link;
    enum dht_gather_state state;
    bool stirred;
    bool agreed; /* what is read is to have `digest`, and is not checked then */
    bool complete;
    bool deeper;
    uint64_t deadline_ms;
    struct dht_lookup *lookup; /* while WALKING */
    struct dht_contact others[DHT_SOURCES_MAX];
    size_t other_count; /* all holders that said anything */
    uint32_t total;     /* the most that one of them has */
    uint8_t digest[DHT_DIGEST_BYTES];
    struct dht_gather_source sources[DHT_SOURCES_MAX];
    size_t source_count;
    size_t asked;         /* requests under way, */
    size_t asked_max;     /* of so many that may be */
    struct id checked;    /* while CHECKING: members up to this one are */
    struct dht_held rows; /* key and rows alone */
    dht_gather_cb cb;
    void *owner; /* borrowed */
};

/* Read all that is held under a key. NULL out of memory. */
struct dht_gather *dht_gather_start(struct dht *dht, const struct id *key, uint64_t deadline_ms, dht_gather_cb cb,
                                    void *owner);
void dht_gather_free(struct dht *dht, struct dht_gather *gather);
void dht_gather_tick(struct dht *dht);
uint64_t dht_gather_next_ms(const struct dht *dht);
