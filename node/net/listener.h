/*
 * A TCP socket that waits for connections. Owns the socket only: connections belong to whoever accepts them.
 */
#pragma once

#include <stdint.h>
#include <uv.h>

#include "node/base/addr.h"
#include "node/base/err.h"

struct listener;

/* A connection waits: the callback must uv_accept it, or no other ever comes. */
typedef void (*listener_cb)(void *ctx, uv_stream_t *server);

/* Bind to `listen` (an IPv6 any-address listens for IPv4 too). ERR_BUSY if the port is taken. */
int listener_new(uv_loop_t *loop, const struct addr *listen, listener_cb on_connection, void *ctx,
                 struct listener **ret_listener, struct err *err);
/* Close; memory goes when the loop has run the close callback. No callback comes any more. NULL is fine. */
void listener_free(struct listener *listener);

/* The port, which the system has chosen if 0 was asked for; 0 if it cannot be told. */
uint16_t listener_port(const struct listener *listener);
