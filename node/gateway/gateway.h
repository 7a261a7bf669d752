/*
 * The registry of a node, the DHT's sorted sets by hand, and its gateways: so far the one for Redis clients (RESP).
 * docs/registry.md says what they can expect.
 *
 * Everything happens on the loop's thread. There is no password: whoever reaches the address may read and write all
 * sets, so it should be a loopback one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "node/base/addr.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/jobs.h"
#include "node/gateway/hand.h"
#include "node/mesh/mesh.h"
#include "store/store.h"

struct gateway;

struct gateway_config {
    uv_loop_t *loop;     /* borrowed */
    struct addr resp;    /* where to listen; port 0: any; family 0: nowhere */
    struct mesh *mesh;   /* borrowed */
    struct store *store; /* borrowed: table "registry" */
    struct jobs jobs;
    struct clock clock;
};

/* Read what was written here in earlier lives, begin to say it to the mesh again, and listen. ERR_BUSY: the port is
 * taken. */
int gateway_new(const struct gateway_config *config, struct gateway **ret_gateway, struct err *err);
/* Cut the clients and leave the mesh, which is to be closed after this call. Run the loop until gateway_closed, which
 * waits for the disk, then free. */
void gateway_close(struct gateway *gateway);
bool gateway_closed(const struct gateway *gateway);
void gateway_free(struct gateway *gateway);

/* As hands_write. */
int gateway_write(struct gateway *gateway, const struct hand_wish *wish, hand_done_cb done, void *ctx, struct err *err);

struct gateway_stats {
    uint16_t port; /* 0: none */
    size_t clients;
    uint64_t commands;
    size_t sets;    /* in memory */
    size_t members; /* of those */
    size_t unsaid;  /* written here, not given to the mesh yet */
};
void gateway_stats(const struct gateway *gateway, struct gateway_stats *ret_stats);
