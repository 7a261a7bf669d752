/* Those who watch keys here. */
#include "tests/unit/dht/rig.h"

#include "node/base/file.h"

static struct dht_message ask_to_watch(struct rig *rig, const struct rig_peer *peer, const struct id *key, bool stop)
{
    struct dht_message answer = {0};
    rig_input(rig, peer, &(struct dht_message){.type = DHT_WATCH, .target = *key, .stop = stop});
    assert_true(rig_find(rig, DHT_WATCHED, peer, &answer));
    return answer;
}

static struct dht_record store(struct rig *rig, const struct rig_peer *writer, const struct id *key, uint64_t counter)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_record record = rig_record(writer, key, 1, counter);
    rig_input(rig, writer,
              &(struct dht_message){.type = DHT_STORE, .records = {rig_span(&record, &bytes)}, .record_count = 1});
    return record;
}

/* The record at this place of a NOTIFY is this one. */
static void assert_tells(const struct dht_message *notify, size_t at, const struct dht_record *record)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(record, &bytes);
    struct dht_span brief = dht_record_brief(span.at, span.len);
    assert_true(at < notify->record_count);
    assert_int_equal(notify->records[at].len, brief.len);
    assert_memory_equal(notify->records[at].at, brief.at, brief.len);
}

static void acknowledge(struct rig *rig, const struct rig_peer *peer, bool known)
{
    rig_answer(rig, peer, DHT_NOTIFY, (struct dht_message){.type = DHT_NOTIFIED, .known = known});
}

static size_t count_sent(const struct rig *rig, uint8_t type)
{
    size_t count = 0;
    for (size_t i = 0; i < rig->sent_count; i++)
        count += rig_message(rig, i).type == type;
    return count;
}

/* In the very input that brought it: a watcher is told within milliseconds. */
static void test_watchers__are_told_at_once(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer watcher = rig_peer(1), writer = rig_peer(2);
    struct id key = rig_key(1);
    struct dht_message watched = ask_to_watch(rig, &watcher, &key, false);
    assert_int_equal(watched.lease_ms, DHT_WATCH_LEASE_MS);
    assert_int_equal(watched.total, 0);
    assert_int_equal(rig_stats(rig).watchers, 1);

    struct dht_record record = store(rig, &writer, &key, 1);
    struct dht_message notify = {0};
    assert_true(rig_find(rig, DHT_NOTIFY, &watcher, &notify));
    assert_int_equal(notify.sequence, watched.sequence + 1);
    assert_int_equal(notify.record_count, 1);
    assert_tells(&notify, 0, &record);
    assert_int_equal(rig_stats(rig).notified, 1);

    acknowledge(rig, &watcher, true);
    rig->sent_count = 0;
    store(rig, &writer, &key, 1); /* nothing new */
    struct id other = rig_key(2);
    store(rig, &writer, &other, 1); /* nobody's */
    assert_int_equal(count_sent(rig, DHT_NOTIFY), 0);
    watched = ask_to_watch(rig, &watcher, &key, false);
    assert_int_equal(watched.sequence, notify.sequence);
    assert_int_equal(watched.total, 1);
    rig_free(rig);
}

static void test_watchers__several_changes_in_one_message(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer watcher = rig_peer(1), writer = rig_peer(9);
    struct id key = rig_key(1);
    ask_to_watch(rig, &watcher, &key, false);
    struct dht_record records[5];
    struct buf bytes[5];
    struct dht_message message = {.type = DHT_STORE, .record_count = 5};
    for (unsigned i = 0; i < 5; i++) {
        struct rig_peer member = rig_peer(20 + i);
        records[i] = rig_record(&member, &key, i, 1);
        buf_init(&bytes[i], LIMIT_DHT_RECORD_BYTES);
        message.records[i] = rig_span(&records[i], &bytes[i]);
    }
    rig_input(rig, &writer, &message);
    assert_int_equal(count_sent(rig, DHT_NOTIFY), 1);
    struct dht_message notify = {0};
    rig_find(rig, DHT_NOTIFY, &watcher, &notify);
    assert_int_equal(notify.record_count, 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_tells(&notify, i, &records[i]);
        buf_release(&bytes[i]);
    }
    rig_free(rig);
}

/* Of two writes of one member within a tick only the later is told. */
static void test_watchers__the_last_of_a_tick(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer watcher = rig_peer(1), writer = rig_peer(2);
    struct id key = rig_key(1);
    ask_to_watch(rig, &watcher, &key, false);
    struct dht_record first = rig_record(&writer, &key, 1, 1), second = rig_record(&writer, &key, 1, 2);
    rig_hold(rig, &first);
    rig_hold(rig, &second);
    assert_true(dht_next_ms(rig->dht) <= rig->now_ms);
    dht_tick(rig->dht, rig->now_ms);
    struct dht_message notify = {0};
    assert_true(rig_find(rig, DHT_NOTIFY, &watcher, &notify));
    assert_int_equal(notify.record_count, 1);
    assert_tells(&notify, 0, &second);
    rig_free(rig);
}

