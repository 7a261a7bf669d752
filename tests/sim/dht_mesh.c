/*
 * Fifty DHT nodes on a virtual network: latency, loss, duplicates and reordering from one seed, time without waiting.
 * CMIG_SEED chooses another seed; it is printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dht/dht.h"

#define NODES 50
#define RECORDS 200
#define WALL_START_MS 1767225600000u /* 2026-01-01 */

/* ---- the virtual network ---- */

struct mesh;

struct node {
    struct mesh *mesh;
    unsigned number;
    struct crypto_sign_key key;
    struct dht_contact contact;
    struct dht_memory *memory;
    struct dht *dht; /* NULL: dead */
    uint64_t rng_state;
    uint64_t wake_ms;
};

struct packet {
    uint64_t at_ms;
    uint64_t sequence;
    unsigned from, to;
    size_t len;
    uint8_t bytes[DHT_MESSAGE_MAX_BYTES];
};

struct mesh {
    struct node nodes[NODES];
    struct packet **heap; /* by (at_ms, sequence) */
    size_t count, cap;
    uint64_t now_ms;
    uint64_t sequence;
    uint64_t rng_state;
    struct rng rng;
    unsigned loss_percent, duplicate_percent;
    uint64_t hash; /* of all that was delivered, in order */
    uint64_t delivered;
};

static bool before(const struct packet *a, const struct packet *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->sequence < b->sequence;
}

static void heap_swap(struct mesh *mesh, size_t a, size_t b)
{
    struct packet *packet = mesh->heap[a];
    mesh->heap[a] = mesh->heap[b];
    mesh->heap[b] = packet;
}

static void heap_push(struct mesh *mesh, struct packet *packet)
{
    if (mesh->count == mesh->cap) {
        mesh->cap = mesh->cap ? mesh->cap * 2 : 256;
        mesh->heap = realloc(mesh->heap, mesh->cap * sizeof *mesh->heap);
        assert_non_null(mesh->heap);
    }
    size_t at = mesh->count++;
    mesh->heap[at] = packet;
    for (; at > 0 && before(mesh->heap[at], mesh->heap[(at - 1) / 2]); at = (at - 1) / 2)
        heap_swap(mesh, at, (at - 1) / 2);
}

static struct packet *heap_pop(struct mesh *mesh)
{
    struct packet *top = mesh->heap[0];
    mesh->heap[0] = mesh->heap[--mesh->count];
    for (size_t at = 0;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2; child++)
            if (child < mesh->count && before(mesh->heap[child], mesh->heap[least]))
                least = child;
        if (least == at)
            return top;
        heap_swap(mesh, at, least);
        at = least;
    }
}

static void hash_add(struct mesh *mesh, const void *data, size_t len)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < len; i++)
        mesh->hash = (mesh->hash ^ at[i]) * 0x100000001b3u; /* FNV-1a */
}

static unsigned number_at(const struct addr *addr)
{
    return (unsigned)addr->ip[1] << 8 | addr->ip[2];
}

static void transmit(struct mesh *mesh, unsigned from, unsigned to, const uint8_t *bytes, size_t len)
{
    if (rng_below(&mesh->rng, 100) < mesh->loss_percent)
        return;
    struct packet *packet = malloc(sizeof *packet);
    assert_non_null(packet);
    uint64_t distance_ms = 5 + (from * 7919 + to * 7919) % 40;
    *packet = (struct packet){
        .at_ms = mesh->now_ms + distance_ms + rng_below(&mesh->rng, 20), /* overtaking is possible */
        .sequence = mesh->sequence++,
        .from = from,
        .to = to,
        .len = len,
    };
    memcpy(packet->bytes, bytes, len);
    heap_push(mesh, packet);
}

static void node_send(void *ctx, const struct dht_contact *to, const uint8_t *bytes, size_t len)
{
    struct node *node = ctx;
    struct mesh *mesh = node->mesh;
    unsigned number = number_at(&to->addr);
    assert_true(len <= DHT_MESSAGE_MAX_BYTES);
    assert_true(number < NODES && id_equal(&mesh->nodes[number].contact.id, &to->id));
    node->wake_ms = 0; /* look again */
    transmit(mesh, node->number, number, bytes, len);
    if (rng_below(&mesh->rng, 100) < mesh->duplicate_percent)
        transmit(mesh, node->number, number, bytes, len);
}

static void node_start(struct mesh *mesh, unsigned number)
{
    struct node *node = &mesh->nodes[number];
    struct err err = {0};
    struct dht_config config = {
        .public_key = node->key.public_key,
        .signatures = dht_signatures_ed25519(&node->key),
        .address = node->contact.addr,
        .block_per_bucket = 2,
        .block_per_table = 3,
        .now_ms = mesh->now_ms,
        .wall_ms = WALL_START_MS + mesh->now_ms,
        .rng = rng_seeded(&node->rng_state),
        .storage = dht_storage_memory(node->memory),
        .send = node_send,
        .send_ctx = node,
    };
    assert_int_equal(dht_new(&config, &node->dht, &err), 0);
    node->wake_ms = mesh->now_ms;
}

