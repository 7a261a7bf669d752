/* What migrations do with containers, with real ones: node a is the source, node b the destination. */
#include "tests/unit/runtime/containers.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* ---- one node ---- */

static void test_checkpoint__three_in_a_row_then_taken_back(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct guid id = run_root_counter(machine, BUSY_COUNTER);
    free(checkpoint(machine, a, &id, "1", true));
    assert_runs(a);
    free(checkpoint(machine, a, &id, "2", true));
    assert_runs(a);
    assert_int_equal(state_of(a, "count"), RUNTIME_RUNNING);

    OWNED(owned_free) char *last = checkpoint(machine, a, &id, "3", false);
    OWNED(owned_container) struct runtime_container *out = get(a, "count");
    assert_int_equal(out->state, RUNTIME_OUTGOING);
    assert_int_equal(out->pid, 0);
    long stopped_at = count_of(a);
    struct err err = {0};
    assert_int_equal(runtime_stop(a->runtime, "count", 0, &err), ERR_CONFLICT);
    assert_int_equal(runtime_remove(a->runtime, "count", &err), ERR_CONFLICT);
    assert_int_equal(runtime_resume(a->runtime, &id, 1, &err), ERR_CONFLICT); /* nothing restored */
    uint64_t frozen_ms;
    assert_int_equal(runtime_checkpoint(a->runtime, &id, "/nonexistent", true, &frozen_ms, &err), ERR_CONFLICT);

    ASSERT_OK(runtime_restore(a->runtime, &id, last, &err), err);
    assert_int_equal(state_of(a, "count"), RUNTIME_OUTGOING);
    OWNED(owned_container) struct runtime_container *held = get(a, "count");
    assert_int_equal(kill(held->pid, 0), 0);
    assert_does_not_run(a);
    assert_int_equal(count_of(a), stopped_at);
    ASSERT_OK(runtime_resume(a->runtime, &id, 1, &err), err);
    assert_int_equal(state_of(a, "count"), RUNTIME_RUNNING);
    assert_runs(a);
    assert_true(count_of(a) > stopped_at);
    ASSERT_OK(runtime_resume(a->runtime, &id, 1, &err), err); /* harmless */
    assert_runs(a);

    /* It can go on being checkpointed: nothing of the restore sticks to it. */
    free(checkpoint(machine, a, &id, "4", true));
    assert_runs(a);
    ASSERT_OK(runtime_stop(a->runtime, "count", 0, &err), err);
    OWNED(owned_container) struct runtime_container *end = get(a, "count");
    assert_int_equal(end->exit_code, 128 + SIGKILL); /* restored tasks are our children, too */
    ASSERT_OK(runtime_remove(a->runtime, "count", &err), err);
    assert_no_trace(a, &id);
}