/* What its writer brought itself is not checked on arrival, but before others are told (faults 13). */
static void test_watchers__are_not_told_of_forgeries(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer watcher = rig_peer(1), writer = rig_peer(2);
    struct id key = rig_key(1);
    struct dht_message watched = ask_to_watch(rig, &watcher, &key, false);
    struct dht_record record = rig_record(&writer, &key, 1, 1);
    record.signature[5] ^= 1;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    rig_input(rig, &writer,
              &(struct dht_message){.type = DHT_STORE, .records = {rig_span(&record, &bytes)}, .record_count = 1});
    assert_int_equal(count_sent(rig, DHT_NOTIFY), 0);
    assert_int_equal(ask_to_watch(rig, &watcher, &key, false).sequence, watched.sequence);
    rig_free(rig);
}

static void test_watchers__that_do_not_answer_are_dropped(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer watcher = rig_peer(1), writer = rig_peer(2);
    struct id key = rig_key(1);
    ask_to_watch(rig, &watcher, &key, false);
    store(rig, &writer, &key, 1);
    rig_run(rig, 20000);
    assert_true(count_sent(rig, DHT_NOTIFY) >= 2); /* it was repeated */
    assert_int_equal(rig_stats(rig).watchers, 0);
    rig->sent_count = 0;
    store(rig, &writer, &key, 2);
    assert_int_equal(count_sent(rig, DHT_NOTIFY), 0);
    rig_free(rig);
}

static void test_watchers__that_want_no_more_are_dropped(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer a = rig_peer(1), b = rig_peer(2), writer = rig_peer(3);
    struct id key = rig_key(1);
    ask_to_watch(rig, &a, &key, false);
    ask_to_watch(rig, &b, &key, false);
    store(rig, &writer, &key, 1);
    acknowledge(rig, &a, false);
    assert_int_equal(rig_stats(rig).watchers, 1);
    assert_int_equal(ask_to_watch(rig, &b, &key, true).lease_ms, 0);
    assert_int_equal(rig_stats(rig).watchers, 0);
    rig_free(rig);
}

/* A watcher that does not keep up has eight messages on the way; the rest waits, and goes together. */
static void test_watchers__have_a_window(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer watcher = rig_peer(1), writer = rig_peer(2);
    struct id key = rig_key(1);
    ask_to_watch(rig, &watcher, &key, false);
    for (uint64_t i = 1; i <= 12; i++)
        store(rig, &writer, &key, i);
    assert_int_equal(count_sent(rig, DHT_NOTIFY), DHT_NOTIFY_WINDOW);
    acknowledge(rig, &watcher, true);
    assert_int_equal(count_sent(rig, DHT_NOTIFY), DHT_NOTIFY_WINDOW + 1);
    struct dht_message notify = {0};
    rig_find(rig, DHT_NOTIFY, &watcher, &notify);
    assert_int_equal(notify.record_count, 4);
    rig_free(rig);
}

/* When more waits than is kept, the watcher is told so by a number without records. */
static void test_watchers__are_told_what_was_lost(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer watcher = rig_peer(1), writer = rig_peer(2);
    struct id key = rig_key(1);
    struct dht_message watched = ask_to_watch(rig, &watcher, &key, false);
    uint64_t stores = DHT_NOTIFY_WINDOW + DHT_CHANGES_KEPT + 1;
    for (uint64_t i = 1; i <= stores; i++) {
        if (i > DHT_NOTIFY_WINDOW)
            rig->sent_count = DHT_NOTIFY_WINDOW + 2;
        store(rig, &writer, &key, i);
    }
    acknowledge(rig, &watcher, true);
    struct dht_message notify = {0};
    rig_find(rig, DHT_NOTIFY, &watcher, &notify);
    assert_int_equal(notify.record_count, 0);
    assert_int_equal(notify.sequence, watched.sequence + stores + 1);
    rig_free(rig);
}

static void test_watchers__have_a_lease(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer a = rig_peer(1), b = rig_peer(2);
    struct id key = rig_key(1);
    ask_to_watch(rig, &a, &key, false);
    ask_to_watch(rig, &b, &key, false);
    rig_run(rig, DHT_WATCH_LEASE_MS / 2);
    ask_to_watch(rig, &a, &key, false);
    assert_int_equal(rig_stats(rig).watchers, 2);
    rig_run(rig, DHT_WATCH_LEASE_MS / 2 + 20000);
    assert_int_equal(rig_stats(rig).watchers, 1);
    rig_run(rig, DHT_WATCH_LEASE_MS);
    assert_int_equal(rig_stats(rig).watchers, 0);
    assert_null(dht_hold_of_key(rig->dht, &key)); /* nothing is left of it */
    rig_free(rig);
}

