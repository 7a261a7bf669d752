#include "node/gateway/server.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/net/listener.h"
#include "node/net/sock.h"

#define READ_BYTES (64u << 10)
#define STALL_BYTES (4u << 20)  /* not read by a client: its commands wait until they are */
#define KEPT_BYTES (256u << 10) /* of an empty buffer */
#define WAIT_TICK_MS 50         /* while somebody waits for a set */
#define SECOND_MS 1000
#define KEEPALIVE_S 300
#define GATHER_MAX_NS 1000000 /* that a commit is put off, at most, for more writers to join it */

/* Of the bytes in `out`, those from `at` on may be sent when `commit` is durable. */
struct hold {
    size_t at;
    uint64_t commit;
};

struct client {
    TAILQ_ENTRY(client)
    entry;
    TAILQ_ENTRY(client)
    waiting_entry;
    struct server *server; /* borrowed */
    uv_tcp_t tcp;
    uv_write_t write;
    struct session session;
    struct resp_reader *reader; /* owned */
    struct resp_command request;
    bool has_request; /* which is not carried out yet */
    bool waiting;     /* for a set or a commit, in the list of these */
    bool stalled;     /* has much to read first */
    bool reading;
    bool heard_all; /* the client has ended its side */
    bool doomed;    /* to be closed when the turn of the loop ends */
    bool writing;
    struct buf out;       /* replies, in order */
    struct buf sending;   /* given to libuv */
    size_t counted;       /* of both, in server->out_bytes */
    struct hold holds[2]; /* commits that are under way: one being written, one that gathers */
    size_t hold_count;
    uint64_t amid_ms; /* since when a command has been arriving; 0: none is */
};

TAILQ_HEAD(client_list, client);

struct server {
    struct server_config config;
    struct command_house house;
    struct listener *listener; /* owned */
    struct client_list clients;
    struct client_list waiting;
    uv_timer_t timer;
    uv_prepare_t before_poll;
    uv_check_t after_poll;
    uv_idle_t gathering; /* runs while a commit is put off, so that polls do not block */
    unsigned handles;    /* open ones, of clients too */
    size_t doomed;
    size_t held;        /* clients with held replies */
    size_t writers;     /* that were held when the last commit ended */
    uint64_t commit_ns; /* when it began, on uv_hrtime */
    uint64_t gather_until_ns;
    size_t out_bytes;
    uint64_t next_id;
    uint64_t second_ms;
    struct log_limit foreign, refused;
    bool closing;
    char read_buffer[READ_BYTES];
};

static void process(struct client *client);

static uint64_t mono_of(const struct server *server)
{
    return clock_mono_ms(&server->config.clock);
}

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

static void cut(struct client *client, const char *why)
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

static void close_client(struct client *client)
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
        cut(client, "its replies are too many to be kept");
    else if (server->out_bytes > LIMIT_RESP_OUT_ALL_BYTES)
        cut(client, "the replies to all clients are too many to be kept");
}

static void drop_sent(struct client *client, size_t len)
{
    buf_consume(&client->out, len);
    for (size_t i = 0; i < client->hold_count; i++)
        client->holds[i].at -= len;
    if (client->out.len == 0 && client->out.cap > KEPT_BYTES)
        buf_release(&client->out);
}

static void flush(struct client *client);

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
    flush(client);
    if (client->stalled && unsent(client) < STALL_BYTES / 2) {
        client->stalled = false;
        process(client);
    }
}

