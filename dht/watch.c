/*
 * A watched key has up to three holders that tell us of changes; each is
 *
 *   NONE --WATCH--> ASKED --WATCHED--> WATCHING --renewal each minute--> WATCHING
 *     ^               |                   |
 *     +------refused, no answer, a false record, too far away now------+
 *
 * and is replaced from the candidates of the last lookup. A change is heard from each of them and told once, as far as
 * a short memory reaches. What makes us read the whole key: a number that stays missing for three seconds (what is lost
 * is repeated sooner), a holder that has begun to count anew, a time without any holder.
 *
 * Holders that are full keep further members in shards: those are watched as keys of their own, for the same callers.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "dht/numbers.h"
#include "node/base/scope.h"

#define GRAIN_MS 250u /* due times are rounded up, so that many watches are looked at together */
#define RENEW_MS 60000u
#define RENEW_MIN_MS 10000u /* whatever lease a holder gives */
#define GAP_MS 3000u
#define READ_PAUSE_MS 10000u /* between two reads of one key */
#define READ_TIMEOUT_MS 10000u
#define LOOK_FIRST_MS 1000u /* after a lookup that did not find enough holders; doubled each time, up to */
#define LOOK_MISSING_MS 60000u
#define LOOK_AGAIN_MS 600000u /* nearer holders are looked for in any case */
#define LOOKUP_TIMEOUT_MS 10000u
#define LOOKUPS_MAX 16
#define SEEN 64
#define SEEN_BYTES 16

struct dht_watch {
    TAILQ_ENTRY(dht_watch)
    link;
    uint64_t number;
    bool over; /* freed by the next tick */
    dht_watch_cb changed;
    void *ctx; /* borrowed */
};

enum holder_state { NONE, ASKED, WATCHING };

struct holder {
    struct dht_contact contact;
    enum holder_state state;
    uint64_t renew_ms;
    struct dht_numbers numbers; /* of the changes that it tells */
};

struct dht_watched {
    TAILQ_ENTRY(dht_watched)
    link;
    struct dht *dht;
    struct id key;
    TAILQ_HEAD(, dht_watch) watches; /* owned; of a shard none */
    struct dht_watched *set;         /* whose shard this is; itself for a key that was asked for */
    unsigned depth;                  /* of the shard */
    struct id prefix;                /* the members in it begin with so many half bytes of this */
    bool divided;                    /* its shards are watched too */

    struct holder holders[DHT_WATCH_HOLDERS];
    struct dht_contact candidates[DHT_REPLICAS];
    size_t candidate_count;
    size_t candidate_next;
    struct dht_lookup *lookup;
    uint64_t missing_ms; /* the next lookup if all candidates have failed */
    uint64_t look_ms;    /* the next one in any case */
    unsigned look_tries;
    bool alone; /* no holder tells us, so changes may be missed */

    bool missed; /* the whole is to be read */
    bool reading;
    uint64_t request;
    uint64_t read_ms; /* not before */

    uint8_t seen[SEEN][SEEN_BYTES]; /* hashes of the last records told */
    size_t seen_next;
};

static void due(struct dht *dht, uint64_t at_ms)
{
    if (at_ms > dht->now_ms)
        at_ms = (at_ms + GRAIN_MS - 1) / GRAIN_MS * GRAIN_MS;
    dht->watching.due_ms = dht_min_ms(dht->watching.due_ms, at_ms);
}

static struct dht_watched *find_key(const struct dht *dht, const struct id *key)
{
    return map_get(&dht->watching.keys, key);
}

/* ---- telling ---- */

static void tell(struct dht_watched *set, const struct dht_record *record)
{
    struct dht_watch *watch;
    TAILQ_FOREACH (watch, &set->watches, link)
        if (!watch->over)
            watch->changed(watch->ctx, &set->key, record);
}

