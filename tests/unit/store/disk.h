/*
 * A disk that may lose power: what this program changes beneath one directory is recorded, by functions in front of
 * libc's (for LMDB as well), and disk_after_power_cut makes the directory as it may be found after the n-th change.
 *
 * What a sync has covered is there: a file's content by fsync, fdatasync or O_DSYNC, names by fsync of their directory
 * (and not by that of the file, which is stricter than any real file system). The rest is there or not, each change for
 * itself, and writes page by page. One thread.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "fixture.h"

#define DISK_PAGE 4096u
#define DISK_FILES 64
#define DISK_FILE_BYTES (1u << 20) /* at most */
#define DISK_PATH 160

enum disk_op_type {
    DISK_MAKE,
    DISK_MKDIR,
    DISK_UNLINK,
    DISK_RENAME,
    DISK_SWAP,
    DISK_WRITE,
    DISK_CUT,
    DISK_PUNCH,
    DISK_SYNC,
    DISK_ACK
};

struct disk_op {
    enum disk_op_type type;
    char path[DISK_PATH];  /* as it was then; of DISK_SYNC of a directory too */
    char other[DISK_PATH]; /* DISK_RENAME, DISK_SWAP: the other name */
    int file;              /* which file this content belongs to; names come and go */
    bool durable;          /* DISK_WRITE: by itself */
    uint64_t offset;
    uint64_t len;
    uint8_t *data; /* owned */
};

static struct disk {
    char root[64]; /* empty: nothing is recorded */
    struct disk_op *ops;
    size_t count;
    size_t cap;
    int files;
    char names[DISK_FILES][DISK_PATH]; /* present name of each file */
} disk;

/* ---- recording ---- */

static bool disk_counts(const char *path)
{
    size_t len = strlen(disk.root);
    const char *name = strrchr(path, '/');
    return len > 0 && strncmp(path, disk.root, len) == 0 && (path[len] == '/' || path[len] == 0) &&
           (!name || (strcmp(name, "/lock") != 0 && strcmp(name, "/lock.mdb") != 0)); /* their content means nothing */
}

static struct disk_op *disk_add(enum disk_op_type type, const char *path)
{
    if (disk.count == disk.cap) {
        disk.cap = disk.cap ? disk.cap * 2 : 256;
        disk.ops = realloc(disk.ops, disk.cap * sizeof *disk.ops);
    }
    struct disk_op *op = &disk.ops[disk.count++];
    *op = (struct disk_op){.type = type, .file = -1};
    snprintf(op->path, sizeof op->path, "%s", path);
    for (int i = 0; i < disk.files; i++)
        if (strcmp(disk.names[i], path) == 0)
            op->file = i;
    return op;
}

/* The path of a descriptor, if it counts. */
static bool disk_path(int fd, char path[DISK_PATH])
{
    char link[64];
    if (!disk.root[0])
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, DISK_PATH - 1);
    if (len < 0)
        return false;
    path[len] = 0;
    return disk_counts(path);
}

