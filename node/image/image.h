/*
 * Container images in the node's own store: import, names, unpacked layers, export.
 *
 * An image is three kinds of objects: a manifest of ours (canonical JSON), the OCI config it came with, byte for byte,
 * and its layers as plain tars, named by the digests that OCI calls diff_ids. A name ("repository:tag") is a store
 * reference to a manifest. Owns no directory: the unpacked layers lie where the caller says. Never runs anything, never
 * asks the network. Blocking; any thread. docs/images.md has the manifest's format.
 *
 * 1. Nothing gets a name before all of it is in the store and verified: each layer against its diff_id, the config
 *    against the manifest, the manifest against what we would have written ourselves.
 * 2. The same image gives the same manifest digest on every node, whatever it was imported from.
 * 3. An unpacked layer is complete or absent, also after a power cut, and is shared by all images that have it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"
#include "node/base/id.h"
#include "node/base/limits.h"
#include "node/base/scope.h"
#include "store/archive.h"
#include "store/store.h"

struct image_layer {
    struct id diff_id; /* SHA-256 of the plain tar: the object's name in the store */
    uint64_t size_bytes;
};

struct image_label {
    char *key;   /* owned */
    char *value; /* owned */
};

/* Read-only once made; all of it is owned by the struct. Lists end with a NULL that the count leaves out. */
struct image {
    char *name; /* repository:tag */
    struct id manifest;
    struct id config;
    uint64_t config_bytes;
    struct image_layer *layers; /* the lowest first */
    size_t layer_count;
    char *architecture; /* as Go spells it: amd64, arm64 */
    char *created;      /* RFC 3339 as in the config, or "" */
    char **env;         /* NAME=value */
    size_t env_count;
    char **cmd;
    size_t cmd_count;
    char **entrypoint;
    size_t entrypoint_count;
    char *user;                 /* "", name, uid, name:group, uid:gid */
    char *workdir;              /* "" or absolute */
    struct image_label *labels; /* sorted by key */
    size_t label_count;
};

void image_free(struct image *image);
OWNED_DEFINE(owned_image, struct image, image_free)

struct image_list {
    struct image **images; /* owned, each of them */
    size_t count;
};

void image_list_release(struct image_list *list);

/* ---- the layout that an image came in ---- */

enum image_codec {
    IMAGE_CODEC_PLAIN,  /* the blob is the tar itself */
    IMAGE_CODEC_GZIP,   /* made of the tar, bit for bit, by zlib */
    IMAGE_CODEC_ZSTD,   /* by zstd */
    IMAGE_CODEC_OPAQUE, /* it cannot be made: the blob is an object of its own */
};
/* "plain", "gzip", "zstd", "opaque" */
const char *image_codec_name(enum image_codec codec);

/* How a layer's blob is made of its tar; docs/images.md has the fields. */
struct image_packing {
    enum image_codec codec;
    uint8_t level;
    uint8_t memory; /* gzip: zlib's memLevel, 8 or 9 */
    bool blocks;    /* gzip: in blocks of 128 KiB, as pigz */
    bool checksum;  /* zstd */
    bool sized;     /* zstd */
    bool jobs;      /* zstd: as the zstd command */
    uint16_t head_len;
    uint8_t head[LIMIT_IMAGE_HEAD_BYTES]; /* gzip: the blob's first bytes */
};

/* A blob or document of the layout. */
struct image_part {
    struct id digest;
    uint64_t size_bytes;
};

struct image_origin_layer {
    struct image_part blob;
    struct image_packing packing;
};

/* Read-only once made; all of it is owned by the struct. */
struct image_origin {
    struct id digest;                                   /* of itself, as an object */
    struct id config;                                   /* of the image that came so */
    struct image_part documents[LIMIT_IMAGE_DOCUMENTS]; /* index.json, the indexes that it leads to, the OCI manifest */
    size_t document_count;
    struct image_origin_layer *layers; /* the lowest first */
    size_t layer_count;
};

void image_origin_free(struct image_origin *origin);
OWNED_DEFINE(owned_image_origin, struct image_origin, image_origin_free)

/* 1 if it is known here how the image came, 0 if not: it was a docker archive or a root file system, or nobody told. */
int image_origin_get(struct store *store, const struct image *image, struct image_origin **ret_origin, struct err *err);

/* ---- import and export ---- */

enum image_format {
    IMAGE_FORMAT_ANY,    /* look and decide */
    IMAGE_FORMAT_OCI,    /* OCI image layout: a directory or a tar of it */
    IMAGE_FORMAT_DOCKER, /* docker-archive: what `docker save` writes */
    IMAGE_FORMAT_ROOTFS, /* a file system as one tar */
};

