/* From wish to verdict: the phases of a fetch. The recipe's way here is in here too, the chunks' way in schedule.c. */
#include "transfer/fetch.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/limits.h"
#include "transfer/gap.h"
#include "transfer/have.h"

#define LOSSES_MAX 3u

static void look(struct fetch *fetch);
static void find(struct fetch *fetch);
static void get_root(struct fetch *fetch);
static void fill(struct fetch *fetch);
static void get_leaves(struct fetch *fetch);
static void prepare(struct fetch *fetch);
static void get_chunks(struct fetch *fetch);
static void finish(struct fetch *fetch);

/* What each phase does when something has happened; each checks by itself whether its time has come. */
static void (*const STEPS[])(struct fetch *fetch) = {
    [FETCH_LOOK] = look,         [FETCH_FIND] = find,       [FETCH_ROOT] = get_root,     [FETCH_FILL] = fill,
    [FETCH_LEAVES] = get_leaves, [FETCH_PREPARE] = prepare, [FETCH_CHUNKS] = get_chunks, [FETCH_FINISH] = finish,
};

void transfer_fetch_step(struct fetch *fetch)
{
    if (fetch->phase != FETCH_ENDED && !fetch->working)
        STEPS[fetch->phase](fetch);
    else if (fetch->phase == FETCH_CHUNKS)
        get_chunks(fetch); /* goes on beside the job that verifies */
}

static void enter(struct fetch *fetch, enum fetch_phase phase)
{
    fetch->phase = phase;
    transfer_fetch_step(fetch);
}

static void submit(struct fetch *fetch, void (*work)(struct job *job), void (*done)(struct job *job))
{
    fetch->working = true;
    fetch->job_status = 0;
    err_clear(&fetch->job_err);
    transfer_job_submit(fetch->exchange, &fetch->job, work, done);
}

/* The job is back. False if nobody waits for its result any more. */
static bool job_is_back(struct fetch *fetch)
{
    fetch->working = false;
    return fetch->phase != FETCH_ENDED;
}

struct fetch *transfer_fetch_find(struct exchange *exchange, const struct id *object)
{
    return map_get(&exchange->fetch_of, object);
}

struct fetch *transfer_fetch_by_root(struct exchange *exchange, const struct id *root)
{
    struct fetch *fetch;
    TAILQ_FOREACH (fetch, &exchange->fetches, link) {
        if (fetch->phase == FETCH_CHUNKS && id_equal(&fetch->root, root))
            return fetch;
    }
    return NULL;
}

/* ---- LOOK ---- */

static void look_work(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    struct store *store = fetch->exchange->config.store;
    fetch->job_status = store_object_stat(store, &fetch->object, &fetch->info, &fetch->job_err);
    if (fetch->job_status == 0 && store_recipe_load(store, &fetch->object, &fetch->building, NULL) != 1)
        fetch->building = NULL;
}

static void look_done(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    if (!job_is_back(fetch))
        return;
    if (fetch->job_status < 0) {
        transfer_fetch_end(fetch, fetch->job_status, &fetch->job_err);
    } else if (fetch->job_status == 1) {
        fetch->total_bytes = fetch->done_bytes = fetch->local_bytes = fetch->info.size_bytes;
        transfer_fetch_end(fetch, 0, NULL);
    } else if (fetch->building) {
        fetch->root = fetch->building->root_id;
        fetch->total_bytes = fetch->building->root.size_bytes;
        transfer_sources_tick(fetch); /* asks the new ones */
        enter(fetch, FETCH_PREPARE);
    } else {
        enter(fetch, FETCH_FIND);
    }
}

static void look(struct fetch *fetch)
{
    submit(fetch, look_work, look_done);
}

/* ---- FIND, ROOT, FILL, LEAVES: the recipe ---- */

static void get_root(struct fetch *fetch);

static void find(struct fetch *fetch)
{
    transfer_sources_tick(fetch);
    if (transfer_roots_find(fetch))
        get_root(fetch);
    else
        transfer_fetch_want_peers(fetch);
}

