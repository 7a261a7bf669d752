/* The promises of the driver for runc and CRIU when something fails, is damaged, or dies. */
#include "tests/unit/runtime/containers.h"

/* faults 83: a dump that fails leaves nothing of it, and the container as it was. A ghost file beyond the limit makes
 * CRIU refuse. */
static void test_runc__a_failed_dump_leaves_it_running(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct guid id =
        run_root_counter(machine, "dd if=/dev/zero of=/big bs=1M count=65 2>/dev/null; exec 9</big; rm /big; " COUNTER);
    OWNED(owned_free) char *images = file_path("%s/images", machine->dir);
    uint64_t frozen_ms = 0;
    for (int i = 0; i < 2; i++) {
        struct err err = {0};
        bool leave_running = i == 0;
        assert_int_equal(runtime_checkpoint(a->runtime, &id, images, leave_running, &frozen_ms, &err), ERR_IO);
        assert_non_null(strstr(err.text, "count"));
        if (!strstr(err.text, "ghost") || !strstr(err.text, "dump.log"))
            fail_msg("does not say why: %s", err.text);
        assert_false(file_exists(images));
        assert_int_equal(state_of(a, "count"), RUNTIME_RUNNING);
        assert_runs(a);
    }
    peer_reopen(machine, a);
    assert_int_equal(state_of(a, "count"), RUNTIME_RUNNING);
}

/* ---- faults 74, 80: images that cannot be restored ---- */

static void flip(const char *dir, const char *prefix)
{
    DIR *list = opendir(dir);
    assert_non_null(list);
    for (struct dirent *item; (item = readdir(list));) {
        if (strncmp(item->d_name, prefix, strlen(prefix)) != 0)
            continue;
        int fd = openat(dirfd(list), item->d_name, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        uint8_t byte;
        assert_int_equal(pread(fd, &byte, 1, 6), 1);
        byte ^= 0x40;
        assert_int_equal(pwrite(fd, &byte, 1, 6), 1);
        close(fd);
    }
    closedir(list);
}

static void remove_image(const char *dir, const char *prefix)
{
    OWNED(owned_free) char *pattern = file_path("%s/%s", dir, prefix);
    assert_int_equal(unlink(pattern), 0);
}

static void assert_restore_fails(struct peer *peer, const struct guid *id, const char *images)
{
    struct err err = {0};
    assert_true(runtime_restore(peer->runtime, id, images, &err) < 0);
    if (!strstr(err.text, "restore of 'count'") || !strstr(err.text, "restore.log"))
        fail_msg("does not say why: %s", err.text);
    char text[GUID_TEXT_SIZE];
    guid_text(id, text);
    OWNED(owned_free) char *engine = file_path("%s/runc/%s", peer->dir, text);
    assert_false(file_exists(engine));
    OWNED(owned_container) struct runtime_container *container = get(peer, "count");
    assert_int_equal(container->state, RUNTIME_OUTGOING);
    assert_int_equal(container->pid, 0);
    assert_int_equal(runtime_resume(peer->runtime, id, 1, &err), ERR_CONFLICT);
}

static void test_runc__a_failed_restore_leaves_nothing_and_can_be_repeated(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct err err = {0};
    struct guid id = run_counter(machine, COUNTER);
    OWNED(owned_free) char *images = checkpoint(machine, a, &id, "good", false);
    OWNED(owned_free) char *flipped = file_path("%s/flipped", machine->dir);
    OWNED(owned_free) char *missing = file_path("%s/missing", machine->dir);
    assert_int_equal(RUN("cp", "-a", images, flipped), 0);
    assert_int_equal(RUN("cp", "-a", images, missing), 0);
    flip(flipped, "core-");
    remove_image(missing, "pstree.img");
    assert_restore_fails(a, &id, flipped);
    assert_restore_fails(a, &id, missing);
    assert_int_equal(runtime_restore(a->runtime, &id, "/nonexistent", &err), ERR_NOTFOUND);
    ASSERT_OK(runtime_restore(a->runtime, &id, images, &err), err);
    ASSERT_OK(runtime_restore(a->runtime, &id, images, &err), err); /* what the first has left is replaced */
    assert_does_not_run(a);
    ASSERT_OK(runtime_resume(a->runtime, &id, 1, &err), err);
    assert_runs(a);
}

/* faults 75: nothing but memory comes from the images. What runc would read in them is replaced, what else lies there
 * is not looked at; what the container may do is what this node's policy says. */
static void test_runc__images_do_not_configure(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct err err = {0};
    struct guid id = run_root_counter(machine, COUNTER);
    OWNED(owned_free) char *images = checkpoint(machine, a, &id, "1", false);
    static const char *const names[] = {"descriptors.json", "config.json", "criu.conf", "runc.conf", "state.json"};
    static const char evil[] = "[\"pipe:[1]\",\"pipe:[2]\",\"pipe:[3]\"]";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        OWNED(owned_free) char *path = file_path("%s/%s", images, names[i]);
        ASSERT_OK(file_write_atomic(path, evil, sizeof evil - 1, 0600, &err), err);
    }
    ASSERT_OK(runtime_restore(a->runtime, &id, images, &err), err);
    OWNED(owned_free) char *descriptors = file_path("%s/descriptors.json", images);
    char text[65536];
    read_text(descriptors, text, sizeof text);
    assert_null(strstr(text, "pipe"));
    OWNED(owned_free)
    char *config = file_path("%s/containers/8e3f7c1a-0b1d-4c55-9f00-0123456789ab/bundle/config.json", a->dir);
    char guid[GUID_TEXT_SIZE];
    memcpy(strstr(config, "8e3f7c1a"), guid_text(&id, guid), GUID_TEXT_SIZE - 1);
    read_text(config, text, sizeof text);
    assert_non_null(strstr(text, "/bundle/criu.conf"));
    ASSERT_OK(runtime_resume(a->runtime, &id, 1, &err), err);
    assert_runs(a);
}

