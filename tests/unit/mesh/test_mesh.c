#include "node/mesh/mesh.h"

#include <signal.h>

#include "node/net/work.h"
#include "tests/unit/identity/forge.h"

#define WAIT_MS 9000

struct member {
    struct forge_node who;
    char dir[32];
    const char *name;
    struct addr listen;
    struct store *store;
    struct work *work;
    struct mesh *mesh;
    unsigned requests;
    struct call_request *held;
};

struct rig {
    uv_loop_t loop;
    uv_timer_t beat;
    struct member a, b, c; /* a holds the root key */
};

static uint64_t mono(void *ctx)
{
    (void)ctx;
    struct clock clock = clock_system();
    return clock_mono_ms(&clock);
}

static uint64_t wall(void *ctx)
{
    return (NOW + 100) * 1000 + mono(ctx) % 1000000;
}

#define UNTIL(rig, condition)                                                                                          \
    do {                                                                                                               \
        uint64_t until_ = mono(NULL) + WAIT_MS;                                                                        \
        while (!(condition) && mono(NULL) < until_)                                                                    \
            uv_run(&(rig)->loop, UV_RUN_ONCE);                                                                         \
        assert_true(condition);                                                                                        \
    } while (0)

static void run(struct rig *rig, uint64_t ms)
{
    for (uint64_t end = mono(NULL) + ms; mono(NULL) < end;)
        uv_run(&rig->loop, UV_RUN_ONCE);
}

static void on_beat(uv_timer_t *timer)
{
    (void)timer;
}

/* ---- what a node does with its mesh ---- */

static void on_link(void *ctx, struct link *link)
{
    (void)ctx;
    (void)link;
}

static int on_message(void *ctx, struct link *link, uint8_t type, const uint8_t *data, size_t len, struct err *err)
{
    (void)ctx;
    (void)link;
    (void)type;
    (void)data;
    (void)len;
    (void)err;
    return 0;
}

static void on_request(void *ctx, struct link *link, const char *method, const uint8_t *data, size_t len,
                       struct call_request *request)
{
    struct member *member = ctx;
    (void)link;
    member->requests++;
    if (strcmp(method, "hold") == 0)
        member->held = request;
    else
        call_reply(request, data, len);
}

