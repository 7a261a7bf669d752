#include "node/api/json.h"

#include <math.h>
#include <string.h>

#include "node/api/protocol.h"
#include "node/base/limits.h"

/* jansson's own bound is 2048 levels and each costs stack, so the depth is counted before it sees the text. */
static bool is_shallow(const char *text, size_t len)
{
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        if (in_string && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            in_string = !in_string;
        else if (!in_string && (text[i] == '{' || text[i] == '[') && ++depth > LIMIT_JSON_DEPTH)
            return false;
        else if (!in_string && (text[i] == '}' || text[i] == ']') && depth > 0)
            depth--;
    }
    return true;
}

int api_json_parse(const void *data, size_t len_bytes, json_t **ret_object, struct err *err)
{
    if (!is_shallow(data, len_bytes))
        return err_set(err, ERR_INVALID, "the JSON is nested deeper than %d levels", LIMIT_JSON_DEPTH);
    json_error_t why;
    json_t *value = json_loadb(data, len_bytes, JSON_REJECT_DUPLICATES, &why);
    if (!value)
        return err_set(err, ERR_INVALID, "the JSON is malformed at byte %d: %s", why.position, why.text);
    if (!json_is_object(value)) {
        json_decref(value);
        return err_set(err, ERR_INVALID, "the JSON is not an object");
    }
    *ret_object = value;
    return 0;
}

/* The next of the names between spaces; false at the end. */
static bool next_name(const char **names, const char **ret_name, size_t *ret_len)
{
    if (**names == '\0')
        return false;
    *ret_name = *names;
    *ret_len = strcspn(*names, " ");
    *names += *ret_len;
    *names += **names == ' ';
    return true;
}

static bool is_among(const char *key, const char *names)
{
    const char *name;
    size_t len;
    while (next_name(&names, &name, &len)) {
        if (strlen(key) == len && memcmp(key, name, len) == 0)
            return true;
    }
    return false;
}

int api_json_only(const json_t *object, const char *fields, struct err *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        if (!is_among(key, fields))
            return err_set(err, ERR_INVALID, "there is no field '%.64s' here; the fields are: %s", key, fields);
    }
    return 0;
}

int api_json_has(const json_t *object, const char *fields, struct err *err)
{
    const char *name;
    size_t len;
    while (next_name(&fields, &name, &len)) {
        if (!json_object_getn(object, name, len))
            return err_set(err, ERR_INVALID, "the field '%.*s' is missing", (int)len, name);
    }
    return 0;
}

static json_t *field_of(const json_t *object, const char *field)
{
    json_t *value = json_object_get(object, field);
    return json_is_null(value) ? NULL : value;
}

int api_json_get_str(const json_t *object, const char *field, const char *fallback, const char **ret_text,
                     struct err *err)
{
    json_t *value = field_of(object, field);
    if (value && (!json_is_string(value) || json_string_length(value) == 0))
        return err_set(err, ERR_INVALID, "the field '%s' is not a string with something in it", field);
    *ret_text = value ? json_string_value(value) : fallback;
    return 0;
}

int api_json_get_u64(const json_t *object, const char *field, uint64_t fallback, uint64_t max, uint64_t *ret_number,
                     struct err *err)
{
    json_t *value = field_of(object, field);
    if (value &&
        (!json_is_integer(value) || json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max))
        return err_set(err, ERR_INVALID, "the field '%s' is not a whole number from 0 to %llu", field,
                       (unsigned long long)max);
    *ret_number = value ? (uint64_t)json_integer_value(value) : fallback;
    return 0;
}

int api_json_get_bool(const json_t *object, const char *field, bool fallback, bool *ret_yes, struct err *err)
{
    json_t *value = field_of(object, field);
    if (value && !json_is_boolean(value))
        return err_set(err, ERR_INVALID, "the field '%s' is not true or false", field);
    *ret_yes = value ? json_is_true(value) : fallback;
    return 0;
}

int api_json_get_strings(const json_t *object, const char *field, const json_t **ret_array, struct err *err)
{
    json_t *array = field_of(object, field);
    if (array && !json_is_array(array))
        return err_set(err, ERR_INVALID, "the field '%s' is not an array of strings", field);
    size_t i;
    json_t *element;
    json_array_foreach(array, i, element)
    {
        if (!json_is_string(element))
            return err_set(err, ERR_INVALID, "the field '%s' is not an array of strings", field);
    }
    *ret_array = array;
    return 0;
}

int api_json_get_map(const json_t *object, const char *field, const json_t **ret_object, struct err *err)
{
    json_t *map = field_of(object, field);
    if (map && !json_is_object(map))
        return err_set(err, ERR_INVALID, "the field '%s' is not an object of strings", field);
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        if (!json_is_string(value))
            return err_set(err, ERR_INVALID, "the field '%s' is not an object of strings", field);
    }
    *ret_object = map;
    return 0;
}

const char *api_json_text(const json_t *object, const char *field)
{
    const char *text = json_string_value(json_object_get(object, field));
    return text ? text : "";
}

uint64_t api_json_number(const json_t *object, const char *field)
{
    const json_t *value = json_object_get(object, field);
    if (json_is_integer(value))
        return json_integer_value(value) > 0 ? (uint64_t)json_integer_value(value) : 0;
    double real = api_json_real(object, field);
    return real > 0 && real < 0x1p64 ? (uint64_t)real : 0;
}

