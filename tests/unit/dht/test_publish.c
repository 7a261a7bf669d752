#include <math.h>

#include "tests/unit/dht/rig.h"

#define DAY_MS 86400000u

/* ---- a mesh of a few peers that answer everything ---- */

#define PEERS 3

struct others {
    struct rig_peer peers[PEERS];
    enum dht_store_status status; /* what they say to a STORE, */
    struct id full_key;           /* but for records of this key, of which they have enough */
    bool silent;
    bool have; /* they tell the record that they have `told` of */
    struct dht_record told;
    unsigned stores; /* records given to them */
    unsigned reads;
    struct dht_record last; /* of them */
};

static struct dht_message answer_to(struct others *others, const struct dht_message *request, struct buf *bytes)
{
    struct dht_message answer = {.type = (uint8_t)(request->type + 1), .transaction = request->transaction, .parts = 1};
    if (request->type == DHT_STORE)
        answer.record_count = request->record_count;
    for (size_t i = 0; i < answer.record_count; i++) {
        struct dht_record record;
        assert_true(dht_record_decode(request->records[i].at, request->records[i].len, &record));
        answer.status[i] = (uint8_t)(id_equal(&record.key, &others->full_key) ? DHT_FULL : others->status);
        others->stores += record.kind != DHT_NODE;
        if (record.kind != DHT_NODE)
            others->last = record;
    }
    others->reads += request->type == DHT_FIND_VALUE;
    if (request->type == DHT_FIND_VALUE && others->have) {
        struct dht_span span = rig_span(&others->told, bytes);
        answer.records[answer.record_count++] = dht_record_brief(span.at, span.len);
    }
    return answer;
}

/* Let them answer for so long. */
static void serve(struct rig *rig, struct others *others, uint64_t ms)
{
    uint64_t end_ms = rig->now_ms + ms;
    while (rig->now_ms < end_ms) {
        uint64_t next_ms = dht_next_ms(rig->dht);
        rig->sent_count = 0;
        rig->now_ms = next_ms < rig->now_ms ? rig->now_ms : next_ms < end_ms ? next_ms : end_ms;
        dht_tick(rig->dht, rig->now_ms);
        for (size_t at = 0; at < rig->sent_count; at++) {
            struct dht_message request = rig_message(rig, at);
            OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
            if (request.type % 2 == 0 || request.type == DHT_LEASE || others->silent)
                continue;
            struct dht_message answer = answer_to(others, &request, &bytes);
            for (unsigned i = 0; i < PEERS; i++)
                if (id_equal(&rig->sent[at].to.id, &others->peers[i].contact.id))
                    rig_input(rig, &others->peers[i], &answer);
        }
    }
}

/* Joined, and the lease is out. */
static void join(struct rig *rig, struct others *others)
{
    *others = (struct others){0};
    for (unsigned i = 0; i < PEERS; i++) {
        others->peers[i] = rig_peer(1 + i);
        rig_meet(rig, &others->peers[i]);
    }
    serve(rig, others, 30000);
    others->stores = others->reads = 0;
}

/* ---- what is said ---- */

struct told {
    unsigned calls;
    size_t accepted;
};

static void on_done(void *ctx, const struct id *key, size_t accepted)
{
    struct told *told = ctx;
    (void)key;
    told->calls++;
    told->accepted = accepted;
}

static int publish(struct rig *rig, unsigned number, double score, uint64_t epoch, uint64_t counter)
{
    struct id key = rig_key(number);
    struct dht_value value = {.score = score, .version = {epoch, counter}};
    return dht_publish(rig->dht, rig->now_ms, &key, DHT_OBJECT, &value, NULL);
}

static struct id set_key(void)
{
    return dht_key(DHT_SET, "set", 3);
}

static int write_named(struct rig *rig, const char *name, double score, struct dht_version version, struct told *told)
{
    struct id key = set_key();
    struct dht_member member = {.name = name,
                                .name_len = strlen(name),
                                .score = score,
                                .version = version,
                                .done = told ? on_done : NULL,
                                .done_ctx = told};
    return dht_write(rig->dht, rig->now_ms, &key, DHT_SET, &member, NULL);
}

static bool own(struct rig *rig, unsigned number, struct dht_record *ret_record)
{
    struct id key = rig_key(number);
    return dht_hold_get(rig->dht, &key, &rig->dht->self.id, ret_record);
}

static bool named(struct rig *rig, const char *name, struct dht_record *ret_record)
{
    struct id key = set_key(), member;
    crypto_id_of(name, strlen(name), &member);
    return dht_hold_get(rig->dht, &key, &member, ret_record);
}

