/*
 * Requests of ours. The low bits of a transaction are the slot where the request waits, the others are random: an
 * answer finds its request without a search, and who has not seen the request cannot guess it.
 *
 *   ASKED --late--> SLOW (sent once more) --late--> FAILED
 *     `---- an answer ----`--> REPLY, or, of several parts, PART ... PART REPLY, in any order
 *
 * Each part restarts the wait. What is missing of several parts is asked for by the same repeat: all parts come again,
 * and those that were told already are dropped.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

/* After the expected time the request is sent once more, so that one lost datagram is no failure, and given twice that
 * time again, or what a short outage lasts. Whoever asked has meanwhile turned to somebody else. */
#define PATIENCE 2
#define PATIENCE_FLOOR_MS 500u
#define FIRST_SLOTS 16
#define SLOT_MASK (LIMIT_DHT_PENDING - 1)
_Static_assert((LIMIT_DHT_PENDING & SLOT_MASK) == 0, "the slot is a bit field of the transaction");

struct dht_rpc {
    uint64_t transaction;
    struct dht_contact to;
    uint8_t type;        /* of the request */
    uint8_t parts_asked; /* at most so many may come */
    uint8_t parts;       /* 0: none has come yet */
    bool slow;
    uint16_t missing; /* parts, bit by bit */
    uint16_t len;
    unsigned timeout_ms;
    uint64_t sent_ms;
    uint64_t due_ms; /* slow, or failed */
    dht_rpc_cb cb;   /* NULL: nobody waits any more */
    void *owner;     /* borrowed, for cb */
    uint8_t bytes[]; /* to send it again */
};

void dht_rpc_init(struct dht_rpcs *rpcs)
{
    *rpcs = (struct dht_rpcs){.wake_ms = UINT64_MAX};
}

void dht_rpc_release(struct dht_rpcs *rpcs)
{
    for (size_t i = 0; i < rpcs->slot_count; i++)
        free(rpcs->slots[i]);
    free(rpcs->slots);
    dht_rpc_init(rpcs);
}

size_t dht_rpc_bytes(const struct dht_rpcs *rpcs)
{
    size_t bytes = rpcs->slot_count * sizeof *rpcs->slots;
    for (size_t i = 0; i < rpcs->slot_count; i++)
        if (rpcs->slots[i])
            bytes += sizeof *rpcs->slots[i] + rpcs->slots[i]->len;
    return bytes;
}

/* ---- sending ---- */

static void send_bytes(struct dht *dht, const struct dht_contact *to, const uint8_t *bytes, size_t len)
{
    dht->stats.sent++;
    dht->config.send(dht->config.send_ctx, to, bytes, len);
}

/* A buffer on the stack: it never grows, as its capacity is its maximum, and is not to be released. */
#define STACK_BUF(array) ((struct buf){.data = (array), .cap = sizeof(array), .max = sizeof(array)})

static void encode(struct dht *dht, struct dht_message *message, bool placed, struct buf *out)
{
    message->flags = (uint8_t)((dht->config.client ? DHT_FROM_CLIENT : 0) | (placed ? DHT_PLACED : 0));
    if (placed) {
        message->place = dht_placing_place(&dht->placing);
        message->place_error = dht_placing_error(&dht->placing);
    }
    buf_clear(out);
    dht_message_encode(message, out);
}

void dht_rpc_answer(struct dht *dht, const struct dht_contact *to, uint64_t transaction, struct dht_message *answer)
{
    uint8_t bytes[DHT_MESSAGE_MAX_BYTES];
    struct buf out = STACK_BUF(bytes);
    answer->transaction = transaction;
    encode(dht, answer, true, &out);
    if (out.failed)
        encode(dht, answer, false, &out);
    if (!out.failed)
        send_bytes(dht, to, out.data, out.len);
}

void dht_rpc_tell(struct dht *dht, const struct dht_contact *to, struct dht_message *message)
{
    uint8_t bytes[DHT_MESSAGE_MAX_BYTES];
    struct buf out = STACK_BUF(bytes);
    message->transaction = 0;
    encode(dht, message, false, &out);
    if (!out.failed)
        send_bytes(dht, to, out.data, out.len);
}

/* ---- slots ---- */

static bool grow(struct dht_rpcs *rpcs)
{
    size_t count = rpcs->slot_count ? rpcs->slot_count * 2 : FIRST_SLOTS;
    struct dht_rpc **slots = realloc(rpcs->slots, count * sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = rpcs->slot_count; i < count; i++)
        slots[i] = NULL;
    rpcs->slots = slots;
    rpcs->slot_count = count;
    return true;
}

/* Into a free slot; its number is in the transaction from then on. There is one, and from a random one on it is soon
 * found, as half of them are free until there are as many as may be. */
