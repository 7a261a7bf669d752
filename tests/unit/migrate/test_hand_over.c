/*
 * Source and destination against each other in one process, with real containers: time, jobs and messages are events of
 * one queue, so that each message can be lost, doubled or cut off, and each side killed between any two events.
 * CMIG_SWEEP=all tries each of them; without it some, so that the test stays short.
 */
#include "tests/unit/runtime/containers.h"

#include "node/migrate/state.h"

#define PATIENCE_MS 400000 /* virtual: after that it should be at rest */
#define RESEND_MS 500
#define CUT_MS 15000 /* longer than anybody waits before the commit */
#define COUNTER_ALL "i=0; while :; do i=$((i+1)); echo $i >>/data/all; sleep 0.02; done"

struct world;

struct side {
    struct world *world;
    struct peer *peer;
    struct migrate *migrate;
    struct id id;
    struct crypto_sign_key key;
    unsigned life; /* one higher with each kill: what belongs to an earlier one is void */
};

enum trouble { NONE, LOSE, DOUBLE, CUT, KILL_SOURCE, KILL_TARGET, CANCEL, KILL_PREPARED };
static const char *const trouble_names[] = {
    "nothing",         "a lost message",       "a doubled request",  "a cut",
    "a killed source", "a killed destination", "a client that left", "a destination killed when prepared"};

struct event {
    uint64_t due_ms;
    uint64_t number;
    struct side *side; /* NULL: nobody's kill undoes it */
    unsigned life;
    void (*cb)(void *ctx);
    void *ctx;
};

struct world {
    struct machine *machine;
    struct side sides[2];
    uint64_t now_ms;
    uint64_t numbers;
    struct event events[1 << 14];
    size_t count;
    enum trouble trouble;
    uint64_t at, messages, steps; /* the message, or the event, that it befalls */
    uint64_t cut_until_ms;
    struct side *source;
    struct guid migration;
    unsigned compared;  /* fetches that were told of a basis */
    const char *policy; /* what the user has asked for; NULL: nothing */
    unsigned by_policy; /* fetches that were told of it */
    bool done;
    struct err err;
};

/* Their argument is lost with a kill: what a killed process has in memory is nobody's. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:on_admit\nleak:fake_call\nleak:fake_fetch\nleak:fake_submit\nleak:deliver\n";
}

/* ---- time ---- */

static void at(struct world *world, struct side *side, uint64_t delay_ms, void (*cb)(void *ctx), void *ctx)
{
    assert_true(world->count < sizeof world->events / sizeof world->events[0]);
    world->events[world->count++] = (struct event){.due_ms = world->now_ms + delay_ms,
                                                   .number = world->numbers++,
                                                   .side = side,
                                                   .life = side ? side->life : 0,
                                                   .cb = cb,
                                                   .ctx = ctx};
}

static struct event take_next(struct world *world)
{
    size_t best = 0;
    for (size_t i = 1; i < world->count; i++) {
        const struct event *one = &world->events[i], *other = &world->events[best];
        if (one->due_ms < other->due_ms || (one->due_ms == other->due_ms && one->number < other->number))
            best = i;
    }
    struct event event = world->events[best];
    world->events[best] = world->events[--world->count];
    world->now_ms = event.due_ms > world->now_ms ? event.due_ms : world->now_ms;
    return event;
}

static uint64_t fake_now(void *ctx)
{
    const struct world *world = ctx;
    return world->now_ms;
}

/* ---- jobs ---- */

struct fake_job {
    struct side *side;
    job_work_cb work;
    job_done_cb done;
    void *arg;
};

static void job_ends(void *ctx)
{
    struct fake_job *job = ctx;
    job->done(job->arg);
    free(job);
}

static void job_works(void *ctx)
{
    struct fake_job *job = ctx;
    job->work(job->arg);
    at(job->side->world, job->side, 1, job_ends, job);
}

