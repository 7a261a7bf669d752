#include "tests/unit/dht/rig.h"

/* faults 32: the pauses between questions to silent seeds grow, and differ from node to node */
static void test_upkeep__seeds_are_asked_with_growing_pauses(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer seed = rig_peer(1);
    assert_int_equal(dht_bootstrap(rig->dht, rig->now_ms, &seed.contact, NULL), 0);
    rig_run(rig, 60000);
    size_t first_minute = rig->sent_count;
    assert_in_range(first_minute, 6, 20);
    rig_run(rig, 1200000);
    assert_in_range(rig->sent_count - first_minute, 20, 80); /* each question is repeated once */
    rig_free(rig);
}

static void test_upkeep__seeds_are_checked_and_bounded(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct err err = {0};
    struct dht_contact nowhere = rig_peer(1).contact;
    nowhere.addr.port = 0;
    assert_int_equal(dht_bootstrap(rig->dht, rig->now_ms, &nowhere, &err), ERR_INVALID);
    assert_int_equal(dht_bootstrap(rig->dht, rig->now_ms, &rig->dht->self, &err), ERR_INVALID);
    for (unsigned i = 0; i <= LIMIT_DHT_SEEDS; i++) {
        struct rig_peer seed = rig_peer(i);
        int status = dht_bootstrap(rig->dht, rig->now_ms, &seed.contact, &err);
        assert_int_equal(status, i < LIMIT_DHT_SEEDS ? 0 : ERR_LIMIT);
        seed = rig_peer(0);
        assert_int_equal(dht_bootstrap(rig->dht, rig->now_ms, &seed.contact, &err), 0); /* known */
    }
    rig_free(rig);
}

static void test_upkeep__joined_after_the_walk_to_ourselves(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer seed = rig_peer(1);
    assert_int_equal(dht_bootstrap(rig->dht, rig->now_ms, &seed.contact, NULL), 0);
    dht_tick(rig->dht, rig->now_ms);
    assert_false(rig_stats(rig).joined);
    rig_answer(rig, &seed, DHT_PING, (struct dht_message){.type = DHT_PONG});
    dht_tick(rig->dht, rig->now_ms);
    assert_false(rig_stats(rig).joined);
    struct dht_message walk;
    assert_true(rig_find(rig, DHT_FIND_NODE, &seed, &walk));
    assert_true(id_equal(&walk.target, &rig->dht->self.id));
    rig_answer(rig, &seed, DHT_FIND_NODE, (struct dht_message){.type = DHT_NODES});
    assert_true(rig_stats(rig).joined);
    rig_free(rig);
}

static void test_upkeep__contacts_survive_a_restart(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct dht_message ping;
    for (unsigned i = 0; i < 10; i++) {
        struct rig_peer peer = rig_peer(i);
        rig_meet(rig, &peer);
    }
    assert_int_equal(dht_save(rig->dht, NULL), 0);
    rig_restart(rig);
    assert_int_equal(dht_save(rig->dht, NULL), 0); /* alone: what is saved stays */
    assert_int_equal(dht_restore(rig->dht, rig->now_ms, NULL), 0);
    assert_int_equal(rig_stats(rig).contacts, 0); /* not before they have answered */
    dht_tick(rig->dht, rig->now_ms);
    for (unsigned i = 0; i < 10; i++) {
        struct rig_peer peer = rig_peer(i);
        assert_true(rig_find(rig, DHT_PING, &peer, &ping));
    }
    rig_free(rig);
}

/* faults 54: saved contacts that are no contacts are passed over */
static void test_upkeep__damaged_contacts_do_no_harm(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    uint8_t rubbish[1000];
    memset(rubbish, 0x5a, sizeof rubbish);
    for (size_t len = 0; len < 200; len++) {
        rig->storage.save(rig->storage.ctx, "contacts", rubbish, len);
        assert_int_equal(dht_restore(rig->dht, rig->now_ms, NULL), 0);
    }
    rig_run(rig, 1000);
    assert_int_equal(rig->sent_count, 0);
    rig_free(rig);
}

/* All contacts die: they are forgotten in time, and the seed is asked again. */
static void test_upkeep__alone_again(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer seed = rig_peer(1);
    struct dht_message ping;
    assert_int_equal(dht_bootstrap(rig->dht, rig->now_ms, &seed.contact, NULL), 0);
    rig_meet(rig, &seed);
    for (unsigned i = 0; i < 200 && rig_stats(rig).contacts > 0; i++) {
        rig->sent_count = 0;
        rig_run(rig, 60000);
    }
    assert_int_equal(rig_stats(rig).contacts, 0);
    assert_false(rig_stats(rig).joined);
    rig->sent_count = 0;
    rig_run(rig, 120000);
    assert_true(rig_find(rig, DHT_PING, &seed, &ping));
    rig_free(rig);
}

#define PEERS 20
#define HOUR_MS 3600000u

/* Peers who answer everything at once, but for one, and know nobody else. */
struct village {
    struct rig *rig;
    struct rig_peer peers[PEERS];
    unsigned dead;  /* PEERS: nobody */
    bool talkative; /* they do tell of the first sixteen */
    unsigned pings, finds;
    unsigned own_walks;
    uint64_t next_own_walk_ms;
};

