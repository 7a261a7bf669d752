/* Large sets on a virtual network: read whole and in order, with and without shards, among liars. */
#include "dht/internal.h"
#include "node/base/scope.h"
#include "tests/sim/mesh.h"

#define MEMBERS 10000
#define WRITER 7
#define AGE_MS 60000u /* of what was written */

struct set {
    struct mesh *mesh;
    struct id key;
    uint8_t seen[MEMBERS]; /* how often each was told */
    size_t others;         /* told, and never written */
    bool done;
    int status;
    size_t count;
};

static struct dht_record member_number(const struct mesh *mesh, const struct id *key, unsigned number)
{
    struct dht_record record = {
        .key = *key,
        .kind = DHT_SET,
        .score = number,
        .version = {WALL_START_MS + mesh->now_ms - AGE_MS, 0},
        .expiry_wall_ms = WALL_START_MS + mesh->now_ms + DHT_RECORD_TTL_MS,
    };
    record.data_len = (size_t)snprintf((char *)record.data, sizeof record.data, "member %u", number);
    struct dht_signatures signatures = dht_signatures_ed25519(&mesh->nodes[WRITER].key);
    assert_int_equal(dht_record_sign(&record, mesh->nodes[WRITER].key.public_key, &signatures), 0);
    return record;
}

/* The nodes closest to the key, closest first. */
static void holders_of(const struct mesh *mesh, const struct id *key, unsigned holders[DHT_REPLICAS])
{
    unsigned count = 0;
    for (unsigned i = 0; i < NODES; i++) {
        unsigned at = count;
        while (at > 0 && dht_closer(key, &mesh->nodes[i].contact.id, &mesh->nodes[holders[at - 1]].contact.id) < 0)
            at--;
        if (at == DHT_REPLICAS)
            continue;
        count += count < DHT_REPLICAS;
        memmove(holders + at + 1, holders + at, (count - at - 1) * sizeof *holders);
        holders[at] = i;
    }
}

/* To the holders of its key, or of the first shard that has room for it. */
static void place(struct mesh *mesh, const struct id *key, unsigned number)
{
    struct id where = *key;
    for (unsigned depth = 1;; depth++) {
        struct dht_record record = member_number(mesh, &where, number);
        unsigned holders[DHT_REPLICAS], full = 0;
        OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
        dht_record_encode(&record, &bytes);
        holders_of(mesh, &where, holders);
        for (unsigned i = 0; i < DHT_REPLICAS; i++)
            full += dht_hold_put(mesh->nodes[holders[i]].dht, bytes.data, bytes.len, true, NULL) == DHT_FULL;
        if (full == 0)
            return;
        assert_true(depth <= DHT_SHARD_DEPTH_MAX);
        where = dht_shard_key(key, depth, &record.member);
    }
}

static struct set *set_new(uint32_t key_max)
{
    struct set *set = calloc(1, sizeof *set);
    assert_non_null(set);
    set->mesh = mesh_new(the_seed());
    set->mesh->loss_percent = 0;
    for (unsigned i = 0; i < NODES; i++) {
        node_kill(set->mesh, i);
        set->mesh->key_max = key_max;
        node_start(set->mesh, i);
    }
    join_all(set->mesh);
    set->key = dht_key(DHT_SET, "set", 3);
    for (unsigned i = 0; i < MEMBERS; i++)
        place(set->mesh, &set->key, i);
    return set;
}

/* One set for all tests of a group: to sign it takes a while. */
static int whole_set(void **state)
{
    *state = set_new(0);
    return 0;
}

static int set_in_shards(void **state)
{
    *state = set_new(64);
    return 0;
}

static int set_free(void **state)
{
    struct set *set = *state;
    mesh_free(set->mesh);
    free(set);
    return 0;
}

static void on_each(void *ctx, const struct dht_record *record)
{
    struct set *set = ctx;
    unsigned number;
    char name[32] = {0};
    assert_true(record->data_len < sizeof name);
    memcpy(name, record->data, record->data_len);
    assert_true(id_equal(&record->key, &set->key));
    if (sscanf(name, "member %u", &number) == 1 && number < MEMBERS && record->score == number)
        set->seen[number]++;
    else
        set->others++;
}

