#include "transfer/noise.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/wire.h"

/* Section 5.3's tokens. DH tokens name the initiator's key first: TOKEN_ES is DH(initiator e, responder s). */
enum token { TOKEN_END, TOKEN_E, TOKEN_S, TOKEN_EE, TOKEN_ES, TOKEN_SE, TOKEN_SS };

#define PATTERN_MESSAGES 3
#define MESSAGE_TOKENS 5

struct pattern {
    const char *protocol_names[2]; /* with each cipher */
    bool responder_known;          /* pre-message "<- s" */
    unsigned n_messages;
    enum token messages[PATTERN_MESSAGES][MESSAGE_TOKENS];
};

/* Section 7.5. */
static const struct pattern PATTERNS[] = {
    [NOISE_XX] = {{[CRYPTO_CHACHA20_POLY1305] = "Noise_XX_25519_ChaChaPoly_BLAKE2b",
                   [CRYPTO_AES256_GCM] = "Noise_XX_25519_AESGCM_BLAKE2b"},
                  false,
                  3,
                  {{TOKEN_E}, {TOKEN_E, TOKEN_EE, TOKEN_S, TOKEN_ES}, {TOKEN_S, TOKEN_SE}}},
    [NOISE_IK] = {{[CRYPTO_CHACHA20_POLY1305] = "Noise_IK_25519_ChaChaPoly_BLAKE2b",
                   [CRYPTO_AES256_GCM] = "Noise_IK_25519_AESGCM_BLAKE2b"},
                  true,
                  2,
                  {{TOKEN_E, TOKEN_ES, TOKEN_S, TOKEN_SS}, {TOKEN_E, TOKEN_EE, TOKEN_SE}}},
};

struct noise {
    const struct pattern *pattern;
    bool initiator;
    bool failed;
    unsigned next_message;
    bool have_remote_static;
    uint8_t chaining_key[NOISE_HASH_BYTES];
    uint8_t hash[NOISE_HASH_BYTES];
    struct noise_cipher cipher;
    uint8_t static_secret[CRYPTO_DH_BYTES];
    uint8_t static_public[CRYPTO_DH_BYTES];
    uint8_t ephemeral_secret[CRYPTO_DH_BYTES];
    uint8_t ephemeral_public[CRYPTO_DH_BYTES];
    uint8_t remote_static[CRYPTO_DH_BYTES];
    uint8_t remote_ephemeral[CRYPTO_DH_BYTES];
};

/* ---- cipher (section 5.1) ---- */

void noise_cipher_release(struct noise_cipher *cipher)
{
    crypto_aead_free(cipher->aead);
    crypto_wipe(cipher, sizeof *cipher);
}

static int cipher_set_key(struct noise_cipher *cipher, const uint8_t key[CRYPTO_AEAD_KEY_BYTES], struct err *err)
{
    int status = cipher->aead ? crypto_aead_rekey(cipher->aead, key, err)
                              : crypto_aead_new(cipher->kind, key, &cipher->aead, err);
    if (status < 0)
        return status;
    memcpy(cipher->key, key, sizeof cipher->key);
    cipher->key_messages = 0;
    cipher->key_bytes = 0;
    return 0;
}

/* Section 12: 32 zero bits, then the counter, for ChaChaPoly in little-endian and for AESGCM in big-endian order. */
static void put_nonce(enum crypto_cipher kind, uint64_t counter, uint8_t ret_nonce[CRYPTO_AEAD_NONCE_BYTES])
{
    memset(ret_nonce, 0, 4);
    for (unsigned i = 0; i < 8; i++)
        ret_nonce[4 + i] = (uint8_t)(counter >> 8 * (kind == CRYPTO_AES256_GCM ? 7 - i : i));
}

/* Section 4.2: the new key is the first 32 bytes of 32 zeros sealed under the nonce that no message may have. */
static int cipher_rekey(struct noise_cipher *cipher, struct err *err)
{
    static const uint8_t zeros[CRYPTO_AEAD_KEY_BYTES];
    uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES];
    put_nonce(cipher->kind, UINT64_MAX, nonce);
    uint8_t sealed[sizeof zeros + NOISE_TAG_BYTES];
    int status = crypto_aead_seal(cipher->aead, nonce, NULL, 0, zeros, sizeof zeros, sealed, err);
    if (status == 0)
        status = cipher_set_key(cipher, sealed, err);
    crypto_wipe(sealed, sizeof sealed);
    return status;
}

static int take_nonce(struct noise_cipher *cipher, uint8_t ret_nonce[CRYPTO_AEAD_NONCE_BYTES], struct err *err)
{
    if (cipher->nonce == UINT64_MAX)
        return err_set(err, ERR_LIMIT, "all nonces of a cipher are used");
    put_nonce(cipher->kind, cipher->nonce, ret_nonce);
    return 0;
}

