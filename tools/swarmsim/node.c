#include "tools/swarmsim/node.h"

#include <assert.h>
#include <stdlib.h>

#include "node/base/limits.h"
#include "node/base/wire.h"
#include "tools/sim/memory.h"
#include "tools/sim/random.h"
#include "tools/swarmsim/swarm.h"

/* As in node/mesh/content.c. */
#define PROVIDERS_ASKED 16u
#define PROVIDERS_DIALLED 8u
#define PEERS_WANTED_MAX 256u
#define SOON_US 1000u

#define DIAL_DELAYS 5u /* one way each: two for TCP, three for the handshake */

/* One object that a node wants: struct content_fetch of the daemon. */
struct wish {
    struct wish *next; /* owned */
    struct node *node;
    size_t demand;
    uint32_t object;
    struct exchange_fetch *fetch; /* NULL: it has ended */
    uint64_t began_us;
    uint32_t wanted[PEERS_WANTED_MAX]; /* nodes */
    unsigned n_wanted;
    unsigned rounds;
    bool asking; /* the DHT */
};

/* ---- names ---- */

static struct id id_of(uint64_t seed, uint32_t number)
{
    struct id id;
    for (size_t i = 0; i < ID_BYTES; i += 8)
        wire_store_u64(id.b + i, random_stream(seed, RANDOM_IDENTITY, (uint64_t)number << 8 | i));
    wire_store_u32(id.b + ID_BYTES - 4, number);
    return id;
}

static struct node *node_of(struct swarm *swarm, const struct id *id)
{
    uint32_t number = wire_load_u32(id->b + ID_BYTES - 4);
    assert(number < swarm->n_nodes);
    return &swarm->nodes[number];
}

static struct addr addr_of(uint32_t number)
{
    struct addr addr = {.family = 4, .port = ADDR_DEFAULT_PORT};
    wire_store_u32(addr.ip, 10u << 24 | (number + 1));
    return addr;
}

/* ---- time and jobs ---- */

static void tick(struct swarm *swarm, void *ctx, uint64_t armed_us);

static void arm(struct node *node, uint64_t at_us)
{
    if (at_us >= node->armed_us || !node->exchange)
        return;
    node->armed_us = at_us;
    swarm_call_at(node->swarm, at_us, tick, node, at_us);
}

static void tick(struct swarm *swarm, void *ctx, uint64_t armed_us)
{
    struct node *node = ctx;
    uint64_t wake_ms = UINT64_MAX;
    if (node->armed_us != armed_us || !node->exchange)
        return; /* an earlier one took its place */
    node->armed_us = UINT64_MAX;
    swarm->tally.ticks++;
    exchange_tick(node->exchange, swarm_ms(swarm), &wake_ms);
    if (wake_ms != UINT64_MAX)
        arm(node, swarm->now_us + (wake_ms > swarm_ms(swarm) ? (wake_ms - swarm_ms(swarm)) * 1000 : SOON_US));
}

/* The daemon looks at its exchange's deadlines a millisecond after each message. Here that is left to the timer that
 * is there anyhow while something is fetched, unless the daemon's way is asked for. */
static void soon(struct node *node)
{
    if (node->armed_us == UINT64_MAX || node->swarm->options->lively)
        arm(node, node->swarm->now_us + SOON_US);
}

static void job_is_done(struct swarm *swarm, void *ctx, uint64_t done)
{
    (void)swarm;
    ((job_done_cb)(uintptr_t)done)(ctx);
}

static void submit(void *ctx, job_work_cb work, job_done_cb done, void *arg)
{
    struct swarm *swarm = ((struct node *)ctx)->swarm;
    work(arg);
    swarm_call_at(swarm, swarm->now_us + swarm->options->job_us, job_is_done, arg, (uintptr_t)done);
}

/* ---- sessions ---- */

static struct link *link_of(struct session *session, const struct node *from)
{
    return &session->way[session->way[0].from == from ? 0 : 1];
}

static struct session *find_session(const struct node *node, const struct node *other)
{
    for (size_t i = 0; i < node->n_sessions; i++) {
        const struct session *session = node->sessions[i];
        if (session->way[0].from == other || session->way[0].to == other)
            return node->sessions[i];
    }
    return NULL;
}

