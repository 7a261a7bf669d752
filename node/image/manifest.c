#include "node/image/manifest.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/limits.h"
#include "node/image/json.h"

#define MANIFEST_TYPE "cmig image"
#define MANIFEST_VERSION 1

const char *image_machine(void)
{
#if defined(__x86_64__)
    return "amd64";
#elif defined(__aarch64__)
    return "arm64";
#elif defined(__arm__)
    return "arm";
#elif defined(__i386__)
    return "386";
#elif defined(__riscv) && __riscv_xlen == 64
    return "riscv64";
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
    return "ppc64le";
#elif defined(__s390x__)
    return "s390x";
#else
#error "add the name that Go has for this machine (GOARCH)"
#endif
}

/* ---- reading what config and manifest have in common ---- */

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for an image");
}

/* An absent string is "". */
static int take_string(const json_t *object, const char *name, char **ret_text, struct err *err)
{
    const char *text = "";
    int status = image_json_string(object, name, &text, err);
    if (status < 0)
        return status;
    *ret_text = strdup(text);
    return *ret_text ? 0 : no_memory(err);
}

static int take_list(const json_t *object, const char *name, char ***ret_list, size_t *ret_count, struct err *err)
{
    const json_t *array = NULL;
    int status = image_json_array(object, name, &array, err);
    if (status < 0)
        return status;
    size_t count = json_array_size(array);
    *ret_list = calloc(count + 1, sizeof **ret_list);
    if (!*ret_list)
        return no_memory(err);
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(array, i));
        if (!text)
            return err_set(err, ERR_INVALID, "field '%s' is not a list of strings", name);
        (*ret_list)[i] = strdup(text);
        if (!(*ret_list)[i])
            return no_memory(err);
        ++*ret_count;
    }
    return 0;
}

static int compare_labels(const void *a, const void *b)
{
    return strcmp(((const struct image_label *)a)->key, ((const struct image_label *)b)->key);
}

static int take_labels(const json_t *object, const char *name, struct image *image, struct err *err)
{
    const json_t *labels = NULL;
    int status = image_json_object(object, name, &labels, err);
    if (status <= 0)
        return status;
    image->labels = calloc(json_object_size(labels) + 1, sizeof *image->labels);
    if (!image->labels)
        return no_memory(err);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)labels, key, value)
    {
        if (!json_is_string(value))
            return err_set(err, ERR_INVALID, "a label's value is not a string");
        struct image_label *label = &image->labels[image->label_count++];
        label->key = strdup(key);
        label->value = strdup(json_string_value(value));
        if (!label->key || !label->value)
            return no_memory(err);
    }
    qsort(image->labels, image->label_count, sizeof *image->labels, compare_labels);
    return 0;
}

static int check_env(const struct image *image, struct err *err)
{
    for (size_t i = 0; i < image->env_count; i++)
        if (!strchr(image->env[i], '=') || image->env[i][0] == '=')
            return err_set(err, ERR_INVALID, "an environment variable is not NAME=value");
    return 0;
}

/* One name for each field, since the two documents spell them differently. */
struct field_names {
    const char *env, *cmd, *entrypoint, *user, *workdir, *labels;
};

static int take_settings(const json_t *object, const struct field_names *names, struct image *image, struct err *err)
{
    int status = take_list(object, names->env, &image->env, &image->env_count, err);
    if (status == 0)
        status = take_list(object, names->cmd, &image->cmd, &image->cmd_count, err);
    if (status == 0)
        status = take_list(object, names->entrypoint, &image->entrypoint, &image->entrypoint_count, err);
    if (status == 0)
        status = take_string(object, names->user, &image->user, err);
    if (status == 0)
        status = take_string(object, names->workdir, &image->workdir, err);
    if (status == 0)
        status = take_labels(object, names->labels, image, err);
    return status == 0 ? check_env(image, err) : status;
}

static int make_layers(struct image *image, size_t count, struct err *err)
{
    if (count < 1 || count > LIMIT_IMAGE_LAYERS)
        return err_set(err, ERR_LIMIT, "an image has 1 to %d layers, not %zu", LIMIT_IMAGE_LAYERS, count);
    image->layers = calloc(count, sizeof *image->layers);
    if (!image->layers)
        return no_memory(err);
    image->layer_count = count;
    return 0;
}

/* ---- the OCI config ---- */

static int take_platform(const json_t *json, struct image *image, struct err *err)
{
    const char *os, *architecture;
    int status = image_json_need_string(json, "os", &os, err);
    if (status >= 0)
        status = image_json_need_string(json, "architecture", &architecture, err);
    if (status < 0)
        return status;
    if (strcmp(os, "linux") != 0 || strcmp(architecture, image_machine()) != 0)
        return err_set(err, ERR_UNSUPPORTED, "the image is for %.20s/%.20s, this machine is linux/%s", os, architecture,
                       image_machine());
    image->architecture = strdup(architecture);
    return image->architecture ? 0 : no_memory(err);
}

