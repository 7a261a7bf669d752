/*
 * How a layer's compressed blob is made of its plain tar, and the making of it. Inside image only; the door to zlib.
 *
 * The encoders are zlib and zstd as they are on this machine. Nothing here promises that a blob comes out as it once
 * was: whoever makes one compares it, or its digest, with what it should be.
 */
#pragma once

#include "node/image/image.h"
#include "node/image/json.h"
#include "store/archive.h"

/* What the first bytes of a blob say about how it was made: codec, and of gzip the head (RFC 1952, section 2.3), of
 * zstd checksum and size (RFC 8878, section 3.1.1.1). IMAGE_CODEC_OPAQUE if they say something that no encoder here
 * could. At least IMAGE_PACKING_LOOK_BYTES, or the whole blob. */
#define IMAGE_PACKING_LOOK_BYTES 512
void image_packing_look(const void *data, size_t len_bytes, struct image_packing *ret_packing);

/* As the fields of a JSON object, and back from hostile ones. ERR_NOMEM; ERR_INVALID. */
int image_packing_encode(const struct image_packing *packing, json_t *object, struct err *err);
int image_packing_decode(const json_t *object, struct image_packing *ret_packing, struct err *err);

/* Plain bytes go in by write, the blob's bytes come out through write_cb, during write and finish. `packing` is
 * borrowed until the free; opaque ones have no maker: ERR_INVALID. */
struct image_recompress;
int image_recompress_new(const struct image_packing *packing, uint64_t plain_bytes, store_archive_write_cb write_cb,
                         void *ctx, struct image_recompress **ret_press, struct err *err);
int image_recompress_write(struct image_recompress *press, const void *data, size_t len_bytes, struct err *err);
int image_recompress_finish(struct image_recompress *press, struct err *err);
void image_recompress_free(struct image_recompress *press);
OWNED_DEFINE(owned_recompress, struct image_recompress, image_recompress_free)