/* Is somebody asked for the leaf, and not late? */
static bool is_asked(const struct fetch *fetch, uint32_t leaf)
{
    const struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        const struct request *request;
        if (!source->peer)
            continue;
        TAILQ_FOREACH (request, &source->peer->asking.requests, link) {
            if (request->source != source || request->type != STORE_PIECE_LEAF || request->offered)
                continue;
            for (uint32_t i = 0; i < request->count; i++) {
                if (request->leaves[i] == leaf)
                    return true;
            }
        }
    }
    return false;
}

static void get_root(struct fetch *fetch)
{
    transfer_roots_ask(fetch);
}

static void fill_work(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    transfer_recipe_fill(fetch->exchange->config.store, fetch->building);
    transfer_gap_leaves_find(fetch);
}

static void fill_done(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    if (job_is_back(fetch))
        enter(fetch, FETCH_LEAVES);
}

static void fill(struct fetch *fetch)
{
    submit(fetch, fill_work, fill_done);
}

/* The next leaves that nobody is asked for; returns how many. */
static uint32_t choose_leaves(const struct fetch *fetch, uint32_t *leaf, uint32_t ret_leaves[REQUEST_LEAVES],
                              struct id ret_ids[REQUEST_LEAVES])
{
    const struct store_root *root = &fetch->building->root;
    uint32_t n = 0;
    for (; *leaf < root->leaf_count && n < REQUEST_LEAVES; (*leaf)++) {
        if (store_recipe_has_leaf(fetch->building, *leaf) || is_asked(fetch, *leaf))
            continue;
        ret_leaves[n] = *leaf;
        ret_ids[n++] = root->leaves[*leaf].id;
    }
    return n;
}

static void get_leaves(struct fetch *fetch)
{
    if (store_recipe_complete(fetch->building)) {
        enter(fetch, FETCH_PREPARE);
        return;
    }
    uint32_t leaf = 0;
    for (struct source *source; (source = transfer_roots_next(fetch));) {
        uint32_t leaves[REQUEST_LEAVES];
        struct id ids[REQUEST_LEAVES];
        uint32_t n = choose_leaves(fetch, &leaf, leaves, ids);
        if (n == 0 || (!transfer_gap_leaves_ask(source, leaves, n) &&
                       !transfer_schedule_records(source, STORE_PIECE_LEAF, ids, leaves, n)))
            return;
    }
}

/* A root that is no root, or one of another object: its teller is to blame, for it is what its name says. */
static int take_root(struct fetch *fetch, struct source *source, const struct id *root, const uint8_t *raw, size_t len)
{
    struct id id;
    crypto_sha256(raw, len, &id);
    if (!id_equal(&id, root))
        return ERR_CORRUPT;
    struct store_recipe *recipe = NULL;
    int status = store_recipe_from_root(raw, len, &recipe, NULL);
    if (status == 0 && !id_equal(&recipe->root.object, &fetch->object)) {
        store_recipe_free(recipe);
        status = ERR_INVALID;
    }
    fetch->root = *root;
    fetch->teller = source;
    if (status < 0)
        return status;
    fetch->building = recipe;
    fetch->total_bytes = recipe->root.size_bytes;
    /* The leaf of a small object comes behind the root, and is hardly here. */
    fetch->phase = transfer_recipe_is_told(&recipe->root) ? FETCH_LEAVES : FETCH_FILL;
    transfer_roots_settle(fetch);
    return 0;
}

static uint8_t *decode(const struct arrival *arrival)
{
    uint8_t *raw = malloc((size_t)arrival->raw_bytes + 1);
    if (!raw)
        return NULL;
    if (arrival->encoding == STORE_RAW) {
        memcpy(raw, arrival->data, arrival->raw_bytes);
        return raw;
    }
    if (store_decode(arrival->encoding, arrival->data, arrival->stored_bytes, raw, arrival->raw_bytes, NULL) == 0)
        return raw;
    free(raw);
    return NULL;
}

static void give_up_recipe(struct fetch *fetch, const char *what);

/* A part of a recipe as it came. */
struct record {
    enum store_piece_type type;
    const struct id *root; /* of the recipe */
    uint32_t leaf;
    const uint8_t *raw; /* NULL: it could not be unpacked */
    size_t len;
    bool is_delta;
};