static void fake_submit(void *ctx, job_work_cb work, job_done_cb done, void *arg)
{
    struct side *side = ctx;
    struct fake_job *job = malloc(sizeof *job);
    *job = (struct fake_job){side, work, done, arg};
    at(side->world, side, 1, job_works, job);
}

/* ---- calls ---- */

struct fake_call {
    struct side *from, *to;
    unsigned from_life;
    char method[32];
    json_t *body;
    uint64_t deadline_ms;
    migrate_reply_cb reply;
    void *ctx;
    bool over;
    /* of the answer on its way */
    json_t *answer;
    struct err err;
};

static bool is_lost(struct world *world)
{
    uint64_t number = ++world->messages;
    if (number == world->at && world->trouble == CUT)
        world->cut_until_ms = world->now_ms + CUT_MS;
    return world->now_ms < world->cut_until_ms || (number == world->at && world->trouble == LOSE);
}

static void deliver(void *ctx);

static void answer_arrives(void *ctx)
{
    struct fake_call *call = ctx;
    if (call->over || call->from->life != call->from_life)
        return;
    call->over = true;
    call->reply(call->ctx, call->err.code, call->err.code ? &call->err : NULL, call->answer);
}

static void time_is_up(void *ctx)
{
    struct fake_call *call = ctx;
    if (call->over)
        return;
    err_set(&call->err, ERR_UNAVAILABLE, "no link comes up");
    json_decref(call->answer);
    call->answer = NULL;
    answer_arrives(call);
}

/* Ends the life of a call: nothing refers to it any more. */
static void bury(void *ctx)
{
    struct fake_call *call = ctx;
    json_decref(call->body);
    json_decref(call->answer);
    free(call);
}

static void send_back(struct fake_call *call)
{
    struct world *world = call->from->world;
    if (is_lost(world))
        at(world, NULL, RESEND_MS, deliver, call);
    else
        at(world, NULL, 1, answer_arrives, call);
}

static void fake_reply(void *ctx, json_t *reply)
{
    struct fake_call *call = ctx;
    if (call->answer || call->over) {
        json_decref(reply); /* of a doubled request */
        return;
    }
    call->answer = reply;
    err_clear(&call->err);
    send_back(call);
}

static void fake_refuse(void *ctx, const struct err *err)
{
    struct fake_call *call = ctx;
    if (call->answer || call->over)
        return;
    call->err = *err;
    send_back(call);
}

static void deliver(void *ctx)
{
    struct fake_call *call = ctx;
    struct world *world = call->from->world;
    if (call->over || world->now_ms >= call->deadline_ms)
        return;
    if (is_lost(world) || !call->to->migrate) {
        at(world, NULL, RESEND_MS, deliver, call);
        return;
    }
    json_decref(call->answer);
    call->answer = NULL;
    struct migrate_answer answer = {fake_reply, fake_refuse, call};
    bool twice = world->trouble == DOUBLE && world->messages == world->at;
    for (int i = 0; i < 1 + twice; i++)
        migrate_request(call->to->migrate, &call->from->id, call->from->key.public_key, call->method, call->body,
                        &answer);
}

/* A killed side answers nothing: the request is sent again when the link is back. */
static void send_again(void *ctx)
{
    struct fake_call *call = ctx;
    if (!call->over && !call->answer)
        deliver(call);
}

static void fake_call(void *ctx, const struct id *node, const char *method, json_t *body, uint64_t patience_ms,
                      migrate_reply_cb reply, void *reply_ctx)
{
    struct side *side = ctx;
    struct world *world = side->world;
    struct fake_call *call = calloc(1, sizeof *call);
    *call = (struct fake_call){.from = side,
                               .to = &world->sides[id_equal(node, &world->sides[1].id)],
                               .from_life = side->life,
                               .body = body,
                               .deadline_ms = world->now_ms + patience_ms,
                               .reply = reply,
                               .ctx = reply_ctx};
    snprintf(call->method, sizeof call->method, "%s", method);
    at(world, NULL, 1, deliver, call);
    at(world, NULL, 3000, send_again, call);
    at(world, NULL, patience_ms, time_is_up, call);
    at(world, NULL, 200000, bury, call);
}

