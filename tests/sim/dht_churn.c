/*
 * A hundred and twenty DHT nodes of which half live for less than three quarters of an hour, each replaced by a
 * stranger that knows nothing, for four virtual hours: four generations. What was acknowledged in the first one, mostly
 * by writers who are long dead, is found in the last. CMIG_SEED chooses another seed; it is printed.
 *
 * Signatures are hashes here: who signs is not what this is about, and it takes a fifth of the time.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dht/dht.h"

#define NODES 120
#define RECORDS 400
#define HOUR_MS 3600000u
#define HOURS 4
#define HALF_LIFE_MS (HOUR_MS / 4 * 3)
#define WALL_START_MS 1767225600000u /* 2026-01-01 */
#define LOSS_PERCENT 1

struct mesh;

struct node {
    struct mesh *mesh;
    unsigned number;
    uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES];
    struct dht_contact contact;
    struct dht_memory *memory;
    struct dht *dht;
    uint64_t rng_state;
    uint64_t wake_ms;
    uint64_t dies_ms;
};

struct packet {
    uint64_t at_ms;
    uint64_t sequence;
    struct dht_contact from;
    unsigned to;
    struct id to_id;
    size_t len;
    uint8_t bytes[];
};

struct mesh {
    struct node nodes[NODES];
    struct packet **heap; /* by (at_ms, sequence) */
    size_t count, cap;
    uint64_t now_ms;
    uint64_t sequence;
    uint64_t rng_state;
    struct rng rng;
    uint64_t sent;
    unsigned dying; /* the next */
    unsigned born;
};

/* ---- signatures ---- */

static void make_signature(const uint8_t *public_key, const void *data, size_t len, uint8_t ret_signature[64])
{
    crypto_blake2b(ret_signature, 64, NULL, 0, public_key, CRYPTO_SIGN_PUBLIC_BYTES, data, len);
}

static void sign(void *ctx, const void *data, size_t len, uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES])
{
    const struct node *node = ctx;
    make_signature(node->public_key, data, len, ret_signature);
}

static bool check(void *ctx, const uint8_t signature[CRYPTO_SIGNATURE_BYTES], const void *data, size_t len,
                  const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES])
{
    uint8_t right[CRYPTO_SIGNATURE_BYTES];
    (void)ctx;
    make_signature(public_key, data, len, right);
    return memcmp(right, signature, sizeof right) == 0;
}

/* ---- the virtual network ---- */

static bool before(const struct packet *a, const struct packet *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->sequence < b->sequence;
}

static void heap_push(struct mesh *mesh, struct packet *packet)
{
    if (mesh->count == mesh->cap) {
        mesh->cap = mesh->cap ? mesh->cap * 2 : 256;
        mesh->heap = realloc(mesh->heap, mesh->cap * sizeof *mesh->heap);
        assert_non_null(mesh->heap);
    }
    size_t at = mesh->count++;
    for (; at > 0 && before(packet, mesh->heap[(at - 1) / 2]); at = (at - 1) / 2)
        mesh->heap[at] = mesh->heap[(at - 1) / 2];
    mesh->heap[at] = packet;
}

static struct packet *heap_pop(struct mesh *mesh)
{
    struct packet *top = mesh->heap[0], *last = mesh->heap[--mesh->count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < mesh->count; at = child) {
        if (child + 1 < mesh->count && before(mesh->heap[child + 1], mesh->heap[child]))
            child++;
        if (!before(mesh->heap[child], last))
            break;
        mesh->heap[at] = mesh->heap[child];
    }
    mesh->heap[at] = last;
    return top;
}

static void node_send(void *ctx, const struct dht_contact *to, const uint8_t *bytes, size_t len)
{
    struct node *node = ctx;
    struct mesh *mesh = node->mesh;
    mesh->sent++;
    node->wake_ms = 0; /* look again */
    if (rng_below(&mesh->rng, 100) < LOSS_PERCENT)
        return;
    struct packet *packet = malloc(sizeof *packet + len);
    assert_non_null(packet);
    *packet = (struct packet){
        .at_ms = mesh->now_ms + 20 + rng_below(&mesh->rng, 40),
        .sequence = mesh->sequence++,
        .from = node->contact,
        .to = (unsigned)to->addr.ip[1] << 8 | to->addr.ip[2],
        .to_id = to->id,
        .len = len,
    };
    memcpy(packet->bytes, bytes, len);
    heap_push(mesh, packet);
}

