/* What both exports have in common: the pieces of a layout, written into a tar. Inside image only. */
#pragma once

#include "node/image/image.h"

#define IMAGE_BLOB_PATH_SIZE (13 + ID_HEX_SIZE)

OWNED_DEFINE(owned_writer, struct store_archive_writer, store_archive_writer_free)
OWNED_DEFINE(owned_reader, struct store_reader, store_reader_close)

/* "blobs/sha256/<hex>" */
const char *image_blob_path(const struct id *digest, char path[IMAGE_BLOB_PATH_SIZE]);

/* The writer, and in it what every layout has: oci-layout, index.json, the directories. */
int image_export_begin(const void *index, size_t index_bytes, store_archive_write_cb write_cb, void *ctx,
                       struct store_archive_writer **ret_writer, struct err *err);
/* An object as the blob that it is. ERR_NOTFOUND. */
int image_export_object(struct store *store, const struct id *digest, struct store_archive_writer *writer,
                        struct err *err);
