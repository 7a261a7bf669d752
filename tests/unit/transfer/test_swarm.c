#include "tests/unit/transfer/mesh.h"

#include "node/base/scope.h"
#include "transfer/fetch.h"

#define MIB (1u << 20)

/* ---- crowds ---- */

struct crowd {
    struct mesh *mesh;
    struct id object;
    size_t size;
    unsigned n; /* receivers; node 0 is the seed */
    struct mesh_link *to[MESH_NODES][MESH_NODES];
    struct mesh_wish wishes[MESH_NODES];
    uint8_t *data; /* owned */
};

/* Links of 100 Mbit/s and 5 ms, everybody joined with everybody, all wish at once. */
static void crowd_init(struct crowd *crowd, unsigned n, size_t size)
{
    *crowd = (struct crowd){.mesh = mesh_new(1 + n), .n = n, .size = size, .data = mesh_bytes(size, 31)};
    crowd->mesh->rate = 12500000;
    crowd->mesh->delay_us = 5000;
    crowd->object = mesh_put(&crowd->mesh->nodes[0], crowd->data, size);
    for (unsigned a = 0; a <= n; a++) {
        for (unsigned b = a + 1; b <= n; b++) {
            crowd->to[a][b] = mesh_join(crowd->mesh, a, b);
            crowd->to[b][a] = crowd->to[a][b]->back;
        }
    }
}

static void crowd_begin(struct crowd *crowd)
{
    for (unsigned a = 1; a <= crowd->n; a++) {
        mesh_fetch(crowd->mesh, a, &crowd->object, &crowd->wishes[a]);
        for (unsigned b = 0; b <= crowd->n; b++) {
            if (a != b)
                mesh_ask(&crowd->wishes[a], crowd->to[a][b], b == 0);
        }
    }
}

/* Until all but those in `lost` (bits) have it; how many times size / rate that took. */
static double crowd_wait(struct crowd *crowd, unsigned lost)
{
    uint64_t start = mesh_ms(crowd->mesh);
    for (unsigned a = 1; a <= crowd->n; a++) {
        if (lost >> a & 1)
            continue;
        mesh_wait(crowd->mesh, &crowd->wishes[a], 60000);
        assert_int_equal(crowd->wishes[a].status, 0);
        assert_true(mesh_has(&crowd->mesh->nodes[a], &crowd->object, crowd->data, crowd->size));
    }
    return (double)(mesh_ms(crowd->mesh) - start) / 1000 * (double)crowd->mesh->rate / (double)crowd->size;
}

static double crowd_copies(const struct crowd *crowd)
{
    uint64_t bytes = 0;
    for (unsigned a = 1; a <= crowd->n; a++)
        bytes += crowd->to[0][a]->chunk_bytes;
    return (double)bytes / (double)crowd->size;
}

static void crowd_free(struct crowd *crowd)
{
    mesh_free(crowd->mesh);
    free(crowd->data);
}

/* What the issue asks for, with a quarter of its object: at a quarter of the time, starting counts four times. */
static void test_swarm__crowd(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_init(&crowd, 8, 16 * MIB);
    crowd_begin(&crowd);
    double took = crowd_wait(&crowd, 0);
    double copies = crowd_copies(&crowd);
    print_message("8 receivers: %.2f x size / rate, %.2f copies\n", took, copies);
    assert_true(took <= 1.5);
    assert_true(copies <= 1.2);
    uint64_t twice = 0;
    for (unsigned a = 1; a <= crowd.n; a++)
        twice += crowd.wishes[a].stats.duplicate_bytes;
    assert_true(twice <= crowd.n * crowd.size / 50);
    crowd_free(&crowd);
}

static bool flip_bits(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    if (type == MESSAGE_CHUNK && link->chunk_bytes >= link->meddle_after)
        data[len / 2 + 17] ^= 1;
    return true;
}

static bool swallow(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)data;
    (void)len;
    (void)type;
    return link->meddle_after == 0 || mesh_ms(link->mesh) < link->meddle_after;
}

