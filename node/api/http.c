#include "node/api/http.h"

#include <assert.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node/api/descriptor.h"
#include "node/api/json.h"
#include "node/api/listen.h"
#include "node/api/request.h"
#include "node/base/limits.h"
#include "node/base/log.h"

#define MAX_CONNECTIONS (LIMIT_API_CONNECTIONS + LIMIT_API_SPARE_CONNECTIONS)
#define BLOCK_BYTES 65536u /* filled at a time */
#define SWEEP_MS 1000

struct connection {
    uv_poll_t watch; /* data: this */
    struct api_server *server;
    struct MHD_Connection *mhd;
    struct api_request *request; /* the library's reference, while one is being handled */
    int fd;                      /* the library's */
    bool excess;                 /* one too many: it is only told so */
    bool hung_up;                /* seen by the watch */
    uint64_t deadline_ms;        /* for a whole request; 0: it is here */
    size_t index;                /* in server->connections */
};

struct api_server {
    struct api_server_config config;
    struct api_listener listener;
    struct MHD_Daemon *daemon;
    uv_poll_t poll;   /* on the library's epoll descriptor */
    uv_timer_t timer; /* the library's timeouts and our deadlines */
    bool resumed;     /* a connection, which the library only looks at when it is run */
    size_t open_handles;
    struct connection *connections[MAX_CONNECTIONS]; /* owned, the first connection_count */
    size_t connection_count;
};

static void on_timer(uv_timer_t *timer);

/* ---- for request.c ---- */

void api_http_suspend(struct api_request *req)
{
    if (req->connection->hung_up) /* before there was anything to close */
        api_request_close(req);
    req->suspended = true;
    MHD_suspend_connection(req->connection->mhd);
    if (req->resumed || req->closed)
        api_http_resume(req);
    req->resumed = false;
}

void api_http_resume(struct api_request *req)
{
    if (!req->connection || !req->suspended)
        return;
    req->suspended = false;
    MHD_resume_connection(req->connection->mhd);
    req->connection->server->resumed = true;
    uv_timer_start(&req->connection->server->timer, on_timer, 0, 0);
}

static void respond(struct api_request *req, unsigned status, const char *content_type, struct MHD_Response *response)
{
    if (!response) { /* out of memory: the client sees the connection cut */
        api_request_close(req);
        return;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    req->status = status;
    req->response = response;
    if (req->closed)
        api_http_drop_response(req);
}

void api_http_respond_text(struct api_request *req, unsigned status, char *text)
{
    struct MHD_Response *response =
        text ? MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE) : NULL;
    if (!response)
        free(text);
    respond(req, status, "application/json", response);
}

void api_http_respond_fd(struct api_request *req, const char *content_type, int fd, uint64_t offset, uint64_t length)
{
    struct MHD_Response *response = MHD_create_response_from_fd_at_offset64(length, fd, offset);
    if (!response)
        close(fd);
    respond(req, MHD_HTTP_OK, content_type, response);
}

void api_http_respond_fill(struct api_request *req, const char *content_type, int64_t length, api_fill_cb fill,
                           void (*done)(void *req))
{
    _Static_assert(API_PULL_END == MHD_CONTENT_READER_END_OF_STREAM &&
                       API_PULL_ERROR == MHD_CONTENT_READER_END_WITH_ERROR,
                   "fill gives the library its own results");
    struct MHD_Response *response = MHD_create_response_from_callback(length < 0 ? MHD_SIZE_UNKNOWN : (uint64_t)length,
                                                                      BLOCK_BYTES, fill, req, done);
    if (!response)
        done(req);
    respond(req, MHD_HTTP_OK, content_type, response);
}

void api_http_drop_response(struct api_request *req)
{
    if (req->response)
        MHD_destroy_response(STEAL(req->response));
}

/* ---- from the library: a request comes in ---- */

