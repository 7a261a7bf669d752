/*
 * Comparing what is held with the neighbours, so that those who are to hold the same keys do, whoever joins and dies.
 *
 * Neighbours are the nodes in the largest subtree around us that has at most sixteen, ourselves included: each key in
 * it has all of them among its sixteen closest. Every ten minutes one of them, in turn, is asked whether it holds the
 * same there; so are the nearest one when we have joined, and one when a neighbour died. A newcomer is asked by the
 * node that is nearest to it, which then gives it all.
 *
 *   DIGESTING --COMPARE--> COMPARING --by branch--> DIGESTING (the next range that differs)
 *       ^                      `--by key--> PICKING --they have it too--> READING --> SENDING --> PICKING ...
 *       |                                      |   `-only we have it------------------^
 *       `---------- no more keys --------------'     (of a key that only they have nothing is sent)
 *
 * One comparison at a time; where the partner fails or refuses it ends, and another one is asked.
 */
#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

#define EVERY_MS 600000u
#define JOINED_MS 15000u /* the nearest is faster, if it has noticed us */
#define LOST_MS 20000u
#define FAILED_MS 2000u
#define PAUSE_MS 2u
#define DEADLINE_MS 300000u
#define STEP_KEYS 2048
#define STEPS 64        /* keys picked or sent in one turn */
#define SENDING_MAX 32  /* records under way */
#define RANGES_MAX 1024 /* 63 levels x 15, and 16 */
#define THEIRS_MAX 65536
#define RANGE_BITS_MAX (ID_BYTES * 8 - 4) /* that can be asked about; more keys than one share no more */
#define BAD_MAX 64                        /* records of one partner that are none */

enum repair_state { DIGESTING, COMPARING, PICKING, READING, SENDING };

struct dht_repair {
    struct dht_contact partner;
    uint8_t state; /* enum repair_state */
    bool over;
    uint64_t deadline_ms;
    uint64_t number;
    struct dht_range *ranges; /* owned, RANGES_MAX of them: not compared yet; NULL: none so far */
    size_t range_count;
    struct dht_digesting digesting;                /* of the range being compared */
    struct dht_key_digest keys[DHT_COMPARED_KEYS]; /* of the partner, in its order */
    size_t key_count;
    size_t key_at;
    bool picked;           /* `key` has been set */
    struct id key;         /* being mended */
    struct map theirs;     /* its members of which the partner has all that we have */
    struct dht_rank after; /* read so far */
    bool more;             /* of what is being read, there are more */
    bool moved;            /* and the last answer brought some */
    struct id member;      /* sent so far */
    bool sent_any;
    size_t sending; /* records under way */
    unsigned bad;   /* records of the partner that are forged, lapsed or none at all */
    bool full;      /* the partner has no room for more of this key */
};

/* ---- who ---- */

unsigned dht_common_bits(const struct dht *dht)
{
    unsigned bits = 0;
    while (bits < ID_BYTES * 8 && dht_table_count_within(&dht->table, &dht->self.id, bits) + 1 > DHT_REPLICAS)
        bits++;
    return bits;
}

struct dht_range dht_common_range(const struct dht *dht)
{
    unsigned bits = dht_common_bits(dht);
    return (struct dht_range){dht_range_first(&dht->self.id, bits), bits};
}

/* One after the other, the nearest first. */
static bool next_partner(struct dht *dht, const struct dht_range *range, struct dht_contact *ret_partner)
{
    struct dht_contact closest[DHT_REPLICAS];
    size_t count = dht_table_closest(&dht->table, &dht->self.id, true, closest, DHT_REPLICAS);
    while (count > 0 && !dht_range_has(range, &closest[count - 1].id))
        count--;
    if (count == 0)
        return false;
    *ret_partner = closest[dht->reconciling.turn++ % count];
    return true;
}