/* ---- a daemon that dies in the middle ---- */

/* Another process does as the daemon would, and is killed after_us after it has opened the node; the node is opened
 * again afterwards. */
typedef void (*deed_cb)(struct peer *peer, const struct guid *id, const char *images);

static void kill_during(struct machine *machine, deed_cb deed, const struct guid *id, const char *images,
                        useconds_t after_us)
{
    struct peer *a = &machine->a;
    int ready[2];
    char r;
    peer_close(a);
    assert_int_equal(pipe(ready), 0);
    pid_t daemon = fork();
    if (daemon == 0) {
        peer_open(machine, a, "a");
        alarm(10); /* kills */
        if (write(ready[1], "r", 1) == 1)
            deed(a, id, images);
        pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &r, 1), 1);
    close(ready[0]);
    usleep(after_us);
    kill(daemon, SIGKILL);
    assert_int_equal(waitpid(daemon, NULL, 0), daemon);
    peer_open(machine, a, "a");
}

static void dump_deed(struct peer *peer, const struct guid *id, const char *images)
{
    runtime_checkpoint(peer->runtime, id, images, false, NULL, NULL);
}

static void restore_deed(struct peer *peer, const struct guid *id, const char *images)
{
    runtime_restore(peer->runtime, id, images, NULL);
}

static void resume_deed(struct peer *peer, const struct guid *id, const char *images)
{
    (void)images;
    runtime_resume(peer->runtime, id, 1, NULL);
}

/* The next daemon waits for the runc that goes on, then knows whether the container is gone, and its images whole, or
 * still runs. */
static void test_runc__killed_while_dumping_is_one_or_the_other(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct err err = {0};
    struct guid id = run_counter(machine, COUNTER);
    size_t gone = 0;
    for (useconds_t k = 0; k < 6; k++) {
        OWNED(owned_free) char *images = file_path("%s/killed-%u", machine->dir, (unsigned)k);
        kill_during(machine, dump_deed, &id, images, k * k * 3000);
        if (state_of(a, "count") == RUNTIME_OUTGOING) {
            gone++;
            ASSERT_OK(runtime_restore(a->runtime, &id, images, &err), err);
            ASSERT_OK(runtime_resume(a->runtime, &id, 1, &err), err);
        }
        assert_int_equal(state_of(a, "count"), RUNTIME_RUNNING);
        assert_runs(a);
    }
    print_message("gone after %zu of 6 kills\n", gone);
}

/* Until it is told to, it never runs, whatever died; and in the end it does. */
static void test_runc__killed_while_restoring_does_not_run(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct err err = {0};
    struct guid id = run_counter(machine, COUNTER);
    OWNED(owned_free) char *images = checkpoint(machine, a, &id, "1", false);
    long stopped_at = count_of(a);
    for (useconds_t k = 0; k < 4; k++) {
        kill_during(machine, restore_deed, &id, images, k * 50000);
        assert_int_equal(state_of(a, "count"), RUNTIME_OUTGOING);
        usleep(60000);
        assert_int_equal(count_of(a), stopped_at);
    }
    ASSERT_OK(runtime_restore(a->runtime, &id, images, &err), err);
    ASSERT_OK(runtime_resume(a->runtime, &id, 1, &err), err);
    assert_runs(a);
}

/* It runs as soon as it is RUNNING; until then resuming can be repeated. */
static void test_runc__killed_while_resuming_can_be_repeated(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct err err = {0};
    struct guid id = run_counter(machine, COUNTER);
    OWNED(owned_free) char *images = NULL;
    for (useconds_t k = 0; k < 3; k++) {
        free(images);
        char name[16];
        snprintf(name, sizeof name, "resume-%u", (unsigned)k);
        images = checkpoint(machine, a, &id, name, false);
        ASSERT_OK(runtime_restore(a->runtime, &id, images, &err), err);
        kill_during(machine, resume_deed, &id, images, k * 7000);
        if (state_of(a, "count") != RUNTIME_RUNNING)
            ASSERT_OK(runtime_resume(a->runtime, &id, 1, &err), err);
        assert_runs(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONTAINER_TEST(test_runc__a_failed_dump_leaves_it_running),
        CONTAINER_TEST(test_runc__a_failed_restore_leaves_nothing_and_can_be_repeated),
        CONTAINER_TEST(test_runc__images_do_not_configure),
        CONTAINER_TEST(test_runc__killed_while_dumping_is_one_or_the_other),
        CONTAINER_TEST(test_runc__killed_while_restoring_does_not_run),
        CONTAINER_TEST(test_runc__killed_while_resuming_can_be_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
