#include "node/gateway/sets_state.h"

#include "node/base/limits.h"
#include "node/base/log.h"

#define WAIT_MS 2000         /* for a set to be read from the mesh */
#define RETRY_MS 1000        /* after a reading that failed */
#define OPENING_MAX 64       /* read at once; the others take their turn */
#define SAY_MAX 16           /* given to the mesh at once, which signs and sends each: about 2 ms */
#define SAY_PAUSE_MS 1       /* after that */
#define SAY_PAUSE_BUSY_MS 10 /* the same while clients write: they are waiting, the mesh is not */
#define SAY_AGAIN_MS 50      /* after it would not take more */

/* ---- what the mesh has not been given yet ---- */

void sets_say_member(struct sets *sets, struct set_member *member, uint64_t commit)
{
    if (member->unsaid)
        TAILQ_REMOVE(&sets->unsaid, member, unsaid_entry);
    sets->unsaid_count += !member->unsaid;
    member->unsaid = true;
    member->commit = commit;
    TAILQ_INSERT_TAIL(&sets->unsaid, member, unsaid_entry);
}

void sets_unsay_member(struct sets *sets, struct set_member *member)
{
    if (!member->unsaid)
        return;
    TAILQ_REMOVE(&sets->unsaid, member, unsaid_entry);
    sets->unsaid_count--;
    member->unsaid = false;
}

void sets_say_set(struct sets *sets, struct set *set, uint64_t commit)
{
    if (!set->life.meta_unsaid)
        TAILQ_INSERT_TAIL(&sets->unsaid_sets, set, life.unsaid_entry);
    set->life.meta_unsaid = true;
    set->life.meta_commit = commit;
}

void sets_unsay_set(struct sets *sets, struct set *set)
{
    if (set->life.meta_unsaid)
        TAILQ_REMOVE(&sets->unsaid_sets, set, life.unsaid_entry);
    set->life.meta_unsaid = false;
}

static int tell_mesh(struct sets *sets, const struct set *set, const struct set_change *change)
{
    struct err err;
    int status = sets->config.mesh.write(sets->config.mesh.ctx, set, change, &err);
    /* Something newer is known there, and will come here. */
    if (status == ERR_CONFLICT)
        return 0;
    if (status < 0)
        log_debug("registry", "not said yet why=\"%s\"", err.text);
    return status;
}

static int tell_set(struct sets *sets, struct set *set)
{
    struct set_change change = {
        .meta = true, .version = set->meta_version, .cleared_ms = set->cleared_ms, .expires_ms = set->expires_ms};
    int status = tell_mesh(sets, set, &change);
    if (status == 0)
        sets_unsay_set(sets, set);
    return status;
}

static int tell_member(struct sets *sets, struct set_member *member)
{
    struct set_change change = {.name = member->name.bytes,
                                .name_len = member->name.len,
                                .score = member->score,
                                .version = member->version,
                                .tombstone = member->tombstone};
    int status = tell_mesh(sets, member->set, &change);
    if (status == 0)
        sets_unsay_member(sets, member);
    return status;
}

/* Give the mesh what is durable, a bounded share of it. */
void sets_say(struct sets *sets)
{
    if (sets->closing || sets_mono_ms(sets) < sets->say_ms)
        return;
    uint64_t durable = ledger_durable(sets->ledger);
    int status = 0;
    unsigned left = SAY_MAX;
    struct set *set;
    struct set_member *member;
    for (; status == 0 && left > 0 && (set = TAILQ_FIRST(&sets->unsaid_sets)) && set->life.meta_commit <= durable;
         left--)
        status = tell_set(sets, set);
    for (; status == 0 && left > 0 && (member = TAILQ_FIRST(&sets->unsaid)) && member->commit <= durable; left--)
        status = tell_member(sets, member);
    bool busy = sets->written != sets->said_written;
    if (status < 0)
        sets->say_ms = sets_mono_ms(sets) + SAY_AGAIN_MS;
    else if (left == 0)
        sets->say_ms = sets_mono_ms(sets) + (busy ? SAY_PAUSE_BUSY_MS : SAY_PAUSE_MS);
    sets->said_written = sets->written;
}

bool sets_has_to_say(const struct sets *sets)
{
    uint64_t durable = ledger_durable(sets->ledger);
    const struct set *set = TAILQ_FIRST(&sets->unsaid_sets);
    const struct set_member *member = TAILQ_FIRST(&sets->unsaid);
    return (set && set->life.meta_commit <= durable) || (member && member->commit <= durable);
}

/* ---- forgetting ---- */

/* What is forgotten here needs no row, no place in the queue. A row that cannot be dropped for lack of memory is hidden
 * by what hides the member. */
static void on_forget(void *ctx, struct set_member *member)
{
    struct sets *sets = ctx;
    sets_unsay_member(sets, member);
    if (member->own)
        ledger_drop_member(sets->ledger, member);
    sets->member_count--;
}

void sets_forget_member(struct sets *sets, struct set_member *member)
{
    on_forget(sets, member);
    set_forget(member->set, member);
}

void sets_purge(struct sets *sets, struct set *set)
{
    if (set->cleared_ms > set->floor || set->expires_ms > set->floor)
        set_purge(set, sets_wall_ms(sets), on_forget, sets);
}

static void end_loading(struct sets *sets, struct set *set)
{
    struct set_life *life = &set->life;
    if (!life->loading)
        return;
    TAILQ_REMOVE(&sets->loading, set, life.loading_entry);
    sets->opening -= !life->queued;
    life->loading = life->queued = false;
}

/* No longer keep the set live. */
void sets_let_go(struct sets *sets, struct set *set)
{
    end_loading(sets, set);
    set->life.known = false;
    if (!set->life.handle)
        return;
    sets->config.mesh.close(sets->config.mesh.ctx, set->life.handle);
    set->life.handle = NULL;
    sets->live--;
}

