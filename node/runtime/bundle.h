/*
 * Where the files of one container lie, and the overlay that is its root file system.
 *
 *   containers/<id>/container.json   its record
 *                   rw/upper, rw/log what it has written: the part that migrates
 *                   work/            overlayfs's own
 *                   bundle/          config.json, criu.conf, criu/ (logs), rootfs/ (the overlay, while it is mounted)
 *
 * rw may come from another node: its two entries are looked at before they are used.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"
#include "node/base/id.h"
#include "node/image/image.h"

/* All owned, absolute. */
struct runtime_bundle {
    char *home; /* containers/<id> */
    char *record;
    char *rw, *upper, *log;
    char *work;
    char *bundle, *rootfs;
};

int runtime_bundle_init(struct runtime_bundle *bundle, const char *containers_dir, const struct guid *id,
                        struct err *err);
void runtime_bundle_release(struct runtime_bundle *bundle);

/* Make all of the directories and an empty log that belongs to the container's user. */
int runtime_bundle_make(const struct runtime_bundle *bundle, uint32_t uid, uint32_t gid, struct err *err);

/* Mount the overlay of the image's unpacked layers and `upper`; what was mounted there before is unmounted, so that
 * nothing is remembered of an `upper` that was replaced. ERR_INVALID if upper or log are not a directory and a file. */
int runtime_bundle_mount(const struct runtime_bundle *bundle, const struct image *image, const char *layers_dir,
                         struct err *err);
/* Fine if it is not mounted. */
void runtime_bundle_unmount(const struct runtime_bundle *bundle);

/* Unmount and remove all of it. */
int runtime_bundle_remove(const struct runtime_bundle *bundle, struct err *err);