void dht_reconcile_soon(struct dht *dht, const struct dht_contact *contact)
{
    struct dht_reconciling *reconciling = &dht->reconciling;
    if (reconciling->newcomer_count == DHT_NEWCOMERS_MAX)
        return;
    for (size_t i = 0; i < reconciling->newcomer_count; i++)
        if (id_equal(&reconciling->newcomers[i].id, &contact->id))
            return;
    if (!reconciling->newcomers)
        reconciling->newcomers = calloc(DHT_NEWCOMERS_MAX, sizeof *reconciling->newcomers);
    if (!reconciling->newcomers)
        return;
    reconciling->newcomers[reconciling->newcomer_count++] = *contact;
    dht_wake_by(&reconciling->wake_ms, dht->now_ms);
}

/* For the one that is nearest to it. */
void dht_reconcile_newcomer(struct dht *dht, const struct dht_contact *contact)
{
    struct dht_range range = dht_common_range(dht);
    struct dht_contact closest[2];
    if (!dht_range_has(&range, &contact->id))
        return;
    size_t count = dht_table_closest(&dht->table, &contact->id, true, closest, 2);
    for (size_t i = 0; i < count; i++)
        if (!id_equal(&closest[i].id, &contact->id) && dht_closer(&contact->id, &closest[i].id, &dht->self.id) < 0)
            return;
    dht_reconcile_soon(dht, contact);
}

static bool next_newcomer(struct dht *dht, struct dht_contact *ret_partner)
{
    struct dht_reconciling *reconciling = &dht->reconciling;
    if (reconciling->newcomer_count == 0)
        return false;
    *ret_partner = reconciling->newcomers[--reconciling->newcomer_count];
    if (reconciling->newcomer_count == 0) {
        free(reconciling->newcomers);
        reconciling->newcomers = NULL;
    }
    return true;
}

void dht_reconcile_lost(struct dht *dht, const struct id *node)
{
    struct dht_range range = dht_common_range(dht);
    struct dht_reconciling *reconciling = &dht->reconciling;
    if (!dht_range_has(&range, node))
        return;
    reconciling->next_ms = dht_min_ms(reconciling->next_ms, dht_jittered_ms(dht, LOST_MS));
    dht_wake_by(&reconciling->wake_ms, reconciling->next_ms);
}

/* ---- one comparison ---- */

static void free_repair(struct dht *dht)
{
    struct dht_repair *repair = dht->reconciling.repair;
    if (!repair)
        return;
    map_release(&repair->theirs);
    free(repair->ranges);
    free(repair);
    dht->reconciling.repair = NULL;
}

static void start(struct dht *dht, const struct dht_contact *partner, const struct dht_range *range)
{
    struct dht_repair *repair = calloc(1, sizeof *repair);
    if (!repair)
        return;
    repair->partner = *partner;
    repair->number = ++dht->reconciling.number;
    repair->deadline_ms = dht->now_ms + DEADLINE_MS;
    map_init(&repair->theirs, THEIRS_MAX, rng_u64(&dht->config.rng));
    dht_digesting_init(&repair->digesting, range);
    dht->reconciling.repair = repair;
}

/* It cannot go on with this partner; the next one is asked soon, the later the more of them have failed. */
static void fail_for(struct dht *dht, struct dht_repair *repair, uint64_t first_ms)
{
    struct dht_reconciling *reconciling = &dht->reconciling;
    uint64_t pause_ms = first_ms << reconciling->failures;
    repair->over = true;
    reconciling->failures += pause_ms < EVERY_MS;
    reconciling->next_ms = dht_min_ms(reconciling->next_ms, dht_jittered_ms(dht, pause_ms));
}

static void fail(struct dht *dht, struct dht_repair *repair)
{
    fail_for(dht, repair, FAILED_MS);
}

static void add_branches(struct dht_repair *repair, const struct dht_message *reply)
{
    if (!repair->ranges)
        repair->ranges = calloc(RANGES_MAX, sizeof *repair->ranges);
    if (!repair->ranges)
        return;
    for (unsigned i = DHT_BRANCHES; i-- > 0 && repair->digesting.range.bits < RANGE_BITS_MAX;) {
        bool differs = memcmp(reply->branches[i], repair->digesting.branches[i], DHT_DIGEST_BYTES) != 0;
        if (differs && repair->range_count < RANGES_MAX)
            repair->ranges[repair->range_count++] = dht_range_branch(&repair->digesting.range, i);
    }
}

