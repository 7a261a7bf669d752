/*
 * Messages from hostile members to a node that knows them, holds records and has requests of all sorts under way, while
 * time goes on and the node's owner asks for this and that.
 *
 * The input is a row of frames: control u8, length u16, message. Control: bits 0-1 which member sends it, counted from
 * the first of the four that have their turn; bit 2 the transaction is replaced by that of a request that is under way
 * to this member, so that answers are taken for answers; bits 3-7 how long to wait afterwards, in units of 50 ms. What
 * is shorter than a header is no message but an order to the node, or to the members: a byte that says which, and one
 * more.
 *
 * Whoever is asked, a signature is good if its first byte is odd.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define PEERS 20
#define WALL_MS 1767225600000u
#define FRAMES_MAX 64
#define TICKS_MAX 64 /* at one moment: more, and it would never sleep */

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
    struct dht_contact contacts[PEERS + 1]; /* the last one is the node's own */
    unsigned turn;                          /* the first of four who send */
    bool polite;                            /* they answer by themselves what is asked to stay in touch */
    uint64_t rng_state;
    uint64_t now_ms;
    int64_t wall_step_ms;
    uint64_t last_request, last_watch;
    struct asked asked[ASKED_MAX]; /* the latest requests */
    size_t asked_count, answered_count;
};

static void check(bool fine)
{
    if (!fine)
        abort();
}

static void sign(void *ctx, const void *data, size_t len_bytes, uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES])
{
    (void)ctx, (void)data, (void)len_bytes;
    memset(ret_signature, 1, CRYPTO_SIGNATURE_BYTES);
}

