/*
 * Content: the store, the exchange and the DHT brought together. Who has an object, how it gets here, and telling
 * others what is here.
 *
 * Everything happens on the loop's thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/mesh/mesh.h"
#include "node/mesh/policy.h"
#include "store/store.h"
#include "transfer/transfer.h"

struct content;
struct content_fetch;

int content_new(struct store *store, struct jobs jobs, struct clock clock, uv_loop_t *loop,
                struct content **ret_content, struct err *err);
/* The mesh is made after the content, because its callbacks lead here. */
void content_set_mesh(struct content *content, struct mesh *mesh);
/* Who is asked, where a wish does not say it; else by cost. */
void content_set_policy(struct content *content, const struct policy *policy);
/* How fast objects may be sent and received, from now on; there are no limits at first. */
void content_set_limits(struct content *content, const struct exchange_limits *limits);
const struct exchange_limits *content_limits(const struct content *content);
/* What a GiB from this node costs, in thousandths of the operators' unit: told to whoever asks for something. */
void content_set_price(struct content *content, uint32_t price);
/* Stop timers and answer what content_why owes; the loop then runs the close callbacks. */
void content_close(struct content *content);
void content_free(struct content *content);

/* Called by the node for struct mesh_users. */
void content_link_up(struct content *content, struct link *link);
void content_link_down(struct content *content, struct link *link);
int content_link_message(struct content *content, struct link *link, uint8_t type, const uint8_t *data,
                         size_t len_bytes, struct err *err);
void content_link_writable(struct content *content, struct link *link);

/* ---- telling ---- */

/* This node has the object. */
void content_publish(struct content *content, const struct id *digest, uint64_t size_bytes);
void content_withdraw(struct content *content, const struct id *digest);
/* Under another key than the object's own: who has some version of a volume, a service, an app, an image. */
void content_publish_key(struct content *content, enum dht_kind kind, const void *name, size_t name_bytes,
                         const struct id *digest, uint64_t size_bytes, struct store_version version);
/* Everything that is in the store, again, after a start. */
int content_publish_all(struct content *content, struct err *err);

/* ---- fetching ---- */

struct content_wish {
    struct id digest;
    enum store_kind kind;
    enum exchange_class class;
    const struct id *origin;     /* who surely has it; NULL: nobody known */
    const struct id *hints;      /* DHT keys under which holders of older versions stand */
    size_t hint_count;           /* at most CONTENT_MAX_HINTS */
    const struct id *bases;      /* objects here that it is a version of, the likeliest first */
    size_t base_count;           /* the first EXCHANGE_BASES count */
    const struct policy *policy; /* which nodes are turned to first; NULL: as the content's */
    void (*on_progress)(void *ctx, const struct exchange_progress *progress); /* optional */
    void (*on_done)(void *ctx, int status, const struct err *err, const struct exchange_stats *stats);
    void *ctx; /* borrowed */
};
#define CONTENT_MAX_HINTS 4

/* on_done comes once, never from inside, unless content_fetch_cancel or content_free comes first. An object that is
 * here already is done at once. When all neighbours have said no, the DHT names nobody and no origin is known, the end
 * comes after a few seconds (ERR_UNAVAILABLE), else after EXCHANGE_GIVE_UP_MS without progress, in which links may come
 * back. What is borrowed in `wish` need not outlive the call. */
int content_fetch(struct content *content, const struct content_wish *wish, struct content_fetch **ret_fetch,
                  struct err *err);
void content_fetch_cancel(struct content_fetch *fetch);

/* ---- why ---- */

/* Who could give what `text` names (providers.h), with claims and measurements, as docs/api.md says for "why"; policy
 * NULL: the content's. The callback comes once, from inside when the DHT cannot be asked; `reply` is the callback's to
 * decref. ERR_INVALID for a name of nothing, and no callback. */
typedef void (*content_why_cb)(void *ctx, json_t *reply);
int content_why(struct content *content, const char *text, const struct policy *policy, content_why_cb done, void *ctx,
                struct err *err);
/* What was measured of a node, also on links that have gone; false if nothing was. */
bool content_peer_cost(const struct content *content, const struct id *node, struct exchange_cost *ret_cost);
