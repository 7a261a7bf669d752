/*
 * A streamed request body on its way into something that blocks: collected on the loop, written by jobs, and the client
 * held back while they are behind. Memory: two blocks of UPLOAD_BLOCK_BYTES.
 */
#pragma once

#include <jansson.h>

#include "node/api/http.h"
#include "node/base/jobs.h"

#define UPLOAD_BLOCK_BYTES (512u << 10)

/* What takes the bytes. One function at a time, but for cancel; `ctx` belongs to the upload until `free`. */
struct upload_sink {
    /* In jobs. The first failure ends the upload and is the answer. */
    int (*write)(void *ctx, const void *data, size_t len_bytes, struct err *err);
    /* All of it was written: the reply, or NULL with err set. */
    json_t *(*finish)(void *ctx, struct err *err);
    /* On the loop, before the reply is given; optional. */
    void (*done)(void *ctx);
    /* In a job, at the end of all, also without a finish. */
    void (*free)(void *ctx);
    /* On the loop, perhaps beside a job: the client has left, so nobody wants the rest; optional. */
    void (*cancel)(void *ctx);
};

/* Receive the body of `req` and answer it with `status`; or, if its query says so, read a file that the client hands
 * over and answer with events. From the handler of a route with a streamed body. Takes ctx. */
void upload_begin(struct api_request *req, struct jobs jobs, const struct upload_sink *sink, void *ctx,
                  unsigned status);
