/*
 * The round over all held records, in key order: what has lapsed goes, and what is ours and a day old is renewed.
 *
 * Hand-over: the neighbours in whose smallest common subtree there are at most sixteen nodes hold the same keys and
 * compare them (reconcile.c). Where that subtree has fewer than sixteen, its keys have holders next to it too: a
 * newcomer there is given the keys that it is to hold by the node that is closest to them.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define ROUND_MS 900000u
#define PAUSE_MS 10u /* between two steps, for other work */
#define STEP_RECORDS 256
#define STEP_OWN 4096
#define HANDING_OVER_MAX 32 /* records under way */

static const char cursor_name[] = "sweep";

void dht_sweep_release(struct dht_sweep *sweep)
{
    free(sweep->newcomers);
}

void dht_sweep_restore(struct dht *dht)
{
    const struct dht_storage *storage = &dht->config.storage;
    OWNED(buf_release) struct buf bytes = BUF(2 * ID_BYTES);
    if (!storage->load || storage->load(storage->ctx, cursor_name, &bytes) != 1 || bytes.len != 2 * ID_BYTES)
        return;
    memcpy(dht->sweep.cursor.b, bytes.data, ID_BYTES);
    memcpy(dht->giving.cursor.b, bytes.data + ID_BYTES, ID_BYTES);
}

int dht_sweep_save(struct dht *dht)
{
    const struct dht_storage *storage = &dht->config.storage;
    struct id cursors[2] = {dht->sweep.cursor, dht->giving.cursor};
    return storage->save ? storage->save(storage->ctx, cursor_name, cursors, sizeof cursors) : 0;
}

/* ---- the round ---- */

static bool lapse_own(void *ctx, struct dht_held *held, const struct dht_record *record, const uint8_t *bytes,
                      size_t len)
{
    struct dht *dht = ctx;
    (void)held;
    struct dht_span span = {bytes, len};
    if (record->expiry_wall_ms <= dht_wall_ms(dht) && dht_record_is_by(&span, dht->self.public_key))
        dht_publish_lapsed(dht, record);
    return true;
}

/* Some of the keys from the cursor on. True when that was the last one. */
static bool sweep_keys(struct dht *dht)
{
    struct dht_sweep *sweep = &dht->sweep;
    size_t seen = 0;
    bool first = id_is_zero(&sweep->cursor);
    struct dht_held *held;
    while (seen < STEP_RECORDS && (held = dht_hold_next(dht, &sweep->cursor, first))) {
        struct id key = held->key;
        seen += 1 + held->count / 16;
        if (held->earliest_wall_ms <= dht_wall_ms(dht)) {
            seen += held->count;
            dht_hold_lapse(dht, held);
            held = dht_hold_of_key(dht, &key);
            if (held && held->earliest_wall_ms <= dht_wall_ms(dht))
                dht_hold_each_of(dht, held, lapse_own, dht);
        }
        sweep->cursor = key;
        first = false;
    }
    if (seen < STEP_RECORDS)
        sweep->cursor = (struct id){{0}};
    return seen < STEP_RECORDS;
}

static void sweep_step(struct dht *dht)
{
    struct dht_sweep *sweep = &dht->sweep;
    bool own_end = sweep->own_done || dht_publish_sweep(dht, &sweep->own, STEP_OWN);
    bool end = sweep->keys_done || sweep_keys(dht);
    sweep->own_done = own_end;
    sweep->keys_done = end;
    sweep->next_ms = dht->now_ms + PAUSE_MS;
    if (!own_end || !end)
        return;
    sweep->own_done = sweep->keys_done = false;
    sweep->next_ms = dht_jittered_ms(dht, ROUND_MS);
}

/* ---- hand-over ---- */

/* Is it beside the subtree of those who hold what we hold, which alone is too small? */
static bool is_beside(struct dht *dht, const struct id *node)
{
    unsigned bits = dht_common_bits(dht);
    return dht_shared_bits(&dht->self.id, node) + 1 == bits &&
           dht_table_count_within(&dht->table, &dht->self.id, bits) + 1 < DHT_REPLICAS;
}

