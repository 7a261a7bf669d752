/*
 * A change of a watched key: fresh (as it came into the hold) -> numbered (once its signature has been vouched for) ->
 * sent to everybody who watches the key -> forgotten. A watcher has a window of NOTIFYs that it has not answered; while
 * that is full, changes wait, and when too many wait they are dropped. Their numbers are used up, so that the watcher
 * sees the gap and reads the key.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define SWEEP_MS 10000u
#define STARVED_AGAIN_MS 50
/* Of a NOTIFY: both headers, key, number, count. */
#define NOTIFY_ROOM_BYTES (DHT_MESSAGE_MAX_BYTES - DHT_MESSAGE_HEADER_BYTES - DHT_PLACED_BYTES - ID_BYTES - 8 - 1)

struct dht_change {
    TAILQ_ENTRY(dht_change)
    link;
    struct id member;
    uint64_t sequence; /* 0: fresh */
    size_t len;
    uint8_t bytes[];
};

/* ---- changes ---- */

static void free_change(struct dht *dht, struct dht_watchers *watchers, struct dht_change *change)
{
    TAILQ_REMOVE(&watchers->changes, change, link);
    watchers->change_count--;
    dht->notifying.change_bytes -= sizeof *change + change->len;
    free(change);
}

static void stir(struct dht *dht, struct dht_watchers *watchers)
{
    if (watchers->stirred)
        return;
    watchers->stirred = true;
    TAILQ_INSERT_TAIL(&dht->notifying.stirred, watchers, stirred_link);
    dht->notifying.stirred_count++;
}

/* All that waits is dropped; only its numbers are used up. */
static void overrun(struct dht *dht, struct dht_watchers *watchers)
{
    struct dht_change *change;
    while ((change = TAILQ_FIRST(&watchers->changes))) {
        watchers->sequence += change->sequence == 0;
        free_change(dht, watchers, change);
    }
    watchers->sequence++; /* for the one that had no room */
    watchers->lost = true;
}

/* Of two changes of one member within a tick the later one is told. */
static void drop_fresh(struct dht *dht, struct dht_watchers *watchers, const struct id *member)
{
    struct dht_change *change;
    TAILQ_FOREACH_REVERSE(change, &watchers->changes, dht_changes, link)
    {
        if (change->sequence != 0)
            return;
        if (id_equal(&change->member, member)) {
            free_change(dht, watchers, change);
            return;
        }
    }
}

void dht_watch_changed(struct dht *dht, struct dht_held *held, const struct dht_record *record, const uint8_t *bytes,
                       size_t len_bytes)
{
    struct dht_watchers *watchers = held->watchers;
    if (!watchers)
        return;
    drop_fresh(dht, watchers, &record->member);
    size_t size = sizeof(struct dht_change) + len_bytes;
    bool fits =
        watchers->change_count < DHT_CHANGES_KEPT && dht->notifying.change_bytes + size <= LIMIT_DHT_CHANGE_BYTES;
    struct dht_change *change = fits ? malloc(size) : NULL;
    stir(dht, watchers);
    if (!change) {
        overrun(dht, watchers);
        return;
    }
    change->member = record->member;
    change->sequence = 0;
    change->len = len_bytes;
    memcpy(change->bytes, bytes, len_bytes);
    TAILQ_INSERT_TAIL(&watchers->changes, change, link);
    watchers->change_count++;
    dht->notifying.change_bytes += size;
}

/* Number what is fresh and good. */
static void settle(struct dht *dht, struct dht_watchers *watchers)
{
    struct dht_change *change, *next;
    for (change = TAILQ_FIRST(&watchers->changes); change; change = next) {
        next = TAILQ_NEXT(change, link);
        if (change->sequence != 0)
            continue;
        if (dht_hold_vouched(dht, watchers->held, &change->member))
            change->sequence = ++watchers->sequence;
        else
            free_change(dht, watchers, change);
    }
}

/* The first change with this number or a higher one, or NULL. */
static struct dht_change *change_from(const struct dht_watchers *watchers, uint64_t sequence)
{
    struct dht_change *change, *first = NULL;
    TAILQ_FOREACH_REVERSE(change, &watchers->changes, dht_changes, link)
    {
        if (change->sequence == 0)
            continue;
        if (change->sequence < sequence)
            break;
        first = change;
    }
    return first;
}

