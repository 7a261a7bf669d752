/*
 * Revocations. A record says that a node's key is void, and carries what proves that its signer stands above that key:
 *   version u8 1, time u64, signer u8, node id (32), chain (u16 length), signature (64)
 * Signer 0 is the root key, which stands above all: the chain is the bare root. Signer i > 0 is the subject of
 * certificate i of the revoked node's chain, and not its last. Signed: REVOCATION_SIGNED_PREFIX with its NUL, cluster
 * (32), node id (32), time u64, signer's public key (32).
 * A record counts for ever, also after the chain in it has expired and when its signer is revoked later: members that
 * hear of records in different orders must come to the same list.
 */
#include <stdio.h>
#include <string.h>

#include "node/base/wire.h"
#include "node/identity/state.h"

#define REVOCATION_VERSION 1
#define REVOCATION_SIGNED_PREFIX "cmig revocation 1"
#define RECORD_MAX_BYTES (1 + 8 + 1 + ID_BYTES + 2 + LIMIT_CHAIN_BYTES + CRYPTO_SIGNATURE_BYTES)
#define FILE_MAX_BYTES (1 + LIMIT_REVOCATIONS * (2 + RECORD_MAX_BYTES))
#define SIGNED_BYTES (sizeof REVOCATION_SIGNED_PREFIX + ID_BYTES + ID_BYTES + 8 + CRYPTO_SIGN_PUBLIC_BYTES)

struct claim {
    uint64_t time_s;
    unsigned signer;
    struct id node;
    struct chain chain;
    const uint8_t *signature; /* borrowed from the record */
};

static void store_signed(const struct claim *claim, uint8_t ret_text[SIGNED_BYTES])
{
    uint8_t *at = mempcpy(ret_text, REVOCATION_SIGNED_PREFIX, sizeof REVOCATION_SIGNED_PREFIX);
    at = mempcpy(at, claim->chain.cluster.b, ID_BYTES);
    at = mempcpy(at, claim->node.b, ID_BYTES);
    wire_store_u64(at, claim->time_s);
    memcpy(at + 8, identity_chain_issuer(&claim->chain, claim->signer), CRYPTO_SIGN_PUBLIC_BYTES);
}

static bool decode(const uint8_t *record, size_t len_bytes, struct claim *ret_claim)
{
    struct wire wire;
    wire_init(&wire, record, len_bytes);
    uint8_t version = wire_get_u8(&wire);
    ret_claim->time_s = wire_get_u64(&wire);
    ret_claim->signer = wire_get_u8(&wire);
    ret_claim->node = wire_get_id(&wire);
    size_t chain_len;
    const uint8_t *chain = wire_get_short(&wire, LIMIT_CHAIN_BYTES, &chain_len);
    ret_claim->signature = wire_get_bytes(&wire, CRYPTO_SIGNATURE_BYTES);
    return wire_done(&wire) && version == REVOCATION_VERSION && ret_claim->time_s <= CHAIN_LAST_TIME_S &&
           identity_chain_decode(chain, chain_len, 0, &ret_claim->chain);
}

/* Does the signer stand above the node? The root needs no chain to prove it, and carries none: one encoding. */
static bool signer_is_above(const struct claim *claim)
{
    const struct chain *chain = &claim->chain;
    if (claim->signer == 0 || chain->count == 0)
        return claim->signer == 0 && chain->count == 0;
    struct id subject;
    crypto_id_of(identity_chain_leaf(chain)->subject, CRYPTO_SIGN_PUBLIC_BYTES, &subject);
    char why[IDENTITY_WHY_SIZE];
    return claim->signer < chain->count && id_equal(&subject, &claim->node) && identity_chain_is_sound(chain, why);
}

static int judge(const struct identity *identity, const uint8_t *record, size_t len_bytes, struct claim *ret_claim,
                 struct err *err)
{
    if (!decode(record, len_bytes, ret_claim))
        return err_set(err, ERR_PROTOCOL, "malformed revocation");
    uint8_t text[SIGNED_BYTES];
    bool good = id_equal(&ret_claim->chain.cluster, &identity->cluster) && signer_is_above(ret_claim);
    if (good) {
        store_signed(ret_claim, text);
        good = crypto_signature_check(ret_claim->signature, text, sizeof text,
                                      identity_chain_issuer(&ret_claim->chain, ret_claim->signer));
    }
    return good ? 0 : err_set(err, ERR_AUTH, "revocation not accepted");
}

