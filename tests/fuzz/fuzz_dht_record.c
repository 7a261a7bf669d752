/* A record from a peer or from the disk: decoded, and what decodes is encoded to the same bytes again. */
#include <stdlib.h>
#include <string.h>

#include "dht/record.h"
#include "node/base/scope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dht_record record;
    if (!dht_record_decode(data, size, &record))
        return 0;
    OWNED(buf_release) struct buf again = BUF(LIMIT_DHT_RECORD_BYTES);
    dht_record_encode(&record, &again);
    if (again.len != size || memcmp(again.data, data, size) != 0)
        abort();
    struct dht_signatures signatures = dht_signatures_ed25519(NULL);
    dht_record_is_signed(&record, data, size, &signatures);
    for (int order = DHT_BY_SCORE; order < DHT_ORDER_COUNT; order++) {
        struct dht_rank rank = dht_record_rank(&record, (enum dht_order)order, &record.place);
        if (dht_rank_compare(&rank, &rank) != 0)
            abort();
    }
    return dht_record_compare(&record, &record) != 0 ? abort(), 0 : 0;
}
