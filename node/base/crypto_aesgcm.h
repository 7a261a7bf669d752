/*
 * AES-256-GCM (NIST SP 800-38D, nonces of 12 bytes) sixteen blocks at a time, for x86-64 CPUs with VAES, VPCLMULQDQ and
 * AVX-512. libcrypto before 3.1 does four, in three times the time (docs/decisions/016-aes-gcm-for-sessions.md).
 *
 * No tables and no branches that depend on a key or a plaintext. For crypto.c only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AESGCM_KEY_BYTES 32
#define AESGCM_NONCE_BYTES 12
#define AESGCM_TAG_BYTES 16
#define AESGCM_BLOCK_BYTES 16
#define AESGCM_ROUNDS 14
#define AESGCM_WIDTH 16 /* blocks at a time */

/* The schedule of one key: secret, to be wiped. */
struct crypto_aesgcm {
    uint8_t round_keys[AESGCM_ROUNDS + 1][AESGCM_BLOCK_BYTES];
    uint8_t powers[AESGCM_WIDTH][AESGCM_BLOCK_BYTES]; /* of the hash key: 16th to first, times x, bytes reversed */
};

/* Has this CPU what it takes? Asks the CPU, which in a virtual machine takes some microseconds: keep the answer. The
 * rest only where it has. */
bool crypto_aesgcm_works(void);

void crypto_aesgcm_set_key(struct crypto_aesgcm *gcm, const uint8_t key[AESGCM_KEY_BYTES]);

/* Seals head and then plain, which may lie at ret_sealed + head_bytes. ret_sealed gets both and the tag. */
void crypto_aesgcm_seal(const struct crypto_aesgcm *gcm, const uint8_t nonce[AESGCM_NONCE_BYTES], const void *ad,
                        size_t ad_bytes, const void *head, size_t head_bytes, const void *plain, size_t len_bytes,
                        uint8_t *ret_sealed);
/* Decrypts len_bytes, after which the tag stands; ret_plain may be `sealed`. ret_tag: what that tag should be; for the
 * caller to compare before anything is done with the plaintext. */
void crypto_aesgcm_open(const struct crypto_aesgcm *gcm, const uint8_t nonce[AESGCM_NONCE_BYTES], const void *ad,
                        size_t ad_bytes, const uint8_t *sealed, size_t len_bytes, uint8_t *ret_plain,
                        uint8_t ret_tag[AESGCM_TAG_BYTES]);