static bool has_header(const struct api_request *req, const char *name)
{
    return MHD_lookup_connection_value(req->connection->mhd, MHD_HEADER_KIND, name) != NULL;
}

static enum MHD_Result screen_header(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
    (void)kind;
    api_screen_add(cls, name, value);
    return MHD_YES;
}

/* Answer before any handler; a body that is already on its way is read and dropped, so that the client gets to read. */
static void refuse(struct api_request *req, unsigned status, const struct err *err)
{
    api_request_set_json(req, status, api_json_error(err, NULL));
    req->discard_until_ms = uv_now(req->connection->server->config.loop) + LIMIT_API_DISCARD_MS;
}

static void refuse_framing(struct api_request *req, const struct err *err)
{
    refuse(req, MHD_HTTP_BAD_REQUEST, err);
    if (req->response)
        MHD_add_response_header(req->response, MHD_HTTP_HEADER_CONNECTION, "close");
}

static bool wants_stream(const struct api_request *req)
{
    enum api_body_mode mode = req->target.route->body;
    return mode == API_BODY_STREAM || (mode == API_BODY_ANY && !req->screen.json);
}

static int check_target(struct api_request *req, const char *method, unsigned *ret_status, char allow[API_ALLOW_SIZE],
                        struct err *err)
{
    const struct api_server_config *config = &req->connection->server->config;
    int code = api_target_parse(req->raw_target, &req->target, err);
    if (code == ERR_LIMIT)
        *ret_status = MHD_HTTP_URI_TOO_LONG;
    if (code < 0)
        return code;
    code = api_target_route(&req->target, method, config->routes, config->route_count, allow, err);
    if (code == ERR_UNSUPPORTED)
        *ret_status = MHD_HTTP_METHOD_NOT_ALLOWED;
    return code;
}

static int check(struct api_request *req, const char *method, unsigned *ret_status, char allow[API_ALLOW_SIZE],
                 struct err *err)
{
    if (req->connection->excess) {
        *ret_status = MHD_HTTP_SERVICE_UNAVAILABLE;
        return err_set(err, ERR_BUSY, "there are more than %d connections to this node", LIMIT_API_CONNECTIONS);
    }
    int code = api_screen_sender(&req->screen, err);
    if (code < 0 || (code = check_target(req, method, ret_status, allow, err)) < 0)
        return code;
    if (req->target.route->body == API_BODY_NONE && req->screen.length != 0)
        return err_set(err, ERR_INVALID, "this path takes no body");
    if (!wants_stream(req) && req->screen.length > (int64_t)LIMIT_API_BODY_BYTES)
        return err_set(err, ERR_LIMIT, "the body is longer than %u bytes", LIMIT_API_BODY_BYTES);
    return 0;
}

static enum MHD_Result queue_response(struct api_request *req)
{
    struct MHD_Response *response = STEAL(req->response);
    enum MHD_Result result = MHD_queue_response(req->connection->mhd, req->status, response);
    MHD_destroy_response(response);
    return result;
}

/* The header is here. */
static enum MHD_Result begin(struct api_request *req, const char *method)
{
    struct err err = {0};
    unsigned status = 0;
    char allow[API_ALLOW_SIZE] = "";
    req->begun = true;
    MHD_get_connection_values(req->connection->mhd, MHD_HEADER_KIND, screen_header, &req->screen);
    if (api_screen_framing(&req->screen, &err) < 0) {
        refuse_framing(req, &err);
        return req->response ? queue_response(req) : MHD_NO;
    }
    int code = check(req, method, &status, allow, &err);
    if (code < 0) {
        refuse(req, status ? status : api_error_status(code), &err);
        if (*allow && req->response)
            MHD_add_response_header(req->response, MHD_HTTP_HEADER_ALLOW, allow);
    } else if (wants_stream(req)) {
        req->connection->deadline_ms = 0;
        api_request_handle(req, req->connection->server->config.ctx);
        assert(req->response || req->closed || req->ops->on_data);
    }
    /* A client that waits for 100 (Continue) has sent no body yet and is spared it. */
    if (req->response && has_header(req, MHD_HTTP_HEADER_EXPECT))
        return queue_response(req);
    return req->closed ? MHD_NO : MHD_YES;
}

