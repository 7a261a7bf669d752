/*
 * Authenticated datagrams between members: what a DHT message travels in. No socket and no clock here: bytes and the
 * time go in, bytes and payloads come out through callbacks, at once and on the same stack. One thread.
 *
 * 1. Every payload is sealed with a key of the pair (X25519 of the two node keys) for its direction; header included.
 * 2. A payload is delivered once, and only from a member: one whose chain was verified, that is not revoked, at the
 *    address that it proved to hold. (Once, by a receiver that remembers: one that restarts may be told again what was
 *    sent in the DATAGRAM_RESEND_MS before.)
 * 3. Strangers get silence, or one CHALLENGE that is smaller than what they sent; only who answers it costs more than
 *    a hash. Challenges and chain checks are rationed by address block.
 * 4. The replay window moves after authentication only. A peer that restarted has a higher boot stamp; lower ones are
 *    refused.
 * 5. Memory is bounded: LIMIT_DATAGRAM_PEERS peers, the longest unused is forgotten first and has to prove itself
 *    anew; LIMIT_DATAGRAM_RECENT_BYTES of sent datagrams, for DATAGRAM_RESEND_MS. An idle node keeps next to nothing.
 * 6. No nonce comes twice under a key, also when boot stamps do: a random salt is drawn at each start.
 *
 * Delivery is not promised: datagrams may be lost as any; who needs an answer asks again.
 *
 *      a ---- DATA ----> b      b does not know a
 *      a <- CHALLENGE -- b      cookie, and the tag of what it answers
 *      a ---- HELLO ---> b      cookie, chain of a, authenticated with the pair key; b knows a from here on
 *      a <- HELLO_ACK -- b      chain of b, and which HELLO it answers; a knows b from here on
 *      a ---- DATA ----> b      what was sent before the HELLO, again
 *
 * Layout, big-endian. Every packet begins with magic u8 0xc7, version u8 2, type u8, reserved u8 0, and the first
 * 8 bytes of the cluster id. CHALLENGE goes on with tag (16), cookie (24). The others go on with sender id (32),
 * boot stamp u64, boot salt (8), counter u64, and end with a sealed part: text, tag (16), XChaCha20-Poly1305 with boot
 * stamp, salt and counter as its nonce and all that stands before as associated data:
 *   DATA       sealed: payload
 *   HELLO      cookie (24), chain, sealed: nothing
 *   HELLO_ACK  boot stamp u64 and counter u64 of the HELLO, chain, sealed: nothing
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "node/base/addr.h"
#include "node/base/clock.h"
#include "node/base/crypto.h"
#include "node/base/err.h"
#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/identity/identity.h"

#define DATAGRAM_HEADER_BYTES 68
#define DATAGRAM_OVERHEAD_BYTES (DATAGRAM_HEADER_BYTES + CRYPTO_AEAD_TAG_BYTES) /* 84, always */
#define DATAGRAM_PAYLOAD_BYTES (LIMIT_DATAGRAM_BYTES - DATAGRAM_OVERHEAD_BYTES) /* 1,148 at most */

#define DATAGRAM_RESEND_MS 3000 /* an older datagram is not sent again: whoever waited for it has asked again */

/* Who a payload came from; borrowed, for the time of the callback. */
struct datagram_peer {
    struct id id;
    uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES];
    struct addr addr;
};

typedef void (*datagram_deliver_cb)(void *ctx, const struct datagram_peer *peer, const uint8_t *payload,
                                    size_t len_bytes);
typedef void (*datagram_send_cb)(void *ctx, const struct addr *to, const uint8_t *bytes, size_t len_bytes);

struct datagram_config {
    const struct identity *identity; /* borrowed; a member */
    struct rng rng;
    uint64_t (*wall_s)(void *ctx); /* seconds since 1970, for certificates */
    uint64_t boot_stamp;           /* higher at each start; kept on disk by the caller */
    datagram_deliver_cb deliver;
    datagram_send_cb send;
    void *ctx; /* borrowed, given to all three callbacks */
};

/* What was dropped and why, and what was done; only ever grows. */
struct datagram_stats {
    uint64_t delivered;
    uint64_t sent;
    uint64_t resent;
    uint64_t dropped_malformed; /* size, magic, version, type, reserved, layout */
    uint64_t dropped_cluster;
    uint64_t dropped_stranger; /* unknown sender; it was asked who it is if its block's ration allowed */
    uint64_t dropped_forged;   /* the seal does not open */
    uint64_t dropped_replay;   /* counter seen before or too old */
    uint64_t dropped_boot;     /* from before the sender's restart */
    uint64_t dropped_identity; /* chain not accepted, revoked, expired */
    uint64_t dropped_cookie;   /* HELLO without a good cookie; it was given a new one in the same way */
    uint64_t dropped_unasked;  /* CHALLENGE or HELLO_ACK to nothing that we sent */
    uint64_t challenges;
    uint64_t hellos;
};

struct datagram;

int datagram_new(const struct datagram_config *config, struct datagram **ret_datagram, struct err *err);
void datagram_free(struct datagram *datagram);
OWNED_DEFINE(owned_datagram, struct datagram, datagram_free)

/* Send a payload of at most DATAGRAM_PAYLOAD_BYTES to the node `id` at `addr`. `public_key` may be NULL for a peer
 * that is known (ERR_NOTFOUND if it is not). ERR_INVALID if the key is not the id's or no good key, ERR_LIMIT for a
 * long payload, ERR_AUTH for a revoked peer. now_ms is monotonic. */
int datagram_send(struct datagram *datagram, uint64_t now_ms, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES],
                  const struct id *id, const struct addr *addr, const void *payload, size_t len_bytes, struct err *err);

/* A datagram arrived. Whatever is wrong with it is counted and forgotten. */
void datagram_input(struct datagram *datagram, uint64_t now_ms, const struct addr *from, const uint8_t *bytes,
                    size_t len_bytes);

/* Drop a peer, as after its revocation. It may come back if its chain is (still) good. */
void datagram_forget(struct datagram *datagram, uint64_t now_ms, const struct id *id);

/* To be called about once a second: forgets what was sent long ago. */
void datagram_tick(struct datagram *datagram, uint64_t now_ms);

/* The public key of a peer that is known, for 32 bytes; NULL if it is not. Borrowed until the next call. */
const uint8_t *datagram_peer_key(const struct datagram *datagram, const struct id *id);
size_t datagram_peer_count(const struct datagram *datagram);
const struct datagram_stats *datagram_stats(const struct datagram *datagram);