/* So long that half of all are shorter. */
static uint64_t session_ms(struct mesh *mesh)
{
    double share = ((double)rng_below(&mesh->rng, 1u << 30) + 1) / (1u << 30);
    return (uint64_t)(-log2(share) * HALF_LIFE_MS) + 1;
}

/* Somebody new, at the place of somebody dead; it joins through three who live. */
static void node_start(struct mesh *mesh, unsigned number, unsigned living)
{
    struct node *node = &mesh->nodes[number];
    struct addr addr = {.family = 4, .port = 7421, .ip = {10, (uint8_t)(number >> 8), (uint8_t)number, 1}};
    *node = (struct node){.mesh = mesh, .number = number, .rng_state = rng_u64(&mesh->rng)};
    mesh->rng.fill(mesh->rng.ctx, node->public_key, sizeof node->public_key);
    node->contact = dht_contact_of(node->public_key, &addr);
    node->dies_ms = mesh->now_ms + session_ms(mesh);
    for (unsigned i = 0; i < NODES; i++)
        if (mesh->nodes[i].dies_ms < mesh->nodes[mesh->dying].dies_ms)
            mesh->dying = i;
    node->wake_ms = mesh->now_ms;
    mesh->born++;
    assert_int_equal(dht_memory_new(&node->memory, NULL), 0);
    struct dht_config config = {
        .public_key = node->public_key,
        .signatures = {.sign = sign, .check = check, .ctx = node},
        .address = addr,
        .now_ms = mesh->now_ms,
        .wall_ms = WALL_START_MS + mesh->now_ms,
        .rng = rng_seeded(&node->rng_state),
        .storage = dht_storage_memory(node->memory),
        .send = node_send,
        .send_ctx = node,
    };
    assert_int_equal(dht_new(&config, &node->dht, NULL), 0);
    for (unsigned i = 0; i < 3 && living > 0; i++) {
        unsigned through = (unsigned)rng_below(&mesh->rng, living);
        if (through != number && mesh->nodes[through].dht)
            dht_bootstrap(node->dht, mesh->now_ms, &mesh->nodes[through].contact, NULL);
    }
}

/* Every fourth says that it goes. */
static void node_die(struct mesh *mesh, unsigned number)
{
    struct node *node = &mesh->nodes[number];
    if (rng_below(&mesh->rng, 4) == 0)
        dht_leave(node->dht, mesh->now_ms);
    dht_free(node->dht);
    dht_memory_free(node->memory);
    node->dht = NULL;
    node_start(mesh, number, NODES);
}

static void deliver(struct mesh *mesh, struct packet *packet)
{
    struct node *to = &mesh->nodes[packet->to];
    if (to->dht && id_equal(&to->contact.id, &packet->to_id)) {
        dht_input(to->dht, mesh->now_ms, &packet->from, packet->bytes, packet->len);
        to->wake_ms = dht_next_ms(to->dht);
    }
    free(packet);
}

static struct node *first_waking(struct mesh *mesh)
{
    struct node *first = mesh->nodes;
    for (struct node *node = first + 1; node < mesh->nodes + NODES; node++)
        if (node->wake_ms < first->wake_ms)
            first = node;
    return first;
}

static uint64_t earliest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void run_until(struct mesh *mesh, uint64_t end_ms, const bool *flag)
{
    while (!flag || !*flag) {
        struct node *node = first_waking(mesh);
        uint64_t packet_ms = mesh->count > 0 ? mesh->heap[0]->at_ms : UINT64_MAX;
        uint64_t dies_ms = mesh->nodes[mesh->dying].dies_ms;
        uint64_t next_ms = earliest(earliest(node->wake_ms, packet_ms), dies_ms);
        if (next_ms > end_ms)
            break;
        if (next_ms > mesh->now_ms)
            mesh->now_ms = next_ms;
        if (dies_ms <= next_ms) {
            node_die(mesh, mesh->dying);
        } else if (packet_ms <= node->wake_ms) {
            deliver(mesh, heap_pop(mesh));
        } else {
            node->wake_ms = UINT64_MAX;
            node->wake_ms = dht_tick(node->dht, mesh->now_ms);
        }
    }
    if (!flag || !*flag)
        mesh->now_ms = end_ms;
}