void dht_sweep_newcomer(struct dht *dht, const struct dht_contact *contact)
{
    struct dht_sweep *sweep = &dht->sweep;
    dht_region_changed(dht, &contact->id);
    if (!dht->upkeep.joined)
        return; /* everybody is new to us: we are the newcomer */
    dht_reconcile_newcomer(dht, contact);
    if (dht->hold.count == 0 || sweep->newcomer_count == DHT_HANDOVERS_MAX || !is_beside(dht, &contact->id))
        return;
    if (!sweep->newcomers)
        sweep->newcomers = calloc(DHT_HANDOVERS_MAX, sizeof *sweep->newcomers);
    if (!sweep->newcomers)
        return;
    if (sweep->newcomer_count == 0)
        sweep->handover_ms = dht->now_ms;
    sweep->newcomers[sweep->newcomer_count++] = *contact;
}

/* Is the newcomer one of the holders of the key, and are we the closest of the others? */
static bool is_ours_to_give(struct dht *dht, const struct id *key, const struct id *newcomer)
{
    struct dht_contact closest[DHT_REPLICAS];
    size_t count = dht_table_closest(&dht->table, key, true, closest, DHT_REPLICAS);
    bool among = false;
    for (size_t i = 0; i < count; i++) {
        bool it = id_equal(&closest[i].id, newcomer);
        among |= it;
        if (!it && dht_closer(key, &closest[i].id, &dht->self.id) < 0)
            return false;
    }
    return among;
}

static void end_handover(struct dht_sweep *sweep)
{
    sweep->handover_cursor = (struct id){{0}};
    sweep->newcomer_count--;
    memmove(sweep->newcomers, sweep->newcomers + 1, sweep->newcomer_count * sizeof *sweep->newcomers);
    if (sweep->newcomer_count > 0)
        return;
    free(sweep->newcomers);
    sweep->newcomers = NULL;
}

static void on_handed_over(struct dht *dht, struct dht_parcel *parcel, void *owner)
{
    struct dht_sweep *sweep = &dht->sweep;
    (void)owner;
    sweep->handing_over--;
    bool gone = parcel->accepted == 0 && !dht_push_is_full(parcel);
    if (gone && sweep->newcomer_count > 0 && id_equal(&sweep->newcomers[0].id, &parcel->key))
        end_handover(sweep);
    dht_wake_by(&dht->sweep.handover_ms, dht->now_ms);
}

static bool hand_over(void *ctx, struct dht_held *held, const struct dht_record *record, const uint8_t *bytes,
                      size_t len)
{
    struct dht *dht = ctx;
    if (record->kind == DHT_NODE || !dht_record_is_timely(record, dht_wall_ms(dht)) ||
        !dht_hold_vouched(dht, held, &record->member))
        return true;
    struct dht_span span = {bytes, len};
    if (dht_push_to(dht, dht->sweep.newcomers, &span, on_handed_over, NULL) < 0)
        return false; /* comparing will bring it */
    dht->sweep.handing_over++;
    return true;
}

static void handover_step(struct dht *dht)
{
    struct dht_sweep *sweep = &dht->sweep;
    unsigned bits = dht_common_bits(dht);
    sweep->handover_ms = dht->now_ms + PAUSE_MS;
    for (size_t seen = 0; seen < STEP_RECORDS && sweep->handing_over < HANDING_OVER_MAX; seen++) {
        bool begins = id_is_zero(&sweep->handover_cursor);
        struct id from = begins ? dht_range_first(&dht->self.id, bits) : sweep->handover_cursor;
        struct dht_held *held = dht_hold_next(dht, &from, begins);
        if (!held || dht_shared_bits(&held->key, &dht->self.id) < bits) {
            end_handover(sweep);
            return;
        }
        sweep->handover_cursor = held->key;
        if (is_ours_to_give(dht, &held->key, &sweep->newcomers[0].id))
            dht_hold_each_of(dht, held, hand_over, dht);
    }
}

/* ---- both ---- */

static bool hands_over(const struct dht_sweep *sweep)
{
    return sweep->newcomer_count > 0 && sweep->handing_over < HANDING_OVER_MAX;
}

void dht_sweep_tick(struct dht *dht)
{
    struct dht_sweep *sweep = &dht->sweep;
    if (dht->now_ms >= sweep->next_ms)
        sweep_step(dht);
    if (hands_over(sweep) && dht->now_ms >= sweep->handover_ms)
        handover_step(dht);
}

uint64_t dht_sweep_next_ms(const struct dht *dht)
{
    const struct dht_sweep *sweep = &dht->sweep;
    return hands_over(sweep) ? dht_min_ms(sweep->next_ms, sweep->handover_ms) : sweep->next_ms;
}