static void take_record(struct fetch *fetch, struct source *source, const struct record *record)
{
    int status = ERR_CORRUPT;
    bool needed = record->raw && fetch->phase == (record->type == STORE_PIECE_ROOT ? FETCH_ROOT : FETCH_LEAVES);
    if (needed && record->type == STORE_PIECE_ROOT)
        status = take_root(fetch, source, record->root, record->raw, record->len);
    else if (needed)
        status = store_recipe_add_leaf(fetch->building, record->leaf, record->raw, record->len, NULL);
    else if (record->raw)
        status = 0;
    if (status == 0 && needed)
        transfer_source_proved(source);
    if (status == 0)
        fetch->progress_ms = fetch->exchange->now_ms;
    else if (status == ERR_INVALID)
        give_up_recipe(fetch, "named a recipe that breaks the rules");
    else if (status == ERR_CORRUPT && record->is_delta)
        transfer_gap_leaves_forget(fetch); /* no lie: asked for plain next */
    else if (status == ERR_CORRUPT)
        transfer_source_lied(source, "sent a part of a recipe that does not fit its digest");
    transfer_fetch_step(fetch);
}

void transfer_fetch_take_record(struct fetch *fetch, struct source *source, const struct request *request,
                                const struct arrival *arrival)
{
    OWNED(owned_free)
    uint8_t *raw = request->by_basis ? transfer_gap_leaves_decode(fetch, request, arrival) : decode(arrival);
    free(arrival->data);
    struct id root = request->root;
    take_record(fetch, source,
                &(struct record){.type = request->type,
                                 .root = &root,
                                 .leaf = request->leaves[arrival->at],
                                 .raw = raw,
                                 .len = arrival->raw_bytes,
                                 .is_delta = request->by_basis && arrival->encoding != MESSAGE_CODEC_PLAIN});
}

/* Does the source say more of the recipe that it named, and is that what the fetch waits for? */
static bool is_awaited(const struct source *source, const struct message *part)
{
    const struct fetch *fetch = source->fetch;
    if (!transfer_source_usable(source) || !source->has_root || !id_equal(&source->root, &part->root))
        return false;
    if (part->index == MESSAGE_PART_ROOT)
        return fetch->phase == FETCH_ROOT && transfer_roots_may_follow(source);
    return fetch->phase == FETCH_LEAVES && id_equal(&fetch->root, &part->root) && part->index == 0;
}

void transfer_fetch_hear_record(struct exchange_peer *peer, const struct message *part)
{
    struct source *source;
    TAILQ_FOREACH (source, &peer->asking.sources, of_peer) {
        if (!is_awaited(source, part))
            continue;
        struct id root = part->root;
        take_record(source->fetch, source,
                    &(struct record){.type = part->index == MESSAGE_PART_ROOT ? STORE_PIECE_ROOT : STORE_PIECE_LEAF,
                                     .root = &root,
                                     .leaf = part->index,
                                     .raw = part->items,
                                     .len = part->n_items});
        return;
    }
}

/* Forget everything that follows from the recipe. No job runs. */
static void drop_recipe(struct fetch *fetch)
{
    struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        transfer_source_forget(source, 0);
        if (source->peer)
            source->state = SOURCE_NEW;
    }
    transfer_arrived_discard(fetch, &fetch->arrived);
    free(STEAL(fetch->state));
    free(STEAL(fetch->free_bits));
    free(STEAL(fetch->offered_bits));
    free(STEAL(fetch->doubled_bits));
    free(STEAL(fetch->next_alike));
    free(STEAL(fetch->held_by));
    store_recipe_free(STEAL(fetch->building));
    store_recipe_free(STEAL(fetch->leaf_basis));
    transfer_recipe_unref(STEAL(fetch->recipe));
    transfer_gaps_free(STEAL(fetch->gaps));
    fetch->n_chunks = fetch->n_free = fetch->n_missing = fetch->low = 0;
    buf_clear(&fetch->untold);
    fetch->done_bytes = fetch->local_bytes = fetch->fetched_bytes = fetch->wire_bytes = 0;
}

