/*
 * Sets and channels as the DHT has them: struct sets_mesh and struct channels_mesh over dht.h.
 *
 * Sets are of kind DHT_SET, their members by hand; a message is a member of a channel, 16 bytes that make it unlike all
 * others and then what was published, good for a minute. Views (view.h) are read once a second, while somebody asks.
 */
#pragma once

#include "dht/dht.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/gateway/channels.h"
#include "node/gateway/sets.h"

struct registry;

struct registry_config {
    struct dht *dht; /* borrowed */
    /* To be called after each call of the dht. */
    void (*changed)(void *ctx);
    void *ctx; /* borrowed */
    struct clock clock;
    struct rng rng;
};

int registry_new(const struct registry_config *config, struct registry **ret_registry, struct err *err);
/* All sets and channels have been closed. */
void registry_free(struct registry *registry);

/* Give the mesh what was written here, as `write` of struct sets_mesh does, and hear who took it (dht.h); done may be
 * NULL. What was given already is given once more. */
int registry_say(struct registry *registry, const struct set *set, const struct set_change *change, dht_done_cb done,
                 void *ctx, struct err *err);

struct sets_mesh registry_sets(struct registry *registry);
struct channels_mesh registry_channels(struct registry *registry);
