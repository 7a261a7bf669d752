/*
 * One UDP socket on the loop. Datagrams that cannot be sent at once are dropped, as the network may drop them too.
 * Longer ones than LIMIT_DATAGRAM_BYTES, which no node sends, are dropped on arrival.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "node/base/addr.h"
#include "node/base/err.h"

struct udp;

/* `data` is borrowed for the call, which may free the socket. */
typedef void (*udp_receive_cb)(void *ctx, const struct addr *from, const uint8_t *data, size_t len_bytes);

/* Bind to `listen` (an IPv6 any-address listens for IPv4 too). Callbacks come on the loop. ERR_BUSY: the port is taken.
 */
int udp_new(uv_loop_t *loop, const struct addr *listen, udp_receive_cb receive, void *ctx, struct udp **ret_udp,
            struct err *err);
/* Close; memory goes when the loop has run the close callback. */
void udp_free(struct udp *udp);

void udp_send(struct udp *udp, const struct addr *to, const void *data, size_t len_bytes);

/* The port that it is bound to. */
uint16_t udp_port(const struct udp *udp);

struct udp_stats {
    uint64_t sent, received, sent_bytes, received_bytes, send_failed;
};
const struct udp_stats *udp_stats(const struct udp *udp);
