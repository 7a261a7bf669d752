#include "node/net/call.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "node/base/limits.h"
#include "node/base/wire.h"

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
    struct link *link; /* NULL once the link is down */
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
    OWNED(buf_release) struct buf head = BUF(16 + CALL_METHOD_MAX);
    wire_put_u64(&head, pending->number);
    wire_put_u8(&head, (uint8_t)strlen(method));
    buf_add(&head, method, strlen(method));
    int status = head.failed ? err_set(err, ERR_INVALID, "'%s' is too long for a method", method)
                             : link_send(link, CALL_REQUEST, head.data, head.len, data, len_bytes, err);
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

/* A reply: number u64, status u8 (0 or the negated error code), then the answer or the error's text. */
static int input_reply(struct calls *calls, struct link *link, struct wire *in, struct err *err)
{
    uint64_t number = wire_get_u64(in);
    uint8_t status = wire_get_u8(in);
    if (in->failed)
        return err_set(err, ERR_PROTOCOL, "a reply is cut short");
    struct pending *pending;
    TAILQ_FOREACH (pending, &calls->pending, entry)
        if (pending->number == number && pending->link == link)
            break;
    if (!pending)
        return 0; /* its deadline has passed */
    size_t len = wire_left(in);
    const uint8_t *data = wire_get_bytes(in, len);
    if (status == 0) {
        finish(calls, pending, NULL, data, len);
        return 0;
    }
    struct err told;
    err_set(&told, -(int)status, "%.*s", (int)(len < ERR_TEXT_SIZE ? len : ERR_TEXT_SIZE - 1), (const char *)data);
    finish(calls, pending, &told, NULL, 0);
    return 0;
}

/* ---- their questions ---- */

static int input_request(struct calls *calls, struct link *link, struct wire *in, struct err *err)
{
    uint64_t number = wire_get_u64(in);
    size_t name_len = wire_get_u8(in);
    const uint8_t *name = wire_get_bytes(in, name_len);
    if (in->failed || name_len == 0 || name_len > CALL_METHOD_MAX || memchr(name, '\0', name_len))
        return err_set(err, ERR_PROTOCOL, "a request is malformed");
    if (calls->request_count >= LIMIT_CALL_REQUESTS)
        return err_set(err, ERR_LIMIT, "%d requests wait for answers", LIMIT_CALL_REQUESTS);
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

static void answer(struct call_request *request, uint8_t status, const void *data, size_t len)
{
    struct calls *calls = request->owner;
    if (request->link) {
        uint8_t head[9];
        wire_store_u64(head, request->number);
        head[8] = status;
        link_send(request->link, CALL_REPLY, head, sizeof head, data, len,
                  NULL); /* a failure ends the link: told there */
    }
    TAILQ_REMOVE(&calls->requests, request, entry);
    calls->request_count--;
    free(request);
}

void call_reply(struct call_request *request, const void *data, size_t len_bytes)
{
    answer(request, 0, data, len_bytes);
}

void call_refuse(struct call_request *request, const struct err *err)
{
    int code = err->code < 0 && err->code >= -255 ? err->code : ERR_INTERNAL;
    answer(request, (uint8_t)-code, err->text, strlen(err->text));
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
