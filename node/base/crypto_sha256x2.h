/*
 * The compression function of SHA-256 (FIPS 180-4, section 6.2) over two independent streams at once.
 *
 * A round of SHA-256 waits for the one before, so that a CPU with instructions for it does half of what it could: two
 * streams interleaved take little longer than one (docs/decisions/012-two-hashes-at-once.md). Knows neither padding nor
 * lengths; for crypto.c only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHA256X2_BLOCK_BYTES 64

/* Has this CPU what it takes? Asks the CPU, which in a virtual machine takes some microseconds: keep the answer. */
bool crypto_sha256x2_works(void);

/* Compress `blocks` blocks of each stream into its state, which are eight words in the CPU's byte order. The streams
 * may read the same bytes. Only where crypto_sha256x2_works. */
void crypto_sha256x2_add(uint32_t state_a[8], const uint8_t *data_a, uint32_t state_b[8], const uint8_t *data_b,
                         size_t blocks);