static const struct revocation *find(const struct identity *identity, const struct id *node)
{
    for (size_t i = 0; i < identity->revocation_count; i++)
        if (id_equal(&identity->revocations[i].node, node))
            return &identity->revocations[i];
    return NULL;
}

/* When the list is full, the record whose signer stands lowest gives way to one from higher up, so that nobody can
 * fill the list with nodes of his own making and thereby save them or himself from those above. */
static struct revocation *slot_for(struct identity *identity, unsigned signer)
{
    if (identity->revocation_count < LIMIT_REVOCATIONS)
        return &identity->revocations[identity->revocation_count++];
    struct revocation *lowest = &identity->revocations[0];
    for (size_t i = 1; i < identity->revocation_count; i++)
        if (identity->revocations[i].signer > lowest->signer)
            lowest = &identity->revocations[i];
    if (lowest->signer <= signer)
        return NULL;
    free(lowest->record);
    return lowest;
}

static int keep(struct identity *identity, const struct claim *claim, const uint8_t *record, size_t len_bytes,
                struct err *err)
{
    if (!identity->revocations)
        identity->revocations = calloc(LIMIT_REVOCATIONS, sizeof *identity->revocations);
    OWNED(owned_free) uint8_t *copy = malloc(len_bytes);
    if (!identity->revocations || !copy)
        return err_set(err, ERR_NOMEM, "no memory for a revocation");
    struct revocation *slot = slot_for(identity, claim->signer);
    if (!slot)
        return err_set(err, ERR_LIMIT, "the list of revocations is full (%d)", LIMIT_REVOCATIONS);
    memcpy(copy, record, len_bytes);
    *slot = (struct revocation){.node = claim->node, .signer = claim->signer, .record = STEAL(copy), .len = len_bytes};
    return 0;
}

static int save(const struct identity *identity, struct err *err)
{
    OWNED(buf_release) struct buf bytes = BUF(FILE_MAX_BYTES);
    wire_put_u8(&bytes, REVOCATION_VERSION);
    for (size_t i = 0; i < identity->revocation_count; i++)
        wire_put_short(&bytes, identity->revocations[i].record, identity->revocations[i].len);
    if (bytes.failed)
        return err_set(err, ERR_NOMEM, "no memory for the revocations");
    return identity_state_write(identity, "revocations", bytes.data, bytes.len, err);
}

int identity_revocations_load(struct identity *identity, struct err *err)
{
    OWNED(buf_release) struct buf bytes = BUF(FILE_MAX_BYTES);
    int status = identity_state_read(identity, "revocations", &bytes, err);
    if (status <= 0)
        return status;
    struct wire wire;
    wire_init(&wire, bytes.data, bytes.len);
    bool good = wire_get_u8(&wire) == REVOCATION_VERSION;
    while (good && wire_left(&wire) > 0) {
        size_t len;
        const uint8_t *record = wire_get_short(&wire, RECORD_MAX_BYTES, &len);
        struct claim claim;
        good =
            record && judge(identity, record, len, &claim, NULL) == 0 && keep(identity, &claim, record, len, err) == 0;
    }
    if (!good || !wire_done(&wire))
        return err_set(err, ERR_CORRUPT,
                       "'%s/revocations' is damaged; copy it from another member, nobody is let in without it",
                       identity->dir);
    return 0;
}

void identity_revocations_free(struct identity *identity)
{
    for (size_t i = 0; i < identity->revocation_count; i++)
        free(identity->revocations[i].record);
    free(identity->revocations);
}

int identity_add_revocation(struct identity *identity, const uint8_t *record, size_t len_bytes, struct id *ret_node,
                            struct err *err)
{
    struct claim claim;
    int status = judge(identity, record, len_bytes, &claim, err);
    if (status < 0)
        return status;
    *ret_node = claim.node;
    if (find(identity, &claim.node))
        return 0;
    status = keep(identity, &claim, record, len_bytes, err);
    if (status == 0)
        status = save(identity, err);
    return status < 0 ? status : 1;
}

