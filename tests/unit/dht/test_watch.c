/* Keys that this node watches. */
#include "tests/unit/dht/rig.h"

#define PEERS 6
#define LIFE (5ull << 32)

/* The rig, and peers that hold a key, in the order of their distance to it. */
struct scene {
    struct rig *rig;
    struct id key;
    struct rig_peer peers[PEERS];
    size_t answered; /* datagrams that have been looked at */
    uint64_t lease_ms[PEERS];
    uint64_t sequence[PEERS];
    uint8_t digest[PEERS]; /* each byte of it */
    size_t deeper;         /* so many say that there are shards */
    bool silent[PEERS];
    size_t reads;
    size_t asked;                    /* to be let watch */
    const struct dht_record *stored; /* what a read finds */
    const struct dht_record *later;
    /* what was told */
    size_t told;
    struct id told_key;
    struct dht_record last;
    uint64_t watch;
    bool unwatch_when_told;
};

static void on_changed(void *ctx, const struct id *key, const struct dht_record *record)
{
    struct scene *scene = ctx;
    scene->told++;
    scene->told_key = *key;
    scene->last = *record;
    if (scene->unwatch_when_told)
        dht_unwatch(scene->rig->dht, scene->rig->now_ms, scene->watch);
}

static size_t peer_of(const struct scene *scene, const struct id *id)
{
    size_t i = 0;
    while (i < PEERS && !id_equal(&scene->peers[i].contact.id, id))
        i++;
    assert_true(i < PEERS);
    return i;
}

static void answer_read(struct scene *scene, const struct rig_peer *peer, const struct dht_message *request)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_message answer = {.type = DHT_VALUES, .parts = 1, .transaction = request->transaction};
    scene->reads++;
    if (scene->stored && id_equal(&request->target, &scene->key)) {
        struct dht_span span = rig_span(scene->stored, &bytes);
        answer.records[0] = dht_record_brief(span.at, span.len);
        answer.record_count = 1;
        answer.total = 1;
    }
    rig_input(scene->rig, peer, &answer);
}

static void answer_one(struct scene *scene, size_t at)
{
    struct dht_message request = rig_message(scene->rig, at);
    size_t i = peer_of(scene, &scene->rig->sent[at].to.id);
    struct dht_message answer = {.transaction = request.transaction, .type = (uint8_t)(request.type + 1)};
    if (scene->silent[i] || request.type % 2 == 0)
        return;
    if (request.type == DHT_FIND_VALUE) {
        answer_read(scene, &scene->peers[i], &request);
        return;
    }
    if (request.type == DHT_WATCH && !request.stop) {
        scene->asked++;
        answer.lease_ms = (uint32_t)scene->lease_ms[i];
        answer.sequence = scene->sequence[i];
        memset(answer.digest, scene->digest[i], sizeof answer.digest);
        answer.deeper = i < scene->deeper && id_equal(&request.target, &scene->key);
    }
    rig_input(scene->rig, &scene->peers[i], &answer);
}

/* All that was sent since is answered, and what that led to. */
static void settle(struct scene *scene)
{
    struct rig *rig = scene->rig;
    for (;;) {
        for (; scene->answered < rig->sent_count; scene->answered++)
            answer_one(scene, scene->answered);
        rig->sent_count = scene->answered = 0;
        if (dht_next_ms(rig->dht) > rig->now_ms)
            return;
        dht_tick(rig->dht, rig->now_ms);
    }
}

static void run(struct scene *scene, uint64_t ms)
{
    for (; ms > 0; ms -= 250) {
        rig_run(scene->rig, 250);
        settle(scene);
    }
}

static void sort_by_distance(struct scene *scene)
{
    for (size_t i = 1; i < PEERS; i++)
        for (size_t j = i;
             j > 0 && dht_closer(&scene->key, &scene->peers[j].contact.id, &scene->peers[j - 1].contact.id) < 0; j--) {
            struct rig_peer other = scene->peers[j];
            scene->peers[j] = scene->peers[j - 1];
            scene->peers[j - 1] = other;
        }
}

static void scene_start(struct scene *scene)
{
    *scene = (struct scene){.rig = rig_new(), .key = rig_key(7)};
    for (unsigned i = 0; i < PEERS; i++) {
        scene->peers[i] = rig_peer(i + 1);
        scene->lease_ms[i] = DHT_WATCH_LEASE_MS;
        scene->sequence[i] = LIFE * (i + 1);
    }
    sort_by_distance(scene);
    for (size_t i = 0; i < PEERS; i++)
        rig_meet(scene->rig, &scene->peers[i]);
    settle(scene);
}

