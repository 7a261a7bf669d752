/* Wishes and verdicts: where fetches begin and end, and what callers and peers are told of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "transfer/fetch.h"
#include "transfer/gap.h"

#define WANT_PEERS_MS 2000
#define REPORT_MS 100
#define NAMES_IN_ERROR 6u

/* ---- beginning ---- */

static void insert_by_class(struct exchange *exchange, struct fetch *fetch)
{
    struct fetch *after;
    TAILQ_FOREACH (after, &exchange->fetches, link) {
        if (after->class > fetch->class) {
            TAILQ_INSERT_BEFORE(after, fetch, link);
            return;
        }
    }
    TAILQ_INSERT_TAIL(&exchange->fetches, fetch, link);
}

static struct fetch *new_fetch(struct exchange *exchange, const struct id *object, const struct exchange_wish *wish)
{
    struct fetch *fetch = calloc(1, sizeof *fetch);
    if (!fetch || map_set(&exchange->fetch_of, object, fetch) < 0) {
        free(fetch);
        return NULL;
    }
    fetch->exchange = exchange;
    fetch->object = *object;
    fetch->kind = wish->kind;
    fetch->class = wish->class;
    TAILQ_INIT(&fetch->wishes);
    TAILQ_INIT(&fetch->sources);
    TAILQ_INIT(&fetch->wholes);
    map_init(&fetch->source_of, LIMIT_SESSIONS, exchange->fetch_of.seed);
    TAILQ_INIT(&fetch->arrived);
    TAILQ_INIT(&fetch->checking);
    fetch->started_ms = fetch->progress_ms = fetch->told_ms = exchange->now_ms;
    insert_by_class(exchange, fetch);
    return fetch;
}

static void add_bases(struct fetch *fetch, const struct exchange_wish *wish)
{
    for (unsigned i = 0; i < wish->n_bases && i < EXCHANGE_BASES && fetch->n_bases < EXCHANGE_BASES; i++)
        fetch->bases[fetch->n_bases++] = wish->bases[i];
}

int exchange_fetch(struct exchange *exchange, uint64_t now_ms, const struct id *object,
                   const struct exchange_wish *wish, struct exchange_fetch **ret_fetch, struct err *err)
{
    transfer_exchange_enter(exchange);
    exchange->now_ms = now_ms;
    struct exchange_fetch *mine = calloc(1, sizeof *mine);
    struct fetch *fetch = transfer_fetch_find(exchange, object);
    bool is_new = !fetch;
    if (mine && is_new)
        fetch = new_fetch(exchange, object, wish);
    int status = 0;
    if (mine && fetch) {
        uint32_t give_up_ms = wish->give_up_ms ? wish->give_up_ms : EXCHANGE_GIVE_UP_MS;
        mine->fetch = fetch;
        mine->wish = *wish;
        TAILQ_INSERT_TAIL(&fetch->wishes, mine, link);
        add_bases(fetch, wish);
        if (give_up_ms > fetch->give_up_ms)
            fetch->give_up_ms = give_up_ms;
        if (wish->class < fetch->class) {
            fetch->class = wish->class;
            TAILQ_REMOVE(&exchange->fetches, fetch, link);
            insert_by_class(exchange, fetch);
        }
        if (is_new)
            transfer_fetch_step(fetch);
        *ret_fetch = mine;
    } else {
        free(mine);
        status = err_set(err, ERR_LIMIT, "no room for another fetch (at most %u)", LIMIT_FETCHES);
    }
    transfer_exchange_leave(exchange);
    return status;
}

void exchange_fetch_add_peer(struct exchange_fetch *wish, struct exchange_peer *peer, bool origin, uint64_t now_ms)
{
    struct exchange *exchange = peer->exchange;
    transfer_exchange_enter(exchange);
    exchange->now_ms = now_ms;
    if (!peer->gone && wish->fetch->phase != FETCH_ENDED)
        transfer_source_add(wish->fetch, peer, origin);
    transfer_exchange_leave(exchange);
}

void exchange_fetch_cancel(struct exchange_fetch *wish)
{
    struct fetch *fetch = wish->fetch;
    struct exchange *exchange = fetch->exchange;
    transfer_exchange_enter(exchange);
    wish->cancelled = true;
    bool anybody = false;
    const struct exchange_fetch *other;
    TAILQ_FOREACH (other, &fetch->wishes, link) {
        anybody |= !other->cancelled;
    }
    if (!anybody)
        transfer_fetch_end(fetch, ERR_CANCELLED, NULL);
    transfer_exchange_leave(exchange);
}