static bool was_seen(const struct dht_watched *watched, const uint8_t hash[SEEN_BYTES])
{
    for (size_t i = 0; i < SEEN; i++)
        if (memcmp(watched->seen[i], hash, SEEN_BYTES) == 0)
            return true;
    return false;
}

static bool is_by_revoked(const struct dht *dht, const struct dht_record *record)
{
    struct id writer;
    crypto_id_of(record->public_key, sizeof record->public_key, &writer);
    return dht_is_revoked(dht, &writer);
}

/* Tell of a record that has come, if it was not told just before; false if it is no record of the key or forged. */
static bool hear(struct dht *dht, struct dht_watched *watched, const uint8_t *bytes, size_t len, bool vouched)
{
    struct dht_record record;
    uint8_t hash[SEEN_BYTES];
    if (!dht_record_decode(bytes, len, &record) || !id_equal(&record.key, &watched->key))
        return false;
    if (!dht_record_is_timely(&record, dht_wall_ms(dht)) || is_by_revoked(dht, &record))
        return true; /* wrong for us, and perhaps not for whoever told us */
    crypto_blake2b(hash, sizeof hash, NULL, 0, bytes, len, NULL, 0);
    if (was_seen(watched, hash))
        return true;
    if (!vouched && !dht_record_is_signed(&record, bytes, len, &dht->config.signatures))
        return false;
    memcpy(watched->seen[watched->seen_next++ % SEEN], hash, SEEN_BYTES);
    tell(watched->set, &record);
    return true;
}

void dht_watch_hear(struct dht *dht, const struct id *key, const uint8_t *bytes, size_t len_bytes)
{
    struct dht_watched *watched = find_key(dht, key);
    if (watched)
        hear(dht, watched, bytes, len_bytes, true);
}

/* ---- what was missed ---- */

static void miss(struct dht *dht, struct dht_watched *watched)
{
    watched->set->missed = true;
    due(dht, watched->set->read_ms);
}

void dht_watch_missed(struct dht *dht, const struct id *key)
{
    struct dht_watched *watched = find_key(dht, key);
    if (watched)
        miss(dht, watched);
}

static void on_each(void *ctx, const struct dht_record *record)
{
    tell(ctx, record);
}

static void on_collected(void *ctx, int status, size_t count)
{
    struct dht_watched *set = ctx;
    (void)count;
    set->reading = false;
    if (status < 0)
        miss(set->dht, set);
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
    }
    if (set->missed)
        due(dht, set->read_ms);
}

/* What is lost on the way is repeated within that time; what stays missing is not going to come. */
static void look_for_gaps(struct dht *dht, struct dht_watched *watched)
{
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++) {
        struct dht_numbers *numbers = &watched->holders[i].numbers;
        if (!dht_numbers_missing(numbers))
            continue;
        if (dht->now_ms < numbers->gap_ms + GAP_MS) {
            due(dht, numbers->gap_ms + GAP_MS);
            continue;
        }
        dht_numbers_give_up(numbers);
        miss(dht, watched);
    }
}

/* ---- holders ---- */

static struct holder *find_holder(struct dht_watched *watched, const struct id *node)
{
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++)
        if (watched->holders[i].state != NONE && id_equal(&watched->holders[i].contact.id, node))
            return &watched->holders[i];
    return NULL;
}

static void drop_holder(struct dht *dht, struct dht_watched *watched, struct holder *holder)
{
    bool was_watching = holder->state == WATCHING;
    *holder = (struct holder){0};
    bool others = false;
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++)
        others |= watched->holders[i].state == WATCHING;
    watched->alone |= was_watching && !others;
    if (was_watching)
        watched->look_tries = 0;
    due(dht, dht->now_ms);
}

static void say_stop(struct dht *dht, const struct dht_watched *watched, const struct holder *holder)
{
    struct dht_message request = {.type = DHT_WATCH, .target = watched->key, .stop = true};
    if (holder->state != NONE)
        dht_rpc_ask(dht, &holder->contact, &request, NULL, NULL);
}

