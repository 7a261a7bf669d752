/*
 * Who else wants an object, or has it: a crowd that meets at one holder is told of itself, and needs nobody else to
 * find out.
 *
 * Every node remembers for a while who has asked it about which object, and names some of them to each other: when one
 * asks, and again every TELL_MIN_MS to TELL_MAX_MS. What it hears is a hint, for whoever decides with whom there are
 * sessions; a peer is heard once in HEAR_MS for a fetch, so that a flood of names costs nothing (faults 14, 15).
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "transfer/fetch.h"

#define TELL_MIN_MS 1200u /* while a crowd gathers, */
#define TELL_MAX_MS 5000u /* and later */
#define TELL_PARTS 4u     /* of the time since the first one came */
#define FORGET_MS 20000u  /* who has not asked for anything since */
#define HEAR_MS 1000u

struct wanter {
    struct exchange_peer *peer;
    uint64_t seen_ms;
};

struct interest {
    struct id object;
    struct wanter *wanters; /* owned; LIMIT_WANTERS */
    unsigned n;
    uint64_t since_ms;
    uint64_t told_ms;
};

static void free_interest(struct exchange *exchange, struct interest *interest)
{
    map_remove(&exchange->interests, &interest->object);
    free(interest->wanters);
    free(interest);
}

void transfer_peers_release(struct exchange *exchange)
{
    size_t cursor = 0;
    for (void *value; map_next(&exchange->interests, &cursor, NULL, &value);) {
        struct interest *interest = value;
        free(interest->wanters);
        free(interest);
    }
    map_release(&exchange->interests);
}

/* ---- telling ---- */

/* Some of those who may be named, each with the same chance, whatever their number (Vitter's algorithm R). */
struct draw {
    struct rng rng;
    const struct exchange_peer *listener;
    struct named {
        const struct exchange_peer *peer;
        struct addr addr;
    } drawn[MESSAGE_PEERS_MAX];
    unsigned n_seen;
};

static void draw(struct draw *draw, const struct exchange_peer *peer)
{
    struct addr addr;
    if (!peer || peer == draw->listener || peer->failing || !peer->out.addr || !peer->out.addr(peer->out.ctx, &addr) ||
        !addr_is_usable(&addr))
        return;
    uint64_t at = draw->n_seen < MESSAGE_PEERS_MAX ? draw->n_seen : rng_below(&draw->rng, draw->n_seen + 1);
    if (at < MESSAGE_PEERS_MAX)
        draw->drawn[at] = (struct named){.peer = peer, .addr = addr};
    draw->n_seen++;
}

static void tell(struct exchange_peer *listener, const struct interest *interest)
{
    struct exchange *exchange = listener->exchange;
    struct draw drawing = {.rng = exchange->config.rng, .listener = listener};
    for (unsigned i = 0; i < interest->n; i++)
        draw(&drawing, interest->wanters[i].peer);
    struct fetch *fetch = transfer_fetch_find(exchange, &interest->object);
    const struct source *source;
    if (fetch) {
        TAILQ_FOREACH (source, &fetch->sources, link) {
            if (source->state >= SOURCE_PARTIAL && !source->liar && !source->watches)
                draw(&drawing, source->peer);
        }
    }
    OWNED(buf_release) struct buf items = BUF(MESSAGE_PEERS_MAX * MESSAGE_PEER_BYTES);
    for (unsigned i = 0; i < drawing.n_seen && i < MESSAGE_PEERS_MAX; i++)
        transfer_message_put_peer(&items, &drawing.drawn[i].peer->node, &drawing.drawn[i].addr);
    if (items.len > 0)
        transfer_peer_send(listener, &(struct message){.type = MESSAGE_PEERS,
                                                       .object = interest->object,
                                                       .items = items.data,
                                                       .n_items = items.len / MESSAGE_PEER_BYTES});
}

/* ---- who wants what ---- */

