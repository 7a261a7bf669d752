/*
 * Fifty DHT nodes on a virtual network: latency, loss, duplicates and reordering from one seed, time without waiting.
 * CMIG_SEED chooses another seed; it is printed.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dht/dht.h"

#define NODES 50
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
    bool cut;        /* nothing comes or goes */
    unsigned side;   /* only those of one side hear of each other */
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
    uint32_t key_max; /* of dht_config */
    uint64_t hash;    /* of all that was delivered, in order */
    uint64_t delivered;
};

static inline bool before(const struct packet *a, const struct packet *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->sequence < b->sequence;
}

static inline void heap_swap(struct mesh *mesh, size_t a, size_t b)
{
    struct packet *packet = mesh->heap[a];
    mesh->heap[a] = mesh->heap[b];
    mesh->heap[b] = packet;
}

static inline void heap_push(struct mesh *mesh, struct packet *packet)
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

static inline struct packet *heap_pop(struct mesh *mesh)
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

static inline void hash_add(struct mesh *mesh, const void *data, size_t len)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < len; i++)
        mesh->hash = (mesh->hash ^ at[i]) * 0x100000001b3u; /* FNV-1a */
}

static inline unsigned number_at(const struct addr *addr)
{
    return (unsigned)addr->ip[1] << 8 | addr->ip[2];
}

static inline void transmit(struct mesh *mesh, unsigned from, unsigned to, const uint8_t *bytes, size_t len)
{
    if (rng_below(&mesh->rng, 100) < mesh->loss_percent || mesh->nodes[from].cut || mesh->nodes[to].cut ||
        mesh->nodes[from].side != mesh->nodes[to].side)
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

static inline void node_send(void *ctx, const struct dht_contact *to, const uint8_t *bytes, size_t len)
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

static inline void node_start(struct mesh *mesh, unsigned number)
{
    struct node *node = &mesh->nodes[number];
    struct err err = {0};
    struct dht_config config = {
        .public_key = node->key.public_key,
        .signatures = dht_signatures_ed25519(&node->key),
        .address = node->contact.addr,
        .block_per_bucket = 2,
        .block_per_table = 3,
        .key_max = mesh->key_max,
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

static inline void node_kill(struct mesh *mesh, unsigned number)
{
    dht_free(mesh->nodes[number].dht);
    mesh->nodes[number].dht = NULL;
}

static inline struct mesh *mesh_new(uint64_t seed)
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

static inline void mesh_free(struct mesh *mesh)
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

static inline void deliver(struct mesh *mesh, struct packet *packet)
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
static inline struct node *first_waking(struct mesh *mesh)
{
    struct node *first = NULL;
    for (unsigned i = 0; i < NODES; i++)
        if (mesh->nodes[i].dht && (!first || mesh->nodes[i].wake_ms < first->wake_ms))
            first = &mesh->nodes[i];
    return first;
}

/* Let time pass until `end_ms`, or until *flag is set. */
static inline void run_until(struct mesh *mesh, uint64_t end_ms, const bool *flag)
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

static inline void run_for(struct mesh *mesh, uint64_t ms)
{
    run_until(mesh, mesh->now_ms + ms, NULL);
}

/* ---- what is asked of it ---- */

struct reading {
    bool done;
    size_t count;
    struct dht_found found[32];
};

static inline void on_read(void *ctx, const struct dht_found *found, size_t count)
{
    struct reading *reading = ctx;
    reading->done = true;
    reading->count = count;
    memcpy(reading->found, found, count * sizeof *found);
}

static inline struct dht_stats stats_of(const struct mesh *mesh, unsigned node)
{
    struct dht_stats stats;
    dht_stats(mesh->nodes[node].dht, &stats);
    return stats;
}

static inline uint64_t the_seed(void)
{
    const char *text = getenv("CMIG_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 7421;
    printf("seed %llu\n", (unsigned long long)seed);
    return seed;
}

static inline void join_all(struct mesh *mesh)
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
