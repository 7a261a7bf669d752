#include "node/mesh/content.h"

#include <signal.h>

#include "node/api/json.h"
#include "node/net/work.h"
#include "tests/unit/identity/forge.h"

/* One node of a cluster of its own, with everything that content needs. */
struct rig {
    uv_loop_t loop;
    uv_timer_t beat;
    struct forge_node who;
    char dir[32];
    struct store *store;
    struct work *work;
    struct mesh *mesh;
    struct content *content;
};

static uint64_t now_ms(void)
{
    struct clock clock = clock_system();
    return clock_mono_ms(&clock);
}

static void run_while(struct rig *rig, const unsigned *count, uint64_t ms)
{
    for (uint64_t end = now_ms() + ms; now_ms() < end && *count == 0;)
        uv_run(&rig->loop, UV_RUN_ONCE);
}

static uint64_t wall(void *ctx)
{
    (void)ctx;
    return (NOW + 100) * 1000;
}

static uint64_t mono(void *ctx)
{
    (void)ctx;
    return now_ms();
}

static void on_beat(uv_timer_t *timer)
{
    (void)timer;
}

static void on_up(void *ctx, struct link *link)
{
    content_link_up(((struct rig *)ctx)->content, link);
}

static void on_down(void *ctx, struct link *link)
{
    content_link_down(((struct rig *)ctx)->content, link);
}

static int on_message(void *ctx, struct link *link, uint8_t type, const uint8_t *data, size_t len, struct err *err)
{
    return content_link_message(((struct rig *)ctx)->content, link, type, data, len, err);
}

static void on_writable(void *ctx, struct link *link)
{
    content_link_writable(((struct rig *)ctx)->content, link);
}

static void on_request(void *ctx, struct link *link, const char *method, const uint8_t *data, size_t len,
                       struct call_request *request)
{
    (void)ctx;
    (void)link;
    (void)method;
    call_reply(request, data, len);
}

static void setup(struct rig *rig)
{
    *rig = (struct rig){.who = forge_founder(), .dir = "/tmp/cmig-content-XXXXXX"};
    struct err err = {0};
    struct clock clock = {mono, wall, NULL};
    struct addr listen = {.family = 4, .ip = {127, 0, 0, 1}};
    struct store_options options = {.dir = rig->dir, .clock = clock_system()};
    signal(SIGPIPE, SIG_IGN);
    assert_non_null(mkdtemp(rig->dir));
    uv_loop_init(&rig->loop);
    uv_timer_init(&rig->loop, &rig->beat);
    uv_timer_start(&rig->beat, on_beat, 5, 5);
    assert_int_equal(store_open(&options, &rig->store, &err), 0);
    assert_int_equal(work_new(&rig->loop, &rig->work, &err), 0);
    struct jobs jobs = work_jobs(rig->work);
    struct mesh_config config = {.loop = &rig->loop,
                                 .identity = rig->who.identity,
                                 .store = rig->store,
                                 .jobs = jobs,
                                 .clock = clock,
                                 .listen = &listen,
                                 .listen_count = 1,
                                 .name = "anna",
                                 .users = {on_up, on_down, on_message, on_writable, on_request},
                                 .ctx = rig};
    assert_int_equal(content_new(rig->store, jobs, clock, &rig->loop, &rig->content, &err), 0);
    assert_int_equal(mesh_new(&config, &rig->mesh, &err), 0);
    content_set_mesh(rig->content, rig->mesh);
}

/* As the node ends. */
static void teardown(struct rig *rig)
{
    mesh_close(rig->mesh);
    content_close(rig->content);
    uv_close((uv_handle_t *)&rig->beat, NULL);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    content_free(rig->content);
    mesh_free(rig->mesh);
    store_close(rig->store);
    work_free(rig->work);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    forge_done(&rig->who);
    file_remove_tree(rig->dir, NULL);
}

struct outcome {
    unsigned count;
    int status;
    struct err err;
};

static void on_done(void *ctx, int status, const struct err *err, const struct exchange_stats *stats)
{
    struct outcome *outcome = ctx;
    assert_non_null(stats);
    outcome->count++;
    outcome->status = status;
    if (err)
        outcome->err = *err;
}

static struct content_fetch *fetch(struct rig *rig, uint8_t number, const struct id *origin, struct outcome *outcome)
{
    struct err err = {0};
    struct content_fetch *fetch = NULL;
    struct content_wish wish = {
        .digest = {.b = {number}}, .kind = STORE_BLOB, .origin = origin, .on_done = on_done, .ctx = outcome};
    assert_int_equal(content_fetch(rig->content, &wish, &fetch, &err), 0);
    assert_int_equal(outcome->count, 0); /* not from inside */
    return fetch;
}

