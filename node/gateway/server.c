#include "node/gateway/server.h"

#include <stdlib.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/gateway/server_state.h"

#define WAIT_TICK_MS 50 /* while somebody waits for a set */
#define SECOND_MS 1000
#define GATHER_MAX_NS 1000000 /* that a commit is put off, at most, for more writers to join it */

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
    if (log_allowed(&server->refused, server_mono_ms(server), 1000, &skipped))
        log_warn("registry", "client refused, there are %d more=%llu", LIMIT_RESP_CLIENTS, (unsigned long long)skipped);
    uv_try_write((uv_stream_t *)&client->tcp, &buf, 1);
    uv_close((uv_handle_t *)&client->tcp, on_refused_closed);
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
        server_client_begin(client);
}

/* ---- the loop ---- */

static void close_doomed(struct server *server)
{
    struct client *client, *next;
    for (client = TAILQ_FIRST(&server->clients); client && server->doomed > 0; client = next) {
        next = TAILQ_NEXT(client, entry);
        if (client->doomed)
            server_client_close(client);
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
            server_client_cut(client, "its command does not end");
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
    uint64_t now = server_mono_ms(server);
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
        server_client_process(client);
    }
}

void server_sets_ready(struct server *server)
{
    if (!server->closing)
        resume_waiting(server);
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
            server_client_fail(client, err);
        else
            server_client_release(client, durable);
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
    int status = 0;
    if (config->listen.family)
        status = listener_new(config->loop, &config->listen, on_connection, server, &server->listener, err);
    if (status < 0) {
        free(server);
        return err_wrap(err, "RESP gateway (--resp)");
    }
    server->house = (struct command_house){.sets = config->sets,
                                           .channels = config->channels,
                                           .started_ms = clock_wall_ms(&config->clock),
                                           .port = server->listener ? listener_port(server->listener) : 0,
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
        server_client_close(client);
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
