/*
 * Holes by content: where a file's data is, decided by its bytes alone, so that every node packs the same file to the
 * same archive, whatever its file system made of it. Inside store only.
 *
 * A hole is a run of at least STORE_HOLE_MIN_BYTES of whole zero blocks of STORE_HOLE_BLOCK_BYTES, as long as it can be
 * made; the last, shorter block of a file counts as a whole one. After LIMIT_ARCHIVE_HOLES of them the rest is data.
 * What the file system knows to be a hole is not read. (GNU tar --hole-detection=raw, with a minimum.)
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"
#include "store/archive_tar.h"

#define STORE_HOLE_BLOCK_BYTES 4096u
#define STORE_HOLE_MIN_BYTES 65536u

struct store_holes {
    struct store_tar_extent
        *extents; /* owned; where data is, in order; NULL: everywhere. At least one, perhaps empty */
    size_t count;
    size_t cap;
};

void store_holes_release(struct store_holes *holes);

/* Look at the first size_bytes of the file. `buffer` is for reading, a multiple of the block size long. */
int store_holes_find(int fd, uint64_t size_bytes, uint8_t *buffer, size_t buffer_bytes, struct store_holes *ret_holes,
                     struct err *err);
