/*
 * How many other nodes have each object that is here, asked of the DHT one object at a time, all the while: what the
 * store needs to know before it may evict anything that is not a cache.
 *
 * Everything but its jobs happens on the loop's thread.
 */
#pragma once

#include <uv.h>

#include "node/base/clock.h"
#include "node/base/jobs.h"
#include "node/mesh/mesh.h"
#include "store/store.h"

struct replicas;

/* All borrowed, and outlive it. */
int replicas_new(struct store *store, struct jobs jobs, struct clock clock, struct mesh *mesh, uv_loop_t *loop,
                 struct replicas **ret_replicas, struct err *err);
/* Stop; the loop then runs the timer's close callback and the job under way. NULL is fine. */
void replicas_close(struct replicas *replicas);
/* After the loop has ended. */
void replicas_free(struct replicas *replicas);
