/*
 * An answer's raw body read by jobs, one block ahead of the client. Memory: two blocks of DOWNLOAD_BLOCK_BYTES.
 */
#pragma once

#include <uv.h>

#include "node/api/http.h"
#include "node/base/jobs.h"

#define DOWNLOAD_BLOCK_BYTES (256u << 10)

/* What gives the bytes. One function at a time, all in jobs; `ctx` belongs to the download until `free`. */
struct download_source {
    /* 0 and *ret_len > 0, or 0 bytes: the end, unless `follow` is set: then nothing now. Failing cuts the connection.
     */
    int (*read)(void *ctx, void *ret_data, size_t len_bytes, size_t *ret_len, struct err *err);
    /* Optional: nothing was read; may more come? Then the source is read again a little later. */
    bool (*more)(void *ctx);
    void (*free)(void *ctx);
};

/* Answer `req` with all that the source gives; length -1: unknown. Takes ctx. */
void download_begin(struct api_request *req, uv_loop_t *loop, struct jobs jobs, const struct download_source *source,
                    void *ctx, int64_t length);
