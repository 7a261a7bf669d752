/*
 * A member of the mesh that lies, by hand: messages that no exchange of ours would send, to one that serves an object
 * and perhaps fetches another. What was counted for the peer must be zero when it is gone.
 */
#include "tests/unit/transfer/mesh.h"

#include "node/base/buf.h"
#include "node/base/wire.h"
#include "store/recipe.h"
#include "transfer/fetch.h"
#include "transfer/gap.h"
#include "transfer/serve.h"

enum { KIB = 1 << 10, MIB = 1 << 20, TYPES = 0x18 };

/* The other end of a session, which keeps nothing. */
struct foe {
    struct mesh *mesh;
    struct exchange_peer *peer;
    size_t room; /* that it leaves in its session */
    unsigned got[TYPES];
    uint32_t last_request; /* of what it was asked */
    bool failed;           /* it was found out */
};

static int foe_send(void *ctx, uint8_t type, const void *head, size_t head_bytes, const void *body, size_t body_bytes)
{
    struct foe *foe = ctx;
    (void)body;
    (void)body_bytes;
    assert_true(type < TYPES);
    foe->got[type]++;
    bool asks = type == MESSAGE_PIECES || type == MESSAGE_RUN || type == MESSAGE_DEAL || type == MESSAGE_GAPS ||
                type == MESSAGE_LEAVES;
    if (asks && head_bytes >= 4)
        foe->last_request = wire_load_u32(head);
    return 0;
}

static size_t foe_room(void *ctx)
{
    return ((struct foe *)ctx)->room;
}

static uint32_t foe_rtt(void *ctx)
{
    (void)ctx;
    return 2;
}

static void foe_join(struct foe *foe, struct mesh *mesh, uint8_t name)
{
    *foe = (struct foe){.mesh = mesh, .room = LIMIT_SESSION_BULK_BYTES};
    struct exchange_link link = {.send = foe_send, .room = foe_room, .rtt_ms = foe_rtt, .ctx = foe};
    struct id node = {{name}};
    assert_int_equal(exchange_peer_add(mesh->nodes[0].exchange, &node, &link, &foe->peer, NULL), 0);
}

static int foe_says(struct foe *foe, const struct message *message)
{
    OWNED(buf_release) struct buf whole = BUF(LIMIT_CONTROL_BYTES);
    uint8_t head[MESSAGE_HEAD_BYTES];
    buf_add(&whole, head, transfer_message_encode(message, head));
    if (message->n_items > 0)
        buf_add(&whole, message->items, message->n_items * transfer_message_item_bytes(message->type));
    int status =
        exchange_peer_input(foe->peer, mesh_ms(foe->mesh), (uint8_t)message->type, whole.data, whole.len, NULL);
    foe->failed |= status < 0;
    return status;
}

/* The job that was begun first, and no other; false: there is none. */
static bool run_job(struct mesh *mesh)
{
    struct mesh_job *job = STAILQ_FIRST(&mesh->nodes[0].jobs);
    if (!job)
        return false;
    STAILQ_REMOVE_HEAD(&mesh->nodes[0].jobs, link);
    job->done(job->arg);
    free(job);
    return true;
}

static void run_jobs(struct mesh *mesh, unsigned most)
{
    while (most-- > 0 && run_job(mesh)) {
    }
}

static void pass(struct mesh *mesh, unsigned ms)
{
    mesh->nodes[0].wake_ms = 0;
    for (unsigned i = 0; i < ms; i++)
        mesh_step(mesh);
}

static void leave(struct foe *foe)
{
    exchange_peer_remove(foe->peer, mesh_ms(foe->mesh));
    mesh_run_jobs(&foe->mesh->nodes[0]);
    assert_int_equal(foe->mesh->nodes[0].exchange->serve_bytes, 0);
}

struct served {
    struct mesh *mesh;
    struct id object;
    struct id root;
    struct store_recipe *recipe;
};

static struct served serve(size_t size)
{
    struct served served = {.mesh = mesh_new(1)};
    OWNED(owned_free) uint8_t *data = mesh_bytes(size, 7);
    served.object = mesh_put(&served.mesh->nodes[0], data, size);
    assert_int_equal(store_recipe_load(served.mesh->nodes[0].store, &served.object, &served.recipe, NULL), 1);
    served.root = served.recipe->root_id;
    return served;
}

static void end(struct served *served)
{
    store_recipe_free(served->recipe);
    mesh_free(served->mesh);
}