static void test_watchers__of_one_key_are_bounded(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1), other = rig_key(2);
    for (unsigned i = 0; i <= LIMIT_DHT_WATCHERS_PER_KEY; i++) {
        struct rig_peer peer = rig_peer(i + 1);
        uint32_t lease_ms = ask_to_watch(rig, &peer, &key, false).lease_ms;
        assert_int_equal(lease_ms, i < LIMIT_DHT_WATCHERS_PER_KEY ? DHT_WATCH_LEASE_MS : 0);
        rig->sent_count = 0;
    }
    struct rig_peer first = rig_peer(1), late = rig_peer(999);
    assert_int_equal(ask_to_watch(rig, &first, &key, false).lease_ms, DHT_WATCH_LEASE_MS);
    assert_int_equal(ask_to_watch(rig, &late, &other, false).lease_ms, DHT_WATCH_LEASE_MS);
    rig_free(rig);
}

/* faults 10: one node can take its share and no more, and others still have room. */
static void test_watchers__of_one_node_are_bounded(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer greedy = rig_peer(1), other = rig_peer(2);
    for (unsigned i = 0; i < LIMIT_DHT_WATCHERS / 4; i++) {
        struct id key = rig_key(i);
        rig->now_ms += 1;
        ask_to_watch(rig, &greedy, &key, false);
        rig->sent_count = 0;
    }
    assert_int_equal(rig_stats(rig).watchers, LIMIT_DHT_WATCHERS / 4);
    struct id key = rig_key(LIMIT_DHT_WATCHERS / 4);
    assert_int_equal(ask_to_watch(rig, &greedy, &key, false).lease_ms, 0);
    assert_int_equal(ask_to_watch(rig, &other, &key, false).lease_ms, DHT_WATCH_LEASE_MS);
    assert_int_equal(dht_forget(rig->dht, &greedy.contact.id, NULL), 0);
    assert_int_equal(rig_stats(rig).watchers, 1);
    rig_free(rig);
}

/* faults 25: who watches much and answers nothing takes half of what may be in flight, and not what others need. */
static void test_watchers__that_answer_nothing_keep_none_from_others(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer greedy = rig_peer(1), other = rig_peer(2), writer = rig_peer(3);
    struct id key = rig_key(0);
    struct dht_message notify = {0};
    ask_to_watch(rig, &other, &key, false);
    for (unsigned i = 1; i <= LIMIT_DHT_NOTIFIES; i++) {
        struct id watched = rig_key(i);
        rig->sent_count = 0;
        ask_to_watch(rig, &greedy, &watched, false);
        store(rig, &writer, &watched, 1);
    }
    assert_int_equal(rig->dht->notifying.in_flight, LIMIT_DHT_NOTIFIES / 2);
    rig->sent_count = 0;
    store(rig, &writer, &key, 1);
    assert_true(rig_find(rig, DHT_NOTIFY, &other, &notify));
    rig_free(rig);
}

static void test_watchers__document_has_the_numbers(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf text = BUF(1u << 20);
    assert_int_equal(file_read("../docs/protocol-dht.md", &text, NULL), 0);
    assert_int_equal(DHT_WATCH_LEASE_MS, 120 * 1000);
    assert_non_null(strstr(buf_str(&text), "a watch lasts 120 s"));
    assert_int_equal(LIMIT_DHT_WATCHERS_PER_KEY, 256);
    assert_int_equal(LIMIT_DHT_WATCHERS, 16384);
    assert_non_null(strstr(buf_str(&text), "at most 256 watchers on one holder, a holder 16,384, one\nnode a third"));
    assert_int_equal(DHT_NOTIFY_WINDOW, 8);
    assert_non_null(strstr(buf_str(&text), "up to eight NOTIFYs"));
    assert_int_equal(DHT_CHANGES_KEPT, 256);
    assert_non_null(strstr(buf_str(&text), "Up to 256 changes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_watchers__are_told_at_once),
        cmocka_unit_test(test_watchers__several_changes_in_one_message),
        cmocka_unit_test(test_watchers__the_last_of_a_tick),
        cmocka_unit_test(test_watchers__are_not_told_of_forgeries),
        cmocka_unit_test(test_watchers__that_do_not_answer_are_dropped),
        cmocka_unit_test(test_watchers__that_want_no_more_are_dropped),
        cmocka_unit_test(test_watchers__have_a_window),
        cmocka_unit_test(test_watchers__are_told_what_was_lost),
        cmocka_unit_test(test_watchers__have_a_lease),
        cmocka_unit_test(test_watchers__of_one_key_are_bounded),
        cmocka_unit_test(test_watchers__of_one_node_are_bounded),
        cmocka_unit_test(test_watchers__that_answer_nothing_keep_none_from_others),
        cmocka_unit_test(test_watchers__document_has_the_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
