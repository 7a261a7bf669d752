#include "store/checksum.h"

#include <xxhash.h>

uint64_t store_checksum_of(const void *data, size_t len_bytes)
{
    uint64_t hash = XXH3_64bits(data, len_bytes);
    return hash == STORE_CHECKSUM_NONE ? 1 : hash;
}
