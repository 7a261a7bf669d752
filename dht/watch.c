#include "dht/internal.h"

/* Nothing is watched: who tells us of a change is told not to. */
void dht_watch_serve_notify(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    dht_rpc_answer(dht, from, request->transaction, &(struct dht_message){.type = DHT_NOTIFIED});
}
