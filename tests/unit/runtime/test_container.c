/* What users do with containers, with real ones. */
#include "tests/unit/runtime/containers.h"

static void test_container__runs_says_and_ends(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct guid id =
        run(a, &(struct wish){.name = "hello",
                              .script = "cat /etc/resolv.conf >/dev/null; hostname; echo oops >&2; exit 3"});
    assert_int_equal(runtime_count(a->runtime), 1);
    assert_int_equal(exit_code_of(a, "hello"), 3);
    char text[256];
    log_of(a, "hello", text, sizeof text);
    assert_string_equal(text, "hello\noops\n");

    char by_id[GUID_TEXT_SIZE];
    guid_text(&id, by_id);
    by_id[8] = '\0'; /* a prefix of 8 digits names it, one of 7 does not */
    assert_int_equal(state_of(a, by_id), RUNTIME_EXITED);
    by_id[7] = '\0';
    OWNED(owned_container) struct runtime_container *none = NULL;
    assert_int_equal(runtime_get(a->runtime, by_id, &none, NULL), ERR_NOTFOUND);

    struct err err = {0};
    ASSERT_OK(runtime_remove(a->runtime, "hello", &err), err);
    assert_no_trace(a, &id);
    assert_int_equal(runtime_remove(a->runtime, "hello", &err), ERR_NOTFOUND);
}

static void test_container__a_program_that_is_not_there_ends_with_127(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    struct err err = {0};
    ASSERT_OK(spec_of(a, &(struct wish){.name = "no", .script = "x"}, &spec, &err), err);
    free(spec.args.items[0]);
    spec.args.items[0] = strdup("/no/such");
    OWNED(owned_container) struct runtime_container *container = NULL;
    ASSERT_OK(runtime_run(a->runtime, &spec, &container, &err), err);
    assert_null(spec.name); /* stolen */
    assert_int_equal(exit_code_of(a, "no"), 127);
    char text[256];
    log_of(a, "no", text, sizeof text);
    assert_non_null(strstr(text, "cannot start '/no/such': No such file or directory"));
}

