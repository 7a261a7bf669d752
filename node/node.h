/*
 * The node: all floors composed into one daemon. Only the roof's own files include this.
 *
 * node.c makes and ends it, handlers_*.c answer the local API from it, moves.c gives migrations their operations.
 * Everything but jobs happens on the loop's thread.
 */
#pragma once

#include <uv.h>

#include "node/api/http.h"
#include "node/config.h"
#include "node/gateway/gateway.h"
#include "node/identity/identity.h"
#include "node/mesh/content.h"
#include "node/mesh/mesh.h"
#include "node/mesh/scrub.h"
#include "node/migrate/migrate.h"
#include "node/net/timers.h"
#include "node/net/work.h"
#include "node/runtime/runtime.h"
#include "store/store.h"

struct moves_asked;

struct node {
    const struct config *config; /* borrowed */
    uv_loop_t *loop;             /* borrowed */
    struct clock clock;
    struct identity *identity; /* owned, as all that follow */
    struct store *store;
    struct work *work;
    struct jobs jobs; /* of work */
    struct timers *timers;
    struct runtime *runtime;
    struct migrate *migrate;
    struct mesh *mesh;
    struct content *content;
    struct scrub *scrub;
    struct gateway *gateway;
    struct api_server *api;
    struct moves_asked *asked; /* handlers_move.c; NULL until somebody asks */
    char *scratch;             /* DIR/tmp: uploads; emptied at each start */
    uint64_t started_ms;
    bool stopping;
    uv_timer_t house_timer; /* containers that ended, the store's upkeep, and the end */
    uint64_t house_ticks;
    bool house_busy; /* a job of it is under way */
    bool closed;     /* nothing is begun any more; the loop ends when its jobs have */
    uint64_t closed_ms;
    uint64_t stop_deadline_ms;
};

/* Open everything and begin to serve. The identity is a member's and is taken over on success. */
int node_start(const struct config *config, uv_loop_t *loop, struct identity *identity, struct node **ret_node,
               struct err *err);
/* Graceful: refuse what is new, let migrations reach a safe state, say good-bye, then close; the loop ends by itself.
 */
void node_stop(struct node *node);
/* After the loop has ended. */
void node_free(struct node *node);

/* handlers.c: the routes of API_ROUTES with their handlers; ctx of each is the struct node. */
const struct api_route *node_routes(size_t *ret_count);

/* moves.c */
struct migrate_ops moves_ops(struct node *node);
void moves_request(struct node *node, struct link *link, const char *method, const uint8_t *data, size_t len_bytes,
                   struct call_request *request);

/* Run a blocking function on the pool and answer `req` with what it gives: work returns the reply (its reference), or
 * NULL with err set. `arg` is freed with free_arg (may be NULL) afterwards. */
typedef json_t *(*node_work_cb)(struct node *node, void *arg, struct err *err);
void node_answer_from_job(struct node *node, struct api_request *req, node_work_cb work, void *arg,
                          void (*free_arg)(void *arg));
