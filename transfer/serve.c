/*
 * Answers: who has what (WANT), and the bytes (PIECES, RUN).
 *
 * A request waits in its peer's queue. One job at a time reads for a peer, at most LIMIT_SERVE_BATCH_BYTES, while the
 * batch before is being sent; a batch is sent as far as the link has room. So a peer that reads slowly holds two
 * batches and nothing else, and no peer waits for another, but for the thread pool and LIMIT_SERVE_BYTES.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "transfer/exchange.h"
#include "transfer/fetch.h"

#define BATCH_PIECES 64u
#define BATCHES 2u
#define BUSY_RETRY_MS 500u
#define CHUNK_HEAD_BYTES 17u
#define MORE_HEAD_BYTES 4u
#define FRAME_BYTES 19u /* around a message: length, type, tag */

/* A request that waits: pieces `next` to `end` of a recipe, or of the ids that a PIECES names. */
struct run {
    TAILQ_ENTRY(run)
    link;
    uint32_t request;
    uint8_t class; /* enum exchange_class */
    enum store_piece_type type;
    struct id object;
    struct id root;
    uint32_t next;
    uint32_t end;
    struct recipe_ref *recipe; /* of a RUN, once known */
    struct id *ids;            /* owned; of a PIECES */
};

struct batch_piece {
    uint32_t index;
    size_t offset;
    struct store_piece piece;
};

/* Pieces of one run, read and on their way. */
struct batch {
    TAILQ_ENTRY(batch)
    link;
    uint32_t request;
    uint8_t class;
    uint8_t *data; /* owned */
    size_t cap;    /* counted in exchange->serve_bytes */
    unsigned n;
    unsigned at;   /* the piece that is being sent */
    uint32_t sent; /* of it */
    bool gone;     /* the piece after these was not here: say so at the end */
    struct batch_piece pieces[BATCH_PIECES];
};

/* ---- who has what ---- */

struct look_job {
    struct job job;
    struct store *store;
    struct exchange_peer *peer; /* pinned */
    struct id object;
    bool whole;
    struct store_object_info info;
    struct store_recipe *recipe; /* owned; of a partial object */
};

static void look_work(struct job *job)
{
    struct look_job *look = (struct look_job *)job;
    look->whole = store_object_stat(look->store, &look->object, &look->info, NULL) == 1;
    if (!look->whole && store_recipe_load(look->store, &look->object, &look->recipe, NULL) != 1)
        look->recipe = NULL;
}

static void answer_want(struct look_job *look)
{
    struct message have = {.type = MESSAGE_HAVE_NOT, .object = look->object};
    if (look->whole) {
        have.type = MESSAGE_HAVE;
        have.root = look->info.root;
        have.size_bytes = look->info.size_bytes;
        have.flags = MESSAGE_HAVE_WHOLE;
    } else if (look->recipe) {
        have.type = MESSAGE_HAVE;
        have.root = look->recipe->root_id;
        have.size_bytes = look->recipe->root.size_bytes;
        transfer_recipe_unref(transfer_recipes_add(look->peer->exchange, STEAL(look->recipe)));
    }
    transfer_peer_send(look->peer, &have);
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
    free(run);
}

static void drop_run(struct serving *serving, struct run *run)
{
    TAILQ_REMOVE(&serving->runs, run, link);
    serving->n_runs--;
    free_run(run);
}

static void drop_batch(struct exchange_peer *peer, struct batch *batch)
{
    peer->exchange->serve_bytes -= batch->cap;
    TAILQ_REMOVE(&peer->serving.batches, batch, link);
    peer->serving.n_batches--;
    free(batch->data);
    free(batch);
}

static struct run *find_run(struct serving *serving, uint32_t request)
{
    struct run *run;
    TAILQ_FOREACH (run, &serving->runs, link) {
        if (run->request == request)
            return run;
    }
    return NULL;
}

void transfer_serve_init(struct exchange_peer *peer)
{
    TAILQ_INIT(&peer->serving.runs);
    TAILQ_INIT(&peer->serving.batches);
}

void transfer_serve_release(struct exchange_peer *peer)
{
    struct serving *serving = &peer->serving;
    while (!TAILQ_EMPTY(&serving->runs))
        drop_run(serving, TAILQ_FIRST(&serving->runs));
    while (!TAILQ_EMPTY(&serving->batches))
        drop_batch(peer, TAILQ_FIRST(&serving->batches));
    free(serving->wants);
    serving->wants = NULL;
    serving->n_wants = 0;
}

static bool copy_ids(struct run *run, const struct message *message)
{
    run->ids = calloc(message->n_items, sizeof *run->ids);
    for (size_t i = 0; run->ids && i < message->n_items; i++)
        run->ids[i] = transfer_message_id(message, i);
    run->end = (uint32_t)message->n_items;
    return run->ids;
}

