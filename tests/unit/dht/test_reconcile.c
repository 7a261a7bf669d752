#include "tests/unit/dht/rig.h"

#define MINUTE_MS 60000u

/* ---- a few real nodes, whose datagrams take a millisecond ---- */

#define NODES_MAX 4

struct net {
    struct rig *rigs[NODES_MAX];
    size_t count;
    unsigned counts[32]; /* messages by type */
};

static void add_node(struct net *net, unsigned number)
{
    struct rig *rig = rig_new();
    uint8_t seed[32] = {(uint8_t)number, 77};
    crypto_sign_key_from_seed(seed, &rig->key);
    dht_free(rig->dht);
    if (net->count > 0)
        rig->now_ms = net->rigs[0]->now_ms;
    rig_start(rig);
    struct addr addr = {.family = 4, .port = 7421, .ip = {172, 16, (uint8_t)number, 1}};
    dht_set_address(rig->dht, rig->now_ms, &addr);
    net->rigs[net->count++] = rig;
}

static void deliver(struct net *net, struct rig *from)
{
    for (size_t i = 0; i < from->sent_count; i++) {
        struct rig_sent *sent = &from->sent[i];
        net->counts[sent->bytes[1]]++;
        for (size_t to = 0; to < net->count; to++)
            if (id_equal(&net->rigs[to]->dht->self.id, &sent->to.id))
                dht_input(net->rigs[to]->dht, net->rigs[to]->now_ms, &from->dht->self, sent->bytes, sent->len);
    }
    from->sent_count = 0;
}

static void run(struct net *net, uint64_t ms)
{
    for (uint64_t end_ms = net->rigs[0]->now_ms + ms; net->rigs[0]->now_ms < end_ms;) {
        uint64_t next_ms = end_ms;
        for (size_t i = 0; i < net->count; i++)
            next_ms = dht_min_ms(next_ms, dht_next_ms(net->rigs[i]->dht));
        if (next_ms <= net->rigs[0]->now_ms)
            next_ms = net->rigs[0]->now_ms + 1;
        for (size_t i = 0; i < net->count; i++) {
            net->rigs[i]->now_ms = next_ms;
            dht_tick(net->rigs[i]->dht, next_ms);
        }
        for (size_t i = 0; i < net->count; i++)
            deliver(net, net->rigs[i]);
    }
}

static void introduce(struct net *net, size_t a, size_t b)
{
    dht_add_contact(net->rigs[a]->dht, net->rigs[a]->now_ms, &net->rigs[b]->dht->self);
}

static struct net make_net(size_t count)
{
    struct net net = {0};
    for (unsigned i = 0; i < count; i++)
        add_node(&net, i);
    return net;
}

static void free_net(struct net *net)
{
    for (size_t i = 0; i < net->count; i++)
        rig_free(net->rigs[i]);
}

/* ---- what they hold ---- */

static enum dht_store_status put(struct rig *rig, unsigned key_number, unsigned member, uint64_t version)
{
    struct rig_peer peer = rig_peer(member);
    struct id key = rig_key(key_number);
    struct dht_record record = rig_record(&peer, &key, 1, version);
    return rig_hold(rig, &record);
}

static void digest_all(struct rig *rig, struct dht_digesting *ret_digesting)
{
    struct dht_range all = {0};
    dht_digesting_init(ret_digesting, &all);
    while (!dht_digesting_step(rig->dht, ret_digesting, 7))
        ;
}

static bool hold_the_same(struct rig *a, struct rig *b)
{
    struct dht_digesting of_a, of_b;
    digest_all(a, &of_a);
    digest_all(b, &of_b);
    return of_a.key_count == of_b.key_count && memcmp(of_a.digest, of_b.digest, sizeof of_a.digest) == 0;
}

static bool has(struct rig *rig, unsigned key_number, unsigned member, uint64_t version)
{
    struct rig_peer peer = rig_peer(member);
    struct id key = rig_key(key_number);
    struct dht_record record;
    return dht_hold_get(rig->dht, &key, &peer.contact.id, &record) == 1 && record.version.counter == version;
}

/* ---- tests ---- */

/* Whatever differs goes both ways: keys of one alone, members of one alone, versions, tombstones. And then nothing more
 * goes but a question and an answer now and then. */
