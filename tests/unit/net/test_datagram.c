#include "tests/unit/identity/forge.h"

#include "node/net/datagram.h"

/* ---- a virtual wire with endpoints on it ---- */

#define MAX_PACKETS 4096
#define MAX_ENDPOINTS 3

struct packet {
    struct addr from, to;
    size_t len;
    uint8_t bytes[LIMIT_DATAGRAM_BYTES];
};

struct endpoint {
    struct forge_node node;
    struct addr addr;
    struct datagram *datagram;
    struct wire_net *net;
    unsigned delivered[1024]; /* times that the message of this number came */
    unsigned total;
    struct datagram_peer last; /* who sent the last one */
};

struct wire_net {
    uint64_t now_ms;
    uint64_t wall_s;
    uint64_t seed;
    unsigned loss_percent, duplicates;
    bool reorder;
    size_t count;
    struct packet *queue; /* owned */
    size_t seen_count;
    struct packet *seen; /* owned: all that was ever sent */
    struct endpoint ends[MAX_ENDPOINTS];
};

static struct err err;

static void on_deliver(void *ctx, const struct datagram_peer *peer, const uint8_t *payload, size_t len)
{
    struct endpoint *end = ctx;
    assert_true(len >= 2);
    end->delivered[wire_load_u16(payload)]++;
    end->total++;
    end->last = *peer;
}

static void on_send(void *ctx, const struct addr *to, const uint8_t *bytes, size_t len)
{
    struct endpoint *end = ctx;
    struct wire_net *net = end->net;
    assert_true(len <= LIMIT_DATAGRAM_BYTES && net->count < MAX_PACKETS);
    struct packet *packet = &net->queue[net->count++];
    packet->from = end->addr;
    packet->to = *to;
    packet->len = len;
    memcpy(packet->bytes, bytes, len);
    if (net->seen_count < MAX_PACKETS)
        net->seen[net->seen_count++] = *packet;
}

static uint64_t on_wall(void *ctx)
{
    return ((struct endpoint *)ctx)->net->wall_s;
}

static void start(struct endpoint *end, uint64_t boot_stamp)
{
    datagram_free(end->datagram);
    struct datagram_config config = {.identity = end->node.identity,
                                     .rng = rng_seeded(&end->net->seed),
                                     .wall_s = on_wall,
                                     .boot_stamp = boot_stamp,
                                     .deliver = on_deliver,
                                     .send = on_send,
                                     .ctx = end};
    assert_int_equal(datagram_new(&config, &end->datagram, &err), 0);
}

static void build(struct wire_net *net, size_t count)
{
    memset(net, 0, sizeof *net);
    net->now_ms = 1000000;
    net->wall_s = NOW;
    net->seed = 7;
    net->queue = calloc(MAX_PACKETS, sizeof *net->queue);
    net->seen = calloc(MAX_PACKETS, sizeof *net->seen);
    for (size_t i = 0; i < count; i++) {
        struct endpoint *end = &net->ends[i];
        end->net = net;
        end->addr = (struct addr){.family = 4, .port = 7421, .ip = {10, 0, (uint8_t)i, 1}};
        end->node = i == 0 ? forge_founder() : forge_node();
        if (i > 0)
            assert_int_equal(forge_join(&net->ends[0].node, &end->node, RIGHT_ADMIT), 0);
        start(end, 1);
    }
}

static void tear_down(struct wire_net *net)
{
    for (size_t i = 0; i < MAX_ENDPOINTS && net->ends[i].net; i++) {
        datagram_free(net->ends[i].datagram);
        forge_done(&net->ends[i].node);
    }
    free(net->queue);
    free(net->seen);
}

static void put_in(struct wire_net *net, const struct packet *packet)
{
    for (size_t i = 0; i < MAX_ENDPOINTS && net->ends[i].net; i++)
        if (addr_equal(&packet->to, &net->ends[i].addr))
            datagram_input(net->ends[i].datagram, net->now_ms, &packet->from, packet->bytes, packet->len);
}