static struct message run_of(const struct served *served, uint32_t request, uint32_t first, uint32_t count)
{
    return (struct message){.type = MESSAGE_RUN,
                            .request = request,
                            .object = served->object,
                            .root = served->root,
                            .first = first,
                            .count = count};
}

/* What was read for a request that was cancelled is not another one's of the same number. */
static void test_hostile__number_used_again(void **state)
{
    (void)state;
    struct served served = serve(4 * MIB);
    struct mesh *mesh = served.mesh;
    struct foe foe;
    foe_join(&foe, mesh, 1);
    const struct store_chunk *chunks = served.recipe->chunks;
    uint32_t at = 0; /* two that are read at once */
    while (chunks[at].length + chunks[at + 1].length > 128 * KIB)
        at++;
    struct message many = run_of(&served, 5, at, 20);
    struct message one = run_of(&served, 5, at, 1);
    struct message cancel = {.type = MESSAGE_CANCEL, .request = 5};
    foe_says(&foe, &many);
    run_jobs(mesh, 1); /* the recipe has been read, and the chunks are */
    assert_true(foe.peer->serving.lanes[0].reading);
    foe_says(&foe, &cancel);
    foe_says(&foe, &one);
    run_jobs(mesh, 20);
    assert_int_equal(foe.peer->serving.n_runs, 0);
    assert_int_equal(foe.got[MESSAGE_CHUNK], 1);
    foe_says(&foe, &cancel);
    assert_true(STAILQ_EMPTY(&mesh->nodes[0].jobs));
    leave(&foe);
    end(&served);
}

/* The same for deltas. */
static void test_hostile__number_of_gaps_used_again(void **state)
{
    (void)state;
    struct served served = serve(4 * MIB);
    struct mesh *mesh = served.mesh;
    struct foe foe;
    foe_join(&foe, mesh, 1);
    OWNED(buf_release) struct buf items = BUF(4096);
    for (uint32_t i = 0; i < 8; i++)
        transfer_message_put_gap(&items, &(struct message_gap){.first = i, .count = 1, .offset = 0, .length = 4096});
    struct message many = {.type = MESSAGE_GAPS,
                           .request = 9,
                           .object = served.object,
                           .root = served.root,
                           .basis = served.object,
                           .items = items.data,
                           .n_items = 8};
    struct message one = many;
    struct message cancel = {.type = MESSAGE_CANCEL, .request = 9};
    one.n_items = 1;
    foe_says(&foe, &many);
    run_jobs(mesh, 2); /* where the basis is, then the recipes; deltas are made */
    assert_true(foe.peer->serving.ordering);
    foe_says(&foe, &cancel);
    foe_says(&foe, &one);
    run_jobs(mesh, 20);
    assert_int_equal(foe.peer->serving.n_orders, 0);
    assert_int_equal(foe.got[MESSAGE_DELTA], 1);
    leave(&foe);
    end(&served);
}

/* faults 26: leaves that nobody takes do not pile up. */
static void test_hostile__leaves_not_taken(void **state)
{
    (void)state;
    struct served served = serve(64 * MIB);
    struct mesh *mesh = served.mesh;
    struct foe foe;
    foe_join(&foe, mesh, 1);
    foe.room = 0;
    OWNED(buf_release) struct buf items = BUF(4096);
    for (uint32_t i = 0; i < MESSAGE_STRETCHES_MAX; i++)
        transfer_message_put_stretch(&items,
                                     &(struct message_stretch){.leaf = served.recipe->root.leaves[0].id, .count = 1});
    for (uint32_t i = 0; i < 2000; i++) {
        struct message leaves = {.type = MESSAGE_LEAVES,
                                 .request = i + 1,
                                 .basis = served.object,
                                 .root = served.root,
                                 .items = items.data,
                                 .n_items = MESSAGE_STRETCHES_MAX};
        foe_says(&foe, &leaves);
        if (i % 16 == 15)
            run_jobs(mesh, 16);
    }
    assert_true(foe.peer->serving.n_batches <= 384);
    assert_true(foe.got[MESSAGE_BUSY] > 1000);
    leave(&foe);
    end(&served);
}

