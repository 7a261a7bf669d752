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

    rig_meet(rig, &peers[0]); /* who was silent for so long may have left the table */
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

/* The only neighbour answers a question about `key` with these records; `deeper` is its flag. */
static void answer_key(struct rig *rig, const struct rig_peer *peer, const struct id *key,
                       const struct dht_record *records, size_t count, bool deeper)
{
    struct dht_message request = {0}, values = {.type = DHT_VALUES, .parts = 1, .deeper = deeper};
    struct buf bytes[DHT_ITEMS_MAX];
    for (size_t i = rig->sent_count; i-- > 0 && request.type == 0;) {
        struct dht_message message = rig_message(rig, i);
        if (message.type == DHT_FIND_VALUE && id_equal(&message.target, key))
            request = message;
    }
    assert_int_equal(request.type, DHT_FIND_VALUE);
    values.transaction = request.transaction;
    for (size_t i = 0; i < count; i++) {
        bytes[i] = BUF(LIMIT_DHT_RECORD_BYTES);
        values.records[values.record_count++] = rig_brief(&records[i], &bytes[i]);
    }
    rig_input(rig, peer, &values);
    for (size_t i = 0; i < count; i++)
        buf_release(&bytes[i]);
    dht_tick(rig->dht, rig->now_ms);
}

static size_t count_of(const struct rig *rig, uint8_t type, const struct id *to)
{
    size_t count = 0;
    for (size_t i = 0; i < rig->sent_count; i++)
        count += rig_message(rig, i).type == type && id_equal(&rig->sent[i].to.id, to);
    return count;
}

/* Without a lease at hand a member is asked at the address in its record; where it answers is told. Who is silent is
 * looked for at its neighbours, and dead if they know nothing either. */
static void test_get__members_are_asked_where_they_signed(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(0), alive = rig_peer(50), dead = rig_peer(51);
    struct id key = rig_key(1);
    struct result result;
    rig_meet(rig, &peer);
    struct dht_record records[2] = {rig_record(&alive, &key, 1, 1), rig_record(&dead, &key, 2, 1)};
    for (unsigned i = 0; i < 2; i++) {
        records[i].addr = i == 0 ? alive.contact.addr : dead.contact.addr;
        rig_sign(&records[i], i == 0 ? &alive.key : &dead.key);
    }
    ask(rig, &key, true, &result);
    answer_key(rig, &peer, &key, records, 2, false);
    assert_int_equal(count_of(rig, DHT_PING, &alive.contact.id), 1);
    assert_int_equal(count_of(rig, DHT_PING, &dead.contact.id), 1);
    assert_int_equal(count_of(rig, DHT_FIND_VALUE, &peer.contact.id), 1); /* no lease is looked for */
    rig_answer(rig, &alive, DHT_PING, (struct dht_message){.type = DHT_PONG});
    assert_int_equal(result.calls, 0);
    rig_run(rig, 1100);
    struct id lease_key = dht_lease_key(&dead.contact.id);
    answer_key(rig, &peer, &lease_key, NULL, 0, false);
    rig_run(rig, DHT_GET_TIMEOUT_MS);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 1);
    assert_true(id_equal(&result.found[0].contact.id, &alive.contact.id));
    assert_true(addr_equal(&result.found[0].contact.addr, &alive.contact.addr));
    rig_free(rig);
}

/* Who was heard within two minutes lives, and nobody is asked. */
static void test_get__who_was_heard_lives(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(0);
    struct id key = rig_key(1);
    struct result result;
    rig_meet(rig, &peer);
    struct dht_record record = rig_record(&peer, &key, 1, 1);
    ask(rig, &key, true, &result);
    answer_key(rig, &peer, &key, &record, 1, false);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 1);
    assert_true(addr_equal(&result.found[0].contact.addr, &peer.contact.addr));
    assert_int_equal(count_of(rig, DHT_PING, &peer.contact.id), 0);
    rig_free(rig);
}

/* No more members are asked whether they live than are wanted. */
static void test_get__asks_no_more_than_are_wanted(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(0), members[5];
    struct id key = rig_key(1);
    struct result result = {0};
    struct dht_record records[5];
    struct dht_get_options options = {.limit = 2, .want_lease = true};
    rig_meet(rig, &peer);
    for (unsigned i = 0; i < 5; i++) {
        members[i] = rig_peer(50 + i);
        records[i] = rig_record(&members[i], &key, 5 - i, 1);
        records[i].addr = members[i].contact.addr;
        rig_sign(&records[i], &members[i].key);
    }
    assert_int_equal(dht_get(rig->dht, rig->now_ms, &key, &options, on_get, &result, NULL, NULL), 0);
    answer_key(rig, &peer, &key, records, 5, false);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(count_of(rig, DHT_PING, &members[i].contact.id), i < 2);
    for (unsigned i = 0; i < 2; i++)
        rig_answer(rig, &members[i], DHT_PING, (struct dht_message){.type = DHT_PONG});
    dht_tick(rig->dht, rig->now_ms);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 2);
    rig_free(rig);
}