/* Carry packets until none is left. */
static void run(struct wire_net *net)
{
    struct rng rng = rng_seeded(&net->seed);
    for (size_t steps = 0; net->count > 0; steps++) {
        assert_true(steps < 100000);
        size_t pick = net->reorder ? (size_t)rng_below(&rng, net->count) : 0;
        struct packet packet = net->queue[pick];
        memmove(&net->queue[pick], &net->queue[pick + 1], (--net->count - pick) * sizeof packet);
        net->now_ms++;
        if (rng_below(&rng, 100) < net->loss_percent)
            continue;
        for (unsigned copy = 0; copy <= net->duplicates; copy++)
            put_in(net, &packet);
    }
}

static int say(struct endpoint *from, struct endpoint *to, uint16_t number)
{
    uint8_t payload[2];
    wire_store_u16(payload, number);
    return datagram_send(from->datagram, from->net->now_ms, identity_public_key(to->node.identity),
                         identity_id(to->node.identity), &to->addr, payload, sizeof payload, &err);
}

static void say_and_run(struct endpoint *from, struct endpoint *to, uint16_t number)
{
    assert_int_equal(say(from, to, number), 0);
    run(from->net);
}

#define NET(count)                                                                                                     \
    struct wire_net net;                                                                                               \
    build(&net, count);                                                                                                \
    struct endpoint *a = &net.ends[0], *b = &net.ends[1];

/* ---- what members can rely on ---- */

static void test_datagram__first_one_arrives_after_introductions(void **state)
{
    (void)state;
    NET(2);
    for (uint16_t i = 0; i < 5; i++)
        assert_int_equal(say(a, b, i), 0);
    run(&net);
    for (uint16_t i = 0; i < 5; i++)
        assert_int_equal(b->delivered[i], 1);
    assert_true(id_equal(&b->last.id, identity_id(a->node.identity)));
    assert_memory_equal(b->last.public_key, identity_public_key(a->node.identity), 32);
    assert_true(addr_equal(&b->last.addr, &a->addr));

    /* now both know each other: no more than one packet each, also without the key */
    size_t before = net.seen_count;
    say_and_run(b, a, 10);
    assert_int_equal(
        datagram_send(a->datagram, net.now_ms, NULL, identity_id(b->node.identity), &b->addr, "\0\13", 2, &err), 0);
    run(&net);
    assert_int_equal(net.seen_count, before + 2);
    assert_int_equal(a->delivered[10], 1);
    assert_int_equal(b->delivered[11], 1);
    assert_memory_equal(datagram_peer_key(a->datagram, identity_id(b->node.identity)),
                        identity_public_key(b->node.identity), 32);
    tear_down(&net);
}

/* All introduce themselves to all at the same moment. In order, nothing is lost; in disorder, a datagram that is
 * overtaken by an introduction may be, but asking again helps and nothing comes twice. */
static void test_datagram__three_talk_at_once(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct wire_net net;
        build(&net, 3);
        net.seed = seed;
        net.reorder = seed > 0;
        for (uint16_t attempt = 0; attempt < (net.reorder ? 3 : 1); attempt++) {
            for (uint16_t i = 0; i < 6; i++)
                assert_int_equal(
                    say(&net.ends[i / 2], &net.ends[(i / 2 + 1 + i % 2) % 3], (uint16_t)(10 * attempt + i)), 0);
            run(&net);
            net.now_ms += 300;
        }
        for (uint16_t i = 0; i < 6; i++) {
            const unsigned *delivered = net.ends[(i / 2 + 1 + i % 2) % 3].delivered;
            if (delivered[i] + delivered[10 + i] + delivered[20 + i] == 0)
                fail_msg("seed %u: message %u never came", (unsigned)seed, i);
            assert_true(delivered[i] <= 1 && delivered[10 + i] <= 1 && delivered[20 + i] <= 1);
        }
        tear_down(&net);
    }
}

