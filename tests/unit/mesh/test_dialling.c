/*
 * Whom content.c dials, and where: of the mesh, the DHT and the exchange there is only what this file makes of them, so
 * that what they say can be chosen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "node/base/crypto.h"
#include "node/mesh/content.h"

enum { PROVIDERS = 16, DIALLED = 8, CALLS_MAX = 64 };

static struct world {
    struct exchange_config config; /* what content.c gave to the exchange */
    dht_get_cb found;              /* what it wants to be called with by the DHT */
    void *found_ctx;
    struct {
        struct id node;
        struct addr addr;
    } calls[CALLS_MAX];
    unsigned call_count;
    struct addr own; /* what a node said of itself; family 0: nothing */
    uint64_t now_ms;
    char some_mesh, some_exchange, some_fetch;
} world;

/* ---- the exchange ---- */

int exchange_new(const struct exchange_config *config, struct exchange **ret_exchange, struct err *err)
{
    (void)err;
    world.config = *config;
    *ret_exchange = (struct exchange *)&world.some_exchange;
    return 0;
}

void exchange_free(struct exchange *exchange)
{
    (void)exchange;
}

void exchange_tick(struct exchange *exchange, uint64_t now_ms, uint64_t *ret_wake_ms)
{
    (void)exchange;
    (void)now_ms;
    *ret_wake_ms = UINT64_MAX;
}

void exchange_set_limits(struct exchange *exchange, const struct exchange_limits *limits, uint64_t now_ms)
{
    (void)exchange;
    (void)limits;
    (void)now_ms;
}

void exchange_set_price(struct exchange *exchange, uint32_t price)
{
    (void)exchange;
    (void)price;
}

int exchange_peer_add(struct exchange *exchange, const struct id *node, const struct exchange_link *link,
                      struct exchange_peer **ret_peer, struct err *err)
{
    (void)exchange;
    (void)node;
    (void)link;
    (void)ret_peer;
    return err_set(err, ERR_LIMIT, "there are no links here");
}

int exchange_peer_input(struct exchange_peer *peer, uint64_t now_ms, uint8_t type, const uint8_t *data,
                        size_t len_bytes, struct err *err)
{
    (void)peer;
    (void)now_ms;
    (void)type;
    (void)data;
    (void)len_bytes;
    (void)err;
    return 0;
}

void exchange_peer_writable(struct exchange_peer *peer, uint64_t now_ms)
{
    (void)peer;
    (void)now_ms;
}

void exchange_peer_remove(struct exchange_peer *peer, uint64_t now_ms)
{
    (void)peer;
    (void)now_ms;
}

void exchange_peer_cost(const struct exchange_peer *peer, struct exchange_cost *ret_cost)
{
    (void)peer;
    (void)ret_cost;
}

int exchange_fetch(struct exchange *exchange, uint64_t now_ms, const struct id *object,
                   const struct exchange_wish *wish, struct exchange_fetch **ret_fetch, struct err *err)
{
    (void)exchange;
    (void)now_ms;
    (void)object;
    (void)wish;
    (void)err;
    *ret_fetch = (struct exchange_fetch *)&world.some_fetch;
    return 0;
}

void exchange_fetch_add_peer(struct exchange_fetch *fetch, struct exchange_peer *peer, bool origin, uint64_t now_ms)
{
    (void)fetch;
    (void)peer;
    (void)origin;
    (void)now_ms;
}

void exchange_fetch_cancel(struct exchange_fetch *fetch)
{
    (void)fetch;
}

/* ---- the DHT ---- */

int dht_get(struct dht *dht, uint64_t now_ms, const struct id *key, const struct dht_get_options *options,
            dht_get_cb cb, void *ctx, uint64_t *ret_request, struct err *err)
{
    (void)dht;
    (void)now_ms;
    (void)key;
    (void)options;
    (void)ret_request;
    (void)err;
    world.found = cb;
    world.found_ctx = ctx;
    return 0;
}

void dht_cancel(struct dht *dht, uint64_t request)
{
    (void)dht;
    (void)request;
}

int dht_publish(struct dht *dht, uint64_t now_ms, const struct id *key, enum dht_kind kind,
                const struct dht_value *value, struct err *err)
{
    (void)dht;
    (void)now_ms;
    (void)key;
    (void)kind;
    (void)value;
    (void)err;
    return 0;
}

