#include "tools/dhtsim/node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dht/record.h"
#include "tools/dhtsim/hash.h"
#include "tools/dhtsim/world.h"
#include "tools/sim/memory.h"

#define NEVER_US UINT64_MAX
#define FIRST_PORT 1024

struct node_shared {
    struct dht_book *book; /* owned */
    bool ed25519;
};

static _Noreturn void give_up(const char *what, const struct err *err)
{
    fprintf(stderr, "dhtsim: %s: %s\n", what, err->text);
    exit(1);
}

struct node_shared *node_shared_new(const struct options *options)
{
    struct node_shared *shared = memory_get(sizeof *shared);
    struct err err = {0};
    shared->ed25519 = options->ed25519;
    if (dht_book_new(&shared->book, &err) < 0)
        give_up("the book of contacts", &err);
    return shared;
}

void node_shared_free(struct node_shared *shared)
{
    dht_book_free(shared->book);
    free(shared);
}

/* ---- identity ---- */

/* A /24 for each number, so that nobody is taken for somebody's neighbour; the generation is in the port. 8 million
 * numbers stay below 127/8. */
static struct addr addr_of(uint32_t number, uint16_t generation)
{
    return (struct addr){
        .family = 4,
        .port = (uint16_t)(FIRST_PORT + generation),
        .ip = {(uint8_t)(1 + (number >> 16)), (uint8_t)(number >> 8), (uint8_t)number, 1},
    };
}

bool node_of_addr(const struct addr *addr, uint32_t *ret_number, uint16_t *ret_generation)
{
    if (addr->family != 4 || addr->ip[0] == 0 || addr->port < FIRST_PORT)
        return false;
    *ret_number = (uint32_t)(addr->ip[0] - 1) << 16 | (uint32_t)addr->ip[1] << 8 | addr->ip[2];
    *ret_generation = (uint16_t)(addr->port - FIRST_PORT);
    return true;
}

void node_init(struct node *node, struct world *world, uint32_t number, uint16_t generation)
{
    uint64_t identity = random_stream(world->options->seed, RANDOM_IDENTITY, (uint64_t)generation << 32 | number);
    uint8_t seed[32];
    for (size_t i = 0; i < sizeof seed; i += 8) {
        uint64_t word = random_next(&identity);
        memcpy(seed + i, &word, 8);
    }
    memcpy(node->public_key, seed, sizeof node->public_key);
    if (world->shared->ed25519) {
        if (!node->secret)
            node->secret = memory_get(sizeof *node->secret);
        crypto_sign_key_from_seed(seed, node->secret);
        memcpy(node->public_key, node->secret->public_key, sizeof node->public_key);
    }
    crypto_id_of(node->public_key, sizeof node->public_key, &node->id);
    node->world = world;
    node->number = number;
    node->generation = generation;
    node->random = random_stream(world->options->seed, RANDOM_NODE, (uint64_t)generation << 32 | number);
    node->armed_us = NEVER_US;
    node->place = net_place(&world->net, number);
}

struct dht_contact node_contact(const struct node *node)
{
    struct dht_contact contact = {.id = node->id, .addr = addr_of(node->number, node->generation)};
    memcpy(contact.public_key, node->public_key, sizeof contact.public_key);
    return contact;
}

/* ---- signatures by keyed hash ---- */

static uint64_t seal(const void *data, size_t len_bytes, const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES])
{
    return hash_bytes(hash_bytes(0, public_key, CRYPTO_SIGN_PUBLIC_BYTES), data, len_bytes);
}

static void seal_sign(void *ctx, const void *data, size_t len_bytes, uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES])
{
    const struct node *node = ctx;
    uint64_t sealed = seal(data, len_bytes, node->public_key);
    memset(ret_signature, 0, CRYPTO_SIGNATURE_BYTES);
    memcpy(ret_signature, &sealed, sizeof sealed);
}

static bool seal_check(void *ctx, const uint8_t signature[CRYPTO_SIGNATURE_BYTES], const void *data, size_t len_bytes,
                       const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES])
{
    (void)ctx;
    uint64_t sealed = seal(data, len_bytes, public_key);
    return memcmp(signature, &sealed, sizeof sealed) == 0;
}

static struct dht_signatures signatures_of(struct node *node)
{
    if (node->secret)
        return dht_signatures_ed25519(node->secret);
    return (struct dht_signatures){.sign = seal_sign, .check = seal_check, .ctx = node};
}

/* ---- life ---- */

static uint64_t now_ms(const struct node *node)
{
    return node->world->now_us / 1000;
}

static void on_send(void *ctx, const struct dht_contact *to, const uint8_t *bytes, size_t len_bytes)
{
    struct node *node = ctx;
    world_send(node->world, node, &to->addr, bytes, len_bytes);
}

void node_give_disk(struct node *node)
{
    struct err err = {0};
    if (!node->disk && dht_memory_new(&node->disk, &err) < 0)
        give_up("a disk in memory", &err);
}

void node_start(struct node *node)
{
    int64_t skew_ms = net_skew_ms(&node->world->net, node->number);
    struct dht_config config = {
        .public_key = node->public_key,
        .signatures = signatures_of(node),
        .book = node->world->shared->book,
        .address = addr_of(node->number, node->generation),
        .now_ms = now_ms(node),
        .wall_ms = (uint64_t)((int64_t)(WORLD_WALL_START_MS + now_ms(node)) + skew_ms),
        .rng = rng_seeded(&node->random),
        .send = on_send,
        .send_ctx = node,
    };
    struct err err = {0};
    if (node->disk)
        config.storage = dht_storage_memory(node->disk);
    if (dht_new(&config, &node->dht, &err) < 0)
        give_up("a node does not start", &err);
    if (node->disk && dht_restore(node->dht, config.now_ms, &err) < 0)
        give_up("a node does not start again", &err);
}

