#include "node/net/window.h"

#include <string.h>

static uint64_t *word_of(struct net_window *window, uint64_t counter)
{
    return &window->bits[counter % WINDOW_BITS / 64];
}

bool net_window_is_fresh(const struct net_window *window, uint64_t counter)
{
    if (counter == 0)
        return false;
    if (counter > window->top)
        return true;
    if (window->top - counter >= WINDOW_BITS)
        return false;
    return !(window->bits[counter % WINDOW_BITS / 64] >> counter % 64 & 1);
}

void net_window_mark(struct net_window *window, uint64_t counter)
{
    if (counter > window->top && counter - window->top >= WINDOW_BITS)
        memset(window->bits, 0, sizeof window->bits);
    else
        for (uint64_t skipped = window->top + 1; skipped < counter; skipped++)
            *word_of(window, skipped) &= ~(1ull << skipped % 64);
    if (counter > window->top)
        window->top = counter;
    *word_of(window, counter) |= 1ull << counter % 64;
}

void net_window_close(struct net_window *window, uint64_t counter)
{
    if (counter > window->top)
        window->top = counter;
    memset(window->bits, 0xff, sizeof window->bits);
}
