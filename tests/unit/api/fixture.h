/*
 * A server with handlers of every kind on a socket in a temporary directory, its loop in a thread of its own, for the
 * tests of the server and of the client. The handlers stand behind routes of the real protocol.
 */
#pragma once

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/api/client.h"
#include "node/api/http.h"
#include "node/api/json.h"
#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/base/limits.h"

#define PATTERN(position) ((uint8_t)((position)*7 + ((position) >> 13)))
#define FLOOD_BYTES (8u << 20)
#define REQUEST_MS 1500

struct fixture {
    char dir[64];
    char path[96];
    uv_loop_t loop;
    uv_async_t stop;
    pthread_t thread;
    struct api_server *server;
    struct api_client *client;
    struct api_route routes[API_ROUTE_COUNT];
    struct err err;
    sem_t started, closed, done; /* a hanging handler was called; on_closed; a pull's done */
    atomic_uint limits, resumed;
    bool stopped;
};

/* ---- a timer that calls back once, for handlers that answer later ---- */

struct later {
    uv_timer_t timer;
    void (*call)(void *ctx);
    void *ctx;
};

static void later_close(uv_handle_t *handle)
{
    free(handle->data);
}

static void later_fire(uv_timer_t *timer)
{
    struct later *later = timer->data;
    later->call(later->ctx);
    uv_close((uv_handle_t *)timer, later_close);
}

static void call_later(struct fixture *f, void (*call)(void *ctx), void *ctx)
{
    struct later *later = calloc(1, sizeof *later);
    later->call = call;
    later->ctx = ctx;
    uv_timer_init(&f->loop, &later->timer);
    later->timer.data = later;
    uv_timer_start(&later->timer, later_fire, 2, 0);
}

/* ---- handlers ---- */

static void on_other(void *ctx, struct api_request *req)
{
    (void)ctx;
    struct err err;
    err_set(&err, ERR_UNSUPPORTED, "not in this fixture");
    api_reply_error_remedy(req, &err, "use another");
}

static void on_status(void *ctx, struct api_request *req)
{
    (void)ctx;
    api_reply_json(req, 200, json_pack("{s:s}", "node", "n1"));
}

static void on_echo(void *ctx, struct api_request *req)
{
    (void)ctx;
    struct err err;
    uint64_t number;
    if (api_request_query_u64(req, "n", 7, 1000, &number, &err) < 0) {
        api_reply_error(req, &err);
        return;
    }
    const char *q = api_request_query(req, "q");
    api_reply_json(
        req, 200,
        json_pack("{s:s, s:s?, s:I}", "name", api_request_param(req, "name"), "q", q, "n", (json_int_t)number));
}

static void reply_body(void *ctx)
{
    struct api_request *req = ctx;
    api_reply_json(req, 201, json_deep_copy(api_request_body(req)));
}

static void on_json_later(void *ctx, struct api_request *req)
{
    call_later(ctx, reply_body, req);
}

/* Takes an upload, pausing at every fourth piece, but no open file; answers with its size and digest. ?kind=refuse
 * fails in the middle, ?kind=deny at once, ?kind=hang never asks for more, ?kind=open always does and tells. */
struct upload {
    struct fixture *fixture;
    struct api_request *req;
    struct crypto_sha256 *hash;
    uint64_t bytes;
    unsigned pieces;
    bool refuse, hang, open, paused;
};

static void upload_free(struct upload *up)
{
    crypto_sha256_free(up->hash);
    free(up);
}

static void upload_resume(void *ctx)
{
    struct upload *up = ctx;
    atomic_fetch_add(&up->fixture->resumed, 1);
    up->paused = false;
    api_request_resume(up->req);
}

static enum api_flow upload_data(void *ctx, struct api_request *req, const void *data, size_t len)
{
    struct upload *up = ctx;
    assert(!up->paused);
    up->bytes += len;
    crypto_sha256_add(up->hash, data, len);
    if (up->refuse) {
        struct err err;
        err_set(&err, ERR_NOSPACE, "no room for it");
        upload_free(up);
        api_reply_error(req, &err);
        return API_MORE;
    }
    if (up->hang || up->open) {
        sem_post(&up->fixture->started);
        return up->hang ? API_PAUSE : API_MORE;
    }
    if (++up->pieces % 4 != 0)
        return API_MORE;
    if (up->pieces % 8 == 0) {
        api_request_resume(req); /* before the pause is known */
    } else {
        up->paused = true;
        call_later(up->fixture, upload_resume, up);
    }
    return API_PAUSE;
}

