/*
 * Who this node is, who belongs to its cluster, and how a newcomer gets in. Bytes and the time go in, bytes and answers
 * come out: no socket, no loop. Files live in the node's state directory. One thread; several processes may share the
 * directory (`cmig-node invite` beside a running daemon), their changes exclude each other by a lock.
 *
 * 1. A node's id is BLAKE2b-256 of its public key, a cluster's id that of its root public key: neither can be chosen.
 * 2. A node is a member while it holds a chain of certificates from the root key to its own. Rights never grow along a
 *    chain, validity never leaves the issuer's, each issuer has the right to admit.
 * 3. Why something was not accepted is told to the own log (`why`), never to the other side: there it is one text.
 * 4. What admits somebody is durable before it is answered.
 * 5. A damaged file is an error, never an empty one: a list of revocations that cannot be read admits nobody.
 *
 * Files of DIR: node.key, root.key (0600), cluster, chain, revocations, invitations, issued, identity.lock.
 * Formats: docs/formats/identity.md. "wall_s" is seconds since 1970 UTC throughout.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/addr.h"
#include "node/base/buf.h"
#include "node/base/crypto.h"
#include "node/base/err.h"
#include "node/base/id.h"
#include "node/base/limits.h"
#include "node/base/scope.h"

/* What a certificate lets its subject do, besides being a member. */
#define RIGHT_ADMIT 0x01u /* let others in */
#define RIGHT_PROXY 0x02u /* speak for another cluster */
#define RIGHT_ALL (RIGHT_ADMIT | RIGHT_PROXY)

/* How far the clocks of members may be apart before a certificate's times refuse it. */
#define IDENTITY_GRACE_S 300

/* Room for the reason that goes to the log and nowhere else. */
#define IDENTITY_WHY_SIZE 160

struct identity;

/* ---- lifecycle ---- */

/* Load DIR, making it (0700) and the node key if there are none yet. The node need not be a member. ERR_DENIED for a
 * key that others may read or that belongs to somebody else, ERR_CORRUPT for a malformed file. */
int identity_open(const char *dir, struct identity **ret_identity, struct err *err);
void identity_free(struct identity *identity);
OWNED_DEFINE(owned_identity, struct identity, identity_free)

/* Make a new cluster with this node as its first member, holder of its root key. ERR_EXISTS for a member. */
int identity_init(struct identity *identity, uint64_t wall_s, struct err *err);

/* ---- what this node is ---- */

bool identity_is_member(const struct identity *identity);
/* 32 bytes, Ed25519; lives as long as the identity. */
const uint8_t *identity_public_key(const struct identity *identity);
const struct id *identity_id(const struct identity *identity);
/* The cluster of the chain, or the one that was expected last; all zeros if neither. */
const struct id *identity_cluster(const struct identity *identity);
/* RIGHT_ bits of the own certificate; 0 for a guest. */
unsigned identity_rights(const struct identity *identity);
/* When the own chain ends, wall_s; 0 for a guest. */
uint64_t identity_expires(const struct identity *identity);
/* Is the root key of the own cluster in DIR? */
bool identity_has_root(const struct identity *identity);

/* The X25519 form of the node key: the static key of sessions and datagrams. Wipe ret_secret after use. */
void identity_dh_secret(const struct identity *identity, uint8_t ret_secret[CRYPTO_DH_BYTES]);
/* The node key itself, for the DHT, which signs its records with it; lives as long as the identity. */
const struct crypto_sign_key *identity_key(const struct identity *identity);
void identity_sign(const struct identity *identity, const void *data, size_t len_bytes,
                   uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES]);

/* ---- the other side of a session ---- */

struct identity_peer {
    uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES]; /* zeros for a guest */
    struct id id;                                 /* zeros for a guest */
    unsigned rights;
    uint64_t expires_s; /* when its chain ends */
    bool guest;         /* showed no chain: may ask to be admitted and nothing else */
};