/* Both sides count the same messages, so both change the key after the same one. */
static int count_message(struct noise_cipher *cipher, size_t len_bytes, struct err *err)
{
    cipher->nonce++;
    cipher->key_messages++;
    cipher->key_bytes += len_bytes;
    if (cipher->key_messages < NOISE_REKEY_MESSAGES && cipher->key_bytes < NOISE_REKEY_BYTES)
        return 0;
    return cipher_rekey(cipher, err);
}

int noise_cipher_seal(struct noise_cipher *cipher, const void *head, size_t head_bytes, const void *plain,
                      size_t len_bytes, uint8_t *ret_sealed, struct err *err)
{
    uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES];
    int status = take_nonce(cipher, nonce, err);
    if (status == 0)
        status =
            crypto_aead_seal_parts(cipher->aead, nonce, NULL, 0, head, head_bytes, plain, len_bytes, ret_sealed, err);
    return status == 0 ? count_message(cipher, head_bytes + len_bytes, err) : status;
}

int noise_cipher_open(struct noise_cipher *cipher, uint8_t *sealed, size_t sealed_bytes, struct err *err)
{
    uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES];
    int status = take_nonce(cipher, nonce, err);
    if (status == 0)
        status = crypto_aead_open(cipher->aead, nonce, NULL, 0, sealed, sealed_bytes, sealed, err);
    return status == 0 ? count_message(cipher, sealed_bytes - NOISE_TAG_BYTES, err) : status;
}

/* ---- symmetric state (section 5.2) ---- */

static void mix_hash(struct noise *noise, const void *data, size_t len_bytes)
{
    crypto_blake2b(noise->hash, sizeof noise->hash, NULL, 0, noise->hash, sizeof noise->hash, data, len_bytes);
}

/* Section 4.3, with two outputs. */
static void hkdf(const uint8_t chaining_key[NOISE_HASH_BYTES], const void *material, size_t material_bytes,
                 uint8_t ret_first[NOISE_HASH_BYTES], uint8_t ret_second[NOISE_HASH_BYTES])
{
    uint8_t temp[NOISE_HASH_BYTES];
    crypto_hmac_blake2b(temp, chaining_key, NOISE_HASH_BYTES, material, material_bytes, NULL, 0);
    crypto_hmac_blake2b(ret_first, temp, sizeof temp, (const uint8_t[]){1}, 1, NULL, 0);
    crypto_hmac_blake2b(ret_second, temp, sizeof temp, ret_first, NOISE_HASH_BYTES, (const uint8_t[]){2}, 1);
    crypto_wipe(temp, sizeof temp);
}

static int mix_key(struct noise *noise, const uint8_t material[CRYPTO_DH_BYTES], struct err *err)
{
    uint8_t chaining_key[NOISE_HASH_BYTES];
    uint8_t key[NOISE_HASH_BYTES];
    hkdf(noise->chaining_key, material, CRYPTO_DH_BYTES, chaining_key, key);
    memcpy(noise->chaining_key, chaining_key, sizeof chaining_key);
    int status = cipher_set_key(&noise->cipher, key, err);
    noise->cipher.nonce = 0;
    crypto_wipe(chaining_key, sizeof chaining_key);
    crypto_wipe(key, sizeof key);
    return status;
}

/* Appends the bytes, encrypted once there is a key. */
static int encrypt_and_hash(struct noise *noise, const void *plain, size_t len_bytes, struct buf *message,
                            struct err *err)
{
    size_t tag_bytes = noise->cipher.aead ? NOISE_TAG_BYTES : 0;
    uint8_t *at = buf_reserve(message, len_bytes + tag_bytes);
    if (!at)
        return err_set(err, ERR_LIMIT, "a handshake message is too long");
    if (noise->cipher.aead) {
        uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES];
        put_nonce(noise->cipher.kind, noise->cipher.nonce++, nonce);
        int status =
            crypto_aead_seal(noise->cipher.aead, nonce, noise->hash, sizeof noise->hash, plain, len_bytes, at, err);
        if (status < 0)
            return status;
    } else if (len_bytes > 0) {
        memcpy(at, plain, len_bytes);
    }
    mix_hash(noise, at, len_bytes + tag_bytes);
    message->len += len_bytes + tag_bytes;
    return 0;
}

