#include "tools/swarmsim/net.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "tools/sim/memory.h"
#include "tools/sim/random.h"
#include "tools/swarmsim/node.h"
#include "tools/swarmsim/swarm.h"
#include "transfer/message.h"

#define FRAME_BYTES 19u        /* length, type and tag of a frame, transfer/session.c */
#define SEGMENT_BYTES 1448u    /* of data in a packet of 1,500, */
#define SEGMENT_HEAD_BYTES 52u /* with IPv4, TCP and its timestamps before it */
#define SMALL_BYTES 1500u
#define WINDOW_US 40000u /* what a bottleneck's queue holds, beside what is in flight */
#define SLAB_BYTES (1u << 20)

static const uint32_t pool_bytes[POOL_CLASSES] = {32, 64, 128, 256, 640, 2048};

/* A message on its way. */
struct parcel {
    struct event event;
    struct parcel *next;
    struct link *link;
    uint64_t sent_us;
    uint64_t due_us; /* when the receiver's downlink is through with it */
    uint32_t wire_bytes;
    uint32_t left_bytes;  /* of those, still to leave */
    uint32_t chunk_bytes; /* of the object */
    uint32_t len;
    uint8_t type;
    uint8_t size_class; /* POOL_CLASSES: not of the pool */
    bool queued;        /* it waited for its turn, and counts as coming until it is there */
    uint8_t data[];
};

struct message_slab {
    struct message_slab *next;
};

/* ---- the pool ---- */

static void add_slab(struct message_pool *pool, uint8_t size_class)
{
    size_t each = (sizeof(struct parcel) + pool_bytes[size_class] + 7) & ~(size_t)7;
    struct message_slab *slab = memory_get(SLAB_BYTES);
    slab->next = pool->slabs;
    pool->slabs = slab;
    for (size_t at = sizeof(struct message_slab); at + each <= SLAB_BYTES; at += each) {
        struct parcel *parcel = (struct parcel *)(void *)((char *)slab + at);
        parcel->size_class = size_class;
        parcel->next = pool->spare[size_class];
        pool->spare[size_class] = parcel;
    }
}

static struct parcel *make_parcel(struct message_pool *pool, size_t len)
{
    uint8_t size_class = 0;
    while (size_class < POOL_CLASSES && pool_bytes[size_class] < len)
        size_class++;
    if (size_class == POOL_CLASSES) {
        struct parcel *large = memory_get(sizeof *large + len);
        large->size_class = size_class;
        return large;
    }
    if (!pool->spare[size_class])
        add_slab(pool, size_class);
    struct parcel *parcel = pool->spare[size_class];
    pool->spare[size_class] = parcel->next;
    return parcel;
}

static void free_parcel(struct message_pool *pool, struct parcel *parcel)
{
    if (parcel->size_class == POOL_CLASSES) {
        free(parcel);
        return;
    }
    parcel->next = pool->spare[parcel->size_class];
    pool->spare[parcel->size_class] = parcel;
}

void net_pool_release(struct message_pool *pool)
{
    while (pool->slabs) {
        struct message_slab *slab = pool->slabs;
        pool->slabs = slab->next;
        free(slab);
    }
}

/* ---- sessions ---- */

void net_init_wires(struct wires *wires, uint64_t up_bytes_per_s, uint64_t down_bytes_per_s, uint64_t delay_us)
{
    *wires = (struct wires){.up_bytes_per_s = up_bytes_per_s, .down_bytes_per_s = down_bytes_per_s};
    TAILQ_INIT(&wires->turns);
    TAILQ_INIT(&wires->waiters);
    wires->window_us = WINDOW_US + delay_us + LIMIT_CHUNK_BYTES * UINT64_C(1000000) / down_bytes_per_s;
}

static void init_link(struct link *link, struct session *session, struct node *from, struct node *to)
{
    link->session = session;
    link->from = from;
    link->to = to;
    link->end = &link->first;
}