static void on_collected(void *ctx, int status, size_t count)
{
    struct set *set = ctx;
    set->done = true;
    set->status = status;
    set->count = count;
}

/* A node that does not hold the key itself. */
static unsigned reader_of(const struct set *set)
{
    unsigned holders[DHT_REPLICAS], reader = 0;
    holders_of(set->mesh, &set->key, holders);
    for (unsigned i = 0; i < DHT_REPLICAS; i++)
        if (holders[i] == reader) {
            reader++;
            i = UINT32_MAX; /* from the first */
        }
    return reader;
}

/* All members come, each once, and nothing else. */
static void assert_collects(struct set *set, unsigned reader)
{
    struct node *node = &set->mesh->nodes[reader];
    uint64_t start_ms = set->mesh->now_ms, sent = stats_of(set->mesh, reader).sent;
    memset(set->seen, 0, sizeof set->seen);
    set->done = false;
    set->others = 0;
    assert_int_equal(
        dht_collect(node->dht, set->mesh->now_ms, &set->key, 60000, on_each, on_collected, set, NULL, NULL), 0);
    node->wake_ms = set->mesh->now_ms;
    run_until(set->mesh, set->mesh->now_ms + 70000, &set->done);
    printf("%zu members in %llu virtual ms, %llu requests\n", set->count,
           (unsigned long long)(set->mesh->now_ms - start_ms),
           (unsigned long long)(stats_of(set->mesh, reader).sent - sent));
    assert_true(set->done);
    assert_int_equal(set->status, 0);
    assert_int_equal(set->others, 0);
    for (unsigned i = 0; i < MEMBERS; i++)
        if (set->seen[i] != 1)
            fail_msg("member %u was told %u times", i, set->seen[i]);
    assert_int_equal(set->count, MEMBERS);
}

static void test_dht_sets__whole_set_is_read(void **state)
{
    struct set *set = *state;
    unsigned holders[DHT_REPLICAS];
    assert_collects(set, reader_of(set));
    holders_of(set->mesh, &set->key, holders);
    uint64_t sent = stats_of(set->mesh, holders[3]).sent;
    assert_collects(set, holders[3]); /* a holder that agrees with two others has it already */
    assert_true(stats_of(set->mesh, holders[3]).sent - sent < 20);
}

static void test_dht_sets__some_loss_only_takes_longer(void **state)
{
    struct set *set = *state;
    set->mesh->loss_percent = 3;
    assert_collects(set, reader_of(set));
    set->mesh->loss_percent = 0;
}

/* Holders of 64 records each: the key, its 16 shards, and theirs. */
static void test_dht_sets__shards_are_read(void **state)
{
    struct set *set = *state;
    struct id third = dht_shard_key(&set->key, 2, &(struct id){{0}});
    unsigned holders[DHT_REPLICAS];
    holders_of(set->mesh, &third, holders);
    assert_non_null(dht_hold_of_key(set->mesh->nodes[holders[0]].dht, &third));
    assert_collects(set, reader_of(set));
}

/* One that invents a member, hides another and changes a third, all under false signatures. */
static void make_liar(struct set *set, unsigned number, unsigned lie)
{
    struct dht *dht = set->mesh->nodes[number].dht;
    for (unsigned i = 0; i < 3; i++) {
        struct dht_record record = member_number(set->mesh, &set->key, i == 0 ? MEMBERS + lie : 10 * lie + i);
        OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
        if (i == 1) {
            dht_hold_remove(dht, &set->key, &record.member);
            continue;
        }
        record.score = -1;
        record.version.counter = 9;
        dht_record_encode(&record, &bytes);
        assert_int_equal(dht_hold_put(dht, bytes.data, bytes.len, true, NULL), DHT_ACCEPTED);
    }
}

