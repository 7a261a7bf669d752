#include "node/gateway/sets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"
#include "tests/unit/gateway/disk.h"
#include "tests/unit/gateway/fake.h"

struct fixture {
    struct fake_mesh mesh;
    struct disk *disk;
    struct sets *sets;
    uint64_t mono_ms;
    size_t ready, committed;
    int commit_status;
};

static uint64_t mono(void *ctx)
{
    return ((struct fixture *)ctx)->mono_ms;
}

static uint64_t wall(void *ctx)
{
    return ((struct fixture *)ctx)->mesh.wall_ms;
}

static void on_ready(void *ctx)
{
    ((struct fixture *)ctx)->ready++;
}

static void on_committed(void *ctx, int status, const struct err *err)
{
    struct fixture *f = ctx;
    (void)err;
    f->committed++;
    f->commit_status = status;
}

static void start(struct fixture *f)
{
    struct err err;
    struct sets_config config = {.mesh = fake_sets_mesh(&f->mesh),
                                 .disk = disk_of(f->disk),
                                 .jobs = disk_jobs(f->disk),
                                 .clock = {mono, wall, f},
                                 .ready = on_ready,
                                 .committed = on_committed,
                                 .ctx = f};
    assert_int_equal(sets_new(&config, &f->sets, &err), 0);
}

static void begin(struct fixture *f)
{
    *f = (struct fixture){.disk = calloc(1, sizeof *f->disk), .mono_ms = 1000};
    fake_mesh_init(&f->mesh);
    start(f);
}

static void stop(struct fixture *f)
{
    sets_close(f->sets);
    while (disk_run(f->disk))
        continue;
    assert_true(sets_closed(f->sets));
    sets_free(f->sets);
    assert_int_equal(f->mesh.open_count, 0);
}

static void end(struct fixture *f)
{
    stop(f);
    fake_mesh_release(&f->mesh);
    disk_free(f->disk);
}

static void pass(struct fixture *f, uint64_t ms)
{
    f->mono_ms += ms;
    f->mesh.wall_ms += ms;
    sets_tick(f->sets);
    while (disk_run(f->disk))
        continue;
    sets_tick(f->sets);
}

static enum sets_state want(struct fixture *f, const char *name, struct set **set)
{
    return sets_want(f->sets, name, strlen(name), set);
}

/* The set, read. */
static struct set *open_set(struct fixture *f, const char *name)
{
    struct set *set = NULL;
    if (want(f, name, &set) == SETS_WAIT)
        fake_mesh_run(&f->mesh);
    assert_int_equal(want(f, name, &set), SETS_READY);
    return set;
}

static void put(struct fixture *f, struct set *set, const char *name, double score)
{
    struct err err;
    assert_int_equal(sets_put(f->sets, set, name, strlen(name), score, &err), 0);
}

static void take(struct fixture *f, struct set *set, const char *name)
{
    struct err err;
    assert_int_equal(sets_remove(f->sets, set, set_find(set, name, strlen(name)), &err), 0);
}

static void commit(struct fixture *f)
{
    sets_commit(f->sets);
    while (disk_run(f->disk))
        sets_commit(f->sets);
}

static void check_members(const struct set *set, const char *expected)
{
    char text[256] = "";
    for (size_t i = 0; i < set_count(set); i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s=%g", i ? " " : "", set_at(set, i)->name.bytes,
                 set_at(set, i)->score);
    assert_string_equal(text, expected);
}

static void test_sets__reads_once_and_stays_live(void **state)
{
    (void)state;
    struct fixture f;
    struct set *set = NULL;
    begin(&f);
    fake_put_member(&f.mesh, "s", "a", 1, 10);
    assert_int_equal(want(&f, "s", &set), SETS_WAIT);
    assert_int_equal(want(&f, "s", &set), SETS_WAIT);
    assert_int_equal(f.ready, 0);
    fake_mesh_run(&f.mesh);
    assert_int_equal(f.ready, 1);
    assert_int_equal(want(&f, "s", &set), SETS_READY);
    check_members(set, "a=1");
    fake_put_member(&f.mesh, "s", "b", 2, 11);
    check_members(set, "a=1 b=2");
    assert_int_equal(f.mesh.opened_ever, 1);
    assert_int_equal(sets_count(f.sets), 1);
    end(&f);
}

