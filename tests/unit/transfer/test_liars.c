/*
 * Holders that are silent, claim what they do not give, or name recipes that nobody has: what they cost those who
 * fetch among honest ones. All on virtual time: the same fetch is run without them, and the two are compared.
 */
#include "tests/unit/transfer/mesh.h"

#include "transfer/fetch.h"

enum { MIB = 1 << 20, HONEST = 3, LIARS = 3, GETTERS = 3, HOLDERS = HONEST + LIARS };
enum { SIZE = 16 * MIB };

typedef bool meddle_fn(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len);

static bool is_piece(uint8_t type)
{
    return type == MESSAGE_CHUNK || type == MESSAGE_MORE;
}

/* Not a byte of what was asked for. */
static bool is_silent(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    (void)data;
    (void)len;
    return !is_piece(type);
}

/* Some first. */
static bool falls_silent(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)data;
    (void)len;
    return !is_piece(type) || link->chunk_bytes < MIB;
}

/* And all by a recipe that nobody has: its HAVE says so. */
static bool invents_root(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    if (type == MESSAGE_HAVE && len >= 64)
        memset(data + 32, 0x5a, 32);
    return !is_piece(type);
}

static bool flips_a_bit(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    if (is_piece(type))
        data[len - 1] ^= 1;
    return true;
}

/* Not even an answer to who has it. */
static bool is_deaf(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    (void)type;
    (void)data;
    (void)len;
    return false;
}

/*
 * One node fetches from `honest` holders and as many liars as there are in `lies`, who are the first that it knows of.
 * Returns the time that it takes.
 */
static uint64_t fetch_alone(unsigned honest, meddle_fn *const *lies, unsigned n_lies)
{
    unsigned getter = honest + n_lies;
    struct mesh *mesh = mesh_new(getter + 1);
    mesh->rate = 4u << 20;
    mesh->delay_us = 2000;
    OWNED(owned_free) uint8_t *data = mesh_bytes(SIZE, 1);
    struct id object = {0};
    struct mesh_wish wish;
    for (unsigned i = 0; i < getter; i++)
        object = mesh_put(&mesh->nodes[i], data, SIZE);
    mesh_fetch(mesh, getter, &object, &wish);
    for (unsigned i = 0; i < getter; i++) {
        struct mesh_link *link = mesh_join(mesh, getter, i);
        link->back->meddle = i < n_lies ? lies[i] : NULL;
        mesh_ask(&wish, link, false);
    }
    uint64_t took = mesh_wait(mesh, &wish, 60000);
    if (wish.status != 0)
        fail_msg("%s", wish.err.text);
    assert_true(mesh_has(&mesh->nodes[getter], &object, data, SIZE));
    mesh_free(mesh);
    return took;
}

/* The first n nodes get it from node `seed` and from those before, one after the other, as yet without a lie. */
static void fetch_first(struct mesh *mesh, unsigned n, unsigned seed, const struct id *object,
                        struct mesh_link *to[MESH_NODES][MESH_NODES])
{
    for (unsigned a = 0; a < n; a++) {
        struct mesh_wish wish;
        mesh_fetch(mesh, a, object, &wish);
        mesh_ask(&wish, to[a][seed], false);
        for (unsigned b = 0; b < a; b++)
            mesh_ask(&wish, to[a][b], false);
        mesh_wait(mesh, &wish, 20000);
    }
}

/*
 * One honest seed, liars that got all of it just before, and honest nodes that fetch it at once, everybody joined with
 * everybody. Returns the time until the last has it.
 */
