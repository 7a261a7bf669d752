#include "node/mesh/content.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/mesh/costs.h"
#include "node/mesh/why.h"

#define PROVIDERS_ASKED 16
#define PROVIDERS_DIALLED 8 /* of those that are not connected, the best by the policy, in each round */
#define SOON_MS 1           /* the exchange looks at its deadlines at most so often */
#define FRUITLESS_MAX 2     /* rounds of asking neighbours and the DHT, 2 s each, until an object is nobody's */

struct content_fetch {
    TAILQ_ENTRY(content_fetch)
    entry;
    struct content *owner;
    struct content_wish wish;
    struct policy policy;
    struct id origin;
    struct id hints[CONTENT_MAX_HINTS];
    struct exchange_fetch *fetch;                                /* NULL until it has begun */
    struct id wanted[PROVIDERS_ASKED * (CONTENT_MAX_HINTS + 1)]; /* nodes to ask as soon as a link is up */
    size_t wanted_count;
    uint64_t began_ms;
    unsigned asking;    /* DHT reads under way */
    unsigned rounds;    /* of asking the DHT */
    unsigned fruitless; /* times that nobody was left to ask and the DHT had named nobody */
    bool begun;         /* somebody has given, or told, something of the object */
    bool cancelled;     /* freed when the last DHT read is over */
};

TAILQ_HEAD(fetch_list, content_fetch);

struct content {
    struct store *store; /* borrowed */
    struct jobs jobs;
    struct clock clock;
    struct mesh *mesh;         /* borrowed */
    struct exchange *exchange; /* owned */
    struct fetch_list fetches;
    struct whys whys;
    struct costs costs; /* of nodes whose links have gone */
    struct policy policy;
    struct exchange_limits limits;
    struct rng rng;
    uv_timer_t timer;
    bool closing;
};

static uint64_t now_of(const struct content *content)
{
    return clock_mono_ms(&content->clock);
}

/* ---- the exchange's timer ---- */

static void on_timer(uv_timer_t *timer);

static void rearm(struct content *content)
{
    if (content->closing)
        return;
    uint64_t now = now_of(content);
    uint64_t wake = UINT64_MAX;
    exchange_tick(content->exchange, now, &wake);
    if (wake == UINT64_MAX)
        uv_timer_stop(&content->timer);
    else
        uv_timer_start(&content->timer, on_timer, wake > now ? wake - now : 1, 0);
}

static void on_timer(uv_timer_t *timer)
{
    rearm(timer->data);
}

/* Look at the deadlines anew as soon as the callbacks under way are over. What is due is not put off, or messages that
 * come quickly would put it off for good. */
static void soon(struct content *content)
{
    uv_handle_t *timer = (uv_handle_t *)&content->timer;
    if (!content->closing && (!uv_is_active(timer) || uv_timer_get_due_in(&content->timer) > SOON_MS))
        uv_timer_start(&content->timer, on_timer, SOON_MS, 0);
}

/* ---- links ---- */

/* The content that a link belongs to: what the exchange is given as the link's context. */
struct neighbour {
    struct content *content;
    struct link *link;
    struct exchange_peer *peer;
};

static int link_send_message(void *ctx, uint8_t type, const void *head, size_t head_bytes, const void *body,
                             size_t body_bytes)
{
    struct neighbour *neighbour = ctx;
    return link_send(neighbour->link, type, head, head_bytes, body, body_bytes, NULL);
}

static size_t link_send_room(void *ctx)
{
    struct neighbour *neighbour = ctx;
    return link_room(neighbour->link);
}

static uint32_t link_rtt(void *ctx)
{
    struct neighbour *neighbour = ctx;
    struct session_stats stats;
    link_get_stats(neighbour->link, &stats);
    return stats.rtt_ms;
}

static bool link_address(void *ctx, struct addr *ret_addr)
{
    struct neighbour *neighbour = ctx;
    *ret_addr = mesh_address_of(neighbour->content->mesh, &link_peer(neighbour->link)->id);
    return ret_addr->family != 0;
}

static bool wants(const struct content_fetch *fetch, const struct id *node)
{
    for (size_t i = 0; i < fetch->wanted_count; i++)
        if (id_equal(&fetch->wanted[i], node))
            return true;
    return false;
}

