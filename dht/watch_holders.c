/*
 * A watched key has up to three holders that tell us of changes. Each is
 *
 *   NONE --WATCH--> ASKED --WATCHED--> TELLS --renewal each minute--> TELLS
 *     ^               |                  |
 *     +------refused, no answer, a false record, too far away now-----+
 *
 * and is replaced from the candidates of the last lookup, the closest first.
 */
#include "dht/watch.h"

#define RENEW_MS 60000u
#define RENEW_MIN_MS 10000u /* whatever lease a holder gives */
#define ASK_AGAIN_MS 250u   /* when too much is pending */
#define LOOK_FIRST_MS 1000u /* after a lookup that did not find enough holders; doubled each time, up to */
#define LOOK_MISSING_MS 60000u
#define LOOK_AGAIN_MS 600000u /* nearer holders are looked for in any case */
#define LOOKUP_TIMEOUT_MS 10000u
#define LOOKUPS_MAX 16

struct dht_holder *dht_watch_find_holder(struct dht_watched *watched, const struct id *node)
{
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++)
        if (watched->holders[i].state != DHT_HOLDER_NONE && id_equal(&watched->holders[i].contact.id, node))
            return &watched->holders[i];
    return NULL;
}

static void drop(struct dht *dht, struct dht_watched *watched, struct dht_holder *holder)
{
    if (holder->state == DHT_HOLDER_TELLS)
        watched->look_tries = 0;
    *holder = (struct dht_holder){0};
    dht_watch_note_gone(dht, watched);
    dht_watch_due(dht, dht->now_ms);
}

void dht_watch_stop_holder(struct dht *dht, struct dht_watched *watched, struct dht_holder *holder)
{
    struct dht_message request = {.type = DHT_WATCH, .target = watched->key, .stop = true};
    dht_rpc_ask(dht, &holder->contact, &request, NULL, NULL);
    drop(dht, watched, holder);
}

/* Do so many say that there are shards that it is no lie of one? Those who have not answered may still deny it. */
static bool is_divided(const struct dht_watched *watched)
{
    unsigned said = 0, holders = 0;
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++) {
        holders += watched->holders[i].state != DHT_HOLDER_NONE;
        said += watched->holders[i].state == DHT_HOLDER_TELLS && watched->holders[i].deeper;
    }
    return said >= 2 || said == holders;
}

static void on_accepted(struct dht *dht, struct dht_watched *watched, struct dht_holder *holder,
                        const struct dht_message *reply)
{
    uint64_t pause_ms = dht_min_ms(reply->lease_ms / 2, RENEW_MS);
    if (holder->state == DHT_HOLDER_ASKED)
        holder->since_ms = dht->now_ms;
    holder->state = DHT_HOLDER_TELLS;
    holder->renew_ms = dht_jittered_ms(dht, pause_ms > RENEW_MIN_MS ? pause_ms : RENEW_MIN_MS);
    dht_watch_due(dht, holder->renew_ms);
    dht_watch_note_agreed(dht, watched, holder, reply);
    holder->deeper = reply->deeper;
    if (reply->deeper && is_divided(watched))
        dht_watch_divide(dht, watched);
}

static void on_watched(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                       const struct dht_message *reply)
{
    struct dht_watched *watched = owner;
    struct dht_holder *holder = dht_watch_find_holder(watched, &peer->id);
    if (event == DHT_RPC_SLOW || !holder)
        return;
    if (event != DHT_RPC_FAILED && reply->type == DHT_WATCHED && reply->lease_ms > 0)
        on_accepted(dht, watched, holder, reply);
    else
        drop(dht, watched, holder);
}

static bool ask(struct dht *dht, struct dht_watched *watched, const struct dht_contact *to)
{
    struct dht_message request = {.type = DHT_WATCH, .target = watched->key};
    if (dht_rpc_ask(dht, to, &request, on_watched, watched) == 0)
        return true;
    dht_watch_due(dht, dht->now_ms + ASK_AGAIN_MS);
    return false;
}

static void renew(struct dht *dht, struct dht_watched *watched)
{
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++) {
        struct dht_holder *holder = &watched->holders[i];
        if (holder->state != DHT_HOLDER_TELLS)
            continue;
        if (dht->now_ms >= holder->renew_ms && ask(dht, watched, &holder->contact))
            holder->renew_ms = dht->now_ms + RENEW_MS; /* or the answer says */
        dht_watch_due(dht, holder->renew_ms);
    }
}

/* Ask the next candidate in place of a missing holder. */
static void fill(struct dht *dht, struct dht_watched *watched, struct dht_holder *holder)
{
    while (watched->candidate_next < watched->candidate_count) {
        const struct dht_contact *candidate = &watched->candidates[watched->candidate_next];
        if (!dht_watch_find_holder(watched, &candidate->id)) {
            if (!ask(dht, watched, candidate))
                return;
            *holder = (struct dht_holder){.contact = *candidate, .state = DHT_HOLDER_ASKED};
            watched->candidate_next++;
            return;
        }
        watched->candidate_next++;
    }
}

/* ---- looking for them ---- */

/* A holder that is not among the sixteen nearest any more hears of nothing. */
static void drop_distant(struct dht *dht, struct dht_watched *watched)
{
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++) {
        struct dht_holder *holder = &watched->holders[i];
        bool is_near = watched->candidate_count < DHT_REPLICAS;
        for (size_t j = 0; j < watched->candidate_count; j++)
            is_near |= id_equal(&watched->candidates[j].id, &holder->contact.id);
        if (holder->state == DHT_HOLDER_NONE || is_near)
            continue;
        dht_watch_stop_holder(dht, watched, holder);
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
    dht_watch_due(dht, dht->now_ms);
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

void dht_watch_keep_holders(struct dht *dht, struct dht_watched *watched)
{
    renew(dht, watched);
    bool is_missing = false;
    for (size_t i = 0; i < DHT_WATCH_HOLDERS; i++) {
        if (watched->holders[i].state == DHT_HOLDER_NONE)
            fill(dht, watched, &watched->holders[i]);
        is_missing |= watched->holders[i].state == DHT_HOLDER_NONE;
    }
    if (!is_missing)
        watched->look_tries = 0;
    bool exhausted = is_missing && watched->candidate_next == watched->candidate_count;
    uint64_t look_ms = exhausted ? dht_min_ms(watched->missing_ms, watched->look_ms) : watched->look_ms;
    if (dht->now_ms >= look_ms)
        look(dht, watched);
    else
        dht_watch_due(dht, look_ms);
}
