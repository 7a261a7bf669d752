/*
 * The driver for runc (github.com/opencontainers/runc, 1.1 and later), by its command line.
 *
 * Every runc holds ROOT.lock shared, through a descriptor that it inherits: so whoever opens the driver after a kill
 * can wait for those still at work, before it asks what runs. The file holds the id of the boot in which ROOT was
 * written; what is in ROOT names processes and is void after another.
 *
 * A restored container waits with each task stopped: CRIU sends SIGSTOP before it lets go of a task, so it executes
 * nothing, and with all of them stopped no one inside can continue another. It is resumed frozen: SIGCONT to all in the
 * control group while nothing runs, then the thaw, so that no parent among them sees a stopped child.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "node/base/clock.h"
#include "node/base/file.h"
#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/runtime/cgroup.h"
#include "node/runtime/criu.h"
#include "node/runtime/driver.h"
#include "node/runtime/proc.h"

#define QUICK_MS 30000 /* state, pause, resume, kill, delete */
#define CREATE_MS 60000
#define DUMP_MS 600000
#define RESTORE_MS 30000                 /* CRIU hangs on some damaged images; healthy small ones take 0.2 s */
#define RESTORE_BYTES_PER_MS (16u << 10) /* and 16 MiB/s is slower than any disk that we want to wait for */
#define LEFTOVER_MS 60000
#define LEFTOVER_STEP_MS 50
#define MAX_ARGS 32

OWNED_DEFINE(owned_json, json_t, json_decref)

struct runc {
    struct driver driver; /* first: a driver is cast to its runc */
    char *program;        /* owned, as all */
    char *criu;
    char *criu_dir; /* NULL if criu is a plain name */
    char *root;
    char *lock_path;
};

static struct runc *runc_of(struct driver *driver)
{
    return (struct runc *)driver;
}

/* ---- running it ---- */

/* The first line of the last error in runc's messages (logfmt: a line end within it is written \n), or the last of
 * its lines, fit to be shown. */
static void explain(struct buf *messages, char *text, size_t text_size)
{
    const char *all = buf_str(messages);
    const char *last = all ? all : "";
    for (const char *at = last; (at = strstr(at, "msg=\"")); at += 5)
        last = at + 5;
    size_t len = strcspn(last, "\n");
    const char *quote = memrchr(last, '"', len);
    len = quote ? (size_t)(quote - last) : len;
    const char *second = memmem(last, len, "\\n", 2);
    log_text(last, second ? (size_t)(second - last) : len, text, text_size);
}

static int lock_shared(const struct runc *runc, int *ret_fd, struct err *err)
{
    int fd = open(runc->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, errno, "cannot open '%s'", runc->lock_path);
    if (flock(fd, LOCK_SH | LOCK_NB) < 0) {
        int os_error = errno;
        close(fd);
        return err_errno(err, os_error, "cannot lock '%s'", runc->lock_path);
    }
    *ret_fd = fd;
    return 0;
}

struct command {
    const char *const *prefix; /* of another program that starts runc; ends with NULL, may be NULL */
    const char *const *args;   /* ends with NULL; args[0] is runc's command */
    uint64_t timeout_ms;
    struct buf *out;
};

static int run(const struct runc *runc, const struct command *command, struct err *err)
{
    const char *argv[MAX_ARGS] = {NULL};
    size_t count = 0;
    for (const char *const *arg = command->prefix; arg && *arg; arg++)
        argv[count++] = *arg;
    const char *const own[] = {runc->program, "--root", runc->root, "--criu", runc->criu};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        argv[count++] = own[i];
    for (const char *const *arg = command->args; *arg && count < MAX_ARGS - 1; arg++)
        argv[count++] = *arg;

    OWNED(owned_fd) int lock = -1;
    OWNED(buf_release) struct buf messages = BUF(LIMIT_RUNTIME_OUTPUT_BYTES);
    int status = lock_shared(runc, &lock, err);
    if (status < 0)
        return status;
    const struct runtime_proc proc = {
        .argv = argv,
        .path_first = runc->criu_dir, /* runc from 1.2 on ignores --criu and looks on PATH */
        .keep_fd = lock,
        .timeout_ms = command->timeout_ms,
        .out = command->out,
        .messages = &messages,
    };
    int exit_code;
    status = runtime_proc_run(&proc, &exit_code, err);
    if (status == ERR_UNSUPPORTED)
        return err_wrap(err, "install runc, or set 'runc' in the configuration");
    if (status < 0 || exit_code == 0)
        return status;
    char why[200];
    explain(&messages, why, sizeof why);
    return err_set(err, ERR_IO, "runc %s failed (exit %d): %s", command->args[0], exit_code, why);
}