static struct mesh *mesh_new(uint64_t seed)
{
    struct mesh *mesh = calloc(1, sizeof *mesh);
    assert_non_null(mesh);
    mesh->rng_state = seed;
    mesh->rng = rng_seeded(&mesh->rng_state);
    for (unsigned i = 0; i < NODES; i++) {
        mesh->nodes[i].wake_ms = mesh->nodes[i].dies_ms = UINT64_MAX;
        mesh->nodes[i].dht = NULL;
    }
    for (unsigned i = 0; i < NODES; i++) {
        node_start(mesh, i, i);
        run_until(mesh, mesh->now_ms + 500, NULL);
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

/* ---- what is asked of it ---- */

static struct id key_number(unsigned number)
{
    return dht_key(DHT_SET, &number, sizeof number);
}

struct writing {
    unsigned number;
    bool done;
    bool acknowledged;
};

static void on_done(void *ctx, const struct id *key, size_t accepted)
{
    struct writing *writing = ctx;
    (void)key;
    writing->done = true;
    writing->acknowledged = accepted >= DHT_ACKED;
}

/* By somebody or other, who will be dead soon. */
static void write_record(struct mesh *mesh, unsigned number, struct writing *writing)
{
    struct node *writer = &mesh->nodes[rng_below(&mesh->rng, NODES)];
    struct id key = key_number(number);
    writing->number = number;
    struct dht_member member = {
        .name = &writing->number,
        .name_len = sizeof writing->number,
        .score = number,
        .version = dht_stamp(writer->dht, mesh->now_ms),
        .done = on_done,
        .done_ctx = writing,
    };
    assert_int_equal(dht_write(writer->dht, mesh->now_ms, &key, DHT_SET, &member, NULL), 0);
    writer->wake_ms = mesh->now_ms;
}

struct reading {
    bool done;
    bool right;
};

static void on_read(void *ctx, const struct dht_found *found, size_t count)
{
    struct reading *reading = ctx;
    reading->done = true;
    reading->right = count == 1 && found[0].record.data_len == sizeof(unsigned);
}

/* Who has just come may not know anybody yet, and who is about to die is not told the answer. */
static bool can_read(const struct mesh *mesh, const struct node *node)
{
    struct dht_stats stats;
    dht_stats(node->dht, &stats);
    return stats.joined && stats.contacts >= DHT_REPLICAS && node->dies_ms >= mesh->now_ms + 60000;
}

static bool is_found(struct mesh *mesh, unsigned number)
{
    struct reading reading = {0};
    struct id key = key_number(number);
    unsigned reader = (unsigned)rng_below(&mesh->rng, NODES);
    while (!can_read(mesh, &mesh->nodes[reader]))
        reader = (reader + 1) % NODES;
    assert_int_equal(dht_get(mesh->nodes[reader].dht, mesh->now_ms, &key, NULL, on_read, &reading, NULL, NULL), 0);
    mesh->nodes[reader].wake_ms = mesh->now_ms;
    run_until(mesh, mesh->now_ms + DHT_GET_TIMEOUT_MS, &reading.done);
    return reading.right;
}

static unsigned missing(struct mesh *mesh, const struct writing *writings)
{
    unsigned count = 0;
    for (unsigned i = 0; i < RECORDS; i++)
        count += writings[i].acknowledged && !is_found(mesh, i);
    return count;
}

/* No acknowledged record is lost while the mesh is replaced several times over. */
static void test_dht_churn__no_acknowledged_record_is_lost(void **state)
{
    const char *text = getenv("CMIG_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 7421;
    struct writing *writings = calloc(RECORDS, sizeof *writings);
    (void)state;
    printf("seed %llu\n", (unsigned long long)seed);
    struct mesh *mesh = mesh_new(seed);
    run_until(mesh, mesh->now_ms + 60000, NULL);
    unsigned acknowledged = 0;
    for (unsigned i = 0; i < RECORDS; i++) {
        write_record(mesh, i, &writings[i]);
        run_until(mesh, mesh->now_ms + 2000, NULL);
    }
    for (unsigned i = 0; i < RECORDS; i++)
        acknowledged += writings[i].acknowledged;
    assert_true(acknowledged >= RECORDS / 100 * 98); /* some writers died meanwhile */
    for (unsigned hour = 0; hour < HOURS; hour += 2) {
        mesh->sent = 0;
        run_until(mesh, mesh->now_ms + 2 * HOUR_MS, NULL);
        uint64_t sent = mesh->sent;
        unsigned lost = missing(mesh, writings);
        printf("%u hours, %u nodes were born, %.2f packets/s a node, %u of %u missing\n", hour + 2, mesh->born,
               (double)sent / NODES / (2 * 3600.0), lost, acknowledged);
        assert_int_equal(lost, 0);
    }
    mesh_free(mesh);
    free(writings);
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dht_churn__no_acknowledged_record_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
