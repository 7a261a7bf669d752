#include "node/upload_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "node/base/scope.h"

#define TURN_BYTES                                                                                                     \
    (8u << 20)               /* read by one job: then the loop says how far it is, and hears whether the client left   \
                              */
#define XFS_MAGIC 0x58465342 /* the rest of these are in linux/magic.h, statfs(2) has them all */

/*
 *   asked --on_descriptor--> reading, turn by turn --all read--> finishing --> answered
 *     `------ on_closed, or a turn fails ------'-------------------------------^
 */
struct handover {
    struct api_request *req; /* NULL once it is answered */
    struct jobs jobs;
    struct upload_sink sink;
    void *ctx;      /* owned */
    int fd;         /* owned; -1: it has not come yet */
    uint8_t *block; /* owned */
    uint64_t size_bytes;
    uint64_t done_bytes;
    bool working; /* a job is under way */
    bool finishing;
    bool closed;    /* nobody waits for the answer */
    json_t *reply;  /* owned */
    struct err err; /* the job's while one is under way */
};

/* ---- what may be read ---- */

/* File systems that the kernel keeps by itself and whose files give everybody the same bytes. Not among them: what asks
 * other machines and programs (NFS, FUSE, and overlays, which may lie over them), where a read may never end, and what
 * makes up its bytes as they are read and may look at who reads (proc, sysfs). */
static bool is_plain(__fsword_t type)
{
    static const __fsword_t plain[] = {EXT4_SUPER_MAGIC, XFS_MAGIC,   BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC,
                                       TMPFS_MAGIC,      RAMFS_MAGIC, SQUASHFS_MAGIC};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (type == plain[i])
            return true;
    return false;
}

int upload_file_check(int fd, uint64_t *ret_size_bytes, struct err *err)
{
    struct stat st;
    struct statfs fs;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &st) < 0)
        return err_errno(err, errno, "cannot look at the file handed over");
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID, "what was handed over is no regular file");
    if ((flags & O_ACCMODE) == O_WRONLY || (flags & O_PATH))
        return err_set(err, ERR_INVALID, "the file handed over is not open for reading");
    if ((flags & O_DIRECT) || fstatfs(fd, &fs) < 0 || !is_plain(fs.f_type))
        return err_set(err, ERR_UNSUPPORTED, "a file of this kind is not read for others: send its bytes");
    *ret_size_bytes = (uint64_t)st.st_size;
    return 0;
}

/* ---- jobs: all that is done with the descriptor. Even to look at it, or to close it, may mean to ask another machine
 * or program that gives no answer. ---- */

/* pread: the position belongs to the client as well. */
static int copy_block(struct handover *handover, struct err *err)
{
    uint64_t left = handover->size_bytes - handover->done_bytes;
    size_t want = left < UPLOAD_BLOCK_BYTES ? (size_t)left : UPLOAD_BLOCK_BYTES;
    ssize_t got;
    do
        got = pread(handover->fd, handover->block, want, (off_t)handover->done_bytes);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return err_errno(err, errno, "cannot read the file");
    if (got == 0)
        return err_set(err, ERR_CONFLICT, "the file became shorter while it was read: %llu of its %llu bytes are there",
                       (unsigned long long)handover->done_bytes, (unsigned long long)handover->size_bytes);
    handover->done_bytes += (uint64_t)got;
    return handover->sink.write(handover->ctx, handover->block, (size_t)got, err);
}

static void work_turn(void *arg)
{
    struct handover *handover = arg;
    if (handover->done_bytes == 0 && upload_file_check(handover->fd, &handover->size_bytes, &handover->err) < 0)
        return;
    uint64_t left = handover->size_bytes - handover->done_bytes;
    uint64_t end = handover->done_bytes + (left < TURN_BYTES ? left : TURN_BYTES);
    int status = 0;
    while (status == 0 && handover->done_bytes < end)
        status = copy_block(handover, &handover->err);
}