static void start(struct rig *rig, struct member *member)
{
    struct err err = {0};
    struct store_options store = {.dir = member->dir, .clock = clock_system()};
    if (store_open(&store, &member->store, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(work_new(&rig->loop, &member->work, &err), 0);
    struct mesh_config config = {.loop = &rig->loop,
                                 .identity = member->who.identity,
                                 .store = member->store,
                                 .jobs = work_jobs(member->work),
                                 .clock = {mono, wall, NULL},
                                 .listen = &member->listen,
                                 .listen_count = 1,
                                 .name = member->name,
                                 .users = {on_link, on_link, on_message, on_link, on_request},
                                 .ctx = member};
    if (mesh_new(&config, &member->mesh, &err) < 0)
        fail_msg("%s", err.text);
    member->listen = mesh_address(member->mesh); /* the same port after a restart */
}

static void stop(struct rig *rig, struct member *member)
{
    if (!member->mesh)
        return;
    mesh_close(member->mesh);
    while (!mesh_closed(member->mesh) || work_pending(member->work) > 0)
        uv_run(&rig->loop, UV_RUN_ONCE);
    mesh_free(member->mesh);
    work_free(member->work);
    store_close(member->store);
    member->mesh = NULL;
    member->held = NULL;
}

static void count_link(void *ctx, struct link *link)
{
    (void)link;
    ++*(unsigned *)ctx;
}

static unsigned links_of(const struct member *member)
{
    unsigned count = 0;
    mesh_each_link(member->mesh, count_link, &count);
    return count;
}

static const struct id *self(const struct member *member)
{
    return identity_id(member->who.identity);
}

static struct member member_of(struct forge_node who, const char *name)
{
    struct member member = {.who = who, .dir = "/tmp/cmig-mesh-XXXXXX", .name = name};
    member.listen = (struct addr){.family = 4, .ip = {127, 0, 0, 1}};
    assert_non_null(mkdtemp(member.dir));
    return member;
}

/* Three members, b and c told where a is, and linked each with each. */
static void setup(struct rig *rig)
{
    *rig = (struct rig){0};
    signal(SIGPIPE, SIG_IGN);
    uv_loop_init(&rig->loop);
    uv_timer_init(&rig->loop, &rig->beat);
    uv_timer_start(&rig->beat, on_beat, 5, 5);
    rig->a = member_of(forge_founder(), "anna");
    rig->b = member_of(forge_node(), "bert");
    rig->c = member_of(forge_node(), "carl");
    assert_int_equal(forge_join(&rig->a.who, &rig->b.who, RIGHT_ADMIT), 0);
    assert_int_equal(forge_join(&rig->a.who, &rig->c.who, RIGHT_ADMIT), 0);
    start(rig, &rig->a);
    start(rig, &rig->b);
    start(rig, &rig->c);
    mesh_bootstrap(rig->b.mesh, &rig->a.listen);
    mesh_bootstrap(rig->c.mesh, &rig->a.listen);
    UNTIL(rig, links_of(&rig->a) == 2 && links_of(&rig->b) == 2 && links_of(&rig->c) == 2);
}

static void teardown(struct rig *rig)
{
    struct member *members[] = {&rig->a, &rig->b, &rig->c};
    for (size_t i = 0; i < 3; i++)
        stop(rig, members[i]);
    uv_close((uv_handle_t *)&rig->beat, NULL);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    for (size_t i = 0; i < 3; i++) {
        forge_done(&members[i]->who);
        file_remove_tree(members[i]->dir, NULL);
    }
}

/* ---- asking ---- */

struct found {
    unsigned count;
    int status;
    struct id id;
};

static void on_found(void *ctx, int status, const struct err *err, const struct id *node)
{
    struct found *found = ctx;
    found->count++;
    found->status = status;
    assert_int_equal(status, err ? err->code : 0);
    if (node)
        found->id = *node;
}

static int find(struct rig *rig, struct member *member, const char *text, struct id *ret_id)
{
    struct found found = {0};
    mesh_find(member->mesh, text, on_found, &found);
    assert_int_equal(found.count, 0); /* not from inside */
    UNTIL(rig, found.count == 1);
    *ret_id = found.id;
    return found.status;
}

struct answer {
    unsigned count;
    struct err err;
    char text[32];
};

static void on_answer(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len)
{
    struct answer *answer = ctx;
    answer->count++;
    answer->err = status < 0 ? *err : (struct err){0};
    if (status == 0 && len < sizeof answer->text)
        memcpy(answer->text, data, len);
}

/* ---- tests ---- */

static void test_mesh__names_and_ids(void **state)
{
    (void)state;
    struct rig rig;
    struct id id;
    char hex[ID_HEX_SIZE], text[64];
    setup(&rig);
    UNTIL(&rig, strcmp(mesh_name_of(rig.b.mesh, self(&rig.c)), "carl") == 0);
    assert_string_equal(mesh_name_of(rig.b.mesh, self(&rig.b)), "bert");
    assert_non_null(strstr(mesh_describe(rig.b.mesh, self(&rig.c), text, sizeof text), "carl ("));
    assert_int_equal(find(&rig, &rig.b, "carl", &id), 0);
    assert_true(id_equal(&id, self(&rig.c)));
    assert_int_equal(find(&rig, &rig.b, "bert", &id), 0);
    assert_true(id_equal(&id, self(&rig.b)));
    id_hex(self(&rig.a), hex);
    assert_int_equal(find(&rig, &rig.b, hex, &id), 0);
    assert_true(id_equal(&id, self(&rig.a)));
    hex[6] = '\0';
    assert_int_equal(find(&rig, &rig.b, hex, &id), 0);
    assert_true(id_equal(&id, self(&rig.a)));
    hex[5] = '\0'; /* too short to mean one */
    assert_int_equal(find(&rig, &rig.b, hex, &id), ERR_NOTFOUND);
    assert_int_equal(find(&rig, &rig.b, "dora", &id), ERR_NOTFOUND);
    assert_int_equal(find(&rig, &rig.b, "", &id), ERR_NOTFOUND);
    assert_true(mesh_is_settled(rig.b.mesh));
    teardown(&rig);
}

/* A call that is made while the other node is away is answered when it is back: it finds the mesh by what it kept. */
static void test_mesh__call_across_a_restart(void **state)
{
    (void)state;
    struct rig rig;
    struct answer now = {0}, later = {0};
    setup(&rig);
    mesh_call(rig.a.mesh, self(&rig.c), "echo", "one", 3, 2000, on_answer, &now);
    assert_int_equal(now.count, 0);
    UNTIL(&rig, now.count == 1);
    assert_string_equal(now.text, "one");
    stop(&rig, &rig.c);
    mesh_call(rig.a.mesh, self(&rig.c), "echo", "two", 3, 8000, on_answer, &later);
    run(&rig, 700);
    assert_int_equal(later.count, 0);
    start(&rig, &rig.c);
    UNTIL(&rig, later.count == 1);
    assert_int_equal(later.err.code, 0);
    assert_string_equal(later.text, "two");
    UNTIL(&rig, links_of(&rig.c) == 2);
    teardown(&rig);
}

static void test_mesh__call_to_nobody(void **state)
{
    (void)state;
    struct rig rig;
    struct answer answer = {0};
    struct id nobody = {.b = {1, 2, 3}};
    setup(&rig);
    mesh_call(rig.a.mesh, &nobody, "echo", NULL, 0, 600, on_answer, &answer);
    UNTIL(&rig, answer.count == 1);
    assert_int_equal(answer.err.code, ERR_UNAVAILABLE);
    teardown(&rig);
}

static void test_mesh__revoked_is_cut_within_5_s(void **state)
{
    (void)state;
    struct rig rig;
    struct err err = {0};
    setup(&rig);
    uint64_t begun = mono(NULL);
    assert_int_equal(mesh_revoke(rig.a.mesh, self(&rig.c), &err), 0);
    UNTIL(&rig, links_of(&rig.c) == 0 && links_of(&rig.a) == 1 && links_of(&rig.b) == 1);
    assert_true(mono(NULL) - begun < 5000);
    assert_true(identity_is_revoked(rig.b.who.identity, self(&rig.c)));
    /* It stays so, also for one that starts again and knows of it from its disk only. */
    stop(&rig, &rig.b);
    start(&rig, &rig.b);
    mesh_connect(rig.b.mesh, self(&rig.c), &rig.c.listen);
    UNTIL(&rig, links_of(&rig.b) == 1);
    run(&rig, 1500);
    assert_int_equal(links_of(&rig.b), 1);
    assert_null(mesh_link(rig.b.mesh, self(&rig.c)));
    teardown(&rig);
}

/* All that is asked ends, once, when the mesh closes; what is asked then is not answered any more. */
static void test_mesh__close_ends_what_is_asked(void **state)
{
    (void)state;
    struct rig rig;
    struct answer held = {0}, unsent = {0}, cancelled = {0}, late = {0};
    struct found found = {0}, soon = {0};
    struct id nobody = {.b = {1}};
    setup(&rig);
    mesh_call(rig.b.mesh, self(&rig.a), "hold", NULL, 0, 60000, on_answer, &held);
    UNTIL(&rig, rig.a.held);
    mesh_call(rig.b.mesh, &nobody, "echo", NULL, 0, 60000, on_answer, &unsent);
    mesh_call(rig.b.mesh, self(&rig.a), "hold", NULL, 0, 60000, on_answer, &cancelled);
    mesh_call_cancel(rig.b.mesh, &cancelled);
    mesh_find(rig.b.mesh, "dora", on_found, &found);
    mesh_find(rig.b.mesh, "bert", on_found, &soon);
    mesh_close(rig.b.mesh);
    assert_int_equal(held.count, 1);
    assert_int_equal(held.err.code, ERR_CANCELLED);
    assert_int_equal(unsent.count, 1);
    assert_int_equal(unsent.err.code, ERR_CANCELLED);
    assert_int_equal(found.status, ERR_CANCELLED);
    assert_int_equal(found.count + soon.count, 2);
    mesh_call(rig.b.mesh, self(&rig.a), "echo", NULL, 0, 1000, on_answer, &late);
    stop(&rig, &rig.b);
    assert_int_equal(late.count + cancelled.count, 0);
    run(&rig, 20);
    call_reply(rig.a.held, "x", 1); /* whoever asked has gone */
    teardown(&rig);
}

/* The port is free for TCP and taken for UDP: said, and nothing is left behind. */
static void test_mesh__port_taken_for_udp(void **state)
{
    (void)state;
    struct rig rig;
    struct err err = {0};
    setup(&rig);
    stop(&rig, &rig.c);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sock = {
        .sin_family = AF_INET, .sin_port = htons(rig.c.listen.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)&sock, sizeof sock), 0);
    struct store_options options = {.dir = rig.c.dir, .clock = clock_system()};
    assert_int_equal(store_open(&options, &rig.c.store, &err), 0);
    assert_int_equal(work_new(&rig.loop, &rig.c.work, &err), 0);
    struct addr both[] = {{.family = 6}, {.family = 4}};
    struct mesh_config config = {.loop = &rig.loop,
                                 .identity = rig.c.who.identity,
                                 .store = rig.c.store,
                                 .jobs = work_jobs(rig.c.work),
                                 .clock = {mono, wall, NULL},
                                 .listen = &rig.c.listen,
                                 .listen_count = 1,
                                 .name = "carl",
                                 .users = {on_link, on_link, on_message, on_link, on_request},
                                 .ctx = &rig.c};
    assert_int_equal(mesh_new(&config, &rig.c.mesh, &err), ERR_BUSY);
    assert_non_null(strstr(err.text, "UDP"));
    rig.c.mesh = NULL;
    /* Any address of either family: one of them is enough, on a machine with or without IPv6. */
    config.listen = both;
    config.listen_count = 2;
    if (mesh_new(&config, &rig.c.mesh, &err) < 0)
        fail_msg("%s", err.text);
    mesh_bootstrap(rig.c.mesh, &rig.a.listen);
    UNTIL(&rig, links_of(&rig.c) > 0);
    assert_int_not_equal(mesh_address(rig.c.mesh).port, 0); /* seen by the routing table */
    close(fd);
    teardown(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mesh__names_and_ids),
        cmocka_unit_test(test_mesh__call_across_a_restart),
        cmocka_unit_test(test_mesh__call_to_nobody),
        cmocka_unit_test(test_mesh__revoked_is_cut_within_5_s),
        cmocka_unit_test(test_mesh__close_ends_what_is_asked),
        cmocka_unit_test(test_mesh__port_taken_for_udp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