/* Nobody is left to ask, and nobody can come: said in seconds. Where somebody is known to have it, it is waited for. */
static void test_content__nobody_has_it(void **state)
{
    (void)state;
    struct rig rig;
    struct outcome nobody = {0}, same = {0}, origin = {0}, cancelled = {0};
    struct id elsewhere = {.b = {9}};
    setup(&rig);
    struct content_fetch *waiting = fetch(&rig, 2, &elsewhere, &origin);
    content_fetch_cancel(fetch(&rig, 3, NULL, &cancelled));
    fetch(&rig, 1, NULL, &nobody);
    fetch(&rig, 1, NULL, &same); /* two who want the same end both */
    run_while(&rig, &nobody.count, 8000);
    assert_int_equal(nobody.count, 1);
    assert_int_equal(nobody.status, ERR_UNAVAILABLE);
    assert_non_null(strstr(nobody.err.text, "sha256:01000000"));
    run_while(&rig, &same.count, 1000);
    assert_int_equal(same.count, 1);
    assert_int_equal(origin.count + cancelled.count, 0);
    content_fetch_cancel(waiting);
    teardown(&rig);
    assert_int_equal(nobody.count + same.count, 2);
    assert_int_equal(origin.count + cancelled.count, 0);
}

static void test_content__what_is_here_is_done_at_once(void **state)
{
    (void)state;
    struct rig rig;
    struct outcome outcome = {0};
    struct store_object_info info;
    struct store_ingest *ingest;
    struct content_fetch *fetch;
    struct err err = {0};
    setup(&rig);
    assert_int_equal(store_ingest_new(rig.store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, &err), 0);
    assert_int_equal(store_ingest_write(ingest, "here", 4, &err), 0);
    assert_int_equal(store_ingest_finish(ingest, &info, &err), 0);
    store_ingest_free(ingest);
    struct content_wish wish = {.digest = info.digest, .kind = STORE_BLOB, .on_done = on_done, .ctx = &outcome};
    assert_int_equal(content_fetch(rig.content, &wish, &fetch, &err), 0);
    run_while(&rig, &outcome.count, 1500);
    assert_int_equal(outcome.count, 1);
    assert_int_equal(outcome.status, 0);
    teardown(&rig);
}

/* Partial in name only: what was broken, and whose bytes the disk gives after all (store/unread.h). */
static void test_content__what_is_all_here_needs_nobody(void **state)
{
    (void)state;
    struct rig rig;
    struct outcome outcome = {0};
    struct store_object_info info;
    struct store_ingest *ingest;
    struct store_recipe *recipe = NULL;
    struct store_assembly *assembly = NULL;
    struct content_fetch *fetch;
    struct err err = {0};
    setup(&rig);
    assert_int_equal(store_ingest_new(rig.store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, &err), 0);
    assert_int_equal(store_ingest_write(ingest, "here", 4, &err), 0);
    assert_int_equal(store_ingest_finish(ingest, &info, &err), 0);
    store_ingest_free(ingest);
    assert_int_equal(store_recipe_load(rig.store, &info.digest, &recipe, &err), 1);
    assert_int_equal(store_object_remove(rig.store, &info.digest, &err), 1);
    assert_int_equal(store_assembly_new(rig.store, &info.digest, STORE_BLOB, recipe, &assembly, &err), 0);
    assert_int_equal(store_assembly_add(assembly, 0, STORE_RAW, "here", 4, &err), 0);
    assert_int_equal(store_assembly_sync(assembly, &err), 0);
    store_assembly_free(assembly);
    store_recipe_free(recipe);
    assert_int_equal(store_object_stat(rig.store, &info.digest, NULL, &err), 0);
    struct content_wish wish = {.digest = info.digest, .kind = STORE_BLOB, .on_done = on_done, .ctx = &outcome};
    assert_int_equal(content_fetch(rig.content, &wish, &fetch, &err), 0);
    run_while(&rig, &outcome.count, 1500);
    assert_int_equal(outcome.count, 1);
    assert_int_equal(outcome.status, 0);
    assert_int_equal(store_object_stat(rig.store, &info.digest, NULL, &err), 1);
    teardown(&rig);
}

static void on_why(void *ctx, json_t *reply)
{
    ++*(unsigned *)ctx;
    assert_true(json_is_array(json_object_get(reply, "candidates")));
    json_decref(reply);
}

/* The end comes before the DHT has answered: each question is answered once all the same, and nothing is left. */
static void test_content__closed_in_the_middle(void **state)
{
    (void)state;
    struct rig rig;
    struct outcome outcome = {0};
    struct id digest = {.b = {5}};
    char text[DIGEST_TEXT_SIZE];
    unsigned whys = 0;
    struct err err;
    setup(&rig);
    digest_text(&digest, text);
    assert_int_equal(content_why(rig.content, text, NULL, on_why, &whys, &err), 0);
    assert_int_equal(
        content_why(rig.content, "cmig:volume:6f1c0d5e-0000-4000-8000-000000000001", NULL, on_why, &whys, &err), 0);
    assert_int_equal(content_why(rig.content, "cmig:volume:6f1c", NULL, on_why, &whys, &err), ERR_INVALID);
    fetch(&rig, 5, NULL, &outcome);
    teardown(&rig);
    assert_int_equal(whys, 2);
    assert_int_equal(outcome.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content__nobody_has_it),
        cmocka_unit_test(test_content__what_is_here_is_done_at_once),
        cmocka_unit_test(test_content__what_is_all_here_needs_nobody),
        cmocka_unit_test(test_content__closed_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
