/*
 * Staying in the mesh.
 *
 *   ALONE ---- a seed or a saved contact answers ----> WALKING ---- the walk to our own id is over ----> JOINED
 *     ^  seeds are asked with growing, jittered pauses      |                                                |
 *     +------------------- the tables are empty ------------+------------------------------------------------+
 *
 * While JOINED: a walk to ourselves every 30 to 60 minutes (Crosby and Wallach 2007 miss it in the clients of their
 * time), and soon after neighbours have failed; one to each bucket that is not full and that no lookup came through for
 * an hour; a question to each contact that was silent for long (table.h). All that together is a packet in half a
 * minute.
 */
#include <stdlib.h>

#include "dht/internal.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

#define SEED_FIRST_MS 1000u
#define SEED_LONGEST_MS 60000u
#define SAVED_AT_ONCE 16
#define REFRESH_PAUSE_MS 1000u
#define WALK_MS 10000u
#define SAVE_FIRST_MS 10000u
#define SAVE_AGAIN_MS 300000u
#define SELF_MS 2700000u    /* and a third less or more */
#define SELF_SOON_MS 30000u /* after neighbours have failed */
#define NEIGHBOUR_FAILS 2   /* requests in a row: one may well have been lost */
#define LOST_FAILS 3        /* then a spare takes its place, if there is one */

static const char contacts_name[] = "contacts";

/* ---- saving and restoring ---- */

static void put_contacts(const struct dht *dht, struct buf *out)
{
    struct dht_node node;
    size_t saved = 0;
    for (size_t cursor = 0; saved < DHT_SAVED_CONTACTS && dht_table_next(&dht->table, &cursor, &node);)
        if (node.fails == 0) {
            dht_contact_put(out, &node.contact);
            saved++;
        }
}

int dht_save(struct dht *dht, struct err *err)
{
    const struct dht_storage *storage = &dht->config.storage;
    OWNED(buf_release) struct buf contacts = BUF(LIMIT_DHT_BLOB_BYTES);
    put_contacts(dht, &contacts);
    if (contacts.failed)
        return err_set(err, ERR_NOMEM, "no memory for the contacts to save");
    int status = 0;
    if (contacts.len > 0) /* who is alone keeps those of better times */
        status = storage->save(storage->ctx, contacts_name, contacts.data, contacts.len);
    if (status == 0)
        status = dht_sweep_save(dht);
    return status < 0 ? err_set(err, status, "contacts cannot be saved") : 0;
}

static void forget_saved(struct dht_upkeep *upkeep)
{
    free(upkeep->saved);
    upkeep->saved = NULL;
    upkeep->saved_count = 0;
}

static int load_contacts(struct dht *dht, struct err *err)
{
    const struct dht_storage *storage = &dht->config.storage;
    struct dht_upkeep *upkeep = &dht->upkeep;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_BLOB_BYTES);
    int found = storage->load(storage->ctx, contacts_name, &bytes);
    if (found < 0)
        return err_set(err, found, "saved contacts cannot be read");
    forget_saved(upkeep);
    upkeep->saved = calloc(DHT_SAVED_CONTACTS, sizeof *upkeep->saved);
    if (!upkeep->saved)
        return err_set(err, ERR_NOMEM, "no memory for saved contacts");
    struct wire wire;
    wire_init(&wire, bytes.data, bytes.len);
    while (wire_left(&wire) > 0 && upkeep->saved_count < DHT_SAVED_CONTACTS) {
        struct dht_contact contact = dht_contact_get(&wire);
        if (wire.failed)
            break;
        contact.id = dht_book_id_of(dht->config.book, contact.public_key);
        if (dht_contact_is_acceptable(dht, &contact))
            upkeep->saved[upkeep->saved_count++] = contact;
    }
    return 0;
}

int dht_restore(struct dht *dht, uint64_t now_ms, struct err *err)
{
    dht_set_now(dht, now_ms);
    dht_sweep_restore(dht);
    dht->upkeep.seed_ms = dht->now_ms;
    return load_contacts(dht, err);
}

