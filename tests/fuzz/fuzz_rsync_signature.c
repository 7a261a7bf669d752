/*
 * Signatures as a peer sends them: two bytes for the length of the range in units of 256, then the signature. One that
 * passes the check goes to librsync, which must get along with it, and gives a delta of our own grammar.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/base/wire.h"
#include "transfer/rsync.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DATA_BYTES 40000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t range_bytes = (size_t)wire_load_u16(data) << 8;
    if (transfer_rsync_check(data + 2, size - 2, range_bytes, NULL) < 0)
        return 0;
    OWNED(owned_free) uint8_t *fresh = calloc(1, DATA_BYTES);
    OWNED(owned_free) uint8_t *range = calloc(1, range_bytes);
    OWNED(owned_free) uint8_t *back = malloc(DATA_BYTES);
    OWNED(buf_release) struct buf delta = BUF(2 * LIMIT_GAP_BYTES);
    if (!fresh || !range || !back || transfer_rsync_delta(data + 2, size - 2, fresh, DATA_BYTES, &delta, NULL) < 0)
        return 0;
    /* whoever made the signature has not said what the range is: the delta may give other bytes, or none */
    transfer_rsync_patch(range, range_bytes, delta.data, delta.len, back, DATA_BYTES, NULL);
    return 0;
}