struct session *net_session_new(struct swarm *swarm, struct node *dialer, struct node *listener)
{
    const struct options *options = swarm->options;
    struct session *session = memory_get(sizeof *session);
    init_link(&session->way[0], session, dialer, listener);
    init_link(&session->way[1], session, listener, dialer);
    uint64_t low = dialer->number < listener->number ? dialer->number : listener->number;
    uint64_t high = dialer->number + listener->number - low;
    uint64_t drawn = random_stream(options->seed, RANDOM_LINK, low << 32 | high) % 2001;
    uint64_t delay_us = options->delay_ms * 1000;
    session->delay_us = (uint32_t)(delay_us + delay_us * options->spread_percent * drawn / 100000 -
                                   delay_us * options->spread_percent / 100);
    return session;
}

void net_session_unpin(struct session *session)
{
    if (--session->pins == 0 && !session->up)
        free(session);
}

static void drop_queue(struct swarm *swarm, struct link *link)
{
    if (link->place == LINK_IN_TURN)
        TAILQ_REMOVE(&link->from->wires.turns, link, turn);
    else if (link->place == LINK_HELD_BACK)
        TAILQ_REMOVE(&link->to->wires.waiters, link, turn);
    while (link->first) {
        struct parcel *parcel = link->first;
        link->first = parcel->next;
        free_parcel(&swarm->pool, parcel);
    }
}

void net_session_down(struct swarm *swarm, struct session *session)
{
    session->up = false;
    for (unsigned i = 0; i < 2; i++)
        drop_queue(swarm, &session->way[i]);
}

/* ---- leaving ---- */

static void sent(struct swarm *swarm, struct event *event);
static void delivered(struct swarm *swarm, struct event *event);
static void wake_waiters(struct swarm *swarm, void *ctx, uint64_t unused);