/* ---- telling callers; wishes live as long as their fetch, so callbacks may do what they like ---- */

void transfer_fetch_report(struct fetch *fetch)
{
    uint64_t now = fetch->exchange->now_ms;
    uint64_t took = now - fetch->told_ms;
    if (took < REPORT_MS && fetch->n_missing > 0)
        return;
    if (took > 0) {
        uint64_t rate = (fetch->done_bytes - fetch->told_bytes) * 1000 / took;
        fetch->rate = fetch->rate ? (3 * fetch->rate + rate) / 4 : rate;
    }
    fetch->told_ms = now;
    fetch->told_bytes = fetch->done_bytes;
    if (fetch->most_bytes < fetch->done_bytes)
        fetch->most_bytes = fetch->done_bytes;
    struct exchange_progress progress = {.done_bytes = fetch->most_bytes,
                                         .total_bytes = fetch->total_bytes,
                                         .rate_bytes_per_s = fetch->rate,
                                         .peers = fetch->n_givers};
    struct exchange_fetch *wish;
    TAILQ_FOREACH (wish, &fetch->wishes, link) {
        if (!wish->cancelled && wish->wish.on_progress)
            wish->wish.on_progress(wish->wish.ctx, &progress);
    }
}

static struct exchange_share *make_shares(const struct fetch *fetch, size_t *ret_n)
{
    struct exchange_share *shares = calloc(fetch->n_sources + 1, sizeof *shares);
    const struct source *source;
    *ret_n = 0;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        if (shares)
            shares[(*ret_n)++] = (struct exchange_share){
                .node = source->node, .bytes = source->bytes, .failures = source->failures, .liar = source->liar};
    }
    return shares;
}

static void tell_done(struct fetch *fetch, int status, const struct err *err)
{
    size_t n_shares = 0;
    OWNED(owned_free) struct exchange_share *shares = make_shares(fetch, &n_shares);
    struct exchange_stats stats = {.total_bytes = fetch->total_bytes,
                                   .local_bytes = fetch->local_bytes,
                                   .fetched_bytes = fetch->fetched_bytes,
                                   .wire_bytes = fetch->wire_bytes,
                                   .duplicate_bytes = fetch->duplicate_bytes,
                                   .deltas = fetch->deltas,
                                   .duration_ms = fetch->exchange->now_ms - fetch->started_ms,
                                   .shares = shares,
                                   .n_shares = n_shares};
    struct exchange_fetch *wish;
    TAILQ_FOREACH (wish, &fetch->wishes, link) {
        if (wish->cancelled)
            continue;
        wish->cancelled = true;
        if (wish->wish.on_done)
            wish->wish.on_done(wish->wish.ctx, status, err, &stats);
    }
}

/* ---- waiting and giving up ---- */

static bool is_anybody_left(struct fetch *fetch)
{
    const struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        bool names_one = source->has_root && !transfer_roots_is_bad(fetch, &source->root);
        if (transfer_source_usable(source) && (source->state != SOURCE_NONE || names_one))
            return true;
    }
    return false;
}

void transfer_fetch_want_peers(struct fetch *fetch)
{
    uint64_t now = fetch->exchange->now_ms;
    if ((fetch->wanted && now < fetch->wanted_ms + WANT_PEERS_MS) || is_anybody_left(fetch))
        return;
    fetch->wanted = true;
    fetch->wanted_ms = now;
    struct exchange_fetch *wish;
    TAILQ_FOREACH (wish, &fetch->wishes, link) {
        if (!wish->cancelled && wish->wish.on_want_peers)
            wish->wish.on_want_peers(wish->wish.ctx, &fetch->object);
    }
}

static void name_sources(const struct fetch *fetch, bool liars, struct buf *names)
{
    unsigned n = 0;
    char text[ID_SHORT_SIZE];
    const struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        if (source->liar == liars && n++ < NAMES_IN_ERROR)
            buf_addf(names, "%s%s", n > 1 ? ", " : "", id_short(&source->node, text));
    }
    if (n > NAMES_IN_ERROR)
        buf_addf(names, " and %u more", n - NAMES_IN_ERROR);
}

