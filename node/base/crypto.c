/* The low-level SHA-256 of libcrypto is the one whose state can be seen; it is marked as deprecated for good reasons of
 * others (docs/decisions/012-two-hashes-at-once.md). */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "node/base/crypto.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto_sha256x2.h"

int crypto_init(struct err *err)
{
    if (sodium_init() < 0)
        return err_set(err, ERR_UNSUPPORTED, "libsodium cannot start: no source of randomness");
    return 0;
}

void crypto_random(void *ret_data, size_t len_bytes)
{
    randombytes_buf(ret_data, len_bytes);
}

void crypto_wipe(void *data, size_t len_bytes)
{
    sodium_memzero(data, len_bytes);
}

bool crypto_equal(const void *a, const void *b, size_t len_bytes)
{
    return sodium_memcmp(a, b, len_bytes) == 0;
}

/* libcrypto refuses only when it is out of memory or was built without the algorithm: nothing a caller could mend. */
static void must(int ok)
{
    if (ok != 1)
        abort();
}

/* ---- SHA-256 ---- */

void crypto_sha256(const void *data, size_t len_bytes, struct id *ret_digest)
{
    SHA256_CTX state;
    must(SHA256_Init(&state));
    must(SHA256_Update(&state, data, len_bytes));
    must(SHA256_Final(ret_digest->b, &state));
}

struct crypto_sha256 {
    SHA256_CTX state;
    bool in_pairs; /* the CPU takes two streams at once */
};

int crypto_sha256_new(struct crypto_sha256 **ret_hash, struct err *err)
{
    struct crypto_sha256 *hash = calloc(1, sizeof *hash);
    if (!hash)
        return err_set(err, ERR_NOMEM, "no memory for a SHA-256 state");
    must(SHA256_Init(&hash->state));
    hash->in_pairs = crypto_sha256x2_works();
    *ret_hash = hash;
    return 0;
}

void crypto_sha256_add(struct crypto_sha256 *hash, const void *data, size_t len_bytes)
{
    must(SHA256_Update(&hash->state, data, len_bytes));
}

static void count_blocks(SHA256_CTX *state, size_t blocks)
{
    uint64_t bits = ((uint64_t)state->Nh << 32 | state->Nl) + (uint64_t)blocks * SHA256X2_BLOCK_BYTES * 8;
    state->Nl = (SHA_LONG)bits;
    state->Nh = (SHA_LONG)(bits >> 32);
}

/* The whole may stand in the middle of a block and the piece begins one: what of the piece fills that block goes first,
 * and then both have whole blocks, at different places of the same bytes. */
static void add_to_both(SHA256_CTX *whole, SHA256_CTX *piece, const uint8_t *data, size_t len)
{
    size_t fill = whole->num > 0 ? SHA256X2_BLOCK_BYTES - whole->num : 0;
    if (len < fill)
        fill = len;
    size_t blocks = (len - fill) / SHA256X2_BLOCK_BYTES;
    must(SHA256_Update(whole, data, fill));
    crypto_sha256x2_add(whole->h, data + fill, piece->h, data, blocks);
    count_blocks(whole, blocks);
    count_blocks(piece, blocks);
    size_t done = blocks * SHA256X2_BLOCK_BYTES;
    must(SHA256_Update(whole, data + fill + done, len - fill - done));
    must(SHA256_Update(piece, data + done, len - done));
}

void crypto_sha256_add_piece(struct crypto_sha256 *hash, const void *data, size_t len_bytes, struct id *ret_piece)
{
    if (!hash->in_pairs) {
        crypto_sha256(data, len_bytes, ret_piece);
        crypto_sha256_add(hash, data, len_bytes);
        return;
    }
    SHA256_CTX piece;
    must(SHA256_Init(&piece));
    add_to_both(&hash->state, &piece, data, len_bytes);
    must(SHA256_Final(ret_piece->b, &piece));
}

bool crypto_sha256_add_if(struct crypto_sha256 *hash, const void *data, size_t len_bytes, const struct id *piece)
{
    struct crypto_sha256 before = *hash;
    struct id found;
    crypto_sha256_add_piece(hash, data, len_bytes, &found);
    bool fits = id_equal(&found, piece);
    if (!fits)
        *hash = before;
    return fits;
}

