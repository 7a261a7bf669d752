#include "node/net/datagram.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/wire.h"
#include "node/net/datagram_parts.h"
#include "node/net/datagram_peers.h"
#include "node/net/datagram_recents.h"

enum { DATA = 1, CHALLENGE = 2, HELLO = 3, HELLO_ACK = 4 };

#define MAGIC 0xc7
#define VERSION 2
#define CLUSTER_BYTES 8
#define FRONT_BYTES (4 + CLUSTER_BYTES)   /* what every packet begins with */
#define NONCE_AT (FRONT_BYTES + ID_BYTES) /* boot stamp, salt, counter */
#define COUNTER_AT (NONCE_AT + CRYPTO_XCHACHA_HEAD_BYTES)
#define TAG_BYTES CRYPTO_AEAD_TAG_BYTES /* the last of a packet; names it in a CHALLENGE */
#define CHALLENGE_BYTES (FRONT_BYTES + TAG_BYTES + COOKIE_BYTES)
#define HELLO_FRONT_BYTES (DATAGRAM_HEADER_BYTES + COOKIE_BYTES)
#define ACK_FRONT_BYTES (DATAGRAM_HEADER_BYTES + 16)

#define RECENT_MS DATAGRAM_RESEND_MS
#define HELLO_AGAIN_MS 250  /* one HELLO to a peer in this time */
#define HELLO_LIFE_MS 10000 /* an acknowledgement later than that is not believed */
#define CHALLENGE_RATE 64   /* per second and address block: 64 x 52 bytes; a LAN that wakes up at once */
#define CHALLENGE_BURST 256
#define HELLO_RATE 64 /* x 0.3 ms of checking signatures = 2 % of a core */
#define HELLO_BURST 128

_Static_assert(CHALLENGE_BYTES <= DATAGRAM_OVERHEAD_BYTES, "a challenge is no larger than what it answers");
_Static_assert(HELLO_FRONT_BYTES + LIMIT_CHAIN_BYTES + TAG_BYTES <= LIMIT_DATAGRAM_BYTES, "HELLO fits");
_Static_assert(COUNTER_AT + CRYPTO_XCHACHA_TAIL_BYTES == DATAGRAM_HEADER_BYTES, "the nonce stands in the header");
_Static_assert(ACK_FRONT_BYTES <= HELLO_FRONT_BYTES, "HELLO_ACK fits");

struct datagram {
    struct datagram_config config;
    struct datagram_stats stats;
    uint64_t counter; /* of the last packet sent, to whomever: a nonce, so it goes on when a peer is forgotten */
    struct crypto_aead *aead; /* owned; for all keys in turn */
    struct net_cookies cookies;
    struct net_recents recents;
    struct net_peers peers;
    struct net_ration challenge_ration;
    struct net_ration hello_ration;
};

/* What stands before the sealed part of all but CHALLENGE. */
struct header {
    struct id sender;
    uint64_t boot_stamp;
    uint64_t counter;
};

/* ---- lifecycle ---- */

int datagram_new(const struct datagram_config *config, struct datagram **ret_datagram, struct err *err)
{
    if (!identity_is_member(config->identity))
        return err_set(err, ERR_CONFLICT, "only a member of a cluster can exchange datagrams");
    OWNED(owned_free) struct datagram *datagram = calloc(1, sizeof *datagram);
    if (!datagram)
        return err_set(err, ERR_NOMEM, "no memory for datagrams");
    datagram->config = *config;
    uint8_t secret[CRYPTO_DH_BYTES] = {0};
    int status = crypto_aead_new(CRYPTO_CHACHA20_POLY1305, secret, &datagram->aead, err);
    if (status < 0)
        return status;
    uint8_t head[CRYPTO_XCHACHA_HEAD_BYTES];
    wire_store_u64(head, config->boot_stamp);
    wire_store_u64(head + 8, rng_u64(&config->rng)); /* the salt */
    identity_dh_secret(config->identity, secret);
    net_peers_init(&datagram->peers, identity_id(config->identity), secret, head, rng_u64(&config->rng));
    crypto_wipe(secret, sizeof secret);
    net_cookies_init(&datagram->cookies, config->rng);
    net_ration_init(&datagram->challenge_ration, CHALLENGE_RATE, CHALLENGE_BURST, rng_u64(&config->rng));
    net_ration_init(&datagram->hello_ration, HELLO_RATE, HELLO_BURST, rng_u64(&config->rng));
    *ret_datagram = STEAL(datagram);
    return 0;
}

