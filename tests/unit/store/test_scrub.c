/* The scrub: one pass looks at every piece, finds what nobody has asked for, and survives its process. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fixture.h"
#include "store/pack.h"
#include "store/scrub.h"

#define BYTES 3000000u

static void flip(const struct fixture *f, uint64_t at)
{
    OWNED(owned_free) char *path = file_path("%s/packs/%016x.pack", f->dir, 1);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

static struct store_scrub status_of(const struct fixture *f)
{
    struct store_scrub scrub;
    store_scrub_status(f->store, &scrub);
    return scrub;
}

/* To the end of a pass; the number of steps. */
static int run_pass(const struct fixture *f, uint64_t want_bytes)
{
    struct err err = {0};
    uint64_t passes = status_of(f).passes;
    int steps = 1;
    int more;
    while ((more = store_scrub_step(f->store, want_bytes, NULL, &err)) == 1)
        steps++;
    must(more);
    assert_int_equal(status_of(f).passes, passes + 1);
    return steps;
}

static void test_scrub__a_sound_store_stays_as_it_is(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    assert_int_equal(run_pass(f, 1), 1); /* an empty one */
    uint8_t *bytes = fixture_bytes(1, BYTES);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    f->wall_ms += 1000;
    uint64_t began_ms = f->wall_ms;
    struct store_scrub scrub;
    uint32_t permille = 0;
    int more = 1;
    for (int i = 0; i < 10; i++) {
        more = store_scrub_step(f->store, 100000, &scrub, &err);
        assert_int_equal(more, 1);
        assert_int_equal(scrub.started_ms, began_ms);
        assert_true(scrub.permille >= permille && scrub.permille < 1000);
        permille = scrub.permille;
    }
    assert_in_range(scrub.bytes, 1000000, 10 * (100000 + LIMIT_CHUNK_BYTES + 64));
    f->wall_ms += 1000;
    run_pass(f, UINT64_MAX);
    scrub = status_of(f);
    assert_int_equal(scrub.passes, 2);
    assert_int_equal(scrub.last_started_ms, began_ms);
    assert_int_equal(scrub.last_finished_ms, began_ms + 1000);
    assert_int_equal(scrub.last_bad + scrub.started_ms + scrub.bytes + scrub.pieces + scrub.permille, 0);
    assert_int_equal(store_rot_waiting(f->store), 0);
    fixture_expect(f->store, &info.digest, bytes, BYTES);
    free(bytes);
}

/* faults 56: in steps of one piece, of some, of all */
static void test_scrub__finds_rot_that_nobody_asked_for(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(2, BYTES);
    static const uint64_t steps[] = {1, 300000, UINT64_MAX};
    for (int i = 0; i < 3; i++) {
        struct store_object_info info;
        fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
        flip(f, 700000);
        flip(f, 2000000);
        struct store_scrub scrub;
        while (store_scrub_step(f->store, steps[i], &scrub, &err) == 1)
            continue;
        scrub = status_of(f);
        assert_int_equal(scrub.last_bad, 2);
        assert_int_equal(store_object_stat(f->store, &info.digest, NULL, &err), 1); /* not traced yet */
        assert_int_equal(store_rot_take(f->store, NULL, NULL, &err), 2);
        assert_int_equal(store_object_stat(f->store, &info.digest, NULL, &err), 0);
        assert_int_equal(store_partial_drop(f->store, &info.digest, &err), 1);
        store_close(f->store);
        f->store = NULL;
        must(file_remove_tree(f->dir, &err));
        fixture_open(f);
    }
    free(bytes);
}

/* The bytes are sound, what stands before them is not: fsck would not find them. Nothing has to be fetched for that. */
static void test_scrub__mends_heads(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(3, BYTES);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    struct store_recipe *recipe = fixture_recipe(f->store, &info.digest);
    uint64_t second = STORE_RECORD_HEAD_BYTES + recipe->chunks[0].length;
    uint64_t end = 0;
    for (uint32_t i = 0; i < recipe->root.chunk_count; i++)
        end += STORE_RECORD_HEAD_BYTES + recipe->chunks[i].length;
    uint64_t root =
        end + STORE_RECORD_HEAD_BYTES + STORE_LEAF_HEAD_BYTES + recipe->root.chunk_count * STORE_LEAF_ENTRY_BYTES;
    flip(f, 3);
    flip(f, second + 20);
    flip(f, root + 57);
    store_close(f->store);
    f->store = NULL;
    struct store_fsck_report report;
    assert_int_equal(store_fsck(f->dir, false, f->options.clock, &report, NULL, NULL, &err), 0);
    fixture_open(f);
    run_pass(f, UINT64_MAX);
    assert_int_equal(store_rot_waiting(f->store), 0);
    store_close(f->store);
    f->store = NULL;
    assert_int_equal(store_fsck(f->dir, false, f->options.clock, &report, NULL, NULL, &err), 1);
    fixture_open(f);
    fixture_expect(f->store, &info.digest, bytes, BYTES);
    store_recipe_free(recipe);
    free(bytes);
}

