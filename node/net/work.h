/*
 * The one owner of the thread pool: struct jobs over libuv's work queue.
 *
 * Jobs run in any order; `done` runs on the loop. The pool counts what is under way, so that a graceful stop can wait.
 */
#pragma once

#include <stddef.h>
#include <uv.h>

#include "node/base/err.h"
#include "node/base/jobs.h"

struct work;

/* `loop` is borrowed and must outlive the pool. */
int work_new(uv_loop_t *loop, struct work **ret_work, struct err *err);
/* No job may be under way: run the loop until work_pending is 0 first. */
void work_free(struct work *work);

/* The interface that the floors below take; valid as long as the pool. */
struct jobs work_jobs(struct work *work);
size_t work_pending(const struct work *work);
