#include "node/api/request.h"

#include <stdlib.h>
#include <string.h>

#include "node/api/json.h"
#include "node/base/limits.h"
#include "node/base/scope.h"

/* Kept free in a stream's queue for an error: its text, JSON's escapes in it, and the remedy. */
#define LAST_EVENT_BYTES 8192u

static const struct api_request_ops no_ops;

struct api_request *api_request_new(const char *raw_target, struct connection *connection)
{
    struct api_request *req = calloc(1, sizeof *req);
    if (!req)
        return NULL;
    req->refs = 1;
    req->ops = &no_ops;
    req->connection = connection;
    buf_init(&req->body, LIMIT_API_BODY_BYTES);
    buf_init(&req->queue, LIMIT_API_STREAM_BYTES + LAST_EVENT_BYTES);
    req->raw_target = strdup(raw_target);
    if (!req->raw_target) {
        api_request_unref(req);
        return NULL;
    }
    return req;
}

void api_request_unref(struct api_request *req)
{
    if (--req->refs > 0)
        return;
    json_decref(req->json);
    buf_release(&req->body);
    buf_release(&req->queue);
    api_target_release(&req->target);
    free(req->raw_target);
    free(req);
}

void api_request_handle(struct api_request *req, void *ctx)
{
    req->handled = true;
    req->refs++;
    req->target.route->handler(ctx, req);
}

void api_request_close(struct api_request *req)
{
    if (req->closed)
        return;
    req->closed = true;
    req->refs++; /* on_closed may answer */
    api_http_drop_response(req);
    if (req->handled && !req->answered && req->ops->on_closed)
        req->ops->on_closed(req->ops_ctx, req);
    api_http_resume(req);
    api_request_unref(req);
}

static void answered(struct api_request *req)
{
    req->answered = true;
    api_http_resume(req);
    api_request_unref(req);
}

/* ---- whole answers ---- */

void api_request_set_json(struct api_request *req, unsigned status, json_t *reply)
{
    char *text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;
    json_decref(reply);
    api_http_respond_text(req, status, text);
}

void api_reply_json(struct api_request *req, unsigned status, json_t *reply)
{
    api_request_set_json(req, status, reply);
    answered(req);
}

void api_reply_error_remedy(struct api_request *req, const struct err *err, const char *remedy)
{
    api_reply_json(req, api_error_status(err->code), api_json_error(err, remedy));
}

static const char *remedy_of(const struct api_request *req, const struct err *err)
{
    return api_error_remedy(err->code, req->target.route ? req->target.route->path : NULL);
}

void api_reply_error(struct api_request *req, const struct err *err)
{
    api_reply_error_remedy(req, err, remedy_of(req, err));
}

void api_reply_fd(struct api_request *req, const char *content_type, int fd, uint64_t offset, uint64_t length)
{
    api_http_respond_fd(req, content_type, fd, offset, length);
    answered(req);
}

static ssize_t fill_pulled(void *cls, uint64_t position, char *data, size_t max_bytes)
{
    struct api_request *req = cls;
    if (req->closed)
        return API_PULL_ERROR;
    req->resumed = false;
    ssize_t got = req->pull(req->pull_ctx, req, position, data, max_bytes);
    if (got == 0) {
        req->pulling = !req->resumed;
        api_http_suspend(req);
    }
    return got;
}

static void pulled_done(void *cls)
{
    struct api_request *req = cls;
    req->pull_ended = true;
    if (req->pulling)
        return; /* the handler still works for it: api_request_resume comes back here */
    req->pull_done(req->pull_ctx);
    api_request_unref(req);
}

void api_reply_pull(struct api_request *req, const char *content_type, int64_t length, api_pull_cb pull,
                    void (*done)(void *ctx), void *ctx)
{
    req->pull = pull;
    req->pull_done = done;
    req->pull_ctx = ctx;
    req->refs++;
    api_http_respond_fill(req, content_type, length, fill_pulled, pulled_done);
    answered(req);
}

/* ---- streams ---- */

