#include "node/net/link.h"

#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/net/sock.h"

#define READ_BYTES (256u << 10)
#define BACKLOG 128
#define NOT_SENT_BYTES (256 << 10)
#define LINGER_MS 2000 /* for the good-bye to leave before the connection is cut */

/*
 * CONNECTING --connected--> HANDSHAKE --both known--> UP --close or error--> CLOSING --handle closed--> freed
 * (an accepted connection begins in HANDSHAKE; every state may go to CLOSING)
 */
enum link_state { LINK_CONNECTING, LINK_HANDSHAKE, LINK_UP, LINK_CLOSING };

struct link {
    TAILQ_ENTRY(link)
    entry;
    struct links *owner;
    enum link_state state;
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_connect_t connect;
    uv_write_t write;
    size_t writing_bytes; /* handed to uv_write and not done yet */
    unsigned open_handles;
    struct session *session; /* owned */
    bool dialled;
    bool ending;         /* the session is over: close when what is queued has been written */
    const char *end_why; /* static text; NULL: nothing special */
    bool any_node;
    struct id wanted; /* unless any_node: who was dialled */
    struct addr addr;
    uint64_t since_ms;
    struct identity_peer peer;
    uint8_t remote_static[CRYPTO_DH_BYTES];
    uint8_t chain[LIMIT_CHAIN_BYTES];
    size_t chain_len;
    void *data;
};

TAILQ_HEAD(link_list, link);

struct links {
    struct links_config config;
    uv_tcp_t listener;
    bool listening;
    bool closing;
    unsigned open_handles; /* of the listener and of all links */
    size_t count;
    struct link_list list;
    struct log_limit refused;
    uint8_t read_buffer[READ_BYTES];
};

static uint64_t now_of(const struct links *links)
{
    return clock_mono_ms(&links->config.clock);
}

/* ---- ending ---- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct link *link = handle->data;
    link->owner->open_handles--;
    if (--link->open_handles > 0)
        return;
    TAILQ_REMOVE(&link->owner->list, link, entry);
    link->owner->count--;
    session_free(link->session);
    free(link);
}

/* Cut a link now. Safe to call again. */
static void end(struct link *link, const char *why)
{
    if (link->state == LINK_CLOSING)
        return;
    bool was_up = link->state == LINK_UP;
    bool dial_failed = !was_up && link->dialled;
    link->state = LINK_CLOSING;
    uv_close((uv_handle_t *)&link->tcp, on_handle_closed);
    uv_close((uv_handle_t *)&link->timer, on_handle_closed);
    const struct links_config *config = &link->owner->config;
    if (was_up) {
        config->on_down(config->ctx, link, why);
    } else if (dial_failed) {
        struct err err;
        err_set(&err, ERR_CLOSED, "%s", why);
        config->on_dial_failed(config->ctx, &link->addr, link->any_node ? NULL : &link->wanted, &err);
    }
}

static void end_with_error(struct link *link, const struct err *err)
{
    char text[ADDR_TEXT_SIZE];
    uint64_t skipped = 0;
    if (link->state != LINK_UP && !link->dialled &&
        log_allowed(&link->owner->refused, now_of(link->owner), 1000, &skipped))
        log_info("net", "refused peer=%s why=\"%s\" more=%llu", addr_text(&link->addr, text), err->text,
                 (unsigned long long)skipped);
    end(link, err->text);
}

static void on_linger_over(uv_timer_t *timer)
{
    struct link *link = timer->data;
    end(link, link->end_why ? link->end_why : "closed");
}

/* Cut a link from the loop, not from here: whoever sends is not to find it gone when the call returns. */
static void end_soon(struct link *link, const char *static_why)
{
    if (link->state == LINK_CLOSING)
        return;
    link->ending = true;
    if (!link->end_why)
        link->end_why = static_why;
    uv_timer_start(&link->timer, on_linger_over, 0, 0);
}

/* ---- writing ---- */

static void flush(struct link *link);

