#include "node/gateway/view.h"

#include <string.h>

#include "dht/dht.h"
#include "node/base/limits.h"

bool view_is_meant(const char *name, size_t name_len)
{
    size_t prefix = sizeof VIEW_PREFIX - 1;
    return name_len >= prefix && memcmp(name, VIEW_PREFIX, prefix) == 0;
}

static bool parse_object(char *rest, size_t len, struct view *ret_view)
{
    struct id digest;
    (void)len;
    if (!digest_parse(rest, &digest))
        return false;
    *ret_view = (struct view){dht_key(DHT_OBJECT, digest.b, sizeof digest.b), false};
    return true;
}

static bool parse_volume(char *rest, size_t len, struct view *ret_view)
{
    struct guid guid;
    (void)len;
    if (!guid_parse(rest, &guid))
        return false;
    *ret_view = (struct view){dht_key(DHT_VOLUME, guid.b, sizeof guid.b), true};
    return true;
}

static bool parse_app(char *rest, size_t len, struct view *ret_view)
{
    *ret_view = (struct view){dht_key(DHT_APP, rest, len), false};
    return image_name_is_valid(rest);
}

/* The key of a service has a NUL where the name has a space. */
static bool parse_service(char *rest, size_t len, struct view *ret_view)
{
    char *space = strchr(rest, ' ');
    if (!space)
        return false;
    *space = 0;
    *ret_view = (struct view){dht_key(DHT_SERVICE, rest, len), true};
    return image_name_is_valid(rest) && name_is_valid(space + 1);
}

bool view_parse(const char *name, size_t name_len, struct view *ret_view)
{
    static const struct {
        const char *prefix;
        bool (*parse)(char *rest, size_t len, struct view *ret_view);
    } kinds[] = {{VIEW_PREFIX "object:", parse_object},
                 {VIEW_PREFIX "volume:", parse_volume},
                 {VIEW_PREFIX "app:", parse_app},
                 {VIEW_PREFIX "service:", parse_service}};
    char copy[LIMIT_SET_NAME_BYTES + 1];
    if (name_len > LIMIT_SET_NAME_BYTES || memchr(name, 0, name_len))
        return false;
    memcpy(copy, name, name_len);
    copy[name_len] = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t prefix = strlen(kinds[i].prefix);
        if (strncmp(copy, kinds[i].prefix, prefix) == 0)
            return kinds[i].parse(copy + prefix, name_len - prefix, ret_view);
    }
    return false;
}
