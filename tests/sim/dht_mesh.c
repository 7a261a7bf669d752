/* Joining, publishing and reading on a virtual network of fifty nodes, with losses and deaths. */
#include "tests/sim/mesh.h"

#define RECORDS 200

/* ---- what is asked of it ---- */

static struct id key_number(unsigned number)
{
    char name[32];
    int len = snprintf(name, sizeof name, "object %u", number);
    return dht_key(DHT_OBJECT, name, (size_t)len);
}

static void publish(struct mesh *mesh, unsigned node, unsigned number, double score)
{
    struct id key = key_number(number);
    struct err err = {0};
    struct dht_value value = {.score = score, .size = number, .data = &number, .data_len = sizeof number};
    int status = dht_publish(mesh->nodes[node].dht, mesh->now_ms, &key, DHT_OBJECT, &value, &err);
    assert_int_equal(status, 0);
    mesh->nodes[node].wake_ms = mesh->now_ms;
}

static struct reading read_key(struct mesh *mesh, unsigned node, unsigned number, bool want_lease)
{
    struct reading reading = {0};
    struct id key = key_number(number);
    struct dht_get_options options = {.want_lease = want_lease};
    int status = dht_get(mesh->nodes[node].dht, mesh->now_ms, &key, &options, on_read, &reading, NULL, NULL);
    assert_int_equal(status, 0);
    mesh->nodes[node].wake_ms = mesh->now_ms;
    run_until(mesh, mesh->now_ms + DHT_GET_TIMEOUT_MS, &reading.done);
    assert_true(reading.done);
    return reading;
}

static unsigned publisher_of(unsigned number)
{
    return number % NODES;
}

static void publish_all(struct mesh *mesh)
{
    for (unsigned i = 0; i < RECORDS; i++)
        if (mesh->nodes[publisher_of(i)].dht)
            publish(mesh, publisher_of(i), i, i);
    run_for(mesh, 30000);
}

/* Every record from every tenth node that lives. Returns how many were missing. */
static unsigned read_all(struct mesh *mesh)
{
    unsigned missing = 0;
    for (unsigned node = 0; node < NODES; node += 10)
        for (unsigned i = 0; i < RECORDS && mesh->nodes[node].dht; i++) {
            struct reading reading = read_key(mesh, node, i, false);
            bool right = reading.count == 1 && reading.found[0].record.size == i &&
                         id_equal(&reading.found[0].record.member, &mesh->nodes[publisher_of(i)].contact.id);
            missing += !right;
        }
    return missing;
}

static uint64_t join_publish_and_read(uint64_t seed, bool check)
{
    struct mesh *mesh = mesh_new(seed);
    join_all(mesh);
    for (unsigned i = 0; i < NODES && check; i++) {
        assert_true(stats_of(mesh, i).joined);
        assert_true(stats_of(mesh, i).contacts >= 16);
    }
    publish_all(mesh);
    unsigned missing = read_all(mesh);
    if (check)
        assert_int_equal(missing, 0);
    uint64_t hash = mesh->hash;
    printf("%llu messages, %llu virtual ms\n", (unsigned long long)mesh->delivered, (unsigned long long)mesh->now_ms);
    mesh_free(mesh);
    return hash;
}

/* All join through one, and every record is found from everywhere, although every tenth datagram is lost, some come
 * twice and many out of order; and the same seed gives the same run. */
static void test_dht_mesh__joins_publishes_and_reads(void **state)
{
    (void)state;
    uint64_t seed = the_seed();
    uint64_t hash = join_publish_and_read(seed, true);
    printf("events %016llx\n", (unsigned long long)hash);
    assert_int_equal(join_publish_and_read(seed, false), hash);
}

static void test_dht_mesh__survives_a_third_dying_at_once(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(the_seed());
    join_all(mesh);
    publish_all(mesh);
    for (unsigned i = 0; i < NODES; i++)
        if (i % 10 == 3 || i % 10 == 5 || i % 10 == 8)
            node_kill(mesh, i);
    assert_int_equal(read_all(mesh), 0);
    mesh_free(mesh);
}

/* The member of a dead node is out of every answer after two minutes, others stay in; and their addresses are told. */
static void test_dht_mesh__dead_provider_disappears(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(the_seed());
    join_all(mesh);
    for (unsigned node = 10; node < 14; node++)
        publish(mesh, node, 1, node);
    run_for(mesh, 10000);
    struct reading reading = read_key(mesh, 1, 1, true);
    assert_int_equal(reading.count, 4);
    assert_true(id_equal(&reading.found[0].contact.id, &mesh->nodes[13].contact.id)); /* highest score first */
    assert_true(addr_equal(&reading.found[0].contact.addr, &mesh->nodes[13].contact.addr));

    node_kill(mesh, 13);
    run_for(mesh, DHT_LEASE_TTL_MS + 1000);
    for (unsigned node = 2; node < NODES; node += 12) {
        reading = read_key(mesh, node, 1, true);
        assert_int_equal(reading.count, 3);
        for (size_t i = 0; i < 3; i++)
            assert_true(id_equal(&reading.found[i].record.member, &mesh->nodes[12 - i].contact.id));
    }
    mesh_free(mesh);
}

