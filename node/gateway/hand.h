/*
 * Writes of the local API: one member put into a set, or taken out of it, with an answer when it is on disk here and
 * other nodes have it. The same sets that Redis clients see.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/gateway/registry.h"
#include "node/gateway/sets.h"

struct hands;

struct hand_wish {
    const char *set; /* borrowed for the call, as `member` */
    const char *member;
    bool removes; /* the member, which need not be there */
    double score;
};

/* It is durable (status 0), and so many other nodes have taken it; 0: none has yet, it will be given to them. Comes
 * once, never from within hands_write. */
typedef void (*hand_done_cb)(void *ctx, int status, const struct err *err, size_t holders);

int hands_new(struct sets *sets, struct registry *registry, struct clock clock, struct hands **ret_hands,
              struct err *err);
/* Once, before the first write; after it hands_close is due before hands_free. */
void hands_start(struct hands *hands, uv_loop_t *loop);
/* What is under way ends in ERR_CANCELLED. Free when closed. */
void hands_close(struct hands *hands);
bool hands_closed(const struct hands *hands);
void hands_free(struct hands *hands);

/* ERR_INVALID, ERR_LIMIT, ERR_NOMEM: there will be no callback. */
int hands_write(struct hands *hands, const struct hand_wish *wish, hand_done_cb done, void *ctx, struct err *err);