static void test_container__stop_asks_then_insists(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct err err = {0};
    run(a, &(struct wish){.name = "polite", .script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"});
    struct guid deaf =
        run(a, &(struct wish){.name = "deaf", .script = "trap '' TERM; echo up; while :; do sleep 1; done"});
    wait_for_log(a, "polite", "up");
    wait_for_log(a, "deaf", "up");
    assert_int_equal(runtime_remove(a->runtime, "deaf", &err), ERR_CONFLICT);
    ASSERT_OK(runtime_stop(a->runtime, "polite", 10000, &err), err);
    ASSERT_OK(runtime_stop(a->runtime, "deaf", 100, &err), err);
    OWNED(owned_container) struct runtime_container *first = get(a, "polite");
    OWNED(owned_container) struct runtime_container *second = get(a, "deaf");
    assert_int_equal(first->state, RUNTIME_STOPPED);
    assert_int_equal(first->exit_code, 5);
    assert_int_equal(first->pid, 0);
    assert_int_equal(second->state, RUNTIME_STOPPED);
    assert_int_equal(second->exit_code, 128 + SIGKILL);
    ASSERT_OK(runtime_stop(a->runtime, "deaf", 100, &err), err);
    peer_reopen(machine, a);
    assert_int_equal(state_of(a, "deaf"), RUNTIME_STOPPED);
    ASSERT_OK(runtime_remove(a->runtime, "deaf", &err), err);
    assert_no_trace(a, &deaf);
}

static void test_container__volumes_have_one_writer_and_the_users_owner(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct err err = {0};
    const struct guid shared = {{1}}, own = {{2}};
    const char *script = "id -u; if echo mine >/data/f; then echo wrote; else echo refused; fi; cat /data/f; echo end;"
                         "while :; do sleep 1; done";
    run(a, &(struct wish){.name = "writer", .script = script, .uid = 1000, .volume = &shared});
    wait_for_log(a, "writer", "1000\nwrote\nmine\nend\n");

    OWNED(owned_container) struct runtime_container *none = NULL;
    struct wish reader = {.name = "reader", .script = script, .uid = 1001, .volume = &shared, .read_only = true};
    assert_int_equal(try_run(a, &reader, &none, &err), ERR_BUSY);
    assert_non_null(strstr(err.text, "writer"));
    assert_int_equal(try_run(a, &(struct wish){.name = "writer", .script = script}, &none, &err), ERR_EXISTS);
    assert_int_equal(runtime_volume_remove(a->runtime, &shared, &err), ERR_BUSY);
    ASSERT_OK(runtime_stop(a->runtime, "writer", 0, &err), err);

    OWNED(owned_free) char *shared_path = volume_path_of(a, &shared);
    OWNED(owned_free) char *file = file_path("%s/f", shared_path);
    assert_int_equal(chmod(file, 0644), 0);
    run(a, &reader);
    wait_for_log(a, "reader", "1001\n");
    wait_for_log(a, "reader", "refused\nmine\nend\n");
    struct wish second = {.name = "second", .script = script, .volume = &shared, .read_only = true};
    run(a, &second); /* readers share */
    second = (struct wish){.name = "third", .script = script, .volume = &own};
    run(a, &second);
    ASSERT_OK(runtime_stop(a->runtime, "third", 0, &err), err);
    ASSERT_OK(runtime_volume_remove(a->runtime, &own, &err), err);
    OWNED(owned_free) char *own_path = volume_path_of(a, &own);
    assert_false(file_exists(own_path));
}

static void test_container__what_fails_leaves_nothing(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct err err = {0};
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    ASSERT_OK(spec_of(a, &(struct wish){.name = "x", .script = "exit"}, &spec, &err), err);
    spec.manifest.b[0] ^= 1;
    OWNED(owned_container) struct runtime_container *none = NULL;
    assert_int_equal(runtime_run(a->runtime, &spec, &none, &err), ERR_NOTFOUND);
    assert_non_null(spec.name); /* not stolen */
    spec.manifest.b[0] ^= 1;
    free(spec.workdir);
    spec.workdir = strdup("/bin/busybox"); /* a file: runc cannot start there */
    assert_int_equal(runtime_run(a->runtime, &spec, &none, &err), ERR_IO);
    assert_non_null(strstr(err.text, "runc run failed"));
    assert_int_equal(runtime_count(a->runtime), 0);
    OWNED(owned_free) char *containers = file_path("%s/containers", a->dir);
    assert_int_equal(rmdir(containers), 0); /* is empty */
}

static void test_container__log_is_cut_at_its_front(void **state)
{
    struct machine *own = *state;
    own->a.log_max_bytes = 64 << 10;
    MACHINE(state)
    struct peer *a = &machine->a;
    run(a, &(struct wish){.name = "talker",
                          .script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done;"
                                    "while [ ! -e /more ]; do sleep 0.02; done; echo more; while :; do sleep 1; done"});
    wait_for_log(a, "talker", ""); /* it is there */
    OWNED(owned_free) char *path = NULL;
    struct err err = {0};
    ASSERT_OK(runtime_log_path(a->runtime, "talker", &path, &err), err);
    OWNED(buf_release) struct buf text = BUF(1 << 20);
    for (int i = 0; i < 500 && !(text.len > 0 && strstr(buf_str(&text), "line 20000\n")); i++) {
        usleep(20000);
        buf_clear(&text);
        ASSERT_OK(file_read(path, &text, &err), err);
    }
    assert_true(text.len > (64 << 10));
    runtime_poll(a->runtime);
    buf_clear(&text);
    ASSERT_OK(file_read(path, &text, &err), err);
    assert_true(text.len <= 64 << 10);
    assert_true(text.len > 16 << 10);
    assert_non_null(strstr(buf_str(&text), "line 19999\nline 20000\n"));

    /* The container writes on at the new end, through the descriptor that it has had all the time. */
    OWNED(owned_container) struct runtime_container *container = get(a, "talker");
    OWNED(owned_free) char *more = file_path("/proc/%d/root/more", (int)container->pid);
    ASSERT_OK(file_write_atomic(more, "", 0, 0644, &err), err);
    for (int i = 0; i < 500 && !strstr(buf_str(&text), "more\n"); i++) {
        usleep(20000);
        buf_clear(&text);
        ASSERT_OK(file_read(path, &text, &err), err);
    }
    assert_non_null(strstr(buf_str(&text), "line 20000\nmore\n"));
}

/* ---- the daemon's death ---- */

static pid_t die_after_running(struct machine *machine, const struct wish *wish)
{
    pid_t daemon = fork();
    if (daemon != 0)
        return daemon;
    OWNED(owned_container) struct runtime_container *container = NULL;
    struct err err = {0};
    peer_open(machine, &machine->a, "a");
    if (try_run(&machine->a, wish, &container, &err) < 0) {
        print_message("%s\n", err.text);
        _exit(1);
    }
    kill(getpid(), SIGKILL);
    return 0;
}

static void test_container__lives_on_without_the_daemon(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    peer_close(a);
    pid_t daemon = die_after_running(machine, &(struct wish){.name = "on", .script = COUNTER, .volume = &volume});
    int how = 0;
    assert_int_equal(waitpid(daemon, &how, 0), daemon);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);

    peer_open(machine, a, "a");
    OWNED(owned_container) struct runtime_container *container = get(a, "on");
    assert_int_equal(container->state, RUNTIME_RUNNING);
    assert_int_equal(kill(container->pid, 0), 0);
    wait_for_count(a, count_of(a) + 5);
    struct err err = {0};
    ASSERT_OK(runtime_stop(a->runtime, "on", 0, &err), err);
    assert_int_equal(kill(container->pid, 0), -1);
    ASSERT_OK(runtime_remove(a->runtime, "on", &err), err);
    assert_no_trace(a, &container->id);
}

/* What a dump leaves that was killed between freezing and thawing. */
static void test_container__left_frozen_is_found_and_thawed(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct guid id = run(a, &(struct wish){.name = "cold", .script = COUNTER, .volume = &volume});
    wait_for_count(a, 3);
    peer_close(a);
    char text[GUID_TEXT_SIZE];
    OWNED(owned_free) char *root = file_path("%s/runc", a->dir);
    assert_int_equal(RUN("runc", "--root", root, "pause", guid_text(&id, text)), 0);
    peer_open(machine, a, "a");
    assert_int_equal(state_of(a, "cold"), RUNTIME_RUNNING);
    wait_for_count(a, count_of(a) + 5);
}

static void test_container__end_while_the_daemon_is_away_is_noticed(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct err err = {0};
    struct guid id = run(a, &(struct wish){.name = "gone", .script = "while :; do sleep 1; done"});
    OWNED(owned_container) struct runtime_container *before = get(a, "gone");
    peer_close(a);
    kill(before->pid, SIGKILL);
    assert_int_equal(waitpid(before->pid, NULL, 0), before->pid); /* another's child, from then on */
    /* And a directory whose record was never written. */
    OWNED(owned_free) char *half = file_path("%s/containers/8e3f7c1a-0b1d-4c55-9f00-0123456789ab/rw", a->dir);
    ASSERT_OK(file_make_dirs(half, 0700, &err), err);
    peer_open(machine, a, "a");
    OWNED(owned_container) struct runtime_container *after = get(a, "gone");
    assert_int_equal(after->state, RUNTIME_EXITED);
    assert_int_equal(after->exit_code, -1);
    assert_int_equal(after->pid, 0);
    assert_false(file_exists(half));
    assert_int_equal(runtime_count(a->runtime), 1);
    ASSERT_OK(runtime_remove(a->runtime, "gone", &err), err);
    assert_no_trace(a, &id);
}

/* As an ordinary user all else works, and containers say what they want. */
static void test_container__without_root_there_is_a_remedy(void **state)
{
    struct machine *machine = *state;
    struct peer *a = &machine->a;
    struct err err = {0};
    if (geteuid() == 0) {
        assert_int_equal(chown(machine->dir, 65534, 65534), 0);
        assert_int_equal(seteuid(65534), 0);
    }
    strcpy(machine->criu, "criu");
    peer_open(machine, a, "a");
    import_image(machine, a);
    OWNED(owned_container) struct runtime_container *none = NULL;
    int status = try_run(a, &(struct wish){.name = "x", .script = "exit"}, &none, &err);
    OWNED(owned_json) json_t *abilities = NULL;
    ASSERT_OK(runtime_abilities(a->runtime, &abilities, NULL), err);
    OWNED(owned_free) char *path = NULL;
    int made = runtime_volume_path(a->runtime, &volume, true, &path, NULL);
    peer_close(a);
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(status, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "root"));
    assert_true(json_is_false(json_object_get(abilities, "containers")));
    assert_non_null(strstr(json_string_value(json_object_get(abilities, "why")), "root"));
    assert_int_equal(made, 0);
    assert_true(file_exists(path));
}

