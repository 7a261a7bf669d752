/*
 * Blocking work as a thing that is passed in: the node runs it on its thread pool (node/net/work.c), tests run it on
 * the spot. `work` runs on some other thread and touches only what `arg` gives it; `done` runs afterwards on the
 * submitting thread, never before submit has returned.
 */
#pragma once

typedef void (*job_work_cb)(void *arg);
typedef void (*job_done_cb)(void *arg);

struct jobs {
    /* Always accepted; `done` is always called, once. */
    void (*submit)(void *ctx, job_work_cb work, job_done_cb done, void *arg);
    void *ctx; /* borrowed */
};

static inline void jobs_submit(const struct jobs *jobs, job_work_cb work, job_done_cb done, void *arg)
{
    jobs->submit(jobs->ctx, work, done, arg);
}
