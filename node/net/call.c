#include "node/net/call.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/base/wire.h"

#define REQUEST_HEAD_BYTES 9 /* number u64, length of the method u8 */
#define REPLY_HEAD_BYTES 9   /* number u64, status u8 */

/* Sent by us, not answered yet. */
struct pending {
    TAILQ_ENTRY(pending)
    entry;
    uint64_t number;
    struct link *link; /* borrowed until calls_link_down */
    uint64_t deadline_ms;
    call_reply_cb reply;
    void *ctx;
};

struct call_request {
    TAILQ_ENTRY(call_request)
    entry;
    struct calls *owner;
    struct link *link; /* borrowed until calls_link_down, then NULL */
    uint64_t number;
};

TAILQ_HEAD(pending_list, pending);
TAILQ_HEAD(request_list, call_request);

struct calls {
    struct clock clock;
    call_request_cb on_request;
    void *ctx;
    uint64_t next_number;
    size_t request_count;
    struct pending_list pending;
    struct request_list requests;
};

int calls_new(struct clock clock, call_request_cb on_request, void *ctx, struct calls **ret_calls, struct err *err)
{
    struct calls *calls = calloc(1, sizeof *calls);
    if (!calls)
        return err_set(err, ERR_NOMEM, "no memory for calls");
    *calls = (struct calls){.clock = clock, .on_request = on_request, .ctx = ctx, .next_number = 1};
    TAILQ_INIT(&calls->pending);
    TAILQ_INIT(&calls->requests);
    *ret_calls = calls;
    return 0;
}

void calls_free(struct calls *calls)
{
    if (!calls)
        return;
    struct pending *pending;
    while ((pending = TAILQ_FIRST(&calls->pending))) {
        TAILQ_REMOVE(&calls->pending, pending, entry);
        free(pending);
    }
    struct call_request *request;
    while ((request = TAILQ_FIRST(&calls->requests))) {
        TAILQ_REMOVE(&calls->requests, request, entry);
        free(request);
    }
    free(calls);
}

/* ---- our questions ---- */

static void finish(struct calls *calls, struct pending *pending, const struct err *err, const uint8_t *data, size_t len)
{
    TAILQ_REMOVE(&calls->pending, pending, entry);
    pending->reply(pending->ctx, err ? err->code : 0, err, data, len);
    free(pending);
}

int calls_send(struct calls *calls, struct link *link, const char *method, const void *data, size_t len_bytes,
               uint64_t timeout_ms, call_reply_cb reply, void *ctx, struct err *err)
{
    struct pending *pending = calloc(1, sizeof *pending);
    if (!pending)
        return err_set(err, ERR_NOMEM, "no memory for a call");
    *pending = (struct pending){.number = calls->next_number++,
                                .link = link,
                                .deadline_ms = clock_mono_ms(&calls->clock) + timeout_ms,
                                .reply = reply,
                                .ctx = ctx};
    uint8_t head[REQUEST_HEAD_BYTES + CALL_METHOD_MAX];
    size_t name_len = strlen(method);
    int status;
    if (name_len == 0 || name_len > CALL_METHOD_MAX) {
        status = err_set(err, ERR_INVALID, "'%.64s' is no word for a method", method);
    } else if (len_bytes > CALL_MAX_BYTES) {
        status = err_set(err, ERR_LIMIT, "a call of %zu bytes is too long", len_bytes);
    } else {
        wire_store_u64(head, pending->number);
        head[REQUEST_HEAD_BYTES - 1] = (uint8_t)name_len;
        memcpy(head + REQUEST_HEAD_BYTES, method, name_len);
        status = link_send(link, CALL_REQUEST, head, REQUEST_HEAD_BYTES + name_len, data, len_bytes, err);
    }
    if (status < 0) {
        free(pending);
        return status;
    }
    TAILQ_INSERT_TAIL(&calls->pending, pending, entry);
    return 0;
}

void calls_cancel(struct calls *calls, const void *ctx)
{
    struct pending *pending, *next;
    for (pending = TAILQ_FIRST(&calls->pending); pending; pending = next) {
        next = TAILQ_NEXT(pending, entry);
        if (pending->ctx == ctx) {
            TAILQ_REMOVE(&calls->pending, pending, entry);
            free(pending);
        }
    }
}

/* The error that a reply tells. Its text goes to logs and terminals of ours, and ERR_CLOSED means one thing here. */
static void told_error(uint8_t status, const uint8_t *text, size_t len, struct err *ret_err)
{
    char clean[ERR_TEXT_SIZE];
    int code = -(int)status;
    if (strcmp(err_name(code), "unknown") == 0)
        code = ERR_INTERNAL;
    else if (code == ERR_CLOSED)
        code = ERR_UNAVAILABLE;
    err_set(ret_err, code, "%s", log_text(text, len, clean, sizeof clean));
}

