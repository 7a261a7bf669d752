/* The target of a request and its headers: the first line is the target, the others are "name: value". */
#include <stdlib.h>
#include <string.h>

#include "node/api/protocol.h"
#include "node/api/route.h"
#include "node/api/screen.h"
#include "node/base/scope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct api_route routes[] = {
#define X(name, method, path, body) {method, path, body, NULL},
    API_ROUTES(X)
#undef X
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(owned_free) char *text = strndup((const char *)data, size);
    char *rest = text, allow[API_ALLOW_SIZE];
    char *raw = strsep(&rest, "\n");
    struct api_target target = {0};
    struct api_screen screen = {0};
    struct err err;
    if (api_target_parse(raw, &target, &err) == 0 &&
        api_target_route(&target, "GET", routes, API_ROUTE_COUNT, allow, &err) == 0) {
        const char *digest = api_target_param(&target, "digest");
        if (digest && *digest == '\0')
            abort();
    }
    api_target_release(&target);
    while (rest) {
        char *value = strsep(&rest, "\n");
        char *name = strsep(&value, ":");
        api_screen_add(&screen, name, value);
    }
    if (api_screen_framing(&screen, &err) == 0 && screen.length < -1)
        abort();
    api_screen_sender(&screen, &err);
    return 0;
}
