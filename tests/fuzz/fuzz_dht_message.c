/*
 * Messages from hostile members to a node that knows them, holds records and has requests under way.
 *
 * The input is a row of frames: control u8, length u16, message. Control: bits 0-1 which of four members sends it,
 * bit 2 the transaction is replaced by that of a request that is under way to this member, so that answers are
 * taken for answers; bits 3-7 how long to wait afterwards, in units of 50 ms.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define PEERS 4
#define WALL_MS 1767225600000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ASKED_MAX 64

struct asked {
    struct id peer;
    uint8_t type;
    uint64_t transaction;
};

struct world {
    struct dht *dht;
    struct dht_memory *memory;
    struct crypto_sign_key keys[PEERS + 1];
    struct dht_contact contacts[PEERS + 1]; /* the last one is the node's own */
    uint64_t rng_state;
    uint64_t now_ms;
    struct asked asked[ASKED_MAX]; /* the latest requests */
    size_t asked_count;
};

static void check(bool fine)
{
    if (!fine)
        abort();
}

/* The requests of the node under test that may still be answered are known from what it sends. */
static void note_send(void *ctx, const struct dht_contact *to, const uint8_t *bytes, size_t len_bytes)
{
    struct world *world = ctx;
    check(addr_is_usable(&to->addr) && len_bytes >= DHT_MESSAGE_HEADER_BYTES && len_bytes <= DHT_MESSAGE_MAX_BYTES);
    if (bytes[1] % 2 == 0)
        return;
    struct asked *asked = &world->asked[world->asked_count++ % ASKED_MAX];
    *asked = (struct asked){to->id, bytes[1], wire_load_u64(bytes + DHT_MESSAGE_TRANSACTION_OFFSET)};
}

static void ignore_found(void *ctx, const struct dht_found *found, size_t count)
{
    (void)ctx;
    for (size_t i = 1; i < count; i++)
        check(found[i - 1].record.score >= found[i].record.score);
}

static void ignore_change(void *ctx, const struct id *key, const struct dht_record *record)
{
    (void)ctx;
    check(id_equal(key, &record->key));
}

static void answer_ping(struct world *world, unsigned peer)
{
    struct dht_message pong = {.type = DHT_PONG};
    dht_add_contact(world->dht, world->now_ms, &world->contacts[peer]);
    pong.transaction = world->asked[(world->asked_count - 1) % ASKED_MAX].transaction;
    OWNED(buf_release) struct buf bytes = BUF(DHT_MESSAGE_MAX_BYTES);
    dht_message_encode(&pong, &bytes);
    dht_input(world->dht, world->now_ms, &world->contacts[peer], bytes.data, bytes.len);
}

static void world_init(struct world *world)
{
    *world = (struct world){.rng_state = 7421, .now_ms = 1000};
    check(crypto_init(NULL) == 0 && dht_memory_new(&world->memory, NULL) == 0);
    for (unsigned i = 0; i <= PEERS; i++) {
        uint8_t seed[32] = {(uint8_t)i, 0, 1};
        struct addr addr = {.family = 4, .port = 7421, .ip = {10, 0, (uint8_t)i, 1}};
        crypto_sign_key_from_seed(seed, &world->keys[i]);
        world->contacts[i] = dht_contact_of(world->keys[i].public_key, &addr);
    }
    struct dht_config config = {
        .public_key = world->keys[PEERS].public_key,
        .signatures = dht_signatures_ed25519(&world->keys[PEERS]),
        .address = world->contacts[PEERS].addr,
        .now_ms = world->now_ms,
        .wall_ms = WALL_MS,
        .rng = rng_seeded(&world->rng_state),
        .storage = dht_storage_memory(world->memory),
        .send = note_send,
        .send_ctx = world,
    };
    check(dht_new(&config, &world->dht, NULL) == 0);
    for (unsigned i = 0; i < PEERS; i++)
        answer_ping(world, i);
    struct id key = dht_key(DHT_OBJECT, "fuzz", 4);
    struct dht_value value = {.score = 1};
    struct dht_get_options options = {.want_lease = true};
    check(dht_publish(world->dht, world->now_ms, &key, DHT_OBJECT, &value, NULL) == 0);
    check(dht_get(world->dht, world->now_ms, &key, &options, ignore_found, NULL, NULL, NULL) == 0);
    struct id watched = dht_key(DHT_SET, "fuzz", 4);
    uint64_t watch;
    check(dht_watch(world->dht, world->now_ms, &watched, ignore_change, NULL, &watch, NULL) == 0);
    dht_tick(world->dht, world->now_ms);
}

/* Give the message the transaction of the last request of its type to this peer, or of any. */
static void adopt_transaction(const struct world *world, const struct dht_contact *peer, uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < ASKED_MAX && i < world->asked_count; i++) {
        const struct asked *asked = &world->asked[(world->asked_count - 1 - i) % ASKED_MAX];
        if (len < DHT_MESSAGE_HEADER_BYTES || !id_equal(&asked->peer, &peer->id))
            continue;
        wire_store_u64(bytes + DHT_MESSAGE_TRANSACTION_OFFSET, asked->transaction);
        if (bytes[1] == asked->type + 1)
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world world;
    struct wire wire;
    world_init(&world);
    wire_init(&wire, data, size);
    for (unsigned frames = 0; frames < 64 && wire_left(&wire) > 0; frames++) {
        uint8_t bytes[2 * DHT_MESSAGE_MAX_BYTES];
        uint8_t control = wire_get_u8(&wire);
        size_t len;
        const uint8_t *message = wire_get_short(&wire, sizeof bytes, &len);
        if (!message)
            break;
        memcpy(bytes, message, len);
        const struct dht_contact *peer = &world.contacts[control & 3];
        if (control & 4)
            adopt_transaction(&world, peer, bytes, len);
        dht_input(world.dht, world.now_ms, peer, bytes, len);
        world.now_ms += (uint64_t)(control >> 3) * 50;
        dht_tick(world.dht, world.now_ms);
    }
    dht_tick(world.dht, world.now_ms + DHT_GET_TIMEOUT_MS);
    dht_free(world.dht);
    dht_memory_free(world.memory);
    return 0;
}
