#include "node/gateway/names.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#define FIRST_BUCKETS 8

void names_init(struct names *names, uint64_t seed)
{
    *names = (struct names){.seed = seed};
}

void names_release(struct names *names)
{
    free(names->buckets);
    names_init(names, names->seed);
}

/* Steele, Lea and Flood 2014: the finalizer of splitmix64. */
static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static uint32_t hash_of(const struct names *names, const char *bytes, size_t len)
{
    uint64_t hash = names->seed ^ len;
    for (; len > 0;) {
        uint64_t word = 0;
        size_t step = len < sizeof word ? len : sizeof word;
        memcpy(&word, bytes, step);
        hash = mix(hash ^ word);
        bytes += step;
        len -= step;
    }
    return (uint32_t)mix(hash);
}

static struct name **bucket_of(const struct names *names, uint32_t hash)
{
    return &names->buckets[hash & (names->bucket_count - 1)];
}

struct name *names_find(const struct names *names, const void *bytes, size_t len)
{
    if (names->count == 0)
        return NULL;
    uint32_t hash = hash_of(names, bytes, len);
    struct name *name = *bucket_of(names, hash);
    while (name && !(name->hash == hash && name->len == len && memcmp(name->bytes, bytes, len) == 0))
        name = name->next;
    return name;
}

static int grow(struct names *names)
{
    size_t old_count = names->bucket_count;
    struct name **old = names->buckets;
    size_t count = old_count ? old_count * 2 : FIRST_BUCKETS;
    struct name **buckets = calloc(count, sizeof(struct name *));
    if (!buckets)
        return ERR_NOMEM;
    names->buckets = buckets;
    names->bucket_count = count;
    for (size_t i = 0; i < old_count; i++) {
        for (struct name *name = old[i], *next; name; name = next) {
            next = name->next;
            struct name **bucket = bucket_of(names, name->hash);
            name->next = *bucket;
            *bucket = name;
        }
    }
    free(old);
    return 0;
}

int names_add(struct names *names, struct name *name)
{
    /* Longer chains are no failure, no bucket at all is. */
    if (names->count >= names->bucket_count && grow(names) < 0 && names->bucket_count == 0)
        return ERR_NOMEM;
    name->hash = hash_of(names, name->bytes, name->len);
    struct name **bucket = bucket_of(names, name->hash);
    name->next = *bucket;
    *bucket = name;
    names->count++;
    return 0;
}

void names_remove(struct names *names, struct name *name)
{
    struct name **link = bucket_of(names, name->hash);
    while (*link != name)
        link = &(*link)->next;
    *link = name->next;
    names->count--;
}

static void each_of_bucket(const struct names *names, size_t bucket, names_cb cb, void *ctx)
{
    for (struct name *name = names->buckets[bucket], *next; name; name = next) {
        next = name->next;
        cb(ctx, name);
    }
}

void names_each(const struct names *names, names_cb cb, void *ctx)
{
    for (size_t i = 0; i < names->bucket_count; i++)
        each_of_bucket(names, i, cb, ctx);
}

static uint64_t reversed(uint64_t value)
{
    value = ((value >> 1) & 0x5555555555555555u) | ((value & 0x5555555555555555u) << 1);
    value = ((value >> 2) & 0x3333333333333333u) | ((value & 0x3333333333333333u) << 2);
    value = ((value >> 4) & 0x0f0f0f0f0f0f0f0fu) | ((value & 0x0f0f0f0f0f0f0f0fu) << 4);
    return __builtin_bswap64(value);
}

uint64_t names_scan(const struct names *names, uint64_t cursor, names_cb cb, void *ctx)
{
    if (names->bucket_count == 0)
        return 0;
    uint64_t mask = names->bucket_count - 1;
    each_of_bucket(names, cursor & mask, cb, ctx);
    return reversed(reversed(cursor | ~mask) + 1);
}
