/*
 * A fast checksum of bytes as they are stored: XXH3-64 (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md), seed
 * 0, at memory speed where SHA-256 takes a second for one or two GB. It finds what disks do to bytes, not what people
 * do: whoever wants to know that bytes are the right ones asks for their SHA-256. The door to libxxhash.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define STORE_CHECKSUM_NONE 0u /* never computed */

/* Never STORE_CHECKSUM_NONE: where the hash is that, 1. */
uint64_t store_checksum_of(const void *data, size_t len_bytes);
