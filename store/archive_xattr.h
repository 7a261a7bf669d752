/*
 * Extended attributes and POSIX ACLs as archives carry them. Inside store only.
 *
 * Kept are the user's own (user.*), file capabilities (security.capability) and the two kinds of POSIX ACL, which the
 * kernel shows as binary attributes; of overlayfs's bookkeeping nothing is ever taken from or given to an archive
 * under its own name, since "trusted.overlay.redirect" from a stranger would be a path.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"
#include "node/base/scope.h"
#include "store/archive.h"
#include "store/archive_tar.h"

#define STORE_XATTR_ACL_ACCESS "system.posix_acl_access"
#define STORE_XATTR_ACL_DEFAULT "system.posix_acl_default"
#define STORE_XATTR_CAPABILITY "security.capability"

/* An ACL in the kernel's form (include/uapi/linux/posix_acl_xattr.h, posix_acl.h): version 2, then little-endian
 * {u16 tag, u16 permissions, u32 id}, in the order of the tags. */
#define STORE_ACL_ENTRY_BYTES 8
enum store_acl_tag {
    STORE_ACL_USER_OBJ = 0x01,
    STORE_ACL_USER = 0x02,
    STORE_ACL_GROUP_OBJ = 0x04,
    STORE_ACL_GROUP = 0x08,
    STORE_ACL_MASK = 0x10,
    STORE_ACL_OTHER = 0x20,
};
struct store_acl_entry {
    uint16_t tag;
    uint16_t permissions;
    uint32_t id; /* of users and groups */
};
/* Sorts the entries. Allocated; NULL when out of memory. */
uint8_t *store_acl_encode(struct store_acl_entry *entries, size_t count, size_t *ret_len);

/* The attributes of one file. */
struct store_xattrs {
    struct store_tar_xattr *items; /* owned; sorted by name; point into `bytes` */
    size_t count;
    uint8_t *bytes; /* owned */
    size_t total_bytes;
};
void store_xattrs_release(struct store_xattrs *xattrs);

/* What of an open file or directory an archive keeps. ERR_LIMIT beyond
 * LIMIT_ARCHIVE_XATTR_BYTES. */
int store_xattrs_load(int fd, bool overlay, struct store_xattrs *ret_xattrs, struct err *err);
/* A copy of what a header carries, under the names that it has on disk: what is kept of it, the rest counted as
 * dropped. */
int store_xattrs_copy(const struct store_tar_item *item, const struct store_archive_unpack_options *options,
                      struct store_xattrs *ret_xattrs, struct store_archive_stats *stats, struct err *err);
/* Give an open file or directory these attributes, and of the kinds that archives keep no other. */
int store_xattrs_apply(int fd, const struct store_xattrs *xattrs, bool overlay, struct store_archive_stats *stats,
                       struct err *err);

/* ---- overlayfs (Documentation/filesystems/overlayfs.rst) ---- */

/* ERR_UNSUPPORTED for a directory that overlayfs has redirected, or a file that it has copied up without its content.
 */
int store_overlay_check(int fd, struct err *err);
/* Does it hide what lower layers have in its place? */
bool store_overlay_is_opaque(int dir_fd);
/* trusted.overlay.opaque, or user.overlay.opaque for ordinary users (mount option userxattr). */
int store_overlay_set_opaque(int dir_fd, bool opaque, struct err *err);