static void test_datagram__reordered_and_duplicated_arrive_once(void **state) /* faults 6 */
{
    (void)state;
    NET(2);
    say_and_run(a, b, 0);
    net.reorder = true;
    net.duplicates = 3;
    for (uint16_t i = 1; i < 500; i++)
        assert_int_equal(say(a, b, i), 0);
    run(&net);
    for (uint16_t i = 0; i < 500; i++)
        assert_int_equal(b->delivered[i], 1);
    net.duplicates = 1000;
    say_and_run(a, b, 500);
    assert_int_equal(b->delivered[500], 1);
    tear_down(&net);
}

static void test_datagram__loss_heals_when_asked_again(void **state) /* faults 6, 31 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        NET(2);
        net.seed = seed;
        net.loss_percent = 30;
        net.reorder = true;
        for (uint16_t i = 0; i < 100; i++) {
            for (int attempt = 0; attempt < 40 && b->delivered[i] == 0; attempt++) {
                say_and_run(a, b, i);
                net.now_ms += 300;
            }
            if (b->delivered[i] == 0)
                fail_msg("seed %llu: message %u never came", (unsigned long long)seed, i);
        }
        tear_down(&net);
    }
}

static void test_datagram__largest_payload_fits(void **state)
{
    (void)state;
    NET(2);
    uint8_t payload[DATAGRAM_PAYLOAD_BYTES + 1] = {0, 7};
    const struct id *to = identity_id(b->node.identity);
    const uint8_t *key = identity_public_key(b->node.identity);
    assert_true(DATAGRAM_PAYLOAD_BYTES >= 1100);
    assert_int_equal(datagram_send(a->datagram, 1, key, to, &b->addr, payload, sizeof payload, &err), ERR_LIMIT);
    assert_int_equal(datagram_send(a->datagram, net.now_ms, key, to, &b->addr, payload, sizeof payload - 1, &err), 0);
    assert_int_equal(net.queue[0].len, LIMIT_DATAGRAM_BYTES);
    run(&net);
    assert_int_equal(b->delivered[7], 1);
    tear_down(&net);
}

static void test_datagram__bad_keys_are_refused(void **state) /* faults 7 */
{
    (void)state;
    NET(2);
    const struct id *id = identity_id(b->node.identity);
    assert_int_equal(datagram_send(a->datagram, 1, NULL, id, &b->addr, "x", 1, &err), ERR_NOTFOUND);
    assert_int_equal(datagram_send(a->datagram, 1, identity_public_key(a->node.identity), id, &b->addr, "x", 1, &err),
                     ERR_INVALID);
    uint8_t low[3][32] = {{0}, {1}, {0}};
    memset(low[2], 0xff, 32);
    for (size_t i = 0; i < 3; i++) {
        struct id low_id;
        crypto_id_of(low[i], 32, &low_id);
        assert_int_equal(datagram_send(a->datagram, 1, low[i], &low_id, &b->addr, "x", 1, &err), ERR_INVALID);
    }
    assert_int_equal(net.count, 0);
    tear_down(&net);
}

/* ---- restarts ---- */

static void replay_all(struct wire_net *net)
{
    size_t count = net->seen_count;
    for (size_t i = 0; i < count; i++)
        put_in(net, &net->seen[i]);
    run(net);
}

static void test_datagram__restart_is_noticed_by_both_sides(void **state)
{
    (void)state;
    NET(2);
    say_and_run(a, b, 1);
    start(a, 2);
    say_and_run(a, b, 2); /* b knows a: the higher stamp is enough */
    assert_int_equal(b->delivered[2], 1);
    start(b, 2);
    say_and_run(a, b, 3); /* b knows nobody: asks again */
    assert_int_equal(b->delivered[3], 1);
    say_and_run(b, a, 4);
    assert_int_equal(a->delivered[4], 1);
    tear_down(&net);
}