/* Signatures that were asked for and never come: the order does not keep its recipes for ever. */
static void test_hostile__signatures_that_never_come(void **state)
{
    (void)state;
    struct served served = serve(1 * MIB);
    struct mesh *mesh = served.mesh;
    struct foe foe;
    foe_join(&foe, mesh, 1);
    OWNED(buf_release) struct buf items = BUF(4096);
    transfer_message_put_gap(&items, &(struct message_gap){.first = 0, .count = 1, .offset = 0, .length = 4096});
    foe_says(&foe, &(struct message){.type = MESSAGE_GAPS,
                                     .request = 1,
                                     .object = served.object,
                                     .root = served.root,
                                     .basis = {{77}},
                                     .items = items.data,
                                     .n_items = 1});
    pass(mesh, 1000);
    assert_int_equal(foe.got[MESSAGE_SIGN], 1);
    assert_int_equal(foe.peer->serving.n_orders, 1);
    pass(mesh, 20000);
    assert_int_equal(foe.peer->serving.n_orders, 0);
    assert_int_equal(foe.got[MESSAGE_BUSY] + foe.got[MESSAGE_GONE], 1);
    leave(&foe);
    end(&served);
}

/* The recipe comes, and nothing else. */
static bool loses_requests(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    (void)data;
    (void)len;
    return type != MESSAGE_RUN && type != MESSAGE_DEAL;
}

/* A recipe by which nothing comes is left for another one, with all that was begun for it. */
static void test_hostile__recipe_without_chunks(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    OWNED(owned_free) uint8_t *data = mesh_bytes(2 * MIB, 3);
    struct id object = mesh_put_as(&mesh->nodes[1], STORE_CHUNKING_ARCHIVE, data, 2 * MIB);
    mesh_put_as(&mesh->nodes[2], STORE_CHUNKING_PAGES, data, 2 * MIB);
    struct mesh_wish wish;
    mesh_fetch(mesh, 0, &object, &wish);
    struct mesh_link *silent = mesh_join(mesh, 0, 1);
    silent->meddle = loses_requests;
    mesh_ask(&wish, silent, false);
    for (unsigned i = 0; i < 50; i++)
        mesh_step(mesh);
    mesh_ask(&wish, mesh_join(mesh, 0, 2), false);
    mesh_wait(mesh, &wish, 20000);
    assert_int_equal(wish.status, 0);
    assert_true(mesh_has(&mesh->nodes[0], &object, data, 2 * MIB));
    assert_int_equal(mesh->nodes[0].exchange->fetch_bytes, 0);
    mesh_free(mesh);
}

/* What it has, told again and again in one message: each time costs, and none is news. */
static void test_hostile__ranges_again_and_again(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    OWNED(owned_free) uint8_t *data = mesh_bytes(2 * MIB, 4);
    struct id object = mesh_put(&mesh->nodes[1], data, 2 * MIB);
    struct mesh_wish wish;
    mesh_fetch(mesh, 0, &object, &wish);
    struct mesh_link *silent = mesh_join(mesh, 0, 1);
    silent->meddle = loses_requests;
    mesh_ask(&wish, silent, false);
    for (unsigned i = 0; i < 50; i++)
        mesh_step(mesh);
    const struct fetch *fetch = transfer_fetch_find(mesh->nodes[0].exchange, &object);
    assert_int_equal(fetch->phase, FETCH_CHUNKS);
    struct foe foe;
    foe_join(&foe, mesh, 1);
    exchange_fetch_add_peer(wish.fetch, foe.peer, false, mesh_ms(mesh));
    OWNED(buf_release) struct buf ranges = BUF(8 * MESSAGE_RANGES_MAX);
    wire_put_u32(&ranges, 0);
    wire_put_u32(&ranges, fetch->n_chunks);
    struct message more = {.type = MESSAGE_HAVE_MORE, .root = fetch->root, .items = ranges.data, .n_items = 1};
    assert_int_equal(foe_says(&foe, &more), 0);
    for (uint32_t i = 0; i < fetch->n_chunks; i++)
        assert_int_equal(fetch->held_by[i], 1);
    assert_int_equal(foe_says(&foe, &more), 0);
    while (ranges.len < ranges.max) {
        wire_put_u32(&ranges, 0);
        wire_put_u32(&ranges, fetch->n_chunks);
    }
    more.items = ranges.data;
    more.n_items = MESSAGE_RANGES_MAX;
    assert_int_equal(foe_says(&foe, &more), ERR_PROTOCOL);
    leave(&foe);
    mesh_free(mesh);
}

/* Who came, gave nothing and went takes no place of those who come later, however many there were; a liar keeps its
 * own. */
