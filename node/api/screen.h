/*
 * Which requests are refused for their headers alone, before anything is routed: those whose body has no one length
 * (request smuggling, RFC 9112 section 6.3) and those that a browser or a proxy sends on somebody else's behalf (DNS
 * rebinding, cross-site requests). No library here; the bytes are the client's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "node/base/err.h"

/* Zero-initialise, then add each header as it came. */
struct api_screen {
    unsigned lengths, encodings;
    bool bad_framing, bad_host, json;
    const char *foreign; /* static: the header that no local user sends, or NULL */
    int64_t length;      /* of the body: 0 none, -1 unknown */
};

void api_screen_add(struct api_screen *screen, const char *name, const char *value);

/* ERR_INVALID if the body has no one length; then the connection cannot go on. */
int api_screen_framing(const struct api_screen *screen, struct err *err);
/* ERR_DENIED if it is not from a local user: Origin or forwarding headers, or a Host that DNS could point here, which
 * is any but a single label and the loopback literals. */
int api_screen_sender(const struct api_screen *screen, struct err *err);