static uint64_t time_us(uint64_t bytes, uint64_t bytes_per_s)
{
    return bytes * 1000000 / bytes_per_s;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* What the message takes on the wire; of a chunk also what it is in truth. */
static void weigh(struct parcel *parcel)
{
    uint64_t bytes = parcel->len;
    struct message message;
    if (parcel->type == MESSAGE_CHUNK &&
        transfer_message_decode(parcel->type, parcel->data, parcel->len, &message, NULL) == 0 &&
        message.encoding == STORE_ZSTD) {
        parcel->chunk_bytes = message.raw_bytes;
        bytes += message.raw_bytes - message.n_items;
    }
    bytes += (bytes / SESSION_FRAME_BYTES + 1) * FRAME_BYTES;
    bytes += (bytes / SEGMENT_BYTES + 1) * SEGMENT_HEAD_BYTES;
    parcel->wire_bytes = parcel->left_bytes = (uint32_t)bytes;
}

/* It takes its place on the receiver's downlink when its first byte leaves. */
static void book_downlink(struct swarm *swarm, struct link *link, struct parcel *parcel)
{
    struct wires *wires = &link->to->wires;
    uint64_t took_us = time_us(parcel->wire_bytes, wires->down_bytes_per_s);
    wires->down_free_us = later(wires->down_free_us, swarm->now_us + link->session->delay_us) + took_us;
    parcel->due_us = wires->down_free_us;
}

static void send_some(struct swarm *swarm, struct link *link)
{
    struct wires *wires = &link->from->wires;
    struct parcel *parcel = link->first;
    if (parcel->left_bytes == parcel->wire_bytes)
        book_downlink(swarm, link, parcel);
    uint64_t most = swarm->options->quantum_kib << 10;
    wires->sending = link;
    wires->sending_bytes = parcel->left_bytes < most ? parcel->left_bytes : most;
    link->place = LINK_SENDING;
    link->session->pins++;
    uint64_t took_us = time_us(wires->sending_bytes, wires->up_bytes_per_s) + wires->up_debt_us;
    wires->up_debt_us = 0;
    wires->sent.happen = sent;
    swarm_at(swarm, &wires->sent, swarm->now_us + took_us);
}

static void hold_back(struct swarm *swarm, struct link *link)
{
    struct node *node = link->to;
    struct wires *wires = &node->wires;
    link->place = LINK_HELD_BACK;
    TAILQ_INSERT_TAIL(&wires->waiters, link, turn);
    if (!wires->waking)
        swarm_call_at(swarm, wires->down_free_us - wires->window_us, wake_waiters, node, 0);
    wires->waking = true;
}

/* The next in turn whose receiver has room. */
static void send_next(struct swarm *swarm, struct node *node)
{
    struct wires *wires = &node->wires;
    struct link *link;
    while (!wires->sending && swarm->now_us >= wires->silent_until_us && (link = TAILQ_FIRST(&wires->turns))) {
        bool begun = link->first->left_bytes < link->first->wire_bytes;
        TAILQ_REMOVE(&wires->turns, link, turn);
        if (begun || link->to->wires.down_free_us <= swarm->now_us + link->to->wires.window_us)
            send_some(swarm, link);
        else
            hold_back(swarm, link);
    }
}

static void line_up(struct link *link)
{
    link->place = LINK_IN_TURN;
    TAILQ_INSERT_TAIL(&link->from->wires.turns, link, turn);
}

static void wake_waiters(struct swarm *swarm, void *ctx, uint64_t unused)
{
    struct wires *wires = &((struct node *)ctx)->wires;
    struct link *link;
    (void)unused;
    wires->waking = false;
    while (wires->down_free_us <= swarm->now_us + wires->window_us && (link = TAILQ_FIRST(&wires->waiters))) {
        TAILQ_REMOVE(&wires->waiters, link, turn);
        line_up(link);
        send_next(swarm, link->from);
    }
    link = TAILQ_FIRST(&wires->waiters);
    if (link && !wires->waking) {
        swarm_call_at(swarm, wires->down_free_us - wires->window_us, wake_waiters, ctx, 0);
        wires->waking = true;
    }
}

static void let_go(struct swarm *swarm, struct parcel *parcel)
{
    struct session *session = parcel->link->session;
    free_parcel(&swarm->pool, parcel);
    net_session_unpin(session);
}

static void count_sent(struct swarm *swarm, const struct parcel *parcel)
{
    parcel->link->from->wires.sent_bytes += parcel->wire_bytes;
    swarm_count_sent(swarm, parcel->link->from->number, parcel->type, parcel->wire_bytes, parcel->chunk_bytes);
}

/* The last of it has left: no message of a session overtakes another. */
static void fly(struct swarm *swarm, struct link *link, struct parcel *parcel, uint64_t there_us)
{
    link->due_us = later(link->due_us, there_us);
    link->session->pins++;
    count_sent(swarm, parcel);
    parcel->event.happen = delivered;
    swarm_at(swarm, &parcel->event, link->due_us);
}

static void take_first(struct swarm *swarm, struct link *link)
{
    struct parcel *parcel = link->first;
    link->first = parcel->next;
    if (!link->first)
        link->end = &link->first;
    uint64_t *late_us = &link->session->late_us[link == &link->session->way[1]];
    *late_us = (7 * *late_us + (swarm->now_us - parcel->sent_us)) / 8;
    fly(swarm, link, parcel, later(parcel->due_us, swarm->now_us + link->session->delay_us));
}

static void sent(struct swarm *swarm, struct event *event)
{
    struct wires *wires = (struct wires *)event;
    struct link *link = wires->sending;
    struct node *node = link->from;
    wires->sending = NULL;
    if (link->session->up) {
        link->queued_bytes -= wires->sending_bytes;
        link->first->left_bytes -= (uint32_t)wires->sending_bytes;
        if (link->first->left_bytes == 0)
            take_first(swarm, link);
        link->place = LINK_EMPTY;
        if (link->first)
            line_up(link);
    }
    send_next(swarm, node);
    if (link->session->up)
        node_writable(link);
    net_session_unpin(link->session);
}

static void send_small(struct swarm *swarm, struct link *link, struct parcel *parcel)
{
    struct wires *wires = &link->from->wires;
    struct wires *far = &link->to->wires;
    uint64_t took_us = time_us(parcel->wire_bytes, wires->up_bytes_per_s);
    if (wires->sending)
        wires->up_debt_us += took_us;
    if (far->down_free_us > swarm->now_us)
        far->down_free_us += time_us(parcel->wire_bytes, far->down_bytes_per_s);
    fly(swarm, link, parcel, swarm->now_us + took_us + link->session->delay_us);
}

static struct parcel *pack(struct swarm *swarm, uint8_t type, const void *head, size_t head_bytes, const void *body,
                           size_t body_bytes)
{
    struct parcel *parcel = make_parcel(&swarm->pool, head_bytes + body_bytes);
    parcel->next = NULL;
    parcel->sent_us = swarm->now_us;
    parcel->type = type;
    parcel->chunk_bytes = 0;
    parcel->len = (uint32_t)(head_bytes + body_bytes);
    if (head_bytes > 0)
        memcpy(parcel->data, head, head_bytes);
    if (body_bytes > 0)
        memcpy(parcel->data + head_bytes, body, body_bytes);
    weigh(parcel);
    return parcel;
}

int net_send(struct link *link, uint8_t type, const void *head, size_t head_bytes, const void *body, size_t body_bytes)
{
    struct swarm *swarm = link->from->swarm;
    if (!link->session->up)
        return ERR_CLOSED;
    if (link->queued_bytes >= LIMIT_SESSION_OUT_BYTES)
        return ERR_LIMIT;
    struct parcel *parcel = pack(swarm, type, head, head_bytes, body, body_bytes);
    parcel->link = link;
    if (link->place == LINK_EMPTY && parcel->wire_bytes <= SMALL_BYTES &&
        swarm->now_us >= link->from->wires.silent_until_us) {
        send_small(swarm, link, parcel);
        return 0;
    }
    *link->end = parcel;
    link->end = &parcel->next;
    link->queued_bytes += parcel->wire_bytes;
    if (link->place == LINK_EMPTY) {
        line_up(link);
        send_next(swarm, link->from);
    }
    return 0;
}

size_t net_room(const struct link *link)
{
    uint64_t waits = link->queued_bytes;
    return link->session->up && waits < LIMIT_SESSION_BULK_BYTES ? (size_t)(LIMIT_SESSION_BULK_BYTES - waits) : 0;
}

uint32_t net_rtt_ms(const struct link *link)
{
    const struct session *session = link->session;
    return (uint32_t)((2 * (uint64_t)session->delay_us + session->late_us[0] + session->late_us[1]) / 1000);
}

/* ---- arriving ---- */

static void delivered(struct swarm *swarm, struct event *event)
{
    struct parcel *parcel = (struct parcel *)event;
    struct link *link = parcel->link;
    if (link->session->up && swarm->now_us < link->to->wires.silent_until_us) {
        swarm_at(swarm, event, link->to->wires.silent_until_us);
        return;
    }
    if (link->session->up) {
        swarm->hash = random_mix(swarm->hash ^ swarm->now_us ^ (uint64_t)link->from->number << 40 ^
                                 (uint64_t)link->to->number << 16 ^ (uint64_t)parcel->len << 8 ^ parcel->type);
        node_input(link, parcel->type, parcel->data, parcel->len);
    }
    let_go(swarm, parcel);
}

/* ---- trouble ---- */

struct end_of_silence {
    struct event event;
    struct node *node;
};

static void speak_again(struct swarm *swarm, struct event *event)
{
    struct end_of_silence *end = (struct end_of_silence *)event;
    send_next(swarm, end->node);
    free(end);
}

void net_silence(struct swarm *swarm, struct node *node, uint64_t until_us)
{
    struct end_of_silence *end = memory_get(sizeof *end);
    end->event.happen = speak_again;
    end->node = node;
    node->wires.silent_until_us = until_us;
    swarm_at(swarm, &end->event, until_us);
}
