/*
 * What the tests with real containers share: a machine with one or two nodes' runtimes in a directory of its own, an
 * image of busybox, and a teardown that leaves no process, mount, control group or file, whatever failed before.
 */
#pragma once

#include "tests/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/base/scope.h"
#include "node/image/image.h"
#include "node/runtime/cgroup.h"
#include "node/runtime/proc.h"
#include "node/runtime/runtime.h"

/* No test uses all of it. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-const-variable"

#define WAIT_MS 15000
#define WAIT_STEP_MS 10

OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)
OWNED_DEFINE(owned_json, json_t, json_decref)

struct peer {
    char *dir; /* owned */
    struct store *store;
    struct runtime *runtime;
    uint64_t log_max_bytes;
};

struct machine {
    char dir[64];
    char criu[64];
    char helper[PATH_MAX];
    struct peer a, b;
};

/* ---- programs ---- */

static int run_program(const char *const *argv)
{
    OWNED(buf_release) struct buf messages = BUF(4096);
    const struct runtime_proc proc = {.argv = argv, .keep_fd = -1, .timeout_ms = 30000, .messages = &messages};
    struct err err = {0};
    int exit_code = -1;
    if (runtime_proc_run(&proc, &exit_code, &err) < 0)
        print_message("%s\n", err.text);
    else if (exit_code != 0 && messages.len > 0)
        print_message("%s: %s\n", argv[0], buf_str(&messages));
    return exit_code;
}
#define RUN(...) run_program((const char *const[]){__VA_ARGS__, NULL})

static bool program_is_there(const char *name)
{
    const struct runtime_proc proc = {
        .argv = (const char *const[]){name, "--version", NULL}, .keep_fd = -1, .timeout_ms = 10000};
    int exit_code = -1;
    return runtime_proc_run(&proc, &exit_code, NULL) == 0 && exit_code == 0;
}

/* ---- nodes ---- */

#define ASSERT_OK(call, err)                                                                                           \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            fail_msg("%s: %s", #call, (err).text);                                                                     \
    } while (0)

static void peer_open(struct machine *machine, struct peer *peer, const char *name)
{
    struct err err = {0};
    if (!peer->dir)
        peer->dir = file_path("%s/%s", machine->dir, name);
    OWNED(owned_free) char *store_dir = file_path("%s/store", peer->dir);
    ASSERT_OK(file_make_dirs(peer->dir, 0700, &err), err);
    const struct store_options store_options = {.dir = store_dir, .clock = clock_system()};
    /* A program that a killed node was just starting has the node's files open until it becomes that program. */
    int status = store_open(&store_options, &peer->store, &err);
    for (int waited_ms = 0; status == ERR_BUSY && waited_ms < WAIT_MS; waited_ms += WAIT_STEP_MS) {
        usleep(WAIT_STEP_MS * 1000);
        status = store_open(&store_options, &peer->store, &err);
    }
    ASSERT_OK(status, err);
    const struct runtime_options options = {
        .dir = peer->dir,
        .runc = "runc",
        .criu = machine->criu,
        .exec_helper = machine->helper,
        .log_max_bytes = peer->log_max_bytes,
        .store = peer->store,
        .clock = clock_system(),
    };
    ASSERT_OK(runtime_open(&options, &peer->runtime, &err), err);
}

static void peer_close(struct peer *peer)
{
    runtime_close(peer->runtime);
    if (peer->store)
        store_close(peer->store);
    peer->runtime = NULL;
    peer->store = NULL;
}

static void peer_reopen(struct machine *machine, struct peer *peer)
{
    peer_close(peer);
    peer_open(machine, peer, NULL);
}

/* The host's flock(1), which busybox has not, and the libraries that it wants. */
#define COPY_FLOCK                                                                                                     \
    "for file in /usr/bin/flock $(ldd /usr/bin/flock | grep -o '/[^ ]*'); do cp -L --parents $file $1; done"