void datagram_free(struct datagram *datagram)
{
    if (!datagram)
        return;
    net_peers_release(&datagram->peers);
    net_recents_release(&datagram->recents);
    net_ration_release(&datagram->challenge_ration);
    net_ration_release(&datagram->hello_ration);
    crypto_aead_free(datagram->aead);
    crypto_wipe(datagram, sizeof *datagram);
    free(datagram);
}

/* ---- sending ---- */

static uint8_t *put_front(const struct datagram *datagram, uint8_t type, uint8_t *at)
{
    *at++ = MAGIC;
    *at++ = VERSION;
    *at++ = type;
    *at++ = 0;
    return mempcpy(at, identity_cluster(datagram->config.identity)->b, CLUSTER_BYTES);
}

static uint8_t *put_header(struct datagram *datagram, uint8_t type, uint8_t *at)
{
    at = put_front(datagram, type, at);
    at = mempcpy(at, datagram->peers.own_id.b, ID_BYTES);
    at = mempcpy(at, datagram->peers.own_head, CRYPTO_XCHACHA_HEAD_BYTES);
    wire_store_u64(at, ++datagram->counter);
    return at + CRYPTO_XCHACHA_TAIL_BYTES;
}

/* Seal `plain` behind the front_len bytes that `packet` begins with, and send all of it. */
static void seal_and_send(struct datagram *datagram, const struct net_peer *peer, const struct addr *to,
                          uint8_t *packet, size_t front_len, const uint8_t *plain, size_t len_bytes,
                          uint8_t ret_tag[TAG_BYTES])
{
    if (crypto_xchacha_seal(datagram->aead, peer->key_out, packet + COUNTER_AT, packet, front_len, plain, len_bytes,
                            packet + front_len, NULL) < 0)
        abort(); /* libcrypto refuses only what is a bug of ours, and a packet that is not sealed must not leave */
    size_t whole = front_len + len_bytes + TAG_BYTES;
    memcpy(ret_tag, packet + whole - TAG_BYTES, TAG_BYTES);
    datagram->config.send(datagram->config.ctx, to, packet, whole);
}

/* The next to be sent. NULL when out of memory. */
static struct net_recent *remember(struct datagram *datagram, const struct id *id, const struct addr *addr,
                                   uint64_t now_ms, const void *payload, size_t len_bytes)
{
    struct net_recent *recent = net_recents_add(&datagram->recents, payload, len_bytes);
    if (!recent)
        return NULL;
    recent->id = *id;
    recent->addr = *addr;
    recent->sent_ms = now_ms;
    recent->counter = datagram->counter + 1;
    return recent;
}

static void send_data(struct datagram *datagram, struct net_peer *peer, struct net_recent *recent)
{
    uint8_t packet[LIMIT_DATAGRAM_BYTES];
    put_header(datagram, DATA, packet);
    recent->counter = datagram->counter;
    seal_and_send(datagram, peer, &recent->addr, packet, DATAGRAM_HEADER_BYTES, recent->payload, recent->len,
                  recent->tag);
}

