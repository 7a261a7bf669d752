/*
 * Requests of ours: transactions, round-trip times, repeats, timeouts; and sending in general.
 */
#pragma once

#include "dht/message.h"
#include "dht/rtt.h"

enum dht_rpc_event {
    DHT_RPC_REPLY,  /* `reply` is the answer, the last part of it to arrive, or DHT_REFUSED */
    DHT_RPC_SLOW,   /* no answer within the expected time; it was sent once more and may still come */
    DHT_RPC_FAILED, /* given up */
    DHT_RPC_PART,   /* `reply` is a part of the answer; more are to come. In any order, each once */
};

typedef void (*dht_rpc_cb)(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                           const struct dht_message *reply);

struct dht_rpc;

struct dht_rpcs {
    struct dht_rpc **slots; /* owned, as what they point to; NULL: free */
    size_t slot_count;      /* a power of two, or 0 */
    size_t count;
    uint64_t wake_ms;
    struct dht_rtt anyone; /* round trips to all: what to expect of somebody new */
};

void dht_rpc_init(struct dht_rpcs *rpcs);
void dht_rpc_release(struct dht_rpcs *rpcs);
size_t dht_rpc_bytes(const struct dht_rpcs *rpcs);
/* Send a request; type and fields are the caller's, the rest is filled in. 0, ERR_LIMIT or ERR_NOMEM. */
int dht_rpc_ask(struct dht *dht, const struct dht_contact *to, struct dht_message *request, dht_rpc_cb cb, void *owner);
/* Ask whether it is there; at most one such question to one contact at a time. */
void dht_rpc_ping(struct dht *dht, const struct dht_contact *to);
/* Send a message that is not answered. */
void dht_rpc_tell(struct dht *dht, const struct dht_contact *to, struct dht_message *message);
/* Send an answer. Our place goes with it where it fits: leave DHT_PLACED_BYTES. */
void dht_rpc_answer(struct dht *dht, const struct dht_contact *to, uint64_t transaction, struct dht_message *answer);
/* An answer came in. */
void dht_rpc_input(struct dht *dht, const struct dht_contact *from, const struct dht_message *answer);
/* How many of this type are under way to a node. */
size_t dht_rpc_count(const struct dht *dht, const struct id *to, uint8_t type);
/* Events for this owner are no longer delivered. */
void dht_rpc_abandon(struct dht *dht, const void *owner);
void dht_rpc_tick(struct dht *dht);
