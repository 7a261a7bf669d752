/*
 * Nodes that fetch from each other, while messages are lost, changed, cut short and said again, and sessions end and
 * begin, at random. Whatever happens: nobody crashes, nobody ends up with wrong bytes, and when all is over nothing
 * that is counted for somebody is left.
 */
#include "tests/unit/transfer/mesh.h"

#include "transfer/fetch.h"
#include "transfer/serve.h"

enum { MIB = 1 << 20, NODES = 4, SIZE = 3 * MIB, RUNS = 12, KEPT = 16, SOON_MS = 20 };

struct kept {
    uint8_t type;
    size_t len;
    uint8_t *data; /* owned */
};

struct chaos {
    struct mesh *mesh;
    struct rng rng;
    uint64_t state;
    unsigned troubles; /* of 1,000 messages, so many have one */
    struct kept kept[KEPT];
    struct mesh_link *cut; /* to be cut */
};

/* Meddling has no context of its own. */
static struct chaos *chaos_now;

static void keep(struct chaos *chaos, uint8_t type, const uint8_t *data, size_t len)
{
    struct kept *kept = &chaos->kept[rng_below(&chaos->rng, KEPT)];
    free(kept->data);
    *kept = (struct kept){.type = type, .len = len, .data = malloc(len + 1)};
    memcpy(kept->data, data, len);
}

static bool meddle(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    struct chaos *chaos = chaos_now;
    struct mesh_node *node = &link->mesh->nodes[link->to];
    if (node->wake_ms > mesh_ms(link->mesh) + SOON_MS) /* as who owns an exchange does */
        node->wake_ms = mesh_ms(link->mesh) + SOON_MS;
    if (len < 4096)
        keep(chaos, type, data, len);
    if (rng_below(&chaos->rng, 1000) >= chaos->troubles)
        return true;
    switch (rng_below(&chaos->rng, 8)) {
    case 0:
    case 1:
    case 2:
        return false;
    case 3:
    case 4:
        if (len > 0)
            data[rng_below(&chaos->rng, len)] ^= (uint8_t)(1 << rng_below(&chaos->rng, 8));
        return true;
    case 5:
        chaos->cut = link;
        return true;
    default:
        /* once more, or what somebody else said */
        for (unsigned i = 0; i < 8; i++) {
            const struct kept *kept = &chaos->kept[rng_below(&chaos->rng, KEPT)];
            uint8_t *exact = malloc(kept->len + (kept->len == 0));
            if (kept->len > 0)
                memcpy(exact, kept->data, kept->len);
            if (kept->data && link->back->peer &&
                exchange_peer_input(link->back->peer, mesh_ms(link->mesh), kept->type, exact,
                                    kept->len - (kept->len > 0 ? rng_below(&chaos->rng, 2) : 0), NULL) < 0)
                chaos->cut = link;
            free(exact);
        }
        return true;
    }
}

static struct mesh_link *join(struct mesh *mesh, unsigned a, unsigned b)
{
    struct mesh_link *link = mesh_join(mesh, a, b);
    link->meddle = link->back->meddle = meddle;
    return link;
}

/* Sessions that were cut come back, sometimes twice. */
static void come_back(struct chaos *chaos, struct mesh_wish *wishes)
{
    struct mesh *mesh = chaos->mesh;
    unsigned a = (unsigned)rng_below(&chaos->rng, NODES);
    unsigned b = (unsigned)rng_below(&chaos->rng, NODES);
    if (a == b || mesh->n_links + 2 > MESH_LINKS)
        return;
    struct mesh_link *link = join(mesh, a, b);
    if (wishes[a].fetch)
        mesh_ask(&wishes[a], link, false);
    if (wishes[b].fetch)
        mesh_ask(&wishes[b], link->back, false);
}

static void step(struct chaos *chaos)
{
    mesh_step(chaos->mesh);
    if (chaos->cut && chaos->cut->up)
        mesh_cut(chaos->cut);
    chaos->cut = NULL;
}

/* ---- nothing is left ---- */

