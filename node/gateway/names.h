/*
 * A hash table of byte strings: sets by name, members of a set, channels. Intrusive and chained: a name is a member of
 * what it names and stays where it is. Strings come from clients and peers, so the hash is seeded.
 *
 * Owns its buckets, never what it holds. Buckets are a power of two and double when there are as many names, which is
 * what makes a scan by cursor possible while names come and go.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct name {
    struct name *next;
    const char *bytes; /* borrowed: of the struct that it is in */
    uint32_t len;
    uint32_t hash;
};

struct names {
    struct name **buckets; /* owned, bucket_count of them */
    size_t bucket_count;   /* power of two, or 0 */
    size_t count;
    uint64_t seed;
};

/* Allocates nothing. */
void names_init(struct names *names, uint64_t seed);
/* Free the buckets, not what they hold. */
void names_release(struct names *names);

struct name *names_find(const struct names *names, const void *bytes, size_t len);
/* `bytes` and `len` of the name are set, and no equal one is there. 0 or ERR_NOMEM. */
int names_add(struct names *names, struct name *name);
void names_remove(struct names *names, struct name *name);

typedef void (*names_cb)(void *ctx, struct name *name);
/* Call back for each. The callback may remove the name that it is given, and no other; nor may it add one. */
void names_each(const struct names *names, names_cb cb, void *ctx);
/* Call back for each of some names and return the next cursor. Begin with 0, end when 0 comes back. What was there all
 * the time is seen at least once, whatever was added or removed between the calls: the cursor counts with its bits
 * reversed, the method of redis' dictScan (Noordhuis 2012). */
uint64_t names_scan(const struct names *names, uint64_t cursor, names_cb cb, void *ctx);