/* A disk that takes nothing any more: what can be read is looked at all the same. */
static void test_scrub__what_cannot_be_mended_does_not_hold_it_up(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(3, BYTES);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    store_scrub_step(f->store, 1, NULL, &err);
    flip(f, 3);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit none = {0, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    int more = 1;
    for (uint32_t i = 0; i < info.chunk_count && more == 1; i++)
        more = store_scrub_step(f->store, 1, NULL, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    must(more);
    assert_int_equal(status_of(f).mended, 0);
    run_pass(f, UINT64_MAX);
    run_pass(f, UINT64_MAX);
    store_close(f->store);
    f->store = NULL;
    struct store_fsck_report report;
    assert_int_equal(store_fsck(f->dir, false, f->options.clock, &report, NULL, NULL, &err), 1);
    fixture_open(f);
    free(bytes);
}

static void test_scrub__goes_on_after_a_restart(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(4, BYTES);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    struct store_scrub before;
    for (int i = 0; i < 20; i++)
        assert_int_equal(store_scrub_step(f->store, 1, &before, &err), 1);
    assert_int_equal(before.pieces, 20);
    fixture_reopen(f);
    struct store_scrub after = status_of(f);
    assert_int_equal(after.pieces, 20);
    assert_int_equal(after.started_ms, before.started_ms);
    assert_int_equal(after.permille, before.permille);
    uint64_t left = info.chunk_count + 2 - 20;
    assert_int_equal(run_pass(f, 1), left + 1);

    assert_int_equal(store_scrub_step(f->store, 1, &before, &err), 1);
    must(store_scrub_restart(f->store, &err));
    after = status_of(f);
    assert_int_equal(after.pieces, 0);
    assert_int_equal(after.passes, 1);
    assert_int_equal(run_pass(f, 1), info.chunk_count + 2 + 1);
    free(bytes);
}

/* ---- threads ---- */

struct crowd {
    struct fixture *f;
    atomic_bool done;
};

struct member {
    struct crowd *crowd;
    uint64_t seed;
};

static void *put_and_remove(void *arg)
{
    struct member *member = arg;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(member->seed, 1000000);
    for (int i = 0; i < 25; i++) {
        struct store_object_info info;
        bytes[500000] = (uint8_t)i;
        fixture_put(member->crowd->f->store, STORE_BLOB, bytes, 1000000 - (size_t)i * 1000, &info);
        assert_int_equal(store_object_remove(member->crowd->f->store, &info.digest, &err), 1);
    }
    free(bytes);
    return NULL;
}

static void *scrub_on(void *arg)
{
    struct member *member = arg;
    while (!member->crowd->done) {
        struct err err = {0};
        int more = store_scrub_step(member->crowd->f->store, 300000, NULL, &err);
        assert_true(more >= 0 || more == ERR_BUSY);
    }
    return NULL;
}

/* What is freed under the scrub's eyes is not rot. */
static void test_scrub__takes_nothing_that_comes_and_goes_for_rot(void **state)
{
    struct crowd crowd = {.f = *state};
    struct err err = {0};
    crowd.f->options.pack_bytes = 1500000; /* packs come and go too */
    fixture_reopen(crowd.f);
    uint8_t *bytes = fixture_bytes(99, BYTES);
    struct store_object_info info;
    fixture_put(crowd.f->store, STORE_BLOB, bytes, BYTES, &info);
    struct member members[4];
    pthread_t threads[4];
    for (uint64_t i = 0; i < 4; i++) {
        members[i] = (struct member){&crowd, 1 + i / 2}; /* the writers' objects share chunks */
        pthread_create(&threads[i], NULL, i % 2 ? scrub_on : put_and_remove, &members[i]);
    }
    pthread_join(threads[0], NULL);
    pthread_join(threads[2], NULL);
    crowd.done = true;
    pthread_join(threads[1], NULL);
    pthread_join(threads[3], NULL);
    run_pass(crowd.f, UINT64_MAX);
    struct store_scrub scrub = status_of(crowd.f);
    assert_true(scrub.passes > 1);
    assert_int_equal(scrub.last_bad, 0);
    assert_int_equal(store_rot_take(crowd.f->store, NULL, NULL, &err), 0);
    fixture_expect(crowd.f->store, &info.digest, bytes, BYTES);
    assert_int_equal(store_object_remove(crowd.f->store, &info.digest, &err), 1);
    assert_int_equal(fixture_pack_bytes(crowd.f->store), 0);
    free(bytes);
}

static void test_scrub__its_row_is_as_written(void **state)
{
    (void)state;
    struct store_scrub_mark mark = {
        .type = STORE_PIECE_LEAF, .id = {{7, 8, 9}}, .now = {1, 2, 3, 4, 5, 6, 7, 8, 9, .permille = 999}};
    uint8_t row[STORE_SCRUB_ROW_BYTES + 1];
    store_scrub_encode(&mark, row);
    struct store_scrub_mark back;
    memset(&back, 0, sizeof back);
    for (size_t len = 0; len <= sizeof row; len++)
        assert_int_equal(store_scrub_decode(row, len, &back), len == STORE_SCRUB_ROW_BYTES);
    assert_int_equal(back.type, mark.type);
    assert_true(id_equal(&back.id, &mark.id));
    assert_memory_equal(&back.now, &mark.now, offsetof(struct store_scrub, permille));
    assert_int_equal(back.now.permille, 999);
    row[0] = 4;
    assert_false(store_scrub_decode(row, STORE_SCRUB_ROW_BYTES, &back));
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_scrub__a_sound_store_stays_as_it_is),
        on_store(test_scrub__finds_rot_that_nobody_asked_for),
        on_store(test_scrub__mends_heads),
        on_store(test_scrub__what_cannot_be_mended_does_not_hold_it_up),
        on_store(test_scrub__goes_on_after_a_restart),
        on_store(test_scrub__takes_nothing_that_comes_and_goes_for_rot),
        cmocka_unit_test(test_scrub__its_row_is_as_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
