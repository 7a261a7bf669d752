#include "node/base/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool addr_same_host(const struct addr *a, const struct addr *b)
{
    return a->family == b->family && memcmp(a->ip, b->ip, sizeof a->ip) == 0;
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
    return a->port == b->port && addr_same_host(a, b);
}

const char *addr_text(const struct addr *addr, char text[ADDR_TEXT_SIZE])
{
    char host[INET6_ADDRSTRLEN] = "none";
    if (addr->family == 4)
        inet_ntop(AF_INET, addr->ip, host, sizeof host);
    else if (addr->family == 6)
        inet_ntop(AF_INET6, addr->ip, host, sizeof host);
    snprintf(text, ADDR_TEXT_SIZE, addr->family == 6 ? "[%s]:%u" : "%s:%u", host, addr->port);
    return text;
}

static bool parse_port(const char *text, uint16_t *ret_port)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || value == 0 || value > UINT16_MAX)
        return false;
    *ret_port = (uint16_t)value;
    return true;
}

bool addr_parse(const char *text, uint16_t default_port, struct addr *ret_addr)
{
    char host[64];
    struct addr addr = {.port = default_port};
    const char *port = NULL;
    const char *close = NULL;
    size_t len = strlen(text);
    if (text[0] == '[') {
        close = strchr(text, ']');
        if (!close || (close[1] != '\0' && close[1] != ':'))
            return false;
        port = close[1] == ':' ? close + 2 : NULL;
        text++;
        len = (size_t)(close - text);
    } else {
        const char *colon = strchr(text, ':');
        if (colon && !strchr(colon + 1, ':')) {
            port = colon + 1;
            len = (size_t)(colon - text);
        }
    }
    if (len >= sizeof host || (port && !parse_port(port, &addr.port)))
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    if (!close && inet_pton(AF_INET, host, addr.ip) == 1)
        addr.family = 4;
    else if (inet_pton(AF_INET6, host, addr.ip) == 1)
        addr.family = 6;
    else
        return false;
    *ret_addr = addr;
    return true;
}

static bool all_bytes(const uint8_t *bytes, size_t len, uint8_t value)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

bool addr_is_any(const struct addr *addr)
{
    return all_bytes(addr->ip, sizeof addr->ip, 0);
}

bool addr_is_usable(const struct addr *addr)
{
    if (addr->port == 0 || addr_is_any(addr))
        return false;
    if (addr->family == 4)
        return addr->ip[0] < 224 && addr->ip[0] != 0;
    return addr->family == 6 && addr->ip[0] != 0xff;
}

bool addr_is_loopback(const struct addr *addr)
{
    if (addr->family == 4)
        return addr->ip[0] == 127;
    return addr->family == 6 && all_bytes(addr->ip, 15, 0) && addr->ip[15] == 1;
}

void addr_put(struct buf *buf, const struct addr *addr)
{
    wire_put_u8(buf, addr->family);
    wire_put_u16(buf, addr->port);
    buf_add(buf, addr->ip, sizeof addr->ip);
}

struct addr addr_get(struct wire *wire)
{
    struct addr addr;
    addr.family = wire_get_u8(wire);
    addr.port = wire_get_u16(wire);
    wire_get_copy(wire, addr.ip, sizeof addr.ip);
    bool padded = addr.family == 6 || all_bytes(addr.ip + 4, 12, 0);
    if ((addr.family != 4 && addr.family != 6) || !padded) {
        wire->failed = true;
        memset(&addr, 0, sizeof addr);
    }
    return addr;
}

uint64_t addr_block(const struct addr *addr)
{
    size_t bytes = addr->family == 4 ? 3 : 6;
    uint64_t block = addr->family;
    for (size_t i = 0; i < bytes; i++)
        block = block << 8 | addr->ip[i];
    return block;
}