static void keep_session(struct node *node, struct session *session)
{
    node->sessions = memory_grow(node->sessions, &node->session_cap, node->n_sessions + 1, sizeof *node->sessions);
    node->sessions[node->n_sessions++] = session;
    session->pins++;
}

/* This end forgets the session. */
static void lose_session(struct node *node, struct session *session)
{
    struct link *link = link_of(session, node);
    for (size_t i = 0; i < node->n_sessions; i++) {
        if (node->sessions[i] != session)
            continue;
        node->sessions[i] = node->sessions[--node->n_sessions];
        struct exchange_peer *peer = link->peer;
        link->peer = NULL;
        if (peer && node->exchange)
            exchange_peer_remove(peer, swarm_ms(node->swarm));
        net_session_unpin(session);
        return;
    }
}

static void cut(struct swarm *swarm, struct session *session)
{
    struct node *ends[] = {session->way[0].from, session->way[0].to};
    session->pins++;
    net_session_down(swarm, session);
    lose_session(ends[0], session);
    lose_session(ends[1], session);
    net_session_unpin(session);
}

static int peer_send(void *ctx, uint8_t type, const void *head, size_t head_bytes, const void *body, size_t body_bytes)
{
    return net_send(ctx, type, head, head_bytes, body, body_bytes);
}

static size_t peer_room(void *ctx)
{
    return net_room(ctx);
}

static uint32_t peer_rtt_ms(void *ctx)
{
    return net_rtt_ms(ctx);
}

static bool peer_addr(void *ctx, struct addr *ret_addr)
{
    *ret_addr = addr_of(((struct link *)ctx)->to->number);
    return true;
}

static bool wants(const struct wish *wish, uint32_t node)
{
    for (unsigned i = 0; i < wish->n_wanted; i++) {
        if (wish->wanted[i] == node)
            return true;
    }
    return false;
}

static void introduce(struct wish *wish, struct session *session)
{
    struct exchange_peer *peer = link_of(session, wish->node)->peer;
    if (wish->fetch && peer)
        exchange_fetch_add_peer(wish->fetch, peer, false, swarm_ms(wish->node->swarm));
}

static void meet(struct node *node, struct session *session)
{
    struct link *link = link_of(session, node);
    struct exchange_link ops = {
        .send = peer_send, .room = peer_room, .rtt_ms = peer_rtt_ms, .addr = peer_addr, .ctx = link};
    if (exchange_peer_add(node->exchange, &link->to->id, &ops, &link->peer, NULL) < 0)
        abort();
    for (struct wish *wish = node->wishes; wish; wish = wish->next) {
        if (wants(wish, link->to->number))
            introduce(wish, session);
    }
    soon(node);
}

/* The handshake is over. */
static void open_session(struct swarm *swarm, void *ctx, uint64_t unused)
{
    struct session *session = ctx;
    struct node *dialer = session->way[0].from;
    struct node *listener = session->way[0].to;
    (void)unused;
    bool fits = dialer->exchange && listener->exchange && listener->n_sessions < swarm->options->sessions &&
                !find_session(listener, dialer) && swarm->now_us >= listener->wires.silent_until_us;
    if (fits) {
        session->up = true;
        keep_session(listener, session);
        meet(dialer, session);
        meet(listener, session);
    } else {
        swarm->tally.refused++;
        lose_session(dialer, session);
    }
    net_session_unpin(session);
}

static void dial(struct node *node, struct node *other)
{
    struct swarm *swarm = node->swarm;
    if (node->n_sessions >= swarm->options->sessions)
        return;
    struct session *session = net_session_new(swarm, node, other);
    keep_session(node, session);
    session->pins++;
    swarm_call_at(swarm, swarm->now_us + (uint64_t)DIAL_DELAYS * session->delay_us, open_session, session, 0);
}

/* ---- who is asked ---- */

static void want_node(struct wish *wish, uint32_t number)
{
    struct node *node = wish->node;
    struct node *other = &node->swarm->nodes[number];
    if (node == other)
        return;
    if (!wants(wish, number) && wish->n_wanted < sizeof wish->wanted / sizeof wish->wanted[0])
        wish->wanted[wish->n_wanted++] = number;
    struct session *session = find_session(node, other);
    if (session)
        introduce(wish, session);
    else
        dial(node, other);
}

