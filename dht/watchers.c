#include "dht/internal.h"

/* No room for anybody. */
void dht_watchers_serve(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    dht_rpc_answer(dht, from, request->transaction, &(struct dht_message){.type = DHT_WATCHED});
}

void dht_watch_changed(struct dht *dht, const struct dht_held *held, const struct dht_record *record,
                       const uint8_t *bytes, size_t len_bytes)
{
    (void)dht;
    (void)held;
    (void)record;
    (void)bytes;
    (void)len_bytes;
}
