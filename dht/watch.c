#include "dht/watch.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/scope.h"

#define GRAIN_MS 250u /* due times are rounded up, so that many watches are looked at together */

void dht_watch_due(struct dht *dht, uint64_t at_ms)
{
    if (at_ms > dht->now_ms)
        at_ms = (at_ms + GRAIN_MS - 1) / GRAIN_MS * GRAIN_MS;
    dht->watching.due_ms = dht_min_ms(dht->watching.due_ms, at_ms);
}

struct dht_watched *dht_watch_find(const struct dht *dht, const struct id *key)
{
    return map_get(&dht->watching.keys, key);
}

/* ---- telling ---- */

/* A change is heard from each holder and told once, as far as a short memory reaches. */
void dht_watch_tell(struct dht_watched *set, const struct dht_record *record)
{
    struct dht_watch *watch;
    TAILQ_FOREACH (watch, &set->watches, link)
        if (!watch->over)
            watch->changed(watch->ctx, &set->key, record);
}

static bool was_seen(const struct dht_watched *watched, const uint8_t hash[DHT_WATCH_SEEN_BYTES])
{
    for (size_t i = 0; i < DHT_WATCH_SEEN; i++)
        if (memcmp(watched->seen[i], hash, DHT_WATCH_SEEN_BYTES) == 0)
            return true;
    return false;
}

/* Tell of a record that has come, if it was not told just before; false if it is no record of the key or forged. */
static bool hear(struct dht *dht, struct dht_watched *watched, const uint8_t *bytes, size_t len, bool vouched)
{
    struct dht_record record;
    uint8_t hash[DHT_WATCH_SEEN_BYTES];
    if (!dht_record_decode(bytes, len, &record) || !id_equal(&record.key, &watched->key))
        return false;
    if (!dht_record_is_timely(&record, dht_wall_ms(dht)) || dht_is_by_revoked(dht, &record))
        return true; /* wrong for us, and perhaps not for whoever told us */
    crypto_blake2b(hash, sizeof hash, NULL, 0, bytes, len, NULL, 0);
    if (was_seen(watched, hash))
        return true;
    if (!vouched && !dht_record_is_signed(&record, bytes, len, &dht->config.signatures))
        return false;
    memcpy(watched->seen[watched->seen_next++ % DHT_WATCH_SEEN], hash, DHT_WATCH_SEEN_BYTES);
    dht_watch_tell(watched->set, &record);
    return true;
}

void dht_watch_hear(struct dht *dht, const struct id *key, const uint8_t *bytes, size_t len_bytes)
{
    struct dht_watched *watched = dht_watch_find(dht, key);
    if (watched)
        hear(dht, watched, bytes, len_bytes, true);
}

/* ---- watched keys ---- */

static struct dht_watched *add_key(struct dht *dht, const struct id *key, struct dht_watched *set)
{
    OWNED(owned_free) struct dht_watched *watched = calloc(1, sizeof *watched);
    if (!watched || dht_watchers_self(dht, key, true) < 0)
        return NULL;
    if (map_set(&dht->watching.keys, key, watched) < 0) {
        dht_watchers_self(dht, key, false);
        return NULL;
    }
    watched->dht = dht;
    watched->key = *key;
    watched->set = set ? set : watched;
    TAILQ_INIT(&watched->watches);
    TAILQ_INSERT_TAIL(&dht->watching.list, watched, link);
    return STEAL(watched);
}

void dht_watch_divide(struct dht *dht, struct dht_watched *watched)
{
    bool crowded = dht->watching.keys.count > LIMIT_DHT_WATCHES / 2; /* the rest is for sets */
    if (watched->divided || watched->depth == DHT_SHARD_DEPTH_MAX || crowded)
        return;
    watched->divided = true;
    for (unsigned i = 0; i < DHT_SHARDS; i++) {
        struct id prefix = watched->prefix;
        prefix.b[watched->depth / 2] |= (uint8_t)(watched->depth % 2 ? i : i << 4);
        struct id key = dht_shard_key(&watched->set->key, watched->depth + 1, &prefix);
        struct dht_watched *shard = dht_watch_find(dht, &key) ? NULL : add_key(dht, &key, watched->set);
        if (!shard)
            continue;
        shard->depth = watched->depth + 1;
        shard->prefix = prefix;
    }
    dht_watch_due(dht, dht->now_ms);
}

static void free_watch(struct dht *dht, struct dht_watched *watched, struct dht_watch *watch)
{
    TAILQ_REMOVE(&watched->watches, watch, link);
    dht->watching.count--;
    free(watch);
}

static void free_key(struct dht *dht, struct dht_watched *watched)
{
    dht_rpc_abandon(dht, watched);
    if (watched->lookup) {
        dht_lookup_cancel(dht, watched->lookup);
        dht->watching.lookups--;
    }
    if (watched->reading)
        dht_cancel(dht, watched->request);
    while (!TAILQ_EMPTY(&watched->watches))
        free_watch(dht, watched, TAILQ_FIRST(&watched->watches));
    map_remove(&dht->watching.keys, &watched->key);
    TAILQ_REMOVE(&dht->watching.list, watched, link);
    free(watched);
}

