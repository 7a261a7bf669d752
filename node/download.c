#include "node/download.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/log.h"

#define AGAIN_MS 250 /* between looks at a source that may grow */

struct block {
    uint8_t *data; /* owned */
    size_t len;
};

struct download {
    struct api_request *req;
    struct jobs jobs;
    struct download_source source;
    void *ctx;         /* owned */
    uv_timer_t timer;  /* data: this */
    struct block next; /* the job's while one is under way */
    struct block now;
    size_t taken;   /* of now */
    bool working;   /* a job is under way */
    bool ready;     /* next was read */
    bool more;      /* what was read is nothing, but not the end */
    bool waiting;   /* the client waits for api_request_resume */
    bool over;      /* nobody takes more */
    struct err err; /* of the last read */
};

static void read_next(struct download *download);

static void on_freed(void *arg)
{
    struct download *download = arg;
    free(download->now.data);
    free(download->next.data);
    free(download);
}

static void work_free(void *arg)
{
    struct download *download = arg;
    download->source.free(download->ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct download *download = handle->data;
    jobs_submit(&download->jobs, work_free, on_freed, download);
}

static void release(struct download *download)
{
    if (download->over && !download->working)
        uv_close((uv_handle_t *)&download->timer, on_timer_closed);
}

static void wake(struct download *download)
{
    if (!download->waiting)
        return;
    download->waiting = false;
    api_request_resume(download->req);
}

static void on_timer(uv_timer_t *timer)
{
    struct download *download = timer->data;
    if (!api_request_is_closed(download->req)) {
        read_next(download);
        return;
    }
    err_set(&download->err, ERR_CLOSED, "the client went away");
    download->ready = true;
    wake(download);
}

static void work_read(void *arg)
{
    struct download *download = arg;
    struct block *next = &download->next;
    int code = download->source.read(download->ctx, next->data, DOWNLOAD_BLOCK_BYTES, &next->len, &download->err);
    download->more = code == 0 && next->len == 0 && download->source.more && download->source.more(download->ctx);
}

static void on_read(void *arg)
{
    struct download *download = arg;
    download->working = false;
    if (download->over) {
        release(download);
    } else if (download->more) {
        uv_timer_start(&download->timer, on_timer, AGAIN_MS, 0);
    } else {
        if (download->err.code)
            log_warn("api", "an answer is cut short why=\"%s\"", download->err.text);
        download->ready = true;
        wake(download);
    }
}

static void read_next(struct download *download)
{
    download->working = true;
    jobs_submit(&download->jobs, work_read, on_read, download);
}

static ssize_t on_pull(void *ctx, struct api_request *req, uint64_t position, void *data, size_t max_bytes)
{
    (void)req;
    (void)position;
    struct download *download = ctx;
    struct block *now = &download->now;
    if (download->taken == now->len) {
        if (!download->ready) {
            download->waiting = true;
            return 0;
        }
        if (download->err.code)
            return API_PULL_ERROR;
        if (download->next.len == 0)
            return API_PULL_END;
        struct block read = download->next;
        download->next = *now;
        *now = read;
        download->taken = 0;
        download->ready = false;
        read_next(download);
    }
    size_t len = now->len - download->taken < max_bytes ? now->len - download->taken : max_bytes;
    memcpy(data, now->data + download->taken, len);
    download->taken += len;
    return (ssize_t)len;
}

static void on_done(void *ctx)
{
    struct download *download = ctx;
    download->over = true;
    release(download);
}

void download_begin(struct api_request *req, uv_loop_t *loop, struct jobs jobs, const struct download_source *source,
                    void *ctx, int64_t length)
{
    struct download *download = calloc(1, sizeof *download);
    if (download) {
        download->now.data = malloc(DOWNLOAD_BLOCK_BYTES);
        download->next.data = malloc(DOWNLOAD_BLOCK_BYTES);
    }
    if (!download || !download->now.data || !download->next.data) {
        struct err err;
        err_set(&err, ERR_NOMEM, "no memory for a download");
        if (download)
            on_freed(download);
        source->free(ctx);
        api_reply_error(req, &err);
        return;
    }
    download->req = req;
    download->jobs = jobs;
    download->source = *source;
    download->ctx = ctx;
    uv_timer_init(loop, &download->timer);
    download->timer.data = download;
    read_next(download);
    api_reply_pull(req, API_TYPE_BYTES, length, on_pull, on_done, download);
}
