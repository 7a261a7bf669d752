#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "node/base/log.h"
#include "store/archive_tar.h"

#define BLOCK_BYTES (64u << 10)

struct store_archive_writer {
    struct archive *archive;     /* owned */
    struct archive_entry *entry; /* owned, used again for each header */
    store_archive_write_cb write_cb;
    void *ctx;
    locale_t c_locale; /* static in libc, nothing to free */
    struct err *err;   /* of the call that is running */
    int status;        /* of the callback: negative once it failed */
    uint64_t at;       /* offset in the present file */
};

static const uint8_t zeros[BLOCK_BYTES];

static void leave_locale(locale_t *before)
{
    uselocale(*before);
}

static la_ssize_t pass_on(struct archive *archive, void *ctx, const void *data, size_t len_bytes)
{
    struct store_archive_writer *writer = ctx;
    (void)archive;
    if (writer->status == 0)
        writer->status = writer->write_cb(writer->ctx, data, len_bytes, writer->err);
    return writer->status < 0 ? -1 : (la_ssize_t)len_bytes;
}

static int failed(struct store_archive_writer *writer, const char *what, struct err *err)
{
    if (writer->status < 0)
        return writer->status;
    if (archive_errno(writer->archive) == ENOMEM)
        return err_set(err, ERR_NOMEM, "no memory to write an archive");
    const char *reason = archive_error_string(writer->archive);
    char text[200];
    return err_set(err, ERR_INTERNAL, "cannot write %s to an archive: %s", what,
                   reason ? log_text(reason, strlen(reason), text, sizeof text) : "no reason given");
}

/* libarchive's defaults would write each extended attribute twice, in its own form too. */
static int configure(struct archive *archive, struct store_archive_writer *writer)
{
    if (archive_write_set_format_pax(archive) != ARCHIVE_OK || archive_write_add_filter_none(archive) != ARCHIVE_OK ||
        archive_write_set_format_option(archive, "pax", "xattrheader", "SCHILY") != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(archive, BLOCK_BYTES) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(archive, 1) != ARCHIVE_OK)
        return -1;
    return archive_write_open(archive, writer, NULL, pass_on, NULL) == ARCHIVE_OK ? 0 : -1;
}

int store_archive_writer_new(store_archive_write_cb write_cb, void *ctx, struct store_archive_writer **ret_writer,
                             struct err *err)
{
    OWNED(owned_tar_writer) struct store_archive_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return err_set(err, ERR_NOMEM, "no memory for an archive writer");
    writer->write_cb = write_cb;
    writer->ctx = ctx;
    writer->c_locale = newlocale(LC_ALL_MASK, "C", NULL);
    writer->archive = archive_write_new();
    writer->entry = archive_entry_new();
    if (!writer->archive || !writer->entry || !writer->c_locale)
        return err_set(err, ERR_NOMEM, "no memory for an archive writer");
    if (configure(writer->archive, writer) < 0)
        return failed(writer, "a beginning", err);
    *ret_writer = STEAL(writer);
    return 0;
}

void store_archive_writer_free(struct store_archive_writer *writer)
{
    if (!writer)
        return;
    /* Freeing closes, and closing writes an end mark that an abandoned archive must not get. archive_write_fail would
     * prevent that too, and leak. */
    if (writer->status == 0)
        writer->status = ERR_CANCELLED;
    if (writer->archive)
        archive_write_free(writer->archive);
    archive_entry_free(writer->entry);
    free(writer);
}

static void fill_entry(struct archive_entry *entry, const struct store_tar_item *item)
{
    archive_entry_clear(entry);
    archive_entry_copy_pathname(entry, item->path);
    archive_entry_set_mode(entry, item->mode);
    archive_entry_set_uid(entry, item->uid);
    archive_entry_set_gid(entry, item->gid);
    archive_entry_set_mtime(entry, item->mtime.tv_sec, item->mtime.tv_nsec);
    archive_entry_set_size(entry, 0);
    if (item->hard_link) {
        archive_entry_copy_hardlink(entry, item->link);
        return;
    }
    if (S_ISLNK(item->mode))
        archive_entry_copy_symlink(entry, item->link);
    if (S_ISCHR(item->mode) || S_ISBLK(item->mode)) {
        archive_entry_set_rdevmajor(entry, major(item->rdev));
        archive_entry_set_rdevminor(entry, minor(item->rdev));
    }
    if (S_ISREG(item->mode))
        archive_entry_set_size(entry, (la_int64_t)item->size_bytes);
    for (size_t i = 0; i < item->extent_count; i++)
        archive_entry_sparse_add_entry(entry, (la_int64_t)item->extents[i].offset,
                                       (la_int64_t)item->extents[i].len_bytes);
    for (size_t i = 0; i < item->xattr_count; i++)
        archive_entry_xattr_add_entry(entry, item->xattrs[i].name, item->xattrs[i].value, item->xattrs[i].len_bytes);
}

int store_tar_writer_add(struct store_archive_writer *writer, const struct store_tar_item *item, struct err *err)
{
    OWNED(leave_locale) __attribute__((unused)) locale_t before = uselocale(writer->c_locale);
    writer->err = err;
    writer->at = 0;
    fill_entry(writer->entry, item);
    /* ARCHIVE_WARN: a name that is not ASCII was written as bytes, which is what we want. */
    if (archive_write_header(writer->archive, writer->entry) < ARCHIVE_WARN)
        return failed(writer, "a header", err);
    /* The map of holes goes out with the first data, and would be missing from a file that has none. */
    if (item->extent_count > 0 && archive_write_data(writer->archive, zeros, 0) < 0)
        return failed(writer, "a map of holes", err);
    return 0;
}

static int write_data(struct store_archive_writer *writer, const void *data, size_t len_bytes, struct err *err)
{
    la_ssize_t put = archive_write_data(writer->archive, data, len_bytes);
    if (put < 0)
        return failed(writer, "data", err);
    if ((size_t)put != len_bytes)
        return err_set(err, ERR_INTERNAL, "more data than the archive's header announced");
    writer->at += len_bytes;
    return 0;
}

int store_tar_writer_data(struct store_archive_writer *writer, uint64_t offset, const void *data, size_t len_bytes,
                          struct err *err)
{
    writer->err = err;
    while (writer->at < offset) { /* libarchive wants the bytes of holes too, and drops them */
        uint64_t gap = offset - writer->at;
        int status = write_data(writer, zeros, gap < sizeof zeros ? (size_t)gap : sizeof zeros, err);
        if (status < 0)
            return status;
    }
    return len_bytes > 0 ? write_data(writer, data, len_bytes, err) : 0;
}

int store_archive_writer_add_dir(struct store_archive_writer *writer, const char *path, struct err *err)
{
    return store_tar_writer_add(writer, &(struct store_tar_item){.path = path, .mode = S_IFDIR | 0755}, err);
}

int store_archive_writer_add_file(struct store_archive_writer *writer, const char *path, uint64_t size_bytes,
                                  struct err *err)
{
    struct store_tar_item item = {.path = path, .mode = S_IFREG | 0644, .size_bytes = size_bytes};
    return store_tar_writer_add(writer, &item, err);
}

int store_archive_writer_add_data(struct store_archive_writer *writer, const void *data, size_t len_bytes,
                                  struct err *err)
{
    return store_tar_writer_data(writer, writer->at, data, len_bytes, err);
}

int store_archive_writer_finish(struct store_archive_writer *writer, struct err *err)
{
    writer->err = err;
    return archive_write_close(writer->archive) == ARCHIVE_OK ? 0 : failed(writer, "the end", err);
}
