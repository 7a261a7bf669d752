#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cmig/cmig.h"

static void print_image(const struct cmig *cmig, const json_t *image)
{
    if (cmig->json)
        show_json(image);
    else
        puts(api_json_text(image, "name"));
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

static int import_stream(struct cmig *cmig, const char *format, const char *name, json_t **ret_image, struct err *err)
{
    OWNED(owned_free) char *encoded = api_path_encode(name ? name : "");
    OWNED(owned_free) char *query = NULL;
    if (!encoded || asprintf(&query, "format=%s%s%s", format, name ? "&name=" : "", encoded) < 0)
        return err_set(err, ERR_NOMEM, "out of memory");
    struct progress progress;
    progress_init(&progress, cmig);
    struct api_call call = {.route = API_ROUTE_image_import, .query = query};
    int code = api_client_upload(cmig->client, &call, STDIN_FILENO, -1, draw_import, &progress, ret_image, err);
    progress_end(&progress);
    return code;
}

/* The daemon is on this machine and reads the file or directory itself. */
static int import_path(struct cmig *cmig, const char *path, const char *format, const char *name, json_t **ret_image,
                       struct err *err)
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

int image_import(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *image = NULL;
    const char *path = cmig->operands[0], *format = args_flag(cmig, "format"), *name = args_flag(cmig, "name");
    if (!format)
        format = "auto";
    int code = check_format(cmig, format, err);
    if (code == 0)
        code = strcmp(path, "-") == 0 ? import_stream(cmig, format, name, &image, err)
                                      : import_path(cmig, path, format, name, &image, err);
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
    struct api_call call = {.route = API_ROUTE_image_export, .name = cmig->operands[0]};
    return download_run(cmig, &call, args_flag(cmig, "output"), NULL, err);
}
