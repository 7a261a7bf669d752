/*
 * Which of our records are given away when.
 *
 *               write                      walk, or its region is known           settled
 *   IDLE ----------------> FRESH ------> (WALKING) ------> SENDING -------------------------> IDLE
 *     |                      ^               |                | nobody took it
 *     | a day old, or said   |               +--------------> PAUSED (the longer the more often) --> FRESH
 *     | again after a        | the holders lack it
 *     | restart              |
 *     `-------> DUE ------> (WALKING) ------> CHECKING (only what was said again) --> IDLE
 *                                 `---------> SENDING
 *
 * FRESH ones leave at once, several walks at a time; each region that becomes known is given all that waits for it.
 * DUE ones are given region by region in the order of keys, one walk at a time, from where the last life stopped: with
 * n nodes it takes about n / 11 walks for any number of records.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define WALKS_FRESH 8       /* at once, */
#define WALKS_FRESH_MAX 32  /* and with a long queue */
#define FRESH_FOR_A_WALK 64 /* more of them: one walk more */
#define FRESH_PARCELS_MAX (LIMIT_DHT_PARCELS / 4 * 3)
#define DUE_SENDING_MAX 64
#define CHECKS_MAX 16
#define STARVED_AGAIN_MS 100
#define PAUSE_FIRST_MS 5000u /* 5 s, 10 s ... 21 min */

#define ENTRY(node) TREE_OF(node, struct dht_published, in_queue)

static int compare_entries(void *ctx, const struct tree_node *a, const struct tree_node *b)
{
    (void)ctx;
    int order = id_compare(&ENTRY(a)->at, &ENTRY(b)->at);
    return order ? order : id_compare(&ENTRY(a)->member, &ENTRY(b)->member);
}

static int probe_key(const void *key, const struct tree_node *node)
{
    return id_compare(key, &ENTRY(node)->at);
}

void dht_give_init(struct dht *dht)
{
    struct dht_giving *giving = &dht->giving;
    tree_init(&giving->fresh, compare_entries, NULL);
    tree_init(&giving->due, compare_entries, NULL);
    for (size_t i = 0; i < DHT_PAUSES; i++)
        TAILQ_INIT(&giving->paused[i]);
    giving->wake_ms = UINT64_MAX;
}

/* ---- states ---- */

/* Out of where it waits, if it waits anywhere. */
static void leave_queue(struct dht *dht, struct dht_published *entry)
{
    struct dht_giving *giving = &dht->giving;
    if (entry->state == DHT_ENTRY_FRESH)
        tree_remove(&giving->fresh, &entry->in_queue);
    else if (entry->state == DHT_ENTRY_DUE)
        tree_remove(&giving->due, &entry->in_queue);
    else if (entry->state == DHT_ENTRY_PAUSED)
        TAILQ_REMOVE(&giving->paused[entry->pauses], entry, link);
    entry->state = DHT_ENTRY_IDLE;
}

static bool is_busy(const struct dht_published *entry)
{
    return entry->state == DHT_ENTRY_SENDING || entry->state == DHT_ENTRY_CHECKING;
}

void dht_give_soon(struct dht *dht, struct dht_published *entry)
{
    entry->again = is_busy(entry);
    if (is_busy(entry) || entry->state == DHT_ENTRY_FRESH || entry->state == DHT_ENTRY_WALKING)
        return;
    leave_queue(dht, entry);
    entry->pauses = 0;
    entry->state = DHT_ENTRY_FRESH;
    tree_insert(&dht->giving.fresh, &entry->in_queue);
    dht->giving.wake_ms = dht->now_ms;
}

void dht_give_later(struct dht *dht, struct dht_published *entry, bool check)
{
    if (entry->state != DHT_ENTRY_IDLE)
        return;
    entry->check = check;
    entry->state = DHT_ENTRY_DUE;
    tree_insert(&dht->giving.due, &entry->in_queue);
    dht->giving.wake_ms = dht->now_ms;
}

