/*
 * The packing walk: one directory at a time, names in order of their bytes, each directory before what is in it.
 *
 *   pack_dir -> list names, sort -> pack_name -> pack_regular | pack_dir | pack_other | pack_whiteout
 *
 * The tree may be alive. What a header has promised is kept whatever happens to the file: data is padded or cut.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "node/base/clock.h"
#include "node/base/id.h"
#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/base/map.h"
#include "store/archive_holes.h"
#include "store/archive_tar.h"
#include "store/archive_xattr.h"

#define COPY_BYTES (256u << 10)

struct pack {
    struct store_archive_writer *writer;
    bool overlay;
    struct store_archive_stats stats;
    struct map links;   /* (device, inode) -> first path, owned */
    size_t names_bytes; /* in `links` and in the listings on the stack */
    size_t path_len;
    char path[LIMIT_PATH_BYTES]; /* of the present entry, without "./" */
    uint8_t buffer[COPY_BYTES];
};

struct names {
    char **at; /* owned, each of them */
    size_t count;
    size_t cap;
    size_t bytes;
};

/* ---- one directory's names ---- */

static void names_release(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->at[i]);
    free(names->at);
}

static void owned_dir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int names_add(struct pack *pack, struct names *names, const char *name, struct err *err)
{
    size_t size = strlen(name) + 1;
    if (pack->names_bytes + size > LIMIT_ARCHIVE_NAMES_BYTES)
        return err_set(err, ERR_LIMIT, "too many names in one directory");
    if (names->count == names->cap) {
        size_t cap = names->cap ? 2 * names->cap : 64;
        char **more = realloc(names->at, cap * sizeof *more);
        if (!more)
            return err_set(err, ERR_NOMEM, "no memory for a directory's names");
        names->at = more;
        names->cap = cap;
    }
    names->at[names->count] = strdup(name);
    if (!names->at[names->count])
        return err_set(err, ERR_NOMEM, "no memory for a directory's names");
    names->count++;
    names->bytes += size;
    pack->names_bytes += size;
    return 0;
}

static int list_names(struct pack *pack, int dir_fd, struct names *names, struct err *err)
{
    int copy = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* an offset of its own */
    OWNED(owned_dir) DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir) {
        int reason = errno;
        if (copy >= 0)
            close(copy);
        return err_errno(err, reason, "cannot read the directory");
    }
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry && errno != 0)
            return err_errno(err, errno, "cannot read the directory");
        if (!entry)
            break;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int status = names_add(pack, names, entry->d_name, err);
        if (status < 0)
            return status;
    }
    if (names->count > 0)
        qsort(names->at, names->count, sizeof *names->at, compare_names);
    return 0;
}

/* ---- entries ---- */

static int named(const struct pack *pack, struct err *err)
{
    char text[256];
    return err_wrap(err, "cannot pack '%s'", log_text(pack->path, pack->path_len, text, sizeof text));
}

static int put_header(struct pack *pack, const struct store_tar_item *item, struct err *err)
{
    if (++pack->stats.entries > LIMIT_ARCHIVE_ENTRIES)
        return err_set(err, ERR_LIMIT, "more than %u entries", LIMIT_ARCHIVE_ENTRIES);
    return store_tar_writer_add(pack->writer, item, err);
}

static struct store_tar_item item_of(const struct pack *pack, const struct stat *st)
{
    return (struct store_tar_item){
        .path = pack->path_len > 0 ? pack->path : ".",
        .mode = st->st_mode,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .mtime = st->st_mtim,
        .rdev = st->st_rdev,
        .size_bytes = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0,
    };
}

static struct id link_key(const struct stat *st)
{
    struct id key = {{0}};
    uint64_t inode = st->st_ino, device = st->st_dev;
    memcpy(key.b, &inode, sizeof inode);
    memcpy(key.b + sizeof inode, &device, sizeof device);
    return key;
}

