/*
 * What an image is, as documents: the OCI config that it came with, and our manifest, which is canonical JSON and can
 * be derived from config, name and layer sizes alone. Pure functions on bytes. Inside image only; docs/images.md.
 */
#pragma once

#include "node/image/image.h"

/* "linux" images of this architecture run here; as Go spells it. */
const char *image_machine(void);

/* "app" is "app:latest", and "docker.io/library/app" is "app". ERR_INVALID unless image_name_is_valid, or with a digest
 * in it. ret_name: NAME_MAX_BYTES + 1.
 */
int image_name_complete(const char *name, char ret_name[NAME_MAX_BYTES + 1], struct err *err);

/* An OCI config (image-spec v1.1, config.md), hostile: everything but name and manifest is filled in, layers without
 * their sizes. ERR_UNSUPPORTED if it is for another machine. */
int image_config_parse(const void *data, size_t len_bytes, struct image **ret_image, struct err *err);

/* Our manifest of an image, appended to buf. */
int image_manifest_encode(const struct image *image, struct buf *buf, struct err *err);
/* Give an image whose layers have their sizes a name, and with that its manifest, whose bytes are appended. */
int image_manifest_seal(struct image *image, const char *name, struct buf *buf, struct err *err);