void dht_give_stop(struct dht *dht, struct dht_published *entry)
{
    leave_queue(dht, entry);
}

/* Nobody took it: later again. */
static void pause_entry(struct dht *dht, struct dht_published *entry)
{
    leave_queue(dht, entry);
    if (entry->pauses < DHT_PAUSES - 1)
        entry->pauses++;
    entry->state = DHT_ENTRY_PAUSED;
    entry->again_ms = dht->now_ms + ((uint64_t)PAUSE_FIRST_MS << (entry->pauses - 1));
    TAILQ_INSERT_TAIL(&dht->giving.paused[entry->pauses], entry, link);
    dht_wake_by(&dht->giving.wake_ms, entry->again_ms);
}

static void resume_entry(struct dht *dht, struct dht_published *entry)
{
    uint8_t pauses = entry->pauses;
    dht_give_soon(dht, entry);
    entry->pauses = pauses;
}

/* ---- sending ---- */

static void on_settled(struct dht *dht, struct dht_parcel *parcel, void *owner)
{
    struct dht_published *entry = owner;
    bool again = entry->again;
    entry->state = DHT_ENTRY_IDLE;
    entry->again = false;
    dht->giving.sending--;
    dht->giving.wake_ms = dht->now_ms;
    if (again) {
        dht_give_soon(dht, entry);
    } else if (dht_push_is_full(parcel) && dht_publish_goes_deeper(dht, entry)) {
        dht_give_soon(dht, entry);
    } else if (parcel->accepted == 0) {
        pause_entry(dht, entry);
        dht_publish_given(dht, entry, 0);
    } else {
        entry->pauses = 0;
        dht_publish_given(dht, entry, parcel->accepted);
    }
}

/* Too much is under way, or memory is short: again when something has arrived, or soon. */
static void starve(struct dht *dht)
{
    dht->giving.starved = true;
    dht_wake_by(&dht->giving.wake_ms, dht->now_ms + STARVED_AGAIN_MS);
}

/* False when no more can be sent now; the entry then stays where it is. */
static bool send_entry(struct dht *dht, struct dht_published *entry, struct dht_region *region)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    int status = dht_publish_encode(dht, entry, &bytes);
    if (status == ERR_NOTFOUND) { /* somebody else's is newer, or it has lapsed */
        entry->keeps = false;
        dht_publish_given(dht, entry, 1);
        return true;
    }
    struct dht_span record = {bytes.data, bytes.len};
    if (status == 0)
        status = dht_push_to_region(dht, region, &entry->at, &record, on_settled, entry);
    if (status == ERR_NOTFOUND || status == ERR_INVALID) {
        pause_entry(dht, entry);
        dht_publish_given(dht, entry, 0);
        return true;
    }
    if (status < 0) {
        starve(dht);
        return false;
    }
    leave_queue(dht, entry);
    entry->state = DHT_ENTRY_SENDING;
    dht->giving.sending++;
    return true;
}

static struct dht_published *first_from(const struct tree *queue, const struct id *key)
{
    return ENTRY(tree_at(queue, tree_lower(queue, probe_key, key)));
}

static struct dht_published *first_in(const struct tree *queue, const struct dht_region *region)
{
    struct id from = dht_range_first(&region->key, region->bits);
    struct dht_published *entry = first_from(queue, &from);
    return entry && dht_region_has(region, &entry->at) ? entry : NULL;
}

static bool has_room(struct dht *dht)
{
    bool room = dht->pushes.parcels < FRESH_PARCELS_MAX;
    if (!room)
        starve(dht);
    return room;
}

static void send_fresh(struct dht *dht, struct dht_region *region)
{
    struct dht_published *entry;
    while ((entry = first_in(&dht->giving.fresh, region)))
        if (!has_room(dht) || !send_entry(dht, entry, region))
            break;
}