/* One is killed, one lies, one says nothing any more: the others have it all the same, not much later. */
static void test_swarm__crowd_in_trouble(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_init(&crowd, 8, 16 * MIB);
    crowd_begin(&crowd);
    uint64_t start = mesh_ms(crowd.mesh);
    for (unsigned other = 0; other <= 8; other++) {
        if (other != 7)
            crowd.to[7][other]->meddle = flip_bits;
        if (other == 8)
            continue;
        crowd.to[8][other]->meddle = crowd.to[other][8]->meddle = swallow;
        crowd.to[8][other]->meddle_after = crowd.to[other][8]->meddle_after = start + 400;
    }
    while (mesh_ms(crowd.mesh) < start + 600)
        mesh_step(crowd.mesh);
    for (unsigned other = 0; other <= 8; other++) {
        if (other != 6)
            mesh_cut(crowd.to[6][other]);
    }
    double took = crowd_wait(&crowd, 1u << 6 | 1u << 8) + 0.6 * (double)crowd.mesh->rate / (double)crowd.size;
    print_message("with one killed, one liar, one silent: %.2f x\n", took);
    assert_true(took <= 2.3); /* of 16 MiB; swarmsim.bats holds 64 MiB to the 1.5 that is aimed at */
    for (unsigned a = 1; a <= 5; a++)
        assert_true(crowd.mesh->nodes[a].liars <= 1);
    exchange_fetch_cancel(crowd.wishes[6].fetch);
    if (!crowd.wishes[8].done)
        exchange_fetch_cancel(crowd.wishes[8].fetch);
    crowd_free(&crowd);
}

/* faults 33, 36: with three liars of ten, what comes is at least seven tenths of what would */
static void test_swarm__liars(void **state)
{
    (void)state;
    double took[2];
    for (unsigned lying = 0; lying < 2; lying++) {
        enum { HOLDERS = 9 };
        struct mesh *mesh = mesh_new(HOLDERS + 1);
        mesh->rate = 4u << 20;
        OWNED(owned_free) uint8_t *data = mesh_bytes(24 * MIB, 32);
        struct id object = {0};
        struct mesh_wish wish;
        for (unsigned i = 0; i < HOLDERS; i++)
            object = mesh_put(&mesh->nodes[i], data, 24 * MIB);
        mesh_fetch(mesh, HOLDERS, &object, &wish);
        for (unsigned i = 0; i < HOLDERS; i++) {
            struct mesh_link *link = mesh_join(mesh, HOLDERS, i);
            mesh_ask(&wish, link, false);
            if (i % 3 == 0 && lying)
                link->back->meddle = flip_bits;
            if (i % 3 == 0 && !lying)
                mesh_cut(link); /* the same without them */
        }
        took[lying] = (double)mesh_wait(mesh, &wish, 20000);
        assert_int_equal(wish.status, 0);
        assert_int_equal(mesh->nodes[HOLDERS].liars, lying ? 3 : 0);
        /* a liar costs a few runs */
        assert_true(mesh->nodes[HOLDERS].exchange->peers.tqh_first != NULL);
        assert_true(wish.stats.fetched_bytes == 24 * MIB);
        mesh_free(mesh);
    }
    print_message("%.0f ms without liars, %.0f with\n", took[0], took[1]);
    assert_true(took[0] / took[1] >= 0.7);
}

/* What has come is given on at once, before it is synced and before the rest has come. */
static void test_swarm__haves_at_once(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_init(&crowd, 2, 8 * MIB);
    mesh_cut(crowd.to[0][2]); /* all that the second gets comes from the first */
    mesh_fetch(crowd.mesh, 1, &crowd.object, &crowd.wishes[1]);
    mesh_fetch(crowd.mesh, 2, &crowd.object, &crowd.wishes[2]);
    mesh_ask(&crowd.wishes[1], crowd.to[1][0], true);
    mesh_ask(&crowd.wishes[2], crowd.to[2][1], false);
    mesh_wait(crowd.mesh, &crowd.wishes[1], 5000);
    uint64_t left = mesh_wait(crowd.mesh, &crowd.wishes[2], 5000);
    assert_int_equal(crowd.wishes[2].status, 0);
    /* all of it would be 670 ms */
    assert_in_range(left, 0, 250);
    crowd_free(&crowd);
}

