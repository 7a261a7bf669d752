#include "node/mesh/scrub.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

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
};

static void on_step(void *ctx, bool is_over, const struct err *why)
{
    struct rig *rig = ctx;
    rig->steps++;
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
    assert_int_equal(
        scrub_new(rig->store, work_jobs(rig->work), clock_system(), &rig->loop, NULL, 0, &rig->scrub, &err), 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_scrub__a_pass_that_fails_is_over, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
