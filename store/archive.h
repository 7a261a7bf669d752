/*
 * Archives: a directory tree as a deterministic pax tar, and a tar as a directory tree.
 *
 * Owns the packing walk, the unpacking walk and every rule about what an archive may do to a disk; libarchive only
 * turns bytes into headers and back. Never follows a symlink, never leaves the directory it was given, never crosses
 * into another mount, never trusts a name. Blocking; any thread, one call per tree at a time. docs/archives.md.
 *
 * 1. The same tree gives the same bytes on every node: sorted by the bytes of the names, no atime or ctime, numeric
 *    owners, holes found in the content and not in the file system's layout.
 * 2. Unpacking stops at the first entry that it refuses and reports it; what was written until then stays, so the
 *    caller removes the target (store_archive_unpack_new does). Nothing outside the target is ever touched.
 * 3. Only tar is read, plain or as one gzip or zstd stream; all else is ERR_UNSUPPORTED.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "node/base/err.h"

/* Take len_bytes; 0, or a negative code with err set, which ends the operation and becomes its result. */
typedef int (*store_archive_write_cb)(void *ctx, const void *data, size_t len_bytes, struct err *err);

/* Give up to room_bytes: how many were given, 0 at the end, or a negative code with err set, which ends the operation
 * and becomes its result: how a caller cancels or sets a deadline. */
typedef ssize_t (*store_archive_read_cb)(void *ctx, void *ret_data, size_t room_bytes, struct err *err);

struct store_archive_stats {
    uint64_t entries;    /* files, directories, links and the rest, as written or read */
    uint64_t data_bytes; /* content of regular files, holes left out */
    uint64_t hard_links;
    uint64_t whiteouts;          /* of both kinds */
    uint64_t sockets;            /* left out */
    uint64_t devices_dropped;    /* unpack: left out by policy */
    uint64_t privileges_dropped; /* unpack: setuid and setgid bits, file capabilities, left out by policy */
    uint64_t xattrs_dropped;     /* unpack: of a kind that is not carried, or not taken by the file system */
    uint64_t mounts;     /* pack: mount points, packed as empty directories; files with a mount on them, left out */
    uint64_t unnameable; /* pack, overlay: files whose own name begins with ".wh.", left out */
    uint64_t vanished;   /* pack: gone between the listing and the reading, left out */
    uint64_t changed;    /* pack: written to while being read; content is padded or cut to the size at the start */
    uint64_t kept;       /* update: regular files whose content was left as it was */
    uint64_t removed;    /* update: names that the archive does not have */
};

/* ---- packing ---- */

struct store_archive_pack_options {
    /* The tree is the upper directory of an overlayfs: whiteouts (character device 0:0) and opaque directories become
     * ".wh.NAME" and ".wh..wh..opq" entries (OCI image-spec v1.1, layer.md). ERR_UNSUPPORTED for redirected
     * directories and metadata-only copies, which no layer can express. */
    bool overlay;
};

/* Pack what lies beneath dir_fd, and "./" itself. Kept: type, mode, numeric owner, mtime in ns, hard links within the
 * tree, holes of 64 KiB and more, and of regular files and directories POSIX ACLs, user.* attributes and file
 * capabilities. A live tree is packed as it is met (see stats); a tree at rest has vanished = changed = 0.
 * `options`, `ret_stats` may be NULL. */
int store_archive_pack(int dir_fd, const struct store_archive_pack_options *options, store_archive_write_cb write_cb,
                       void *ctx, struct store_archive_stats *ret_stats, struct err *err);

/* ---- unpacking ---- */

enum store_archive_ids {
    STORE_ARCHIVE_IDS_KEEP,   /* numeric owners as in the archive: for root */
    STORE_ARCHIVE_IDS_CALLER, /* everything belongs to the caller */
};

