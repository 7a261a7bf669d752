/*
 * Memory of the simulator. It cannot go on without, so these never fail: they say so and end the process.
 */
#pragma once

#include <stddef.h>

/* Zeroed; free with free. */
void *memory_get(size_t bytes);
/* `items` with room for at least `wanted`, grown by doubling; *cap is in items. */
void *memory_grow(void *items, size_t *cap, size_t wanted, size_t item_bytes);
/* Ask for huge pages, by starting this program again with what makes malloc do so: gigabytes that are read here and
 * there cost as many misses of the TLB as of the cache. Where that is impossible all goes on without them. */
void memory_use_huge_pages(char **argv);
/* What this process has in memory now, in bytes. */
size_t memory_resident(void);
