#include "node/net/link.h"

#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "node/net/link_state.h"

#define NOT_SENT_BYTES (256 << 10)
#define GATHER_BYTES (256u << 10) /* are written at once, less than that at the end of the turn */
#define BINDING_BYTES 64          /* as session_binding says */
#define LINGER_MS 2000            /* for the good-bye to leave before the connection is cut */

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

void link_end(struct link *link, int code, const char *why)
{
    if (link->state == LINK_CLOSING)
        return;
    bool was_up = link->state == LINK_UP;
    bool dial_failed = !was_up && link->dialled && !link->duplicate;
    link->state = LINK_CLOSING;
    uv_close((uv_handle_t *)&link->tcp, on_handle_closed);
    uv_close((uv_handle_t *)&link->timer, on_handle_closed);
    const struct links_config *config = &link->owner->config;
    if (was_up) {
        config->on_down(config->ctx, link, why);
    } else if (dial_failed) {
        struct err err;
        err_set(&err, code, "%s", why);
        config->on_dial_failed(config->ctx, &link->addr, link->any_node ? NULL : &link->wanted, &err);
    }
}

void link_end_with_error(struct link *link, const struct err *err)
{
    char text[ADDR_TEXT_SIZE];
    uint64_t skipped = 0;
    if (link->state != LINK_UP && !link->dialled &&
        log_allowed(&link->owner->refused, link_now(link->owner), 1000, &skipped))
        log_info("net", "refused peer=%s why=\"%s\" more=%llu", addr_text(&link->addr, text), err->text,
                 (unsigned long long)skipped);
    link_end(link, err->code, err->text);
}

void link_end_with_status(struct link *link, int status)
{
    link_end(link, status == UV_ETIMEDOUT ? ERR_TIMEOUT : ERR_UNAVAILABLE, uv_strerror(status));
}

