#include "node/admission.h"

#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/net/call.h"
#include "node/net/link.h"
#include "node/net/sock.h"

#define JOIN_MS 10000

struct joining {
    struct identity *identity; /* borrowed */
    const struct invitation *invitation;
    const char *name;
    const struct addr *addrs; /* borrowed: where the member may be, to be tried in turn */
    size_t addr_count;
    const struct addr *addr; /* of these, the one that is being tried */
    struct links *links;     /* owned, as the next */
    struct calls *calls;
    struct clock clock;
    uv_timer_t deadline; /* data: this */
    bool over;
    bool joined;
    struct err err;
};

/* The first end counts. */
static void finish(struct joining *joining)
{
    if (joining->over)
        return;
    joining->over = true;
    links_close(joining->links, SESSION_REASON_DONE);
    uv_close((uv_handle_t *)&joining->deadline, NULL);
}

static void fail(struct joining *joining, const struct err *err)
{
    if (!joining->over)
        joining->err = *err;
    finish(joining);
}

static void on_admitted(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len_bytes)
{
    struct joining *joining = ctx;
    const uint8_t *hints;
    size_t hints_len;
    uint64_t wall_s = clock_wall_ms(&joining->clock) / 1000;
    struct err why;
    if (status < 0) {
        fail(joining, err);
        return;
    }
    status = admission_accept(joining->identity, data, len_bytes, wall_s, &hints, &hints_len, &why);
    if (status == ERR_AUTH)
        err_set(&why, ERR_AUTH,
                "the invitation was not accepted: used up, expired or mistyped; ask for a new one with 'cmig-node "
                "invite' on a member");
    if (status < 0) {
        fail(joining, &why);
        return;
    }
    joining->joined = true;
    finish(joining);
}

static void on_up(void *ctx, struct link *link)
{
    struct joining *joining = ctx;
    OWNED(buf_release) struct buf request = BUF(LIMIT_HANDSHAKE_PAYLOAD_BYTES);
    struct err err;
    int status =
        admission_request(joining->identity, joining->invitation, link_peer(link), joining->name, &request, &err);
    if (status == 0)
        status =
            calls_send(joining->calls, link, "admit", request.data, request.len, JOIN_MS, on_admitted, joining, &err);
    if (request.data)
        crypto_wipe(request.data, request.len);
    if (status < 0)
        fail(joining, &err);
}

static void on_down(void *ctx, struct link *link, const char *why)
{
    struct joining *joining = ctx;
    char text[ADDR_TEXT_SIZE];
    struct err err;
    calls_link_down(joining->calls, link, why);
    err_set(&err, ERR_CLOSED, "the node at %s ended the connection: %s", addr_text(joining->addr, text), why);
    fail(joining, &err);
}

static int on_message(void *ctx, struct link *link, uint8_t type, const uint8_t *data, size_t len_bytes,
                      struct err *err)
{
    struct joining *joining = ctx;
    if (type == CALL_REPLY)
        return calls_input(joining->calls, link, type, data, len_bytes, err);
    return 0; /* what members tell each other is not for a guest */
}

static void on_writable(void *ctx, struct link *link)
{
    (void)ctx;
    (void)link;
}

static void not_reached(struct joining *joining, const struct err *err)
{
    char text[ADDR_TEXT_SIZE], cluster[ID_SHORT_SIZE];
    struct err why;
    err_set(&why, err->code, "cannot join through %s: %s; is a member of cluster %s... running there?",
            addr_text(joining->addr, text), err->text, id_short(&joining->invitation->cluster, cluster));
    fail(joining, &why);
}

/* Through the address that is next, and so on while there are more. */
static void dial(struct joining *joining)
{
    struct err err;
    while (links_dial(joining->links, joining->addr, NULL, &err) < 0) {
        if (joining->addr + 1 == joining->addrs + joining->addr_count) {
            not_reached(joining, &err);
            return;
        }
        joining->addr++;
    }
}

