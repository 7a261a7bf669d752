/* Judging the other side of a session or a datagram. */
#include <stdio.h>
#include <string.h>

#include "node/identity/state.h"

int identity_payload(const struct identity *identity, struct buf *buf, struct err *err)
{
    if (!identity->member)
        return 0;
    identity_chain_encode(&identity->chain, buf);
    if (buf->failed)
        return err_set(err, ERR_LIMIT, "no room for the certificate chain");
    return 0;
}

bool identity_payload_key(const uint8_t *payload, size_t len_bytes, uint8_t ret_public_key[CRYPTO_SIGN_PUBLIC_BYTES])
{
    struct chain chain;
    if (!identity_chain_decode(payload, len_bytes, 1, &chain))
        return false;
    memcpy(ret_public_key, identity_chain_leaf(&chain)->subject, CRYPTO_SIGN_PUBLIC_BYTES);
    return true;
}

int identity_chain_judge(const struct identity *identity, const struct chain *chain, unsigned rights, uint64_t wall_s,
                         char why[IDENTITY_WHY_SIZE], struct err *err)
{
    if (identity_chain_is_revoked(identity, chain, why) ||
        !identity_chain_is_valid(chain, &identity->cluster, rights, wall_s, why))
        return err_set(err, ERR_AUTH, CHAIN_REFUSED);
    return 0;
}

/* The cheap checks come first: a stranger pays for each signature that it makes us check with a good match. */
static bool is_key_of(const struct certificate *leaf, const uint8_t remote_static[CRYPTO_DH_BYTES])
{
    uint8_t expected[CRYPTO_DH_BYTES];
    return crypto_dh_public_of_sign(leaf->subject, expected) && crypto_equal(expected, remote_static, sizeof expected);
}

int identity_verify_peer(const struct identity *identity, const uint8_t remote_static[CRYPTO_DH_BYTES],
                         const uint8_t *payload, size_t len_bytes, uint64_t wall_s, struct identity_peer *ret_peer,
                         char why[IDENTITY_WHY_SIZE], struct err *err)
{
    why[0] = '\0';
    if (len_bytes == 0) {
        *ret_peer = (struct identity_peer){.guest = true};
        return 0;
    }
    struct chain chain;
    if (!identity_chain_decode(payload, len_bytes, 1, &chain)) {
        snprintf(why, IDENTITY_WHY_SIZE, "the chain is malformed");
        return err_set(err, ERR_AUTH, CHAIN_REFUSED);
    }
    const struct certificate *leaf = identity_chain_leaf(&chain);
    if (!is_key_of(leaf, remote_static)) {
        snprintf(why, IDENTITY_WHY_SIZE, "the chain is for another key than the session's");
        return err_set(err, ERR_AUTH, CHAIN_REFUSED);
    }
    int status = identity_chain_judge(identity, &chain, 0, wall_s, why, err);
    if (status < 0)
        return status;
    struct identity_peer peer = {.rights = leaf->rights, .expires_s = leaf->not_after};
    memcpy(peer.public_key, leaf->subject, sizeof peer.public_key);
    crypto_id_of(peer.public_key, sizeof peer.public_key, &peer.id);
    *ret_peer = peer;
    return 0;
}