static void on_written(uv_write_t *request, int status)
{
    struct link *link = request->data;
    size_t done = link->writing_bytes;
    link->writing_bytes = 0;
    if (link->state == LINK_CLOSING)
        return;
    if (status < 0) {
        end(link, uv_strerror(status));
        return;
    }
    session_sent(link->session, now_of(link->owner), done);
    flush(link);
    if (link->state == LINK_UP && !link->ending)
        link->owner->config.on_writable(link->owner->config.ctx, link);
}

/* Write what the session has, at once as far as the kernel takes it. The bytes stay in the session until they are
 * written, so nothing is copied. */
static void flush(struct link *link)
{
    const uint8_t *data;
    size_t len;
    while (link->writing_bytes == 0 && link->state != LINK_CLOSING && link->state != LINK_CONNECTING &&
           session_output(link->session, &data, &len)) {
        uv_buf_t buf = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
        int sent = uv_try_write((uv_stream_t *)&link->tcp, &buf, 1);
        if (sent > 0) {
            session_sent(link->session, now_of(link->owner), (size_t)sent);
            continue;
        }
        if (sent < 0 && sent != UV_EAGAIN) {
            end_soon(link, uv_strerror(sent));
            return;
        }
        link->writing_bytes = len;
        link->write.data = link;
        int status = uv_write(&link->write, (uv_stream_t *)&link->tcp, &buf, 1, on_written);
        if (status < 0)
            end_soon(link, uv_strerror(status));
        return;
    }
    if (link->ending && link->writing_bytes == 0)
        end_soon(link, NULL);
}

/* ---- timers ---- */

static void on_timer(uv_timer_t *timer);

static void arm(struct link *link)
{
    if (link->state == LINK_CLOSING || link->ending)
        return;
    struct err err = {0};
    uint64_t now = now_of(link->owner);
    uint64_t wake = UINT64_MAX;
    if (session_tick(link->session, now, &wake, &err) < 0) {
        end_with_error(link, &err);
        return;
    }
    flush(link);
    if (!link->ending)
        uv_timer_start(&link->timer, on_timer, wake > now ? wake - now : 1, 0);
}

static void on_timer(uv_timer_t *timer)
{
    arm(timer->data);
}

/* ---- the session's callbacks ---- */

static int verify_peer(void *ctx, const uint8_t remote_static[32], const void *payload, size_t payload_bytes,
                       struct id *ret_peer, struct err *err)
{
    struct link *link = ctx;
    struct links *links = link->owner;
    char why[IDENTITY_WHY_SIZE] = "";
    uint64_t wall_s = clock_wall_ms(&links->config.clock) / 1000;
    int status = identity_verify_peer(links->config.identity, remote_static, payload, payload_bytes, wall_s,
                                      &link->peer, why, err);
    if (status < 0) {
        char text[ADDR_TEXT_SIZE];
        uint64_t skipped = 0;
        if (log_allowed(&links->refused, now_of(links), 1000, &skipped))
            log_info("net", "not accepted peer=%s why=\"%s\" more=%llu", addr_text(&link->addr, text), why,
                     (unsigned long long)skipped);
        return status;
    }
    if (link->dialled && link->peer.guest)
        return err_set(err, ERR_AUTH, "the node that answers is no member of this cluster");
    if (!link->any_node && !id_equal(&link->peer.id, &link->wanted))
        return err_set(err, ERR_AUTH, "another node answers than the one that was dialled");
    if (id_equal(&link->peer.id, identity_id(links->config.identity)))
        return err_set(err, ERR_CONFLICT, "this is the node itself");
    memcpy(link->remote_static, remote_static, sizeof link->remote_static);
    if (payload_bytes <= sizeof link->chain) {
        memcpy(link->chain, payload, payload_bytes);
        link->chain_len = payload_bytes;
    }
    *ret_peer = link->peer.id;
    return 0;
}

/* Of two links between the same nodes both ends must keep the same one. */
static bool replaces(const struct link *fresh, const struct link *old)
{
    if (fresh->dialled == old->dialled)
        return true;
    const struct id *self = identity_id(fresh->owner->config.identity);
    bool self_smaller = id_compare(self, &fresh->peer.id) < 0;
    return fresh->dialled == self_smaller;
}

