/*
 * Listening on the wire: what the messages of a read tell about its way through the mesh.
 *
 * A node that the asker knew has depth 1, one that it heard of from a node of depth d has depth d + 1. The hops of a
 * read are the depth of the node whose answer brought the first record.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/id.h"

struct node;
struct world;

struct tap_trace;

struct tap {
    struct tap_trace *traces; /* owned */
    size_t cap;
    uint32_t spare; /* the first unused one, numbered from 1; 0: none */
    uint32_t used;
};

struct tap_result {
    unsigned hops; /* 0: no value came over the wire */
    unsigned requests;
    uint64_t first_us; /* from the start to the first value */
};

void tap_release(struct tap *tap);
/* Follow this node's read of `target` from now on; the number is for tap_end. */
uint32_t tap_begin(struct world *world, struct node *node, const struct id *target);
struct tap_result tap_end(struct world *world, struct node *node, uint32_t trace);

/* The world tells of packets to and from nodes whose reads are followed. */
void tap_sent(struct world *world, const struct node *node, uint32_t to, const uint8_t *bytes, size_t len_bytes);
void tap_arrived(struct world *world, const struct node *node, uint32_t from, const uint8_t *bytes, size_t len_bytes);

/* The type of a message, for counting, and its name. */
unsigned tap_type(const uint8_t *bytes, size_t len_bytes);
const char *tap_type_name(unsigned type);