struct store_archive_unpack_options {
    /* An image layer: ".wh." names become overlayfs whiteouts and opaque directories. Otherwise they are plain names.
     */
    bool overlay;
    enum store_archive_ids ids;
    bool devices;    /* make device nodes; else they are left out and counted */
    bool privileges; /* keep setuid, setgid and file capabilities; else they are left out and counted */
    /* The target holds an older state: it ends equal to the archive. Files of equal size and mtime are not written
     * again, others are written beside and renamed over, names that the archive lacks are removed. After a failure the
     * tree is somewhere between the two; running it again repairs that. */
    bool update;
    uint64_t max_bytes;   /* of tar, and of the sizes of its files together; 0: LIMIT_OBJECT_BYTES */
    uint64_t max_entries; /* 0: LIMIT_ARCHIVE_ENTRIES */
    uint64_t max_ratio;   /* plain to compressed bytes, looked at beyond 64 MiB; 0: LIMIT_ARCHIVE_RATIO */
};

/* What root, or an ordinary user, wants of a layer or volume: ids, devices and privileges filled in by the caller's
 * effective user id; no overlay, no update. */
struct store_archive_unpack_options store_archive_unpack_defaults(void);

/* Unpack into the directory dir_fd: empty and nobody else's, but for `update`.
 * ERR_INVALID for an entry that is refused (name, link, type), ERR_CORRUPT for damage, truncation and trailing bytes,
 * ERR_UNSUPPORTED for what is no tar, ERR_LIMIT for a budget. `ret_stats` may be NULL and is written on failure too. */
int store_archive_unpack(store_archive_read_cb read_cb, void *ctx, int dir_fd,
                         const struct store_archive_unpack_options *options, struct store_archive_stats *ret_stats,
                         struct err *err);

/* Make directory `path` (mode 0700 until the archive says otherwise; ERR_EXISTS if it is there), unpack into it and
 * make all of it durable. On failure nothing of it is left. */
int store_archive_unpack_new(store_archive_read_cb read_cb, void *ctx, const char *path,
                             const struct store_archive_unpack_options *options, struct store_archive_stats *ret_stats,
                             struct err *err);

/* ---- looking into an archive, and writing one by hand ---- */

struct store_archive_entry {
    const char *path; /* borrowed; checked and normalised: no "./", no trailing "/"; "." for the root itself */
    mode_t mode;      /* with the type; of hard links S_IFREG */
    uint64_t size_bytes;
};

/* Called for each entry: 0 to go on, 1 to stop. */
typedef int (*store_archive_entry_cb)(void *ctx, const struct store_archive_entry *entry);

/* Read headers until the callback has seen enough (1) or the end (0). Limits and errors as for unpacking. */
int store_archive_scan(store_archive_read_cb read_cb, void *read_ctx, store_archive_entry_cb entry_cb, void *entry_ctx,
                       struct err *err);

/* Undo gzip or zstd, whichever the bytes begin with; else pass them on. Stops at max_bytes (ERR_LIMIT) and at
 * LIMIT_ARCHIVE_RATIO. ERR_CORRUPT for damage, truncation and bytes after the end. */
int store_archive_expand(store_archive_read_cb read_cb, void *read_ctx, store_archive_write_cb write_cb,
                         void *write_ctx, uint64_t max_bytes, struct err *err);

/* A tar of plain files made one by one, owner 0:0, mtime 0: deterministic. */
struct store_archive_writer;
int store_archive_writer_new(store_archive_write_cb write_cb, void *ctx, struct store_archive_writer **ret_writer,
                             struct err *err);
int store_archive_writer_add_dir(struct store_archive_writer *writer, const char *path, struct err *err);
/* Then exactly size_bytes of data. */
int store_archive_writer_add_file(struct store_archive_writer *writer, const char *path, uint64_t size_bytes,
                                  struct err *err);
int store_archive_writer_add_data(struct store_archive_writer *writer, const void *data, size_t len_bytes,
                                  struct err *err);
/* Write the end mark. Without it the archive is truncated. */
int store_archive_writer_finish(struct store_archive_writer *writer, struct err *err);
void store_archive_writer_free(struct store_archive_writer *writer);