static void work_finish(void *arg)
{
    struct handover *handover = arg;
    handover->reply = handover->sink.finish(handover->ctx, &handover->err);
}

static void work_free(void *arg)
{
    struct handover *handover = arg;
    owned_fd(&handover->fd);
    handover->sink.free(handover->ctx);
}

/* ---- on the loop ---- */

static void on_freed(void *arg)
{
    struct handover *handover = arg;
    free(handover->block);
    free(handover);
}

static void answer(struct handover *handover)
{
    struct api_request *req = STEAL(handover->req);
    if (handover->err.code) {
        api_stream_error(req, &handover->err);
    } else {
        if (handover->sink.done)
            handover->sink.done(handover->ctx);
        json_t *event = json_pack("{s:s}", "event", API_EVENT_RESULT);
        json_object_update(event, handover->reply);
        json_decref(handover->reply);
        api_stream_event(req, event);
        api_stream_end(req);
    }
    jobs_submit(&handover->jobs, work_free, on_freed, handover);
}

static void on_worked(void *arg);

static void start(struct handover *handover, job_work_cb work)
{
    handover->working = true;
    jobs_submit(&handover->jobs, work, on_worked, handover);
}

/* The next thing to do, if nothing is being done. */
static void advance(struct handover *handover)
{
    if (handover->working)
        return;
    if (handover->closed && !handover->err.code && !handover->finishing)
        err_set(&handover->err, ERR_CLOSED, "the client left before all of its file was read");
    if (handover->err.code || handover->finishing) {
        answer(handover);
        return;
    }
    handover->finishing = handover->done_bytes == handover->size_bytes;
    start(handover, handover->finishing ? work_finish : work_turn);
}

static void on_worked(void *arg)
{
    struct handover *handover = arg;
    handover->working = false;
    if (!handover->err.code && !handover->finishing)
        api_stream_progress(handover->req, json_pack("{s:s, s:I, s:I}", "event", API_EVENT_PROGRESS, "done_bytes",
                                                     (json_int_t)handover->done_bytes, "total_bytes",
                                                     (json_int_t)handover->size_bytes));
    advance(handover);
}

static void on_descriptor(void *ctx, struct api_request *req, int fd, const struct err *err)
{
    (void)req;
    struct handover *handover = ctx;
    handover->fd = fd;
    if (fd >= 0) {
        start(handover, work_turn);
        return;
    }
    handover->err = *err;
    advance(handover);
}

static void on_closed(void *ctx, struct api_request *req)
{
    (void)req;
    struct handover *handover = ctx;
    handover->closed = true;
    if (handover->sink.cancel)
        handover->sink.cancel(handover->ctx);
    advance(handover);
}

void upload_file_begin(struct api_request *req, struct jobs jobs, const struct upload_sink *sink, void *ctx)
{
    static const struct api_request_ops ops = {.on_closed = on_closed, .on_descriptor = on_descriptor};
    struct handover *handover = calloc(1, sizeof *handover);
    uint8_t *block = malloc(UPLOAD_BLOCK_BYTES);
    struct err err = {0};
    if (api_request_length(req) != 0) /* its bytes would be taken for the one that carries the file */
        err_set(&err, ERR_INVALID, "who hands over an open file sends no body");
    else if (!handover || !block)
        err_set(&err, ERR_NOMEM, "no memory for an upload");
    if (err.code) {
        api_reply_error(req, &err);
        sink->free(ctx);
        free(handover);
        free(block);
        return;
    }
    *handover = (struct handover){.req = req, .jobs = jobs, .sink = *sink, .ctx = ctx, .fd = -1, .block = block};
    api_request_watch(req, &ops, handover);
    api_stream_begin(req, API_TYPE_EVENTS);
    api_stream_event(req, json_pack("{s:s}", "event", API_EVENT_SEND));
    api_request_want_descriptor(req);
}
