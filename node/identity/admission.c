/*
 * The messages of admission, carried by a session. All begin with version u8 1 and type u8:
 *   JOIN_REQUEST  secret (16), subject public key (32), name (u16 length)
 *   RENEW_REQUEST nothing more: who asks is known from the session
 *   REPLY         status u8 0, chain (u16 length), hints (u16 length); or status u8 1 and nothing more
 * The subject's key must be the one that the session's handshake proved; the rights come from the invitation, the
 * validity from the inviter: there is nothing else that a newcomer could ask for.
 */
#include <stdio.h>
#include <string.h>

#include "node/base/wire.h"
#include "node/identity/state.h"

enum { JOIN_REQUEST = 1, RENEW_REQUEST = 2, REPLY = 3 };
enum { ADMITTED = 0, REFUSED = 1 };

#define ADMISSION_VERSION 1

/* ---- asking ---- */

int admission_request(const struct identity *identity, const struct invitation *invitation,
                      const struct identity_peer *peer, const char *name, struct buf *buf, struct err *err)
{
    if (!id_equal(&identity->cluster, &invitation->cluster) || peer->guest || !(peer->rights & RIGHT_ADMIT))
        return err_set(err, ERR_AUTH,
                       "the node at '%s' has not proven that it may admit to the cluster of the invitation; the secret "
                       "was not shown",
                       invitation->host);
    if (*name && !name_is_valid(name))
        return err_set(err, ERR_INVALID, "a node's name is 1 to %d of A-Z a-z 0-9 . _ -", NAME_MAX_BYTES);
    wire_put_u8(buf, ADMISSION_VERSION);
    wire_put_u8(buf, JOIN_REQUEST);
    buf_add(buf, invitation->secret, sizeof invitation->secret);
    buf_add(buf, identity->key.public_key, sizeof identity->key.public_key);
    wire_put_short(buf, name, strlen(name));
    return buf->failed ? err_set(err, ERR_NOMEM, "no room for a request to join") : 0;
}

int admission_renewal_request(const struct identity *identity, struct buf *buf, struct err *err)
{
    if (!identity->member)
        return err_set(err, ERR_CONFLICT, "only a member can renew its certificate");
    wire_put_u8(buf, ADMISSION_VERSION);
    wire_put_u8(buf, RENEW_REQUEST);
    return buf->failed ? err_set(err, ERR_NOMEM, "no room for a request to renew") : 0;
}

/* ---- answering ---- */

struct request {
    uint8_t type;
    const uint8_t *secret;  /* borrowed; of a join, as the next */
    const uint8_t *subject; /* borrowed */
    char name[NAME_MAX_BYTES + 1];
};

static bool decode_request(const uint8_t *bytes, size_t len_bytes, struct request *ret_request)
{
    struct wire wire;
    wire_init(&wire, bytes, len_bytes);
    uint8_t version = wire_get_u8(&wire);
    *ret_request = (struct request){.type = wire_get_u8(&wire)};
    if (version != ADMISSION_VERSION || (ret_request->type != JOIN_REQUEST && ret_request->type != RENEW_REQUEST))
        return false;
    if (ret_request->type == RENEW_REQUEST)
        return wire_done(&wire);
    ret_request->secret = wire_get_bytes(&wire, INVITATION_SECRET_BYTES);
    ret_request->subject = wire_get_bytes(&wire, CRYPTO_SIGN_PUBLIC_BYTES);
    size_t name_len;
    const uint8_t *name = wire_get_short(&wire, NAME_MAX_BYTES, &name_len);
    if (!wire_done(&wire))
        return false;
    memcpy(ret_request->name, name, name_len);
    return name_len == 0 || (strlen(ret_request->name) == name_len && name_is_valid(ret_request->name));
}

static int refuse(char why[IDENTITY_WHY_SIZE], struct err *err, const char *reason)
{
    snprintf(why, IDENTITY_WHY_SIZE, "%s", reason);
    return err_set(err, ERR_AUTH, "not admitted");
}

/* Whose key it is, and with which rights it may be certified. */
static int judge_join(struct identity *identity, const struct admission *admission, const struct request *request,
                      unsigned *ret_rights, char why[IDENTITY_WHY_SIZE], struct err *err)
{
    uint8_t expected[CRYPTO_DH_BYTES];
    struct id subject;
    if (!crypto_dh_public_of_sign(request->subject, expected) ||
        !crypto_equal(expected, admission->remote_static, sizeof expected))
        return refuse(why, err, "asks for a certificate for another key than its own");
    crypto_id_of(request->subject, CRYPTO_SIGN_PUBLIC_BYTES, &subject);
    if (identity_is_revoked(identity, &subject))
        return refuse(why, err, "its key is revoked");
    struct err detail = {0};
    if (invitation_redeem(identity, request->secret, admission->wall_s, ret_rights, &detail) < 0)
        return refuse(why, err,
                      detail.code == ERR_AUTH ? "the invitation is used up, too old or unknown" : detail.text);
    return 0;
}