/* ---- tests ---- */

/* faults 19; and what is not for this call */
static void test_publish__refuses_what_makes_no_record(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1);
    struct dht_value value = {.data = "", .data_len = DHT_DATA_MAX_BYTES + 1};
    assert_int_equal(publish(rig, 1, NAN, 0, 0), ERR_INVALID);
    assert_int_equal(dht_publish(rig->dht, rig->now_ms, &key, DHT_OBJECT, &value, NULL), ERR_INVALID);
    value.data_len = 0;
    assert_int_equal(dht_publish(rig->dht, rig->now_ms, &key, DHT_NODE, &value, NULL), ERR_INVALID);
    assert_int_equal(dht_publish(rig->dht, rig->now_ms, &key, DHT_SET, &value, NULL), ERR_INVALID);
    struct dht_member member = {.name = "", .name_len = 0, .version = {1, 0}};
    assert_int_equal(dht_write(rig->dht, rig->now_ms, &key, DHT_SET, &member, NULL), ERR_INVALID);
    member = (struct dht_member){.name = "a", .name_len = 1, .version = {1, 0}};
    assert_int_equal(dht_write(rig->dht, rig->now_ms, &key, DHT_OBJECT, &member, NULL), ERR_INVALID);
    member.meta = true;
    assert_int_equal(dht_write(rig->dht, rig->now_ms, &key, DHT_SET, &member, NULL), ERR_INVALID);
    assert_int_equal(rig_stats(rig).published, 0);
    rig_free(rig);
}

/* Who is alone reads what it says itself, and is told that nobody else has it. */
static void test_publish__alone_it_is_held_here(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct told told = {0};
    struct dht_record record;
    assert_int_equal(publish(rig, 1, 3, 0, 0), 0);
    assert_int_equal(write_named(rig, "a", 1, dht_stamp(rig->dht, rig->now_ms), &told), 0);
    assert_int_equal(told.calls, 0); /* never from within the call */
    rig_run(rig, 1);
    assert_true(own(rig, 1, &record) && record.score == 3);
    assert_true(named(rig, "a", &record) && record.score == 1);
    assert_int_equal(told.calls, 1);
    assert_int_equal(told.accepted, 0);
    rig_run(rig, 3600000);
    assert_int_equal(told.calls, 1);

    struct others others; /* and when others come, they are given it */
    join(rig, &others);
    serve(rig, &others, 1000);
    rig_free(rig);
}

static void test_publish__versions_only_rise(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1);
    struct dht_record record;
    for (unsigned signed_meanwhile = 0; signed_meanwhile < 2; signed_meanwhile++) {
        uint64_t epoch = signed_meanwhile * 10;
        assert_int_equal(publish(rig, 1, 1, epoch + 3, 5), 0);
        rig_run(rig, signed_meanwhile * 10);
        assert_int_equal(publish(rig, 1, 1, epoch + 3, 5), 0); /* the same again */
        assert_int_equal(publish(rig, 1, 2, epoch + 3, 5), ERR_CONFLICT);
        assert_int_equal(publish(rig, 1, 2, epoch + 2, 9), ERR_CONFLICT);
        assert_int_equal(publish(rig, 1, 2, epoch + 3, 6), 0);
        rig_run(rig, signed_meanwhile * 10);
        assert_int_equal(dht_withdraw(rig->dht, rig->now_ms, &key, NULL), 0);
        assert_int_equal(publish(rig, 1, 2, epoch + 3, 6), ERR_CONFLICT);
        rig_run(rig, signed_meanwhile * 10);
        assert_int_equal(publish(rig, 1, 2, epoch + 3, 6), ERR_CONFLICT);
        assert_int_equal(publish(rig, 1, 2, epoch + 4, 0), 0);
    }
    rig_run(rig, 1);
    assert_true(own(rig, 1, &record) && !record.tombstone && record.version.epoch == 14);
    rig_free(rig);
}

/* faults 60: counted versions rise over a restart and over steps of the wall clock of a day, back and forth. So do
 * stamps, but for those that everybody would refuse for a day, as they are from the future */
