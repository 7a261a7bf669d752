/*
 * A live exchange with a store behind it, and two sessions with members that say whatever the bytes say, in any order:
 * one object is here and served, another is being fetched (its recipe has come, its chunks are asked for, of some as
 * deltas against a third). Each step is a message, a job that ends, time that passes, or a session that ends and begins
 * again. At the end all sessions end, and nothing may be left of what was counted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/base/limits.h"
#include "node/base/wire.h"
#include "store/compress.h"
#include "transfer/fetch.h"
#include "transfer/gap.h"
#include "transfer/rsync.h"
#include "transfer/serve.h"

#define OBJECT_BYTES (600u << 10)
#define FOES 2u
#define STEPS_MAX 200u
#define JOBS_MAX 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SERVED, FETCHED, BASIS, OBJECTS };

/* What all inputs share: made once, and not changed but for what the exchange keeps of the fetch. */
struct world {
    char dir[64];
    struct store *store;
    uint8_t *bytes[OBJECTS];
    struct id objects[OBJECTS];
    struct store_recipe *recipes[OBJECTS];
};

struct pending {
    STAILQ_ENTRY(pending)
    link;
    job_done_cb done;
    void *arg;
};

struct foe {
    struct exchange_peer *peer; /* NULL: not there */
    uint32_t asked;             /* the last request that it got, */
    uint8_t asked_type;
    uint8_t asked_piece;
};

struct stage {
    const struct world *world;
    struct exchange *exchange;
    struct exchange_fetch *fetch;
    STAILQ_HEAD(, pending) jobs;
    struct foe foes[FOES];
    uint64_t now_ms;
    uint64_t random;
    struct wire in;
};

static void expect(bool condition)
{
    if (!condition)
        abort();
}

/* ---- the world ---- */

static uint64_t clock_ms(void *ctx)
{
    (void)ctx;
    return 1000000;
}

static struct store *open_store(const char *dir)
{
    struct store_options options = {.dir = dir, .clock = {.mono_ms = clock_ms, .wall_ms = clock_ms}};
    struct store *store = NULL;
    expect(store_open(&options, &store, NULL) == 0);
    return store;
}

static void put(struct world *world, struct store *store, unsigned which)
{
    struct store_ingest *ingest = NULL;
    struct store_object_info info;
    expect(store_ingest_new(store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, NULL) == 0);
    expect(store_ingest_write(ingest, world->bytes[which], OBJECT_BYTES, NULL) == 0);
    expect(store_ingest_finish(ingest, &info, NULL) == 0);
    store_ingest_free(ingest);
    world->objects[which] = info.digest;
    expect(store_recipe_load(store, &info.digest, &world->recipes[which], NULL) == 1);
}

static struct world the_world; /* for those who come after the first input */

static void forget_world(void)
{
    store_close(the_world.store);
    file_remove_tree(the_world.dir, NULL);
    for (unsigned i = 0; i < OBJECTS; i++) {
        free(the_world.bytes[i]);
        store_recipe_free(the_world.recipes[i]);
    }
}

