/* Images of all formats, made from a handful of small files, and as wrong as a test wants them. */
#pragma once

#include <stdarg.h>

#include "node/base/clock.h"
#include "node/base/crypto.h"
#include "node/base/id.h"
#include "node/image/image.h"
#include "tests/unit/store/tar_builder.h"

#define MACHINE_TEXT image_machine()
const char *image_machine(void);

#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define OCI_LAYER "application/vnd.oci.image.layer.v1.tar"

struct blob {
    char digest[DIGEST_TEXT_SIZE];
    size_t size;
};

UNUSED_FN void write_text(const char *path, const void *data, size_t len)
{
    struct err err = {0};
    if (file_write_atomic(path, data, len, 0644, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
}

/* printf into a buffer that grows. */
UNUSED_FN void text_of(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
UNUSED_FN void text_of(struct buf *buf, const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        abort();
    va_end(args);
    buf_clear(buf);
    if (buf_add_str(buf, text) < 0)
        abort();
    free(text);
}

UNUSED_FN struct blob blob_of(const struct buf *bytes)
{
    struct blob blob = {.size = bytes->len};
    struct id digest;
    crypto_sha256(bytes->data, bytes->len, &digest);
    digest_text(&digest, blob.digest);
    return blob;
}

/* Into DIR/blobs/sha256/. */
UNUSED_FN struct blob put_blob(const char *dir, const struct buf *bytes)
{
    struct blob blob = blob_of(bytes);
    OWNED(owned_free) char *path = file_path("%s/blobs/sha256/%s", dir, blob.digest + 7);
    write_text(path, bytes->data, bytes->len);
    return blob;
}

UNUSED_FN void run_filter(const char *command, const struct buf *in, struct buf *out)
{
    char path[] = "/tmp/cmig-filter-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || file_write_all(fd, in->data, in->len, path, NULL) < 0)
        abort();
    close(fd);
    OWNED(owned_free) char *line = file_path("%s < %s", command, path);
    FILE *pipe = popen(line, "r");
    uint8_t chunk[4096];
    for (size_t got; pipe && (got = fread(chunk, 1, sizeof chunk, pipe)) > 0;)
        buf_add(out, chunk, got);
    if (!pipe || pclose(pipe) != 0)
        abort();
    unlink(path);
}

/* Two layers: the upper one replaces a file, hides a file and hides a directory's content. */
UNUSED_FN void make_layers(struct buf *lower, struct buf *upper)
{
    tar_dir(lower, "bin/", 0755);
    tar_put(lower, &(struct tar_head){.name = "bin/sh", .mode = 0755, .size = 7});
    tar_data(lower, "busybox", 7);
    tar_hard_link(lower, "bin/ls", "bin/sh");
    tar_dir(lower, "etc/", 0755);
    tar_file(lower, "etc/motd", "hello");
    tar_file(lower, "etc/old", "old");
    tar_dir(lower, "var/", 0755);
    tar_file(lower, "var/cache", "c");
    tar_end(lower);
    tar_dir(upper, "etc/", 0755);
    tar_file(upper, "etc/.wh.old", "");
    tar_file(upper, "etc/motd", "hello again");
    tar_file(upper, "var/.wh..wh..opq", "");
    tar_symlink(upper, "bin/bash", "sh");
    tar_end(upper);
}

UNUSED_FN void make_config(struct buf *config, const char *architecture, const struct buf *lower,
                           const struct buf *upper)
{
    struct blob low = blob_of(lower), up = blob_of(upper);
    text_of(config,
            "{\"created\":\"2026-01-02T03:04:05Z\",\"architecture\":\"%s\",\"os\":\"linux\",\"config\":{\"User\":"
            "\"1000:100\","
            "\"Env\":[\"PATH=/bin\",\"A=b=c\"],\"Entrypoint\":[\"/bin/sh\"],\"Cmd\":[\"-c\",\"ls\"],\"WorkingDir\":\"/"
            "etc\","
            "\"Labels\":{\"z\":\"1\",\"a\":\"2\"},\"ExposedPorts\":{\"80/tcp\":{}}},\"rootfs\":{\"type\":\"layers\","
            "\"diff_ids\":[\"%s\",\"%s\"]},\"history\":[{\"created_by\":\"test\"}]}",
            architecture, low.digest, up.digest);
}

/* An OCI layout in `dir`, made. What is NULL is as it should be. */
struct layout {
    const char *index_name;     /* annotation; "none": no annotation; NULL: "repo/app:1" */
    const char *architecture;   /* of the config; NULL: this machine's */
    const char *lower_filter;   /* NULL: gzip */
    const char *upper_filter;   /* NULL: none */
    const char *layer_type;     /* media type; NULL: OCI_LAYER "+gzip" */
    const char *manifest_text;  /* instead of the manifest made here */
    const char *manifest_extra; /* ",\"name\":value", in the manifest */
    const char *index_text;     /* instead of index.json; %s twice: nothing is filled in */
    long layer_size_off;        /* added to the descriptor's size */
    bool corrupt_layer;
    bool swap_layers;   /* in the manifest, against the config */
    bool empty_lower;   /* no bytes at all before the filter */
    size_t lower_bytes; /* of the one file that the lower layer has then; 0: make_layers */
};

/* Text that packs to a third, so that encoders differ on it. */
UNUSED_FN void make_long_layer(struct buf *layer, size_t len)
{
    uint64_t state = 1;
    struct rng rng = rng_seeded(&state);
    OWNED(owned_free) char *text = malloc(len + 32);
    for (size_t at = 0; text && at < len;)
        at += (size_t)sprintf(text + at, "%x the %u\n", (unsigned)rng_below(&rng, 1u << 24),
                              (unsigned)rng_below(&rng, 300));
    tar_put(layer, &(struct tar_head){.name = "text", .size = len});
    tar_data(layer, text, len);
    tar_end(layer);
}

UNUSED_FN struct blob put_manifest(const char *dir, const struct layout *layout, const char *architecture)
{
    OWNED(buf_release) struct buf lower = BUF(4u << 20), upper = BUF(1u << 20), config = BUF(1u << 20);
    OWNED(buf_release) struct buf packed = BUF(4u << 20), packed_upper = BUF(1u << 20), manifest = BUF(16u << 20);
    make_layers(&lower, &upper);
    if (layout->empty_lower)
        buf_clear(&lower);
    if (layout->lower_bytes > 0) {
        buf_clear(&lower);
        make_long_layer(&lower, layout->lower_bytes);
    }
    make_config(&config, architecture, &lower, &upper);
    run_filter(layout->lower_filter ? layout->lower_filter : "gzip -nc", &lower, &packed);
    run_filter(layout->upper_filter ? layout->upper_filter : "cat", &upper, &packed_upper);
    struct blob low = put_blob(dir, &packed), up = put_blob(dir, &packed_upper), conf = put_blob(dir, &config);
    if (layout->corrupt_layer) {
        OWNED(owned_free) char *path = file_path("%s/blobs/sha256/%s", dir, low.digest + 7);
        packed.data[packed.len - 1] ^= 1;
        write_text(path, packed.data, packed.len);
    }
    if (layout->swap_layers) {
        struct blob other = low;
        low = up;
        up = other;
    }
    const char *type = layout->layer_type ? layout->layer_type : OCI_LAYER "+gzip";
    if (layout->manifest_text)
        text_of(&manifest, "%s", layout->manifest_text);
    else
        text_of(
            &manifest,
            "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"" OCI_CONFIG "\",\"digest\":\"%s\",\"size\":%zu},"
            "\"layers\":[{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu},{\"mediaType\":\"%s\",\"digest\":\"%s\","
            "\"size\":%zu}]%s}",
            conf.digest, conf.size, type, low.digest, low.size + (size_t)layout->layer_size_off, type, up.digest,
            up.size, layout->manifest_extra ? layout->manifest_extra : "");
    return put_blob(dir, &manifest);
}

UNUSED_FN void make_layout_dirs(const char *dir)
{
    OWNED(owned_free) char *blobs = file_path("%s/blobs/sha256", dir);
    if (file_make_dirs(blobs, 0755, NULL) < 0)
        abort();
    OWNED(owned_free) char *path = file_path("%s/oci-layout", dir);
    write_text(path, "{\"imageLayoutVersion\": \"1.0.0\"}", 31);
}

UNUSED_FN void put_index(const char *dir, const char *text)
{
    OWNED(owned_free) char *path = file_path("%s/index.json", dir);
    write_text(path, text, strlen(text));
}

UNUSED_FN void make_layout(const char *dir, const struct layout *layout)
{
    make_layout_dirs(dir);
    struct blob manifest = put_manifest(dir, layout, layout->architecture ? layout->architecture : MACHINE_TEXT);
    OWNED(buf_release) struct buf index = BUF(1u << 20);
    const char *name = layout->index_name ? layout->index_name : "repo/app:1";
    char annotation[400] = "";
    if (strcmp(name, "none") != 0)
        snprintf(annotation, sizeof annotation, ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"%s\"}",
                 name);
    text_of(&index,
            "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" OCI_MANIFEST
            "\",\"digest\":\"%s\",\"size\":%zu%s}]}",
            manifest.digest, manifest.size, annotation);
    put_index(dir, layout->index_text ? layout->index_text : (const char *)buf_str(&index));
}