static void put_in_slot(struct dht_rpcs *rpcs, struct dht_rpc *rpc, uint64_t random)
{
    size_t at = random & (rpcs->slot_count - 1);
    while (rpcs->slots[at])
        at = (at + 1) & (rpcs->slot_count - 1);
    rpcs->slots[at] = rpc;
    rpcs->count++;
    rpc->transaction = (random & ~(uint64_t)SLOT_MASK) | at;
}

/* Out of its slot, so that the callback may ask anew; the caller frees it. Idle nodes keep no more than a few slots. */
static struct dht_rpc *take(struct dht_rpcs *rpcs, size_t at)
{
    struct dht_rpc *rpc = rpcs->slots[at];
    rpcs->slots[at] = NULL;
    if (--rpcs->count == 0 && rpcs->slot_count > FIRST_SLOTS) {
        free(rpcs->slots);
        rpcs->slots = NULL;
        rpcs->slot_count = 0;
    }
    return rpc;
}

static struct dht_rpc *rpc_of(const struct dht_rpcs *rpcs, uint64_t transaction)
{
    size_t at = transaction & SLOT_MASK;
    struct dht_rpc *rpc = at < rpcs->slot_count ? rpcs->slots[at] : NULL;
    return rpc && rpc->transaction == transaction ? rpc : NULL;
}

/* ---- asking ---- */

static unsigned expected_ms(const struct dht *dht, const struct dht_contact *peer)
{
    const struct dht_rtt *rtt = dht_table_rtt(&dht->table, peer);
    return dht_rtt_timeout_ms(rtt && rtt->smooth_8ths ? rtt : &dht->rpcs.anyone);
}

int dht_rpc_ask(struct dht *dht, const struct dht_contact *to, struct dht_message *request, dht_rpc_cb cb, void *owner)
{
    struct dht_rpcs *rpcs = &dht->rpcs;
    uint8_t bytes[DHT_MESSAGE_MAX_BYTES];
    struct buf out = STACK_BUF(bytes);
    if (rpcs->count >= LIMIT_DHT_PENDING)
        return ERR_LIMIT;
    if (rpcs->count * 2 >= rpcs->slot_count && rpcs->slot_count < LIMIT_DHT_PENDING && !grow(rpcs))
        return ERR_NOMEM;
    bool by_distance = request->type == DHT_FIND_VALUE && request->order == DHT_BY_DISTANCE;
    encode(dht, request, by_distance, &out);
    OWNED(owned_free) struct dht_rpc *rpc = out.failed ? NULL : malloc(sizeof *rpc + out.len);
    if (!rpc)
        return ERR_NOMEM;
    unsigned timeout_ms = expected_ms(dht, to);
    *rpc = (struct dht_rpc){
        .to = *to,
        .type = request->type,
        .parts_asked = request->type == DHT_FIND_VALUE ? request->parts : 1,
        .sent_ms = dht->now_ms,
        .due_ms = dht->now_ms + timeout_ms,
        .timeout_ms = timeout_ms,
        .cb = cb,
        .owner = owner,
        .len = (uint16_t)out.len,
    };
    memcpy(rpc->bytes, out.data, out.len);
    put_in_slot(rpcs, rpc, rng_u64(&dht->config.rng));
    request->transaction = rpc->transaction;
    wire_store_u64(rpc->bytes + DHT_MESSAGE_TRANSACTION_OFFSET, rpc->transaction);
    dht_wake_by(&rpcs->wake_ms, rpc->due_ms);
    send_bytes(dht, to, rpc->bytes, rpc->len);
    (void)STEAL(rpc);
    return 0;
}

void dht_rpc_ping(struct dht *dht, const struct dht_contact *to)
{
    for (size_t i = 0; i < dht->rpcs.slot_count; i++) {
        const struct dht_rpc *rpc = dht->rpcs.slots[i];
        if (rpc && rpc->type == DHT_PING && id_equal(&rpc->to.id, &to->id) && addr_equal(&rpc->to.addr, &to->addr))
            return;
    }
    dht_rpc_ask(dht, to, &(struct dht_message){.type = DHT_PING}, NULL, NULL);
}

size_t dht_rpc_count(const struct dht *dht, const struct id *to, uint8_t type)
{
    size_t count = 0;
    for (size_t i = 0; i < dht->rpcs.slot_count; i++) {
        const struct dht_rpc *rpc = dht->rpcs.slots[i];
        count += rpc && rpc->type == type && id_equal(&rpc->to.id, to);
    }
    return count;
}

void dht_rpc_abandon(struct dht *dht, const void *owner)
{
    for (size_t i = 0; i < dht->rpcs.slot_count; i++)
        if (dht->rpcs.slots[i] && dht->rpcs.slots[i]->owner == owner)
            dht->rpcs.slots[i]->cb = NULL;
}

/* ---- answers ---- */

