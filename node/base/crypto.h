/*
 * The door to libsodium and libcrypto: nothing else includes them.
 *
 * libsodium signs, agrees, hashes with BLAKE2b and wipes; libcrypto does SHA-256 and the bulk AEAD, where it is
 * several times faster on CPUs with the instructions for it (docs/decisions/002-two-crypto-libraries.md).
 * crypto_init is called once per process before anything else here; the rest is safe on any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"
#include "node/base/id.h"

#define CRYPTO_SIGN_PUBLIC_BYTES 32 /* Ed25519, RFC 8032 */
#define CRYPTO_SIGN_SECRET_BYTES 64 /* seed and public key, as libsodium keeps it */
#define CRYPTO_SIGNATURE_BYTES 64
#define CRYPTO_DH_BYTES 32       /* X25519 keys and shared secrets, RFC 7748 */
#define CRYPTO_AEAD_KEY_BYTES 32 /* of both ciphers */
#define CRYPTO_AEAD_NONCE_BYTES 12
#define CRYPTO_AEAD_TAG_BYTES 16
#define CRYPTO_BLAKE2B_MAX_BYTES 64

int crypto_init(struct err *err);

/* Random bytes from the operating system; cannot fail. */
void crypto_random(void *ret_data, size_t len_bytes);
/* Overwrite in a way that the compiler keeps. */
void crypto_wipe(void *data, size_t len_bytes);
/* Equality in time that depends on the length alone. */
bool crypto_equal(const void *a, const void *b, size_t len_bytes);

/* ---- hashes ---- */

void crypto_sha256(const void *data, size_t len_bytes, struct id *ret_digest);

/* Running SHA-256. */
struct crypto_sha256;
int crypto_sha256_new(struct crypto_sha256 **ret_hash, struct err *err);
void crypto_sha256_add(struct crypto_sha256 *hash, const void *data, size_t len_bytes);
/* Add a piece of what is hashed and give the piece's own digest as well: both in one pass where the CPU can, in 0.7 of
 * the time of two (docs/decisions/012-two-hashes-at-once.md). */
void crypto_sha256_add_piece(struct crypto_sha256 *hash, const void *data, size_t len_bytes, struct id *ret_piece);
/* The same for a piece whose digest is known: true if it fits, else nothing was added. */
bool crypto_sha256_add_if(struct crypto_sha256 *hash, const void *data, size_t len_bytes, const struct id *piece);
/* Digest of all that was added; then starts anew. */
void crypto_sha256_take(struct crypto_sha256 *hash, struct id *ret_digest);
void crypto_sha256_free(struct crypto_sha256 *hash);

/* BLAKE2b (RFC 7693) of two pieces one after the other, keyed if key_bytes > 0 (at most 64); out_bytes 16 to 64. */
void crypto_blake2b(void *ret_hash, size_t out_bytes, const void *key, size_t key_bytes, const void *a, size_t a_bytes,
                    const void *b, size_t b_bytes);
/* BLAKE2b-256 of one piece: node ids, cluster ids, DHT keys. */
void crypto_id_of(const void *data, size_t len_bytes, struct id *ret_id);
/* HMAC (RFC 2104) over BLAKE2b-512 of two pieces, as Noise's HKDF uses it; 64 bytes out. */
void crypto_hmac_blake2b(uint8_t ret_mac[64], const void *key, size_t key_bytes, const void *a, size_t a_bytes,
                         const void *b, size_t b_bytes);

/* ---- signatures and agreement ---- */

struct crypto_sign_key {
    uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES];
    uint8_t secret_key[CRYPTO_SIGN_SECRET_BYTES]; /* wipe with crypto_wipe */
};

void crypto_sign_keygen(struct crypto_sign_key *ret_key);
/* The key of a 32-byte seed, for tests and simulators. */
void crypto_sign_key_from_seed(const uint8_t seed[32], struct crypto_sign_key *ret_key);
void crypto_signature_make(uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES], const void *data, size_t len_bytes,
                           const struct crypto_sign_key *key);
/* False also for public keys that are not canonical or of small order. */
bool crypto_signature_check(const uint8_t signature[CRYPTO_SIGNATURE_BYTES], const void *data, size_t len_bytes,
                            const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES]);

/* The X25519 forms of an Ed25519 key; false for a public key that is no point of the prime-order group. */
bool crypto_dh_public_of_sign(const uint8_t sign_public[CRYPTO_SIGN_PUBLIC_BYTES], uint8_t ret_public[CRYPTO_DH_BYTES]);
void crypto_dh_secret_of_sign(const struct crypto_sign_key *key, uint8_t ret_secret[CRYPTO_DH_BYTES]);