/* By hand: what META has cleared, or what expired with it, is not told. */
static void test_get__meta_clears(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(0), writer = rig_peer(50);
    struct id key = dht_key(DHT_SET, "s", 1);
    struct result result;
    rig_meet(rig, &peer);
    struct dht_record records[] = {rig_member(&writer, &key, "old", 9, 5000), rig_member(&writer, &key, "new", 1, 1000),
                                   rig_meta(&writer, &key, RIG_WALL_MS - 3000, RIG_WALL_MS + 60000, 2000)};
    ask(rig, &key, false, &result);
    answer_key(rig, &peer, &key, records, 3, false);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 1);
    assert_memory_equal(result.found[0].record.data, "new", 3);
    rig->now_ms += 61000;
    ask(rig, &key, false, &result);
    answer_key(rig, &peer, &key, records, 3, false);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 0);
    rig_free(rig);
}

/* Behind a rank only; and nearest first, by the places in the records and our own. */
static void test_get__cursor_and_distance(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(0);
    struct id key = rig_key(1);
    struct dht_record records[4];
    struct result result = {0};
    rig_meet(rig, &peer);
    for (unsigned i = 0; i < 4; i++) {
        struct rig_peer member = rig_peer(50 + i);
        records[i] = rig_record(&member, &key, i, 1);
        records[i].place = (struct dht_place){.x = {(int16_t)(100 * (4 - i)), 0, 0}, .height = i == 0 ? 0 : 10};
        if (i == 0)
            records[i].place = (struct dht_place){0}; /* not known */
        rig_sign(&records[i], &member.key);
    }
    struct dht_rank after = dht_record_rank(&records[2], DHT_BY_SCORE, NULL);
    struct dht_get_options options = {.after = &after};
    rig->sent_count = 0;
    assert_int_equal(dht_get(rig->dht, rig->now_ms, &key, &options, on_get, &result, NULL, NULL), 0);
    struct dht_message request = rig_last(rig);
    assert_true(request.ranged && dht_rank_compare(&request.after, &after) == 0);
    answer_key(rig, &peer, &key, records, 4, false); /* more than was asked for */
    assert_int_equal(result.count, 2);
    assert_true(result.found[0].record.score == 1 && result.found[1].record.score == 0);

    options = (struct dht_get_options){.order = DHT_BY_DISTANCE};
    assert_int_equal(dht_get(rig->dht, rig->now_ms, &key, &options, on_get, &result, NULL, NULL), 0);
    struct dht_place own = dht_place(rig->dht, NULL);
    answer_key(rig, &peer, &key, records, 4, false);
    assert_int_equal(result.count, 4);
    for (unsigned i = 1; i < 4; i++) {
        struct dht_rank before = dht_record_rank(&result.found[i - 1].record, DHT_BY_DISTANCE, &own),
                        rank = dht_record_rank(&result.found[i].record, DHT_BY_DISTANCE, &own);
        assert_true(dht_rank_compare(&before, &rank) < 0);
    }
    rig_free(rig);
}

/* A holder that has refused records is believed: the sixteen shards are read, and what is in them is of the set. */
static void test_get__shards_are_read_too(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(0), a = rig_peer(50), b = rig_peer(51);
    struct id key = rig_key(1), shard = dht_shard_key(&key, 1, &b.contact.id);
    struct result result;
    rig_meet(rig, &peer);
    struct dht_record in_key = rig_record(&a, &key, 1, 1), in_shard = rig_record(&b, &shard, 2, 1);
    ask(rig, &key, false, &result);
    answer_key(rig, &peer, &key, &in_key, 1, true);
    assert_int_equal(result.calls, 0);
    for (unsigned i = 0; i < DHT_SHARDS; i++) {
        struct id prefix = dht_shard_prefix(&(struct id){{0}}, 0, i), each = dht_shard_key(&key, 1, &prefix);
        bool there = id_equal(&each, &shard);
        answer_key(rig, &peer, &each, &in_shard, there, false);
        if (there)
            continue;
        answer_key(rig, &peer, &each, NULL, 0, false); /* one that finds nothing looks over four walks */
    }
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 2);
    assert_true(id_equal(&result.found[0].record.member, &b.contact.id));
    assert_true(id_equal(&result.found[0].record.key, &key));
    rig_free(rig);
}