static void forget_sent(struct dht *dht, struct dht_watchers *watchers)
{
    uint64_t wanted = watchers->self ? watchers->told + 1 : UINT64_MAX;
    for (size_t i = 0; i < watchers->count; i++)
        wanted = dht_min_ms(wanted, watchers->items[i].next);
    struct dht_change *change;
    while ((change = TAILQ_FIRST(&watchers->changes)) && change->sequence != 0 && change->sequence < wanted)
        free_change(dht, watchers, change);
}

/* ---- who watches ---- */

static struct dht_watcher *find(const struct dht_watchers *watchers, const struct id *node)
{
    for (size_t i = 0; i < watchers->count; i++)
        if (id_equal(&watchers->items[i].contact.id, node))
            return &watchers->items[i];
    return NULL;
}

static uintptr_t count_of_source(const struct dht *dht, const struct id *node)
{
    return (uintptr_t)map_get(&dht->notifying.sources, node);
}

static void remove_watcher(struct dht *dht, struct dht_watchers *watchers, struct dht_watcher *watcher)
{
    struct id node = watcher->contact.id;
    uintptr_t left = count_of_source(dht, &node) - 1;
    if (left > 0)
        map_set(&dht->notifying.sources, &node, (void *)left); /* replaces, so it cannot fail */
    else
        map_remove(&dht->notifying.sources, &node);
    *watcher = watchers->items[--watchers->count];
    dht->notifying.count--;
    stir(dht, watchers);
}

static void free_watchers(struct dht *dht, struct dht_watchers *watchers)
{
    dht_rpc_abandon(dht, watchers);
    dht->notifying.in_flight -= watchers->in_flight;
    while (watchers->count > 0)
        remove_watcher(dht, watchers, watchers->items);
    while (!TAILQ_EMPTY(&watchers->changes))
        free_change(dht, watchers, TAILQ_FIRST(&watchers->changes));
    if (watchers->stirred) {
        TAILQ_REMOVE(&dht->notifying.stirred, watchers, stirred_link);
        dht->notifying.stirred_count--;
    }
    TAILQ_REMOVE(&dht->notifying.all, watchers, link);
    watchers->held->watchers = NULL;
    dht_hold_drop_empty(dht, watchers->held);
    free(watchers->items);
    free(watchers);
}

/* Those of a key, made if need be; NULL out of memory. Without anybody they are freed by the next flush. */
static struct dht_watchers *watchers_of(struct dht *dht, const struct id *key)
{
    struct dht_held *held = dht_hold_make(dht, key);
    if (!held || held->watchers)
        return held ? held->watchers : NULL;
    struct dht_watchers *watchers = calloc(1, sizeof *watchers);
    if (!watchers) {
        dht_hold_drop_empty(dht, held);
        return NULL;
    }
    watchers->held = held;
    watchers->sequence = (1 + rng_below(&dht->config.rng, UINT32_MAX)) << 32;
    watchers->told = watchers->sequence;
    TAILQ_INIT(&watchers->changes);
    TAILQ_INSERT_TAIL(&dht->notifying.all, watchers, link);
    held->watchers = watchers;
    stir(dht, watchers);
    return watchers;
}

static struct dht_watcher *add_watcher(struct dht *dht, struct dht_watchers *watchers, const struct id *node)
{
    if (watchers->count == watchers->cap) {
        size_t cap = watchers->cap ? watchers->cap * 2 : 4;
        struct dht_watcher *items = realloc(watchers->items, cap * sizeof *items);
        if (!items)
            return NULL;
        watchers->items = items;
        watchers->cap = cap;
    }
    if (map_set(&dht->notifying.sources, node, (void *)(count_of_source(dht, node) + 1)) < 0)
        return NULL;
    struct dht_watcher *watcher = &watchers->items[watchers->count++];
    *watcher = (struct dht_watcher){.next = watchers->sequence + 1};
    dht->notifying.count++;
    return watcher;
}

/* Of what nobody has a third, as of records (hold.c): who is alone may have a quarter of all. */
static bool has_share(const struct dht *dht, const struct id *node)
{
    return count_of_source(dht, node) * 3 < LIMIT_DHT_WATCHERS - dht->notifying.count;
}