static int remember_link(struct pack *pack, const struct stat *st, struct err *err)
{
    size_t size = pack->path_len + 1;
    if (pack->names_bytes + size > LIMIT_ARCHIVE_NAMES_BYTES)
        return err_set(err, ERR_LIMIT, "too many hard links");
    char *path = strdup(pack->path);
    struct id key = link_key(st);
    if (!path || map_set(&pack->links, &key, path) < 0) {
        free(path);
        return err_set(err, ERR_NOMEM, "no memory for hard links");
    }
    pack->names_bytes += size;
    return 0;
}

/* Open without following, waiting on or crossing anything. 1 and a descriptor of the wanted type, 0 if that is gone. */
static int open_as(int dir_fd, const char *name, mode_t type, int *ret_fd, struct stat *ret_st, struct err *err)
{
    struct open_how how = {.flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV};
    OWNED(owned_fd) int fd = (int)syscall(SYS_openat2, dir_fd, name, &how, sizeof how);
    if (fd < 0 && (errno == ENOENT || errno == ELOOP || errno == ENXIO))
        return 0;
    if (fd < 0)
        return err_errno(err, errno, "cannot open it");
    if (fstat(fd, ret_st) < 0)
        return err_errno(err, errno, "cannot look at it");
    if ((ret_st->st_mode & S_IFMT) != type)
        return 0;
    *ret_fd = steal_fd(&fd);
    return 1;
}

/* Exactly len_bytes from offset go into the archive; what the file no longer has is zeros. */
static int copy_extent(struct pack *pack, int fd, uint64_t offset, uint64_t len_bytes, struct err *err)
{
    while (len_bytes > 0) {
        size_t want = len_bytes < sizeof pack->buffer ? (size_t)len_bytes : sizeof pack->buffer;
        ssize_t got = pread(fd, pack->buffer, want, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, errno, "cannot read it");
        if (got == 0) {
            memset(pack->buffer, 0, want);
            got = (ssize_t)want;
        }
        int status = store_tar_writer_data(pack->writer, offset, pack->buffer, (size_t)got, err);
        if (status < 0)
            return status;
        offset += (uint64_t)got;
        len_bytes -= (uint64_t)got;
        pack->stats.data_bytes += (uint64_t)got;
    }
    return 0;
}

