#include "store/archive_xattr.h"

#include <endian.h>
#include <errno.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "node/base/limits.h"
#include "node/base/log.h"

#define LIST_MAX_BYTES 65536 /* XATTR_LIST_MAX of the kernel */

static bool is_kept(const char *name, bool overlay)
{
    if (strncmp(name, "user.", 5) == 0)
        return !(overlay && strncmp(name, "user.overlay.", 13) == 0);
    return strcmp(name, STORE_XATTR_CAPABILITY) == 0 || strcmp(name, STORE_XATTR_ACL_ACCESS) == 0 ||
           strcmp(name, STORE_XATTR_ACL_DEFAULT) == 0;
}

static int decode_hex(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

/* In pax "SCHILY.xattr.NAME=VALUE", GNU tar writes what would end the name as %3D and %25, and libarchive every byte
 * that is not printable ASCII in that way. libarchive does not undo it. False for what is longer than a name can be. */
static bool decode_name(const char *text, char name[XATTR_NAME_MAX + 1])
{
    size_t used = 0;
    while (*text && used < XATTR_NAME_MAX) {
        uint8_t byte = (uint8_t)*text;
        bool encoded = text[0] == '%' && decode_hex(text[1]) >= 0 && decode_hex(text[2]) >= 0;
        if (encoded)
            byte = (uint8_t)(decode_hex(text[1]) << 4 | decode_hex(text[2]));
        name[used++] = (char)byte;
        text += encoded ? 3 : 1;
    }
    name[used] = '\0';
    return *text == '\0' && strlen(name) == used;
}

void store_xattrs_release(struct store_xattrs *xattrs)
{
    free(xattrs->items);
    free(xattrs->bytes);
    *xattrs = (struct store_xattrs){0};
}

static int compare_names(const void *a, const void *b)
{
    const struct store_tar_xattr *left = a, *right = b;
    return strcmp(left->name, right->name);
}

/* ---- ACLs ---- */

static int compare_acl_entries(const void *a, const void *b)
{
    const struct store_acl_entry *left = a, *right = b;
    if (left->tag != right->tag)
        return left->tag < right->tag ? -1 : 1;
    return left->id < right->id ? -1 : left->id > right->id;
}

uint8_t *store_acl_encode(struct store_acl_entry *entries, size_t count, size_t *ret_len)
{
    uint8_t *bytes = malloc(4 + count * STORE_ACL_ENTRY_BYTES);
    if (!bytes)
        return NULL;
    qsort(entries, count, sizeof *entries, compare_acl_entries);
    uint32_t version = htole32(2);
    memcpy(bytes, &version, 4);
    for (size_t i = 0; i < count; i++) {
        bool named = entries[i].tag == STORE_ACL_USER || entries[i].tag == STORE_ACL_GROUP;
        uint16_t tag = htole16(entries[i].tag), permissions = htole16(entries[i].permissions);
        uint32_t id = htole32(named ? entries[i].id : UINT32_MAX);
        uint8_t *at = bytes + 4 + i * STORE_ACL_ENTRY_BYTES;
        memcpy(at, &tag, 2);
        memcpy(at + 2, &permissions, 2);
        memcpy(at + 4, &id, 4);
    }
    *ret_len = 4 + count * STORE_ACL_ENTRY_BYTES;
    return bytes;
}

/* ---- lists ---- */

/* The names of an open file's attributes, each with its NUL. 0 also where the file system has none. */
static int list_names(int fd, char names[LIST_MAX_BYTES], size_t *ret_len, struct err *err)
{
    ssize_t len = flistxattr(fd, names, LIST_MAX_BYTES);
    if (len < 0 && errno != ENOTSUP)
        return err_errno(err, errno, "cannot list extended attributes");
    *ret_len = len < 0 ? 0 : (size_t)len;
    return 0;
}

static int append(struct store_xattrs *xattrs, const char *name, const void *value, size_t len_bytes, struct err *err)
{
    size_t name_size = strlen(name) + 1;
    if (xattrs->count == LIMIT_ARCHIVE_XATTRS || len_bytes > LIMIT_ARCHIVE_XATTR_BYTES ||
        xattrs->total_bytes + name_size + len_bytes > LIMIT_ARCHIVE_XATTR_BYTES)
        return err_set(err, ERR_LIMIT, "more than %d bytes of extended attributes", LIMIT_ARCHIVE_XATTR_BYTES);
    if (!xattrs->bytes) { /* of full size at once, so that pointers into it stay; cut by shrink */
        xattrs->bytes = malloc(LIMIT_ARCHIVE_XATTR_BYTES);
        xattrs->items = calloc(LIMIT_ARCHIVE_XATTRS, sizeof *xattrs->items);
        if (!xattrs->bytes || !xattrs->items)
            return err_set(err, ERR_NOMEM, "no memory for extended attributes");
    }
    uint8_t *at = xattrs->bytes + xattrs->total_bytes;
    memcpy(at, name, name_size);
    memcpy(at + name_size, value, len_bytes);
    xattrs->items[xattrs->count++] = (struct store_tar_xattr){(const char *)at, at + name_size, len_bytes};
    xattrs->total_bytes += name_size + len_bytes;
    return 0;
}

/* Sorted and in no more memory than they need: those of directories are kept until the end of an archive. */
static int settle(struct store_xattrs *xattrs, struct err *err)
{
    if (xattrs->count == 0) {
        store_xattrs_release(xattrs);
        return 0;
    }
    uint8_t *bytes = malloc(xattrs->total_bytes);
    struct store_tar_xattr *items = calloc(xattrs->count, sizeof *items);
    if (!bytes || !items) {
        free(bytes);
        free(items);
        return err_set(err, ERR_NOMEM, "no memory for extended attributes");
    }
    memcpy(bytes, xattrs->bytes, xattrs->total_bytes);
    for (size_t i = 0; i < xattrs->count; i++) {
        const struct store_tar_xattr *old = &xattrs->items[i];
        items[i].name = (const char *)bytes + (old->name - (const char *)xattrs->bytes);
        items[i].value = bytes + ((const uint8_t *)old->value - xattrs->bytes);
        items[i].len_bytes = old->len_bytes;
    }
    qsort(items, xattrs->count, sizeof *items, compare_names);
    free(xattrs->bytes);
    free(xattrs->items);
    xattrs->bytes = bytes;
    xattrs->items = items;
    return 0;
}

int store_xattrs_load(int fd, bool overlay, struct store_xattrs *ret_xattrs, struct err *err)
{
    char names[LIST_MAX_BYTES];
    uint8_t value[LIMIT_ARCHIVE_XATTR_BYTES];
    size_t names_len = 0;
    OWNED(store_xattrs_release) struct store_xattrs xattrs = {0};
    int status = list_names(fd, names, &names_len, err);
    for (size_t at = 0; status == 0 && at < names_len; at += strlen(names + at) + 1) {
        const char *name = names + at;
        if (!is_kept(name, overlay))
            continue;
        ssize_t len = fgetxattr(fd, name, value, sizeof value);
        if (len < 0 && (errno == ENODATA || errno == ENOTSUP))
            continue;
        if (len < 0)
            return err_errno(err, errno, "cannot read an extended attribute");
        status = append(&xattrs, name, value, (size_t)len, err);
    }
    if (status == 0)
        status = settle(&xattrs, err);
    if (status < 0)
        return status;
    *ret_xattrs = xattrs;
    xattrs = (struct store_xattrs){0};
    return 0;
}

int store_xattrs_copy(const struct store_tar_item *item, const struct store_archive_unpack_options *options,
                      struct store_xattrs *ret_xattrs, struct store_archive_stats *stats, struct err *err)
{
    OWNED(store_xattrs_release) struct store_xattrs xattrs = {0};
    int status = 0;
    for (size_t i = 0; status == 0 && i < item->xattr_count; i++) {
        const struct store_tar_xattr *one = &item->xattrs[i];
        char name[XATTR_NAME_MAX + 1];
        if (!decode_name(one->name, name) || !is_kept(name, options->overlay))
            stats->xattrs_dropped++;
        else if (strcmp(name, STORE_XATTR_CAPABILITY) == 0 && !options->privileges)
            stats->privileges_dropped++;
        else
            status = append(&xattrs, name, one->value, one->len_bytes, err);
    }
    if (status == 0)
        status = settle(&xattrs, err);
    if (status < 0)
        return status;
    *ret_xattrs = xattrs;
    xattrs = (struct store_xattrs){0};
    return 0;
}

static const struct store_tar_xattr *find(const struct store_xattrs *xattrs, const char *name)
{
    struct store_tar_xattr key = {.name = name};
    return xattrs->count ? bsearch(&key, xattrs->items, xattrs->count, sizeof key, compare_names) : NULL;
}

static int remove_others(int fd, const struct store_xattrs *xattrs, bool overlay, struct err *err)
{
    char names[LIST_MAX_BYTES];
    size_t names_len = 0;
    int status = list_names(fd, names, &names_len, err);
    if (status < 0)
        return status;
    for (size_t at = 0; at < names_len; at += strlen(names + at) + 1)
        if (is_kept(names + at, overlay) && !find(xattrs, names + at) && fremovexattr(fd, names + at) < 0 &&
            errno != ENODATA)
            return err_errno(err, errno, "cannot remove an extended attribute");
    return 0;
}

int store_xattrs_apply(int fd, const struct store_xattrs *xattrs, bool overlay, struct store_archive_stats *stats,
                       struct err *err)
{
    int status = remove_others(fd, xattrs, overlay, err);
    if (status < 0)
        return status;
    for (size_t i = 0; i < xattrs->count; i++) {
        const struct store_tar_xattr *one = &xattrs->items[i];
        if (fsetxattr(fd, one->name, one->value, one->len_bytes, 0) == 0)
            continue;
        /* Not of this file system, not for this user, not in this form: the file is whole without it. */
        if (errno == ENOTSUP || errno == EPERM || errno == EACCES || errno == EINVAL || errno == ERANGE) {
            stats->xattrs_dropped++;
            continue;
        }
        char text[80];
        return err_errno(err, errno, "cannot set extended attribute '%s'",
                         log_text(one->name, strlen(one->name), text, sizeof text));
    }
    return 0;
}

/* ---- overlayfs ---- */

static bool has(int fd, const char *name)
{
    return fgetxattr(fd, name, NULL, 0) >= 0;
}

static bool is_yes(int fd, const char *name)
{
    char value = 0;
    return fgetxattr(fd, name, &value, 1) == 1 && value == 'y';
}

int store_overlay_check(int fd, struct err *err)
{
    if (has(fd, "trusted.overlay.redirect") || has(fd, "user.overlay.redirect"))
        return err_set(err, ERR_UNSUPPORTED, "a directory was renamed by overlayfs: mount with redirect_dir=off");
    if (has(fd, "trusted.overlay.metacopy") || has(fd, "user.overlay.metacopy"))
        return err_set(err, ERR_UNSUPPORTED, "a file was copied up without its content: mount with metacopy=off");
    return 0;
}

bool store_overlay_is_opaque(int dir_fd)
{
    return is_yes(dir_fd, "trusted.overlay.opaque") || is_yes(dir_fd, "user.overlay.opaque");
}

int store_overlay_set_opaque(int dir_fd, bool opaque, struct err *err)
{
    const char *name = geteuid() == 0 ? "trusted.overlay.opaque" : "user.overlay.opaque";
    if (opaque && fsetxattr(dir_fd, name, "y", 1, 0) < 0)
        return err_errno(err, errno, "cannot make a directory opaque");
    if (!opaque && fremovexattr(dir_fd, name) < 0 && errno != ENODATA && errno != ENOTSUP)
        return err_errno(err, errno, "cannot make a directory not opaque");
    return 0;
}
