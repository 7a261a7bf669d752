/* Requests to join and the replies to them, at a node whose directory is not there: whatever is asked, nobody gets in,
 * and the refusal is the same. */
#include <stdlib.h>
#include <string.h>

#include "node/identity/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void make_member(struct identity *identity)
{
    static const uint8_t seed[32] = {1};
    static char dir[] = "/nonexistent/cmig-fuzz";
    struct certificate certificate;
    memset(identity, 0, sizeof *identity);
    identity->dir = dir;
    crypto_sign_key_from_seed(seed, &identity->key);
    identity_certificate_fill(&certificate, identity->key.public_key, RIGHT_ALL, 1700000000, 0, CHAIN_LAST_TIME_S);
    identity_chain_init(&identity->chain, identity->key.public_key);
    identity_chain_append(&identity->chain, &certificate, &identity->key);
    identity->cluster = identity->chain.cluster;
    identity->member = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct identity identity;
    OWNED(owned_admission_guard) struct admission_guard *guard = NULL;
    if (crypto_init(NULL) < 0 || admission_guard_new(&guard, NULL) < 0)
        abort();
    make_member(&identity);
    uint8_t remote_static[CRYPTO_DH_BYTES] = {9};
    if (size >= 50) /* as if the session were the subject's own */
        crypto_dh_public_of_sign(data + 18, remote_static);
    struct admission admission = {
        .peer.guest = true, .remote_static = remote_static, .source = {4, 1, {10, 0, 0, 1}}, .wall_s = 1700000000};
    OWNED(buf_release) struct buf reply = BUF(4096);
    struct admission_result result;
    char why[IDENTITY_WHY_SIZE];
    struct err err;
    if (admission_answer(&identity, guard, &admission, data, size, &reply, &result, why, &err) == 0 || reply.len != 3)
        abort();
    const uint8_t *hints;
    size_t hints_len;
    if (admission_accept(&identity, data, size, 1700000000, &hints, &hints_len, &err) == 0)
        abort();
    return 0;
}