static enum MHD_Result take_body(struct api_request *req, const char *data, size_t len)
{
    if (req->response || req->discard_until_ms) {
        uint64_t now_ms = uv_now(req->connection->server->config.loop);
        if (req->discard_until_ms == 0)
            req->discard_until_ms = now_ms + LIMIT_API_DISCARD_MS;
        return now_ms < req->discard_until_ms ? MHD_YES : MHD_NO;
    }
    if (!req->handled) {
        struct err err = {0};
        if (buf_add(&req->body, data, len) < 0) {
            err_set(&err, ERR_LIMIT, "the body is longer than %u bytes", LIMIT_API_BODY_BYTES);
            refuse(req, MHD_HTTP_CONTENT_TOO_LARGE, &err);
        }
        return MHD_YES;
    }
    req->resumed = false;
    req->refs++;
    enum api_flow flow = req->ops->on_data(req->ops_ctx, req, data, len);
    if (flow == API_PAUSE && !req->resumed && !req->response && !req->closed)
        api_http_suspend(req);
    enum MHD_Result result = req->closed ? MHD_NO : MHD_YES;
    api_request_unref(req);
    return result;
}

/* The body is complete. */
static void finish(struct api_request *req)
{
    struct err err = {0};
    req->body_done = true;
    if (!req->wants_descriptor)
        req->connection->deadline_ms = 0;
    if (req->response)
        return;
    if (req->handled) {
        if (req->ops->on_end)
            req->ops->on_end(req->ops_ctx, req);
        return;
    }
    int code = 0;
    if (req->body.len > 0)
        code = api_json_parse(req->body.data, req->body.len, &req->json, &err);
    else if (!(req->json = json_object()))
        code = err_set(&err, ERR_NOMEM, "out of memory");
    if (code < 0)
        refuse(req, api_error_status(code), &err);
    else
        api_request_handle(req, req->connection->server->config.ctx);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                                  const char *version, const char *data, size_t *data_len, void **request)
{
    (void)cls, (void)mhd, (void)url, (void)version;
    struct api_request *req = *request;
    if (!req || !req->connection || req->closed)
        return MHD_NO;
    if (!req->begun)
        return begin(req, method);
    if (*data_len > 0) {
        if (req->suspended) /* with chunks the library goes on all the same; what is left it brings again */
            return MHD_YES;
        size_t len = *data_len;
        *data_len = 0;
        return take_body(req, data, len);
    }
    req->resumed = false;
    if (!req->body_done)
        finish(req);
    if (req->closed)
        return MHD_NO;
    if (req->response)
        return queue_response(req);
    api_http_suspend(req);
    return MHD_YES;
}

/* The request line is here: what this returns is the request's context in all later calls. */
static void *on_target(void *cls, const char *target, struct MHD_Connection *mhd)
{
    (void)cls;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct connection *connection = info ? info->socket_context : NULL;
    if (connection)
        connection->request = api_request_new(target, connection);
    return connection ? connection->request : NULL;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **request, enum MHD_RequestTerminationCode why)
{
    (void)cls, (void)mhd, (void)why;
    struct api_request *req = STEAL(*request);
    if (!req)
        return;
    struct connection *connection = STEAL(req->connection);
    connection->request = NULL;
    connection->deadline_ms = uv_now(connection->server->config.loop) + connection->server->config.request_ms;
    api_request_close(req);
    api_request_unref(req);
}

/* Paths and queries are decoded by route.c, after they are taken apart. */
static size_t keep_escapes(void *cls, struct MHD_Connection *mhd, char *text)
{
    (void)cls, (void)mhd;
    return strlen(text);
}