static void upload_end(void *ctx, struct api_request *req)
{
    struct upload *up = ctx;
    struct id digest;
    char text[DIGEST_TEXT_SIZE];
    crypto_sha256_take(up->hash, &digest);
    json_t *reply = json_pack("{s:s, s:I}", "digest", digest_text(&digest, text), "size_bytes", (json_int_t)up->bytes);
    upload_free(up);
    api_reply_json(req, 200, reply);
}

static void upload_closed(void *ctx, struct api_request *req)
{
    struct upload *up = ctx;
    struct fixture *f = up->fixture;
    struct err err;
    err_set(&err, ERR_CANCELLED, "gone");
    upload_free(up);
    assert_true(api_request_is_closed(req));
    api_reply_error(req, &err);
    sem_post(&f->closed);
}

static const struct api_request_ops upload_ops = {
    .on_data = upload_data, .on_end = upload_end, .on_closed = upload_closed};

static void on_put(void *ctx, struct api_request *req)
{
    const char *kind = api_request_query(req, "kind");
    struct err err;
    if (api_request_query(req, "from")) {
        err_set(&err, ERR_UNSUPPORTED, "only bytes");
        api_reply_error(req, &err);
        return;
    }
    if (kind && strcmp(kind, "deny") == 0) {
        err_set(&err, ERR_DENIED, "not this one");
        api_reply_error(req, &err);
        return;
    }
    struct upload *up = calloc(1, sizeof *up);
    up->fixture = ctx;
    up->req = req;
    up->refuse = kind && strcmp(kind, "refuse") == 0;
    up->hang = kind && strcmp(kind, "hang") == 0;
    up->open = kind && strcmp(kind, "open") == 0;
    crypto_sha256_new(&up->hash, NULL);
    api_request_watch(req, &upload_ops, up);
}

/* JSON or a stream. */
static void on_any(void *ctx, struct api_request *req)
{
    if (api_request_body(req))
        reply_body(req);
    else
        on_put(ctx, req);
}

/* "pattern-N": N bytes pulled, some of them later; "open-N": the same without a length; "cut": an error after 100,000;
 * "file": this path's own content from a descriptor. */
struct download {
    struct fixture *fixture;
    struct api_request *req;
    uint64_t end, cut_at;
    unsigned pulls;
};

static void download_resume(void *ctx)
{
    api_request_resume(ctx);
}

static ssize_t download_pull(void *ctx, struct api_request *req, uint64_t position, void *data, size_t max_bytes)
{
    struct download *down = ctx;
    if (position >= down->cut_at)
        return API_PULL_ERROR;
    if (position >= down->end)
        return API_PULL_END;
    if (++down->pulls % 5 == 0) {
        call_later(down->fixture, download_resume, req);
        return 0;
    }
    if (down->pulls % 7 == 0) {
        api_request_resume(req);
        return 0;
    }
    size_t len = down->end - position < max_bytes ? (size_t)(down->end - position) : max_bytes;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)data)[i] = PATTERN(position + i);
    return (ssize_t)len;
}

static void download_done(void *ctx)
{
    struct download *down = ctx;
    sem_post(&down->fixture->done);
    free(down);
}

static void reply_file(struct fixture *f, struct api_request *req)
{
    char path[128];
    snprintf(path, sizeof path, "%s/content", f->dir);
    file_write_atomic(path, "0123456789", 10, 0600, NULL);
    FILE *file = fopen(path, "r");
    api_reply_fd(req, API_TYPE_BYTES, dup(fileno(file)), 2, 6);
    fclose(file);
}

