/*
 * Where an import reads from: a directory, or a file that may be unpacked into one. Inside image only.
 *
 * Names inside a source come from hostile documents: they are opened with openat2(2) and RESOLVE_IN_ROOT, so that a
 * link or ".." ends inside the source, and only regular files are taken.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/image/image.h"

struct image_source {
    enum image_format format; /* decided */
    int dir_fd;               /* owned; of OCI and docker sources; -1: none */
    int file_fd;              /* borrowed; of a rootfs; -1: none */
    char *scratch;            /* owned; removed in the end; NULL: none */
};

/* Look what it is, and unpack it beneath scratch_dir if it is an archive with several files of interest. */
int image_source_open(int fd, const struct image_import_options *options, struct image_source *ret_source,
                      struct err *err);
void image_source_close(struct image_source *source);

/* A descriptor for reading and the size of a regular file; the caller closes it. ERR_NOTFOUND, ERR_INVALID. */
int image_source_open_file(const struct image_source *source, const char *path, int *ret_fd, uint64_t *ret_size,
                           struct err *err);
/* A whole document of at most LIMIT_MANIFEST_BYTES, appended to buf. */
int image_source_read(const struct image_source *source, const char *path, struct buf *buf, struct err *err);

/* ERR_CANCELLED if the import's options say so. */
int image_source_check(const struct image_import_options *options, struct err *err);

/* A store_archive_read_cb over a regular file, from its start; each read asks whether the import goes on. */
struct image_source_feed {
    int fd;                                     /* borrowed */
    const struct image_import_options *options; /* borrowed */
    uint64_t offset;
};
ssize_t image_source_feed(void *ctx, void *ret_data, size_t room_bytes, struct err *err);
