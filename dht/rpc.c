#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

/* After the expected time the request is sent once more, so that one lost datagram is no failure, and given twice that
 * time again. Whoever asked has meanwhile turned to somebody else. */
#define PATIENCE 2

void dht_rpc_release(struct dht_rpcs *rpcs)
{
    for (size_t i = 0; i < rpcs->count; i++)
        free(rpcs->items[i].bytes);
    free(rpcs->items);
    *rpcs = (struct dht_rpcs){0};
}

static void send_bytes(struct dht *dht, const struct dht_contact *to, const uint8_t *bytes, size_t len)
{
    dht->stats.sent++;
    dht->config.send(dht->config.send_ctx, to, bytes, len);
}

static void encode(struct dht *dht, struct dht_message *message, struct buf *out)
{
    message->flags = dht->config.client ? DHT_FROM_CLIENT : 0;
    dht_message_encode(message, out);
}

void dht_rpc_answer(struct dht *dht, const struct dht_contact *to, uint64_t transaction, struct dht_message *answer)
{
    OWNED(buf_release) struct buf out = BUF(DHT_MESSAGE_MAX_BYTES);
    answer->transaction = transaction;
    encode(dht, answer, &out);
    if (!out.failed)
        send_bytes(dht, to, out.data, out.len);
}

static unsigned expected_ms(const struct dht *dht, const struct id *peer)
{
    const struct dht_node *node = dht_table_get(&dht->table, peer);
    bool measured = node && node->rtt.smooth_8ths;
    return dht_rtt_timeout_ms(measured ? &node->rtt : &dht->rpcs.anyone);
}

static struct dht_rpc *add(struct dht_rpcs *rpcs)
{
    if (rpcs->count == rpcs->cap) {
        size_t cap = rpcs->cap ? rpcs->cap * 2 : 16;
        struct dht_rpc *items = realloc(rpcs->items, cap * sizeof *items);
        if (!items)
            return NULL;
        rpcs->items = items;
        rpcs->cap = cap;
    }
    return &rpcs->items[rpcs->count++];
}

int dht_rpc_ask(struct dht *dht, const struct dht_contact *to, struct dht_message *request, dht_rpc_cb cb, void *owner)
{
    if (dht->rpcs.count >= LIMIT_DHT_PENDING)
        return ERR_LIMIT;
    OWNED(buf_release) struct buf out = BUF(DHT_MESSAGE_MAX_BYTES);
    request->transaction = rng_u64(&dht->config.rng);
    encode(dht, request, &out);
    struct dht_rpc *rpc = out.failed ? NULL : add(&dht->rpcs);
    if (!rpc)
        return ERR_NOMEM;
    unsigned timeout_ms = expected_ms(dht, &to->id);
    *rpc = (struct dht_rpc){
        .transaction = request->transaction,
        .to = *to,
        .type = request->type,
        .sent_ms = dht->now_ms,
        .due_ms = dht->now_ms + timeout_ms,
        .timeout_ms = timeout_ms,
        .cb = cb,
        .owner = owner,
        .len = out.len,
    };
    rpc->bytes = buf_steal(&out);
    send_bytes(dht, to, rpc->bytes, rpc->len);
    return 0;
}

void dht_rpc_ping(struct dht *dht, const struct dht_contact *to)
{
    for (size_t i = 0; i < dht->rpcs.count; i++)
        if (dht->rpcs.items[i].type == DHT_PING && id_equal(&dht->rpcs.items[i].to.id, &to->id))
            return;
    dht_rpc_ask(dht, to, &(struct dht_message){.type = DHT_PING}, NULL, NULL);
}

void dht_rpc_abandon(struct dht *dht, const void *owner)
{
    for (size_t i = 0; i < dht->rpcs.count; i++)
        if (dht->rpcs.items[i].owner == owner)
            dht->rpcs.items[i].cb = NULL;
}

/* Out of the list, so that the callback may ask anew; its bytes are freed. */
static struct dht_rpc take(struct dht_rpcs *rpcs, size_t at)
{
    struct dht_rpc rpc = rpcs->items[at];
    free(rpc.bytes);
    rpc.bytes = NULL;
    rpcs->items[at] = rpcs->items[--rpcs->count];
    return rpc;
}

/* The answer to a repeated request may belong to either sending, so it measures nothing (Karn and Partridge 1987). */
static void measure(struct dht *dht, const struct dht_rpc *rpc, const struct dht_contact *from, bool client)
{
    uint64_t sample_ms = dht->now_ms - rpc->sent_ms;
    if (!rpc->slow)
        dht_rtt_add(&dht->rpcs.anyone, sample_ms);
    if (client)
        return;
    if (dht_table_answered(&dht->table, from, rpc->slow ? NULL : &sample_ms, dht->now_ms))
        dht_sweep_newcomer(dht, from);
}

void dht_rpc_input(struct dht *dht, const struct dht_contact *from, const struct dht_message *answer)
{
    for (size_t i = 0; i < dht->rpcs.count; i++) {
        const struct dht_rpc *asked = &dht->rpcs.items[i];
        bool fits = answer->type == asked->type + 1 || answer->type == DHT_REFUSED;
        if (asked->transaction != answer->transaction || !id_equal(&asked->to.id, &from->id) || !fits)
            continue;
        struct dht_rpc rpc = take(&dht->rpcs, i);
        measure(dht, &rpc, from, answer->flags & DHT_FROM_CLIENT);
        if (rpc.cb)
            rpc.cb(dht, rpc.owner, from, DHT_RPC_REPLY, answer);
        return;
    }
    dht->stats.dropped_stray++;
}

static void grow_slow(struct dht *dht, size_t at)
{
    struct dht_rpc *rpc = &dht->rpcs.items[at];
    rpc->slow = true;
    rpc->due_ms = dht->now_ms + (uint64_t)rpc->timeout_ms * PATIENCE;
    send_bytes(dht, &rpc->to, rpc->bytes, rpc->len);
    struct dht_contact to = rpc->to;
    if (rpc->cb)
        rpc->cb(dht, rpc->owner, &to, DHT_RPC_SLOW, NULL);
}

static void give_up(struct dht *dht, size_t at)
{
    struct dht_rpc rpc = take(&dht->rpcs, at);
    dht->stats.timeouts++;
    dht_table_failed(&dht->table, &rpc.to.id, dht->now_ms);
    if (rpc.cb)
        rpc.cb(dht, rpc.owner, &rpc.to, DHT_RPC_FAILED, NULL);
}

void dht_rpc_tick(struct dht *dht)
{
    for (size_t i = 0; i < dht->rpcs.count;) {
        const struct dht_rpc *rpc = &dht->rpcs.items[i];
        if (rpc->due_ms > dht->now_ms)
            i++;
        else if (!rpc->slow)
            grow_slow(dht, i++);
        else
            give_up(dht, i);
    }
}

uint64_t dht_rpc_next_ms(const struct dht *dht)
{
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < dht->rpcs.count; i++)
        next = dht_min_ms(next, dht->rpcs.items[i].due_ms);
    return next;
}