static void divide(struct dht *dht, struct dht_watched *watched);

static void on_accepted(struct dht *dht, struct dht_watched *watched, struct holder *holder,
                        const struct dht_message *reply)
{
    bool first = holder->state == ASKED;
    uint64_t pause_ms = dht_min_ms(reply->lease_ms / 2, RENEW_MS);
    holder->state = WATCHING;
    holder->renew_ms = dht_jittered_ms(dht, pause_ms > RENEW_MIN_MS ? pause_ms : RENEW_MIN_MS);
    due(dht, holder->renew_ms);
    bool missed = !dht_numbers_exist(&holder->numbers, reply->sequence + 1, dht->now_ms);
    if (missed || (first && watched->alone))
        miss(dht, watched);
    if (dht_numbers_missing(&holder->numbers))
        due(dht, holder->numbers.gap_ms + GAP_MS);
    watched->alone = false;
    if (reply->deeper)
        divide(dht, watched);
}

static void on_watched(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                       const struct dht_message *reply)
{
    struct dht_watched *watched = owner;
    struct holder *holder = find_holder(watched, &peer->id);
    if (event == DHT_RPC_SLOW || !holder)
        return;
    if (event != DHT_RPC_FAILED && reply->type == DHT_WATCHED && reply->lease_ms > 0)
        on_accepted(dht, watched, holder, reply);
    else
        drop_holder(dht, watched, holder);
}

static bool ask(struct dht *dht, struct dht_watched *watched, const struct dht_contact *to)
{
    struct dht_message request = {.type = DHT_WATCH, .target = watched->key};
    if (dht_rpc_ask(dht, to, &request, on_watched, watched) == 0)
        return true;
    due(dht, dht->now_ms + GRAIN_MS);
    return false;
}

static void renew(struct dht *dht, struct dht_watched *watched)
{
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++) {
        struct holder *holder = &watched->holders[i];
        if (holder->state != WATCHING)
            continue;
        if (dht->now_ms >= holder->renew_ms && ask(dht, watched, &holder->contact))
            holder->renew_ms = dht->now_ms + RENEW_MS; /* or the answer says */
        due(dht, holder->renew_ms);
    }
}

/* Ask the next candidate in place of a missing holder. */
static void fill(struct dht *dht, struct dht_watched *watched, struct holder *holder)
{
    while (watched->candidate_next < watched->candidate_count) {
        const struct dht_contact *candidate = &watched->candidates[watched->candidate_next];
        if (!find_holder(watched, &candidate->id)) {
            if (!ask(dht, watched, candidate))
                return;
            *holder = (struct holder){.contact = *candidate, .state = ASKED};
            watched->candidate_next++;
            return;
        }
        watched->candidate_next++;
    }
}

/* ---- looking for holders ---- */

/* A holder that is not among the sixteen nearest any more hears of nothing. */
static void drop_distant(struct dht *dht, struct dht_watched *watched)
{
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++) {
        struct holder *holder = &watched->holders[i];
        bool is_near = watched->candidate_count < DHT_REPLICAS;
        for (size_t j = 0; j < watched->candidate_count; j++)
            is_near |= id_equal(&watched->candidates[j].id, &holder->contact.id);
        if (holder->state == NONE || is_near)
            continue;
        say_stop(dht, watched, holder);
        drop_holder(dht, watched, holder);
    }
}

static void on_found(struct dht *dht, struct dht_lookup *lookup, void *owner)
{
    struct dht_watched *watched = owner;
    watched->lookup = NULL;
    dht->watching.lookups--;
    watched->candidate_count = dht_lookup_closest(lookup, true, watched->candidates, DHT_REPLICAS);
    watched->candidate_next = 0;
    drop_distant(dht, watched);
    due(dht, dht->now_ms);
}