/* A root file system of busybox, the few names under which it is called and flock, imported as "test:1". */
static void import_image(struct machine *machine, struct peer *peer)
{
    static const char *const applets[] = {"sh", "sleep", "cat", "id", "nc", "dd", "rm", "head", "hostname"};
    OWNED(owned_free) char *bin = file_path("%s/rootfs/bin", machine->dir);
    OWNED(owned_free) char *busybox = file_path("%s/busybox", bin);
    OWNED(owned_free) char *rootfs = file_path("%s/rootfs", machine->dir);
    OWNED(owned_free) char *tar = file_path("%s/rootfs.tar", machine->dir);
    struct err err = {0};
    if (!file_exists(tar)) {
        ASSERT_OK(file_make_dirs(bin, 0755, &err), err);
        assert_int_equal(RUN("cp", "/bin/busybox", busybox), 0);
        for (size_t i = 0; i < sizeof applets / sizeof *applets; i++) {
            OWNED(owned_free) char *link = file_path("%s/%s", bin, applets[i]);
            assert_int_equal(symlink("busybox", link), 0);
        }
        assert_int_equal(RUN("sh", "-c", COPY_FLOCK, "sh", rootfs), 0);
        assert_int_equal(RUN("tar", "-C", rootfs, "-cf", tar, "."), 0);
    }
    const struct image_import_options options = {
        .format = IMAGE_FORMAT_ROOTFS, .name = "test:1", .scratch_dir = machine->dir};
    ASSERT_OK(image_import(peer->store, tar, &options, NULL, &err), err);
}

/* ---- the machine ---- */

static bool find_helper(char helper[PATH_MAX])
{
    static const char *const places[] = {"cmig-exec", "../cmig-exec"}; /* from where the test program lies */
    char self[PATH_MAX] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return false;
    *strrchr(self, '/') = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        OWNED(owned_free) char *path = file_path("%s/%s", self, places[i]);
        if (access(path, X_OK) == 0 && realpath(path, helper))
            return true;
    }
    return false;
}

/* Why containers cannot be tried here, or NULL. */
static const char *what_is_missing(struct machine *machine)
{
    const char *ours = "/opt/cmig/bin/criu"; /* where tools/setup puts it */
    strcpy(machine->criu, access(ours, X_OK) == 0 ? ours : "criu");
    if (geteuid() != 0)
        return "needs root";
    if (!program_is_there("runc"))
        return "needs runc";
    if (!program_is_there(machine->criu))
        return "needs CRIU: run tools/setup";
    if (access("/bin/busybox", X_OK) < 0)
        return "needs /bin/busybox (Debian: busybox-static)";
    return find_helper(machine->helper) ? NULL : "needs cmig-exec, which the same build makes";
}

static int machine_setup(void **state)
{
    struct machine *machine = calloc(1, sizeof *machine);
    *state = machine;
    struct err err = {0};
    if (crypto_init(&err) < 0)
        return -1;
    strcpy(machine->dir, "/tmp/cmig-runtime-XXXXXX");
    return mkdtemp(machine->dir) ? 0 : -1;
}

/* At the start of each test: `machine`, with node a open, or the test is skipped and says why. */
#define MACHINE(state)                                                                                                 \
    struct machine *machine = *(state);                                                                                \
    const char *lacking = what_is_missing(machine);                                                                    \
    if (lacking) {                                                                                                     \
        print_message("skipped: %s\n", lacking);                                                                       \
        skip();                                                                                                        \
    }                                                                                                                  \
    peer_open(machine, &machine->a, "a");                                                                              \
    import_image(machine, &machine->a);

static void kill_containers_of(const struct peer *peer)
{
    OWNED(owned_free) char *root = peer->dir ? file_path("%s/runc", peer->dir) : NULL;
    OWNED(owned_free) char *containers = peer->dir ? file_path("%s/containers", peer->dir) : NULL;
    DIR *dir = containers ? opendir(containers) : NULL;
    for (struct dirent *item; dir && (item = readdir(dir));) {
        char cgroup[CGROUP_PATH_SIZE];
        struct guid id;
        if (guid_parse(item->d_name, &id))
            runtime_cgroup_remove(runtime_cgroup_path(root, item->d_name, cgroup), NULL);
    }
    if (dir)
        closedir(dir);
}

/* Unmount what lies beneath; how many there were. */
static int unmount_beneath(const char *top)
{
    int count = 0;
    FILE *mounts = fopen("/proc/self/mounts", "re");
    char line[8192], path[4096];
    while (mounts && fgets(line, sizeof line, mounts)) {
        if (sscanf(line, "%*s %4095s", path) == 1 && strncmp(path, top, strlen(top)) == 0) {
            umount2(path, MNT_DETACH);
            count++;
        }
    }
    if (mounts)
        fclose(mounts);
    return count;
}

