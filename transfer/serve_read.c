/*
 * Reading: one job at a time for each lane, LIMIT_SERVE_BATCH_BYTES at most, while the batch before is being sent. So a
 * peer that reads slowly holds two batches of a lane and nothing else.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "store/compress.h"
#include "transfer/serve.h"

#define BATCHES 2u
#define JOBS_FEW 2u
#define BATCH_MIN_BYTES (128u << 10)

struct read_job {
    struct job job;
    struct store *store;
    struct exchange_peer *peer; /* pinned */
    uint8_t class;
    enum store_piece_type type;
    struct id object;
    bool load; /* only find the recipe of `object` */
    struct store_recipe *recipe;
    int level;            /* chunks are compressed again at this one; 0: they are not */
    size_t frame_bytes;   /* of what was, before */
    size_t pressed_bytes; /* and after */
    struct batch *batch;  /* owned; data and pieces' indices are set */
    struct id ids[BATCH_PIECES];
    unsigned n_ids;
};

static void press(struct read_job *read, uint8_t *data, struct store_piece *piece)
{
    if (read->level == 0 || piece->encoding != STORE_ZSTD)
        return;
    size_t len = store_compress_again(data, piece->stored_bytes, piece->raw_bytes, read->level);
    read->frame_bytes += piece->stored_bytes;
    read->pressed_bytes += len;
    piece->stored_bytes = (uint32_t)len;
}

/* What compressed well does not wait in memory for what would not have. */
static void shrink(struct batch *batch, size_t used)
{
    uint8_t *less = used < batch->cap / 2 ? realloc(batch->data, used + 1) : NULL;
    if (less)
        batch->data = less;
}

static void read_work(struct job *job)
{
    struct read_job *read = (struct read_job *)job;
    if (read->load) {
        if (store_recipe_load(read->store, &read->object, &read->recipe, NULL) != 1)
            read->recipe = NULL;
        return;
    }
    struct batch *batch = read->batch;
    struct store_piece pieces[BATCH_PIECES];
    batch->n =
        (unsigned)store_pieces_read(read->store, read->type, read->ids, read->n_ids, batch->data, batch->cap, pieces);
    batch->gone = batch->n < read->n_ids; /* never here, or rotten: the store has taken note */
    size_t offset = 0;
    for (unsigned i = 0; i < batch->n; i++) {
        batch->pieces[i].offset = offset;
        batch->pieces[i].piece = pieces[i];
        offset += pieces[i].stored_bytes;
        press(read, batch->data + batch->pieces[i].offset, &batch->pieces[i].piece);
    }
    shrink(batch, offset);
}

_Static_assert(BATCH_PIECES <= STORE_PIECES_MAX, "a batch is read at once");

/* The recipe was looked for: go on with it, or say that the object is gone. */
static void take_recipe(struct exchange_peer *peer, struct run *run, struct read_job *read)
{
    if (read->recipe && id_equal(&read->recipe->root_id, &run->root))
        run->recipe = transfer_recipes_add(peer->exchange, STEAL(read->recipe));
    if (!run->recipe)
        transfer_serve_refuse(peer, run, MESSAGE_GONE, 0);
}

static void take_batch(struct exchange_peer *peer, struct lane *lane, struct run *run, struct batch *batch)
{
    run->next += batch->n;
    TAILQ_INSERT_TAIL(&lane->batches, batch, link);
    lane->n_batches++;
    peer->serving.n_batches++;
    peer->exchange->serve.n_batches++;
    peer->exchange->serve.works[batch->class]++;
    peer->serving.held_bytes += batch->cap;
    if (batch->gone || run->next == run->end)
        transfer_serve_drop_run(peer, run);
}

