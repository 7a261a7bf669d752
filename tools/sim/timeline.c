#include "tools/sim/timeline.h"

#include <stdlib.h>

#include "tools/sim/memory.h"

/* Ring 0 has slots of 64 us; with 1,024 slots in each ring they reach 65 ms, 67 s, 19 h and 2.2 years. */
#define SLOT_BITS 6
#define RING_BITS 10
#define RING_SLOTS (1u << RING_BITS)
#define RINGS 4

struct timeline {
    uint64_t slot; /* the present one, in units of ring 0 */
    struct timed *rings[RINGS][RING_SLOTS];
    uint64_t filled[RINGS][RING_SLOTS / 64]; /* a bit for each slot that is not empty */
    struct timed **heap;                     /* owned; of the present slot */
    size_t heap_count, heap_cap;
    uint64_t last_us;
    uint64_t sequence;
};

struct timeline *timeline_new(void)
{
    return memory_get(sizeof(struct timeline));
}

void timeline_free(struct timeline *timeline)
{
    free(timeline->heap);
    free(timeline);
}

/* ---- the heap of the present slot ---- */

static int is_before(const struct timed *a, const struct timed *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->sequence < b->sequence;
}

static void heap_add(struct timeline *timeline, struct timed *timed)
{
    timeline->heap = memory_grow(timeline->heap, &timeline->heap_cap, timeline->heap_count + 1, sizeof *timeline->heap);
    size_t at = timeline->heap_count++;
    for (; at > 0 && is_before(timed, timeline->heap[(at - 1) / 2]); at = (at - 1) / 2)
        timeline->heap[at] = timeline->heap[(at - 1) / 2];
    timeline->heap[at] = timed;
}

static struct timed *heap_take(struct timeline *timeline)
{
    struct timed *top = timeline->heap[0];
    struct timed *last = timeline->heap[--timeline->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < timeline->heap_count && is_before(timeline->heap[child + 1], timeline->heap[child]))
            child++;
        if (child >= timeline->heap_count || !is_before(timeline->heap[child], last))
            break;
        timeline->heap[at] = timeline->heap[child];
        at = child;
    }
    timeline->heap[at] = last;
    return top;
}

/* ---- the rings ---- */

/* Into the ring whose slots are just fine enough: the lowest in which the event is less than one turn away. */
static void file(struct timeline *timeline, struct timed *timed)
{
    uint64_t slot = timed->at_us >> SLOT_BITS;
    if (slot <= timeline->slot) {
        heap_add(timeline, timed);
        return;
    }
    unsigned ring = 0;
    while (ring < RINGS - 1 && (slot >> (ring + 1) * RING_BITS) != (timeline->slot >> (ring + 1) * RING_BITS))
        ring++;
    size_t at = slot >> ring * RING_BITS & (RING_SLOTS - 1);
    timed->next = timeline->rings[ring][at];
    timeline->rings[ring][at] = timed;
    timeline->filled[ring][at / 64] |= 1ull << at % 64;
}

void timeline_add(struct timeline *timeline, struct timed *timed, uint64_t at_us)
{
    timed->at_us = at_us < timeline->last_us ? timeline->last_us : at_us;
    timed->sequence = timeline->sequence++;
    file(timeline, timed);
}

/* The first filled slot of the ring after `from`, or RING_SLOTS. */
static size_t next_filled(const struct timeline *timeline, unsigned ring, size_t from)
{
    for (size_t at = from + 1; at < RING_SLOTS; at = (at / 64 + 1) * 64) {
        uint64_t bits = timeline->filled[ring][at / 64] >> at % 64;
        if (bits)
            return at + (size_t)__builtin_ctzll(bits);
    }
    return RING_SLOTS;
}

/* Everything in that slot is filed anew, now that time has come there. */
static void empty_slot(struct timeline *timeline, unsigned ring, size_t at)
{
    struct timed *timed = timeline->rings[ring][at];
    timeline->rings[ring][at] = NULL;
    timeline->filled[ring][at / 64] &= ~(1ull << at % 64);
    while (timed) {
        struct timed *next = timed->next;
        file(timeline, timed);
        timed = next;
    }
}

/* Turn to the next slot with something in it, unless it begins after `end_us`. Zero if there is none. */
static int turn(struct timeline *timeline, uint64_t end_us)
{
    for (unsigned ring = 0; ring < RINGS; ring++) {
        unsigned shift = ring * RING_BITS;
        size_t at = next_filled(timeline, ring, timeline->slot >> shift & (RING_SLOTS - 1));
        if (at == RING_SLOTS)
            continue;
        uint64_t slot = ((timeline->slot >> shift & ~(uint64_t)(RING_SLOTS - 1)) | at) << shift;
        if (slot << SLOT_BITS > end_us)
            return 0;
        timeline->slot = slot;
        empty_slot(timeline, ring, at);
        return 1;
    }
    return 0;
}

struct timed *timeline_take(struct timeline *timeline, uint64_t end_us)
{
    while (timeline->heap_count == 0)
        if (!turn(timeline, end_us))
            return NULL;
    if (timeline->heap[0]->at_us > end_us)
        return NULL;
    struct timed *timed = heap_take(timeline);
    timeline->last_us = timed->at_us;
    return timed;
}
