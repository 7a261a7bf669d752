/*
 * One simulated node: the daemon's own dht code, its identity, and what the world keeps for it.
 *
 * node.c is the one file here that calls dht/dht.h; tap.c and liar.c know the messages.
 *
 * A node's address tells its number and its generation, which counts the identities that the number has had, so that
 * packets to the dead reach nobody.
 */
#pragma once

#include <stdbool.h>

#include "dht/dht.h"
#include "tools/dhtsim/net.h"

struct world;

/* What others look at comes first, in two cache lines. */
struct node {
    struct id id;
    uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES];
    uint32_t number;
    uint16_t generation;
    bool liar;
    struct net_place place;
    struct dht *dht;   /* owned; NULL: dead */
    uint64_t armed_us; /* its timer; UINT64_MAX: none */
    uint32_t busy;     /* with so many things: is called when it wants, also in a resting world */
    uint32_t trace;    /* the first of its reads that are followed, tap.h; 0: none */
    uint32_t sent, received;
    uint64_t random;
    struct world *world;            /* borrowed */
    struct dht_memory *disk;        /* owned: what outlives its process; NULL for a node without */
    struct crypto_sign_key *secret; /* owned; NULL where signatures are a keyed hash */
};

/* What nodes share. */
struct node_shared;
struct node_shared *node_shared_new(const struct options *options);
void node_shared_free(struct node_shared *shared);

/* The identity that the number has in this generation. */
void node_init(struct node *node, struct world *world, uint32_t number, uint16_t generation);
struct dht_contact node_contact(const struct node *node);
/* Who is meant by an address; the generation tells whether it is still there. False for one that nobody has. */
bool node_of_addr(const struct addr *addr, uint32_t *ret_number, uint16_t *ret_generation);

/* Its process begins, with what is on its disk. */
void node_start(struct node *node);
/* Its process ends without notice. */
void node_stop(struct node *node);
/* Its disk is lost too. */
void node_wipe(struct node *node);
/* One thing less to be busy with. */
void node_rest(struct node *node);
/* Keep records on a disk that outlives the process; before node_start. */
void node_give_disk(struct node *node);

/* After each of these the node's timer is looked at by world_arm. */
void node_input(struct node *node, const struct node *from, const uint8_t *bytes, size_t len_bytes);
void node_tick(struct node *node);
/* When it wants to be called, on the clock of its world. */
uint64_t node_next_us(const struct node *node);

/* It knows the other, as if the other had answered it once. */
void node_meet(struct node *node, const struct node *other);
void node_join_through(struct node *node, const struct node *other);

struct id node_key(uint64_t number);

/* A record's number and version, which it carries as its size. */
#define NODE_SIZE(number, version) ((uint64_t)(number) << 16 | (version))

/* Publish a record under `key`; a greater version replaces a lesser one. `done` as in dht.h. */
void node_publish(struct node *node, const struct id *key, uint64_t size, dht_done_cb done, void *ctx);
void node_withdraw(struct node *node, const struct id *key);

#define NODE_READ_MAX 16

/* What a read found. */
struct node_read {
    size_t count;
    struct {
        struct id member;
        uint64_t size;
    } found[NODE_READ_MAX];
};

/* A read under way: the caller's, who embeds it in what he needs to remember. The node does no more with it once it
 * has called back or is dead. */
struct node_asked;
typedef void (*node_read_cb)(struct node_asked *asked, const struct node_read *read);
typedef void (*node_find_cb)(struct node_asked *asked, const uint32_t *numbers, size_t count);

struct node_asked {
    struct node *node;
    node_read_cb on_read;
    node_find_cb on_found;
};

/* Read up to 16 records of the key, or, with `first_is_enough`, one of the first holder that has one. False when the
 * node has too much under way. */
bool node_get(struct node *node, const struct id *key, bool first_is_enough, struct node_asked *asked);
/* The closest nodes that it can find. */
bool node_find(struct node *node, const struct id *target, struct node_asked *asked);

/* What it has on its disk of this record: nothing, a tombstone, or the record itself and its size. */
enum node_held { NODE_NOTHING, NODE_TOMBSTONE, NODE_RECORD };
enum node_held node_holds(const struct node *node, const struct id *key, const struct id *member, uint64_t *ret_size);
/* Who is in its tables. */
void node_each_contact(const struct node *node, dht_contact_cb cb, void *ctx);
/* Records held. */
size_t node_records(const struct node *node);
size_t node_contacts(const struct node *node);