static void test_hostile__many_come_and_go(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    OWNED(owned_free) uint8_t *data = mesh_bytes(2 * MIB, 4);
    struct id object = mesh_put(&mesh->nodes[1], data, 2 * MIB);
    struct mesh_wish wish;
    mesh_fetch(mesh, 0, &object, &wish);
    struct fetch *fetch = transfer_fetch_find(mesh->nodes[0].exchange, &object);
    for (unsigned i = 0; i < 3 * LIMIT_SESSIONS; i++) {
        struct foe foe;
        foe_join(&foe, mesh, 0);
        foe.peer->node = (struct id){{9, (uint8_t)i, (uint8_t)(i >> 8)}};
        exchange_fetch_add_peer(wish.fetch, foe.peer, false, mesh_ms(mesh));
        struct source *source = transfer_source_of(fetch, foe.peer);
        assert_non_null(source);
        if (i == 0)
            transfer_source_lied(source, "said so");
        leave(&foe);
        assert_in_range(fetch->n_sources, 1, LIMIT_SESSIONS);
    }
    const struct source *liar = transfer_source_of_node(fetch, &(struct id){{9}});
    assert_true(liar && liar->liar);
    struct mesh_link *holder = mesh_join(mesh, 0, 1);
    mesh_ask(&wish, holder, false);
    assert_non_null(transfer_source_of(fetch, holder->peer));
    exchange_fetch_cancel(wish.fetch);
    mesh_free(mesh);
}

/* Who wants more objects at once than a peer may be asked about asks about the others when answers come: its session
 * would be ended for the whole lot (LIMIT_PEER_WANTS). */
static void test_hostile__questions_wait_for_answers(void **state)
{
    (void)state;
    enum { OBJECTS = 2 * LIMIT_PEER_WANTS };
    struct mesh *mesh = mesh_new(1);
    OWNED(owned_free) struct mesh_wish *wishes = calloc(OBJECTS, sizeof *wishes);
    struct foe foe;
    foe_join(&foe, mesh, 1);
    for (unsigned i = 0; i < OBJECTS; i++) {
        struct id object = {{5, (uint8_t)i, (uint8_t)(i >> 8)}};
        mesh_fetch(mesh, 0, &object, &wishes[i]);
        exchange_fetch_add_peer(wishes[i].fetch, foe.peer, false, mesh_ms(mesh));
    }
    pass(mesh, 100);
    assert_int_equal(foe.got[MESSAGE_WANT], LIMIT_PEER_WANTS / 2);
    for (unsigned i = 0; i < OBJECTS; i++) {
        struct id object = {{5, (uint8_t)i, (uint8_t)(i >> 8)}};
        foe_says(&foe, &(struct message){.type = MESSAGE_HAVE_NOT, .object = object});
        if (i % 256 == 255)
            pass(mesh, 20);
    }
    assert_false(foe.failed);
    assert_int_equal(foe.got[MESSAGE_WANT], OBJECTS);
    assert_int_equal(foe.peer->asking.n_wants, 0);
    for (unsigned i = 0; i < OBJECTS; i++)
        exchange_fetch_cancel(wishes[i].fetch);
    leave(&foe);
    mesh_free(mesh);
}

/* faults 14: one who asks about everything leaves room for what others ask about. */
static void test_hostile__asks_about_everything(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(1);
    struct exchange *exchange = mesh->nodes[0].exchange;
    struct foe foe, other;
    foe_join(&foe, mesh, 1);
    foe_join(&other, mesh, 2);
    struct message want = {.type = MESSAGE_WANT};
    for (uint32_t i = 0; i < 5000; i++) {
        wire_store_u32(want.object.b, i);
        foe_says(&foe, &want);
        mesh_run_jobs(&mesh->nodes[0]);
    }
    assert_true(exchange->interests.count <= LIMIT_INTERESTS / 2);
    size_t before = exchange->interests.count;
    want.object.b[20] = 1;
    foe_says(&other, &want);
    assert_int_equal(exchange->interests.count, before + 1);
    pass(mesh, 30000);
    assert_int_equal(exchange->interests.count, 0);
    foe_says(&foe, &want); /* what was forgotten does not count */
    assert_int_equal(exchange->interests.count, 1);
    leave(&foe);
    leave(&other);
    mesh_free(mesh);
}