static void test_datagram__replays_are_dropped(void **state) /* faults 4, 5 */
{
    (void)state;
    NET(2);
    for (uint16_t i = 0; i < 20; i++) {
        say_and_run(a, b, i);
        say_and_run(b, a, i);
    }
    replay_all(&net);
    assert_int_equal(a->total, 20);
    assert_int_equal(b->total, 20);
    say_and_run(a, b, 20); /* the live exchange is untouched */
    assert_int_equal(b->delivered[20], 1);
    tear_down(&net);
}

/* Everything that was ever said, said again to a node that remembers nothing of it. */
static void test_datagram__replays_after_a_restart_are_dropped(void **state) /* faults 4 */
{
    (void)state;
    NET(2);
    for (uint16_t i = 0; i < 5; i++) {
        say_and_run(a, b, i);
        say_and_run(b, a, i);
    }
    unsigned before = b->total;
    start(b, 2);
    net.now_ms += DATAGRAM_RESEND_MS + 1; /* a itself sends nothing again that is as old */
    replay_all(&net);
    net.now_ms += 100000;
    replay_all(&net);
    assert_int_equal(b->total, before);
    tear_down(&net);
}

static void test_datagram__replays_to_one_who_forgot_are_dropped(void **state) /* faults 4 */
{
    (void)state;
    NET(2);
    for (uint16_t i = 0; i < 5; i++)
        say_and_run(a, b, i);
    unsigned before = b->total;
    net.now_ms += DATAGRAM_RESEND_MS + 1;
    datagram_forget(b->datagram, net.now_ms, identity_id(a->node.identity));
    assert_int_equal(datagram_peer_count(b->datagram), 0);
    replay_all(&net); /* the cookie in the HELLO is still young */
    assert_int_equal(b->total, before);
    say_and_run(a, b, 9);
    assert_int_equal(b->delivered[9], 1);
    tear_down(&net);
}

static void test_datagram__old_boot_stamp_is_refused(void **state) /* faults 4 */
{
    (void)state;
    NET(2);
    start(a, 5);
    say_and_run(a, b, 1);
    start(a, 4); /* a stamp that was not kept */
    say_and_run(a, b, 2);
    assert_int_equal(b->delivered[2], 0);
    assert_true(datagram_stats(b->datagram)->dropped_boot > 0);
    start(a, 6);
    say_and_run(a, b, 3);
    assert_int_equal(b->delivered[3], 1);
    tear_down(&net);
}

/* A nonce is boot stamp, salt and counter: also when the stamp was not kept, and when a peer is forgotten. */
static void test_datagram__no_nonce_comes_twice(void **state)
{
    (void)state;
    NET(2);
    for (int life = 0; life < 3; life++) {
        say_and_run(a, b, 1);
        datagram_forget(a->datagram, net.now_ms, identity_id(b->node.identity));
        say_and_run(a, b, 2);
        net.now_ms += 5000;
        start(a, 1);
    }
    for (size_t i = 0; i < net.seen_count; i++)
        for (size_t k = 0; k < i; k++)
            if (net.seen[i].bytes[2] != 2 && net.seen[k].bytes[2] != 2) /* a CHALLENGE has none */
                assert_memory_not_equal(net.seen[i].bytes + 12, net.seen[k].bytes + 12, 32 + 24);
    tear_down(&net);
}

static void test_datagram__forged_counter_does_not_move_the_window(void **state) /* faults 5 */
{
    (void)state;
    NET(2);
    say_and_run(a, b, 1);
    assert_int_equal(say(a, b, 2), 0);
    struct packet forged = net.queue[0];
    wire_store_u64(forged.bytes + 60, 1ull << 63);
    put_in(&net, &forged);
    wire_store_u64(forged.bytes + 44, UINT64_MAX); /* nor the boot stamp */
    put_in(&net, &forged);
    assert_int_equal(datagram_stats(b->datagram)->dropped_forged, 2);
    run(&net);
    assert_int_equal(b->delivered[2], 1);
    tear_down(&net);
}

/* ---- strangers ---- */