static void test_publish__stamps_never_go_back(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    static const int64_t steps_ms[] = {0, 500, DAY_MS, -(int64_t)DAY_MS, 0, -(int64_t)RIG_WALL_MS + 1, 0};
    struct dht_version last = {0};
    struct dht_record record;
    uint64_t counter = 0;
    dht_set_wall(rig->dht, rig->now_ms, RIG_WALL_MS + rig->now_ms);
    last = dht_stamp(rig->dht, rig->now_ms);
    rig_restart(rig);
    struct dht_version stamp = dht_stamp(rig->dht, rig->now_ms);
    assert_true(dht_version_compare(&stamp, &last) > 0);
    assert_in_range(stamp.epoch, RIG_WALL_MS + rig->now_ms, RIG_WALL_MS + rig->now_ms + DHT_SKEW_MS);
    for (unsigned i = 0; i < 2 * sizeof steps_ms / sizeof *steps_ms; i++) {
        uint64_t wall_ms = RIG_WALL_MS + rig->now_ms + (uint64_t)steps_ms[i / 2];
        dht_set_wall(rig->dht, rig->now_ms, wall_ms);
        stamp = dht_stamp(rig->dht, rig->now_ms);
        assert_true(dht_version_compare(&stamp, &last) > 0 || last.epoch > wall_ms + DHT_SKEW_MS);
        assert_in_range(stamp.epoch, wall_ms, wall_ms + DHT_SKEW_MS);
        last = stamp;
        stamp = dht_stamp(rig->dht, rig->now_ms);
        assert_true(dht_version_compare(&stamp, &last) > 0);
        last = stamp;
        assert_int_equal(publish(rig, i, 1, 0, 0), 0);
        rig_run(rig, 10);
        assert_true(own(rig, i, &record) && record.version.counter > counter);
        counter = record.version.counter;
        if (i % 2)
            rig_restart(rig);
    }
    rig_free(rig);
}

/* faults 61: whoever drives us as far ahead of our clock as it goes: after a restart we are not refused for that, and
 * not each stamp is a write to the disk */
static void test_publish__driven_ahead_it_can_be_restarted(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    uint64_t wall_ms = RIG_WALL_MS + rig->now_ms, marks = 0, saved_ms = 0;
    struct dht_version last = {0};
    for (unsigned i = 0; i < 2000; i++) {
        dht_publish_seen(rig->dht, &(struct dht_version){wall_ms + i + DHT_SKEW_MS / 2, 1});
        last = dht_stamp(rig->dht, rig->now_ms++);
        marks += rig->dht->stamps.saved_ms != saved_ms;
        saved_ms = rig->dht->stamps.saved_ms;
    }
    assert_in_range(marks, 1, 3);
    rig_restart(rig);
    struct dht_version next = dht_stamp(rig->dht, rig->now_ms);
    assert_true(dht_version_compare(&next, &last) > 0);
    assert_in_range(next.epoch, last.epoch, RIG_WALL_MS + rig->now_ms + DHT_SKEW_MS - 20000);
    rig_free(rig);
}

/* faults 61: a stamp from the future draws ours nowhere; one from the present is passed */
static void test_publish__stamps_follow_what_is_seen(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    uint64_t wall_ms = RIG_WALL_MS + rig->now_ms;
    dht_publish_seen(rig->dht, &(struct dht_version){wall_ms + 315360000000u, 7});
    assert_int_equal(dht_stamp(rig->dht, rig->now_ms).epoch, wall_ms);
    dht_publish_seen(rig->dht, &(struct dht_version){wall_ms + 1000, 7});
    struct dht_version stamp = dht_stamp(rig->dht, rig->now_ms);
    assert_int_equal(stamp.epoch, wall_ms + 1000);
    assert_int_equal(stamp.counter, 8);
    dht_publish_seen(rig->dht, &(struct dht_version){wall_ms + 1000, UINT64_MAX});
    assert_int_equal(dht_stamp(rig->dht, rig->now_ms).epoch, wall_ms + 1001);
    rig_free(rig);
}

/* Each of the holders is given it once; the one who wrote it hears how many have it. */
static void test_publish__gives_to_the_holders(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct others others;
    struct told told = {0};
    struct id key = rig_key(1);
    join(rig, &others);
    assert_int_equal(publish(rig, 1, 1, 0, 0), 0);
    serve(rig, &others, 5000);
    assert_int_equal(others.stores, PEERS);
    assert_int_equal(write_named(rig, "a", 1, dht_stamp(rig->dht, rig->now_ms), &told), 0);
    serve(rig, &others, 5000);
    assert_int_equal(others.stores, 2 * PEERS);
    assert_int_equal(told.calls, 1);
    assert_int_equal(told.accepted, PEERS);
    assert_int_equal(rig_stats(rig).published, 2);
    assert_int_equal(dht_withdraw(rig->dht, rig->now_ms, &key, NULL), 0);
    serve(rig, &others, 5000);
    assert_int_equal(others.stores, 3 * PEERS);
    assert_true(others.last.tombstone);
    assert_int_equal(rig_stats(rig).published, 1); /* what is gone need not be kept alive */
    rig_free(rig);
}

