/*
 * What was missed. These make us read the whole key:
 *
 *   a number that stays missing for three seconds; what is lost on the way is repeated sooner
 *   a holder that has begun to count anew
 *   holders that do not hold the same, while nothing changes: one has something that the other will not tell
 *   a time of which no holder is known to have told all. That a holder is dead is known late, so each one that proves
 *   to live carries the end of the covered time on, if it has told us of changes since before that end
 *   a change between a caller's reading of the key and our being told
 */
#include "dht/watch.h"

#include <string.h>

#define GAP_MS 3000u
#define READ_PAUSE_MS 10000u /* between two reads of one key */
#define READ_TIMEOUT_MS 10000u
#define DIFFER_PAUSE_MS 600000u /* holders reconcile meanwhile */

void dht_watch_miss(struct dht *dht, struct dht_watched *watched)
{
    watched->set->missed = true;
    dht_watch_due(dht, watched->set->read_ms);
}

void dht_watch_missed(struct dht *dht, const struct id *key)
{
    struct dht_watched *watched = dht_watch_find(dht, key);
    if (watched)
        dht_watch_miss(dht, watched);
}

/* One of two holders that differ has something that the other will not tell us. */
static void check_sameness(struct dht *dht, struct dht_watched *watched, const struct dht_holder *holder)
{
    bool same = true;
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++) {
        const struct dht_holder *other = &watched->holders[i];
        same &= other->state != DHT_HOLDER_TELLS || !other->is_quiet ||
                memcmp(other->digest, holder->digest, DHT_DIGEST_BYTES) == 0;
    }
    if (same || dht->now_ms < watched->differ_ms)
        return;
    watched->differ_ms = dht->now_ms + DIFFER_PAUSE_MS;
    dht_watch_miss(dht, watched);
}

/* ---- the covered time ---- */

static uint64_t covered_ms(const struct dht_watched *watched)
{
    return watched->covered_ms > watched->set->whole_ms ? watched->covered_ms : watched->set->whole_ms;
}

/* Has anybody told us of changes since before the end of the covered time? If not, some may have been missed. */
static void check_cover(struct dht *dht, struct dht_watched *watched)
{
    bool some = false, covers = false;
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++) {
        some |= watched->holders[i].state == DHT_HOLDER_TELLS;
        covers |= watched->holders[i].state == DHT_HOLDER_TELLS && watched->holders[i].since_ms <= covered_ms(watched);
    }
    if (some && !covers)
        dht_watch_miss(dht, watched);
}

/* The holder has just proved to live. */
static void note_proof(struct dht *dht, struct dht_watched *watched, const struct dht_holder *holder)
{
    if (holder->state == DHT_HOLDER_TELLS && holder->since_ms <= covered_ms(watched))
        watched->covered_ms = dht->now_ms;
}

/* ---- what a caller has read ---- */

static void compare_digests(struct dht *dht, struct dht_watched *watched)
{
    if (!watched->has_read_digest || !watched->has_first_digest)
        return;
    watched->has_read_digest = watched->has_first_digest = false;
    if (memcmp(watched->read_digest, watched->first_digest, DHT_DIGEST_BYTES) != 0)
        dht_watch_miss(dht, watched);
}

/* The first holder begins to tell. Of a shard nobody knows whether it was read; of a set its reader takes care. */
static void begin_cover(struct dht *dht, struct dht_watched *watched, const uint8_t digest[DHT_DIGEST_BYTES])
{
    watched->covered_ms = dht->now_ms;
    watched->has_first_digest = true;
    memcpy(watched->first_digest, digest, DHT_DIGEST_BYTES);
    if (watched->set != watched && !watched->has_read_digest)
        dht_watch_miss(dht, watched);
    compare_digests(dht, watched);
}

void dht_watch_read(struct dht *dht, struct dht_held *rows)
{
    struct dht_watched *watched = dht_watch_find(dht, &rows->key);
    uint64_t until_ms;
    if (!watched || (watched->covered_ms > 0 && !watched->has_first_digest))
        return;
    watched->has_read_digest = dht_rows_digest(rows, dht_wall_ms(dht), watched->read_digest, &until_ms) == 0;
    compare_digests(dht, watched);
}

/* ---- what holders do ---- */

void dht_watch_note_agreed(struct dht *dht, struct dht_watched *watched, struct dht_holder *holder,
                           const struct dht_message *reply)
{
    if (watched->covered_ms == 0)
        begin_cover(dht, watched, reply->digest);
    note_proof(dht, watched, holder);
    check_cover(dht, watched);
    holder->is_quiet = true;
    memcpy(holder->digest, reply->digest, DHT_DIGEST_BYTES);
    check_sameness(dht, watched, holder);
    if (!dht_numbers_exist(&holder->numbers, reply->sequence + 1, dht->now_ms))
        dht_watch_miss(dht, watched);
    if (dht_numbers_missing(&holder->numbers))
        dht_watch_due(dht, holder->numbers.gap_ms + GAP_MS);
}

void dht_watch_note_told(struct dht *dht, struct dht_watched *watched, struct dht_holder *holder, uint64_t sequence,
                         size_t count)
{
    note_proof(dht, watched, holder);
    holder->is_quiet = false;
    if (!dht_numbers_hear(&holder->numbers, sequence, count, dht->now_ms))
        dht_watch_miss(dht, watched);
    if (dht_numbers_missing(&holder->numbers))
        dht_watch_due(dht, holder->numbers.gap_ms + GAP_MS);
}

void dht_watch_note_gone(struct dht *dht, struct dht_watched *watched)
{
    check_cover(dht, watched);
}

/* ---- reading ---- */

static void on_each(void *ctx, const struct dht_record *record)
{
    dht_watch_tell(ctx, record);
}

static void on_collected(void *ctx, int status, size_t count)
{
    struct dht_watched *set = ctx;
    (void)count;
    set->reading = false;
    if (status < 0)
        dht_watch_miss(set->dht, set);
}

static void read_whole(struct dht *dht, struct dht_watched *set)
{
    if (!set->missed || set->reading)
        return;
    if (dht->now_ms >= set->read_ms) {
        set->read_ms = dht->now_ms + READ_PAUSE_MS;
        set->reading = dht_collect(dht, dht->now_ms, &set->key, READ_TIMEOUT_MS, on_each, on_collected, set,
                                   &set->request, NULL) == 0;
        set->missed = !set->reading;
        set->whole_ms = dht->now_ms;
        set->has_first_digest = false;
    }
    if (set->missed)
        dht_watch_due(dht, set->read_ms);
}

static void look_for_gaps(struct dht *dht, struct dht_watched *watched)
{
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++) {
        struct dht_numbers *numbers = &watched->holders[i].numbers;
        if (!dht_numbers_missing(numbers))
            continue;
        if (dht->now_ms < numbers->gap_ms + GAP_MS) {
            dht_watch_due(dht, numbers->gap_ms + GAP_MS);
            continue;
        }
        dht_numbers_give_up(numbers);
        dht_watch_miss(dht, watched);
    }
}

void dht_watch_mend(struct dht *dht, struct dht_watched *watched)
{
    look_for_gaps(dht, watched);
    read_whole(dht, watched);
}