static void test_container__abilities_are_told(void **state)
{
    MACHINE(state)
    struct err err = {0};
    OWNED(owned_json) json_t *json = NULL;
    ASSERT_OK(runtime_abilities(machine->a.runtime, &json, &err), err);
    assert_true(json_is_true(json_object_get(json, "containers")));
    assert_true(json_is_true(json_object_get(json, "checkpoints")));
    assert_true(json_string_length(json_object_get(json, "runc")) > 0);
    assert_true(json_string_length(json_object_get(json, "criu")) > 0);
    assert_true(json_array_size(json_object_get(json, "cpu_flags")) > 0);
    assert_string_equal(json_string_value(json_object_get(json, "why")), "");
    peer_close(&machine->a);
    strcpy(machine->criu, "/nonexistent/criu");
    peer_open(machine, &machine->a, "a");
    OWNED(owned_json) json_t *without = NULL;
    ASSERT_OK(runtime_abilities(machine->a.runtime, &without, &err), err);
    assert_true(json_is_true(json_object_get(without, "containers")));
    assert_true(json_is_false(json_object_get(without, "checkpoints")));
    assert_non_null(strstr(json_string_value(json_object_get(without, "why")), "tools/setup"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONTAINER_TEST(test_container__runs_says_and_ends),
        CONTAINER_TEST(test_container__a_program_that_is_not_there_ends_with_127),
        CONTAINER_TEST(test_container__stop_asks_then_insists),
        CONTAINER_TEST(test_container__volumes_have_one_writer_and_the_users_owner),
        CONTAINER_TEST(test_container__what_fails_leaves_nothing),
        CONTAINER_TEST(test_container__log_is_cut_at_its_front),
        CONTAINER_TEST(test_container__lives_on_without_the_daemon),
        CONTAINER_TEST(test_container__left_frozen_is_found_and_thawed),
        CONTAINER_TEST(test_container__end_while_the_daemon_is_away_is_noticed),
        CONTAINER_TEST(test_container__without_root_there_is_a_remedy),
        CONTAINER_TEST(test_container__abilities_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
