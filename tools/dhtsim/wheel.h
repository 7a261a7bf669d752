/*
 * What is to happen: events by virtual time in microseconds, and by their order of making where the time is the same.
 *
 * A hierarchical timing wheel (Varghese and Lauck 1987): four rings of slots, each slot of a ring as long as the whole
 * ring below it; the slot that time is in is kept as a heap. Events and the bytes that they carry are one block from a
 * pool of a few sizes, so that making one costs no allocation.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

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
    struct event *next;
    uint64_t at_us;
    uint64_t sequence;
    uint32_t from;
    uint32_t to;
    uint16_t from_generation; /* of the node that had the number when the event was made */
    uint16_t to_generation;
    uint16_t len;
    uint8_t kind;       /* enum event_kind */
    uint8_t size_class; /* the pool's */
    union {
        struct event_call call;
        uint8_t bytes[sizeof(struct event_call)]; /* `len` of them in truth */
    };
};

struct wheel;

struct wheel *wheel_new(void);
void wheel_free(struct wheel *wheel);

/* An event with room for so many bytes, at most 2,000; filled in by the caller and then added, or given back. */
struct event *wheel_make(struct wheel *wheel, size_t len_bytes);
void wheel_give_back(struct wheel *wheel, struct event *event);
/* No earlier than the last one taken; earlier times are taken for that one. */
void wheel_add(struct wheel *wheel, struct event *event);
/* The next event if it is due by `end_us`, now the caller's to give back; else NULL. */
struct event *wheel_take(struct wheel *wheel, uint64_t end_us);
