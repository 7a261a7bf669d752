#include "node/gateway/sets.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/gateway/sets_state.h"

#define COOL_MS 600000   /* without use, until only what was written here stays */
#define SWEEP_MS 3600000 /* between looks for tombstones that are old enough */
#define TOMBSTONE_MS DHT_EXPIRY_MAX_MS
#define COMMIT_AGAIN_MS 1000
#define IDLE_MS 1000

OWNED_DEFINE(owned_sets, struct sets, sets_free)

uint64_t sets_wall_ms(const struct sets *sets)
{
    return clock_wall_ms(&sets->config.clock);
}

/* ---- asking ---- */

static struct set *sets_make(struct sets *sets, const void *name, size_t name_len)
{
    if (sets->names.count >= LIMIT_SETS && !sets_cool_oldest(sets, false, NULL))
        return NULL;
    struct set *set = set_new(name, name_len, sets->config.seed);
    if (set && names_add(&sets->names, &set->name) < 0) {
        set_free(set);
        return NULL;
    }
    return set;
}

static void use(struct sets *sets, struct set *set)
{
    uint64_t now = sets_mono_ms(sets);
    /* The list is in order to a second or so, which spares most commands from touching it. */
    if (set->life.used && now < set->life.used_ms + 1000)
        return;
    sets_unuse(sets, set);
    set->life.used = true;
    set->life.used_ms = now;
    TAILQ_INSERT_TAIL(&sets->used, set, life.used_entry);
}

enum sets_state sets_want(struct sets *sets, const void *name, size_t name_len, struct set **ret_set)
{
    struct name *found = names_find(&sets->names, name, name_len);
    struct set *set = found ? sets_set_of(found) : sets_make(sets, name, name_len);
    if (!set)
        return SETS_FULL;
    use(sets, set);
    sets_purge(sets, set);
    if (set->life.known && set->life.good_ms && sets_mono_ms(sets) >= set->life.good_ms)
        sets_forget_foreign(sets, set);
    if (!set->life.known && !set->life.loading && sets_mono_ms(sets) >= set->life.retry_ms)
        sets_begin_loading(sets, set);
    if (set->life.loading && !set->life.late)
        return SETS_WAIT;
    if (!sets_knows_something(set))
        return SETS_UNKNOWN;
    *ret_set = set;
    return SETS_READY;
}

struct each_living {
    struct sets *sets;
    sets_each_cb cb;
    void *ctx;
    size_t count;
};

static void each_living(void *ctx, struct name *name)
{
    struct each_living *each = ctx;
    struct set *set = sets_set_of(name);
    sets_purge(each->sets, set);
    if (set_count(set) == 0)
        return;
    each->count++;
    if (each->cb)
        each->cb(each->ctx, set);
}

size_t sets_count(struct sets *sets)
{
    struct each_living each = {.sets = sets};
    names_each(&sets->names, each_living, &each);
    return each.count;
}

uint64_t sets_scan(struct sets *sets, uint64_t cursor, sets_each_cb cb, void *ctx)
{
    return names_scan(&sets->names, cursor, each_living, &(struct each_living){sets, cb, ctx, 0});
}

int64_t sets_ttl_ms(const struct sets *sets, const struct set *set)
{
    uint64_t wall = sets_wall_ms(sets);
    return set->expires_ms > wall ? (int64_t)(set->expires_ms - wall) : -1;
}

/* ---- time ---- */

static void on_committed(void *ctx, int status, const struct err *err)
{
    struct sets *sets = ctx;
    if (status < 0) {
        log_error("registry", "what is written is not on disk yet why=\"%s\"", err->text);
        sets->commit_ms = sets_mono_ms(sets) + COMMIT_AGAIN_MS;
    }
    if (sets->closing) {
        ledger_write(sets->ledger, false);
        return;
    }
    sets->config.committed(sets->config.ctx, status, err);
    sets_say(sets);
}

void sets_commit(struct sets *sets)
{
    ledger_write(sets->ledger, false);
}

static void sweep_member(void *ctx, struct name *name)
{
    struct sets *sets = ctx;
    struct set_member *member = sets_member_of(name);
    if (member->tombstone && member->version.epoch + TOMBSTONE_MS < sets_wall_ms(sets))
        sets_forget_member(sets, member);
}

static void sweep_set(void *ctx, struct name *name)
{
    struct sets *sets = ctx;
    struct set *set = sets_set_of(name);
    sets_purge(sets, set);
    names_each(&set->members, sweep_member, sets);
    if (set->own_count == 0 && set->meta_version.epoch + TOMBSTONE_MS < sets_wall_ms(sets))
        set->life.in_ledger = set->meta_own = false;
    if (!sets_is_own(set) && !set->life.used)
        sets_drop(sets, set);
}

static void sweep(struct sets *sets)
{
    sets->sweep_ms = sets_mono_ms(sets) + SWEEP_MS;
    names_each(&sets->names, sweep_set, sets);
}

static void end_waiting(struct sets *sets)
{
    bool ended = false;
    uint64_t now = sets_mono_ms(sets);
    struct set *set;
    TAILQ_FOREACH (set, &sets->loading, life.loading_entry) {
        if (set->life.deadline_ms > now)
            break;
        ended |= !set->life.late;
        set->life.late = true;
    }
    if (ended)
        sets->config.ready(sets->config.ctx);
}

