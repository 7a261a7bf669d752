#include "node/net/listener.h"

#include <stdlib.h>

#include "node/net/sock.h"

#define BACKLOG 128

struct listener {
    uv_tcp_t handle;
    listener_cb on_connection;
    void *ctx;
};

static void on_connection(uv_stream_t *server, int status)
{
    const struct listener *listener = server->data;
    if (status == 0)
        listener->on_connection(listener->ctx, server);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

int listener_new(uv_loop_t *loop, const struct addr *listen, listener_cb connected, void *ctx,
                 struct listener **ret_listener, struct err *err)
{
    struct listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return err_set(err, ERR_NOMEM, "no memory for a TCP socket");
    struct sockaddr_storage sock;
    char text[ADDR_TEXT_SIZE];
    listener->on_connection = connected;
    listener->ctx = ctx;
    sock_from_addr(listen, &sock);
    uv_tcp_init(loop, &listener->handle);
    listener->handle.data = listener;
    int status = uv_tcp_bind(&listener->handle, (struct sockaddr *)&sock, 0);
    if (status == 0)
        status = uv_listen((uv_stream_t *)&listener->handle, BACKLOG, on_connection);
    if (status < 0) {
        listener_free(listener);
        return err_set(err, status == UV_EADDRINUSE ? ERR_BUSY : ERR_IO, "cannot listen on TCP %s (--listen): %s",
                       addr_text(listen, text), uv_strerror(status));
    }
    *ret_listener = listener;
    return 0;
}

void listener_free(struct listener *listener)
{
    if (listener)
        uv_close((uv_handle_t *)&listener->handle, on_closed);
}

uint16_t listener_port(const struct listener *listener)
{
    struct sockaddr_storage sock;
    int len = sizeof sock;
    if (uv_tcp_getsockname(&listener->handle, (struct sockaddr *)&sock, &len) < 0)
        return 0;
    return sock_to_addr((struct sockaddr *)&sock).port;
}
