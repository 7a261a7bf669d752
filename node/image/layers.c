/*
 * Unpacked layers, shared by all containers that have them: LAYERS/<64 hex> is complete, everything else in there is
 * scrap. A directory comes and goes by one rename: ".<hex>.<random>" becomes "<hex>" when it is whole and durable, and
 * is renamed away before it is removed. Whoever unpacks holds a shared lock on LAYERS, and the collection an exclusive
 * one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/clock.h"
#include "node/base/file.h"
#include "node/image/image.h"

#define TEMP_NAME_SIZE (1 + ID_HEX_SIZE + 1 + 16) /* with the NUL */

OWNED_DEFINE(owned_reader, struct store_reader, store_reader_close)

static void temp_name(const char *hex, char name[TEMP_NAME_SIZE])
{
    struct rng rng = rng_system();
    snprintf(name, TEMP_NAME_SIZE, ".%s.%016llx", hex, (unsigned long long)rng_u64(&rng));
}

static int open_locked(const char *layers_dir, int operation, struct err *err)
{
    OWNED(owned_fd) int fd = open(layers_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, errno, "cannot open '%s'", layers_dir);
    if (flock(fd, operation) < 0)
        return errno == EWOULDBLOCK ? err_set(err, ERR_BUSY, "'%s' is in use", layers_dir)
                                    : err_errno(err, errno, "cannot lock '%s'", layers_dir);
    return steal_fd(&fd);
}

/* ---- unpacking ---- */

static ssize_t read_layer(void *ctx, void *ret_data, size_t room_bytes, struct err *err)
{
    size_t len;
    int status = store_reader_read(ctx, ret_data, room_bytes, &len, err);
    return status < 0 ? status : (ssize_t)len;
}

static int unpack_into(struct store *store, const struct id *diff_id, int fd, struct err *err)
{
    OWNED(owned_reader) struct store_reader *reader = NULL;
    struct store_archive_unpack_options options = store_archive_unpack_defaults();
    options.overlay = true;
    int status = store_reader_open(store, diff_id, &reader, err);
    if (status == 0)
        status = store_archive_unpack(read_layer, reader, fd, &options, NULL, err);
    if (status == 0 && syncfs(fd) < 0)
        status = err_errno(err, errno, "cannot make a layer durable");
    return status;
}

/* The archive may say nothing about its root, which then is as roots are. */
static int unpack_as(struct store *store, const struct id *diff_id, int layers_fd, const char *temp, struct err *err)
{
    if (mkdirat(layers_fd, temp, 0700) < 0)
        return err_errno(err, errno, "cannot make a directory for a layer");
    OWNED(owned_fd) int fd = openat(layers_fd, temp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchmod(fd, 0755) < 0)
        return err_errno(err, errno, "cannot open a layer's directory");
    return unpack_into(store, diff_id, fd, err);
}

static int unpack_layer(struct store *store, const struct id *diff_id, int layers_fd, struct err *err)
{
    char hex[ID_HEX_SIZE], temp[TEMP_NAME_SIZE];
    id_hex(diff_id, hex);
    temp_name(hex, temp);
    if (faccessat(layers_fd, hex, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    int status = unpack_as(store, diff_id, layers_fd, temp, err);
    if (status == 0 && renameat(layers_fd, temp, layers_fd, hex) < 0) {
        bool other_was_first = errno == EEXIST || errno == ENOTEMPTY;
        status = other_was_first ? 0 : err_errno(err, errno, "cannot put layer %s in its place", hex);
        file_remove_tree_at(layers_fd, temp, NULL);
    } else if (status < 0) {
        file_remove_tree_at(layers_fd, temp, NULL);
    }
    return status < 0 ? err_wrap(err, "layer %s", hex) : 0;
}

int image_unpack_layers(struct store *store, const struct image *image, const char *layers_dir, struct err *err)
{
    OWNED(owned_fd) int fd = open_locked(layers_dir, LOCK_SH, err);
    int status = fd < 0 ? fd : 0;
    for (size_t i = 0; status == 0 && i < image->layer_count; i++)
        status = unpack_layer(store, &image->layers[i].diff_id, fd, err);
    if (status == 0 && fsync(fd) < 0)
        status = err_errno(err, errno, "cannot make '%s' durable", layers_dir);
    return status;
}

/* ---- collecting ---- */

static bool wanted(const struct id *diff_id, const struct id *in_use, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (id_equal(diff_id, &in_use[i]))
            return true;
    return false;
}

static void owned_dir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static int remove_layer(int layers_fd, const char *hex, struct err *err)
{
    char temp[TEMP_NAME_SIZE];
    temp_name(hex, temp);
    if (renameat(layers_fd, hex, layers_fd, temp) < 0)
        return err_errno(err, errno, "cannot take layer %s away", hex);
    return file_remove_tree_at(layers_fd, temp, err);
}

static int collect_name(int layers_fd, const char *name, const struct id *in_use, size_t count, size_t *removed,
                        struct err *err)
{
    struct id diff_id;
    if (id_parse_hex(name, &diff_id)) {
        if (wanted(&diff_id, in_use, count))
            return 0;
        ++*removed;
        return remove_layer(layers_fd, name, err);
    }
    bool temporary = name[0] == '.' && strlen(name) == TEMP_NAME_SIZE - 1;
    return temporary ? file_remove_tree_at(layers_fd, name, err) : 0;
}

int image_layers_gc(const char *layers_dir, const struct id *in_use, size_t in_use_count, size_t *ret_removed,
                    struct err *err)
{
    size_t removed = 0;
    OWNED(owned_fd) int fd = open_locked(layers_dir, LOCK_EX | LOCK_NB, err);
    if (fd < 0)
        return fd;
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    OWNED(owned_dir) DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir) {
        int reason = errno;
        owned_fd(&copy);
        return err_errno(err, reason, "cannot read '%s'", layers_dir);
    }
    int status = 0;
    for (struct dirent *entry; status == 0 && (entry = readdir(dir));)
        status = collect_name(fd, entry->d_name, in_use, in_use_count, &removed, err);
    if (ret_removed)
        *ret_removed = removed;
    return status;
}