static void test_datagram__noise_gets_silence(void **state) /* faults 1, 2 */
{
    (void)state;
    NET(2);
    say_and_run(a, b, 1);
    static uint8_t noise[65507];
    size_t sizes[] = {0, 1, 11, 12, 67, 68, 83, 84, 1232, 1233, 65507};
    unsigned before = b->total;
    for (int with_front = 0; with_front < 2; with_front++)
        for (unsigned type = 0; type < 256; type++)
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                memset(noise, 0, 100);
                if (with_front)
                    memcpy(noise, net.seen[0].bytes, 12);
                noise[2] = (uint8_t)type;
                noise[3] = type == 1; /* reserved */
                datagram_input(b->datagram, net.now_ms, &a->addr, noise, sizes[i]);
            }
    assert_int_equal(net.count, 0);
    assert_int_equal(b->total, before);
    assert_true(datagram_stats(b->datagram)->dropped_malformed > 2000);
    say_and_run(a, b, 2);
    assert_int_equal(b->delivered[2], 1);
    tear_down(&net);
}

/* Every packet of an introduction, cut at every byte and with every byte changed, at a fresh pair: nothing comes of it,
 * and answers are smaller than what they answer. */
static void test_datagram__cut_and_changed_packets(void **state) /* faults 2, 9 */
{
    (void)state;
    NET(2);
    say_and_run(a, b, 1);
    say_and_run(b, a, 1);
    size_t count = net.seen_count;
    unsigned before = a->total + b->total;
    for (size_t i = 0; i < count; i++)
        for (size_t cut = 0; cut < net.seen[i].len; cut++) {
            struct packet packet = net.seen[i];
            packet.len = cut;
            put_in(&net, &packet);
            packet.len = net.seen[i].len;
            packet.bytes[cut] ^= 0x20;
            put_in(&net, &packet);
            for (size_t k = 0; k < net.count; k++)
                assert_true(net.queue[k].len <= packet.len);
            net.count = 0;
            net.now_ms += 100;
        }
    assert_int_equal(a->total + b->total, before);
    say_and_run(a, b, 2);
    assert_int_equal(b->delivered[2], 1);
    tear_down(&net);
}

static void test_datagram__challenge_is_smaller_than_its_cause(void **state) /* faults 9 */
{
    (void)state;
    NET(2);
    assert_int_equal(datagram_send(a->datagram, net.now_ms, identity_public_key(b->node.identity),
                                   identity_id(b->node.identity), &b->addr, NULL, 0, &err),
                     0);
    struct packet smallest = net.queue[--net.count];
    put_in(&net, &smallest);
    assert_int_equal(net.count, 1);
    assert_true(net.queue[0].len <= smallest.len);
    tear_down(&net);
}

static void test_datagram__flood_is_rationed(void **state) /* faults 3, 8 */
{
    (void)state;
    NET(3);
    struct endpoint *c = &net.ends[2];
    say_and_run(c, b, 1);
    assert_int_equal(say(a, b, 2), 0);
    struct packet flood = net.queue[--net.count];
    size_t before = net.seen_count;
    for (unsigned i = 0; i < 50000; i++) {
        wire_store_u32(flood.bytes + 12, i); /* sender ids of no one */
        put_in(&net, &flood);
        net.count = 0;
    }
    assert_true(net.seen_count - before <= 256);
    for (unsigned i = 0; i < 50000; i++) { /* from many blocks: bounded by the buckets, and nothing is kept */
        flood.from.ip[0] = (uint8_t)(i >> 8);
        flood.from.ip[1] = (uint8_t)i;
        put_in(&net, &flood);
        net.count = 0;
    }
    assert_int_equal(datagram_peer_count(b->datagram), 1);
    say_and_run(c, b, 3);
    assert_int_equal(b->delivered[3], 1);
    tear_down(&net);
}

