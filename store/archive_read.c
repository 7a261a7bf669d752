#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "store/archive_tar.h"
#include "store/archive_xattr.h"

#define READ_BYTES (64u << 10)
#define RATIO_FREE_BYTES (64u << 20) /* a layer of zeros packs well and does no harm up to here */

static void leave_locale(locale_t *before)
{
    uselocale(*before);
}

static int archive_failed(struct archive *archive, const char *what, struct err *err)
{
    if (archive_errno(archive) == ENOMEM)
        return err_set(err, ERR_NOMEM, "no memory to read an archive");
    const char *reason = archive_error_string(archive);
    char text[200];
    return err_set(err, ERR_CORRUPT, "%s is damaged: %s", what,
                   reason ? log_text(reason, strlen(reason), text, sizeof text) : "no reason given");
}

/* ---- a byte stream that remembers where its last byte other than zero was: padding is zeros, garbage is not ---- */

struct tally {
    uint64_t total;
    uint64_t nonzero_end; /* offset behind the last byte that is not zero */
};

static void tally_add(struct tally *tally, const uint8_t *data, size_t len_bytes)
{
    size_t end = len_bytes;
    while (end > 0 && data[end - 1] == 0)
        end--;
    if (end > 0)
        tally->nonzero_end = tally->total + end;
    tally->total += len_bytes;
}

/* ---- the outer layer: what the caller gives us, without its compression ---- */

struct plain {
    store_archive_read_cb read_cb;
    void *ctx;
    struct store_tar_limits limits;
    struct archive *filter; /* owned; libarchive's "raw" format over one filter; NULL: nothing to undo */
    struct err *err;        /* of the call that is running */
    int status;             /* of the callback: negative once it failed */
    struct tally packed;
    struct tally out;
    size_t head_len; /* bytes in `in` that were read to look at them and not given out yet */
    uint8_t in[READ_BYTES];
};

/* 1 and bytes in plain->in, 0 at the end. */
static int fill(struct plain *plain, size_t *ret_len)
{
    if (plain->head_len > 0) {
        *ret_len = plain->head_len;
        plain->head_len = 0;
        return 1;
    }
    ssize_t got = plain->read_cb(plain->ctx, plain->in, sizeof plain->in, plain->err);
    if (got < 0)
        plain->status = (int)got;
    if (got <= 0)
        return (int)got;
    tally_add(&plain->packed, plain->in, (size_t)got);
    *ret_len = (size_t)got;
    return 1;
}

static la_ssize_t feed_filter(struct archive *archive, void *ctx, const void **ret_data)
{
    struct plain *plain = ctx;
    size_t len = 0;
    (void)archive;
    *ret_data = plain->in;
    int status = fill(plain, &len);
    return status < 0 ? -1 : (la_ssize_t)len;
}

static int look_at_head(struct plain *plain)
{
    while (plain->head_len < 4) {
        ssize_t got =
            plain->read_cb(plain->ctx, plain->in + plain->head_len, sizeof plain->in - plain->head_len, plain->err);
        if (got < 0)
            return (int)got;
        if (got == 0)
            break;
        tally_add(&plain->packed, plain->in + plain->head_len, (size_t)got);
        plain->head_len += (size_t)got;
    }
    return 0;
}

/* Exactly one filter, chosen by us: libarchive's own choice would undo up to 25 of them, one inside the other. */
static int open_filter(struct plain *plain, int code, struct err *err)
{
    plain->filter = archive_read_new();
    if (!plain->filter)
        return err_set(err, ERR_NOMEM, "no memory to read an archive");
    struct archive_entry *entry;
    if (archive_read_support_format_raw(plain->filter) != ARCHIVE_OK ||
        archive_read_support_format_empty(plain->filter) != ARCHIVE_OK ||
        archive_read_append_filter(plain->filter, code) != ARCHIVE_OK ||
        archive_read_open(plain->filter, plain, NULL, feed_filter, NULL) != ARCHIVE_OK ||
        archive_read_next_header(plain->filter, &entry) < ARCHIVE_WARN)
        return plain->status < 0 ? plain->status : archive_failed(plain->filter, "compressed data", err);
    return 0;
}