static void expect_idle_peer(const struct exchange_peer *peer)
{
    const struct serving *serving = &peer->serving;
    assert_true(TAILQ_EMPTY(&peer->asking.requests));
    assert_true(TAILQ_EMPTY(&peer->asking.sources));
    assert_int_equal(peer->asking.asked_bytes, 0);
    assert_int_equal(peer->asking.n_records, 0);
    assert_int_equal(peer->n_interests, 0);
    assert_int_equal(peer->pins, 0);
    assert_int_equal(serving->n_runs, 0);
    assert_int_equal(serving->n_batches, 0);
    assert_int_equal(serving->n_orders, 0);
    assert_int_equal(serving->n_leaves, 0);
    assert_int_equal(serving->n_maps, 0);
    assert_int_equal(serving->n_wants, 0);
    assert_null(serving->lessons);
    assert_false(serving->in_slot || serving->in_queue || serving->looking || serving->ordering);
    for (unsigned i = 0; i < EXCHANGE_CLASSES; i++) {
        assert_int_equal(serving->lanes[i].n_batches, 0);
        assert_false(serving->lanes[i].reading);
    }
}

static void expect_idle(const struct exchange *exchange)
{
    assert_int_equal(exchange->fetch_bytes, 0);
    assert_int_equal(exchange->arrived_bytes, 0);
    assert_int_equal(exchange->serve_bytes, 0);
    assert_int_equal(exchange->jobs, 0);
    assert_int_equal(exchange->lessons, 0);
    assert_int_equal(exchange->orders, 0);
    assert_true(TAILQ_EMPTY(&exchange->asked));
    assert_int_equal(exchange->serve.n_batches, 0);
    for (unsigned i = 0; i < EXCHANGE_CLASSES; i++)
        assert_int_equal(exchange->serve.works[i], 0);
    assert_true(TAILQ_EMPTY(&exchange->fetches));
    assert_int_equal(exchange->fetch_of.count, 0);
    assert_int_equal(exchange->interests.count, 0);
    const struct exchange_peer *peer;
    TAILQ_FOREACH (peer, &exchange->peers, link) {
        expect_idle_peer(peer);
    }
}

static void run(unsigned seed)
{
    struct chaos chaos = {.mesh = mesh_new(NODES), .state = seed, .troubles = 1u << seed % 7};
    struct mesh *mesh = chaos.mesh;
    struct mesh_wish wishes[NODES] = {0};
    chaos.rng = rng_seeded(&chaos.state);
    chaos_now = &chaos;
    mesh->rate = 8u << 20;
    OWNED(owned_free) uint8_t *data = mesh_bytes(SIZE, seed);
    OWNED(owned_free) uint8_t *old = malloc(SIZE);
    memcpy(old, data, SIZE);
    for (size_t i = 0; i < SIZE; i += 100000)
        old[i] ^= 1;
    struct id object = mesh_put(&mesh->nodes[0], data, SIZE);
    struct id basis = mesh_put(&mesh->nodes[1], old, SIZE);
    mesh_put(&mesh->nodes[2], old, SIZE);
    if (seed % 2)
        mesh_put(&mesh->nodes[0], old, SIZE);
    for (unsigned i = 1; i < NODES; i++)
        mesh_fetch_like(mesh, i, &object, i < 3 ? &basis : NULL, &wishes[i]);
    for (unsigned i = 0; i < 2 * NODES; i++)
        come_back(&chaos, wishes);
    for (unsigned ms = 0; ms < 3000; ms++) {
        if (ms % 100 == 0)
            come_back(&chaos, wishes);
        step(&chaos);
    }
    for (unsigned i = 1; i < NODES; i++) {
        if (wishes[i].done && wishes[i].status == 0)
            assert_true(mesh_has(&mesh->nodes[i], &object, data, SIZE));
        if (wishes[i].fetch)
            exchange_fetch_cancel(wishes[i].fetch);
    }
    chaos.troubles = 0;
    for (unsigned ms = 0; ms < 40000; ms++)
        step(&chaos);
    for (unsigned i = 0; i < NODES; i++)
        expect_idle(mesh->nodes[i].exchange);
    for (unsigned i = 0; i < KEPT; i++)
        free(chaos.kept[i].data);
    mesh_free(mesh);
}

static void test_chaos__nothing_is_left(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= RUNS; seed++) {
        print_message("seed %u\n", seed);
        run(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_chaos__nothing_is_left)};
    return crypto_init(NULL) < 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
