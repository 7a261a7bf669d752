#include "tests/unit/dht/rig.h"

struct outcome {
    unsigned calls;
    size_t accepted;
    bool full;
};

static void on_settled(struct dht *dht, struct dht_parcel *parcel, void *owner)
{
    struct outcome *outcome = owner;
    (void)dht;
    outcome->calls++;
    outcome->accepted = parcel->accepted;
    outcome->full = dht_push_is_full(parcel);
}

/* The i-th record of a key, by somebody else. */
static struct dht_record record_number(unsigned i)
{
    struct rig_peer member = rig_peer(5000 + i);
    struct id key = rig_key(1);
    return rig_record(&member, &key, i, 1);
}

/* So many records to one peer. */
static void push_to(struct rig *rig, unsigned records, const struct rig_peer *peer, struct outcome *outcome)
{
    *outcome = (struct outcome){0};
    for (unsigned i = 0; i < records; i++) {
        struct dht_record record = record_number(i);
        OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
        struct dht_span span = rig_span(&record, &bytes);
        assert_int_equal(dht_push_to(rig->dht, &peer->contact, &span, on_settled, outcome), 0);
    }
    dht_push_tick(rig->dht);
}

/* One record to a region of these peers. */
static struct dht_region *push_to_region(struct rig *rig, const struct rig_peer *peers, size_t count,
                                         struct outcome *outcome)
{
    struct dht_region *region = calloc(1, sizeof *region);
    struct dht_record record = record_number(0);
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(&record, &bytes);
    for (size_t i = 0; i < count; i++)
        region->nodes[region->node_count++] = peers[i].contact;
    *outcome = (struct outcome){0};
    assert_int_equal(dht_push_to_region(rig->dht, region, &record.key, &span, on_settled, outcome), 0);
    dht_push_tick(rig->dht);
    return region;
}

static void answer(struct rig *rig, const struct rig_peer *peer, enum dht_store_status status)
{
    struct dht_message request = {0}, stored = {.type = DHT_STORED, .wait_ms = 1000};
    assert_true(rig_find(rig, DHT_STORE, peer, &request));
    stored.record_count = request.record_count;
    memset(stored.status, (int)status, sizeof stored.status);
    rig_answer(rig, peer, DHT_STORE, stored);
    dht_push_tick(rig->dht);
}

static unsigned stores(const struct rig *rig)
{
    unsigned count = 0;
    for (size_t i = 0; i < rig->sent_count; i++)
        count += rig_message(rig, i).type == DHT_STORE;
    return count;
}

/* Whole messages leave at once, the rest when something was answered; a record alone leaves at once. */
static void test_push__fills_messages(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct outcome outcome;
    push_to(rig, 1, &peer, &outcome);
    assert_int_equal(stores(rig), 1);
    answer(rig, &peer, DHT_ACCEPTED);
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.accepted, 1);

    rig->sent_count = 0;
    push_to(rig, 12, &peer, &outcome);
    assert_int_equal(stores(rig), 2);
    assert_int_equal(rig_message(rig, 0).record_count, 5);
    answer(rig, &peer, DHT_ACCEPTED);
    assert_int_equal(stores(rig), 2); /* one of two is still under way */
    struct dht_message first = rig_message(rig, 0);
    rig_input(rig, &peer,
              &(struct dht_message){.type = DHT_STORED, .transaction = first.transaction, .record_count = 5});
    assert_int_equal(stores(rig), 3);
    assert_int_equal(rig_last(rig).record_count, 2);
    answer(rig, &peer, DHT_ACCEPTED);
    assert_int_equal(outcome.calls, 12);
    assert_int_equal(rig->dht->pushes.parcels, 0);
    assert_int_equal(rig->dht->pushes.lanes.count, 0);
    rig_free(rig);
}

/* The sixteen closest of the region are asked, and no others while they accept. It is settled with the twelfth. */
static void test_push__goes_to_the_closest_of_a_region(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[20];
    struct outcome outcome;
    struct id key = rig_key(1);
    for (unsigned i = 0; i < 20; i++)
        peers[i] = rig_peer(i);
    struct dht_region *region = push_to_region(rig, peers, 20, &outcome);
    assert_int_equal(stores(rig), 16);
    unsigned farther = 0;
    for (unsigned i = 0; i < 20; i++) {
        struct dht_message request;
        unsigned closer = 0;
        for (unsigned j = 0; j < 20; j++)
            closer += dht_closer(&key, &peers[j].contact.id, &peers[i].contact.id) < 0;
        assert_int_equal(rig_find(rig, DHT_STORE, &peers[i], &request), closer < 16);
        if (closer >= 16) {
            farther++;
            continue;
        }
        assert_int_equal(outcome.calls, i - farther >= DHT_ACKED);
        answer(rig, &peers[i], DHT_ACCEPTED);
    }
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.accepted, DHT_ACKED);
    assert_int_equal(rig->dht->pushes.parcels, 0);
    assert_int_equal(region->users, 0);
    free(region);
    rig_free(rig);
}