uint64_t sets_tick(struct sets *sets)
{
    uint64_t now = sets_mono_ms(sets);
    struct set *set;
    while ((set = TAILQ_FIRST(&sets->used)) && set->life.used_ms + COOL_MS <= now && !set->life.loading)
        sets_cool(sets, set);
    if (now >= sets->sweep_ms)
        sweep(sets);
    end_waiting(sets);
    sets_open_queued(sets);
    if (ledger_failure(sets->ledger) && now >= sets->commit_ms)
        ledger_write(sets->ledger, true);
    sets_commit(sets);
    sets_say(sets);
    if (sets_has_to_say(sets))
        return sets->say_ms > now ? sets->say_ms : now + 1;
    return now + (TAILQ_EMPTY(&sets->loading) ? IDLE_MS : 100);
}

/* ---- lifecycle ---- */

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for the registry's sets");
}

static void restore_meta(struct sets *sets, struct set *set, const struct set_change *change)
{
    set->life.in_ledger = true;
    set->meta_version = change->version;
    set->cleared_ms = change->cleared_ms;
    set->expires_ms = change->expires_ms;
    set->meta_own = true;
    sets_say_set(sets, set, 0);
}

struct restoring {
    struct sets *sets;
    struct err *err;
};

static int restore_entry(void *ctx, const struct ledger_entry *entry)
{
    const struct restoring *restoring = ctx;
    struct sets *sets = restoring->sets;
    const struct set_change *change = &entry->change;
    struct name *found = names_find(&sets->names, entry->set, entry->set_len);
    struct set *set = found ? sets_set_of(found) : sets_make(sets, entry->set, entry->set_len);
    if (!set)
        return no_memory(restoring->err);
    if (change->meta) {
        restore_meta(sets, set, change);
        return 0;
    }
    struct set_member *member = set_find_any(set, change->name, change->name_len);
    if (member) {
        sets_unsay_member(sets, member);
        set_forget(set, member);
        sets->member_count--;
    }
    if (entry->forgotten)
        return 0;
    member = set_join(set, change);
    if (!member)
        return no_memory(restoring->err);
    sets->member_count++;
    set->own_count++;
    member->own = true;
    sets_say_member(sets, member, 0);
    return 0;
}

/* For the ledger: is this entry what the set says now? */
static bool is_live(void *ctx, const struct ledger_entry *entry)
{
    const struct sets *sets = ctx;
    const struct set_change *change = &entry->change;
    struct name *found = names_find(&sets->names, entry->set, entry->set_len);
    if (!found)
        return false;
    const struct set *set = sets_set_of(found);
    if (change->meta)
        return set->life.in_ledger && dht_version_compare(&change->version, &set->meta_version) == 0;
    const struct set_member *member = set_find_any(set, change->name, change->name_len);
    return member && member->own && dht_version_compare(&change->version, &member->version) == 0;
}

static int restore(struct sets *sets, struct err *err)
{
    struct restoring restoring = {sets, err};
    size_t bad = 0;
    int status = ledger_read(sets->ledger, restore_entry, &restoring, &bad, err);
    if (status < 0)
        return status;
    sets->bad_rows = bad;
    if (bad > 0)
        log_warn("registry", "rows that are damaged were passed over count=%zu", bad);
    return 0;
}

int sets_new(const struct sets_config *config, struct sets **ret_sets, struct err *err)
{
    OWNED(owned_sets) struct sets *sets = calloc(1, sizeof *sets);
    if (!sets)
        return err_set(err, ERR_NOMEM, "no memory for the registry");
    sets->config = *config;
    TAILQ_INIT(&sets->used);
    TAILQ_INIT(&sets->loading);
    TAILQ_INIT(&sets->unsaid_sets);
    TAILQ_INIT(&sets->unsaid);
    names_init(&sets->names, config->seed);
    sets->sweep_ms = sets_mono_ms(sets) + SWEEP_MS;
    struct ledger_config ledger = {config->disk, config->jobs, on_committed, is_live, sets};
    int status = ledger_new(&ledger, &sets->ledger, err);
    if (status == 0)
        status = restore(sets, err);
    if (status < 0)
        return status;
    *ret_sets = STEAL(sets);
    return 0;
}

static void close_set(void *ctx, struct name *name)
{
    sets_let_go(ctx, sets_set_of(name));
}

void sets_close(struct sets *sets)
{
    sets->closing = true;
    names_each(&sets->names, close_set, sets);
    ledger_write(sets->ledger, true);
}

bool sets_closed(const struct sets *sets)
{
    return sets->closing && !ledger_is_busy(sets->ledger);
}

static void free_set(void *ctx, struct name *name)
{
    (void)ctx;
    set_free(sets_set_of(name));
}

void sets_free(struct sets *sets)
{
    if (!sets)
        return;
    names_each(&sets->names, free_set, NULL);
    names_release(&sets->names);
    ledger_free(sets->ledger);
    free(sets);
}

static void count_own(void *ctx, struct name *name)
{
    size_t *count = ctx;
    *count += sets_set_of(name)->own_count > 0;
}

void sets_stats(const struct sets *sets, struct sets_stats *ret_stats)
{
    *ret_stats = (struct sets_stats){.sets = sets->names.count,
                                     .members = sets->member_count,
                                     .live = sets->live,
                                     .unsaid = sets->unsaid_count,
                                     .durable = ledger_durable(sets->ledger),
                                     .bad_rows = sets->bad_rows};
    names_each(&sets->names, count_own, &ret_stats->own_sets);
}