/* Written a hundred times before it leaves, it leaves once, as it was last; the last one's writer is called back. While
 * it is under way it is written again, and leaves again. */
static void test_publish__rewritten_it_is_sent_as_it_is_last(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct others others;
    struct told first = {0}, last = {0}, after = {0};
    join(rig, &others);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(write_named(rig, "a", i, dht_stamp(rig->dht, rig->now_ms), i < 99 ? &first : &last), 0);
    serve(rig, &others, 1000);
    assert_int_equal(others.stores, PEERS);
    assert_true(others.last.score == 99);
    assert_int_equal(first.calls, 0);
    assert_int_equal(last.calls, 1);

    assert_int_equal(write_named(rig, "a", 100, dht_stamp(rig->dht, rig->now_ms), &first), 0);
    dht_tick(rig->dht, rig->now_ms); /* on its way */
    assert_int_equal(write_named(rig, "a", 101, dht_stamp(rig->dht, rig->now_ms), &after), 0);
    others.stores = 0;
    rig->now_ms += 5000;
    serve(rig, &others, 5000);
    assert_true(others.last.score == 101);
    assert_int_equal(first.calls, 0);
    assert_int_equal(after.calls, 1);
    rig_free(rig);
}

/* Who lost against another writer is told so at once, or finds out. */
static void test_publish__older_writes_are_refused(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct dht_version stamp = dht_stamp(rig->dht, rig->now_ms);
    assert_int_equal(write_named(rig, "a", 1, stamp, NULL), 0);
    assert_int_equal(write_named(rig, "a", 1, stamp, NULL), 0); /* the same again */
    assert_int_equal(write_named(rig, "a", 2, stamp, NULL), ERR_CONFLICT);
    stamp.epoch--;
    assert_int_equal(write_named(rig, "a", 2, stamp, NULL), ERR_CONFLICT);
    rig_free(rig);
}

/* Stamped before the clock was set back by an hour: nobody is told that it is safe, and it is sent in an hour. */
static void test_publish__from_the_future_it_waits(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct others others;
    struct told told = {0};
    join(rig, &others);
    struct dht_version stamp = {RIG_WALL_MS + rig->now_ms + 3600000, 1};
    assert_int_equal(write_named(rig, "a", 1, stamp, &told), 0);
    serve(rig, &others, 60000);
    assert_int_equal(told.calls, 1);
    assert_int_equal(told.accepted, 0);
    assert_int_equal(others.stores, 0);
    serve(rig, &others, 6000000);
    assert_int_equal(others.stores, PEERS);
    rig_free(rig);
}

/* What is of another kind than its key, or clears the future, would be refused by all: at once, therefore. */
static void test_publish__refuses_what_others_would(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id of_object = rig_key(1), of_set = set_key();
    struct dht_value value = {.score = 1};
    uint8_t state_of_all[16] = {0xff};
    struct dht_version stamp = dht_stamp(rig->dht, rig->now_ms);
    struct dht_member member = {.name = "a", .name_len = 1, .version = stamp};
    struct dht_member meta = {.name = state_of_all, .name_len = 16, .meta = true, .version = stamp};
    assert_int_equal(dht_publish(rig->dht, rig->now_ms, &of_set, DHT_OBJECT, &value, NULL), ERR_INVALID);
    assert_int_equal(dht_write(rig->dht, rig->now_ms, &of_object, DHT_SET, &member, NULL), ERR_INVALID);
    assert_int_equal(dht_write(rig->dht, rig->now_ms, &of_set, DHT_SET, &meta, NULL), ERR_INVALID);
    assert_int_equal(dht_write(rig->dht, rig->now_ms, &of_set, DHT_SET, &member, NULL), 0);
    rig_free(rig);
}

/* What nobody takes is tried again, with growing pauses, for as long as it takes; its writer was told 0, once. */
static void test_publish__tries_again_and_again(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct others others;
    struct told told = {0};
    join(rig, &others);
    others.status = DHT_BAD;
    assert_int_equal(write_named(rig, "a", 1, dht_stamp(rig->dht, rig->now_ms), &told), 0);
    serve(rig, &others, 3600000);
    assert_int_equal(told.calls, 1);
    assert_int_equal(told.accepted, 0);
    assert_in_range(others.stores, 6 * PEERS, 12 * PEERS); /* 5 s, 10 s ... 21 min */
    others.status = DHT_ACCEPTED;
    others.stores = 0;
    serve(rig, &others, 1800000);
    assert_int_equal(others.stores, PEERS);
    rig_free(rig);
}

