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
    /* Of OCI layouts: the documents that led to the image that is being imported, and their bytes one after the other.
     */
    struct image_part documents[LIMIT_IMAGE_DOCUMENTS];
    size_t document_count;
    struct buf document_bytes; /* owned */
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
/* The image with this config, if the source is an OCI layout too, as docker's archives are since version 25, and its
 * index.json leads there: 1. 0 if not: it is then to be taken without a layout. */
int image_import_oci_config(struct image_import *import, const struct id *config, const char *const *names,
                            size_t name_count, struct err *err);

/* ---- names.c ---- */

/* Kinds of references (struct store_ref). */
#define IMAGE_REF 1        /* from a name to an image's manifest */
#define IMAGE_ORIGIN_REF 2 /* from a manifest's digest in hex to the image's origin */

/* Who keeps an imported image's objects. */
#define IMAGE_OWNER_SIZE (6 + ID_HEX_SIZE)
const char *image_owner(const struct image *image, char owner[IMAGE_OWNER_SIZE]);

/* Make a small object of these bytes. */
int image_put_blob(struct store *store, const void *data, size_t len_bytes, struct err *err);
/* A whole document of at most LIMIT_MANIFEST_BYTES, appended to buf. ERR_NOTFOUND. */
int image_read_blob(struct store *store, const struct id *digest, struct buf *buf, struct err *err);
int image_load(struct store *store, const struct id *manifest, struct image **ret_image, struct err *err);
/* All of it is in the store: keep it there and let its name mean it. What had the name before is let go. `origin` NULL:
 * what is known of how it came stays. */
int image_register(struct store *store, const struct image *image, const struct image_origin *origin, struct err *err);
/* ERR_NOTFOUND naming what is missing; ERR_CORRUPT for a layer of another size than the manifest says. */
int image_check_objects(struct store *store, const struct image *image, struct err *err);
