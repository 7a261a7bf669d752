/*
 * What peers ask: who has what (WANT), and bytes (PIECES, RUN, DEAL), which wait here in lanes.
 */
#include "transfer/serve.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "transfer/gap.h"

#define BUSY_RETRY_MS 500u
#define WINDOW_FIRST_BYTES (128u << 10)
#define GIVEN_BATCHES 32u      /* of one piece each, waiting in a lane, */
#define GIVEN_BYTES (2u << 20) /* and of all that waits for a peer: more is not made */

/* ---- who has what ---- */

struct look_job {
    struct job job;
    struct store *store;
    struct exchange_peer *peer; /* pinned */
    struct id object;
    bool whole;
    struct store_object_info info;
    struct store_recipe *recipe; /* owned; of a partial object, or of a small one */
};

static void look_work(struct job *job)
{
    struct look_job *look = (struct look_job *)job;
    look->whole = store_object_stat(look->store, &look->object, &look->info, NULL) == 1;
    if (look->whole && look->info.size_bytes > LIMIT_TOLD_BYTES)
        return;
    if (store_recipe_load(look->store, &look->object, &look->recipe, NULL) != 1)
        look->recipe = NULL;
}

static bool tell_part(struct exchange_peer *peer, const struct id *root, uint32_t index, const struct buf *part)
{
    return !part->failed && transfer_peer_send(peer, &(struct message){.type = MESSAGE_RECIPE_PART,
                                                                       .root = *root,
                                                                       .index = index,
                                                                       .items = part->data,
                                                                       .n_items = part->len});
}

/* What the peer would ask for next. */
static void tell_recipe(struct exchange_peer *peer, const struct store_recipe *recipe)
{
    OWNED(buf_release) struct buf root = BUF(STORE_ROOT_MAX_BYTES);
    OWNED(buf_release) struct buf leaf = BUF(STORE_LEAF_MAX_BYTES);
    if (!transfer_recipe_is_told(&recipe->root) || store_root_encode(&recipe->root, &root, NULL) < 0 ||
        !tell_part(peer, &recipe->root_id, MESSAGE_PART_ROOT, &root) || recipe->root.leaf_count == 0)
        return;
    if (store_leaf_encode(recipe->chunks, recipe->root.chunk_count, &leaf, NULL) == 0)
        tell_part(peer, &recipe->root_id, 0, &leaf);
}

static void answer_want(struct look_job *look)
{
    struct exchange_peer *peer = look->peer;
    struct message have = {.type = MESSAGE_HAVE_NOT,
                           .object = look->object,
                           .load = transfer_serve_load(peer->exchange),
                           .price = peer->exchange->price};
    struct recipe_ref *ref = look->recipe ? transfer_recipes_add(peer->exchange, STEAL(look->recipe)) : NULL;
    if (look->whole) {
        have.type = MESSAGE_HAVE;
        have.root = look->info.root;
        have.size_bytes = look->info.size_bytes;
        have.flags = MESSAGE_HAVE_WHOLE;
    } else if (ref) {
        have.type = MESSAGE_HAVE;
        have.root = ref->recipe->root_id;
        have.size_bytes = ref->recipe->root.size_bytes;
    }
    transfer_peer_send(peer, &have);
    if (ref && id_equal(&ref->recipe->root_id, &have.root))
        tell_recipe(peer, ref->recipe);
    transfer_recipe_unref(ref);
}

static void look_next(struct exchange_peer *peer);

static void look_done(struct job *job)
{
    struct look_job *look = (struct look_job *)job;
    struct exchange_peer *peer = look->peer;
    peer->serving.looking = false;
    if (!peer->gone && !job->exchange->dead) {
        answer_want(look);
        look_next(peer);
    }
    store_recipe_free(look->recipe);
    free(look);
    transfer_peer_unpin(peer);
}

static void look_next(struct exchange_peer *peer)
{
    struct serving *serving = &peer->serving;
    if (serving->looking || serving->n_wants == 0)
        return;
    struct look_job *look = calloc(1, sizeof *look);
    if (!look)
        return; /* the next question tries again */
    look->store = peer->exchange->config.store;
    look->peer = peer;
    look->object = serving->wants[serving->first_want];
    serving->first_want = (serving->first_want + 1) % LIMIT_PEER_WANTS;
    serving->n_wants--;
    serving->looking = true;
    transfer_peer_pin(peer);
    transfer_job_submit(peer->exchange, &look->job, look_work, look_done);
}

int transfer_serve_want(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    if (transfer_fetch_answer_want(peer, &message->object))
        return 0;
    struct serving *serving = &peer->serving;
    if (serving->n_wants == LIMIT_PEER_WANTS)
        return err_set(err, ERR_PROTOCOL, "more than %u questions at once", LIMIT_PEER_WANTS);
    if (!serving->wants)
        serving->wants = calloc(LIMIT_PEER_WANTS, sizeof *serving->wants);
    if (!serving->wants)
        return err_set(err, ERR_NOMEM, "no memory for a question");
    serving->wants[(serving->first_want + serving->n_wants++) % LIMIT_PEER_WANTS] = message->object;
    look_next(peer);
    return 0;
}