/* A reply: number u64, status u8 (0 or the negated error code), then the answer or the error's text. */
static int input_reply(struct calls *calls, struct link *link, struct wire *in, struct err *err)
{
    uint64_t number = wire_get_u64(in);
    uint8_t status = wire_get_u8(in);
    if (in->failed)
        return err_set(err, ERR_PROTOCOL, "a reply is cut short");
    if (number == 0 || number >= calls->next_number)
        return err_set(err, ERR_PROTOCOL, "a reply to nothing that was asked");
    struct pending *pending;
    TAILQ_FOREACH (pending, &calls->pending, entry)
        if (pending->number == number && pending->link == link)
            break;
    if (!pending)
        return 0; /* its deadline has passed */
    struct err told;
    size_t len = wire_left(in);
    const uint8_t *data = wire_get_bytes(in, len);
    if (status != 0)
        told_error(status, data, len, &told);
    finish(calls, pending, status ? &told : NULL, status ? NULL : data, status ? 0 : len);
    return 0;
}

/* ---- their questions ---- */

/* Who does not take its answers loses its link, so that it knows that none comes. */
static void send_reply(const struct call_request *request, uint8_t status, const void *data, size_t len)
{
    uint8_t head[REPLY_HEAD_BYTES];
    if (!request->link)
        return;
    wire_store_u64(head, request->number);
    head[REPLY_HEAD_BYTES - 1] = status;
    if (link_send(request->link, CALL_REPLY, head, sizeof head, data, len, NULL) < 0)
        link_close(request->link, SESSION_REASON_OVERLOAD);
}

static void send_error(const struct call_request *request, const struct err *err)
{
    int code = err->code < 0 && err->code >= -UINT8_MAX ? err->code : ERR_INTERNAL;
    send_reply(request, (uint8_t)-code, err->text, strlen(err->text));
}

static size_t requests_of(const struct calls *calls, const struct link *link)
{
    size_t count = 0;
    const struct call_request *request;
    TAILQ_FOREACH (request, &calls->requests, entry)
        count += request->link == link;
    return count;
}

static bool is_word(const uint8_t *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] > '~')
            return false;
    return len > 0 && len <= CALL_METHOD_MAX;
}

/* A request: number u64, length of the method u8, the method, then what is asked. */
static int input_request(struct calls *calls, struct link *link, struct wire *in, struct err *err)
{
    uint64_t number = wire_get_u64(in);
    size_t name_len = wire_get_u8(in);
    const uint8_t *name = wire_get_bytes(in, name_len);
    if (in->failed || !is_word(name, name_len))
        return err_set(err, ERR_PROTOCOL, "a request is malformed");
    if (calls->request_count >= LIMIT_CALL_REQUESTS || requests_of(calls, link) >= LIMIT_CALL_REQUESTS_PER_LINK) {
        struct call_request refused = {.owner = calls, .link = link, .number = number};
        struct err busy;
        err_set(&busy, ERR_BUSY, "too many requests wait for answers here");
        send_error(&refused, &busy);
        return 0;
    }
    struct call_request *request = calloc(1, sizeof *request);
    if (!request)
        return err_set(err, ERR_NOMEM, "no memory for a request");
    *request = (struct call_request){.owner = calls, .link = link, .number = number};
    TAILQ_INSERT_TAIL(&calls->requests, request, entry);
    calls->request_count++;
    char method[CALL_METHOD_MAX + 1];
    memcpy(method, name, name_len);
    method[name_len] = '\0';
    calls->on_request(calls->ctx, link, method, in->at, wire_left(in), request);
    return 0;
}

static void forget(struct call_request *request)
{
    TAILQ_REMOVE(&request->owner->requests, request, entry);
    request->owner->request_count--;
    free(request);
}

void call_reply(struct call_request *request, const void *data, size_t len_bytes)
{
    struct err err;
    if (len_bytes > CALL_MAX_BYTES) {
        err_set(&err, ERR_LIMIT, "the answer of %zu bytes is too long", len_bytes);
        send_error(request, &err);
    } else {
        send_reply(request, 0, data, len_bytes);
    }
    forget(request);
}

void call_refuse(struct call_request *request, const struct err *err)
{
    send_error(request, err);
    forget(request);
}

/* ---- events ---- */

int calls_input(struct calls *calls, struct link *link, uint8_t type, const uint8_t *data, size_t len_bytes,
                struct err *err)
{
    struct wire in;
    wire_init(&in, data, len_bytes);
    return type == CALL_REQUEST ? input_request(calls, link, &in, err) : input_reply(calls, link, &in, err);
}

void calls_link_down(struct calls *calls, struct link *link, const char *why)
{
    struct call_request *request;
    TAILQ_FOREACH (request, &calls->requests, entry)
        if (request->link == link)
            request->link = NULL;
    for (;;) {
        struct pending *pending;
        TAILQ_FOREACH (pending, &calls->pending, entry)
            if (pending->link == link)
                break;
        if (!pending)
            return;
        struct err err;
        err_set(&err, ERR_CLOSED, "the link ended: %s", why);
        finish(calls, pending, &err, NULL, 0);
    }
}

uint64_t calls_tick(struct calls *calls)
{
    uint64_t now = clock_mono_ms(&calls->clock);
    for (;;) {
        uint64_t wake = UINT64_MAX;
        struct pending *pending, *late = NULL;
        TAILQ_FOREACH (pending, &calls->pending, entry) {
            if (pending->deadline_ms <= now)
                late = pending;
            else if (pending->deadline_ms < wake)
                wake = pending->deadline_ms;
        }
        if (!late)
            return wake;
        struct err err;
        err_set(&err, ERR_TIMEOUT, "no answer in time");
        finish(calls, late, &err, NULL, 0);
    }
}