/* ---- deals ---- */

static bool deal_the_same(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    (void)len;
    if (type == MESSAGE_DEALT)
        memcpy(data + 4, "\0\0\0\0\0\0\0\1", 8);
    return true;
}

static bool deal_nothing(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    (void)len;
    if (type == MESSAGE_DEALT)
        memset(data + 4, 0, 8);
    return true;
}

/* A holder that deals what is here already, or says that it has dealt everything, is asked for runs. */
static void test_swarm__useless_deals(void **state)
{
    (void)state;
    static bool (*const LIES[])(struct mesh_link *, uint8_t, uint8_t *, size_t) = {deal_the_same, deal_nothing};
    for (unsigned lie = 0; lie < 2; lie++) {
        struct crowd crowd;
        crowd_init(&crowd, 2, 4 * MIB);
        crowd.to[0][1]->meddle = crowd.to[0][2]->meddle = LIES[lie];
        crowd_begin(&crowd);
        uint64_t start = mesh_ms(crowd.mesh);
        for (unsigned a = 1; a <= 2; a++) {
            while (!crowd.wishes[a].done && mesh_ms(crowd.mesh) < start + 60000)
                mesh_step(crowd.mesh);
            assert_true(crowd.wishes[a].done);
            assert_int_equal(crowd.wishes[a].status, 0);
        }
        crowd_free(&crowd);
    }
}

/* faults 37: what was not asked for, and what the recipe has not */
static void test_swarm__forged_deals(void **state)
{
    (void)state;
    struct crowd crowd;
    crowd_init(&crowd, 2, 4 * MIB);
    crowd_begin(&crowd);
    const struct request *request = NULL;
    for (unsigned i = 0; i < 1000 && !request; i++) {
        mesh_step(crowd.mesh);
        TAILQ_FOREACH (request, &crowd.to[1][0]->peer->asking.requests, link) {
            if (request->dealing)
                break;
        }
    }
    assert_non_null(request);
    uint8_t dealt[12] = {0, 0, 0, (uint8_t)request->number, 0, 0, 0xff, 0xff, 0, 0, 0, 1};
    assert_int_equal(exchange_peer_input(crowd.to[1][0]->peer, mesh_ms(crowd.mesh), MESSAGE_DEALT, dealt, 12, NULL),
                     ERR_PROTOCOL);
    dealt[3] = 0xee; /* of no request */
    int status = 0;
    for (unsigned i = 0; i < LIMIT_PEER_STRIKES && status == 0; i++)
        status = exchange_peer_input(crowd.to[1][0]->peer, mesh_ms(crowd.mesh), MESSAGE_DEALT, dealt, 12, NULL);
    assert_int_equal(status, ERR_PROTOCOL);
    crowd_free(&crowd);
}

/* ---- peers ---- */

struct named {
    unsigned n;
    struct id last;
};

static void count_peer(void *ctx, const struct id *object, const struct id *node, const struct addr *addr)
{
    struct named *named = ctx;
    (void)object;
    assert_true(addr_is_usable(addr));
    named->n++;
    named->last = *node;
}

static bool some_addr(void *ctx, struct addr *ret_addr)
{
    const struct mesh_link *link = ctx;
    *ret_addr = (struct addr){.family = 4, .port = 7421, .ip = {10, 0, 0, (uint8_t)(1 + link->to)}};
    return true;
}

static void listen_for_peers(struct mesh_node *node, struct named *named)
{
    node->exchange->config.on_peer = count_peer;
    node->exchange->config.on_provide = NULL;
    node->exchange->config.on_liar = NULL;
    node->exchange->config.ctx = named;
}

