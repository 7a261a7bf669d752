/*
 * Giving records away. A parcel is one record on its way to the sixteen nodes closest to its key; a lane is what waits
 * for one node and what it has not answered. Parcels of many keys share lanes, so that up to five records travel in
 * one message.
 *
 *   ticket (a parcel's place in a lane):   waiting --sent--> in a flight --+-- accepted, or it has a newer one --> done
 *                                             ^                           |-- slow down: back to the lane's front
 *                                             |                           `-- full, bad, no answer:
 *                                             +-- in the lane of the next closest node of the region
 *
 * A lane sends a message at once if nothing of it is unanswered; else it waits until a message is full, or the answer
 * comes (Nagle 1984). So a single record leaves at once, and many leave together.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define LANE_WINDOW 8 /* messages of one lane that are not answered */
#define REFUSALS_MAX 3
#define STARVED_AGAIN_MS 50
#define WAIT_LONGEST_MS 60000u
#define STORE_ROOM_BYTES (DHT_MESSAGE_MAX_BYTES - DHT_MESSAGE_HEADER_BYTES - DHT_PLACED_BYTES - 1)

struct dht_ticket {
    STAILQ_ENTRY(dht_ticket)
    link;
    struct dht_parcel *parcel;
};

STAILQ_HEAD(tickets, dht_ticket);

struct flight {
    struct dht_lane *lane;
    struct dht_ticket *tickets[DHT_ITEMS_MAX];
    size_t count; /* 0: free */
};

struct dht_lane {
    TAILQ_ENTRY(dht_lane)
    link; /* in the list of the stirred, or of the paused */
    struct dht_contact to;
    struct tickets waiting;
    size_t waiting_bytes;
    struct flight flights[LANE_WINDOW];
    unsigned in_flight;
    unsigned refusals; /* in a row */
    bool stirred;
    bool paused;
    uint64_t again_ms; /* while paused */
};

void dht_push_init(struct dht *dht)
{
    struct dht_pushes *pushes = &dht->pushes;
    map_init(&pushes->lanes, LIMIT_DHT_LANES, rng_u64(&dht->config.rng));
    TAILQ_INIT(&pushes->stirred);
    TAILQ_INIT(&pushes->paused);
    pushes->wake_ms = UINT64_MAX;
}

/* ---- lanes ---- */

static void leave_list(struct dht *dht, struct dht_lane *lane)
{
    if (lane->stirred)
        TAILQ_REMOVE(&dht->pushes.stirred, lane, link);
    if (lane->paused)
        TAILQ_REMOVE(&dht->pushes.paused, lane, link);
    lane->stirred = lane->paused = false;
}

static void stir(struct dht *dht, struct dht_lane *lane)
{
    if (lane->stirred || lane->paused)
        return;
    lane->stirred = true;
    TAILQ_INSERT_TAIL(&dht->pushes.stirred, lane, link);
}

static void pause_until(struct dht *dht, struct dht_lane *lane, uint64_t again_ms)
{
    leave_list(dht, lane);
    lane->paused = true;
    lane->again_ms = again_ms;
    TAILQ_INSERT_TAIL(&dht->pushes.paused, lane, link);
    dht_wake_by(&dht->pushes.wake_ms, again_ms);
}

static struct dht_lane *lane_to(struct dht *dht, const struct dht_contact *to)
{
    struct dht_lane *lane = map_get(&dht->pushes.lanes, &to->id);
    if (lane)
        return lane;
    OWNED(owned_free) struct dht_lane *fresh = calloc(1, sizeof *fresh);
    if (!fresh || map_set(&dht->pushes.lanes, &to->id, fresh) < 0)
        return NULL;
    fresh->to = *to;
    STAILQ_INIT(&fresh->waiting);
    for (size_t i = 0; i < LANE_WINDOW; i++)
        fresh->flights[i].lane = fresh;
    return STEAL(fresh);
}

static void free_lane(struct dht *dht, struct dht_lane *lane)
{
    struct map *lanes = &dht->pushes.lanes;
    leave_list(dht, lane);
    map_remove(lanes, &lane->to.id);
    free(lane);
    if (lanes->count > 0)
        return;
    uint64_t seed = lanes->seed; /* who is idle keeps no memory */
    map_release(lanes);
    map_init(lanes, LIMIT_DHT_LANES, seed);
}

