#include "tools/dhtsim/wheel.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tools/sim/memory.h"

/* Ring 0 has slots of 64 us; with 1,024 slots in each ring they reach 65 ms, 67 s, 19 h and 2.2 years. */
#define SLOT_BITS 6
#define RING_BITS 10
#define RING_SLOTS (1u << RING_BITS)
#define RINGS 4

#define SLAB_BYTES (1u << 18)

static const uint16_t size_classes[] = {24, 64, 96, 160, 256, 384, 640, 896, 1152, 2000};
#define CLASSES (sizeof size_classes / sizeof size_classes[0])

struct slab {
    struct slab *next;
};

struct wheel {
    uint64_t slot; /* the present one, in units of ring 0 */
    struct event *rings[RINGS][RING_SLOTS];
    uint64_t filled[RINGS][RING_SLOTS / 64]; /* a bit for each slot that is not empty */
    struct event **heap;                     /* owned; of the present slot */
    size_t heap_count, heap_cap;
    uint64_t last_us;
    uint64_t sequence;
    struct event *spare[CLASSES];
    struct slab *slabs; /* owned */
};

struct wheel *wheel_new(void)
{
    return memory_get(sizeof(struct wheel));
}

void wheel_free(struct wheel *wheel)
{
    while (wheel->slabs) {
        struct slab *slab = wheel->slabs;
        wheel->slabs = slab->next;
        free(slab);
    }
    free(wheel->heap);
    free(wheel);
}

/* ---- the pool ---- */

static void add_slab(struct wheel *wheel, uint8_t size_class)
{
    size_t each = (offsetof(struct event, bytes) + size_classes[size_class] + 7) & ~(size_t)7;
    struct slab *slab = memory_get(SLAB_BYTES);
    slab->next = wheel->slabs;
    wheel->slabs = slab;
    for (size_t at = sizeof *slab; at + each <= SLAB_BYTES; at += each) {
        struct event *event = (struct event *)(void *)((char *)slab + at);
        event->size_class = size_class;
        event->next = wheel->spare[size_class];
        wheel->spare[size_class] = event;
    }
}

struct event *wheel_make(struct wheel *wheel, size_t len_bytes)
{
    uint8_t size_class = 0;
    while (size_classes[size_class] < len_bytes)
        size_class++;
    if (!wheel->spare[size_class])
        add_slab(wheel, size_class);
    struct event *event = wheel->spare[size_class];
    wheel->spare[size_class] = event->next;
    event->len = (uint16_t)len_bytes;
    return event;
}

void wheel_give_back(struct wheel *wheel, struct event *event)
{
    event->next = wheel->spare[event->size_class];
    wheel->spare[event->size_class] = event;
}

/* ---- the heap of the present slot ---- */

static int is_before(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->sequence < b->sequence;
}

static void heap_add(struct wheel *wheel, struct event *event)
{
    wheel->heap = memory_grow(wheel->heap, &wheel->heap_cap, wheel->heap_count + 1, sizeof *wheel->heap);
    size_t at = wheel->heap_count++;
    for (; at > 0 && is_before(event, wheel->heap[(at - 1) / 2]); at = (at - 1) / 2)
        wheel->heap[at] = wheel->heap[(at - 1) / 2];
    wheel->heap[at] = event;
}

static struct event *heap_take(struct wheel *wheel)
{
    struct event *top = wheel->heap[0];
    struct event *last = wheel->heap[--wheel->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < wheel->heap_count && is_before(wheel->heap[child + 1], wheel->heap[child]))
            child++;
        if (child >= wheel->heap_count || !is_before(wheel->heap[child], last))
            break;
        wheel->heap[at] = wheel->heap[child];
        at = child;
    }
    wheel->heap[at] = last;
    return top;
}

/* ---- the rings ---- */

/* Into the ring whose slots are just fine enough: the lowest in which the event is less than one turn away. */
static void file(struct wheel *wheel, struct event *event)
{
    uint64_t slot = event->at_us >> SLOT_BITS;
    if (slot <= wheel->slot) {
        heap_add(wheel, event);
        return;
    }
    unsigned ring = 0;
    while (ring < RINGS - 1 && (slot >> (ring + 1) * RING_BITS) != (wheel->slot >> (ring + 1) * RING_BITS))
        ring++;
    size_t at = slot >> ring * RING_BITS & (RING_SLOTS - 1);
    event->next = wheel->rings[ring][at];
    wheel->rings[ring][at] = event;
    wheel->filled[ring][at / 64] |= 1ull << at % 64;
}

void wheel_add(struct wheel *wheel, struct event *event)
{
    if (event->at_us < wheel->last_us)
        event->at_us = wheel->last_us;
    event->sequence = wheel->sequence++;
    file(wheel, event);
}

/* The first filled slot of the ring after `from`, or RING_SLOTS. */
static size_t next_filled(const struct wheel *wheel, unsigned ring, size_t from)
{
    for (size_t at = from + 1; at < RING_SLOTS; at = (at / 64 + 1) * 64) {
        uint64_t bits = wheel->filled[ring][at / 64] >> at % 64;
        if (bits)
            return at + (size_t)__builtin_ctzll(bits);
    }
    return RING_SLOTS;
}

/* Everything in that slot is filed anew, now that time has come there. */
static void empty_slot(struct wheel *wheel, unsigned ring, size_t at)
{
    struct event *event = wheel->rings[ring][at];
    wheel->rings[ring][at] = NULL;
    wheel->filled[ring][at / 64] &= ~(1ull << at % 64);
    while (event) {
        struct event *next = event->next;
        file(wheel, event);
        event = next;
    }
}

/* Turn to the next slot with something in it, unless it begins after `end_us`. Zero if there is none. */
static int turn(struct wheel *wheel, uint64_t end_us)
{
    for (unsigned ring = 0; ring < RINGS; ring++) {
        unsigned shift = ring * RING_BITS;
        size_t at = next_filled(wheel, ring, wheel->slot >> shift & (RING_SLOTS - 1));
        if (at == RING_SLOTS)
            continue;
        uint64_t slot = ((wheel->slot >> shift & ~(uint64_t)(RING_SLOTS - 1)) | at) << shift;
        if (slot << SLOT_BITS > end_us)
            return 0;
        wheel->slot = slot;
        empty_slot(wheel, ring, at);
        return 1;
    }
    return 0;
}

struct event *wheel_take(struct wheel *wheel, uint64_t end_us)
{
    while (wheel->heap_count == 0)
        if (!turn(wheel, end_us))
            return NULL;
    if (wheel->heap[0]->at_us > end_us)
        return NULL;
    struct event *event = heap_take(wheel);
    wheel->last_us = event->at_us;
    return event;
}