static void disk_wrote(int fd, const struct iovec *parts, int count, off_t offset)
{
    char path[DISK_PATH];
    if (!disk_path(fd, path))
        return;
    struct disk_op *op = disk_add(DISK_WRITE, path);
    op->durable = (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
    op->offset = (uint64_t)offset;
    for (int i = 0; i < count; i++) {
        op->data = realloc(op->data, op->len + parts[i].iov_len + 1);
        memcpy(op->data + op->len, parts[i].iov_base, parts[i].iov_len);
        op->len += parts[i].iov_len;
    }
}

static void disk_changed(enum disk_op_type type, int fd, off_t offset, off_t len)
{
    char path[DISK_PATH];
    if (!disk_path(fd, path))
        return;
    struct disk_op *op = disk_add(type, path);
    op->offset = (uint64_t)offset;
    op->len = (uint64_t)len;
}

static void disk_made(const char *path)
{
    assert_in_range(disk.files, 0, DISK_FILES - 1);
    snprintf(disk.names[disk.files++], DISK_PATH, "%s", path);
    disk_add(DISK_MAKE, path);
}

static int disk_open(const char *path, int flags, mode_t mode)
{
    bool makes = (flags & O_CREAT) && disk_counts(path) && access(path, F_OK) < 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && makes)
        disk_made(path);
    return fd;
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return disk_open(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return disk_open(path, flags, mode);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
    struct iovec part = {(void *)data, len};
    disk_wrote(fd, &part, 1, offset);
    return syscall(SYS_pwrite64, fd, data, len, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset)
{
    return pwrite(fd, data, len, offset);
}

ssize_t write(int fd, const void *data, size_t len)
{
    struct iovec part = {(void *)data, len};
    disk_wrote(fd, &part, 1, lseek(fd, 0, SEEK_CUR));
    return syscall(SYS_write, fd, data, len);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    disk_wrote(fd, parts, count, offset);
    return syscall(SYS_pwritev, fd, parts, count, offset, 0);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    disk_wrote(fd, parts, count, lseek(fd, 0, SEEK_CUR));
    return syscall(SYS_writev, fd, parts, count);
}

static int disk_sync(long call, int fd)
{
    int result = (int)syscall(call, fd);
    disk_changed(DISK_SYNC, fd, 0, 0);
    return result;
}

int fdatasync(int fd)
{
    return disk_sync(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return disk_sync(SYS_fsync, fd);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    disk_changed(DISK_PUNCH, fd, offset, len);
    return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

int ftruncate(int fd, off_t len)
{
    disk_changed(DISK_CUT, fd, 0, len);
    return (int)syscall(SYS_ftruncate, fd, len);
}

int unlink(const char *path)
{
    if (disk_counts(path) && access(path, F_OK) == 0) {
        int file = disk_add(DISK_UNLINK, path)->file;
        if (file >= 0)
            disk.names[file][0] = 0;
    }
    return (int)syscall(SYS_unlink, path);
}

int mkdir(const char *path, mode_t mode)
{
    int result = (int)syscall(SYS_mkdir, path, mode);
    if (result == 0 && disk_counts(path))
        disk_add(DISK_MKDIR, path);
    return result;
}

/* Give what lies at or beneath `from` the name beneath `to`. */
static void disk_move(char name[DISK_PATH], const char *from, const char *to)
{
    size_t len = strlen(from);
    char moved[2 * DISK_PATH];
    if (strncmp(name, from, len) != 0 || (name[len] != 0 && name[len] != '/'))
        return;
    snprintf(moved, sizeof moved, "%s%s", to, name + len);
    snprintf(name, DISK_PATH, "%.*s", DISK_PATH - 1, moved);
}

int rename(const char *from, const char *to)
{
    int result = (int)syscall(SYS_rename, from, to);
    if (result == 0 && disk_counts(from)) {
        struct disk_op *op = disk_add(DISK_RENAME, from);
        snprintf(op->other, sizeof op->other, "%s", to);
        for (int i = 0; i < disk.files; i++)
            disk_move(disk.names[i], from, to);
    }
    return result;
}

#define DISK_ASIDE "/disk.aside"

/* Through a third name. */
static void disk_swap(char name[DISK_PATH], const char *a, const char *b)
{
    disk_move(name, a, DISK_ASIDE);
    disk_move(name, b, a);
    disk_move(name, DISK_ASIDE, b);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    int result = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (result == 0 && disk_counts(from)) {
        struct disk_op *op = disk_add(DISK_SWAP, from);
        snprintf(op->other, sizeof op->other, "%s", to);
        for (int i = 0; i < disk.files; i++)
            disk_swap(disk.names[i], from, to);
    }
    return result;
}

/* Record from now on; the directory is there and empty. */
__attribute__((unused)) static void disk_begin(const char *root)
{
    snprintf(disk.root, sizeof disk.root, "%s", root);
}

static void disk_end(void)
{
    disk.root[0] = 0;
}

/* Something was promised. */
static void disk_ack(void)
{
    if (disk.root[0])
        disk_add(DISK_ACK, "");
}

static void disk_release(void)
{
    for (size_t i = 0; i < disk.count; i++)
        free(disk.ops[i].data);
    free(disk.ops);
    memset(&disk, 0, sizeof disk);
}

/* ---- what is left of it ---- */

enum disk_luck { DISK_NOTHING, DISK_ALL, DISK_NOT_THE_LAST, DISK_ANY };

struct disk_image {
    struct {
        char path[DISK_PATH];
        bool is_dir;
        int file;
    } names[DISK_FILES];
    int name_count;
    struct {
        uint8_t *data;
        uint64_t len;
    } files[DISK_FILES];
};

static bool disk_is_content(const struct disk_op *op)
{
    return op->type == DISK_WRITE || op->type == DISK_CUT || op->type == DISK_PUNCH;
}

/* Had a sync covered change i before change n came? */
static bool disk_is_durable(size_t i, size_t n)
{
    const struct disk_op *op = &disk.ops[i];
    if (op->durable)
        return true;
    char dir[DISK_PATH];
    snprintf(dir, sizeof dir, "%s", op->type == DISK_RENAME ? op->other : op->path);
    *strrchr(dir, '/') = 0;
    for (size_t j = i + 1; j < n; j++) {
        const struct disk_op *sync = &disk.ops[j];
        if (sync->type == DISK_SYNC &&
            (disk_is_content(op) ? sync->file == op->file && op->file >= 0 : strcmp(sync->path, dir) == 0))
            return true;
    }
    return false;
}

static int disk_find(const struct disk_image *image, const char *path)
{
    for (int i = 0; i < image->name_count; i++)
        if (strcmp(image->names[i].path, path) == 0)
            return i;
    return -1;
}

static void disk_apply_name(struct disk_image *image, const struct disk_op *op)
{
    int at = disk_find(image, op->path);
    if (op->type == DISK_MAKE || op->type == DISK_MKDIR) {
        if (at < 0)
            at = image->name_count++;
        assert_in_range(at, 0, DISK_FILES - 1);
        snprintf(image->names[at].path, DISK_PATH, "%s", op->path);
        image->names[at].is_dir = op->type == DISK_MKDIR;
        image->names[at].file = op->file;
    } else if (op->type == DISK_UNLINK && at >= 0) {
        image->names[at] = image->names[--image->name_count];
    } else if (op->type == DISK_SWAP && at >= 0 && disk_find(image, op->other) >= 0) {
        for (int i = 0; i < image->name_count; i++)
            disk_swap(image->names[i].path, op->path, op->other);
    } else if (op->type == DISK_RENAME && at >= 0) {
        for (int i = 0; i < image->name_count; i++)
            disk_move(image->names[i].path, op->path, op->other);
    }
}

static void disk_resize(struct disk_image *image, int file, uint64_t len)
{
    if (!image->files[file].data)
        image->files[file].data = malloc(DISK_FILE_BYTES);
    assert_true(image->files[file].data && len <= DISK_FILE_BYTES);
    if (len > image->files[file].len)
        memset(image->files[file].data + image->files[file].len, 0, len - image->files[file].len);
    image->files[file].len = len;
}

static void disk_put(struct disk_image *image, const struct disk_op *op, uint64_t from, uint64_t to)
{
    if (op->offset + to > image->files[op->file].len)
        disk_resize(image, op->file, op->offset + to);
    memcpy(image->files[op->file].data + op->offset + from, op->data + from, to - from);
}

static void disk_apply_content(struct disk_image *image, const struct disk_op *op, const struct rng *torn)
{
    if (op->type == DISK_CUT) {
        disk_resize(image, op->file, op->len);
    } else if (op->type == DISK_PUNCH) {
        uint64_t len = image->files[op->file].len;
        uint64_t end = op->offset + op->len < len ? op->offset + op->len : len;
        if (op->offset < end)
            memset(image->files[op->file].data + op->offset, 0, end - op->offset);
    } else {
        for (uint64_t at = 0; at < op->len;) {
            uint64_t end = (op->offset + at) / DISK_PAGE * DISK_PAGE + DISK_PAGE - op->offset;
            end = end < op->len ? end : op->len;
            if (!torn || rng_below(torn, 2) == 0)
                disk_put(image, op, at, end);
            at = end;
        }
    }
}

static bool disk_is_lucky(size_t i, size_t n, enum disk_luck luck, const struct rng *rng)
{
    switch (luck) {
    case DISK_NOTHING:
        return false;
    case DISK_ALL:
        return true;
    case DISK_NOT_THE_LAST:
        return i + 1 < n;
    default:
        return rng_below(rng, 2) == 0;
    }
}

static bool disk_parent_is_there(const struct disk_image *image, const char *path, const char *root)
{
    char dir[DISK_PATH];
    snprintf(dir, sizeof dir, "%s", path);
    for (char *slash; (slash = strrchr(dir, '/'));) {
        *slash = 0;
        if (strcmp(dir, root) == 0)
            return true;
        if (disk_find(image, dir) < 0)
            return false;
    }
    return false;
}

static int disk_by_length(const void *a, const void *b)
{
    size_t x = strlen(a);
    size_t y = strlen(b);
    return (x > y) - (x < y);
}

static void disk_write_out(struct disk_image *image, const char *root)
{
    struct err err = {0};
    qsort(image->names, (size_t)image->name_count, sizeof image->names[0], disk_by_length); /* directories first */
    for (int i = 0; i < image->name_count; i++) {
        const char *path = image->names[i].path;
        int file = image->names[i].file;
        if (!disk_parent_is_there(image, path, root))
            continue;
        if (image->names[i].is_dir) {
            assert_int_equal(mkdir(path, 0700), 0);
        } else {
            int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
            assert_true(fd >= 0);
            if (image->files[file].len > 0)
                must(file_write_all(fd, image->files[file].data, image->files[file].len, path, &err));
            close(fd);
        }
    }
    for (int i = 0; i < DISK_FILES; i++)
        free(image->files[i].data);
}

/* Make `root`, which was recorded, as it may be found if the power fails after n changes; the number of promises made
 * before. Nothing is recorded any more. */
__attribute__((unused)) static int disk_after_power_cut(const char *root, size_t n, enum disk_luck luck, uint64_t seed)
{
    struct err err = {0};
    struct rng rng = rng_seeded(&seed);
    struct disk_image *image = calloc(1, sizeof *image);
    int acks = 0;
    disk_end();
    must(file_remove_tree(root, &err));
    assert_int_equal(mkdir(root, 0700), 0);
    for (size_t i = 0; i < n; i++) {
        const struct disk_op *op = &disk.ops[i];
        if (op->type == DISK_SYNC || op->type == DISK_ACK || (disk_is_content(op) && op->file < 0)) {
            acks += op->type == DISK_ACK;
            continue;
        }
        bool durable = disk_is_durable(i, n);
        if (!durable && !disk_is_lucky(i, n, luck, &rng))
            continue;
        if (disk_is_content(op))
            disk_apply_content(image, op, durable || luck != DISK_ANY ? NULL : &rng);
        else
            disk_apply_name(image, op);
    }
    disk_write_out(image, root);
    free(image);
    return acks;
}