/* "oci", "docker", "rootfs"; false for anything else. */
bool image_format_parse(const char *text, enum image_format *ret_format);

struct image_import_options {
    enum image_format format;
    const char *name;        /* repository[:tag], instead of the one inside; needed for a rootfs; may be NULL */
    const char *scratch_dir; /* an existing directory for the import's temporary files */
    /* Asked again and again on the importing thread, may be NULL; true ends the import with ERR_CANCELLED. */
    bool (*is_cancelled)(void *ctx);
    void *ctx;
};

/* Import from a file or directory and register under its name or names. All images of the source are imported; with
 * options->name there must be exactly one. Of a multi-platform index, the image for Linux on this machine is taken.
 * ERR_INVALID: malformed or forbidden; ERR_CORRUPT: a digest does not fit; ERR_UNSUPPORTED: format, platform.
 * ret_list may be NULL. */
int image_import(struct store *store, const char *source_path, const struct image_import_options *options,
                 struct image_list *ret_list, struct err *err);
/* The same from a readable descriptor of a regular file (read from its start) or directory, which stays the caller's.
 */
int image_import_fd(struct store *store, int fd, const struct image_import_options *options,
                    struct image_list *ret_list, struct err *err);

/* Write an OCI image layout as a tar: deterministic, layers uncompressed. */
int image_export(struct store *store, const struct image *image, store_archive_write_cb write_cb, void *ctx,
                 struct err *err);
/* The same as it was imported: index.json, the other documents and the layers' blobs have the bytes that they had then.
 * ERR_NOTFOUND if that is not known here, or an opaque blob is missing (image_origin_objects tells which there are).
 * ERR_CORRUPT if a blob cannot be made any more, by another zlib or zstd than then. */
int image_export_original(struct store *store, const struct image *image, store_archive_write_cb write_cb, void *ctx,
                          struct err *err);

/* ---- names ---- */

/* All images, sorted by name. */
int image_list(struct store *store, struct image_list *ret_list, struct err *err);

/* By name ("busybox" is "busybox:latest"), "sha256:<hex>" of the manifest (which then needs no name here), or at least
 * 6 hex digits that begin only one named manifest's. ERR_NOTFOUND; ERR_CONFLICT if the prefix is not unique. */
int image_get(struct store *store, const char *name, struct image **ret_image, struct err *err);

/* Take the name away, and with it what kept the objects of an import from eviction. Objects that nothing else refers to
 * go with the store's next collection. */
int image_remove(struct store *store, const char *name, struct err *err);

/* ---- between nodes ---- */

/* All digests that another node needs to run it: manifest, config, layers, each once. *ret_ids is for free(). */
int image_objects(const struct image *image, struct id **ret_ids, size_t *ret_count, struct err *err);

/* What another node needs in addition to give the layout back: the origin itself, then the documents of the layout,
 * then (with `opaque`) the blobs that cannot be made of their tars. None of it is needed to run the image. */
int image_origin_objects(const struct image_origin *origin, bool opaque, struct id **ret_ids, size_t *ret_count,
                         struct err *err);

/* Read a manifest of ours from hostile bytes. Says nothing about whether its objects are here. */
int image_parse(const void *data, size_t len_bytes, struct image **ret_image, struct err *err);

/* The manifest `manifest` was fetched from a peer, as were its config and layers: check that all are here and fit
 * together, and register the name in it, unless that means another image here: then it stays reachable by digest. It is
 * not kept from eviction. ERR_NOTFOUND names what is missing. ret_image may be NULL. */
int image_adopt(struct store *store, const struct id *manifest, struct image **ret_image, struct err *err);

/* `origin` was fetched from a peer for this image, with the documents that it names; its opaque blobs need not be here.
 * Check that they belong together and to the image, and remember it, unless it is known how the image came here.
 * ERR_INVALID, ERR_NOTFOUND. */
int image_adopt_origin(struct store *store, const struct image *image, const struct id *origin, struct err *err);

/* ---- unpacked layers ---- */

/* Each layer as a directory layers_dir/<64 hex of its diff_id>, for use as an overlayfs lowerdir (the image's last
 * layer is the uppermost). Layers that are there already are left alone. */
int image_unpack_layers(struct store *store, const struct image *image, const char *layers_dir, struct err *err);

/* Remove the unpacked layers that are not among `in_use`, and what an interrupted unpacking has left behind.
 * *ret_removed may be NULL. Not at the same time as image_unpack_layers for an image whose layers are not in the list.
 */
int image_layers_gc(const char *layers_dir, const struct id *in_use, size_t in_use_count, size_t *ret_removed,
                    struct err *err);