static void new_dir(char dir[64])
{
    snprintf(dir, 64, "%s/cmig-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    expect(mkdtemp(dir));
}

static const struct world *world_of_all(void)
{
    struct world *world = &the_world;
    if (world->store)
        return world;
    expect(crypto_init(NULL) == 0);
    for (unsigned i = 0; i < OBJECTS; i++) {
        uint64_t seed = i + 1;
        struct rng rng = rng_seeded(&seed);
        world->bytes[i] = malloc(OBJECT_BYTES);
        rng.fill(rng.ctx, world->bytes[i], OBJECT_BYTES);
    }
    memcpy(world->bytes[BASIS], world->bytes[FETCHED], OBJECT_BYTES);
    for (unsigned i = 0; i < OBJECT_BYTES / 3; i += 50000) /* the rest is here */
        world->bytes[BASIS][i] ^= 1;
    char other[64];
    new_dir(other);
    struct store *store = open_store(other);
    put(world, store, FETCHED);
    store_close(store);
    file_remove_tree(other, NULL);
    new_dir(world->dir);
    world->store = open_store(world->dir);
    put(world, world->store, SERVED);
    put(world, world->store, BASIS);
    atexit(forget_world);
    return world;
}

/* ---- the stage ---- */

static void submit(void *ctx, job_work_cb work, job_done_cb done, void *arg)
{
    struct stage *stage = ctx;
    struct pending *pending = malloc(sizeof *pending);
    expect(pending);
    *pending = (struct pending){.done = done, .arg = arg};
    work(arg);
    STAILQ_INSERT_TAIL(&stage->jobs, pending, link);
}

static bool end_job(struct stage *stage)
{
    struct pending *pending = STAILQ_FIRST(&stage->jobs);
    if (!pending)
        return false;
    STAILQ_REMOVE_HEAD(&stage->jobs, link);
    pending->done(pending->arg);
    free(pending);
    return true;
}

/* That jobs make no others for ever is what is asked. */
static void end_jobs(struct stage *stage)
{
    for (unsigned i = 0; end_job(stage); i++)
        expect(i < 100000);
}

static int foe_send(void *ctx, uint8_t type, const void *head, size_t head_bytes, const void *body, size_t body_bytes)
{
    struct foe *foe = ctx;
    (void)body;
    (void)body_bytes;
    expect(head_bytes <= MESSAGE_HEAD_BYTES);
    if (type == MESSAGE_PIECES || type == MESSAGE_RUN || type == MESSAGE_DEAL || type == MESSAGE_GAPS ||
        type == MESSAGE_LEAVES) {
        foe->asked = wire_load_u32(head);
        foe->asked_type = type;
        foe->asked_piece = type == MESSAGE_PIECES ? ((const uint8_t *)head)[4] : 0;
    }
    return 0;
}

static size_t foe_room(void *ctx)
{
    (void)ctx;
    return LIMIT_SESSION_BULK_BYTES;
}

static uint32_t foe_rtt(void *ctx)
{
    (void)ctx;
    return 1;
}

static void foe_join(struct stage *stage, unsigned which)
{
    struct foe *foe = &stage->foes[which];
    struct exchange_link link = {.send = foe_send, .room = foe_room, .rtt_ms = foe_rtt, .ctx = foe};
    struct id node = {{9}}; /* the same: two sessions of one */
    if (which == 0)
        node.b[0] = 8;
    expect(exchange_peer_add(stage->exchange, &node, &link, &foe->peer, NULL) == 0);
    if (stage->fetch)
        exchange_fetch_add_peer(stage->fetch, foe->peer, false, stage->now_ms);
}

static void foe_leave(struct stage *stage, unsigned which)
{
    if (stage->foes[which].peer)
        exchange_peer_remove(stage->foes[which].peer, stage->now_ms);
    stage->foes[which] = (struct foe){0};
}

static void on_done(void *ctx, int status, const struct err *err, const struct exchange_stats *stats)
{
    (void)status;
    (void)err;
    (void)stats;
    ((struct stage *)ctx)->fetch = NULL;
}

static void begin_fetch(struct stage *stage)
{
    struct exchange_wish wish = {.kind = STORE_BLOB, .on_done = on_done, .ctx = stage};
    wish.bases[wish.n_bases++] = stage->world->objects[BASIS];
    if (!stage->fetch)
        expect(exchange_fetch(stage->exchange, stage->now_ms, &stage->world->objects[FETCHED], &wish, &stage->fetch,
                              NULL) == 0);
    for (unsigned i = 0; i < FOES; i++) {
        if (stage->fetch && stage->foes[i].peer)
            exchange_fetch_add_peer(stage->fetch, stage->foes[i].peer, false, stage->now_ms);
    }
}

static void foe_says(struct stage *stage, unsigned which, const struct message *message)
{
    OWNED(buf_release) struct buf whole = BUF(LIMIT_CONTROL_BYTES);
    uint8_t head[MESSAGE_HEAD_BYTES];
    buf_add(&whole, head, transfer_message_encode(message, head));
    if (message->n_items > 0)
        buf_add(&whole, message->items, message->n_items * transfer_message_item_bytes(message->type));
    struct foe *foe = &stage->foes[which];
    uint8_t *exact = malloc(whole.len + 1);
    expect(exact);
    memcpy(exact, whole.data, whole.len);
    if (foe->peer && exchange_peer_input(foe->peer, stage->now_ms, (uint8_t)message->type, exact, whole.len, NULL) < 0)
        foe_leave(stage, which);
    free(exact);
}

/* ---- honest answers, so that the fetch gets to its chunks ---- */

static void send_record(struct stage *stage, unsigned which, enum message_type type)
{
    const struct store_recipe *recipe = stage->world->recipes[FETCHED];
    const struct foe *foe = &stage->foes[which];
    OWNED(buf_release) struct buf record = BUF(STORE_ROOT_MAX_BYTES);
    if (foe->asked_type == MESSAGE_PIECES && foe->asked_piece == STORE_PIECE_ROOT)
        store_root_encode(&recipe->root, &record, NULL);
    else
        store_leaf_encode(recipe->chunks, recipe->root.chunk_count, &record, NULL);
    uint8_t frame[8192];
    size_t len = record.len;
    struct store_patch *patch = NULL;
    if (type == MESSAGE_DELTA) {
        expect(store_patch_new(STORE_CHUNKING_PAGES, &patch, NULL) == 0);
        expect(store_patch_make(patch, NULL, 0, record.data, record.len, frame, sizeof frame, &len, NULL) == 0);
        store_patch_free(patch);
    }
    foe_says(stage, which,
             &(struct message){.type = type,
                               .request = foe->asked,
                               .encoding = STORE_RAW,
                               .codec = MESSAGE_CODEC_PLAIN,
                               .stored_bytes = (uint32_t)len,
                               .raw_bytes = (uint32_t)record.len,
                               .items = type == MESSAGE_DELTA ? frame : record.data,
                               .n_items = len});
}

static void answer(struct stage *stage, unsigned which)
{
    if (stage->foes[which].asked_type == MESSAGE_PIECES)
        send_record(stage, which, MESSAGE_CHUNK);
    else if (stage->foes[which].asked_type == MESSAGE_LEAVES)
        send_record(stage, which, MESSAGE_DELTA);
}

static struct message have_whole(const struct world *world)
{
    return (struct message){.type = MESSAGE_HAVE,
                            .object = world->objects[FETCHED],
                            .root = world->recipes[FETCHED]->root_id,
                            .size_bytes = OBJECT_BYTES,
                            .flags = MESSAGE_HAVE_WHOLE};
}

static void set_stage(struct stage *stage)
{
    struct exchange_config config = {.store = stage->world->store,
                                     .jobs = {.submit = submit, .ctx = stage},
                                     .rng = rng_seeded(&stage->random),
                                     .ctx = stage};
    STAILQ_INIT(&stage->jobs);
    expect(exchange_new(&config, &stage->exchange, NULL) == 0);
    foe_join(stage, 0);
    foe_join(stage, 1);
    begin_fetch(stage);
    end_jobs(stage);
    struct message have = have_whole(stage->world);
    foe_says(stage, 0, &have);
    for (unsigned i = 0; i < 2; i++) { /* root and leaf */
        answer(stage, 0);
        end_jobs(stage);
    }
    end_jobs(stage);
    const struct fetch *fetch = transfer_fetch_find(stage->exchange, &stage->world->objects[FETCHED]);
    expect(fetch && fetch->phase == FETCH_CHUNKS && fetch->gaps);
}

/* ---- messages from bytes ---- */

static struct id any_object(struct stage *stage)
{
    uint8_t which = wire_get_u8(&stage->in) % (OBJECTS + 1);
    return which < OBJECTS ? stage->world->objects[which] : (struct id){{which}};
}

static struct id any_root(struct stage *stage)
{
    uint8_t which = wire_get_u8(&stage->in) % (OBJECTS + 1);
    return which < OBJECTS ? stage->world->recipes[which]->root_id : (struct id){{which}};
}

static struct id any_record(struct stage *stage)
{
    uint8_t which = wire_get_u8(&stage->in);
    const struct store_recipe *recipe = stage->world->recipes[which % OBJECTS];
    return which & 0x80 ? recipe->root_id : recipe->root.leaves[0].id;
}

/* Small, as a rule; sometimes any. */
static uint32_t any_number(struct stage *stage)
{
    uint8_t small = wire_get_u8(&stage->in);
    return small < 0xf0 ? small % 24 : small == 0xff ? UINT32_MAX : wire_get_u32(&stage->in);
}

static void add_signature(struct stage *stage, struct buf *items)
{
    uint8_t range[4096] = {0};
    uint32_t len = any_number(stage) * 64 % sizeof range + 1;
    memset(range, wire_get_u8(&stage->in), len / 2);
    transfer_rsync_sign(range, len, items, NULL);
}

static void add_frame(struct stage *stage, struct buf *items)
{
    struct store_patch *patch = NULL;
    uint8_t frame[8192];
    size_t len = 0;
    size_t plain = any_number(stage);
    expect(store_patch_new(STORE_CHUNKING_PAGES, &patch, NULL) == 0);
    if (plain < OBJECT_BYTES &&
        store_patch_make(patch, NULL, 0, stage->world->bytes[FETCHED], plain, frame, sizeof frame, &len, NULL) == 0)
        buf_add(items, frame, len);
    store_patch_free(patch);
}

static void add_item(struct stage *stage, enum message_type type, struct buf *items)
{
    switch (type) {
    case MESSAGE_HAVE_MORE:
    case MESSAGE_DEAL:
        wire_put_u32(items, any_number(stage));
        wire_put_u32(items, any_number(stage));
        return;
    case MESSAGE_PIECES:
    case MESSAGE_MAP: {
        struct id id = any_record(stage);
        wire_put_id(items, &id);
        return;
    }
    case MESSAGE_RECIPE_NEED:
    case MESSAGE_SIGN:
        wire_put_u32(items, any_number(stage));
        return;
    case MESSAGE_GAPS:
        transfer_message_put_gap(items, &(struct message_gap){.first = any_number(stage),
                                                              .count = any_number(stage),
                                                              .offset = (uint64_t)any_number(stage) << 12,
                                                              .length = any_number(stage) << 8});
        return;
    case MESSAGE_LEAVES:
        transfer_message_put_stretch(items, &(struct message_stretch){.leaf = any_record(stage),
                                                                      .first = any_number(stage),
                                                                      .count = any_number(stage)});
        return;
    case MESSAGE_SIGNATURE:
        if (items->len == 0)
            add_signature(stage, items);
        return;
    case MESSAGE_DELTA:
        if (items->len == 0)
            add_frame(stage, items);
        return;
    default:
        for (size_t i = 0; i < transfer_message_item_bytes(type); i++)
            wire_put_u8(items, wire_get_u8(&stage->in));
    }
}

static void speak(struct stage *stage, unsigned which, enum message_type type)
{
    const struct world *world = stage->world;
    uint8_t request = wire_get_u8(&stage->in);
    OWNED(buf_release) struct buf items = BUF(MESSAGE_SIGNATURE_MAX);
    struct message message = {.type = type,
                              .request = request < 0xc0 ? request % 8 : stage->foes[which].asked - request % 4,
                              .class = wire_get_u8(&stage->in) % EXCHANGE_CLASSES,
                              .object = any_object(stage),
                              .root = any_root(stage),
                              .basis = any_object(stage),
                              .first = any_number(stage),
                              .count = any_number(stage),
                              .index = any_number(stage),
                              .flags = wire_get_u8(&stage->in) & 1,
                              .piece = request & 1 ? STORE_PIECE_ROOT : STORE_PIECE_LEAF};
    message.size_bytes = (uint64_t)any_number(stage) << 14;
    message.encoding = message.flags ? STORE_ZSTD : STORE_RAW;
    message.codec = (uint8_t)(message.count % 3);
    message.retry_ms = message.count;
    for (unsigned n = any_number(stage) % 20 + 1; n > 0 && transfer_message_item_bytes(type) > 0; n--)
        add_item(stage, type, &items);
    message.items = items.data;
    message.n_items = items.len > 0 ? items.len / transfer_message_item_bytes(type) : 0;
    if (type == MESSAGE_MAP_IS)
        message.count = (uint32_t)message.n_items * 8;
    uint32_t sizes = any_number(stage);
    uint32_t chunk = message.first % world->recipes[FETCHED]->root.chunk_count;
    message.raw_bytes = sizes < 12 ? world->recipes[FETCHED]->chunks[chunk].length : sizes;
    message.stored_bytes = sizes % 2 ? (uint32_t)message.n_items : message.raw_bytes;
    foe_says(stage, which, &message);
}

/* ---- steps ---- */

static void pass(struct stage *stage, uint64_t ms)
{
    uint64_t wake_ms;
    stage->now_ms += ms;
    exchange_tick(stage->exchange, stage->now_ms, &wake_ms);
    expect(wake_ms > stage->now_ms);
}

static void step(struct stage *stage)
{
    uint8_t op = wire_get_u8(&stage->in);
    unsigned which = op >> 7;
    op &= 0x7f;
    if (op >= 1 && op <= MESSAGE_LEAVES) {
        speak(stage, which, op);
        return;
    }
    struct message have = have_whole(stage->world);
    switch (op % 8) {
    case 0:
        end_jobs(stage);
        return;
    case 1:
        pass(stage, wire_get_u8(&stage->in) * 32u);
        return;
    case 2:
        foe_leave(stage, which);
        foe_join(stage, which);
        return;
    case 3:
        if (stage->fetch)
            exchange_fetch_cancel(STEAL(stage->fetch));
        begin_fetch(stage);
        return;
    case 4:
        foe_says(stage, which, &have);
        return;
    case 5:
        answer(stage, which);
        return;
    case 6:
        if (stage->foes[which].peer)
            exchange_peer_writable(stage->foes[which].peer, stage->now_ms);
        return;
    default:
        end_job(stage);
    }
}

static void clear_stage(struct stage *stage)
{
    if (stage->fetch)
        exchange_fetch_cancel(STEAL(stage->fetch));
    for (unsigned i = 0; i < FOES; i++)
        foe_leave(stage, i);
    end_jobs(stage);
    const struct exchange *exchange = stage->exchange;
    expect(exchange->fetch_bytes == 0 && exchange->arrived_bytes == 0 && exchange->serve_bytes == 0);
    expect(exchange->jobs == 0 && exchange->lessons == 0 && exchange->fetch_of.count == 0);
    expect(TAILQ_EMPTY(&exchange->peers) && TAILQ_EMPTY(&exchange->fetches));
    expect(TAILQ_EMPTY(&exchange->serve.slotted) && TAILQ_EMPTY(&exchange->serve.queue));
    exchange_free(stage->exchange);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stage stage = {.world = world_of_all(), .now_ms = 1000000, .random = 1};
    set_stage(&stage);
    wire_init(&stage.in, data, size);
    for (unsigned i = 0; i < STEPS_MAX && wire_left(&stage.in) > 0; i++)
        step(&stage);
    clear_stage(&stage);
    return 0;
}
