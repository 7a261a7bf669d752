#include "node/runtime/spec.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/runtime/json.h"

/* ---- ownership ---- */

void runtime_strings_release(struct runtime_strings *strings)
{
    for (size_t i = 0; i < strings->count; i++)
        free(strings->items[i]);
    free(strings->items);
    *strings = (struct runtime_strings){0};
}

int runtime_strings_add(struct runtime_strings *strings, const char *text, struct err *err)
{
    if (strings->count == RUNTIME_MAX_STRINGS)
        return err_set(err, ERR_INVALID, "more than %d arguments, variables or labels", RUNTIME_MAX_STRINGS);
    char **items = reallocarray(strings->items, strings->count + 1, sizeof *items);
    if (items)
        strings->items = items;
    char *copy = items ? strdup(text) : NULL;
    if (!copy)
        return err_set(err, ERR_NOMEM, "no memory for a container's strings");
    strings->items[strings->count++] = copy;
    return 0;
}

void runtime_spec_release(struct runtime_spec *spec)
{
    free(spec->name);
    free(spec->image);
    free(spec->user);
    free(spec->workdir);
    runtime_strings_release(&spec->args);
    runtime_strings_release(&spec->env);
    runtime_strings_release(&spec->labels);
    for (size_t i = 0; i < spec->volume_count; i++)
        free(spec->volumes[i].path);
    free(spec->volumes);
    *spec = (struct runtime_spec){0};
}

static int copy_text(char **ret_copy, const char *text, struct err *err)
{
    *ret_copy = strdup(text ? text : "");
    return *ret_copy ? 0 : err_set(err, ERR_NOMEM, "no memory for a container's spec");
}

static int copy_strings(struct runtime_strings *copy, const struct runtime_strings *strings, struct err *err)
{
    int status = 0;
    for (size_t i = 0; status == 0 && i < strings->count; i++)
        status = runtime_strings_add(copy, strings->items[i], err);
    return status;
}

static int add_volume(struct runtime_spec *spec, const struct guid *guid, const char *path, bool read_only,
                      struct err *err)
{
    struct runtime_volume *volumes = reallocarray(spec->volumes, spec->volume_count + 1, sizeof *volumes);
    if (!volumes)
        return err_set(err, ERR_NOMEM, "no memory for a container's volumes");
    spec->volumes = volumes;
    struct runtime_volume *volume = &volumes[spec->volume_count];
    *volume = (struct runtime_volume){.guid = *guid, .read_only = read_only};
    int status = copy_text(&volume->path, path, err);
    spec->volume_count += status == 0;
    return status;
}

int runtime_spec_copy(const struct runtime_spec *spec, struct runtime_spec *ret_spec, struct err *err)
{
    OWNED(runtime_spec_release)
    struct runtime_spec copy = {.manifest = spec->manifest, .uid = spec->uid, .gid = spec->gid};
    int status = copy_text(&copy.name, spec->name, err);
    if (status == 0)
        status = copy_text(&copy.image, spec->image, err);
    if (status == 0)
        status = copy_text(&copy.user, spec->user, err);
    if (status == 0)
        status = copy_text(&copy.workdir, spec->workdir, err);
    if (status == 0)
        status = copy_strings(&copy.args, &spec->args, err);
    if (status == 0)
        status = copy_strings(&copy.env, &spec->env, err);
    if (status == 0)
        status = copy_strings(&copy.labels, &spec->labels, err);
    for (size_t i = 0; status == 0 && i < spec->volume_count; i++) {
        const struct runtime_volume *volume = &spec->volumes[i];
        status = add_volume(&copy, &volume->guid, volume->path, volume->read_only, err);
    }
    if (status < 0)
        return status;
    *ret_spec = copy;
    copy = (struct runtime_spec){0};
    return 0;
}

/* ---- what is allowed ---- */

/* Absolute, each component a name: no "..", no ".", no "//", no "/" at the end but for the root's, nothing unprintable.
 */