static struct interest *find_or_add(struct exchange *exchange, const struct id *object, bool add)
{
    struct interest *interest = map_get(&exchange->interests, object);
    if (interest || !add)
        return interest;
    interest = calloc(1, sizeof *interest);
    if (interest) {
        *interest = (struct interest){.object = *object, .since_ms = exchange->now_ms, .told_ms = exchange->now_ms};
        interest->wanters = calloc(LIMIT_WANTERS, sizeof *interest->wanters);
    }
    if (interest && interest->wanters && map_set(&exchange->interests, object, interest) == 0)
        return interest;
    if (interest)
        free(interest->wanters);
    free(interest);
    return NULL;
}

void transfer_peers_seen(struct exchange_peer *peer, const struct message *message)
{
    bool asks = message->type == MESSAGE_WANT;
    if (!asks && message->type != MESSAGE_RUN && message->type != MESSAGE_DEAL && message->type != MESSAGE_GAPS)
        return;
    bool adds = asks && peer->n_interests < LIMIT_PEER_INTERESTS;
    struct interest *interest = find_or_add(peer->exchange, &message->object, adds);
    if (!interest)
        return;
    unsigned i = 0;
    while (i < interest->n && interest->wanters[i].peer != peer)
        i++;
    if (i == interest->n && (!asks || interest->n == LIMIT_WANTERS))
        return;
    if (i == interest->n) {
        interest->n++;
        peer->n_interests++;
    }
    interest->wanters[i] = (struct wanter){.peer = peer, .seen_ms = peer->exchange->now_ms};
    if (asks)
        tell(peer, interest);
}

static void remove_wanter(struct interest *interest, unsigned i)
{
    interest->wanters[i].peer->n_interests--;
    interest->wanters[i] = interest->wanters[--interest->n];
}

static void forget_old(struct interest *interest, uint64_t now_ms)
{
    for (unsigned i = 0; i < interest->n; i++) {
        if (now_ms >= interest->wanters[i].seen_ms + FORGET_MS)
            remove_wanter(interest, i--);
    }
}

static uint64_t tell_ms(const struct interest *interest)
{
    uint64_t wait = (interest->told_ms - interest->since_ms) / TELL_PARTS;
    return interest->told_ms + (wait < TELL_MIN_MS ? TELL_MIN_MS : wait < TELL_MAX_MS ? wait : TELL_MAX_MS);
}

bool transfer_peers_tick(struct exchange *exchange)
{
    size_t cursor = 0;
    for (void *value; map_next(&exchange->interests, &cursor, NULL, &value);) {
        struct interest *interest = value;
        if (exchange->now_ms < tell_ms(interest))
            continue;
        interest->told_ms = exchange->now_ms;
        forget_old(interest, exchange->now_ms);
        for (unsigned i = 0; i < interest->n; i++)
            tell(interest->wanters[i].peer, interest);
        if (interest->n == 0) {
            free_interest(exchange, interest);
            cursor = 0;
        }
    }
    return exchange->interests.count > 0;
}

void transfer_peers_lose(struct exchange_peer *peer)
{
    size_t cursor = 0;
    for (void *value; map_next(&peer->exchange->interests, &cursor, NULL, &value);) {
        struct interest *interest = value;
        for (unsigned i = 0; i < interest->n; i++) {
            if (interest->wanters[i].peer == peer)
                remove_wanter(interest, i--);
        }
    }
}

/* ---- hearing ---- */

int transfer_peers_heard(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    (void)err;
    struct exchange *exchange = peer->exchange;
    struct fetch *fetch = transfer_fetch_find(exchange, &message->object);
    struct source *source = fetch ? transfer_source_of(fetch, peer) : NULL;
    if (!source || source->liar || exchange->now_ms < source->hints_ms || !exchange->config.on_peer)
        return 0;
    source->hints_ms = exchange->now_ms + HEAR_MS;
    for (size_t i = 0; i < message->n_items && fetch->phase != FETCH_ENDED; i++) {
        struct id node;
        struct addr addr;
        if (!transfer_message_peer(message, i, &node, &addr))
            continue;
        const struct source *known = transfer_source_of_node(fetch, &node);
        if (!known || (!known->peer && !known->liar))
            exchange->config.on_peer(exchange->config.ctx, &message->object, &node, &addr);
    }
    return 0;
}