static int find_or_add(struct datagram *datagram, uint64_t now_ms, const uint8_t *public_key, const struct id *id,
                       struct net_peer **ret_peer, struct err *err)
{
    char text[ID_SHORT_SIZE];
    *ret_peer = net_peers_find(&datagram->peers, id);
    if (*ret_peer)
        return 0;
    if (!public_key)
        return err_set(err, ERR_NOTFOUND, "the key of node '%s' is not known", id_short(id, text));
    OWNED(net_peer_wipe) struct net_peer derived = {0};
    if (!net_peers_derive(&datagram->peers, id, public_key, &derived))
        return err_set(err, ERR_INVALID, "the key given for node '%s' is not its key", id_short(id, text));
    *ret_peer = net_peers_add(&datagram->peers, &derived, now_ms);
    return *ret_peer ? 0 : err_set(err, ERR_NOMEM, "no memory for a peer");
}

int datagram_send(struct datagram *datagram, uint64_t now_ms, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES],
                  const struct id *id, const struct addr *addr, const void *payload, size_t len_bytes, struct err *err)
{
    char text[ID_SHORT_SIZE];
    if (len_bytes > DATAGRAM_PAYLOAD_BYTES)
        return err_set(err, ERR_LIMIT, "%zu bytes do not fit in a datagram", len_bytes);
    if (identity_is_revoked(datagram->config.identity, id))
        return err_set(err, ERR_AUTH, "node '%s' is revoked", id_short(id, text));
    struct net_peer *peer;
    int status = find_or_add(datagram, now_ms, public_key, id, &peer, err);
    if (status < 0)
        return status;
    net_peers_touch(&datagram->peers, peer);
    struct net_recent *recent = remember(datagram, id, addr, now_ms, payload, len_bytes);
    if (!recent)
        return err_set(err, ERR_NOMEM, "no memory for a datagram");
    send_data(datagram, peer, recent);
    datagram->stats.sent++;
    return 0;
}

/* Ask an unknown sender who it is. The tag says which packet is answered: only who saw it go by can ask. */
static void challenge(struct datagram *datagram, uint64_t now_ms, const struct addr *from, const struct id *sender,
                      const uint8_t *bytes, size_t len_bytes, uint64_t *dropped)
{
    if (identity_is_revoked(datagram->config.identity, sender)) {
        datagram->stats.dropped_identity++;
        return;
    }
    ++*dropped;
    if (id_equal(sender, &datagram->peers.own_id) || !net_ration_take(&datagram->challenge_ration, now_ms, from))
        return;
    uint8_t packet[CHALLENGE_BYTES];
    uint8_t *at = put_front(datagram, CHALLENGE, packet);
    at = mempcpy(at, bytes + len_bytes - TAG_BYTES, TAG_BYTES);
    net_cookies_make(&datagram->cookies, now_ms, from, sender, at);
    datagram->config.send(datagram->config.ctx, from, packet, sizeof packet);
    datagram->stats.challenges++;
}

/* The own chain behind what `packet` holds already; its new length, or 0. */
static size_t add_chain(const struct datagram *datagram, uint8_t *packet, size_t len_bytes)
{
    OWNED(buf_release) struct buf chain = BUF(LIMIT_CHAIN_BYTES);
    if (identity_payload(datagram->config.identity, &chain, NULL) < 0 || chain.len == 0)
        return 0;
    memcpy(packet + len_bytes, chain.data, chain.len);
    return len_bytes + chain.len;
}

static void send_hello(struct datagram *datagram, uint64_t now_ms, struct net_peer *peer, const struct addr *to,
                       const uint8_t cookie[COOKIE_BYTES])
{
    uint8_t packet[LIMIT_DATAGRAM_BYTES];
    struct net_recent *recent = remember(datagram, &peer->id, to, now_ms, NULL, 0);
    if (!recent)
        return;
    recent->hello = true;
    uint8_t *at = put_header(datagram, HELLO, packet);
    memcpy(at, cookie, COOKIE_BYTES);
    size_t front = add_chain(datagram, packet, HELLO_FRONT_BYTES);
    if (front == 0)
        return;
    peer->hello_counter = datagram->counter;
    peer->hello_ms = now_ms;
    peer->hello_to = *to;
    seal_and_send(datagram, peer, to, packet, front, NULL, 0, recent->tag);
    datagram->stats.hellos++;
}