void crypto_sha256_take(struct crypto_sha256 *hash, struct id *ret_digest)
{
    must(SHA256_Final(ret_digest->b, &hash->state));
    must(SHA256_Init(&hash->state));
}

void crypto_sha256_free(struct crypto_sha256 *hash)
{
    free(hash);
}

/* ---- the others ---- */

void crypto_blake2b(void *ret_hash, size_t out_bytes, const void *key, size_t key_bytes, const void *a, size_t a_bytes,
                    const void *b, size_t b_bytes)
{
    crypto_generichash_state state;
    if (crypto_generichash_init(&state, key, key_bytes, out_bytes) != 0)
        abort();
    crypto_generichash_update(&state, a, a_bytes);
    if (b_bytes > 0)
        crypto_generichash_update(&state, b, b_bytes);
    crypto_generichash_final(&state, ret_hash, out_bytes);
    sodium_memzero(&state, sizeof state);
}

void crypto_id_of(const void *data, size_t len_bytes, struct id *ret_id)
{
    crypto_blake2b(ret_id->b, sizeof ret_id->b, NULL, 0, data, len_bytes, NULL, 0);
}

#define BLAKE2B_BLOCK_BYTES 128

void crypto_hmac_blake2b(uint8_t ret_mac[64], const void *key, size_t key_bytes, const void *a, size_t a_bytes,
                         const void *b, size_t b_bytes)
{
    uint8_t pad[BLAKE2B_BLOCK_BYTES] = {0};
    if (key_bytes > sizeof pad)
        crypto_blake2b(pad, 64, NULL, 0, key, key_bytes, NULL, 0);
    else if (key_bytes > 0)
        memcpy(pad, key, key_bytes);

    crypto_generichash_state state;
    for (size_t i = 0; i < sizeof pad; i++)
        pad[i] ^= 0x36;
    crypto_generichash_init(&state, NULL, 0, 64);
    crypto_generichash_update(&state, pad, sizeof pad);
    crypto_generichash_update(&state, a, a_bytes);
    if (b_bytes > 0)
        crypto_generichash_update(&state, b, b_bytes);
    uint8_t inner[64];
    crypto_generichash_final(&state, inner, sizeof inner);

    for (size_t i = 0; i < sizeof pad; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    crypto_blake2b(ret_mac, 64, NULL, 0, pad, sizeof pad, inner, sizeof inner);
    sodium_memzero(pad, sizeof pad);
    sodium_memzero(inner, sizeof inner);
    sodium_memzero(&state, sizeof state);
}

void crypto_sign_keygen(struct crypto_sign_key *ret_key)
{
    crypto_sign_keypair(ret_key->public_key, ret_key->secret_key);
}

void crypto_sign_key_from_seed(const uint8_t seed[32], struct crypto_sign_key *ret_key)
{
    crypto_sign_seed_keypair(ret_key->public_key, ret_key->secret_key, seed);
}

void crypto_signature_make(uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES], const void *data, size_t len_bytes,
                           const struct crypto_sign_key *key)
{
    crypto_sign_detached(ret_signature, NULL, data, len_bytes, key->secret_key);
}

bool crypto_signature_check(const uint8_t signature[CRYPTO_SIGNATURE_BYTES], const void *data, size_t len_bytes,
                            const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES])
{
    return crypto_sign_verify_detached(signature, data, len_bytes, public_key) == 0;
}

bool crypto_dh_public_of_sign(const uint8_t sign_public[CRYPTO_SIGN_PUBLIC_BYTES], uint8_t ret_public[CRYPTO_DH_BYTES])
{
    return crypto_sign_ed25519_pk_to_curve25519(ret_public, sign_public) == 0;
}

void crypto_dh_secret_of_sign(const struct crypto_sign_key *key, uint8_t ret_secret[CRYPTO_DH_BYTES])
{
    crypto_sign_ed25519_sk_to_curve25519(ret_secret, key->secret_key);
}

void crypto_dh_keygen(uint8_t ret_secret[CRYPTO_DH_BYTES], uint8_t ret_public[CRYPTO_DH_BYTES])
{
    randombytes_buf(ret_secret, CRYPTO_DH_BYTES);
    crypto_dh_public(ret_secret, ret_public);
}