/* faults 83: nobody else can look into a checkpoint. */
static void test_checkpoint__images_are_private(void **state)
{
    MACHINE(state)
    struct guid id = run_counter(machine, COUNTER);
    OWNED(owned_free) char *images = checkpoint(machine, &machine->a, &id, "1", true);
    struct stat st;
    assert_int_equal(stat(images, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    DIR *dir = opendir(images);
    assert_non_null(dir);
    size_t files = 0;
    for (struct dirent *item; (item = readdir(dir));) {
        if (item->d_name[0] == '.')
            continue;
        files++;
        assert_int_equal(fstatat(dirfd(dir), item->d_name, &st, AT_SYMLINK_NOFOLLOW), 0);
        if ((st.st_mode & 07777) != 0600)
            fail_msg("%s has mode %o", item->d_name, st.st_mode);
    }
    closedir(dir);
    assert_true(files > 10);
    uint64_t frozen_ms;
    struct err err = {0};
    assert_int_equal(runtime_checkpoint(machine->a.runtime, &id, images, true, &frozen_ms, &err), ERR_EXISTS);
    assert_runs(&machine->a);
}

/* ---- the daemon dies in between ---- */

static void test_checkpoint__restored_and_stopped_survives_the_daemon(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct err err = {0};
    struct guid id = run_counter(machine, COUNTER);
    OWNED(owned_free) char *images = checkpoint(machine, a, &id, "1", false);
    ASSERT_OK(runtime_restore(a->runtime, &id, images, &err), err);
    peer_reopen(machine, a);
    assert_int_equal(state_of(a, "count"), RUNTIME_OUTGOING);
    assert_does_not_run(a);
    ASSERT_OK(runtime_resume(a->runtime, &id, 1, &err), err);
    assert_runs(a);
}

/* ---- two nodes ---- */

/* What a migration does with objects: the record through JSON, the writable part and the volume as files. */
static void send_to_b(struct machine *machine, const struct guid *id)
{
    struct err err = {0};
    OWNED(owned_container) struct runtime_container *from = get(&machine->a, "count");
    OWNED(owned_json) json_t *json = runtime_container_to_json(from);
    OWNED(owned_container) struct runtime_container *to = NULL;
    ASSERT_OK(runtime_container_from_json(json, &to, &err), err);
    ASSERT_OK(runtime_incoming(machine->b.runtime, to, &err), err);
    assert_int_equal(runtime_incoming(machine->b.runtime, to, &err), ERR_EXISTS);
    assert_int_equal(state_of(&machine->b, "count"), RUNTIME_INCOMING);

    OWNED(owned_free) char *source_rw = NULL;
    OWNED(owned_free) char *target_rw = NULL;
    ASSERT_OK(runtime_writable_path(machine->a.runtime, id, &source_rw, &err), err);
    ASSERT_OK(runtime_writable_path(machine->b.runtime, id, &target_rw, &err), err);
    ASSERT_OK(file_remove_tree(target_rw, &err), err);
    assert_int_equal(RUN("cp", "-a", source_rw, target_rw), 0);
    OWNED(owned_free) char *source_volume = volume_path_of(&machine->a, &volume);
    OWNED(owned_free) char *target_volume = volume_path_of(&machine->b, &volume);
    assert_int_equal(RUN("cp", "-a", source_volume, target_volume), 0);
}

static void test_checkpoint__moves_to_another_node(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a, *b = &machine->b;
    struct err err = {0};
    peer_open(machine, b, "b");
    import_image(machine, b);
    struct guid id = run_root_counter(machine, BUSY_COUNTER);
    wait_for_log(a, "count", "started");
    uint64_t epoch, counter;
    ASSERT_OK(runtime_next_version(a->runtime, &id, &epoch, &counter, &err), err);
    assert_int_equal(epoch, 1);
    assert_int_equal(counter, 1);
    OWNED(owned_free) char *images = checkpoint(machine, a, &id, "1", false);
    long stopped_at = count_of(a);
    send_to_b(machine, &id);

    ASSERT_OK(runtime_restore(b->runtime, &id, images, &err), err);
    assert_int_equal(state_of(b, "count"), RUNTIME_INCOMING);
    assert_does_not_run(b);
    assert_int_equal(count_of(b), stopped_at);
    ASSERT_OK(runtime_resume(b->runtime, &id, 2, &err), err);
    assert_runs(b);
    assert_true(count_of(b) > stopped_at);
    assert_int_equal(count_of(a), stopped_at);
    OWNED(owned_container) struct runtime_container *there = get(b, "count");
    assert_int_equal(there->state, RUNTIME_RUNNING);
    assert_int_equal(there->epoch, 2);
    assert_int_equal(there->counter, 0);
    char text[256];
    log_of(b, "count", text, sizeof text);
    assert_string_equal(text, "started\n");
    /* Its own writes and removals came with it, on top of the image that was here. */
    OWNED(owned_free) char *kept = file_path("/proc/%d/root/kept", (int)there->pid);
    OWNED(owned_free) char *removed = file_path("/proc/%d/root/bin/id", (int)there->pid);
    OWNED(owned_free) char *shell = file_path("/proc/%d/root/bin/sh", (int)there->pid);
    assert_true(file_exists(kept));
    OWNED(owned_free) char *volume_path = volume_path_of(b, &volume);
    OWNED(owned_free) char *lock = file_path("%s/lock", volume_path);
    assert_int_equal(RUN("flock", "-n", lock, "true"), 1); /* it holds it still */
    struct stat st;
    assert_int_equal(lstat(removed, &st), -1);
    assert_int_equal(lstat(shell, &st), 0);

    ASSERT_OK(runtime_discard(a->runtime, &id, true, &err), err);
    ASSERT_OK(runtime_discard(a->runtime, &id, true, &err), err); /* harmless */
    assert_no_trace(a, &id);
    OWNED(owned_free) char *left = volume_path_of(a, &volume);
    assert_false(file_exists(left));
    assert_runs(b);
    assert_int_equal(runtime_discard(b->runtime, &id, true, &err), ERR_CONFLICT); /* it is no migration's any more */

    /* And on: b is a source like any other. */
    OWNED(owned_free) char *next = checkpoint(machine, b, &id, "2", false);
    ASSERT_OK(runtime_restore(b->runtime, &id, next, &err), err);
    ASSERT_OK(runtime_discard(b->runtime, &id, true, &err), err);
    assert_no_trace(b, &id);
}

/* What came as the writable part is looked at before it is mounted: a log that is a link would be a door to the host.
 */
static void test_checkpoint__a_writable_part_is_what_it_should_be(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct err err = {0};
    struct guid id = run_counter(machine, COUNTER);
    OWNED(owned_free) char *images = checkpoint(machine, a, &id, "1", false);
    OWNED(owned_free) char *rw = NULL;
    ASSERT_OK(runtime_writable_path(a->runtime, &id, &rw, &err), err);
    OWNED(owned_free) char *log = file_path("%s/log", rw);
    OWNED(owned_free) char *aside = file_path("%s/aside", machine->dir);
    assert_int_equal(rename(log, aside), 0);
    assert_int_equal(symlink("/etc/passwd", log), 0);
    assert_int_equal(runtime_restore(a->runtime, &id, images, &err), ERR_INVALID);
    assert_int_equal(unlink(log), 0);
    assert_int_equal(rename(aside, log), 0);
    ASSERT_OK(runtime_restore(a->runtime, &id, images, &err), err);
}

/* ---- gotcha 5: connections ---- */

static int connect_to(uint16_t port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int waited_ms = 0; waited_ms < WAIT_MS; waited_ms += WAIT_STEP_MS) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(fd >= 0);
        if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
            return fd;
        close(fd);
        usleep(WAIT_STEP_MS * 1000);
    }
    fail_msg("nobody listens on port %u", port);
    return -1;
}