static int plain_open(struct plain *plain, store_archive_read_cb read_cb, void *ctx,
                      const struct store_tar_limits *limits, struct err *err)
{
    static const uint8_t gzip[] = {0x1f, 0x8b, 0x08};       /* RFC 1952, section 2.3.1, deflate */
    static const uint8_t zstd[] = {0x28, 0xb5, 0x2f, 0xfd}; /* RFC 8878, section 3.1.1 */
    plain->read_cb = read_cb;
    plain->ctx = ctx;
    plain->limits = *limits;
    plain->err = err;
    int status = look_at_head(plain);
    if (status < 0)
        return status;
    if (plain->head_len >= sizeof gzip && memcmp(plain->in, gzip, sizeof gzip) == 0)
        return open_filter(plain, ARCHIVE_FILTER_GZIP, err);
    if (plain->head_len >= sizeof zstd && memcmp(plain->in, zstd, sizeof zstd) == 0)
        return open_filter(plain, ARCHIVE_FILTER_ZSTD, err);
    return 0;
}

static void plain_close(struct plain *plain)
{
    if (plain->filter)
        archive_read_free(plain->filter);
}

/* The compressed stream has ended: nothing but padding may follow it. */
static int expect_padding(struct plain *plain, struct err *err)
{
    uint64_t consumed = (uint64_t)archive_filter_bytes(plain->filter, -1);
    for (;;) {
        if (plain->packed.nonzero_end > consumed)
            return err_set(err, ERR_CORRUPT, "there are bytes after the end of the compressed data");
        size_t len;
        int status = fill(plain, &len);
        if (status <= 0)
            return status;
    }
}

static int check_budget(const struct plain *plain, struct err *err)
{
    uint64_t out = plain->out.total;
    if (out > plain->limits.max_bytes)
        return err_set(err, ERR_LIMIT, "the archive is larger than %llu bytes",
                       (unsigned long long)plain->limits.max_bytes);
    if (plain->filter && out > RATIO_FREE_BYTES && out / plain->limits.max_ratio > plain->packed.total)
        return err_set(err, ERR_LIMIT, "the archive expands to more than %llu times its size",
                       (unsigned long long)plain->limits.max_ratio);
    return 0;
}

/* 1 and borrowed bytes, 0 at the end. */
static int plain_read(struct plain *plain, const void **ret_data, size_t *ret_len, struct err *err)
{
    plain->err = err;
    if (plain->filter) {
        la_int64_t offset;
        int status = archive_read_data_block(plain->filter, ret_data, ret_len, &offset);
        if (status == ARCHIVE_EOF)
            return expect_padding(plain, err);
        if (status != ARCHIVE_OK)
            return plain->status < 0 ? plain->status : archive_failed(plain->filter, "compressed data", err);
    } else {
        int status = fill(plain, ret_len);
        if (status <= 0)
            return status;
        *ret_data = plain->in;
    }
    tally_add(&plain->out, *ret_data, *ret_len);
    int status = check_budget(plain, err);
    return status < 0 ? status : 1;
}

int store_archive_expand(store_archive_read_cb read_cb, void *read_ctx, store_archive_write_cb write_cb,
                         void *write_ctx, uint64_t max_bytes, struct err *err)
{
    OWNED(owned_free) struct plain *plain = calloc(1, sizeof *plain);
    if (!plain)
        return err_set(err, ERR_NOMEM, "no memory to read an archive");
    struct store_tar_limits limits = {.max_bytes = max_bytes, .max_ratio = LIMIT_ARCHIVE_RATIO};
    int status = plain_open(plain, read_cb, read_ctx, &limits, err);
    while (status == 0) {
        const void *data;
        size_t len;
        int got = plain_read(plain, &data, &len, err);
        if (got <= 0) {
            status = got;
            break;
        }
        status = write_cb(write_ctx, data, len, err);
    }
    plain_close(plain);
    return status;
}

