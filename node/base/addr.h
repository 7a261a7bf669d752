/*
 * A network address and port as a value: what is parsed, printed, compared and put on the wire. No sockets here.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/buf.h"
#include "node/base/wire.h"

struct addr {
    uint8_t family; /* 4, 6, or 0 for none */
    uint16_t port;
    uint8_t ip[16]; /* network order; IPv4 in the first four, the rest zero */
};

#define ADDR_TEXT_SIZE 56 /* "[v6]:65535" and NUL */
#define ADDR_WIRE_BYTES 19
#define ADDR_DEFAULT_PORT 7421

bool addr_equal(const struct addr *a, const struct addr *b);
/* The same host, whatever the port. */
bool addr_same_host(const struct addr *a, const struct addr *b);
/* "1.2.3.4:7421", "[::1]:7421"; returns `text`. */
const char *addr_text(const struct addr *addr, char text[ADDR_TEXT_SIZE]);
/* Numeric "1.2.3.4", "1.2.3.4:80", "[::1]", "[::1]:80", "::1"; no names. default_port is used where none is given. */
bool addr_parse(const char *text, uint16_t default_port, struct addr *ret_addr);
/* Can a node be there: a port, and an address that is neither unspecified, multicast nor broadcast. */
bool addr_is_usable(const struct addr *addr);
bool addr_is_loopback(const struct addr *addr);
/* 0.0.0.0 or :: - listening on every interface. */
bool addr_is_any(const struct addr *addr);

/* Family, port and 16 bytes: 19 bytes always. A family other than 4 or 6 fails the cursor. */
void addr_put(struct buf *buf, const struct addr *addr);
struct addr addr_get(struct wire *wire);

/* The block of addresses that one operator is assumed to hold: IPv4 /24, IPv6 /48, as a comparable number. */
uint64_t addr_block(const struct addr *addr);
