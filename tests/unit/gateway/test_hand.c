/* Writes of the local API, on a node that is alone. */
#include "node/gateway/hand.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "node/base/limits.h"
#include "tests/unit/gateway/disk.h"

struct rig {
    uv_loop_t loop;
    struct crypto_sign_key key;
    struct dht *dht;
    struct registry *registry;
    struct disk *disk;
    struct sets *sets;
    struct hands *hands;
    /* of the last write that ended */
    unsigned ended;
    int status;
    size_t holders;
    struct err err;
};

static uint64_t now_ms(void)
{
    struct clock clock = clock_system();
    return clock_mono_ms(&clock);
}

static void send_nothing(void *ctx, const struct dht_contact *to, const uint8_t *bytes, size_t len)
{
    (void)ctx, (void)to, (void)bytes, (void)len;
}

static void on_dht_changed(void *ctx)
{
    (void)ctx;
}

static void on_ready(void *ctx)
{
    (void)ctx;
}

static void on_committed(void *ctx, int status, const struct err *err)
{
    (void)ctx, (void)status, (void)err;
}

static void on_done(void *ctx, int status, const struct err *err, size_t holders)
{
    struct rig *rig = ctx;
    rig->ended++;
    rig->status = status;
    rig->holders = holders;
    if (err)
        rig->err = *err;
}

static void setup(struct rig *rig)
{
    struct clock clock = clock_system();
    *rig = (struct rig){.disk = calloc(1, sizeof *rig->disk)};
    assert_int_equal(crypto_init(NULL), 0);
    crypto_sign_keygen(&rig->key);
    struct dht_config dht = {.public_key = rig->key.public_key,
                             .signatures = dht_signatures_ed25519(&rig->key),
                             .now_ms = now_ms(),
                             .wall_ms = clock_wall_ms(&clock),
                             .rng = rng_system(),
                             .send = send_nothing};
    assert_int_equal(dht_new(&dht, &rig->dht, NULL), 0);
    struct registry_config registry = {.dht = rig->dht, .changed = on_dht_changed, .clock = clock, .rng = rng_system()};
    assert_int_equal(registry_new(&registry, &rig->registry, NULL), 0);
    struct sets_config sets = {.mesh = registry_sets(rig->registry),
                               .disk = disk_of(rig->disk),
                               .jobs = disk_jobs(rig->disk),
                               .clock = clock,
                               .ready = on_ready,
                               .committed = on_committed,
                               .ctx = rig};
    assert_int_equal(sets_new(&sets, &rig->sets, NULL), 0);
    assert_int_equal(hands_new(rig->sets, rig->registry, clock, &rig->hands, NULL), 0);
    uv_loop_init(&rig->loop);
    hands_start(rig->hands, &rig->loop);
}

/* Everything but the disk, which the test runs. */
static void turn(struct rig *rig)
{
    dht_tick(rig->dht, now_ms());
    sets_tick(rig->sets);
    uv_run(&rig->loop, UV_RUN_ONCE);
}

static void run(struct rig *rig, unsigned ended, bool disk)
{
    for (uint64_t end_ms = now_ms() + 8000; rig->ended < ended && now_ms() < end_ms;) {
        turn(rig);
        if (disk)
            disk_run(rig->disk);
    }
    assert_int_equal(rig->ended, ended);
}

static void teardown(struct rig *rig)
{
    hands_close(rig->hands);
    sets_close(rig->sets);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    while (disk_run(rig->disk))
        continue;
    assert_true(hands_closed(rig->hands));
    hands_free(rig->hands);
    sets_free(rig->sets);
    registry_free(rig->registry);
    dht_free(rig->dht);
    disk_free(rig->disk);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
}

static int write_one(struct rig *rig, const char *member, bool removes, double score)
{
    struct hand_wish wish = {.set = "set", .member = member, .removes = removes, .score = score};
    return hands_write(rig->hands, &wish, on_done, rig, &rig->err);
}

/* Durable, and no other node is there to take it. */
static void test_hand__puts_and_removes(void **state)
{
    (void)state;
    struct rig rig;
    struct set *set;
    setup(&rig);
    assert_int_equal(write_one(&rig, "a", false, 1.5), 0);
    assert_int_equal(rig.ended, 0);
    run(&rig, 1, true);
    assert_int_equal(rig.status, 0);
    assert_int_equal(rig.holders, 0);
    assert_int_equal(sets_want(rig.sets, "set", 3, &set), SETS_READY);
    assert_true(set_find(set, "a", 1)->score == 1.5);
    assert_true(sets_durable(rig.sets) >= 1);
    assert_int_equal(write_one(&rig, "a", true, 0), 0);
    run(&rig, 2, true);
    assert_int_equal(rig.status, 0);
    assert_null(set_find(set, "a", 1));
    assert_int_equal(write_one(&rig, "a", true, 0), 0);
    run(&rig, 3, true);
    assert_int_equal(rig.status, ERR_NOTFOUND);
    teardown(&rig);
}

/* No answer says that it is written before the disk has it. */
static void test_hand__waits_for_the_disk(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    assert_int_equal(write_one(&rig, "a", false, 1), 0);
    for (uint64_t end_ms = now_ms() + 2000; now_ms() < end_ms;)
        turn(&rig);
    assert_int_equal(rig.ended, 0);
    run(&rig, 1, true);
    assert_int_equal(rig.status, 0);
    teardown(&rig);
}

static void test_hand__ends_with_the_node(void **state)
{
    (void)state;
    struct rig rig;
    setup(&rig);
    assert_int_equal(write_one(&rig, "a", false, 1), 0);
    turn(&rig);
    assert_int_equal(write_one(&rig, "b", false, 1), 0);
    teardown(&rig);
    assert_int_equal(rig.ended, 2);
    assert_int_equal(rig.status, ERR_CANCELLED);
}

static void test_hand__refuses(void **state)
{
    (void)state;
    struct rig rig;
    char name[LIMIT_SET_NAME_BYTES + 2];
    setup(&rig);
    assert_int_equal(write_one(&rig, "", false, 1), ERR_INVALID);
    assert_int_equal(write_one(&rig, "a", false, NAN), ERR_INVALID);
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    struct hand_wish wish = {.set = name, .member = "a"};
    assert_int_equal(hands_write(rig.hands, &wish, on_done, &rig, &rig.err), ERR_INVALID);
    name[LIMIT_SET_MEMBER_BYTES + 1] = '\0';
    assert_int_equal(write_one(&rig, name, false, 1), ERR_INVALID);
    unsigned taken = 0;
    while (taken < 10000 && write_one(&rig, "a", false, taken) == 0)
        taken++;
    assert_in_range(taken, 8, 1000);
    assert_int_equal(write_one(&rig, "a", false, 1), ERR_LIMIT);
    teardown(&rig);
    assert_int_equal(rig.ended, taken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hand__puts_and_removes),
        cmocka_unit_test(test_hand__waits_for_the_disk),
        cmocka_unit_test(test_hand__ends_with_the_node),
        cmocka_unit_test(test_hand__refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