/* ---- the inner layer: tar ---- */

struct store_tar_reader {
    struct plain plain;
    struct archive *archive;     /* owned */
    struct archive_entry *entry; /* libarchive's, until the next header */
    locale_t c_locale;           /* static in libc, nothing to free */
    uint64_t step_bytes;         /* asked for by the libarchive call that is running */
    int status;                  /* of reading plain bytes: negative once it failed */
    uint64_t entries;
    bool in_data;
    struct store_tar_xattr *xattrs; /* owned; point into the entry, or into the ACLs below */
    size_t xattr_cap;
    uint8_t *acls[2]; /* owned; access and default, as the kernel has them */
};

/* A single call that wants megabytes is reading headers or a sparse map that nobody needs: they all stay in memory. */
static la_ssize_t feed_tar(struct archive *archive, void *ctx, const void **ret_data)
{
    struct store_tar_reader *reader = ctx;
    size_t len = 0;
    (void)archive;
    int status = plain_read(&reader->plain, ret_data, &len, reader->plain.err);
    reader->step_bytes += len;
    if (status > 0 && reader->step_bytes > LIMIT_ARCHIVE_STEP_BYTES)
        status = err_set(reader->plain.err, ERR_LIMIT, "an archive header is larger than %u bytes",
                         LIMIT_ARCHIVE_STEP_BYTES);
    if (status < 0)
        reader->status = status;
    return status < 0 ? -1 : (la_ssize_t)len;
}

static void begin_step(struct store_tar_reader *reader, struct err *err)
{
    reader->plain.err = err;
    reader->step_bytes = 0;
}

static int tar_failed(struct store_tar_reader *reader, struct err *err)
{
    if (reader->status < 0)
        return reader->status;
    if (reader->entries == 0 && archive_format(reader->archive) == 0 && archive_errno(reader->archive) != ENOMEM)
        return err_set(err, ERR_UNSUPPORTED, "unsupported format: not a tar archive, plain or in gzip or zstd");
    return archive_failed(reader->archive, "the archive", err);
}

int store_tar_reader_new(store_archive_read_cb read_cb, void *ctx, const struct store_tar_limits *limits,
                         struct store_tar_reader **ret_reader, struct err *err)
{
    OWNED(owned_tar_reader) struct store_tar_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return err_set(err, ERR_NOMEM, "no memory to read an archive");
    int status = plain_open(&reader->plain, read_cb, ctx, limits, err);
    if (status < 0)
        return status;
    reader->c_locale = newlocale(LC_ALL_MASK, "C", NULL);
    reader->archive = archive_read_new();
    if (!reader->archive || !reader->c_locale)
        return err_set(err, ERR_NOMEM, "no memory to read an archive");
    begin_step(reader, err);
    if (archive_read_support_format_tar(reader->archive) != ARCHIVE_OK ||
        archive_read_open(reader->archive, reader, NULL, feed_tar, NULL) != ARCHIVE_OK)
        return tar_failed(reader, err);
    *ret_reader = STEAL(reader);
    return 0;
}

void store_tar_reader_free(struct store_tar_reader *reader)
{
    if (!reader)
        return;
    if (reader->archive)
        archive_read_free(reader->archive);
    plain_close(&reader->plain);
    free(reader->xattrs);
    free(reader->acls[0]);
    free(reader->acls[1]);
    free(reader);
}

int store_tar_reader_data(struct store_tar_reader *reader, const void **ret_data, size_t *ret_len, uint64_t *ret_offset,
                          struct err *err)
{
    la_int64_t offset = 0;
    if (!reader->in_data)
        return 0;
    begin_step(reader, err);
    int status = archive_read_data_block(reader->archive, ret_data, ret_len, &offset);
    if (status == ARCHIVE_EOF) {
        reader->in_data = false;
        return 0;
    }
    if (status != ARCHIVE_OK)
        return tar_failed(reader, err);
    if (offset < 0)
        return err_set(err, ERR_CORRUPT, "the archive is damaged: data at a negative offset");
    *ret_offset = (uint64_t)offset;
    return 1;
}

