/*
 * A replay window (RFC 6479 in idea): which of the last WINDOW_BITS counters were seen. Look first, mark after the
 * packet has been authenticated: a forged counter must not move it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WINDOW_BITS 1024

struct net_window {
    uint64_t top;                    /* the highest counter that was marked; counters begin at 1 */
    uint64_t bits[WINDOW_BITS / 64]; /* counter c is bit c % WINDOW_BITS */
};

/* May this counter still come: not marked, and not too old to tell. */
bool net_window_is_fresh(const struct net_window *window, uint64_t counter);
void net_window_mark(struct net_window *window, uint64_t counter);
/* Everything up to `counter` counts as seen. */
void net_window_close(struct net_window *window, uint64_t counter);