void sets_unuse(struct sets *sets, struct set *set)
{
    if (set->life.used)
        TAILQ_REMOVE(&sets->used, set, life.used_entry);
    set->life.used = false;
}

void sets_drop(struct sets *sets, struct set *set)
{
    sets_let_go(sets, set);
    sets_unuse(sets, set);
    sets_unsay_set(sets, set);
    sets->member_count -= set->members.count;
    names_remove(&sets->names, &set->name);
    set_free(set);
}

static void forget_foreign(void *ctx, struct name *name)
{
    struct set_member *member = sets_member_of(name);
    if (!member->own)
        sets_forget_member(ctx, member);
}

/* Only what was written here stays; of a set in which nothing was, nothing does. */
void sets_cool(struct sets *sets, struct set *set)
{
    if (!sets_is_own(set)) {
        sets_drop(sets, set);
        return;
    }
    sets_unuse(sets, set);
    sets_forget_foreign(sets, set);
}

void sets_forget_foreign(struct sets *sets, struct set *set)
{
    sets_let_go(sets, set);
    set->life.retry_ms = 0;
    names_each(&set->members, forget_foreign, sets);
}

/* Cool the set that was not used for longest, among those that are kept live if `live`. False: there is none. */
bool sets_cool_oldest(struct sets *sets, bool live, const struct set *spared)
{
    struct set *set;
    TAILQ_FOREACH (set, &sets->used, life.used_entry) {
        bool helps = live ? set->life.handle != NULL : !sets_is_own(set);
        if (set != spared && !set->life.loading && helps) {
            sets_cool(sets, set);
            return true;
        }
    }
    return false;
}

/* ---- reading from the mesh ---- */

static void open_failed(struct sets *sets, struct set *set)
{
    sets_let_go(sets, set);
    set->life.retry_ms = sets_mono_ms(sets) + RETRY_MS;
}

static void open_set(struct sets *sets, struct set *set)
{
    struct sets_mesh *mesh = &sets->config.mesh;
    struct err err;
    int status = mesh->open(mesh->ctx, sets, set, &set->life.handle, &err);
    if (status == ERR_LIMIT && sets_cool_oldest(sets, true, set))
        status = mesh->open(mesh->ctx, sets, set, &set->life.handle, &err);
    if (status < 0) {
        log_debug("registry", "set not read why=\"%s\"", err.text);
        open_failed(sets, set);
        return;
    }
    set->life.queued = false;
    sets->opening++;
    sets->live++;
}

void sets_open_queued(struct sets *sets)
{
    struct set *set, *next;
    for (set = TAILQ_FIRST(&sets->loading); set && sets->opening < OPENING_MAX; set = next) {
        next = TAILQ_NEXT(set, life.loading_entry);
        if (set->life.queued)
            open_set(sets, set);
    }
}

bool sets_knows_something(const struct set *set)
{
    return set->life.known || set->members.count > 0 || set->meta_version.epoch > 0;
}

void sets_begin_loading(struct sets *sets, struct set *set)
{
    struct set_life *life = &set->life;
    /* The first time is worth waiting for; a client that has been answered without the mesh is not kept again. */
    life->late = life->retry_ms != 0 && sets_knows_something(set);
    life->loading = life->queued = true;
    life->deadline_ms = sets_mono_ms(sets) + WAIT_MS;
    TAILQ_INSERT_TAIL(&sets->loading, set, life.loading_entry);
    sets_open_queued(sets);
}

void sets_opened(struct sets *sets, struct set *set, int status, uint64_t good_ms)
{
    end_loading(sets, set);
    set->life.good_ms = good_ms ? sets_mono_ms(sets) + good_ms : 0;
    if (status < 0)
        open_failed(sets, set);
    else
        set->life.known = true;
    sets_open_queued(sets);
    sets->config.ready(sets->config.ctx);
}

/* What was written here has been overtaken: it is no longer for us to keep. */
static void disown(struct sets *sets, struct set_member *member)
{
    sets_unsay_member(sets, member);
    if (!member->own)
        return;
    ledger_drop_member(sets->ledger, member);
    member->own = false;
    member->set->own_count--;
}

static void took_meta(struct sets *sets, struct set *set, const struct set_change *change)
{
    bool forgotten = false;
    bool own = set->meta_own;
    if (!set_join_meta(set, change, &forgotten))
        return;
    bool overtaken = dht_version_compare(&change->version, &set->meta_version) == 0;
    if (overtaken) {
        set->meta_own = false;
        sets_unsay_set(sets, set);
    }
    if (set->life.in_ledger)
        ledger_put_set(sets->ledger, set);
    /* Two nodes spoke of the set at once, and one of them cleared it: what both said is said as one, by whoever of them
     * sees that first, or by both, which is the same. */
    if (own && (!overtaken || set->cleared_ms > change->cleared_ms))
        sets_write_meta(sets, set, set->cleared_ms, set->expires_ms, NULL);
    if (forgotten && !set->life.loading)
        sets_let_go(sets, set);
    sets_purge(sets, set);
}

void sets_took(struct sets *sets, struct set *set, const struct set_change *change)
{
    if (change->meta) {
        took_meta(sets, set, change);
        return;
    }
    if (change->name_len == 0 || change->name_len > LIMIT_SET_MEMBER_BYTES)
        return;
    size_t before = set->members.count;
    bool full = sets->member_count >= LIMIT_SET_MEMBERS && !sets_cool_oldest(sets, false, set);
    if (full && !set_find_any(set, change->name, change->name_len))
        return;
    struct set_member *member = set_join(set, change);
    sets->member_count += set->members.count - before;
    if (member)
        disown(sets, member);
}
