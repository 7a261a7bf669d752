/*
 * The Noise Protocol Framework, revision 34 (noiseprotocol.org/noise.html): handshakes of two parties over
 * 25519, ChaChaPoly or AESGCM and BLAKE2b, and the ciphers that they end in.
 *
 * Owns keys and hashes; knows no frames, no sockets, no certificates. The patterns are rows of a table: XX with
 * ChaChaPoly is what sessions use, the others are there because their published vectors test what that one does not:
 * pre-messages, es before s, AESGCM's nonces.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/buf.h"
#include "node/base/crypto.h"
#include "node/base/err.h"
#include "node/base/scope.h"

#define NOISE_TAG_BYTES CRYPTO_AEAD_TAG_BYTES
#define NOISE_HASH_BYTES 64
#define NOISE_MESSAGE_BYTES 65535 /* section 3 */

/* ---- one direction of a finished handshake ---- */

/* A key is used for this much, then replaced on both sides at the same message (sections 4.2 and 11.3). */
#define NOISE_REKEY_MESSAGES (1u << 16)
#define NOISE_REKEY_BYTES (1ull << 30)

struct noise_cipher {
    enum crypto_cipher kind;
    struct crypto_aead *aead; /* owned; NULL: not keyed */
    uint8_t key[CRYPTO_AEAD_KEY_BYTES];
    uint64_t nonce; /* of the next message; goes on through rekeys, and 2^64 - 1 is never used for one */
    uint64_t key_messages;
    uint64_t key_bytes;
};

void noise_cipher_release(struct noise_cipher *cipher);
/* ret_sealed gets head_bytes + len_bytes + NOISE_TAG_BYTES. `plain` may lie at ret_sealed + head_bytes. */
int noise_cipher_seal(struct noise_cipher *cipher, const void *head, size_t head_bytes, const void *plain,
                      size_t len_bytes, uint8_t *ret_sealed, struct err *err);
/* In place: sealed_bytes with the tag, the plaintext is sealed_bytes - NOISE_TAG_BYTES. ERR_AUTH if it was touched. */
int noise_cipher_open(struct noise_cipher *cipher, uint8_t *sealed, size_t sealed_bytes, struct err *err);

/* ---- handshakes ---- */

enum noise_pattern { NOISE_XX, NOISE_IK };

struct noise;

struct noise_config {
    enum noise_pattern pattern;
    enum crypto_cipher cipher; /* of the handshake */
    bool initiator;
    const void *prologue;
    size_t prologue_bytes;
    const uint8_t *static_secret;    /* CRYPTO_DH_BYTES */
    const uint8_t *ephemeral_secret; /* NULL: a fresh one; given only by test vectors */
    const uint8_t *remote_static;    /* the responder's, where the pattern says that it is known; else NULL */
};

/* Everything is copied. */
int noise_new(const struct noise_config *config, struct noise **ret_noise, struct err *err);
void noise_free(struct noise *noise);
OWNED_DEFINE(owned_noise, struct noise, noise_free)

/* Is the next handshake message ours to write? False also when all are done. */
bool noise_may_write(const struct noise *noise);
bool noise_is_done(const struct noise *noise);

/* Append the next handshake message to `message`. */
int noise_write(struct noise *noise, const void *payload, size_t payload_bytes, struct buf *message, struct err *err);
/* Take the peer's next handshake message and append its payload. ERR_AUTH if it does not verify or a key of it is of
 * small order, ERR_PROTOCOL if it is too short; the handshake is over then. */
int noise_read(struct noise *noise, const uint8_t *message, size_t message_bytes, struct buf *payload, struct err *err);

/* The peer's static key; NULL until it has come. */
const uint8_t *noise_remote_static(const struct noise *noise);
/* The handshake hash, NOISE_HASH_BYTES; final when done. */
const uint8_t *noise_hash(const struct noise *noise);
/* Once, when done. `kind` is for both directions: what the two have agreed on in what the handshake authenticates. The
 * ciphers are the caller's to release. */
int noise_split(struct noise *noise, enum crypto_cipher kind, struct noise_cipher *ret_send,
                struct noise_cipher *ret_receive, struct err *err);