/* Append what goes into the encrypted payload of a handshake: the own chain, or nothing for a guest. */
int identity_payload(const struct identity *identity, struct buf *buf, struct err *err);

/* Judge the payload of a peer whose static key the handshake proved to be remote_static. An empty payload is a guest.
 * ERR_AUTH with the one text that may be shown outside; `why` then tells the log. */
int identity_verify_peer(const struct identity *identity, const uint8_t remote_static[CRYPTO_DH_BYTES],
                         const uint8_t *payload, size_t len_bytes, uint64_t wall_s, struct identity_peer *ret_peer,
                         char why[IDENTITY_WHY_SIZE], struct err *err);

/* The public key that a payload claims to prove, from its form alone: for datagrams, which have no handshake before
 * they see it. False for a guest's and for malformed ones. */
bool identity_payload_key(const uint8_t *payload, size_t len_bytes, uint8_t ret_public_key[CRYPTO_SIGN_PUBLIC_BYTES]);

/* ---- invitations ---- */

#define INVITATION_SECRET_BYTES 16
#define INVITATION_HOST_SIZE 254 /* 253 characters, RFC 1035 */
#define INVITATION_TEXT_SIZE (7 + INVITATION_HOST_SIZE + 2 + 6 + 1 + 64 + 1 + 32 + 1)

struct invitation {
    char host[INVITATION_HOST_SIZE]; /* a name, IPv4, or IPv6 without brackets */
    uint16_t port;
    struct id cluster;
    uint8_t secret[INVITATION_SECRET_BYTES];
};

/* "cmig://HOST:PORT/CLUSTER/SECRET"; returns `text`. */
const char *invitation_text(const struct invitation *invitation, char text[INVITATION_TEXT_SIZE]);
/* Exactly what invitation_text writes; ERR_INVALID names the part that is wrong, never the secret. */
int invitation_parse(const char *text, struct invitation *ret_invitation, struct err *err);
/* `peer` is an invitation, or HOST[:PORT] with `token` (may be NULL) the text of a token file or of $CMIG_TOKEN: a
 * whole invitation or CLUSTER/SECRET, white space around it ignored. A secret alone is refused: the newcomer could not
 * know to whom it shows it. */
int invitation_find(const char *peer, const char *token, struct invitation *ret_invitation, struct err *err);

/* HOST[:PORT], [IPV6][:PORT]; a port of default_port where none is given. */
int invitation_parse_peer(const char *text, uint16_t default_port, char ret_host[INVITATION_HOST_SIZE],
                          uint16_t *ret_port, struct err *err);

/* Note an invitation in the book: `uses` 1 to 10,000, rights at most the own. Durable when it returns. ERR_DENIED
 * without the right to admit, ERR_LIMIT when LIMIT_INVITATIONS are open. */
int invitation_create(struct identity *identity, unsigned uses, uint64_t ttl_s, unsigned rights, uint64_t wall_s,
                      uint8_t ret_secret[INVITATION_SECRET_BYTES], struct err *err);
/* Take one use, durably. ERR_AUTH, the same for a secret that is used up, late, wrong or unknown, after the same work.
 */
int invitation_redeem(struct identity *identity, const uint8_t secret[INVITATION_SECRET_BYTES], uint64_t wall_s,
                      unsigned *ret_rights, struct err *err);

/* ---- admission: the messages that a guest session carries ---- */

/* Counts refusals by source, so that nobody guesses secrets quickly: after a few, the address block must wait,
 * twice as long after each further one. Bounded; the sources forgotten first are those that may try again anyway. */
struct admission_guard;
int admission_guard_new(struct admission_guard **ret_guard, struct err *err);
void admission_guard_free(struct admission_guard *guard);
OWNED_DEFINE(owned_admission_guard, struct admission_guard, admission_guard_free)
/* May `source` try now? */
bool admission_guard_allows(const struct admission_guard *guard, const struct addr *source, uint64_t now_ms);
void admission_guard_failed(struct admission_guard *guard, const struct addr *source, uint64_t now_ms);

