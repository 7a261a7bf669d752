/*
 * What a container engine must be able to do for us. One table a driver; runc.c is the first, podman and docker will be
 * others. All functions block; `id` is the container's name at the engine, `bundle` its OCI bundle directory. One call
 * at a time per container; calls for different containers may overlap.
 *
 * 1. What a call starts finishes even if this process dies meanwhile; whoever opens the driver next waits for it.
 * 2. Between restore and resume no task of the container executes an instruction of its own, whatever dies.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "node/base/err.h"

/* PAUSED: its tasks are stopped, as restore leaves them. FROZEN: they stand still although nobody restored them: a
 * checkpoint was killed. STOPPED: they have ended, the engine remembers it. */
enum driver_status { DRIVER_ABSENT, DRIVER_CREATED, DRIVER_RUNNING, DRIVER_PAUSED, DRIVER_FROZEN, DRIVER_STOPPED };

struct driver_state {
    enum driver_status status;
    pid_t pid; /* of the container's first process, as the host sees it; 0 when it does not run */
};

struct driver; /* one opened engine; the concrete type is the driver's */

struct driver_ops {
    const char *name;
    int (*inspect)(struct driver *driver, const char *id, struct driver_state *ret_state, struct err *err);
    /* Create and start the bundle's process. *ret_pid may have ended already; where this process is the reaper of its
     * orphans, it is then still to be reaped. */
    int (*create)(struct driver *driver, const char *id, const char *bundle, pid_t *ret_pid, struct err *err);
    /* Dump into images_dir, which is there, empty and 0700; without leave_running the container is gone afterwards. On
     * failure it runs as before. *ret_frozen_ms: how long its tasks stood still (leave_running; else until it was
     * gone). */
    int (*checkpoint)(struct driver *driver, const char *id, const char *bundle, const char *images_dir,
                      bool leave_running, uint64_t *ret_frozen_ms, struct err *err);
    /* Restore under a new container of this bundle; every task is left stopped. On failure nothing of it is left. */
    int (*restore)(struct driver *driver, const char *id, const char *bundle, const char *images_dir, struct err *err);
    /* Let the tasks of a PAUSED or FROZEN container run. Harmless if they do; ERR_CONFLICT if there are none. */
    int (*resume)(struct driver *driver, const char *id, struct err *err);
    /* To the first process. */
    int (*signal)(struct driver *driver, const char *id, int signal, struct err *err);
    /* Kill what runs of it and forget it; fine if it is not there. */
    int (*remove)(struct driver *driver, const char *id, struct err *err);
    /* "1.1.5", "4.1.1": versions of the engine and of its checkpointer. ERR_UNSUPPORTED with a remedy if one does not
     * work; then its version is "", and that of the other is still set. */
    int (*versions)(struct driver *driver, char ret_engine[32], char ret_checkpointer[32], struct err *err);
    void (*free)(struct driver *driver);
};

struct driver {
    const struct driver_ops *ops;
};

/* The runc driver. `root` is the directory of runc's own state (--root), private to this node. Waits for what a driver
 * of this root has left running; ERR_BUSY if that takes longer than a minute. */
int driver_runc_new(const char *runc, const char *criu, const char *root, struct driver **ret_driver, struct err *err);