/* The range is done: on to the next one. */
static void next_range(struct dht_repair *repair)
{
    repair->state = DIGESTING;
    if (repair->range_count == 0)
        repair->over = true;
    else
        dht_digesting_init(&repair->digesting, &repair->ranges[--repair->range_count]);
}

static bool is_in_order(const struct dht_range *range, const struct dht_message *reply)
{
    bool good = true;
    for (size_t i = 0; i < reply->key_count; i++)
        good &= dht_range_has(range, &reply->keys[i].key) &&
                (i == 0 || id_compare(&reply->keys[i - 1].key, &reply->keys[i].key) < 0);
    return good;
}

static void on_compared(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                        const struct dht_message *reply)
{
    struct dht_repair *repair = owner;
    (void)peer;
    if (event == DHT_RPC_SLOW)
        return;
    dht->reconciling.wake_ms = dht->now_ms;
    if (event == DHT_RPC_FAILED) {
        fail(dht, repair);
    } else if (reply->type == DHT_REFUSED) {
        fail_for(dht, repair, LOST_MS);
    } else if (reply->compared == DHT_BY_KEY && !is_in_order(&repair->digesting.range, reply)) {
        fail(dht, repair);
    } else if (reply->compared == DHT_BY_KEY) {
        memcpy(repair->keys, reply->keys, sizeof repair->keys);
        repair->key_count = reply->key_count;
        repair->key_at = 0;
        repair->picked = false;
        repair->state = PICKING;
    } else {
        dht->reconciling.failures = 0;
        if (reply->compared == DHT_BY_BRANCH)
            add_branches(repair, reply);
        next_range(repair);
    }
}

static void compare(struct dht *dht, struct dht_repair *repair)
{
    const struct dht_digesting *digesting = &repair->digesting;
    struct dht_message request = {
        .type = DHT_COMPARE,
        .prefix_bits = (uint8_t)digesting->range.bits,
        .target = digesting->range.first,
    };
    memcpy(request.digest, digesting->digest, sizeof request.digest);
    dht->stats.compared++;
    repair->state = COMPARING;
    if (dht_rpc_ask(dht, &repair->partner, &request, on_compared, repair) < 0)
        fail(dht, repair);
}

/* ---- mending one key ---- */

static void take_rows(struct dht *dht, struct dht_repair *repair, const struct dht_message *reply)
{
    for (size_t i = 0; i < reply->record_count; i++) {
        struct dht_record record;
        uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
        size_t len = dht_record_unbrief(&repair->key, &reply->records[i], bytes);
        bool good = dht_record_decode(bytes, len, &record);
        uint64_t stored = dht->stats.stored;
        enum dht_store_status status = good ? dht_hold_put(dht, bytes, len, false, NULL) : DHT_BAD;
        repair->bad += status == DHT_BAD;
        if (!good)
            continue;
        if (status == DHT_ACCEPTED)
            map_set(&repair->theirs, &record.member, dht); /* any pointer but NULL; else it is sent back */
        dht->stats.repaired += dht->stats.stored - stored;
        if (id_compare(&record.member, &repair->after.member) > 0)
            repair->after.member = record.member;
    }
}

static void read_more(struct dht *dht, struct dht_repair *repair, bool first);

static void on_read(struct dht *dht, void *owner, const struct dht_contact *peer, enum dht_rpc_event event,
                    const struct dht_message *reply)
{
    struct dht_repair *repair = owner;
    (void)peer;
    if (event == DHT_RPC_SLOW)
        return;
    dht->reconciling.wake_ms = dht->now_ms;
    if (event == DHT_RPC_FAILED || reply->type != DHT_VALUES || repair->bad > BAD_MAX) {
        fail(dht, repair); /* each bad one costs a signature's check, and there is no end to what a liar can make up */
        return;
    }
    struct dht_rank before = repair->after;
    take_rows(dht, repair, reply);
    repair->more |= reply->more;
    repair->moved |= dht_rank_compare(&before, &repair->after) != 0;
    if (event == DHT_RPC_PART)
        return;
    if (repair->more && repair->moved)
        read_more(dht, repair, false);
    else
        repair->state = SENDING;
}