static bool path_is_plain(const char *path)
{
    if (path[0] != '/' || strlen(path) >= LIMIT_PATH_BYTES)
        return false;
    for (const char *at = path; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            return false;
    if (!path[1])
        return true;
    for (const char *slash = path; slash; slash = strchr(slash + 1, '/')) {
        size_t len = strcspn(slash + 1, "/");
        if (len == 0 || (len == 1 && slash[1] == '.') || (len == 2 && slash[1] == '.' && slash[2] == '.'))
            return false;
    }
    return true;
}

static bool path_is_beneath(const char *path, const char *top)
{
    size_t len = strlen(top);
    return strncmp(path, top, len) == 0 && (path[len] == '/' || !path[len]);
}

static int check_volume(const struct runtime_spec *spec, size_t index, struct err *err)
{
    static const char *const ours[] = {"/proc", "/dev", "/sys", SPEC_OWN_DIR};
    const struct runtime_volume *volume = &spec->volumes[index];
    char guid[GUID_TEXT_SIZE];
    guid_text(&volume->guid, guid);
    if (!volume->path || !path_is_plain(volume->path) || !volume->path[1])
        return err_set(err, ERR_INVALID, "volume %s: its place is not an absolute path without '..'", guid);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (path_is_beneath(volume->path, ours[i]))
            return err_set(err, ERR_INVALID, "volume %s: '%s' is not for volumes", guid, ours[i]);
    for (size_t i = 0; i < index; i++) {
        const struct runtime_volume *other = &spec->volumes[i];
        if (strcmp(volume->path, other->path) == 0 || memcmp(&volume->guid, &other->guid, sizeof other->guid) == 0)
            return err_set(err, ERR_INVALID, "volume %s: given twice, or two volumes on one path", guid);
    }
    return 0;
}

static int check_strings(const struct runtime_strings *strings, const char *what, bool pairs, size_t *bytes,
                         struct err *err)
{
    if (strings->count > RUNTIME_MAX_STRINGS)
        return err_set(err, ERR_INVALID, "%s: more than %d", what, RUNTIME_MAX_STRINGS);
    for (size_t i = 0; i < strings->count; i++) {
        const char *text = strings->items[i];
        *bytes += strlen(text) + 1;
        if (pairs && (text[0] == '=' || !strchr(text, '=')))
            return err_set(err, ERR_INVALID, "%s: one is not NAME=value", what);
    }
    if (*bytes > LIMIT_RUNTIME_SPEC_BYTES)
        return err_set(err, ERR_INVALID, "arguments, environment and labels are more than %u bytes",
                       LIMIT_RUNTIME_SPEC_BYTES);
    return 0;
}

static int check_names(const struct runtime_spec *spec, bool whole, struct err *err)
{
    if (!spec->name || !name_is_valid(spec->name))
        return err_set(err, ERR_INVALID, "container: its name is not 1 to %d of [A-Za-z0-9._-]", NAME_MAX_BYTES);
    if (!spec->image || !image_name_is_valid(spec->image))
        return err_set(err, ERR_INVALID, "container '%s': its image's name is not valid", spec->name);
    if (spec->user && spec->user[0] && !name_is_valid(spec->user))
        return err_set(err, ERR_INVALID, "container '%s': its user id is not valid", spec->name);
    if (spec->workdir && spec->workdir[0] && !path_is_plain(spec->workdir))
        return err_set(err, ERR_INVALID, "container '%s': its working directory is not an absolute path without '..'",
                       spec->name);
    if (spec->uid > SPEC_MAX_UID || spec->gid > SPEC_MAX_UID)
        return err_set(err, ERR_INVALID, "container '%s': user and group ids end at %d", spec->name, SPEC_MAX_UID);
    if (!whole)
        return 0;
    if (id_is_zero(&spec->manifest) || spec->args.count == 0 || !spec->args.items[0][0] || !spec->workdir ||
        !spec->workdir[0])
        return err_set(err, ERR_INVALID, "container '%s': image, command or working directory is missing", spec->name);
    return 0;
}

int runtime_spec_check(const struct runtime_spec *spec, bool whole, struct err *err)
{
    size_t bytes = 0;
    int status = check_names(spec, whole, err);
    if (status == 0)
        status = check_strings(&spec->args, "arguments", false, &bytes, err);
    if (status == 0)
        status = check_strings(&spec->env, "environment", true, &bytes, err);
    if (status == 0)
        status = check_strings(&spec->labels, "labels", true, &bytes, err);
    if (status == 0 && spec->volume_count > RUNTIME_MAX_VOLUMES)
        status = err_set(err, ERR_INVALID, "more than %d volumes", RUNTIME_MAX_VOLUMES);
    for (size_t i = 0; status == 0 && i < spec->volume_count; i++)
        status = check_volume(spec, i, err);
    return status;
}

/* ---- JSON ---- */

static json_t *strings_to_json(const struct runtime_strings *strings)
{
    json_t *array = json_array();
    for (size_t i = 0; i < strings->count; i++)
        json_array_append_new(array, json_string(strings->items[i]));
    return array;
}

static json_t *volumes_to_json(const struct runtime_spec *spec)
{
    json_t *array = json_array();
    for (size_t i = 0; i < spec->volume_count; i++) {
        const struct runtime_volume *volume = &spec->volumes[i];
        char guid[GUID_TEXT_SIZE];
        json_array_append_new(array, json_pack("{s:s, s:s, s:b}", "guid", guid_text(&volume->guid, guid), "path",
                                               volume->path, "read_only", volume->read_only));
    }
    return array;
}

json_t *runtime_spec_to_json(const struct runtime_spec *spec)
{
    char manifest[DIGEST_TEXT_SIZE];
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o}", "name", spec->name, "image",
                     spec->image, "manifest", digest_text(&spec->manifest, manifest), "user",
                     spec->user ? spec->user : "", "workdir", spec->workdir ? spec->workdir : "", "uid",
                     (json_int_t)spec->uid, "gid", (json_int_t)spec->gid, "args", strings_to_json(&spec->args), "env",
                     strings_to_json(&spec->env), "labels", strings_to_json(&spec->labels), "volumes",
                     volumes_to_json(spec));
}