static void on_get(void *ctx, struct api_request *req)
{
    const char *digest = api_request_param(req, "digest");
    if (strcmp(digest, "file") == 0) {
        reply_file(ctx, req);
        return;
    }
    if (strcmp(digest, "none") == 0) {
        struct err err;
        err_set(&err, ERR_NOTFOUND, "no object 'none'");
        api_reply_error(req, &err);
        return;
    }
    struct download *down = calloc(1, sizeof *down);
    *down = (struct download){.fixture = ctx, .req = req, .end = 1000000, .cut_at = UINT64_MAX};
    const char *dash = strchr(digest, '-');
    if (dash)
        down->end = strtoull(dash + 1, NULL, 10);
    else
        down->cut_at = 100000;
    int64_t length = *digest == 'o' ? -1 : (int64_t)down->end;
    api_reply_pull(req, API_TYPE_BYTES, length, download_pull, download_done, down);
}

/* "count-N": N progress events and a result; "fail", "cut" and "silent" end after two in these ways; "flood": as many
 * lines as make FLOOD_BYTES, stopping when refused and going on when writable. */
struct flood {
    struct fixture *fixture;
    size_t sent;
};

static json_t *progress_event(uint64_t done)
{
    return json_pack("{s:s, s:I}", "event", API_EVENT_PROGRESS, "done_bytes", (json_int_t)done);
}

static void flood_more(void *ctx, struct api_request *req)
{
    struct flood *flood = ctx;
    char line[1024];
    memset(line, ' ', sizeof line);
    line[0] = '{';
    memcpy(line + sizeof line - 2, "}\n", 2);
    while (flood->sent < FLOOD_BYTES) {
        assert_true(api_stream_pending(req) <= LIMIT_API_STREAM_BYTES);
        if (api_stream_write(req, line, sizeof line) < 0) {
            atomic_fetch_add(&flood->fixture->limits, 1);
            return;
        }
        flood->sent += sizeof line;
    }
    free(flood);
    api_stream_event(req, json_pack("{s:s}", "event", API_EVENT_RESULT));
    api_stream_end(req);
}

static void flood_closed(void *ctx, struct api_request *req)
{
    struct flood *flood = ctx;
    assert_int_equal(api_stream_write(req, "x", 1), ERR_CLOSED);
    sem_post(&flood->fixture->closed);
    free(flood);
    api_stream_end(req);
}

static const struct api_request_ops flood_ops = {.on_writable = flood_more, .on_closed = flood_closed};

static void end_events(const char *how, struct api_request *req)
{
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "no provider of '%s'", how);
    if (strcmp(how, "fail") == 0) {
        api_stream_error(req, &err);
    } else if (strcmp(how, "cut") == 0) {
        api_stream_abort(req);
    } else {
        if (strcmp(how, "silent") != 0)
            api_stream_event(req, json_pack("{s:s}", "event", API_EVENT_RESULT));
        api_stream_end(req);
    }
}

static void on_fetch(void *ctx, struct api_request *req)
{
    const char *how = api_request_param(req, "digest");
    api_stream_begin(req, API_TYPE_EVENTS);
    if (strcmp(how, "flood") == 0) {
        struct flood *flood = calloc(1, sizeof *flood);
        flood->fixture = ctx;
        api_request_watch(req, &flood_ops, flood);
        flood_more(flood, req);
        return;
    }
    uint64_t count = strncmp(how, "count-", 6) == 0 ? strtoull(how + 6, NULL, 10) : 2;
    for (uint64_t i = 0; i < count; i++)
        api_stream_progress(req, progress_event(i));
    end_events(how, req);
}

/* Waits for the client to go. */
static void hang_closed(void *ctx, struct api_request *req)
{
    struct fixture *f = ctx;
    struct err err;
    err_set(&err, ERR_CANCELLED, "gone");
    api_reply_error(req, &err);
    sem_post(&f->closed);
}

static const struct api_request_ops hang_ops = {.on_closed = hang_closed};

static void on_hang(void *ctx, struct api_request *req)
{
    struct fixture *f = ctx;
    api_request_watch(req, &hang_ops, f);
    sem_post(&f->started);
}

/* A stream without an end. */
static void logs_closed(void *ctx, struct api_request *req)
{
    struct fixture *f = ctx;
    api_stream_end(req);
    sem_post(&f->closed);
}