static bool is_signed(void *ctx, const uint8_t signature[CRYPTO_SIGNATURE_BYTES], const void *data, size_t len_bytes,
                      const uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES])
{
    (void)ctx, (void)data, (void)len_bytes, (void)public_key;
    return signature[0] & 1;
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

static void start(struct world *world)
{
    struct dht_config config = {
        .public_key = world->contacts[PEERS].public_key,
        .signatures = {.sign = sign, .check = is_signed},
        .address = world->contacts[PEERS].addr,
        .key_max = 40, /* a few more than make a key one of many */
        .records_max = 512,
        .now_ms = world->now_ms,
        .wall_ms = WALL_MS + world->now_ms,
        .rng = rng_seeded(&world->rng_state),
        .storage = dht_storage_memory(world->memory),
        .send = note_send,
        .send_ctx = world,
    };
    check(dht_new(&config, &world->dht, NULL) == 0);
    dht_restore(world->dht, world->now_ms, NULL);
}

/* ---- what the owner of the node does ---- */

static void on_found(void *ctx, const struct dht_found *found, size_t count)
{
    (void)ctx, (void)found, (void)count;
}

static void on_contacts(void *ctx, const struct dht_contact *contacts, size_t count)
{
    (void)ctx, (void)contacts;
    check(count <= DHT_REPLICAS);
}

static struct id key_of(uint8_t number)
{
    static const enum dht_kind kinds[] = {DHT_SET, DHT_OBJECT, DHT_CHANNEL, DHT_REVOCATION};
    return dht_key(kinds[number % 4], "fuzz", 4);
}

static void write_one(struct world *world, const struct id *key, uint8_t number)
{
    uint8_t meta[16] = {0};
    bool speaks_of_all = number % 8 == 7;
    struct dht_member member = {
        .name = speaks_of_all ? meta : &number,
        .name_len = speaks_of_all ? sizeof meta : 1,
        .meta = speaks_of_all,
        .tombstone = number % 8 == 3,
        .score = number,
        .version = dht_stamp(world->dht, world->now_ms),
        .ttl_ms = number % 5 == 0 ? 60000 : 0,
    };
    wire_store_u64(meta, number % 16 == 7 ? member.version.epoch : 0);
    dht_write(world->dht, world->now_ms, key, (enum dht_kind)key->b[ID_BYTES - 1], &member, NULL);
}

/* Callbacks may call anything but dht_free: this one does. */
static void on_change(void *ctx, const struct id *key, const struct dht_record *record)
{
    struct world *world = ctx;
    check(!id_is_zero(key) && record->kind == key->b[ID_BYTES - 1]);
    bool ours = memcmp(record->public_key, world->contacts[PEERS].public_key, sizeof record->public_key) == 0;
    if (record->data_len == 0 || ours)
        return;
    if (record->data[0] % 16 == 1)
        dht_unwatch(world->dht, world->now_ms, world->last_watch);
    if (record->data[0] % 16 == 2)
        write_one(world, key, record->data[0]);
    if (record->data[0] % 16 == 3)
        dht_cancel(world->dht, world->last_request);
    if (record->data[0] % 16 == 4)
        dht_forget(world->dht, &world->contacts[record->data[0] / 16 % PEERS].id, NULL);
    if (record->data[0] % 16 == 5)
        dht_watch(world->dht, world->now_ms, key, on_change, world, &world->last_watch, NULL);
}

static void on_each(void *ctx, const struct dht_record *record)
{
    on_change(ctx, &record->key, record);
}

static void on_collected(void *ctx, int status, size_t count)
{
    (void)ctx, (void)status;
    check(count <= LIMIT_DHT_COLLECT);
}

static void publish(struct world *world, const struct id *key, uint8_t number)
{
    struct dht_value value = {.score = number, .data = &number, .data_len = 1};
    dht_publish(world->dht, world->now_ms, key, (enum dht_kind)key->b[ID_BYTES - 1], &value, NULL);
}

static void get(struct world *world, const struct id *key, uint8_t number)
{
    struct dht_rank after = {.major = 1ull << 60};
    struct dht_get_options options = {.limit = number % 40,
                                      .order = (enum dht_order)(number % DHT_ORDER_COUNT),
                                      .after = number & 64 ? &after : NULL,
                                      .want_lease = number & 128,
                                      .first_is_enough = number % 7 == 0};
    dht_get(world->dht, world->now_ms, key, &options, on_found, world, &world->last_request, NULL);
}

static void restart(struct world *world)
{
    dht_save(world->dht, NULL);
    dht_free(world->dht);
    start(world);
    for (unsigned i = 0; i < PEERS; i++)
        dht_meet(world->dht, world->now_ms, &world->contacts[i], 20);
}

static void meet(struct world *world, uint8_t number)
{
    for (unsigned i = 0; i < number % (PEERS + 1u); i++)
        dht_meet(world->dht, world->now_ms, &world->contacts[i], i);
}

static void step_clock(struct world *world, uint8_t number)
{
    static const int64_t steps_ms[] = {0, 1, 61000, -61000, 86400000, -86400000, -(int64_t)WALL_MS, 315360000000};
    world->wall_step_ms = steps_ms[number % (sizeof steps_ms / sizeof *steps_ms)];
    dht_set_wall(world->dht, world->now_ms, WALL_MS + world->now_ms + (uint64_t)world->wall_step_ms);
}

static void go_on(struct world *world);

/* By the wake-ups that the node asks for. */
static void let_time_pass(struct world *world, uint8_t number)
{
    uint64_t end_ms = world->now_ms + number * 1000ull;
    for (unsigned i = 0; i < 256 && dht_next_ms(world->dht) < end_ms; i++) {
        uint64_t next_ms = dht_next_ms(world->dht);
        world->now_ms = next_ms > world->now_ms ? next_ms : world->now_ms;
        go_on(world);
    }
    world->now_ms = end_ms;
}

static void obey(struct world *world, const uint8_t *order, size_t len)
{
    uint8_t number = len > 1 ? order[1] : 0;
    struct id key = key_of(number);
    switch (order[0] % 16) {
    case 0:
        world->turn = number % PEERS;
        world->polite = number & 128;
        break;
    case 1:
        write_one(world, &key, number / 4);
        break;
    case 2:
        publish(world, &key, number / 4);
        break;
    case 3:
        dht_withdraw(world->dht, world->now_ms, &key, NULL);
        break;
    case 4:
        get(world, &key, number);
        break;
    case 5:
        dht_collect(world->dht, world->now_ms, &key, number / 4 * 100ull, on_each, on_collected, world,
                    &world->last_request, NULL);
        break;
    case 6:
        dht_watch(world->dht, world->now_ms, &key, on_change, world, &world->last_watch, NULL);
        break;
    case 7:
        dht_unwatch(world->dht, world->now_ms, number);
        break;
    case 8:
        dht_cancel(world->dht, world->last_request);
        break;
    case 9:
        dht_find(world->dht, world->now_ms, &key, on_contacts, world, &world->last_request, NULL);
        break;
    case 10:
        dht_forget(world->dht, &world->contacts[number % PEERS].id, NULL);
        break;
    case 11:
        step_clock(world, number);
        break;
    case 12:
        restart(world);
        break;
    case 13:
        meet(world, number);
        break;
    case 14:
        dht_leave(world->dht, world->now_ms);
        break;
    case 15:
        let_time_pass(world, number);
        break;
    }
}

/* ---- the run ---- */

static void answer(struct world *world, const struct asked *asked)
{
    struct dht_message message = {.type = (uint8_t)(asked->type + 1), .transaction = asked->transaction};
    unsigned peer = 0;
    while (peer < PEERS && !id_equal(&world->contacts[peer].id, &asked->peer))
        peer++;
    if (peer == PEERS || (asked->type != DHT_PING && asked->type != DHT_FIND_NODE))
        return;
    if (asked->type == DHT_FIND_NODE)
        for (unsigned i = 0; i < 4; i++)
            message.contacts[message.contact_count++] = world->contacts[(peer + i) % PEERS];
    OWNED(buf_release) struct buf bytes = BUF(DHT_MESSAGE_MAX_BYTES);
    dht_message_encode(&message, &bytes);
    dht_input(world->dht, world->now_ms, &world->contacts[peer], bytes.data, bytes.len);
}

/* What is asked meanwhile is answered the next time. */
static void be_polite(struct world *world)
{
    size_t end = world->asked_count;
    if (world->answered_count + ASKED_MAX / 2 < end)
        world->answered_count = end - ASKED_MAX / 2;
    for (; world->answered_count < end; world->answered_count++) {
        struct asked asked = world->asked[world->answered_count % ASKED_MAX];
        if (world->polite)
            answer(world, &asked);
    }
}

static void go_on(struct world *world)
{
    unsigned ticks = 0;
    be_polite(world);
    while (dht_tick(world->dht, world->now_ms) <= world->now_ms)
        check(++ticks < TICKS_MAX);
}

static void world_init(struct world *world)
{
    *world = (struct world){.rng_state = 7421, .now_ms = 1000};
    check(crypto_init(NULL) == 0 && dht_memory_new(&world->memory, NULL) == 0);
    for (unsigned i = 0; i <= PEERS; i++) {
        uint8_t public_key[CRYPTO_SIGN_PUBLIC_BYTES] = {(uint8_t)i, 0, 1};
        struct addr addr = {.family = 4, .port = 7421, .ip = {10, 0, (uint8_t)i, 1}};
        world->contacts[i] = dht_contact_of(public_key, &addr);
    }
    start(world);
    meet(world, 4);
    struct id key = key_of(1), watched = key_of(0);
    publish(world, &key, 1);
    get(world, &key, 128);
    dht_watch(world->dht, world->now_ms, &watched, on_change, world, &world->last_watch, NULL);
    go_on(world);
}

/* Give the message the transaction of the last request of its type to this peer, or of any. */
static void adopt_transaction(const struct world *world, const struct dht_contact *peer, uint8_t *bytes)
{
    for (size_t i = 0; i < ASKED_MAX && i < world->asked_count; i++) {
        const struct asked *asked = &world->asked[(world->asked_count - 1 - i) % ASKED_MAX];
        if (!id_equal(&asked->peer, &peer->id))
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
    for (unsigned frames = 0; frames < FRAMES_MAX && wire_left(&wire) > 0; frames++) {
        uint8_t bytes[2 * DHT_MESSAGE_MAX_BYTES];
        uint8_t control = wire_get_u8(&wire);
        size_t len;
        const uint8_t *message = wire_get_short(&wire, sizeof bytes, &len);
        if (!message)
            break;
        memcpy(bytes, message, len);
        const struct dht_contact *peer = &world.contacts[(world.turn + (control & 3)) % PEERS];
        if (len > 0 && len < DHT_MESSAGE_HEADER_BYTES)
            obey(&world, bytes, len);
        if (control & 4 && len >= DHT_MESSAGE_HEADER_BYTES)
            adopt_transaction(&world, peer, bytes);
        if (len >= DHT_MESSAGE_HEADER_BYTES)
            dht_input(world.dht, world.now_ms, peer, bytes, len);
        world.now_ms += (uint64_t)(control >> 3) * 50;
        go_on(&world);
    }
    let_time_pass(&world, DHT_GET_TIMEOUT_MS / 1000);
    dht_free(world.dht);
    dht_memory_free(world.memory);
    return 0;
}