static void watch(struct scene *scene)
{
    assert_int_equal(
        dht_watch(scene->rig->dht, scene->rig->now_ms, &scene->key, on_changed, scene, &scene->watch, NULL), 0);
}

static void scene_watch(struct scene *scene)
{
    scene_start(scene);
    watch(scene);
    settle(scene);
}

static void scene_end(struct scene *scene)
{
    rig_free(scene->rig);
}

/* A NOTIFY by the peer of its next change; true if it is still wanted. */
static bool notify(struct scene *scene, size_t peer, uint64_t sequence, const struct dht_record *record)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_message message = {.type = DHT_NOTIFY, .transaction = 99, .target = record->key, .sequence = sequence};
    struct dht_span span = rig_span(record, &bytes);
    message.records[0] = dht_record_brief(span.at, span.len);
    message.record_count = 1;
    struct dht_message answer = {0};
    rig_input(scene->rig, &scene->peers[peer], &message);
    assert_true(rig_find(scene->rig, DHT_NOTIFIED, &scene->peers[peer], &answer));
    scene->answered = scene->rig->sent_count;
    return answer.known;
}

static bool is_holder(struct scene *scene, size_t peer)
{
    struct rig_peer member = rig_peer(77);
    struct dht_record old = rig_record(&member, &scene->key, 1, 1);
    old.expiry_wall_ms = 1; /* not told */
    assert_int_equal(rig_sign(&old, &member.key), 0);
    return notify(scene, peer, scene->sequence[peer], &old);
}

static void test_watch__the_three_closest_tell(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    for (size_t i = 0; i < PEERS; i++)
        assert_int_equal(is_holder(&scene, i), i < DHT_WATCH_HOLDERS);
    assert_int_equal(rig_stats(scene.rig).watches, 1);
    assert_int_equal(scene.told, 0);
    scene_end(&scene);
}

static void test_watch__a_change_is_told_once(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    struct rig_peer member = rig_peer(50);
    struct dht_record record = rig_record(&member, &scene.key, 3.5, 1);
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++)
        assert_true(notify(&scene, i, scene.sequence[i] + 1, &record));
    assert_int_equal(scene.told, 1);
    assert_true(id_equal(&scene.told_key, &scene.key));
    assert_true(id_equal(&scene.last.member, &member.contact.id));
    assert_true(scene.last.score == 3.5);
    record = rig_record(&member, &scene.key, 3.5, 2);
    assert_true(notify(&scene, 0, scene.sequence[0] + 2, &record));
    assert_int_equal(scene.told, 2);
    scene_end(&scene);
}

/* faults 13: nobody is told of it, and who told it is not believed again. */
static void test_watch__a_forgery_is_not_told(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    struct rig_peer member = rig_peer(50);
    struct dht_record record = rig_record(&member, &scene.key, 3.5, 1);
    record.signature[9] ^= 1;
    notify(&scene, 0, scene.sequence[0] + 1, &record);
    assert_int_equal(scene.told, 0);
    assert_int_equal(rig_stats(scene.rig).bad_records, 1);
    assert_false(is_holder(&scene, 0));
    run(&scene, 500);
    assert_true(is_holder(&scene, DHT_WATCH_HOLDERS)); /* in its place */
    scene_end(&scene);
}

static void test_watch__others_are_not_listened_to(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    struct rig_peer member = rig_peer(50);
    struct id other = rig_key(8);
    struct dht_record record = rig_record(&member, &scene.key, 1, 1);
    assert_false(notify(&scene, PEERS - 1, 1, &record));
    record = rig_record(&member, &other, 1, 1);
    assert_false(notify(&scene, 0, 1, &record));
    assert_int_equal(scene.told, 0);
    scene_end(&scene);
}