static void on_dial_failed(void *ctx, const struct addr *addr, const struct id *node, const struct err *err)
{
    struct joining *joining = ctx;
    (void)addr;
    (void)node;
    if (joining->over)
        return;
    if (joining->addr + 1 < joining->addrs + joining->addr_count) {
        joining->addr++;
        dial(joining);
    } else {
        not_reached(joining, err);
    }
}

static void on_request(void *ctx, struct link *link, const char *method, const uint8_t *data, size_t len_bytes,
                       struct call_request *request)
{
    (void)ctx;
    (void)link;
    (void)method;
    (void)data;
    (void)len_bytes;
    struct err err;
    err_set(&err, ERR_UNSUPPORTED, "not a member yet");
    call_refuse(request, &err);
}

static void on_deadline(uv_timer_t *timer)
{
    struct joining *joining = timer->data;
    char text[ADDR_TEXT_SIZE];
    struct err err;
    err_set(&err, ERR_TIMEOUT, "no answer from %s within %d seconds: is a member running there, and is the port open?",
            addr_text(joining->addr, text), JOIN_MS / 1000);
    fail(joining, &err);
}

static int start(struct joining *joining, uv_loop_t *loop, struct err *err)
{
    struct links_config config = {.loop = loop,
                                  .identity = joining->identity,
                                  .clock = joining->clock,
                                  .on_up = on_up,
                                  .on_down = on_down,
                                  .on_message = on_message,
                                  .on_writable = on_writable,
                                  .on_dial_failed = on_dial_failed,
                                  .ctx = joining};
    int status = calls_new(joining->clock, on_request, joining, &joining->calls, err);
    if (status == 0)
        status = links_new(&config, &joining->links, err);
    if (status < 0)
        return status;
    uv_timer_init(loop, &joining->deadline);
    joining->deadline.data = joining;
    uv_timer_start(&joining->deadline, on_deadline, JOIN_MS, 0);
    dial(joining);
    return 0;
}

/* Make the text that sock_resolve takes of an invitation's host, which may be an IPv6 address without brackets. */
static int resolve(const struct invitation *invitation, struct addr ret_addrs[SOCK_MAX_ADDRS], size_t *ret_count,
                   struct err *err)
{
    char text[INVITATION_HOST_SIZE + 10];
    bool v6 = strchr(invitation->host, ':') != NULL;
    snprintf(text, sizeof text, v6 ? "[%s]:%u" : "%s:%u", invitation->host, invitation->port);
    return sock_resolve(text, invitation->port, ret_addrs, ret_count, err);
}

static int run(struct joining *joining, uv_loop_t *loop, struct err *err)
{
    int status = start(joining, loop, err);
    if (status == 0) {
        uv_run(loop, UV_RUN_DEFAULT);
        status = joining->joined ? 0 : joining->err.code;
        if (status < 0 && err)
            *err = joining->err;
    }
    links_free(joining->links);
    calls_free(joining->calls);
    return status;
}

int admission_join(uv_loop_t *loop, struct identity *identity, const char *peer, const char *token, const char *name,
                   struct addr *ret_member, struct err *err)
{
    struct invitation invitation;
    struct addr addrs[SOCK_MAX_ADDRS];
    size_t count;
    int status = invitation_find(peer, token, &invitation, err);
    if (status == 0)
        status = identity_expect_cluster(identity, &invitation.cluster, err);
    if (status == 0)
        status = resolve(&invitation, addrs, &count, err);
    if (status == 0) {
        struct joining joining = {.identity = identity,
                                  .invitation = &invitation,
                                  .name = name_is_valid(name) ? name : "",
                                  .addrs = addrs,
                                  .addr_count = count,
                                  .addr = addrs,
                                  .clock = clock_system()};
        status = run(&joining, loop, err);
        if (status == 0)
            *ret_member = *joining.addr;
    }
    crypto_wipe(&invitation, sizeof invitation);
    return status;
}