/* Holders that are full send it to the shard, for good; other members of the key go there at once. */
static void test_publish__goes_to_the_shard_of_a_full_key(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct others others;
    struct told told = {0};
    struct dht_record record;
    struct id key = set_key(), member;
    crypto_id_of("a", 1, &member);
    join(rig, &others);
    others.full_key = key;
    assert_int_equal(write_named(rig, "a", 1, dht_stamp(rig->dht, rig->now_ms), &told), 0);
    serve(rig, &others, 5000);
    struct id shard = dht_shard_key(&key, 1, &member);
    assert_true(id_equal(&others.last.key, &shard));
    assert_int_equal(others.stores, 2 * PEERS);
    assert_int_equal(told.calls, 1);
    assert_int_equal(told.accepted, PEERS);
    assert_false(named(rig, "a", &record));
    assert_true(dht_hold_get(rig->dht, &shard, &member, &record));

    assert_int_equal(write_named(rig, "a", 2, dht_stamp(rig->dht, rig->now_ms), NULL), 0);
    assert_int_equal(write_named(rig, "b", 1, dht_stamp(rig->dht, rig->now_ms), NULL), 0);
    serve(rig, &others, 5000);
    assert_int_equal(others.stores, 4 * PEERS);
    assert_int_equal(rig_stats(rig).published, 2);
    rig_free(rig);
}

/* After a restart the same is said again: the closest holder is asked, and as it has it, nobody is sent anything. */
static void test_publish__said_again_after_a_restart(void **state)
{
    (void)state;
    for (unsigned have = 0; have < 2; have++) {
        struct rig *rig = rig_new();
        struct others others;
        struct dht_record before, after;
        assert_int_equal(publish(rig, 1, 1, 0, 0), 0);
        rig_run(rig, 10);
        assert_true(own(rig, 1, &before));
        rig_restart(rig);
        join(rig, &others);
        others.have = have;
        others.told = before;
        assert_int_equal(publish(rig, 1, 1, 0, 0), 0);
        serve(rig, &others, 5000);
        assert_true(own(rig, 1, &after));
        assert_int_equal(dht_record_compare(&before, &after), 0);
        assert_int_equal(rig_stats(rig).published, 1);
        assert_int_equal(others.reads, 1);
        assert_int_equal(others.stores, have ? 0 : PEERS);
        rig_free(rig);
    }
}

/* Our own records never lapse while they are published: signed anew each day, the version stays. Written with a time to
 * live they do. */
static void test_publish__renews_each_day(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct others others;
    struct dht_record record;
    struct id key = set_key();
    struct dht_member brief = {
        .name = "b", .name_len = 1, .version = dht_stamp(rig->dht, rig->now_ms), .ttl_ms = 2 * DAY_MS};
    join(rig, &others);
    assert_int_equal(publish(rig, 1, 1, 1, 1), 0);
    assert_int_equal(write_named(rig, "a", 1, dht_stamp(rig->dht, rig->now_ms), NULL), 0);
    assert_int_equal(dht_write(rig->dht, rig->now_ms, &key, DHT_SET, &brief, NULL), 0);
    serve(rig, &others, 60000);
    assert_int_equal(rig_stats(rig).published, 2);
    for (unsigned day = 1; day <= 9; day++) {
        others.stores = 0;
        serve(rig, &others, DAY_MS);
        assert_in_range(others.stores, day == 1 ? 0 : 2 * PEERS, 2 * PEERS);
        assert_true(own(rig, 1, &record) && record.version.counter == 1);
        assert_true(record.expiry_wall_ms > RIG_WALL_MS + rig->now_ms + DAY_MS);
        assert_true(named(rig, "a", &record));
        assert_true(record.expiry_wall_ms > RIG_WALL_MS + rig->now_ms + 5 * (uint64_t)DAY_MS);
        if (day != 2)
            assert_int_equal(named(rig, "b", &record), day < 2);
    }
    rig_free(rig);
}

/* Away for four days: what is said again then is signed anew, although nothing changed; so it is after so long a sleep.
 */