/* A change that never comes is found by reading. */
static void test_watch__a_gap_is_read(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    struct rig_peer member = rig_peer(50), lost_member = rig_peer(51);
    struct dht_record record = rig_record(&member, &scene.key, 1, 1);
    struct dht_record lost = rig_record(&lost_member, &scene.key, 2, 1);
    scene.stored = &lost;
    notify(&scene, 0, scene.sequence[0] + 2, &record);
    run(&scene, 2000);
    assert_int_equal(scene.told, 1);
    assert_int_equal(scene.reads, 0); /* it may still come */
    run(&scene, 8000);
    assert_true(scene.reads > 0);
    assert_int_equal(scene.told, 2);
    assert_true(id_equal(&scene.last.member, &lost_member.contact.id));
    size_t reads = scene.reads;
    run(&scene, 20000);
    assert_int_equal(scene.reads, reads);
    scene_end(&scene);
}

static void test_watch__what_comes_late_is_no_gap(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    struct rig_peer member = rig_peer(50);
    struct dht_record first = rig_record(&member, &scene.key, 1, 1), second = rig_record(&member, &scene.key, 1, 2);
    notify(&scene, 0, scene.sequence[0] + 2, &second);
    run(&scene, 1000);
    notify(&scene, 0, scene.sequence[0] + 1, &first);
    run(&scene, 20000);
    assert_int_equal(scene.told, 2);
    assert_int_equal(scene.reads, 0);
    scene_end(&scene);
}

static void test_watch__is_renewed(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    run(&scene, 3 * DHT_WATCH_LEASE_MS);
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++)
        assert_true(is_holder(&scene, i));
    assert_int_equal(scene.reads, 0);
    scene_end(&scene);
}

/* The answer to a renewal names a change that was not told: the holder had given up telling. */
static void test_watch__a_renewal_shows_what_was_missed(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    struct rig_peer member = rig_peer(50);
    struct dht_record record = rig_record(&member, &scene.key, 1, 1);
    scene.stored = &record;
    scene.sequence[1] += 1;
    run(&scene, 90000);
    assert_true(scene.reads > 0);
    assert_int_equal(scene.told, 1);
    scene_end(&scene);
}

static void test_watch__a_holder_that_restarted_is_read(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    struct rig_peer member = rig_peer(50);
    struct dht_record record = rig_record(&member, &scene.key, 1, 1);
    scene.stored = &record;
    scene.sequence[1] = LIFE * 1000;
    run(&scene, 90000);
    assert_int_equal(scene.told, 1);
    scene_end(&scene);
}

static void test_watch__the_dead_are_replaced(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    scene.silent[0] = scene.silent[2] = true;
    run(&scene, 120000);
    assert_true(is_holder(&scene, 1));
    assert_true(is_holder(&scene, 3));
    assert_true(is_holder(&scene, 4));
    assert_int_equal(scene.reads, 0); /* one was there all the time */
    scene_end(&scene);
}

/* Nobody told for a while, so the whole is read. */
static void test_watch__a_time_alone_is_made_up_for(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    struct rig_peer member = rig_peer(50);
    struct dht_record record = rig_record(&member, &scene.key, 1, 1);
    memset(scene.silent, true, sizeof scene.silent);
    run(&scene, 150000);
    assert_int_equal(scene.told, 0);
    memset(scene.silent, false, sizeof scene.silent);
    for (size_t i = 0; i < PEERS; i++)
        rig_meet(scene.rig, &scene.peers[i]);
    scene.stored = &record;
    run(&scene, 90000);
    assert_int_equal(scene.told, 1);
    scene_end(&scene);
}

/* One holds what another does not: when it came there, nobody was told. */
static void test_watch__holders_that_differ_are_read(void **state)
{
    (void)state;
    struct scene scene;
    scene_start(&scene);
    struct rig_peer member = rig_peer(50);
    struct dht_record record = rig_record(&member, &scene.key, 1, 1);
    scene.stored = &record;
    scene.digest[2] = 9;
    watch(&scene);
    run(&scene, 20000);
    assert_int_equal(scene.told, 1);
    size_t reads = scene.reads;
    run(&scene, 200000);
    assert_int_equal(scene.reads, reads); /* they have time to reconcile */
    scene_end(&scene);
}

static void on_each(void *ctx, const struct dht_record *record)
{
    (void)ctx;
    (void)record;
}

/* Now it is there. */
static void on_collected(void *ctx, int status, size_t count)
{
    struct scene *scene = ctx;
    assert_int_equal(status, 0);
    assert_int_equal(count, 0);
    scene->stored = scene->later;
}

