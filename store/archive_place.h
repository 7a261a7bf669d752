/*
 * Where an archive's entries go: names checked, directories opened beneath a root that no entry can leave, new things
 * made under a name that is free, old things replaced. Inside store only; knows nothing of tar.
 *
 * 1. Every directory is opened by openat2(2) from the root with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
 *    RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV, or component by component with the same flags; names inside it are single
 *    components and used with flags that do not follow links.
 * 2. What this archive has made is never changed in kind by it: a directory stays one, a link never becomes one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "node/base/err.h"
#include "node/base/limits.h"
#include "node/base/map.h"

/* The error of every entry that breaks a rule: ERR_INVALID "refused: <why>"; the caller adds the entry's name. */
int store_place_refuse(const char *why, struct err *err);

/* "./a//b/" becomes "a/b", "./" becomes ".". ERR_INVALID for absolute, "..", empty, drive letters, components beyond
 * NAME_MAX; ERR_LIMIT for LIMIT_PATH_BYTES and LIMIT_ARCHIVE_DEPTH. */
int store_place_check_path(const char *path, char ret_path[LIMIT_PATH_BYTES], struct err *err);

struct store_place {
    int root_fd; /* borrowed */
    bool update; /* the root holds an older state: what the archive has not made may be replaced */
    bool overlay;
    int parent_fd; /* owned; of `parent`; -1: none yet */
    char parent[LIMIT_PATH_BYTES];
    struct map seen; /* update: ids of the paths that the archive has */
};

void store_place_init(struct store_place *place, int root_fd, bool update, bool overlay);
void store_place_release(struct store_place *place);

/* A descriptor (O_PATH) for the directory that `path` (checked) lies in, made if it is not there; borrowed until the
 * next call. *ret_name is the last component, inside `path`. */
int store_place_parent(struct store_place *place, const char *path, int *ret_parent_fd, const char **ret_name,
                       struct err *err);
/* An existing directory, for reading. The caller closes it. */
int store_place_open_dir(const struct store_place *place, const char *path, struct err *err);
/* The directory that a hard link's target lies in: O_PATH, not made, not cached. The caller closes it. */
int store_place_open_parent(const struct store_place *place, const char *path, const char **ret_name, struct err *err);

/* Has this archive made the path? Always false when not updating, where whatever is there is from this archive. */
bool store_place_seen(const struct store_place *place, const char *path);
int store_place_mark(struct store_place *place, const char *path, struct err *err);

/* Room for something that is no directory: *ret_name is the name to make it under, and commit puts it in its place. An
 * existing directory is refused, or removed if it is from an older state. */
struct store_place_slot {
    int parent_fd;    /* borrowed from the place */
    const char *name; /* borrowed from the path */
    char at[32];      /* the temporary name, or "" */
};
int store_place_begin(struct store_place *place, const char *path, struct store_place_slot *ret_slot, struct err *err);
static inline const char *store_place_name(const struct store_place_slot *slot)
{
    return slot->at[0] ? slot->at : slot->name;
}
int store_place_commit(const struct store_place_slot *slot, struct err *err);
/* After a failure: take the temporary name away. */
void store_place_abort(const struct store_place_slot *slot);

/* Make the directory, or find it. One that takes the place of this archive's whiteout becomes opaque. */
int store_place_dir(struct store_place *place, const char *path, bool *ret_is_new, struct err *err);

/* Update: remove all that was not marked. */
int store_place_remove_others(struct store_place *place, uint64_t *ret_removed, struct err *err);

/* A character device 0:0, by which overlayfs hides a name of a lower layer. */
static inline bool store_place_is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}
