#include "tests/unit/dht/rig.h"

struct watch {
    unsigned replies, slow, failed, parts;
    unsigned told; /* parts, bit by bit */
};

static void on_event(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                     const struct dht_message *reply)
{
    struct watch *watch = owner;
    (void)dht;
    assert_non_null(peer);
    watch->replies += event == DHT_RPC_REPLY;
    watch->slow += event == DHT_RPC_SLOW;
    watch->failed += event == DHT_RPC_FAILED;
    watch->parts += event == DHT_RPC_PART;
    assert_int_equal(reply != NULL, event == DHT_RPC_REPLY || event == DHT_RPC_PART);
    if (!reply || reply->type != DHT_VALUES)
        return;
    assert_int_equal(watch->told >> reply->part & 1, 0);
    watch->told |= 1u << reply->part;
}

static void ask(struct rig *rig, const struct rig_peer *peer, struct watch *watch)
{
    struct dht_message request = {.type = DHT_FIND_NODE};
    dht_rpc_ask(rig->dht, &peer->contact, &request, on_event, watch);
}

/* First contact: one second, then the same bytes once more, then given up. */
static void test_rpc__repeats_then_gives_up(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct watch watch = {0};
    ask(rig, &peer, &watch);
    rig_run(rig, 999);
    assert_int_equal(rig->sent_count, 1);
    rig_run(rig, 1);
    assert_int_equal(rig->sent_count, 2);
    assert_int_equal(watch.slow, 1);
    assert_memory_equal(rig->sent[0].bytes, rig->sent[1].bytes, rig->sent[0].len);
    rig_run(rig, 2000);
    assert_int_equal(watch.failed, 1);
    assert_int_equal(rig_stats(rig).timeouts, 1);
    assert_int_equal(rig_stats(rig).pending, 0);
    rig_free(rig);
}

/* The floor: a peer that answered at once is given 100 ms more. A late answer after the repeat still counts. */
static void test_rpc__waits_by_round_trip(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct watch watch = {0};
    rig_meet(rig, &peer);
    ask(rig, &peer, &watch);
    uint64_t transaction = rig_last(rig).transaction;
    rig_run(rig, 100);
    assert_int_equal(watch.slow, 0);
    rig_run(rig, 1);
    assert_int_equal(watch.slow, 1);
    rig_input(rig, &peer, &(struct dht_message){.type = DHT_NODES, .transaction = transaction});
    assert_int_equal(watch.replies, 1);
    rig_free(rig);
}

/* Answers from somebody else, of another kind, to another question, or a second time: counted and dropped. */
static void test_rpc__strays_are_dropped(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1), other = rig_peer(2);
    struct watch watch = {0};
    ask(rig, &peer, &watch);
    struct dht_message answer = {.type = DHT_NODES, .transaction = rig_last(rig).transaction};
    rig_input(rig, &other, &answer);
    rig_input(rig, &peer, &(struct dht_message){.type = DHT_PONG, .transaction = answer.transaction});
    rig_input(rig, &peer, &(struct dht_message){.type = DHT_NODES, .transaction = answer.transaction + 1});
    assert_int_equal(watch.replies, 0);
    assert_int_equal(rig_stats(rig).contacts, 0);
    rig_input(rig, &peer, &answer);
    rig_input(rig, &peer, &answer);
    assert_int_equal(watch.replies, 1);
    assert_int_equal(rig_stats(rig).dropped_stray, 4);
    rig_free(rig);
}

static void send_nothing(void *ctx, const struct dht_contact *to, const uint8_t *bytes, size_t len_bytes)
{
    (void)ctx;
    (void)to;
    (void)bytes;
    (void)len_bytes;
}

static void test_rpc__bounded_and_abandoned(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct watch watch = {0}, kept = {0};
    struct dht_message request = {.type = DHT_FIND_NODE};
    for (unsigned i = 0; i < LIMIT_DHT_PENDING; i++) {
        rig->sent_count = 0;
        assert_int_equal(dht_rpc_ask(rig->dht, &peer.contact, &request, on_event, i ? &watch : &kept), 0);
    }
    assert_int_equal(dht_rpc_ask(rig->dht, &peer.contact, &request, on_event, &watch), ERR_LIMIT);
    dht_rpc_abandon(rig->dht, &watch);
    rig->dht->config.send = send_nothing; /* sending a thousand again is beside the point */
    rig_run(rig, 4000);
    assert_int_equal(watch.failed + watch.slow, 0);
    assert_int_equal(kept.failed, 1);
    assert_int_equal(rig_stats(rig).pending, 0);
    rig_free(rig);
}

static void ask_value(struct rig *rig, const struct rig_peer *peer, uint8_t parts, struct watch *watch)
{
    struct dht_message request = {.type = DHT_FIND_VALUE, .parts = parts, .limit = 100};
    assert_int_equal(dht_rpc_ask(rig->dht, &peer->contact, &request, on_event, watch), 0);
}

static void answer_part(struct rig *rig, const struct rig_peer *peer, uint8_t part, uint8_t parts)
{
    rig_answer(rig, peer, DHT_FIND_VALUE, (struct dht_message){.type = DHT_VALUES, .part = part, .parts = parts});
}

/* In any order, some twice: each is told once, and the last one to come ends it. */
static void test_rpc__parts_come_in_any_order(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct watch watch = {0};
    ask_value(rig, &peer, 16, &watch);
    for (uint8_t i = 0; i < 16; i++) {
        answer_part(rig, &peer, (uint8_t)(i * 7 % 16), 16);
        answer_part(rig, &peer, (uint8_t)(i * 7 % 16), 16);
        assert_int_equal(watch.parts, i < 15 ? i + 1u : 15);
        assert_int_equal(watch.replies, i == 15);
    }
    assert_int_equal(watch.told, 0xffff);
    assert_int_equal(rig_stats(rig).dropped_stray, 16);
    assert_int_equal(rig_stats(rig).pending, 0);
    rig_free(rig);
}