/* ---- fetches: from store to store ---- */

struct fake_fetch {
    struct side *side;
    struct migrate_object object;
    migrate_fetch_done_cb done;
    void *ctx;
};

static int copy_object(struct store *from, struct store *to, const struct migrate_object *object, struct err *err)
{
    struct store_reader *reader = NULL;
    struct store_ingest *ingest = NULL;
    static char data[1 << 16];
    size_t len = 1;
    if (store_object_stat(to, &object->digest, NULL, NULL) == 1)
        return 0;
    int status = store_reader_open(from, &object->digest, &reader, err);
    if (status == 0)
        status = store_ingest_new(to, object->kind, STORE_CHUNKING_ARCHIVE, &ingest, err);
    while (status == 0 && len > 0) {
        status = store_reader_read(reader, data, sizeof data, &len, err);
        if (status == 0 && len > 0)
            status = store_ingest_write(ingest, data, len, err);
    }
    struct store_object_info info;
    if (status == 0)
        status = store_ingest_finish(ingest, &info, err);
    store_reader_close(reader);
    store_ingest_free(ingest);
    return status;
}

static void fetch_ends(void *ctx)
{
    struct fake_fetch *fetch = ctx;
    struct world *world = fetch->side->world;
    struct migrate_cost cost = {.fetched_bytes = fetch->object.size_bytes};
    struct err err = {0};
    int status = 0;
    if (fetch->done) {
        struct side *other = &world->sides[fetch->side == &world->sides[0]];
        if (world->now_ms < world->cut_until_ms)
            status = err_set(&err, ERR_UNAVAILABLE, "nobody sends");
        else
            status = copy_object(other->peer->store, fetch->side->peer->store, &fetch->object, &err);
        fetch->done(fetch->ctx, status, &err, &cost);
    }
    free(fetch);
}

static int fake_fetch(void *ctx, const struct migrate_wanted *wanted, migrate_fetch_progress_cb progress,
                      migrate_fetch_done_cb done, void *done_ctx, void **ret_handle, struct err *err)
{
    (void)progress;
    (void)err;
    struct side *side = ctx;
    struct fake_fetch *fetch = calloc(1, sizeof *fetch);
    /* what came in the first round is what the second is compared with, and by then the container stands still */
    assert_true(wanted->frozen || !wanted->basis);
    assert_true(!wanted->basis || store_object_stat(side->peer->store, wanted->basis, NULL, NULL) == 1);
    side->world->compared += wanted->basis != NULL;
    assert_int_equal(wanted->policy != NULL, side->world->policy != NULL);
    assert_true(!wanted->policy || strcmp(wanted->policy, side->world->policy) == 0);
    side->world->by_policy += wanted->policy != NULL;
    *fetch = (struct fake_fetch){side, *wanted->object, done, done_ctx};
    at(side->world, side, 5, fetch_ends, fetch);
    *ret_handle = fetch;
    return 0;
}

static void fake_fetch_cancel(void *ctx, void *handle)
{
    struct fake_fetch *fetch = handle;
    (void)ctx;
    fetch->done = NULL;
}

/* ---- the rest of what a migration needs ---- */

static void fake_publish(void *ctx, const struct migrate_object *object, const struct runtime_container *container,
                         struct store_version version)
{
    (void)ctx;
    (void)object;
    (void)container;
    (void)version;
}

static void fake_sign(void *ctx, const void *data, size_t len_bytes, uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES])
{
    struct side *side = ctx;
    crypto_signature_make(ret_signature, data, len_bytes, &side->key);
}

static void fake_after(void *ctx, uint64_t delay_ms, void (*cb)(void *cb_ctx), void *cb_ctx)
{
    struct side *side = ctx;
    at(side->world, side, delay_ms, cb, cb_ctx);
}