void crypto_dh_public(const uint8_t secret[CRYPTO_DH_BYTES], uint8_t ret_public[CRYPTO_DH_BYTES])
{
    crypto_scalarmult_base(ret_public, secret);
}

bool crypto_dh(const uint8_t secret[CRYPTO_DH_BYTES], const uint8_t public_key[CRYPTO_DH_BYTES],
               uint8_t ret_shared[CRYPTO_DH_BYTES])
{
    return crypto_scalarmult(ret_shared, secret, public_key) == 0;
}

/* ---- bulk AEAD ---- */

struct crypto_aead {
    const EVP_CIPHER *cipher;
    EVP_CIPHER_CTX *seal; /* owned; one context a direction keeps the key schedule of each */
    EVP_CIPHER_CTX *open; /* owned */
};

bool crypto_has_aes(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#else
    return false;
#endif
}

int crypto_aead_new(enum crypto_cipher cipher, const uint8_t key[CRYPTO_AEAD_KEY_BYTES], struct crypto_aead **ret_aead,
                    struct err *err)
{
    struct crypto_aead *aead = calloc(1, sizeof *aead);
    if (!aead)
        return err_set(err, ERR_NOMEM, "no memory for a cipher");
    aead->cipher = cipher == CRYPTO_AES256_GCM ? EVP_aes_256_gcm() : EVP_chacha20_poly1305();
    aead->seal = EVP_CIPHER_CTX_new();
    aead->open = EVP_CIPHER_CTX_new();
    int status = aead->seal && aead->open ? crypto_aead_rekey(aead, key, err)
                                          : err_set(err, ERR_NOMEM, "no memory for a cipher");
    if (status < 0) {
        crypto_aead_free(aead);
        return status;
    }
    *ret_aead = aead;
    return 0;
}

int crypto_aead_rekey(struct crypto_aead *aead, const uint8_t key[CRYPTO_AEAD_KEY_BYTES], struct err *err)
{
    if (EVP_EncryptInit_ex(aead->seal, aead->cipher, NULL, key, NULL) != 1 ||
        EVP_DecryptInit_ex(aead->open, aead->cipher, NULL, key, NULL) != 1)
        return err_set(err, ERR_INTERNAL, "libcrypto refuses a key");
    return 0;
}

void crypto_aead_free(struct crypto_aead *aead)
{
    if (!aead)
        return;
    EVP_CIPHER_CTX_free(aead->seal);
    EVP_CIPHER_CTX_free(aead->open);
    free(aead);
}

/* `key` NULL: the one of before. */
static int seal(struct crypto_aead *aead, const uint8_t *key, const uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES],
                const void *ad, size_t ad_bytes, const void *head, size_t head_bytes, const void *plain,
                size_t len_bytes, uint8_t *ret_sealed, struct err *err)
{
    int done = 0;
    int ok = EVP_EncryptInit_ex(aead->seal, NULL, NULL, key, nonce);
    if (ok == 1 && ad_bytes > 0)
        ok = EVP_EncryptUpdate(aead->seal, NULL, &done, ad, (int)ad_bytes);
    if (ok == 1 && head_bytes > 0)
        ok = EVP_EncryptUpdate(aead->seal, ret_sealed, &done, head, (int)head_bytes);
    uint8_t *rest = ret_sealed + head_bytes;
    if (ok == 1 && len_bytes > 0)
        ok = EVP_EncryptUpdate(aead->seal, rest, &done, plain, (int)len_bytes);
    if (ok == 1)
        ok = EVP_EncryptFinal_ex(aead->seal, rest + len_bytes, &done);
    if (ok == 1)
        ok = EVP_CIPHER_CTX_ctrl(aead->seal, EVP_CTRL_AEAD_GET_TAG, CRYPTO_AEAD_TAG_BYTES, rest + len_bytes);
    return ok == 1 ? 0 : err_set(err, ERR_INTERNAL, "libcrypto refuses to encrypt");
}

int crypto_aead_seal(struct crypto_aead *aead, const uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES], const void *ad,
                     size_t ad_bytes, const void *plain, size_t len_bytes, uint8_t *ret_sealed, struct err *err)
{
    return crypto_aead_seal_parts(aead, nonce, ad, ad_bytes, NULL, 0, plain, len_bytes, ret_sealed, err);
}