static void test_sets__waits_two_seconds(void **state)
{
    (void)state;
    struct fixture f;
    struct set *set = NULL;
    begin(&f);
    f.mesh.silent = true;
    assert_int_equal(want(&f, "s", &set), SETS_WAIT);
    pass(&f, 1999);
    assert_int_equal(want(&f, "s", &set), SETS_WAIT);
    pass(&f, 1);
    assert_true(f.ready > 0);
    assert_int_equal(want(&f, "s", &set), SETS_UNKNOWN);
    /* What comes late is taken. */
    f.mesh.silent = false;
    fake_mesh_run(&f.mesh);
    assert_int_equal(want(&f, "s", &set), SETS_READY);
    end(&f);
}

static void test_sets__answers_from_what_it_knows(void **state)
{
    (void)state;
    struct fixture f;
    struct set *set = NULL;
    begin(&f);
    put(&f, open_set(&f, "s"), "a", 1);
    commit(&f);
    stop(&f);
    start(&f);
    f.mesh.open_status = ERR_TIMEOUT;
    assert_int_equal(want(&f, "s", &set), SETS_WAIT);
    fake_mesh_run(&f.mesh);
    assert_int_equal(want(&f, "s", &set), SETS_READY);
    check_members(set, "a=1");
    /* It is tried again, and nobody waits for that. */
    pass(&f, 1000);
    assert_int_equal(want(&f, "s", &set), SETS_READY);
    f.mesh.open_status = 0;
    fake_put_member(&f.mesh, "s", "b", 2, 11);
    fake_mesh_run(&f.mesh);
    check_members(set, "a=1 b=2");
    end(&f);
}

static void test_sets__writes_are_durable_then_said(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    struct set *set = open_set(&f, "s");
    uint64_t written = sets_written(f.sets);
    put(&f, set, "a", 1);
    assert_true(sets_written(f.sets) > written);
    uint64_t commit_number = sets_gathering(f.sets);
    pass(&f, 0); /* no commit yet is over when this returns; all jobs are done in it */
    assert_int_equal(sets_durable(f.sets), commit_number);
    assert_int_equal(f.committed, 1);
    assert_int_equal(f.mesh.given_count, 1);

    /* Not given before it is durable. */
    put(&f, set, "a", 2);
    sets_commit(f.sets);
    put(&f, set, "b", 3);
    assert_int_equal(f.mesh.given_count, 1);
    assert_true(disk_run(f.disk));
    assert_int_equal(f.mesh.given_count, 2);
    sets_commit(f.sets);
    assert_true(disk_run(f.disk));
    assert_int_equal(f.mesh.given_count, 3);
    end(&f);
}

static void test_sets__says_all_again_after_a_restart(void **state)
{
    (void)state;
    struct fixture f;
    struct err err;
    begin(&f);
    struct set *set = open_set(&f, "s");
    put(&f, set, "a", 1);
    put(&f, set, "b", 2);
    take(&f, set, "b");
    sets_expire(f.sets, set, f.mesh.wall_ms + 5000, &err);
    struct dht_version version = set_find(set, "a", 1)->version;
    commit(&f);
    stop(&f);
    size_t given = f.mesh.given_count;
    start(&f);
    assert_int_equal(sets_count(f.sets), 1);
    pass(&f, 0);
    assert_int_equal(f.mesh.given_count - given, 3); /* the set itself, a, and the tombstone of b */
    set = open_set(&f, "s");
    check_members(set, "a=1");
    assert_int_equal(dht_version_compare(&set_find(set, "a", 1)->version, &version), 0);
    assert_int_equal(sets_ttl_ms(f.sets, set), 5000);
    pass(&f, 5000);
    check_members(open_set(&f, "s"), "");
    assert_int_equal(sets_count(f.sets), 0);
    end(&f);
}