/* A caller has read the key, and what the holders had when they began to tell is something else. */
static void test_watch__changes_during_a_reading_are_read(void **state)
{
    (void)state;
    struct scene scene;
    scene_start(&scene);
    struct rig_peer member = rig_peer(50);
    struct dht_record record = rig_record(&member, &scene.key, 1, 1);
    scene.later = &record;
    memset(scene.digest, 9, sizeof scene.digest);
    watch(&scene);
    assert_int_equal(
        dht_collect(scene.rig->dht, scene.rig->now_ms, &scene.key, 5000, on_each, on_collected, &scene, NULL, NULL), 0);
    run(&scene, 20000);
    assert_int_equal(scene.told, 1);
    scene_end(&scene);
}

static void test_watch__the_next_holder_when_one_is_full(void **state)
{
    (void)state;
    struct scene scene;
    scene_start(&scene);
    scene.lease_ms[0] = 0;
    watch(&scene);
    settle(&scene);
    assert_false(is_holder(&scene, 0));
    for (size_t i = 1; i <= DHT_WATCH_HOLDERS; i++)
        assert_true(is_holder(&scene, i));
    scene_end(&scene);
}

/* A lease of a millisecond does not make us ask a thousand times a second. */
static void test_watch__short_leases_are_renewed_slowly(void **state)
{
    (void)state;
    struct scene scene;
    scene_start(&scene);
    for (size_t i = 0; i < PEERS; i++)
        scene.lease_ms[i] = 1;
    watch(&scene);
    settle(&scene);
    run(&scene, 5000);
    assert_int_equal(scene.asked, DHT_WATCH_HOLDERS);
    run(&scene, 30000);
    assert_in_range(scene.asked, 2 * DHT_WATCH_HOLDERS, 5 * DHT_WATCH_HOLDERS);
    scene_end(&scene);
}

static void test_watch__ends(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    uint64_t second;
    struct dht *dht = scene.rig->dht;
    assert_int_equal(dht_watch(dht, scene.rig->now_ms, &scene.key, on_changed, &scene, &second, NULL), 0);
    dht_unwatch(dht, scene.rig->now_ms, second);
    dht_tick(dht, scene.rig->now_ms);
    assert_true(is_holder(&scene, 0));
    dht_unwatch(dht, scene.rig->now_ms, scene.watch);
    scene.rig->sent_count = 0;
    dht_tick(dht, scene.rig->now_ms);
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++) {
        struct dht_message request = {0};
        assert_true(rig_find(scene.rig, DHT_WATCH, &scene.peers[i], &request));
        assert_true(request.stop);
        assert_false(is_holder(&scene, i));
    }
    assert_int_equal(rig_stats(scene.rig).watches, 0);
    scene_end(&scene);
}

static void test_watch__may_end_from_within(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    struct rig_peer member = rig_peer(50);
    struct dht_record first = rig_record(&member, &scene.key, 1, 1), second = rig_record(&member, &scene.key, 1, 2);
    scene.unwatch_when_told = true;
    notify(&scene, 0, scene.sequence[0] + 1, &first);
    notify(&scene, 0, scene.sequence[0] + 2, &second);
    assert_int_equal(scene.told, 1);
    settle(&scene);
    assert_int_equal(rig_stats(scene.rig).watches, 0);
    scene_end(&scene);
}

/* What this node holds itself is told too, and not from within the call that wrote it. */
static void test_watch__what_is_held_here_is_told(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    struct rig_peer member = rig_peer(50);
    struct dht_record record = rig_record(&member, &scene.key, 1, 1);
    assert_int_equal(rig_hold(scene.rig, &record), DHT_ACCEPTED);
    assert_int_equal(scene.told, 0);
    assert_true(dht_next_ms(scene.rig->dht) <= scene.rig->now_ms);
    dht_tick(scene.rig->dht, scene.rig->now_ms);
    assert_int_equal(scene.told, 1);
    notify(&scene, 0, scene.sequence[0] + 1, &record);
    assert_int_equal(scene.told, 1);
    scene_end(&scene);
}

/* More at once than is kept for anybody: the key is read. */
static void test_watch__a_flood_of_local_changes_is_read(void **state)
{
    (void)state;
    struct scene scene;
    scene_watch(&scene);
    for (unsigned i = 0; i <= DHT_CHANGES_KEPT; i++) {
        struct rig_peer member = rig_peer(1000 + i);
        struct dht_record record = rig_record(&member, &scene.key, 1, 1);
        rig_hold(scene.rig, &record);
    }
    run(&scene, 5000);
    assert_true(scene.reads > 0);
    assert_int_equal(scene.told, DHT_CHANGES_KEPT + 1);
    scene_end(&scene);
}

