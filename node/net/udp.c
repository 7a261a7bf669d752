/*
 * Not libuv's uv_udp_t: that asks the kernel once more after the last datagram, and wants a buffer of 64 KiB for each.
 * Here libuv only tells that something is there, and one call of the kernel takes what there is.
 */
#include "node/net/udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/net/sock.h"

#define BATCH 16 /* datagrams of one call; 16 x 1.3 KiB on the stack */

struct udp {
    uv_poll_t poll;
    int fd; /* owned */
    udp_receive_cb receive;
    void *ctx;
    bool families_mixed; /* an IPv6 socket that also carries IPv4, as mapped addresses */
    bool closing;
    struct udp_stats stats;
};

/* ---- receiving ---- */

struct batch {
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    struct sockaddr_in6 from[BATCH]; /* the largest that there is here */
    uint8_t bytes[BATCH][LIMIT_DATAGRAM_BYTES];
};

static int take_batch(int fd, struct batch *batch)
{
    for (size_t i = 0; i < BATCH; i++) {
        batch->parts[i] = (struct iovec){batch->bytes[i], sizeof batch->bytes[i]};
        batch->messages[i].msg_hdr = (struct msghdr){.msg_name = &batch->from[i],
                                                     .msg_namelen = sizeof batch->from[i],
                                                     .msg_iov = &batch->parts[i],
                                                     .msg_iovlen = 1};
    }
    return recvmmsg(fd, batch->messages, BATCH, MSG_DONTWAIT, NULL);
}

static void deliver(struct udp *udp, const struct mmsghdr *message)
{
    udp->stats.received++;
    udp->stats.received_bytes += message->msg_len;
    if (message->msg_hdr.msg_flags & MSG_TRUNC)
        return;
    struct addr from = sock_to_addr(message->msg_hdr.msg_name);
    udp->receive(udp->ctx, &from, message->msg_hdr.msg_iov->iov_base, message->msg_len);
}

/* What is left is told of again, after the other handles of the loop had their turn. */
static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct udp *udp = poll->data;
    struct batch batch;
    (void)status;
    (void)events;
    int count = take_batch(udp->fd, &batch);
    for (int i = 0; i < count && !udp->closing; i++)
        deliver(udp, &batch.messages[i]);
}

/* ---- beginning and end ---- */

static int bind_socket(const struct addr *listen, int *ret_fd)
{
    struct sockaddr_storage sock;
    int no = 0;
    sock_from_addr(listen, &sock);
    OWNED(owned_fd) int fd = socket(sock.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* A system may be set up to give IPv6 sockets IPv6 only. */
    if (listen->family == 6 && addr_is_any(listen))
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    if (bind(fd, (struct sockaddr *)&sock,
             listen->family == 6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in)) < 0)
        return -errno;
    *ret_fd = steal_fd(&fd);
    return 0;
}

int udp_new(uv_loop_t *loop, const struct addr *listen, udp_receive_cb receive, void *ctx, struct udp **ret_udp,
            struct err *err)
{
    char text[ADDR_TEXT_SIZE];
    OWNED(owned_free) struct udp *udp = calloc(1, sizeof *udp);
    if (!udp)
        return err_set(err, ERR_NOMEM, "no memory for a UDP socket");
    udp->receive = receive;
    udp->ctx = ctx;
    udp->families_mixed = listen->family == 6 && addr_is_any(listen);
    udp->poll.data = udp;
    int failed = bind_socket(listen, &udp->fd);
    if (failed < 0)
        return err_set(err, failed == -EADDRINUSE ? ERR_BUSY : ERR_IO, "cannot listen on UDP %s (--listen): %s",
                       addr_text(listen, text), strerror(-failed));
    int status = uv_poll_init(loop, &udp->poll, udp->fd);
    if (status < 0) {
        close(udp->fd);
        return err_set(err, ERR_IO, "cannot wait for UDP %s: %s", addr_text(listen, text), uv_strerror(status));
    }
    uv_poll_start(&udp->poll, UV_READABLE, on_readable);
    *ret_udp = STEAL(udp);
    return 0;
}

static void on_close(uv_handle_t *handle)
{
    free(handle->data);
}

void udp_free(struct udp *udp)
{
    if (!udp || udp->closing)
        return;
    udp->closing = true;
    uv_close((uv_handle_t *)&udp->poll, on_close); /* which no longer looks at the descriptor */
    close(udp->fd);
}

/* ---- sending ---- */

static struct addr mapped_to_v6(const struct addr *addr)
{
    struct addr mapped = {.family = 6, .port = addr->port};
    mapped.ip[10] = mapped.ip[11] = 0xff;
    memcpy(mapped.ip + 12, addr->ip, 4);
    return mapped;
}

void udp_send(struct udp *udp, const struct addr *to, const void *data, size_t len_bytes)
{
    struct sockaddr_storage sock;
    struct addr mapped;
    if (udp->families_mixed && to->family == 4) {
        mapped = mapped_to_v6(to);
        to = &mapped;
    }
    sock_from_addr(to, &sock);
    socklen_t sock_len = to->family == 6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (sendto(udp->fd, data, len_bytes, MSG_DONTWAIT, (struct sockaddr *)&sock, sock_len) < 0) {
        udp->stats.send_failed++;
        return;
    }
    udp->stats.sent++;
    udp->stats.sent_bytes += len_bytes;
}

/* ---- queries ---- */

uint16_t udp_port(const struct udp *udp)
{
    struct sockaddr_storage sock;
    socklen_t len = sizeof sock;
    getsockname(udp->fd, (struct sockaddr *)&sock, &len);
    return sock_to_addr((struct sockaddr *)&sock).port;
}

const struct udp_stats *udp_stats(const struct udp *udp)
{
    return &udp->stats;
}