static void send_ack(struct datagram *datagram, const struct net_peer *peer, const struct addr *to,
                     const struct header *hello)
{
    uint8_t packet[LIMIT_DATAGRAM_BYTES];
    uint8_t tag[TAG_BYTES];
    uint8_t *at = put_header(datagram, HELLO_ACK, packet);
    wire_store_u64(at, hello->boot_stamp);
    wire_store_u64(at + 8, hello->counter);
    size_t front = add_chain(datagram, packet, ACK_FRONT_BYTES);
    if (front > 0)
        seal_and_send(datagram, peer, to, packet, front, NULL, 0, tag);
}

/* Once more what the peer did not take because it did not know us. What was sent after the HELLO it did take. */
static void resend(struct datagram *datagram, uint64_t now_ms, struct net_peer *peer)
{
    struct net_recent *recent = NULL;
    while ((recent = net_recents_after(&datagram->recents, recent))) {
        if (recent->counter < peer->resend_from || recent->counter >= peer->hello_counter || recent->hello ||
            now_ms - recent->sent_ms > RECENT_MS || !id_equal(&recent->id, &peer->id) ||
            !addr_equal(&recent->addr, &peer->hello_to))
            continue;
        send_data(datagram, peer, recent);
        datagram->stats.resent++;
    }
}

/* ---- receiving ---- */

/* These look only; boot stamp and window move when the packet has been authenticated. */

static bool is_of_this_boot(struct datagram *datagram, const struct net_peer *peer, const struct header *header)
{
    if (header->boot_stamp >= peer->boot_stamp)
        return true;
    datagram->stats.dropped_boot++;
    return false;
}

static bool is_fresh(struct datagram *datagram, const struct net_peer *peer, const struct header *header)
{
    if (!is_of_this_boot(datagram, peer, header))
        return false;
    if (header->boot_stamp == peer->boot_stamp && !net_window_is_fresh(&peer->window, header->counter)) {
        datagram->stats.dropped_replay++;
        return false;
    }
    return true;
}

static void enter_boot(struct net_peer *peer, uint64_t boot_stamp)
{
    if (boot_stamp == peer->boot_stamp)
        return;
    peer->boot_stamp = boot_stamp;
    peer->window = (struct net_window){0};
}

/* After its chain was accepted: whatever it sent before this header is refused from now on, because it may be a replay
 * to us who had forgotten, and because the peer sends it again. */
static void admit(struct net_peer *peer, const struct identity_peer *proof, const struct header *header,
                  const struct addr *from)
{
    peer->member = true;
    peer->expires_s = proof->expires_s;
    enter_boot(peer, header->boot_stamp);
    if (header->counter > peer->window.top)
        net_window_close(&peer->window, header->counter);
    net_peer_prove(peer, from);
}

static bool open_seal(struct datagram *datagram, struct net_peer *peer, const uint8_t *bytes, size_t front_len,
                      size_t len_bytes, uint8_t *ret_plain)
{
    const uint8_t *head = bytes + NONCE_AT;
    bool is_new = memcmp(head, peer->head_in, CRYPTO_XCHACHA_HEAD_BYTES) != 0;
    uint8_t key[CRYPTO_AEAD_KEY_BYTES];
    if (is_new)
        crypto_xchacha_key(peer->key_in, head, key);
    bool good = crypto_xchacha_open(datagram->aead, is_new ? key : peer->key_in_now, bytes + COUNTER_AT, bytes,
                                    front_len, bytes + front_len, len_bytes - front_len, ret_plain, NULL) == 0;
    if (good && is_new) {
        memcpy(peer->head_in, head, sizeof peer->head_in);
        memcpy(peer->key_in_now, key, sizeof peer->key_in_now);
    }
    if (is_new)
        crypto_wipe(key, sizeof key);
    datagram->stats.dropped_forged += !good;
    return good;
}