/* ---- checking ---- */

static void on_checked(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                       const struct dht_message *reply)
{
    struct dht_published *entry = owner;
    (void)peer;
    if (event == DHT_RPC_SLOW || event == DHT_RPC_PART)
        return;
    bool told = event == DHT_RPC_REPLY && reply->type == DHT_VALUES && reply->record_count > 0;
    bool again = entry->again;
    dht->giving.checks--;
    dht->giving.wake_ms = dht->now_ms;
    entry->state = DHT_ENTRY_IDLE;
    entry->again = false;
    if (again || !told || !dht_publish_is_told(dht, entry, &reply->records[0]))
        dht_give_soon(dht, entry);
}

static const struct dht_contact *closest_in(const struct dht_region *region, const struct id *key)
{
    const struct dht_contact *closest = region->nodes;
    for (size_t i = 1; i < region->node_count; i++)
        if (dht_closer(key, &region->nodes[i].id, &closest->id) < 0)
            closest = &region->nodes[i];
    return closest;
}

/* Of an earlier life: does the closest holder still have it? The others compare with it. */
static bool check_entry(struct dht *dht, struct dht_published *entry, const struct dht_region *region)
{
    struct dht_message request = {
        .type = DHT_FIND_VALUE,
        .target = entry->at,
        .order = DHT_BY_MEMBER,
        .limit = 1,
        .parts = 1,
        .ranged = true,
        .after = {.member = entry->member},
        .until = entry->member,
    };
    for (size_t i = ID_BYTES; i-- > 0 && request.after.member.b[i]-- == 0;)
        ; /* the member before it */
    if (region->node_count == 0 || dht->giving.checks == CHECKS_MAX ||
        dht_rpc_ask(dht, closest_in(region, &entry->at), &request, on_checked, entry) < 0)
        return false;
    leave_queue(dht, entry);
    entry->state = DHT_ENTRY_CHECKING;
    dht->giving.checks++;
    return true;
}

static void send_due(struct dht *dht, struct dht_region *region)
{
    struct dht_published *entry;
    while (dht->giving.sending < DUE_SENDING_MAX && (entry = first_in(&dht->giving.due, region)))
        if (!(entry->check ? check_entry(dht, entry, region) : send_entry(dht, entry, region)))
            break;
}

/* ---- walks ---- */

static void on_fresh_region(struct dht *dht, struct dht_region *region, void *owner)
{
    struct dht_published *entry = owner;
    entry->state = DHT_ENTRY_IDLE;
    if (region->node_count == 0) {
        pause_entry(dht, entry);
        dht_publish_given(dht, entry, 0);
        return;
    }
    resume_entry(dht, entry);
    send_fresh(dht, region);
}

static void walk_for_fresh(struct dht *dht)
{
    struct dht_giving *giving = &dht->giving;
    size_t walks = WALKS_FRESH + tree_count(&giving->fresh) / FRESH_FOR_A_WALK;
    struct dht_published *entry;
    while (dht->regions.walking < (walks < WALKS_FRESH_MAX ? walks : WALKS_FRESH_MAX) &&
           tree_count(&giving->fresh) > 0 && has_room(dht)) {
        entry = first_from(&giving->fresh, &giving->fresh_cursor);
        if (!entry)
            entry = ENTRY(tree_at(&giving->fresh, 0));
        if (!dht_region_walk(dht, &entry->at, on_fresh_region, entry)) {
            dht_wake_by(&giving->wake_ms, dht->now_ms + PAUSE_FIRST_MS);
            return;
        }
        giving->fresh_cursor = entry->at;
        leave_queue(dht, entry);
        entry->state = DHT_ENTRY_WALKING;
    }
}

static void give_fresh(struct dht *dht)
{
    struct dht_region *region;
    if (tree_count(&dht->giving.fresh) == 0)
        return;
    TAILQ_FOREACH (region, &dht->regions.list, link)
        if (dht_region_is_known(dht, region))
            send_fresh(dht, region);
    walk_for_fresh(dht);
}