int crypto_aead_seal_parts(struct crypto_aead *aead, const uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES], const void *ad,
                           size_t ad_bytes, const void *head, size_t head_bytes, const void *plain, size_t len_bytes,
                           uint8_t *ret_sealed, struct err *err)
{
    return seal(aead, NULL, nonce, ad, ad_bytes, head, head_bytes, plain, len_bytes, ret_sealed, err);
}

static int open_sealed(struct crypto_aead *aead, const uint8_t *key, const uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES],
                       const void *ad, size_t ad_bytes, const uint8_t *sealed, size_t sealed_bytes, uint8_t *ret_plain,
                       struct err *err)
{
    if (sealed_bytes < CRYPTO_AEAD_TAG_BYTES)
        return err_set(err, ERR_AUTH, "sealed bytes are shorter than their tag");
    size_t len = sealed_bytes - CRYPTO_AEAD_TAG_BYTES;
    uint8_t tag[CRYPTO_AEAD_TAG_BYTES];
    memcpy(tag, sealed + len, sizeof tag);

    int done = 0;
    int ok = EVP_DecryptInit_ex(aead->open, NULL, NULL, key, nonce);
    if (ok == 1)
        ok = EVP_CIPHER_CTX_ctrl(aead->open, EVP_CTRL_AEAD_SET_TAG, CRYPTO_AEAD_TAG_BYTES, tag);
    if (ok == 1 && ad_bytes > 0)
        ok = EVP_DecryptUpdate(aead->open, NULL, &done, ad, (int)ad_bytes);
    if (ok == 1 && len > 0)
        ok = EVP_DecryptUpdate(aead->open, ret_plain, &done, sealed, (int)len);
    uint8_t none[CRYPTO_AEAD_TAG_BYTES];
    if (ok == 1)
        ok = EVP_DecryptFinal_ex(aead->open, none, &done);
    return ok == 1 ? 0 : err_set(err, ERR_AUTH, "sealed bytes fail their authentication tag");
}

int crypto_aead_open(struct crypto_aead *aead, const uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES], const void *ad,
                     size_t ad_bytes, const uint8_t *sealed, size_t sealed_bytes, uint8_t *ret_plain, struct err *err)
{
    return open_sealed(aead, NULL, nonce, ad, ad_bytes, sealed, sealed_bytes, ret_plain, err);
}

void crypto_xchacha_key(const uint8_t key[CRYPTO_AEAD_KEY_BYTES], const uint8_t head[CRYPTO_XCHACHA_HEAD_BYTES],
                        uint8_t ret_key[CRYPTO_AEAD_KEY_BYTES])
{
    crypto_core_hchacha20(ret_key, head, key, NULL);
}

static void make_nonce(const uint8_t tail[CRYPTO_XCHACHA_TAIL_BYTES], uint8_t ret_nonce[CRYPTO_AEAD_NONCE_BYTES])
{
    memset(ret_nonce, 0, CRYPTO_AEAD_NONCE_BYTES - CRYPTO_XCHACHA_TAIL_BYTES);
    memcpy(ret_nonce + CRYPTO_AEAD_NONCE_BYTES - CRYPTO_XCHACHA_TAIL_BYTES, tail, CRYPTO_XCHACHA_TAIL_BYTES);
}

int crypto_xchacha_seal(struct crypto_aead *aead, const uint8_t key[CRYPTO_AEAD_KEY_BYTES],
                        const uint8_t tail[CRYPTO_XCHACHA_TAIL_BYTES], const void *ad, size_t ad_bytes,
                        const void *plain, size_t len_bytes, uint8_t *ret_sealed, struct err *err)
{
    uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES];
    make_nonce(tail, nonce);
    return seal(aead, key, nonce, ad, ad_bytes, NULL, 0, plain, len_bytes, ret_sealed, err);
}

int crypto_xchacha_open(struct crypto_aead *aead, const uint8_t key[CRYPTO_AEAD_KEY_BYTES],
                        const uint8_t tail[CRYPTO_XCHACHA_TAIL_BYTES], const void *ad, size_t ad_bytes,
                        const uint8_t *sealed, size_t sealed_bytes, uint8_t *ret_plain, struct err *err)
{
    uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES];
    make_nonce(tail, nonce);
    return open_sealed(aead, key, nonce, ad, ad_bytes, sealed, sealed_bytes, ret_plain, err);
}