/* Newcomer, before the session: accept no peer but members of this cluster. ERR_CONFLICT for members of another. */
int identity_expect_cluster(struct identity *identity, const struct id *cluster, struct err *err);

/* Newcomer: the request that shows the secret. ERR_AUTH, and nothing is shown, unless `peer` was verified as a member
 * of the invitation's cluster with the right to admit. `name` may be "". */
int admission_request(const struct identity *identity, const struct invitation *invitation,
                      const struct identity_peer *peer, const char *name, struct buf *buf, struct err *err);
/* Member: ask another member with the right to admit for a fresh certificate, before the own one ends. */
int admission_renewal_request(const struct identity *identity, struct buf *buf, struct err *err);

struct admission {
    struct identity_peer peer;    /* as identity_verify_peer told */
    const uint8_t *remote_static; /* borrowed: proven by the handshake */
    struct addr source;
    uint64_t wall_s;
    uint64_t now_ms;      /* monotonic, for the guard */
    const uint8_t *hints; /* borrowed: members to get to know, opaque here */
    size_t hints_len;     /* at most LIMIT_ADMISSION_HINTS_BYTES */
};

struct admission_result {
    uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES];
    struct id id;
    char name[NAME_MAX_BYTES + 1]; /* checked, "" if none was told */
};

/* Inviter: append the reply to `request`. 0 when somebody was admitted (or renewed), who stands in *ret_result; else
 * ERR_AUTH, or ERR_PROTOCOL for bytes that are no request, with `why` for the log; the reply is a refusal then, the
 * same for every reason. */
int admission_answer(struct identity *identity, struct admission_guard *guard, const struct admission *admission,
                     const uint8_t *request, size_t len_bytes, struct buf *reply, struct admission_result *ret_result,
                     char why[IDENTITY_WHY_SIZE], struct err *err);

/* Newcomer or renewed member: judge the reply and keep the chain in DIR. *ret_hints points into `reply`. ERR_AUTH if
 * refused or if the chain is not good for this node. */
int admission_accept(struct identity *identity, const uint8_t *reply, size_t len_bytes, uint64_t wall_s,
                     const uint8_t **ret_hints, size_t *ret_hints_len, struct err *err);

/* Check a chain for the own key and cluster and keep it, durably; what admission_accept does. */
int identity_adopt_chain(struct identity *identity, const uint8_t *chain, size_t len_bytes, uint64_t wall_s,
                         struct err *err);
/* Less than a third of the own certificate's time is left. */
bool identity_should_renew(const struct identity *identity, uint64_t wall_s);
/* Renew with the root key in DIR; ERR_UNSUPPORTED without one. */
int identity_renew_from_root(struct identity *identity, uint64_t wall_s, struct err *err);

/* ---- revocation: by key, so that no other encoding and no other chain of the same key slips through ---- */

/* Revoke a node. The holder of the root key needs its id only; another member must stand above it in a chain:
 * `chain` (may be NULL) is the revoked node's, as it showed it; without one it is looked up among the nodes that this
 * one admitted. Appends the record that the other members need to `record`, after keeping it. ERR_NOTFOUND if no
 * chain is known, ERR_DENIED if this node is not above. */
int identity_revoke(struct identity *identity, const struct id *node, const uint8_t *chain, size_t chain_len,
                    uint64_t wall_s, struct buf *record, struct err *err);
/* Judge and keep a record from elsewhere. 1 if it was new, 0 if known; ERR_AUTH, ERR_PROTOCOL, ERR_LIMIT. *ret_node:
 * whose sessions and datagrams are to be cut. */
int identity_add_revocation(struct identity *identity, const uint8_t *record, size_t len_bytes, struct id *ret_node,
                            struct err *err);
bool identity_is_revoked(const struct identity *identity, const struct id *node);
size_t identity_revocation_count(const struct identity *identity);
/* The record at `index` < count, borrowed until the next change, for telling others. */
const uint8_t *identity_revocation_at(const struct identity *identity, size_t index, size_t *ret_len);
