#include "dht/dht.h"

#include <stdlib.h>
#include <string.h>

#include "dht/internal.h"
#include "node/base/scope.h"

OWNED_DEFINE(release_dht, struct dht, dht_free)

/* ---- small things that all files use ---- */

void dht_set_now(struct dht *dht, uint64_t now_ms)
{
    if (now_ms > dht->now_ms)
        dht->now_ms = now_ms;
}

uint64_t dht_wall_ms(const struct dht *dht)
{
    return dht->now_ms + dht->wall_offset_ms;
}

bool dht_is_revoked(const struct dht *dht, const struct id *id)
{
    return map_get(&dht->revoked, id);
}

bool dht_is_by_revoked(const struct dht *dht, const struct dht_record *record)
{
    struct id writer = record->member;
    if (dht->revoked.count > 0 && dht_is_by_hand(record->kind))
        crypto_id_of(record->public_key, sizeof record->public_key, &writer);
    return dht_is_revoked(dht, &writer);
}

bool dht_contact_is_acceptable(const struct dht *dht, const struct dht_contact *contact)
{
    return addr_is_usable(&contact->addr) && !id_equal(&contact->id, &dht->self.id) &&
           !dht_is_revoked(dht, &contact->id) &&
           (!addr_is_loopback(&contact->addr) || addr_is_loopback(&dht->self.addr));
}

uint64_t dht_jittered_ms(struct dht *dht, uint64_t ms)
{
    return dht->now_ms + ms - ms / 4 + rng_below(&dht->config.rng, ms / 2 + 1);
}

/* ---- lifecycle ---- */

/* The book that was given, or one of our own. */
static int open_book(struct dht *dht, struct err *err)
{
    if (dht->config.book)
        return 0;
    int status = dht_book_make(rng_u64(&dht->config.rng), &dht->own_book, err);
    dht->config.book = dht->own_book;
    return status;
}

static int save_nothing(void *ctx, const char *name, const void *bytes, size_t len_bytes)
{
    (void)ctx;
    (void)name;
    (void)bytes;
    (void)len_bytes;
    return 0;
}

static int load_nothing(void *ctx, const char *name, struct buf *ret_bytes)
{
    (void)ctx;
    (void)name;
    (void)ret_bytes;
    return 0;
}

int dht_new(const struct dht_config *config, struct dht **ret_dht, struct err *err)
{
    OWNED(release_dht) struct dht *dht = calloc(1, sizeof *dht);
    if (!dht)
        return err_set(err, ERR_NOMEM, "no memory for the dht");
    dht->config = *config;
    if (!config->storage.save)
        dht->config.storage.save = save_nothing;
    if (!config->storage.load)
        dht->config.storage.load = load_nothing;
    dht->self = dht_contact_of(config->public_key, &config->address);
    dht->now_ms = config->now_ms;
    dht->wall_offset_ms = config->wall_ms - config->now_ms;
    dht_rpc_init(&dht->rpcs);
    dht_placing_init(&dht->placing);
    map_init(&dht->revoked, LIMIT_DHT_REVOKED, rng_u64(&dht->config.rng));
    dht_lookup_init(dht);
    dht_alive_init(dht);
    dht_region_init(dht);
    dht_push_init(dht);
    dht_give_init(dht);
    dht_get_init(dht);
    dht_collect_init(dht);
    dht_watch_init(dht);
    dht_watchers_init(dht);
    dht->sweep.next_ms = dht_jittered_ms(dht, DHT_LEASE_TTL_MS);
    int status = open_book(dht, err);
    if (status == 0)
        status = dht_publish_init(dht, err);
    if (status == 0)
        status = dht_hold_init(dht, err);
    if (status < 0)
        return status;
    dht_table_init(&dht->table, dht->config.book, &dht->self.id, config->block_per_bucket, config->block_per_table);
    *ret_dht = STEAL(dht);
    return 0;
}

void dht_free(struct dht *dht)
{
    if (!dht)
        return;
    dht_push_release(dht);
    dht_region_release(dht);
    dht_watch_release(dht);
    dht_get_release(dht);
    dht_collect_release(dht);
    dht_alive_release(dht);
    dht_lookup_release(dht);
    dht_publish_release(dht);
    dht_sweep_release(&dht->sweep);
    dht_reconcile_release(dht);
    dht_compare_release(&dht->compares);
    dht_watchers_release(dht);
    dht_hold_release(&dht->hold);
    dht_rpc_release(&dht->rpcs);
    dht_allowance_release(&dht->allowance);
    dht_table_release(&dht->table);
    map_release(&dht->revoked);
    dht_upkeep_release(&dht->upkeep);
    dht_lost_release(dht);
    dht_book_free(dht->own_book);
    free(dht);
}

void dht_set_wall(struct dht *dht, uint64_t now_ms, uint64_t wall_ms)
{
    dht_set_now(dht, now_ms);
    dht->wall_offset_ms = wall_ms - dht->now_ms;
}

void dht_set_address(struct dht *dht, uint64_t now_ms, const struct addr *address)
{
    dht_set_now(dht, now_ms);
    if (addr_equal(&dht->self.addr, address))
        return;
    dht->self.addr = *address;
    dht_lease_moved(dht);
}

/* ---- input and tick ---- */

/* Somebody who asks us is alive, but is in the tables only once it has answered: so ask it, if there is room. */
static void notice_asker(struct dht *dht, const struct dht_contact *from)
{
    enum dht_heard heard = dht_table_heard(&dht->table, from, dht->now_ms);
    if (heard == DHT_HEARD || !dht_contact_is_acceptable(dht, from))
        return;
    if (heard == DHT_HEARD_AWAY || dht_table_has_room(&dht->table, from))
        dht_rpc_ping(dht, from);
}

