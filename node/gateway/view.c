#include "node/gateway/view.h"

#include <string.h>

#include "node/base/limits.h"
#include "node/mesh/providers.h"

bool view_is_meant(const char *name, size_t name_len)
{
    size_t prefix = sizeof VIEW_PREFIX - 1;
    return name_len >= prefix && memcmp(name, VIEW_PREFIX, prefix) == 0;
}

bool view_parse(const char *name, size_t name_len, struct view *ret_view)
{
    char text[LIMIT_SET_NAME_BYTES + 1];
    struct provider_key named;
    if (name_len > LIMIT_SET_NAME_BYTES || memchr(name, 0, name_len) || !view_is_meant(name, name_len))
        return false;
    memcpy(text, name, name_len);
    text[name_len] = 0;
    if (providers_parse(text, &named, NULL) < 0)
        return false;
    *ret_view = (struct view){named.key, named.kind == DHT_VOLUME || named.kind == DHT_SERVICE};
    return true;
}