static const char *fake_name(void *ctx, const struct id *node, char *text, size_t text_size)
{
    struct side *side = ctx;
    snprintf(text, text_size, "%s", id_equal(node, &side->world->sides[0].id) ? "a" : "b");
    return text;
}

static void side_start(struct side *side)
{
    struct err err = {0};
    const struct migrate_config config = {
        .dir = side->peer->dir,
        .self = side->id,
        .store = side->peer->store,
        .runtime = side->peer->runtime,
        .jobs = {fake_submit, side},
        .clock = {.mono_ms = fake_now, .wall_ms = fake_now, .ctx = side->world},
        .ops = {fake_call, fake_fetch, fake_fetch_cancel, fake_publish, fake_sign, fake_after, fake_name, side},
    };
    ASSERT_OK(migrate_new(&config, &side->migrate, &err), err);
    ASSERT_OK(migrate_recover(side->migrate, &err), err);
}

static void side_kill(struct side *side)
{
    side->life++;
    migrate_free(side->migrate);
    side->migrate = NULL;
    peer_reopen(side->world->machine, side->peer);
    side_start(side);
}

/* ---- a run ---- */

static bool runs_at(const struct side *side)
{
    struct runtime_container *container = NULL;
    if (runtime_get(side->peer->runtime, "count", &container, NULL) < 0)
        return false;
    bool runs = container->state == RUNTIME_RUNNING;
    runtime_container_free(container);
    return runs;
}

static bool has_nothing(const struct side *side)
{
    return runtime_count(side->peer->runtime) == 0;
}

static bool journal_is_empty(const struct side *side)
{
    struct journal_row *rows = NULL;
    size_t count = 1;
    assert_int_equal(journal_all(side->peer->store, &rows, &count, NULL), 0);
    free(rows);
    return count == 0;
}

static bool is_prepared(const struct side *side)
{
    struct journal_row *rows = NULL;
    size_t count = 0;
    bool found = false;
    assert_int_equal(journal_all(side->peer->store, &rows, &count, NULL), 0);
    for (size_t i = 0; i < count; i++)
        found = found || (rows[i].side == JOURNAL_TARGET && rows[i].state == JOURNAL_PREPARED);
    free(rows);
    return found;
}

static bool is_at_rest(struct world *world)
{
    struct side *a = &world->sides[0], *b = &world->sides[1];
    bool one = (runs_at(a) && has_nothing(b)) || (runs_at(b) && has_nothing(a));
    return one && journal_is_empty(a) && journal_is_empty(b) && migrate_busy(a->migrate) == 0 &&
           migrate_busy(b->migrate) == 0;
}

static void on_done(void *ctx, const struct err *err, const json_t *report)
{
    struct world *world = ctx;
    (void)report;
    world->done = true;
    if (err)
        world->err = *err;
}

static void step(struct world *world)
{
    struct event event = take_next(world);
    if (event.side && event.side->life != event.life)
        return;
    event.cb(event.ctx);
    assert_false(runs_at(&world->sides[0]) && runs_at(&world->sides[1]));
    struct side *target = &world->sides[world->source == &world->sides[0]];
    if (world->trouble == KILL_PREPARED && is_prepared(target)) {
        world->trouble = NONE;
        side_kill(target);
    }
    if (++world->steps != world->at)
        return;
    if (world->trouble == KILL_SOURCE)
        side_kill(world->source);
    else if (world->trouble == KILL_TARGET)
        side_kill(target);
    else if (world->trouble == CANCEL)
        migrate_cancel(world->source->migrate, &world->migration);
}