/* ---- requests ---- */

static void free_run(struct run *run)
{
    transfer_recipe_unref(run->recipe);
    free(run->ids);
    free(run->asked);
    free(run);
}

void transfer_serve_drop_run(struct exchange_peer *peer, struct run *run)
{
    struct lane *lane = transfer_serve_lane(peer, run->class);
    TAILQ_REMOVE(&lane->runs, run, link);
    peer->serving.n_runs--;
    peer->exchange->serve.works[run->class]--;
    peer->exchange->serve.look |= !transfer_serve_has_work(peer);
    if (lane->reading_for == run)
        lane->reading_for = NULL;
    if (run->counted)
        transfer_deal_unmark(&peer->exchange->deals, &run->root, (struct deal_range){run->next, run->end - run->next});
    free_run(run);
}

void transfer_serve_drop_batch(struct exchange_peer *peer, struct batch *batch)
{
    struct lane *lane = transfer_serve_lane(peer, batch->class);
    if (batch->counted && batch->at < batch->n)
        transfer_deal_unmark(&peer->exchange->deals, &batch->root,
                             (struct deal_range){batch->pieces[batch->at].index, batch->n - batch->at});
    peer->exchange->serve_bytes -= batch->cap;
    peer->serving.held_bytes -= batch->cap;
    TAILQ_REMOVE(&lane->batches, batch, link);
    lane->n_batches--;
    peer->serving.n_batches--;
    peer->exchange->serve.n_batches--;
    peer->exchange->serve.works[batch->class]--;
    peer->exchange->serve.look |= !transfer_serve_has_work(peer);
    free(batch->data);
    free(batch);
}

struct lane *transfer_serve_lane(struct exchange_peer *peer, unsigned class)
{
    return &peer->serving.lanes[class];
}

bool transfer_serve_has_work(const struct exchange_peer *peer)
{
    return peer->serving.n_runs > 0 || peer->serving.n_batches > 0;
}

struct run *transfer_serve_find(struct exchange_peer *peer, unsigned class, uint32_t request)
{
    struct run *run;
    TAILQ_FOREACH (run, &transfer_serve_lane(peer, class)->runs, link) {
        if (run->request == request)
            return run;
    }
    return NULL;
}

void transfer_serve_refuse(struct exchange_peer *peer, struct run *run, enum message_type type, uint32_t retry_ms)
{
    transfer_peer_send(peer, &(struct message){.type = type, .request = run->request, .retry_ms = retry_ms});
    transfer_serve_drop_run(peer, run);
}

/* Is this the last that waits of its request? */
static bool is_last(struct exchange_peer *peer, const struct batch *batch)
{
    const struct batch *next = TAILQ_NEXT(batch, link);
    return !transfer_serve_find(peer, batch->class, batch->request) && !(next && next->request == batch->request);
}

void transfer_serve_shed(struct exchange_peer *peer, uint32_t retry_ms)
{
    for (unsigned i = 0; i < EXCHANGE_CLASSES; i++) {
        struct lane *lane = transfer_serve_lane(peer, i);
        struct batch *batch;
        while ((batch = TAILQ_FIRST(&lane->batches))) {
            struct message busy = {.type = MESSAGE_BUSY, .request = batch->request, .retry_ms = retry_ms};
            if (is_last(peer, batch))
                transfer_peer_send(peer, &busy);
            transfer_serve_drop_batch(peer, batch);
        }
        while (!TAILQ_EMPTY(&lane->runs))
            transfer_serve_refuse(peer, TAILQ_FIRST(&lane->runs), MESSAGE_BUSY, retry_ms);
    }
    transfer_gap_orders_shed(peer, retry_ms);
}

void transfer_serve_init(struct exchange_peer *peer)
{
    peer->serving.window_bytes = WINDOW_FIRST_BYTES;
    for (unsigned i = 0; i < EXCHANGE_CLASSES; i++) {
        TAILQ_INIT(&transfer_serve_lane(peer, i)->runs);
        TAILQ_INIT(&transfer_serve_lane(peer, i)->batches);
    }
}

void transfer_serve_release(struct exchange_peer *peer)
{
    struct serving *serving = &peer->serving;
    for (unsigned i = 0; i < EXCHANGE_CLASSES; i++) {
        struct lane *lane = transfer_serve_lane(peer, i);
        while (!TAILQ_EMPTY(&lane->runs))
            transfer_serve_drop_run(peer, TAILQ_FIRST(&lane->runs));
        while (!TAILQ_EMPTY(&lane->batches))
            transfer_serve_drop_batch(peer, TAILQ_FIRST(&lane->batches));
    }
    transfer_turns_leave(peer);
    free(serving->wants);
    serving->wants = NULL;
    serving->n_wants = 0;
}

