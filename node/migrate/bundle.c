#include "node/migrate/bundle.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/limits.h"
#include "node/base/scope.h"
#include "store/archive.h"

#define COPY_BYTES (256u << 10)
#define MAX_IMAGE_FILES 65536

OWNED_DEFINE(owned_ingest, struct store_ingest, store_ingest_free)
OWNED_DEFINE(owned_reader, struct store_reader, store_reader_close)
OWNED_DEFINE(owned_writer, struct store_archive_writer, store_archive_writer_free)

static void owned_dir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

/* ---- into the store ---- */

static int to_ingest(void *ctx, const void *data, size_t len_bytes, struct err *err)
{
    return store_ingest_write(ctx, data, len_bytes, err);
}

static int finish_object(struct store_ingest *ingest, enum store_kind kind, struct migrate_object *ret_object,
                         struct err *err)
{
    struct store_object_info info;
    int status = store_ingest_finish(ingest, &info, err);
    if (status == 0) {
        ret_object->kind = kind;
        ret_object->digest = info.digest;
        ret_object->size_bytes = info.size_bytes;
    }
    return status;
}

int bundle_pack_tree(struct store *store, const char *path, enum store_kind kind, bool overlay,
                     struct migrate_object *ret_object, struct err *err)
{
    OWNED(owned_fd) int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_errno(err, errno, "cannot open '%s'", path);
    OWNED(owned_ingest) struct store_ingest *ingest = NULL;
    int status = store_ingest_new(store, kind, STORE_CHUNKING_ARCHIVE, &ingest, err);
    struct store_archive_pack_options options = {.overlay = overlay};
    if (status == 0)
        status = store_archive_pack(dir, &options, to_ingest, ingest, NULL, err);
    if (status == 0)
        status = finish_object(ingest, kind, ret_object, err);
    return status < 0 ? err_wrap(err, "cannot take a snapshot of '%s'", path) : 0;
}

static int pack_file(struct store *store, int fd, const char *name, struct migrate_object *ret_object, struct err *err)
{
    OWNED(owned_ingest) struct store_ingest *ingest = NULL;
    OWNED(owned_free) uint8_t *buffer = malloc(COPY_BYTES);
    int status = buffer ? store_ingest_new(store, STORE_CHECKPOINT, STORE_CHUNKING_PAGES, &ingest, err)
                        : err_set(err, ERR_NOMEM, "no memory for copying");
    while (status == 0) {
        ssize_t got = read(fd, buffer, COPY_BYTES);
        if (got < 0)
            return err_errno(err, errno, "cannot read '%s'", name);
        if (got == 0)
            return finish_object(ingest, STORE_CHECKPOINT, ret_object, err);
        status = store_ingest_write(ingest, buffer, (size_t)got, err);
    }
    return status;
}

static int add_small_file(struct store_archive_writer *writer, int fd, const char *name, struct err *err)
{
    OWNED(buf_release) struct buf content = BUF(64u << 20);
    uint8_t chunk[16384];
    for (ssize_t got; (got = read(fd, chunk, sizeof chunk)) != 0;) {
        if (got < 0)
            return err_errno(err, errno, "cannot read '%s'", name);
        if (buf_add(&content, chunk, (size_t)got) < 0)
            return err_set(err, ERR_LIMIT, "checkpoint image '%s' is larger than %zu bytes", name, content.max);
    }
    int status = store_archive_writer_add_file(writer, name, content.len, err);
    return status < 0 || content.len == 0 ? status
                                          : store_archive_writer_add_data(writer, content.data, content.len, err);
}

static bool is_pages(const char *name)
{
    return strncmp(name, "pages-", 6) == 0;
}

