/*
 * The HTTP server on the local socket: routes requests to handlers on the loop's thread and carries their answers.
 *
 * It owns the socket file, the connections and the requests; it knows nothing of what the handlers do. Who may open
 * the socket (mode 0660, group) may do everything; requests that a browser or a proxy could have sent on somebody
 * else's behalf (Origin, Forwarded, a Host that is no local name) are refused before routing.
 *
 * 1. Everything here is called on the loop's thread, and all callbacks come on it.
 * 2. A handler answers its request exactly once: api_reply_*, or api_stream_begin and later api_stream_end or
 *    api_stream_abort. It may do so at once or at any time later, and must do so even when the client has gone. After
 *    the answer the request is not touched again.
 * 3. on_closed comes at most once, only before the answer, when the client went away or the server is being freed:
 *    the time to cancel the work. The request stays valid until it is answered.
 * 4. What a client can make grow is bounded: connections, header size, JSON bodies and queues, by limits.h.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "node/api/protocol.h"
#include "node/base/err.h"

struct api_server;
struct api_request;

typedef void (*api_handler_cb)(void *ctx, struct api_request *req);

struct api_route {
    const char *method;
    const char *path; /* "/v1/containers/{name}/logs" */
    enum api_body_mode body;
    api_handler_cb handler; /* with API_BODY_STREAM: before the body comes; otherwise after it */
};

struct api_server_config {
    uv_loop_t *loop;                /* borrowed, outlives the server */
    const char *socket_path;        /* its directory is made; at most 107 bytes */
    const char *group;              /* of the socket file; NULL or a group that does not exist: the process's own */
    const struct api_route *routes; /* borrowed, outlives the server */
    size_t route_count;
    void *ctx;           /* for the handlers, borrowed */
    uint64_t request_ms; /* from accept to a whole request; 0: LIMIT_API_REQUEST_MS */
};

/* Listen. ERR_BUSY if somebody answers on the socket already; a socket file that nobody answers on is replaced, any
 * other file is not (ERR_EXISTS). */
int api_server_new(const struct api_server_config *config, struct api_server **ret_server, struct err *err);
/* Close: unanswered requests get on_closed, connections end, the socket file goes. The memory goes when the loop has
 * run the handles' close callbacks. NULL is fine. */
void api_server_free(struct api_server *server);
/* Connections at the moment. */
size_t api_server_connections(const struct api_server *server);

/* ---- the request: text is borrowed and lives until the answer ---- */

/* The decoded segment that stood for "{name}"; never NULL for a name of the route's path, never empty. It is text of
 * the user's: check it (digest_parse, name_is_valid) before it is used for anything. */
const char *api_request_param(const struct api_request *req, const char *name);
/* The decoded query parameter, or NULL. The first one wins. */
const char *api_request_query(const struct api_request *req, const char *name);
/* A query parameter as a decimal number of at most max, fallback if it is missing. ERR_INVALID names it. */
int api_request_query_u64(const struct api_request *req, const char *name, uint64_t fallback, uint64_t max,
                          uint64_t *ret_number, struct err *err);
/* The JSON body (an object, never NULL) of a route that takes JSON; NULL where the body is a stream. */
const json_t *api_request_body(const struct api_request *req);
/* Content-Length of a streamed body, -1 if the client did not say. */
int64_t api_request_length(const struct api_request *req);
/* Has the client gone? (Then any answer is dropped.) */
bool api_request_is_closed(const struct api_request *req);

enum api_flow { API_MORE, API_PAUSE };

