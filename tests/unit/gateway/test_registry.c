/* Sets and channels of gateways at two nodes of a virtual network, over the DHT itself. */
#include "node/gateway/registry.h"

#include <math.h>

#include "node/base/limits.h"
#include "tests/sim/mesh.h"
#include "tests/unit/gateway/disk.h"

#define STEP_MS 20

struct gate {
    struct mesh *mesh;
    struct node *node;
    struct registry *registry;
    struct disk *disk;
    struct sets *sets;
    struct channels *channels;
    struct subscriber subscriber;
    char pushed[4096];
};

static uint64_t mono(void *ctx)
{
    return ((struct gate *)ctx)->mesh->now_ms;
}

static uint64_t wall(void *ctx)
{
    return WALL_START_MS + ((struct gate *)ctx)->mesh->now_ms;
}

static void on_dht_changed(void *ctx)
{
    struct gate *gate = ctx;
    gate->node->wake_ms = gate->mesh->now_ms;
}

static void on_ready(void *ctx)
{
    (void)ctx;
}

static void on_committed(void *ctx, int status, const struct err *err)
{
    (void)ctx, (void)err;
    assert_int_equal(status, 0);
}

static void push(struct subscriber *subscriber, const void *bytes, size_t len_bytes)
{
    struct gate *gate = (struct gate *)((char *)subscriber - offsetof(struct gate, subscriber));
    strncat(gate->pushed, bytes, len_bytes);
}

static void open_gate(struct gate *gate, struct mesh *mesh, unsigned number)
{
    struct err err;
    *gate = (struct gate){.mesh = mesh, .node = &mesh->nodes[number], .disk = calloc(1, sizeof *gate->disk)};
    struct registry_config config = {.dht = gate->node->dht,
                                     .changed = on_dht_changed,
                                     .ctx = gate,
                                     .clock = {mono, wall, gate},
                                     .rng = rng_seeded(&gate->node->rng_state)};
    assert_int_equal(registry_new(&config, &gate->registry, &err), 0);
    struct sets_config sets = {.mesh = registry_sets(gate->registry),
                               .disk = disk_of(gate->disk),
                               .jobs = disk_jobs(gate->disk),
                               .clock = {mono, wall, gate},
                               .ready = on_ready,
                               .committed = on_committed,
                               .ctx = gate};
    struct channels_mesh channels = registry_channels(gate->registry);
    assert_int_equal(sets_new(&sets, &gate->sets, &err), 0);
    assert_int_equal(channels_new(&channels, 1, &gate->channels, &err), 0);
    subscriber_init(&gate->subscriber, push);
}

static void close_gate(struct gate *gate)
{
    sets_close(gate->sets);
    while (disk_run(gate->disk))
        continue;
    sets_free(gate->sets);
    channels_free(gate->channels);
    registry_free(gate->registry);
    disk_free(gate->disk);
}

static void run_gates(struct gate *gates, size_t count, uint64_t ms)
{
    for (uint64_t end_ms = gates[0].mesh->now_ms + ms; gates[0].mesh->now_ms < end_ms;) {
        for (size_t i = 0; i < count; i++) {
            sets_tick(gates[i].sets);
            disk_run(gates[i].disk);
        }
        run_for(gates[0].mesh, STEP_MS);
    }
}

/* The set as a gate sees it, after waiting for it. */
static struct set *look(struct gate *gates, size_t count, size_t at, const char *name)
{
    struct set *set = NULL;
    enum sets_state state = SETS_WAIT;
    for (int i = 0; i < 200 && state == SETS_WAIT; i++) {
        state = sets_want(gates[at].sets, name, strlen(name), &set);
        if (state == SETS_WAIT)
            run_gates(gates, count, STEP_MS);
    }
    assert_int_equal(state, SETS_READY);
    return set;
}

static void check_members(const struct set *set, const char *expected)
{
    char text[512] = "";
    for (size_t i = 0; i < set_count(set); i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s=%g", i ? " " : "", set_at(set, i)->name.bytes,
                 set_at(set, i)->score);
    assert_string_equal(text, expected);
}

static void put(struct gate *gate, struct set *set, const char *name, double score)
{
    struct err err;
    assert_int_equal(sets_put(gate->sets, set, name, strlen(name), score, &err), 0);
}

static struct mesh *joined_mesh(void)
{
    struct mesh *mesh = mesh_new(the_seed());
    join_all(mesh);
    return mesh;
}