static int run_quickly(const struct runc *runc, const char *verb, const char *id, struct err *err)
{
    const char *const args[] = {verb, id, NULL};
    return run(runc, &(struct command){.args = args, .timeout_ms = QUICK_MS}, err);
}

/* ---- what is there ---- */

/* Whether runc knows it at all: a directory, whether or not its creation came to an end. */
static bool is_known(const struct runc *runc, const char *id)
{
    OWNED(owned_free) char *path = file_path("%s/%s", runc->root, id);
    return path && file_exists(path);
}

/* State T of /proc/PID/stat (proc(5)): stopped by a signal. */
static bool task_is_stopped(pid_t pid)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    OWNED(owned_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        return false;
    const char *name_end = strrchr(text, ')');
    return name_end && strncmp(name_end, ") T", 3) == 0;
}

static int parse_state(const struct buf *out, struct driver_state *ret_state, struct err *err)
{
    static const struct {
        const char *text;
        enum driver_status status;
    } names[] = {{"creating", DRIVER_CREATED},
                 {"created", DRIVER_CREATED},
                 {"running", DRIVER_RUNNING},
                 {"paused", DRIVER_PAUSED},
                 {"stopped", DRIVER_STOPPED}};
    OWNED(owned_json) json_t *json = json_loadb((const char *)out->data, out->len, 0, NULL);
    const char *text = json_string_value(json_object_get(json, "status"));
    json_int_t pid = json_integer_value(json_object_get(json, "pid"));
    for (size_t i = 0; text && i < sizeof names / sizeof *names; i++) {
        if (strcmp(text, names[i].text) != 0)
            continue;
        bool lives = names[i].status != DRIVER_STOPPED;
        *ret_state = (struct driver_state){.status = names[i].status, .pid = lives ? (pid_t)pid : 0};
        return 0;
    }
    return err_set(err, ERR_IO, "runc state says something that is not understood");
}

/* As runc sees it: knows of the freezer, not of SIGSTOP. */
static int ask_state(const struct runc *runc, const char *id, struct driver_state *ret_state, struct err *err)
{
    OWNED(owned_free) char *record = file_path("%s/%s/state.json", runc->root, id);
    if (!record)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    if (!file_exists(record)) {
        *ret_state = (struct driver_state){.status = DRIVER_ABSENT};
        return 0;
    }
    OWNED(buf_release) struct buf out = BUF(LIMIT_RUNTIME_OUTPUT_BYTES);
    const char *const args[] = {"state", id, NULL};
    int status = run(runc, &(struct command){.args = args, .timeout_ms = QUICK_MS, .out = &out}, err);
    return status < 0 ? status : parse_state(&out, ret_state, err);
}

static int runc_inspect(struct driver *driver, const char *id, struct driver_state *ret_state, struct err *err)
{
    int status = ask_state(runc_of(driver), id, ret_state, err);
    if (status < 0)
        return status;
    if (ret_state->status == DRIVER_PAUSED)
        ret_state->status = DRIVER_FROZEN; /* runc's word for it; we never leave a restored container so */
    else if (ret_state->status == DRIVER_RUNNING && task_is_stopped(ret_state->pid))
        ret_state->status = DRIVER_PAUSED;
    return 0;
}

/* ---- life and death ---- */