static const struct api_request_ops logs_ops = {.on_closed = logs_closed};

static void on_logs(void *ctx, struct api_request *req)
{
    struct fixture *f = ctx;
    api_request_watch(req, &logs_ops, f);
    api_stream_begin(req, "text/plain");
    api_stream_write(req, "first\n", 6);
    sem_post(&f->started);
}

/* ---- the server's thread ---- */

static void on_stop(uv_async_t *async)
{
    struct fixture *f = async->data;
    api_server_free(f->server);
    uv_close((uv_handle_t *)async, NULL);
}

static void *serve(void *ctx)
{
    struct fixture *f = ctx;
    uv_run(&f->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void fixture_routes(struct fixture *f)
{
    static const struct {
        enum api_route_id id;
        api_handler_cb handler;
    } table[] = {
        {API_ROUTE_status, on_status},
        {API_ROUTE_container_get, on_echo},
        {API_ROUTE_container_run, on_json_later},
        {API_ROUTE_object_put, on_put},
        {API_ROUTE_image_import, on_any},
        {API_ROUTE_object_get, on_get},
        {API_ROUTE_object_fetch, on_fetch},
        {API_ROUTE_container_stop, on_hang},
        {API_ROUTE_container_logs, on_logs},
    };
    for (size_t i = 0; i < API_ROUTE_COUNT; i++)
        f->routes[i] =
            (struct api_route){api_route_specs[i].method, api_route_specs[i].path, api_route_specs[i].body, on_other};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        f->routes[table[i].id].handler = table[i].handler;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/cmig-api-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof f->path, "%s/run/node.sock", f->dir);
    fixture_routes(f);
    sem_init(&f->started, 0, 0);
    sem_init(&f->closed, 0, 0);
    sem_init(&f->done, 0, 0);
    uv_loop_init(&f->loop);
    uv_async_init(&f->loop, &f->stop, on_stop);
    f->stop.data = f;
    struct api_server_config config = {.loop = &f->loop,
                                       .socket_path = f->path,
                                       .group = "no-such-group-here",
                                       .routes = f->routes,
                                       .route_count = API_ROUTE_COUNT,
                                       .ctx = f,
                                       .request_ms = REQUEST_MS};
    if (api_server_new(&config, &f->server, &f->err) < 0)
        fail_msg("%s", f->err.text);
    assert_int_equal(api_client_new(f->path, &f->client, &f->err), 0);
    assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
    *state = f;
    return 0;
}

static void fixture_stop(struct fixture *f)
{
    if (f->stopped)
        return;
    f->stopped = true;
    uv_async_send(&f->stop);
    pthread_join(f->thread, NULL);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    fixture_stop(f);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    api_client_free(f->client);
    file_remove_tree(f->dir, NULL);
    sem_destroy(&f->started);
    sem_destroy(&f->closed);
    sem_destroy(&f->done);
    free(f);
    return 0;
}

/* ---- waiting, and talking without the client library ---- */

__attribute__((unused)) static bool await(sem_t *sem)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    return sem_timedwait(sem, &until) == 0;
}

__attribute__((unused)) static int raw_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = 10};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

__attribute__((unused)) static void raw_send(int fd, const char *text)
{
    size_t len = strlen(text);
    assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), len);
}

/* Everything until the other side closes, as text; -1 in *ret_status if it is no HTTP. */
__attribute__((unused)) static int raw_status(int fd, char *text, size_t size)
{
    size_t used = 0;
    ssize_t got;
    while (used < size - 1 && (got = recv(fd, text + used, size - 1 - used, 0)) > 0)
        used += (size_t)got;
    text[used] = '\0';
    int status = -1;
    sscanf(text, "HTTP/1.1 %d", &status);
    return status;
}

/* One request on a connection of its own, which is to be answered and closed. */
__attribute__((unused)) static int raw_request(struct fixture *f, const char *request, char *text, size_t size)
{
    int fd = raw_connect(f->path);
    raw_send(fd, request);
    int status = raw_status(fd, text, size);
    close(fd);
    return status;
}
