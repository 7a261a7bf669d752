#include "store/archive_place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "node/base/clock.h"
#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "store/archive_xattr.h"

/* ---- names ---- */

int store_place_refuse(const char *why, struct err *err)
{
    return err_set(err, ERR_INVALID, "refused: %s", why);
}

static bool has_drive(const char *path)
{
    bool letter = (path[0] >= 'a' && path[0] <= 'z') || (path[0] >= 'A' && path[0] <= 'Z');
    return letter && path[1] == ':' && (path[2] == '\\' || path[2] == '/');
}

int store_place_check_path(const char *path, char ret_path[LIMIT_PATH_BYTES], struct err *err)
{
    size_t used = 0;
    unsigned depth = 0;
    if (path[0] == '\0')
        return store_place_refuse("its name is empty", err);
    if (path[0] == '/' || has_drive(path))
        return store_place_refuse("its name is absolute", err);
    if (strlen(path) >= LIMIT_PATH_BYTES)
        return err_set(err, ERR_LIMIT, "its name is longer than %d bytes", LIMIT_PATH_BYTES - 1);
    for (const char *at = path; *at != '\0';) {
        size_t len = strcspn(at, "/");
        if (len == 2 && at[0] == '.' && at[1] == '.')
            return store_place_refuse("its name leads upwards", err);
        if (len > NAME_MAX)
            return store_place_refuse("a part of its name is longer than 255 bytes", err);
        if (len > 0 && !(len == 1 && at[0] == '.')) {
            if (used > 0)
                ret_path[used++] = '/';
            memcpy(ret_path + used, at, len);
            used += len;
            depth++;
        }
        at += len + (at[len] == '/');
    }
    if (depth > LIMIT_ARCHIVE_DEPTH)
        return err_set(err, ERR_LIMIT, "it lies more than %d directories deep", LIMIT_ARCHIVE_DEPTH);
    if (used == 0)
        ret_path[used++] = '.';
    ret_path[used] = '\0';
    return 0;
}

/* ---- opening ---- */

#define PATH_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define READ_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

static int open_beneath(int dir_fd, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV};
    return (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
}

static int cannot_open(int reason, const char *path, struct err *err)
{
    char text[200];
    log_text(path, strlen(path), text, sizeof text);
    if (reason == ENOTDIR || reason == ELOOP || reason == EXDEV)
        return err_set(err, ERR_INVALID, "refused: at '%s' %s", text,
                       reason == EXDEV ? "another file system is mounted" : "is a link, or no directory");
    return err_errno(err, reason, "cannot open directory '%s'", text);
}

int store_place_open_dir(const struct store_place *place, const char *path, struct err *err)
{
    int fd = open_beneath(place->root_fd, path, READ_FLAGS);
    return fd < 0 ? cannot_open(errno, path, err) : fd;
}

static void split(const char *path, char parent[LIMIT_PATH_BYTES], const char **ret_name)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 1;
    memcpy(parent, slash ? path : ".", len);
    parent[len] = '\0';
    *ret_name = slash ? slash + 1 : path;
}

int store_place_open_parent(const struct store_place *place, const char *path, const char **ret_name, struct err *err)
{
    char parent[LIMIT_PATH_BYTES];
    split(path, parent, ret_name);
    int fd = open_beneath(place->root_fd, parent, PATH_FLAGS);
    return fd < 0 ? cannot_open(errno, parent, err) : fd;
}

/* ---- what the archive has ---- */

void store_place_init(struct store_place *place, int root_fd, bool update, bool overlay)
{
    struct rng rng = rng_system();
    *place = (struct store_place){.root_fd = root_fd, .update = update, .overlay = overlay, .parent_fd = -1};
    /* Directories that are only implied count as well, but every one of them holds an entry. */
    map_init(&place->seen, 2 * (size_t)LIMIT_ARCHIVE_ENTRIES, rng_u64(&rng));
}

void store_place_release(struct store_place *place)
{
    owned_fd(&place->parent_fd);
    map_release(&place->seen);
}

static struct id path_id(const char *path)
{
    struct id id;
    crypto_id_of(path, strlen(path), &id);
    return id;
}

bool store_place_seen(const struct store_place *place, const char *path)
{
    if (!place->update)
        return false;
    struct id id = path_id(path);
    return map_get(&place->seen, &id);
}

int store_place_mark(struct store_place *place, const char *path, struct err *err)
{
    if (!place->update)
        return 0;
    struct id id = path_id(path);
    int status = map_set(&place->seen, &id, place); /* any pointer: the map is a set */
    return status < 0 ? err_set(err, status, "no room to remember the archive's names") : 0;
}