static void test_sets__tries_again_what_the_mesh_would_not_take(void **state)
{
    (void)state;
    struct fixture f;
    struct sets_stats stats;
    begin(&f);
    struct set *set = open_set(&f, "s");
    f.mesh.write_status = ERR_LIMIT;
    for (int i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%d", i);
        put(&f, set, name, i);
    }
    commit(&f);
    sets_stats(f.sets, &stats);
    assert_int_equal(stats.unsaid, 1000);
    f.mesh.write_status = 0;
    for (int i = 0; i < 100; i++)
        pass(&f, 10);
    sets_stats(f.sets, &stats);
    assert_int_equal(stats.unsaid, 0);
    assert_int_equal(f.mesh.given_count, 1000);
    end(&f);
}

/* A set that is cleared and filled again in one millisecond holds what came last. */
static void test_sets__order_within_a_millisecond(void **state)
{
    (void)state;
    struct fixture f;
    struct err err;
    begin(&f);
    struct set *set = open_set(&f, "s");
    for (int i = 0; i < 5; i++) {
        put(&f, set, "a", i);
        put(&f, set, "b", i);
        assert_int_equal(sets_clear(f.sets, set, &err), 0);
        check_members(set, "");
        put(&f, set, "b", i + 0.5);
    }
    check_members(set, "b=4.5");
    commit(&f);
    stop(&f);
    start(&f);
    check_members(open_set(&f, "s"), "b=4.5");
    end(&f);
}

static void test_sets__clears_what_faster_clocks_wrote(void **state)
{
    (void)state;
    struct fixture f;
    struct err err;
    begin(&f);
    fake_put_member(&f.mesh, "s", "a", 1, f.mesh.wall_ms + 50000);
    struct set *set = open_set(&f, "s");
    assert_int_equal(sets_clear(f.sets, set, &err), 0);
    assert_true(set->meta_version.epoch >= set->cleared_ms); /* else no holder takes it */
    check_members(set, "");
    put(&f, set, "a", 2);
    check_members(set, "a=2");
    end(&f);
}

/* Two nodes spoke of the set at once, one cleared it: both count, for everybody. */
static void test_sets__clearing_is_not_undone(void **state)
{
    (void)state;
    struct fixture f;
    struct err err;
    begin(&f);
    struct set *set = open_set(&f, "s");
    put(&f, set, "a", 1);
    sets_clear(f.sets, set, &err);
    uint64_t cleared = set->cleared_ms;
    struct set_change expire = {.meta = true, .version = {f.mesh.wall_ms + 10, 0}, .expires_ms = f.mesh.wall_ms + 999};
    fake_put(&f.mesh, "s", &expire);
    commit(&f);
    pass(&f, 0);
    const struct fake_record *last = TAILQ_LAST(&f.mesh.given, fake_records);
    assert_true(last->change.meta);
    assert_int_equal(last->change.cleared_ms, cleared);
    assert_true(last->change.version.epoch >= cleared);
    assert_int_equal(last->change.expires_ms, expire.expires_ms);
    assert_true(dht_version_compare(&last->change.version, &expire.version) > 0);
    end(&f);
}

static void test_sets__a_set_without_members_forgets_its_end(void **state)
{
    (void)state;
    struct fixture f;
    struct err err;
    begin(&f);
    struct set *set = open_set(&f, "s");
    put(&f, set, "a", 1);
    sets_expire(f.sets, set, f.mesh.wall_ms + 1000, &err);
    take(&f, set, "a");
    put(&f, set, "b", 1);
    assert_int_equal(sets_ttl_ms(f.sets, set), -1);
    pass(&f, 2000);
    check_members(open_set(&f, "s"), "b=1");
    end(&f);
}

static void test_sets__what_others_overwrote_is_not_kept(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    struct set *set = open_set(&f, "s");
    put(&f, set, "a", 1);
    put(&f, set, "b", 1);
    commit(&f);
    fake_put_member(&f.mesh, "s", "a", 9, f.mesh.wall_ms + 1);
    check_members(set, "b=1 a=9");
    commit(&f);
    stop(&f);
    size_t given = f.mesh.given_count;
    start(&f);
    pass(&f, 0);
    assert_int_equal(f.mesh.given_count - given, 1);
    end(&f);
}

