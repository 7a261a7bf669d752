/*
 * Deltas as a peer sends them, applied to a range of 4,096 bytes: two bytes for the length that they are to give, then
 * the delta.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/scope.h"
#include "node/base/wire.h"
#include "transfer/rsync.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t want = wire_load_u16(data);
    OWNED(owned_free) uint8_t *range = malloc(4096);
    OWNED(owned_free) uint8_t *out = malloc(want + 1); /* one byte that must stay */
    if (!range || !out)
        return 0;
    for (unsigned i = 0; i < 4096; i++)
        range[i] = (uint8_t)(i * 7 + i / 256);
    out[want] = 0x5a;
    int status = transfer_rsync_patch(range, 4096, data + 2, size - 2, out, want, NULL);
    if (out[want] != 0x5a || (status == 0 && size < 2 + 4 + 1))
        abort();
    return 0;
}