void crypto_dh_keygen(uint8_t ret_secret[CRYPTO_DH_BYTES], uint8_t ret_public[CRYPTO_DH_BYTES]);
void crypto_dh_public(const uint8_t secret[CRYPTO_DH_BYTES], uint8_t ret_public[CRYPTO_DH_BYTES]);
/* False if the result is all zeros (the other side gave a point of small order): abort the handshake. */
bool crypto_dh(const uint8_t secret[CRYPTO_DH_BYTES], const uint8_t public_key[CRYPTO_DH_BYTES],
               uint8_t ret_shared[CRYPTO_DH_BYTES]);

/* ---- bulk AEAD ---- */

enum crypto_cipher {
    CRYPTO_CHACHA20_POLY1305, /* RFC 8439 */
    CRYPTO_AES256_GCM,        /* NIST SP 800-38D; where crypto_has_aes, the faster one */
};

/* Has this CPU instructions for AES and for what GCM multiplies? Without them it would be slow, and what it takes would
 * tell of the key. */
bool crypto_has_aes(void);

/* A key schedule, kept for the life of a key. Not shared between threads. */
struct crypto_aead;
int crypto_aead_new(enum crypto_cipher cipher, const uint8_t key[CRYPTO_AEAD_KEY_BYTES], struct crypto_aead **ret_aead,
                    struct err *err);
/* Use another key from now on. */
int crypto_aead_rekey(struct crypto_aead *aead, const uint8_t key[CRYPTO_AEAD_KEY_BYTES], struct err *err);
void crypto_aead_free(struct crypto_aead *aead);
/* ret_sealed gets len_bytes + 16 bytes and may be `plain` itself. */
int crypto_aead_seal(struct crypto_aead *aead, const uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES], const void *ad,
                     size_t ad_bytes, const void *plain, size_t len_bytes, uint8_t *ret_sealed, struct err *err);
/* The same for a plaintext in two pieces, sealed one after the other without being joined first. Only `plain` may lie
 * where it is sealed to, at ret_sealed + head_bytes. */
int crypto_aead_seal_parts(struct crypto_aead *aead, const uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES], const void *ad,
                           size_t ad_bytes, const void *head, size_t head_bytes, const void *plain, size_t len_bytes,
                           uint8_t *ret_sealed, struct err *err);
/* sealed_bytes includes the 16 of the tag; ret_plain gets sealed_bytes - 16 and may be `sealed` itself.
 * ERR_AUTH if it does not verify; ret_plain then holds nothing of use. */
int crypto_aead_open(struct crypto_aead *aead, const uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES], const void *ad,
                     size_t ad_bytes, const uint8_t *sealed, size_t sealed_bytes, uint8_t *ret_plain, struct err *err);

/* ---- the same for small things under many keys (datagrams) ---- */

/* XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), in two steps so that the first is made once for many nonces: the key
 * of all nonces that begin with these 16 bytes, for ChaCha20-Poly1305 with 4 zero bytes and the other 8 as its nonce.
 */
#define CRYPTO_XCHACHA_HEAD_BYTES 16
#define CRYPTO_XCHACHA_TAIL_BYTES 8
void crypto_xchacha_key(const uint8_t key[CRYPTO_AEAD_KEY_BYTES], const uint8_t head[CRYPTO_XCHACHA_HEAD_BYTES],
                        uint8_t ret_key[CRYPTO_AEAD_KEY_BYTES]);
/* crypto_aead_seal and _open under such a key instead of the one that `aead`, of CRYPTO_CHACHA20_POLY1305, was made
 * with, which is then forgotten: one schedule serves all keys in turn. */
int crypto_xchacha_seal(struct crypto_aead *aead, const uint8_t key[CRYPTO_AEAD_KEY_BYTES],
                        const uint8_t tail[CRYPTO_XCHACHA_TAIL_BYTES], const void *ad, size_t ad_bytes,
                        const void *plain, size_t len_bytes, uint8_t *ret_sealed, struct err *err);
int crypto_xchacha_open(struct crypto_aead *aead, const uint8_t key[CRYPTO_AEAD_KEY_BYTES],
                        const uint8_t tail[CRYPTO_XCHACHA_TAIL_BYTES], const void *ad, size_t ad_bytes,
                        const uint8_t *sealed, size_t sealed_bytes, uint8_t *ret_plain, struct err *err);
