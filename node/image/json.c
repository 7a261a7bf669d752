#include "node/image/json.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/base/scope.h"

/* jansson's own depth limit is fixed when it is built, and it has none on the number of values. */
static int check_shape(const char *text, size_t len, const char *what, struct err *err)
{
    unsigned depth = 0, values = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        if (c == '{' || c == '[')
            depth++;
        if ((c == '}' || c == ']') && depth > 0)
            depth--;
        values += c == ',' || c == '{' || c == '[';
        if (depth > LIMIT_JSON_DEPTH)
            return err_set(err, ERR_LIMIT, "%s nests more than %d levels", what, LIMIT_JSON_DEPTH);
        if (values > LIMIT_JSON_VALUES)
            return err_set(err, ERR_LIMIT, "%s has more than %d values", what, LIMIT_JSON_VALUES);
    }
    return 0;
}

int image_json_load(const void *data, size_t len_bytes, const char *what, json_t **ret_json, struct err *err)
{
    json_error_t error;
    if (len_bytes > LIMIT_MANIFEST_BYTES)
        return err_set(err, ERR_LIMIT, "%s is larger than %u bytes", what, LIMIT_MANIFEST_BYTES);
    int status = check_shape(data, len_bytes, what, err);
    if (status < 0)
        return status;
    json_t *json = json_loadb(data ? data : "", len_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!json) {
        char text[200];
        return err_set(err, ERR_INVALID, "%s is malformed: line %d: %s", what, error.line,
                       log_text(error.text, strlen(error.text), text, sizeof text));
    }
    *ret_json = json;
    return 0;
}

int image_json_dump(const json_t *json, struct buf *buf, struct err *err)
{
    OWNED(owned_free) char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    int status = text ? buf_add(buf, text, strlen(text)) : ERR_NOMEM;
    return status < 0 ? err_set(err, status, "no room to write JSON") : 0;
}

static int wrong(const char *name, const char *wanted, struct err *err)
{
    return err_set(err, ERR_INVALID, "field '%s' is not %s", name, wanted);
}

static const json_t *get(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

int image_json_string(const json_t *object, const char *name, const char **ret_text, struct err *err)
{
    const json_t *value = get(object, name);
    if (!value)
        return 0;
    if (!json_is_string(value))
        return wrong(name, "a string", err);
    *ret_text = json_string_value(value);
    return 1;
}

int image_json_array(const json_t *object, const char *name, const json_t **ret_array, struct err *err)
{
    const json_t *value = get(object, name);
    if (!value)
        return 0;
    if (!json_is_array(value))
        return wrong(name, "an array", err);
    *ret_array = value;
    return 1;
}

int image_json_object(const json_t *object, const char *name, const json_t **ret_object, struct err *err)
{
    const json_t *value = get(object, name);
    if (!value)
        return 0;
    if (!json_is_object(value))
        return wrong(name, "an object", err);
    *ret_object = value;
    return 1;
}

static int needed(int status, const char *name, struct err *err)
{
    return status == 0 ? err_set(err, ERR_INVALID, "field '%s' is missing", name) : status;
}

int image_json_need_string(const json_t *object, const char *name, const char **ret_text, struct err *err)
{
    return needed(image_json_string(object, name, ret_text, err), name, err);
}

int image_json_need_array(const json_t *object, const char *name, const json_t **ret_array, struct err *err)
{
    return needed(image_json_array(object, name, ret_array, err), name, err);
}

int image_json_need_digest(const json_t *object, const char *name, struct id *ret_digest, struct err *err)
{
    const char *text = "";
    int status = image_json_need_string(object, name, &text, err);
    if (status < 0)
        return status;
    if (!digest_parse(text, ret_digest))
        return wrong(name, "a digest: sha256: and 64 lower-case hex digits", err);
    return 1;
}

int image_json_need_size(const json_t *object, const char *name, uint64_t max, uint64_t *ret_size, struct err *err)
{
    const json_t *value = get(object, name);
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 1 || (uint64_t)number > max)
        return err_set(err, ERR_INVALID, "field '%s' is not a number from 1 to %llu", name, (unsigned long long)max);
    *ret_size = (uint64_t)number;
    return 1;
}
