#include "node/spec.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "node/api/json.h"
#include "node/api/protocol.h"
#include "node/base/crypto.h"

#define NAME_RANDOM_BYTES 3
#define NAME_BASE_BYTES 48

/* ---- from a request ---- */

/* "registry/team/app:1" -> "app-3f09c2" */
static void make_name(const char *image, char name[NAME_MAX_BYTES + 1])
{
    const char *slash = strrchr(image, '/');
    const char *base = slash ? slash + 1 : image;
    uint8_t random[NAME_RANDOM_BYTES];
    char hex[2 * NAME_RANDOM_BYTES + 1];
    crypto_random(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    size_t len = strcspn(base, ":@");
    snprintf(name, NAME_MAX_BYTES + 1, "%.*s-%s", (int)(len < NAME_BASE_BYTES ? len : NAME_BASE_BYTES), base, hex);
}

static int add_name(const json_t *body, const char *image, json_t *spec, struct err *err)
{
    char made[NAME_MAX_BYTES + 1];
    const char *name;
    int status = api_json_get_str(body, "name", NULL, &name, err);
    if (status < 0)
        return status;
    if (!name)
        make_name(image, made);
    json_object_set_new(spec, "name", json_string(name ? name : made));
    return 0;
}

static int add_text(const json_t *body, const char *field, json_t *spec, struct err *err)
{
    const char *text;
    int status = api_json_get_str(body, field, NULL, &text, err);
    if (status == 0 && text)
        json_object_set_new(spec, field, json_string(text));
    return status;
}

static int add_args(const json_t *body, json_t *spec, struct err *err)
{
    const json_t *args;
    int status = api_json_get_strings(body, "args", &args, err);
    if (status == 0 && args)
        json_object_set(spec, "args", (json_t *)args);
    return status;
}

/* {"A": "1"} -> ["A=1"] */
static int add_pairs(const json_t *body, const char *field, json_t *spec, struct err *err)
{
    const json_t *map;
    const char *key;
    json_t *value;
    int status = api_json_get_map(body, field, &map, err);
    if (status < 0 || !map)
        return status;
    json_t *pairs = json_array();
    json_object_set_new(spec, field, pairs);
    json_object_foreach((json_t *)map, key, value)
    {
        if (!*key || strchr(key, '='))
            return err_set(err, ERR_INVALID, "the field '%s' has a name that is empty or holds '='", field);
        json_array_append_new(pairs, json_sprintf("%s=%s", key, json_string_value(value)));
    }
    return 0;
}

static int add_volume(const json_t *given, json_t *volumes, struct err *err)
{
    const char *guid, *path, *mode;
    if (!json_is_object(given))
        return err_set(err, ERR_INVALID, "the field 'volumes' is not an array of objects");
    int status = api_json_only(given, "guid path mode", err);
    if (status == 0)
        status = api_json_get_str(given, "guid", "", &guid, err);
    if (status == 0)
        status = api_json_get_str(given, "path", "", &path, err);
    if (status == 0)
        status = api_json_get_str(given, "mode", "rw", &mode, err);
    if (status < 0)
        return status;
    if (strcmp(mode, "rw") != 0 && strcmp(mode, "ro") != 0)
        return err_set(err, ERR_INVALID, "the mode '%.32s' of a volume is neither rw nor ro", mode);
    json_array_append_new(
        volumes, json_pack("{s:s, s:s, s:b}", "guid", guid, "path", path, "read_only", strcmp(mode, "ro") == 0));
    return 0;
}

static int add_volumes(const json_t *body, json_t *spec, struct err *err)
{
    const json_t *given = json_object_get(body, "volumes");
    if (!given || json_is_null(given))
        return 0;
    if (!json_is_array(given))
        return err_set(err, ERR_INVALID, "the field 'volumes' is not an array of objects");
    json_t *volumes = json_array();
    json_object_set_new(spec, "volumes", volumes);
    int status = 0;
    for (size_t i = 0; status == 0 && i < json_array_size(given); i++)
        status = add_volume(json_array_get(given, i), volumes, err);
    return status;
}

static bool take_number(const char **at, unsigned *ret_number)
{
    unsigned number = 0;
    size_t digits = 0;
    for (; isdigit((unsigned char)**at) && digits < 6; ++*at, digits++)
        number = 10 * number + (unsigned)(**at - '0');
    *ret_number = number;
    return digits > 0 && !isdigit((unsigned char)**at);
}

/* "uid" or "uid:gid"; the group of a user alone has the user's number. */
static int add_ids(const json_t *body, json_t *spec, struct err *err)
{
    const char *as;
    unsigned uid, gid;
    int status = api_json_get_str(body, "as", NULL, &as, err);
    if (status < 0 || !as)
        return status;
    const char *at = as;
    bool good = take_number(&at, &uid);
    gid = uid;
    if (good && *at == ':') {
        at++;
        good = take_number(&at, &gid);
    }
    if (!good || *at)
        return err_set(err, ERR_INVALID, "'%.32s' is not UID or UID:GID, in at most six decimal digits each", as);
    json_object_set_new(spec, "uid", json_integer(uid));
    json_object_set_new(spec, "gid", json_integer(gid));
    return 0;
}

int spec_from_request(const json_t *body, struct runtime_spec *ret_spec, struct err *err)
{
    OWNED(owned_json) json_t *spec = json_object();
    const char *image;
    int status = api_json_only(body, API_FIELDS_CONTAINER_SPEC, err);
    if (status == 0)
        status = api_json_get_str(body, "image", "", &image, err);
    if (status == 0 && !*image)
        status = err_set(err, ERR_INVALID, "the field 'image' is missing");
    if (status == 0)
        status = add_text(body, "image", spec, err);
    if (status == 0)
        status = add_name(body, image, spec, err);
    if (status == 0)
        status = add_text(body, "user", spec, err);
    if (status == 0)
        status = add_text(body, "workdir", spec, err);
    if (status == 0)
        status = add_ids(body, spec, err);
    if (status == 0)
        status = add_args(body, spec, err);
    if (status == 0)
        status = add_pairs(body, "env", spec, err);
    if (status == 0)
        status = add_pairs(body, "labels", spec, err);
    if (status == 0)
        status = add_volumes(body, spec, err);
    return status < 0 ? status : runtime_spec_from_json(spec, ret_spec, err);
}

/* ---- to the user ---- */

const char *spec_time(uint64_t wall_ms, char text[SPEC_TIME_SIZE])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm utc;
    if (!gmtime_r(&seconds, &utc) || strftime(text, SPEC_TIME_SIZE, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        *text = '\0';
    return text;
}

static const char *state_text(enum runtime_state state)
{
    static const char *const texts[] = {
#define X(name, text) [name] = text,
        RUNTIME_STATES(X)
#undef X
    };
    return texts[state];
}

static json_t *labels_to_json(const struct runtime_strings *labels)
{
    json_t *map = json_object();
    for (size_t i = 0; i < labels->count; i++) {
        const char *equals = strchr(labels->items[i], '=');
        if (equals)
            json_object_setn_new(map, labels->items[i], (size_t)(equals - labels->items[i]), json_string(equals + 1));
    }
    return map;
}

static json_t *volumes_to_json(const struct runtime_spec *spec)
{
    json_t *volumes = json_array();
    for (size_t i = 0; i < spec->volume_count; i++) {
        const struct runtime_volume *volume = &spec->volumes[i];
        char guid[GUID_TEXT_SIZE];
        json_array_append_new(volumes, json_pack("{s:s, s:s, s:s}", "guid", guid_text(&volume->guid, guid), "path",
                                                 volume->path, "mode", volume->read_only ? "ro" : "rw"));
    }
    return volumes;
}

json_t *spec_container_to_json(const struct runtime_container *container)
{
    const struct runtime_spec *spec = &container->spec;
    char id[GUID_TEXT_SIZE], created[SPEC_TIME_SIZE];
    json_t *exit_code = container->state == RUNTIME_EXITED ? json_integer(container->exit_code) : json_null();
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:o, s:o, s:I, s:o}", "id", guid_text(&container->id, id),
                     "name", spec->name, "image", spec->image, "state", state_text(container->state), "pid",
                     (json_int_t)container->pid, "created", spec_time(container->created_ms, created), "user",
                     spec->user ? spec->user : "", "volumes", volumes_to_json(spec), "labels",
                     labels_to_json(&spec->labels), "epoch", (json_int_t)container->epoch, "exit_code", exit_code);
}