/* Who begins lessons and teaches nothing does not keep others from teaching. */
static void test_hostile__lessons_without_end(void **state)
{
    (void)state;
    struct served served = serve(1 * MIB);
    struct mesh *mesh = served.mesh;
    struct foe foe, other;
    foe_join(&foe, mesh, 1);
    foe_join(&other, mesh, 2);
    struct message map = {.type = MESSAGE_MAP, .items = served.recipe->chunks[0].id.b, .n_items = 1};
    for (uint8_t i = 1; i < 10; i++) {
        map.object.b[0] = map.root.b[0] = i;
        foe_says(&foe, &map);
    }
    map.root.b[0] = 99;
    foe_says(&other, &map);
    mesh_run_jobs(&mesh->nodes[0]);
    assert_int_equal(foe.got[MESSAGE_RECIPE_NEED], LIMIT_PEER_PUSHES);
    assert_int_equal(other.got[MESSAGE_RECIPE_NEED], 1);
    leave(&foe);
    leave(&other);
    end(&served);
}

static unsigned count_jobs(const struct mesh *mesh)
{
    unsigned n = 0;
    const struct mesh_job *job;
    STAILQ_FOREACH (job, &mesh->nodes[0].jobs, link) {
        n++;
    }
    return n;
}

/* One of each kind of request, 10,000 times, with a session that takes nothing: all is bounded, and all ends. */
static void test_hostile__ten_thousand_times(void **state)
{
    (void)state;
    struct served served = serve(4 * MIB);
    struct mesh *mesh = served.mesh;
    OWNED(buf_release) struct buf gaps = BUF(4096);
    for (uint32_t i = 0; i < 8; i++)
        transfer_message_put_gap(&gaps, &(struct message_gap){.first = i, .count = 1, .length = 4096});
    OWNED(buf_release) struct buf stretch = BUF(64);
    transfer_message_put_stretch(&stretch,
                                 &(struct message_stretch){.leaf = served.recipe->root.leaves[0].id, .count = 9});
    OWNED(buf_release) struct buf ranges = BUF(64);
    wire_put_u32(&ranges, 0);
    wire_put_u32(&ranges, UINT32_MAX);
    struct message of[] = {
        {.type = MESSAGE_RUN, .count = 8},
        {.type = MESSAGE_RUN, .first = LIMIT_OBJECT_CHUNKS - 257, .count = 256},
        {.type = MESSAGE_DEAL, .size_bytes = UINT64_MAX, .items = ranges.data, .n_items = 1},
        {.type = MESSAGE_PIECES, .piece = STORE_PIECE_ROOT, .items = served.root.b, .n_items = 1},
        {.type = MESSAGE_GAPS, .basis = served.object, .items = gaps.data, .n_items = 8},
        {.type = MESSAGE_GAPS, .basis = {{1}}, .items = gaps.data, .n_items = 8},
        {.type = MESSAGE_LEAVES, .basis = served.object, .items = stretch.data, .n_items = 1},
        {.type = MESSAGE_MAP, .items = served.root.b, .n_items = 1},
    };
    for (size_t kind = 0; kind < sizeof of / sizeof of[0]; kind++) {
        struct foe foe;
        foe_join(&foe, mesh, 1);
        foe.room = 0;
        for (uint32_t i = 0; i < 10000 && !foe.failed; i++) {
            of[kind].request = i + 1;
            of[kind].class = (uint8_t)(i % EXCHANGE_CLASSES);
            of[kind].object = served.object;
            of[kind].root = served.root;
            foe_says(&foe, &of[kind]);
            if (i % 100 == 99)
                run_jobs(mesh, 10);
            assert_true(count_jobs(mesh) <= 100);
            assert_true(mesh->nodes[0].exchange->serve_bytes <= 12 * MIB);
        }
        foe.room = LIMIT_SESSION_BULK_BYTES;
        pass(mesh, 40000);
        const struct serving *serving = &foe.peer->serving;
        assert_int_equal(serving->n_runs + serving->n_batches + serving->n_orders + serving->n_maps, 0);
        assert_false(serving->in_slot || serving->in_queue);
        leave(&foe);
    }
    end(&served);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile__number_used_again),
        cmocka_unit_test(test_hostile__number_of_gaps_used_again),
        cmocka_unit_test(test_hostile__leaves_not_taken),
        cmocka_unit_test(test_hostile__signatures_that_never_come),
        cmocka_unit_test(test_hostile__recipe_without_chunks),
        cmocka_unit_test(test_hostile__ranges_again_and_again),
        cmocka_unit_test(test_hostile__many_come_and_go),
        cmocka_unit_test(test_hostile__questions_wait_for_answers),
        cmocka_unit_test(test_hostile__asks_about_everything),
        cmocka_unit_test(test_hostile__lessons_without_end),
        cmocka_unit_test(test_hostile__ten_thousand_times),
    };
    return crypto_init(NULL) < 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