static bool verify_chain(struct datagram *datagram, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES],
                         const uint8_t *chain, size_t chain_len, struct identity_peer *ret_proof)
{
    uint8_t dh_public[CRYPTO_DH_BYTES];
    char why[IDENTITY_WHY_SIZE];
    uint64_t wall_s = datagram->config.wall_s(datagram->config.ctx);
    if (chain_len > 0 && crypto_dh_public_of_sign(public_key, dh_public) &&
        identity_verify_peer(datagram->config.identity, dh_public, chain, chain_len, wall_s, ret_proof, why, NULL) == 0)
        return true;
    datagram->stats.dropped_identity++;
    return false;
}

static bool is_known_at(const struct datagram *datagram, const struct net_peer *peer, const struct addr *from)
{
    return peer && peer->member && net_peer_has_proven(peer, from) &&
           datagram->config.wall_s(datagram->config.ctx) <= peer->expires_s + IDENTITY_GRACE_S;
}

static void on_data(struct datagram *datagram, uint64_t now_ms, const struct addr *from, const struct header *header,
                    const uint8_t *bytes, size_t len_bytes)
{
    struct net_peer *peer = net_peers_find(&datagram->peers, &header->sender);
    if (!is_known_at(datagram, peer, from)) {
        challenge(datagram, now_ms, from, &header->sender, bytes, len_bytes, &datagram->stats.dropped_stranger);
        return;
    }
    uint8_t payload[DATAGRAM_PAYLOAD_BYTES];
    if (!is_fresh(datagram, peer, header) ||
        !open_seal(datagram, peer, bytes, DATAGRAM_HEADER_BYTES, len_bytes, payload))
        return;
    enter_boot(peer, header->boot_stamp);
    net_window_mark(&peer->window, header->counter);
    net_peers_touch(&datagram->peers, peer);
    datagram->stats.delivered++;
    struct datagram_peer sender = {.id = peer->id, .addr = *from};
    memcpy(sender.public_key, peer->public_key, sizeof sender.public_key);
    datagram->config.deliver(datagram->config.ctx, &sender, payload, len_bytes - DATAGRAM_OVERHEAD_BYTES);
}

static const struct net_recent *find_recent(const struct datagram *datagram, const uint8_t tag[TAG_BYTES])
{
    const struct net_recent *recent = NULL;
    while ((recent = net_recents_after(&datagram->recents, recent)))
        if (memcmp(recent->tag, tag, TAG_BYTES) == 0)
            break;
    return recent;
}

static void on_challenge(struct datagram *datagram, uint64_t now_ms, const struct addr *from, const uint8_t *bytes,
                         size_t len_bytes)
{
    if (len_bytes != CHALLENGE_BYTES) {
        datagram->stats.dropped_malformed++;
        return;
    }
    const uint8_t *tag = bytes + FRONT_BYTES;
    const struct net_recent *recent = find_recent(datagram, tag);
    struct net_peer *peer = recent ? net_peers_find(&datagram->peers, &recent->id) : NULL;
    if (!peer || !addr_equal(&recent->addr, from) || now_ms - recent->sent_ms > RECENT_MS) {
        datagram->stats.dropped_unasked++;
        return;
    }
    if (!recent->hello && (peer->resend_from == 0 || recent->counter < peer->resend_from))
        peer->resend_from = recent->counter;
    /* One HELLO at a time, and one more if that was not taken: its cookie may have been too old. */
    bool is_out =
        peer->hello_counter > 0 && addr_equal(&peer->hello_to, from) && now_ms - peer->hello_ms < HELLO_AGAIN_MS;
    bool is_refused = recent->hello && recent->counter == peer->hello_counter && !peer->hello_again;
    if (is_out && !is_refused)
        return;
    peer->hello_again = is_out;
    send_hello(datagram, now_ms, peer, from, tag + TAG_BYTES);
}