static int strings_from_json(struct runtime_json *json, const char *key, struct runtime_strings *strings)
{
    const json_t *array = runtime_json_array(json, key, RUNTIME_MAX_STRINGS);
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item)
    {
        if (!json_is_string(item) || strlen(json_string_value(item)) != json_string_length(item))
            return err_set(json->err, ERR_INVALID, "spec: '%s' has an item that is not a string", key);
        int status = runtime_strings_add(strings, json_string_value(item), json->err);
        if (status < 0)
            return status;
    }
    return json->status;
}

static int volumes_from_json(struct runtime_json *json, struct runtime_spec *spec)
{
    const json_t *array = runtime_json_array(json, "volumes", RUNTIME_MAX_VOLUMES);
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item)
    {
        struct runtime_json fields;
        runtime_json_init(&fields, item, "volume", json->err);
        const char *guid_hex = runtime_json_text(&fields, "guid", GUID_TEXT_SIZE - 1);
        const char *path = runtime_json_text(&fields, "path", LIMIT_PATH_BYTES);
        bool read_only = runtime_json_bool(&fields, "read_only");
        struct guid guid;
        int status = runtime_json_done(&fields);
        if (status == 0 && !guid_parse(guid_hex, &guid))
            status = err_set(json->err, ERR_INVALID, "volume: 'guid' is not 8-4-4-4-12 lower-case hex digits");
        if (status == 0)
            status = add_volume(spec, &guid, path, read_only, json->err);
        if (status < 0)
            return status;
    }
    return json->status;
}

static int texts_from_json(struct runtime_json *json, struct runtime_spec *spec)
{
    int status = copy_text(&spec->name, runtime_json_text(json, "name", NAME_MAX_BYTES), json->err);
    if (status == 0)
        status = copy_text(&spec->image, runtime_json_text(json, "image", NAME_MAX_BYTES), json->err);
    if (status == 0)
        status = copy_text(&spec->user, runtime_json_text(json, "user", NAME_MAX_BYTES), json->err);
    if (status == 0)
        status = copy_text(&spec->workdir, runtime_json_text(json, "workdir", LIMIT_PATH_BYTES), json->err);
    const char *manifest = runtime_json_text(json, "manifest", DIGEST_TEXT_SIZE - 1);
    if (status == 0 && json->status == 0 && manifest[0] && !digest_parse(manifest, &spec->manifest))
        status = err_set(json->err, ERR_INVALID, "spec: 'manifest' is not sha256: and 64 lower-case hex digits");
    return status < 0 ? status : json->status;
}

int runtime_spec_from_json(const json_t *json, struct runtime_spec *ret_spec, struct err *err)
{
    struct runtime_json fields;
    runtime_json_init(&fields, json, "spec", err);
    OWNED(runtime_spec_release)
    struct runtime_spec spec = {
        .uid = (uint32_t)runtime_json_u64(&fields, "uid", SPEC_MAX_UID),
        .gid = (uint32_t)runtime_json_u64(&fields, "gid", SPEC_MAX_UID),
    };
    int status = texts_from_json(&fields, &spec);
    if (status == 0)
        status = strings_from_json(&fields, "args", &spec.args);
    if (status == 0)
        status = strings_from_json(&fields, "env", &spec.env);
    if (status == 0)
        status = strings_from_json(&fields, "labels", &spec.labels);
    if (status == 0)
        status = volumes_from_json(&fields, &spec);
    if (status == 0)
        status = runtime_json_done(&fields);
    if (status == 0)
        status = runtime_spec_check(&spec, false, err);
    if (status < 0)
        return status;
    *ret_spec = spec;
    spec = (struct runtime_spec){0};
    return 0;
}