/* Two that know only the seed hear of each other from it. */
static void test_swarm__peers_are_told(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    mesh->rate = 1u << 20;
    OWNED(owned_free) uint8_t *data = mesh_bytes(8 * MIB, 33);
    struct id object = mesh_put(&mesh->nodes[0], data, 8 * MIB);
    struct named named[2] = {{0}, {0}};
    struct mesh_wish wishes[2];
    for (unsigned i = 0; i < 2; i++) {
        struct mesh_link *link = mesh_join(mesh, 1 + i, 0);
        link->back->peer->out.addr = some_addr;
        listen_for_peers(&mesh->nodes[1 + i], &named[i]);
        mesh_fetch(mesh, 1 + i, &object, &wishes[i]);
        mesh_ask(&wishes[i], link, false);
        for (unsigned k = 0; k < 1000; k++)
            mesh_step(mesh);
    }
    /* the second at once, the first a few seconds later */
    assert_int_equal(named[1].n, 1);
    assert_true(id_equal(&named[1].last, &mesh->nodes[1].id));
    assert_int_equal(named[0].n, 0);
    mesh->nodes[0].wake_ms = 0; /* messages have come: the daemon looks at the time then */
    for (unsigned k = 0; k < 6000; k++)
        mesh_step(mesh);
    assert_true(named[0].n >= 1);
    assert_true(id_equal(&named[0].last, &mesh->nodes[2].id));
    for (unsigned i = 0; i < 2; i++)
        exchange_fetch_cancel(wishes[i].fetch);
    mesh_free(mesh);
}

/* faults 14, 15: a flood of names is heard once a second; unusable addresses and who is here already never */
static void test_swarm__flood_of_peers(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    struct id object = {{7}};
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    struct named named = {0};
    struct mesh_wish wish;
    listen_for_peers(&mesh->nodes[1], &named);
    mesh_fetch(mesh, 1, &object, &wish);
    mesh_ask(&wish, link, false);
    OWNED(buf_release) struct buf message = BUF(4096);
    buf_add(&message, object.b, ID_BYTES);
    for (unsigned i = 0; i < MESSAGE_PEERS_MAX; i++) {
        struct id node = {{(uint8_t)i, 1}};
        struct addr addr = {.family = 4, .port = i == 5 ? 0 : 7421, .ip = {10, 1, 1, (uint8_t)(i + 1)}};
        transfer_message_put_peer(&message, i == 6 ? &mesh->nodes[0].id : &node, &addr);
    }
    uint64_t start = mesh_ms(mesh);
    for (unsigned i = 0; i < 10000; i++)
        assert_int_equal(
            exchange_peer_input(link->peer, start + i / 10, MESSAGE_PEERS, message.data, message.len, NULL), 0);
    assert_int_equal(named.n, MESSAGE_PEERS_MAX - 2);
    exchange_fetch_cancel(wish.fetch);
    mesh_free(mesh);
}

/* ---- hedges ---- */

/* The cable of one of two holders is pulled: what that costs beyond what the other needs for the rest. */
static void test_swarm__cable_pulled(void **state)
{
    (void)state;
    for (uint64_t when = 60; when <= 300; when += 60) {
        struct mesh *mesh = mesh_new(3);
        mesh->rate = 20u << 20;
        OWNED(owned_free) uint8_t *data = mesh_bytes(16 * MIB, 34);
        struct id object = mesh_put(&mesh->nodes[0], data, 16 * MIB);
        mesh_put(&mesh->nodes[1], data, 16 * MIB);
        struct mesh_link *good = mesh_join(mesh, 2, 0);
        struct mesh_link *bad = mesh_join(mesh, 2, 1);
        uint64_t start = mesh_ms(mesh);
        bad->meddle = bad->back->meddle = swallow;
        bad->meddle_after = bad->back->meddle_after = start + when;
        struct mesh_wish wish;
        mesh_fetch(mesh, 2, &object, &wish);
        mesh_ask(&wish, good, false);
        mesh_ask(&wish, bad, false);
        uint64_t took = mesh_wait(mesh, &wish, 20000);
        assert_int_equal(wish.status, 0);
        uint64_t bad_bytes = mesh_share(&wish, &mesh->nodes[1])->bytes;
        uint64_t needed = (16 * MIB - bad_bytes) * 1000 / mesh->rate;
        print_message("pulled at %llu ms: %llu ms, %llu needed\n", (unsigned long long)when, (unsigned long long)took,
                      (unsigned long long)needed);
        assert_true(took <= needed + 300);
        mesh_free(mesh);
    }
}

