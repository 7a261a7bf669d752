#include "node/runtime/json.h"

void runtime_json_init(struct runtime_json *json, const json_t *object, const char *what, struct err *err)
{
    *json = (struct runtime_json){.object = object, .what = what, .err = err};
    if (!json_is_object(object))
        json->status = err_set(err, ERR_INVALID, "%s: not a JSON object", what);
}

static int complain(struct runtime_json *json, const char *key, const char *wrong)
{
    if (json->status == 0)
        json->status = err_set(json->err, ERR_INVALID, "%s: '%s' %s", json->what, key, wrong);
    return json->status;
}

/* The value, or NULL if it is absent or something was wrong before. */
static const json_t *take(struct runtime_json *json, const char *key)
{
    const json_t *value = json->status == 0 ? json_object_get(json->object, key) : NULL;
    json->known += value != NULL;
    return value;
}

const char *runtime_json_text(struct runtime_json *json, const char *key, size_t max_bytes)
{
    const json_t *value = take(json, key);
    if (!value)
        return "";
    if (json_is_string(value) && json_string_length(value) <= max_bytes)
        return json_string_value(value);
    complain(json, key, json_is_string(value) ? "is too long" : "is not a string");
    return "";
}

uint64_t runtime_json_u64(struct runtime_json *json, const char *key, uint64_t max)
{
    const json_t *value = take(json, key);
    if (!value)
        return 0;
    json_int_t number = json_integer_value(value);
    if (json_is_integer(value) && number >= 0 && (uint64_t)number <= max)
        return (uint64_t)number;
    complain(json, key, "is not a number in its range");
    return 0;
}

bool runtime_json_bool(struct runtime_json *json, const char *key)
{
    const json_t *value = take(json, key);
    if (value && !json_is_boolean(value))
        complain(json, key, "is neither true nor false");
    return json_is_true(value);
}

const json_t *runtime_json_object(struct runtime_json *json, const char *key)
{
    const json_t *value = take(json, key);
    if (value && !json_is_object(value))
        complain(json, key, "is not an object");
    return json->status == 0 ? value : NULL;
}

const json_t *runtime_json_array(struct runtime_json *json, const char *key, size_t max_items)
{
    const json_t *value = take(json, key);
    if (value && !json_is_array(value))
        complain(json, key, "is not an array");
    else if (json_array_size(value) > max_items)
        complain(json, key, "has too many items");
    return json->status == 0 ? value : NULL;
}

int runtime_json_done(struct runtime_json *json)
{
    if (json->status == 0 && json->known != json_object_size(json->object))
        json->status = err_set(json->err, ERR_INVALID, "%s: a key that is not known", json->what);
    return json->status;
}