/* Who clears a set clears its shards; their holders are not given its META for that with each read. */
static void test_get__shards_are_not_told_of_meta(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(0), writer = rig_peer(50);
    struct id key = rig_set_key(1);
    struct result result;
    rig_meet(rig, &peer);
    struct dht_record meta = rig_meta(&writer, &key, RIG_WALL_MS - 2000, 0, 1500);
    struct dht_record probe = rig_member(&writer, &key, "a", 1, 1000);
    struct id shard = dht_shard_key(&key, 1, &probe.member);
    struct dht_record live = rig_member(&writer, &shard, "a", 1, 1000);
    ask(rig, &key, false, &result);
    answer_key(rig, &peer, &key, &meta, 1, true);
    for (unsigned i = 0; i < DHT_SHARDS; i++) {
        struct id prefix = dht_shard_prefix(&(struct id){{0}}, 0, i), each = dht_shard_key(&key, 1, &prefix);
        bool there = id_equal(&each, &shard);
        answer_key(rig, &peer, &each, &live, there, false);
        if (!there)
            answer_key(rig, &peer, &each, NULL, 0, false);
    }
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 1);
    assert_int_equal(count_of(rig, DHT_STORE, &peer.contact.id), 0);
    rig_free(rig);
}

/* One holder of several that says so is not believed: who reads would ask sixteen times as many. */
static void test_get__one_liar_opens_no_shards(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[2] = {rig_peer(0), rig_peer(1)}, member = rig_peer(50);
    struct id key = rig_key(1);
    for (unsigned deeper = 1; deeper <= 2; deeper++) {
        struct result result = {0};
        OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
        struct dht_record record = rig_record(&member, &key, 1, 1);
        struct dht_message values = {.type = DHT_VALUES, .parts = 1, .total = 1, .record_count = 1};
        values.records[0] = rig_brief(&record, &bytes);
        for (unsigned i = 0; i < 2; i++)
            rig_meet(rig, &peers[i]);
        ask(rig, &key, false, &result);
        for (unsigned i = 0; i < 2; i++) {
            values.deeper = i < deeper;
            rig_answer(rig, &peers[i], DHT_FIND_VALUE, values);
        }
        dht_tick(rig->dht, rig->now_ms);
        assert_int_equal(result.calls, deeper == 1);
        rig_run(rig, DHT_GET_TIMEOUT_MS);
        assert_int_equal(result.calls, 1);
    }
    rig_free(rig);
}

/* By hand it is the writer who is revoked, and not the member, which is a name. */
static void test_get__what_revoked_nodes_wrote_is_not_told(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(0), good = rig_peer(50), revoked = rig_peer(51);
    struct id key = rig_set_key(1);
    struct result result;
    rig_meet(rig, &peer);
    assert_int_equal(dht_forget(rig->dht, &revoked.contact.id, NULL), 0);
    struct dht_record records[2] = {rig_member(&good, &key, "a", 1, 1000), rig_member(&revoked, &key, "b", 2, 1000)};
    ask(rig, &key, false, &result);
    answer_key(rig, &peer, &key, records, 2, false);
    assert_int_equal(result.calls, 1);
    assert_int_equal(result.count, 1);
    assert_true(id_equal(&result.found[0].record.member, &records[0].member));
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get__newest_of_several_wins),
        cmocka_unit_test(test_get__only_the_living_are_told),
        cmocka_unit_test(test_get__deadline_tells_what_is_there),
        cmocka_unit_test(test_get__alone),
        cmocka_unit_test(test_get__members_are_asked_where_they_signed),
        cmocka_unit_test(test_get__who_was_heard_lives),
        cmocka_unit_test(test_get__asks_no_more_than_are_wanted),
        cmocka_unit_test(test_get__meta_clears),
        cmocka_unit_test(test_get__cursor_and_distance),
        cmocka_unit_test(test_get__shards_are_read_too),
        cmocka_unit_test(test_get__shards_are_not_told_of_meta),
        cmocka_unit_test(test_get__one_liar_opens_no_shards),
        cmocka_unit_test(test_get__what_revoked_nodes_wrote_is_not_told),
        cmocka_unit_test(test_get__cancelled_says_nothing),
        cmocka_unit_test(test_get__requests_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
