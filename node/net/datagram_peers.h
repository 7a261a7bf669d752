/*
 * The peers that datagrams are exchanged with: keys of the pair, what is known of the other side. At most
 * LIMIT_DATAGRAM_PEERS; the longest unused gives way.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "node/base/addr.h"
#include "node/base/crypto.h"
#include "node/base/map.h"
#include "node/net/window.h"

#define PEER_ADDRS 2 /* an IPv4 and an IPv6 address, or the one before a move */
#define FLOOR_SLOTS 1024

struct net_peer {
    TAILQ_ENTRY(net_peer)
    entry;
    struct id id;
    uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES];
    uint8_t key_out[32]; /* seals what we send to it, in this life of ours */
    uint8_t key_in[32];  /* of the pair: what it seals with is made of this and of the head of its nonces */
    uint8_t head_in[CRYPTO_XCHACHA_HEAD_BYTES]; /* of the last nonce that was authentic */
    uint8_t key_in_now[32];                     /* made of key_in and that */

    /* Once it has shown its chain: */
    bool member;
    uint64_t expires_s;
    uint64_t boot_stamp;
    struct net_window window;
    struct addr proven[PEER_ADDRS]; /* addresses that it answered from, the latest first */

    /* Our last HELLO to it, until it is acknowledged: */
    uint64_t hello_counter; /* 0: none is out */
    uint64_t hello_ms;
    bool hello_again; /* it was sent because the one before was not taken */
    struct addr hello_to;
    uint64_t resend_from; /* counter of the first datagram that it did not take; 0: none */
};

TAILQ_HEAD(net_peer_list, net_peer);

struct net_peers {
    struct map map;
    struct net_peer_list recent; /* the latest used first */
    struct id own_id;
    uint8_t own_secret[CRYPTO_DH_BYTES];
    uint8_t own_head[CRYPTO_XCHACHA_HEAD_BYTES];
    /* Just after a peer was last forgotten, by its id's bucket: a HELLO whose cookie is older may be a replay. */
    uint64_t *floor_ms;    /* owned; FLOOR_SLOTS of them, NULL as long as nobody was forgotten */
    uint64_t floor_all_ms; /* of all, when there was no memory for that */
};

/* own_head is the same for all nonces of this life. */
void net_peers_init(struct net_peers *peers, const struct id *own_id, const uint8_t own_secret[CRYPTO_DH_BYTES],
                    const uint8_t own_head[CRYPTO_XCHACHA_HEAD_BYTES], uint64_t seed);
void net_peers_release(struct net_peers *peers);

/* The peer, or NULL. */
struct net_peer *net_peers_find(const struct net_peers *peers, const struct id *id);
/* Derive keys for a peer that is not in the table yet; false if its key is no good. */
bool net_peers_derive(const struct net_peers *peers, const struct id *id,
                      const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES], struct net_peer *ret_peer);
/* Put a copy of a derived peer into the table. NULL when out of memory. */
struct net_peer *net_peers_add(struct net_peers *peers, const struct net_peer *derived, uint64_t now_ms);
void net_peers_touch(struct net_peers *peers, struct net_peer *peer);
void net_peers_remove(struct net_peers *peers, struct net_peer *peer, uint64_t now_ms);
/* Cookies issued before this time do not admit this id. */
uint64_t net_peers_floor(const struct net_peers *peers, const struct id *id);

/* Overwrite its keys; for OWNED. */
void net_peer_wipe(struct net_peer *peer);

bool net_peer_has_proven(const struct net_peer *peer, const struct addr *addr);
void net_peer_prove(struct net_peer *peer, const struct addr *addr);