int transfer_serve_run(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    struct serving *serving = &peer->serving;
    if (serving->n_runs >= LIMIT_PEER_RUNS) {
        transfer_peer_send(
            peer, &(struct message){.type = MESSAGE_BUSY, .request = message->request, .retry_ms = BUSY_RETRY_MS});
        return 0;
    }
    struct run *run = calloc(1, sizeof *run);
    if (!run)
        return err_set(err, ERR_NOMEM, "no memory for a request");
    run->request = message->request;
    run->class = message->type == MESSAGE_PIECES ? EXCHANGE_FREEZE : message->class; /* records are few, all wait */
    run->type = STORE_PIECE_CHUNK;
    run->object = message->object;
    run->root = message->root;
    run->next = message->first;
    run->end = message->first + message->count;
    if (message->type == MESSAGE_PIECES) {
        run->type = message->piece;
        if (!copy_ids(run, message)) {
            free(run);
            return err_set(err, ERR_NOMEM, "no memory for a request");
        }
    }
    TAILQ_INSERT_TAIL(&serving->runs, run, link);
    serving->n_runs++;
    transfer_serve_pump(peer);
    return 0;
}

void transfer_serve_cancel(struct exchange_peer *peer, uint32_t request)
{
    struct run *run = find_run(&peer->serving, request);
    if (run)
        drop_run(&peer->serving, run);
    for (struct batch *batch = TAILQ_FIRST(&peer->serving.batches), *next; batch; batch = next) {
        next = TAILQ_NEXT(batch, link);
        if (batch->request == request)
            drop_batch(peer, batch);
    }
    transfer_serve_pump(peer);
}

/* ---- reading ---- */

struct read_job {
    struct job job;
    struct store *store;
    struct exchange_peer *peer; /* pinned */
    uint32_t request;
    enum store_piece_type type;
    struct id object;
    struct id root;
    bool load; /* only find the recipe of `object` with this root */
    struct store_recipe *recipe;
    struct batch *batch; /* owned; data and pieces' indices are set */
    struct id ids[BATCH_PIECES];
    unsigned n_ids;
};

static void read_work(struct job *job)
{
    struct read_job *read = (struct read_job *)job;
    if (read->load) {
        if (store_recipe_load(read->store, &read->object, &read->recipe, NULL) != 1)
            read->recipe = NULL;
        return;
    }
    struct batch *batch = read->batch;
    size_t used = 0;
    for (unsigned i = 0; i < read->n_ids; i++) {
        struct batch_piece *piece = &batch->pieces[i];
        if (store_piece_read(read->store, read->type, &read->ids[i], batch->data + used, batch->cap - used,
                             &piece->piece, NULL) != 1) {
            batch->gone = true;
            return;
        }
        piece->offset = used;
        used += piece->piece.stored_bytes;
        batch->n++;
    }
}

/* The recipe was looked for: go on with it, or say that the object is gone. */
static void take_recipe(struct exchange_peer *peer, struct run *run, struct read_job *read)
{
    if (read->recipe && id_equal(&read->recipe->root_id, &run->root))
        run->recipe = transfer_recipes_add(peer->exchange, STEAL(read->recipe));
    if (run->recipe)
        return;
    transfer_peer_send(peer, &(struct message){.type = MESSAGE_GONE, .request = run->request});
    drop_run(&peer->serving, run);
}

static void take_batch(struct exchange_peer *peer, struct run *run, struct batch *batch)
{
    run->next += batch->n;
    TAILQ_INSERT_TAIL(&peer->serving.batches, batch, link);
    peer->serving.n_batches++;
    if (batch->gone || run->next == run->end)
        drop_run(&peer->serving, run);
}

static void read_done(struct job *job)
{
    struct read_job *read = (struct read_job *)job;
    struct exchange_peer *peer = read->peer;
    struct exchange *exchange = job->exchange;
    peer->serving.reading = false;
    struct run *run = peer->gone || exchange->dead ? NULL : find_run(&peer->serving, read->request);
    if (run && read->load)
        take_recipe(peer, run, read);
    else if (run)
        take_batch(peer, run, STEAL(read->batch));
    if (read->batch) {
        exchange->serve_bytes -= read->batch->cap;
        free(read->batch->data);
        free(read->batch);
    }
    store_recipe_free(read->recipe);
    free(read);
    if (!peer->gone && !exchange->dead)
        transfer_serve_pump_all(exchange); /* whoever waited for memory */
    transfer_peer_unpin(peer);
}

/* The most that the piece may take as stored. */
static size_t piece_cap(const struct run *run, uint32_t index)
{
    switch (run->type) {
    case STORE_PIECE_CHUNK:
        return run->recipe->recipe->chunks[index].length;
    case STORE_PIECE_LEAF:
        return STORE_LEAF_MAX_BYTES;
    default:
        return STORE_ROOT_MAX_BYTES;
    }
}

