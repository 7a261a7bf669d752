#include "node/runtime/poll.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "node/base/buf.h"
#include "node/base/file.h"
#include "node/base/log.h"
#include "node/base/scope.h"

#define LOG_COPY_MAX_BYTES (64u << 20) /* kept of a log, where it has to be copied */

/* ---- ends ---- */

/* Through its descriptor: the pid alone could be another child of this process by now. */
static int reap(int pid_fd)
{
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)pid_fd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        return -1; /* another process was its parent */
    return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

bool runtime_poll_wait(struct runtime *runtime, struct runtime_entry *entry, uint64_t timeout_ms, int *ret_exit_code)
{
    if (entry->pid_fd < 0)
        return false;
    const struct clock clock = clock_system();
    uint64_t deadline_ms = clock_mono_ms(&clock) + timeout_ms;
    struct pollfd event = {.fd = entry->pid_fd, .events = POLLIN};
    for (;;) {
        uint64_t now_ms = clock_mono_ms(&clock);
        uint64_t left_ms = deadline_ms > now_ms ? deadline_ms - now_ms : 0;
        int ready = poll(&event, 1, left_ms < 60000 ? (int)left_ms : 60000);
        if (ready > 0)
            break;
        if (left_ms == 0)
            return false;
    }
    *ret_exit_code = reap(entry->pid_fd);
    runtime_table_set_pid(runtime, entry, 0);
    return true;
}

bool runtime_poll_collect(struct runtime *runtime, struct runtime_entry *entry, int *ret_exit_code)
{
    return runtime_poll_wait(runtime, entry, 0, ret_exit_code);
}

static void notice_end(struct runtime *runtime, struct runtime_entry *entry)
{
    int exit_code;
    if (!runtime_poll_collect(runtime, entry, &exit_code) || entry->container->state != RUNTIME_RUNNING)
        return;
    struct runtime_container next = *entry->container;
    next.state = RUNTIME_EXITED;
    next.exit_code = exit_code;
    struct err err = {0};
    if (runtime_table_save(runtime, entry, &next, &err) < 0)
        log_warn("runtime", "record container=%s error=\"%s\"", next.spec.name, err.text);
    log_info("runtime", "exited container=%s code=%d", next.spec.name, exit_code);
}

/* ---- logs ---- */

/* Where the file system cannot cut a file's front away in place. Lines written between the two steps are lost. */
static int keep_end_by_copy(int fd, uint64_t keep_bytes, uint64_t size_bytes, const char *path, struct err *err)
{
    OWNED(buf_release) struct buf kept = BUF(LOG_COPY_MAX_BYTES);
    if (keep_bytes > kept.max)
        keep_bytes = kept.max;
    uint8_t *data = buf_reserve(&kept, keep_bytes);
    if (!data)
        return err_set(err, ERR_NOMEM, "no memory to cut '%s'", path);
    int status = file_pread_all(fd, data, keep_bytes, size_bytes - keep_bytes, path, err);
    if (status < 0)
        return status;
    if (ftruncate(fd, 0) < 0)
        return err_errno(err, errno, "cannot cut '%s'", path);
    return file_pwrite_all(fd, data, keep_bytes, 0, path, err);
}

static int cut_log(const char *path, uint64_t max_bytes, struct err *err)
{
    OWNED(owned_fd) int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(err, errno, "cannot open '%s'", path);
    uint64_t size_bytes = (uint64_t)st.st_size;
    if (max_bytes == 0 || size_bytes <= max_bytes)
        return 0;
    uint64_t cut_bytes = size_bytes - max_bytes / 2;
    uint64_t block = (uint64_t)st.st_blksize;
    /* In whole blocks, as the file system wants it. Writers append, so they go on at the new end. */
    if (block > 0 && cut_bytes / block > 0 &&
        fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, (off_t)(cut_bytes / block * block)) == 0)
        return 0;
    return keep_end_by_copy(fd, size_bytes - cut_bytes, size_bytes, path, err);
}

/* Only of one that runs and that nobody else works on: CRIU remembers the length of the log at a dump. */
static void keep_log_short(struct runtime *runtime, struct runtime_entry *entry)
{
    struct err err = {0};
    if (entry->container->state == RUNTIME_RUNNING &&
        cut_log(entry->bundle.log, runtime->options.log_max_bytes, &err) < 0)
        log_warn("runtime", "log container=%s error=\"%s\"", entry->container->spec.name, err.text);
}

void runtime_poll(struct runtime *runtime)
{
    for (size_t i = 0; i < runtime_count(runtime); i++) {
        struct runtime_entry *entry = runtime_table_try(runtime, i);
        if (!entry)
            continue;
        notice_end(runtime, entry);
        keep_log_short(runtime, entry);
        runtime_table_give(runtime, entry);
    }
}