static bool is_origin(const struct content_fetch *fetch, const struct id *node)
{
    return fetch->wish.origin && id_equal(&fetch->origin, node);
}

static void add_link(struct content_fetch *fetch, struct link *link)
{
    struct neighbour *neighbour = link_data(link);
    if (neighbour && fetch->fetch)
        exchange_fetch_add_peer(fetch->fetch, neighbour->peer, is_origin(fetch, &link_peer(link)->id),
                                now_of(fetch->owner));
}

void content_link_up(struct content *content, struct link *link)
{
    struct neighbour *neighbour = calloc(1, sizeof *neighbour);
    struct exchange_link ops = {
        .send = link_send_message, .room = link_send_room, .rtt_ms = link_rtt, .addr = link_address, .ctx = neighbour};
    struct err err;
    if (!neighbour)
        return;
    neighbour->content = content;
    neighbour->link = link;
    if (exchange_peer_add(content->exchange, &link_peer(link)->id, &ops, &neighbour->peer, &err) < 0) {
        log_warn("content", "a neighbour cannot be used why=\"%s\"", err.text);
        free(neighbour);
        return;
    }
    link_set_data(link, neighbour);
    struct content_fetch *fetch;
    TAILQ_FOREACH (fetch, &content->fetches, entry) {
        if (wants(fetch, &link_peer(link)->id))
            add_link(fetch, link);
    }
    soon(content);
}

void content_link_down(struct content *content, struct link *link)
{
    struct neighbour *neighbour = link_data(link);
    if (!neighbour)
        return;
    link_set_data(link, NULL);
    struct exchange_cost cost;
    exchange_peer_cost(neighbour->peer, &cost);
    costs_keep(&content->costs, &link_peer(link)->id, &cost);
    exchange_peer_remove(neighbour->peer, now_of(content));
    free(neighbour);
    soon(content);
}

int content_link_message(struct content *content, struct link *link, uint8_t type, const uint8_t *data,
                         size_t len_bytes, struct err *err)
{
    struct neighbour *neighbour = link_data(link);
    int status = neighbour ? exchange_peer_input(neighbour->peer, now_of(content), type, data, len_bytes, err) : 0;
    soon(content);
    return status;
}

void content_link_writable(struct content *content, struct link *link)
{
    struct neighbour *neighbour = link_data(link);
    if (neighbour)
        exchange_peer_writable(neighbour->peer, now_of(content));
}

/* ---- telling ---- */

void content_publish(struct content *content, const struct id *digest, uint64_t size_bytes)
{
    struct id key = dht_key(DHT_OBJECT, digest->b, ID_BYTES);
    struct dht_value value = {.size = size_bytes};
    struct err err;
    if (dht_publish(mesh_dht(content->mesh), now_of(content), &key, DHT_OBJECT, &value, &err) < 0)
        log_debug("content", "not published why=\"%s\"", err.text);
    mesh_dht_changed(content->mesh);
}

void content_withdraw(struct content *content, const struct id *digest)
{
    struct id key = dht_key(DHT_OBJECT, digest->b, ID_BYTES);
    dht_withdraw(mesh_dht(content->mesh), now_of(content), &key, NULL);
    mesh_dht_changed(content->mesh);
}

void content_publish_key(struct content *content, enum dht_kind kind, const void *name, size_t name_bytes,
                         const struct id *digest, uint64_t size_bytes, struct store_version version)
{
    struct id key = dht_key(kind, name, name_bytes);
    struct dht_value value = {
        .version = {version.epoch, version.counter}, .size = size_bytes, .data = digest->b, .data_len = ID_BYTES};
    struct err err;
    if (dht_publish(mesh_dht(content->mesh), now_of(content), &key, kind, &value, &err) < 0)
        log_debug("content", "not published why=\"%s\"", err.text);
    mesh_dht_changed(content->mesh);
}

static int publish_one(const struct store_object_info *info, void *ctx)
{
    content_publish(ctx, &info->digest, info->size_bytes);
    return 0;
}

int content_publish_all(struct content *content, struct err *err)
{
    return store_object_each(content->store, publish_one, content, err);
}

static void on_provide(void *ctx, const struct id *object)
{
    content_publish(ctx, object, 0);
}