static void test_datagram__unasked_answers_are_dropped(void **state)
{
    (void)state;
    NET(2);
    say_and_run(a, b, 1);
    uint64_t before = datagram_stats(a->datagram)->dropped_unasked;
    uint64_t hellos = datagram_stats(a->datagram)->hellos;
    assert_int_equal(net.seen[1].bytes[2], 2);
    for (int i = 0; i < 10; i++) {
        struct packet challenge = net.seen[1];
        challenge.bytes[12 + i]++; /* the tag of nothing that was sent */
        put_in(&net, &challenge);
    }
    struct packet elsewhere = net.seen[1];
    elsewhere.from.ip[3]++;
    put_in(&net, &elsewhere);
    net.now_ms += 5000;
    put_in(&net, &net.seen[1]); /* too late */
    assert_int_equal(net.seen[3].bytes[2], 4);
    put_in(&net, &net.seen[3]); /* acknowledged already */
    assert_int_equal(datagram_stats(a->datagram)->dropped_unasked - before, 13);
    assert_int_equal(datagram_stats(a->datagram)->hellos, hellos);
    assert_int_equal(net.count, 0);
    tear_down(&net);
}

/* A challenge has to come from where the datagram went. */
static void test_datagram__challenge_from_elsewhere_is_dropped(void **state)
{
    (void)state;
    NET(2);
    assert_int_equal(say(a, b, 1), 0);
    struct packet packet = net.queue[--net.count];
    put_in(&net, &packet);
    struct packet challenge = net.queue[--net.count];
    challenge.from.ip[0] = 99;
    put_in(&net, &challenge);
    assert_int_equal(datagram_stats(a->datagram)->dropped_unasked, 1);
    assert_int_equal(net.count, 0);
    tear_down(&net);
}

/* What b said once, its HELLO_ACK and its DATA, said again to a who remembers nothing of b and has a HELLO out. */
static void replay_acknowledged(bool restart)
{
    NET(2);
    say_and_run(a, b, 1);
    struct packet ack = net.seen[3];
    assert_int_equal(ack.bytes[2], 4);
    size_t from = net.seen_count;
    say_and_run(b, a, 7);
    struct packet data = net.seen[from];
    net.now_ms += DATAGRAM_RESEND_MS + 1;
    if (restart)
        start(a, 2);
    else
        datagram_forget(a->datagram, net.now_ms, identity_id(b->node.identity));
    start(b, 2);
    assert_int_equal(say(a, b, 2), 0);
    for (int i = 0; i < 2; i++) { /* DATA, CHALLENGE */
        struct packet packet = net.queue[--net.count];
        put_in(&net, &packet);
    }
    assert_int_equal(net.queue[0].bytes[2], 3);
    net.count = 0;
    put_in(&net, &ack);
    put_in(&net, &data);
    assert_int_equal(a->delivered[7], 1);
    assert_int_equal(datagram_stats(a->datagram)->dropped_unasked, 1);
    tear_down(&net);
}

static void test_datagram__acknowledgement_is_of_one_hello(void **state) /* faults 4 */
{
    (void)state;
    replay_acknowledged(false);
    replay_acknowledged(true);
}

/* faults 11: a HELLO with the cookie of another address, or an old one: a new cookie, no more. Nobody stores without. */
static void test_datagram__cookie_holds_for_its_address_and_time(void **state)
{
    (void)state;
    NET(2);
    assert_int_equal(say(a, b, 1), 0);
    struct packet packet = net.queue[--net.count];
    put_in(&net, &packet);
    packet = net.queue[--net.count];
    put_in(&net, &packet);
    struct packet hello = net.queue[--net.count];
    assert_int_equal(hello.bytes[2], 3);
    hello.from.ip[3] = 99;
    put_in(&net, &hello);
    hello.from = a->addr;
    net.now_ms += 20000;
    put_in(&net, &hello);
    assert_int_equal(datagram_peer_count(b->datagram), 0);
    assert_int_equal(datagram_stats(b->datagram)->dropped_cookie, 2);
    tear_down(&net);
}

/* ---- who is let in ---- */

