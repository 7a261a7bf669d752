/*
 * Keeping what is held as it should be: comparing it with neighbours, handing it over, letting it lapse.
 */
#pragma once

#include <sys/queue.h>

#include "dht/message.h"
#include "dht/publish.h"

struct dht_held;

/* ---- range.c ---- */

/* The keys that share their first so many bits with this one, which is the first of them. */
struct dht_range {
    struct id first;
    unsigned bits;
};

struct id dht_range_first(const struct id *key, unsigned bits);
/* One of its sixteenths. */
struct dht_range dht_range_branch(const struct dht_range *range, unsigned branch);
bool dht_range_has(const struct dht_range *range, const struct id *key);
/* The next held key of the range behind this one (NULL: the first), or NULL. */
struct dht_held *dht_range_next(struct dht *dht, const struct dht_range *range, const struct id *after);

/* The digest of a range, being made. */
struct dht_digesting {
    struct dht_range range;
    struct id cursor;
    bool begun;
    uint8_t branches[DHT_BRANCHES][DHT_DIGEST_BYTES];
    uint8_t digest[DHT_DIGEST_BYTES];
    struct dht_key_digest keys[DHT_COMPARED_KEYS]; /* the first of them */
    size_t key_count;                              /* all of them */
};

void dht_digesting_init(struct dht_digesting *digesting, const struct dht_range *range);
/* Take in so many keys more. True when it is complete. */
bool dht_digesting_step(struct dht *dht, struct dht_digesting *digesting, size_t max);

/* ---- reconcile.c ---- */

#define DHT_NEWCOMERS_MAX 16

struct dht_repair;

struct dht_reconciling {
    struct dht_repair *repair;     /* owned: under way; NULL: none */
    struct dht_contact *newcomers; /* owned, NULL: none; to be asked at once */
    size_t newcomer_count;
    uint64_t number;   /* of comparisons so far */
    unsigned failures; /* in a row */
    size_t turn;       /* which neighbour is next */
    bool joined;       /* as upkeep.c said when it was last looked at */
    uint64_t next_ms;
    uint64_t wake_ms;
};

void dht_reconcile_release(struct dht *dht);
/* How many bits those share with us who hold the same keys. */
unsigned dht_common_bits(const struct dht *dht);
struct dht_range dht_common_range(const struct dht *dht);
/* Compare with this one before the others. */
void dht_reconcile_soon(struct dht *dht, const struct dht_contact *contact);
/* Somebody came into the table. */
void dht_reconcile_newcomer(struct dht *dht, const struct dht_contact *contact);
/* Somebody went out of the table, or did not answer: the others who hold the same keys are to look. */
void dht_reconcile_lost(struct dht *dht, const struct id *node);
void dht_reconcile_tick(struct dht *dht);
uint64_t dht_reconcile_next_ms(const struct dht *dht);

/* ---- compare.c ---- */

struct dht_comparing;

struct dht_compares {
    struct dht_comparing *comparing; /* owned: asked and not answered yet; NULL: nothing */
    struct id filled;                /* the last who said that it had nothing, and was given all */
    uint64_t fill_ms;
    uint64_t allowance; /* keys that may be digested for others */
    uint64_t counted_ms;
    uint64_t wake_ms;
};

void dht_compare_release(struct dht_compares *compares);
/* A COMPARE came in. */
void dht_compare_serve(struct dht *dht, const struct dht_contact *from, const struct dht_message *request);
void dht_compare_tick(struct dht *dht);
uint64_t dht_compare_next_ms(const struct dht *dht);

/* ---- sweep.c ---- */

#define DHT_HANDOVERS_MAX 16

struct dht_sweep {
    struct id cursor;            /* the last key looked at */
    struct dht_record_place own; /* the next entry of ours to look at */
    bool keys_done, own_done;    /* in this round */
    uint64_t next_ms;
    struct dht_contact *newcomers; /* owned, NULL: none; waiting for their records, the first one is served */
    size_t newcomer_count;
    struct id handover_cursor;
    size_t handing_over; /* records under way */
    uint64_t handover_ms;
};

void dht_sweep_release(struct dht_sweep *sweep);
void dht_sweep_restore(struct dht *dht);
int dht_sweep_save(struct dht *dht);
/* Somebody came into the table. */
void dht_sweep_newcomer(struct dht *dht, const struct dht_contact *contact);
void dht_sweep_tick(struct dht *dht);
uint64_t dht_sweep_next_ms(const struct dht *dht);
