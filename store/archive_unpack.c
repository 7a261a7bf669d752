/*
 * The unpacking walk: each entry is checked, counted against its budget, and put in its place at once; directories get
 * their permissions, owners, attributes and times at the end, when nothing more is made in them.
 *
 *   unpack_item -> take_whiteout | take_dir | take_regular | take_symlink | take_hard_link | take_node
 *   finish      -> remove_others (update) -> settle_dirs
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/limits.h"
#include "node/base/log.h"
#include "store/archive_place.h"
#include "store/archive_tar.h"
#include "store/archive_xattr.h"

/* What a file gets besides its content. */
struct attributes {
    mode_t mode; /* permissions only */
    uid_t uid;
    gid_t gid;
    struct timespec mtime;
    struct store_xattrs xattrs; /* owned */
};

struct pending_dir {
    char *path; /* owned */
    size_t index;
    struct attributes attributes;
};

struct unpack {
    struct store_archive_unpack_options options; /* with its zeros filled in */
    struct store_tar_reader *reader;             /* borrowed */
    struct store_place place;
    struct store_archive_stats stats;
    uint64_t size_total;
    size_t names_bytes;       /* in `dirs` */
    struct pending_dir *dirs; /* owned */
    size_t dir_count;
    size_t dir_cap;
};

static int on_entry(const char *path, struct err *err)
{
    char text[200];
    return err_wrap(err, "cannot unpack '%s'", log_text(path, strlen(path), text, sizeof text));
}

/* ---- attributes ---- */

static void attributes_release(struct attributes *attributes)
{
    store_xattrs_release(&attributes->xattrs);
}

static int take_attributes(struct unpack *unpack, const struct store_tar_item *item, struct attributes *ret_attributes,
                           struct err *err)
{
    /* (uid_t)-1 means "leave it" to chown(2) */
    if (item->uid < 0 || item->gid < 0 || item->uid >= UINT32_MAX || item->gid >= UINT32_MAX)
        return store_place_refuse("its owner is no user or group number", err);
    if (item->mtime.tv_nsec < 0 || item->mtime.tv_nsec > 999999999)
        return store_place_refuse("its time is no time", err);
    struct attributes attributes = {.mode = item->mode & 07777, .mtime = item->mtime};
    attributes.uid = (uid_t)item->uid;
    attributes.gid = (gid_t)item->gid;
    if (!unpack->options.privileges && !S_ISDIR(item->mode) && attributes.mode & (S_ISUID | S_ISGID)) {
        attributes.mode &= (mode_t) ~(S_ISUID | S_ISGID);
        unpack->stats.privileges_dropped++;
    }
    if (S_ISREG(item->mode) || S_ISDIR(item->mode)) {
        int status = store_xattrs_copy(item, &unpack->options, &attributes.xattrs, &unpack->stats, err);
        if (status < 0)
            return status;
    } else {
        unpack->stats.xattrs_dropped += item->xattr_count;
    }
    *ret_attributes = attributes;
    return 0;
}

/* Owner before mode, since chown(2) clears setuid; both before file capabilities, which chown clears as well, and
 * before ACLs, which are finer than the mode; time last. */
static int give_attributes(struct unpack *unpack, int fd, const struct attributes *attributes, struct err *err)
{
    if (unpack->options.ids == STORE_ARCHIVE_IDS_KEEP && fchown(fd, attributes->uid, attributes->gid) < 0)
        return err_errno(err, errno, "cannot set its owner");
    if (fchmod(fd, attributes->mode) < 0)
        return err_errno(err, errno, "cannot set its permissions");
    int status = store_xattrs_apply(fd, &attributes->xattrs, unpack->options.overlay, &unpack->stats, err);
    if (status < 0)
        return status;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, attributes->mtime};
    if (futimens(fd, times) < 0)
        return err_errno(err, errno, "cannot set its time");
    return 0;
}

