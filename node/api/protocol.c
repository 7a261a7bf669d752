#include "node/api/protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/scope.h"

const struct api_route_spec api_route_specs[API_ROUTE_COUNT] = {
#define X(name, method, path, body) [API_ROUTE_##name] = {method, path, body},
    API_ROUTES(X)
#undef X
};

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._~", c));
}

char *api_path_encode(const char *text)
{
    char *encoded = malloc(3 * strlen(text) + 1);
    if (!encoded)
        return NULL;
    char *at = encoded;
    for (; *text; text++) {
        if (is_unreserved(*text))
            *at++ = *text;
        else
            at += sprintf(at, "%%%02X", (unsigned char)*text);
    }
    *at = '\0';
    return encoded;
}

char *api_route_path(enum api_route_id route, const char *name, const char *query)
{
    const char *pattern = api_route_specs[route].path;
    const char *open = strchr(pattern, '{');
    const char *close = open ? strchr(open, '}') : NULL;
    OWNED(owned_free) char *encoded = api_path_encode(close && name ? name : "");
    if (!encoded)
        return NULL;
    int head = close ? (int)(open - pattern) : (int)strlen(pattern);
    char *path = NULL;
    if (asprintf(&path, "%.*s%s%s%s%s", head, pattern, encoded, close ? close + 1 : "", query ? "?" : "",
                 query ? query : "") < 0)
        return NULL;
    return path;
}