/* The peer that a HELLO comes from: the one in the table, or a new one derived into `room`. NULL if its key is no good.
 */
static struct net_peer *hello_peer(struct datagram *datagram, const struct header *header, const uint8_t *chain,
                                   size_t chain_len, struct net_peer *room)
{
    uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES];
    struct net_peer *peer = net_peers_find(&datagram->peers, &header->sender);
    if (peer)
        return peer;
    if (identity_payload_key(chain, chain_len, public_key) &&
        net_peers_derive(&datagram->peers, &header->sender, public_key, room))
        return room;
    datagram->stats.dropped_identity++;
    return NULL;
}

/* The cookie first: before it is good, the address is nobody's, and nothing but a hash is spent on it. */
static bool hello_is_welcome(struct datagram *datagram, uint64_t now_ms, const struct addr *from,
                             const struct header *header, const uint8_t *bytes, size_t len_bytes)
{
    uint64_t issued_ms;
    if (!net_cookies_check(&datagram->cookies, now_ms, from, &header->sender, bytes + DATAGRAM_HEADER_BYTES,
                           &issued_ms) ||
        issued_ms < net_peers_floor(&datagram->peers, &header->sender)) {
        challenge(datagram, now_ms, from, &header->sender, bytes, len_bytes, &datagram->stats.dropped_cookie);
        return false;
    }
    if (!net_ration_take(&datagram->hello_ration, now_ms, from)) {
        datagram->stats.dropped_stranger++;
        return false;
    }
    return true;
}

static void on_hello(struct datagram *datagram, uint64_t now_ms, const struct addr *from, const struct header *header,
                     const uint8_t *bytes, size_t len_bytes)
{
    if (len_bytes <= HELLO_FRONT_BYTES + TAG_BYTES) {
        datagram->stats.dropped_malformed++;
        return;
    }
    if (!hello_is_welcome(datagram, now_ms, from, header, bytes, len_bytes))
        return;
    const uint8_t *chain = bytes + HELLO_FRONT_BYTES;
    size_t chain_len = len_bytes - HELLO_FRONT_BYTES - TAG_BYTES;
    OWNED(net_peer_wipe) struct net_peer room = {0};
    struct net_peer *peer = hello_peer(datagram, header, chain, chain_len, &room);
    uint8_t nothing[1];
    struct identity_peer proof;
    /* No look at the window: the cookie shows that it is fresh, and an acknowledgement may have overtaken it. */
    if (!peer || !is_of_this_boot(datagram, peer, header) ||
        !open_seal(datagram, peer, bytes, HELLO_FRONT_BYTES + chain_len, len_bytes, nothing) ||
        !verify_chain(datagram, peer->public_key, chain, chain_len, &proof))
        return;
    if (peer == &room)
        peer = net_peers_add(&datagram->peers, &room, now_ms);
    if (!peer)
        return;
    admit(peer, &proof, header, from);
    net_peers_touch(&datagram->peers, peer);
    send_ack(datagram, peer, from, header);
}