static bool same_content_time(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static int pack_content(struct pack *pack, int fd, const struct stat *st, struct err *err)
{
    OWNED(store_xattrs_release) struct store_xattrs xattrs = {0};
    OWNED(store_holes_release) struct store_holes holes = {0};
    int status = store_xattrs_load(fd, pack->overlay, &xattrs, err);
    if (status == 0)
        status = store_holes_find(fd, (uint64_t)st->st_size, pack->buffer, sizeof pack->buffer, &holes, err);
    if (status < 0)
        return status;
    struct store_tar_item item = item_of(pack, st);
    item.xattrs = xattrs.items;
    item.xattr_count = xattrs.count;
    item.extents = holes.extents;
    item.extent_count = holes.count;
    status = put_header(pack, &item, err);
    struct store_tar_extent whole = {0, item.size_bytes};
    const struct store_tar_extent *extents = holes.extents ? holes.extents : &whole;
    for (size_t i = 0; status == 0 && i < (holes.extents ? holes.count : 1); i++)
        status = copy_extent(pack, fd, extents[i].offset, extents[i].len_bytes, err);
    struct stat after;
    if (status == 0 && (fstat(fd, &after) < 0 || !same_content_time(st, &after)))
        pack->stats.changed++;
    return status;
}

static int pack_regular(struct pack *pack, int dir_fd, const char *name, struct err *err)
{
    struct stat st;
    OWNED(owned_fd) int fd = -1;
    int status = open_as(dir_fd, name, S_IFREG, &fd, &st, err);
    if (status == 0)
        pack->stats.vanished++;
    if (status <= 0)
        return status;
    if (pack->overlay && (status = store_overlay_check(fd, err)) < 0)
        return status;
    struct id key = link_key(&st);
    const char *first = st.st_nlink > 1 ? map_get(&pack->links, &key) : NULL;
    if (first) {
        struct store_tar_item item = item_of(pack, &st);
        item.hard_link = true;
        item.link = first;
        pack->stats.hard_links++;
        return put_header(pack, &item, err);
    }
    status = pack_content(pack, fd, &st, err);
    return status == 0 && st.st_nlink > 1 ? remember_link(pack, &st, err) : status;
}

static int pack_other(struct pack *pack, int dir_fd, const char *name, const struct stat *st, struct err *err)
{
    struct store_tar_item item = item_of(pack, st);
    char target[LIMIT_PATH_BYTES];
    if (S_ISLNK(st->st_mode)) {
        ssize_t len = readlinkat(dir_fd, name, target, sizeof target);
        if (len < 0 && (errno == ENOENT || errno == EINVAL)) {
            pack->stats.vanished++;
            return 0;
        }
        if (len < 0)
            return err_errno(err, errno, "cannot read the symbolic link");
        if ((size_t)len == sizeof target)
            return err_set(err, ERR_LIMIT, "its target is too long");
        target[len] = '\0';
        item.link = target;
    }
    return put_header(pack, &item, err);
}

/* OCI image-spec v1.1, layer.md, "Whiteouts": an empty file. Nothing else about it means anything. */
static int put_whiteout(struct pack *pack, const char *dir, size_t dir_len, const char *name, struct err *err)
{
    char path[LIMIT_PATH_BYTES + 8];
    int len = snprintf(path, sizeof path, "%.*s%s.wh.%s", (int)dir_len, dir, dir_len > 0 ? "/" : "", name);
    if (len < 0 || len >= LIMIT_PATH_BYTES || strlen(name) + 4 > NAME_MAX_BYTES)
        return err_set(err, ERR_LIMIT, "the name of its whiteout would be too long");
    pack->stats.whiteouts++;
    return put_header(pack, &(struct store_tar_item){.path = path, .mode = S_IFREG | 0600}, err);
}

static int pack_dir(struct pack *pack, int dir_fd, const struct stat *st, unsigned depth, struct err *err);

static int pack_subdir(struct pack *pack, int dir_fd, const char *name, unsigned depth, struct err *err)
{
    struct stat st;
    OWNED(owned_fd) int fd = -1;
    int status = open_as(dir_fd, name, S_IFDIR, &fd, &st, err);
    if (status == 0)
        pack->stats.vanished++;
    if (status <= 0)
        return status;
    if (depth >= LIMIT_ARCHIVE_DEPTH)
        return err_set(err, ERR_LIMIT, "more than %d directories deep", LIMIT_ARCHIVE_DEPTH);
    return pack_dir(pack, fd, &st, depth, err);
}

static struct stat stat_of(const struct statx *stx)
{
    return (struct stat){
        .st_mode = stx->stx_mode,
        .st_uid = stx->stx_uid,
        .st_gid = stx->stx_gid,
        .st_rdev = makedev(stx->stx_rdev_major, stx->stx_rdev_minor),
        .st_mtim = {.tv_sec = stx->stx_mtime.tv_sec, .tv_nsec = stx->stx_mtime.tv_nsec},
    };
}

static int pack_type(struct pack *pack, int dir_fd, const char *name, unsigned depth, struct err *err)
{
    struct statx stx;
    if (statx(dir_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &stx) < 0) {
        if (errno != ENOENT)
            return err_errno(err, errno, "cannot look at it");
        pack->stats.vanished++;
        return 0;
    }
    struct stat st = stat_of(&stx);
    if (stx.stx_attributes & STATX_ATTR_MOUNT_ROOT) {
        pack->stats.mounts++;
        return S_ISDIR(st.st_mode) ? pack_other(pack, dir_fd, name, &st, err) : 0;
    }
    if (pack->overlay && S_ISCHR(st.st_mode) && st.st_rdev == 0) {
        size_t name_len = strlen(name);
        size_t dir_len = pack->path_len > name_len ? pack->path_len - name_len - 1 : 0;
        return put_whiteout(pack, pack->path, dir_len, name, err);
    }
    if (pack->overlay && strncmp(name, ".wh.", 4) == 0) {
        pack->stats.unnameable++;
        return 0;
    }
    switch (st.st_mode & S_IFMT) {
    case S_IFREG:
        return pack_regular(pack, dir_fd, name, err);
    case S_IFDIR:
        return pack_subdir(pack, dir_fd, name, depth + 1, err);
    case S_IFSOCK:
        pack->stats.sockets++;
        return 0;
    default:
        return pack_other(pack, dir_fd, name, &st, err);
    }
}

/* After a failure the path stays as it was then, for the message. */
static int pack_name(struct pack *pack, int dir_fd, const char *name, unsigned depth, struct err *err)
{
    size_t before = pack->path_len, name_len = strlen(name);
    if (before + 1 + name_len >= sizeof pack->path)
        return err_set(err, ERR_LIMIT, "a path is longer than %d bytes", LIMIT_PATH_BYTES - 1);
    if (before > 0)
        pack->path[pack->path_len++] = '/';
    memcpy(pack->path + pack->path_len, name, name_len + 1);
    pack->path_len += name_len;
    int status = pack_type(pack, dir_fd, name, depth, err);
    if (status < 0)
        return status;
    pack->path_len = before;
    pack->path[before] = '\0';
    return 0;
}

static int put_dir(struct pack *pack, int dir_fd, const struct stat *st, struct err *err)
{
    OWNED(store_xattrs_release) struct store_xattrs xattrs = {0};
    int status = pack->overlay ? store_overlay_check(dir_fd, err) : 0;
    if (status == 0)
        status = store_xattrs_load(dir_fd, pack->overlay, &xattrs, err);
    if (status < 0)
        return status;
    struct store_tar_item item = item_of(pack, st);
    item.xattrs = xattrs.items;
    item.xattr_count = xattrs.count;
    status = put_header(pack, &item, err);
    if (status == 0 && pack->overlay && pack->path_len > 0 && store_overlay_is_opaque(dir_fd))
        status = put_whiteout(pack, pack->path, pack->path_len, ".wh..opq", err);
    return status;
}

static int pack_dir(struct pack *pack, int dir_fd, const struct stat *st, unsigned depth, struct err *err)
{
    OWNED(names_release) struct names names = {0};
    int status = put_dir(pack, dir_fd, st, err);
    if (status == 0)
        status = list_names(pack, dir_fd, &names, err);
    for (size_t i = 0; status == 0 && i < names.count; i++)
        status = pack_name(pack, dir_fd, names.at[i], depth, err);
    pack->names_bytes -= names.bytes;
    return status;
}

static void forget_links(struct pack *pack)
{
    struct id key;
    void *path;
    for (size_t cursor = 0; map_next(&pack->links, &cursor, &key, &path);)
        free(path);
    map_release(&pack->links);
}

int store_archive_pack(int dir_fd, const struct store_archive_pack_options *options, store_archive_write_cb write_cb,
                       void *ctx, struct store_archive_stats *ret_stats, struct err *err)
{
    struct stat st;
    OWNED(owned_tar_writer) struct store_archive_writer *writer = NULL;
    OWNED(owned_free) struct pack *pack = calloc(1, sizeof *pack);
    if (!pack)
        return err_set(err, ERR_NOMEM, "no memory to pack a directory");
    if (fstat(dir_fd, &st) < 0)
        return err_errno(err, errno, "cannot look at the directory");
    if (!S_ISDIR(st.st_mode))
        return err_set(err, ERR_INVALID, "what is to be packed is no directory");
    int status = store_archive_writer_new(write_cb, ctx, &writer, err);
    if (status < 0)
        return status;
    struct rng rng = rng_system();
    map_init(&pack->links, LIMIT_ARCHIVE_ENTRIES, rng_u64(&rng));
    pack->writer = writer;
    pack->overlay = options && options->overlay;
    status = pack_dir(pack, dir_fd, &st, 0, err);
    if (status < 0)
        status = named(pack, err);
    else
        status = store_archive_writer_finish(writer, err);
    forget_links(pack);
    if (ret_stats)
        *ret_stats = pack->stats;
    return status;
}