/* faults 13, 17: by their digests they are found out, and when too many lie every signature is checked */
static void test_dht_sets__liars_are_found_out(void **state)
{
    struct set *set = *state;
    unsigned holders[DHT_REPLICAS], reader = reader_of(set);
    holders_of(set->mesh, &set->key, holders);
    make_liar(set, holders[0], 1);
    assert_collects(set, reader);
    assert_int_equal(stats_of(set->mesh, reader).bad_records, 0);
    make_liar(set, holders[1], 2);
    assert_collects(set, reader);
    assert_true(stats_of(set->mesh, reader).bad_records > 0);
    make_liar(set, holders[2], 3);
    assert_collects(set, reader);
}

static struct reading read_order(struct set *set, unsigned reader, const struct dht_get_options *options)
{
    struct reading reading = {0};
    struct node *node = &set->mesh->nodes[reader];
    int status = dht_get(node->dht, set->mesh->now_ms, &set->key, options, on_read, &reading, NULL, NULL);
    assert_int_equal(status, 0);
    node->wake_ms = set->mesh->now_ms;
    run_until(set->mesh, set->mesh->now_ms + DHT_GET_TIMEOUT_MS, &reading.done);
    assert_true(reading.done);
    return reading;
}

/* The first sixteen of 10,000 cost one request and its answer of at most four parts. */
static void test_dht_sets__top_of_a_large_set_is_cheap(void **state)
{
    struct set *set = *state;
    unsigned reader = reader_of(set);
    struct dht_get_options options = {.limit = 16, .first_is_enough = true};
    run_for(set->mesh, 60000);
    struct dht_stats before = stats_of(set->mesh, reader);
    struct reading reading = read_order(set, reader, &options);
    struct dht_stats after = stats_of(set->mesh, reader);
    assert_int_equal(reading.count, 16);
    for (unsigned i = 0; i < 16; i++)
        assert_true(reading.found[i].record.score == MEMBERS - 1 - i);
    printf("%llu sent, %llu received\n", (unsigned long long)(after.sent - before.sent),
           (unsigned long long)(after.received - before.received));
    assert_int_equal(after.sent - before.sent, 1);
    assert_true(after.received - before.received <= 4);

    struct dht_rank last = dht_record_rank(&reading.found[15].record, DHT_BY_SCORE, NULL);
    options.after = &last;
    reading = read_order(set, reader, &options);
    for (unsigned i = 0; i < 16; i++)
        assert_true(reading.found[i].record.score == MEMBERS - 17 - i);
}

static void test_dht_sets__top_is_right_with_shards(void **state)
{
    struct set *set = *state;
    struct dht_get_options options = {.limit = 16, .first_is_enough = true, .order = DHT_BY_SCORE, .timeout_ms = 30000};
    struct reading reading = {0};
    struct node *node = &set->mesh->nodes[reader_of(set)];
    assert_int_equal(dht_get(node->dht, set->mesh->now_ms, &set->key, &options, on_read, &reading, NULL, NULL), 0);
    node->wake_ms = set->mesh->now_ms;
    run_until(set->mesh, set->mesh->now_ms + 30000, &reading.done);
    assert_int_equal(reading.count, 16);
    for (unsigned i = 0; i < 16; i++)
        assert_true(reading.found[i].record.score == MEMBERS - 1 - i);
}

int main(void)
{
    struct err err = {0};
    assert_int_equal(crypto_init(&err), 0);
    const struct CMUnitTest whole[] = {
        cmocka_unit_test(test_dht_sets__whole_set_is_read),
        cmocka_unit_test(test_dht_sets__some_loss_only_takes_longer),
        cmocka_unit_test(test_dht_sets__top_of_a_large_set_is_cheap),
        cmocka_unit_test(test_dht_sets__liars_are_found_out), /* leaves lies behind */
    };
    const struct CMUnitTest in_shards[] = {
        cmocka_unit_test(test_dht_sets__shards_are_read),
        cmocka_unit_test(test_dht_sets__top_is_right_with_shards),
    };
    return cmocka_run_group_tests(whole, whole_set, set_free) +
           cmocka_run_group_tests(in_shards, set_in_shards, set_free);
}
