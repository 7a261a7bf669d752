/* One client of the server: reading, carrying out, replying in order, ending. */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/gateway/server_state.h"
#include "node/net/sock.h"

#define STALL_BYTES (4u << 20)  /* not read by a client: its commands wait until they are */
#define KEPT_BYTES (256u << 10) /* of an empty buffer */
#define KEEPALIVE_S 300

static struct client *client_of(struct session *session)
{
    return (struct client *)((char *)session - offsetof(struct client, session));
}

/* ---- the end of a client ---- */

/* Close it, but not from under those who are just dealing with it. */
static void doom(struct client *client)
{
    client->server->doomed += !client->doomed;
    client->doomed = true;
}

void server_client_cut(struct client *client, const char *why)
{
    char addr[ADDR_TEXT_SIZE];
    if (client->doomed)
        return;
    client->server->house.cut++;
    log_warn("registry", "client cut peer=%s why=\"%s\"", addr_text(&client->session.addr, addr), why);
    doom(client);
}

static void on_client_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    struct server *server = client->server;
    server->out_bytes -= client->counted;
    resp_reader_free(client->reader);
    buf_release(&client->out);
    buf_release(&client->sending);
    free(client);
    server->handles--;
}

static void unwait(struct client *client)
{
    if (!client->waiting)
        return;
    TAILQ_REMOVE(&client->server->waiting, client, waiting_entry);
    client->server->house.waiting--;
    client->waiting = false;
}

void server_client_close(struct client *client)
{
    struct server *server = client->server;
    char copy[LIMIT_SET_NAME_BYTES];
    const void *name;
    size_t len;
    while (channels_first_of(&client->session.subscriber, &name, &len)) {
        memcpy(copy, name, len);
        channels_unsubscribe(server->config.channels, &client->session.subscriber, copy, len);
    }
    unwait(client);
    TAILQ_REMOVE(&server->clients, client, entry);
    server->house.clients--;
    server->doomed -= client->doomed;
    server->held -= client->hold_count > 0;
    uv_close((uv_handle_t *)&client->tcp, on_client_closed);
}

/* ---- writing ---- */

static size_t unsent(const struct client *client)
{
    return client->out.len + client->sending.len;
}

/* Keep the sum of what all clients have not read. */
static void count_out(struct client *client)
{
    struct server *server = client->server;
    server->out_bytes += unsent(client) - client->counted;
    client->counted = unsent(client);
    if (client->out.failed)
        server_client_cut(client, "its replies are too many to be kept");
    else if (server->out_bytes > LIMIT_RESP_OUT_ALL_BYTES)
        server_client_cut(client, "the replies to all clients are too many to be kept");
}

static void drop_sent(struct client *client, size_t len)
{
    buf_consume(&client->out, len);
    for (size_t i = 0; i < client->hold_count; i++)
        client->holds[i].at -= len;
    if (client->out.len == 0 && client->out.cap > KEPT_BYTES)
        buf_release(&client->out);
}

/* Enough was sent for its commands to go on. */
static void unstall(struct client *client)
{
    if (!client->stalled || unsent(client) >= STALL_BYTES / 2)
        return;
    client->stalled = false;
    server_client_process(client);
}

static void on_written(uv_write_t *request, int status)
{
    struct client *client = request->data;
    client->writing = false;
    buf_clear(&client->sending);
    if (client->sending.cap > KEPT_BYTES)
        buf_release(&client->sending);
    if (status < 0) {
        doom(client);
        return;
    }
    if (client->doomed)
        return;
    server_client_flush(client);
    unstall(client);
}

/* What the kernel did not take at once is copied, so that replies can go on gathering. */
static void write_later(struct client *client, size_t len)
{
    if (buf_add(&client->sending, client->out.data, len) < 0) {
        server_client_cut(client, "no memory for its replies");
        return;
    }
    drop_sent(client, len);
    uv_buf_t buf = uv_buf_init((char *)client->sending.data, (unsigned)client->sending.len);
    client->writing = true;
    client->write.data = client;
    if (uv_write(&client->write, (uv_stream_t *)&client->tcp, &buf, 1, on_written) < 0) {
        client->writing = false;
        doom(client);
    }
}

void server_client_flush(struct client *client)
{
    size_t len = client->hold_count > 0 ? client->holds[0].at : client->out.len;
    if (len > 0 && !client->writing && !client->doomed) {
        uv_buf_t buf = uv_buf_init((char *)client->out.data, (unsigned)len);
        int sent = uv_try_write((uv_stream_t *)&client->tcp, &buf, 1);
        if (sent > 0)
            drop_sent(client, (size_t)sent);
        if (sent < 0 && sent != UV_EAGAIN)
            doom(client);
        else if (sent < (int)len)
            write_later(client, len - (size_t)(sent > 0 ? sent : 0));
    }
    count_out(client);
    bool over = client->session.ending || (client->heard_all && !client->has_request && !client->stalled);
    if (over && unsent(client) == 0)
        doom(client);
}

/* What was replied from `at` on tells of something that the commit that gathers will make durable. */
static void hold(struct client *client, size_t at)
{
    uint64_t commit = sets_gathering(client->server->config.sets);
    if (client->hold_count > 0 && client->holds[client->hold_count - 1].commit == commit)
        return;
    client->server->held += client->hold_count == 0;
    client->holds[client->hold_count++] = (struct hold){at, commit};
}