/* A set that is too large for its holders is watched with its shards. */
static void test_watch__shards_are_watched_too(void **state)
{
    (void)state;
    struct scene scene;
    scene_start(&scene);
    scene.deeper = 2;
    watch(&scene);
    settle(&scene);
    struct rig_peer member = rig_peer(50);
    struct id shard = dht_shard_key(&scene.key, 1, &member.contact.id);
    struct dht_record record = rig_record(&member, &shard, 1, 1);
    size_t holders = 0;
    for (size_t i = 0; i < PEERS; i++)
        holders += notify(&scene, i, scene.sequence[i] + 1, &record);
    assert_int_equal(holders, DHT_WATCH_HOLDERS);
    assert_int_equal(scene.told, 1);
    assert_true(id_equal(&scene.told_key, &scene.key));
    assert_int_equal(rig_stats(scene.rig).watches, 1);
    assert_true(scene.reads > 0); /* shards may have changed before they were watched */
    dht_unwatch(scene.rig->dht, scene.rig->now_ms, scene.watch);
    settle(&scene);
    for (size_t i = 0; i < PEERS; i++)
        assert_false(notify(&scene, i, scene.sequence[i] + 2, &record));
    scene_end(&scene);
}

static void test_watch__one_liar_divides_nothing(void **state)
{
    (void)state;
    struct scene scene;
    scene_start(&scene);
    scene.deeper = 1;
    watch(&scene);
    run(&scene, 200000);
    assert_int_equal(scene.rig->dht->watching.keys.count, 1);
    scene_end(&scene);
}

/* With nobody there yet it begins as soon as somebody is. */
static void test_watch__begins_alone(void **state)
{
    (void)state;
    struct scene scene = {.rig = rig_new(), .key = rig_key(7)};
    watch(&scene);
    settle(&scene);
    scene.peers[0] = rig_peer(1);
    scene.lease_ms[0] = DHT_WATCH_LEASE_MS;
    scene.sequence[0] = LIFE;
    run(&scene, 1000);
    rig_meet(scene.rig, &scene.peers[0]);
    run(&scene, 5000);
    assert_true(is_holder(&scene, 0));
    scene_end(&scene);
}

static void test_watch__has_a_limit(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct id key = rig_key(1);
    uint64_t number;
    struct err err;
    for (unsigned i = 0; i < LIMIT_DHT_WATCHES; i++)
        assert_int_equal(dht_watch(rig->dht, rig->now_ms, &key, on_changed, NULL, &number, NULL), 0);
    assert_int_equal(dht_watch(rig->dht, rig->now_ms, &key, on_changed, NULL, &number, &err), ERR_LIMIT);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_watch__the_three_closest_tell),
        cmocka_unit_test(test_watch__a_change_is_told_once),
        cmocka_unit_test(test_watch__a_forgery_is_not_told),
        cmocka_unit_test(test_watch__others_are_not_listened_to),
        cmocka_unit_test(test_watch__a_gap_is_read),
        cmocka_unit_test(test_watch__what_comes_late_is_no_gap),
        cmocka_unit_test(test_watch__is_renewed),
        cmocka_unit_test(test_watch__a_renewal_shows_what_was_missed),
        cmocka_unit_test(test_watch__a_holder_that_restarted_is_read),
        cmocka_unit_test(test_watch__the_dead_are_replaced),
        cmocka_unit_test(test_watch__a_time_alone_is_made_up_for),
        cmocka_unit_test(test_watch__holders_that_differ_are_read),
        cmocka_unit_test(test_watch__changes_during_a_reading_are_read),
        cmocka_unit_test(test_watch__the_next_holder_when_one_is_full),
        cmocka_unit_test(test_watch__short_leases_are_renewed_slowly),
        cmocka_unit_test(test_watch__ends),
        cmocka_unit_test(test_watch__may_end_from_within),
        cmocka_unit_test(test_watch__what_is_held_here_is_told),
        cmocka_unit_test(test_watch__a_flood_of_local_changes_is_read),
        cmocka_unit_test(test_watch__shards_are_watched_too),
        cmocka_unit_test(test_watch__one_liar_divides_nothing),
        cmocka_unit_test(test_watch__begins_alone),
        cmocka_unit_test(test_watch__has_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
