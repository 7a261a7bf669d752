#include "store/checksum.h"

#if defined __x86_64__ && __has_include(<xxh_x86dispatch.h>)
#include <immintrin.h>
#include <xxh_x86dispatch.h>

/* The library takes the widest vectors that the processor has, which are four times as fast as those that all have, but
 * leaves their upper halves in use: what runs next, SHA-256 by SHA-NI above all, would take up to twice as long. */
__attribute__((target("avx"))) static void clear_vectors(void)
{
    _mm256_zeroupper();
}

static uint64_t hash_of(const void *data, size_t len_bytes)
{
    uint64_t hash = XXH3_64bits_dispatch(data, len_bytes);
    if (__builtin_cpu_supports("avx"))
        clear_vectors();
    return hash;
}
#else
#include <xxhash.h>

static uint64_t hash_of(const void *data, size_t len_bytes)
{
    return XXH3_64bits(data, len_bytes);
}
#endif

uint64_t store_checksum_of(const void *data, size_t len_bytes)
{
    uint64_t hash = hash_of(data, len_bytes);
    return hash == STORE_CHECKSUM_NONE ? 1 : hash;
}
