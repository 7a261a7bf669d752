/*
 * Publish and subscribe: who here listens to which channel.
 *
 * Messages are delivered to local subscribers at once; the mesh is told of channels with subscribers here and of
 * messages published here, and hands in those of others, all through struct channels_mesh.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "node/base/buf.h"
#include "node/base/err.h"

struct channel;
struct channels;
struct subscription;

struct channels_mesh {
    /* Begin to listen: channels_deliver for each message of others, not from within. */
    int (*listen)(void *ctx, struct channels *channels, struct channel *channel, const void *name, size_t name_len,
                  void **ret_handle, struct err *err);
    void (*ignore)(void *ctx, void *handle);
    int (*publish)(void *ctx, const void *name, size_t name_len, const void *message, size_t len_bytes,
                   struct err *err);
    void *ctx; /* borrowed */
};

/* Part of whoever can subscribe; zeroed at first. `push` takes bytes for the client, borrowed for the call. */
struct subscriber {
    TAILQ_HEAD(, subscription) subscriptions;
    size_t count;
    void (*push)(struct subscriber *subscriber, const void *bytes, size_t len_bytes);
};
void subscriber_init(struct subscriber *subscriber,
                     void (*push)(struct subscriber *subscriber, const void *bytes, size_t len_bytes));

int channels_new(const struct channels_mesh *mesh, uint64_t seed, struct channels **ret_channels, struct err *err);
/* Nobody is subscribed any more. */
void channels_free(struct channels *channels);

/* 0 too if it is subscribed already. ERR_LIMIT past LIMIT_RESP_CHANNELS or LIMIT_RESP_SUBSCRIPTIONS, ERR_NOMEM. */
int channels_subscribe(struct channels *channels, struct subscriber *subscriber, const void *name, size_t name_len,
                       struct err *err);
/* 1, or 0 if it was not subscribed. */
int channels_unsubscribe(struct channels *channels, struct subscriber *subscriber, const void *name, size_t name_len);
/* The name of one channel that it is subscribed to, borrowed until it no longer is; false: none. */
bool channels_first_of(const struct subscriber *subscriber, const void **ret_name, size_t *ret_len);

/* To all subscribers here and elsewhere; *ret_receivers is how many there are here. ERR_LIMIT: the mesh takes no such
 * message, or none now; nobody got it. */
int channels_publish(struct channels *channels, const void *name, size_t name_len, const void *message,
                     size_t len_bytes, size_t *ret_receivers, struct err *err);
/* A message of somebody else. */
void channels_deliver(struct channels *channels, struct channel *channel, const void *message, size_t len_bytes);

size_t channels_count(const struct channels *channels);
