/*
 * What is to happen in the mesh. Events and the bytes that they carry are one block from a pool of a few sizes, so that
 * making one costs no allocation.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "tools/sim/timeline.h"

enum event_kind {
    EVENT_PACKET, /* `bytes` arrive at `to` */
    EVENT_TIMER,  /* `to` wanted to be called */
    EVENT_CALL,   /* `call` is due */
};

struct world;
typedef void (*event_call_cb)(struct world *world, void *ctx, uint64_t argument);

struct event_call {
    event_call_cb cb;
    void *ctx; /* borrowed */
    uint64_t argument;
};

struct event {
    struct timed timed; /* the first member */
    uint32_t from;
    uint32_t to;
    uint16_t from_generation; /* of the node that had the number when the event was made */
    uint16_t to_generation;
    uint16_t len;
    uint8_t kind;       /* enum event_kind */
    uint8_t size_class; /* the pool's */
    union {
        struct event_call call;
        struct event *next_spare;                 /* while it is in the pool */
        uint8_t bytes[sizeof(struct event_call)]; /* `len` of them in truth */
    };
};

struct wheel;

struct wheel *wheel_new(void);
void wheel_free(struct wheel *wheel);

/* An event with room for so many bytes, at most 2,000; filled in by the caller and then added, or given back. */
struct event *wheel_make(struct wheel *wheel, size_t len_bytes);
void wheel_give_back(struct wheel *wheel, struct event *event);
/* As timeline_add. */
void wheel_add(struct wheel *wheel, struct event *event, uint64_t at_us);
/* The next event if it is due by `end_us`, now the caller's to give back; else NULL. */
struct event *wheel_take(struct wheel *wheel, uint64_t end_us);
