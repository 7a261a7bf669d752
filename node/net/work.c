#include "node/net/work.h"

#include <stdlib.h>

struct work {
    uv_loop_t *loop; /* borrowed */
    size_t pending;
};

struct job {
    uv_work_t request;
    struct work *owner;
    job_work_cb work;
    job_done_cb done;
    void *arg;
};

int work_new(uv_loop_t *loop, struct work **ret_work, struct err *err)
{
    struct work *work = calloc(1, sizeof *work);
    if (!work)
        return err_set(err, ERR_NOMEM, "no memory for the work pool");
    work->loop = loop;
    *ret_work = work;
    return 0;
}

void work_free(struct work *work)
{
    free(work);
}

static void on_work(uv_work_t *request)
{
    struct job *job = request->data;
    job->work(job->arg);
}

static void on_done(uv_work_t *request, int status)
{
    (void)status; /* jobs are never cancelled */
    struct job *job = request->data;
    job->owner->pending--;
    job->done(job->arg);
    free(job);
}

static void submit(void *ctx, job_work_cb work, job_done_cb done, void *arg)
{
    struct work *owner = ctx;
    struct job *job = malloc(sizeof *job);
    /* The contract is that a job is always accepted; a few dozen bytes that cannot be had end the process. */
    if (!job)
        abort();
    *job = (struct job){.owner = owner, .work = work, .done = done, .arg = arg};
    job->request.data = job;
    owner->pending++;
    if (uv_queue_work(owner->loop, &job->request, on_work, on_done) < 0)
        abort();
}

struct jobs work_jobs(struct work *work)
{
    return (struct jobs){.submit = submit, .ctx = work};
}

size_t work_pending(const struct work *work)
{
    return work->pending;
}