/* The answer to a repeated request may belong to either sending, so it measures nothing (Karn and Partridge 1987). */
static void measure(struct dht *dht, const struct dht_rpc *rpc, const struct dht_contact *from,
                    const struct dht_message *answer)
{
    uint64_t sample_ms = dht->now_ms - rpc->sent_ms;
    if (!rpc->slow)
        dht_rtt_add(&dht->rpcs.anyone, sample_ms);
    if (!(answer->flags & DHT_FROM_CLIENT) &&
        dht_table_answered(&dht->table, from, rpc->slow ? NULL : &sample_ms, dht->now_ms))
        dht_sweep_newcomer(dht, from);
    if (rpc->slow || !(answer->flags & DHT_PLACED))
        return;
    /* A queue on the way says nothing of where the peer is: what is usual for it counts, if that is less. */
    const struct dht_rtt *usual = dht_table_rtt(&dht->table, from);
    double rtt_ms = sample_ms > 0 ? (double)sample_ms : 0.5;
    double usual_ms = usual ? usual->smooth_8ths / 8.0 : rtt_ms;
    dht_placing_add(&dht->placing, &answer->place, answer->place_error, usual_ms < rtt_ms ? usual_ms : rtt_ms,
                    &dht->config.rng);
}

/* Is it an answer to this request, or a part of one that has not come yet? */
static bool fits(const struct dht_rpc *rpc, const struct dht_contact *from, const struct dht_message *answer)
{
    if (!id_equal(&rpc->to.id, &from->id))
        return false;
    if (answer->type == DHT_REFUSED)
        return true;
    if (answer->type != rpc->type + 1)
        return false;
    if (answer->type != DHT_VALUES)
        return true;
    if (rpc->parts == 0)
        return answer->parts <= rpc->parts_asked;
    return answer->parts == rpc->parts && (rpc->missing >> answer->part & 1);
}

static unsigned patience_ms(const struct dht_rpc *rpc)
{
    unsigned again = rpc->timeout_ms * PATIENCE;
    if (!rpc->slow)
        return rpc->timeout_ms;
    return again < PATIENCE_FLOOR_MS ? PATIENCE_FLOOR_MS : again;
}

/* Note that this part has come. True if others are missing. */
static bool awaits_more(struct dht *dht, struct dht_rpc *rpc, const struct dht_message *answer)
{
    if (answer->type != DHT_VALUES)
        return false;
    if (rpc->parts == 0) {
        rpc->parts = answer->parts;
        rpc->missing = (uint16_t)((1u << answer->parts) - 1);
    }
    rpc->missing = (uint16_t)(rpc->missing & ~(1u << answer->part));
    if (!rpc->missing)
        return false;
    rpc->due_ms = dht->now_ms + patience_ms(rpc);
    return true;
}

void dht_rpc_input(struct dht *dht, const struct dht_contact *from, const struct dht_message *answer)
{
    struct dht_rpc *rpc = rpc_of(&dht->rpcs, answer->transaction);
    if (!rpc || !fits(rpc, from, answer)) {
        dht->stats.dropped_stray++;
        return;
    }
    if (rpc->parts == 0)
        measure(dht, rpc, from, answer);
    if (awaits_more(dht, rpc, answer)) {
        if (rpc->cb)
            rpc->cb(dht, rpc->owner, from, DHT_RPC_PART, answer);
        return;
    }
    OWNED(owned_free) struct dht_rpc *over = take(&dht->rpcs, answer->transaction & SLOT_MASK);
    if (over->cb)
        over->cb(dht, over->owner, from, DHT_RPC_REPLY, answer);
}

/* ---- time ---- */

static void grow_slow(struct dht *dht, struct dht_rpc *rpc)
{
    rpc->slow = true;
    rpc->due_ms = dht->now_ms + patience_ms(rpc);
    dht_wake_by(&dht->rpcs.wake_ms, rpc->due_ms);
    send_bytes(dht, &rpc->to, rpc->bytes, rpc->len);
    if (rpc->cb)
        rpc->cb(dht, rpc->owner, &rpc->to, DHT_RPC_SLOW, NULL);
}

static void give_up(struct dht *dht, size_t at)
{
    OWNED(owned_free) struct dht_rpc *rpc = take(&dht->rpcs, at);
    dht->stats.timeouts++;
    dht_upkeep_failed(dht, &rpc->to);
    if (rpc->cb)
        rpc->cb(dht, rpc->owner, &rpc->to, DHT_RPC_FAILED, NULL);
}

/* Callbacks may ask anew meanwhile; whatever is not seen any more is due later, and has lowered the moment by itself.
 */
void dht_rpc_tick(struct dht *dht)
{
    struct dht_rpcs *rpcs = &dht->rpcs;
    if (dht->now_ms < rpcs->wake_ms)
        return;
    rpcs->wake_ms = UINT64_MAX;
    for (size_t i = 0; i < rpcs->slot_count; i++) {
        struct dht_rpc *rpc = rpcs->slots[i];
        if (!rpc)
            continue;
        if (rpc->due_ms > dht->now_ms)
            dht_wake_by(&rpcs->wake_ms, rpc->due_ms);
        else if (!rpc->slow)
            grow_slow(dht, rpc);
        else
            give_up(dht, i);
    }
}