static size_t room_of(const struct dht_ticket *ticket)
{
    return 2 + ticket->parcel->len;
}

static void wait_in(struct dht *dht, struct dht_lane *lane, struct dht_ticket *ticket, bool first)
{
    if (first)
        STAILQ_INSERT_HEAD(&lane->waiting, ticket, link);
    else
        STAILQ_INSERT_TAIL(&lane->waiting, ticket, link);
    lane->waiting_bytes += room_of(ticket);
    stir(dht, lane);
}

static struct dht_ticket *take_waiting(struct dht_lane *lane)
{
    struct dht_ticket *ticket = STAILQ_FIRST(&lane->waiting);
    STAILQ_REMOVE_HEAD(&lane->waiting, link);
    lane->waiting_bytes -= room_of(ticket);
    return ticket;
}

/* ---- parcels ---- */

bool dht_push_is_full(const struct dht_parcel *parcel)
{
    return parcel->full > parcel->wanted / 2;
}

/* Tell the owner, once; it may call anything but dht_free. */
static void settle(struct dht *dht, struct dht_parcel *parcel)
{
    bool safe = parcel->accepted >= DHT_ACKED || dht_push_is_full(parcel) || parcel->open == 0;
    if (parcel->settled || !safe)
        return;
    parcel->settled = true;
    if (parcel->cb)
        parcel->cb(dht, parcel, parcel->owner);
}

static void free_parcel(struct dht *dht, struct dht_parcel *parcel)
{
    if (dht->giving.starved)
        dht->giving.wake_ms = dht->now_ms;
    if (parcel->region)
        parcel->region->users--;
    dht->pushes.parcels--;
    free(parcel->tickets);
    free(parcel);
}

static void close_ticket(struct dht *dht, struct dht_ticket *ticket)
{
    struct dht_parcel *parcel = ticket->parcel;
    parcel->open--;
    settle(dht, parcel);
    if (parcel->open == 0)
        free_parcel(dht, parcel);
}

/* The closest node of the region that has not been tried yet; NULL if there is none. */
static const struct dht_contact *next_target(struct dht_parcel *parcel)
{
    const struct dht_region *region = parcel->region;
    size_t best = DHT_REGION_NODES;
    for (size_t i = 0; region && i < region->node_count; i++)
        if (!(parcel->tried >> i & 1) &&
            (best == DHT_REGION_NODES || dht_closer(&parcel->key, &region->nodes[i].id, &region->nodes[best].id) < 0))
            best = i;
    if (best == DHT_REGION_NODES)
        return NULL;
    parcel->tried |= 1u << best;
    return &region->nodes[best];
}

/* Into the lane of the next closest, if there is one. */
static bool post(struct dht *dht, struct dht_ticket *ticket)
{
    const struct dht_contact *to = next_target(ticket->parcel);
    struct dht_lane *lane = to ? lane_to(dht, to) : NULL;
    if (lane)
        wait_in(dht, lane, ticket, false);
    return lane;
}

static void step_over(struct dht *dht, struct dht_ticket *ticket)
{
    if (dht_push_is_full(ticket->parcel) || !post(dht, ticket))
        close_ticket(dht, ticket);
}

/* ---- answers ---- */

static void on_stored(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                      const struct dht_message *reply);

static void send_message(struct dht *dht, struct dht_lane *lane)
{
    struct dht_message request = {.type = DHT_STORE};
    struct flight *flight = lane->flights;
    while (flight->count > 0)
        flight++;
    size_t room = STORE_ROOM_BYTES;
    const struct dht_ticket *next;
    while ((next = STAILQ_FIRST(&lane->waiting)) && flight->count < DHT_ITEMS_MAX && room_of(next) <= room) {
        room -= room_of(next);
        request.records[request.record_count++] = (struct dht_span){next->parcel->bytes, next->parcel->len};
        flight->tickets[flight->count++] = take_waiting(lane);
    }
    lane->in_flight++;
    if (dht_rpc_ask(dht, &lane->to, &request, on_stored, flight) == 0)
        return;
    while (flight->count > 0) /* too much is pending here */
        wait_in(dht, lane, flight->tickets[--flight->count], true);
    lane->in_flight--;
    pause_until(dht, lane, dht->now_ms + STARVED_AGAIN_MS);
}