/* ret_plain has room for sealed_bytes. */
static int decrypt_and_hash(struct noise *noise, const uint8_t *sealed, size_t sealed_bytes, uint8_t *ret_plain,
                            struct err *err)
{
    if (noise->cipher.aead) {
        uint8_t nonce[CRYPTO_AEAD_NONCE_BYTES];
        put_nonce(noise->cipher.kind, noise->cipher.nonce++, nonce);
        int status = crypto_aead_open(noise->cipher.aead, nonce, noise->hash, sizeof noise->hash, sealed, sealed_bytes,
                                      ret_plain, err);
        if (status < 0)
            return status;
    } else if (sealed_bytes > 0) {
        memcpy(ret_plain, sealed, sealed_bytes);
    }
    mix_hash(noise, sealed, sealed_bytes);
    return 0;
}

/* ---- handshake state (section 5.3) ---- */

static void start_hash(struct noise *noise, const struct noise_config *config)
{
    /* "If protocol_name is less than or equal to HASHLEN bytes in length, sets h equal to protocol_name with zero
     * bytes appended": all of ours are. */
    const char *name = noise->pattern->protocol_names[noise->cipher.kind];
    memcpy(noise->hash, name, strlen(name));
    memcpy(noise->chaining_key, noise->hash, sizeof noise->chaining_key);
    mix_hash(noise, config->prologue, config->prologue_bytes);
    if (noise->pattern->responder_known)
        mix_hash(noise, noise->initiator ? noise->remote_static : noise->static_public, CRYPTO_DH_BYTES);
}

int noise_new(const struct noise_config *config, struct noise **ret_noise, struct err *err)
{
    const struct pattern *pattern = &PATTERNS[config->pattern];
    if (pattern->responder_known && config->initiator && !config->remote_static)
        return err_set(err, ERR_INVALID, "%s needs the responder's key beforehand",
                       pattern->protocol_names[config->cipher]);
    struct noise *noise = calloc(1, sizeof *noise);
    if (!noise)
        return err_set(err, ERR_NOMEM, "no memory for a handshake");
    noise->pattern = pattern;
    noise->initiator = config->initiator;
    noise->cipher.kind = config->cipher;
    memcpy(noise->static_secret, config->static_secret, CRYPTO_DH_BYTES);
    crypto_dh_public(noise->static_secret, noise->static_public);
    if (config->ephemeral_secret) {
        memcpy(noise->ephemeral_secret, config->ephemeral_secret, CRYPTO_DH_BYTES);
        crypto_dh_public(noise->ephemeral_secret, noise->ephemeral_public);
    } else {
        crypto_dh_keygen(noise->ephemeral_secret, noise->ephemeral_public);
    }
    if (config->remote_static) {
        memcpy(noise->remote_static, config->remote_static, CRYPTO_DH_BYTES);
        noise->have_remote_static = true;
    }
    start_hash(noise, config);
    *ret_noise = noise;
    return 0;
}

void noise_free(struct noise *noise)
{
    if (!noise)
        return;
    noise_cipher_release(&noise->cipher);
    crypto_wipe(noise, sizeof *noise);
    free(noise);
}

bool noise_is_done(const struct noise *noise)
{
    return noise->next_message == noise->pattern->n_messages;
}

static bool message_is_ours(const struct noise *noise)
{
    return (noise->next_message % 2 == 0) == noise->initiator;
}

bool noise_may_write(const struct noise *noise)
{
    return !noise->failed && !noise_is_done(noise) && message_is_ours(noise);
}

/* The four DH tokens; which keys they mean depends on who we are. */
static int mix_dh(struct noise *noise, enum token token, struct err *err)
{
    bool initiator = noise->initiator;
    bool own_static = token == TOKEN_SS || (token == TOKEN_SE && initiator) || (token == TOKEN_ES && !initiator);
    bool remote_static = token == TOKEN_SS || (token == TOKEN_ES && initiator) || (token == TOKEN_SE && !initiator);
    uint8_t shared[CRYPTO_DH_BYTES];
    if (!crypto_dh(own_static ? noise->static_secret : noise->ephemeral_secret,
                   remote_static ? noise->remote_static : noise->remote_ephemeral, shared))
        return err_set(err, ERR_AUTH, "the peer's key is of small order");
    int status = mix_key(noise, shared, err);
    crypto_wipe(shared, sizeof shared);
    return status;
}

static int write_token(struct noise *noise, enum token token, struct buf *message, struct err *err)
{
    switch (token) {
    case TOKEN_E:
        mix_hash(noise, noise->ephemeral_public, CRYPTO_DH_BYTES);
        if (buf_add(message, noise->ephemeral_public, CRYPTO_DH_BYTES) < 0)
            return err_set(err, ERR_LIMIT, "a handshake message is too long");
        return 0;
    case TOKEN_S:
        return encrypt_and_hash(noise, noise->static_public, CRYPTO_DH_BYTES, message, err);
    default:
        return mix_dh(noise, token, err);
    }
}

