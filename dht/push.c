/*
 * Giving records to the holders of a key: find them over four disjoint walks, then hand each the records, one message
 * at a time. The closest sixteen that take them are enough; those that are dead or full are stepped over.
 *
 *   NEW --send--> ASKED --stored--> ASKED (next message) ... --> DONE
 *                   |  `--slow down--> WAITING --again--> ASKED
 *                   `--> FAILED: no answer, full, or told to slow down too often
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/wire.h"

#define PUSH_WALK_MS 10000u
#define REFUSALS_MAX 3

/* Records from `offset` on that fit into one message, each with its length in front. */
static size_t fill_message(const struct dht_push *push, size_t offset, struct dht_message *request)
{
    size_t room = DHT_MESSAGE_MAX_BYTES - DHT_MESSAGE_HEADER_BYTES - 1;
    while (offset < push->records.len && request->record_count < DHT_ITEMS_MAX) {
        size_t len = wire_load_u16(push->records.data + offset);
        if (2 + len > room)
            break;
        request->records[request->record_count++] = (struct dht_span){push->records.data + offset + 2, len};
        offset += 2 + len;
        room -= 2 + len;
    }
    return offset;
}

static void on_stored(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                      const struct dht_message *reply);

static void send_next(struct dht *dht, struct dht_push *push, struct dht_target *target)
{
    struct dht_message request = {.type = DHT_STORE};
    if (target->offset == push->records.len) {
        target->state = DHT_TARGET_DONE;
        return;
    }
    target->sent_end = fill_message(push, target->offset, &request);
    target->state = DHT_TARGET_ASKED;
    if (dht_rpc_ask(dht, &target->contact, &request, on_stored, push) < 0) {
        target->state = DHT_TARGET_WAITING; /* too much is pending here */
        target->again_ms = dht_jittered_ms(dht, 100);
    }
}

static void told_to_wait(struct dht *dht, struct dht_target *target, uint32_t wait_ms)
{
    bool gives_up = ++target->refusals > REFUSALS_MAX;
    target->state = gives_up ? DHT_TARGET_FAILED : DHT_TARGET_WAITING;
    target->again_ms = dht_jittered_ms(dht, wait_ms < 60000 ? wait_ms : 60000);
}

/* A holder has something newer than we sent. */
static void take_newer(struct dht *dht, const struct dht_span *span)
{
    struct dht_record newer;
    dht->stats.stale++;
    if (span->len == 0 || !dht_record_decode(span->at, span->len, &newer))
        return;
    if (!id_equal(&newer.member, &dht->self.id))
        dht_hold_put(dht, span->at, span->len, false, NULL);
    else if (dht_record_is_signed(&newer, span->at, span->len, &dht->config.signatures))
        dht_publish_overtaken(dht, &newer);
}

static void take_statuses(struct dht *dht, struct dht_push *push, struct dht_target *target,
                          const struct dht_message *reply)
{
    size_t full = 0;
    bool waits = false;
    for (size_t i = 0; i < reply->record_count; i++) {
        full += reply->status[i] == DHT_FULL;
        waits |= reply->status[i] == DHT_SLOW_DOWN;
        if (reply->status[i] == DHT_STALE)
            take_newer(dht, &reply->records[i]);
    }
    dht->stats.full += full;
    if (waits) {
        told_to_wait(dht, target, reply->wait_ms);
    } else if (full == reply->record_count) {
        target->state = DHT_TARGET_FAILED;
    } else {
        target->offset = target->sent_end;
        send_next(dht, push, target);
    }
}

static void on_stored(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                      const struct dht_message *reply)
{
    struct dht_push *push = owner;
    struct dht_target *target = push->targets;
    push->stirred = true;
    while (target < push->targets + push->target_count && !id_equal(&target->contact.id, &peer->id))
        target++;
    if (event == DHT_RPC_SLOW || target == push->targets + push->target_count)
        return;
    if (event == DHT_RPC_FAILED)
        target->state = DHT_TARGET_FAILED;
    else if (reply->type == DHT_REFUSED)
        told_to_wait(dht, target, reply->wait_ms);
    else
        take_statuses(dht, push, target, reply);
}

