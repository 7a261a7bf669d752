#include "node/net/udp.h"

#include <stdlib.h>

#include "node/base/limits.h"
#include "node/net/sock.h"

struct udp {
    uv_udp_t handle;
    udp_receive_cb receive;
    void *ctx;
    bool families_mixed; /* an IPv6 socket that also carries IPv4, as mapped addresses */
    struct udp_stats stats;
    uint8_t buffer[65536];
};

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buf)
{
    (void)suggested;
    struct udp *udp = handle->data;
    *ret_buf = uv_buf_init((char *)udp->buffer, sizeof udp->buffer);
}

static void on_receive(uv_udp_t *handle, ssize_t count, const uv_buf_t *buf, const struct sockaddr *from,
                       unsigned flags)
{
    struct udp *udp = handle->data;
    if (count < 0 || !from)
        return;
    udp->stats.received++;
    udp->stats.received_bytes += (uint64_t)count;
    if (flags & UV_UDP_PARTIAL)
        return;
    struct addr addr = sock_to_addr(from);
    udp->receive(udp->ctx, &addr, (const uint8_t *)buf->base, (size_t)count);
}

static void on_close(uv_handle_t *handle)
{
    free(handle->data);
}

/* A system may be set up to give IPv6 sockets IPv6 only. */
static void accept_both_families(uv_udp_t *handle)
{
    uv_os_fd_t fd;
    int no = 0;
    if (uv_fileno((uv_handle_t *)handle, &fd) == 0)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
}

int udp_new(uv_loop_t *loop, const struct addr *listen, udp_receive_cb receive, void *ctx, struct udp **ret_udp,
            struct err *err)
{
    struct udp *udp = calloc(1, sizeof *udp);
    if (!udp)
        return err_set(err, ERR_NOMEM, "no memory for a UDP socket");
    udp->receive = receive;
    udp->ctx = ctx;
    udp->families_mixed = listen->family == 6 && addr_is_any(listen);
    udp->handle.data = udp;
    int status = uv_udp_init_ex(loop, &udp->handle, listen->family == 6 ? AF_INET6 : AF_INET);
    if (status < 0) {
        free(udp); /* libuv has not kept the handle */
        return err_set(err, ERR_IO, "cannot make a UDP socket: %s", uv_strerror(status));
    }
    if (udp->families_mixed)
        accept_both_families(&udp->handle);
    struct sockaddr_storage sock;
    sock_from_addr(listen, &sock);
    status = uv_udp_bind(&udp->handle, (struct sockaddr *)&sock, 0);
    if (status == 0)
        status = uv_udp_recv_start(&udp->handle, on_alloc, on_receive);
    if (status < 0) {
        char text[ADDR_TEXT_SIZE];
        udp_free(udp);
        return err_set(err, status == UV_EADDRINUSE ? ERR_BUSY : ERR_IO, "cannot listen on UDP %s (--listen): %s",
                       addr_text(listen, text), uv_strerror(status));
    }
    *ret_udp = udp;
    return 0;
}

void udp_free(struct udp *udp)
{
    if (udp)
        uv_close((uv_handle_t *)&udp->handle, on_close);
}

static void map_to_v6(struct sockaddr_storage *sock, const struct addr *addr)
{
    struct addr mapped = {.family = 6, .port = addr->port};
    mapped.ip[10] = mapped.ip[11] = 0xff;
    for (size_t i = 0; i < 4; i++)
        mapped.ip[12 + i] = addr->ip[i];
    sock_from_addr(&mapped, sock);
}

void udp_send(struct udp *udp, const struct addr *to, const void *data, size_t len_bytes)
{
    struct sockaddr_storage sock;
    if (udp->families_mixed && to->family == 4)
        map_to_v6(&sock, to);
    else
        sock_from_addr(to, &sock);
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)data, (unsigned)len_bytes);
    if (uv_udp_try_send(&udp->handle, &buf, 1, (struct sockaddr *)&sock) < 0) {
        udp->stats.send_failed++;
        return;
    }
    udp->stats.sent++;
    udp->stats.sent_bytes += len_bytes;
}

const struct udp_stats *udp_stats(const struct udp *udp)
{
    return &udp->stats;
}