static void on_liar(void *ctx, const struct id *node, const struct id *object, const char *what)
{
    struct content *content = ctx;
    char name[128], digest[DIGEST_TEXT_SIZE];
    log_error("content", "a node gave wrong bytes and is not asked again node=\"%s\" object=%s what=\"%s\"",
              mesh_describe(content->mesh, node, name, sizeof name), digest_text(object, digest), what);
}

/* ---- fetching ---- */

static void fetch_free(struct content_fetch *fetch)
{
    TAILQ_REMOVE(&fetch->owner->fetches, fetch, entry);
    free(fetch);
}

/* End a fetch for its caller; what the DHT still owes us keeps the memory until it has come. */
static void let_go(struct content_fetch *fetch)
{
    fetch->cancelled = true;
    fetch->fetch = NULL;
    if (fetch->asking == 0)
        fetch_free(fetch);
}

static void on_progress(void *ctx, const struct exchange_progress *progress)
{
    struct content_fetch *fetch = ctx;
    fetch->begun |= progress->total_bytes > 0 || progress->peers > 0;
    if (fetch->wish.on_progress)
        fetch->wish.on_progress(fetch->wish.ctx, progress);
}

static void on_done(void *ctx, int status, const struct err *err, const struct exchange_stats *stats)
{
    struct content_fetch *fetch = ctx;
    struct content *content = fetch->owner;
    fetch->wish.on_done(fetch->wish.ctx, status, err, stats); /* who waits hears of it before the DHT does */
    if (status == 0)
        content_publish(content, &fetch->wish.digest, stats->total_bytes);
    let_go(fetch);
}

static void want_node(struct content_fetch *fetch, const struct id *node, const struct addr *addr)
{
    struct content *content = fetch->owner;
    if (id_equal(node, mesh_self(content->mesh)))
        return;
    if (!wants(fetch, node) && fetch->wanted_count < sizeof fetch->wanted / sizeof fetch->wanted[0])
        fetch->wanted[fetch->wanted_count++] = *node;
    struct link *link = mesh_link(content->mesh, node);
    if (link)
        add_link(fetch, link);
    else
        mesh_connect(content->mesh, node, addr);
}

/* A peer names somebody who has some of an object, or wants it: a crowd finds itself without asking the DHT again. Who
 * is named by hearsay is dialled only while there is room for more, so that lies cost little (faults 15), and where it
 * said itself that it is, if it ever did: nobody moves another node (faults 14). */
static void on_peer(void *ctx, const struct id *object, const struct id *node, const struct addr *addr)
{
    struct content *content = ctx;
    struct addr own = mesh_address_of(content->mesh, node);
    struct content_fetch *fetch;
    TAILQ_FOREACH (fetch, &content->fetches, entry) {
        if (!fetch->cancelled && id_equal(&fetch->wish.digest, object) &&
            fetch->wanted_count < exchange_names_taken(now_of(content) - fetch->began_ms))
            want_node(fetch, node, own.family ? &own : addr);
    }
}

/* Of those that are dialled, the last is anybody: who was never tried would else never be measured. */
static void explore(struct content *content, struct policy_candidate *ranked, size_t count, size_t dials)
{
    if (dials == 0 || count <= dials)
        return;
    size_t at = dials - 1, other = at + rng_below(&content->rng, count - at);
    struct policy_candidate passed_over = ranked[at];
    ranked[at] = ranked[other];
    ranked[other] = passed_over;
}

/* In the policy's order: who is connected is asked, of the others the first few are dialled, more in each round. */
static void want_best(struct content_fetch *fetch, const struct dht_found *found, size_t count)
{
    struct content *content = fetch->owner;
    struct policy_candidate ranked[PROVIDERS_ASKED];
    size_t others = providers_rank(content, content->mesh, &fetch->policy, found, count, ranked);
    size_t dials = (size_t)fetch->rounds * PROVIDERS_DIALLED;
    explore(content, ranked, others, dials);
    for (size_t i = 0; i < others; i++) {
        bool linked = mesh_link(content->mesh, &ranked[i].node);
        if (linked || dials > 0)
            want_node(fetch, &ranked[i].node, &found[ranked[i].index].contact.addr);
        dials -= !linked && dials > 0;
    }
}