static void run(struct dht *dht)
{
    dht_lookup_tick(dht);
    dht_get_tick(dht);
    dht_collect_tick(dht);
    dht_push_tick(dht);
}

void dht_input(struct dht *dht, uint64_t now_ms, const struct dht_contact *from, const uint8_t *bytes, size_t len_bytes)
{
    struct dht_message message;
    dht_set_now(dht, now_ms);
    dht->stats.received++;
    if (dht_is_revoked(dht, &from->id)) {
        dht->stats.dropped_revoked++;
        return;
    }
    switch (dht_message_decode(dht->config.book, bytes, len_bytes, &message)) {
    case DHT_MALFORMED:
        dht->stats.dropped_short++;
        return;
    case DHT_UNKNOWN:
        dht->stats.dropped_type++;
        return;
    case DHT_DECODED:
        break;
    }
    bool asks = message.type % 2 == 1;
    if (id_equal(&from->id, &dht->self.id)) {
        dht->stats.dropped_stray++;
    } else if (asks) {
        if (!(message.flags & DHT_FROM_CLIENT))
            notice_asker(dht, from);
        dht_serve(dht, from, &message);
    } else {
        dht_rpc_input(dht, from, &message);
        run(dht);
    }
    dht_watch_tick(dht);
    dht_watchers_flush(dht);
}

uint64_t dht_tick(struct dht *dht, uint64_t now_ms)
{
    dht_set_now(dht, now_ms);
    dht_rpc_tick(dht);
    dht_upkeep_tick(dht);
    dht_lost_tick(dht);
    dht_sweep_tick(dht);
    dht_lease_tick(dht);
    dht_reconcile_tick(dht);
    dht_compare_tick(dht);
    dht_give_tick(dht);
    dht_watchers_tick(dht);
    run(dht);
    dht_watch_tick(dht);
    dht_watchers_flush(dht);
    return dht_next_ms(dht);
}

uint64_t dht_next_ms(const struct dht *dht)
{
    uint64_t next = dht->rpcs.wake_ms;
    next = dht_min_ms(next, dht_upkeep_next_ms(dht));
    next = dht_min_ms(next, dht_lost_next_ms(dht));
    next = dht_min_ms(next, dht_sweep_next_ms(dht));
    next = dht_min_ms(next, dht_lease_next_ms(dht));
    next = dht_min_ms(next, dht_reconcile_next_ms(dht));
    next = dht_min_ms(next, dht_compare_next_ms(dht));
    next = dht_min_ms(next, dht_give_next_ms(dht));
    next = dht_min_ms(next, dht_lookup_next_ms(dht));
    next = dht_min_ms(next, dht_get_next_ms(dht));
    next = dht_min_ms(next, dht_collect_next_ms(dht));
    next = dht_min_ms(next, dht_watch_next_ms(dht));
    next = dht_min_ms(next, dht_watchers_next_ms(dht));
    return dht_min_ms(next, dht_push_next_ms(dht));
}

/* ---- contacts ---- */

void dht_add_contact(struct dht *dht, uint64_t now_ms, const struct dht_contact *contact)
{
    dht_set_now(dht, now_ms);
    if (dht_contact_is_acceptable(dht, contact))
        dht_rpc_ping(dht, contact);
}

void dht_meet(struct dht *dht, uint64_t now_ms, const struct dht_contact *contact, unsigned rtt_ms)
{
    dht_set_now(dht, now_ms);
    if (!dht_contact_is_acceptable(dht, contact))
        return;
    dht_table_answered(&dht->table, contact, &(uint64_t){rtt_ms}, dht->now_ms);
    dht_table_touch(&dht->table, &contact->id, dht->now_ms + rng_below(&dht->config.rng, DHT_REFRESH_MS));
    dht_upkeep_met(dht);
}

int dht_forget(struct dht *dht, const struct id *node, struct err *err)
{
    int status = map_set(&dht->revoked, node, dht); /* any pointer but NULL */
    if (status < 0)
        return err_set(err, status, "no room for one more revoked node");
    dht_table_remove(&dht->table, node);
    dht_alive_forget(dht, node);
    dht_hold_remove_writer(dht, node);
    dht_watchers_forget(dht, node);
    return 0;
}

void dht_contacts(const struct dht *dht, dht_contact_cb cb, void *ctx)
{
    struct dht_node node;
    for (size_t cursor = 0; dht_table_next(&dht->table, &cursor, &node);)
        if (!cb(ctx, &node.contact, dht_rtt_ms(&node.rtt), node.heard_ms))
            return;
}

/* ---- queries ---- */

struct dht_place dht_place(const struct dht *dht, double *ret_error)
{
    if (ret_error)
        *ret_error = dht->placing.error;
    return dht->placing.placed ? dht_placing_place(&dht->placing) : (struct dht_place){0};
}

void dht_stats(const struct dht *dht, struct dht_stats *ret_stats)
{
    *ret_stats = dht->stats;
    ret_stats->contacts = dht->table.count;
    ret_stats->pending = dht->rpcs.count;
    ret_stats->requests = dht->gets.count;
    ret_stats->published = tree_count(&dht->publishing.entries);
    ret_stats->records = dht->hold.count;
    ret_stats->joined = dht->upkeep.joined;
    ret_stats->watches = dht->watching.count;
    ret_stats->watchers = dht->notifying.count;
    ret_stats->memory_bytes = sizeof *dht + dht_table_bytes(&dht->table) + dht_rpc_bytes(&dht->rpcs) + dht->hold.bytes;
    if (dht->own_book)
        ret_stats->memory_bytes += dht_book_bytes(dht->own_book);
}