static int read_token(struct noise *noise, enum token token, struct wire *message, struct err *err)
{
    if (token != TOKEN_E && token != TOKEN_S)
        return mix_dh(noise, token, err);
    size_t tag_bytes = token == TOKEN_S && noise->cipher.aead ? NOISE_TAG_BYTES : 0;
    const uint8_t *key = wire_get_bytes(message, CRYPTO_DH_BYTES + tag_bytes);
    if (!key)
        return err_set(err, ERR_PROTOCOL, "a handshake message is too short");
    if (token == TOKEN_E) {
        memcpy(noise->remote_ephemeral, key, CRYPTO_DH_BYTES);
        mix_hash(noise, key, CRYPTO_DH_BYTES);
        return 0;
    }
    uint8_t plain[CRYPTO_DH_BYTES + NOISE_TAG_BYTES];
    int status = decrypt_and_hash(noise, key, CRYPTO_DH_BYTES + tag_bytes, plain, err);
    if (status == 0) {
        memcpy(noise->remote_static, plain, CRYPTO_DH_BYTES);
        noise->have_remote_static = true;
    }
    return status;
}

/* A handshake that failed once takes and gives nothing more. */
static int finish_message(struct noise *noise, int status)
{
    if (status < 0)
        noise->failed = true;
    else
        noise->next_message++;
    return status;
}

int noise_write(struct noise *noise, const void *payload, size_t payload_bytes, struct buf *message, struct err *err)
{
    if (!noise_may_write(noise))
        return err_set(err, ERR_INTERNAL, "a handshake message was written out of turn");
    const enum token *tokens = noise->pattern->messages[noise->next_message];
    int status = 0;
    for (unsigned i = 0; status == 0 && i < MESSAGE_TOKENS && tokens[i] != TOKEN_END; i++)
        status = write_token(noise, tokens[i], message, err);
    if (status == 0)
        status = encrypt_and_hash(noise, payload, payload_bytes, message, err);
    return finish_message(noise, status);
}

static int read_payload(struct noise *noise, struct wire *message, struct buf *payload, struct err *err)
{
    size_t sealed_bytes = wire_left(message);
    if (noise->cipher.aead && sealed_bytes < NOISE_TAG_BYTES)
        return err_set(err, ERR_PROTOCOL, "a handshake message is too short");
    uint8_t *plain = buf_reserve(payload, sealed_bytes);
    if (!plain)
        return err_set(err, ERR_LIMIT, "a handshake payload is too long");
    int status = decrypt_and_hash(noise, wire_get_bytes(message, sealed_bytes), sealed_bytes, plain, err);
    if (status == 0)
        payload->len += sealed_bytes - (noise->cipher.aead ? NOISE_TAG_BYTES : 0);
    return status;
}

int noise_read(struct noise *noise, const uint8_t *message, size_t message_bytes, struct buf *payload, struct err *err)
{
    if (noise->failed || noise_is_done(noise) || message_is_ours(noise))
        return err_set(err, ERR_PROTOCOL, "a handshake message came out of turn");
    struct wire wire;
    wire_init(&wire, message, message_bytes);
    const enum token *tokens = noise->pattern->messages[noise->next_message];
    int status = 0;
    for (unsigned i = 0; status == 0 && i < MESSAGE_TOKENS && tokens[i] != TOKEN_END; i++)
        status = read_token(noise, tokens[i], &wire, err);
    if (status == 0)
        status = read_payload(noise, &wire, payload, err);
    return finish_message(noise, status);
}

const uint8_t *noise_remote_static(const struct noise *noise)
{
    return noise->have_remote_static ? noise->remote_static : NULL;
}

const uint8_t *noise_hash(const struct noise *noise)
{
    return noise->hash;
}

int noise_split(struct noise *noise, enum crypto_cipher kind, struct noise_cipher *ret_send,
                struct noise_cipher *ret_receive, struct err *err)
{
    if (!noise_is_done(noise))
        return err_set(err, ERR_INTERNAL, "a handshake was split before its end");
    uint8_t first[NOISE_HASH_BYTES];
    uint8_t second[NOISE_HASH_BYTES];
    hkdf(noise->chaining_key, NULL, 0, first, second);
    struct noise_cipher send = {.kind = kind};
    struct noise_cipher receive = {.kind = kind};
    int status = cipher_set_key(&send, noise->initiator ? first : second, err);
    if (status == 0)
        status = cipher_set_key(&receive, noise->initiator ? second : first, err);
    crypto_wipe(first, sizeof first);
    crypto_wipe(second, sizeof second);
    if (status < 0) {
        noise_cipher_release(&send);
        noise_cipher_release(&receive);
        return status;
    }
    *ret_send = send;
    *ret_receive = receive;
    return 0;
}
