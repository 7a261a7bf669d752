/*
 * What the imports of all formats have in common: layers and config into the store, verified on their way, and then the
 * names. Inside image only.
 */
#pragma once

#include "node/image/image.h"
#include "node/image/source.h"

struct image_import {
    struct store *store;                        /* borrowed */
    struct image_source source;                 /* owned */
    const struct image_import_options *options; /* borrowed */
    const char *name;       /* complete; instead of what the source says; NULL: as the source says */
    struct image_list list; /* owned; what was imported so far */
};

/* A file of the source that a document names. */
struct image_blob {
    char *path;
    bool has_digest; /* then digest and size are what the file must have */
    struct id digest;
    uint64_t size_bytes;
};

/* One image: its config, its layers from the lowest up (owned by the caller), its names (at least one). */
int image_import_one(struct image_import *import, const struct buf *config, const struct image_blob *layers,
                     size_t layer_count, const char *const *names, size_t name_count, struct err *err);

/* The formats. */
int image_import_oci(struct image_import *import, struct err *err);
int image_import_docker(struct image_import *import, struct err *err);

/* ---- names.c ---- */

/* Make a small object of these bytes. */
int image_put_blob(struct store *store, const void *data, size_t len_bytes, struct err *err);
/* All of it is in the store: keep it there and let its name mean it. What had the name before is let go. */
int image_register(struct store *store, const struct image *image, struct err *err);
/* ERR_NOTFOUND naming what is missing; ERR_CORRUPT for a layer of another size than the manifest says. */
int image_check_objects(struct store *store, const struct image *image, struct err *err);
