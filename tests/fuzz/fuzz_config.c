/* Configuration files: accepted or refused with a line, never more. */
#include <stdlib.h>
#include <string.h>

#include "node/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    if (config_check((const char *)data, size, "fuzz", &err) < 0 && strncmp(err.text, "fuzz:", 5) != 0 &&
        err.code == ERR_INVALID)
        abort();
    uint64_t bytes;
    OWNED(owned_free) char *text = strndup((const char *)data, size);
    if (text && config_parse_bytes(text, &bytes) && bytes > 1ull << 63)
        abort();
    return 0;
}
