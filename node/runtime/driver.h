/*
 * What a container engine must be able to do for us. One table a driver; runc.c is the first, podman and docker will be
 * others. All functions block; `id` is the container's name at the engine, `bundle` its OCI bundle directory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "node/base/err.h"

enum driver_status { DRIVER_ABSENT, DRIVER_CREATED, DRIVER_RUNNING, DRIVER_PAUSED, DRIVER_STOPPED };

struct driver_state {
    enum driver_status status;
    pid_t pid; /* of the container's first process, as the host sees it; 0 when it does not run */
};

struct driver; /* one opened engine; the concrete type is the driver's */

struct driver_ops {
    const char *name;
    int (*inspect)(struct driver *driver, const char *id, struct driver_state *ret_state, struct err *err);
    /* Create and start the bundle's process. */
    int (*create)(struct driver *driver, const char *id, const char *bundle, struct err *err);
    /* Dump into images_dir; without leave_running the container is gone afterwards. */
    int (*checkpoint)(struct driver *driver, const char *id, const char *images_dir, bool leave_running,
                      struct err *err);
    /* Restore under a new container of this bundle; every task is left stopped. */
    int (*restore)(struct driver *driver, const char *id, const char *bundle, const char *images_dir,
                   struct err *err);
    /* Let the stopped tasks of a restored container run. */
    int (*resume)(struct driver *driver, const char *id, struct err *err);
    int (*signal)(struct driver *driver, const char *id, int signal, struct err *err);
    /* Kill what runs of it and forget it; fine if it is not there. */
    int (*remove)(struct driver *driver, const char *id, struct err *err);
    /* "1.1.5", "4.1.1": versions of the engine and of its checkpointer; ERR_UNSUPPORTED with a remedy without one. */
    int (*versions)(struct driver *driver, char ret_engine[32], char ret_checkpointer[32], struct err *err);
    void (*free)(struct driver *driver);
};

struct driver {
    const struct driver_ops *ops;
};

/* The runc driver. `root` is the directory of runc's own state (--root), private to this node. */
int driver_runc_new(const char *runc, const char *criu, const char *root, struct driver **ret_driver,
                    struct err *err);
