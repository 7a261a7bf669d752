/*
 * Containers in JSON, as container.json has them and as a peer sends them in a migration. What is accepted must give,
 * written and read again, the same, and must become a configuration for the engine.
 */
#include <stdlib.h>

#include "node/base/scope.h"
#include "node/runtime/config.h"
#include "node/runtime/runtime.h"

OWNED_DEFINE(owned_json, json_t, json_decref)
OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(owned_json) json_t *json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    OWNED(owned_container) struct runtime_container *container = NULL;
    OWNED(owned_container) struct runtime_container *again = NULL;
    if (!json || runtime_container_from_json(json, &container, NULL) < 0)
        return 0;
    OWNED(owned_json) json_t *first = runtime_container_to_json(container);
    if (!first || runtime_container_from_json(first, &again, NULL) < 0)
        abort();
    OWNED(owned_json) json_t *second = runtime_container_to_json(again);
    if (!json_equal(first, second))
        abort();
    const struct runtime_config config = {.spec = &container->spec,
                                          .bundle = "/b",
                                          .log = "/l",
                                          .exec_helper = "/e",
                                          .volumes_dir = "/v",
                                          .cgroup = "/c"};
    OWNED(owned_json) json_t *engine = runtime_config_to_json(&config);
    if (!engine)
        abort();
    return 0;
}