static uint64_t fetch_in_crowd(meddle_fn *const *lies, unsigned n_lies)
{
    enum { CROWD = 6 };
    unsigned n = n_lies + 1 + CROWD;
    struct mesh *mesh = mesh_new(n);
    mesh->rate = 12u << 20;
    mesh->delay_us = 2000;
    OWNED(owned_free) uint8_t *data = mesh_bytes(SIZE, 2);
    struct id object;
    struct mesh_wish wishes[MESH_NODES];
    struct mesh_link *to[MESH_NODES][MESH_NODES] = {{NULL}};
    object = mesh_put(&mesh->nodes[n_lies], data, SIZE);
    for (unsigned a = 0; a < n; a++) {
        for (unsigned b = a + 1; b < n; b++) {
            to[a][b] = mesh_join(mesh, a, b);
            to[b][a] = to[a][b]->back;
        }
    }
    fetch_first(mesh, n_lies, n_lies, &object, to);
    for (unsigned a = 0; a < n_lies; a++) {
        for (unsigned b = n_lies; b < n; b++)
            to[a][b]->meddle = lies[a];
    }
    for (unsigned a = n_lies + 1; a < n; a++) {
        mesh_fetch(mesh, a, &object, &wishes[a]);
        for (unsigned b = 0; b < n; b++) {
            if (a != b)
                mesh_ask(&wishes[a], to[a][b], false);
        }
    }
    uint64_t start = mesh_ms(mesh);
    for (unsigned a = n_lies + 1; a < n; a++) {
        mesh_wait(mesh, &wishes[a], 60000);
        if (wishes[a].status != 0)
            fail_msg("%s", wishes[a].err.text);
        assert_true(mesh_has(&mesh->nodes[a], &object, data, SIZE));
    }
    uint64_t took = mesh_ms(mesh) - start;
    mesh_free(mesh);
    return took;
}

static void expect(const char *what, uint64_t without_ms, uint64_t among_ms, double least)
{
    double goodput = (double)without_ms / (double)among_ms;
    print_message("%s: %llu ms without, %llu ms among liars, goodput %.2f\n", what, (unsigned long long)without_ms,
                  (unsigned long long)among_ms, goodput);
    assert_true(goodput >= least);
}

static const struct {
    const char *name;
    meddle_fn *lies[LIARS];
} TROUBLES[] = {
    {"silent", {is_silent, is_silent, is_silent}},
    {"fall silent", {falls_silent, falls_silent, falls_silent}},
    {"invented recipes", {invents_root, invents_root, invents_root}},
    {"wrong bytes", {flips_a_bit, flips_a_bit, flips_a_bit}},
    {"deaf", {is_deaf, is_deaf, is_deaf}},
    {"one of each", {is_silent, falls_silent, invents_root}},
};

/* faults 35, with as many liars as honest holders */
static void test_liars__one_who_fetches(void **state)
{
    (void)state;
    uint64_t without = fetch_alone(HONEST, NULL, 0);
    for (size_t i = 0; i < sizeof TROUBLES / sizeof TROUBLES[0]; i++)
        expect(TROUBLES[i].name, without, fetch_alone(HONEST, TROUBLES[i].lies, LIARS), 0.7);
}

/* The only honest one is the last of many to be known. */
static void test_liars__one_is_honest(void **state)
{
    (void)state;
    uint64_t without = fetch_alone(1, NULL, 0);
    for (size_t i = 0; i < sizeof TROUBLES / sizeof TROUBLES[0]; i++)
        expect(TROUBLES[i].name, without, fetch_alone(1, TROUBLES[i].lies, LIARS), 0.8);
}

/* The goodput that is promised with 30 % of liars. */
static void test_liars__crowd(void **state)
{
    (void)state;
    uint64_t without = fetch_in_crowd(NULL, 0);
    for (size_t i = 0; i < sizeof TROUBLES / sizeof TROUBLES[0]; i++)
        expect(TROUBLES[i].name, without, fetch_in_crowd(TROUBLES[i].lies, LIARS), 0.7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_liars__one_who_fetches),
        cmocka_unit_test(test_liars__one_is_honest),
        cmocka_unit_test(test_liars__crowd),
    };
    return crypto_init(NULL) < 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
