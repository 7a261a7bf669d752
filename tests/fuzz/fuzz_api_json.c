/* The strict JSON of request bodies. */
#include "node/api/json.h"
#include "node/api/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err;
    OWNED(owned_json) json_t *object = NULL;
    if (api_json_parse(data, size, &object, &err) < 0)
        return 0;
    const char *text;
    uint64_t number;
    const json_t *value;
    api_json_only(object, API_FIELDS_CONTAINER_SPEC, &err);
    api_json_get_str(object, "name", NULL, &text, &err);
    api_json_get_u64(object, "uses", 1, 1000, &number, &err);
    api_json_get_strings(object, "args", &value, &err);
    api_json_get_map(object, "env", &value, &err);
    api_json_number(object, "ttl_s");
    return 0;
}