static void test_reconcile__both_end_with_the_same(void **state)
{
    (void)state;
    struct net net = make_net(2);
    struct rig *a = net.rigs[0], *b = net.rigs[1];
    for (unsigned i = 0; i < 400; i++) {
        put(a, i, i % 7, 1);
        put(b, i, i % 7, 1);
    }
    for (unsigned i = 1000; i < 1200; i++)
        put(i % 3 ? a : b, i, i % 7, 1);
    for (unsigned i = 0; i < 60; i++)
        put(i % 3 ? a : b, i, i % 7, 2);
    for (unsigned i = 60; i < 90; i++)
        put(i % 3 ? a : b, i, 20, 1);
    struct rig_peer gone = rig_peer(3);
    struct id key = rig_key(3);
    struct dht_record tombstone = rig_record(&gone, &key, 1, 2);
    tombstone.tombstone = true;
    rig_sign(&tombstone, &gone.key);
    assert_int_equal(rig_hold(b, &tombstone), DHT_ACCEPTED);

    assert_false(hold_the_same(a, b));
    introduce(&net, 0, 1);
    run(&net, 2 * MINUTE_MS);
    assert_true(hold_the_same(a, b));
    assert_true(has(a, 1002, 1002 % 7, 1) && has(b, 1000, 1000 % 7, 1) && has(b, 59, 59 % 7, 2) && has(a, 60, 20, 1));
    struct dht_record record;
    assert_int_equal(dht_hold_get(a->dht, &key, &gone.contact.id, &record), 1);
    assert_true(record.tombstone);
    assert_true(rig_stats(a).repaired + rig_stats(b).repaired > 0);

    memset(net.counts, 0, sizeof net.counts);
    run(&net, 60 * MINUTE_MS);
    assert_in_range(net.counts[DHT_COMPARE], 2 * 4, 2 * 9);
    assert_int_equal(net.counts[DHT_STORE], 0);
    assert_int_equal(net.counts[DHT_FIND_VALUE], 0);
    free_net(&net);
}

/* Of one large set only what differs is sent; all of it is read, in as few messages as it takes. */
static void test_reconcile__mends_a_large_set(void **state)
{
    (void)state;
    struct net net = make_net(2);
    for (unsigned member = 0; member < 500; member++) {
        if (member % 50 != 7)
            put(net.rigs[0], 1, member, 1);
        if (member % 50 != 9)
            put(net.rigs[1], 1, member, 1);
    }
    introduce(&net, 0, 1);
    run(&net, 2 * MINUTE_MS);
    assert_true(hold_the_same(net.rigs[0], net.rigs[1]));
    assert_true(net.counts[DHT_STORE] < 30);       /* leases among them */
    assert_true(net.counts[DHT_FIND_VALUE] <= 12); /* 96 records each */
    free_net(&net);
}

/* faults 59: one that lost all it had is filled at once, by one of the others alone */
static void test_reconcile__fills_a_newcomer(void **state)
{
    (void)state;
    struct net net = make_net(3);
    for (unsigned i = 0; i < 300; i++)
        for (size_t node = 0; node < 3; node++)
            put(net.rigs[node], i, i % 7, 1);
    introduce(&net, 0, 1);
    introduce(&net, 0, 2);
    introduce(&net, 1, 2);
    run(&net, 5 * MINUTE_MS);
    memset(net.counts, 0, sizeof net.counts);
    add_node(&net, 3);
    introduce(&net, 3, 0);
    introduce(&net, 3, 1);
    introduce(&net, 3, 2);
    run(&net, 5000);
    assert_int_equal(rig_stats(net.rigs[3]).records >= 300, 1);
    assert_in_range(net.counts[DHT_STORE], 60, 100); /* five records each */
    run(&net, 30 * MINUTE_MS);
    assert_true(hold_the_same(net.rigs[3], net.rigs[0]));
    assert_in_range(net.counts[DHT_STORE], 60, 100);
    free_net(&net);
}

/* faults 13: what its writer handed over with a false signature goes no further, and goes. Nobody is the poorer. */
static void test_reconcile__passes_on_only_what_is_signed(void **state)
{
    (void)state;
    struct net net = make_net(2);
    struct rig_peer liar = rig_peer(5);
    struct id key = rig_key(1);
    struct dht_record forged = rig_record(&liar, &key, 1, 1), record;
    forged.signature[5] ^= 1;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(&forged, &bytes);
    assert_int_equal(dht_hold_put(net.rigs[0]->dht, span.at, span.len, true, NULL), DHT_ACCEPTED);
    put(net.rigs[0], 1, 6, 1);
    introduce(&net, 0, 1);
    run(&net, 2 * MINUTE_MS);
    assert_int_equal(dht_hold_get(net.rigs[1]->dht, &key, &liar.contact.id, &record), 0);
    assert_true(has(net.rigs[1], 1, 6, 1));
    run(&net, 20 * MINUTE_MS);
    assert_true(hold_the_same(net.rigs[0], net.rigs[1]));
    free_net(&net);
}