/* Ids and room for the next pieces of the run. False when out of memory. */
static bool plan_batch(struct read_job *read, const struct run *run)
{
    struct batch *batch = calloc(1, sizeof *batch);
    if (!batch)
        return false;
    batch->request = run->request;
    batch->class = run->class;
    for (uint32_t i = run->next; i < run->end && read->n_ids < BATCH_PIECES; i++) {
        size_t bytes = piece_cap(run, i);
        if (read->n_ids > 0 && batch->cap + bytes > LIMIT_SERVE_BATCH_BYTES)
            break;
        batch->cap += bytes;
        batch->pieces[read->n_ids].index = i;
        read->ids[read->n_ids++] = run->ids ? run->ids[i] : run->recipe->recipe->chunks[i].id;
    }
    batch->data = malloc(batch->cap + 1);
    if (!batch->data) {
        free(batch);
        return false;
    }
    read->batch = batch;
    return true;
}

static void start_read(struct exchange_peer *peer, struct run *run)
{
    struct read_job *read = calloc(1, sizeof *read);
    if (!read)
        return;
    read->store = peer->exchange->config.store;
    read->peer = peer;
    read->request = run->request;
    read->type = run->type;
    read->object = run->object;
    read->root = run->root;
    read->load = !run->recipe && !run->ids;
    if (!read->load && !plan_batch(read, run)) {
        free(read);
        return;
    }
    if (read->batch)
        peer->exchange->serve_bytes += read->batch->cap;
    peer->serving.reading = true;
    transfer_peer_pin(peer);
    transfer_job_submit(peer->exchange, &read->job, read_work, read_done);
}

/* A run that names chunks which its recipe has not is refused; true if it can be read. */
static bool check_run(struct exchange_peer *peer, struct run *run)
{
    if (!run->recipe && !run->ids)
        run->recipe = transfer_recipes_get(peer->exchange, &run->root);
    if (!run->recipe || run->end <= run->recipe->recipe->root.chunk_count)
        return true;
    transfer_peer_send(peer, &(struct message){.type = MESSAGE_GONE, .request = run->request});
    drop_run(&peer->serving, run);
    return false;
}

/* ---- sending ---- */

/* Send the next of the batch's bytes. False: not now. */
static bool send_part(struct exchange_peer *peer, struct batch *batch)
{
    uint64_t room = transfer_peer_room(peer, PACE_UP, batch->class);
    if (room == 0 || peer->out.room(peer->out.ctx) == 0)
        return false;
    const struct batch_piece *piece = &batch->pieces[batch->at];
    bool first = batch->sent == 0;
    uint32_t left = piece->piece.stored_bytes - batch->sent;
    uint32_t head = first ? CHUNK_HEAD_BYTES : MORE_HEAD_BYTES;
    uint32_t most = SESSION_FRAME_BYTES - head;
    uint32_t part = (uint32_t)transfer_pace_part(room, left < most ? left : most);
    struct message message = {.type = first ? MESSAGE_CHUNK : MESSAGE_MORE,
                              .request = batch->request,
                              .index = piece->index,
                              .encoding = (uint8_t)piece->piece.encoding,
                              .stored_bytes = piece->piece.stored_bytes,
                              .raw_bytes = piece->piece.raw_bytes,
                              .items = batch->data + piece->offset + batch->sent,
                              .n_items = part};
    if (!transfer_peer_send(peer, &message))
        return false;
    transfer_peer_take(peer, PACE_UP, batch->class, part + head + FRAME_BYTES);
    peer->serving.sent_bytes += part;
    batch->sent += part;
    if (part == left) {
        batch->sent = 0;
        batch->at++;
    }
    return true;
}

static void send_batches(struct exchange_peer *peer)
{
    struct batch *batch;
    while ((batch = TAILQ_FIRST(&peer->serving.batches))) {
        while (batch->at < batch->n) {
            if (!send_part(peer, batch))
                return;
        }
        if (batch->gone)
            transfer_peer_send(peer, &(struct message){.type = MESSAGE_GONE, .request = batch->request});
        drop_batch(peer, batch);
    }
}

void transfer_serve_pump(struct exchange_peer *peer)
{
    struct serving *serving = &peer->serving;
    send_batches(peer);
    while (!peer->failing && !serving->reading && serving->n_batches < BATCHES &&
           peer->exchange->serve_bytes < LIMIT_SERVE_BYTES) {
        struct run *run = TAILQ_FIRST(&serving->runs);
        if (!run)
            return;
        if (!check_run(peer, run))
            continue;
        start_read(peer, run);
        if (!serving->reading)
            return; /* no memory now */
    }
}

void transfer_serve_pump_all(struct exchange *exchange)
{
    struct exchange_peer *peer;
    TAILQ_FOREACH (peer, &exchange->peers, link)
        transfer_serve_pump(peer);
    /* another one is the first next time */
    peer = TAILQ_FIRST(&exchange->peers);
    if (peer) {
        TAILQ_REMOVE(&exchange->peers, peer, link);
        TAILQ_INSERT_TAIL(&exchange->peers, peer, link);
    }
}
