/* Nodes of one cluster with their links and calls, all on one loop over loopback. Their clock is the machine's plus
 * what a test adds. */
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

#include "node/net/call.h"
#include "node/net/link.h"
#include "node/net/sock.h"
#include "tests/unit/identity/forge.h"

#define RIG_WAIT_MS 8000

struct rig {
    uv_loop_t loop;
    uv_timer_t beat; /* so that the loop never sleeps for long */
    uint64_t ahead_ms;
};

struct side {
    struct forge_node who;
    struct links *links;
    struct calls *calls;
    struct rig *rig;
    unsigned ups, downs, failures, messages;
    unsigned writables;
    uint64_t got_bytes;
    int failure; /* the last code of on_dial_failed */
    char why[128];
    struct link *link; /* the last that came up and is not down */
    void (*at_up)(struct side *side, struct link *link);
    void (*at_down)(struct side *side, struct link *link);
    void (*at_writable)(struct side *side, struct link *link);
    int (*at_message)(struct side *side, struct link *link, const uint8_t *data, size_t len, struct err *err);
    void (*at_request)(struct side *side, struct link *link, const char *method, const uint8_t *data, size_t len,
                       struct call_request *request);
    struct call_request *held;
};

static inline uint64_t rig_mono(void *ctx)
{
    struct clock clock = clock_system();
    return clock_mono_ms(&clock) + ((struct rig *)ctx)->ahead_ms;
}

static inline uint64_t rig_wall(void *ctx)
{
    return (NOW + 100) * 1000 + ((struct rig *)ctx)->ahead_ms;
}

static inline struct clock rig_clock(struct rig *rig)
{
    return (struct clock){rig_mono, rig_wall, rig};
}

static inline void rig_beat(uv_timer_t *timer)
{
    (void)timer;
}

static inline void rig_init(struct rig *rig)
{
    *rig = (struct rig){0};
    signal(SIGPIPE, SIG_IGN); /* as the daemon does */
    assert_int_equal(uv_loop_init(&rig->loop), 0);
    uv_timer_init(&rig->loop, &rig->beat);
    uv_timer_start(&rig->beat, rig_beat, 5, 5);
}

static inline void rig_release(struct rig *rig)
{
    uv_close((uv_handle_t *)&rig->beat, NULL);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
}

static inline void rig_run(struct rig *rig, uint64_t ms)
{
    struct clock clock = clock_system();
    for (uint64_t end = clock_mono_ms(&clock) + ms; clock_mono_ms(&clock) < end;)
        uv_run(&rig->loop, UV_RUN_ONCE);
}

/* Run until the condition holds, at most RIG_WAIT_MS. */
#define RIG_UNTIL(rig, condition)                                                                                      \
    do {                                                                                                               \
        struct clock rig_clock_ = clock_system();                                                                      \
        uint64_t rig_end_ = clock_mono_ms(&rig_clock_) + RIG_WAIT_MS;                                                  \
        while (!(condition) && clock_mono_ms(&rig_clock_) < rig_end_)                                                  \
            uv_run(&(rig)->loop, UV_RUN_ONCE);                                                                         \
        assert_true(condition);                                                                                        \
    } while (0)

/* ---- callbacks ---- */

static inline void side_on_up(void *ctx, struct link *link)
{
    struct side *side = ctx;
    side->ups++;
    side->link = link;
    if (side->at_up)
        side->at_up(side, link);
}

static inline void side_on_down(void *ctx, struct link *link, const char *why)
{
    struct side *side = ctx;
    side->downs++;
    snprintf(side->why, sizeof side->why, "%s", why);
    if (side->link == link)
        side->link = NULL;
    if (side->at_down)
        side->at_down(side, link);
    calls_link_down(side->calls, link, why);
}