static struct village village_new(void)
{
    struct village village = {.rig = rig_new(), .dead = PEERS};
    for (unsigned i = 0; i < PEERS; i++) {
        village.peers[i] = rig_peer(i);
        rig_meet(village.rig, &village.peers[i]);
    }
    village.rig->sent_count = 0;
    return village;
}

static void village_answer(struct village *village, size_t at)
{
    struct rig *rig = village->rig;
    struct dht_message request = rig_message(rig, at);
    struct dht_message answer = {.type = (uint8_t)(request.type + 1), .transaction = request.transaction, .parts = 1};
    bool finds = request.type == DHT_FIND_NODE;
    for (unsigned i = 0; finds && village->talkative && i < DHT_REPLICAS; i++)
        answer.contacts[answer.contact_count++] = village->peers[i].contact;
    if (request.type == DHT_STORE)
        answer.record_count = request.record_count;
    village->pings += request.type == DHT_PING;
    village->finds += finds && !id_equal(&request.target, &rig->dht->self.id);
    for (unsigned i = 0; i < PEERS; i++)
        if (i != village->dead && id_equal(&village->peers[i].contact.id, &rig->sent[at].to.id) &&
            request.type % 2 == 1 && request.type != DHT_LEASE)
            rig_input(rig, &village->peers[i], &answer);
}

static void village_live(struct village *village, uint64_t ms)
{
    struct rig *rig = village->rig;
    uint64_t end_ms = rig->now_ms + ms;
    for (uint64_t next_ms; (next_ms = dht_next_ms(rig->dht)) <= end_ms;) {
        rig->now_ms = next_ms > rig->now_ms ? next_ms : rig->now_ms;
        dht_tick(rig->dht, rig->now_ms);
        for (size_t i = 0; i < rig->sent_count; i++)
            village_answer(village, i);
        rig->sent_count = 0;
        village->own_walks += rig->dht->upkeep.self_ms > village->next_own_walk_ms;
        village->next_own_walk_ms = rig->dht->upkeep.self_ms;
    }
    rig->now_ms = end_ms;
}

/* A walk to ourselves each 30 to 60 minutes, contacts asked after an hour or more, buckets once an hour. */
static void test_upkeep__idles_at_little_cost(void **state)
{
    (void)state;
    struct village village = village_new();
    village_live(&village, 4 * HOUR_MS);
    assert_true(rig_stats(village.rig).joined);
    village.own_walks = village.pings = village.finds = 0;
    village_live(&village, 12 * HOUR_MS);
    assert_in_range(village.own_walks, 12, 24);
    assert_in_range(village.pings, 0, PEERS * 12 / 2);
    assert_in_range(village.finds, 12, 12 * 60);
    assert_int_equal(rig_stats(village.rig).contacts, PEERS);
    rig_free(village.rig);
}

/* A walk asks a few of those that it hears of, and then the others are met, too: tables are full soon after joining. */
static void test_upkeep__meets_all_that_it_hears_of(void **state)
{
    (void)state;
    struct village village = {.rig = rig_new(), .dead = PEERS, .talkative = true};
    for (unsigned i = 0; i < PEERS; i++)
        village.peers[i] = rig_peer(i);
    assert_int_equal(dht_bootstrap(village.rig->dht, village.rig->now_ms, &village.peers[0].contact, NULL), 0);
    village_live(&village, 1000);
    assert_int_equal(rig_stats(village.rig).contacts, DHT_REPLICAS);
    rig_free(village.rig);
}

/* A neighbour that did not answer twice is missed: we look soon for who is there instead. */
static void test_upkeep__walks_soon_after_neighbours_failed(void **state)
{
    (void)state;
    struct village village = village_new();
    village_live(&village, HOUR_MS / 4);
    struct dht_contact closest;
    dht_table_closest(&village.rig->dht->table, &village.rig->dht->self.id, true, &closest, 1);
    for (village.dead = 0; !id_equal(&village.peers[village.dead].contact.id, &closest.id);)
        village.dead++;
    uint64_t planned_ms = village.next_own_walk_ms;
    unsigned walks = village.own_walks;
    dht_rpc_ping(village.rig->dht, &closest);
    village_live(&village, 90000); /* asked, and asked again after 20 s; and then 30 s, more or less */
    assert_true(planned_ms > village.rig->now_ms);
    assert_int_equal(village.own_walks, walks + 1);
    rig_free(village.rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_upkeep__seeds_are_asked_with_growing_pauses),
        cmocka_unit_test(test_upkeep__seeds_are_checked_and_bounded),
        cmocka_unit_test(test_upkeep__joined_after_the_walk_to_ourselves),
        cmocka_unit_test(test_upkeep__contacts_survive_a_restart),
        cmocka_unit_test(test_upkeep__damaged_contacts_do_no_harm),
        cmocka_unit_test(test_upkeep__alone_again),
        cmocka_unit_test(test_upkeep__idles_at_little_cost),
        cmocka_unit_test(test_upkeep__meets_all_that_it_hears_of),
        cmocka_unit_test(test_upkeep__walks_soon_after_neighbours_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
