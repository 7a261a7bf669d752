#include "tests/unit/dht/rig.h"

struct outcome {
    unsigned calls;
    size_t done;
};

static void on_pushed(struct dht *dht, struct dht_push *push, void *owner)
{
    struct outcome *outcome = owner;
    struct dht_contact contacts[DHT_PUSH_TARGETS];
    (void)dht;
    outcome->calls++;
    outcome->done = dht_push_done(push, contacts, DHT_PUSH_TARGETS);
}

/* So many records of one key, ready to be pushed to these peers. */
static void start(struct rig *rig, unsigned records, const struct rig_peer *peers, size_t peer_count,
                  struct outcome *outcome)
{
    struct id key = rig_key(1);
    struct dht_contact contacts[DHT_PUSH_TARGETS];
    OWNED(buf_release) struct buf list = BUF(1u << 20);
    for (unsigned i = 0; i < records; i++) {
        struct rig_peer member = rig_peer(500 + i);
        struct dht_record record = rig_record(&member, &key, i, 1);
        OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
        struct dht_span span = rig_span(&record, &bytes);
        wire_put_short(&list, span.at, span.len);
    }
    for (size_t i = 0; i < peer_count; i++)
        contacts[i] = peers[i].contact;
    *outcome = (struct outcome){0};
    assert_int_equal(dht_push_start(rig->dht, &key, &list, contacts, peer_count, on_pushed, outcome), 0);
    dht_push_tick(rig->dht);
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

static void test_push__goes_on_message_by_message(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct outcome outcome;
    start(rig, 14, &peer, 1, &outcome);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(outcome.calls, 0);
        assert_int_equal(rig->sent_count, i + 1);
        answer(rig, &peer, DHT_ACCEPTED);
    }
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.done, 1);
    rig_free(rig);
}

/* faults 35: one that is full and one that is dead do not count as done, and the push ends all the same */
static void test_push__full_and_dead_holders_are_passed_over(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[3] = {rig_peer(1), rig_peer(2), rig_peer(3)};
    struct outcome outcome;
    start(rig, 1, peers, 3, &outcome);
    answer(rig, &peers[0], DHT_FULL);
    answer(rig, &peers[1], DHT_ACCEPTED);
    assert_int_equal(rig_stats(rig).full, 1);
    rig_run(rig, 10000);
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.done, 1);
    rig_free(rig);
}

static void test_push__slows_down_when_told(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1);
    struct outcome outcome;
    start(rig, 1, &peer, 1, &outcome);
    answer(rig, &peer, DHT_SLOW_DOWN);
    size_t sent = rig->sent_count;
    rig->now_ms += 500;
    dht_set_now(rig->dht, rig->now_ms);
    dht_push_tick(rig->dht);
    assert_int_equal(rig->sent_count, sent);
    rig->now_ms += 1000;
    dht_set_now(rig->dht, rig->now_ms);
    dht_push_tick(rig->dht);
    assert_int_equal(rig->sent_count, sent + 1);
    answer(rig, &peer, DHT_ACCEPTED);
    assert_int_equal(outcome.done, 1);
    rig_free(rig);
}

/* A holder that has something newer teaches us. */
static void test_push__takes_in_what_is_newer(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1), member = rig_peer(500);
    struct id key = rig_key(1);
    struct outcome outcome;
    start(rig, 1, &peer, 1, &outcome);
    struct dht_record newer = rig_record(&member, &key, 1, 2), held;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_message stored = {
        .type = DHT_STORED, .record_count = 1, .status = {DHT_STALE}, .records = {rig_span(&newer, &bytes)}};
    rig_answer(rig, &peer, DHT_STORE, stored);
    assert_int_equal(dht_hold_get(rig->dht, &key, &member.contact.id, &held), 1);
    assert_int_equal(dht_record_compare(&held, &newer), 0);
    assert_int_equal(outcome.done, 1);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_push__goes_on_message_by_message),
        cmocka_unit_test(test_push__full_and_dead_holders_are_passed_over),
        cmocka_unit_test(test_push__slows_down_when_told),
        cmocka_unit_test(test_push__takes_in_what_is_newer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