static inline int side_on_message(void *ctx, struct link *link, uint8_t type, const uint8_t *data, size_t len,
                                  struct err *err)
{
    struct side *side = ctx;
    side->messages++;
    if (type == CALL_REQUEST || type == CALL_REPLY)
        return calls_input(side->calls, link, type, data, len, err);
    return side->at_message ? side->at_message(side, link, data, len, err) : 0;
}

static inline void side_on_writable(void *ctx, struct link *link)
{
    struct side *side = ctx;
    if (side->at_writable)
        side->at_writable(side, link);
}

static inline void side_on_dial_failed(void *ctx, const struct addr *addr, const struct id *node, const struct err *err)
{
    struct side *side = ctx;
    (void)addr;
    (void)node;
    side->failures++;
    side->failure = err->code;
}

static inline void side_on_request(void *ctx, struct link *link, const char *method, const uint8_t *data, size_t len,
                                   struct call_request *request)
{
    struct side *side = ctx;
    if (side->at_request)
        side->at_request(side, link, method, data, len, request);
    else
        side->held = request;
}

/* ---- sides ---- */

static inline struct addr rig_loopback(uint16_t port)
{
    return (struct addr){.family = 4, .port = port, .ip = {127, 0, 0, 1}};
}

static inline void side_open(struct side *side, struct rig *rig)
{
    struct err err = {0};
    struct addr any = rig_loopback(0);
    struct links_config config = {.loop = &rig->loop,
                                  .identity = side->who.identity,
                                  .clock = rig_clock(rig),
                                  .on_up = side_on_up,
                                  .on_down = side_on_down,
                                  .on_message = side_on_message,
                                  .on_writable = side_on_writable,
                                  .on_dial_failed = side_on_dial_failed,
                                  .ctx = side};
    side->rig = rig;
    assert_int_equal(links_new(&config, &side->links, &err), 0);
    assert_int_equal(links_listen(side->links, &any, &err), 0);
    assert_int_equal(calls_new(rig_clock(rig), side_on_request, side, &side->calls, &err), 0);
}

static inline void side_close(struct side *side)
{
    links_close(side->links, SESSION_REASON_SHUTDOWN);
    while (!links_closed(side->links))
        uv_run(&side->rig->loop, UV_RUN_ONCE);
    assert_int_equal(side->ups, side->downs);
    links_free(side->links);
    calls_free(side->calls);
    side->links = NULL;
}

static inline struct addr side_addr(const struct side *side)
{
    return rig_loopback(links_port(side->links, 0));
}

static inline const struct id *side_id(const struct side *side)
{
    return identity_id(side->who.identity);
}

static inline void side_dial(struct side *side, const struct side *to, bool by_id)
{
    struct err err = {0};
    struct addr addr = side_addr(to);
    if (links_dial(side->links, &addr, by_id ? side_id(to) : NULL, &err) < 0)
        fail_msg("%s", err.text);
}

/* Two members, `a` with the smaller id, both listening. */
static inline void rig_pair(struct rig *rig, struct side *a, struct side *b)
{
    rig_init(rig);
    *a = (struct side){.who = forge_founder()};
    *b = (struct side){.who = forge_node()};
    assert_int_equal(forge_join(&a->who, &b->who, RIGHT_ADMIT), 0);
    if (id_compare(side_id(a), side_id(b)) > 0) {
        struct forge_node who = a->who;
        a->who = b->who;
        b->who = who;
    }
    side_open(a, rig);
    side_open(b, rig);
}

static inline void rig_part(struct rig *rig, struct side *a, struct side *b)
{
    if (a->links)
        side_close(a);
    if (b->links)
        side_close(b);
    rig_release(rig);
    forge_done(&a->who);
    forge_done(&b->who);
}

/* ---- strangers: plain sockets ---- */

static inline int rig_stranger(const struct side *side)
{
    struct sockaddr_storage sock;
    struct addr addr = side_addr(side);
    sock_from_addr(&addr, &sock);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sock, sizeof(struct sockaddr_in)), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* Has the other end hung up? */
static inline bool rig_is_closed(int fd)
{
    char byte;
    ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}