static void on_providers(void *ctx, const struct dht_found *found, size_t count)
{
    struct content_fetch *fetch = ctx;
    fetch->asking--;
    if (!fetch->cancelled)
        want_best(fetch, found, count);
    if (fetch->cancelled && fetch->asking == 0)
        fetch_free(fetch);
    else
        soon(fetch->owner);
}

static void ask_dht(struct content_fetch *fetch, const struct id *key, enum dht_order order)
{
    struct content *content = fetch->owner;
    struct dht_get_options options = {.limit = PROVIDERS_ASKED, .order = order, .want_lease = true};
    fetch->asking++;
    if (dht_get(mesh_dht(content->mesh), now_of(content), key, &options, on_providers, fetch, NULL, NULL) < 0)
        fetch->asking--;
    mesh_dht_changed(content->mesh);
}

static void seek_providers(struct content_fetch *fetch)
{
    struct id key = dht_key(DHT_OBJECT, fetch->wish.digest.b, ID_BYTES);
    fetch->rounds++;
    ask_dht(fetch, &key, policy_order(&fetch->policy));
    for (size_t i = 0; i < fetch->wish.hint_count; i++) /* the newer a version, the less of it has changed since */
        ask_dht(fetch, &fetch->hints[i], DHT_BY_VERSION);
    if (fetch->wish.origin)
        want_node(fetch, &fetch->origin, NULL);
}

/* Of those who are named as providers: who is linked has been asked, and had nothing. */
static bool is_anybody_awaited(const struct content_fetch *fetch)
{
    const struct mesh *mesh = fetch->owner->mesh;
    for (size_t i = 0; i < fetch->wanted_count; i++) {
        const struct id *node = &fetch->wanted[i];
        if (!mesh_link(fetch->owner->mesh, node) && !mesh_seems_gone(mesh, node))
            return true;
    }
    return false;
}

/* Can somebody still come who has it? */
static bool may_be_found(const struct content_fetch *fetch)
{
    const struct content *content = fetch->owner;
    return fetch->begun || fetch->wish.origin || is_anybody_awaited(fetch) || !mesh_is_settled(content->mesh) ||
           store_object_stat(content->store, &fetch->wish.digest, NULL, NULL) != 0;
}

static void count_link(void *ctx, struct link *link)
{
    (void)link;
    ++*(unsigned *)ctx;
}

static void end_fruitless(struct content_fetch *fetch)
{
    char digest[DIGEST_TEXT_SIZE];
    unsigned neighbours = 0;
    struct err err;
    struct exchange_stats stats = {0};
    mesh_each_link(fetch->owner->mesh, count_link, &neighbours);
    err_set(&err, ERR_UNAVAILABLE, "no node that can be reached has object '%s': %u neighbour%s and the DHT were asked",
            digest_text(&fetch->wish.digest, digest), neighbours, neighbours == 1 ? "" : "s");
    exchange_fetch_cancel(fetch->fetch);
    fetch->wish.on_done(fetch->wish.ctx, err.code, &err, &stats);
    let_go(fetch);
}

/* Nobody is left to ask: all who are linked have said no, or were no good. */
static void on_want_peers(void *ctx, const struct id *object)
{
    struct content_fetch *fetch = ctx;
    (void)object;
    if (fetch->asking > 0 || !fetch->fetch)
        return;
    if (may_be_found(fetch))
        fetch->fruitless = 0;
    else
        fetch->fruitless++;
    if (fetch->fruitless > FRUITLESS_MAX)
        end_fruitless(fetch);
    else
        seek_providers(fetch);
}

static void ask_neighbour(void *ctx, struct link *link)
{
    add_link(ctx, link);
}

