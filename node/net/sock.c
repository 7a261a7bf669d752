#include "node/net/sock.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node/base/scope.h"

void sock_from_addr(const struct addr *addr, struct sockaddr_storage *ret_sock)
{
    memset(ret_sock, 0, sizeof *ret_sock);
    if (addr->family == 4) {
        struct sockaddr_in *in = (struct sockaddr_in *)ret_sock;
        in->sin_family = AF_INET;
        in->sin_port = htons(addr->port);
        memcpy(&in->sin_addr, addr->ip, 4);
    } else {
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)ret_sock;
        in->sin6_family = AF_INET6;
        in->sin6_port = htons(addr->port);
        memcpy(&in->sin6_addr, addr->ip, 16);
    }
}

struct addr sock_to_addr(const struct sockaddr *sock)
{
    struct addr addr = {0};
    if (sock->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)sock;
        addr.family = 4;
        addr.port = ntohs(in->sin_port);
        memcpy(addr.ip, &in->sin_addr, 4);
    } else if (sock->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)sock;
        addr.port = ntohs(in->sin6_port);
        bool mapped = IN6_IS_ADDR_V4MAPPED(&in->sin6_addr);
        addr.family = mapped ? 4 : 6;
        memcpy(addr.ip, in->sin6_addr.s6_addr + (mapped ? 12 : 0), mapped ? 4 : 16);
    }
    return addr;
}

/* "name:port" or "name" into its parts; false if it is too long or has no name. */
static bool split_host(const char *text, char *host, size_t host_size, char *port, size_t port_size)
{
    const char *colon = strrchr(text, ':');
    size_t host_len = colon ? (size_t)(colon - text) : strlen(text);
    if (host_len == 0 || host_len >= host_size || (colon && strlen(colon + 1) >= port_size))
        return false;
    memcpy(host, text, host_len);
    host[host_len] = '\0';
    if (colon)
        snprintf(port, port_size, "%s", colon + 1);
    return true;
}

static size_t collect(const struct addrinfo *found, struct addr *ret_addrs)
{
    size_t count = 0;
    for (; found && count < SOCK_MAX_ADDRS; found = found->ai_next) {
        struct addr addr = sock_to_addr(found->ai_addr);
        if (addr.family && (count == 0 || !addr_equal(&addr, &ret_addrs[count - 1])))
            ret_addrs[count++] = addr;
    }
    return count;
}

int sock_resolve(const char *text, uint16_t default_port, struct addr ret_addrs[SOCK_MAX_ADDRS], size_t *ret_count,
                 struct err *err)
{
    *ret_count = 1;
    if (addr_parse(text, default_port, ret_addrs))
        return 0;
    char host[NI_MAXHOST];
    char port[8];
    snprintf(port, sizeof port, "%u", default_port);
    if (!split_host(text, host, sizeof host, port, sizeof port))
        return err_set(err, ERR_INVALID, "'%s' is no HOST[:PORT]", text);

    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int status = getaddrinfo(host, port, &hints, &found);
    if (status != 0)
        return err_set(err, ERR_NOTFOUND, "cannot resolve '%s': %s", host, gai_strerror(status));
    *ret_count = collect(found, ret_addrs);
    freeaddrinfo(found);
    return *ret_count > 0 ? 0 : err_set(err, ERR_NOTFOUND, "'%s' has no address", host);
}

int sock_local_towards(const struct addr *remote, struct addr *ret_local, struct err *err)
{
    struct sockaddr_storage sock;
    socklen_t len = sizeof sock;
    sock_from_addr(remote, &sock);
    OWNED(owned_fd) int fd = socket(sock.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sock, sizeof sock) < 0 ||
        getsockname(fd, (struct sockaddr *)&sock, &len) < 0)
        return err_errno(err, errno, "cannot find the address towards a peer");
    *ret_local = sock_to_addr((struct sockaddr *)&sock);
    return 0;
}

bool sock_is_local(const struct addr *addr)
{
    struct sockaddr_storage sock;
    struct addr any_port = *addr;
    any_port.port = 0;
    sock_from_addr(&any_port, &sock);
    OWNED(owned_fd) int fd = socket(sock.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && bind(fd, (struct sockaddr *)&sock, sizeof sock) == 0;
}