/* The list of a PIECES or DEAL. */
static bool copy_items(struct run *run, const struct message *message)
{
    if (message->type == MESSAGE_PIECES) {
        run->ids = calloc(message->n_items, sizeof *run->ids);
        for (size_t i = 0; run->ids && i < message->n_items; i++)
            run->ids[i] = transfer_message_id(message, i);
        run->end = (uint32_t)message->n_items;
        return run->ids;
    }
    run->asked = calloc(message->n_items, sizeof *run->asked);
    run->n_asked = (unsigned)message->n_items;
    for (size_t i = 0; run->asked && i < message->n_items; i++)
        transfer_message_range(message, i, &run->asked[i].first, &run->asked[i].count);
    return run->asked;
}

static struct run *new_run(const struct message *message, uint64_t now_ms)
{
    struct run *run = calloc(1, sizeof *run);
    if (!run)
        return NULL;
    run->request = message->request;
    run->class = message->class;
    run->type = STORE_PIECE_CHUNK;
    run->object = message->object;
    run->root = message->root;
    run->next = message->first;
    run->end = message->first + message->count;
    run->size_bytes = message->size_bytes;
    run->queued_ms = now_ms;
    if (message->type == MESSAGE_PIECES) {
        run->type = message->piece;
        run->class = EXCHANGE_VOLUME; /* records are few, and all that follows waits for them */
    }
    if (message->type != MESSAGE_RUN && !copy_items(run, message)) {
        free(run);
        return NULL;
    }
    return run;
}

int transfer_serve_run(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct serving *serving = &peer->serving;
    if (serving->n_runs >= LIMIT_PEER_RUNS) {
        transfer_peer_send(
            peer, &(struct message){.type = MESSAGE_BUSY, .request = message->request, .retry_ms = BUSY_RETRY_MS});
        return 0;
    }
    struct run *run = new_run(message, peer->exchange->now_ms);
    if (!run)
        return err_set(err, ERR_NOMEM, "no memory for a request");
    transfer_turns_wake(peer, run->class);
    TAILQ_INSERT_TAIL(&transfer_serve_lane(peer, run->class)->runs, run, link);
    serving->n_runs++;
    peer->exchange->serve.works[run->class]++;
    transfer_serve_pump_all(peer->exchange);
    return 0;
}

static void cancel_in_lane(struct exchange_peer *peer, unsigned class, uint32_t request)
{
    struct run *run = transfer_serve_find(peer, class, request);
    if (run)
        transfer_serve_drop_run(peer, run);
    for (struct batch *batch = TAILQ_FIRST(&transfer_serve_lane(peer, class)->batches), *next; batch; batch = next) {
        next = TAILQ_NEXT(batch, link);
        if (batch->request == request)
            transfer_serve_drop_batch(peer, batch);
    }
}

void transfer_serve_cancel(struct exchange_peer *peer, uint32_t request)
{
    for (unsigned i = 0; i < EXCHANGE_CLASSES; i++)
        cancel_in_lane(peer, i, request);
    transfer_serve_pump_all(peer->exchange);
}

/* ---- what others have made ---- */

bool transfer_serve_wants_more(struct exchange_peer *peer, uint8_t class)
{
    const struct lane *lane = transfer_serve_lane(peer, class);
    return lane->n_batches < GIVEN_BATCHES && peer->serving.held_bytes < GIVEN_BYTES &&
           peer->exchange->serve_bytes < LIMIT_SERVE_BYTES;
}

int transfer_serve_give(struct exchange_peer *peer, uint8_t class, const struct message *head, uint8_t *data)
{
    struct batch *batch = calloc(1, sizeof *batch);
    if (!batch) {
        free(data);
        return ERR_NOMEM;
    }
    batch->request = head->request;
    batch->class = class;
    batch->data = data;
    batch->cap = head->stored_bytes;
    batch->n = 1;
    batch->pieces[0] = (struct batch_piece){
        .type = head->type,
        .codec = head->codec,
        .index = head->index,
        .piece = {.stored_bytes = head->stored_bytes, .raw_bytes = head->raw_bytes, .encoding = head->encoding}};
    transfer_turns_wake(peer, class);
    struct lane *lane = transfer_serve_lane(peer, class);
    TAILQ_INSERT_TAIL(&lane->batches, batch, link);
    lane->n_batches++;
    peer->serving.n_batches++;
    peer->exchange->serve.n_batches++;
    peer->exchange->serve.works[class]++;
    peer->serving.turn_bytes += batch->cap;
    peer->exchange->serve_bytes += batch->cap;
    peer->serving.held_bytes += batch->cap;
    return 0;
}