static int take_diff_ids(const json_t *json, struct image *image, struct err *err)
{
    const json_t *rootfs = NULL, *diff_ids;
    const char *type;
    int status = image_json_object(json, "rootfs", &rootfs, err);
    if (status == 0)
        return err_set(err, ERR_INVALID, "field 'rootfs' is missing");
    if (status > 0)
        status = image_json_need_string(rootfs, "type", &type, err);
    if (status > 0 && strcmp(type, "layers") != 0)
        return err_set(err, ERR_INVALID, "field 'rootfs.type' is not 'layers'");
    if (status > 0)
        status = image_json_need_array(rootfs, "diff_ids", &diff_ids, err);
    if (status > 0)
        status = make_layers(image, json_array_size(diff_ids), err);
    for (size_t i = 0; status == 0 && i < image->layer_count; i++) {
        const char *text = json_string_value(json_array_get(diff_ids, i));
        if (!text || !digest_parse(text, &image->layers[i].diff_id))
            status = err_set(err, ERR_INVALID, "a diff_id is not sha256: and 64 lower-case hex digits");
    }
    return status;
}

static int fill_from_config(const json_t *json, struct image *image, struct err *err)
{
    static const struct field_names names = {"Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels"};
    const json_t *config = NULL;
    if (!json_is_object(json))
        return err_set(err, ERR_INVALID, "not an object");
    int status = take_platform(json, image, err);
    if (status == 0)
        status = take_diff_ids(json, image, err);
    if (status == 0)
        status = take_string(json, "created", &image->created, err);
    if (status == 0)
        status = image_json_object(json, "config", &config, err);
    return status < 0 ? status : take_settings(config, &names, image, err);
}

int image_config_parse(const void *data, size_t len_bytes, struct image **ret_image, struct err *err)
{
    OWNED(owned_json) json_t *json = NULL;
    OWNED(owned_image) struct image *image = calloc(1, sizeof *image);
    if (!image)
        return no_memory(err);
    int status = image_json_load(data, len_bytes, "the image's config", &json, err);
    if (status < 0)
        return status;
    status = fill_from_config(json, image, err);
    if (status < 0)
        return err_wrap(err, "the image's config");
    crypto_sha256(data, len_bytes, &image->config);
    image->config_bytes = len_bytes;
    *ret_image = STEAL(image);
    return 0;
}

/* ---- our manifest ---- */

static json_t *list_to_json(char *const *list, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        if (json_array_append_new(array, json_string(list[i])) < 0) {
            json_decref(array);
            return NULL;
        }
    return array;
}

static json_t *labels_to_json(const struct image *image)
{
    json_t *labels = json_object();
    for (size_t i = 0; i < image->label_count; i++)
        if (json_object_set_new(labels, image->labels[i].key, json_string(image->labels[i].value)) < 0) {
            json_decref(labels);
            return NULL;
        }
    return labels;
}

static json_t *layers_to_json(const struct image *image)
{
    char digest[DIGEST_TEXT_SIZE];
    json_t *layers = json_array();
    for (size_t i = 0; i < image->layer_count; i++) {
        json_t *layer = json_pack("{s:s, s:I}", "diff_id", digest_text(&image->layers[i].diff_id, digest), "size",
                                  (json_int_t)image->layers[i].size_bytes);
        if (json_array_append_new(layers, layer) < 0) {
            json_decref(layers);
            return NULL;
        }
    }
    return layers;
}

int image_manifest_encode(const struct image *image, struct buf *buf, struct err *err)
{
    char config[DIGEST_TEXT_SIZE];
    /* json_pack takes the references, also when it fails. */
    OWNED(owned_json)
    json_t *json = json_pack("{s:s, s:i, s:s, s:s, s:s, s:s, s:{s:s, s:I}, s:o, s:o, s:o, s:o, s:s, s:s, s:o}", "type",
                             MANIFEST_TYPE, "version", MANIFEST_VERSION, "name", image->name, "os", "linux",
                             "architecture", image->architecture, "created", image->created, "config", "digest",
                             digest_text(&image->config, config), "size", (json_int_t)image->config_bytes, "layers",
                             layers_to_json(image), "env", list_to_json(image->env, image->env_count), "cmd",
                             list_to_json(image->cmd, image->cmd_count), "entrypoint",
                             list_to_json(image->entrypoint, image->entrypoint_count), "user", image->user, "workdir",
                             image->workdir, "labels", labels_to_json(image));
    return json ? image_json_dump(json, buf, err) : no_memory(err);
}