static int machine_teardown(void **state)
{
    struct machine *machine = *state;
    struct err err = {0};
    kill_containers_of(&machine->a);
    kill_containers_of(&machine->b);
    peer_close(&machine->a);
    peer_close(&machine->b);
    unmount_beneath(machine->dir);
    int status = file_remove_tree(machine->dir, &err);
    if (status < 0)
        print_message("%s\n", err.text);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    free(machine->a.dir);
    free(machine->b.dir);
    free(machine);
    return status;
}

#define CONTAINER_TEST(test) cmocka_unit_test_setup_teardown(test, machine_setup, machine_teardown)

/* ---- containers ---- */

struct wish {
    const char *name;
    const char *script; /* for sh -c */
    uint32_t uid;
    const struct guid *volume; /* on /data; may be NULL */
    bool read_only;
};

static int spec_of(struct peer *peer, const struct wish *wish, struct runtime_spec *ret_spec, struct err *err)
{
    OWNED(owned_json)
    json_t *json = json_pack("{s:s, s:s, s:[s, s, s], s:i, s:i}", "name", wish->name, "image", "test:1", "args", "sh",
                             "-c", wish->script, "uid", (int)wish->uid, "gid", (int)wish->uid);
    if (wish->volume) {
        char guid[GUID_TEXT_SIZE];
        json_object_set_new(json, "volumes",
                            json_pack("[{s:s, s:s, s:b}]", "guid", guid_text(wish->volume, guid), "path", "/data",
                                      "read_only", wish->read_only));
    }
    int status = runtime_spec_from_json(json, ret_spec, err);
    return status < 0 ? status : runtime_fill(peer->runtime, ret_spec, err);
}

static int try_run(struct peer *peer, const struct wish *wish, struct runtime_container **ret_container,
                   struct err *err)
{
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    int status = spec_of(peer, wish, &spec, err);
    return status < 0 ? status : runtime_run(peer->runtime, &spec, ret_container, err);
}

static struct guid run(struct peer *peer, const struct wish *wish)
{
    OWNED(owned_container) struct runtime_container *container = NULL;
    struct err err = {0};
    ASSERT_OK(try_run(peer, wish, &container, &err), err);
    assert_string_equal(container->spec.name, wish->name);
    assert_true(container->state == RUNTIME_RUNNING);
    return container->id;
}

static struct runtime_container *get(struct peer *peer, const char *name)
{
    struct runtime_container *container = NULL;
    struct err err = {0};
    ASSERT_OK(runtime_get(peer->runtime, name, &container, &err), err);
    return container;
}

static enum runtime_state state_of(struct peer *peer, const char *name)
{
    OWNED(owned_container) struct runtime_container *container = get(peer, name);
    return container->state;
}

/* Of EXITED, after waiting for it. */
static int exit_code_of(struct peer *peer, const char *name)
{
    for (int waited_ms = 0; waited_ms < WAIT_MS; waited_ms += WAIT_STEP_MS) {
        runtime_poll(peer->runtime);
        OWNED(owned_container) struct runtime_container *container = get(peer, name);
        if (container->state == RUNTIME_EXITED)
            return container->exit_code;
        usleep(WAIT_STEP_MS * 1000);
    }
    fail_msg("'%s' does not end", name);
    return -1;
}

static void read_text(const char *path, char *text, size_t text_size)
{
    OWNED(buf_release) struct buf buf = BUF(text_size - 1);
    text[0] = '\0';
    if (file_read(path, &buf, NULL) == 0 && buf.len > 0)
        strcpy(text, buf_str(&buf));
}

static void log_of(struct peer *peer, const char *name, char *text, size_t text_size)
{
    OWNED(owned_free) char *path = NULL;
    struct err err = {0};
    ASSERT_OK(runtime_log_path(peer->runtime, name, &path, &err), err);
    read_text(path, text, text_size);
}

static void wait_for_log(struct peer *peer, const char *name, const char *wanted)
{
    char text[65536];
    for (int waited_ms = 0; waited_ms < WAIT_MS; waited_ms += WAIT_STEP_MS) {
        log_of(peer, name, text, sizeof text);
        if (strstr(text, wanted))
            return;
        usleep(WAIT_STEP_MS * 1000);
    }
    fail_msg("'%s' never said '%s' but: %s", name, wanted, text);
}