static void end_key(struct dht *dht, struct dht_watched *watched)
{
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++)
        if (watched->holders[i].state != DHT_HOLDER_NONE)
            dht_watch_stop_holder(dht, watched, &watched->holders[i]);
    dht_watchers_self(dht, &watched->key, false);
    free_key(dht, watched);
}

static void end_set(struct dht *dht, struct dht_watched *set)
{
    struct dht_watched *shard, *next;
    for (shard = TAILQ_FIRST(&dht->watching.list); shard; shard = next) {
        next = TAILQ_NEXT(shard, link);
        if (shard->set == set && shard != set)
            end_key(dht, shard);
    }
    end_key(dht, set);
}

/* Free the watches that are over, and end a key that has no others. True if it did: the list is another one then. */
static bool reap(struct dht *dht, struct dht_watched *watched)
{
    struct dht_watch *watch, *next;
    for (watch = TAILQ_FIRST(&watched->watches); watch; watch = next) {
        next = TAILQ_NEXT(watch, link);
        if (watch->over)
            free_watch(dht, watched, watch);
    }
    bool ends = watched->set == watched && TAILQ_EMPTY(&watched->watches);
    if (ends)
        end_set(dht, watched);
    return ends;
}

static void reap_all(struct dht *dht)
{
    struct dht_watched *watched = TAILQ_FIRST(&dht->watching.list);
    dht->watching.some_over = false;
    while (watched)
        watched = reap(dht, watched) ? TAILQ_FIRST(&dht->watching.list) : TAILQ_NEXT(watched, link);
}

/* ---- from others ---- */

void dht_watch_serve_notify(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    struct dht_watched *watched = dht_watch_find(dht, &request->target);
    struct dht_holder *holder = watched ? dht_watch_find_holder(watched, &from->id) : NULL;
    struct dht_message answer = {.type = DHT_NOTIFIED, .known = holder};
    dht_rpc_answer(dht, from, request->transaction, &answer);
    if (!holder)
        return;
    bool honest = true;
    for (size_t i = 0; i < request->record_count; i++) {
        uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
        size_t len = dht_record_unbrief(&watched->key, &request->records[i], bytes);
        honest &= hear(dht, watched, bytes, len, false);
    }
    if (honest) {
        dht_watch_note_told(dht, watched, holder, request->sequence, request->record_count);
        return;
    }
    dht->stats.bad_records++;
    dht_watch_stop_holder(dht, watched, holder);
}

/* ---- public ---- */

static void look_after(struct dht *dht, struct dht_watched *watched)
{
    dht_watch_mend(dht, watched);
    dht_watch_keep_holders(dht, watched);
}

int dht_watch(struct dht *dht, uint64_t now_ms, const struct id *key, dht_watch_cb changed, void *ctx,
              uint64_t *ret_watch, struct err *err)
{
    dht_set_now(dht, now_ms);
    if (dht->watching.count >= LIMIT_DHT_WATCHES)
        return err_set(err, ERR_LIMIT, "%d keys are watched already", LIMIT_DHT_WATCHES);
    OWNED(owned_free) struct dht_watch *watch = calloc(1, sizeof *watch);
    struct dht_watched *watched = dht_watch_find(dht, key);
    if (watch && !watched)
        watched = add_key(dht, key, NULL);
    if (!watch || !watched)
        return err_set(err, ERR_NOMEM, "no memory for a watch");
    *watch = (struct dht_watch){.number = ++dht->watching.last_watch, .changed = changed, .ctx = ctx};
    *ret_watch = watch->number;
    TAILQ_INSERT_TAIL(&watched->watches, watch, link);
    (void)STEAL(watch);
    dht->watching.count++;
    look_after(dht, watched);
    return 0;
}

static struct dht_watch *find_watch(const struct dht *dht, uint64_t number)
{
    struct dht_watched *watched;
    struct dht_watch *watch;
    TAILQ_FOREACH (watched, &dht->watching.list, link)
        TAILQ_FOREACH (watch, &watched->watches, link)
            if (watch->number == number)
                return watch;
    return NULL;
}

void dht_unwatch(struct dht *dht, uint64_t now_ms, uint64_t number)
{
    dht_set_now(dht, now_ms);
    struct dht_watch *watch = find_watch(dht, number);
    if (!watch)
        return;
    watch->over = true;
    dht->watching.some_over = true;
    dht_watch_due(dht, dht->now_ms);
}

/* ---- lifecycle ---- */

void dht_watch_init(struct dht *dht)
{
    TAILQ_INIT(&dht->watching.list);
    map_init(&dht->watching.keys, LIMIT_DHT_WATCHES, rng_u64(&dht->config.rng));
    dht->watching.due_ms = UINT64_MAX;
}

void dht_watch_release(struct dht *dht)
{
    while (!TAILQ_EMPTY(&dht->watching.list))
        free_key(dht, TAILQ_FIRST(&dht->watching.list));
    map_release(&dht->watching.keys);
}

void dht_watch_tick(struct dht *dht)
{
    if (dht->now_ms < dht->watching.due_ms)
        return;
    dht->watching.due_ms = UINT64_MAX;
    if (dht->watching.some_over)
        reap_all(dht);
    struct dht_watched *watched;
    TAILQ_FOREACH (watched, &dht->watching.list, link)
        look_after(dht, watched);
}

uint64_t dht_watch_next_ms(const struct dht *dht)
{
    return dht->watching.due_ms;
}
