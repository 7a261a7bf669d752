/*
 * The mesh as this node sees it: the DHT over its UDP envelope, the links, calls over them, and who is who.
 *
 * Composes dht, node/net and node/identity. Keeps links to the nodes that it knows, up to MESH_MAX_NEIGHBOURS, dials
 * others when they are asked for, spreads revocations, answers newcomers. Knows nothing of objects or containers: what
 * concerns them is passed on through struct mesh_users.
 *
 * Everything happens on the loop's thread; callbacks never come from inside the call that asked for them, and those of
 * mesh_find and mesh_call come exactly once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "dht/dht.h"
#include "node/base/clock.h"
#include "node/base/jobs.h"
#include "node/identity/identity.h"
#include "node/net/call.h"
#include "node/net/link.h"
#include "node/net/udp.h"
#include "store/store.h"

#define MESH_MAX_NEIGHBOURS 32

struct mesh;

/* What the rooms above do with links and requests. All required; ctx of struct mesh_config. */
struct mesh_users {
    void (*on_up)(void *ctx, struct link *link);
    void (*on_down)(void *ctx, struct link *link);
    /* A message of the exchange; a negative return ends the link. */
    int (*on_message)(void *ctx, struct link *link, uint8_t type, const uint8_t *data, size_t len_bytes,
                      struct err *err);
    void (*on_writable)(void *ctx, struct link *link);
    /* A call by another member that the mesh does not answer itself. */
    void (*on_request)(void *ctx, struct link *link, const char *method, const uint8_t *data, size_t len_bytes,
                       struct call_request *request);
};

struct mesh_config {
    uv_loop_t *loop;           /* borrowed */
    struct identity *identity; /* borrowed; a member */
    struct store *store;       /* borrowed: table "mesh" and the DHT's records */
    struct jobs jobs;
    struct clock clock;
    const struct addr *listen; /* borrowed for the call */
    size_t listen_count;
    struct addr advertise;   /* family 0: discovered */
    const char *name;        /* copied */
    uint32_t dht_records;    /* held for all; 0: LIMIT_DHT_RECORDS */
    unsigned block_contacts; /* of one address block in the DHT's table; 0: no cap */
    struct mesh_users users;
    void *ctx; /* borrowed */
};

/* Bind, restore what was known, and begin to join. */
int mesh_new(const struct mesh_config *config, struct mesh **ret_mesh, struct err *err);
/* Say good-bye and close all handles; run the loop until mesh_closed, then free. What is under way ends from inside
 * this call: links go down, calls and finds end in ERR_CANCELLED. After it nothing is called back any more, not what is
 * asked from now on either. */
void mesh_close(struct mesh *mesh);
bool mesh_closed(const struct mesh *mesh);
void mesh_free(struct mesh *mesh);

/* Connect to whoever is at `addr`, again and again, whenever there is no link at all. Of the first 32 that are named;
 * the addresses of neighbours are kept by themselves, also for the next start. */
void mesh_bootstrap(struct mesh *mesh, const struct addr *addr);
/* Nothing better is to be waited for: a link is up, or nobody is known that could be dialled. */
bool mesh_is_settled(const struct mesh *mesh);

/* ---- who ---- */

const struct id *mesh_self(const struct mesh *mesh);
/* Where others reach this node; family 0 while unknown. */
struct addr mesh_address(const struct mesh *mesh);
/* Where a node said that others reach it; family 0 while unknown. */
struct addr mesh_address_of(const struct mesh *mesh, const struct id *node);
/* The name that a node told us, "" if none; borrowed until the next callback. */
const char *mesh_name_of(const struct mesh *mesh, const struct id *node);
/* "name (short id)" or the short id; returns `text`. */
const char *mesh_describe(const struct mesh *mesh, const struct id *node, char *text, size_t text_size);

/* A node from what a user wrote: a whole id, a prefix of it (6 digits or more), or a name. Neighbours are looked at
 * first, then the DHT. ERR_NOTFOUND, ERR_CONFLICT if several fit. */
typedef void (*mesh_find_cb)(void *ctx, int status, const struct err *err, const struct id *node);
void mesh_find(struct mesh *mesh, const char *text, mesh_find_cb found, void *ctx);

/* Every link to a member that is up. */
void mesh_each_link(struct mesh *mesh, links_each_cb each, void *ctx);
struct link *mesh_link(struct mesh *mesh, const struct id *node);
/* Make sure that a link to the node comes up, if it can: through the address given (family 0: not known) or one that
 * the DHT knows. on_up tells. */
void mesh_connect(struct mesh *mesh, const struct id *node, const struct addr *addr);

/* Was it tried in vain, more than once, and nothing come since? It may still come back. */
bool mesh_seems_gone(const struct mesh *mesh, const struct id *node);

/* ---- calls ---- */

/* Ask a node, dialling it and trying again until patience_ms have passed. The callback comes once. Errors that the
 * other node answers with are final. Several sends of one call may reach it: its methods bear that. */
void mesh_call(struct mesh *mesh, const struct id *node, const char *method, const void *data, size_t len_bytes,
               uint64_t patience_ms, call_reply_cb reply, void *ctx);
/* Forget calls with this ctx. */
void mesh_call_cancel(struct mesh *mesh, const void *ctx);

/* ---- the rest ---- */

/* For dht_get and dht_publish; call mesh_dht_changed after each, so that its timer is set anew. */
struct dht *mesh_dht(struct mesh *mesh);
void mesh_dht_changed(struct mesh *mesh);

/* Revoke a node and tell everybody. */
int mesh_revoke(struct mesh *mesh, const struct id *node, struct err *err);