static void on_library_log(void *cls, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
static void on_library_log(void *cls, const char *format, va_list args)
{
    (void)cls;
    char line[256], text[512];
    int len = vsnprintf(line, sizeof line, format, args);
    if (len > 0)
        log_debug("api", "http text=\"%s\"", log_text(line, strcspn(line, "\n"), text, sizeof text));
}

/* ---- the loop ---- */

static void maybe_free(struct api_server *server)
{
    if (server->open_handles > 0)
        return;
    api_listener_close(&server->listener);
    free(server);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct api_server *server = handle->data;
    server->open_handles--;
    maybe_free(server);
}

static void on_watch_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;
    struct api_server *server = connection->server;
    free(connection);
    server->open_handles--;
    maybe_free(server);
}

/* A full hang-up only: a client that has merely finished sending still wants its answer. The library may have missed
 * it: its edge-triggered epoll is not told twice, once with the last data. A shutdown is one more edge. */
static void hang_up(struct connection *connection)
{
    struct pollfd state = {.fd = connection->fd, .events = POLLIN};
    uv_poll_stop(&connection->watch);
    connection->hung_up = poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR));
    if (!connection->hung_up)
        return;
    shutdown(connection->fd, SHUT_RDWR);
    if (connection->request && connection->request->handled)
        api_request_close(connection->request);
}

static void on_watch(uv_poll_t *watch, int status, int events);

/* Nothing, where the handler has answered without waiting for it. */
static void take_descriptor(struct connection *connection)
{
    struct api_request *req = connection->request;
    struct err err = {0};
    int fd = -1;
    bool wanted = req && req->wants_descriptor && !req->answered;
    if (wanted && api_descriptor_receive(connection->fd, &fd, &err) == 0)
        return;
    uv_poll_start(&connection->watch, UV_DISCONNECT, on_watch);
    if (!wanted)
        return;
    req->wants_descriptor = false;
    connection->deadline_ms = 0;
    req->ops->on_descriptor(req->ops_ctx, req, fd, &err);
}

static void on_watch(uv_poll_t *watch, int status, int events)
{
    struct connection *connection = watch->data;
    if (status == 0 && (events & UV_READABLE))
        take_descriptor(connection);
    if (status < 0 || (events & UV_DISCONNECT))
        hang_up(connection);
}

/* The library does not read while it answers, so the bytes that come are ours. */
void api_request_want_descriptor(struct api_request *req)
{
    struct connection *connection = req->connection;
    if (!connection || req->closed)
        return;
    req->wants_descriptor = true;
    connection->deadline_ms = uv_now(connection->server->config.loop) + connection->server->config.request_ms;
    uv_poll_start(&connection->watch, UV_DISCONNECT | UV_READABLE, on_watch);
}

static void connection_open(struct api_server *server, struct MHD_Connection *mhd, void **context)
{
    struct connection *connection = calloc(1, sizeof *connection);
    int fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    if (!connection || server->connection_count == MAX_CONNECTIONS ||
        uv_poll_init(server->config.loop, &connection->watch, fd) < 0) {
        free(connection);
        shutdown(fd, SHUT_RDWR);
        return;
    }
    connection->watch.data = connection;
    connection->server = server;
    connection->mhd = mhd;
    connection->fd = fd;
    connection->excess = server->connection_count >= LIMIT_API_CONNECTIONS;
    connection->index = server->connection_count++;
    server->connections[connection->index] = connection;
    connection->deadline_ms = uv_now(server->config.loop) + server->config.request_ms;
    server->open_handles++;
    uv_poll_start(&connection->watch, UV_DISCONNECT, on_watch);
    *context = connection;
}

