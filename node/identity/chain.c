#include "node/identity/chain.h"

#include <stdio.h>
#include <string.h>

#include "node/base/wire.h"

#define FIELDS_BYTES (LIMIT_CERT_BYTES - CRYPTO_SIGNATURE_BYTES)
#define SIGNED_BYTES (sizeof CHAIN_SIGNED_PREFIX + ID_BYTES + CRYPTO_SIGN_PUBLIC_BYTES + 1 + FIELDS_BYTES)

void identity_chain_init(struct chain *chain, const uint8_t root[CRYPTO_SIGN_PUBLIC_BYTES])
{
    memset(chain, 0, sizeof *chain);
    memcpy(chain->root, root, sizeof chain->root);
    crypto_id_of(root, sizeof chain->root, &chain->cluster);
}

static void store_fields(const struct certificate *certificate, uint8_t ret_fields[FIELDS_BYTES])
{
    memcpy(ret_fields, certificate->subject, sizeof certificate->subject);
    ret_fields[32] = certificate->rights;
    wire_store_u64(ret_fields + 33, certificate->not_before);
    wire_store_u64(ret_fields + 41, certificate->not_after);
    wire_store_u64(ret_fields + 49, certificate->serial);
}

static bool get_certificate(struct wire *wire, struct certificate *ret_certificate)
{
    struct certificate *certificate = ret_certificate;
    wire_get_copy(wire, certificate->subject, sizeof certificate->subject);
    certificate->rights = wire_get_u8(wire);
    certificate->not_before = wire_get_u64(wire);
    certificate->not_after = wire_get_u64(wire);
    certificate->serial = wire_get_u64(wire);
    wire_get_copy(wire, certificate->signature, sizeof certificate->signature);
    return !wire->failed && (certificate->rights & ~RIGHT_ALL) == 0 &&
           certificate->not_before < certificate->not_after && certificate->not_after <= CHAIN_LAST_TIME_S;
}

bool identity_chain_decode(const uint8_t *data, size_t len_bytes, unsigned min_count, struct chain *ret_chain)
{
    struct wire wire;
    wire_init(&wire, data, len_bytes);
    uint8_t version = wire_get_u8(&wire);
    unsigned count = wire_get_u8(&wire);
    const uint8_t *root = wire_get_bytes(&wire, CRYPTO_SIGN_PUBLIC_BYTES);
    if (!root || version != CHAIN_VERSION || count < min_count || count > LIMIT_CHAIN_CERTS)
        return false;
    struct chain chain;
    identity_chain_init(&chain, root);
    chain.count = count;
    for (unsigned i = 0; i < count; i++)
        if (!get_certificate(&wire, &chain.certs[i]))
            return false;
    if (!wire_done(&wire))
        return false;
    *ret_chain = chain;
    return true;
}

void identity_chain_encode(const struct chain *chain, struct buf *buf)
{
    wire_put_u8(buf, CHAIN_VERSION);
    wire_put_u8(buf, (uint8_t)chain->count);
    buf_add(buf, chain->root, sizeof chain->root);
    for (unsigned i = 0; i < chain->count; i++) {
        uint8_t fields[FIELDS_BYTES];
        store_fields(&chain->certs[i], fields);
        buf_add(buf, fields, sizeof fields);
        buf_add(buf, chain->certs[i].signature, CRYPTO_SIGNATURE_BYTES);
    }
}

const struct certificate *identity_chain_leaf(const struct chain *chain)
{
    return &chain->certs[chain->count - 1];
}

const uint8_t *identity_chain_issuer(const struct chain *chain, unsigned index)
{
    return index == 0 ? chain->root : chain->certs[index - 1].subject;
}

/* What the issuer of the certificate at `index` signs. */
static void store_signed(const struct chain *chain, unsigned index, uint8_t ret_text[SIGNED_BYTES])
{
    uint8_t *at = mempcpy(ret_text, CHAIN_SIGNED_PREFIX, sizeof CHAIN_SIGNED_PREFIX);
    at = mempcpy(at, chain->cluster.b, ID_BYTES);
    at = mempcpy(at, identity_chain_issuer(chain, index), CRYPTO_SIGN_PUBLIC_BYTES);
    *at++ = (uint8_t)(index + 1);
    store_fields(&chain->certs[index], at);
}

void identity_chain_append(struct chain *chain, const struct certificate *certificate,
                           const struct crypto_sign_key *issuer)
{
    unsigned index = chain->count++;
    chain->certs[index] = *certificate;
    uint8_t text[SIGNED_BYTES];
    store_signed(chain, index, text);
    crypto_signature_make(chain->certs[index].signature, text, sizeof text, issuer);
}

static bool complain(char why[IDENTITY_WHY_SIZE], unsigned index, const char *what)
{
    snprintf(why, IDENTITY_WHY_SIZE, "certificate %u of the chain %s", index + 1, what);
    return false;
}

static bool certificate_is_sound(const struct chain *chain, unsigned index, char why[IDENTITY_WHY_SIZE])
{
    const struct certificate *certificate = &chain->certs[index];
    if (index > 0) {
        const struct certificate *issuer = certificate - 1;
        if (!(issuer->rights & RIGHT_ADMIT))
            return complain(why, index, "comes from an issuer without the right to admit");
        if (certificate->rights & ~issuer->rights)
            return complain(why, index, "has rights that its issuer has not");
        if (certificate->not_before < issuer->not_before || certificate->not_after > issuer->not_after)
            return complain(why, index, "is valid outside the validity of its issuer");
    }
    uint8_t text[SIGNED_BYTES];
    store_signed(chain, index, text);
    if (!crypto_signature_check(certificate->signature, text, sizeof text, identity_chain_issuer(chain, index)))
        return complain(why, index, "is not signed by its issuer");
    return true;
}

bool identity_chain_is_sound(const struct chain *chain, char why[IDENTITY_WHY_SIZE])
{
    for (unsigned i = 0; i < chain->count; i++)
        if (!certificate_is_sound(chain, i, why))
            return false;
    return true;
}

bool identity_chain_is_valid(const struct chain *chain, const struct id *cluster, unsigned rights, uint64_t wall_s,
                             char why[IDENTITY_WHY_SIZE])
{
    if (!id_equal(&chain->cluster, cluster)) {
        snprintf(why, IDENTITY_WHY_SIZE, "the chain is of another cluster");
        return false;
    }
    for (unsigned i = 0; i < chain->count; i++) {
        if (wall_s + IDENTITY_GRACE_S < chain->certs[i].not_before)
            return complain(why, i, "is not yet valid");
        if (wall_s > chain->certs[i].not_after + IDENTITY_GRACE_S)
            return complain(why, i, "has expired");
    }
    if (rights & ~(unsigned)identity_chain_leaf(chain)->rights)
        return complain(why, chain->count - 1, "lacks a right that is needed here");
    return identity_chain_is_sound(chain, why);
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void identity_certificate_fill(struct certificate *certificate, const uint8_t subject[CRYPTO_SIGN_PUBLIC_BYTES],
                               unsigned rights, uint64_t wall_s, uint64_t issuer_start, uint64_t issuer_end)
{
    memset(certificate, 0, sizeof *certificate);
    memcpy(certificate->subject, subject, sizeof certificate->subject);
    certificate->rights = (uint8_t)rights;
    certificate->not_before = later(wall_s, issuer_start);
    certificate->not_after = earlier(wall_s + CHAIN_DEFAULT_TTL_S, issuer_end);
    crypto_random(&certificate->serial, sizeof certificate->serial);
}