static void test_sets__unused_sets_go(void **state)
{
    (void)state;
    struct fixture f;
    struct sets_stats stats;
    begin(&f);
    fake_put_member(&f.mesh, "theirs", "a", 1, 10);
    fake_put_member(&f.mesh, "both", "a", 1, 10);
    open_set(&f, "theirs");
    put(&f, open_set(&f, "both"), "b", 2);
    pass(&f, 599000);
    assert_int_equal(f.mesh.open_count, 2);
    pass(&f, 2000);
    assert_int_equal(f.mesh.open_count, 0);
    sets_stats(f.sets, &stats);
    assert_int_equal(stats.sets, 1);
    assert_int_equal(stats.members, 1);
    check_members(open_set(&f, "both"), "a=1 b=2");
    check_members(open_set(&f, "theirs"), "a=1");
    end(&f);
}

static void test_sets__makes_room_for_another_watch(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    f.mesh.open_max = 2;
    open_set(&f, "one");
    f.mono_ms += 2000;
    open_set(&f, "two");
    f.mono_ms += 2000;
    open_set(&f, "three");
    assert_int_equal(f.mesh.open_count, 2);
    assert_int_equal(f.mesh.opened_ever, 3);
    open_set(&f, "two");
    assert_int_equal(f.mesh.opened_ever, 3);
    open_set(&f, "one");
    assert_int_equal(f.mesh.opened_ever, 4);
    end(&f);
}

static void test_sets__many_are_read_in_turns(void **state)
{
    (void)state;
    struct fixture f;
    struct set *set;
    begin(&f);
    for (int i = 0; i < 500; i++) {
        char name[16];
        snprintf(name, sizeof name, "set%d", i);
        assert_int_equal(want(&f, name, &set), SETS_WAIT);
    }
    assert_true(f.mesh.open_count <= 64);
    fake_mesh_run(&f.mesh);
    assert_int_equal(f.mesh.opened_ever, 500);
    assert_int_equal(want(&f, "set499", &set), SETS_READY);
    end(&f);
}

static void test_sets__old_tombstones_go(void **state)
{
    (void)state;
    struct fixture f;
    struct sets_stats stats;
    begin(&f);
    struct set *set = open_set(&f, "s");
    put(&f, set, "a", 1);
    put(&f, set, "b", 1);
    take(&f, set, "a");
    for (int i = 0; i < 6; i++)
        pass(&f, 24 * 3600000);
    sets_stats(f.sets, &stats);
    assert_int_equal(stats.members, 2);
    pass(&f, 25 * 3600000);
    sets_stats(f.sets, &stats);
    assert_int_equal(stats.members, 1);
    stop(&f);
    start(&f);
    sets_stats(f.sets, &stats);
    assert_int_equal(stats.members, 1);
    end(&f);
}

static void test_sets__a_full_disk(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    struct set *set = open_set(&f, "s");
    f.disk->status = ERR_NOSPACE;
    put(&f, set, "a", 1);
    sets_commit(f.sets);
    disk_run(f.disk);
    assert_int_equal(f.commit_status, ERR_NOSPACE);
    assert_string_equal(sets_failure(f.sets)->text, "the disk is full");
    assert_int_equal(f.mesh.given_count, 0);
    f.disk->status = 0;
    pass(&f, 1000);
    assert_null(sets_failure(f.sets));
    assert_int_equal(f.commit_status, 0);
    assert_int_equal(f.mesh.given_count, 1);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets__reads_once_and_stays_live),
        cmocka_unit_test(test_sets__waits_two_seconds),
        cmocka_unit_test(test_sets__answers_from_what_it_knows),
        cmocka_unit_test(test_sets__writes_are_durable_then_said),
        cmocka_unit_test(test_sets__says_all_again_after_a_restart),
        cmocka_unit_test(test_sets__tries_again_what_the_mesh_would_not_take),
        cmocka_unit_test(test_sets__order_within_a_millisecond),
        cmocka_unit_test(test_sets__clears_what_faster_clocks_wrote),
        cmocka_unit_test(test_sets__clearing_is_not_undone),
        cmocka_unit_test(test_sets__a_set_without_members_forgets_its_end),
        cmocka_unit_test(test_sets__what_others_overwrote_is_not_kept),
        cmocka_unit_test(test_sets__unused_sets_go),
        cmocka_unit_test(test_sets__makes_room_for_another_watch),
        cmocka_unit_test(test_sets__many_are_read_in_turns),
        cmocka_unit_test(test_sets__old_tombstones_go),
        cmocka_unit_test(test_sets__a_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
