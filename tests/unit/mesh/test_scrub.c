#include "node/mesh/scrub.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/net/work.h"

#define WAIT_MS 5000

struct rig {
    char dir[32];
    uv_loop_t loop;
    struct work *work;   /* owned */
    struct store *store; /* owned */
    struct scrub *scrub; /* owned */
    uv_timer_t guard;
    struct scrub_watch watch;
    int steps;
    int ends;
    int end_code;
    uint64_t now_ms; /* the scrub's monotonic clock, beside the true one */
};

static uint64_t now_of(void *ctx)
{
    struct rig *rig = ctx;
    return rig->now_ms;
}

/* ---- what fetches, in place of content.c ---- */

struct content_fetch {
    struct content_wish wish;
};

#define TRIES_MAX 32

static struct fetches {
    struct content_fetch *running[8]; /* owned */
    struct id tries[TRIES_MAX];
    int count;
    struct id given; /* the only object that anybody has */
} fetches;

int content_fetch(struct content *content, const struct content_wish *wish, struct content_fetch **ret_fetch,
                  struct err *err)
{
    (void)content;
    if (fetches.count == TRIES_MAX)
        return err_set(err, ERR_LIMIT, "tried too often");
    fetches.tries[fetches.count++] = wish->digest;
    for (int i = 0; i < 8; i++) {
        if (fetches.running[i])
            continue;
        *ret_fetch = fetches.running[i] = calloc(1, sizeof **ret_fetch);
        fetches.running[i]->wish = *wish;
        return 0;
    }
    return err_set(err, ERR_LIMIT, "too much at once");
}

static void end_fetches(void)
{
    struct exchange_stats stats = {0};
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "nobody has it");
    for (int i = 0; i < 8; i++) {
        struct content_fetch *fetch = fetches.running[i];
        fetches.running[i] = NULL;
        if (fetch) {
            bool found = id_equal(&fetch->wish.digest, &fetches.given);
            fetch->wish.on_done(fetch->wish.ctx, found ? 0 : ERR_UNAVAILABLE, &err, &stats);
        }
        free(fetch);
    }
}

static int tries_of(const struct id *digest)
{
    int count = 0;
    for (int i = 0; i < fetches.count; i++)
        count += id_equal(&fetches.tries[i], digest);
    return count;
}

/* ---- the rig ---- */

static void on_step(void *ctx, bool is_over, const struct err *why)
{
    struct rig *rig = ctx;
    rig->steps++;
    end_fetches();
    if (is_over) {
        rig->ends++;
        rig->end_code = why ? why->code : 0;
        uv_stop(&rig->loop);
    }
}

static void on_guard(uv_timer_t *guard)
{
    uv_stop(guard->loop);
}

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    struct err err = {0};
    assert_int_equal(crypto_init(&err), 0);
    strcpy(rig->dir, "/tmp/cmig-scrub-XXXXXX");
    assert_non_null(mkdtemp(rig->dir));
    struct store_options options = {.dir = rig->dir, .clock = clock_system()};
    assert_int_equal(store_open(&options, &rig->store, &err), 0);
    uv_loop_init(&rig->loop);
    assert_int_equal(work_new(&rig->loop, &rig->work, &err), 0);
    rig->now_ms = 1000000;
    struct clock clock = {now_of, now_of, rig};
    assert_int_equal(scrub_new(rig->store, work_jobs(rig->work), clock, &rig->loop, NULL, 0, &rig->scrub, &err), 0);
    fetches = (struct fetches){0};
    uv_timer_init(&rig->loop, &rig->guard);
    rig->watch = (struct scrub_watch){.on_step = on_step, .ctx = rig};
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    struct err err;
    scrub_close(rig->scrub);
    uv_close((uv_handle_t *)&rig->guard, NULL);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    scrub_free(rig->scrub);
    work_free(rig->work);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    store_close(rig->store);
    file_remove_tree(rig->dir, &err);
    free(rig);
    return 0;
}

/* Until the pass is over; how often it was, which is once. */
static int hurry(struct rig *rig)
{
    rig->ends = rig->steps = 0;
    scrub_hurry(rig->scrub, &rig->watch);
    uv_timer_start(&rig->guard, on_guard, WAIT_MS, 0);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    uv_timer_stop(&rig->guard);
    return rig->ends;
}

/* faults 55: who waits is told that it cannot be, and not kept waiting; the next pass is one like any other. */
static void test_scrub__a_pass_that_fails_is_over(void **state)
{
    struct rig *rig = *state;
    struct scrub_status status;
    struct rlimit before;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit none = {0, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    int ends = hurry(rig);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(ends, 1);
    assert_true(rig->end_code < 0);
    scrub_get_status(rig->scrub, &status);
    assert_false(status.hurries);

    assert_int_equal(hurry(rig), 1);
    assert_int_equal(rig->end_code, 0);
    scrub_get_status(rig->scrub, &status);
    assert_int_equal(status.store.passes, 1);
    assert_false(status.hurries);
}

/* An object that was complete here, and whose pack has been cut short; its digest. */
static struct id make_broken(struct rig *rig, unsigned n)
{
    struct err err = {0};
    struct store_ingest *ingest;
    struct store_object_info info;
    uint8_t byte;
    size_t len;
    char path[96];
    snprintf(path, sizeof path, "%s/packs/%016x.pack", rig->dir, n); /* the former ones are written no more */
    assert_int_equal(store_ingest_new(rig->store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, &err), 0);
    assert_int_equal(store_ingest_write(ingest, &n, sizeof n, &err), 0);
    assert_int_equal(store_ingest_finish(ingest, &info, &err), 0);
    store_ingest_free(ingest);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(ftruncate(fd, 0), 0);
    close(fd);
    assert_int_equal(store_object_read(rig->store, &info.digest, 0, &byte, 1, &len, &err), ERR_CORRUPT);
    return info.digest;
}

/* A pass, and a turn more, so that what has ended in it is known. */
static void pass(struct rig *rig, uint64_t after_ms)
{
    rig->now_ms += after_ms;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(hurry(rig), 1);
        end_fetches();
    }
}

/* An object that nobody has is asked for less and less often, and keeps none from being repaired when it can be. */
static void test_scrub__each_repair_is_put_off_for_itself(void **state)
{
    struct rig *rig = *state;
    struct scrub_status status;
    struct id hopeless = make_broken(rig, 1);
    pass(rig, 0);
    assert_int_equal(tries_of(&hopeless), 1);
    struct id other = make_broken(rig, 2);
    pass(rig, 10000);
    assert_int_equal(tries_of(&other), 1); /* at once, though the first waits */
    assert_int_equal(tries_of(&hopeless), 1);
    pass(rig, 50000);
    assert_int_equal(tries_of(&other), 1);
    assert_int_equal(tries_of(&hopeless), 2);
    fetches.given = other;
    pass(rig, 10000);
    assert_int_equal(tries_of(&other), 2);
    scrub_get_status(rig->scrub, &status);
    assert_int_equal(status.repaired, 1);
    assert_int_equal(store_partial_drop(rig->store, &other, NULL), 1); /* complete, as far as anybody can tell */
    pass(rig, 100000); /* two minutes are not over: that one was repaired does not help the other */
    assert_int_equal(tries_of(&hopeless), 2);
    pass(rig, 10000);
    assert_int_equal(tries_of(&hopeless), 3);
    assert_int_equal(tries_of(&other), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_scrub__a_pass_that_fails_is_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_scrub__each_repair_is_put_off_for_itself, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