/* Up to PROVIDERS_ASKED of those whom the DHT knows, at random; returns how many. */
static unsigned draw_providers(struct swarm *swarm, uint32_t object, uint32_t ret_nodes[PROVIDERS_ASKED])
{
    const struct providers *providers = &swarm->providers[object];
    unsigned n = 0;
    for (size_t i = 0; i < providers->count && i < PROVIDERS_ASKED; i++) { /* Floyd's sampling */
        size_t last = providers->count - (providers->count < PROVIDERS_ASKED ? providers->count : PROVIDERS_ASKED) + i;
        uint32_t drawn = providers->nodes[random_below(&swarm->rng, last + 1)];
        for (unsigned k = 0; k < n; k++) {
            if (ret_nodes[k] == drawn)
                drawn = providers->nodes[last];
        }
        ret_nodes[n++] = drawn;
    }
    for (unsigned i = n; i > 1; i--) {
        unsigned k = (unsigned)random_below(&swarm->rng, i);
        uint32_t other = ret_nodes[k];
        ret_nodes[k] = ret_nodes[i - 1];
        ret_nodes[i - 1] = other;
    }
    return n;
}

static void providers_are_known(struct swarm *swarm, void *ctx, uint64_t unused)
{
    struct wish *wish = ctx;
    (void)unused;
    wish->asking = false;
    if (!wish->fetch)
        return;
    uint32_t found[PROVIDERS_ASKED];
    unsigned n = draw_providers(swarm, wish->object, found);
    unsigned dials = wish->rounds * PROVIDERS_DIALLED;
    for (unsigned i = 0; i < n; i++) {
        bool linked = find_session(wish->node, &swarm->nodes[found[i]]);
        if (linked || dials > 0)
            want_node(wish, found[i]);
        dials -= !linked && dials > 0;
    }
    soon(wish->node);
}

static void ask_dht(struct wish *wish)
{
    struct swarm *swarm = wish->node->swarm;
    if (wish->asking)
        return;
    wish->asking = true;
    wish->rounds++;
    swarm_call_at(swarm, swarm->now_us + swarm->options->dht_ms * 1000, providers_are_known, wish, 0);
}

static void on_want_peers(void *ctx, const struct id *object)
{
    (void)object;
    ask_dht(ctx);
}

static void on_peer(void *ctx, const struct id *object, const struct id *peer, const struct addr *addr)
{
    struct node *node = ctx;
    uint32_t number = catalogue_find(&node->swarm->catalogue, object);
    (void)addr;
    for (struct wish *wish = node->wishes; wish; wish = wish->next) {
        unsigned most = exchange_names_taken((node->swarm->now_us - wish->began_us) / 1000);
        if (wish->fetch && wish->object == number && wish->n_wanted < most &&
            wish->n_wanted < node->swarm->options->heard)
            want_node(wish, node_of(node->swarm, peer)->number);
    }
}

static void provider_is_known(struct swarm *swarm, void *ctx, uint64_t object)
{
    struct node *node = ctx;
    if (node->exchange)
        swarm_provide(swarm, node->number, (uint32_t)object);
}

static void on_provide(void *ctx, const struct id *object)
{
    struct node *node = ctx;
    struct swarm *swarm = node->swarm;
    swarm_call_at(swarm, swarm->now_us + swarm->options->dht_ms * 1000, provider_is_known, node,
                  catalogue_find(&swarm->catalogue, object));
}

/* ---- wishes ---- */

static void on_done(void *ctx, int status, const struct err *err, const struct exchange_stats *stats)
{
    struct wish *wish = ctx;
    struct swarm *swarm = wish->node->swarm;
    struct demand *demand = &swarm->demands[wish->demand];
    (void)err;
    wish->fetch = NULL;
    demand->end_us = swarm->now_us;
    demand->status = status;
    demand->duplicate_bytes = stats->duplicate_bytes;
    swarm->waiting -= !demand->excused;
}

static void on_liar(void *ctx, const struct id *node, const struct id *object, const char *what)
{
    (void)node;
    (void)object;
    (void)what;
    ((struct node *)ctx)->swarm->tally.liars_named++;
}