static int pack_image_file(struct store *store, int dir, const char *name, struct store_archive_writer *writer,
                           struct manifest *manifest, struct err *err)
{
    OWNED(owned_fd) int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(err, errno, "cannot open checkpoint image '%s'", name);
    if (!S_ISREG(st.st_mode))
        return 0;
    if (!is_pages(name))
        return add_small_file(writer, fd, name, err);
    struct migrate_object object = {.role = MIGRATE_PAGES};
    snprintf(object.name, sizeof object.name, "%s", name);
    int status = pack_file(store, fd, name, &object, err);
    return status < 0 ? status : manifest_add(manifest, &object, err);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int bundle_pack_checkpoint(struct store *store, const char *dir_path, struct manifest *manifest, struct err *err)
{
    OWNED(owned_fd) int dir = open(dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct dirent **names = NULL;
    int count = dir < 0 ? -1 : scandirat(dir, ".", &names, not_hidden, by_name);
    if (count < 0)
        return err_errno(err, errno, "cannot read checkpoint '%s'", dir_path);
    OWNED(owned_ingest) struct store_ingest *ingest = NULL;
    OWNED(owned_writer) struct store_archive_writer *writer = NULL;
    int status = store_ingest_new(store, STORE_CHECKPOINT, STORE_CHUNKING_ARCHIVE, &ingest, err);
    if (status == 0)
        status = store_archive_writer_new(to_ingest, ingest, &writer, err);
    for (int i = 0; i < count; i++) {
        if (status == 0)
            status = pack_image_file(store, dir, names[i]->d_name, writer, manifest, err);
        free(names[i]);
    }
    free(names);
    if (status == 0)
        status = store_archive_writer_finish(writer, err);
    struct migrate_object object = {.role = MIGRATE_CHECKPOINT};
    if (status == 0)
        status = finish_object(ingest, STORE_CHECKPOINT, &object, err);
    return status < 0 ? err_wrap(err, "cannot keep the checkpoint") : manifest_add(manifest, &object, err);
}

/* ---- out of the store ---- */

static ssize_t from_reader(void *ctx, void *ret_data, size_t room_bytes, struct err *err)
{
    size_t got = 0;
    int status = store_reader_read(ctx, ret_data, room_bytes, &got, err);
    return status < 0 ? status : (ssize_t)got;
}

int bundle_unpack_tree(struct store *store, const struct id *digest, const char *path, bool overlay, struct err *err)
{
    int status = file_make_dirs(path, 0755, err);
    OWNED(owned_fd) int dir = status < 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (status == 0 && dir < 0)
        status = err_errno(err, errno, "cannot open '%s'", path);
    OWNED(owned_reader) struct store_reader *reader = NULL;
    if (status == 0)
        status = store_reader_open(store, digest, &reader, err);
    if (status < 0)
        return status;
    struct store_archive_unpack_options options = store_archive_unpack_defaults();
    options.overlay = overlay;
    options.update = true;
    options.devices = true;
    options.privileges = true;
    status = store_archive_unpack(from_reader, reader, dir, &options, NULL, err);
    return status < 0 ? err_wrap(err, "cannot bring '%s' to its snapshot", path) : 0;
}

static int unpack_pages(struct store *store, const struct migrate_object *object, int dir, struct err *err)
{
    OWNED(owned_reader) struct store_reader *reader = NULL;
    int status = store_reader_open(store, &object->digest, &reader, err);
    OWNED(owned_free) uint8_t *buffer = malloc(COPY_BYTES);
    OWNED(owned_fd) int fd = openat(dir, object->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (status == 0 && (fd < 0 || !buffer))
        status = err_errno(err, errno, "cannot write checkpoint image '%s'", object->name);
    for (size_t got = 1; status == 0 && got > 0;) {
        status = store_reader_read(reader, buffer, COPY_BYTES, &got, err);
        if (status == 0)
            status = file_write_all(fd, buffer, got, object->name, err);
    }
    return status;
}

static int unpack_images(struct store *store, const struct manifest *manifest, const char *path, struct err *err)
{
    const struct migrate_object *meta = manifest_find(manifest, MIGRATE_CHECKPOINT, NULL);
    OWNED(owned_reader) struct store_reader *reader = NULL;
    int status = meta ? store_reader_open(store, &meta->digest, &reader, err)
                      : err_set(err, ERR_INVALID, "the manifest lacks the checkpoint");
    struct store_archive_unpack_options options = store_archive_unpack_defaults();
    options.max_entries = MAX_IMAGE_FILES;
    if (status == 0)
        status = store_archive_unpack_new(from_reader, reader, path, &options, NULL, err);
    if (status < 0)
        return status;
    OWNED(owned_fd) int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fchmod(dir, 0700) < 0)
        return err_errno(err, errno, "cannot open '%s'", path);
    for (size_t i = 0; status == 0 && i < manifest->count; i++)
        if (manifest->objects[i].role == MIGRATE_PAGES)
            status = unpack_pages(store, &manifest->objects[i], dir, err);
    return status;
}

int bundle_unpack_checkpoint(struct store *store, const struct manifest *manifest, const char *dir, struct err *err)
{
    int status = unpack_images(store, manifest, dir, err);
    if (status < 0) {
        file_remove_tree(dir, NULL);
        return err_wrap(err, "cannot write the checkpoint");
    }
    return 0;
}

/* ---- memory ---- */

static uint64_t resident_bytes(const char *pid)
{
    OWNED(owned_free) char *path = file_path("/proc/%s/statm", pid);
    OWNED(buf_release) struct buf text = BUF(4096);
    unsigned long long size = 0, resident = 0;
    if (!path || file_read(path, &text, NULL) < 0 || sscanf(buf_str(&text), "%llu %llu", &size, &resident) != 2)
        return 0;
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static bool pid_namespace(const char *pid, char *text, size_t size)
{
    OWNED(owned_free) char *path = file_path("/proc/%s/ns/pid", pid);
    ssize_t len = path ? readlink(path, text, size - 1) : -1;
    text[len < 0 ? 0 : len] = '\0';
    return len > 0;
}

uint64_t bundle_memory_of(pid_t pid)
{
    char name[16], wanted[64], other[64];
    snprintf(name, sizeof name, "%d", (int)pid);
    OWNED(owned_dir) DIR *proc = opendir("/proc");
    if (!proc || !pid_namespace(name, wanted, sizeof wanted))
        return 0;
    uint64_t sum = 0;
    for (struct dirent *entry; (entry = readdir(proc));)
        if (isdigit((unsigned char)entry->d_name[0]) && pid_namespace(entry->d_name, other, sizeof other) &&
            strcmp(wanted, other) == 0)
            sum += resident_bytes(entry->d_name);
    return sum;
}
