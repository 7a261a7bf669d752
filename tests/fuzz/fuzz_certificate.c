/* Chains and revocation records from peers: whatever decodes has one encoding, and is judged without harm. */
#include <stdlib.h>
#include <string.h>

#include "node/identity/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (crypto_init(NULL) < 0)
        abort();
    struct chain chain;
    char why[IDENTITY_WHY_SIZE];
    if (identity_chain_decode(data, size, 0, &chain)) {
        OWNED(buf_release) struct buf again = BUF(LIMIT_CHAIN_BYTES);
        identity_chain_encode(&chain, &again);
        if (again.len != size || memcmp(again.data, data, size) != 0)
            abort();
        if (chain.count > 0)
            identity_chain_is_valid(&chain, &chain.cluster, 0, chain.certs[0].not_before, why);
    }
    struct identity identity = {0}; /* of no cluster: nothing is accepted, so nothing is written */
    struct identity_peer peer;
    struct id node;
    uint8_t remote_static[CRYPTO_DH_BYTES] = {9};
    if (size > 0 && identity_verify_peer(&identity, remote_static, data, size, 1700000000, &peer, why, NULL) == 0)
        abort();
    if (identity_add_revocation(&identity, data, size, &node, NULL) >= 0)
        abort();
    return 0;
}
