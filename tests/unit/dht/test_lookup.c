#include "tests/unit/dht/rig.h"

struct result {
    bool done;
    size_t count;
    struct dht_contact contacts[DHT_REPLICAS];
};

static void on_found(void *ctx, const struct dht_contact *contacts, size_t count)
{
    struct result *result = ctx;
    result->done = true;
    result->count = count;
    memcpy(result->contacts, contacts, count * sizeof *contacts);
}

static bool was_asked(const struct rig *rig, const struct id *id, uint8_t type)
{
    for (size_t i = 0; i < rig->sent_count; i++)
        if (rig_message(rig, i).type == type && id_equal(&rig->sent[i].to.id, id))
            return true;
    return false;
}

/* faults 15: of the contacts in an answer those are asked that a node can be at: not ourselves, nobody twice, no
 * unspecified, multicast, broadcast or foreign loopback address, no port 0, nobody revoked */
static void test_lookup__asks_only_where_a_node_can_be(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1), good = rig_peer(2), revoked = rig_peer(3);
    struct result result = {0};
    struct id target = rig_key(1);
    rig_meet(rig, &peer);
    dht_forget(rig->dht, &revoked.contact.id, NULL);
    rig->sent_count = 0;
    assert_int_equal(dht_find(rig->dht, rig->now_ms, &target, on_found, &result, NULL, NULL), 0);

    struct dht_message nodes = {.type = DHT_NODES};
    const uint8_t addresses[][4] = {{0, 0, 0, 0}, {224, 0, 0, 1}, {255, 255, 255, 255}, {127, 0, 0, 1}, {10, 1, 1, 1}};
    for (unsigned i = 0; i < 5; i++) {
        struct dht_contact *contact = &nodes.contacts[nodes.contact_count++];
        *contact = rig_peer(10 + i).contact;
        memcpy(contact->addr.ip, addresses[i], 4);
        contact->addr.port = i == 4 ? 0 : 7421;
    }
    nodes.contacts[nodes.contact_count++] = rig->dht->self;
    nodes.contacts[nodes.contact_count++] = revoked.contact;
    nodes.contacts[nodes.contact_count++] = good.contact;
    nodes.contacts[nodes.contact_count++] = good.contact;
    rig_answer(rig, &peer, DHT_FIND_NODE, nodes);
    dht_tick(rig->dht, rig->now_ms);
    unsigned asked = 0;
    for (size_t i = 0; i < rig->sent_count; i++)
        if (!id_equal(&rig->sent[i].to.id, &peer.contact.id)) {
            assert_true(id_equal(&rig->sent[i].to.id, &good.contact.id));
            asked++;
        }
    assert_int_equal(asked, 1);
    rig_free(rig);
}

/* A peer that makes up contacts ever nearer to the target. */
static struct rig_peer nearer(const struct id *target, unsigned round)
{
    struct rig_peer best = rig_peer(1000 + round * 50);
    for (unsigned i = 1; i < 50; i++) {
        struct rig_peer peer = rig_peer(1000 + round * 50 + i);
        if (dht_closer(target, &peer.contact.id, &best.contact.id) < 0)
            best = peer;
    }
    return best;
}

/* faults 18: fed with new contacts forever, a lookup still ends */
static void test_lookup__drip_feeding_ends(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct result result = {0};
    struct id target = rig_key(1);
    rig_meet(rig, &peer);
    assert_int_equal(dht_find(rig->dht, rig->now_ms, &target, on_found, &result, NULL, NULL), 0);
    unsigned rounds = 0;
    for (; !result.done && rounds < 1000; rounds++) {
        struct rig_peer next = nearer(&target, rounds);
        struct dht_message nodes = {.type = DHT_NODES, .contact_count = 1, .contacts = {next.contact}};
        struct dht_message request;
        if (rig_find(rig, DHT_FIND_NODE, &peer, &request))
            rig_answer(rig, &peer, DHT_FIND_NODE, nodes);
        rig->sent_count = 0;
        rig->now_ms += 100;
        dht_tick(rig->dht, rig->now_ms);
        peer = next;
    }
    assert_true(result.done);
    assert_true(rounds <= DHT_QUERIES_MAX + 100);
    rig_free(rig);
}

/* faults 16: twenty sybils nearest to the key from one block get three places; an honest node is still asked */
static void test_lookup__sybils_of_one_block_do_not_fill_it(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig->block_cap = 3;
    rig_restart(rig);
    struct rig_peer peer = rig_peer(1), honest = rig_peer(2);
    struct result result = {0};
    struct id target = rig_key(1);
    rig_meet(rig, &peer);
    rig->sent_count = 0;
    assert_int_equal(dht_find(rig->dht, rig->now_ms, &target, on_found, &result, NULL, NULL), 0);
    struct dht_message nodes = {.type = DHT_NODES};
    for (unsigned i = 0; i < 15; i++) {
        struct dht_contact *contact = &nodes.contacts[nodes.contact_count++];
        *contact = nearer(&target, i).contact;
        memcpy(contact->addr.ip, (uint8_t[]){10, 99, 99, (uint8_t)(i + 1)}, 4);
    }
    nodes.contacts[nodes.contact_count++] = honest.contact;
    rig_answer(rig, &peer, DHT_FIND_NODE, nodes);
    dht_tick(rig->dht, rig->now_ms);
    assert_true(was_asked(rig, &honest.contact.id, DHT_FIND_NODE));
    rig_free(rig);
}

/* Four walks: what one of them hears stays in it, so a liar cannot steer the others. */
static void on_walked(struct dht *dht, struct dht_lookup *lookup, void *owner)
{
    (void)dht, (void)lookup, (void)owner;
}

static void test_lookup__walks_are_disjoint(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id target = rig_key(1);
    for (unsigned i = 0; i < 16; i++) {
        struct rig_peer peer = rig_peer(i);
        rig_meet(rig, &peer);
    }
    rig->sent_count = 0;
    struct dht_lookup *lookup = dht_lookup_start(rig->dht, &target, 4, NULL, 10000, on_walked, NULL);
    assert_non_null(lookup);
    assert_int_equal(rig->sent_count, 4); /* one each */
    struct dht_message nodes = {.type = DHT_NODES};
    for (unsigned i = 0; i < DHT_REPLICAS; i++)
        nodes.contacts[nodes.contact_count++] = rig_peer(100 + i).contact;
    struct id first = rig->sent[0].to.id;
    unsigned walk = 0;
    for (size_t i = 0; i < lookup->candidate_count; i++)
        if (id_equal(&lookup->candidates[i].contact.id, &first))
            walk = lookup->candidates[i].walk;
    for (unsigned i = 0; i < 16; i++) {
        struct rig_peer peer = rig_peer(i);
        if (id_equal(&peer.contact.id, &first))
            rig_answer(rig, &peer, DHT_FIND_NODE, nodes);
    }
    assert_int_equal(lookup->candidate_count, 32);
    for (size_t i = 0; i < lookup->candidate_count; i++)
        for (unsigned n = 0; n < DHT_REPLICAS; n++)
            if (id_equal(&lookup->candidates[i].contact.id, &nodes.contacts[n].id))
                assert_int_equal(lookup->candidates[i].walk, walk);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup__asks_only_where_a_node_can_be),
        cmocka_unit_test(test_lookup__drip_feeding_ends),
        cmocka_unit_test(test_lookup__sybils_of_one_block_do_not_fill_it),
        cmocka_unit_test(test_lookup__walks_are_disjoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
