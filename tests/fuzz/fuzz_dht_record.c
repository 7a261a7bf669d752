/* A record from a peer or from the disk: decoded, and what decodes is encoded to the same bytes again, and says the
 * same when it is read in place. */
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
    uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
    struct dht_span brief = dht_record_brief(data, size);
    if (dht_record_unbrief(&record.key, &brief, bytes) != size || memcmp(bytes, data, size) != 0)
        abort();
    struct dht_version version = dht_brief_version(brief.at);
    if (dht_version_compare(&version, &record.version) != 0 || dht_brief_expiry_ms(brief.at) != record.expiry_wall_ms ||
        dht_brief_is_tombstone(brief.at) != record.tombstone || dht_brief_is_meta(brief.at) != record.meta ||
        (record.meta && dht_brief_cleared_ms(brief.at, 1) != dht_record_cleared_ms(&record, 1)) ||
        !dht_record_is_by(&(struct dht_span){data, size}, record.public_key))
        abort();
    struct dht_signatures signatures = dht_signatures_ed25519(NULL);
    dht_record_is_signed(&record, data, size, &signatures);
    for (int order = DHT_BY_SCORE; order < DHT_ORDER_COUNT; order++) {
        struct dht_rank rank = dht_record_rank(&record, (enum dht_order)order, &record.place);
        struct dht_rank same = dht_brief_rank(brief.at, &record.member, (enum dht_order)order, &record.place);
        if (dht_rank_compare(&rank, &same) != 0)
            abort();
    }
    return dht_record_compare(&record, &record) != 0 ? abort(), 0 : 0;
}
