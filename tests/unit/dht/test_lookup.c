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

/* ---- who is asked, and when ---- */

#define PEERS 20

struct meeting {
    struct rig *rig;
    struct rig_peer peers[PEERS]; /* closest to the key first */
    struct id key;
    size_t told; /* records */
    bool done;
};

static void on_told(void *ctx, const struct dht_found *found, size_t count)
{
    struct meeting *meeting = ctx;
    (void)found;
    meeting->told = count;
    meeting->done = true;
}

static void meet(struct meeting *meeting)
{
    *meeting = (struct meeting){.rig = rig_new(), .key = rig_key(1)};
    for (unsigned i = 0; i < PEERS; i++) {
        struct rig_peer peer = rig_peer(i);
        unsigned at = i;
        rig_meet(meeting->rig, &peer);
        for (; at > 0 && dht_closer(&meeting->key, &peer.contact.id, &meeting->peers[at - 1].contact.id) < 0; at--)
            meeting->peers[at] = meeting->peers[at - 1];
        meeting->peers[at] = peer;
    }
    meeting->rig->sent_count = 0;
}

static void get(struct meeting *meeting, const struct dht_get_options *options)
{
    struct rig *rig = meeting->rig;
    meeting->done = false;
    rig->sent_count = 0;
    assert_int_equal(dht_get(rig->dht, rig->now_ms, &meeting->key, options, on_told, meeting, NULL, NULL), 0);
}

static size_t count_of(const struct rig *rig, uint8_t type)
{
    size_t count = 0;
    for (size_t i = 0; i < rig->sent_count; i++)
        count += rig_message(rig, i).type == type;
    return count;
}

/* Questions about the key; what the node does besides is its own affair. */
static size_t asked(const struct meeting *meeting)
{
    size_t count = 0;
    for (size_t i = 0; i < meeting->rig->sent_count; i++) {
        struct dht_message message = rig_message(meeting->rig, i);
        bool question = message.type == DHT_FIND_VALUE || message.type == DHT_FIND_NODE;
        count += question && id_equal(&message.target, &meeting->key);
    }
    return count;
}

/* The peer of this place answers with these records, and knows nobody. */
static void answer(struct meeting *meeting, unsigned place, const struct dht_record *records, size_t count)
{
    struct dht_message values = {.type = DHT_VALUES, .parts = 1, .total = (uint32_t)count};
    struct buf bytes[DHT_ITEMS_MAX];
    for (size_t i = 0; i < count; i++) {
        bytes[i] = BUF(LIMIT_DHT_RECORD_BYTES);
        values.records[values.record_count++] = rig_brief(&records[i], &bytes[i]);
    }
    rig_answer(meeting->rig, &meeting->peers[place], DHT_FIND_VALUE, values);
    for (size_t i = 0; i < count; i++)
        buf_release(&bytes[i]);
    dht_tick(meeting->rig->dht, meeting->rig->now_ms);
}

/* While the closest four may still answer nobody further away is asked; who is slow no longer counts. */
static void test_lookup__the_closest_four_are_enough(void **state)
{
    (void)state;
    struct meeting meeting;
    meet(&meeting);
    get(&meeting, NULL);
    assert_int_equal(asked(&meeting), 4);
    for (unsigned i = 0; i < 3; i++)
        answer(&meeting, i, NULL, 0);
    assert_int_equal(asked(&meeting), 4);
    rig_run(meeting.rig, 150); /* the fourth is slow: once more to it, and to the fifth */
    assert_int_equal(asked(&meeting), 6);
    assert_true(was_asked(meeting.rig, &meeting.peers[4].contact.id, DHT_FIND_VALUE));
    rig_free(meeting.rig);
}

/* Who takes the first answer asks one; four at a time when that is slow, or was no holder. */
static void test_lookup__first_is_asked_alone(void **state)
{
    (void)state;
    struct meeting meeting;
    struct rig_peer member = rig_peer(50);
    struct dht_get_options options = {.limit = 1, .first_is_enough = true};
    meet(&meeting);
    struct dht_record record = rig_record(&member, &meeting.key, 1, 1);
    get(&meeting, &options);
    assert_int_equal(asked(&meeting), 1);
    assert_true(was_asked(meeting.rig, &meeting.peers[0].contact.id, DHT_FIND_VALUE));
    answer(&meeting, 0, &record, 1);
    assert_true(meeting.done && meeting.told == 1);
    assert_int_equal(asked(&meeting), 1);

    get(&meeting, &options);
    rig_run(meeting.rig, 150);
    assert_int_equal(asked(&meeting), 6); /* to the first one twice */
    answer(&meeting, 1, &record, 1);
    assert_true(meeting.done && meeting.told == 1);

    get(&meeting, &options);
    answer(&meeting, 0, NULL, 0);
    assert_int_equal(asked(&meeting), 4);
    rig_free(meeting.rig);
}

/* Of the last question about the key that this peer was asked. */
static uint64_t transaction_of(const struct meeting *meeting, const struct rig_peer *peer)
{
    for (size_t i = meeting->rig->sent_count; i-- > 0;) {
        struct dht_message message = rig_message(meeting->rig, i);
        if (message.type == DHT_FIND_NODE && id_equal(&message.target, &meeting->key) &&
            id_equal(&meeting->rig->sent[i].to.id, &peer->contact.id))
            return message.transaction;
    }
    fail_msg("a peer was not asked");
    return 0;
}