/* The watcher that asks, with a new lease; NULL if there is no room for it. */
static struct dht_watchers *take_in(struct dht *dht, const struct dht_contact *from, const struct id *key)
{
    const struct dht_held *held = dht_hold_of_key(dht, key);
    struct dht_watchers *watchers = held ? held->watchers : NULL;
    struct dht_watcher *watcher = watchers ? find(watchers, &from->id) : NULL;
    if (!watcher) {
        bool full = dht->notifying.count >= LIMIT_DHT_WATCHERS ||
                    (watchers && watchers->count >= LIMIT_DHT_WATCHERS_PER_KEY) || !has_share(dht, &from->id);
        watchers = full ? NULL : watchers_of(dht, key);
        watcher = watchers ? add_watcher(dht, watchers, &from->id) : NULL;
    }
    if (!watcher)
        return NULL;
    watcher->contact = *from;
    watcher->until_ms = dht->now_ms + DHT_WATCH_LEASE_MS;
    return watchers;
}

/* A refusal is said (lease_ms 0), so that the watcher turns to the next holder at once. */
void dht_watchers_serve(struct dht *dht, const struct dht_contact *from, const struct dht_message *request)
{
    struct dht_message answer = {.type = DHT_WATCHED};
    const struct dht_held *held = dht_hold_of_key(dht, &request->target);
    struct dht_watchers *watchers = held ? held->watchers : NULL;
    struct dht_watcher *watcher = watchers ? find(watchers, &from->id) : NULL;
    if (request->stop && watcher) {
        remove_watcher(dht, watchers, watcher);
    } else if (!request->stop && (watchers = take_in(dht, from, &request->target))) {
        answer.lease_ms = DHT_WATCH_LEASE_MS;
        answer.sequence = watchers->sequence;
        answer.total = watchers->held->count;
        answer.deeper = dht_hold_is_deeper(dht, watchers->held);
        dht_hold_digest(dht, watchers->held, answer.digest);
    }
    dht_rpc_answer(dht, from, request->transaction, &answer);
}

int dht_watchers_self(struct dht *dht, const struct id *key, bool watches)
{
    struct dht_watchers *watchers = watchers_of(dht, key);
    if (!watchers)
        return ERR_NOMEM;
    watchers->self = watches;
    watchers->told = watchers->sequence;
    stir(dht, watchers);
    return 0;
}

/* Watchers of this node (NULL: of any) go, all or those whose lease is over. */
static void remove_all(struct dht *dht, const struct id *node, bool lapsed)
{
    struct dht_watchers *watchers;
    TAILQ_FOREACH (watchers, &dht->notifying.all, link)
        for (size_t i = 0; i < watchers->count;) {
            struct dht_watcher *watcher = &watchers->items[i];
            bool goes =
                (!node || id_equal(&watcher->contact.id, node)) && (!lapsed || watcher->until_ms <= dht->now_ms);
            if (goes)
                remove_watcher(dht, watchers, watcher);
            else
                i++;
        }
}

void dht_watchers_forget(struct dht *dht, const struct id *node)
{
    remove_all(dht, node, false);
}

/* ---- telling ---- */

static void on_notified(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                        const struct dht_message *reply)
{
    struct dht_watchers *watchers = owner;
    struct dht_watcher *watcher = find(watchers, &peer->id);
    if (event == DHT_RPC_SLOW) {
        if (watcher)
            watcher->slow = true;
        return;
    }
    watchers->in_flight--;
    dht->notifying.in_flight--;
    stir(dht, watchers);
    if (!watcher)
        return;
    watcher->slow = false;
    if (watcher->in_flight > 0) /* it may have gone and come again */
        watcher->in_flight--;
    if (event == DHT_RPC_FAILED || (reply->type == DHT_NOTIFIED && !reply->known))
        remove_watcher(dht, watchers, watcher);
}

/* The next of what it has not been sent; nothing but the number, if that is no longer here. False if it cannot be sent
 * now. */
static bool notify(struct dht *dht, struct dht_watchers *watchers, struct dht_watcher *watcher)
{
    const struct dht_change *change = change_from(watchers, watcher->next);
    struct dht_message message = {
        .type = DHT_NOTIFY,
        .target = watchers->held->key,
        .sequence = change ? change->sequence : watchers->sequence + 1,
    };
    size_t room = NOTIFY_ROOM_BYTES;
    for (; change && change->sequence != 0 && message.record_count < DHT_ITEMS_MAX; change = TAILQ_NEXT(change, link)) {
        struct dht_span brief = dht_record_brief(change->bytes, change->len);
        if (2 + brief.len > room)
            break;
        room -= 2 + brief.len;
        message.records[message.record_count++] = brief;
    }
    if (dht_rpc_ask(dht, &watcher->contact, &message, on_notified, watchers) < 0)
        return false;
    watcher->next = message.sequence + message.record_count;
    watcher->in_flight++;
    watchers->in_flight++;
    dht->notifying.in_flight++;
    dht->stats.notified += message.record_count;
    return true;
}

