/*
 * A fast hash of bytes: for the run's fingerprint, and in the place of signatures. Not against anybody who tries.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint64_t hash_bytes(uint64_t seed, const void *data, size_t len_bytes);
