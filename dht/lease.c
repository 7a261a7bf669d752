#include "dht/internal.h"

void dht_lease_input(struct dht *dht, const struct dht_contact *from, const struct dht_span *span)
{
    struct dht_record lease;
    if (!dht_record_decode(span->at, span->len, &lease) || lease.kind != DHT_NODE)
        dht->stats.bad_records++;
    else
        dht_hold_put(dht, span->at, span->len, id_equal(&lease.member, &from->id), NULL);
}