/* What has lapsed here and there at different times makes no difference. */
static void test_reconcile__leaves_out_what_has_lapsed(void **state)
{
    (void)state;
    struct net net = make_net(2);
    struct rig_peer member = rig_peer(5);
    struct id key = rig_key(1);
    put(net.rigs[0], 1, 6, 1);
    put(net.rigs[1], 1, 6, 1);
    struct dht_record record = rig_record(&member, &key, 1, 1);
    record.expiry_wall_ms = RIG_WALL_MS + 2 * MINUTE_MS;
    rig_sign(&record, &member.key);
    assert_int_equal(rig_hold(net.rigs[0], &record), DHT_ACCEPTED);
    net.rigs[0]->now_ms = net.rigs[1]->now_ms = 1000 + 3 * MINUTE_MS;
    dht_set_now(net.rigs[0]->dht, net.rigs[0]->now_ms);
    dht_set_now(net.rigs[1]->dht, net.rigs[1]->now_ms);
    assert_true(hold_the_same(net.rigs[0], net.rigs[1]));
    free_net(&net);
}

/* ---- ranges ---- */

static void test_reconcile__ranges_split_into_sixteenths(void **state)
{
    (void)state;
    struct id key = rig_key(3);
    for (unsigned bits = 0; bits <= 252; bits += bits < 12 ? 1 : 24) {
        struct dht_range range = {dht_range_first(&key, bits), bits};
        unsigned in = 0;
        assert_true(dht_range_has(&range, &key));
        assert_true(id_compare(&range.first, &key) <= 0);
        for (unsigned branch = 0; branch < DHT_BRANCHES; branch++) {
            struct dht_range part = dht_range_branch(&range, branch), again;
            again = (struct dht_range){dht_range_first(&part.first, part.bits), part.bits};
            assert_true(id_equal(&part.first, &again.first));
            assert_true(dht_range_has(&range, &part.first));
            in += dht_range_has(&part, &key);
        }
        assert_int_equal(in, 1);
    }
}

/* The digest does not depend on how it was made, and depends on each record. */
static void test_reconcile__digests_tell_of_each_record(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct dht_digesting before, after;
    for (unsigned i = 0; i < 50; i++)
        put(rig, i, i, 1);
    digest_all(rig, &before);
    assert_int_equal(before.key_count, 50);
    struct dht_range all = {0};
    dht_digesting_init(&after, &all);
    assert_true(dht_digesting_step(rig->dht, &after, 1000));
    assert_memory_equal(before.branches, after.branches, sizeof before.branches);
    put(rig, 30, 30, 2);
    digest_all(rig, &after);
    unsigned differ = 0;
    for (unsigned i = 0; i < DHT_BRANCHES; i++)
        differ += memcmp(before.branches[i], after.branches[i], DHT_DIGEST_BYTES) != 0;
    assert_int_equal(differ, 1);
    assert_memory_not_equal(before.digest, after.digest, sizeof before.digest);
    rig_free(rig);
}

/* ---- hostile partners ---- */

/* One node, and a peer that the test plays; until the node compares with it. */
static struct rig *asked_by_it(struct rig_peer *peer, struct dht_message *ret_request)
{
    struct rig *rig = rig_new();
    *peer = rig_peer(1);
    for (unsigned i = 0; i < 100; i++)
        put(rig, i, 9, 1);
    rig_meet(rig, peer);
    size_t at = rig->sent_count;
    for (unsigned i = 0; i < 600 && !rig_find(rig, DHT_COMPARE, peer, ret_request); i++) {
        rig_run(rig, 100);
        for (; at < rig->sent_count; at++) {
            struct dht_message request = rig_message(rig, at);
            struct dht_message answer = {.type = (uint8_t)(request.type + 1), .transaction = request.transaction};
            if (request.type == DHT_STORE)
                answer.record_count = request.record_count;
            if (request.type < DHT_LEASE)
                rig_input(rig, peer, &answer);
        }
    }
    assert_true(rig_find(rig, DHT_COMPARE, peer, ret_request));
    return rig;
}

/* Keys outside of the range, or not in order: no more is said to it. Branches that all differ, for ever: it ends. */
static void test_reconcile__ends_with_a_liar(void **state)
{
    (void)state;
    struct rig_peer peer;
    struct dht_message request;
    struct rig *rig = asked_by_it(&peer, &request);
    struct dht_message answer = {
        .type = DHT_COMPARED, .transaction = request.transaction, .compared = DHT_BY_KEY, .key_count = 2};
    answer.keys[0].key = rig_key(5);
    answer.keys[1].key = rig_key(5);
    rig->sent_count = 0;
    rig_input(rig, &peer, &answer);
    dht_tick(rig->dht, rig->now_ms);
    assert_null(rig->dht->reconciling.repair);
    assert_false(rig_find(rig, DHT_FIND_VALUE, &peer, &request));
    rig_free(rig);

    rig = asked_by_it(&peer, &request);
    unsigned compared = 0;
    for (; rig->dht->reconciling.repair && compared < 5000; compared++) {
        answer = (struct dht_message){.type = DHT_COMPARED, .compared = DHT_BY_BRANCH};
        memset(answer.branches, (int)(compared + 1), sizeof answer.branches);
        assert_true(rig_find(rig, DHT_COMPARE, &peer, &request));
        answer.transaction = request.transaction;
        rig->sent_count = 0;
        rig_input(rig, &peer, &answer);
        rig_run(rig, 100);
    }
    assert_in_range(compared, 64, 4999);
    rig_free(rig);
}