int image_manifest_seal(struct image *image, const char *name, struct buf *buf, struct err *err)
{
    size_t before = buf->len;
    free(image->name);
    image->name = strdup(name);
    if (!image->name)
        return no_memory(err);
    int status = image_manifest_encode(image, buf, err);
    if (status == 0)
        crypto_sha256(buf->data + before, buf->len - before, &image->manifest);
    return status;
}

/* Two layers of one digest have one size: a recipe, a directory, one object. */
static int check_sizes(const struct image *image, struct err *err)
{
    uint64_t total = 0;
    for (size_t i = 0; i < image->layer_count; i++) {
        const struct image_layer *layer = &image->layers[i];
        total += layer->size_bytes;
        if (total > LIMIT_OBJECT_BYTES)
            return err_set(err, ERR_LIMIT, "the layers are larger than %llu bytes",
                           (unsigned long long)LIMIT_OBJECT_BYTES);
        if (id_equal(&layer->diff_id, &image->config))
            return err_set(err, ERR_INVALID, "the config is a layer as well");
        for (size_t j = 0; j < i; j++)
            if (id_equal(&layer->diff_id, &image->layers[j].diff_id) &&
                layer->size_bytes != image->layers[j].size_bytes)
                return err_set(err, ERR_INVALID, "one layer is listed with two sizes");
    }
    return 0;
}

static int take_manifest_layers(const json_t *json, struct image *image, struct err *err)
{
    const json_t *layers;
    int status = image_json_need_array(json, "layers", &layers, err);
    if (status > 0)
        status = make_layers(image, json_array_size(layers), err);
    for (size_t i = 0; status >= 0 && i < image->layer_count; i++) {
        const json_t *layer = json_array_get(layers, i);
        status = image_json_need_digest(layer, "diff_id", &image->layers[i].diff_id, err);
        if (status > 0)
            status = image_json_need_size(layer, "size", LIMIT_OBJECT_BYTES, &image->layers[i].size_bytes, err);
    }
    return status < 0 ? status : check_sizes(image, err);
}

static int take_manifest_config(const json_t *json, struct image *image, struct err *err)
{
    const json_t *config = NULL;
    int status = image_json_object(json, "config", &config, err);
    if (status == 0)
        return err_set(err, ERR_INVALID, "field 'config' is missing");
    if (status > 0)
        status = image_json_need_digest(config, "digest", &image->config, err);
    if (status > 0)
        status = image_json_need_size(config, "size", LIMIT_MANIFEST_BYTES, &image->config_bytes, err);
    return status < 0 ? status : 0;
}

static int fill_from_manifest(const json_t *json, struct image *image, struct err *err)
{
    static const struct field_names names = {"env", "cmd", "entrypoint", "user", "workdir", "labels"};
    char complete[NAME_MAX_BYTES + 1];
    const char *name;
    if (!json_is_object(json))
        return err_set(err, ERR_INVALID, "not an object");
    int status = image_json_need_string(json, "name", &name, err);
    if (status > 0)
        status = image_name_complete(name, complete, err);
    if (status == 0 && strcmp(name, complete) != 0)
        status = err_set(err, ERR_INVALID, "the name has no tag");
    if (status == 0 && !(image->name = strdup(name)))
        status = no_memory(err);
    if (status == 0)
        status = take_string(json, "architecture", &image->architecture, err);
    if (status == 0)
        status = take_string(json, "created", &image->created, err);
    if (status == 0)
        status = take_manifest_config(json, image, err);
    if (status == 0)
        status = take_manifest_layers(json, image, err);
    return status == 0 ? take_settings(json, &names, image, err) : status;
}

/* Type, version, spelling, spaces, order, fields that we don't know: whatever is not as we would have written it, is
 * found by writing it. */
static int check_canonical(const struct image *image, const void *data, size_t len_bytes, struct err *err)
{
    OWNED(buf_release) struct buf ours = BUF(LIMIT_MANIFEST_BYTES);
    int status = image_manifest_encode(image, &ours, err);
    if (status < 0)
        return status;
    if (ours.len != len_bytes || memcmp(ours.data, data, len_bytes) != 0)
        return err_set(err, ERR_INVALID, "not in canonical form, or of another version");
    return 0;
}

int image_parse(const void *data, size_t len_bytes, struct image **ret_image, struct err *err)
{
    OWNED(owned_json) json_t *json = NULL;
    OWNED(owned_image) struct image *image = calloc(1, sizeof *image);
    if (!image)
        return no_memory(err);
    int status = image_json_load(data, len_bytes, "the image manifest", &json, err);
    if (status < 0)
        return status;
    status = fill_from_manifest(json, image, err);
    if (status == 0)
        status = check_canonical(image, data, len_bytes, err);
    if (status < 0)
        return err_wrap(err, "the image manifest");
    crypto_sha256(data, len_bytes, &image->manifest);
    *ret_image = STEAL(image);
    return 0;
}