/* Place of the own key above the last certificate of `chain`: 1 to count - 1, or 0. */
static unsigned place_above(const struct identity *identity, const struct chain *chain)
{
    for (unsigned i = 0; i + 1 < chain->count; i++)
        if (memcmp(chain->certs[i].subject, identity->key.public_key, CRYPTO_SIGN_PUBLIC_BYTES) == 0)
            return i + 1;
    return 0;
}

static int fill_claim(const struct identity *identity, const struct id *node, const uint8_t *chain, size_t chain_len,
                      struct claim *claim, struct err *err)
{
    claim->node = *node;
    if (identity_has_root(identity)) {
        identity_chain_init(&claim->chain, identity->root.public_key);
        return 0;
    }
    int status = 0;
    if (!chain)
        status = identity_issued_find(identity, node, &claim->chain, err);
    else if (!identity_chain_decode(chain, chain_len, 1, &claim->chain))
        status = err_set(err, ERR_INVALID, "malformed certificate chain");
    if (status < 0)
        return status;
    claim->signer = place_above(identity, &claim->chain);
    char text[ID_SHORT_SIZE];
    if (claim->signer == 0)
        return err_set(err, ERR_DENIED, "this node did not admit node '%s', nor who did: only they can revoke it",
                       id_short(node, text));
    return 0;
}

static void encode(const struct claim *claim, const struct crypto_sign_key *key, struct buf *buf)
{
    uint8_t text[SIGNED_BYTES];
    uint8_t signature[CRYPTO_SIGNATURE_BYTES];
    store_signed(claim, text);
    crypto_signature_make(signature, text, sizeof text, key);
    OWNED(buf_release) struct buf chain = BUF(LIMIT_CHAIN_BYTES);
    identity_chain_encode(&claim->chain, &chain);
    buf->failed |= chain.failed;
    wire_put_u8(buf, REVOCATION_VERSION);
    wire_put_u64(buf, claim->time_s);
    wire_put_u8(buf, (uint8_t)claim->signer);
    wire_put_id(buf, &claim->node);
    wire_put_short(buf, chain.data, chain.len);
    buf_add(buf, signature, sizeof signature);
}

int identity_revoke(struct identity *identity, const struct id *node, const uint8_t *chain, size_t chain_len,
                    uint64_t wall_s, struct buf *record, struct err *err)
{
    struct claim claim = {.time_s = wall_s};
    int status = fill_claim(identity, node, chain, chain_len, &claim, err);
    if (status < 0)
        return status;
    OWNED(buf_release) struct buf bytes = BUF(RECORD_MAX_BYTES);
    encode(&claim, claim.signer == 0 ? &identity->root : &identity->key, &bytes);
    if (bytes.failed || buf_add(record, bytes.data, bytes.len) < 0)
        return err_set(err, ERR_NOMEM, "no memory for a revocation");
    struct id revoked;
    status = identity_add_revocation(identity, bytes.data, bytes.len, &revoked, err);
    return status < 0 ? status : 0;
}

bool identity_is_revoked(const struct identity *identity, const struct id *node)
{
    return find(identity, node) != NULL;
}

bool identity_chain_is_revoked(const struct identity *identity, const struct chain *chain, char why[IDENTITY_WHY_SIZE])
{
    for (unsigned i = 0; i < chain->count; i++) {
        struct id subject;
        char text[ID_SHORT_SIZE];
        crypto_id_of(chain->certs[i].subject, CRYPTO_SIGN_PUBLIC_BYTES, &subject);
        if (find(identity, &subject)) {
            snprintf(why, IDENTITY_WHY_SIZE, "node %s of the chain is revoked", id_short(&subject, text));
            return true;
        }
    }
    return false;
}

size_t identity_revocation_count(const struct identity *identity)
{
    return identity->revocation_count;
}

const uint8_t *identity_revocation_at(const struct identity *identity, size_t index, size_t *ret_len)
{
    *ret_len = identity->revocations[index].len;
    return identity->revocations[index].record;
}