/* Every number once and in order, and it goes on. Returns the last. */
static long assert_counts_on(struct side *side)
{
    OWNED(owned_free) char *dir = volume_path_of(side->peer, &volume);
    OWNED(owned_free) char *path = file_path("%s/all", dir);
    long last = 0, first_seen = -1;
    for (int waited_ms = 0; waited_ms < WAIT_MS; waited_ms += WAIT_STEP_MS) {
        FILE *file = fopen(path, "re");
        long number = 0;
        last = 0;
        while (file && fscanf(file, "%ld\n", &number) == 1)
            assert_int_equal(number, ++last);
        if (file)
            fclose(file);
        first_seen = first_seen < 0 ? last : first_seen;
        if (last >= first_seen + 2)
            return last;
        usleep(WAIT_STEP_MS * 1000);
    }
    fail_msg("it does not count on from %ld", last);
    return 0;
}

/* Move it to the other side while trouble befalls message or event `at`. Returns the messages and events there were. */
static uint64_t move(struct world *world, enum trouble trouble, uint64_t when)
{
    const struct migrate_watch watch = {.on_done = on_done, .ctx = world};
    bool by_message = trouble == LOSE || trouble == DOUBLE || trouble == CUT;
    struct err err = {0};
    world->source = &world->sides[runs_at(&world->sides[1])];
    struct side *target = &world->sides[world->source == &world->sides[0]];
    world->trouble = trouble;
    world->at = when;
    world->messages = world->steps = 0;
    world->done = false;
    world->err = (struct err){0};
    const struct migrate_order order = {"count", target->id, world->policy};
    ASSERT_OK(migrate_start(world->source->migrate, &order, &watch, &world->migration, &err), err);
    uint64_t end_ms = world->now_ms + PATIENCE_MS;
    do {
        step(world);
        if (world->now_ms >= end_ms)
            fail_msg("%s at %llu: no rest; a %s, b %s", trouble_names[trouble], (unsigned long long)when,
                     runs_at(&world->sides[0]) ? "runs" : "does not", runs_at(&world->sides[1]) ? "runs" : "does not");
    } while ((!world->done && world->steps < world->at + 3 && when != UINT64_MAX) || !is_at_rest(world));
    uint64_t count = by_message ? world->messages : world->steps;
    assert_counts_on(&world->sides[runs_at(&world->sides[1])]);
    world->trouble = NONE;
    return count;
}

static void world_start(struct world *world, struct machine *machine)
{
    *world = (struct world){.machine = machine, .now_ms = 1000000};
    peer_open(machine, &machine->b, "b");
    for (int i = 0; i < 2; i++) {
        struct side *side = &world->sides[i];
        side->world = world;
        side->peer = i == 0 ? &machine->a : &machine->b;
        crypto_sign_keygen(&side->key);
        side->id.b[0] = (uint8_t)(i + 1);
        side_start(side);
    }
    const struct wish wish = {.name = "count", .script = COUNTER_ALL, .volume = &volume};
    run(&machine->a, &wish);
}

/* Let all that is under way come to its end, so that nothing of it is left in memory. */
static void world_end(struct world *world)
{
    for (int i = 0; i < 2; i++) {
        world->sides[i].life++;
        migrate_free(world->sides[i].migrate);
        world->sides[i].migrate = NULL;
    }
    while (world->count > 0) {
        struct event event = take_next(world);
        if (event.cb == bury)
            event.cb(event.ctx);
    }
}

/* ---- tests ---- */

static void sweep(struct machine *machine, enum trouble trouble, uint64_t stride)
{
    struct world *world = calloc(1, sizeof *world);
    const char *wanted = getenv("CMIG_SWEEP");
    if (wanted && strcmp(wanted, "all") == 0)
        stride = 1;
    world_start(world, machine);
    world->policy = trouble == KILL_TARGET ? "nearest" : NULL;
    uint64_t count = move(world, trouble, 0); /* befalls nothing: how much there is */
    assert_int_equal(world->err.code, 0);
    assert_true(world->compared > 0); /* the memory and the volume have changed between the rounds */
    for (uint64_t when = 1 + stride / 2; when <= count + 2; when += stride)
        move(world, trouble, when);
    world_end(world);
    free(world);
}