int content_fetch(struct content *content, const struct content_wish *wish, struct content_fetch **ret_fetch,
                  struct err *err)
{
    struct content_fetch *fetch = calloc(1, sizeof *fetch);
    if (!fetch)
        return err_set(err, ERR_NOMEM, "no memory for a fetch");
    fetch->owner = content;
    fetch->began_ms = now_of(content);
    fetch->wish = *wish;
    fetch->policy = wish->policy ? *wish->policy : content->policy;
    if (wish->origin)
        fetch->origin = *wish->origin;
    if (wish->hint_count > CONTENT_MAX_HINTS)
        fetch->wish.hint_count = CONTENT_MAX_HINTS;
    for (size_t i = 0; i < fetch->wish.hint_count; i++)
        fetch->hints[i] = wish->hints[i];
    TAILQ_INSERT_TAIL(&content->fetches, fetch, entry);
    struct exchange_wish inner = {.kind = (uint8_t)wish->kind,
                                  .class = (uint8_t)wish->class,
                                  .on_progress = on_progress,
                                  .on_done = on_done,
                                  .on_want_peers = on_want_peers,
                                  .ctx = fetch};
    for (size_t i = 0; i < wish->base_count && i < EXCHANGE_BASES; i++)
        inner.bases[inner.n_bases++] = wish->bases[i];
    int status = exchange_fetch(content->exchange, now_of(content), &wish->digest, &inner, &fetch->fetch, err);
    if (status < 0) {
        fetch_free(fetch);
        return status;
    }
    *ret_fetch = fetch;
    mesh_each_link(content->mesh, ask_neighbour, fetch);
    seek_providers(fetch);
    soon(content);
    return 0;
}

void content_fetch_cancel(struct content_fetch *fetch)
{
    exchange_fetch_cancel(fetch->fetch);
    let_go(fetch);
}

/* ---- why ---- */

bool content_peer_cost(const struct content *content, const struct id *node, struct exchange_cost *ret_cost)
{
    struct link *link = mesh_link(content->mesh, node);
    struct neighbour *neighbour = link ? link_data(link) : NULL;
    struct exchange_cost cost = {0};
    if (neighbour)
        exchange_peer_cost(neighbour->peer, &cost);
    bool known = costs_add(&content->costs, node, &cost) || neighbour;
    if (known)
        *ret_cost = cost;
    return known;
}

int content_why(struct content *content, const char *text, const struct policy *policy, content_why_cb done, void *ctx,
                struct err *err)
{
    struct provider_key key;
    int status = providers_parse(text, &key, err);
    if (status == 0)
        whys_ask(&content->whys, now_of(content), text, &key, policy ? policy : &content->policy, done, ctx);
    return status;
}

/* ---- beginning and end ---- */

int content_new(struct store *store, struct jobs jobs, struct clock clock, uv_loop_t *loop,
                struct content **ret_content, struct err *err)
{
    struct content *content = calloc(1, sizeof *content);
    if (!content)
        return err_set(err, ERR_NOMEM, "no memory for content");
    *content = (struct content){.store = store, .jobs = jobs, .clock = clock};
    content->rng = rng_system();
    TAILQ_INIT(&content->fetches);
    content->policy = policy_default();
    whys_init(&content->whys, content);
    costs_init(&content->costs, rng_u64(&content->rng));
    struct exchange_config config = {.store = store,
                                     .jobs = jobs,
                                     .rng = content->rng,
                                     .on_liar = on_liar,
                                     .on_provide = on_provide,
                                     .on_peer = on_peer,
                                     .ctx = content};
    int status = exchange_new(&config, &content->exchange, err);
    if (status < 0) {
        free(content);
        return status;
    }
    uv_timer_init(loop, &content->timer);
    content->timer.data = content;
    *ret_content = content;
    return 0;
}

void content_set_mesh(struct content *content, struct mesh *mesh)
{
    content->mesh = content->whys.mesh = mesh;
}

void content_set_limits(struct content *content, const struct exchange_limits *limits)
{
    content->limits = *limits;
    exchange_set_limits(content->exchange, limits, now_of(content));
    soon(content);
}

const struct exchange_limits *content_limits(const struct content *content)
{
    return &content->limits;
}

void content_set_price(struct content *content, uint32_t price)
{
    exchange_set_price(content->exchange, price);
}

void content_set_policy(struct content *content, const struct policy *policy)
{
    content->policy = *policy;
}

void content_close(struct content *content)
{
    if (content->closing)
        return;
    content->closing = true;
    whys_close(&content->whys);
    uv_close((uv_handle_t *)&content->timer, NULL);
}

void content_free(struct content *content)
{
    if (!content)
        return;
    exchange_free(content->exchange);
    struct content_fetch *fetch;
    while ((fetch = TAILQ_FIRST(&content->fetches)))
        fetch_free(fetch);
    costs_release(&content->costs);
    free(content);
}