static int judge_renewal(const struct identity *identity, const struct admission *admission, unsigned *ret_rights,
                         char why[IDENTITY_WHY_SIZE], struct err *err)
{
    const struct identity_peer *peer = &admission->peer;
    if (peer->guest)
        return refuse(why, err, "a guest asks for a renewal");
    if (admission->wall_s > peer->expires_s + IDENTITY_GRACE_S)
        return refuse(why, err, "its certificate has expired");
    if (identity_is_revoked(identity, &peer->id))
        return refuse(why, err, "its key is revoked");
    if (identity_expires(identity) <= peer->expires_s)
        return refuse(why, err, "asks for a renewal before this node's own certificate has been renewed");
    *ret_rights = peer->rights;
    return 0;
}

static int put_reply(const struct chain *chain, const struct admission *admission, struct buf *reply, struct err *err)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_CHAIN_BYTES);
    identity_chain_encode(chain, &bytes);
    reply->failed |= bytes.failed || admission->hints_len > LIMIT_ADMISSION_HINTS_BYTES;
    wire_put_u8(reply, ADMISSION_VERSION);
    wire_put_u8(reply, REPLY);
    wire_put_u8(reply, ADMITTED);
    wire_put_short(reply, bytes.data, bytes.len);
    wire_put_short(reply, admission->hints, admission->hints_len);
    return reply->failed ? err_set(err, ERR_NOMEM, "no room for the reply to a newcomer") : 0;
}

static int admit(struct identity *identity, const struct admission *admission, const struct request *request,
                 struct buf *reply, struct admission_result *ret_result, char why[IDENTITY_WHY_SIZE], struct err *err)
{
    unsigned rights;
    struct chain chain;
    struct err detail = {0};
    if (!(identity_rights(identity) & RIGHT_ADMIT) || identity->chain.count == LIMIT_CHAIN_CERTS)
        return refuse(why, err, "this node may not admit others"); /* before an invitation is used up for nothing */
    int status = request->type == JOIN_REQUEST ? judge_join(identity, admission, request, &rights, why, err)
                                               : judge_renewal(identity, admission, &rights, why, err);
    if (status < 0)
        return status;
    const uint8_t *subject = request->type == JOIN_REQUEST ? request->subject : admission->peer.public_key;
    if (identity_issue(identity, subject, rights, admission->wall_s, &chain, &detail) < 0)
        return refuse(why, err, detail.text);
    status = put_reply(&chain, admission, reply, err);
    if (status < 0)
        return status;
    memcpy(ret_result->public_key, subject, sizeof ret_result->public_key);
    crypto_id_of(subject, CRYPTO_SIGN_PUBLIC_BYTES, &ret_result->id);
    memcpy(ret_result->name, request->name, sizeof ret_result->name);
    return 0;
}

int admission_answer(struct identity *identity, struct admission_guard *guard, const struct admission *admission,
                     const uint8_t *bytes, size_t len_bytes, struct buf *reply, struct admission_result *ret_result,
                     char why[IDENTITY_WHY_SIZE], struct err *err)
{
    why[0] = '\0';
    size_t before = reply->len;
    struct request request;
    int status;
    if (!admission_guard_allows(guard, &admission->source, admission->now_ms)) {
        status = refuse(why, err, "its addresses failed too often and have to wait");
    } else if (!decode_request(bytes, len_bytes, &request)) {
        snprintf(why, IDENTITY_WHY_SIZE, "malformed request");
        status = err_set(err, ERR_PROTOCOL, "not admitted");
    } else {
        status = admit(identity, admission, &request, reply, ret_result, why, err);
    }
    if (status == 0)
        return 0;
    if (status == ERR_AUTH || status == ERR_PROTOCOL)
        admission_guard_failed(guard, &admission->source, admission->now_ms);
    reply->len = before;
    wire_put_u8(reply, ADMISSION_VERSION);
    wire_put_u8(reply, REPLY);
    wire_put_u8(reply, REFUSED);
    return status;
}

/* ---- the answer ---- */

int admission_accept(struct identity *identity, const uint8_t *bytes, size_t len_bytes, uint64_t wall_s,
                     const uint8_t **ret_hints, size_t *ret_hints_len, struct err *err)
{
    struct wire wire;
    wire_init(&wire, bytes, len_bytes);
    uint8_t version = wire_get_u8(&wire);
    uint8_t type = wire_get_u8(&wire);
    uint8_t status = wire_get_u8(&wire);
    if (version == ADMISSION_VERSION && type == REPLY && status == REFUSED && wire_done(&wire))
        return err_set(err, ERR_AUTH,
                       "the cluster did not admit this node: the invitation may be used up, too old or mistyped; ask "
                       "for a new one");
    size_t chain_len, hints_len;
    const uint8_t *chain = wire_get_short(&wire, LIMIT_CHAIN_BYTES, &chain_len);
    const uint8_t *hints = wire_get_short(&wire, LIMIT_ADMISSION_HINTS_BYTES, &hints_len);
    if (version != ADMISSION_VERSION || type != REPLY || status != ADMITTED || !wire_done(&wire))
        return err_set(err, ERR_PROTOCOL, "malformed reply to the request to join");
    int adopted = identity_adopt_chain(identity, chain, chain_len, wall_s, err);
    if (adopted < 0)
        return adopted;
    *ret_hints = hints;
    *ret_hints_len = hints_len;
    return 0;
}
