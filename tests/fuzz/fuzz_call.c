/* Calls from a peer: the first byte says of which type and what becomes of the request. Links are stood in for. */
#include <assert.h>
#include <string.h>

#include "node/net/call.h"

struct link {
    struct calls *calls;
    unsigned sent;
    bool closed;
    uint8_t mode;
};

int link_send(struct link *link, uint8_t type, const void *head, size_t head_bytes, const void *body, size_t body_bytes,
              struct err *err)
{
    assert(type == CALL_REQUEST || type == CALL_REPLY);
    assert(head_bytes <= SESSION_HEAD_BYTES && head_bytes + body_bytes <= LIMIT_CONTROL_BYTES);
    (void)head;
    (void)body;
    link->sent++;
    return link->mode & 8 ? err_set(err, ERR_LIMIT, "full") : 0;
}

void link_close(struct link *link, enum session_reason reason)
{
    (void)reason;
    link->closed = true;
}

static void on_request(void *ctx, struct link *link, const char *method, const uint8_t *data, size_t len_bytes,
                       struct call_request *request)
{
    struct err err;
    (void)ctx;
    assert(strlen(method) > 0 && strlen(method) <= CALL_METHOD_MAX);
    if (link->mode & 2) {
        call_reply(request, data, len_bytes);
    } else if (link->mode & 4) {
        err_set(&err, ERR_CONFLICT, "%s", method);
        call_refuse(request, &err);
    } /* else it waits for ever */
}

static void on_reply(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len_bytes)
{
    assert(status <= 0 && (status == 0 || err->code == status));
    assert(len_bytes == 0 || data);
    for (const char *at = status ? err->text : ""; *at; at++)
        assert(*at >= ' ' && *at <= '~');
    ++*(unsigned *)ctx;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct link link = {.mode = size ? data[0] : 0};
    unsigned answers = 0;
    struct err err;
    if (size == 0 || calls_new(clock_system(), on_request, NULL, &link.calls, &err) < 0)
        return 0;
    unsigned asked = calls_send(link.calls, &link, "x", NULL, 0, 60000, on_reply, &answers, &err) == 0;
    int status = calls_input(link.calls, &link, link.mode & 1 ? CALL_REPLY : CALL_REQUEST, data + 1, size - 1, &err);
    assert(status == 0 || err.code == status);
    calls_link_down(link.calls, &link, "the end");
    assert(answers == asked);
    calls_free(link.calls);
    return 0;
}
