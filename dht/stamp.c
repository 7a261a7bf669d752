/*
 * The hybrid logical clock (Kulkarni, Demirbas, Madappa, Avva and Leone 2014): stamps near the wall clock, each higher
 * than all that were given or seen before, whatever steps the wall clock makes, over restarts too.
 *
 * A mark ahead of the clock is saved; no epoch up to it is used after a restart, and none beyond it before a further
 * mark has been saved. The mark is half of DHT_SKEW_MS ahead, so that the first stamps of the next life are not
 * refused as being from the future.
 *
 * Versions that count only never go back. Stamps by hand do where everybody would refuse them otherwise: when the wall
 * clock was wrong by more than DHT_SKEW_MS, and has been set right.
 */
#include "dht/internal.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

#define AHEAD_MS (DHT_SKEW_MS / 2)
#define STEP_MS 1000u   /* the mark's, at least, when others drive us ahead of our clock */
#define COUNTER_BITS 16 /* as in the paper: a stamp fits into 64 bits */
#define COUNTER_MAX ((1u << COUNTER_BITS) - 1)

static const char mark_name[] = "clock";

int dht_stamp_restore(struct dht *dht, struct err *err)
{
    struct dht_stamps *stamps = &dht->stamps;
    const struct dht_storage *storage = &dht->config.storage;
    OWNED(buf_release) struct buf bytes = BUF(sizeof(uint64_t));
    int found = storage->load ? storage->load(storage->ctx, mark_name, &bytes) : 0;
    if (found < 0)
        return err_set(err, found, "the mark of the version clock cannot be read");
    if (!found || bytes.len != sizeof(uint64_t))
        return 0;
    stamps->saved_ms = wire_load_u64(bytes.data);
    stamps->last = (struct dht_version){stamps->saved_ms, COUNTER_MAX};
    return 0;
}

/* Before `next` is used. */
static int save_mark(struct dht *dht, const struct dht_version *next)
{
    struct dht_stamps *stamps = &dht->stamps;
    const struct dht_storage *storage = &dht->config.storage;
    uint64_t mark_ms = dht_wall_ms(dht) + AHEAD_MS;
    uint8_t bytes[sizeof mark_ms];
    if (next->epoch <= stamps->saved_ms)
        return 0;
    if (mark_ms < next->epoch + STEP_MS)
        mark_ms = next->epoch + STEP_MS;
    wire_store_u64(bytes, mark_ms);
    int status = storage->save ? storage->save(storage->ctx, mark_name, bytes, sizeof bytes) : 0;
    if (status == 0)
        stamps->saved_ms = mark_ms;
    return status;
}

static struct dht_version after(const struct dht_version *last, uint64_t wall_ms)
{
    if (wall_ms > last->epoch)
        return (struct dht_version){.epoch = wall_ms};
    if (last->counter >= COUNTER_MAX)
        return (struct dht_version){.epoch = last->epoch + 1};
    return (struct dht_version){last->epoch, last->counter + 1};
}

struct dht_version dht_stamp(struct dht *dht, uint64_t now_ms)
{
    struct dht_stamps *stamps = &dht->stamps;
    dht_set_now(dht, now_ms);
    uint64_t wall_ms = dht_wall_ms(dht);
    bool usable = stamps->last.epoch <= wall_ms + DHT_SKEW_MS;
    if (stamps->by_hand.epoch > wall_ms + DHT_SKEW_MS)
        stamps->by_hand = (struct dht_version){0};
    if (usable && dht_version_compare(&stamps->last, &stamps->by_hand) > 0)
        stamps->by_hand = stamps->last;
    stamps->by_hand = after(&stamps->by_hand, wall_ms);
    if (usable) {
        stamps->last = stamps->by_hand;
        save_mark(dht, &stamps->last); /* if not: right for as long as we live */
    }
    return stamps->by_hand;
}

int dht_stamp_counter(struct dht *dht, uint64_t *ret_counter)
{
    struct dht_version next = after(&dht->stamps.last, dht_wall_ms(dht));
    int status = save_mark(dht, &next);
    if (status < 0)
        return status;
    dht->stamps.last = next;
    *ret_counter = next.epoch << COUNTER_BITS | next.counter;
    return 0;
}

/* Somebody who stamps as far ahead as others let him may not draw us with him to where some would refuse ours. */
void dht_publish_seen(struct dht *dht, const struct dht_version *version)
{
    struct dht_version seen = *version;
    if (seen.counter > COUNTER_MAX)
        seen = (struct dht_version){.epoch = version->epoch + 1};
    if (seen.epoch <= dht_wall_ms(dht) + AHEAD_MS && dht_version_compare(&seen, &dht->stamps.by_hand) > 0)
        dht->stamps.by_hand = seen;
}