static void read_done(struct job *job)
{
    struct read_job *read = (struct read_job *)job;
    struct exchange_peer *peer = read->peer;
    struct exchange *exchange = job->exchange;
    struct lane *lane = transfer_serve_lane(peer, read->class);
    lane->reading = false;
    if (read->level > 0) {
        exchange->serve.pressing = false;
        transfer_press_judge(&peer->serving.press, read->frame_bytes, read->pressed_bytes);
    }
    bool useless = peer->gone || exchange->dead;
    struct run *run = STEAL(lane->reading_for);
    if (run && read->load)
        take_recipe(peer, run, read);
    else if (run)
        take_batch(peer, lane, run, STEAL(read->batch));
    if (read->batch) {
        exchange->serve_bytes -= read->batch->cap;
        free(read->batch->data);
        free(read->batch);
    }
    store_recipe_free(read->recipe);
    free(read);
    exchange->serve.look |= peer->serving.n_batches == 0; /* its turn may be over, which waited for this */
    if (!useless)
        transfer_serve_pump_all(exchange);
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

/* For a slow peer, what it takes in a quarter of a second is enough. */
static size_t batch_bytes(const struct exchange_peer *peer)
{
    size_t window = peer->serving.window_bytes;
    if (window >= LIMIT_SESSION_BULK_BYTES)
        return LIMIT_SERVE_BATCH_BYTES;
    return window < BATCH_MIN_BYTES ? BATCH_MIN_BYTES : window;
}

/* Ids and room for the next pieces of the run. False when out of memory. */
static bool plan_batch(struct read_job *read, const struct run *run)
{
    struct batch *batch = calloc(1, sizeof *batch);
    if (!batch)
        return false;
    batch->request = run->request;
    batch->class = run->class;
    batch->counted = run->counted;
    batch->root = run->root;
    for (uint32_t i = run->next; i < run->end && read->n_ids < BATCH_PIECES; i++) {
        size_t bytes = piece_cap(run, i);
        if (read->n_ids > 0 && batch->cap + bytes > batch_bytes(read->peer))
            break;
        batch->cap += bytes;
        batch->pieces[read->n_ids].type = MESSAGE_CHUNK;
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

/* Only where it holds nobody up: the peer has a batch to go on with, and the thread pool is not behind. */
static int choose_level(struct exchange_peer *peer, const struct lane *lane, const struct run *run)
{
    const struct exchange *exchange = peer->exchange;
    if (run->type != STORE_PIECE_CHUNK || lane->n_batches == 0 || exchange->serve.pressing || exchange->jobs > JOBS_FEW)
        return 0;
    return transfer_press_level(&peer->serving.press, peer->serving.rate);
}

static bool start_read(struct exchange_peer *peer, struct lane *lane, struct run *run)
{
    struct read_job *read = calloc(1, sizeof *read);
    if (!read)
        return false;
    read->store = peer->exchange->config.store;
    read->peer = peer;
    read->class = run->class;
    read->type = run->type;
    read->object = run->object;
    read->load = !run->recipe && !run->ids;
    if (!read->load && !plan_batch(read, run)) {
        free(read);
        return false;
    }
    if (read->batch) {
        read->level = choose_level(peer, lane, run);
        peer->exchange->serve.pressing |= read->level > 0;
        peer->exchange->serve_bytes += read->batch->cap;
        peer->serving.turn_bytes += read->batch->cap;
    }
    lane->reading = true;
    lane->reading_for = run;
    transfer_peer_pin(peer);
    transfer_job_submit(peer->exchange, &read->job, read_work, read_done);
    return true;
}

/* ---- what may be read ---- */

/* Choose what of a DEAL is sent, and say so. False: all has been dealt, and the request is answered. */
static bool deal(struct exchange_peer *peer, struct run *run)
{
    const struct store_recipe *recipe = run->recipe->recipe;
    struct exchange *exchange = peer->exchange;
    struct deal_wish wish = {.root = &run->root,
                             .chunks = recipe->chunks,
                             .n_chunks = recipe->root.chunk_count,
                             .asked = run->asked,
                             .n_asked = run->n_asked,
                             .size_bytes = run->size_bytes};
    struct deal_range stretch = {0};
    bool some = transfer_deal_choose(&exchange->deals, &wish, &exchange->config.rng, exchange->now_ms, &stretch);
    transfer_peer_send(
        peer, &(struct message){
                  .type = MESSAGE_DEALT, .request = run->request, .first = stretch.first, .count = stretch.count});
    free(STEAL(run->asked));
    run->next = stretch.first;
    run->end = stretch.first + stretch.count;
    if (!some)
        transfer_serve_drop_run(peer, run);
    return some;
}

/* A run that names chunks which its recipe has not is refused; true if it can be read. */
static bool check_run(struct exchange_peer *peer, struct run *run)
{
    if (run->ids || run->counted)
        return true;
    if (!run->recipe)
        run->recipe = transfer_recipes_get(peer->exchange, &run->root);
    if (!run->recipe)
        return true;
    uint32_t n_chunks = run->recipe->recipe->root.chunk_count;
    if (run->end > n_chunks) {
        transfer_serve_refuse(peer, run, MESSAGE_GONE, 0);
        return false;
    }
    if (run->asked && !deal(peer, run))
        return false;
    transfer_deal_mark(&peer->exchange->deals, &run->root, n_chunks,
                       (struct deal_range){run->next, run->end - run->next}, peer->exchange->now_ms);
    run->counted = true;
    return true;
}

bool transfer_serve_read(struct exchange_peer *peer, struct lane *lane)
{
    struct run *run;
    while (!peer->failing && !lane->reading && lane->n_batches < BATCHES && (run = TAILQ_FIRST(&lane->runs))) {
        if (check_run(peer, run))
            return start_read(peer, lane, run);
    }
    return true;
}