void server_client_release(struct client *client, uint64_t durable)
{
    size_t done = 0;
    while (done < client->hold_count && client->holds[done].commit <= durable)
        done++;
    client->hold_count -= done;
    client->server->held -= done > 0 && client->hold_count == 0;
    memmove(client->holds, client->holds + done, client->hold_count * sizeof *client->holds);
    server_client_flush(client);
    unstall(client);
}

void server_client_fail(struct client *client, const struct err *err)
{
    client->out.len = client->holds[0].at;
    client->hold_count = 0;
    client->server->held--;
    resp_put_error(&client->out, "MISCONF what was written is not on disk yet: %s", err->text);
    client->session.ending = true;
    server_client_flush(client);
}

static void push(struct subscriber *subscriber, const void *bytes, size_t len_bytes)
{
    struct session *session = (struct session *)((char *)subscriber - offsetof(struct session, subscriber));
    struct client *client = client_of(session);
    if (client->doomed)
        return;
    if (unsent(client) + len_bytes > LIMIT_RESP_PUSHED_BYTES) {
        server_client_cut(client, "it does not read its messages");
        return;
    }
    buf_add(&client->out, bytes, len_bytes);
    server_client_flush(client);
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buf)
{
    (void)suggested;
    struct client *client = handle->data;
    *ret_buf = uv_buf_init(client->server->read_buffer, READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
    struct client *client = stream->data;
    struct err err;
    if (client->doomed || len == 0)
        return;
    if (len == UV_EOF) {
        client->heard_all = true;
        client->reading = false;
        uv_read_stop(stream);
        server_client_flush(client);
    } else if (len < 0) {
        doom(client);
    } else if (resp_feed(client->reader, buf->base, (size_t)len, &err) < 0) {
        server_client_cut(client, err.text);
    } else {
        server_client_process(client);
    }
}

static void set_reading(struct client *client, bool reading)
{
    if (client->reading == reading || client->heard_all)
        return;
    client->reading = reading;
    if (!reading)
        uv_read_stop((uv_stream_t *)&client->tcp);
    else if (uv_read_start((uv_stream_t *)&client->tcp, on_alloc, on_read) < 0)
        doom(client);
}

static void refuse_bytes(struct client *client, const struct err *why)
{
    struct server *server = client->server;
    char addr[ADDR_TEXT_SIZE];
    uint64_t skipped = 0;
    if (why->code == ERR_DENIED) {
        /* A browser or a scanner: whatever we said, it would be misread. */
        if (log_allowed(&server->foreign, server_mono_ms(server), 1000, &skipped))
            log_warn("registry", "client closed, it speaks HTTP or TLS peer=%s more=%llu",
                     addr_text(&client->session.addr, addr), (unsigned long long)skipped);
        doom(client);
        return;
    }
    resp_put_error(&client->out, "ERR Protocol error: %s", why->text);
    client->session.ending = true;
}

/* Carry out one command. False: not now. */
static bool run_request(struct client *client)
{
    struct server *server = client->server;
    uint64_t written = sets_written(server->config.sets);
    size_t at = client->out.len;
    client->session.used_ms = sets_wall_ms(server->config.sets);
    if (command_run(&server->house, &client->session, &client->request, &client->out) == COMMAND_WAIT) {
        client->waiting = true;
        server->house.waiting++;
        TAILQ_INSERT_TAIL(&server->waiting, client, waiting_entry);
        return false;
    }
    client->has_request = false;
    server->house.commands++;
    if (sets_written(server->config.sets) != written)
        hold(client, at);
    return true;
}

static bool next_request(struct client *client)
{
    struct err err;
    if (client->has_request)
        return true;
    int status = resp_next(client->reader, &client->request, &err);
    client->has_request = status == 1;
    if (status < 0)
        refuse_bytes(client, &err);
    return status == 1;
}

/* Carry out what has arrived, then send all replies at once. */
void server_client_process(struct client *client)
{
    while (!client->doomed && !client->session.ending && !client->waiting && !client->stalled && next_request(client) &&
           run_request(client)) {
        if (client->out.failed)
            break;
        if (unsent(client) >= STALL_BYTES) {
            server_client_flush(client);
            client->stalled = unsent(client) >= STALL_BYTES;
        }
    }
    server_client_flush(client);
    if (client->doomed)
        return;
    set_reading(client, !client->waiting && !client->stalled && !client->session.ending);
    bool amid = client->reading && resp_is_amid(client->reader);
    if (!amid)
        client->amid_ms = 0;
    else if (client->amid_ms == 0)
        client->amid_ms = server_mono_ms(client->server);
}

void server_client_begin(struct client *client)
{
    struct server *server = client->server;
    struct sockaddr_storage sock;
    int len = sizeof sock;
    if (uv_tcp_getpeername(&client->tcp, (struct sockaddr *)&sock, &len) == 0)
        client->session.addr = sock_to_addr((struct sockaddr *)&sock);
    client->session.id = ++server->next_id;
    client->session.since_ms = sets_wall_ms(server->config.sets);
    subscriber_init(&client->session.subscriber, push);
    buf_init(&client->out, LIMIT_RESP_OUT_BYTES);
    buf_init(&client->sending, LIMIT_RESP_OUT_BYTES);
    uv_tcp_nodelay(&client->tcp, 1);
    uv_tcp_keepalive(&client->tcp, 1, KEEPALIVE_S);
    TAILQ_INSERT_TAIL(&server->clients, client, entry);
    server->house.clients++;
    set_reading(client, true);
}