static int runc_remove(struct driver *driver, const char *id, struct err *err)
{
    struct runc *runc = runc_of(driver);
    /* Not left to runc: it cannot know what a restore that was killed has in the group, and CRIU is there too. */
    char cgroup[CGROUP_PATH_SIZE];
    int status = runtime_cgroup_remove(runtime_cgroup_path(runc->root, id, cgroup), err);
    if (status < 0 || !is_known(runc, id))
        return status;
    const char *const args[] = {"delete", "--force", id, NULL};
    status = run(runc, &(struct command){.args = args, .timeout_ms = QUICK_MS}, err);
    OWNED(owned_free) char *path = file_path("%s/%s", runc->root, id);
    if (status == 0 && path)
        status = file_remove_tree(path, err);
    return status;
}

static int read_pid(const char *path, pid_t *ret_pid, struct err *err)
{
    OWNED(buf_release) struct buf text = BUF(32);
    int status = file_read(path, &text, err);
    if (status < 0)
        return status;
    const char *digits = buf_str(&text);
    long pid = digits ? strtol(digits, NULL, 10) : 0;
    if (pid <= 0)
        return err_set(err, ERR_IO, "runc has written no pid into '%s'", path);
    *ret_pid = (pid_t)pid;
    return 0;
}

static int runc_create(struct driver *driver, const char *id, const char *bundle, pid_t *ret_pid, struct err *err)
{
    OWNED(owned_free) char *pid_path = file_path("%s/pid", bundle);
    if (!pid_path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    const char *const args[] = {"run", "--detach", "--bundle", bundle, "--pid-file", pid_path, id, NULL};
    int status = run(runc_of(driver), &(struct command){.args = args, .timeout_ms = CREATE_MS}, err);
    if (status == 0)
        status = read_pid(pid_path, ret_pid, err);
    if (status < 0)
        runc_remove(driver, id, NULL);
    return status;
}

static int runc_signal(struct driver *driver, const char *id, int signal, struct err *err)
{
    char number[16];
    snprintf(number, sizeof number, "%d", signal);
    const char *const args[] = {"kill", id, number, NULL};
    return run(runc_of(driver), &(struct command){.args = args, .timeout_ms = QUICK_MS}, err);
}

/* ---- checkpoints ---- */

static int dump(struct runc *runc, const char *id, const char *bundle, const char *images_dir, bool leave_running,
                struct err *err)
{
    OWNED(owned_free) char *work = file_path("%s/" CRIU_WORK_NAME, bundle);
    if (!work)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    const char *args[MAX_ARGS] = {"checkpoint", "--image-path", images_dir, "--work-path", work};
    size_t count = 5;
    if (leave_running)
        args[count++] = "--leave-running";
    args[count] = id;
    int status = run(runc, &(struct command){.args = args, .timeout_ms = DUMP_MS}, err);
    if (status < 0)
        runtime_criu_explain(bundle, CRIU_DUMP, err);
    return status;
}

static int runc_checkpoint(struct driver *driver, const char *id, const char *bundle, const char *images_dir,
                           bool leave_running, uint64_t *ret_frozen_ms, struct err *err)
{
    struct runc *runc = runc_of(driver);
    int status = runtime_criu_prepare(bundle, CRIU_DUMP, err);
    if (status < 0)
        return status;
    const struct clock clock = clock_system();
    uint64_t from_ms = clock_mono_ms(&clock);
    /* Frozen beforehand, because CRIU polls a freezer that it has to wait for in steps of 100 ms. */
    status = run_quickly(runc, "pause", id, err);
    if (status == 0)
        status = dump(runc, id, bundle, images_dir, leave_running, err);
    if (status < 0 || leave_running) {
        struct err second = {0};
        int resumed = run_quickly(runc, "resume", id, &second);
        if (status == 0 && resumed < 0)
            status = err_set(err, resumed, "%s", second.text);
    }
    if (status == 0)
        *ret_frozen_ms = clock_mono_ms(&clock) - from_ms;
    return status;
}

/* runc reads in the images to which files the standard descriptors belonged, and lets CRIU give the container its own
 * in place of pipes. Ours never are pipes; images from elsewhere do not get to say that they are. */
static int replace_descriptors(const char *images_dir, struct err *err)
{
    static const char text[] = "[\"/dev/null\",\"/dev/null\",\"/dev/null\"]";
    OWNED(owned_free) char *path = file_path("%s/descriptors.json", images_dir);
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    return file_write_atomic(path, text, sizeof text - 1, 0600, err);
}

static uint64_t restore_timeout_ms(const char *images_dir)
{
    struct stat st;
    uint64_t bytes = 0;
    for (unsigned i = 1; i < 10000; i++) {
        OWNED(owned_free) char *pages = file_path("%s/pages-%u.img", images_dir, i);
        if (!pages || stat(pages, &st) < 0)
            break;
        bytes += (uint64_t)st.st_size;
    }
    return RESTORE_MS + bytes / RESTORE_BYTES_PER_MS;
}

static int runc_restore(struct driver *driver, const char *id, const char *bundle, const char *images_dir,
                        struct err *err)
{
    struct runc *runc = runc_of(driver);
    OWNED(owned_free) char *work = file_path("%s/" CRIU_WORK_NAME, bundle);
    if (!work)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    int status = runtime_criu_prepare(bundle, CRIU_RESTORE, err);
    if (status == 0)
        status = replace_descriptors(images_dir, err);
    if (status < 0)
        return status;
    /* A restore that is killed leaves the root file system and the host's control groups bound in ROOT and in the work
     * directory, and runc's delete removes what it finds there. In a mount namespace of its own they end with it. */
    const char *const prefix[] = {"unshare", "--mount", "--propagation", "slave", "--", NULL};
    const char *const args[] = {"restore", "--detach", "--image-path", images_dir, "--work-path",
                                work,      "--bundle", bundle,         id,         NULL};
    const struct command command = {.prefix = prefix, .args = args, .timeout_ms = restore_timeout_ms(images_dir)};
    status = run(runc, &command, err);
    if (status < 0) {
        runtime_criu_explain(bundle, CRIU_RESTORE, err);
        runc_remove(driver, id, NULL);
    }
    return status;
}

static int runc_resume(struct driver *driver, const char *id, struct err *err)
{
    struct runc *runc = runc_of(driver);
    struct driver_state state = {0};
    int status = ask_state(runc, id, &state, err);
    if (status < 0)
        return status;
    if (state.status == DRIVER_RUNNING && !task_is_stopped(state.pid))
        return 0;
    if (state.status == DRIVER_RUNNING)
        status = run_quickly(runc, "pause", id, err);
    else if (state.status != DRIVER_PAUSED)
        status = err_set(err, ERR_CONFLICT, "nothing of the container is there to run on");
    char cgroup[CGROUP_PATH_SIZE];
    if (status == 0)
        status = runtime_cgroup_signal(runtime_cgroup_path(runc->root, id, cgroup), SIGCONT, err);
    return status < 0 ? status : run_quickly(runc, "resume", id, err);
}

/* ---- versions ---- */

/* The first word after `mark` in what `program --version` writes. */
static int version_of(const char *program, const char *mark, char ret_version[32], struct err *err)
{
    ret_version[0] = '\0';
    OWNED(buf_release) struct buf out = BUF(4096);
    const char *const argv[] = {program, "--version", NULL};
    const struct runtime_proc proc = {.argv = argv, .keep_fd = -1, .timeout_ms = QUICK_MS, .out = &out};
    int exit_code;
    int status = runtime_proc_run(&proc, &exit_code, err);
    if (status < 0)
        return status;
    const char *text = buf_str(&out);
    const char *found = text && exit_code == 0 ? strstr(text, mark) : NULL;
    if (!found)
        return err_set(err, ERR_UNSUPPORTED, "'%s --version' does not work", program);
    found += strlen(mark);
    log_text(found, strcspn(found, " \n"), ret_version, 32);
    return 0;
}

static int runc_versions(struct driver *driver, char ret_engine[32], char ret_checkpointer[32], struct err *err)
{
    struct runc *runc = runc_of(driver);
    struct err second = {0};
    int checkpointer = version_of(runc->criu, "Version: ", ret_checkpointer, &second);
    if (version_of(runc->program, "runc version ", ret_engine, err) < 0) {
        err_wrap(err, "install runc, or set 'runc' in the configuration");
        return ERR_UNSUPPORTED;
    }
    if (checkpointer < 0)
        return err_set(err, ERR_UNSUPPORTED, "run tools/setup, or set 'criu' in the configuration: %s", second.text);
    return 0;
}

/* ---- opening ---- */

static void runc_free(struct driver *driver)
{
    struct runc *runc = runc_of(driver);
    free(runc->program);
    free(runc->criu);
    free(runc->criu_dir);
    free(runc->root);
    free(runc->lock_path);
    free(runc);
}

static const struct driver_ops runc_ops = {
    .name = "runc",
    .inspect = runc_inspect,
    .create = runc_create,
    .checkpoint = runc_checkpoint,
    .restore = runc_restore,
    .resume = runc_resume,
    .signal = runc_signal,
    .remove = runc_remove,
    .versions = runc_versions,
    .free = runc_free,
};

static int wait_for_leftovers(const struct runc *runc, int lock, struct err *err)
{
    for (int waited_ms = 0; flock(lock, LOCK_EX | LOCK_NB) < 0; waited_ms += LEFTOVER_STEP_MS) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_errno(err, errno, "cannot lock '%s'", runc->lock_path);
        if (waited_ms >= LEFTOVER_MS)
            return err_set(err, ERR_BUSY, "a runc of this node's last life is still at work after %d s: '%s' is locked",
                           LEFTOVER_MS / 1000, runc->lock_path);
        nanosleep(&(struct timespec){.tv_nsec = LEFTOVER_STEP_MS * 1000000L}, NULL);
    }
    return 0;
}