static void on_written(struct dht *dht, struct dht_lookup *lookup, void *owner)
{
    (void)dht;
    *(size_t *)owner = dht_lookup_closest(lookup, true, (struct dht_contact[DHT_REPLICAS]){0}, DHT_REPLICAS);
}

/* Of a write each walk is over with its closest one; four questions and their answers find all holders. */
static void test_lookup__four_walks_of_one_each(void **state)
{
    (void)state;
    struct meeting meeting;
    size_t holders = 0;
    meet(&meeting);
    assert_non_null(dht_lookup_start(meeting.rig->dht, &meeting.key, DHT_WALKS, NULL, 10000, on_written, &holders));
    for (unsigned i = 0; i < 4; i++) {
        struct dht_message nodes = {.type = DHT_NODES};
        assert_int_equal(holders, 0);
        nodes.transaction = transaction_of(&meeting, &meeting.peers[i]);
        rig_input(meeting.rig, &meeting.peers[i], &nodes);
        dht_tick(meeting.rig->dht, meeting.rig->now_ms);
    }
    assert_int_equal(holders, DHT_REPLICAS);
    assert_int_equal(asked(&meeting), 4);
    rig_free(meeting.rig);
}

/* An answer in parts that come in any order, and the next request behind the last of all of them. */
static void test_lookup__parts_and_pages(void **state)
{
    (void)state;
    struct meeting meeting;
    struct dht_get_options options = {.limit = 6, .first_is_enough = true, .order = DHT_BY_SCORE_LOW};
    struct dht_record records[6];
    struct buf bytes[6];
    struct dht_message request;
    meet(&meeting);
    struct rig *rig = meeting.rig;
    for (unsigned i = 0; i < 6; i++) {
        struct rig_peer member = rig_peer(50 + i);
        records[i] = rig_record(&member, &meeting.key, i, 1);
        bytes[i] = BUF(LIMIT_DHT_RECORD_BYTES);
        rig_brief(&records[i], &bytes[i]);
    }
    get(&meeting, &options);
    assert_true(rig_find(rig, DHT_FIND_VALUE, &meeting.peers[0], &request));
    assert_int_equal(request.limit, 6);
    assert_int_equal(request.parts, 6);
    for (unsigned part = 3; part-- > 0;) { /* of two records each, but the last part has none */
        struct dht_message values = {.type = DHT_VALUES,
                                     .transaction = request.transaction,
                                     .part = (uint8_t)part,
                                     .parts = 3,
                                     .more = true,
                                     .total = 6};
        for (unsigned i = 2 * part; i < 2 * part + 2 && i < 4; i++)
            values.records[values.record_count++] = rig_brief(&records[i], &bytes[i]);
        rig_input(rig, &meeting.peers[0], &values);
    }
    assert_true(rig_find(rig, DHT_FIND_VALUE, &meeting.peers[0], &request));
    assert_true(request.ranged);
    struct dht_rank last = dht_record_rank(&records[3], DHT_BY_SCORE_LOW, NULL);
    assert_int_equal(dht_rank_compare(&request.after, &last), 0);
    answer(&meeting, 0, records + 4, 2);
    assert_true(meeting.done);
    assert_int_equal(meeting.told, 6);
    for (unsigned i = 0; i < 6; i++)
        buf_release(&bytes[i]);
    rig_free(rig);
}

/* A holder that has an older record, or none, is given what was found; who has it is not, nor does it happen when the
 * first answer was enough. */
static void test_lookup__repairs_on_reading(void **state)
{
    (void)state;
    struct meeting meeting;
    struct rig_peer member = rig_peer(50);
    struct dht_message store = {0};
    meet(&meeting);
    struct dht_record old = rig_record(&member, &meeting.key, 1, 1), new = rig_record(&member, &meeting.key, 1, 2);
    get(&meeting, NULL);
    answer(&meeting, 0, &new, 1);
    answer(&meeting, 1, &old, 1);
    answer(&meeting, 2, NULL, 0);
    answer(&meeting, 3, &new, 1);
    assert_true(meeting.done && meeting.told == 1);
    assert_int_equal(count_of(meeting.rig, DHT_STORE), 2);
    for (unsigned i = 1; i < 3; i++) {
        struct dht_record given;
        assert_true(rig_find(meeting.rig, DHT_STORE, &meeting.peers[i], &store));
        assert_int_equal(store.record_count, 1);
        assert_true(dht_record_decode(store.records[0].at, store.records[0].len, &given));
        assert_int_equal(dht_record_compare(&given, &new), 0);
    }
    assert_int_equal(rig_stats(meeting.rig).repaired, 2);

    get(&meeting, NULL);
    for (unsigned i = 0; i < 4; i++)
        answer(&meeting, i, &new, 1);
    assert_true(meeting.done);
    assert_int_equal(count_of(meeting.rig, DHT_STORE), 0);
    rig_free(meeting.rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup__asks_only_where_a_node_can_be),
        cmocka_unit_test(test_lookup__drip_feeding_ends),
        cmocka_unit_test(test_lookup__sybils_of_one_block_do_not_fill_it),
        cmocka_unit_test(test_lookup__walks_are_disjoint),
        cmocka_unit_test(test_lookup__the_closest_four_are_enough),
        cmocka_unit_test(test_lookup__first_is_asked_alone),
        cmocka_unit_test(test_lookup__four_walks_of_one_each),
        cmocka_unit_test(test_lookup__parts_and_pages),
        cmocka_unit_test(test_lookup__repairs_on_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