static void give_up(struct fetch *fetch)
{
    OWNED(buf_release) struct buf honest = BUF(256);
    OWNED(buf_release) struct buf liars = BUF(256);
    name_sources(fetch, false, &honest);
    name_sources(fetch, true, &liars);
    char object[ID_SHORT_SIZE];
    struct err err = {0};
    id_short(&fetch->object, object);
    if (liars.len > 0 && honest.len == 0)
        err_set(&err, ERR_CORRUPT, "object '%s': all who were asked gave wrong bytes: %s", object, buf_str(&liars));
    else
        err_set(&err, ERR_UNAVAILABLE, "object '%s': nothing came for %u s; asked: %s%s%s", object,
                fetch->give_up_ms / 1000, honest.len > 0 ? buf_str(&honest) : "nobody",
                liars.len > 0 ? "; gave wrong bytes: " : "", liars.len > 0 ? buf_str(&liars) : "");
    transfer_fetch_end(fetch, err.code, &err);
}

void transfer_fetch_tick(struct fetch *fetch)
{
    transfer_sources_tick(fetch);
    transfer_fetch_unstick(fetch);
    transfer_fetch_step(fetch);
    transfer_watch_tell(fetch);
    if (fetch->phase != FETCH_ENDED)
        transfer_fetch_want_peers(fetch);
    bool waits_for_peers = fetch->phase == FETCH_CHUNKS || (fetch->phase != FETCH_ENDED && !fetch->working);
    if (waits_for_peers && fetch->exchange->now_ms >= fetch->progress_ms + fetch->give_up_ms)
        give_up(fetch);
}

/* ---- ending ---- */

void transfer_fetch_end(struct fetch *fetch, int status, const struct err *err)
{
    if (fetch->phase == FETCH_ENDED)
        return;
    struct exchange *exchange = fetch->exchange;
    struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        if (source->peer)
            transfer_schedule_drop_all(source->peer, fetch, true);
    }
    fetch->phase = FETCH_ENDED;
    map_remove(&exchange->fetch_of, &fetch->object);
    exchange->swept = false;
    if (status == 0)
        transfer_watch_tell_have(fetch, true);
    tell_done(fetch, status, err);
}

/* ---- closing ---- */

static void close_work(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    store_assembly_sync(fetch->assembly, NULL); /* what cannot be kept is fetched again */
    store_assembly_free(STEAL(fetch->assembly));
}

static void close_done(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    fetch->working = false;
    transfer_fetch_step(fetch);
}

void transfer_fetch_close(struct fetch *fetch)
{
    if (!fetch->assembly)
        return;
    fetch->working = true;
    transfer_job_submit(fetch->exchange, &fetch->job, close_work, close_done);
}

void transfer_arrived_discard(struct fetch *fetch, struct arrived_list *list)
{
    while (!TAILQ_EMPTY(list)) {
        struct arrived *arrived = TAILQ_FIRST(list);
        TAILQ_REMOVE(list, arrived, link);
        transfer_verify_settled(fetch, arrived->counted_bytes);
        free(arrived->delta);
        free(arrived->data);
        free(arrived);
    }
}

void transfer_fetch_free(struct fetch *fetch)
{
    transfer_arrived_discard(fetch, &fetch->arrived);
    if (fetch->assembly) {
        transfer_fetch_close(fetch);
        return; /* and here again when that is done */
    }
    while (!TAILQ_EMPTY(&fetch->wishes)) {
        struct exchange_fetch *wish = TAILQ_FIRST(&fetch->wishes);
        TAILQ_REMOVE(&fetch->wishes, wish, link);
        free(wish);
    }
    while (!TAILQ_EMPTY(&fetch->sources))
        transfer_source_free(TAILQ_FIRST(&fetch->sources));
    map_release(&fetch->source_of);
    TAILQ_REMOVE(&fetch->exchange->fetches, fetch, link);
    store_recipe_free(fetch->building);
    transfer_recipe_unref(fetch->recipe);
    transfer_gaps_free(fetch->gaps);
    store_recipe_free(fetch->leaf_basis);
    buf_release(&fetch->untold);
    free(fetch->state);
    free(fetch->free_bits);
    free(fetch->offered_bits);
    free(fetch->doubled_bits);
    free(fetch->next_alike);
    free(fetch->held_by);
    free(fetch);
}
