/*
 * One node: an exchange of the daemon's own, and around it what node/mesh/content.c is in the daemon, as a model: whom
 * the DHT names is dialled, the best of them first and more in each round, and who is named by peers as well.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/id.h"
#include "tools/swarmsim/net.h"
#include "transfer/transfer.h"

struct swarm;
struct wish;

struct node {
    struct swarm *swarm;
    uint32_t number;
    struct id id;
    struct exchange *exchange; /* owned; NULL: the node is dead */
    struct store *store;       /* owned */
    uint64_t rng_state;
    uint64_t armed_us; /* when it will be called; UINT64_MAX: not at all */
    struct wires wires;
    struct session **sessions; /* owned array; also those that are being dialled; pinned */
    size_t n_sessions, session_cap;
    struct wish *wishes; /* owned list */
    bool seed;           /* had everything at the start */
};

void node_init(struct swarm *swarm, struct node *node, uint32_t number);
void node_release(struct node *node);
/* Want what the demand with this number says. */
void node_wish(struct node *node, size_t demand);
/* It dies at once; its peers notice after the delay. */
void node_kill(struct node *node);
/* All of its sessions end, for both ends, as when nothing was heard for too long. */
void node_lose_sessions(struct node *node);

/* From the network: a message for the end of the link, room at its beginning. */
void node_input(struct link *link, uint8_t type, const uint8_t *data, size_t len);
void node_writable(struct link *link);
