/*
 * Staying in the mesh: joining, checking contacts, walking to buckets and to ourselves, saving; and who was lost on the
 * way.
 */
#pragma once

#include "dht/book.h"

struct dht_lookup;

/* ---- upkeep.c ---- */

#define DHT_SAVED_CONTACTS 200

struct dht_upkeep {
    struct dht_contact *seeds; /* owned */
    size_t seed_count;
    struct dht_contact *saved; /* owned; of an earlier life, asked a few at a time until one answers; while alone */
    size_t saved_count;
    uint64_t seed_ms;
    unsigned seed_tries;
    bool joined;
    uint64_t self_ms;          /* the next walk to ourselves */
    uint64_t refresh_ms;       /* no refresh before */
    struct dht_lookup *lookup; /* of them, one at a time */
    uint64_t save_ms;
};

void dht_upkeep_release(struct dht_upkeep *upkeep);
/* A contact did not answer. */
void dht_upkeep_failed(struct dht *dht, const struct dht_contact *contact);
/* Somebody came into the table without being asked (dht_meet). */
void dht_upkeep_met(struct dht *dht);
void dht_upkeep_tick(struct dht *dht);
uint64_t dht_upkeep_next_ms(const struct dht *dht);

/* ---- lost.c ---- */

#define DHT_LOST_MAX 16

struct dht_lost_contact {
    dht_handle handle; /* owned reference */
    uint32_t since_s;
};

struct dht_lost {
    struct dht_lost_contact *contacts; /* owned; DHT_LOST_MAX places, NULL before the first */
    unsigned count;
    unsigned next;
    uint64_t ask_ms;
};

void dht_lost_release(struct dht *dht);
/* It did not answer several times. */
void dht_lost_add(struct dht *dht, const struct dht_contact *contact);
void dht_lost_tick(struct dht *dht);
uint64_t dht_lost_next_ms(const struct dht *dht);