double api_json_real(const json_t *object, const char *field)
{
    double value = json_number_value(json_object_get(object, field));
    return isfinite(value) ? value : 0;
}

/* X(code, HTTP status, what can be done about it). Statuses are RFC 9110's and RFC 4918's 507. */
#define REPLY_LIST(X)                                                                                                  \
    X(ERR_NOMEM, 503, "free memory on this machine, then try again")                                                   \
    X(ERR_IO, 500, "see the daemon's log, and the kernel's for disk errors")                                           \
    X(ERR_CORRUPT, 500, "run 'cmig-node fsck' to find and drop damaged content")                                       \
    X(ERR_PROTOCOL, 502, "see that all nodes run the same version: 'cmig status'")                                     \
    X(ERR_INVALID, 400, "")                                                                                            \
    X(ERR_DENIED, 403, "ask somebody with the right to do it")                                                         \
    X(ERR_AUTH, 401, "get a new invitation with 'cmig-node invite' on a member")                                       \
    X(ERR_NOTFOUND, 404, "see what there is: 'cmig ls', 'cmig image ls', 'cmig ps -a', 'cmig peers'")                  \
    X(ERR_EXISTS, 409, "choose another name, or remove what is there first")                                           \
    X(ERR_BUSY, 409, "try again when it is no longer in use")                                                          \
    X(ERR_LIMIT, 413, "ask for less at a time")                                                                        \
    X(ERR_NOSPACE, 507, "remove content with 'cmig rm', or raise the quota in the configuration")                      \
    X(ERR_TIMEOUT, 504, "try again; 'cmig peers' shows who answers, and how fast")                                     \
    X(ERR_CLOSED, 502, "try again; 'cmig peers' shows who is connected")                                               \
    X(ERR_UNAVAILABLE, 503, "see 'cmig peers' and try again when more of them are connected")                          \
    X(ERR_CANCELLED, 409, "")                                                                                          \
    X(ERR_UNSUPPORTED, 501, "")                                                                                        \
    X(ERR_CONFLICT, 409, "")                                                                                           \
    X(ERR_INTERNAL, 500, "report this with the daemon's log: it is a bug")

/* Where the route says more about what is meant than the code: the first that its path begins with. */
static const struct {
    const char *path;
    int code;
    const char *remedy;
} by_route[] = {
    {"/v1/containers/{name}/migrate", ERR_NOTFOUND, "'cmig ps' on its node lists containers, 'cmig peers' nodes"},
    {"/v1/containers/", ERR_NOTFOUND, "'cmig ps -a' lists the containers of this node"},
    {"/v1/containers", ERR_NOTFOUND, "'cmig image ls' lists the images of this node"},
    {"/v1/images", ERR_NOTFOUND, "'cmig image ls' lists the images of this node"},
    {"/v1/images", ERR_CORRUPT, "get the archive again: it is damaged or was cut short"},
    {"/v1/registry", ERR_NOTFOUND, "'cmig registry get' lists the members of a set"},
    {"/v1/objects", ERR_NOTFOUND, "'cmig ls' lists the objects of this node, 'cmig get' brings those of others"},
    {"/v1/revocations", ERR_NOTFOUND, "give the whole id of a node that is not connected"},
};

const char *api_error_remedy(int code, const char *path)
{
    for (size_t i = 0; path && i < sizeof by_route / sizeof *by_route; i++) {
        if (by_route[i].code == code && strncmp(path, by_route[i].path, strlen(by_route[i].path)) == 0)
            return by_route[i].remedy;
    }
    switch (code) {
#define X(name, status, remedy)                                                                                        \
    case name:                                                                                                         \
        return remedy;
        REPLY_LIST(X)
#undef X
    default:
        return "";
    }
}

unsigned api_error_status(int code)
{
    switch (code) {
#define X(name, status, remedy)                                                                                        \
    case name:                                                                                                         \
        return status;
        REPLY_LIST(X)
#undef X
    default:
        return 500;
    }
}

/* Text that quotes hostile bytes may not be UTF-8, which JSON has to be: then its ASCII must do. */
static json_t *message_of(const struct err *err)
{
    json_t *message = json_string(err->text);
    if (message)
        return message;
    char text[ERR_TEXT_SIZE];
    snprintf(text, sizeof text, "%s", err->text);
    for (char *at = text; *at; at++)
        *at = (unsigned char)*at < 0x80 ? *at : '?';
    return json_string(text);
}

static json_t *error_fields(const struct err *err, const char *remedy)
{
    return json_pack("{s:s, s:o, s:s}", "code", err_name(err->code), "message", message_of(err), "remedy",
                     remedy ? remedy : api_error_remedy(err->code, NULL));
}

json_t *api_json_error(const struct err *err, const char *remedy)
{
    return json_pack("{s:o}", "error", error_fields(err, remedy));
}

json_t *api_json_error_event(const struct err *err, const char *remedy)
{
    OWNED(owned_json) json_t *event = json_pack("{s:s}", "event", API_EVENT_ERROR);
    OWNED(owned_json) json_t *fields = error_fields(err, remedy);
    if (!event || !fields || json_object_update_missing(event, fields) < 0)
        return NULL;
    return STEAL(event);
}
