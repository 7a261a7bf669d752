#include "node/image/image.h"

#include <stdlib.h>
#include <string.h>

#include "node/image/manifest.h"

static void free_list(char **list)
{
    for (char **item = list; item && *item; item++)
        free(*item);
    free(list);
}

void image_free(struct image *image)
{
    if (!image)
        return;
    free(image->name);
    free(image->layers);
    free(image->architecture);
    free(image->created);
    free_list(image->env);
    free_list(image->cmd);
    free_list(image->entrypoint);
    free(image->user);
    free(image->workdir);
    for (size_t i = 0; i < image->label_count; i++) {
        free(image->labels[i].key);
        free(image->labels[i].value);
    }
    free(image->labels);
    free(image);
}

void image_list_release(struct image_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        image_free(list->images[i]);
    free(list->images);
    *list = (struct image_list){0};
}

bool image_format_parse(const char *text, enum image_format *ret_format)
{
    static const struct {
        const char *text;
        enum image_format format;
    } formats[] = {{"oci", IMAGE_FORMAT_OCI}, {"docker", IMAGE_FORMAT_DOCKER}, {"rootfs", IMAGE_FORMAT_ROOTFS}};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(text, formats[i].text) == 0) {
            *ret_format = formats[i].format;
            return true;
        }
    }
    return false;
}

/* What docker calls "busybox" and writes as "docker.io/library/busybox" (distribution/reference, familiar names). */
static const char *familiar(const char *name)
{
    static const char *const prefixes[] = {"docker.io/library/", "docker.io/"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return name + strlen(prefixes[i]);
    return name;
}

int image_name_complete(const char *name, char ret_name[NAME_MAX_BYTES + 1], struct err *err)
{
    const char *known = familiar(name);
    const char *slash = strrchr(known, '/');
    const char *last = slash ? slash + 1 : known, *tag = strchr(last, ':');
    bool sound = tag ? tag > last && tag[1] && !strchr(tag + 1, ':') : *last;
    if (!sound || !image_name_is_valid(name) || !image_name_is_valid(known) || strchr(known, '@'))
        return err_set(err, ERR_INVALID, "not an image name: letters, digits and ._-/ with an optional :tag");
    if (snprintf(ret_name, NAME_MAX_BYTES + 1, "%s%s", known, tag ? "" : ":latest") > NAME_MAX_BYTES)
        return err_set(err, ERR_INVALID, "an image name with its tag is at most %d bytes long", NAME_MAX_BYTES);
    return 0;
}

static bool listed(const struct id *ids, size_t count, const struct id *id)
{
    for (size_t i = 0; i < count; i++)
        if (id_equal(&ids[i], id))
            return true;
    return false;
}

int image_objects(const struct image *image, struct id **ret_ids, size_t *ret_count, struct err *err)
{
    struct id *ids = calloc(image->layer_count + 2, sizeof *ids);
    if (!ids)
        return err_set(err, ERR_NOMEM, "no memory for a list of objects");
    size_t count = 0;
    ids[count++] = image->manifest;
    ids[count++] = image->config;
    for (size_t i = 0; i < image->layer_count; i++)
        if (!listed(ids, count, &image->layers[i].diff_id))
            ids[count++] = image->layers[i].diff_id;
    *ret_ids = ids;
    *ret_count = count;
    return 0;
}
