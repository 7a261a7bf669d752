/*
 * TCP links: one encrypted session with each node that this one talks to, and guests that ask to be let in.
 *
 * Owns the listening socket, the connections, their sessions (transfer.h) and timers. Judges peers by their
 * certificates (identity.h). Does not know what messages mean. Everything happens on the loop's thread.
 *
 * 1. At most one link to a node is up and not closing. Of two that were begun in the same moment both ends keep the one
 *    that the node with the smaller id dialled; a later one replaces an earlier one, which its dialler must have lost.
 * 2. A link is up from on_up to on_down, which come in pairs; a struct link is not used after on_down. on_down and
 *    on_dial_failed come from the loop or from links_close, never from inside another call here.
 * 3. Deadlines run from accept; a stranger costs one connection slot for LIMIT_HANDSHAKE_MS at most, a guest for
 *    LIMIT_GUEST_MS. All of them together have LIMIT_STRANGERS slots, those of one address block
 *    LIMIT_SESSIONS_PER_BLOCK.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "node/base/addr.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/identity/identity.h"
#include "transfer/transfer.h"

struct links;
struct link;

#define LINKS_MAX_LISTEN 8

struct links_config {
    uv_loop_t *loop;           /* borrowed */
    struct identity *identity; /* borrowed */
    struct clock clock;
    /* All required. May send and close; may not free the links. */
    void (*on_up)(void *ctx, struct link *link);
    void (*on_down)(void *ctx, struct link *link, const char *why);
    /* As in session_config: a negative return ends the session. */
    int (*on_message)(void *ctx, struct link *link, uint8_t type, const uint8_t *data, size_t len_bytes,
                      struct err *err);
    /* Bytes have left and there is room for more. Comes once in a turn of the loop at least, if any have. */
    void (*on_writable)(void *ctx, struct link *link);
    /* A dial has failed before the link was up. `node` is NULL where any node was welcome. ERR_UNAVAILABLE: nobody
     * answers there; ERR_TIMEOUT; ERR_AUTH: another node than was wanted, or none of the cluster; ERR_CONFLICT: this
     * node itself; ERR_CLOSED, ERR_PROTOCOL: what answers does not like us, or is no node. */
    void (*on_dial_failed)(void *ctx, const struct addr *addr, const struct id *node, const struct err *err);
    void *ctx; /* borrowed */
};

int links_new(const struct links_config *config, struct links **ret_links, struct err *err);
/* Accept connections on `listen` too, one of LINKS_MAX_LISTEN. With port 0 the system chooses one: see links_port.
 * ERR_BUSY: the port is taken. */
int links_listen(struct links *links, const struct addr *listen, struct err *err);
/* Listen on the first `count` of them only. */
void links_unlisten(struct links *links, size_t count);
/* The port of the address that was the index-th to be listened on; 0 if there is none. */
uint16_t links_port(const struct links *links, size_t index);
/* Say good-bye on every link and close all handles; run the loop until links_closed, then free. */
void links_close(struct links *links, enum session_reason reason);
bool links_closed(const struct links *links);
void links_free(struct links *links);

/* Connect to a node, unless a link to `node` is up or on its way. `node` may be NULL: whoever answers there, unless
 * that address is being dialled already. */
int links_dial(struct links *links, const struct addr *addr, const struct id *node, struct err *err);
/* Is a dial to this node under way? */
bool links_dialling(const struct links *links, const struct id *node);

/* The link that is up to a node, or NULL. */
struct link *links_find(struct links *links, const struct id *node);
typedef void (*links_each_cb)(void *ctx, struct link *link);
/* All that are up, guests included. The callback may close the link that it is given. */
void links_each(struct links *links, links_each_cb each, void *ctx);
/* To members, up and not closing. */
size_t links_count(const struct links *links);
/* Dials under way. */
size_t links_dials(const struct links *links);
/* End the link to a node, if there is one. */
void links_cut(struct links *links, const struct id *node, enum session_reason reason);

/* As session_send, session_room and session_get_stats. */
int link_send(struct link *link, uint8_t type, const void *head, size_t head_bytes, const void *body, size_t body_bytes,
              struct err *err);
size_t link_room(const struct link *link);
void link_get_stats(const struct link *link, struct session_stats *ret_stats);
void link_close(struct link *link, enum session_reason reason);

const struct identity_peer *link_peer(const struct link *link);
/* The X25519 key that the handshake proved, CRYPTO_DH_BYTES. */
const uint8_t *link_remote_static(const struct link *link);
/* The certificate chain that the peer showed; borrowed as long as the link. */
const uint8_t *link_chain(const struct link *link, size_t *ret_len);
const struct addr *link_addr(const struct link *link);
bool link_dialled(const struct link *link); /* by us */
uint64_t link_since_ms(const struct link *link);
/* A pointer for the owner of the links. */
void link_set_data(struct link *link, void *data);
void *link_data(const struct link *link);