static void set_targets(struct dht_push *push, const struct dht_contact *contacts, size_t count)
{
    push->target_count = count;
    for (size_t i = 0; i < count; i++)
        push->targets[i] = (struct dht_target){.contact = contacts[i]};
}

static void on_walked(struct dht *dht, struct dht_lookup *lookup, void *owner)
{
    struct dht_push *push = owner;
    struct dht_contact contacts[DHT_PUSH_TARGETS];
    (void)dht;
    push->lookup = NULL;
    push->stirred = true;
    set_targets(push, contacts, dht_lookup_closest(lookup, true, contacts, DHT_PUSH_TARGETS));
}

int dht_push_start(struct dht *dht, const struct id *key, struct buf *records, const struct dht_contact *contacts,
                   size_t contact_count, dht_push_cb cb, void *owner)
{
    struct dht_push *push = calloc(1, sizeof *push);
    if (!push)
        return ERR_NOMEM;
    push->wanted = contact_count > 0 ? contact_count : DHT_REPLICAS;
    push->cb = cb;
    push->owner = owner;
    if (contact_count > 0)
        set_targets(push, contacts, contact_count);
    else
        push->lookup = dht_lookup_start(dht, key, DHT_WALKS, NULL, PUSH_WALK_MS, on_walked, push);
    if (contact_count == 0 && !push->lookup) {
        free(push);
        return ERR_NOMEM;
    }
    push->records = *records;
    *records = BUF(records->max);
    push->stirred = !push->lookup;
    TAILQ_INSERT_TAIL(&dht->pushes, push, link);
    return 0;
}

void dht_push_free(struct dht *dht, struct dht_push *push)
{
    TAILQ_REMOVE(&dht->pushes, push, link);
    dht_rpc_abandon(dht, push);
    if (push->lookup)
        dht_lookup_cancel(dht, push->lookup);
    buf_release(&push->records);
    free(push);
}

size_t dht_push_done(const struct dht_push *push, struct dht_contact *ret_contacts, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < push->target_count && count < max; i++)
        if (push->targets[i].state == DHT_TARGET_DONE)
            ret_contacts[count++] = push->targets[i].contact;
    return count;
}

/* Keep as many targets busy or done as are wanted; over when none is busy any more. */
static void go_on(struct dht *dht, struct dht_push *push)
{
    size_t taken = 0;
    size_t busy = 0;
    push->stirred = false;
    for (size_t i = 0; i < push->target_count && taken < push->wanted; i++) {
        struct dht_target *target = &push->targets[i];
        bool due = target->state == DHT_TARGET_WAITING && target->again_ms <= dht->now_ms;
        if (target->state == DHT_TARGET_NEW || due)
            send_next(dht, push, target);
        taken += target->state != DHT_TARGET_FAILED;
        busy += target->state == DHT_TARGET_ASKED || target->state == DHT_TARGET_WAITING;
    }
    push->finished = busy == 0;
}

static struct dht_push *first_finished(struct dht *dht)
{
    struct dht_push *push;
    TAILQ_FOREACH (push, &dht->pushes, link)
        if (push->finished)
            break;
    return push;
}

void dht_push_tick(struct dht *dht)
{
    struct dht_push *push;
    TAILQ_FOREACH (push, &dht->pushes, link)
        if (!push->lookup)
            go_on(dht, push);
    while ((push = first_finished(dht))) {
        if (push->cb)
            push->cb(dht, push, push->owner);
        dht_push_free(dht, push);
    }
}

uint64_t dht_push_next_ms(const struct dht *dht)
{
    uint64_t next = UINT64_MAX;
    const struct dht_push *push;
    TAILQ_FOREACH (push, &dht->pushes, link) {
        if (push->stirred)
            return dht->now_ms;
        for (size_t i = 0; i < push->target_count; i++)
            if (push->targets[i].state == DHT_TARGET_WAITING)
                next = dht_min_ms(next, push->targets[i].again_ms);
    }
    return next;
}