/* Who watches much and answers nothing does not take what the others need. */
static bool is_crowded_by(const struct dht *dht, const struct id *node)
{
    return dht->notifying.in_flight >= LIMIT_DHT_NOTIFIES / 2 &&
           dht_rpc_count(dht, node, DHT_NOTIFY) >= LIMIT_DHT_NOTIFIES_PER_SOURCE;
}

/* False when too much is in flight: the rest waits. */
static bool send_to_all(struct dht *dht, struct dht_watchers *watchers)
{
    bool all = true;
    for (size_t i = 0; i < watchers->count; i++) {
        struct dht_watcher *watcher = &watchers->items[i];
        unsigned window = watcher->slow ? 1 : DHT_NOTIFY_WINDOW;
        while (watcher->next <= watchers->sequence && watcher->in_flight < window) {
            if (is_crowded_by(dht, &watcher->contact.id)) {
                all = false;
                break;
            }
            if (dht->notifying.in_flight >= LIMIT_DHT_NOTIFIES || !notify(dht, watchers, watcher))
                return false;
        }
    }
    return all;
}

static void tell_self(struct dht *dht, struct dht_watchers *watchers)
{
    const struct id key = watchers->held->key;
    const struct dht_change *change;
    while (watchers->self && (change = change_from(watchers, watchers->told + 1))) {
        watchers->told = change->sequence;
        dht_watch_hear(dht, &key, change->bytes, change->len);
    }
    if (watchers->self && watchers->lost)
        dht_watch_missed(dht, &key);
    watchers->told = watchers->sequence;
    watchers->lost = false;
}

static void flush(struct dht *dht, struct dht_watchers *watchers)
{
    settle(dht, watchers);
    bool sent = send_to_all(dht, watchers);
    tell_self(dht, watchers);
    forget_sent(dht, watchers);
    if (!sent) {
        stir(dht, watchers);
        dht->notifying.again_ms = dht->now_ms + STARVED_AGAIN_MS;
    } else if (watchers->count == 0 && !watchers->self) {
        free_watchers(dht, watchers);
    }
}

/* What callbacks stir has its turn with the next flush, so this ends. */
void dht_watchers_flush(struct dht *dht)
{
    for (size_t left = dht->notifying.stirred_count; left > 0; left--) {
        struct dht_watchers *watchers = TAILQ_FIRST(&dht->notifying.stirred);
        TAILQ_REMOVE(&dht->notifying.stirred, watchers, stirred_link);
        dht->notifying.stirred_count--;
        watchers->stirred = false;
        flush(dht, watchers);
    }
}

/* ---- lifecycle ---- */

void dht_watchers_init(struct dht *dht)
{
    TAILQ_INIT(&dht->notifying.all);
    TAILQ_INIT(&dht->notifying.stirred);
    map_init(&dht->notifying.sources, LIMIT_DHT_WATCHERS, rng_u64(&dht->config.rng));
}

void dht_watchers_release(struct dht *dht)
{
    while (!TAILQ_EMPTY(&dht->notifying.all))
        free_watchers(dht, TAILQ_FIRST(&dht->notifying.all));
    map_release(&dht->notifying.sources);
}

void dht_watchers_tick(struct dht *dht)
{
    if (TAILQ_EMPTY(&dht->notifying.all) || dht->now_ms < dht->notifying.sweep_ms)
        return;
    dht->notifying.sweep_ms = dht->now_ms + SWEEP_MS;
    remove_all(dht, NULL, true);
}

uint64_t dht_watchers_next_ms(const struct dht *dht)
{
    const struct dht_notifying *notifying = &dht->notifying;
    if (notifying->stirred_count > 0)
        return notifying->again_ms; /* long ago, if nothing is starved */
    return notifying->count > 0 ? notifying->sweep_ms : UINT64_MAX;
}
