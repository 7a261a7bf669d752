/* What takes hours: idling, being cut in two. */
#include "tests/sim/mesh.h"

#define HOUR_MS 3600000u

static uint64_t sent_by_all(const struct mesh *mesh)
{
    uint64_t sent = 0;
    for (unsigned i = 0; i < NODES; i++)
        sent += stats_of(mesh, i).sent;
    return sent;
}

/* Nobody asks for anything: leases, checks, walks and comparisons are a packet in ten seconds of each node, answers and
 * the repeats of what is lost included. */
static void test_dht_long__idles_at_little_cost(void **state)
{
    (void)state;
    enum { HOURS = 4 };
    struct mesh *mesh = mesh_new(the_seed());
    mesh->loss_percent = 1;
    join_all(mesh);
    run_for(mesh, HOUR_MS);
    uint64_t before = sent_by_all(mesh);
    run_for(mesh, HOURS * HOUR_MS);
    double rate = (double)(sent_by_all(mesh) - before) / NODES / (HOURS * HOUR_MS / 1000);
    printf("%.3f packets/s a node\n", rate);
    assert_true(rate <= 0.1);
    mesh_free(mesh);
}

/* A third of the nodes, which may be cut off. */
static bool is_minor(unsigned node)
{
    return node % 3 == 0;
}

static void cut(struct mesh *mesh, bool apart)
{
    for (unsigned i = 0; i < NODES; i++)
        mesh->nodes[i].side = apart && is_minor(i);
}

struct known {
    unsigned minor, major;
};

static bool count_known(void *ctx, const struct dht_contact *contact, unsigned rtt_ms, uint64_t heard_ms)
{
    struct known *known = ctx;
    (void)rtt_ms;
    (void)heard_ms;
    if (is_minor(number_at(&contact->addr)))
        known->minor++;
    else
        known->major++;
    return true;
}

/* The least and the most that a node knows of the other part. */
static void known_across(struct mesh *mesh, unsigned *ret_least, unsigned *ret_most)
{
    *ret_least = NODES;
    *ret_most = 0;
    for (unsigned i = 0; i < NODES; i++) {
        struct known known = {0};
        dht_contacts(mesh->nodes[i].dht, count_known, &known);
        unsigned across = is_minor(i) ? known.major : known.minor;
        *ret_least = across < *ret_least ? across : *ret_least;
        *ret_most = across > *ret_most ? across : *ret_most;
    }
}

/* A third and two thirds cannot hear each other for so long that nobody has the others in its tables any more. Within
 * an hour after they can, all know of the other part again, though nobody has joined anew. */
static void test_dht_long__parts_find_each_other(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(the_seed());
    unsigned least, most;
    mesh->loss_percent = 1;
    join_all(mesh);
    known_across(mesh, &least, &most);
    assert_true(least >= 5);
    cut(mesh, true);
    run_for(mesh, 8 * HOUR_MS);
    known_across(mesh, &least, &most);
    assert_int_equal(most, 0);
    cut(mesh, false);
    run_for(mesh, HOUR_MS);
    known_across(mesh, &least, &most);
    printf("at least %u, at most %u\n", least, most);
    assert_true(least >= 5);
    mesh_free(mesh);
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dht_long__idles_at_little_cost),
        cmocka_unit_test(test_dht_long__parts_find_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