/* ---- credit, costs, classes ---- */

/* A way of 100 ms and 1 Gbit/s is filled. */
static void test_swarm__long_fat_link(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    mesh->rate = 125000000;
    mesh->delay_us = 50000;
    OWNED(owned_free) uint8_t *data = mesh_bytes(96 * MIB, 35);
    struct id object = mesh_put(&mesh->nodes[0], data, 96 * MIB);
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    struct mesh_wish wish;
    mesh_fetch(mesh, 1, &object, &wish);
    mesh_ask(&wish, link, false);
    uint64_t took = mesh_wait(mesh, &wish, 10000);
    print_message("96 MiB at 1 Gbit/s and 100 ms: %llu ms of 805\n", (unsigned long long)took);
    assert_int_equal(wish.status, 0);
    /* the recipe takes five round trips, the window four to open */
    assert_in_range(took, 805, 2400);
    mesh_free(mesh);
}

/* What is measured is the object, not what it takes to send it. */
static void test_swarm__goodput_of_what_compresses(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    mesh->rate = 1u << 20;
    OWNED(owned_free) uint8_t *data = mesh_bytes(8 * MIB, 36);
    for (size_t i = 0; i < 8 * MIB; i++)
        data[i] = i % 8 == 0 ? data[i] : 'a';
    struct id object = mesh_put(&mesh->nodes[0], data, 8 * MIB);
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    struct mesh_wish wish;
    mesh_fetch(mesh, 1, &object, &wish);
    mesh_ask(&wish, link, false);
    uint64_t took = mesh_wait(mesh, &wish, 20000);
    struct exchange_cost cost;
    exchange_peer_cost(link->peer, &cost);
    assert_true(wish.stats.wire_bytes < 4 * MIB);
    uint64_t real = (uint64_t)8 * MIB * 1000 / took;
    assert_in_range(cost.goodput_bytes_per_s, real * 3 / 4, real * 3 / 2);
    mesh_free(mesh);
}

/* Of two that are as fast, the dear one is spared; what it costs is told. */
static void test_swarm__price(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    mesh->rate = 20u << 20;
    OWNED(owned_free) uint8_t *data = mesh_bytes(24 * MIB, 37);
    struct id object = mesh_put(&mesh->nodes[0], data, 24 * MIB);
    mesh_put(&mesh->nodes[1], data, 24 * MIB);
    exchange_set_price(mesh->nodes[1].exchange, 7000);
    struct mesh_link *links[2];
    struct mesh_wish wish;
    mesh_fetch(mesh, 2, &object, &wish);
    for (unsigned i = 0; i < 2; i++) {
        links[i] = mesh_join(mesh, 2, i);
        mesh_ask(&wish, links[i], false);
    }
    mesh_wait(mesh, &wish, 20000);
    assert_int_equal(wish.status, 0);
    struct exchange_cost cost;
    exchange_peer_cost(links[1]->peer, &cost);
    assert_int_equal(cost.price, 7000);
    exchange_peer_cost(links[0]->peer, &cost);
    assert_int_equal(cost.price, 0);
    print_message("the dear one gave %llu of %u\n", (unsigned long long)mesh_share(&wish, &mesh->nodes[1])->bytes,
                  24 * MIB);
    assert_true(mesh_share(&wish, &mesh->nodes[1])->bytes < 10 * MIB);
    mesh_free(mesh);
}