/* ---- a counter, in memory and written to its volume ---- */

static const struct guid volume = {{7}};

#define COUNTER "i=0; while :; do i=$((i+1)); echo $i >/data/n; sleep 0.02; done"

static char *volume_path_of(struct peer *peer, const struct guid *guid)
{
    char *path = NULL;
    struct err err = {0};
    ASSERT_OK(runtime_volume_path(peer->runtime, guid, false, &path, &err), err);
    return path;
}

static long count_of(struct peer *peer)
{
    OWNED(owned_free) char *dir = volume_path_of(peer, &volume);
    OWNED(owned_free) char *path = file_path("%s/n", dir);
    char text[64];
    for (int i = 0; i < 100; i++) { /* the shell truncates it first, and may have been stopped there */
        read_text(path, text, sizeof text);
        if (text[0])
            return atol(text);
        usleep(1000);
    }
    return 0;
}

static void wait_for_count(struct peer *peer, long wanted)
{
    for (int waited_ms = 0; waited_ms < WAIT_MS; waited_ms += WAIT_STEP_MS) {
        if (count_of(peer) >= wanted)
            return;
        usleep(WAIT_STEP_MS * 1000);
    }
    fail_msg("the counter stays at %ld and does not reach %ld", count_of(peer), wanted);
}

/* Nothing of a container is to be found on the machine. */
static void assert_no_trace(struct peer *peer, const struct guid *id)
{
    char text[GUID_TEXT_SIZE], cgroup[CGROUP_PATH_SIZE];
    guid_text(id, text);
    OWNED(owned_free) char *files = file_path("%s/containers/%s", peer->dir, text);
    OWNED(owned_free) char *engine = file_path("%s/runc/%s", peer->dir, text);
    OWNED(owned_free) char *root = file_path("%s/runc", peer->dir);
    runtime_cgroup_path(root, text, cgroup);
    OWNED(owned_free) char *group = file_path("/sys/fs/cgroup/freezer%s", cgroup);
    OWNED(owned_free) char *group2 = file_path("/sys/fs/cgroup%s", cgroup);
    assert_false(file_exists(files));
    assert_false(file_exists(engine));
    assert_false(file_exists(group));
    assert_false(file_exists(group2));
    assert_int_equal(unmount_beneath(files), 0);
}

/* ---- checkpoints of it ---- */

/* Holds a lock, and has things open that travel in the images: a ghost file and a pipe. */
#define BUSY_COUNTER                                                                                                   \
    "exec 8>/data/lock; /usr/bin/flock 8; exec 9>/ghost; echo ghost >&9; rm /ghost; echo started; echo kept >/kept; "  \
    "rm /bin/id;"                                                                                                      \
    "i=0; while :; do i=$((i+1)); echo $i >/data/n; sleep 0.02; done"

static struct guid run_counter(struct machine *machine, const char *script)
{
    struct guid id =
        run(&machine->a, &(struct wish){.name = "count", .script = script, .uid = 1000, .volume = &volume});
    wait_for_count(&machine->a, 3);
    return id;
}

static struct guid run_root_counter(struct machine *machine, const char *script)
{
    struct guid id = run(&machine->a, &(struct wish){.name = "count", .script = script, .volume = &volume});
    wait_for_count(&machine->a, 3);
    return id;
}

/* Into DIR/<name>; its path, to be freed. */
static char *checkpoint(struct machine *machine, struct peer *peer, const struct guid *id, const char *name,
                        bool leave_running)
{
    char *images = file_path("%s/%s", machine->dir, name);
    struct err err = {0};
    uint64_t frozen_ms = UINT64_MAX;
    ASSERT_OK(runtime_checkpoint(peer->runtime, id, images, leave_running, &frozen_ms, &err), err);
    assert_true(frozen_ms < 10000);
    return images;
}

static void assert_does_not_run(struct peer *peer)
{
    long before = count_of(peer);
    usleep(300000);
    assert_int_equal(count_of(peer), before);
}

static void assert_runs(struct peer *peer)
{
    wait_for_count(peer, count_of(peer) + 3);
}
