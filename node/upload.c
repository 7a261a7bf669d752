#include "node/upload.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/buf.h"
#include "node/upload_file.h"

struct upload {
    struct api_request *req; /* NULL once it is answered */
    struct jobs jobs;
    struct upload_sink sink;
    void *ctx; /* owned */
    unsigned status;
    struct buf filling; /* what has come */
    struct buf writing; /* the job's */
    bool working;       /* a job is under way */
    bool ended;         /* the body is complete */
    bool paused;
    bool finishing;
    int stop;       /* why nothing more will come: a code, or 0 */
    json_t *reply;  /* owned */
    struct err err; /* the job's while one is under way */
};

static void advance(struct upload *upload);

static void work_free(void *arg)
{
    struct upload *upload = arg;
    upload->sink.free(upload->ctx);
}

static void on_freed(void *arg)
{
    struct upload *upload = arg;
    buf_release(&upload->filling);
    buf_release(&upload->writing);
    free(upload);
}

static void answer(struct upload *upload)
{
    if (upload->err.code) {
        api_reply_error(upload->req, &upload->err);
    } else {
        if (upload->sink.done)
            upload->sink.done(upload->ctx);
        api_reply_json(upload->req, upload->status, upload->reply);
    }
    upload->req = NULL;
    jobs_submit(&upload->jobs, work_free, on_freed, upload);
}

static void work_write(void *arg)
{
    struct upload *upload = arg;
    upload->sink.write(upload->ctx, upload->writing.data, upload->writing.len, &upload->err);
}

static void work_finish(void *arg)
{
    struct upload *upload = arg;
    upload->reply = upload->sink.finish(upload->ctx, &upload->err);
}

static void on_worked(void *arg)
{
    struct upload *upload = arg;
    upload->working = false;
    buf_clear(&upload->writing);
    advance(upload);
    if (upload->req && upload->paused) {
        upload->paused = false;
        api_request_resume(upload->req);
    }
}

static void start(struct upload *upload, job_work_cb work)
{
    upload->working = true;
    jobs_submit(&upload->jobs, work, on_worked, upload);
}

/* The next thing to do, if nothing is being done. */
static void advance(struct upload *upload)
{
    if (upload->working)
        return;
    if (upload->stop && !upload->finishing && !upload->err.code)
        err_set(&upload->err, upload->stop, "the upload was not received to its end");
    if (upload->err.code || upload->finishing) {
        answer(upload);
    } else if (upload->filling.len >= UPLOAD_BLOCK_BYTES / 2 || (upload->ended && upload->filling.len > 0)) {
        struct buf full = upload->filling;
        upload->filling = upload->writing;
        upload->writing = full;
        start(upload, work_write);
    } else if (upload->ended) {
        upload->finishing = true;
        start(upload, work_finish);
    }
}

static enum api_flow on_data(void *ctx, struct api_request *req, const void *data, size_t len_bytes)
{
    (void)req;
    struct upload *upload = ctx;
    if (buf_add(&upload->filling, data, len_bytes) < 0)
        upload->stop = ERR_NOMEM;
    bool pause = upload->filling.len >= UPLOAD_BLOCK_BYTES || upload->stop;
    upload->paused = pause;
    advance(upload); /* may answer and so give up the upload */
    return pause ? API_PAUSE : API_MORE;
}

static void on_end(void *ctx, struct api_request *req)
{
    (void)req;
    struct upload *upload = ctx;
    upload->ended = true;
    advance(upload);
}

static void on_closed(void *ctx, struct api_request *req)
{
    (void)req;
    struct upload *upload = ctx;
    upload->stop = ERR_CLOSED;
    if (upload->sink.cancel)
        upload->sink.cancel(upload->ctx);
    advance(upload);
}

static void refuse(struct api_request *req, const struct upload_sink *sink, void *ctx, int code, const char *text)
{
    struct err err;
    err_set(&err, code, "%s", text);
    api_reply_error(req, &err);
    sink->free(ctx);
}

static void receive_body(struct api_request *req, struct jobs jobs, const struct upload_sink *sink, void *ctx,
                         unsigned status)
{
    static const struct api_request_ops ops = {.on_data = on_data, .on_end = on_end, .on_closed = on_closed};
    struct upload *upload = calloc(1, sizeof *upload);
    if (!upload) {
        refuse(req, sink, ctx, ERR_NOMEM, "no memory for an upload");
        return;
    }
    *upload = (struct upload){.req = req, .jobs = jobs, .sink = *sink, .ctx = ctx, .status = status};
    buf_init(&upload->filling, 2 * UPLOAD_BLOCK_BYTES);
    buf_init(&upload->writing, 2 * UPLOAD_BLOCK_BYTES);
    api_request_watch(req, &ops, upload);
}

void upload_begin(struct api_request *req, struct jobs jobs, const struct upload_sink *sink, void *ctx, unsigned status)
{
    const char *from = api_request_query(req, "from");
    if (!from)
        receive_body(req, jobs, sink, ctx, status);
    else if (strcmp(from, API_FROM_DESCRIPTOR) == 0)
        upload_file_begin(req, jobs, sink, ctx);
    else
        refuse(req, sink, ctx, ERR_INVALID, "the query field 'from' is not '" API_FROM_DESCRIPTOR "'");
}