static void test_datagram__other_cluster_is_ignored(void **state)
{
    (void)state;
    NET(1);
    b->net = &net;
    b->addr = (struct addr){.family = 4, .port = 7421, .ip = {10, 0, 1, 1}};
    b->node = forge_founder();
    start(b, 1);
    say_and_run(b, a, 1);
    assert_int_equal(a->total, 0);
    assert_int_equal(net.seen_count, 1);
    assert_int_equal(datagram_stats(a->datagram)->dropped_cluster, 1);
    tear_down(&net);
}

static void test_datagram__revoked_peer_is_cut(void **state) /* faults 85 */
{
    (void)state;
    NET(2);
    say_and_run(b, a, 1);
    OWNED(buf_release) struct buf record = BUF(2048);
    const struct id *id = identity_id(b->node.identity);
    assert_int_equal(identity_revoke(a->node.identity, id, NULL, 0, NOW, &record, &err), 0);
    datagram_forget(a->datagram, net.now_ms, id);
    size_t before = net.seen_count;
    say_and_run(b, a, 2);
    assert_int_equal(a->delivered[2], 0);
    assert_int_equal(net.seen_count, before + 1); /* silence */
    assert_int_equal(say(a, b, 3), ERR_AUTH);
    tear_down(&net);
}

/* Revoked, but a's challenge was already out when a learned of it. */
static void test_datagram__revoked_peer_cannot_introduce_itself(void **state) /* faults 85 */
{
    (void)state;
    NET(2);
    assert_int_equal(say(b, a, 1), 0);
    struct packet packet = net.queue[--net.count];
    put_in(&net, &packet);
    OWNED(buf_release) struct buf record = BUF(2048);
    assert_int_equal(identity_revoke(a->node.identity, identity_id(b->node.identity), NULL, 0, NOW, &record, &err), 0);
    run(&net);
    assert_int_equal(datagram_peer_count(a->datagram), 0);
    assert_int_equal(a->total, 0);
    assert_int_equal(datagram_stats(a->datagram)->dropped_identity, 1);
    tear_down(&net);
}

static void test_datagram__expired_member_must_renew(void **state) /* faults 84 */
{
    (void)state;
    NET(2);
    say_and_run(b, a, 1);
    net.wall_s = NOW + YEAR + IDENTITY_GRACE_S + 1;
    say_and_run(b, a, 2);
    assert_int_equal(a->delivered[2], 0);
    assert_true(datagram_stats(a->datagram)->dropped_identity > 0);
    tear_down(&net);
}

/* The same node from another address: it has to answer from there before it is listened to, then both are good. */
static void test_datagram__moved_peer_proves_its_address(void **state)
{
    (void)state;
    NET(2);
    say_and_run(b, a, 1);
    struct addr old = b->addr;
    b->addr.ip[3] = 77;
    say_and_run(b, a, 2);
    assert_int_equal(a->delivered[2], 1);
    assert_true(addr_equal(&a->last.addr, &b->addr));
    uint64_t challenges = datagram_stats(a->datagram)->challenges;
    b->addr = old;
    say_and_run(b, a, 3);
    assert_int_equal(a->delivered[3], 1);
    assert_int_equal(datagram_stats(a->datagram)->challenges, challenges);

    /* Who only pretends to be there is not delivered, and sees one challenge. */
    assert_int_equal(say(b, a, 4), 0);
    struct packet spoofed = net.queue[--net.count];
    spoofed.from.ip[0] = 99;
    put_in(&net, &spoofed);
    assert_int_equal(a->delivered[4], 0);
    assert_int_equal(datagram_stats(a->datagram)->challenges, challenges + 1);
    tear_down(&net);
}