static void send_waiting(struct dht *dht, struct dht_lane *lane)
{
    while (!lane->paused && !STAILQ_EMPTY(&lane->waiting) && lane->in_flight < LANE_WINDOW &&
           (lane->in_flight == 0 || lane->waiting_bytes >= STORE_ROOM_BYTES))
        send_message(dht, lane);
    if (lane->in_flight == 0 && STAILQ_EMPTY(&lane->waiting))
        free_lane(dht, lane);
}

/* The node is dead or does not want to hear from us: what waits for it goes elsewhere. */
static void give_up(struct dht *dht, struct dht_lane *lane)
{
    struct tickets waiting = STAILQ_HEAD_INITIALIZER(waiting);
    STAILQ_CONCAT(&waiting, &lane->waiting);
    lane->waiting_bytes = 0;
    struct dht_ticket *ticket;
    while ((ticket = STAILQ_FIRST(&waiting))) {
        STAILQ_REMOVE_HEAD(&waiting, link);
        step_over(dht, ticket);
    }
}

static void told_to_wait(struct dht *dht, struct dht_lane *lane, uint32_t wait_ms)
{
    if (++lane->refusals > REFUSALS_MAX) {
        lane->refusals = 0;
        give_up(dht, lane);
    } else {
        pause_until(dht, lane, dht_jittered_ms(dht, dht_min_ms(wait_ms, WAIT_LONGEST_MS)));
    }
}

/* A holder has something newer than we sent. */
static void take_newer(struct dht *dht, const struct dht_span *span)
{
    struct dht_record newer;
    dht->stats.stale++;
    if (span->len == 0 || !dht_record_decode(span->at, span->len, &newer))
        return;
    bool ours = memcmp(newer.public_key, dht->self.public_key, sizeof newer.public_key) == 0;
    if (!ours || dht_is_by_hand(newer.kind))
        dht_hold_put(dht, span->at, span->len, false, NULL);
    else if (dht_record_is_signed(&newer, span->at, span->len, &dht->config.signatures))
        dht_publish_overtaken(dht, &newer);
}

static void take_status(struct dht *dht, struct dht_lane *lane, struct dht_ticket *ticket, enum dht_store_status status,
                        const struct dht_span *newer)
{
    switch (status) {
    case DHT_STALE:
        take_newer(dht, newer);
        ticket->parcel->accepted++;
        close_ticket(dht, ticket);
        break;
    case DHT_ACCEPTED:
        ticket->parcel->accepted++;
        close_ticket(dht, ticket);
        break;
    case DHT_SLOW_DOWN:
        wait_in(dht, lane, ticket, true);
        break;
    case DHT_FULL:
        dht->stats.full++;
        ticket->parcel->full++;
        step_over(dht, ticket);
        break;
    default:
        step_over(dht, ticket);
        break;
    }
}

/* The answer to a flight that has already been taken out of its lane. NULL: none came. */
static void take_answer(struct dht *dht, struct dht_lane *lane, const struct flight *flight,
                        const struct dht_message *reply)
{
    bool waits = reply && reply->type == DHT_REFUSED;
    for (size_t i = 0; i < flight->count; i++) {
        bool told = reply && reply->type == DHT_STORED && i < reply->record_count;
        if (told)
            take_status(dht, lane, flight->tickets[i], reply->status[i], &reply->records[i]);
        else if (waits)
            wait_in(dht, lane, flight->tickets[i], true);
        else
            step_over(dht, flight->tickets[i]);
        waits |= told && reply->status[i] == DHT_SLOW_DOWN;
    }
    if (!reply) {
        dht_region_changed(dht, &lane->to.id);
        give_up(dht, lane);
    } else if (waits) {
        told_to_wait(dht, lane, reply->wait_ms);
    } else {
        lane->refusals = 0;
    }
}

static void on_stored(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                      const struct dht_message *reply)
{
    struct flight *flight = owner;
    struct dht_lane *lane = flight->lane;
    (void)peer;
    if (event == DHT_RPC_SLOW)
        return;
    struct flight landed = *flight;
    flight->count = 0;
    lane->in_flight--;
    stir(dht, lane);
    take_answer(dht, lane, &landed, event == DHT_RPC_FAILED ? NULL : reply);
}

/* ---- for the others ---- */