/* Four objects of four classes over one link: in the order of their classes, and none waits for good. */
static void test_swarm__classes(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    mesh->rate = 20u << 20;
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    struct mesh_wish wishes[EXCHANGE_CLASSES];
    OWNED(owned_free) uint8_t *data = mesh_bytes(EXCHANGE_CLASSES * 12 * MIB, 38);
    for (uint8_t class = 0; class < EXCHANGE_CLASSES; class ++) {
        struct id object = mesh_put(&mesh->nodes[0], data + class * 12 * MIB, 12 * MIB);
        struct exchange_wish wish = {.kind = STORE_BLOB,
                                     .class = class,
                                     .on_progress = mesh_on_progress,
                                     .on_done = mesh_on_done,
                                     .ctx = &wishes[class]};
        wishes[class] = (struct mesh_wish){.done = false};
        assert_int_equal(
            exchange_fetch(mesh->nodes[1].exchange, mesh_ms(mesh), &object, &wish, &wishes[class].fetch, NULL), 0);
        mesh_ask(&wishes[class], link, false);
    }
    uint64_t first = mesh_wait(mesh, &wishes[EXCHANGE_FREEZE], 5000);
    assert_in_range(first, 600, 1100);
    for (uint8_t class = 1; class < EXCHANGE_CLASSES; class ++) {
        assert_true(wishes[class].progress.done_bytes > 0 || class == EXCHANGE_PREFETCH);
        assert_true(wishes[class].progress.done_bytes < 8 * MIB);
    }
    mesh_wait(mesh, &wishes[EXCHANGE_VOLUME], 5000);
    assert_true(wishes[EXCHANGE_PREFETCH].progress.done_bytes > 0);
    assert_true(wishes[EXCHANGE_PREFETCH].progress.done_bytes < wishes[EXCHANGE_LAYER].progress.done_bytes);
    mesh_wait(mesh, &wishes[EXCHANGE_LAYER], 5000);
    mesh_wait(mesh, &wishes[EXCHANGE_PREFETCH], 5000);
    mesh_free(mesh);
}

/* A limit on what comes in holds, whoever sends, and is gone when it is lifted. */
static void test_swarm__download_limit(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    OWNED(owned_free) uint8_t *data = mesh_bytes(8 * MIB, 39);
    struct id object = mesh_put(&mesh->nodes[0], data, 8 * MIB);
    mesh_put(&mesh->nodes[1], data, 8 * MIB);
    struct exchange_limits limits = {.down = {.total = 2 * MIB}};
    exchange_set_limits(mesh->nodes[2].exchange, &limits, mesh_ms(mesh));
    struct mesh_wish wish;
    mesh_fetch(mesh, 2, &object, &wish);
    for (unsigned i = 0; i < 2; i++)
        mesh_ask(&wish, mesh_join(mesh, 2, i), false);
    for (unsigned i = 0; i < 2000; i++)
        mesh_step(mesh);
    assert_in_range(wish.progress.done_bytes, 3 * MIB, 5 * MIB);
    limits.down.total = 0;
    exchange_set_limits(mesh->nodes[2].exchange, &limits, mesh_ms(mesh));
    assert_in_range(mesh_wait(mesh, &wish, 5000), 10, 400);
    assert_int_equal(wish.status, 0);
    mesh_free(mesh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_swarm__crowd),
        cmocka_unit_test(test_swarm__crowd_in_trouble),
        cmocka_unit_test(test_swarm__liars),
        cmocka_unit_test(test_swarm__haves_at_once),
        cmocka_unit_test(test_swarm__useless_deals),
        cmocka_unit_test(test_swarm__forged_deals),
        cmocka_unit_test(test_swarm__peers_are_told),
        cmocka_unit_test(test_swarm__flood_of_peers),
        cmocka_unit_test(test_swarm__cable_pulled),
        cmocka_unit_test(test_swarm__long_fat_link),
        cmocka_unit_test(test_swarm__goodput_of_what_compresses),
        cmocka_unit_test(test_swarm__price),
        cmocka_unit_test(test_swarm__classes),
        cmocka_unit_test(test_swarm__download_limit),
    };
    return crypto_init(NULL) < 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