static int compare_members(const void *a, const void *b)
{
    const struct dht_record *x = a, *y = b;
    return id_compare(&x->member, &y->member);
}

/* Forged records, more and more of them: after a few dozen checks in vain it is no partner. */
static void test_reconcile__reads_no_end_of_forgeries(void **state)
{
    (void)state;
    enum { FORGED = 240 };
    struct rig_peer peer;
    struct dht_message request;
    struct rig *rig = asked_by_it(&peer, &request);
    struct id key = rig_set_key(0);
    for (unsigned i = 1; key.b[0] > 0; i++) /* before all that is held */
        key = rig_set_key(i);
    struct dht_message answer = {.type = DHT_COMPARED, .compared = DHT_BY_KEY, .key_count = 1, .keys = {{.key = key}}};
    OWNED(owned_free) struct dht_record *forged = calloc(FORGED, sizeof *forged);
    for (unsigned i = 0; i < FORGED; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        forged[i] = rig_member(&peer, &key, name, 1, 1000);
        forged[i].signature[1] ^= 1;
    }
    qsort(forged, FORGED, sizeof *forged, compare_members);
    memset(answer.keys[0].digest, 9, sizeof answer.keys[0].digest);
    rig_answer(rig, &peer, DHT_COMPARE, answer);
    dht_tick(rig->dht, rig->now_ms);
    unsigned told = 0;
    while (told < FORGED && rig_find(rig, DHT_FIND_VALUE, &peer, &request)) {
        struct buf bytes[4];
        struct dht_message values = {
            .type = DHT_VALUES, .transaction = request.transaction, .parts = 1, .more = true, .record_count = 4};
        for (unsigned i = 0; i < 4; i++) {
            bytes[i] = BUF(LIMIT_DHT_RECORD_BYTES);
            values.records[i] = rig_brief(&forged[told++], &bytes[i]);
        }
        rig->sent_count = 0;
        rig_input(rig, &peer, &values);
        dht_tick(rig->dht, rig->now_ms);
        for (unsigned i = 0; i < 4; i++)
            buf_release(&bytes[i]);
    }
    assert_in_range(told, 60, 100);
    assert_null(rig->dht->reconciling.repair);
    rig_free(rig);
}

/* What is not ours to say is refused; so is what cannot be. */
static void test_reconcile__answers_for_its_own_range(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(0), far = rig_peer(0);
    for (unsigned i = 0; i < 200; i++) {
        struct rig_peer other = rig_peer(i);
        rig->sent_count = 0;
        rig_meet(rig, &other);
        unsigned shared = dht_shared_bits(&other.contact.id, &rig->dht->self.id);
        if (shared > dht_shared_bits(&peer.contact.id, &rig->dht->self.id))
            peer = other;
        if (shared == 0)
            far = other;
    }
    assert_true(dht_common_bits(rig->dht) >= 2);
    struct dht_message ask = {.type = DHT_COMPARE, .transaction = 1, .target = rig->dht->self.id, .prefix_bits = 6};
    rig_input(rig, &peer, &ask);
    assert_int_equal(rig_last(rig).type, DHT_COMPARED);
    ask.target = far.contact.id;
    rig_input(rig, &peer, &ask);
    assert_int_equal(rig_last(rig).type, DHT_REFUSED);
    ask.target = rig->dht->self.id;
    ask.prefix_bits = 253;
    rig_input(rig, &peer, &ask);
    assert_int_equal(rig_last(rig).type, DHT_REFUSED);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reconcile__both_end_with_the_same),
        cmocka_unit_test(test_reconcile__mends_a_large_set),
        cmocka_unit_test(test_reconcile__fills_a_newcomer),
        cmocka_unit_test(test_reconcile__passes_on_only_what_is_signed),
        cmocka_unit_test(test_reconcile__leaves_out_what_has_lapsed),
        cmocka_unit_test(test_reconcile__ranges_split_into_sixteenths),
        cmocka_unit_test(test_reconcile__digests_tell_of_each_record),
        cmocka_unit_test(test_reconcile__ends_with_a_liar),
        cmocka_unit_test(test_reconcile__reads_no_end_of_forgeries),
        cmocka_unit_test(test_reconcile__answers_for_its_own_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
