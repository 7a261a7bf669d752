#include "node/net/datagram_peers.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"

#define PAIR_LABEL "cmig datagram 2"

void net_peers_init(struct net_peers *peers, const struct id *own_id, const uint8_t own_secret[CRYPTO_DH_BYTES],
                    const uint8_t own_head[CRYPTO_XCHACHA_HEAD_BYTES], uint64_t seed)
{
    *peers = (struct net_peers){.own_id = *own_id};
    map_init(&peers->map, LIMIT_DATAGRAM_PEERS, seed);
    TAILQ_INIT(&peers->recent);
    memcpy(peers->own_secret, own_secret, sizeof peers->own_secret);
    memcpy(peers->own_head, own_head, sizeof peers->own_head);
}

void net_peer_wipe(struct net_peer *peer)
{
    crypto_wipe(peer, sizeof *peer);
}

static void free_peer(struct net_peer *peer)
{
    net_peer_wipe(peer);
    free(peer);
}

void net_peers_release(struct net_peers *peers)
{
    for (struct net_peer *peer; (peer = TAILQ_FIRST(&peers->recent));) {
        TAILQ_REMOVE(&peers->recent, peer, entry);
        free_peer(peer);
    }
    map_release(&peers->map);
    free(peers->floor_ms);
    crypto_wipe(peers->own_secret, sizeof peers->own_secret);
}

struct net_peer *net_peers_find(const struct net_peers *peers, const struct id *id)
{
    return map_get(&peers->map, id);
}

/* One key for each direction. Nonces have a part that is drawn at each start, so the key may stay the same over
 * restarts. */
static void direction_key(const uint8_t shared[CRYPTO_DH_BYTES], const struct id *from, const struct id *to,
                          uint8_t ret_key[32])
{
    uint8_t text[sizeof PAIR_LABEL + ID_BYTES];
    memcpy(text, PAIR_LABEL, sizeof PAIR_LABEL);
    memcpy(text + sizeof PAIR_LABEL, from->b, ID_BYTES);
    crypto_blake2b(ret_key, 32, shared, CRYPTO_DH_BYTES, text, sizeof text, to->b, ID_BYTES);
}

bool net_peers_derive(const struct net_peers *peers, const struct id *id,
                      const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES], struct net_peer *ret_peer)
{
    struct id expected;
    uint8_t dh_public[CRYPTO_DH_BYTES];
    uint8_t shared[CRYPTO_DH_BYTES];
    crypto_id_of(public_key, CRYPTO_SIGN_PUBLIC_BYTES, &expected);
    if (!id_equal(&expected, id) || id_equal(id, &peers->own_id))
        return false;
    if (!crypto_dh_public_of_sign(public_key, dh_public) || !crypto_dh(peers->own_secret, dh_public, shared))
        return false;
    *ret_peer = (struct net_peer){.id = *id};
    memcpy(ret_peer->public_key, public_key, CRYPTO_SIGN_PUBLIC_BYTES);
    direction_key(shared, &peers->own_id, id, ret_peer->key_out);
    crypto_xchacha_key(ret_peer->key_out, peers->own_head, ret_peer->key_out);
    direction_key(shared, id, &peers->own_id, ret_peer->key_in);
    crypto_xchacha_key(ret_peer->key_in, ret_peer->head_in, ret_peer->key_in_now);
    crypto_wipe(shared, sizeof shared);
    return true;
}

struct net_peer *net_peers_add(struct net_peers *peers, const struct net_peer *derived, uint64_t now_ms)
{
    if (peers->map.count == LIMIT_DATAGRAM_PEERS)
        net_peers_remove(peers, TAILQ_LAST(&peers->recent, net_peer_list), now_ms);
    struct net_peer *peer = malloc(sizeof *peer);
    if (!peer)
        return NULL;
    *peer = *derived;
    if (map_set(&peers->map, &peer->id, peer) < 0) {
        free_peer(peer);
        return NULL;
    }
    TAILQ_INSERT_HEAD(&peers->recent, peer, entry);
    return peer;
}

void net_peers_touch(struct net_peers *peers, struct net_peer *peer)
{
    TAILQ_REMOVE(&peers->recent, peer, entry);
    TAILQ_INSERT_HEAD(&peers->recent, peer, entry);
}

static size_t floor_slot(const struct id *id)
{
    return wire_load_u16(id->b) % FLOOR_SLOTS;
}

void net_peers_remove(struct net_peers *peers, struct net_peer *peer, uint64_t now_ms)
{
    if (!peers->floor_ms)
        peers->floor_ms = calloc(FLOOR_SLOTS, sizeof *peers->floor_ms);
    if (peers->floor_ms)
        peers->floor_ms[floor_slot(&peer->id)] = now_ms + 1;
    else
        peers->floor_all_ms = now_ms + 1;
    map_remove(&peers->map, &peer->id);
    TAILQ_REMOVE(&peers->recent, peer, entry);
    free_peer(peer);
}

uint64_t net_peers_floor(const struct net_peers *peers, const struct id *id)
{
    uint64_t floor_ms = peers->floor_ms ? peers->floor_ms[floor_slot(id)] : 0;
    return floor_ms > peers->floor_all_ms ? floor_ms : peers->floor_all_ms;
}

bool net_peer_has_proven(const struct net_peer *peer, const struct addr *addr)
{
    for (size_t i = 0; i < PEER_ADDRS; i++)
        if (addr_equal(&peer->proven[i], addr))
            return true;
    return false;
}

void net_peer_prove(struct net_peer *peer, const struct addr *addr)
{
    if (net_peer_has_proven(peer, addr))
        return;
    peer->proven[1] = peer->proven[0];
    peer->proven[0] = *addr;
}