/* Forget what was written before the machine was started. */
static int check_boot(const struct runc *runc, int lock, struct err *err)
{
    OWNED(buf_release) struct buf boot = BUF(64);
    int status = file_read("/proc/sys/kernel/random/boot_id", &boot, err);
    if (status < 0)
        return status;
    uint8_t seen[64] = {0};
    if (pread(lock, seen, boot.len, 0) == (ssize_t)boot.len && memcmp(seen, boot.data, boot.len) == 0)
        return 0;
    status = file_remove_tree(runc->root, err);
    if (status == 0)
        status = file_pwrite_all(lock, boot.data, boot.len, 0, runc->lock_path, err);
    return status;
}

static int open_root(const struct runc *runc, struct err *err)
{
    OWNED(owned_fd) int lock = open(runc->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0)
        return err_errno(err, errno, "cannot open '%s'", runc->lock_path);
    int status = wait_for_leftovers(runc, lock, err);
    if (status == 0)
        status = check_boot(runc, lock, err);
    return status < 0 ? status : file_make_dirs(runc->root, 0700, err);
}

static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : NULL;
}

int driver_runc_new(const char *runc, const char *criu, const char *root, struct driver **ret_driver, struct err *err)
{
    struct runc *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return err_set(err, ERR_NOMEM, "no memory for a driver");
    *fresh = (struct runc){
        .driver = {.ops = &runc_ops},
        .program = strdup(runc),
        .criu = strdup(criu),
        .criu_dir = directory_of(criu),
        .root = strdup(root),
        .lock_path = file_path("%s.lock", root),
    };
    int status = 0;
    if (!fresh->program || !fresh->criu || (strchr(criu, '/') && !fresh->criu_dir) || !fresh->root || !fresh->lock_path)
        status = err_set(err, ERR_NOMEM, "no memory for a driver");
    if (status == 0)
        status = open_root(fresh, err);
    if (status < 0) {
        runc_free(&fresh->driver);
        return status;
    }
    *ret_driver = &fresh->driver;
    return 0;
}