void node_wish(struct node *node, size_t demand)
{
    struct swarm *swarm = node->swarm;
    struct wish *wish = memory_get(sizeof *wish);
    uint32_t object = swarm->demands[demand].object;
    *wish = (struct wish){
        .next = node->wishes, .node = node, .demand = demand, .object = object, .began_us = swarm->now_us};
    node->wishes = wish;
    struct exchange_wish inner = {.kind = STORE_BLOB,
                                  .class = swarm->demands[demand].class,
                                  .give_up_ms = (uint32_t)swarm->options->patience_s * 1000,
                                  .on_done = on_done,
                                  .on_want_peers = on_want_peers,
                                  .ctx = wish};
    if (exchange_fetch(node->exchange, swarm_ms(swarm), &swarm->catalogue.objects[object].digest, &inner, &wish->fetch,
                       NULL) < 0)
        abort();
    for (size_t i = 0; i < node->n_sessions; i++)
        introduce(wish, node->sessions[i]);
    ask_dht(wish);
    soon(node);
}

/* ---- from the network ---- */

void node_input(struct link *link, uint8_t type, const uint8_t *data, size_t len)
{
    struct node *node = link->to;
    struct swarm *swarm = node->swarm;
    struct exchange_peer *peer = link_of(link->session, node)->peer;
    struct err err = {0};
    if (!peer)
        return;
    if (exchange_peer_input(peer, swarm_ms(swarm), type, data, len, &err) < 0) {
        swarm->tally.protocol_errors++;
        cut(swarm, link->session);
    }
    soon(node);
}

void node_writable(struct link *link)
{
    if (link->peer && net_room(link) > 0)
        exchange_peer_writable(link->peer, swarm_ms(link->from->swarm));
}

/* ---- life and death ---- */

void node_init(struct swarm *swarm, struct node *node, uint32_t number)
{
    const struct options *options = swarm->options;
    node->swarm = swarm;
    node->number = number;
    node->id = id_of(options->seed, number);
    node->store = simstore_new(&swarm->catalogue);
    node->rng_state = random_stream(options->seed, RANDOM_NODE, number);
    node->armed_us = UINT64_MAX;
    struct exchange_config config = {.store = node->store,
                                     .jobs = {.submit = submit, .ctx = node},
                                     .rng = rng_seeded(&node->rng_state),
                                     .on_liar = on_liar,
                                     .on_provide = on_provide,
                                     .on_peer = on_peer,
                                     .ctx = node};
    if (exchange_new(&config, &node->exchange, NULL) < 0)
        abort();
}

static void notice_end(struct swarm *swarm, void *ctx, uint64_t end)
{
    struct session *session = ctx;
    (void)swarm;
    lose_session(session->way[end].from, session);
    net_session_unpin(session);
}

/* The node's own end is gone at once, the other notices after a while. */
static void end_session(struct node *node, struct session *session, uint64_t other_after_us)
{
    struct swarm *swarm = node->swarm;
    unsigned other = session->way[0].from == node ? 1 : 0;
    session->pins++;
    net_session_down(swarm, session);
    session->way[1 - other].peer = NULL;
    swarm_call_at(swarm, swarm->now_us + other_after_us, notice_end, session, other);
}

void node_kill(struct node *node)
{
    struct exchange *exchange = node->exchange;
    node->exchange = NULL;
    exchange_free(exchange);
    for (struct wish *wish = node->wishes; wish; wish = wish->next)
        wish->fetch = NULL;
    while (node->n_sessions > 0) {
        struct session *session = node->sessions[node->n_sessions - 1];
        if (session->up)
            end_session(node, session, session->delay_us);
        lose_session(node, session);
    }
}

void node_lose_sessions(struct node *node)
{
    while (node->n_sessions > 0)
        cut(node->swarm, node->sessions[node->n_sessions - 1]);
}

void node_release(struct node *node)
{
    if (node->exchange)
        node_kill(node);
    while (node->wishes) {
        struct wish *next = node->wishes->next;
        free(node->wishes);
        node->wishes = next;
    }
    free(node->sessions);
    simstore_free(node->store);
}
