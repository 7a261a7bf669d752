#include "tests/unit/dht/rig.h"

struct watch {
    unsigned replies, slow, failed;
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
    assert_int_equal(reply != NULL, event == DHT_RPC_REPLY);
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

/* The floor: a peer that answered at once is given 200 ms. A late answer after the repeat still counts. */
static void test_rpc__waits_by_round_trip(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct watch watch = {0};
    rig_meet(rig, &peer);
    ask(rig, &peer, &watch);
    dht_set_now(rig->dht, rig->now_ms + 199);
    dht_rpc_tick(rig->dht);
    assert_int_equal(watch.slow, 0);
    rig->now_ms += 200;
    dht_set_now(rig->dht, rig->now_ms);
    dht_rpc_tick(rig->dht);
    assert_int_equal(watch.slow, 1);
    rig_answer(rig, &peer, DHT_FIND_NODE, (struct dht_message){.type = DHT_NODES});
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
    for (unsigned i = 0; i < 40; i++) {
        rig->now_ms += 100;
        rig->sent_count = 0;
        dht_set_now(rig->dht, rig->now_ms);
        for (size_t at = 0; at < rig->dht->rpcs.count; at++)
            rig->dht->rpcs.items[at].slow = true; /* sending a thousand again is beside the point */
        dht_rpc_tick(rig->dht);
    }
    assert_int_equal(watch.failed + watch.slow, 0);
    assert_int_equal(kept.failed, 1);
    assert_int_equal(rig_stats(rig).pending, 0);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rpc__repeats_then_gives_up),
        cmocka_unit_test(test_rpc__waits_by_round_trip),
        cmocka_unit_test(test_rpc__strays_are_dropped),
        cmocka_unit_test(test_rpc__bounded_and_abandoned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