static void test_hand_over__a_lost_message_is_asked_again(void **state)
{
    MACHINE(state)
    sweep(machine, LOSE, 13);
}

static void test_hand_over__a_request_that_comes_twice_is_one(void **state)
{
    MACHINE(state)
    sweep(machine, DOUBLE, 13);
}

static void test_hand_over__a_link_that_is_down_loses_nothing(void **state)
{
    MACHINE(state)
    sweep(machine, CUT, 13);
}

/* faults 79 */
static void test_hand_over__a_source_killed_anywhere(void **state)
{
    MACHINE(state)
    sweep(machine, KILL_SOURCE, 17);
}

/* faults 79 */
static void test_hand_over__a_destination_killed_anywhere(void **state)
{
    MACHINE(state)
    sweep(machine, KILL_TARGET, 17);
}

static void stale_row(struct side *side, enum journal_side of, enum journal_state state)
{
    OWNED(owned_container) struct runtime_container *container = get(&side->world->machine->a, "count");
    struct journal_row row = {.side = of,
                              .state = state,
                              .id = {{0xee, (uint8_t)of}},
                              .container = container->id,
                              .peer = side->world->sides[side == &side->world->sides[0]].id,
                              .epoch = container->epoch};
    assert_int_equal(journal_write(side->peer->store, &row, NULL), 0);
}

/* A migration that could not tidy up must not take back or let run what a later one moves. */
static void test_hand_over__rows_of_earlier_migrations_decide_nothing(void **state)
{
    MACHINE(state)
    struct world *world = calloc(1, sizeof *world);
    world_start(world, machine);
    stale_row(&world->sides[0], JOURNAL_SOURCE, JOURNAL_STOPPED);
    stale_row(&world->sides[1], JOURNAL_TARGET, JOURNAL_COMMITTED);
    move(world, KILL_PREPARED, UINT64_MAX);
    assert_true(runs_at(&world->sides[1]));
    assert_int_equal(world->err.code, 0);
    world_end(world);
    free(world);
}

static void test_hand_over__a_client_may_leave_at_any_time(void **state)
{
    MACHINE(state)
    sweep(machine, CANCEL, 29);
}

/* The destination fetches by it in each round, and only in that migration. */
static void test_hand_over__the_users_policy_travels(void **state)
{
    MACHINE(state)
    struct world *world = calloc(1, sizeof *world);
    static const char *const policies[] = {"nearest", NULL, "0.5*cost+0.5*money"};
    world_start(world, machine);
    for (int i = 0; i < 3; i++) {
        world->policy = policies[i];
        world->by_policy = 0;
        move(world, NONE, 0);
        assert_int_equal(world->err.code, 0);
        assert_int_equal(world->by_policy > 0, policies[i] != NULL);
    }
    char endless[MIGRATE_POLICY_SIZE + 1];
    memset(endless, '0', sizeof endless - 1);
    endless[sizeof endless - 1] = 0;
    const struct migrate_watch watch = {0};
    const struct migrate_order order = {"count", world->sides[0].id, endless};
    struct err err;
    assert_int_equal(migrate_start(world->sides[1].migrate, &order, &watch, &world->migration, &err), ERR_INVALID);
    world_end(world);
    free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONTAINER_TEST(test_hand_over__a_lost_message_is_asked_again),
        CONTAINER_TEST(test_hand_over__a_request_that_comes_twice_is_one),
        CONTAINER_TEST(test_hand_over__a_link_that_is_down_loses_nothing),
        CONTAINER_TEST(test_hand_over__a_source_killed_anywhere),
        CONTAINER_TEST(test_hand_over__a_destination_killed_anywhere),
        CONTAINER_TEST(test_hand_over__rows_of_earlier_migrations_decide_nothing),
        CONTAINER_TEST(test_hand_over__a_client_may_leave_at_any_time),
        CONTAINER_TEST(test_hand_over__the_users_policy_travels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