static void assert_echoes(int fd, const char *text)
{
    char back[64] = "";
    size_t len = strlen(text);
    const struct timeval timeout = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    assert_int_equal(write(fd, text, len), len);
    assert_int_equal(recv(fd, back, len, MSG_WAITALL), len);
    assert_string_equal(back, text);
}

static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    OWNED(owned_fd) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    return ntohs(address.sin_port);
}

static void test_checkpoint__connections_live_through_snapshots_and_end_with_a_move(void **state)
{
    MACHINE(state)
    struct peer *a = &machine->a;
    struct err err = {0};
    uint16_t port = free_port();
    OWNED(owned_free) char *script = file_path("exec nc -ll -p %u -e cat", port);
    struct guid id = run(a, &(struct wish){.name = "echo", .script = script});
    OWNED(owned_fd) int client = connect_to(port);
    assert_echoes(client, "before");
    free(checkpoint(machine, a, &id, "1", true));
    assert_echoes(client, "after");
    OWNED(owned_free) char *last = checkpoint(machine, a, &id, "2", false);
    ASSERT_OK(runtime_restore(a->runtime, &id, last, &err), err);
    ASSERT_OK(runtime_resume(a->runtime, &id, 1, &err), err);
    OWNED(owned_fd) int second = connect_to(port);
    assert_echoes(second, "anew");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONTAINER_TEST(test_checkpoint__three_in_a_row_then_taken_back),
        CONTAINER_TEST(test_checkpoint__images_are_private),
        CONTAINER_TEST(test_checkpoint__restored_and_stopped_survives_the_daemon),
        CONTAINER_TEST(test_checkpoint__moves_to_another_node),
        CONTAINER_TEST(test_checkpoint__a_writable_part_is_what_it_should_be),
        CONTAINER_TEST(test_checkpoint__connections_live_through_snapshots_and_end_with_a_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
