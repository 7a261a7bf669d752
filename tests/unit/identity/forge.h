/* Clusters for tests: identities in temporary directories, and chains of any shape, also of bad ones. */
#pragma once

#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/identity/state.h"

#define NOW 1700000000ull
#define YEAR (365ull * 86400)

static inline struct crypto_sign_key forge_key(uint8_t number)
{
    uint8_t seed[32] = {number, 1};
    struct crypto_sign_key key;
    crypto_sign_key_from_seed(seed, &key);
    return key;
}

static inline struct certificate forge_certificate(const struct crypto_sign_key *subject, unsigned rights)
{
    struct certificate certificate = {
        .rights = (uint8_t)rights, .not_before = NOW, .not_after = NOW + YEAR, .serial = 7};
    memcpy(certificate.subject, subject->public_key, sizeof certificate.subject);
    return certificate;
}

/* root (key 0) -> key 1 -> ... -> key `count`, all with the right to admit. */
static inline struct chain forge_chain(unsigned count)
{
    struct crypto_sign_key issuer = forge_key(0);
    struct chain chain;
    identity_chain_init(&chain, issuer.public_key);
    for (unsigned i = 1; i <= count; i++) {
        struct crypto_sign_key key = forge_key((uint8_t)i);
        struct certificate certificate = forge_certificate(&key, RIGHT_ADMIT);
        identity_chain_append(&chain, &certificate, &issuer);
        issuer = key;
    }
    return chain;
}

static inline struct buf forge_bytes(const struct chain *chain)
{
    struct buf buf = BUF(LIMIT_CHAIN_BYTES);
    identity_chain_encode(chain, &buf);
    assert_false(buf.failed);
    return buf;
}

/* A directory of its own for an identity; removed by forge_done. */
struct forge_node {
    char dir[32];
    struct identity *identity;
};

static inline struct forge_node forge_node(void)
{
    struct forge_node node = {.dir = "/tmp/cmig-identity-XXXXXX"};
    struct err err = {0};
    assert_non_null(mkdtemp(node.dir));
    if (identity_open(node.dir, &node.identity, &err) < 0)
        fail_msg("%s", err.text);
    return node;
}

static inline struct forge_node forge_founder(void)
{
    struct forge_node node = forge_node();
    struct err err = {0};
    assert_int_equal(identity_init(node.identity, NOW, &err), 0);
    return node;
}

static inline void forge_done(struct forge_node *node)
{
    identity_free(node->identity);
    file_remove_tree(node->dir, NULL);
}

static inline void forge_reopen(struct forge_node *node)
{
    struct err err = {0};
    identity_free(node->identity);
    node->identity = NULL;
    if (identity_open(node->dir, &node->identity, &err) < 0)
        fail_msg("%s", err.text);
}

static inline void forge_static(const struct identity *identity, uint8_t ret_static[CRYPTO_DH_BYTES])
{
    assert_true(crypto_dh_public_of_sign(identity_public_key(identity), ret_static));
}

/* What `judge` makes of the payload of `subject`. */
static inline int forge_verify(const struct identity *judge, const struct identity *subject, uint64_t wall_s,
                               struct identity_peer *ret_peer, char why[IDENTITY_WHY_SIZE], struct err *err)
{
    OWNED(buf_release) struct buf payload = BUF(LIMIT_CHAIN_BYTES);
    uint8_t remote_static[CRYPTO_DH_BYTES];
    forge_static(subject, remote_static);
    assert_int_equal(identity_payload(subject, &payload, err), 0);
    return identity_verify_peer(judge, remote_static, payload.data, payload.len, wall_s, ret_peer, why, err);
}

/* `guest` joins `host` with a fresh invitation of these rights. */
static inline int forge_join(struct forge_node *host, struct forge_node *guest, unsigned rights)
{
    struct err err = {0};
    struct invitation invitation = {.host = "h", .port = 1, .cluster = *identity_cluster(host->identity)};
    int status = invitation_create(host->identity, 1, 900, rights, NOW, invitation.secret, &err);
    if (status < 0)
        return status;
    assert_int_equal(identity_expect_cluster(guest->identity, &invitation.cluster, &err), 0);

    char why[IDENTITY_WHY_SIZE];
    struct identity_peer peer;
    assert_int_equal(forge_verify(guest->identity, host->identity, NOW, &peer, why, &err), 0);
    OWNED(buf_release) struct buf request = BUF(512);
    OWNED(buf_release) struct buf reply = BUF(4096);
    status = admission_request(guest->identity, &invitation, &peer, "guest", &request, &err);
    if (status < 0)
        return status;
    OWNED(owned_admission_guard) struct admission_guard *guard = NULL;
    assert_int_equal(admission_guard_new(&guard, &err), 0);
    uint8_t remote_static[CRYPTO_DH_BYTES];
    forge_static(guest->identity, remote_static);
    struct admission admission = {
        .peer.guest = true, .remote_static = remote_static, .source = {4, 1, {10, 0, 0, 1}}, .wall_s = NOW};
    struct admission_result result;
    status = admission_answer(host->identity, guard, &admission, request.data, request.len, &reply, &result, why, &err);
    const uint8_t *hints;
    size_t hints_len;
    int accepted = admission_accept(guest->identity, reply.data, reply.len, NOW, &hints, &hints_len, &err);
    return status < 0 ? status : accepted;
}