static void on_linger_over(uv_timer_t *timer)
{
    struct link *link = timer->data;
    link_end(link, ERR_CLOSED, link->end_why ? link->end_why : "closed");
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

static void tell_writable(struct link *link)
{
    bool drained = link->drained;
    link->drained = false;
    if (drained && link->state == LINK_UP && !link->ending)
        link->owner->config.on_writable(link->owner->config.ctx, link);
}

static void on_written(uv_write_t *request, int status)
{
    struct link *link = request->data;
    size_t done = link->writing_bytes;
    link->writing_bytes = 0;
    if (link->state == LINK_CLOSING)
        return;
    if (status < 0) {
        link_end_with_status(link, status);
        return;
    }
    session_sent(link->session, link_now(link->owner), done);
    link->drained = true;
    flush(link);
    tell_writable(link);
}

/* The next bytes of the session, for one write; 0: none. */
static unsigned gather(const struct link *link, uv_buf_t ret_bufs[LINK_WRITE_PIECES], size_t *ret_len)
{
    struct session_piece pieces[LINK_WRITE_PIECES];
    size_t count = session_output_pieces(link->session, pieces, LINK_WRITE_PIECES);
    *ret_len = 0;
    for (size_t i = 0; i < count; i++) {
        ret_bufs[i] = uv_buf_init((char *)(uintptr_t)pieces[i].data, (unsigned)pieces[i].len_bytes);
        *ret_len += pieces[i].len_bytes;
    }
    return (unsigned)count;
}

/* Write what the session has, at once as far as the kernel takes it. The bytes stay in the session until they are
 * written, so nothing is copied. */
static void flush(struct link *link)
{
    uv_buf_t bufs[LINK_WRITE_PIECES];
    unsigned count;
    size_t len;
    bool full = false;
    link->gathering = false;
    while (link->writing_bytes == 0 && link->state != LINK_CLOSING && link->state != LINK_CONNECTING &&
           (count = gather(link, bufs, &len)) > 0) {
        int sent = full ? UV_EAGAIN : uv_try_write((uv_stream_t *)&link->tcp, bufs, count);
        if (sent > 0) {
            session_sent(link->session, link_now(link->owner), (size_t)sent);
            link->drained = true;
            full = (size_t)sent < len;
            continue;
        }
        if (sent < 0 && sent != UV_EAGAIN) {
            end_soon(link, uv_strerror(sent));
            return;
        }
        link->writing_bytes = len;
        link->write.data = link;
        int status = uv_write(&link->write, (uv_stream_t *)&link->tcp, bufs, count, on_written);
        if (status < 0)
            end_soon(link, uv_strerror(status));
        return;
    }
    if (link->ending && link->writing_bytes == 0)
        end_soon(link, NULL);
}

static struct link *first_gathering(const struct links *links)
{
    struct link *link;
    TAILQ_FOREACH (link, &links->list, entry)
        if (link->gathering)
            return link;
    return NULL;
}

/* Who is told that there is room may send more, on any link: until the kernels take no more, or nobody has any. */
static void on_turn_end(uv_prepare_t *handle)
{
    struct link *link;
    while ((link = first_gathering(handle->data))) {
        flush(link);
        tell_writable(link);
    }
    uv_prepare_stop(handle);
}

static void flush_at_turn_end(struct link *link)
{
    link->gathering = true;
    uv_prepare_start(&link->owner->turn_end, on_turn_end);
}

/* A write costs the kernel more than the bytes in it do: what is sent in one turn of the loop goes together. */
static void flush_soon(struct link *link)
{
    struct session_stats stats;
    session_get_stats(link->session, &stats);
    if (stats.waiting_bytes >= GATHER_BYTES)
        flush(link);
    flush_at_turn_end(link);
}

/* ---- timers ---- */

/* A guest has come to ask one thing; who stays longer costs a place that a member could have. */
static uint64_t guest_deadline(const struct link *link)
{
    return link->state == LINK_UP && link->peer.guest ? link->since_ms + LIMIT_GUEST_MS : UINT64_MAX;
}

static void arm(struct link *link)
{
    if (link->state == LINK_CLOSING || link->ending)
        return;
    struct err err = {0};
    uint64_t now = link_now(link->owner);
    uint64_t wake = UINT64_MAX;
    uint64_t deadline = guest_deadline(link);
    if (session_tick(link->session, now, &wake, &err) < 0) {
        link_end_with_error(link, &err);
        return;
    }
    if (now >= deadline) {
        link->end_why = "a guest stayed too long";
        link_close(link, SESSION_REASON_DONE);
        return;
    }
    flush_at_turn_end(link);
    if (deadline < wake)
        wake = deadline;
    if (!link->ending)
        link_wait(link, wake > now ? wake - now : 1);
}

static void on_timer(uv_timer_t *timer)
{
    arm(timer->data);
}

void link_wait(struct link *link, uint64_t delay_ms)
{
    uv_timer_start(&link->timer, on_timer, delay_ms, 0);
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
        if (log_allowed(&links->refused, link_now(links), 1000, &skipped))
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

/* Of two links between the same nodes both ends must keep the same one. Nobody dials a node that it has a link to, so
 * either both were begun in the same moment, and something decides that both ends know, or the other end has lost the
 * old one: it was restarted, or the network was cut. */
static bool replaces(const struct link *fresh, const struct link *old)
{
    if (link_now(fresh->owner) > old->since_ms + LIMIT_HANDSHAKE_MS)
        return true;
    const struct id *self = identity_id(fresh->owner->config.identity);
    bool self_smaller = id_compare(self, &fresh->peer.id) < 0;
    if (fresh->dialled != old->dialled)
        return fresh->dialled == self_smaller;
    return memcmp(session_binding(fresh->session), session_binding(old->session), BINDING_BYTES) < 0;
}

static void close_duplicate(struct link *link)
{
    link->duplicate = true;
    link->end_why = "another link to the same node is kept";
    link_close(link, SESSION_REASON_DUPLICATE);
}

static void on_session_open(void *ctx, const struct id *peer)
{
    struct link *link = ctx;
    struct links *links = link->owner;
    (void)peer;
    struct link *old = link->peer.guest ? NULL : links_find(links, &link->peer.id);
    if (old && !replaces(link, old)) {
        close_duplicate(link);
        return;
    }
    if (old)
        close_duplicate(old);
    link->state = LINK_UP;
    link->since_ms = link_now(links);
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
    *ret_buf = uv_buf_init((char *)link->owner->read_buffer, LINK_READ_BYTES);
}

static const char *reason_text(enum session_reason reason)
{
    static const char *const texts[] = {
        [SESSION_REASON_NONE] = "closed by the peer",
        [SESSION_REASON_DONE] = "closed by the peer",
        [SESSION_REASON_SHUTDOWN] = "the peer stops",
        [SESSION_REASON_DUPLICATE] = "the peer keeps another link to this node",
        [SESSION_REASON_REVOKED] = "the peer says that this node's certificate is no longer good",
        [SESSION_REASON_OVERLOAD] = "the peer has too many links",
    };
    return texts[reason];
}

static void on_stream_end(struct link *link, int status)
{
    struct err err = {0};
    if (session_input_end(link->session, &err) == 0)
        link_end(link, ERR_CLOSED, link->end_why ? link->end_why : "closed");
    else if (status == UV_EOF)
        link_end(link, ERR_CLOSED, err.text);
    else
        link_end(link, ERR_CLOSED, uv_strerror(status));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf)
{
    struct link *link = stream->data;
    struct err err = {0};
    if (count == 0 || link->state == LINK_CLOSING)
        return;
    if (count < 0) {
        on_stream_end(link, (int)count);
        return;
    }
    if (session_input(link->session, link_now(link->owner), (uint8_t *)buf->base, (size_t)count, &err) < 0) {
        flush(link);
        link_end_with_error(link, &err);
        return;
    }
    if (link->ending)
        return;
    if (session_state(link->session) == SESSION_CLOSED) {
        link->duplicate |= session_close_reason(link->session) == SESSION_REASON_DUPLICATE;
        link->end_why = reason_text(session_close_reason(link->session));
        link_close(link, SESSION_REASON_DONE);
    } else {
        arm(link);
    }
}

/* ---- beginnings ---- */

struct link *link_make(struct links *links, const struct addr *addr, bool dialled)
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

int link_begin_session(struct link *link, struct err *err)
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
        .has_aes = crypto_has_aes(),
        .verify = verify_peer,
        .on_open = on_session_open,
        .on_message = on_session_message,
        .ctx = link,
    };
    status = session_new(&config, link_now(links), &link->session, err);
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

void link_start(struct link *link)
{
    link->state = LINK_HANDSHAKE;
    uv_tcp_nodelay(&link->tcp, 1);
    limit_kernel_queue(link);
    int status = uv_read_start((uv_stream_t *)&link->tcp, on_alloc, on_read);
    if (status < 0)
        link_end_with_status(link, status);
    else
        arm(link);
}

/* ---- one link ---- */

int link_send(struct link *link, uint8_t type, const void *head, size_t head_bytes, const void *body, size_t body_bytes,
              struct err *err)
{
    if (link->state != LINK_UP || link->ending)
        return err_set(err, ERR_CLOSED, "the link is closed");
    int status = session_send(link->session, type, head, head_bytes, body, body_bytes, err);
    if (status == 0)
        flush_soon(link);
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