static void test_registry__sets_are_seen_elsewhere(void **state)
{
    (void)state;
    struct mesh *mesh = joined_mesh();
    struct gate gates[2];
    struct err err;
    open_gate(&gates[0], mesh, 3);
    open_gate(&gates[1], mesh, 17);
    struct set *here = look(gates, 2, 0, "jobs");
    check_members(here, "");
    put(&gates[0], here, "a", 1);
    put(&gates[0], here, "b", 2);
    run_gates(gates, 2, 5000);
    struct set *there = look(gates, 2, 1, "jobs");
    check_members(there, "a=1 b=2");

    /* From now on changes come by themselves, both ways. */
    put(&gates[0], here, "c", 3);
    put(&gates[1], there, "d", -INFINITY);
    sets_remove(gates[1].sets, there, set_find(there, "a", 1), &err);
    run_gates(gates, 2, 5000);
    check_members(here, "d=-inf b=2 c=3");
    check_members(there, "d=-inf b=2 c=3");
    assert_int_equal(sets_expire(gates[0].sets, here, wall(&gates[0]) + 60000, &err), 0);
    run_gates(gates, 2, 5000);
    assert_true(sets_ttl_ms(gates[1].sets, there) > 50000);
    assert_int_equal(sets_clear(gates[1].sets, there, &err), 0);
    put(&gates[1], there, "new", 1);
    run_gates(gates, 2, 5000);
    check_members(here, "new=1");
    assert_int_equal(sets_ttl_ms(gates[0].sets, here), -1);
    close_gate(&gates[0]);
    close_gate(&gates[1]);
    mesh_free(mesh);
}

static void test_registry__a_node_alone(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(the_seed());
    struct gate gate;
    open_gate(&gate, mesh, 3);
    struct set *set = look(&gate, 1, 0, "jobs");
    put(&gate, set, "a", 1);
    run_gates(&gate, 1, 1000);
    assert_true(mesh->now_ms < 5000);
    check_members(look(&gate, 1, 0, "jobs"), "a=1");
    close_gate(&gate);
    mesh_free(mesh);
}

static void test_registry__messages_come_once(void **state)
{
    (void)state;
    struct mesh *mesh = joined_mesh();
    struct gate gates[2];
    struct err err;
    size_t receivers = 9;
    open_gate(&gates[0], mesh, 3);
    open_gate(&gates[1], mesh, 17);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(channels_subscribe(gates[i].channels, &gates[i].subscriber, "news", 4, &err), 0);
    run_gates(gates, 2, 3000);
    assert_int_equal(channels_publish(gates[0].channels, "news", 4, "hello", 5, &receivers, &err), 0);
    assert_int_equal(receivers, 1);
    run_gates(gates, 2, 10000);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(gates[i].pushed, "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
        assert_int_equal(channels_unsubscribe(gates[i].channels, &gates[i].subscriber, "news", 4), 1);
    }
    close_gate(&gates[0]);
    close_gate(&gates[1]);
    mesh_free(mesh);
}

static void test_registry__views_show_providers(void **state)
{
    (void)state;
    struct mesh *mesh = joined_mesh();
    struct gate gate;
    char hex[ID_HEX_SIZE], expected[128];
    struct dht_value value = {.score = 2.5};
    struct id key = dht_key(DHT_APP, "web:1", 5);
    open_gate(&gate, mesh, 3);
    struct node *provider = &mesh->nodes[20];
    assert_int_equal(dht_publish(provider->dht, mesh->now_ms, &key, DHT_APP, &value, NULL), 0);
    provider->wake_ms = mesh->now_ms;
    run_gates(&gate, 1, 5000);
    snprintf(expected, sizeof expected, "%s=2.5", id_hex(&provider->contact.id, hex));
    check_members(look(&gate, 1, 0, "cmig:app:web:1"), expected);
    /* What they show is read again while somebody asks, so what is gone goes. */
    assert_int_equal(dht_withdraw(provider->dht, mesh->now_ms, &key, NULL), 0);
    provider->wake_ms = mesh->now_ms;
    run_gates(&gate, 1, 5000);
    check_members(look(&gate, 1, 0, "cmig:app:web:1"), "");
    close_gate(&gate);
    mesh_free(mesh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registry__sets_are_seen_elsewhere),
        cmocka_unit_test(test_registry__a_node_alone),
        cmocka_unit_test(test_registry__messages_come_once),
        cmocka_unit_test(test_registry__views_show_providers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
