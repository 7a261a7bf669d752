/*
 * Certificate chains: from the root key, certificate by certificate, to a member's key.
 *
 * The encoding repeats nothing that follows from its place (a certificate's issuer is the subject before it, its depth
 * its place, the cluster the hash of the root key), so a chain has one encoding and a broken link cannot be written:
 *   version u8 1, count u8 (1 to 8), root public key (32), then each certificate in 121 bytes:
 *   subject public key (32), rights u8, not_before u64, not_after u64, serial u64, signature (64)
 * Signed, by the issuer: CHAIN_SIGNED_PREFIX with its NUL, cluster (32), issuer public key (32), depth u8 (1 for the
 * root's), and the certificate's fields but for the signature.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "node/identity/identity.h"

#define CHAIN_VERSION 1
#define CHAIN_SIGNED_PREFIX "cmig certificate 1"
#define CHAIN_DEFAULT_TTL_S (365u * 86400u)
#define CHAIN_LAST_TIME_S 253402300799ull        /* the end of the year 9999; later times are malformed */
#define CHAIN_REFUSED "certificate not accepted" /* the one text for the other side */

struct certificate {
    uint8_t subject[CRYPTO_SIGN_PUBLIC_BYTES];
    uint8_t rights;
    uint64_t not_before; /* wall seconds */
    uint64_t not_after;
    uint64_t serial;
    uint8_t signature[CRYPTO_SIGNATURE_BYTES];
};

struct chain {
    uint8_t root[CRYPTO_SIGN_PUBLIC_BYTES];
    struct id cluster; /* of the root key; not encoded */
    unsigned count;    /* 0 only as the bare root that a revocation may carry */
    struct certificate certs[LIMIT_CHAIN_CERTS];
};

/* An empty chain of this root. */
void identity_chain_init(struct chain *chain, const uint8_t root[CRYPTO_SIGN_PUBLIC_BYTES]);
/* Form only: exact length, known rights, times in order. min_count is 1, or 0 where a bare root is allowed. */
bool identity_chain_decode(const uint8_t *data, size_t len_bytes, unsigned min_count, struct chain *ret_chain);
void identity_chain_encode(const struct chain *chain, struct buf *buf);

const struct certificate *identity_chain_leaf(const struct chain *chain); /* of count >= 1 */
/* The key that signs the certificate at `index`: the root's or the subject's before it. */
const uint8_t *identity_chain_issuer(const struct chain *chain, unsigned index);

/* Sign `certificate` (all but its signature filled in) with the key of the chain's last subject, or the root's, and
 * append it. The caller has seen to it that count < LIMIT_CHAIN_CERTS. */
void identity_chain_append(struct chain *chain, const struct certificate *certificate,
                           const struct crypto_sign_key *issuer);

/* Signatures, rights and nesting of validity, at no particular time and whoever is revoked. False with `why` set. */
bool identity_chain_is_sound(const struct chain *chain, char why[IDENTITY_WHY_SIZE]);

/* All that makes a chain good for a member of `cluster` with `rights` at wall_s, but for revocation. */
bool identity_chain_is_valid(const struct chain *chain, const struct id *cluster, unsigned rights, uint64_t wall_s,
                             char why[IDENTITY_WHY_SIZE]);

/* Fresh certificates: the validity that an issuer whose own chain ends at issuer_end can give from now on. */
void identity_certificate_fill(struct certificate *certificate, const uint8_t subject[CRYPTO_SIGN_PUBLIC_BYTES],
                               unsigned rights, uint64_t wall_s, uint64_t issuer_start, uint64_t issuer_end);
