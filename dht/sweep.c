/*
 * The round over all held records, in key order: what has lapsed goes, what is ours is signed anew in time, and keys
 * that nobody has given to their holders for an hour are given. Of all holders the one whose round comes by first does
 * it, and the others see that it was done.
 *
 * Hand-over: when somebody new comes into the table, the keys that it is a holder of are given to it by the one that
 * was their closest holder before.
 */
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

#define ROUND_MS 900000u
#define REPLICATE_MS 3600000u
#define PAUSE_MS 10u /* between two steps, for other work */
#define STEP_RECORDS 256
#define STEP_LAPSED 64
#define HANDOVER_BYTES 16384 /* then the newcomer is to take these first */
#define KEY_BYTES_MAX (LIMIT_DHT_RECORDS_PER_KEY * (2 + LIMIT_DHT_RECORD_BYTES)) /* 706,560 */

static const char cursor_name[] = "sweep";

void dht_sweep_restore(struct dht *dht)
{
    const struct dht_storage *storage = &dht->config.storage;
    OWNED(buf_release) struct buf bytes = BUF(ID_BYTES);
    if (storage->load(storage->ctx, cursor_name, &bytes) == 1 && bytes.len == ID_BYTES)
        memcpy(dht->sweep.cursor.b, bytes.data, ID_BYTES);
}

int dht_sweep_save(struct dht *dht)
{
    const struct dht_storage *storage = &dht->config.storage;
    return storage->save(storage->ctx, cursor_name, dht->sweep.cursor.b, ID_BYTES);
}

/* The next key after this one; zeros after the last. */
static struct id key_after(struct id key)
{
    for (size_t i = ID_BYTES; i-- > 0 && ++key.b[i] == 0;)
        ;
    return key;
}

/* ---- the round ---- */

struct step {
    struct dht *dht;
    struct id key;               /* of the last record seen */
    struct id keys[STEP_LAPSED]; /* lapsed */
    struct id members[STEP_LAPSED];
    size_t lapsed;
    size_t visited;
    bool stopped;   /* before the end; `key` is next */
    bool found_due; /* `key` is to be replicated */
};

static bool is_due(struct dht *dht, const struct id *key, const struct dht_record *record)
{
    const struct dht_held *held = dht_hold_of_key(dht, key);
    return record->kind != DHT_NODE && dht->table.count > 0 && held && held->touched_ms + REPLICATE_MS <= dht->now_ms;
}

static bool visit(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len)
{
    struct step *step = ctx;
    struct dht_record record;
    bool another_key = !id_equal(key, &step->key);
    step->key = *key;
    step->stopped = step->lapsed == STEP_LAPSED || (another_key && step->visited >= STEP_RECORDS);
    if (step->stopped)
        return false;
    step->visited++;
    bool lapsed = !dht_record_decode(bytes, len, &record) || record.expiry_wall_ms <= dht_wall_ms(step->dht);
    bool kept = id_equal(member, &step->dht->self.id) && dht_publish_keeps(step->dht, key);
    if (lapsed && !kept) {
        step->keys[step->lapsed] = *key;
        step->members[step->lapsed++] = *member;
        return true;
    }
    step->found_due = lapsed || is_due(step->dht, key, &record); /* ours, after a long sleep: to be renewed */
    return !step->found_due;
}

struct gathering {
    struct dht *dht;
    struct id key;
    struct buf *records;
};

static bool gather(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len)
{
    struct gathering *gathering = ctx;
    struct dht_record record;
    (void)member;
    if (!id_equal(key, &gathering->key))
        return false;
    if (dht_record_decode(bytes, len, &record) && dht_record_is_timely(&record, dht_wall_ms(gathering->dht)))
        wire_put_short(gathering->records, bytes, len);
    return true;
}

static void on_pushed(struct dht *dht, struct dht_push *push, void *owner)
{
    (void)push;
    (void)owner;
    dht->sweep.pushing = false;
    dht->sweep.next_ms = dht->now_ms + PAUSE_MS;
}

static void replicate(struct dht *dht, const struct id *key)
{
    const struct dht_storage *storage = &dht->config.storage;
    struct dht_held *held = dht_hold_of_key(dht, key);
    OWNED(buf_release) struct buf records = BUF(KEY_BYTES_MAX);
    struct gathering gathering = {.dht = dht, .key = *key, .records = &records};
    dht_publish_renew(dht, key);
    storage->each(storage->ctx, key, gather, &gathering);
    if (held)
        held->touched_ms = dht->now_ms;
    if (records.len > 0)
        dht->sweep.pushing = dht_push_start(dht, key, &records, NULL, 0, on_pushed, NULL) == 0;
}