/* The recipe is a lie. Whoever named it is blamed, it is not followed again, and the search begins anew. */
static void give_up_recipe(struct fetch *fetch, const char *what)
{
    if (fetch->n_bad_roots < sizeof fetch->bad_roots / sizeof fetch->bad_roots[0])
        fetch->bad_roots[fetch->n_bad_roots++] = fetch->root;
    struct source *teller = STEAL(fetch->teller);
    fetch->phase = FETCH_FIND;
    drop_recipe(fetch);
    if (teller)
        transfer_source_lied(teller, what);
}

void transfer_fetch_unstick(struct fetch *fetch)
{
    if (!transfer_roots_are_stuck(fetch))
        return;
    transfer_roots_avoid(fetch);
    fetch->phase = FETCH_FIND;
    drop_recipe(fetch);
    transfer_fetch_close(fetch);
}

/* ---- PREPARE ---- */

static int compare_chunks(const void *a, const void *b, void *ctx)
{
    const struct store_chunk *chunks = ctx;
    uint32_t i = *(const uint32_t *)a;
    uint32_t k = *(const uint32_t *)b;
    int order = id_compare(&chunks[i].id, &chunks[k].id);
    return order != 0 ? order : i < k ? -1 : 1;
}

/* Chains chunks with the same bytes, so that they are asked for once. */
static int chain_alike(struct fetch *fetch, const struct store_chunk *chunks)
{
    uint32_t n = fetch->n_chunks;
    OWNED(owned_free) uint32_t *order = malloc((n + 1) * sizeof *order);
    if (!order)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    qsort_r(order, n, sizeof *order, compare_chunks, (void *)(uintptr_t)chunks);
    for (uint32_t i = 0; i < n; i++) {
        bool again = i > 0 && id_equal(&chunks[order[i]].id, &chunks[order[i - 1]].id);
        fetch->next_alike[order[i]] = NO_CHUNK;
        if (again)
            fetch->next_alike[order[i - 1]] = order[i];
        fetch->state[order[i]] = again ? CHUNK_TWIN : CHUNK_FREE;
    }
    return 0;
}

static void mark_local(struct fetch *fetch, const struct store_chunk *chunks)
{
    for (uint32_t i = 0; i < fetch->n_chunks; i++) {
        if (store_assembly_has(fetch->assembly, i)) {
            fetch->state[i] = CHUNK_HERE;
            fetch->local_bytes += chunks[i].length;
        } else if (fetch->state[i] == CHUNK_FREE) {
            have_set(fetch->free_bits, i);
            fetch->n_free++;
        }
    }
    fetch->n_missing = fetch->n_free;
    fetch->done_bytes = fetch->told_bytes = fetch->local_bytes; /* what was here is no speed */
}

static void prepare_work(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    const struct store_recipe *recipe = fetch->recipe->recipe;
    uint32_t n = fetch->n_chunks = recipe->root.chunk_count;
    fetch->job_status = store_assembly_new(fetch->exchange->config.store, &fetch->object, fetch->kind, recipe,
                                           &fetch->assembly, &fetch->job_err);
    if (fetch->job_status != 0)
        return;
    fetch->state = malloc((size_t)n + 1);
    fetch->next_alike = malloc(((size_t)n + 1) * sizeof *fetch->next_alike);
    fetch->held_by = calloc((size_t)n + 1, sizeof *fetch->held_by);
    fetch->free_bits = have_new(n);
    fetch->offered_bits = have_new(n);
    fetch->doubled_bits = have_new(n);
    if (!fetch->state || !fetch->next_alike || !fetch->held_by || !fetch->free_bits || !fetch->offered_bits ||
        !fetch->doubled_bits || chain_alike(fetch, recipe->chunks) < 0)
        fetch->job_status = err_set(&fetch->job_err, ERR_NOMEM, "no memory for the chunks of an object");
    else
        mark_local(fetch, recipe->chunks);
    if (fetch->job_status == 0)
        fetch->gaps = transfer_gaps_new(fetch);
}

static void provide(struct fetch *fetch)
{
    if (fetch->provided || fetch->done_bytes == 0)
        return;
    fetch->provided = true;
    if (fetch->exchange->config.on_provide)
        fetch->exchange->config.on_provide(fetch->exchange->config.ctx, &fetch->object);
}

