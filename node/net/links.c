/* The set of links: how they begin, by accept or dial, and which there are. */
#include <stdlib.h>

#include "node/net/link_state.h"
#include "node/net/sock.h"

/* ---- how links begin ---- */

/* Has come to us, and has not shown that it is a member. */
static bool is_stranger(const struct link *link)
{
    return !link->dialled && (link->state == LINK_HANDSHAKE || (link->state == LINK_UP && link->peer.guest));
}

static bool is_room_for(const struct links *links, const struct addr *addr)
{
    size_t all = 0, of_block = 0;
    const struct link *link;
    TAILQ_FOREACH (link, &links->list, entry) {
        all += is_stranger(link);
        of_block += is_stranger(link) && addr_block(&link->addr) == addr_block(addr);
    }
    return links->count <= LIMIT_SESSIONS && all < LIMIT_STRANGERS && of_block < LIMIT_SESSIONS_PER_BLOCK;
}

static void on_connection(void *ctx, uv_stream_t *server)
{
    struct links *links = ctx;
    struct addr unknown = {0};
    struct link *link = link_make(links, &unknown, false);
    if (!link)
        abort(); /* a connection that is not accepted stops the listener for good */
    struct err err = {0};
    struct sockaddr_storage sock;
    int len = sizeof sock;
    if (uv_accept(server, (uv_stream_t *)&link->tcp) < 0 ||
        uv_tcp_getpeername(&link->tcp, (struct sockaddr *)&sock, &len) < 0) {
        link_end(link, ERR_IO, "accept failed");
        return;
    }
    link->addr = sock_to_addr((struct sockaddr *)&sock);
    if (!is_room_for(links, &link->addr))
        link_end(link, ERR_LIMIT, "too many connections");
    else if (link_begin_session(link, &err) < 0)
        link_end_with_error(link, &err);
    else
        link_start(link);
}

static void on_connected(uv_connect_t *request, int status)
{
    struct link *link = request->data;
    if (link->state == LINK_CLOSING)
        return;
    if (status < 0)
        link_end_with_status(link, status);
    else
        link_start(link);
}

static bool is_dialling(const struct links *links, const struct addr *addr)
{
    const struct link *link;
    TAILQ_FOREACH (link, &links->list, entry)
        if (link->dialled && link->state != LINK_UP && link->state != LINK_CLOSING && addr_equal(&link->addr, addr))
            return true;
    return false;
}

int links_dial(struct links *links, const struct addr *addr, const struct id *node, struct err *err)
{
    if (links->closing)
        return err_set(err, ERR_CANCELLED, "the node stops");
    if (node ? links_find(links, node) || links_dialling(links, node) : is_dialling(links, addr))
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
    int status = link_begin_session(link, err);
    if (status == 0) {
        int connecting = uv_tcp_connect(&link->connect, &link->tcp, (struct sockaddr *)&sock, on_connected);
        if (connecting < 0)
            status = err_set(err, ERR_UNAVAILABLE, "cannot connect: %s", uv_strerror(connecting));
    }
    if (status < 0) {
        link->dialled = false; /* the caller is told here, not by on_dial_failed */
        link_end(link, ERR_CLOSED, "dial failed");
        return status;
    }
    /* The session's deadline also bounds the connect. */
    link_wait(link, LIMIT_HANDSHAKE_MS);
    return 0;
}

/* ---- the set of links ---- */

static void on_turn_end_closed(uv_handle_t *handle)
{
    struct links *links = handle->data;
    links->open_handles--;
}

int links_new(const struct links_config *config, struct links **ret_links, struct err *err)
{
    struct links *links = calloc(1, sizeof *links);
    if (!links)
        return err_set(err, ERR_NOMEM, "no memory for links");
    links->config = *config;
    TAILQ_INIT(&links->list);
    uv_prepare_init(config->loop, &links->turn_end);
    links->turn_end.data = links;
    links->open_handles = 1;
    *ret_links = links;
    return 0;
}

int links_listen(struct links *links, const struct addr *listen, struct err *err)
{
    if (links->listener_count == LINKS_MAX_LISTEN)
        return err_set(err, ERR_LIMIT, "at most %d addresses can be listened on", LINKS_MAX_LISTEN);
    int status =
        listener_new(links->config.loop, listen, on_connection, links, &links->listeners[links->listener_count], err);
    links->listener_count += status == 0;
    return status;
}

void links_unlisten(struct links *links, size_t count)
{
    while (links->listener_count > count)
        listener_free(links->listeners[--links->listener_count]);
}

uint16_t links_port(const struct links *links, size_t index)
{
    return index < links->listener_count ? listener_port(links->listeners[index]) : 0;
}

void links_close(struct links *links, enum session_reason reason)
{
    if (links->closing)
        return;
    links->closing = true;
    links_unlisten(links, 0);
    struct link *link, *next;
    for (link = TAILQ_FIRST(&links->list); link; link = next) {
        next = TAILQ_NEXT(link, entry);
        link_close(link, reason);
        link_end(link, ERR_CANCELLED, "this node stops");
    }
    uv_close((uv_handle_t *)&links->turn_end, on_turn_end_closed);
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
        count += link->state == LINK_UP && !link->ending && !link->peer.guest;
    return count;
}

size_t links_dials(const struct links *links)
{
    size_t count = 0;
    const struct link *link;
    TAILQ_FOREACH (link, &links->list, entry)
        count += link->dialled && (link->state == LINK_CONNECTING || link->state == LINK_HANDSHAKE);
    return count;
}

void links_cut(struct links *links, const struct id *node, enum session_reason reason)
{
    struct link *link = links_find(links, node);
    if (link)
        link_close(link, reason);
}