void node_stop(struct node *node)
{
    dht_free(node->dht);
    node->dht = NULL;
    node->armed_us = NEVER_US;
    node->busy = 0;
}

void node_rest(struct node *node)
{
    if (node->busy > 0)
        node->busy--;
}

void node_wipe(struct node *node)
{
    dht_memory_free(node->disk);
    node->disk = NULL;
}

void node_input(struct node *node, const struct node *from, const uint8_t *bytes, size_t len_bytes)
{
    struct dht_contact contact = node_contact(from);
    dht_input(node->dht, now_ms(node), &contact, bytes, len_bytes);
}

void node_tick(struct node *node)
{
    dht_tick(node->dht, now_ms(node));
}

uint64_t node_next_us(const struct node *node)
{
    uint64_t next_ms = dht_next_ms(node->dht);
    return next_ms < NEVER_US / 1000 ? next_ms * 1000 : NEVER_US;
}

/* ---- contacts ---- */

void node_meet(struct node *node, const struct node *other)
{
    struct dht_contact contact = node_contact(other);
    check_answered(node->world->check, node->number, other->number);
    dht_meet(node->dht, now_ms(node), &contact, (unsigned)(net_rtt_us(&node->place, &other->place) / 1000));
}

void node_join_through(struct node *node, const struct node *other)
{
    struct dht_contact contact = node_contact(other);
    struct err err = {0};
    if (dht_bootstrap(node->dht, now_ms(node), &contact, &err) < 0 && err.code != ERR_LIMIT)
        give_up("joining", &err);
    world_arm(node->world, node);
}

/* ---- records ---- */

struct id node_key(uint64_t number)
{
    return dht_key(DHT_OBJECT, &number, sizeof number);
}

void node_publish(struct node *node, const struct id *key, uint64_t size, dht_done_cb done, void *ctx)
{
    struct err err = {0};
    struct dht_value value = {
        .score = (double)(size >> 16),
        .size = size,
        .done = done,
        .done_ctx = ctx,
    };
    if (dht_publish(node->dht, now_ms(node), key, DHT_OBJECT, &value, &err) < 0)
        give_up("publishing", &err);
    world_arm(node->world, node);
}

void node_withdraw(struct node *node, const struct id *key)
{
    struct err err = {0};
    if (dht_withdraw(node->dht, now_ms(node), key, &err) < 0)
        give_up("withdrawing", &err);
    world_arm(node->world, node);
}

static void on_read(void *ctx, const struct dht_found *found, size_t count)
{
    struct node_asked *asked = ctx;
    struct node_read read = {.count = count < NODE_READ_MAX ? count : NODE_READ_MAX};
    for (size_t i = 0; i < read.count; i++) {
        read.found[i].member = found[i].record.member;
        read.found[i].size = found[i].record.size;
    }
    asked->on_read(asked, &read);
}

bool node_get(struct node *node, const struct id *key, bool first_is_enough, struct node_asked *asked)
{
    struct dht_get_options options = {
        .limit = first_is_enough ? 1 : NODE_READ_MAX,
        .first_is_enough = first_is_enough,
    };
    asked->node = node;
    int status = dht_get(node->dht, now_ms(node), key, &options, on_read, asked, NULL, NULL);
    world_arm(node->world, node);
    return status == 0;
}

static void on_found(void *ctx, const struct dht_contact *contacts, size_t count)
{
    struct node_asked *asked = ctx;
    uint32_t numbers[DHT_REPLICAS];
    size_t known = 0;
    uint16_t generation;
    for (size_t i = 0; i < count && i < DHT_REPLICAS; i++)
        known += node_of_addr(&contacts[i].addr, &numbers[known], &generation);
    asked->on_found(asked, numbers, known);
}

bool node_find(struct node *node, const struct id *target, struct node_asked *asked)
{
    asked->node = node;
    int status = dht_find(node->dht, now_ms(node), target, on_found, asked, NULL, NULL);
    world_arm(node->world, node);
    return status == 0;
}

enum node_held node_holds(const struct node *node, const struct id *key, const struct id *member, uint64_t *ret_size)
{
    uint8_t stored[LIMIT_DHT_RECORD_BYTES];
    struct buf bytes = {.data = stored, .cap = sizeof stored, .max = sizeof stored};
    struct dht_record record;
    if (dht_memory_get(node->disk, key, member, &bytes) != 1 || !dht_record_decode(bytes.data, bytes.len, &record))
        return NODE_NOTHING;
    *ret_size = record.size;
    return record.tombstone ? NODE_TOMBSTONE : NODE_RECORD;
}

void node_each_contact(const struct node *node, dht_contact_cb cb, void *ctx)
{
    dht_contacts(node->dht, cb, ctx);
}

size_t node_records(const struct node *node)
{
    struct dht_stats stats;
    dht_stats(node->dht, &stats);
    return stats.records;
}

size_t node_contacts(const struct node *node)
{
    struct dht_stats stats;
    dht_stats(node->dht, &stats);
    return stats.contacts;
}