static void test_datagram__peers_are_bounded(void **state)
{
    (void)state;
    NET(2);
    say_and_run(a, b, 1);
    for (unsigned i = 0; i < LIMIT_DATAGRAM_PEERS + 5; i++) {
        uint8_t seed[32] = {(uint8_t)i, (uint8_t)(i >> 8), 9};
        struct crypto_sign_key key;
        struct id id;
        crypto_sign_key_from_seed(seed, &key);
        crypto_id_of(key.public_key, 32, &id);
        struct addr nowhere = {.family = 4, .port = 1, .ip = {192, 0, 2, 1}};
        assert_int_equal(datagram_send(a->datagram, net.now_ms, key.public_key, &id, &nowhere, "hi", 2, &err), 0);
        net.count = 0;
    }
    assert_int_equal(datagram_peer_count(a->datagram), LIMIT_DATAGRAM_PEERS);
    assert_null(datagram_peer_key(a->datagram, identity_id(b->node.identity)));
    say_and_run(b, a, 2); /* forgotten, not refused */
    assert_int_equal(a->delivered[2], 1);
    tear_down(&net);
}

static void test_datagram__tick_ends_what_waits(void **state)
{
    (void)state;
    NET(2);
    assert_int_equal(say(a, b, 1), 0);
    struct packet data = net.queue[--net.count];
    put_in(&net, &data);
    net.now_ms += 4000;
    datagram_tick(a->datagram, net.now_ms);
    run(&net); /* the challenge comes too late */
    assert_int_equal(datagram_stats(a->datagram)->hellos, 0);
    assert_int_equal(b->total, 0);
    tear_down(&net);
}

static void test_datagram__guest_has_none(void **state)
{
    (void)state;
    struct forge_node guest = forge_node();
    struct datagram_config config = {.identity = guest.identity};
    struct datagram *datagram = NULL;
    assert_int_equal(datagram_new(&config, &datagram, &err), ERR_CONFLICT);
    assert_null(datagram);
    forge_done(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_datagram__first_one_arrives_after_introductions),
        cmocka_unit_test(test_datagram__three_talk_at_once),
        cmocka_unit_test(test_datagram__reordered_and_duplicated_arrive_once),
        cmocka_unit_test(test_datagram__loss_heals_when_asked_again),
        cmocka_unit_test(test_datagram__largest_payload_fits),
        cmocka_unit_test(test_datagram__bad_keys_are_refused),
        cmocka_unit_test(test_datagram__restart_is_noticed_by_both_sides),
        cmocka_unit_test(test_datagram__replays_are_dropped),
        cmocka_unit_test(test_datagram__replays_after_a_restart_are_dropped),
        cmocka_unit_test(test_datagram__replays_to_one_who_forgot_are_dropped),
        cmocka_unit_test(test_datagram__old_boot_stamp_is_refused),
        cmocka_unit_test(test_datagram__no_nonce_comes_twice),
        cmocka_unit_test(test_datagram__forged_counter_does_not_move_the_window),
        cmocka_unit_test(test_datagram__noise_gets_silence),
        cmocka_unit_test(test_datagram__cut_and_changed_packets),
        cmocka_unit_test(test_datagram__challenge_is_smaller_than_its_cause),
        cmocka_unit_test(test_datagram__flood_is_rationed),
        cmocka_unit_test(test_datagram__unasked_answers_are_dropped),
        cmocka_unit_test(test_datagram__challenge_from_elsewhere_is_dropped),
        cmocka_unit_test(test_datagram__acknowledgement_is_of_one_hello),
        cmocka_unit_test(test_datagram__cookie_holds_for_its_address_and_time),
        cmocka_unit_test(test_datagram__other_cluster_is_ignored),
        cmocka_unit_test(test_datagram__revoked_peer_is_cut),
        cmocka_unit_test(test_datagram__revoked_peer_cannot_introduce_itself),
        cmocka_unit_test(test_datagram__expired_member_must_renew),
        cmocka_unit_test(test_datagram__moved_peer_proves_its_address),
        cmocka_unit_test(test_datagram__peers_are_bounded),
        cmocka_unit_test(test_datagram__tick_ends_what_waits),
        cmocka_unit_test(test_datagram__guest_has_none),
    };
    return crypto_init(NULL) < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
