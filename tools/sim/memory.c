#include "tools/sim/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "node/base/scope.h"

/* Huge pages, from a heap that does not give back what it will want again at once. */
#define TUNABLES                                                                                                       \
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4194304:glibc.malloc.trim_threshold=1099511627776:"            \
    "glibc.malloc.top_pad=16777216"

static _Noreturn void out_of_memory(size_t bytes)
{
    fprintf(stderr, "%s: no memory for %zu bytes more\n", program_invocation_short_name, bytes);
    exit(1);
}

void *memory_get(size_t bytes)
{
    void *memory = calloc(1, bytes > 0 ? bytes : 1);
    if (!memory)
        out_of_memory(bytes);
    return memory;
}

void *memory_grow(void *items, size_t *cap, size_t wanted, size_t item_bytes)
{
    if (wanted <= *cap)
        return items;
    size_t grown = *cap ? *cap : 16;
    while (grown < wanted)
        grown *= 2;
    items = reallocarray(items, grown, item_bytes);
    if (!items)
        out_of_memory(grown * item_bytes);
    *cap = grown;
    return items;
}

void memory_use_huge_pages(char **argv)
{
    const char *set = getenv("GLIBC_TUNABLES");
    if (set || setenv("GLIBC_TUNABLES", TUNABLES, 1) < 0)
        return;
    execv("/proc/self/exe", argv);
}

size_t memory_resident(void)
{
    OWNED(owned_file) FILE *file = fopen("/proc/self/statm", "re");
    size_t total, resident;
    if (!file || fscanf(file, "%zu %zu", &total, &resident) != 2)
        return 0;
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}
