/*
 * The socket file of the control API: made with its final mode from the first moment on, replaced only when it is a
 * leftover, and removed only when it is still ours.
 */
#pragma once

#include <sys/types.h>
#include <time.h>

#include "node/base/err.h"

struct api_listener {
    int fd;       /* owned; -1 after it was handed over */
    char *path;   /* owned */
    dev_t device; /* with the two below: which file was made; inode numbers come back soon */
    ino_t inode;
    struct timespec changed;
};

/* A listening socket at `path`, non-blocking, mode 0660, of `group` if there is one of that name. ERR_BUSY if somebody
 * answers there, ERR_EXISTS if what is there is no socket, ERR_INVALID if the path is too long for sockaddr_un. */
int api_listener_open(const char *path, const char *group, struct api_listener *ret_listener, struct err *err);
/* Close the descriptor, if it is still here, and remove the file, if it is still the one that was made. */
void api_listener_close(struct api_listener *listener);