static int pass_over_data(struct store_tar_reader *reader, struct err *err)
{
    const void *data;
    size_t len;
    uint64_t offset;
    int status;
    do
        status = store_tar_reader_data(reader, &data, &len, &offset, err);
    while (status > 0);
    return status;
}

/* libarchive takes a missing end mark for an end, and stops looking at the first one. */
static int finish(struct store_tar_reader *reader, uint64_t last_end, struct err *err)
{
    uint64_t end = (uint64_t)archive_filter_bytes(reader->archive, 0);
    if (end < last_end + 512)
        return err_set(err, ERR_CORRUPT, "the archive is truncated: it has no end mark");
    for (;;) {
        if (reader->plain.out.nonzero_end > end)
            return err_set(err, ERR_CORRUPT, "there are bytes after the end of the archive");
        const void *data;
        size_t len;
        int status = plain_read(&reader->plain, &data, &len, err);
        if (status <= 0)
            return status;
    }
}

/* ---- one header of libarchive's as one of ours ---- */

static int add_xattr(struct store_tar_reader *reader, struct store_tar_item *item, const char *name, const void *value,
                     size_t len_bytes, struct err *err)
{
    if (item->xattr_count == LIMIT_ARCHIVE_XATTRS)
        return err_set(err, ERR_LIMIT, "an entry has more than %d extended attributes", LIMIT_ARCHIVE_XATTRS);
    if (item->xattr_count == reader->xattr_cap) {
        size_t cap = reader->xattr_cap ? 2 * reader->xattr_cap : 16;
        struct store_tar_xattr *more = realloc(reader->xattrs, cap * sizeof *more);
        if (!more)
            return err_set(err, ERR_NOMEM, "no memory for extended attributes");
        reader->xattrs = more;
        reader->xattr_cap = cap;
    }
    reader->xattrs[item->xattr_count++] = (struct store_tar_xattr){name, value, len_bytes};
    return 0;
}

static uint16_t acl_tag(int tag)
{
    switch (tag) {
    case ARCHIVE_ENTRY_ACL_USER_OBJ:
        return STORE_ACL_USER_OBJ;
    case ARCHIVE_ENTRY_ACL_USER:
        return STORE_ACL_USER;
    case ARCHIVE_ENTRY_ACL_GROUP_OBJ:
        return STORE_ACL_GROUP_OBJ;
    case ARCHIVE_ENTRY_ACL_GROUP:
        return STORE_ACL_GROUP;
    case ARCHIVE_ENTRY_ACL_MASK:
        return STORE_ACL_MASK;
    default:
        return STORE_ACL_OTHER;
    }
}

/* What star and GNU tar write as text (SCHILY.acl.access, .default), in the kernel's form. */
static int take_acl(struct store_tar_reader *reader, struct store_tar_item *item, unsigned which, int type,
                    const char *name, struct err *err)
{
    free(reader->acls[which]);
    reader->acls[which] = NULL;
    int count = archive_entry_acl_reset(reader->entry, type);
    if (count <= 0)
        return 0;
    if (count > LIMIT_ARCHIVE_XATTR_BYTES / STORE_ACL_ENTRY_BYTES - 1)
        return err_set(err, ERR_LIMIT, "an access control list has %d entries", count);
    OWNED(owned_free) struct store_acl_entry *entries = calloc((size_t)count, sizeof *entries);
    if (!entries)
        return err_set(err, ERR_NOMEM, "no memory for an access control list");
    size_t used = 0;
    int entry_type, permset, tag, id;
    const char *entry_name;
    while (used < (size_t)count &&
           archive_entry_acl_next(reader->entry, type, &entry_type, &permset, &tag, &id, &entry_name) == ARCHIVE_OK)
        entries[used++] = (struct store_acl_entry){acl_tag(tag), (uint16_t)(permset & 7), (uint32_t)id};
    size_t len;
    reader->acls[which] = store_acl_encode(entries, used, &len);
    if (!reader->acls[which])
        return err_set(err, ERR_NOMEM, "no memory for an access control list");
    return add_xattr(reader, item, name, reader->acls[which], len, err);
}

