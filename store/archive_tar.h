/*
 * What stands between our own walks and libarchive: one tar entry as a plain struct, a reader and a writer of such.
 * Inside store only. No file system here, and no libarchive type in sight.
 *
 * libarchive translates names between character sets, depending on the process's locale. Names are bytes to us, so
 * both doors work in the "C" locale, where everything beyond ASCII passes through untouched.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "node/base/err.h"
#include "node/base/scope.h"
#include "store/archive.h"

struct store_tar_xattr {
    const char *name;
    const void *value;
    size_t len_bytes;
};

struct store_tar_extent {
    uint64_t offset;
    uint64_t len_bytes;
};

struct store_tar_item {
    const char *path; /* as in the archive: unchecked when read */
    const char *link; /* of symlinks the target, of hard links the path of the other name; else NULL */
    bool hard_link;   /* then `mode` says nothing */
    mode_t mode;      /* type and permissions */
    int64_t uid;      /* as in the archive: unchecked when read */
    int64_t gid;
    struct timespec mtime;
    dev_t rdev;
    uint64_t size_bytes;
    const struct store_tar_xattr *xattrs; /* POSIX ACLs are among them, as the kernel's own binary attributes */
    size_t xattr_count;
    const struct store_tar_extent *extents; /* writing: where data is, in order; NULL: everywhere */
    size_t extent_count;
};

/* ---- reading (archive_read.c) ---- */

struct store_tar_limits {
    uint64_t max_bytes; /* of plain tar */
    uint64_t max_ratio; /* plain to compressed */
};

struct store_tar_reader;
int store_tar_reader_new(store_archive_read_cb read_cb, void *ctx, const struct store_tar_limits *limits,
                         struct store_tar_reader **ret_reader, struct err *err);
/* 1 and an item, 0 at the end mark, behind which nothing but zeros came. The item's pointers live until the next call.
 * Data of the former item that was not asked for is passed over. */
int store_tar_reader_next(struct store_tar_reader *reader, struct store_tar_item *ret_item, struct err *err);
/* The next piece of the item's data: 1, or 0 when there is no more. Offsets only grow; what lies between is a hole.
 * The piece lives until the next call. It may lie beyond the item's size: the archive decides. */
int store_tar_reader_data(struct store_tar_reader *reader, const void **ret_data, size_t *ret_len, uint64_t *ret_offset,
                          struct err *err);
void store_tar_reader_free(struct store_tar_reader *reader);
OWNED_DEFINE(owned_tar_reader, struct store_tar_reader, store_tar_reader_free)

/* ---- writing (archive_write.c); the rest of the writer is in archive.h ---- */

/* A header. For a regular file exactly the bytes of its extents follow, through store_tar_writer_data. */
int store_tar_writer_add(struct store_archive_writer *writer, const struct store_tar_item *item, struct err *err);
/* Data at `offset`, which is where the last piece ended, or later if there is a hole in between. */
int store_tar_writer_data(struct store_archive_writer *writer, uint64_t offset, const void *data, size_t len_bytes,
                          struct err *err);
OWNED_DEFINE(owned_tar_writer, struct store_archive_writer, store_archive_writer_free)
