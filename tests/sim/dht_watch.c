/* Watches on a virtual network: what is published is told to who watches, through loss, deaths and times without a
 * network. */
#include "dht/internal.h"
#include "node/base/scope.h"
#include "tests/sim/mesh.h"

#define WATCHER 3
#define FIRST_WRITER 10
#define WRITERS 30

struct scene {
    struct mesh *mesh;
    struct id key;
    uint64_t watch;
    uint64_t written_ms[NODES]; /* of the last version of each node; 0: none */
    uint64_t versions[NODES];
    uint64_t heard[NODES]; /* versions */
    uint64_t delays_ms[NODES * 8];
    size_t delay_count;
    size_t told;
};

static unsigned number_of(const struct scene *scene, const struct id *member)
{
    unsigned i = 0;
    while (i < NODES && !id_equal(&scene->mesh->nodes[i].contact.id, member))
        i++;
    assert_true(i < NODES);
    return i;
}

static void on_changed(void *ctx, const struct id *key, const struct dht_record *record)
{
    struct scene *scene = ctx;
    unsigned writer = number_of(scene, &record->member);
    assert_true(id_equal(key, &scene->key));
    scene->told++;
    if (record->version.counter <= scene->heard[writer])
        return;
    scene->heard[writer] = record->version.counter;
    if (record->version.counter == scene->versions[writer])
        scene->delays_ms[scene->delay_count++] = scene->mesh->now_ms - scene->written_ms[writer];
}

static void start_watch(struct scene *scene)
{
    struct node *node = &scene->mesh->nodes[WATCHER];
    assert_int_equal(dht_watch(node->dht, scene->mesh->now_ms, &scene->key, on_changed, scene, &scene->watch, NULL), 0);
    node->wake_ms = scene->mesh->now_ms;
}

static struct scene *scene_new(unsigned loss_percent)
{
    struct scene *scene = calloc(1, sizeof *scene);
    assert_non_null(scene);
    scene->mesh = mesh_new(the_seed());
    scene->key = dht_key(DHT_OBJECT, "watched", 7);
    join_all(scene->mesh);
    scene->mesh->loss_percent = loss_percent;
    start_watch(scene);
    run_for(scene->mesh, 5000);
    return scene;
}

static void scene_free(struct scene *scene)
{
    mesh_free(scene->mesh);
    free(scene);
}

static void write_next(struct scene *scene, unsigned writer)
{
    struct node *node = &scene->mesh->nodes[writer];
    struct dht_value value = {.score = writer, .version = {0, ++scene->versions[writer]}};
    scene->written_ms[writer] = scene->mesh->now_ms;
    assert_int_equal(dht_publish(node->dht, scene->mesh->now_ms, &scene->key, DHT_OBJECT, &value, NULL), 0);
    node->wake_ms = scene->mesh->now_ms;
}

static void write_all(struct scene *scene, uint64_t pause_ms)
{
    for (unsigned i = FIRST_WRITER; i < FIRST_WRITER + WRITERS; i++)
        if (scene->mesh->nodes[i].dht) {
            write_next(scene, i);
            run_for(scene->mesh, pause_ms);
        }
}

static void assert_all_heard(const struct scene *scene)
{
    for (unsigned i = 0; i < NODES; i++)
        if (scene->mesh->nodes[i].dht && scene->heard[i] != scene->versions[i])
            fail_msg("of node %u version %llu was heard, and not %llu", i, (unsigned long long)scene->heard[i],
                     (unsigned long long)scene->versions[i]);
}

static int by_number(const void *a, const void *b)
{
    const uint64_t *one = a, *other = b;
    return *one < *other ? -1 : *one > *other;
}

/* The ways take 5 to 65 ms: a write walks to the holders, is stored there and told to the watcher. */
static void test_watch__is_prompt(void **state)
{
    (void)state;
    struct scene *scene = scene_new(0);
    for (int i = 0; i < 4; i++)
        write_all(scene, 700);
    run_for(scene->mesh, 5000);
    assert_all_heard(scene);
    qsort(scene->delays_ms, scene->delay_count, sizeof *scene->delays_ms, by_number);
    assert_int_equal(scene->delay_count, 4 * WRITERS);
    printf("told after %llu ms in the median, %llu at most\n",
           (unsigned long long)scene->delays_ms[scene->delay_count / 2],
           (unsigned long long)scene->delays_ms[scene->delay_count - 1]);
    assert_true(scene->delays_ms[scene->delay_count / 2] < 2000);
    assert_true(scene->told < 6 * WRITERS); /* seldom twice */
    scene_free(scene);
}

static void test_watch__hears_all_through_loss(void **state)
{
    (void)state;
    struct scene *scene = scene_new(20);
    for (int i = 0; i < 4; i++)
        write_all(scene, 300);
    run_for(scene->mesh, 120000);
    assert_all_heard(scene);
    scene_free(scene);
}

/* The closest holders die at once; others are found, and what was missed meanwhile is read. */
static void test_watch__survives_its_holders(void **state)
{
    (void)state;
    struct scene *scene = scene_new(5);
    write_all(scene, 200);
    for (int i = 0; i < 3; i++) {
        unsigned closest = NODES;
        for (unsigned j = 0; j < NODES; j++)
            if (j != WATCHER && scene->mesh->nodes[j].dht &&
                (closest == NODES || dht_closer(&scene->key, &scene->mesh->nodes[j].contact.id,
                                                &scene->mesh->nodes[closest].contact.id) < 0))
                closest = j;
        node_kill(scene->mesh, closest);
    }
    write_all(scene, 200);
    run_for(scene->mesh, 240000);
    assert_all_heard(scene);
    write_all(scene, 200);
    run_for(scene->mesh, 60000);
    assert_all_heard(scene);
    scene_free(scene);
}

static void test_watch__catches_up_after_a_cut(void **state)
{
    (void)state;
    struct scene *scene = scene_new(0);
    write_all(scene, 200);
    scene->mesh->nodes[WATCHER].cut = true;
    run_for(scene->mesh, 300000);
    write_all(scene, 200);
    scene->mesh->nodes[WATCHER].cut = false;
    run_for(scene->mesh, 240000);
    assert_all_heard(scene);
    scene_free(scene);
}

/* Nothing is sent for a watch that has ended. */
static void test_watch__ends(void **state)
{
    (void)state;
    struct scene *scene = scene_new(0);
    size_t watchers = 0;
    for (unsigned i = 0; i < NODES; i++)
        watchers += stats_of(scene->mesh, i).watchers;
    assert_int_equal(watchers, 3);
    dht_unwatch(scene->mesh->nodes[WATCHER].dht, scene->mesh->now_ms, scene->watch);
    scene->mesh->nodes[WATCHER].wake_ms = scene->mesh->now_ms;
    run_for(scene->mesh, 1000);
    for (unsigned i = 0; i < NODES; i++)
        assert_int_equal(stats_of(scene->mesh, i).watchers, 0);
    write_all(scene, 100);
    assert_int_equal(scene->told, 0);
    scene_free(scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_watch__is_prompt),
        cmocka_unit_test(test_watch__hears_all_through_loss),
        cmocka_unit_test(test_watch__survives_its_holders),
        cmocka_unit_test(test_watch__catches_up_after_a_cut),
        cmocka_unit_test(test_watch__ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