int dht_bootstrap(struct dht *dht, uint64_t now_ms, const struct dht_contact *contact, struct err *err)
{
    struct dht_upkeep *upkeep = &dht->upkeep;
    dht_set_now(dht, now_ms);
    if (!dht_contact_is_acceptable(dht, contact))
        return err_set(err, ERR_INVALID, "no node that could be joined through is at this address");
    for (size_t i = 0; i < upkeep->seed_count; i++)
        if (id_equal(&upkeep->seeds[i].id, &contact->id)) {
            upkeep->seeds[i] = *contact;
            return 0;
        }
    if (upkeep->seed_count == LIMIT_DHT_SEEDS)
        return err_set(err, ERR_LIMIT, "%d nodes to join through are known already", LIMIT_DHT_SEEDS);
    struct dht_contact *seeds = realloc(upkeep->seeds, (upkeep->seed_count + 1) * sizeof *seeds);
    if (!seeds)
        return err_set(err, ERR_NOMEM, "no memory for one more node to join through");
    upkeep->seeds = seeds;
    upkeep->seeds[upkeep->seed_count++] = *contact;
    upkeep->seed_ms = dht->now_ms;
    upkeep->seed_tries = 0;
    return 0;
}

void dht_upkeep_release(struct dht_upkeep *upkeep)
{
    forget_saved(upkeep);
    free(upkeep->seeds);
}

/* ---- states ---- */

static bool is_alone(const struct dht *dht)
{
    return dht->table.count == 0;
}

/* All seeds, and the next few of the saved contacts. */
static void ask_seeds(struct dht *dht)
{
    struct dht_upkeep *upkeep = &dht->upkeep;
    for (size_t i = 0; i < upkeep->seed_count; i++)
        dht_rpc_ping(dht, &upkeep->seeds[i]);
    size_t first = upkeep->seed_tries * SAVED_AT_ONCE;
    for (size_t i = first; i < first + SAVED_AT_ONCE && upkeep->saved_count > 0; i++)
        dht_rpc_ping(dht, &upkeep->saved[i % upkeep->saved_count]);
    uint64_t pause_ms = SEED_FIRST_MS << (upkeep->seed_tries < 6 ? upkeep->seed_tries : 6);
    upkeep->seed_ms = dht_jittered_ms(dht, dht_min_ms(pause_ms, SEED_LONGEST_MS));
    upkeep->seed_tries++;
}

static uint64_t next_own_walk_ms(struct dht *dht)
{
    return dht->now_ms + SELF_MS / 3 * 2 + rng_below(&dht->config.rng, SELF_MS / 3 * 2);
}

/* A walk asks few of those that it hears of. The others are asked now, if they find room. */
static void meet_heard_of(struct dht *dht, const struct dht_lookup *lookup)
{
    struct dht_contact contacts[DHT_CANDIDATES];
    size_t count = dht_lookup_closest(lookup, true, contacts, DHT_CANDIDATES);
    for (size_t i = 0; i < count; i++)
        if (!dht_table_rtt(&dht->table, &contacts[i]) && dht_table_has_room(&dht->table, &contacts[i]))
            dht_rpc_ping(dht, &contacts[i]);
}

/* What is closer than the farthest of those sixteen has been walked through. */
static void on_own_walk(struct dht *dht, struct dht_lookup *lookup, void *owner)
{
    struct dht_upkeep *upkeep = &dht->upkeep;
    struct dht_contact closest[DHT_REPLICAS];
    (void)owner;
    upkeep->lookup = NULL;
    upkeep->joined = dht_lookup_closest(lookup, false, closest, 1) == 1;
    size_t count = dht_lookup_closest(lookup, true, closest, DHT_REPLICAS);
    upkeep->self_ms = upkeep->joined ? next_own_walk_ms(dht) : dht_jittered_ms(dht, SEED_FIRST_MS);
    upkeep->refresh_ms = dht->now_ms;
    if (!upkeep->joined)
        return;
    forget_saved(upkeep);
    meet_heard_of(dht, lookup);
    dht_table_touch_near(&dht->table, &closest[count - 1].id, dht->now_ms);
}

static void on_refreshed(struct dht *dht, struct dht_lookup *lookup, void *owner)
{
    (void)owner;
    meet_heard_of(dht, lookup);
    dht->upkeep.lookup = NULL;
    dht->upkeep.refresh_ms = dht->now_ms + REFRESH_PAUSE_MS;
}