static bool has_xattr(const struct store_tar_reader *reader, const struct store_tar_item *item, const char *name)
{
    for (size_t i = 0; i < item->xattr_count; i++)
        if (strcmp(reader->xattrs[i].name, name) == 0)
            return true;
    return false;
}

static int take_xattrs(struct store_tar_reader *reader, struct store_tar_item *item, struct err *err)
{
    int status = 0;
    const char *name;
    const void *value;
    size_t len;
    archive_entry_xattr_reset(reader->entry);
    while (status == 0 && archive_entry_xattr_next(reader->entry, &name, &value, &len) == ARCHIVE_OK)
        if (name && !has_xattr(reader, item, name)) /* of two with one name, libarchive gives the later first */
            status = add_xattr(reader, item, name, value, len, err);
    if (status == 0 && !has_xattr(reader, item, STORE_XATTR_ACL_ACCESS))
        status = take_acl(reader, item, 0, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, STORE_XATTR_ACL_ACCESS, err);
    if (status == 0 && !has_xattr(reader, item, STORE_XATTR_ACL_DEFAULT))
        status = take_acl(reader, item, 1, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, STORE_XATTR_ACL_DEFAULT, err);
    item->xattrs = reader->xattrs;
    return status;
}

static int take_item(struct store_tar_reader *reader, struct store_tar_item *item, struct err *err)
{
    struct archive_entry *entry = reader->entry;
    const char *path = archive_entry_pathname(entry);
    const char *hard_link = archive_entry_hardlink(entry);
    la_int64_t size = archive_entry_size(entry);
    if (!path)
        return err_set(err, ERR_CORRUPT, "the archive is damaged: an entry has no name");
    if (size < 0)
        return err_set(err, ERR_CORRUPT, "the archive is damaged: an entry has a negative size");
    *item = (struct store_tar_item){
        .path = path,
        .link = hard_link ? hard_link : archive_entry_symlink(entry),
        .hard_link = hard_link != NULL,
        .mode = archive_entry_mode(entry),
        .uid = archive_entry_uid(entry),
        .gid = archive_entry_gid(entry),
        .mtime = {.tv_sec = archive_entry_mtime(entry), .tv_nsec = archive_entry_mtime_nsec(entry)},
        .rdev = makedev((unsigned)archive_entry_rdevmajor(entry), (unsigned)archive_entry_rdevminor(entry)),
        .size_bytes = (uint64_t)size,
    };
    return take_xattrs(reader, item, err);
}

/* A name that is not ASCII cannot be had in the "C" locale, libarchive says then, and gives its bytes. Every other
 * warning means that it has dropped something. */
static bool is_harmless(struct archive *archive)
{
    const char *reason = archive_error_string(archive);
    return reason && strstr(reason, "can't be converted from");
}

int store_tar_reader_next(struct store_tar_reader *reader, struct store_tar_item *ret_item, struct err *err)
{
    OWNED(leave_locale) __attribute__((unused)) locale_t before = uselocale(reader->c_locale);
    int status = pass_over_data(reader, err);
    if (status < 0)
        return status;
    uint64_t last_end = (uint64_t)archive_filter_bytes(reader->archive, 0);
    begin_step(reader, err);
    status = archive_read_next_header(reader->archive, &reader->entry);
    if (status == ARCHIVE_EOF)
        return finish(reader, last_end, err);
    if (status != ARCHIVE_OK && !(status == ARCHIVE_WARN && is_harmless(reader->archive)))
        return tar_failed(reader, err);
    reader->entries++;
    reader->in_data = true;
    status = take_item(reader, ret_item, err);
    return status < 0 ? status : 1;
}
