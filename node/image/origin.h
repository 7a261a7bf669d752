/*
 * The layout that an image came in, as a document: canonical JSON, an object of its own beside the image's manifest,
 * which does not know of it (docs/decisions/013). Inside image only.
 */
#pragma once

#include "node/image/image.h"
#include "node/image/json.h"

/* Appended to buf; sets origin->digest. */
int image_origin_seal(struct image_origin *origin, struct buf *buf, struct err *err);
/* From hostile bytes: bounded, and written in the one way that image_origin_seal has. */
int image_origin_parse(const void *data, size_t len_bytes, struct image_origin **ret_origin, struct err *err);

/* Layers for the image, all of them opaque so far, without blobs. */
int image_origin_new(const struct image *image, struct image_origin **ret_origin, struct err *err);

/* Do origin, its documents (which are read from the store) and the image belong together? */
int image_origin_check(struct store *store, const struct image_origin *origin, const struct image *image,
                       struct err *err);

/* Remember how an image came: `own` if it was imported here, whose objects then are kept as those of the image are, and
 * which replaces what was known before. */
int image_origin_register(struct store *store, const struct image *image, const struct image_origin *origin, bool own,
                          struct err *err);
/* Forget it, and what kept its objects. */
int image_origin_forget(struct store *store, const struct image *image, struct err *err);

/* 1 and the packing of this blob of this layer, if an image that was imported here has it too; 0 if none has. */
int image_origin_find(struct store *store, const struct image_part *blob, const struct id *diff_id,
                      struct image_packing *ret_packing, struct err *err);