/* A node that was killed comes back with its contacts, without a seed, and holds its records. */
static void test_dht_mesh__restarts_from_its_storage(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(the_seed());
    join_all(mesh);
    publish_all(mesh);
    size_t held = stats_of(mesh, 20).records;
    assert_true(held > 0);

    node_kill(mesh, 20);
    run_for(mesh, 5000);
    node_start(mesh, 20);
    assert_int_equal(dht_restore(mesh->nodes[20].dht, mesh->now_ms, NULL), 0);
    run_for(mesh, 20000);
    assert_true(stats_of(mesh, 20).joined);
    assert_true(stats_of(mesh, 20).records >= held - NODES); /* leases may have lapsed */
    for (unsigned i = 0; i < RECORDS; i += 10)
        assert_int_equal(read_key(mesh, 20, i, false).count, 1);
    mesh_free(mesh);
}

/* A withdrawn record stays away, also from those who saw the old one, and a newer value shows itself. */
static void test_dht_mesh__withdrawn_is_gone(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(the_seed());
    join_all(mesh);
    publish(mesh, 5, 1, 1);
    publish(mesh, 6, 1, 2);
    run_for(mesh, 10000);
    struct id key = key_number(1);
    assert_int_equal(dht_withdraw(mesh->nodes[6].dht, mesh->now_ms, &key, NULL), 0);
    mesh->nodes[6].wake_ms = mesh->now_ms;
    run_for(mesh, 10000);
    struct reading reading = read_key(mesh, 30, 1, false);
    assert_int_equal(reading.count, 1);
    assert_true(id_equal(&reading.found[0].record.member, &mesh->nodes[5].contact.id));

    publish(mesh, 6, 1, 3);
    run_for(mesh, 10000);
    reading = read_key(mesh, 31, 1, false);
    assert_int_equal(reading.count, 2);
    assert_true(id_equal(&reading.found[0].record.member, &mesh->nodes[6].contact.id));
    mesh_free(mesh);
}

/* Fifty members under one key: more than a message holds, so the reader pages; the best few come in order. */
static void test_dht_mesh__large_set_is_read_whole(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(the_seed());
    join_all(mesh);
    for (unsigned node = 0; node < NODES; node++)
        publish(mesh, node, 1, (node * 37) % NODES);
    run_for(mesh, 20000);
    struct reading reading = read_key(mesh, 9, 1, false);
    assert_int_equal(reading.count, 16);
    for (size_t i = 0; i < 16; i++)
        assert_true(reading.found[i].record.score == (double)(NODES - 1 - i));
    mesh_free(mesh);
}

/* A newcomer close to a key is given its records by those who hold them, without waiting for the hourly round. */
static void test_dht_mesh__newcomer_is_given_records(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(the_seed());
    node_kill(mesh, 7);
    join_all(mesh);
    publish_all(mesh);
    node_start(mesh, 7);
    assert_int_equal(dht_bootstrap(mesh->nodes[7].dht, mesh->now_ms, &mesh->nodes[0].contact, NULL), 0);
    run_for(mesh, 20000);
    assert_true(stats_of(mesh, 7).records > RECORDS / 10);
    mesh_free(mesh);
}

/* A revoked node is out of the tables and its records out of the answers. */
static void test_dht_mesh__revoked_is_forgotten(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(the_seed());
    join_all(mesh);
    publish(mesh, 5, 1, 1);
    publish(mesh, 6, 1, 2);
    run_for(mesh, 10000);
    for (unsigned i = 0; i < NODES; i++)
        assert_int_equal(dht_forget(mesh->nodes[i].dht, &mesh->nodes[6].contact.id, NULL), 0);
    struct reading reading = read_key(mesh, 30, 1, false);
    assert_int_equal(reading.count, 1);
    assert_true(id_equal(&reading.found[0].record.member, &mesh->nodes[5].contact.id));
    run_for(mesh, 60000);
    assert_true(stats_of(mesh, 30).dropped_revoked > 0 || stats_of(mesh, 6).timeouts > 0);
    mesh_free(mesh);
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dht_mesh__joins_publishes_and_reads),
        cmocka_unit_test(test_dht_mesh__survives_a_third_dying_at_once),
        cmocka_unit_test(test_dht_mesh__dead_provider_disappears),
        cmocka_unit_test(test_dht_mesh__restarts_from_its_storage),
        cmocka_unit_test(test_dht_mesh__withdrawn_is_gone),
        cmocka_unit_test(test_dht_mesh__large_set_is_read_whole),
        cmocka_unit_test(test_dht_mesh__newcomer_is_given_records),
        cmocka_unit_test(test_dht_mesh__revoked_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