/* faults 35: one that is dead and one that is full are stepped over, and what comes next of the region is asked */
static void test_push__steps_over_the_dead_and_the_full(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[18];
    struct outcome outcome;
    for (unsigned i = 0; i < 18; i++)
        peers[i] = rig_peer(i);
    struct dht_region *region = push_to_region(rig, peers, 18, &outcome);
    unsigned at = 0;
    for (; !id_equal(&rig->sent[0].to.id, &peers[at].contact.id); at++)
        ;
    answer(rig, &peers[at], DHT_FULL);
    assert_int_equal(stores(rig), 17);
    assert_int_equal(rig_stats(rig).full, 1);
    rig->sent_count = 0;
    rig_run(rig, 10000); /* nobody else answers */
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.accepted, 0);
    assert_false(outcome.full);
    assert_true(stores(rig) >= 17); /* each once more, and the eighteenth */
    assert_int_equal(rig->dht->pushes.parcels, 0);
    free(region);
    rig_free(rig);
}

/* More than half of the holders have no room: that is the answer, and nobody farther away is asked. */
static void test_push__is_refused_by_the_majority(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[8];
    struct outcome outcome;
    for (unsigned i = 0; i < 8; i++)
        peers[i] = rig_peer(i);
    struct dht_region *region = push_to_region(rig, peers, 8, &outcome);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(outcome.calls, 0);
        answer(rig, &peers[i], DHT_FULL);
    }
    assert_int_equal(outcome.calls, 1);
    assert_true(outcome.full);
    for (unsigned i = 5; i < 8; i++)
        answer(rig, &peers[i], DHT_ACCEPTED);
    assert_int_equal(rig->dht->pushes.parcels, 0);
    free(region);
    rig_free(rig);
}

/* Told to slow down, it waits; told so again and again, it goes elsewhere */
static void test_push__slows_down_when_told(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct outcome outcome;
    push_to(rig, 1, &peer, &outcome);
    for (unsigned i = 0; i < 4; i++) {
        unsigned before = stores(rig);
        assert_int_equal(outcome.calls, 0);
        answer(rig, &peer, DHT_SLOW_DOWN);
        rig->now_ms += 500;
        dht_set_now(rig->dht, rig->now_ms);
        dht_push_tick(rig->dht);
        assert_int_equal(stores(rig), before);
        rig->now_ms += 1000;
        dht_set_now(rig->dht, rig->now_ms);
        dht_push_tick(rig->dht);
        assert_int_equal(stores(rig), before + (i < 3));
    }
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.accepted, 0);
    rig_free(rig);
}

/* A holder that has something newer teaches us, and has the record in all that matters. */
static void test_push__takes_in_what_is_newer(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1), member = rig_peer(5000);
    struct id key = rig_key(1);
    struct outcome outcome;
    push_to(rig, 1, &peer, &outcome);
    struct dht_record newer = rig_record(&member, &key, 1, 2), held;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_message stored = {
        .type = DHT_STORED, .record_count = 1, .status = {DHT_STALE}, .records = {rig_span(&newer, &bytes)}};
    rig_answer(rig, &peer, DHT_STORE, stored);
    assert_int_equal(dht_hold_get(rig->dht, &key, &member.contact.id, &held), 1);
    assert_int_equal(dht_record_compare(&held, &newer), 0);
    assert_int_equal(outcome.accepted, 1);
    rig_free(rig);
}

/* Freed with records under way and waiting: nothing is left behind, nobody is called. */
static void test_push__is_freed_under_way(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct outcome outcome;
    push_to(rig, 13, &peer, &outcome);
    rig_free(rig);
    assert_int_equal(outcome.calls, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_push__fills_messages),
        cmocka_unit_test(test_push__goes_to_the_closest_of_a_region),
        cmocka_unit_test(test_push__steps_over_the_dead_and_the_full),
        cmocka_unit_test(test_push__is_refused_by_the_majority),
        cmocka_unit_test(test_push__slows_down_when_told),
        cmocka_unit_test(test_push__takes_in_what_is_newer),
        cmocka_unit_test(test_push__is_freed_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
