#include "store/archive_holes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/limits.h"

struct search {
    struct store_holes *holes;
    uint64_t data_start; /* behind the last hole */
    uint64_t zero_start; /* of the run of zero blocks that goes on; UINT64_MAX: none does */
    size_t found;        /* holes */
};

void store_holes_release(struct store_holes *holes)
{
    free(holes->extents);
    *holes = (struct store_holes){0};
}

static int add_extent(struct store_holes *holes, uint64_t offset, uint64_t len_bytes, struct err *err)
{
    if (holes->count == holes->cap) {
        size_t cap = holes->cap ? 2 * holes->cap : 8;
        struct store_tar_extent *more = realloc(holes->extents, cap * sizeof *more);
        if (!more)
            return err_set(err, ERR_NOMEM, "no memory for a map of holes");
        holes->extents = more;
        holes->cap = cap;
    }
    holes->extents[holes->count++] = (struct store_tar_extent){offset, len_bytes};
    return 0;
}

/* The run of zeros, if one goes on, ends at `end`. */
static int end_zeros(struct search *search, uint64_t end, struct err *err)
{
    uint64_t start = search->zero_start;
    search->zero_start = UINT64_MAX;
    if (start == UINT64_MAX || end - start < STORE_HOLE_MIN_BYTES || search->found == LIMIT_ARCHIVE_HOLES)
        return 0;
    int status =
        start > search->data_start ? add_extent(search->holes, search->data_start, start - search->data_start, err) : 0;
    search->data_start = end;
    search->found++;
    return status;
}

static int look_at(struct search *search, uint64_t offset, const uint8_t *data, size_t len_bytes, struct err *err)
{
    static const uint8_t zeros[STORE_HOLE_BLOCK_BYTES];
    int status = 0;
    for (size_t at = 0; status == 0 && at < len_bytes; at += STORE_HOLE_BLOCK_BYTES) {
        size_t len = len_bytes - at < STORE_HOLE_BLOCK_BYTES ? len_bytes - at : STORE_HOLE_BLOCK_BYTES;
        if (memcmp(data + at, zeros, len) != 0)
            status = end_zeros(search, offset + at, err);
        else if (search->zero_start == UINT64_MAX)
            search->zero_start = offset + at;
    }
    return status;
}

/* From `offset`, a block boundary: the block boundaries between which the file system has, or may have, data. */
static void find_data(int fd, uint64_t offset, uint64_t size_bytes, uint64_t *ret_start, uint64_t *ret_end)
{
    *ret_start = offset;
    *ret_end = size_bytes;
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO) /* a hole up to the end */
        *ret_start = size_bytes;
    off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
    if (hole < 0)
        return;
    uint64_t start = (uint64_t)data - (uint64_t)data % STORE_HOLE_BLOCK_BYTES;
    uint64_t end = ((uint64_t)hole + STORE_HOLE_BLOCK_BYTES - 1) / STORE_HOLE_BLOCK_BYTES * STORE_HOLE_BLOCK_BYTES;
    *ret_start = start < size_bytes ? start : size_bytes;
    *ret_end = end < size_bytes ? end : size_bytes;
}

/* A short read means that the file shrinks: what is missing will be packed as zeros, so it counts as such. */
static ssize_t read_block(int fd, uint8_t *buffer, size_t want, uint64_t offset)
{
    size_t have = 0;
    while (have < want) {
        ssize_t got = pread(fd, buffer + have, want - have, (off_t)(offset + have));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        have += (size_t)got;
    }
    memset(buffer + have, 0, want - have);
    return (ssize_t)want;
}

static int search_file(int fd, uint64_t size_bytes, uint8_t *buffer, size_t buffer_bytes, struct search *search,
                       struct err *err)
{
    int status = 0;
    for (uint64_t offset = 0; status == 0 && offset < size_bytes;) {
        uint64_t start, end;
        find_data(fd, offset, size_bytes, &start, &end);
        if (start > offset && search->zero_start == UINT64_MAX)
            search->zero_start = offset;
        for (offset = start; status == 0 && offset < end;) {
            size_t want = end - offset < buffer_bytes ? (size_t)(end - offset) : buffer_bytes;
            if (read_block(fd, buffer, want, offset) < 0)
                return err_errno(err, errno, "cannot read it");
            status = look_at(search, offset, buffer, want, err);
            offset += want;
        }
    }
    return status < 0 ? status : end_zeros(search, size_bytes, err);
}

int store_holes_find(int fd, uint64_t size_bytes, uint8_t *buffer, size_t buffer_bytes, struct store_holes *ret_holes,
                     struct err *err)
{
    *ret_holes = (struct store_holes){0};
    if (size_bytes < STORE_HOLE_MIN_BYTES)
        return 0;
    struct search search = {.holes = ret_holes, .zero_start = UINT64_MAX};
    int status = search_file(fd, size_bytes, buffer, buffer_bytes, &search, err);
    if (status == 0 && search.found > 0 && (search.data_start < size_bytes || ret_holes->count == 0))
        status = add_extent(ret_holes, search.data_start, size_bytes - search.data_start, err);
    if (status < 0)
        store_holes_release(ret_holes);
    return status;
}
