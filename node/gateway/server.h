/*
 * The TCP server of the gateway: clients, their buffers, and the order of replies.
 *
 * Commands run as they arrive. A reply that tells of a write is held back, and all that follow it, until the commit of
 * that write is durable; a command that waits for a set holds back the commands that follow it. What clients can make
 * grow is bounded by the RESP part of limits.h: one who does not read is first not listened to, then cut.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "node/base/addr.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/gateway/command.h"

struct server;

struct server_config {
    uv_loop_t *loop;           /* borrowed */
    struct addr listen;        /* family 0: for no clients; the sets are kept going all the same */
    struct sets *sets;         /* borrowed */
    struct channels *channels; /* borrowed */
    struct clock clock;
};

/* Listens at once. ERR_BUSY: the port is taken. */
int server_new(const struct server_config *config, struct server **ret_server, struct err *err);
/* Cut all clients and stop listening; run the loop until server_closed, then free. */
void server_close(struct server *server);
bool server_closed(const struct server *server);
void server_free(struct server *server);

/* For struct sets_config. */
void server_sets_ready(struct server *server);
void server_committed(struct server *server, int status, const struct err *err);

uint16_t server_port(const struct server *server);
const struct command_house *server_house(const struct server *server);