struct api_request_ops {
    /* Bytes of a streamed body, borrowed until return, all of them taken. API_PAUSE: no more until api_request_resume,
     * which may be called before on_data returns. Answering here discards the rest of the body. */
    enum api_flow (*on_data)(void *ctx, struct api_request *req, const void *data, size_t len_bytes);
    /* The streamed body is complete. */
    void (*on_end)(void *ctx, struct api_request *req);
    /* The queue of a stream has fallen below half of its maximum after a write was refused. */
    void (*on_writable)(void *ctx, struct api_request *req);
    void (*on_closed)(void *ctx, struct api_request *req); /* invariant 3 */
    /* The answer to api_request_want_descriptor, at most once and only before the answer: an open file, the handler's
     * to close, or -1 and why there is none. */
    void (*on_descriptor)(void *ctx, struct api_request *req, int fd, const struct err *err);
};

/* Set the callbacks (each may be NULL), from the handler or later; ops and ctx are borrowed until the answer. A handler
 * of a streamed body sets on_data and on_end before it returns, or answers; otherwise the request ends in an error. */
void api_request_watch(struct api_request *req, const struct api_request_ops *ops, void *ctx);
void api_request_resume(struct api_request *req);
/* Of a request without a body, after api_stream_begin: let the client hand over an open file (node/api/descriptor.h) on
 * the connection itself. It has to be told by an event when it may, for what it sends before is taken for HTTP; and it
 * has as long for it as for a request. */
void api_request_want_descriptor(struct api_request *req);

/* ---- answers ---- */

/* Takes the reference to `reply`; NULL (out of memory while it was built) answers with an error. */
void api_reply_json(struct api_request *req, unsigned status, json_t *reply);
/* {"error": {...}} with the HTTP status and the remedy that err->code has at this route. */
void api_reply_error(struct api_request *req, const struct err *err);
void api_reply_error_remedy(struct api_request *req, const struct err *err, const char *remedy);
/* length bytes of a file from offset; takes the descriptor, also when the client has gone. */
void api_reply_fd(struct api_request *req, const char *content_type, int fd, uint64_t offset, uint64_t length);

#define API_PULL_END (-1)   /* only where the length was unknown */
#define API_PULL_ERROR (-2) /* the connection is cut, so the client knows that something is missing */
/* Fill ret_data with 1 to max_bytes bytes and return how many, or 0 and call api_request_resume when there are more. */
typedef ssize_t (*api_pull_cb)(void *ctx, struct api_request *req, uint64_t position, void *ret_data, size_t max_bytes);
/* A raw body pulled as the client takes it; length -1: unknown. `done` (never NULL) is called once at the end, whether
 * all was taken, the client went or the server is freed, but never between a pull that gave 0 and its resume, so that
 * work for it may go on elsewhere. The request is valid until then. */
void api_reply_pull(struct api_request *req, const char *content_type, int64_t length, api_pull_cb pull,
                    void (*done)(void *ctx), void *ctx);

/* ---- streams: pushed by the handler ---- */

#define API_TYPE_EVENTS "application/x-ndjson"
#define API_TYPE_BYTES "application/octet-stream"

/* Begin an answer of unknown length, status 200. */
void api_stream_begin(struct api_request *req, const char *content_type);
/* Queue bytes. ERR_LIMIT if the queue (LIMIT_API_STREAM_BYTES) has no room: nothing was queued, on_writable will come.
 * ERR_CLOSED if the client has gone. */
int api_stream_write(struct api_request *req, const void *data, size_t len_bytes);
/* Queue one event line; takes the reference. Errors as api_stream_write, ERR_NOMEM if event is NULL. */
int api_stream_event(struct api_request *req, json_t *event);
/* The same for progress, of which only the newest matters: dropped without a word when the client is behind. */
void api_stream_progress(struct api_request *req, json_t *event);
/* Bytes queued and not yet taken by the connection. */
size_t api_stream_pending(const struct api_request *req);
/* End the answer after what is queued. */
void api_stream_end(struct api_request *req);
/* A last event line {"event": "error", "code", "message", "remedy"} (the queue makes room for it), and the end. */
void api_stream_error(struct api_request *req, const struct err *err);
/* Cut the connection, so that a client of raw bytes knows that something is missing. */
void api_stream_abort(struct api_request *req);
