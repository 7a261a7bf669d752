/*
 * What must stand before a container can be created or restored: its image's layers unpacked and kept from eviction,
 * its volumes, the overlay, config.json. All for entries that the caller has taken.
 */
#pragma once

#include "node/image/image.h"
#include "node/runtime/table.h"

/* The image of this manifest, which needs no name any more. ERR_NOTFOUND. */
int runtime_stage_image(struct runtime *runtime, const struct id *manifest, struct image **ret_image, struct err *err);

/* Once per container: make its directories, write its record, pin the image's objects, unpack its layers. */
int runtime_stage_make(struct runtime *runtime, struct runtime_entry *entry, struct err *err);
/* Before each start: make volumes that are not there, mount the overlay, write config.json. */
int runtime_stage_mount(struct runtime *runtime, struct runtime_entry *entry, struct err *err);
/* Undo both: unmount, unpin, remove all files of the container; its volumes stay. */
int runtime_stage_remove(struct runtime *runtime, struct runtime_entry *entry, struct err *err);
