#include "node/image/source.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/limits.h"
#include "node/base/log.h"

/* ---- files inside a source ---- */

int image_source_open_file(const struct image_source *source, const char *path, int *ret_fd, uint64_t *ret_size,
                           struct err *err)
{
    struct stat st;
    char text[200];
    struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    OWNED(owned_fd) int fd = (int)syscall(SYS_openat2, source->dir_fd, path, &how, sizeof how);
    log_text(path, strlen(path), text, sizeof text);
    if (fd < 0)
        return errno == ENOENT ? err_set(err, ERR_INVALID, "the image has no '%s'", text)
                               : err_errno(err, errno, "cannot open '%s' of the image", text);
    if (fstat(fd, &st) < 0)
        return err_errno(err, errno, "cannot look at '%s'", text);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID, "'%s' is not a regular file", text);
    *ret_fd = steal_fd(&fd);
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

int image_source_read(const struct image_source *source, const char *path, struct buf *buf, struct err *err)
{
    OWNED(owned_fd) int fd = -1;
    uint64_t size;
    int status = image_source_open_file(source, path, &fd, &size, err);
    if (status < 0)
        return status;
    if (size > LIMIT_MANIFEST_BYTES)
        return err_set(err, ERR_LIMIT, "'%s' is larger than %u bytes", path, LIMIT_MANIFEST_BYTES);
    uint8_t *room = buf_reserve(buf, (size_t)size);
    if (!room)
        return err_set(err, ERR_NOMEM, "no memory for '%s'", path);
    status = file_pread_all(fd, room, (size_t)size, 0, path, err);
    if (status == 0)
        buf->len += (size_t)size;
    return status;
}

int image_source_check(const struct image_import_options *options, struct err *err)
{
    bool cancelled = options->is_cancelled && options->is_cancelled(options->ctx);
    return cancelled ? err_set(err, ERR_CANCELLED, "the import was cancelled") : 0;
}

ssize_t image_source_feed(void *ctx, void *ret_data, size_t room_bytes, struct err *err)
{
    struct image_source_feed *feed = ctx;
    int status = image_source_check(feed->options, err);
    if (status < 0)
        return status;
    for (;;) {
        ssize_t got = pread(feed->fd, ret_data, room_bytes, (off_t)feed->offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, errno, "cannot read the image");
        feed->offset += (uint64_t)got;
        return got;
    }
}

/* ---- what is it? ---- */

struct look {
    bool oci;    /* has the file "oci-layout" */
    bool docker; /* has the file "manifest.json" */
    bool other;  /* has something that neither of the two would have: a root file system */
};

/* docker-archive: <id>/layer.tar, <id>.json, <id>.tar, manifest.json, repositories, VERSION beside the id's layer.tar;
 * go-containerregistry (crane, ko) writes sha256:<id> and <id>.tar.gz. */
static bool is_docker_name(const char *top, size_t len)
{
    static const char *const ends[] = {"", ".json", ".tar", ".tar.gz"};
    char hex[ID_HEX_SIZE];
    struct id id;
    size_t prefix = strncmp(top, "sha256:", 7) == 0 ? 7 : 0;
    if (len < prefix + ID_HEX_SIZE - 1)
        return false;
    memcpy(hex, top + prefix, ID_HEX_SIZE - 1);
    hex[ID_HEX_SIZE - 1] = '\0';
    const char *rest = top + prefix + ID_HEX_SIZE - 1;
    size_t rest_len = len - prefix - (ID_HEX_SIZE - 1);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (strlen(ends[i]) == rest_len && memcmp(ends[i], rest, rest_len) == 0)
            return id_parse_hex(hex, &id);
    return false;
}

static int look_at_entry(void *ctx, const struct store_archive_entry *entry)
{
    struct look *look = ctx;
    static const char *const known[] = {"blobs", "index.json", "repositories", "."};
    size_t top = strcspn(entry->path, "/");
    look->oci |= strcmp(entry->path, "oci-layout") == 0;
    look->docker |= strcmp(entry->path, "manifest.json") == 0;
    if (strcmp(entry->path, "oci-layout") == 0 || strcmp(entry->path, "manifest.json") == 0)
        return 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == top && memcmp(known[i], entry->path, top) == 0)
            return 0;
    look->other |= !is_docker_name(entry->path, top);
    return look->other;
}