int dht_withdraw(struct dht *dht, uint64_t now_ms, const struct id *key, struct err *err)
{
    (void)dht;
    (void)now_ms;
    (void)key;
    (void)err;
    return 0;
}

struct dht_place dht_place(const struct dht *dht, double *ret_error)
{
    (void)dht;
    *ret_error = 1;
    return (struct dht_place){.height = UINT16_MAX};
}

/* ---- the mesh ---- */

static const struct id self = {{0xff}};

const struct id *mesh_self(const struct mesh *mesh)
{
    (void)mesh;
    return &self;
}

struct dht *mesh_dht(struct mesh *mesh)
{
    (void)mesh;
    return NULL;
}

void mesh_dht_changed(struct mesh *mesh)
{
    (void)mesh;
}

bool mesh_is_settled(const struct mesh *mesh)
{
    (void)mesh;
    return false;
}

struct addr mesh_address_of(const struct mesh *mesh, const struct id *node)
{
    (void)mesh;
    (void)node;
    return world.own;
}

const char *mesh_name_of(const struct mesh *mesh, const struct id *node)
{
    (void)mesh;
    (void)node;
    return "";
}

const char *mesh_describe(const struct mesh *mesh, const struct id *node, char *text, size_t text_size)
{
    (void)mesh;
    (void)node;
    (void)text_size;
    text[0] = 0;
    return text;
}

void mesh_each_link(struct mesh *mesh, links_each_cb each, void *ctx)
{
    (void)mesh;
    (void)each;
    (void)ctx;
}

struct link *mesh_link(struct mesh *mesh, const struct id *node)
{
    (void)mesh;
    (void)node;
    return NULL;
}

void mesh_connect(struct mesh *mesh, const struct id *node, const struct addr *addr)
{
    (void)mesh;
    assert_in_range(world.call_count, 0, CALLS_MAX - 1);
    world.calls[world.call_count].node = *node;
    world.calls[world.call_count++].addr = addr ? *addr : (struct addr){0};
}

bool mesh_seems_gone(const struct mesh *mesh, const struct id *node)
{
    (void)mesh;
    (void)node;
    return false;
}

/* ---- the rig ---- */

struct rig {
    uv_loop_t loop;
    struct content *content; /* owned */
    struct content_wish wish;
};

static void on_done(void *ctx, int status, const struct err *err, const struct exchange_stats *stats)
{
    (void)ctx;
    (void)status;
    (void)err;
    (void)stats;
    fail_msg("nothing ends here");
}

static uint64_t time_now(void *ctx)
{
    (void)ctx;
    return world.now_ms;
}

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    struct err err;
    assert_int_equal(crypto_init(&err), 0);
    world = (struct world){.now_ms = 1000};
    struct clock clock = {.mono_ms = time_now, .wall_ms = time_now};
    uv_loop_init(&rig->loop);
    assert_int_equal(content_new(NULL, (struct jobs){0}, clock, &rig->loop, &rig->content, &err), 0);
    content_set_mesh(rig->content, (struct mesh *)&world.some_mesh);
    rig->wish = (struct content_wish){.digest = {{1, 2, 3}}, .kind = STORE_BLOB, .on_done = on_done};
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    content_close(rig->content);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    content_free(rig->content);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    free(rig);
    return 0;
}

static struct id provider(unsigned i)
{
    return (struct id){{7, (uint8_t)i, (uint8_t)(i >> 8)}};
}

static struct addr address(uint8_t last, uint16_t port)
{
    return (struct addr){.family = 4, .ip = {192, 0, 2, last}, .port = port};
}

/* Provider i says that it is the i-th cheapest. */
static void find_providers(struct dht_found found[PROVIDERS])
{
    for (unsigned i = 0; i < PROVIDERS; i++) {
        found[i] = (struct dht_found){.record = {.member = provider(i), .score = -1.0 - i, .place.height = UINT16_MAX}};
        found[i].contact.id = provider(i);
        found[i].contact.addr = address((uint8_t)i, 7421);
    }
}

/* ---- tests ---- */

/* The best are dialled by what they claim, and one of all the others, whoever it is: who is never tried is never
 * measured. 400 fetches pass one of nine over once in 10^19. */
