#include "tests/unit/dht/rig.h"

struct result {
    unsigned calls;
    size_t count;
    struct dht_found found[20];
};

static void on_get(void *ctx, const struct dht_found *found, size_t count)
{
    struct result *result = ctx;
    result->calls++;
    result->count = count;
    memcpy(result->found, found, count * sizeof *found);
}

static struct result *ask(struct rig *rig, const struct id *key, bool want_lease, struct result *result)
{
    struct dht_get_options options = {.want_lease = want_lease};
    *result = (struct result){0};
    rig->sent_count = 0;
    assert_int_equal(dht_get(rig->dht, rig->now_ms, key, &options, on_get, result, NULL, NULL), 0);
    return result;
}

/* Every peer answers what it was asked so far, with its record if the key is the one asked for. */
static void answer_all(struct rig *rig, const struct rig_peer *peers, size_t peer_count,
                       const struct dht_record *const *records)
{
    for (size_t i = 0, end = rig->sent_count; i < end; i++) {
        struct dht_message request = rig_message(rig, i);
        for (size_t p = 0; p < peer_count && request.type == DHT_FIND_VALUE; p++) {
            OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
            struct dht_message values = {.type = DHT_VALUES, .transaction = request.transaction, .parts = 1};
            if (records[p] && id_equal(&records[p]->key, &request.target))
                values.records[values.record_count++] = rig_brief(records[p], &bytes);
            if (id_equal(&rig->sent[i].to.id, &peers[p].contact.id))
                rig_input(rig, &peers[p], &values);
        }
    }
    dht_tick(rig->dht, rig->now_ms);
}

/* faults 17: the first answer does not end a read: all of the closest four are heard, and the newest record wins */
static void test_get__newest_of_several_wins(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[4], member = rig_peer(50);
    struct id key = rig_key(1);
    struct result result;
    for (unsigned i = 0; i < 4; i++) {
        peers[i] = rig_peer(i);
        rig_meet(rig, &peers[i]);
    }
    struct dht_record old = rig_record(&member, &key, 1, 1), new = rig_record(&member, &key, 2, 2), forged = new;
    forged.version.counter = 3; /* by a liar */
    const struct dht_record *records[] = {&old, &new, &forged, NULL};
    ask(rig, &key, false, &result);
    assert_int_equal(rig->sent_count, 4);
    answer_all(rig, peers, 4, records);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 1);
    assert_int_equal(dht_record_compare(&result.found[0].record, &new), 0);

    struct dht_record tombstone = new;
    tombstone.tombstone = true;
    rig_sign(&tombstone, &member.key);
    const struct dht_record *hidden[] = {&old, &new, &tombstone, NULL};
    ask(rig, &key, false, &result);
    answer_all(rig, peers, 4, hidden);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 0);
    rig_free(rig);
}

/* Members without a lease are dropped, after a search of their own; the others' addresses are told. */
static void test_get__only_the_living_are_told(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[2], alive = rig_peer(50), dead = rig_peer(51);
    struct id key = rig_key(1);
    struct result result;
    for (unsigned i = 0; i < 2; i++) {
        peers[i] = rig_peer(i);
        rig_meet(rig, &peers[i]);
    }
    struct dht_record one = rig_record(&alive, &key, 1, 1), two = rig_record(&dead, &key, 2, 1);
    struct dht_record lease = rig_lease(&alive, 1, RIG_WALL_MS + DHT_LEASE_TTL_MS);
    const struct dht_record *sets[] = {&one, &two}, *leases[] = {&lease, NULL};
    ask(rig, &key, true, &result);
    answer_all(rig, peers, 2, sets);
    assert_int_equal(result.calls, 0);
    for (unsigned round = 0; round < 4 && result.calls == 0; round++)
        answer_all(rig, peers, 2, leases);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 1);
    assert_true(id_equal(&result.found[0].contact.id, &alive.contact.id));
    assert_true(addr_equal(&result.found[0].contact.addr, &alive.contact.addr));

    ask(rig, &key, true, &result); /* now from the cache, the absent one too */
    answer_all(rig, peers, 2, sets);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 1);
    rig_free(rig);
}

static void test_get__deadline_tells_what_is_there(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[4], member = rig_peer(50);
    struct id key = rig_key(1);
    struct result result;
    for (unsigned i = 0; i < 4; i++) {
        peers[i] = rig_peer(i);
        rig_meet(rig, &peers[i]);
    }
    struct dht_record record = rig_record(&member, &key, 1, 1);
    const struct dht_record *records[] = {&record};
    ask(rig, &key, true, &result);
    answer_all(rig, peers, 1, records); /* one of them; the others are silent */
    rig_run(rig, DHT_GET_TIMEOUT_MS);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 0); /* not known to be alive */

    ask(rig, &key, false, &result);
    answer_all(rig, peers, 1, records);
    rig_run(rig, DHT_GET_TIMEOUT_MS);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 1);
    rig_free(rig);
}

/* Alone, a node still knows what it published itself; the answer comes from a tick, never from within dht_get. */
static void test_get__alone(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1), other = rig_key(2);
    struct result result;
    assert_int_equal(
        dht_publish(rig->dht, rig->now_ms, &key, DHT_OBJECT, &(struct dht_value){.score = 4, .size = 9}, NULL), 0);
    ask(rig, &key, true, &result);
    assert_int_equal(result.calls, 0);
    rig_run(rig, 1);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 1);
    assert_int_equal(result.found[0].record.size, 9);
    ask(rig, &other, true, &result);
    rig_run(rig, 1);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 0);
    rig_free(rig);
}

static void test_get__cancelled_says_nothing(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1);
    struct result result = {0};
    uint64_t request;
    assert_int_equal(dht_get(rig->dht, rig->now_ms, &key, NULL, on_get, &result, &request, NULL), 0);
    dht_cancel(rig->dht, request);
    dht_cancel(rig->dht, request);
    rig_run(rig, 10000);
    assert_int_equal(result.calls, 0);
    rig_free(rig);
}

/* faults 27 */
static void test_get__requests_are_bounded(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1);
    struct result result = {0};
    struct err err = {0};
    for (unsigned i = 0; i < LIMIT_DHT_REQUESTS; i++)
        assert_int_equal(dht_get(rig->dht, rig->now_ms, &key, NULL, on_get, &result, NULL, &err), 0);
    assert_int_equal(dht_get(rig->dht, rig->now_ms, &key, NULL, on_get, &result, NULL, &err), ERR_LIMIT);
    struct dht_get_options greedy = {.limit = LIMIT_DHT_GET_RECORDS + 1};
    assert_int_equal(dht_get(rig->dht, rig->now_ms, &key, &greedy, on_get, &result, NULL, &err), ERR_LIMIT);
    rig_run(rig, 1);
    assert_int_equal(result.calls, LIMIT_DHT_REQUESTS);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get__newest_of_several_wins),       cmocka_unit_test(test_get__only_the_living_are_told),
        cmocka_unit_test(test_get__deadline_tells_what_is_there), cmocka_unit_test(test_get__alone),
        cmocka_unit_test(test_get__cancelled_says_nothing),       cmocka_unit_test(test_get__requests_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
