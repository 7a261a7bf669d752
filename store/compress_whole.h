/*
 * One long zstd frame, as other programs make them: to give back, bit for bit, what one of them once wrote. Pieces of
 * the store have nothing to do with this (store/compress.h has).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"
#include "store/archive.h"

#define STORE_WHOLE_LEVEL_MAX 19 /* beyond it the encoder wants up to 800 MB */

struct store_whole_options {
    int level;            /* 1 to STORE_WHOLE_LEVEL_MAX */
    bool checksum;        /* a checksum at the end of the frame */
    bool sized;           /* the frame's head tells its size */
    bool jobs;            /* cut into jobs, as the zstd command does even with one thread */
    uint64_t plain_bytes; /* what will be written, all in all */
};

struct store_whole;
/* `write_cb` gets what becomes ready during write and finish. ERR_INVALID for a level out of range; ERR_UNSUPPORTED if
 * zstd was built without threads and `jobs` is asked for. */
int store_whole_new(const struct store_whole_options *options, store_archive_write_cb write_cb, void *ctx,
                    struct store_whole **ret_whole, struct err *err);
int store_whole_write(struct store_whole *whole, const void *data, size_t len_bytes, struct err *err);
int store_whole_finish(struct store_whole *whole, struct err *err);
void store_whole_free(struct store_whole *whole);