/* Of an archive that is both, as docker's are since version 25, the docker part has the names that people know. */
static enum image_format decide(const struct look *look)
{
    if (look->other || (!look->docker && !look->oci))
        return IMAGE_FORMAT_ROOTFS;
    return look->docker ? IMAGE_FORMAT_DOCKER : IMAGE_FORMAT_OCI;
}

/* ---- opening ---- */

/* A few MiB may say that they are many GiB: they get what is free now, but for an eighth, and no more (faults 70). */
static int check_room(const char *scratch_dir, uint64_t *ret_max_bytes, struct err *err)
{
    struct statvfs st;
    if (statvfs(scratch_dir, &st) < 0)
        return err_errno(err, errno, "cannot look how much is free in '%s'", scratch_dir);
    uint64_t room = (uint64_t)st.f_bavail * st.f_frsize;
    room -= room / 8;
    *ret_max_bytes = room == 0 ? 1 : room < LIMIT_OBJECT_BYTES ? room : LIMIT_OBJECT_BYTES;
    return 0;
}

static int unpack(int fd, const struct image_import_options *import, struct image_source *source, struct err *err)
{
    const char *scratch_dir = import->scratch_dir;
    struct image_source_feed feed = {.fd = fd, .options = import};
    struct store_archive_unpack_options options = {.ids = STORE_ARCHIVE_IDS_CALLER};
    int status = check_room(scratch_dir, &options.max_bytes, err);
    if (status < 0)
        return status;
    char *dir = file_path("%s/import-XXXXXX", scratch_dir);
    if (!dir)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    if (!mkdtemp(dir)) {
        int reason = errno;
        free(dir);
        return err_errno(err, reason, "cannot make a directory in '%s'", scratch_dir);
    }
    source->scratch = dir;
    source->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (source->dir_fd < 0)
        return err_errno(err, errno, "cannot open '%s'", dir);
    return store_archive_unpack(image_source_feed, &feed, source->dir_fd, &options, NULL, err);
}

static int open_dir(int fd, struct image_source *source, struct err *err)
{
    source->dir_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (source->dir_fd < 0)
        return err_errno(err, errno, "cannot open the directory");
    struct look look = {.oci = faccessat(fd, "oci-layout", F_OK, AT_SYMLINK_NOFOLLOW) == 0,
                        .docker = faccessat(fd, "manifest.json", F_OK, AT_SYMLINK_NOFOLLOW) == 0};
    if (source->format == IMAGE_FORMAT_ANY)
        source->format = decide(&look);
    if (source->format == IMAGE_FORMAT_ROOTFS)
        return err_set(err, ERR_UNSUPPORTED, "a directory must be an OCI image layout; pack a file system with tar");
    return 0;
}

static int open_file(int fd, const struct image_import_options *options, struct image_source *source, struct err *err)
{
    struct image_source_feed feed = {.fd = fd, .options = options};
    struct look look = {0};
    if (source->format == IMAGE_FORMAT_ANY) {
        int status = store_archive_scan(image_source_feed, &feed, look_at_entry, &look, err);
        if (status < 0)
            return status;
        source->format = decide(&look);
    }
    source->file_fd = fd;
    return source->format == IMAGE_FORMAT_ROOTFS ? 0 : unpack(fd, options, source, err);
}

int image_source_open(int fd, const struct image_import_options *options, struct image_source *ret_source,
                      struct err *err)
{
    struct stat st;
    struct image_source source = {.format = options->format, .dir_fd = -1, .file_fd = -1};
    if (fstat(fd, &st) < 0)
        return err_errno(err, errno, "cannot look at the image");
    int status;
    if (S_ISDIR(st.st_mode))
        status = open_dir(fd, &source, err);
    else if (S_ISREG(st.st_mode))
        status = open_file(fd, options, &source, err);
    else
        status = err_set(err, ERR_INVALID, "the image is neither a file nor a directory");
    if (status < 0)
        image_source_close(&source);
    else
        *ret_source = source;
    return status;
}

void image_source_close(struct image_source *source)
{
    owned_fd(&source->dir_fd);
    if (source->scratch)
        file_remove_tree(source->scratch, NULL);
    free(source->scratch);
    *source = (struct image_source){.dir_fd = -1, .file_fd = -1};
}
