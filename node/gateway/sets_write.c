#include "node/base/limits.h"
#include "node/gateway/sets_state.h"

/* Above all that is known of the set, and of what it replaces. */
static struct dht_version next_version(struct sets *sets, const struct set *set, const struct dht_version *old)
{
    struct dht_version version = sets->config.mesh.stamp(sets->config.mesh.ctx);
    if (version.epoch <= set->floor)
        version = (struct dht_version){set->floor + 1, 0};
    if (dht_version_compare(&version, old) <= 0)
        version = (struct dht_version){old->epoch, old->counter + 1};
    return version;
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "out of memory");
}

/* Set a member to what `change` says, as written here. */
static int write_member(struct sets *sets, struct set_member *member, double score, bool tombstone, struct err *err)
{
    struct set *set = member->set;
    struct set_change change = {.name = member->name.bytes,
                                .name_len = member->name.len,
                                .score = score,
                                .tombstone = tombstone,
                                .version = next_version(sets, set, &member->version)};
    struct set_change before = {.score = member->score, .version = member->version, .tombstone = member->tombstone};
    if (ledger_put_member(sets->ledger, set, &change) < 0) {
        if (before.version.epoch == 0)
            sets_forget_member(sets, member);
        return no_memory(err);
    }
    set_join(set, &change);
    set->own_count += !member->own;
    member->own = true;
    sets_say_member(sets, member, ledger_gathering(sets->ledger));
    sets->written++;
    return 0;
}

int sets_put(struct sets *sets, struct set *set, const void *name, size_t name_len, double score, struct err *err)
{
    size_t before = set->members.count;
    if (sets->member_count >= LIMIT_SET_MEMBERS && !set_find_any(set, name, name_len))
        return err_set(err, ERR_LIMIT, "%u members are in memory, and no more can be", LIMIT_SET_MEMBERS);
    struct set_member *member = set_reserve(set, name, name_len);
    if (!member)
        return no_memory(err);
    sets->member_count += set->members.count - before;
    return write_member(sets, member, score, false, err);
}

int sets_remove(struct sets *sets, struct set *set, struct set_member *member, struct err *err)
{
    int status = write_member(sets, member, 0, true, err);
    /* A set without members is gone, and so is its end: whoever fills it again makes a new one. */
    if (status == 0 && set_count(set) == 0 && set->expires_ms != 0)
        status = sets_expire(sets, set, 0, err);
    return status;
}

int sets_write_meta(struct sets *sets, struct set *set, uint64_t cleared_ms, uint64_t expires_ms, struct err *err)
{
    struct dht_version old_version = set->meta_version;
    uint64_t old_cleared = set->cleared_ms;
    uint64_t old_expires = set->expires_ms;
    set->meta_version = next_version(sets, set, &old_version);
    if (set->meta_version.epoch < cleared_ms) /* nobody believes who clears what is after them */
        set->meta_version = (struct dht_version){cleared_ms, 0};
    set->cleared_ms = cleared_ms;
    set->expires_ms = expires_ms;
    if (ledger_put_set(sets->ledger, set) < 0) {
        set->meta_version = old_version;
        set->cleared_ms = old_cleared;
        set->expires_ms = old_expires;
        return no_memory(err);
    }
    set->life.in_ledger = true;
    set->meta_own = true;
    sets_say_set(sets, set, ledger_gathering(sets->ledger));
    sets->written++;
    return 0;
}

static void newest_epoch(void *ctx, struct name *name)
{
    uint64_t *epoch = ctx;
    const struct set_member *member = sets_member_of(name);
    if (member->version.epoch > *epoch)
        *epoch = member->version.epoch;
}

int sets_clear(struct sets *sets, struct set *set, struct err *err)
{
    /* Other clocks may be ahead of ours: what is to go is what is here. */
    uint64_t cleared = next_version(sets, set, &set->meta_version).epoch;
    names_each(&set->members, newest_epoch, &cleared);
    int status = sets_write_meta(sets, set, cleared, 0, err);
    if (status == 0)
        sets_purge(sets, set);
    return status;
}

int sets_expire(struct sets *sets, struct set *set, uint64_t wall_ms, struct err *err)
{
    return sets_write_meta(sets, set, set->cleared_ms, wall_ms, err);
}

uint64_t sets_written(const struct sets *sets)
{
    return sets->written;
}

uint64_t sets_gathering(const struct sets *sets)
{
    return ledger_gathering(sets->ledger);
}

uint64_t sets_durable(const struct sets *sets)
{
    return ledger_durable(sets->ledger);
}

bool sets_is_full(const struct sets *sets)
{
    return ledger_is_full(sets->ledger);
}

const struct err *sets_failure(const struct sets *sets)
{
    return ledger_failure(sets->ledger);
}