static void test_dialling__the_last_of_those_dialled_is_anybody(void **state)
{
    struct rig *rig = *state;
    static struct dht_found found[PROVIDERS];
    unsigned dialled[PROVIDERS] = {0};
    enum { FETCHES = 400 };
    find_providers(found);
    for (int n = 0; n < FETCHES; n++) {
        struct content_fetch *fetch;
        struct err err;
        assert_int_equal(content_fetch(rig->content, &rig->wish, &fetch, &err), 0);
        world.call_count = 0;
        world.found(world.found_ctx, found, PROVIDERS);
        assert_int_equal(world.call_count, DIALLED);
        for (unsigned c = 0; c < DIALLED; c++) {
            unsigned i = world.calls[c].node.b[1];
            dialled[i]++;
            assert_true(addr_equal(&world.calls[c].addr, &found[i].contact.addr));
        }
        content_fetch_cancel(fetch);
    }
    for (unsigned i = 0; i < PROVIDERS; i++) {
        if (i < DIALLED - 1)
            assert_int_equal(dialled[i], FETCHES);
        else
            assert_in_range(dialled[i], 1, FETCHES / 3);
    }
}

/* Where all can be dialled, all are, and each once. */
static void test_dialling__nobody_is_dialled_twice(void **state)
{
    struct rig *rig = *state;
    static struct dht_found found[PROVIDERS];
    find_providers(found);
    for (size_t count = 0; count <= DIALLED; count++) {
        struct content_fetch *fetch;
        struct err err;
        unsigned seen = 0;
        assert_int_equal(content_fetch(rig->content, &rig->wish, &fetch, &err), 0);
        world.call_count = 0;
        world.found(world.found_ctx, found, count);
        assert_int_equal(world.call_count, count);
        for (unsigned c = 0; c < world.call_count; c++)
            seen |= 1u << world.calls[c].node.b[1];
        assert_int_equal(seen, (1u << count) - 1);
        content_fetch_cancel(fetch);
    }
}

/* faults 14: a peer names a node at an address; if the node has said itself where it is, that counts. */
static void test_dialling__hearsay_moves_nobody(void **state)
{
    struct rig *rig = *state;
    struct content_fetch *fetch;
    struct err err;
    struct id node = provider(3);
    struct id another_object = {{9}};
    struct addr told = address(66, 9999);
    assert_int_equal(content_fetch(rig->content, &rig->wish, &fetch, &err), 0);

    world.config.on_peer(world.config.ctx, &rig->wish.digest, &node, &told);
    assert_int_equal(world.call_count, 1);
    assert_true(id_equal(&world.calls[0].node, &node));
    assert_true(addr_equal(&world.calls[0].addr, &told)); /* nothing better is known */

    world.own = address(3, 7421);
    world.config.on_peer(world.config.ctx, &rig->wish.digest, &node, &told);
    assert_int_equal(world.call_count, 2);
    assert_true(addr_equal(&world.calls[1].addr, &world.own));

    world.config.on_peer(world.config.ctx, &another_object, &node, &told);
    world.config.on_peer(world.config.ctx, &rig->wish.digest, &self, &told);
    assert_int_equal(world.call_count, 2);
    world.found(world.found_ctx, NULL, 0);
    content_fetch_cancel(fetch);
}

static void name_many(struct rig *rig, unsigned first)
{
    struct addr told = address(66, 9999);
    for (unsigned i = first; i < first + 200; i++) {
        struct id node = provider(i);
        world.config.on_peer(world.config.ctx, &rig->wish.digest, &node, &told);
    }
}

/* faults 15: however many are named, only so many are dialled, and few at first: those who come later are to be met as
 * well. */
static void test_dialling__hearsay_is_bounded(void **state)
{
    struct rig *rig = *state;
    struct content_fetch *fetch;
    struct err err;
    assert_int_equal(content_fetch(rig->content, &rig->wish, &fetch, &err), 0);
    name_many(rig, 0);
    assert_int_equal(world.call_count, 12);
    world.now_ms += 4000;
    name_many(rig, 200);
    assert_int_equal(world.call_count, 26);
    world.now_ms += 60000;
    name_many(rig, 400);
    assert_int_equal(world.call_count, 40);
    world.found(world.found_ctx, NULL, 0);
    content_fetch_cancel(fetch);
}

#define with_rig(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_rig(test_dialling__the_last_of_those_dialled_is_anybody),
        with_rig(test_dialling__nobody_is_dialled_twice),
        with_rig(test_dialling__hearsay_moves_nobody),
        with_rig(test_dialling__hearsay_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
