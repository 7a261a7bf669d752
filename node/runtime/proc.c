#include "node/runtime/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "node/base/clock.h"
#include "node/base/file.h"
#include "node/base/scope.h"

#define KEPT_FD 3
#define KILLED_WAIT_MS 10000 /* for a process in uninterruptible sleep; then it is left to itself */
#define REAP_TRIES 100       /* of killed orphans, each taken at once or after a step */
#define REAP_STEP_MS 10
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* One captured stream. */
struct stream {
    int read_fd, write_fd;
    struct buf *buf; /* borrowed, or NULL */
};

struct child {
    pid_t pid;
    int pid_fd;
    struct stream streams[2];
};

static void child_release(struct child *child)
{
    for (int i = 0; i < 2; i++) {
        owned_fd(&child->streams[i].read_fd);
        owned_fd(&child->streams[i].write_fd);
    }
    owned_fd(&child->pid_fd);
}

static int stream_open(struct stream *stream, struct buf *buf, struct err *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_errno(err, errno, "cannot make a pipe");
    *stream = (struct stream){.read_fd = fds[0], .write_fd = fds[1], .buf = buf};
    if (fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0)
        return err_errno(err, errno, "cannot make a pipe");
    return 0;
}

/* Read what is there. Closes the stream at its end. */
static void stream_drain(struct stream *stream)
{
    uint8_t chunk[4096];
    for (;;) {
        ssize_t got = read(stream->read_fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0) {
            close(stream->read_fd);
            stream->read_fd = -1;
        }
        if (got <= 0)
            return;
        size_t room = stream->buf ? stream->buf->max - stream->buf->len : 0;
        if (room > 0)
            (void)buf_add(stream->buf, chunk, (size_t)got < room ? (size_t)got : room);
    }
}

static int prepare_files(posix_spawn_file_actions_t *files, const struct child *child, int keep_fd)
{
    int status = posix_spawn_file_actions_addopen(files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (status == 0)
        status = posix_spawn_file_actions_adddup2(files, child->streams[0].write_fd, STDOUT_FILENO);
    if (status == 0)
        status = posix_spawn_file_actions_adddup2(files, child->streams[1].write_fd, STDERR_FILENO);
    if (status == 0 && keep_fd >= 0)
        status = posix_spawn_file_actions_adddup2(files, keep_fd, KEPT_FD);
    if (status == 0)
        status = posix_spawn_file_actions_addclosefrom_np(files, keep_fd >= 0 ? KEPT_FD + 1 : KEPT_FD);
    return status;
}

/* A process group of its own, no signal blocked or ignored, whatever this thread's are. */
static int prepare_signals(posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int status =
        posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (status == 0)
        status = posix_spawnattr_setpgroup(attributes, 0);
    if (status == 0)
        status = posix_spawnattr_setsigmask(attributes, &none);
    if (status == 0)
        status = posix_spawnattr_setsigdefault(attributes, &all);
    return status;
}

static int spawn(const struct runtime_proc *proc, struct child *child)
{
    const char *inherited = getenv("PATH");
    const char *path = inherited ? inherited : DEFAULT_PATH;
    OWNED(owned_free)
    char *variable = proc->path_first ? file_path("PATH=%s:%s", proc->path_first, path) : file_path("PATH=%s", path);
    if (!variable)
        return ENOMEM;
    char *environment[] = {variable, NULL};

    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    int status = prepare_files(&files, child, proc->keep_fd);
    if (status == 0)
        status = prepare_signals(&attributes);
    if (status == 0)
        status = posix_spawnp(&child->pid, proc->argv[0], &files, &attributes, (char *const *)proc->argv, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return status;
}

static int start(const struct runtime_proc *proc, struct child *child, struct err *err)
{
    int status = stream_open(&child->streams[0], proc->out, err);
    if (status == 0)
        status = stream_open(&child->streams[1], proc->messages, err);
    if (status < 0)
        return status;
    int refused = spawn(proc, child);
    if (refused == ENOENT)
        return err_set(err, ERR_UNSUPPORTED, "there is no program '%s'", proc->argv[0]);
    if (refused != 0)
        return err_errno(err, refused, "cannot start '%s'", proc->argv[0]);
    for (int i = 0; i < 2; i++) {
        close(child->streams[i].write_fd);
        child->streams[i].write_fd = -1;
    }
    child->pid_fd = pidfd_open(child->pid, 0);
    if (child->pid_fd >= 0)
        return 0;
    status = err_errno(err, errno, "cannot watch '%s'", proc->argv[0]);
    kill(-child->pid, SIGKILL);
    waitpid(child->pid, NULL, 0);
    return status;
}

/* True when it has ended, false when the time is up. */
static bool wait_for_end(struct child *child, uint64_t timeout_ms)
{
    const struct clock clock = clock_system();
    uint64_t deadline_ms = clock_mono_ms(&clock) + timeout_ms;
    for (;;) {
        uint64_t now_ms = clock_mono_ms(&clock);
        if (now_ms >= deadline_ms)
            return false;
        uint64_t left_ms = deadline_ms - now_ms;
        struct pollfd events[3] = {{.fd = child->pid_fd, .events = POLLIN},
                                   {.fd = child->streams[0].read_fd, .events = POLLIN},
                                   {.fd = child->streams[1].read_fd, .events = POLLIN}};
        if (poll(events, 3, left_ms < 60000 ? (int)left_ms : 60000) < 0)
            continue;
        for (int i = 0; i < 2; i++)
            if (events[1 + i].revents)
                stream_drain(&child->streams[i]);
        if (events[0].revents)
            return true;
    }
}

/* Its orphans come to us if we are their reaper. Those of other groups are not ours to wait for. */
static void reap_group(pid_t group)
{
    for (int i = 0; i < REAP_TRIES; i++) {
        pid_t reaped = waitpid(-group, NULL, WNOHANG);
        if (reaped < 0)
            return; /* none is left */
        if (reaped == 0)
            nanosleep(&(struct timespec){.tv_nsec = REAP_STEP_MS * 1000000L}, NULL);
    }
}

int runtime_proc_run(const struct runtime_proc *proc, int *ret_exit_code, struct err *err)
{
    OWNED(child_release)
    struct child child = {.pid_fd = -1, .streams = {{.read_fd = -1, .write_fd = -1}, {.read_fd = -1, .write_fd = -1}}};
    int status = start(proc, &child, err);
    if (status < 0)
        return status;
    bool ended = wait_for_end(&child, proc->timeout_ms);
    if (!ended) {
        kill(-child.pid, SIGKILL);
        status = err_set(err, ERR_TIMEOUT, "'%s' did not end in %llu ms", proc->argv[0],
                         (unsigned long long)proc->timeout_ms);
        ended = wait_for_end(&child, KILLED_WAIT_MS);
    }
    int how = 0;
    if (ended && waitpid(child.pid, &how, 0) < 0)
        return err_errno(err, errno, "cannot wait for '%s'", proc->argv[0]);
    for (int i = 0; i < 2; i++)
        if (child.streams[i].read_fd >= 0)
            stream_drain(&child.streams[i]);
    if (status < 0) {
        reap_group(child.pid);
        return status;
    }
    *ret_exit_code = WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
    return 0;
}