/* ---- directories ---- */

/* May what stands at `path` give way to something of another kind? */
static bool may_replace(const struct store_place *place, const char *path)
{
    return place->update && !store_place_seen(place, path);
}

/* With the permissions that most have, whatever the umask: perhaps no entry describes it. */
static int make_dir(int parent_fd, const char *name, bool opaque, struct err *err)
{
    if (mkdirat(parent_fd, name, 0700) < 0)
        return err_errno(err, errno, "cannot make a directory");
    OWNED(owned_fd) int fd = open_beneath(parent_fd, name, READ_FLAGS);
    if (fd < 0 || fchmod(fd, 0755) < 0)
        return err_errno(err, errno, "cannot set up a new directory");
    return opaque ? store_overlay_set_opaque(fd, true, err) : 0;
}

/* `name`, being `path`, is there and is no directory. A whiteout of this archive goes on hiding what it hid. */
static int turn_into_dir(struct store_place *place, int parent_fd, const char *path, const char *name, struct err *err)
{
    struct stat st;
    if (fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_errno(err, errno, "cannot look at a name");
    bool replace = may_replace(place, path);
    bool whiteout = place->overlay && store_place_is_whiteout(&st);
    if (!whiteout && !replace)
        return cannot_open(ENOTDIR, path, err);
    if (unlinkat(parent_fd, name, 0) < 0)
        return err_errno(err, errno, "cannot remove what stands in the place of a directory");
    return make_dir(parent_fd, name, whiteout && !replace, err);
}

/* A descriptor (O_PATH) of the directory `name` in parent_fd, being `path`, which is made if need be. */
static int enter_dir(struct store_place *place, int parent_fd, const char *path, const char *name, bool *ret_is_new,
                     struct err *err)
{
    int fd = open_beneath(parent_fd, name, PATH_FLAGS);
    int reason = errno;
    *ret_is_new = fd < 0;
    if (fd < 0) {
        if (reason != ENOENT && reason != ENOTDIR && reason != ELOOP)
            return cannot_open(reason, path, err);
        int status =
            reason == ENOENT ? make_dir(parent_fd, name, false, err) : turn_into_dir(place, parent_fd, path, name, err);
        if (status < 0)
            return status;
        fd = open_beneath(parent_fd, name, PATH_FLAGS);
        if (fd < 0)
            return cannot_open(errno, path, err);
    }
    int status = store_place_mark(place, path, err);
    if (status < 0)
        close(fd);
    return status < 0 ? status : fd;
}

/* Component by component from the root; place->parent is the path. */
static int walk_to_parent(struct store_place *place, struct err *err)
{
    char prefix[LIMIT_PATH_BYTES];
    OWNED(owned_fd) int fd = open_beneath(place->root_fd, ".", PATH_FLAGS);
    if (fd < 0)
        return cannot_open(errno, ".", err);
    for (size_t at = 0; place->parent[at] != '\0';) {
        bool is_new;
        size_t end = at + strcspn(place->parent + at, "/");
        memcpy(prefix, place->parent, end);
        prefix[end] = '\0';
        int next = enter_dir(place, fd, prefix, prefix + at, &is_new, err);
        if (next < 0)
            return next;
        close(fd);
        fd = next;
        at = end + (place->parent[end] == '/');
    }
    return steal_fd(&fd);
}

int store_place_parent(struct store_place *place, const char *path, int *ret_parent_fd, const char **ret_name,
                       struct err *err)
{
    char parent[LIMIT_PATH_BYTES];
    split(path, parent, ret_name);
    if (place->parent_fd < 0 || strcmp(parent, place->parent) != 0) {
        owned_fd(&place->parent_fd);
        memcpy(place->parent, parent, sizeof parent);
        bool is_root = strcmp(parent, ".") == 0;
        place->parent_fd = is_root ? open_beneath(place->root_fd, ".", PATH_FLAGS) : walk_to_parent(place, err);
        if (place->parent_fd < 0)
            return is_root ? cannot_open(errno, ".", err) : place->parent_fd;
    }
    *ret_parent_fd = place->parent_fd;
    return 0;
}

int store_place_dir(struct store_place *place, const char *path, bool *ret_is_new, struct err *err)
{
    int parent_fd;
    const char *name;
    int status = store_place_parent(place, path, &parent_fd, &name, err);
    if (status < 0)
        return status;
    OWNED(owned_fd) int fd = enter_dir(place, parent_fd, path, name, ret_is_new, err);
    return fd < 0 ? fd : 0;
}

/* ---- everything else ---- */

static int make_room(struct store_place *place, int parent_fd, const char *path, const char *name, struct err *err)
{
    struct stat st;
    if (fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : err_errno(err, errno, "cannot look at a name");
    if (S_ISDIR(st.st_mode)) {
        if (!may_replace(place, path))
            return store_place_refuse("it is a directory elsewhere in the archive", err);
        return file_remove_tree_at(parent_fd, name, err);
    }
    if (!place->update && unlinkat(parent_fd, name, 0) < 0)
        return err_errno(err, errno, "cannot replace an earlier entry of the same name");
    return 0;
}

int store_place_begin(struct store_place *place, const char *path, struct store_place_slot *ret_slot, struct err *err)
{
    struct store_place_slot slot = {0};
    int status = store_place_parent(place, path, &slot.parent_fd, &slot.name, err);
    if (status == 0)
        status = make_room(place, slot.parent_fd, path, slot.name, err);
    if (status == 0)
        status = store_place_mark(place, path, err);
    if (status < 0)
        return status;
    if (place->update) { /* random: a name of the archive's own cannot be hit on purpose */
        struct rng rng = rng_system();
        snprintf(slot.at, sizeof slot.at, ".cmig-%016llx", (unsigned long long)rng_u64(&rng));
    }
    *ret_slot = slot;
    return 0;
}

int store_place_commit(const struct store_place_slot *slot, struct err *err)
{
    if (slot->at[0] && renameat(slot->parent_fd, slot->at, slot->parent_fd, slot->name) < 0) {
        int reason = errno;
        store_place_abort(slot);
        return err_errno(err, reason, "cannot put a new file in its place");
    }
    return 0;
}

void store_place_abort(const struct store_place_slot *slot)
{
    if (slot->at[0])
        unlinkat(slot->parent_fd, slot->at, 0);
}

/* ---- update: what is too much ---- */

struct sweep {
    struct store_place *place;
    uint64_t removed;
    size_t path_len;
    char path[LIMIT_PATH_BYTES];
};

static void owned_dir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static int sweep_dir(struct sweep *sweep, int dir_fd, unsigned depth, struct err *err);

/* What the archive has is never too deep or too long for us: it was checked on its way in. */
static int sweep_name(struct sweep *sweep, int dir_fd, const char *name, unsigned depth, struct err *err)
{
    size_t before = sweep->path_len, len = strlen(name);
    bool fits = before + 1 + len < sizeof sweep->path;
    if (fits) {
        if (before > 0)
            sweep->path[sweep->path_len++] = '/';
        memcpy(sweep->path + sweep->path_len, name, len + 1);
        sweep->path_len += len;
    }
    int status = 0;
    if (!fits || !store_place_seen(sweep->place, sweep->path)) {
        sweep->removed++;
        status = file_remove_tree_at(dir_fd, name, err);
    } else {
        OWNED(owned_fd) int fd = open_beneath(dir_fd, name, READ_FLAGS);
        if (fd >= 0)
            status = sweep_dir(sweep, fd, depth + 1, err);
        else if (errno != ENOTDIR && errno != ELOOP)
            status = cannot_open(errno, sweep->path, err);
    }
    sweep->path_len = before;
    sweep->path[before] = '\0';
    return status;
}

static int sweep_dir(struct sweep *sweep, int dir_fd, unsigned depth, struct err *err)
{
    if (depth > LIMIT_ARCHIVE_DEPTH)
        return err_set(err, ERR_LIMIT, "more than %d directories deep", LIMIT_ARCHIVE_DEPTH);
    int copy = openat(dir_fd, ".", READ_FLAGS);
    OWNED(owned_dir) DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir) {
        int reason = errno;
        if (copy >= 0)
            close(copy);
        return err_errno(err, reason, "cannot read a directory");
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int status = sweep_name(sweep, dir_fd, entry->d_name, depth, err);
        if (status < 0)
            return status;
    }
    return 0;
}

int store_place_remove_others(struct store_place *place, uint64_t *ret_removed, struct err *err)
{
    struct sweep sweep = {.place = place};
    OWNED(owned_fd) int fd = store_place_open_dir(place, ".", err);
    if (fd < 0)
        return fd;
    int status = sweep_dir(&sweep, fd, 0, err);
    *ret_removed = sweep.removed;
    return status;
}