static void node_kill(struct mesh *mesh, unsigned number)
{
    dht_free(mesh->nodes[number].dht);
    mesh->nodes[number].dht = NULL;
}

static struct mesh *mesh_new(uint64_t seed)
{
    struct mesh *mesh = calloc(1, sizeof *mesh);
    struct err err = {0};
    assert_non_null(mesh);
    mesh->rng_state = seed;
    mesh->rng = rng_seeded(&mesh->rng_state);
    mesh->hash = 0xcbf29ce484222325u;
    mesh->loss_percent = 10;
    mesh->duplicate_percent = 3;
    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &mesh->nodes[i];
        uint8_t key_seed[32];
        node->mesh = mesh;
        node->number = i;
        node->rng_state = rng_u64(&mesh->rng);
        mesh->rng.fill(mesh->rng.ctx, key_seed, sizeof key_seed);
        crypto_sign_key_from_seed(key_seed, &node->key);
        struct addr addr = {.family = 4, .port = 7421, .ip = {10, (uint8_t)(i >> 8), (uint8_t)i, 1}};
        node->contact = dht_contact_of(node->key.public_key, &addr);
        assert_int_equal(dht_memory_new(&node->memory, &err), 0);
        node_start(mesh, i);
    }
    return mesh;
}

static void mesh_free(struct mesh *mesh)
{
    for (unsigned i = 0; i < NODES; i++) {
        dht_free(mesh->nodes[i].dht);
        dht_memory_free(mesh->nodes[i].memory);
    }
    while (mesh->count > 0)
        free(heap_pop(mesh));
    free(mesh->heap);
    free(mesh);
}

static void deliver(struct mesh *mesh, struct packet *packet)
{
    struct node *to = &mesh->nodes[packet->to];
    hash_add(mesh, &packet->at_ms, sizeof packet->at_ms);
    hash_add(mesh, &packet->to, sizeof packet->to);
    hash_add(mesh, packet->bytes, packet->len);
    mesh->delivered++;
    if (to->dht) {
        dht_input(to->dht, mesh->now_ms, &mesh->nodes[packet->from].contact, packet->bytes, packet->len);
        to->wake_ms = dht_next_ms(to->dht);
    }
    free(packet);
}

/* The node that wakes first, or NULL. */
static struct node *first_waking(struct mesh *mesh)
{
    struct node *first = NULL;
    for (unsigned i = 0; i < NODES; i++)
        if (mesh->nodes[i].dht && (!first || mesh->nodes[i].wake_ms < first->wake_ms))
            first = &mesh->nodes[i];
    return first;
}

/* Let time pass until `end_ms`, or until *flag is set. */
static void run_until(struct mesh *mesh, uint64_t end_ms, const bool *flag)
{
    while (!flag || !*flag) {
        struct node *node = first_waking(mesh);
        uint64_t wake_ms = node ? node->wake_ms : UINT64_MAX;
        uint64_t packet_ms = mesh->count > 0 ? mesh->heap[0]->at_ms : UINT64_MAX;
        uint64_t next_ms = wake_ms < packet_ms ? wake_ms : packet_ms;
        if (next_ms > end_ms)
            break;
        if (next_ms > mesh->now_ms)
            mesh->now_ms = next_ms;
        if (packet_ms <= wake_ms) {
            deliver(mesh, heap_pop(mesh));
        } else {
            node->wake_ms = UINT64_MAX;
            node->wake_ms = dht_tick(node->dht, mesh->now_ms);
        }
    }
    if (!flag || !*flag)
        mesh->now_ms = end_ms;
}

static void run_for(struct mesh *mesh, uint64_t ms)
{
    run_until(mesh, mesh->now_ms + ms, NULL);
}

/* ---- what is asked of it ---- */

struct reading {
    bool done;
    size_t count;
    struct dht_found found[32];
};

static void on_read(void *ctx, const struct dht_found *found, size_t count)
{
    struct reading *reading = ctx;
    reading->done = true;
    reading->count = count;
    memcpy(reading->found, found, count * sizeof *found);
}

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

static struct dht_stats stats_of(const struct mesh *mesh, unsigned node)
{
    struct dht_stats stats;
    dht_stats(mesh->nodes[node].dht, &stats);
    return stats;
}

static uint64_t the_seed(void)
{
    const char *text = getenv("CMIG_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 7421;
    printf("seed %llu\n", (unsigned long long)seed);
    return seed;
}

static void join_all(struct mesh *mesh)
{
    for (unsigned i = 1; i < NODES; i++) {
        struct err err = {0};
        if (!mesh->nodes[i].dht)
            continue;
        int status = dht_bootstrap(mesh->nodes[i].dht, mesh->now_ms, &mesh->nodes[0].contact, &err);
        assert_int_equal(status, 0);
        mesh->nodes[i].wake_ms = mesh->now_ms;
    }
    run_for(mesh, 30000);
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
