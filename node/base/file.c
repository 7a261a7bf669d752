#include "node/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/scope.h"

#define READ_STEP_BYTES 65536u
#define TREE_MAX_DEPTH 512

int file_read(const char *path, struct buf *buf, struct err *err)
{
    OWNED(owned_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, errno, "cannot open '%s'", path);
    for (;;) {
        size_t room = buf->max - buf->len;
        size_t step = room < READ_STEP_BYTES ? room + 1 : READ_STEP_BYTES; /* +1: to see that it is too long */
        uint8_t chunk[READ_STEP_BYTES];
        ssize_t got = read(fd, chunk, step);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, errno, "cannot read '%s'", path);
        if (got == 0)
            return 0;
        if (buf_add(buf, chunk, (size_t)got) < 0)
            return err_set(err, ERR_LIMIT, "'%s' is larger than %zu bytes", path, buf->max);
    }
}

int file_write_all(int fd, const void *data, size_t len_bytes, const char *name, struct err *err)
{
    const uint8_t *at = data;
    while (len_bytes > 0) {
        ssize_t put = write(fd, at, len_bytes);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return err_errno(err, errno, "cannot write '%s'", name);
        at += put;
        len_bytes -= (size_t)put;
    }
    return 0;
}

int file_pwrite_all(int fd, const void *data, size_t len_bytes, uint64_t offset, const char *name, struct err *err)
{
    const uint8_t *at = data;
    while (len_bytes > 0) {
        ssize_t put = pwrite(fd, at, len_bytes, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return err_errno(err, errno, "cannot write '%s'", name);
        at += put;
        offset += (uint64_t)put;
        len_bytes -= (size_t)put;
    }
    return 0;
}

int file_pread_all(int fd, void *ret_data, size_t len_bytes, uint64_t offset, const char *name, struct err *err)
{
    uint8_t *at = ret_data;
    while (len_bytes > 0) {
        ssize_t got = pread(fd, at, len_bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, errno, "cannot read '%s'", name);
        if (got == 0)
            return err_set(err, ERR_CORRUPT, "'%s' ends before byte %llu", name, (unsigned long long)offset);
        at += got;
        offset += (uint64_t)got;
        len_bytes -= (size_t)got;
    }
    return 0;
}

int file_sync(int fd, const char *name, struct err *err)
{
    if (fdatasync(fd) < 0)
        return err_errno(err, errno, "cannot make '%s' durable", name);
    return 0;
}

int file_sync_dir(const char *path, struct err *err)
{
    OWNED(owned_fd) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, errno, "cannot open directory '%s'", path);
    if (fsync(fd) < 0)
        return err_errno(err, errno, "cannot make directory '%s' durable", path);
    return 0;
}

static int sync_parent(const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return file_sync_dir(".", err);
    OWNED(owned_free) char *parent = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (!parent)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    return file_sync_dir(parent, err);
}

int file_write_atomic(const char *path, const void *data, size_t len_bytes, mode_t mode, struct err *err)
{
    OWNED(owned_free) char *fresh = file_path("%s.new.%d", path, (int)getpid());
    if (!fresh)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    OWNED(owned_fd) int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return err_errno(err, errno, "cannot create '%s'", fresh);
    int status = file_write_all(fd, data, len_bytes, fresh, err);
    if (status == 0)
        status = file_sync(fd, fresh, err);
    if (status == 0 && rename(fresh, path) < 0)
        status = err_errno(err, errno, "cannot rename '%s' to '%s'", fresh, path);
    if (status < 0) {
        unlink(fresh);
        return status;
    }
    return sync_parent(path, err);
}

int file_make_dirs(const char *path, mode_t mode, struct err *err)
{
    OWNED(owned_free) char *part = strdup(path);
    if (!part)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, mode) < 0 && errno != EEXIST)
            return err_errno(err, errno, "cannot make directory '%s'", part);
        *slash = '/';
    }
    struct stat st;
    if (mkdir(part, mode) < 0 && errno != EEXIST)
        return err_errno(err, errno, "cannot make directory '%s'", part);
    if (stat(part, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(err, ERR_EXISTS, "'%s' exists and is no directory", part);
    return 0;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static int remove_children(int dir_fd, unsigned depth, struct err *err);

/* st_dev would not tell a bind mount of the same file system. */
static int look_at_entry(int parent_fd, const char *name, struct statx *stx, struct err *err)
{
    if (statx(parent_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, stx) < 0)
        return errno == ENOENT ? 0 : err_errno(err, errno, "cannot look at '%s'", name);
    if (stx->stx_attributes & STATX_ATTR_MOUNT_ROOT)
        return err_set(err, ERR_BUSY, "'%s' is a mount point; it is left alone", name);
    return 1;
}

static int remove_entry(int parent_fd, const char *name, unsigned depth, struct err *err)
{
    struct statx stx;
    int status = look_at_entry(parent_fd, name, &stx, err);
    if (status <= 0)
        return status;
    if (S_ISDIR(stx.stx_mode)) {
        if (depth >= TREE_MAX_DEPTH)
            return err_set(err, ERR_LIMIT, "'%s' lies more than %d directories deep", name, TREE_MAX_DEPTH);
        OWNED(owned_fd) int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return err_errno(err, errno, "cannot open directory '%s'", name);
        status = remove_children(fd, depth + 1, err);
        if (status < 0)
            return status;
    }
    if (unlinkat(parent_fd, name, S_ISDIR(stx.stx_mode) ? AT_REMOVEDIR : 0) < 0 && errno != ENOENT)
        return err_errno(err, errno, "cannot remove '%s'", name);
    return 0;
}

static void owned_dir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static int remove_children(int dir_fd, unsigned depth, struct err *err)
{
    int copy = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0);
    OWNED(owned_dir) DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir) {
        if (copy >= 0)
            close(copy);
        return err_errno(err, errno, "cannot read a directory");
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int status = remove_entry(dir_fd, entry->d_name, depth, err);
        if (status < 0)
            return status;
    }
    return 0;
}

int file_remove_tree_at(int dir_fd, const char *name, struct err *err)
{
    int status = remove_entry(dir_fd, name, 0, err);
    return status < 0 ? err_wrap(err, "cannot remove '%s'", name) : 0;
}

int file_remove_tree(const char *path, struct err *err)
{
    return file_remove_tree_at(AT_FDCWD, path, err);
}

char *file_path(const char *format, ...)
{
    char *path = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&path, format, args) < 0)
        path = NULL;
    va_end(args);
    return path;
}
