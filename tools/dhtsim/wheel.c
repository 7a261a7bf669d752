#include "tools/dhtsim/wheel.h"

#include <stdlib.h>
#include <string.h>

#include "tools/sim/memory.h"
#include "tools/sim/timeline.h"

#define SLAB_BYTES (1u << 18)

static const uint16_t size_classes[] = {24, 64, 96, 160, 256, 384, 640, 896, 1152, 2000};
#define CLASSES (sizeof size_classes / sizeof size_classes[0])

struct slab {
    struct slab *next;
};

struct wheel {
    struct timeline *timeline; /* owned */
    struct event *spare[CLASSES];
    struct slab *slabs; /* owned */
};

struct wheel *wheel_new(void)
{
    struct wheel *wheel = memory_get(sizeof *wheel);
    wheel->timeline = timeline_new();
    return wheel;
}

void wheel_free(struct wheel *wheel)
{
    while (wheel->slabs) {
        struct slab *slab = wheel->slabs;
        wheel->slabs = slab->next;
        free(slab);
    }
    timeline_free(wheel->timeline);
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
        event->next_spare = wheel->spare[size_class];
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
    wheel->spare[size_class] = event->next_spare;
    event->len = (uint16_t)len_bytes;
    return event;
}

void wheel_give_back(struct wheel *wheel, struct event *event)
{
    event->next_spare = wheel->spare[event->size_class];
    wheel->spare[event->size_class] = event;
}

/* ---- time ---- */

void wheel_add(struct wheel *wheel, struct event *event, uint64_t at_us)
{
    timeline_add(wheel->timeline, &event->timed, at_us);
}

struct event *wheel_take(struct wheel *wheel, uint64_t end_us)
{
    return (struct event *)timeline_take(wheel->timeline, end_us);
}