static void read_more(struct dht *dht, struct dht_repair *repair, bool first)
{
    struct dht_message request = {
        .type = DHT_FIND_VALUE,
        .target = repair->key,
        .order = DHT_BY_MEMBER,
        .limit = DHT_PARTS_MAX * DHT_ITEMS_MAX,
        .parts = DHT_PARTS_MAX,
        .ranged = !first,
        .after = repair->after,
    };
    memset(request.until.b, 0xff, sizeof request.until.b);
    repair->state = READING;
    repair->more = repair->moved = false;
    if (dht_rpc_ask(dht, &repair->partner, &request, on_read, repair) < 0)
        fail(dht, repair);
}

static void on_sent(struct dht *dht, struct dht_parcel *parcel, void *owner)
{
    struct dht_repair *repair = dht->reconciling.repair;
    dht->reconciling.wake_ms = dht->now_ms;
    if (!repair || repair->number != (uint64_t)(uintptr_t)owner)
        return; /* of an earlier one, which did not wait */
    repair->sending--;
    repair->full |= dht_push_is_full(parcel);
    if (parcel->accepted == 0 && !dht_push_is_full(parcel) && !repair->over)
        fail(dht, repair);
    dht->stats.repaired += parcel->accepted;
}

static bool is_for_them(struct dht *dht, struct dht_repair *repair, struct dht_held *held, const struct dht_row *row)
{
    return !map_get(&repair->theirs, &row->member) && row->brief[0] != DHT_NODE &&
           dht_brief_expiry_ms(row->brief) > dht_wall_ms(dht) && dht_hold_vouched(dht, held, &row->member);
}

/* The rows behind those sent so far, while not too many are under way. */
static void send_more(struct dht *dht, struct dht_repair *repair)
{
    struct dht_held *held;
    for (size_t seen = 0; seen < STEP_KEYS && repair->sending < SENDING_MAX && !repair->full; seen++) {
        held = dht_hold_of_key(dht, &repair->key);
        struct dht_row *row = held ? dht_rows_after(held, repair->sent_any ? &repair->member : NULL) : NULL;
        if (!row) {
            repair->state = PICKING;
            return;
        }
        repair->member = row->member;
        repair->sent_any = true;
        if (!is_for_them(dht, repair, held, row))
            continue;
        uint8_t bytes[LIMIT_DHT_RECORD_BYTES];
        struct dht_span span = {bytes, dht_row_bytes(held, row, bytes)};
        if (dht_push_to(dht, &repair->partner, &span, on_sent, (void *)(uintptr_t)repair->number) < 0)
            return;
        repair->sending++;
    }
    if (repair->full)
        repair->state = PICKING;
}

/* Begin with `key`. What the partner has is read first, so that it is not sent back. */
static void mend(struct dht *dht, struct dht_repair *repair, bool read)
{
    repair->sent_any = repair->full = false;
    repair->after = (struct dht_rank){0};
    map_release(&repair->theirs);
    map_init(&repair->theirs, THEIRS_MAX, rng_u64(&dht->config.rng));
    repair->state = SENDING;
    if (read)
        read_more(dht, repair, true);
}

