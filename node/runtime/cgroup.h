/*
 * The control group of a container: its name, and what has to be done to all of its processes without the engine.
 *
 * Works with version 1 (a tree per controller), version 2 and both together, mounted where they always are. The group
 * is a child of the root group, so that it does not end with the service that the daemon may be.
 */
#pragma once

#include <stdbool.h>

#include "node/base/err.h"

#define CGROUP_PATH_SIZE 64

/* "/cmig-<12 hex digits of the engine's root>-<id>": nodes that share a machine can have containers of the same id,
 * while one migrates between them. Returns `path`. */
const char *runtime_cgroup_path(const char *root, const char *id, char path[CGROUP_PATH_SIZE]);

/* Send a signal to every process in it. Fine if it is not there. */
int runtime_cgroup_signal(const char *path, int signal, struct err *err);

/* Kill what is in it, frozen or not, wait for it to be gone (a few seconds at most), and remove it. Fine if it is not
 * there. */
int runtime_cgroup_remove(const char *path, struct err *err);