static ssize_t fill_from_queue(void *cls, uint64_t position, char *data, size_t max_bytes)
{
    (void)position;
    struct api_request *req = cls;
    if (req->closed)
        return API_PULL_ERROR;
    if (req->queue.len == 0 && req->ended)
        return req->cut ? API_PULL_ERROR : API_PULL_END;
    req->resumed = false;
    size_t len = req->queue.len < max_bytes ? req->queue.len : max_bytes;
    if (len == 0) {
        api_http_suspend(req);
        return 0;
    }
    memcpy(data, req->queue.data, len);
    buf_consume(&req->queue, len);
    if (req->refused && !req->answered && req->queue.len <= LIMIT_API_STREAM_BYTES / 2) {
        req->refused = false;
        if (req->ops->on_writable)
            req->ops->on_writable(req->ops_ctx, req);
    }
    return (ssize_t)len;
}

static void stream_done(void *cls)
{
    api_request_unref(cls);
}

void api_stream_begin(struct api_request *req, const char *content_type)
{
    req->refs++;
    api_http_respond_fill(req, content_type, -1, fill_from_queue, stream_done);
    api_http_resume(req);
}

int api_stream_write(struct api_request *req, const void *data, size_t len_bytes)
{
    if (req->closed)
        return ERR_CLOSED;
    if (len_bytes > LIMIT_API_STREAM_BYTES || req->queue.len + len_bytes > LIMIT_API_STREAM_BYTES) {
        req->refused = true;
        return ERR_LIMIT;
    }
    int code = buf_add(&req->queue, data, len_bytes);
    api_http_resume(req);
    return code;
}

int api_stream_event(struct api_request *req, json_t *event)
{
    OWNED(owned_free) char *text = event ? json_dumps(event, JSON_COMPACT) : NULL;
    json_decref(event);
    if (!text)
        return ERR_NOMEM;
    size_t len = strlen(text);
    text[len] = '\n'; /* in place of the NUL, so that a line is queued whole or not at all */
    return api_stream_write(req, text, len + 1);
}

void api_stream_progress(struct api_request *req, json_t *event)
{
    if (req->queue.len > LIMIT_API_STREAM_BYTES / 2)
        json_decref(event);
    else
        api_stream_event(req, event);
}

size_t api_stream_pending(const struct api_request *req)
{
    return req->queue.len;
}

void api_stream_end(struct api_request *req)
{
    req->ended = true;
    answered(req);
}

void api_stream_error(struct api_request *req, const struct err *err)
{
    OWNED(owned_json) json_t *event = api_json_error_event(err, remedy_of(req, err));
    OWNED(owned_free) char *line = event ? json_dumps(event, JSON_COMPACT) : NULL;
    if (!req->closed && (!line || buf_addf(&req->queue, "%s\n", line) < 0))
        req->cut = true;
    api_stream_end(req);
}

void api_stream_abort(struct api_request *req)
{
    req->cut = true;
    api_stream_end(req);
}

/* ---- what handlers ask of their request ---- */

const char *api_request_param(const struct api_request *req, const char *name)
{
    return api_target_param(&req->target, name);
}

const char *api_request_query(const struct api_request *req, const char *name)
{
    return api_target_query(&req->target, name);
}

int api_request_query_u64(const struct api_request *req, const char *name, uint64_t fallback, uint64_t max,
                          uint64_t *ret_number, struct err *err)
{
    const char *text = api_request_query(req, name);
    size_t len = text ? strlen(text) : 0;
    uint64_t number = 0;
    bool good = len > 0 && len <= 19; /* 19 digits fit 64 bits */
    for (size_t i = 0; good && i < len; i++) {
        good = text[i] >= '0' && text[i] <= '9';
        number = 10 * number + (uint64_t)(text[i] - '0');
    }
    if (text && (!good || number > max))
        return err_set(err, ERR_INVALID, "the query field '%s' is not a whole number from 0 to %llu", name,
                       (unsigned long long)max);
    *ret_number = text ? number : fallback;
    return 0;
}

const json_t *api_request_body(const struct api_request *req)
{
    return req->json;
}

int64_t api_request_length(const struct api_request *req)
{
    return req->screen.length;
}

bool api_request_is_closed(const struct api_request *req)
{
    return req->closed;
}

void api_request_watch(struct api_request *req, const struct api_request_ops *ops, void *ctx)
{
    req->ops = ops;
    req->ops_ctx = ctx;
}

void api_request_resume(struct api_request *req)
{
    req->pulling = false;
    if (req->pull_ended) {
        pulled_done(req);
        return;
    }
    req->resumed = !req->suspended;
    api_http_resume(req);
}