static void on_session_open(void *ctx, const struct id *peer)
{
    struct link *link = ctx;
    struct links *links = link->owner;
    (void)peer;
    struct link *old = link->peer.guest ? NULL : links_find(links, &link->peer.id);
    if (old && !replaces(link, old)) {
        link_close(link, SESSION_REASON_DUPLICATE);
        return;
    }
    if (old)
        link_close(old, SESSION_REASON_DUPLICATE);
    link->state = LINK_UP;
    link->since_ms = now_of(links);
    links->config.on_up(links->config.ctx, link);
}

static int on_session_message(void *ctx, uint8_t type, const uint8_t *data, size_t len_bytes, struct err *err)
{
    struct link *link = ctx;
    if (link->state != LINK_UP)
        return 0;
    return link->owner->config.on_message(link->owner->config.ctx, link, type, data, len_bytes, err);
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buf)
{
    (void)suggested;
    struct link *link = handle->data;
    *ret_buf = uv_buf_init((char *)link->owner->read_buffer, READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf)
{
    struct link *link = stream->data;
    struct err err = {0};
    if (count == 0 || link->state == LINK_CLOSING)
        return;
    if (count < 0) {
        session_input_end(link->session, &err);
        end(link, count == UV_EOF && err.code == 0 ? "closed by the peer"
                  : err.code                       ? err.text
                                                   : uv_strerror((int)count));
        return;
    }
    if (session_input(link->session, now_of(link->owner), (uint8_t *)buf->base, (size_t)count, &err) < 0) {
        flush(link);
        end_with_error(link, &err);
        return;
    }
    if (link->ending)
        return;
    if (session_state(link->session) == SESSION_CLOSED)
        link_close(link, SESSION_REASON_DONE);
    else
        arm(link);
}

/* ---- beginnings ---- */

static struct link *link_make(struct links *links, const struct addr *addr, bool dialled)
{
    struct link *link = calloc(1, sizeof *link);
    if (!link)
        return NULL;
    link->owner = links;
    link->dialled = dialled;
    link->any_node = true;
    link->addr = *addr;
    link->tcp.data = link->timer.data = link->connect.data = link;
    uv_tcp_init(links->config.loop, &link->tcp);
    uv_timer_init(links->config.loop, &link->timer);
    link->open_handles = 2;
    links->open_handles += 2;
    links->count++;
    TAILQ_INSERT_TAIL(&links->list, link, entry);
    return link;
}

static int begin_session(struct link *link, struct err *err)
{
    struct links *links = link->owner;
    OWNED(buf_release) struct buf payload = BUF(LIMIT_CHAIN_BYTES);
    int status = identity_payload(links->config.identity, &payload, err);
    if (status < 0)
        return status;
    uint8_t secret[CRYPTO_DH_BYTES];
    identity_dh_secret(links->config.identity, secret);
    struct session_config config = {
        .dialer = link->dialled,
        .static_secret = secret,
        .cluster = *identity_cluster(links->config.identity),
        .payload = payload.data,
        .payload_bytes = payload.len,
        .verify = verify_peer,
        .on_open = on_session_open,
        .on_message = on_session_message,
        .ctx = link,
    };
    status = session_new(&config, now_of(links), &link->session, err);
    crypto_wipe(secret, sizeof secret);
    return status;
}

/* What waits for the network waits in the session, where what is urgent can overtake it, not in the kernel. */
static void limit_kernel_queue(struct link *link)
{
    int fd = -1;
    int most = NOT_SENT_BYTES;
    if (uv_fileno((uv_handle_t *)&link->tcp, &fd) == 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &most, sizeof most);
}

static void start_reading(struct link *link)
{
    link->state = LINK_HANDSHAKE;
    uv_tcp_nodelay(&link->tcp, 1);
    limit_kernel_queue(link);
    int status = uv_read_start((uv_stream_t *)&link->tcp, on_alloc, on_read);
    if (status < 0)
        end(link, uv_strerror(status));
    else
        arm(link);
}

static size_t strangers_of_block(const struct links *links, const struct addr *addr)
{
    size_t count = 0;
    const struct link *link;
    TAILQ_FOREACH (link, &links->list, entry)
        count += link->state == LINK_HANDSHAKE && addr_block(&link->addr) == addr_block(addr);
    return count;
}

static void on_connection(uv_stream_t *server, int status)
{
    struct links *links = server->data;
    if (status < 0 || links->closing)
        return;
    struct addr unknown = {0};
    struct link *link = link_make(links, &unknown, false);
    if (!link)
        return;
    struct err err = {0};
    struct sockaddr_storage sock;
    int len = sizeof sock;
    if (uv_accept(server, (uv_stream_t *)&link->tcp) < 0 ||
        uv_tcp_getpeername(&link->tcp, (struct sockaddr *)&sock, &len) < 0) {
        end(link, "accept failed");
        return;
    }
    link->addr = sock_to_addr((struct sockaddr *)&sock);
    if (links->count > LIMIT_SESSIONS || strangers_of_block(links, &link->addr) >= LIMIT_SESSIONS_PER_BLOCK)
        end(link, "too many connections");
    else if (begin_session(link, &err) < 0)
        end_with_error(link, &err);
    else
        start_reading(link);
}

static void on_connected(uv_connect_t *request, int status)
{
    struct link *link = request->data;
    if (link->state == LINK_CLOSING)
        return;
    if (status < 0)
        end(link, uv_strerror(status));
    else
        start_reading(link);
}

int links_dial(struct links *links, const struct addr *addr, const struct id *node, struct err *err)
{
    if (links->closing)
        return err_set(err, ERR_CANCELLED, "the node stops");
    if (node && (links_find(links, node) || links_dialling(links, node)))
        return 0;
    if (links->count >= LIMIT_SESSIONS)
        return err_set(err, ERR_LIMIT, "%d links are open; none is left for another", LIMIT_SESSIONS);
    struct link *link = link_make(links, addr, true);
    if (!link)
        return err_set(err, ERR_NOMEM, "no memory for a link");
    if (node) {
        link->any_node = false;
        link->wanted = *node;
    }
    struct sockaddr_storage sock;
    sock_from_addr(addr, &sock);
    int status = begin_session(link, err);
    if (status == 0 && uv_tcp_connect(&link->connect, &link->tcp, (struct sockaddr *)&sock, on_connected) < 0)
        status = err_set(err, ERR_IO, "cannot connect");
    if (status < 0) {
        link->dialled = false; /* the caller is told here, not by on_dial_failed */
        end(link, "dial failed");
        return status;
    }
    /* The session's deadline also bounds the connect. */
    uv_timer_start(&link->timer, on_timer, LIMIT_HANDSHAKE_MS, 0);
    return 0;
}

/* ---- the set of links ---- */

int links_new(const struct links_config *config, struct links **ret_links, struct err *err)
{
    struct links *links = calloc(1, sizeof *links);
    if (!links)
        return err_set(err, ERR_NOMEM, "no memory for links");
    links->config = *config;
    TAILQ_INIT(&links->list);
    *ret_links = links;
    return 0;
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct links *links = handle->data;
    links->open_handles--;
}

int links_listen(struct links *links, const struct addr *listen, struct err *err)
{
    struct sockaddr_storage sock;
    char text[ADDR_TEXT_SIZE];
    sock_from_addr(listen, &sock);
    uv_tcp_init(links->config.loop, &links->listener);
    links->listener.data = links;
    links->open_handles++;
    int status = uv_tcp_bind(&links->listener, (struct sockaddr *)&sock, 0);
    if (status == 0)
        status = uv_listen((uv_stream_t *)&links->listener, BACKLOG, on_connection);
    if (status < 0) {
        uv_close((uv_handle_t *)&links->listener, on_listener_closed);
        return err_set(err, status == UV_EADDRINUSE ? ERR_BUSY : ERR_IO, "cannot listen on TCP %s: %s",
                       addr_text(listen, text), uv_strerror(status));
    }
    links->listening = true;
    return 0;
}

uint16_t links_port(const struct links *links)
{
    struct sockaddr_storage sock;
    int len = sizeof sock;
    if (!links->listening || uv_tcp_getsockname(&links->listener, (struct sockaddr *)&sock, &len) < 0)
        return 0;
    return sock_to_addr((struct sockaddr *)&sock).port;
}

void links_close(struct links *links, enum session_reason reason)
{
    if (links->closing)
        return;
    links->closing = true;
    if (links->listening)
        uv_close((uv_handle_t *)&links->listener, on_listener_closed);
    struct link *link, *next;
    for (link = TAILQ_FIRST(&links->list); link; link = next) {
        next = TAILQ_NEXT(link, entry);
        link_close(link, reason);
        end(link, "the node stops");
    }
}

bool links_closed(const struct links *links)
{
    return links->closing && links->open_handles == 0;
}

void links_free(struct links *links)
{
    free(links);
}

struct link *links_find(struct links *links, const struct id *node)
{
    struct link *link;
    TAILQ_FOREACH (link, &links->list, entry)
        if (link->state == LINK_UP && !link->ending && !link->peer.guest && id_equal(&link->peer.id, node))
            return link;
    return NULL;
}

bool links_dialling(const struct links *links, const struct id *node)
{
    const struct link *link;
    TAILQ_FOREACH (link, &links->list, entry)
        if (link->dialled && !link->any_node && id_equal(&link->wanted, node) &&
            (link->state == LINK_CONNECTING || link->state == LINK_HANDSHAKE))
            return true;
    return false;
}

void links_each(struct links *links, links_each_cb each, void *ctx)
{
    struct link *link, *next;
    for (link = TAILQ_FIRST(&links->list); link; link = next) {
        next = TAILQ_NEXT(link, entry);
        if (link->state == LINK_UP && !link->ending)
            each(ctx, link);
    }
}

size_t links_count(const struct links *links)
{
    size_t count = 0;
    const struct link *link;
    TAILQ_FOREACH (link, &links->list, entry)
        count += link->state == LINK_UP && !link->peer.guest;
    return count;
}

void links_cut(struct links *links, const struct id *node, enum session_reason reason)
{
    struct link *link = links_find(links, node);
    if (link)
        link_close(link, reason);
}

/* ---- one link ---- */

int link_send(struct link *link, uint8_t type, const void *head, size_t head_bytes, const void *body, size_t body_bytes,
              struct err *err)
{
    if (link->state != LINK_UP || link->ending)
        return err_set(err, ERR_CLOSED, "the link is closed");
    int status = session_send(link->session, type, head, head_bytes, body, body_bytes, err);
    if (status == 0)
        flush(link);
    return status;
}

size_t link_room(const struct link *link)
{
    return link->state == LINK_UP && !link->ending ? session_room(link->session) : 0;
}

void link_get_stats(const struct link *link, struct session_stats *ret_stats)
{
    session_get_stats(link->session, ret_stats);
}

void link_close(struct link *link, enum session_reason reason)
{
    if (link->state == LINK_CLOSING || link->ending)
        return;
    session_close(link->session, reason);
    link->ending = true;
    uv_timer_start(&link->timer, on_linger_over, LINGER_MS, 0);
    flush(link);
}

const struct identity_peer *link_peer(const struct link *link)
{
    return &link->peer;
}

const uint8_t *link_remote_static(const struct link *link)
{
    return link->remote_static;
}

const uint8_t *link_chain(const struct link *link, size_t *ret_len)
{
    *ret_len = link->chain_len;
    return link->chain;
}

const struct addr *link_addr(const struct link *link)
{
    return &link->addr;
}

bool link_dialled(const struct link *link)
{
    return link->dialled;
}

uint64_t link_since_ms(const struct link *link)
{
    return link->since_ms;
}

void link_set_data(struct link *link, void *data)
{
    link->data = data;
}

void *link_data(const struct link *link)
{
    return link->data;
}
