#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/cmig/cmig.h"

static void print_image(const struct cmig *cmig, const json_t *image)
{
    size_t i;
    json_t *other;
    if (cmig->json) {
        show_json(image);
        return;
    }
    puts(api_json_text(image, "name"));
    json_array_foreach(json_object_get(image, "others"), i, other)
    {
        puts(json_string_value(other));
    }
}

static int check_format(struct cmig *cmig, const char *format, struct err *err)
{
    static const char *const formats[] = {"auto", "oci", "docker", "rootfs"};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (strcmp(format, formats[i]) == 0)
            return 0;
    }
    return args_misuse(cmig, err, "--format takes oci, docker, rootfs or auto, not '%s'", format);
}

static void draw_import(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
    progress_draw(ctx, "importing", done_bytes, total_bytes, 0, 0);
}

static int import_stream(struct cmig *cmig, int fd, int64_t size_bytes, const char *format, const char *name,
                         json_t **ret_image, struct err *err)
{
    OWNED(owned_free) char *encoded = api_path_encode(name ? name : "");
    OWNED(owned_free) char *query = NULL;
    if (!encoded || asprintf(&query, "format=%s%s%s", format, name ? "&name=" : "", encoded) < 0)
        return err_set(err, ERR_NOMEM, "out of memory");
    struct progress progress;
    progress_init(&progress, cmig);
    struct api_call call = {.route = API_ROUTE_image_import, .query = query};
    int code = api_client_upload(cmig->client, &call, fd, size_bytes, draw_import, &progress, ret_image, err);
    progress_end(&progress);
    return code;
}

/* The daemon is on this machine and reads the directory itself. */
static int import_directory(struct cmig *cmig, const char *path, const char *format, const char *name,
                            json_t **ret_image, struct err *err)
{
    OWNED(owned_free) char *absolute = realpath(path, NULL);
    if (!absolute)
        return err_errno(err, errno, "cannot find '%s'", path);
    OWNED(owned_json) json_t *body = json_pack("{s:s, s:s, s:s*}", "path", absolute, "format", format, "name", name);
    if (!body)
        return err_set(err, ERR_INVALID, "'%s' or the name given is not UTF-8", absolute);
    struct api_call call = {.route = API_ROUTE_image_import, .body = body};
    return api_client_call(cmig->client, &call, ret_image, err);
}

/* A file is sent: so it need be readable to its owner only, and progress is seen. */
static int import_file(struct cmig *cmig, const char *path, const char *format, const char *name, json_t **ret_image,
                       struct err *err)
{
    struct stat st;
    OWNED(owned_fd) int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(err, errno, "cannot open '%s'", path);
    if (S_ISDIR(st.st_mode))
        return import_directory(cmig, path, format, name, ret_image, err);
    bool whole = S_ISREG(st.st_mode) && lseek(fd, 0, SEEK_CUR) == 0;
    return import_stream(cmig, fd, whole ? (int64_t)st.st_size : -1, format, name, ret_image, err);
}

int image_import(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *image = NULL;
    const char *path = cmig->operands[0], *format = args_flag(cmig, "format"), *name = args_flag(cmig, "name");
    if (!format)
        format = "auto";
    int code = check_format(cmig, format, err);
    if (code == 0)
        code = import_file(cmig, path, format, name, &image, err);
    if (code == 0)
        print_image(cmig, image);
    return code;
}

int image_ls(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *reply = NULL;
    int code = api_client_call(cmig->client, &(struct api_call){.route = API_ROUTE_image_list}, &reply, err);
    if (code < 0 || cmig->json) {
        if (code == 0)
            show_json(reply);
        return code;
    }
    OWNED(owned_table) struct table *table = table_new("NAME DIGEST >SIZE >LAYERS CREATED");
    size_t i;
    json_t *image;
    json_array_foreach(json_object_get(reply, "images"), i, image)
    {
        const json_t *layers = json_object_get(image, "layers");
        table_add(table, api_json_text(image, "name"));
        table_add_id(table, api_json_text(image, "digest"), cmig->full);
        table_add_bytes(table, api_json_number(image, "size_bytes"));
        table_add_number(table, json_is_array(layers) ? json_array_size(layers) : api_json_number(image, "layers"));
        table_add(table, api_json_text(image, "created"));
    }
    return table_print(table, err);
}

/* How the layer's blob is had: "plain", "gzip -6", "opaque"; "-" if nobody knows of one. */
static const char *packing_text(const json_t *layer, char text[32])
{
    const char *codec = json_string_value(json_object_get(layer, "codec"));
    uint64_t level = api_json_number(layer, "level");
    if (!codec)
        return "-";
    if (level == 0)
        return codec;
    snprintf(text, 32, "%s -%llu", codec, (unsigned long long)level);
    return text;
}

static int print_layers(const struct cmig *cmig, const json_t *layers, struct err *err)
{
    OWNED(owned_table) struct table *table = table_new("LAYER >SIZE BLOB >SIZE PACKING");
    size_t i;
    json_t *layer;
    json_array_foreach(layers, i, layer)
    {
        char text[32];
        table_add_id(table, api_json_text(layer, "digest"), cmig->full);
        table_add_bytes(table, api_json_number(layer, "size_bytes"));
        table_add_id(table, api_json_text(layer, "blob"), cmig->full);
        table_add_bytes(table, api_json_number(layer, "blob_bytes"));
        table_add(table, packing_text(layer, text));
    }
    return table_print(table, err);
}

int image_show(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *image = NULL;
    struct api_call call = {.route = API_ROUTE_image_show, .name = cmig->operands[0]};
    int code = api_client_call(cmig->client, &call, &image, err);
    if (code < 0 || cmig->json) {
        if (code == 0)
            show_json(image);
        return code;
    }
    OWNED(owned_table) struct table *table = table_new("NAME DIGEST OCI-MANIFEST CREATED");
    table_add(table, api_json_text(image, "name"));
    table_add_id(table, api_json_text(image, "digest"), cmig->full);
    table_add_id(table, api_json_text(image, "oci_manifest"), cmig->full);
    table_add(table, api_json_text(image, "created"));
    code = table_print(table, err);
    if (code < 0)
        return code;
    putchar('\n');
    return print_layers(cmig, json_object_get(image, "layers"), err);
}

int image_rm(struct cmig *cmig, struct err *err)
{
    for (int i = 0; i < cmig->operand_count; i++) {
        OWNED(owned_json) json_t *reply = NULL;
        struct api_call call = {.route = API_ROUTE_image_remove,
                                .name = cmig->operands[i],
                                .query = args_flag(cmig, "force") ? "force=1" : NULL};
        int code = api_client_call(cmig->client, &call, &reply, err);
        if (code < 0)
            return code;
        if (cmig->json)
            show_json(reply);
        else
            puts(cmig->operands[i]);
    }
    return 0;
}

int image_export(struct cmig *cmig, struct err *err)
{
    struct api_call call = {.route = API_ROUTE_image_export,
                            .name = cmig->operands[0],
                            .query = args_flag(cmig, "original") ? "original=1" : NULL};
    struct download down;
    int code = download_open(cmig, &down, err);
    if (code == 0)
        code = download_run(&down, &call, NULL, err);
    if (code == 0 && cmig->json) {
        OWNED(owned_json)
        json_t *result = json_pack("{s:s, s:I}", "name", cmig->operands[0], "size_bytes", (json_int_t)down.bytes);
        show_json(result);
    }
    download_close(&down);
    return code;
}