/* When too many look already, it is tried again when one of them has found. */
static void look(struct dht *dht, struct dht_watched *watched)
{
    if (watched->lookup || dht->watching.lookups >= LOOKUPS_MAX)
        return;
    watched->lookup = dht_lookup_start(dht, &watched->key, 1, NULL, LOOKUP_TIMEOUT_MS, on_found, watched);
    if (!watched->lookup)
        return;
    dht->watching.lookups++;
    watched->missing_ms = dht->now_ms + dht_min_ms((uint64_t)LOOK_FIRST_MS << watched->look_tries, LOOK_MISSING_MS);
    watched->look_tries += watched->look_tries < 16;
    watched->look_ms = dht_jittered_ms(dht, LOOK_AGAIN_MS);
}

static void keep_holders(struct dht *dht, struct dht_watched *watched)
{
    bool is_missing = false;
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++) {
        if (watched->holders[i].state == NONE)
            fill(dht, watched, &watched->holders[i]);
        is_missing |= watched->holders[i].state == NONE;
    }
    if (!is_missing)
        watched->look_tries = 0;
    bool exhausted = is_missing && watched->candidate_next == watched->candidate_count;
    uint64_t look_ms = exhausted ? dht_min_ms(watched->missing_ms, watched->look_ms) : watched->look_ms;
    if (dht->now_ms >= look_ms)
        look(dht, watched);
    else
        due(dht, look_ms);
}

static void look_after(struct dht *dht, struct dht_watched *watched)
{
    look_for_gaps(dht, watched);
    renew(dht, watched);
    keep_holders(dht, watched);
    read_whole(dht, watched);
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
    watched->alone = set; /* the caller reads after dht_watch; of shards it knows nothing */
    TAILQ_INIT(&watched->watches);
    TAILQ_INSERT_TAIL(&dht->watching.list, watched, link);
    return STEAL(watched);
}

/* The first holder that is full says so; its shards are watched from then on. As many as there is room for. */
static void divide(struct dht *dht, struct dht_watched *watched)
{
    if (watched->divided || watched->depth == DHT_SHARD_DEPTH_MAX)
        return;
    watched->divided = true;
    for (unsigned i = 0; i < DHT_SHARDS; i++) {
        struct id prefix = watched->prefix;
        prefix.b[watched->depth / 2] |= (uint8_t)(watched->depth % 2 ? i : i << 4);
        struct id key = dht_shard_key(&watched->set->key, watched->depth + 1, &prefix);
        struct dht_watched *shard = find_key(dht, &key) ? NULL : add_key(dht, &key, watched->set);
        if (!shard)
            continue;
        shard->depth = watched->depth + 1;
        shard->prefix = prefix;
    }
    due(dht, dht->now_ms);
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
        say_stop(dht, watched, &watched->holders[i]);
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
    struct dht_watched *watched = find_key(dht, &request->target);
    struct holder *holder = watched ? find_holder(watched, &from->id) : NULL;
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
    if (!honest) {
        dht->stats.bad_records++;
        say_stop(dht, watched, holder);
        drop_holder(dht, watched, holder);
        return;
    }
    if (!dht_numbers_hear(&holder->numbers, request->sequence, request->record_count, dht->now_ms))
        miss(dht, watched);
    if (dht_numbers_missing(&holder->numbers))
        due(dht, holder->numbers.gap_ms + GAP_MS);
}

/* ---- public ---- */

int dht_watch(struct dht *dht, uint64_t now_ms, const struct id *key, dht_watch_cb changed, void *ctx,
              uint64_t *ret_watch, struct err *err)
{
    dht_set_now(dht, now_ms);
    if (dht->watching.count >= LIMIT_DHT_WATCHES)
        return err_set(err, ERR_LIMIT, "%d keys are watched already", LIMIT_DHT_WATCHES);
    OWNED(owned_free) struct dht_watch *watch = calloc(1, sizeof *watch);
    struct dht_watched *watched = find_key(dht, key);
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
    due(dht, dht->now_ms);
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
