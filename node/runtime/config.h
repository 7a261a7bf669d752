/*
 * config.json of a container (OCI runtime-spec 1.0.2): made of its spec and of this node's policy, of nothing else. The
 * same spec gives the same mounts, namespaces and rights on every node, which is what CRIU needs to restore there.
 */
#pragma once

#include <jansson.h>

#include "node/runtime/runtime.h"

struct runtime_config {
    const struct runtime_spec *spec; /* whole; borrowed, as all */
    const char *bundle;              /* with rootfs, resolv.conf and hosts in it; absolute, as all paths */
    const char *log;                 /* a file that the container's user may write */
    const char *exec_helper;
    const char *volumes_dir;
    const char *cgroup; /* as runtime_cgroup_path makes it */
};

/* NULL when out of memory, or when the spec is not UTF-8. */
json_t *runtime_config_to_json(const struct runtime_config *config);

/* Replace BUNDLE/config.json. */
int runtime_config_write(const struct runtime_config *config, struct err *err);
