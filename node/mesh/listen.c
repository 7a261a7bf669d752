/* Where this node listens, by TCP and UDP on the same port, and by which socket a datagram leaves. */
#include "node/base/log.h"
#include "node/mesh/internal.h"
#include "node/net/sock.h"

#define PORT_TRIES 16 /* of a port that the system chooses for TCP and that may be taken for UDP */

static void udp_in(void *ctx, const struct addr *from, const uint8_t *data, size_t len_bytes)
{
    struct mesh *mesh = ctx;
    if (mesh->overlay)
        overlay_input(mesh->overlay, from, data, len_bytes);
}

static int listen_on(struct mesh *mesh, struct addr addr, struct err *err)
{
    bool any_port = addr.port == 0;
    int status = ERR_BUSY;
    for (int tries = any_port ? PORT_TRIES : 1; status == ERR_BUSY && tries > 0; tries--) {
        if (any_port)
            addr.port = 0;
        status = links_listen(mesh->links, &addr, err);
        if (status < 0)
            return status;
        addr.port = links_port(mesh->links, mesh->socket_count);
        struct mesh_socket *socket = &mesh->sockets[mesh->socket_count];
        status = udp_new(mesh->config.loop, &addr, udp_in, mesh, &socket->udp, err);
        if (status == 0)
            mesh->sockets[mesh->socket_count++].addr = addr;
        else
            links_unlisten(mesh->links, mesh->socket_count);
    }
    return status;
}

/* [::] is listened on with IPv4 too. */
static bool is_covered(const struct mesh *mesh, const struct addr *addr)
{
    for (size_t i = 0; i < mesh->socket_count; i++) {
        const struct addr *other = &mesh->sockets[i].addr;
        if (other->family == 6 && addr_is_any(other) && other->port == addr->port)
            return true;
    }
    return false;
}

/* The address that others are told, unless the operator has named one: one that was named to listen on. */
static void choose_address(struct mesh *mesh)
{
    for (size_t i = 0; i < mesh->socket_count && !mesh->config.advertise.family; i++) {
        const struct addr *addr = &mesh->sockets[i].addr;
        if (!addr_is_any(addr) && (!mesh->address.family || addr_is_loopback(&mesh->address)))
            mesh->address = *addr;
    }
    mesh->address_is_fixed = mesh->address.family != 0;
}

/* All of the addresses; only of "any" addresses one is enough, because a machine may have no IPv6, or nothing else. */
int mesh_listen(struct mesh *mesh, struct err *err)
{
    char text[ADDR_TEXT_SIZE];
    int status = err_set(err, ERR_INVALID, "no address to listen on");
    for (size_t i = 0; i < mesh->config.listen_count; i++) {
        const struct addr *addr = &mesh->config.listen[i];
        struct err why;
        if (mesh->socket_count == MESH_MAX_LISTEN)
            return err_set(err, ERR_LIMIT, "at most %d addresses can be listened on", MESH_MAX_LISTEN);
        if (is_covered(mesh, addr))
            continue;
        status = listen_on(mesh, *addr, &why);
        if (status < 0 && err)
            *err = why;
        if (status < 0 && !addr_is_any(addr))
            return status;
        if (status < 0)
            log_info("mesh", "not listening addr=%s why=\"%s\"", addr_text(addr, text), why.text);
    }
    choose_address(mesh);
    return mesh->socket_count > 0 ? 0 : status;
}

static bool reaches(const struct addr *from, const struct addr *to)
{
    return from->family == to->family || (from->family == 6 && addr_is_any(from));
}

static struct mesh_socket *socket_towards(struct mesh *mesh, const struct addr *to)
{
    struct mesh_socket *found = NULL;
    struct addr local = {0};
    for (size_t i = 0; i < mesh->socket_count; i++) {
        struct mesh_socket *socket = &mesh->sockets[i];
        if (!reaches(&socket->addr, to))
            continue;
        if (found && !local.family)
            sock_local_towards(to, &local, NULL);
        if (!found || addr_same_host(&socket->addr, &local))
            found = socket;
    }
    return found;
}

void mesh_send_datagram(struct mesh *mesh, const struct addr *to, const uint8_t *bytes, size_t len_bytes)
{
    struct mesh_socket *socket = socket_towards(mesh, to);
    if (socket)
        udp_send(socket->udp, to, bytes, len_bytes);
}

void mesh_unlisten(struct mesh *mesh)
{
    while (mesh->socket_count > 0)
        udp_free(mesh->sockets[--mesh->socket_count].udp);
}