static struct dht_parcel *new_parcel(struct dht *dht, const struct id *key, const struct dht_span *record,
                                     size_t wanted, dht_parcel_cb cb, void *owner)
{
    OWNED(owned_free) struct dht_parcel *parcel = calloc(1, sizeof *parcel + record->len);
    if (!parcel || dht->pushes.parcels >= LIMIT_DHT_PARCELS)
        return NULL;
    parcel->tickets = calloc(wanted, sizeof *parcel->tickets);
    if (!parcel->tickets)
        return NULL;
    parcel->key = *key;
    parcel->wanted = wanted;
    parcel->cb = cb;
    parcel->owner = owner;
    parcel->len = record->len;
    memcpy(parcel->bytes, record->at, record->len);
    for (size_t i = 0; i < wanted; i++)
        parcel->tickets[i].parcel = parcel;
    dht->pushes.parcels++;
    return STEAL(parcel);
}

/* The callback is never called from here: with nobody to send to, the parcel is refused. */
int dht_push_to_region(struct dht *dht, struct dht_region *region, const struct id *key, const struct dht_span *record,
                       dht_parcel_cb cb, void *owner)
{
    size_t wanted = region->node_count < DHT_REPLICAS ? region->node_count : DHT_REPLICAS;
    struct dht_parcel *parcel = wanted > 0 ? new_parcel(dht, key, record, wanted, cb, owner) : NULL;
    if (!parcel)
        return wanted > 0 ? ERR_LIMIT : ERR_NOTFOUND;
    parcel->region = region;
    region->users++;
    for (size_t i = 0; i < wanted; i++)
        parcel->open += post(dht, &parcel->tickets[i]);
    if (parcel->open > 0)
        return 0;
    free_parcel(dht, parcel);
    return ERR_LIMIT;
}

int dht_push_to(struct dht *dht, const struct dht_contact *to, const struct dht_span *record, dht_parcel_cb cb,
                void *owner)
{
    struct dht_parcel *parcel = new_parcel(dht, &to->id, record, 1, cb, owner);
    struct dht_lane *lane = parcel ? lane_to(dht, to) : NULL;
    if (lane) {
        parcel->open = 1;
        wait_in(dht, lane, parcel->tickets, false);
        return 0;
    }
    if (parcel)
        free_parcel(dht, parcel);
    return ERR_LIMIT;
}

static void drop(struct dht *dht, struct dht_ticket *ticket)
{
    if (--ticket->parcel->open == 0)
        free_parcel(dht, ticket->parcel);
}

void dht_push_release(struct dht *dht)
{
    struct dht_pushes *pushes = &dht->pushes;
    void *value;
    for (size_t cursor = 0; map_next(&pushes->lanes, &cursor, NULL, &value);) {
        struct dht_lane *lane = value;
        while (!STAILQ_EMPTY(&lane->waiting))
            drop(dht, take_waiting(lane));
        for (size_t i = 0; i < LANE_WINDOW; i++)
            while (lane->flights[i].count > 0)
                drop(dht, lane->flights[i].tickets[--lane->flights[i].count]);
        free(lane);
    }
    map_release(&pushes->lanes);
}

static void wake_paused(struct dht *dht)
{
    struct dht_pushes *pushes = &dht->pushes;
    struct dht_lane *next;
    pushes->wake_ms = UINT64_MAX;
    for (struct dht_lane *lane = TAILQ_FIRST(&pushes->paused); lane; lane = next) {
        next = TAILQ_NEXT(lane, link);
        if (lane->again_ms <= dht->now_ms) {
            leave_list(dht, lane);
            stir(dht, lane);
        } else {
            dht_wake_by(&pushes->wake_ms, lane->again_ms);
        }
    }
}

void dht_push_tick(struct dht *dht)
{
    struct dht_pushes *pushes = &dht->pushes;
    struct dht_lane *lane;
    if (dht->now_ms >= pushes->wake_ms)
        wake_paused(dht);
    while ((lane = TAILQ_FIRST(&pushes->stirred))) {
        leave_list(dht, lane);
        send_waiting(dht, lane);
    }
}

uint64_t dht_push_next_ms(const struct dht *dht)
{
    return TAILQ_EMPTY(&dht->pushes.stirred) ? dht->pushes.wake_ms : dht->now_ms;
}