/* A part is lost: the request is sent again, all parts come again, and only the missing one is told. */
static void test_rpc__missing_parts_are_asked_for_again(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct watch watch = {0};
    ask_value(rig, &peer, 4, &watch);
    answer_part(rig, &peer, 0, 3);
    rig_run(rig, 900);
    answer_part(rig, &peer, 2, 3); /* and the wait starts anew */
    rig_run(rig, 900);
    assert_int_equal(watch.slow, 0);
    rig_run(rig, 200);
    assert_int_equal(watch.slow, 1);
    for (uint8_t i = 0; i < 3; i++)
        answer_part(rig, &peer, i, 3);
    assert_int_equal(watch.parts, 2);
    assert_int_equal(watch.replies, 1);
    assert_int_equal(watch.told, 7);

    watch = (struct watch){0};
    ask_value(rig, &peer, 4, &watch);
    answer_part(rig, &peer, 1, 2);
    rig_run(rig, 10000);
    assert_int_equal(watch.slow, 1);
    assert_int_equal(watch.failed, 1);
    assert_int_equal(watch.replies, 0);
    rig_free(rig);
}

/* faults 15: more parts than were asked for, or of another number than before */
static void test_rpc__parts_that_do_not_fit_are_dropped(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct watch watch = {0};
    ask_value(rig, &peer, 2, &watch);
    answer_part(rig, &peer, 0, 3);
    answer_part(rig, &peer, 0, 16);
    assert_int_equal(watch.parts, 0);
    answer_part(rig, &peer, 0, 2);
    answer_part(rig, &peer, 0, 1);
    assert_int_equal(watch.parts, 1);
    assert_int_equal(watch.replies, 0);
    assert_int_equal(rig_stats(rig).dropped_stray, 3);
    rig_answer(rig, &peer, DHT_FIND_VALUE, (struct dht_message){.type = DHT_REFUSED});
    assert_int_equal(watch.replies, 1);
    rig_free(rig);
}

/* What is told waits for nothing. */
static void test_rpc__telling_is_not_asking(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct dht_message lease = {.type = DHT_LEASE, .records = {{(const uint8_t *)"", 0}}};
    dht_rpc_tell(rig->dht, &peer.contact, &lease);
    assert_int_equal(rig->sent_count, 1);
    assert_int_equal(rig_last(rig).type, DHT_LEASE);
    assert_int_equal(rig_stats(rig).pending, 0);
    rig_free(rig);
}

/* faults 17: somebody has told us a false address of a contact; that nobody answers there is not held against it */
static void test_rpc__silence_elsewhere_is_no_failure(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1), lie = peer;
    struct watch watch = {0};
    struct dht_node node;
    lie.contact.addr.port = 9;
    rig_meet(rig, &peer);
    for (unsigned i = 0; i < 6; i++)
        ask(rig, &lie, &watch);
    rig_run(rig, 700);
    assert_int_equal(watch.failed, 6);
    assert_true(dht_table_find(&rig->dht->table, &peer.contact.id, &node));
    assert_in_range(node.fails, 0, 1); /* our first walk went unanswered, too */
    rig_free(rig);
}

/* Our place goes with answers, and theirs moves us; not that of a repeated question, whose time says nothing. */
static void test_rpc__places_go_with_answers(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    double error;
    struct dht_message pong = {.type = DHT_PONG, .flags = DHT_PLACED, .place = {{3000, 0, 0}, 10}, .place_error = 30};
    struct dht_place place = dht_place(rig->dht, &error);
    assert_false(dht_place_is_known(&place));
    rig_input(rig, &peer, &(struct dht_message){.type = DHT_PING});
    assert_true(rig_last(rig).type == DHT_PING || rig_last(rig).type == DHT_PONG);
    struct dht_message sent = {0};
    assert_true(rig_find(rig, DHT_PONG, &peer, &sent));
    assert_true(sent.flags & DHT_PLACED);
    assert_int_equal(sent.place_error, 255);
    rig_run(rig, 1500); /* our own question to it is slow by now */
    rig_answer(rig, &peer, DHT_PING, pong);
    place = dht_place(rig->dht, &error);
    assert_false(dht_place_is_known(&place));
    dht_rpc_ping(rig->dht, &peer.contact);
    rig_run(rig, 20);
    rig_answer(rig, &peer, DHT_PING, pong);
    place = dht_place(rig->dht, &error);
    assert_true(dht_place_is_known(&place));
    assert_true(place.x[0] > 0); /* nearer than we were */
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rpc__repeats_then_gives_up),
        cmocka_unit_test(test_rpc__waits_by_round_trip),
        cmocka_unit_test(test_rpc__strays_are_dropped),
        cmocka_unit_test(test_rpc__bounded_and_abandoned),
        cmocka_unit_test(test_rpc__parts_come_in_any_order),
        cmocka_unit_test(test_rpc__missing_parts_are_asked_for_again),
        cmocka_unit_test(test_rpc__parts_that_do_not_fit_are_dropped),
        cmocka_unit_test(test_rpc__telling_is_not_asking),
        cmocka_unit_test(test_rpc__silence_elsewhere_is_no_failure),
        cmocka_unit_test(test_rpc__places_go_with_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
