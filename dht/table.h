/*
 * The routing table: who has answered us, in buckets by the length of the id prefix shared with us, with spare contacts
 * for each full bucket. Old contacts that still answer are never displaced: it is the answer to churn and to floods.
 *
 * A contact is good while its last request was answered; only good ones are told to others. Contacts are in the book;
 * what is kept here of each is 20 bytes, times in seconds.
 *
 * The longer a contact has been known, the longer it is likely to stay (Maymounkov and Mazieres 2002, section 4), so
 * the more seldom it is asked whether it is still there.
 */
#pragma once

#include "dht/book.h"
#include "dht/distance.h"
#include "dht/rtt.h"

#define DHT_BUCKETS 256
#define DHT_SPARES 8

/* Who was silent for so long, or for half of the time that it has been known, but at most for the second, is asked
 * whether it is still there. */
#define DHT_CHECK_MS 900000u
#define DHT_CHECK_LONGEST_MS 14400000u
/* A bucket that is not full of good contacts is walked to so often, and up to four times more seldom while nobody comes
 * or goes. */
#define DHT_REFRESH_MS 3600000u

/* What is known of a contact. */
struct dht_node {
    struct dht_contact contact;
    struct dht_rtt rtt;
    uint64_t heard_ms; /* to the second, as the next */
    uint64_t known_ms; /* it answered for the first time */
    uint8_t fails;     /* requests in a row without an answer; 0: good */
};

struct dht_bucket;

struct dht_table {
    struct dht_book *book; /* borrowed */
    struct id self;
    unsigned block_per_bucket, block_per_table; /* 0: no cap */
    struct dht_bucket **buckets;                /* owned; NULL: never used */
    unsigned bucket_count;                      /* up to the deepest that was ever in use */
    size_t count;                               /* contacts without spares */
    uint64_t check_wake_ms;                     /* nobody is to be checked before, */
    uint64_t refresh_wake_ms;                   /* and no bucket to be refreshed */
};

void dht_table_init(struct dht_table *table, struct dht_book *book, const struct id *self, unsigned block_per_bucket,
                    unsigned block_per_table);
void dht_table_release(struct dht_table *table);

/* It answered one of our requests; sample_ms is NULL when the answer measures nothing. True if it is new in the table;
 * without room it becomes a spare, and over the cap of its address block nothing. */
bool dht_table_answered(struct dht_table *table, const struct dht_contact *contact, const uint64_t *sample_ms,
                        uint64_t now_ms);

enum dht_heard {
    DHT_HEARD,      /* known, at this address */
    DHT_HEARD_AWAY, /* known, but at another: perhaps it has moved */
    DHT_HEARD_NEW,  /* not known */
};

/* It sent us a request, or something that needs no answer. */
enum dht_heard dht_table_heard(struct dht_table *table, const struct dht_contact *contact, uint64_t now_ms);
/* It did not answer. After three times a spare takes its place, after six it goes anyway. How many times in a row it
 * was now; 0 if it is not in the table, or not at this address. */
unsigned dht_table_failed(struct dht_table *table, const struct dht_contact *contact, uint64_t now_ms);
void dht_table_remove(struct dht_table *table, const struct id *id);

/* What is known of a contact, spares included; false if it is not there. */
bool dht_table_find(const struct dht_table *table, const struct id *id, struct dht_node *ret_node);
/* The round-trip times of a contact, or NULL if it is not there; borrowed until the table changes. */
const struct dht_rtt *dht_table_rtt(const struct dht_table *table, const struct dht_contact *contact);
/* The address at which this contact answered, if it is good; or NULL. Borrowed until the table changes. */
const struct addr *dht_table_addr(const struct dht_table *table, const struct dht_contact *contact);
/* Would a contact that is not known yet find room? */
bool dht_table_has_room(const struct dht_table *table, const struct dht_contact *contact);
/* Up to `max` contacts closest to the target, closest first; at most DHT_CLOSEST_MAX. */
#define DHT_CLOSEST_MAX 64
size_t dht_table_closest(const struct dht_table *table, const struct id *target, bool good_only,
                         struct dht_contact *ret_contacts, size_t max);
/* How many good contacts share at least so many leading bits with the key. */
size_t dht_table_count_within(const struct dht_table *table, const struct id *key, unsigned bits);
/* The walk over all contacts without spares: false at the end. Start with *cursor = 0. */
bool dht_table_next(const struct dht_table *table, size_t *cursor, struct dht_node *ret_node);
size_t dht_table_bytes(const struct dht_table *table);

/* Who is to be asked whether it is there, if anybody is by now; then not soon again. Nobody is before check_wake_ms. */
bool dht_table_take_check(struct dht_table *table, uint64_t now_ms, struct dht_contact *ret_contact);
/* A lookup passed through the bucket of this id. */
void dht_table_touch(struct dht_table *table, const struct id *target, uint64_t now_ms);
/* All that is closer to us than this id has just been walked through. */
void dht_table_touch_near(struct dht_table *table, const struct id *farthest, uint64_t now_ms);
/* An id in a bucket that is to be refreshed, if one is by now, for a lookup to look for; then not soon again. None is
 * before refresh_wake_ms. Buckets are due from the start, so that joining ends with a walk to each. */
bool dht_table_take_refresh(struct dht_table *table, uint64_t now_ms, const struct rng *rng, struct id *ret_target);