static void test_publish__said_again_after_it_lapsed(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct others others;
    struct dht_record record;
    assert_int_equal(publish(rig, 1, 1, 0, 0), 0);
    rig_run(rig, 10);
    assert_true(own(rig, 1, &record));
    struct dht_version version = record.version;
    rig->now_ms += 4 * (uint64_t)DAY_MS;
    rig_restart(rig);
    assert_int_equal(publish(rig, 1, 1, 0, 0), 0);
    join(rig, &others);
    serve(rig, &others, 60000);
    assert_true(own(rig, 1, &record));
    assert_true(dht_record_is_timely(&record, RIG_WALL_MS + rig->now_ms));
    assert_int_equal(dht_version_compare(&record.version, &version), 0);
    rig->now_ms += 4 * (uint64_t)DAY_MS;
    serve(rig, &others, 3600000);
    assert_true(own(rig, 1, &record));
    assert_true(dht_record_is_timely(&record, RIG_WALL_MS + rig->now_ms));
    rig_free(rig);
}

/* faults 59: the storage was lost; holders know a later version of ours, so we count on from there. */
static void test_publish__overtaken_by_an_earlier_life(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer self = {.key = rig->key};
    struct id key = rig_key(1);
    struct dht_record record;
    for (unsigned signed_meanwhile = 0; signed_meanwhile < 2; signed_meanwhile++) {
        assert_int_equal(publish(rig, 1, 7 + signed_meanwhile, 0, 0), 0);
        rig_run(rig, signed_meanwhile * 10);
        struct dht_record earlier = rig_record(&self, &key, 3, UINT64_MAX - 10 + signed_meanwhile * 5);
        dht_publish_overtaken(rig->dht, &earlier);
        rig_run(rig, 10);
        assert_true(own(rig, 1, &record) && record.score == 7 + signed_meanwhile);
        assert_true(dht_version_compare(&record.version, &earlier.version) > 0);
    }
    rig_free(rig);
}

/* What is written while the dht is called back is written. */
static void write_more(void *ctx, const struct id *key, size_t accepted)
{
    struct rig *rig = ctx;
    (void)key;
    (void)accepted;
    assert_int_equal(write_named(rig, "a", 2, dht_stamp(rig->dht, rig->now_ms), NULL), 0);
    assert_int_equal(write_named(rig, "b", 2, dht_stamp(rig->dht, rig->now_ms), NULL), 0);
}

static void test_publish__writes_from_a_callback(void **state)
{
    (void)state;
    for (unsigned tombstone = 0; tombstone < 2; tombstone++) {
        struct rig *rig = rig_new();
        struct others others;
        struct dht_record record;
        struct id key = set_key();
        struct dht_member member = {.name = "a",
                                    .name_len = 1,
                                    .tombstone = tombstone,
                                    .version = dht_stamp(rig->dht, rig->now_ms),
                                    .done = write_more,
                                    .done_ctx = rig};
        join(rig, &others);
        assert_int_equal(dht_write(rig->dht, rig->now_ms, &key, DHT_SET, &member, NULL), 0);
        serve(rig, &others, 5000);
        assert_int_equal(others.stores, 3 * PEERS);
        assert_true(named(rig, "a", &record) && record.score == 2);
        assert_true(named(rig, "b", &record) && record.score == 2);
        rig_free(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_publish__refuses_what_makes_no_record),
        cmocka_unit_test(test_publish__alone_it_is_held_here),
        cmocka_unit_test(test_publish__versions_only_rise),
        cmocka_unit_test(test_publish__stamps_never_go_back),
        cmocka_unit_test(test_publish__stamps_follow_what_is_seen),
        cmocka_unit_test(test_publish__driven_ahead_it_can_be_restarted),
        cmocka_unit_test(test_publish__gives_to_the_holders),
        cmocka_unit_test(test_publish__rewritten_it_is_sent_as_it_is_last),
        cmocka_unit_test(test_publish__older_writes_are_refused),
        cmocka_unit_test(test_publish__from_the_future_it_waits),
        cmocka_unit_test(test_publish__refuses_what_others_would),
        cmocka_unit_test(test_publish__tries_again_and_again),
        cmocka_unit_test(test_publish__goes_to_the_shard_of_a_full_key),
        cmocka_unit_test(test_publish__said_again_after_a_restart),
        cmocka_unit_test(test_publish__renews_each_day),
        cmocka_unit_test(test_publish__said_again_after_it_lapsed),
        cmocka_unit_test(test_publish__overtaken_by_an_earlier_life),
        cmocka_unit_test(test_publish__writes_from_a_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