/* The next key of the range that only one of us has, or that differs. */
static void pick(struct dht *dht, struct dht_repair *repair)
{
    struct dht_held *held = dht_range_next(dht, &repair->digesting.range, repair->picked ? &repair->key : NULL);
    const struct dht_key_digest *their = repair->key_at < repair->key_count ? &repair->keys[repair->key_at] : NULL;
    int order = !their ? -1 : !held ? 1 : id_compare(&held->key, &their->key);
    if (!held && !their) {
        next_range(repair);
        return;
    }
    repair->key_at += order >= 0;
    repair->key = order <= 0 ? held->key : their->key;
    repair->picked = true;
    uint8_t digest[DHT_DIGEST_BYTES];
    if (order == 0)
        dht_hold_digest(dht, held, digest);
    if (order != 0 || memcmp(digest, their->digest, sizeof digest) != 0)
        mend(dht, repair, order >= 0);
}

/* ---- time ---- */

static bool waits(const struct dht_repair *repair)
{
    return repair->over || repair->state == COMPARING || repair->state == READING ||
           (repair->state == SENDING && repair->sending >= SENDING_MAX);
}

/* One step. Digesting takes all of a turn. */
static bool step(struct dht *dht, struct dht_repair *repair)
{
    switch (repair->state) {
    case DIGESTING:
        if (dht_digesting_step(dht, &repair->digesting, STEP_KEYS))
            compare(dht, repair);
        return false;
    case PICKING:
        pick(dht, repair);
        return true;
    case SENDING:
        send_more(dht, repair);
        return true;
    default:
        return false;
    }
}

/* True if more can be done soon, without waiting for an answer. */
static bool go_on(struct dht *dht, struct dht_repair *repair)
{
    for (unsigned i = 0; i < STEPS && !waits(repair) && step(dht, repair); i++)
        ;
    return !waits(repair);
}

static void begin(struct dht *dht)
{
    struct dht_reconciling *reconciling = &dht->reconciling;
    struct dht_contact partner;
    struct dht_range range = dht_common_range(dht);
    bool newcomer = next_newcomer(dht, &partner);
    if (!newcomer && dht->now_ms < reconciling->next_ms)
        return;
    if (!newcomer)
        reconciling->next_ms = dht_jittered_ms(dht, EVERY_MS);
    if (newcomer || next_partner(dht, &range, &partner))
        start(dht, &partner, &range);
}

static void end(struct dht *dht)
{
    dht_rpc_abandon(dht, dht->reconciling.repair);
    free_repair(dht);
}

static void go_on_with_partner(struct dht *dht)
{
    struct dht_reconciling *reconciling = &dht->reconciling;
    if (!reconciling->repair)
        begin(dht);
    struct dht_repair *repair = reconciling->repair;
    if (repair && go_on(dht, repair))
        dht_wake_by(&reconciling->wake_ms, dht->now_ms + PAUSE_MS);
    if (repair && (repair->over || dht->now_ms >= repair->deadline_ms))
        end(dht);
    if (reconciling->repair)
        dht_wake_by(&reconciling->wake_ms, reconciling->repair->deadline_ms);
    else
        dht_wake_by(&reconciling->wake_ms, reconciling->newcomer_count > 0 ? dht->now_ms : reconciling->next_ms);
}

void dht_reconcile_release(struct dht *dht)
{
    free_repair(dht);
    free(dht->reconciling.newcomers);
}

/* Who cannot be reached holds nothing for others. */
static bool takes_part(const struct dht *dht)
{
    return dht->upkeep.joined && !dht->config.client;
}

void dht_reconcile_tick(struct dht *dht)
{
    struct dht_reconciling *reconciling = &dht->reconciling;
    if (dht->upkeep.joined && !reconciling->joined) {
        reconciling->next_ms = dht_jittered_ms(dht, JOINED_MS);
        reconciling->turn = 0;
        reconciling->wake_ms = dht->now_ms;
    }
    reconciling->joined = dht->upkeep.joined;
    if (!takes_part(dht) || dht->now_ms < reconciling->wake_ms)
        return;
    reconciling->wake_ms = UINT64_MAX;
    go_on_with_partner(dht);
}

uint64_t dht_reconcile_next_ms(const struct dht *dht)
{
    if (!takes_part(dht))
        return UINT64_MAX;
    return dht->reconciling.joined ? dht->reconciling.wake_ms : dht->now_ms;
}
