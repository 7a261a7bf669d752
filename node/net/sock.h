/* Conversions between struct addr and socket addresses, and names to addresses. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "node/base/addr.h"
#include "node/base/err.h"

/* `addr` must have family 4 or 6. */
void sock_from_addr(const struct addr *addr, struct sockaddr_storage *ret_sock);
/* IPv4-mapped IPv6 addresses become IPv4; other families give family 0. */
struct addr sock_to_addr(const struct sockaddr *sock);

#define SOCK_MAX_ADDRS 4

/* HOST[:PORT] with a numeric or a named host; names are resolved, so this may block for as long as the resolver does.
 * A name may have several addresses (one of IPv6 and one of IPv4, say): the first SOCK_MAX_ADDRS of them, in the order
 * in which they are to be tried, at least one. ERR_INVALID or ERR_NOTFOUND. */
int sock_resolve(const char *text, uint16_t default_port, struct addr ret_addrs[SOCK_MAX_ADDRS], size_t *ret_count,
                 struct err *err);

/* The address by which this machine would reach `remote`, as the routing table says; nothing is sent. */
int sock_local_towards(const struct addr *remote, struct addr *ret_local, struct err *err);
/* Is this an address of this machine (still)? */
bool sock_is_local(const struct addr *addr);