static void on_due_region(struct dht *dht, struct dht_region *region, void *owner)
{
    struct dht_giving *giving = &dht->giving;
    (void)owner;
    giving->due_walks = false;
    giving->due_ms = region->node_count > 0 ? dht->now_ms : dht_jittered_ms(dht, PAUSE_FIRST_MS);
    dht_wake_by(&giving->wake_ms, giving->due_ms);
}

/* The region at the cursor is given all that is due in it, then the cursor moves on to the next that has any. */
static void give_due(struct dht *dht)
{
    struct dht_giving *giving = &dht->giving;
    while (tree_count(&giving->due) > 0 && !giving->due_walks && dht->now_ms >= giving->due_ms) {
        struct dht_published *entry = first_from(&giving->due, &giving->cursor);
        if (!entry)
            entry = ENTRY(tree_at(&giving->due, 0));
        giving->cursor = entry->at;
        struct dht_region *region = dht_region_of(dht, &entry->at);
        if (!region) {
            giving->due_walks = dht_region_walk(dht, &entry->at, on_due_region, NULL);
            giving->due_ms = dht->now_ms + (giving->due_walks ? 0 : PAUSE_FIRST_MS);
            return;
        }
        send_due(dht, region);
        if (first_in(&giving->due, region))
            return; /* when some of those under way have arrived */
    }
}

/* ---- time ---- */

static void resume_paused(struct dht *dht)
{
    struct dht_giving *giving = &dht->giving;
    for (size_t i = 0; i < DHT_PAUSES; i++) {
        struct dht_published *entry;
        while ((entry = TAILQ_FIRST(&giving->paused[i])) && entry->again_ms <= dht->now_ms)
            resume_entry(dht, entry);
        if (entry)
            dht_wake_by(&giving->wake_ms, entry->again_ms);
    }
}

/* Nobody is there to be given anything: it is signed and held, so that we can read it ourselves. */
static void wait_for_others(struct dht *dht)
{
    for (size_t left = tree_count(&dht->giving.fresh); left > 0 && tree_count(&dht->giving.fresh) > 0; left--) {
        struct dht_published *entry = ENTRY(tree_at(&dht->giving.fresh, 0));
        OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
        bool there = dht_publish_encode(dht, entry, &bytes) != ERR_NOTFOUND;
        if (there)
            pause_entry(dht, entry);
        else
            entry->keeps = false;
        dht_publish_given(dht, entry, there ? 0 : 1);
    }
}

/* Somebody is there again. */
static void resume_all(struct dht *dht)
{
    for (size_t i = 0; i < DHT_PAUSES; i++)
        while (!TAILQ_EMPTY(&dht->giving.paused[i]))
            dht_give_soon(dht, TAILQ_FIRST(&dht->giving.paused[i]));
}

void dht_give_tick(struct dht *dht)
{
    struct dht_giving *giving = &dht->giving;
    bool joins = dht->upkeep.joined && !giving->joined;
    giving->joined = dht->upkeep.joined;
    if (!joins && dht->now_ms < giving->wake_ms)
        return;
    giving->wake_ms = UINT64_MAX;
    giving->starved = false;
    if (joins)
        resume_all(dht);
    resume_paused(dht);
    dht_region_tick(dht);
    if (giving->joined) {
        give_fresh(dht);
        give_due(dht);
    } else if (dht->table.count == 0) {
        wait_for_others(dht);
    }
    if (giving->due_ms > dht->now_ms && tree_count(&giving->due) > 0)
        dht_wake_by(&giving->wake_ms, giving->due_ms);
}

uint64_t dht_give_next_ms(const struct dht *dht)
{
    return dht->upkeep.joined && !dht->giving.joined ? dht->now_ms : dht->giving.wake_ms;
}