static void walk(struct dht *dht)
{
    struct dht_upkeep *upkeep = &dht->upkeep;
    struct id target;
    if (upkeep->lookup)
        return;
    if (dht->now_ms >= upkeep->self_ms)
        upkeep->lookup = dht_lookup_start(dht, &dht->self.id, 1, NULL, WALK_MS, on_own_walk, NULL);
    else if (upkeep->joined && dht->now_ms >= upkeep->refresh_ms &&
             dht_table_take_refresh(&dht->table, dht->now_ms, &dht->config.rng, &target))
        upkeep->lookup = dht_lookup_start(dht, &target, 1, NULL, WALK_MS, on_refreshed, NULL);
}

static void fall_alone(struct dht *dht)
{
    struct dht_upkeep *upkeep = &dht->upkeep;
    if (upkeep->joined) {
        upkeep->seed_tries = 0;
        upkeep->seed_ms = dht->now_ms;
        load_contacts(dht, NULL); /* who cannot be read is not asked */
    }
    upkeep->joined = false;
    upkeep->self_ms = 0;
}

/* Is it one of the sixteen that are closest to us? */
static bool is_neighbour(const struct dht *dht, const struct id *id)
{
    unsigned shared = dht_shared_bits(&dht->self.id, id);
    return dht_table_count_within(&dht->table, &dht->self.id, shared) <= DHT_REPLICAS;
}

void dht_upkeep_failed(struct dht *dht, const struct dht_contact *contact)
{
    struct dht_upkeep *upkeep = &dht->upkeep;
    unsigned fails = dht_table_failed(&dht->table, contact, dht->now_ms);
    if (fails == NEIGHBOUR_FAILS && upkeep->joined)
        dht_reconcile_lost(dht, &contact->id);
    if (fails == NEIGHBOUR_FAILS && upkeep->joined && is_neighbour(dht, &contact->id))
        dht_wake_by(&upkeep->self_ms, dht_jittered_ms(dht, SELF_SOON_MS));
    if (fails == LOST_FAILS)
        dht_lost_add(dht, contact);
}

void dht_upkeep_met(struct dht *dht)
{
    struct dht_upkeep *upkeep = &dht->upkeep;
    if (upkeep->joined || dht->table.count == 0)
        return;
    upkeep->joined = true;
    upkeep->self_ms = next_own_walk_ms(dht);
    upkeep->save_ms = dht_jittered_ms(dht, SAVE_AGAIN_MS);
}

void dht_upkeep_tick(struct dht *dht)
{
    struct dht_upkeep *upkeep = &dht->upkeep;
    struct dht_contact silent;
    if (is_alone(dht)) {
        fall_alone(dht);
        if (dht->now_ms >= upkeep->seed_ms && upkeep->seed_count + upkeep->saved_count > 0)
            ask_seeds(dht);
        return;
    }
    walk(dht);
    if (dht_table_take_check(&dht->table, dht->now_ms, &silent))
        dht_rpc_ping(dht, &silent);
    if (dht->now_ms >= upkeep->save_ms) {
        if (upkeep->save_ms > 0)
            dht_save(dht, NULL); /* what cannot be saved now can be in five minutes */
        upkeep->save_ms = dht->now_ms + (upkeep->save_ms > 0 ? SAVE_AGAIN_MS : SAVE_FIRST_MS);
    }
}

uint64_t dht_upkeep_next_ms(const struct dht *dht)
{
    const struct dht_upkeep *upkeep = &dht->upkeep;
    if (is_alone(dht))
        return upkeep->seed_count + upkeep->saved_count > 0 ? upkeep->seed_ms : UINT64_MAX;
    uint64_t next = dht_min_ms(dht->table.check_wake_ms, upkeep->save_ms);
    if (upkeep->lookup)
        return next;
    uint64_t refresh_ms = dht->table.refresh_wake_ms;
    if (refresh_ms < upkeep->refresh_ms)
        refresh_ms = upkeep->refresh_ms;
    if (upkeep->joined)
        next = dht_min_ms(next, refresh_ms);
    return dht_min_ms(next, upkeep->self_ms);
}