/* For what cannot be opened: links, FIFOs, devices. */
static int give_attributes_at(struct unpack *unpack, int parent_fd, const char *name, bool link,
                              const struct attributes *attributes, struct err *err)
{
    if (unpack->options.ids == STORE_ARCHIVE_IDS_KEEP &&
        fchownat(parent_fd, name, attributes->uid, attributes->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return err_errno(err, errno, "cannot set its owner");
    if (!link && fchmodat(parent_fd, name, attributes->mode, AT_SYMLINK_NOFOLLOW) < 0)
        return err_errno(err, errno, "cannot set its permissions");
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, attributes->mtime};
    if (utimensat(parent_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return err_errno(err, errno, "cannot set its time");
    return 0;
}

/* ---- directories ---- */

static int keep_for_end(struct unpack *unpack, const char *path, struct attributes *attributes, struct err *err)
{
    size_t size = strlen(path) + 1 + sizeof *unpack->dirs + attributes->xattrs.total_bytes;
    if (unpack->names_bytes + size > LIMIT_ARCHIVE_NAMES_BYTES)
        return err_set(err, ERR_LIMIT, "the archive has too many directories");
    if (unpack->dir_count == unpack->dir_cap) {
        size_t cap = unpack->dir_cap ? 2 * unpack->dir_cap : 64;
        struct pending_dir *more = realloc(unpack->dirs, cap * sizeof *more);
        if (!more)
            return err_set(err, ERR_NOMEM, "no memory for directories");
        unpack->dirs = more;
        unpack->dir_cap = cap;
    }
    char *copy = strdup(path);
    if (!copy)
        return err_set(err, ERR_NOMEM, "no memory for directories");
    unpack->dirs[unpack->dir_count] = (struct pending_dir){copy, unpack->dir_count, *attributes};
    unpack->dir_count++;
    unpack->names_bytes += size;
    attributes->xattrs = (struct store_xattrs){0};
    return 0;
}

static int clear_opaque(struct unpack *unpack, const char *path, struct err *err)
{
    OWNED(owned_fd) int fd = store_place_open_dir(&unpack->place, path, err);
    return fd < 0 ? fd : store_overlay_set_opaque(fd, false, err);
}

static int take_dir(struct unpack *unpack, const struct store_tar_item *item, const char *path, struct err *err)
{
    OWNED(attributes_release) struct attributes attributes = {0};
    bool is_root = strcmp(path, ".") == 0, is_new = false;
    int status = take_attributes(unpack, item, &attributes, err);
    bool from_before = unpack->options.update && !store_place_seen(&unpack->place, path);
    if (status == 0 && !is_root)
        status = store_place_dir(&unpack->place, path, &is_new, err);
    if (status == 0 && unpack->options.overlay && from_before && !is_new)
        status = clear_opaque(unpack, path, err);
    return status == 0 ? keep_for_end(unpack, path, &attributes, err) : status;
}

/* What is deeper first, since a directory may become closed to us; of two for one path the later first. */
static int compare_dirs(const void *a, const void *b)
{
    const struct pending_dir *left = a, *right = b;
    int order = strcmp(right->path, left->path);
    if (order != 0)
        return order;
    return left->index > right->index ? -1 : left->index < right->index;
}

static int settle_dirs(struct unpack *unpack, struct err *err)
{
    if (unpack->dir_count > 0)
        qsort(unpack->dirs, unpack->dir_count, sizeof *unpack->dirs, compare_dirs);
    for (size_t i = 0; i < unpack->dir_count; i++) {
        const struct pending_dir *dir = &unpack->dirs[i];
        if (i > 0 && strcmp(dir->path, dir[-1].path) == 0)
            continue;
        OWNED(owned_fd) int fd = store_place_open_dir(&unpack->place, dir->path, err);
        int status = fd < 0 ? fd : give_attributes(unpack, fd, &dir->attributes, err);
        if (status < 0)
            return on_entry(dir->path, err);
    }
    return 0;
}

/* ---- regular files ---- */

static int write_content(struct unpack *unpack, int fd, const struct store_tar_item *item, struct err *err)
{
    const void *data;
    size_t len;
    uint64_t offset;
    int status;
    while ((status = store_tar_reader_data(unpack->reader, &data, &len, &offset, err)) > 0) {
        if (len > item->size_bytes || offset > item->size_bytes - len)
            return store_place_refuse("its data goes beyond its size", err);
        status = file_pwrite_all(fd, data, len, offset, "file", err);
        if (status < 0)
            return status;
        unpack->stats.data_bytes += len;
    }
    if (status == 0 && ftruncate(fd, (off_t)item->size_bytes) < 0)
        return err_errno(err, errno, "cannot set its size");
    return status;
}

static int write_regular(struct unpack *unpack, const struct store_place_slot *slot, const struct store_tar_item *item,
                         const struct attributes *attributes, struct err *err)
{
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    OWNED(owned_fd) int fd = openat(slot->parent_fd, store_place_name(slot), flags, 0600);
    if (fd < 0)
        return err_errno(err, errno, "cannot create it");
    int status = write_content(unpack, fd, item, err);
    return status == 0 ? give_attributes(unpack, fd, attributes, err) : status;
}

/* 1 and its descriptor if the file is there already, by size and time. One with several links is never taken for it: a
 * change of its attributes would change the other names too. */
static int find_unchanged(struct unpack *unpack, const struct store_tar_item *item, const char *path, int *ret_fd,
                          struct err *err)
{
    int parent_fd;
    const char *name;
    struct stat st;
    int status = store_place_parent(&unpack->place, path, &parent_fd, &name, err);
    if (status < 0)
        return status;
    OWNED(owned_fd) int fd = openat(parent_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return 0;
    if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || (uint64_t)st.st_size != item->size_bytes ||
        st.st_mtim.tv_sec != item->mtime.tv_sec || st.st_mtim.tv_nsec != item->mtime.tv_nsec)
        return 0;
    *ret_fd = steal_fd(&fd);
    return 1;
}

static int take_regular(struct unpack *unpack, const struct store_tar_item *item, const char *path, struct err *err)
{
    OWNED(attributes_release) struct attributes attributes = {0};
    struct store_place_slot slot;
    int status = take_attributes(unpack, item, &attributes, err);
    if (status == 0 && unpack->options.update) {
        OWNED(owned_fd) int fd = -1;
        status = find_unchanged(unpack, item, path, &fd, err);
        if (status == 1) {
            unpack->stats.kept++;
            status = give_attributes(unpack, fd, &attributes, err);
            return status == 0 ? store_place_mark(&unpack->place, path, err) : status;
        }
    }
    if (status == 0)
        status = store_place_begin(&unpack->place, path, &slot, err);
    if (status < 0)
        return status;
    status = write_regular(unpack, &slot, item, &attributes, err);
    if (status < 0) {
        store_place_abort(&slot);
        return status;
    }
    return store_place_commit(&slot, err);
}

/* ---- links, FIFOs, devices ---- */

static int take_special(struct unpack *unpack, const struct store_tar_item *item, const char *path, struct err *err)
{
    OWNED(attributes_release) struct attributes attributes = {0};
    struct store_place_slot slot;
    bool link = S_ISLNK(item->mode);
    int status = take_attributes(unpack, item, &attributes, err);
    if (status == 0)
        status = store_place_begin(&unpack->place, path, &slot, err);
    if (status < 0)
        return status;
    int made = link ? symlinkat(item->link, slot.parent_fd, store_place_name(&slot))
                    : mknodat(slot.parent_fd, store_place_name(&slot), (item->mode & S_IFMT) | 0600, item->rdev);
    if (made < 0)
        return err_errno(err, errno, "cannot make it");
    status = give_attributes_at(unpack, slot.parent_fd, store_place_name(&slot), link, &attributes, err);
    if (status < 0) {
        store_place_abort(&slot);
        return status;
    }
    return store_place_commit(&slot, err);
}

static int take_symlink(struct unpack *unpack, const struct store_tar_item *item, const char *path, struct err *err)
{
    if (!item->link || item->link[0] == '\0' || strlen(item->link) >= LIMIT_PATH_BYTES)
        return store_place_refuse("its target is empty or too long", err);
    return take_special(unpack, item, path, err);
}

static int take_device(struct unpack *unpack, const struct store_tar_item *item, const char *path, struct err *err)
{
    /* In a layer, 0:0 would be a whiteout that does not look like one. */
    if (!unpack->options.devices || (unpack->options.overlay && S_ISCHR(item->mode) && item->rdev == 0)) {
        unpack->stats.devices_dropped++;
        return 0;
    }
    return take_special(unpack, item, path, err);
}

static int link_to(struct unpack *unpack, int target_fd, const char *target_name, const char *path, struct err *err)
{
    struct store_place_slot slot;
    struct stat target, present;
    if (fstatat(target_fd, target_name, &target, AT_SYMLINK_NOFOLLOW) < 0)
        return store_place_refuse("it is a hard link to what the archive has not, or not yet", err);
    if (S_ISDIR(target.st_mode))
        return store_place_refuse("it is a hard link to a directory", err);
    int status = store_place_begin(&unpack->place, path, &slot, err);
    if (status < 0)
        return status;
    /* rename(2) between two links of one file does nothing, and would leave the temporary name. */
    if (slot.at[0] && fstatat(slot.parent_fd, slot.name, &present, AT_SYMLINK_NOFOLLOW) == 0 &&
        present.st_dev == target.st_dev && present.st_ino == target.st_ino)
        return 0;
    if (linkat(target_fd, target_name, slot.parent_fd, store_place_name(&slot), 0) < 0)
        return err_errno(err, errno, "cannot make the hard link");
    return store_place_commit(&slot, err);
}

static int take_hard_link(struct unpack *unpack, const struct store_tar_item *item, const char *path, struct err *err)
{
    char target[LIMIT_PATH_BYTES];
    const char *target_name;
    int status = store_place_check_path(item->link, target, err);
    if (status < 0)
        return status;
    if (strcmp(target, path) == 0 || strcmp(target, ".") == 0)
        return store_place_refuse("it is a hard link to itself", err);
    if (unpack->options.update && !store_place_seen(&unpack->place, target))
        return store_place_refuse("it is a hard link to what the archive has not, or not yet", err);
    OWNED(owned_fd) int target_fd = store_place_open_parent(&unpack->place, target, &target_name, err);
    status = target_fd < 0 ? target_fd : link_to(unpack, target_fd, target_name, path, err);
    if (status < 0)
        return status;
    const void *data;
    size_t len;
    uint64_t offset;
    status = store_tar_reader_data(unpack->reader, &data, &len, &offset, err);
    if (status > 0)
        return store_place_refuse("it is a hard link and has data", err);
    unpack->stats.hard_links++;
    return status;
}

/* ---- whiteouts (OCI image-spec v1.1, layer.md) ---- */

static int take_opaque(struct unpack *unpack, const char *path, struct err *err)
{
    char inside[LIMIT_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    if (!slash)
        return store_place_refuse("it would hide everything below the layer", err);
    int parent_fd;
    const char *name;
    int status = store_place_parent(&unpack->place, path, &parent_fd, &name, err);
    if (status < 0)
        return status;
    memcpy(inside, path, (size_t)(slash - path));
    inside[slash - path] = '\0';
    OWNED(owned_fd) int fd = store_place_open_dir(&unpack->place, inside, err);
    return fd < 0 ? fd : store_overlay_set_opaque(fd, true, err);
}

/* `path` is the name to hide. If the layer has it as well, what the layer has stays, and hides by itself; a directory
 * does so only when it is opaque. */
static int hide(struct unpack *unpack, const char *path, struct err *err)
{
    struct store_place_slot slot;
    struct stat st;
    int parent_fd;
    const char *name;
    int status = store_place_parent(&unpack->place, path, &parent_fd, &name, err);
    if (status < 0)
        return status;
    bool ours = !unpack->options.update || store_place_seen(&unpack->place, path);
    if (ours && fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (!S_ISDIR(st.st_mode))
            return 0;
        OWNED(owned_fd) int fd = store_place_open_dir(&unpack->place, path, err);
        return fd < 0 ? fd : store_overlay_set_opaque(fd, true, err);
    }
    status = store_place_begin(&unpack->place, path, &slot, err);
    if (status < 0)
        return status;
    if (mknodat(slot.parent_fd, store_place_name(&slot), S_IFCHR, 0) < 0)
        return err_errno(err, errno, "cannot make a whiteout");
    return store_place_commit(&slot, err);
}

/* 1 if it was one. */
static int take_whiteout(struct unpack *unpack, const char *path, struct err *err)
{
    char hidden[LIMIT_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    for (const char *part = path; part < name; part = strchr(part, '/') + 1)
        if (strncmp(part, ".wh.", 4) == 0)
            return store_place_refuse("it lies in a directory with a whiteout's name", err);
    if (strncmp(name, ".wh.", 4) != 0)
        return 0;
    unpack->stats.whiteouts++;
    int status;
    if (strcmp(name, ".wh..wh..opq") == 0) {
        status = take_opaque(unpack, path, err);
    } else if (strncmp(name, ".wh..wh.", 8) == 0 || strcmp(name, ".wh.") == 0 || strcmp(name, ".wh..") == 0 ||
               strcmp(name, ".wh...") == 0) {
        return store_place_refuse("it is a whiteout of no name", err);
    } else {
        memcpy(hidden, path, (size_t)(name - path));
        memcpy(hidden + (name - path), name + 4, strlen(name + 4) + 1);
        status = hide(unpack, hidden, err);
    }
    return status < 0 ? status : 1;
}

/* ---- the walk ---- */

static int take_by_type(struct unpack *unpack, const struct store_tar_item *item, const char *path, struct err *err)
{
    if (strcmp(path, ".") == 0 && (item->hard_link || !S_ISDIR(item->mode)))
        return store_place_refuse("it would take the place of the target directory", err);
    if (item->hard_link)
        return take_hard_link(unpack, item, path, err);
    switch (item->mode & S_IFMT) {
    case S_IFREG:
        return take_regular(unpack, item, path, err);
    case S_IFDIR:
        return take_dir(unpack, item, path, err);
    case S_IFLNK:
        return take_symlink(unpack, item, path, err);
    case S_IFIFO:
        return take_special(unpack, item, path, err);
    case S_IFCHR:
    case S_IFBLK:
        return take_device(unpack, item, path, err);
    default:
        return store_place_refuse("it is of no known type", err);
    }
}

static int unpack_item(struct unpack *unpack, const struct store_tar_item *item, struct err *err)
{
    char path[LIMIT_PATH_BYTES];
    if (++unpack->stats.entries > unpack->options.max_entries)
        return err_set(err, ERR_LIMIT, "the archive has more than %llu entries",
                       (unsigned long long)unpack->options.max_entries);
    int status = store_place_check_path(item->path, path, err);
    if (status < 0)
        return status;
    if (item->size_bytes > unpack->options.max_bytes - unpack->size_total)
        return err_set(err, ERR_LIMIT, "the archive's files are larger than %llu bytes",
                       (unsigned long long)unpack->options.max_bytes);
    unpack->size_total += item->size_bytes;
    if (unpack->options.overlay)
        status = take_whiteout(unpack, path, err);
    if (status == 0)
        status = take_by_type(unpack, item, path, err);
    return status < 0 ? status : 0;
}

static int unpack_all(struct unpack *unpack, struct err *err)
{
    struct store_tar_item item;
    int status;
    while ((status = store_tar_reader_next(unpack->reader, &item, err)) > 0) {
        status = unpack_item(unpack, &item, err);
        if (status < 0)
            return on_entry(item.path, err);
    }
    if (status == 0 && unpack->options.update)
        status = store_place_remove_others(&unpack->place, &unpack->stats.removed, err);
    return status == 0 ? settle_dirs(unpack, err) : status;
}

struct store_archive_unpack_options store_archive_unpack_defaults(void)
{
    bool root = geteuid() == 0;
    return (struct store_archive_unpack_options){
        .ids = root ? STORE_ARCHIVE_IDS_KEEP : STORE_ARCHIVE_IDS_CALLER,
        .privileges = root,
    };
}

static void release(struct unpack *unpack)
{
    for (size_t i = 0; i < unpack->dir_count; i++) {
        free(unpack->dirs[i].path);
        attributes_release(&unpack->dirs[i].attributes);
    }
    free(unpack->dirs);
    store_place_release(&unpack->place);
}

int store_archive_unpack(store_archive_read_cb read_cb, void *ctx, int dir_fd,
                         const struct store_archive_unpack_options *options, struct store_archive_stats *ret_stats,
                         struct err *err)
{
    OWNED(owned_tar_reader) struct store_tar_reader *reader = NULL;
    struct unpack unpack = {.options = *options};
    if (unpack.options.max_bytes == 0)
        unpack.options.max_bytes = LIMIT_OBJECT_BYTES;
    if (unpack.options.max_entries == 0)
        unpack.options.max_entries = LIMIT_ARCHIVE_ENTRIES;
    if (unpack.options.max_ratio == 0)
        unpack.options.max_ratio = LIMIT_ARCHIVE_RATIO;
    store_place_init(&unpack.place, dir_fd, options->update, options->overlay);
    struct store_tar_limits limits = {unpack.options.max_bytes, unpack.options.max_ratio};
    int status = store_tar_reader_new(read_cb, ctx, &limits, &reader, err);
    unpack.reader = reader;
    if (status == 0)
        status = unpack_all(&unpack, err);
    release(&unpack);
    if (ret_stats)
        *ret_stats = unpack.stats;
    return status;
}

static int sync_parent(const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    OWNED(owned_free) char *parent = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    return parent ? file_sync_dir(parent, err) : err_set(err, ERR_NOMEM, "no memory for a path");
}

int store_archive_unpack_new(store_archive_read_cb read_cb, void *ctx, const char *path,
                             const struct store_archive_unpack_options *options, struct store_archive_stats *ret_stats,
                             struct err *err)
{
    if (mkdir(path, 0700) < 0)
        return err_errno(err, errno, "cannot make directory '%s'", path);
    OWNED(owned_fd) int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int status = fd < 0 ? err_errno(err, errno, "cannot open directory '%s'", path) : 0;
    if (status == 0)
        status = store_archive_unpack(read_cb, ctx, fd, options, ret_stats, err);
    if (status == 0 && syncfs(fd) < 0) /* one call for however many files */
        status = err_errno(err, errno, "cannot make '%s' durable", path);
    if (status == 0)
        status = sync_parent(path, err);
    if (status < 0)
        file_remove_tree(path, NULL);
    return status;
}
