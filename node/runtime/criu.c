#include "node/runtime/criu.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/log.h"
#include "node/base/scope.h"

#define LOG_TAIL_BYTES 65536
#define EXPLAIN_LINES 2 /* the first says why, the next what that prevented */
#define EXPLAIN_LINE_BYTES 110

/* tcp-close, skip-in-flight: connections of the host's network cannot move, nor can half-open ones that nobody has
 * accepted yet; the container sees them end. file-locks: or a container
 * that holds one could not be dumped. ghost-limit: files that are open but unlinked travel in the images, 1 MiB by
 * default. leave-stopped: CRIU sends SIGSTOP to each task before it lets go of it, so none runs before it is told to.
 */
#define FOR_BOTH "tcp-close\nskip-in-flight\nfile-locks\nghost-limit 67108864\nmanage-cgroups ignore\n"

int runtime_criu_prepare(const char *bundle, enum criu_operation operation, struct err *err)
{
    OWNED(owned_free) char *config = file_path("%s/" CRIU_CONFIG_NAME, bundle);
    OWNED(owned_free) char *work = file_path("%s/" CRIU_WORK_NAME, bundle);
    if (!config || !work)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    const char *text = operation == CRIU_DUMP ? FOR_BOTH : FOR_BOTH "leave-stopped\n";
    int status = file_write_atomic(config, text, strlen(text), 0600, err);
    if (status == 0)
        status = file_remove_tree(work, err);
    if (status == 0)
        status = file_make_dirs(work, 0700, err);
    return status;
}

/* The end of the file, with a NUL after it; how many bytes. */
static size_t read_tail(const char *path, char text[LOG_TAIL_BYTES + 1])
{
    text[0] = '\0';
    OWNED(owned_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return 0;
    off_t from = st.st_size > LOG_TAIL_BYTES ? st.st_size - LOG_TAIL_BYTES : 0;
    ssize_t got = pread(fd, text, LOG_TAIL_BYTES, from);
    size_t len = got > 0 ? (size_t)got : 0;
    text[len] = '\0';
    return len;
}

/* "(00.012345) Error (criu/files.c:12): text" without the time; NULL if the line names no error that says anything:
 * one about RLIMIT_NOFILE comes on every machine without CAP_SYS_RESOURCE. */
static const char *error_of(const char *line)
{
    const char *error = strstr(line, "Error (");
    return error && !strstr(error, "RLIMIT_NOFILE") ? error : NULL;
}

void runtime_criu_explain(const char *bundle, enum criu_operation operation, struct err *err)
{
    OWNED(owned_free)
    char *path = file_path("%s/" CRIU_WORK_NAME "/%s", bundle, operation == CRIU_DUMP ? "dump.log" : "restore.log");
    OWNED(owned_free) char *tail = malloc(LOG_TAIL_BYTES + 1);
    if (!err || !path || !tail || read_tail(path, tail) == 0)
        return;
    size_t used = strlen(err->text);
    size_t count = 0;
    char *rest = tail;
    for (char *line; count < EXPLAIN_LINES && used < sizeof err->text && (line = strsep(&rest, "\n"));) {
        const char *error = error_of(line);
        if (!error)
            continue;
        char clean[EXPLAIN_LINE_BYTES];
        log_text(error, strlen(error), clean, sizeof clean);
        used += (size_t)snprintf(err->text + used, sizeof err->text - used, "; %s", clean);
        count++;
    }
    if (used < sizeof err->text)
        snprintf(err->text + used, sizeof err->text - used, "; see '%s'", path);
}