static void connection_close(struct connection *connection)
{
    struct api_server *server = connection->server;
    struct connection *last = server->connections[--server->connection_count];
    server->connections[connection->index] = last;
    last->index = connection->index;
    uv_close((uv_handle_t *)&connection->watch, on_watch_closed);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        connection_open(cls, mhd, context);
    else if (*context)
        connection_close(STEAL(*context));
}

/* Deadlines for whole requests: the library's own timeout starts anew with each byte that a slow client sends. */
static void cut_late(struct api_server *server)
{
    uint64_t now_ms = uv_now(server->config.loop);
    for (size_t i = 0; i < server->connection_count; i++) {
        const struct connection *connection = server->connections[i];
        if (connection->deadline_ms && now_ms >= connection->deadline_ms)
            shutdown(connection->fd, SHUT_RDWR);
    }
}

static void run(struct api_server *server)
{
    MHD_UNSIGNED_LONG_LONG wait_ms;
    server->resumed = false;
    MHD_run(server->daemon);
    cut_late(server);
    if (MHD_get_timeout(server->daemon, &wait_ms) != MHD_YES || wait_ms > SWEEP_MS)
        wait_ms = SWEEP_MS;
    if (server->resumed)
        wait_ms = 0;
    if (server->connection_count > 0 || wait_ms < SWEEP_MS)
        uv_timer_start(&server->timer, on_timer, wait_ms, 0);
}

static void on_timer(uv_timer_t *timer)
{
    run(timer->data);
}

static void on_ready(uv_poll_t *watch, int status, int events)
{
    (void)status, (void)events;
    run(watch->data);
}

static int start_library(struct api_server *server, struct err *err)
{
    server->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, server,
        MHD_OPTION_EXTERNAL_LOGGER, on_library_log, NULL, MHD_OPTION_LISTEN_SOCKET, server->listener.fd,
        MHD_OPTION_URI_LOG_CALLBACK, on_target, server, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, server, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)LIMIT_API_CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(LIMIT_API_SILENT_MS / 1000),
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (!server->daemon)
        return err_set(err, ERR_INTERNAL, "cannot start the HTTP library on '%s'", server->listener.path);
    server->listener.fd = -1; /* the library's now */
    return 0;
}

static int watch_library(struct api_server *server, struct err *err)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    int code = uv_poll_init(server->config.loop, &server->poll, info->epoll_fd);
    if (code < 0)
        return err_errno(err, -code, "cannot watch the HTTP library");
    server->poll.data = server;
    server->open_handles++;
    uv_timer_init(server->config.loop, &server->timer);
    server->timer.data = server;
    server->open_handles++;
    uv_poll_start(&server->poll, UV_READABLE, on_ready);
    return 0;
}

int api_server_new(const struct api_server_config *config, struct api_server **ret_server, struct err *err)
{
    struct api_server *server = calloc(1, sizeof *server);
    if (!server)
        return err_set(err, ERR_NOMEM, "out of memory");
    server->config = *config;
    if (server->config.request_ms == 0)
        server->config.request_ms = LIMIT_API_REQUEST_MS;
    server->listener.fd = -1;
    int code = api_listener_open(config->socket_path, config->group, &server->listener, err);
    if (code == 0)
        code = start_library(server, err);
    if (code == 0)
        code = watch_library(server, err);
    if (code < 0) {
        if (server->daemon)
            MHD_stop_daemon(server->daemon);
        maybe_free(server);
        return code;
    }
    *ret_server = server;
    return 0;
}

void api_server_free(struct api_server *server)
{
    if (!server)
        return;
    uv_close((uv_handle_t *)&server->poll, on_handle_closed);
    for (size_t i = 0; i < server->connection_count; i++) {
        if (server->connections[i]->request)
            api_request_close(server->connections[i]->request);
    }
    MHD_stop_daemon(server->daemon);
    uv_close((uv_handle_t *)&server->timer, on_handle_closed);
    api_listener_close(&server->listener);
}

size_t api_server_connections(const struct api_server *server)
{
    return server->connection_count;
}