/* What the kernel did not take at once is copied, so that replies can go on gathering. */
static void write_later(struct client *client, size_t len)
{
    if (buf_add(&client->sending, client->out.data, len) < 0) {
        cut(client, "no memory for its replies");
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

static void flush(struct client *client)
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

static void release_held(struct client *client, uint64_t durable)
{
    size_t done = 0;
    while (done < client->hold_count && client->holds[done].commit <= durable)
        done++;
    client->hold_count -= done;
    client->server->held -= done > 0 && client->hold_count == 0;
    memmove(client->holds, client->holds + done, client->hold_count * sizeof *client->holds);
}

static void push(struct subscriber *subscriber, const void *bytes, size_t len_bytes)
{
    struct session *session = (struct session *)((char *)subscriber - offsetof(struct session, subscriber));
    struct client *client = client_of(session);
    if (client->doomed)
        return;
    if (unsent(client) + len_bytes > LIMIT_RESP_PUSHED_BYTES) {
        cut(client, "it does not read its messages");
        return;
    }
    buf_add(&client->out, bytes, len_bytes);
    flush(client);
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
        flush(client);
    } else if (len < 0) {
        doom(client);
    } else if (resp_feed(client->reader, buf->base, (size_t)len, &err) < 0) {
        cut(client, err.text);
    } else {
        process(client);
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
        if (log_allowed(&server->foreign, mono_of(server), 1000, &skipped))
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
static void process(struct client *client)
{
    while (!client->doomed && !client->session.ending && !client->waiting && !client->stalled && next_request(client) &&
           run_request(client)) {
        if (client->out.failed)
            break;
        if (unsent(client) >= STALL_BYTES) {
            flush(client);
            client->stalled = unsent(client) >= STALL_BYTES;
        }
    }
    flush(client);
    if (client->doomed)
        return;
    set_reading(client, !client->waiting && !client->stalled && !client->session.ending);
    bool amid = client->reading && resp_is_amid(client->reader);
    if (!amid)
        client->amid_ms = 0;
    else if (client->amid_ms == 0)
        client->amid_ms = mono_of(client->server);
}

/* ---- accepting ---- */

static void on_refused_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    client->server->handles--;
    free(client);
}

static void refuse_client(struct client *client)
{
    char reply[] = "-ERR max number of clients reached\r\n";
    struct server *server = client->server;
    uv_buf_t buf = uv_buf_init(reply, sizeof reply - 1);
    uint64_t skipped = 0;
    server->house.refused++;
    if (log_allowed(&server->refused, mono_of(server), 1000, &skipped))
        log_warn("registry", "client refused, there are %d more=%llu", LIMIT_RESP_CLIENTS, (unsigned long long)skipped);
    uv_try_write((uv_stream_t *)&client->tcp, &buf, 1);
    uv_close((uv_handle_t *)&client->tcp, on_refused_closed);
}

static void begin_client(struct client *client)
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

static void on_connection(void *ctx, uv_stream_t *stream)
{
    struct server *server = ctx;
    struct err err;
    struct client *client = calloc(1, sizeof *client);
    if (!client)
        return;
    client->server = server;
    uv_tcp_init(server->config.loop, &client->tcp);
    client->tcp.data = client;
    server->handles++;
    server->house.connections++;
    int status = uv_accept(stream, (uv_stream_t *)&client->tcp);
    if (status < 0 || server->house.clients >= LIMIT_RESP_CLIENTS || resp_reader_new(&client->reader, &err) < 0)
        refuse_client(client);
    else
        begin_client(client);
}

/* ---- the loop ---- */

static void close_doomed(struct server *server)
{
    struct client *client, *next;
    for (client = TAILQ_FIRST(&server->clients); client && server->doomed > 0; client = next) {
        next = TAILQ_NEXT(client, entry);
        if (client->doomed)
            close_client(client);
    }
}

static void on_gathering(uv_idle_t *handle)
{
    (void)handle;
}

/* Those whose writes the last commit made durable, and those who waited behind them, are about to write again if they
 * do nothing else: one commit for all of them does twice as much as two for a half each. */
static bool is_gathering(const struct server *server)
{
    return server->held > 0 && server->held < server->writers && uv_hrtime() < server->gather_until_ns;
}

static void on_turn(struct server *server)
{
    struct sets *sets = server->config.sets;
    if (is_gathering(server)) {
        uv_idle_start(&server->gathering, on_gathering);
    } else {
        uint64_t commit = sets_gathering(sets);
        sets_commit(sets);
        if (sets_gathering(sets) != commit)
            server->commit_ns = uv_hrtime();
        uv_idle_stop(&server->gathering);
    }
    close_doomed(server);
}

static void on_before_poll(uv_prepare_t *handle)
{
    on_turn(handle->data);
}

static void on_after_poll(uv_check_t *handle)
{
    on_turn(handle->data);
}

/* A command that begins and does not end holds memory for nothing (faults 24). */
static void cut_slow(struct server *server, uint64_t now)
{
    struct client *client;
    TAILQ_FOREACH (client, &server->clients, entry) {
        if (client->amid_ms != 0 && client->reading && now >= client->amid_ms + LIMIT_RESP_COMMAND_MS)
            cut(client, "its command does not end");
    }
}

static void on_timer(uv_timer_t *timer);

static void arm(struct server *server, uint64_t delay_ms)
{
    if (!server->closing)
        uv_timer_start(&server->timer, on_timer, delay_ms, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct server *server = timer->data;
    uint64_t next = sets_tick(server->config.sets);
    uint64_t now = mono_of(server);
    if (now >= server->second_ms) {
        server->second_ms = now + SECOND_MS;
        cut_slow(server, now);
    }
    uint64_t most = TAILQ_EMPTY(&server->waiting) ? SECOND_MS : WAIT_TICK_MS;
    uint64_t delay = next > now ? next - now : 1;
    arm(server, delay < most ? delay : most);
}

/* Let those who wait try again; they may have to wait again. */
static void resume_waiting(struct server *server)
{
    struct client_list list;
    struct client *client;
    TAILQ_INIT(&list);
    TAILQ_CONCAT(&list, &server->waiting, waiting_entry);
    TAILQ_FOREACH (client, &list, waiting_entry) {
        client->waiting = false;
    }
    while ((client = TAILQ_FIRST(&list))) {
        TAILQ_REMOVE(&list, client, waiting_entry);
        server->house.waiting--;
        process(client);
    }
}

void server_sets_ready(struct server *server)
{
    if (!server->closing)
        resume_waiting(server);
}

static void fail_held(struct client *client, const struct err *err)
{
    client->out.len = client->holds[0].at;
    client->hold_count = 0;
    client->server->held--;
    resp_put_error(&client->out, "MISCONF what was written is not on disk yet: %s", err->text);
    client->session.ending = true;
}

void server_committed(struct server *server, int status, const struct err *err)
{
    if (server->closing)
        return;
    uint64_t durable = sets_durable(server->config.sets);
    struct client *client;
    TAILQ_FOREACH (client, &server->clients, entry) {
        if (client->hold_count == 0 || client->doomed)
            continue;
        if (status < 0)
            fail_held(client, err);
        else
            release_held(client, durable);
        flush(client);
    }
    resume_waiting(server);
    arm(server, 1);
}

/* ---- lifecycle ---- */

static void each_session(void *ctx, session_cb cb, void *cb_ctx)
{
    struct server *server = ctx;
    struct client *client;
    TAILQ_FOREACH (client, &server->clients, entry) {
        cb(cb_ctx, &client->session);
    }
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct server *server = handle->data;
    server->handles--;
}

int server_new(const struct server_config *config, struct server **ret_server, struct err *err)
{
    struct server *server = calloc(1, sizeof *server);
    if (!server)
        return err_set(err, ERR_NOMEM, "no memory for the RESP gateway");
    server->config = *config;
    TAILQ_INIT(&server->clients);
    TAILQ_INIT(&server->waiting);
    int status = listener_new(config->loop, &config->listen, on_connection, server, &server->listener, err);
    if (status < 0) {
        free(server);
        return err_wrap(err, "RESP gateway (--resp)");
    }
    server->house = (struct command_house){.sets = config->sets,
                                           .channels = config->channels,
                                           .started_ms = clock_wall_ms(&config->clock),
                                           .port = listener_port(server->listener),
                                           .each_session = each_session,
                                           .ctx = server};
    uv_timer_init(config->loop, &server->timer);
    uv_prepare_init(config->loop, &server->before_poll);
    uv_check_init(config->loop, &server->after_poll);
    uv_idle_init(config->loop, &server->gathering);
    server->timer.data = server->before_poll.data = server->after_poll.data = server->gathering.data = server;
    server->handles = 4;
    uv_prepare_start(&server->before_poll, on_before_poll);
    uv_check_start(&server->after_poll, on_after_poll);
    arm(server, 1);
    *ret_server = server;
    return 0;
}

void server_close(struct server *server)
{
    server->closing = true;
    listener_free(STEAL(server->listener));
    struct client *client, *next;
    for (client = TAILQ_FIRST(&server->clients); client; client = next) {
        next = TAILQ_NEXT(client, entry);
        close_client(client);
    }
    uv_close((uv_handle_t *)&server->timer, on_handle_closed);
    uv_close((uv_handle_t *)&server->before_poll, on_handle_closed);
    uv_close((uv_handle_t *)&server->after_poll, on_handle_closed);
    uv_close((uv_handle_t *)&server->gathering, on_handle_closed);
}

bool server_closed(const struct server *server)
{
    return server->closing && server->handles == 0;
}

void server_free(struct server *server)
{
    free(server);
}

uint16_t server_port(const struct server *server)
{
    return server->house.port;
}

const struct command_house *server_house(const struct server *server)
{
    return &server->house;
}