static void sweep_step(struct dht *dht)
{
    const struct dht_storage *storage = &dht->config.storage;
    struct step step = {.dht = dht};
    storage->each(storage->ctx, &dht->sweep.cursor, visit, &step);
    for (size_t i = 0; i < step.lapsed; i++)
        dht_hold_remove(dht, &step.keys[i], &step.members[i]);
    if (step.found_due || step.stopped) {
        dht->sweep.cursor = step.found_due ? key_after(step.key) : step.key;
        dht->sweep.next_ms = dht->now_ms + PAUSE_MS;
    } else {
        dht->sweep.cursor = (struct id){{0}};
        dht->sweep.next_ms = dht_jittered_ms(dht, ROUND_MS);
    }
    if (step.found_due)
        replicate(dht, &step.key);
}

/* ---- hand-over ---- */

void dht_sweep_newcomer(struct dht *dht, const struct dht_contact *contact)
{
    struct dht_sweep *sweep = &dht->sweep;
    if (!dht->upkeep.joined)
        return; /* everybody is new to us: we are the newcomer */
    if (dht->hold.count == 0 || sweep->newcomer_count == DHT_HANDOVERS_MAX)
        return; /* the round will bring it what it lacks */
    if (sweep->newcomer_count == 0)
        sweep->handover_ms = dht->now_ms;
    sweep->newcomers[sweep->newcomer_count++] = *contact;
}

struct handover {
    struct dht *dht;
    const struct dht_contact *to;
    struct buf *records;
    struct id key;
    bool gives; /* this key */
    size_t visited;
    bool stopped;
};

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

static bool hand_over(void *ctx, const struct id *key, const struct id *member, const uint8_t *bytes, size_t len)
{
    struct handover *handover = ctx;
    struct dht_record record;
    (void)member;
    if (handover->visited == 0 || !id_equal(key, &handover->key)) {
        handover->key = *key;
        handover->stopped = handover->visited >= STEP_RECORDS || handover->records->len >= HANDOVER_BYTES;
        if (handover->stopped)
            return false;
        handover->gives = is_ours_to_give(handover->dht, key, &handover->to->id);
    }
    handover->visited++;
    if (handover->gives && dht_record_decode(bytes, len, &record) &&
        dht_record_is_timely(&record, dht_wall_ms(handover->dht)))
        wire_put_short(handover->records, bytes, len);
    return true;
}

static void on_handed_over(struct dht *dht, struct dht_push *push, void *owner)
{
    (void)push;
    (void)owner;
    dht->sweep.handing_over = false;
    dht->sweep.handover_ms = dht->now_ms + PAUSE_MS;
}

static void handover_step(struct dht *dht)
{
    struct dht_sweep *sweep = &dht->sweep;
    const struct dht_storage *storage = &dht->config.storage;
    struct dht_contact to = sweep->newcomers[0];
    OWNED(buf_release) struct buf records = BUF(KEY_BYTES_MAX + HANDOVER_BYTES);
    struct handover handover = {.dht = dht, .to = &to, .records = &records};
    storage->each(storage->ctx, &sweep->handover_cursor, hand_over, &handover);
    if (handover.stopped) {
        sweep->handover_cursor = handover.key;
    } else {
        sweep->handover_cursor = (struct id){{0}};
        sweep->newcomer_count--;
        memmove(sweep->newcomers, sweep->newcomers + 1, sweep->newcomer_count * sizeof *sweep->newcomers);
    }
    sweep->handover_ms = dht->now_ms + PAUSE_MS;
    if (records.len > 0)
        sweep->handing_over = dht_push_start(dht, &to.id, &records, &to, 1, on_handed_over, NULL) == 0;
}

/* ---- both ---- */

void dht_sweep_tick(struct dht *dht)
{
    struct dht_sweep *sweep = &dht->sweep;
    if (!sweep->pushing && dht->now_ms >= sweep->next_ms)
        sweep_step(dht);
    if (!sweep->handing_over && sweep->newcomer_count > 0 && dht->now_ms >= sweep->handover_ms)
        handover_step(dht);
}

uint64_t dht_sweep_next_ms(const struct dht *dht)
{
    const struct dht_sweep *sweep = &dht->sweep;
    uint64_t next = sweep->pushing ? UINT64_MAX : sweep->next_ms;
    bool waiting = !sweep->handing_over && sweep->newcomer_count > 0;
    return waiting ? dht_min_ms(next, sweep->handover_ms) : next;
}
