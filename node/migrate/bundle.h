/*
 * Trees and checkpoints as objects of the store, and back. Everything here blocks and runs in jobs.
 *
 * A checkpoint is one archive of CRIU's small images and one object for each pages-N.img, which is cut at page
 * boundaries so that two dumps of one process share what did not change.
 */
#pragma once

#include "node/migrate/manifest.h"

/* Archive the tree at `path`; `overlay`: it is (or contains) the upper directory of an overlayfs. */
int bundle_pack_tree(struct store *store, const char *path, enum store_kind kind, bool overlay,
                     struct migrate_object *ret_object, struct err *err);
/* Make the tree at `path` equal to the archive: from nothing, or from an older state of it. */
int bundle_unpack_tree(struct store *store, const struct id *digest, const char *path, bool overlay, struct err *err);

/* Add the objects of the CRIU images in `dir` to the manifest. */
int bundle_pack_checkpoint(struct store *store, const char *dir, struct manifest *manifest, struct err *err);
/* Write them into the new directory `dir`, mode 0700, files 0600; nothing of it is left on failure. */
int bundle_unpack_checkpoint(struct store *store, const struct manifest *manifest, const char *dir, struct err *err);

/* Resident memory of all processes in the PID namespace of `pid`, in bytes; 0 if it cannot be told. */
uint64_t bundle_memory_of(pid_t pid);
