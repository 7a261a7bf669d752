/*
 * The network: every node has an uplink and a downlink, sessions share them, every pair of nodes has a delay.
 *
 * What a session sends waits in its own queue. The uplink serves the queues in turn, a frame's worth each time. A
 * message is there a delay after its last byte has left, or when the receiver's downlink, first come, first served, is
 * through with it. As TCP does, a sender holds back while more than a little waits for a receiver's downlink. Small
 * messages of a session that has nothing else to send do not wait behind other sessions' bulk, as the fair queueing of
 * an operating system has it; they take their time of the wires all the same.
 *
 * Chunks are charged with their raw bytes, everything with frames, and with headers of TCP and IP.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "node/base/err.h"
#include "tools/sim/timeline.h"

struct exchange_peer;
struct swarm;

/* Whatever happens at some time. The first member of what it is about. */
struct event {
    struct timed timed;
    void (*happen)(struct swarm *swarm, struct event *event);
};

struct message_slab;
struct node;
struct parcel;
struct session;

enum link_place {
    LINK_EMPTY,
    LINK_IN_TURN,   /* in its sender's turns */
    LINK_HELD_BACK, /* in its receiver's waiters */
    LINK_SENDING,   /* some of its first message is leaving */
};

/* One direction of a session. */
struct link {
    struct session *session;
    struct exchange_peer *peer; /* what the sender's exchange calls it; NULL: it does not know it (any more) */
    uint64_t queued_bytes;      /* of those that wait, on the wire */
    struct node *from;
    struct node *to;
    struct parcel *first; /* owned list: waits to leave */
    struct parcel **end;
    enum link_place place;
    TAILQ_ENTRY(link)
    turn;            /* among those of its sender that have something to send, or that wait for a receiver */
    uint64_t due_us; /* when the last of those that have left is there */
};

TAILQ_HEAD(link_list, link);

struct session {
    uint32_t delay_us;
    uint32_t pins; /* messages on their way, and events */
    bool up;
    uint64_t late_us[2]; /* each way, smoothed: how long messages wait before they leave */
    struct link way[2];
};

/* What a node has to do with the network. */
struct wires {
    struct event sent;    /* the end of what is being sent */
    struct link *sending; /* NULL: nothing */
    uint64_t sending_bytes;
    uint64_t up_bytes_per_s;
    uint64_t down_bytes_per_s;
    struct link_list turns;
    struct link_list waiters; /* links to here that are held back */
    bool waking;              /* they will be looked at */
    uint64_t silent_until_us; /* nothing leaves before, and what arrives waits */
    uint64_t up_debt_us;      /* small messages took so much of the time of the next large one */
    uint64_t down_free_us;    /* when the downlink is through with all that is on its way to it */
    uint64_t window_us;       /* further ahead than this nobody sends */
    uint64_t sent_bytes;
};

/* Messages come from a pool of a few sizes. */
#define POOL_CLASSES 6
struct message_pool {
    struct parcel *spare[POOL_CLASSES];
    struct message_slab *slabs; /* owned */
};

void net_pool_release(struct message_pool *pool);

void net_init_wires(struct wires *wires, uint64_t up_bytes_per_s, uint64_t down_bytes_per_s, uint64_t delay_us);
/* Not up yet; freed when it is down and nothing is on its way any more. */
struct session *net_session_new(struct swarm *swarm, struct node *dialer, struct node *listener);
void net_session_unpin(struct session *session);
/* What waits in its queues is lost, what is on its way too. The nodes are told by their owner. */
void net_session_down(struct swarm *swarm, struct session *session);
/* As session_send. */
int net_send(struct link *link, uint8_t type, const void *head, size_t head_bytes, const void *body, size_t body_bytes);
/* Room for bulk, as session_room has it. */
size_t net_room(const struct link *link);
/* Round trip as the session measures it, with what waits. */
uint32_t net_rtt_ms(const struct link *link);
/* Nothing comes from the node, and nothing reaches it, until then. */
void net_silence(struct swarm *swarm, struct node *node, uint64_t until_us);