static void prepare_done(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    if (!job_is_back(fetch))
        return;
    if (fetch->job_status == 1) {
        fetch->local_bytes = fetch->done_bytes = fetch->total_bytes;
        fetch->info.root = fetch->root;
        transfer_fetch_end(fetch, 0, NULL);
    } else if (fetch->job_status == ERR_CORRUPT) {
        give_up_recipe(fetch, "named a recipe that contradicts chunks that are here");
        transfer_fetch_step(fetch);
    } else if (fetch->job_status < 0) {
        transfer_fetch_end(fetch, fetch->job_status, &fetch->job_err);
    } else {
        fetch->phase = FETCH_CHUNKS;
        transfer_gaps_adopt(fetch->gaps, fetch->exchange);
        fetch->untold.max = 8 * (size_t)fetch->n_chunks;
        transfer_watch_tell_have(fetch, false);
        transfer_sources_follow(fetch);
        transfer_fetch_step(fetch);
    }
}

static void prepare(struct fetch *fetch)
{
    transfer_gap_leaves_forget(fetch);
    fetch->recipe = transfer_recipes_add(fetch->exchange, STEAL(fetch->building));
    if (fetch->recipe) {
        submit(fetch, prepare_work, prepare_done);
        return;
    }
    struct err err = {0};
    err_set(&err, ERR_NOMEM, "no memory for a recipe");
    transfer_fetch_end(fetch, err.code, &err);
}

/* ---- CHUNKS, FINISH ---- */

static void get_chunks(struct fetch *fetch)
{
    provide(fetch);
    transfer_fetch_report(fetch);
    if (fetch->phase != FETCH_CHUNKS)
        return; /* a callback cancelled it */
    if (fetch->n_missing == 0 && !fetch->working)
        enter(fetch, FETCH_FINISH);
    else
        transfer_verify_start(fetch);
}

void transfer_fetch_take_chunk(struct fetch *fetch, struct source *source, uint32_t chunk,
                               const struct arrival *arrival)
{
    bool is_needed = fetch->state[chunk] <= CHUNK_ASKED;
    struct arrived *arrived = is_needed ? calloc(1, sizeof *arrived) : NULL;
    source->gone_in_a_row = 0;
    if (!arrived) {
        /* it came from somebody else already, or there is no memory for it */
        if (is_needed)
            transfer_pick_set(fetch, chunk, CHUNK_FREE);
        fetch->duplicate_bytes += arrival->raw_bytes;
        fetch->exchange->fetch_bytes -= arrival->raw_bytes;
        free(arrival->data);
        return;
    }
    fetch->exchange->arrived_bytes += arrival->raw_bytes;
    transfer_pick_set(fetch, chunk, CHUNK_ARRIVED);
    *arrived = (struct arrived){.source = source,
                                .chunk = chunk,
                                .encoding = arrival->encoding,
                                .data = arrival->data,
                                .stored_bytes = arrival->stored_bytes,
                                .counted_bytes = arrival->raw_bytes};
    TAILQ_INSERT_TAIL(&fetch->arrived, arrived, link);
    transfer_hedge_settled(fetch, chunk);
    transfer_verify_start(fetch);
}

static void finish_work(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    fetch->job_status = store_assembly_finish(fetch->assembly, &fetch->info, &fetch->job_err);
    store_assembly_free(STEAL(fetch->assembly));
}

static void finish_done(struct job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    if (!job_is_back(fetch))
        return;
    if (fetch->job_status == ERR_CONFLICT && fetch->n_losses++ < LOSSES_MAX) {
        drop_recipe(fetch); /* a chunk that was here has rotted meanwhile: look again, and fetch it too */
        enter(fetch, FETCH_LOOK);
        return;
    }
    if (fetch->job_status != ERR_CORRUPT) {
        transfer_fetch_end(fetch, fetch->job_status, &fetch->job_err);
        return;
    }
    give_up_recipe(fetch, "named a recipe that does not give the object");
    transfer_fetch_step(fetch);
}

static void finish(struct fetch *fetch)
{
    submit(fetch, finish_work, finish_done);
}