static void on_ack(struct datagram *datagram, uint64_t now_ms, const struct addr *from, const struct header *header,
                   const uint8_t *bytes, size_t len_bytes)
{
    if (len_bytes <= ACK_FRONT_BYTES + TAG_BYTES) {
        datagram->stats.dropped_malformed++;
        return;
    }
    struct net_peer *peer = net_peers_find(&datagram->peers, &header->sender);
    const uint8_t *answered = bytes + DATAGRAM_HEADER_BYTES;
    if (!peer || peer->hello_counter == 0 || !addr_equal(&peer->hello_to, from) ||
        now_ms - peer->hello_ms > HELLO_LIFE_MS || wire_load_u64(answered) != datagram->config.boot_stamp ||
        wire_load_u64(answered + 8) != peer->hello_counter) {
        datagram->stats.dropped_unasked++;
        return;
    }
    const uint8_t *chain = bytes + ACK_FRONT_BYTES;
    size_t chain_len = len_bytes - ACK_FRONT_BYTES - TAG_BYTES;
    uint8_t nothing[1];
    struct identity_peer proof;
    /* No look at the window here either: it answers a HELLO that is still open, and their HELLO may have overtaken it.
     */
    if (!is_of_this_boot(datagram, peer, header) ||
        !open_seal(datagram, peer, bytes, ACK_FRONT_BYTES + chain_len, len_bytes, nothing) ||
        !verify_chain(datagram, peer->public_key, chain, chain_len, &proof))
        return;
    admit(peer, &proof, header, from);
    if (peer->resend_from > 0)
        resend(datagram, now_ms, peer);
    peer->resend_from = 0;
    peer->hello_counter = 0;
}

/* Is it one of ours, by what every packet begins with? */
static bool front_is_good(struct datagram *datagram, const uint8_t *bytes, size_t len_bytes)
{
    if (len_bytes < FRONT_BYTES || len_bytes > LIMIT_DATAGRAM_BYTES || bytes[0] != MAGIC || bytes[1] != VERSION ||
        bytes[3] != 0) {
        datagram->stats.dropped_malformed++;
        return false;
    }
    if (memcmp(bytes + 4, identity_cluster(datagram->config.identity)->b, CLUSTER_BYTES) != 0) {
        datagram->stats.dropped_cluster++;
        return false;
    }
    return true;
}

void datagram_input(struct datagram *datagram, uint64_t now_ms, const struct addr *from, const uint8_t *bytes,
                    size_t len_bytes)
{
    if (!front_is_good(datagram, bytes, len_bytes))
        return;
    uint8_t type = bytes[2];
    if (type == CHALLENGE) {
        on_challenge(datagram, now_ms, from, bytes, len_bytes);
        return;
    }
    struct header header;
    struct wire wire;
    wire_init(&wire, bytes, len_bytes);
    wire_get_bytes(&wire, FRONT_BYTES);
    header.sender = wire_get_id(&wire);
    header.boot_stamp = wire_get_u64(&wire);
    wire_get_u64(&wire); /* the salt */
    header.counter = wire_get_u64(&wire);
    if (wire_left(&wire) < TAG_BYTES || header.counter == 0)
        datagram->stats.dropped_malformed++;
    else if (type == DATA)
        on_data(datagram, now_ms, from, &header, bytes, len_bytes);
    else if (type == HELLO)
        on_hello(datagram, now_ms, from, &header, bytes, len_bytes);
    else if (type == HELLO_ACK)
        on_ack(datagram, now_ms, from, &header, bytes, len_bytes);
    else
        datagram->stats.dropped_malformed++;
}

/* ---- upkeep and queries ---- */

void datagram_forget(struct datagram *datagram, uint64_t now_ms, const struct id *id)
{
    struct net_peer *peer = net_peers_find(&datagram->peers, id);
    if (peer)
        net_peers_remove(&datagram->peers, peer, now_ms);
}

void datagram_tick(struct datagram *datagram, uint64_t now_ms)
{
    net_recents_expire(&datagram->recents, now_ms > RECENT_MS ? now_ms - RECENT_MS : 0);
}

const uint8_t *datagram_peer_key(const struct datagram *datagram, const struct id *id)
{
    const struct net_peer *peer = net_peers_find(&datagram->peers, id);
    return peer && peer->member ? peer->public_key : NULL;
}

size_t datagram_peer_count(const struct datagram *datagram)
{
    return datagram->peers.map.count;
}

const struct datagram_stats *datagram_stats(const struct datagram *datagram)
{
    return &datagram->stats;
}
