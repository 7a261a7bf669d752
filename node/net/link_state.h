/* What link.c (one link) and links.c (the set of them, and how they begin) share. Not for other files. */
#pragma once

#include <sys/queue.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/net/link.h"
#include "node/net/listener.h"

#define LINK_READ_BYTES (256u << 10)
#define LINK_WRITE_PIECES 16u /* in one write */

/*
 * CONNECTING --connected--> HANDSHAKE --both known--> UP --close or error--> CLOSING --handle closed--> freed
 * (an accepted connection begins in HANDSHAKE; every state may go to CLOSING)
 */
enum link_state { LINK_CONNECTING, LINK_HANDSHAKE, LINK_UP, LINK_CLOSING };

struct link {
    TAILQ_ENTRY(link)
    entry;
    struct links *owner;
    enum link_state state;
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_connect_t connect;
    uv_write_t write;
    size_t writing_bytes; /* handed to uv_write and not done yet */
    bool gathering;       /* links->turn_end is to look at it */
    bool drained;         /* bytes have left, which on_writable has not been told */
    unsigned open_handles;
    struct session *session; /* owned */
    bool dialled;
    bool ending;         /* the session is over: close when what is queued has been written */
    bool duplicate;      /* another link to the node is kept */
    const char *end_why; /* static text; NULL: nothing special */
    bool any_node;
    struct id wanted; /* unless any_node: who was dialled */
    struct addr addr;
    uint64_t since_ms;
    struct identity_peer peer;
    uint8_t remote_static[CRYPTO_DH_BYTES];
    uint8_t chain[LIMIT_CHAIN_BYTES];
    size_t chain_len;
    void *data;
};

TAILQ_HEAD(link_list, link);

struct links {
    struct links_config config;
    struct listener *listeners[LINKS_MAX_LISTEN]; /* owned */
    size_t listener_count;
    bool closing;
    uv_prepare_t turn_end; /* runs before the loop sleeps, while some link is gathering */
    unsigned open_handles; /* of all links, and turn_end */
    size_t count;
    struct link_list list;
    struct log_limit refused;
    uint8_t read_buffer[LINK_READ_BYTES];
};

static inline uint64_t link_now(const struct links *links)
{
    return clock_mono_ms(&links->config.clock);
}

/* A link with its handles, in the list; it has no session yet. NULL: no memory. */
struct link *link_make(struct links *links, const struct addr *addr, bool dialled);
int link_begin_session(struct link *link, struct err *err);
/* It is connected: begin to read. */
void link_start(struct link *link);
/* Nothing more happens for now: look at its deadlines in delay_ms. */
void link_wait(struct link *link, uint64_t delay_ms);
/* Cut it now, with what on_down or on_dial_failed tells. Harmless if it is closing already. */
void link_end(struct link *link, int code, const char *why);
void link_end_with_error(struct link *link, const struct err *err);
/* What libuv says of a connection; before it is up, that nobody can be reached there. */
void link_end_with_status(struct link *link, int status);
