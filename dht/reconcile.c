#include "dht/internal.h"

void dht_compare_serve(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    dht_rpc_answer(dht, from, request->transaction, &(struct dht_message){.type = DHT_REFUSED, .wait_ms = 60000});
}

void dht_reconcile_lost(struct dht *dht, const struct id *node)
{
    (void)dht;
    (void)node;
}
