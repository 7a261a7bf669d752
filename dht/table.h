/*
 * The routing table: who has answered us, in buckets by the length of the id prefix shared with us, with spare contacts
 * for each full bucket. Old contacts that still answer are never displaced: it is the answer to churn and to floods.
 *
 * A contact is good while its last request was answered; only good ones are told to others.
 */
#pragma once

#include "dht/dht.h"

#define DHT_BUCKETS 256
#define DHT_SPARES 8
#define DHT_SILENT_MS                                                                                                  \
    900000u /* not heard for so long: asked whether it is still there; buckets not used: refreshed                     \
             */

/* Smoothed round-trip time and deviation, as in RFC 6298, in fixed point. */
struct dht_rtt {
    uint32_t smooth_8ths; /* 0: no sample yet */
    uint32_t deviation_4ths;
};

void dht_rtt_add(struct dht_rtt *rtt, uint64_t sample_ms);
unsigned dht_rtt_ms(const struct dht_rtt *rtt);
/* How long to wait before somebody else is asked too: 200 ms to 2 s; 1 s before the first sample. */
unsigned dht_rtt_timeout_ms(const struct dht_rtt *rtt);

struct dht_node {
    struct dht_contact contact;
    struct dht_rtt rtt;
    uint64_t heard_ms;
    uint64_t check_ms; /* when to ask whether it is still there */
    uint8_t fails;     /* requests in a row without an answer; 0: good */
};

struct dht_bucket;

struct dht_table {
    struct id self;
    unsigned block_per_bucket, block_per_table; /* 0: no cap */
    struct dht_bucket *buckets[DHT_BUCKETS];    /* owned; NULL: empty */
    uint64_t refresh_ms[DHT_BUCKETS];           /* due from the start, so that joining ends with a walk to each */
    size_t count;
};

void dht_table_init(struct dht_table *table, const struct id *self, unsigned block_per_bucket,
                    unsigned block_per_table);
void dht_table_release(struct dht_table *table);

/* Leading bits that two ids share: 0 to 256. */
unsigned dht_shared_bits(const struct id *a, const struct id *b);
/* Which of a and b is closer to the target by XOR: <0 if a is. */
int dht_closer(const struct id *target, const struct id *a, const struct id *b);

/* It answered one of our requests; sample_ms is NULL when the answer measures nothing. True if it is new in the table;
 * without room it becomes a spare, and over the cap of its address block nothing. */
bool dht_table_answered(struct dht_table *table, const struct dht_contact *contact, const uint64_t *sample_ms,
                        uint64_t now_ms);
/* It sent us a request from the address that we know. */
void dht_table_heard(struct dht_table *table, const struct dht_contact *contact, uint64_t now_ms);
/* It did not answer. After three times a spare takes its place, after six it goes anyway. */
void dht_table_failed(struct dht_table *table, const struct id *id, uint64_t now_ms);
void dht_table_remove(struct dht_table *table, const struct id *id);

/* The contact, spares included: a copy of what is known of it; false if it is not there. */
bool dht_table_find(const struct dht_table *table, const struct id *id, struct dht_node *ret_node);
/* How many good contacts share at least so many leading bits with the key. */
size_t dht_table_count_within(const struct dht_table *table, const struct id *key, unsigned bits);
/* The contact, spares included, or NULL; borrowed until the table changes. */
const struct dht_node *dht_table_get(const struct dht_table *table, const struct id *id);
/* Would a contact that is not known yet find room? */
bool dht_table_has_room(const struct dht_table *table, const struct dht_contact *contact);
/* Up to `max` contacts closest to the target, closest first. */
size_t dht_table_closest(const struct dht_table *table, const struct id *target, bool good_only,
                         struct dht_contact *ret_contacts, size_t max);
/* The walk over all contacts without spares: false at the end. Start with *cursor = 0. */
bool dht_table_next(const struct dht_table *table, size_t *cursor, const struct dht_node **ret_node);

/* When the next contact is to be asked whether it is there, UINT64_MAX for never, and who; then not soon again. */
uint64_t dht_table_check_ms(const struct dht_table *table);
bool dht_table_take_check(struct dht_table *table, uint64_t now_ms, struct dht_contact *ret_contact);
/* A lookup passed through the bucket of this id. */
void dht_table_touch(struct dht_table *table, const struct id *target, uint64_t now_ms);
/* When the next bucket is to be refreshed, UINT64_MAX for never, and an id in it that a lookup can look for. Buckets
 * are those up to the deepest one in use. */
uint64_t dht_table_refresh_ms(const struct dht_table *table);
bool dht_table_take_refresh(struct dht_table *table, uint64_t now_ms, const struct rng *rng, struct id *ret_target);
