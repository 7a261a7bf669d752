/* A node that is asked for more than it can send: whose turn it is, what is refused, how much memory it takes. */
#include "mesh.h"

#include <fcntl.h>
#include <glob.h>

#include "node/base/wire.h"
#include "transfer/exchange.h"

enum { MIB = 1 << 20, ASKERS_MAX = 256 };

/* Somebody who asks, and reads at its own pace. What it is told is counted; nothing is checked but what goes out. */
struct asker {
    struct bench *bench;
    struct exchange_peer *peer;
    uint64_t rate;   /* bytes/s that it reads; 0: nothing ever */
    uint64_t credit; /* of that, in thousandths */
    uint64_t waiting;
    uint64_t got; /* bytes of chunks */
    uint64_t of_class[EXCHANGE_CLASSES];
    uint64_t first_ms;
    uint32_t next;
    unsigned asked[EXCHANGE_CLASSES], pieces_of[EXCHANGE_CLASSES];
    unsigned busy, gone, dealt, dealt_none, pieces;
    uint32_t busy_retry_ms;
    uint64_t busy_ms;
    struct message last_dealt;
    uint8_t *chunks;                       /* owned; how often each came whole */
    uint32_t open_index[EXCHANGE_CLASSES]; /* the piece that is coming */
    uint32_t open_left[EXCHANGE_CLASSES];
    uint8_t class_of[65536]; /* of a request */
};

/* One node and those who ask it, in virtual time. */
struct bench {
    struct mesh *mesh;
    struct mesh_node *node;
    struct id object;
    struct id root;
    uint32_t n_chunks;
    uint64_t uplink; /* bytes/s that all of them share; 0: no bound */
    unsigned n;
    struct asker *askers; /* owned */
    uint64_t most_read;   /* waiting in the askers' sessions, at most */
};

static void note_chunk(struct asker *asker, const struct message *message)
{
    uint8_t class = asker->class_of[message->request & 0xffff];
    if (message->type == MESSAGE_CHUNK) {
        assert_int_equal(asker->open_left[class], 0);
        asker->open_index[class] = message->index;
        asker->open_left[class] = message->stored_bytes;
    }
    assert_true(message->n_items <= asker->open_left[class]);
    asker->open_left[class] -= (uint32_t)message->n_items;
    asker->got += message->n_items;
    asker->of_class[class] += message->n_items;
    if (asker->open_left[class] > 0)
        return;
    asker->pieces++;
    asker->pieces_of[class]++;
    if (asker->chunks && asker->open_index[class] < asker->bench->n_chunks)
        asker->chunks[asker->open_index[class]]++;
}

static int asker_take(void *ctx, uint8_t type, const void *head, size_t head_bytes, const void *body, size_t body_bytes)
{
    struct asker *asker = ctx;
    uint8_t *all = malloc(head_bytes + body_bytes + 1);
    memcpy(all, head, head_bytes);
    if (body_bytes > 0)
        memcpy(all + head_bytes, body, body_bytes);
    struct message message;
    struct err err;
    if (transfer_message_decode(type, all, head_bytes + body_bytes, &message, &err) < 0)
        fail_msg("%s", err.text);
    asker->waiting += head_bytes + body_bytes + 19;
    assert_true(asker->waiting <= LIMIT_SESSION_OUT_BYTES);
    if (type == MESSAGE_CHUNK || type == MESSAGE_MORE)
        note_chunk(asker, &message);
    asker->gone += type == MESSAGE_GONE;
    if (type == MESSAGE_BUSY) {
        uint8_t class = asker->class_of[message.request & 0xffff];
        asker->asked[class] -= asker->asked[class] > 0;
        asker->open_left[class] = 0;
        asker->busy++;
        asker->busy_retry_ms = message.retry_ms;
        asker->busy_ms = mesh_ms(asker->bench->mesh);
    }
    if (type == MESSAGE_DEALT) {
        asker->dealt += message.count > 0;
        asker->dealt_none += message.count == 0;
        asker->last_dealt = message;
    }
    free(all);
    return 0;
}

static size_t asker_room(void *ctx)
{
    const struct asker *asker = ctx;
    return asker->waiting < LIMIT_SESSION_BULK_BYTES ? (size_t)(LIMIT_SESSION_BULK_BYTES - asker->waiting) : 0;
}

static uint32_t asker_rtt(void *ctx)
{
    (void)ctx;
    return 2;
}

static void add_askers(struct bench *bench, unsigned n, uint64_t rate)
{
    for (unsigned i = 0; i < n; i++) {
        assert_true(bench->n < ASKERS_MAX);
        struct asker *asker = &bench->askers[bench->n];
        *asker = (struct asker){.bench = bench, .rate = rate};
        struct id id = {.b = {0xcc, (uint8_t)bench->n++}};
        struct exchange_link link = {.send = asker_take, .room = asker_room, .rtt_ms = asker_rtt, .ctx = asker};
        assert_int_equal(exchange_peer_add(bench->node->exchange, &id, &link, &asker->peer, NULL), 0);
    }
}

static struct bench *bench_new(size_t object_bytes)
{
    struct bench *bench = calloc(1, sizeof *bench);
    bench->mesh = mesh_new(1);
    bench->node = &bench->mesh->nodes[0];
    bench->askers = calloc(ASKERS_MAX, sizeof *bench->askers);
    OWNED(owned_free) uint8_t *data = mesh_bytes(object_bytes, 77);
    bench->object = mesh_put(bench->node, data, object_bytes);
    struct store_recipe *recipe = NULL;
    assert_int_equal(store_recipe_load(bench->node->store, &bench->object, &recipe, NULL), 1);
    bench->root = recipe->root_id;
    bench->n_chunks = recipe->root.chunk_count;
    store_recipe_free(recipe);
    return bench;
}

static void bench_free(struct bench *bench)
{
    mesh_free(bench->mesh);
    for (unsigned i = 0; i < bench->n; i++)
        free(bench->askers[i].chunks);
    free(bench->askers);
    free(bench);
}

static void limit(struct bench *bench, const struct exchange_limits *limits)
{
    exchange_set_limits(bench->node->exchange, limits, mesh_ms(bench->mesh));
    bench->node->wake_ms = 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* A millisecond: each reads what it can, of a shared uplink equal parts. */
static void step(struct bench *bench)
{
    uint64_t shared = bench->uplink / 1000, busy = 0, waiting = 0;
    bench->mesh->now_us += 1000;
    for (unsigned i = 0; i < bench->n; i++) {
        busy += bench->askers[i].waiting > 0;
        waiting += bench->askers[i].waiting;
    }
    bench->most_read = waiting > bench->most_read ? waiting : bench->most_read;
    for (unsigned i = 0; i < bench->n; i++) {
        struct asker *asker = &bench->askers[i];
        if (!asker->peer || asker->waiting == 0)
            continue;
        asker->credit += asker->rate;
        uint64_t bytes = least(asker->waiting, asker->credit / 1000);
        if (bench->uplink > 0)
            bytes = least(bytes, shared / busy + 1);
        asker->waiting -= bytes;
        asker->credit = asker->waiting > 0 ? least(asker->credit - bytes * 1000, asker->rate) : 0;
        if (bytes > 0)
            exchange_peer_writable(asker->peer, mesh_ms(bench->mesh));
    }
    mesh_run_jobs(bench->node);
    if (mesh_ms(bench->mesh) >= bench->node->wake_ms)
        exchange_tick(bench->node->exchange, mesh_ms(bench->mesh), &bench->node->wake_ms);
}

static void run_ms(struct bench *bench, unsigned ms)
{
    for (unsigned i = 0; i < ms; i++)
        step(bench);
}

static void tell(struct asker *asker, const struct message *message)
{
    struct bench *bench = asker->bench;
    uint8_t data[MESSAGE_HEAD_BYTES + 8 * MESSAGE_DEAL_RANGES_MAX];
    size_t len = transfer_message_encode(message, data);
    size_t list = message->n_items * transfer_message_item_bytes(message->type);
    if (list > 0)
        memcpy(data + len, message->items, list);
    struct err err = {0};
    if (exchange_peer_input(asker->peer, mesh_ms(bench->mesh), (uint8_t)message->type, data, len + list, &err) < 0)
        fail_msg("%s", err.text);
    bench->node->wake_ms = 0;
}

static uint32_t ask_run(struct asker *asker, uint8_t class, uint32_t first, uint32_t count)
{
    asker->class_of[++asker->next & 0xffff] = class;
    tell(asker, &(struct message){.type = MESSAGE_RUN,
                                  .request = asker->next,
                                  .class = class,
                                  .object = asker->bench->object,
                                  .root = asker->bench->root,
                                  .first = first,
                                  .count = count});
    return asker->next;
}

static uint32_t ask_deal(struct asker *asker, uint32_t first, uint32_t count, uint64_t size)
{
    uint8_t range[8];
    wire_store_u32(range, first);
    wire_store_u32(range + 4, count);
    tell(asker, &(struct message){.type = MESSAGE_DEAL,
                                  .request = ++asker->next,
                                  .class = EXCHANGE_LAYER,
                                  .object = asker->bench->object,
                                  .root = asker->bench->root,
                                  .size_bytes = size,
                                  .items = range,
                                  .n_items = 1});
    return asker->next;
}

static void cancel(struct asker *asker, uint32_t request)
{
    tell(asker, &(struct message){.type = MESSAGE_CANCEL, .request = request});
}

static void leave(struct asker *asker)
{
    exchange_peer_remove(asker->peer, mesh_ms(asker->bench->mesh));
    asker->peer = NULL;
}

/* So that n requests of eight chunks are waiting. */
static void keep_asking(struct asker *asker, uint8_t class, unsigned n)
{
    for (unsigned i = 0; i < n && asker->asked[class] < n + asker->pieces_of[class] / 8; i++) {
        ask_run(asker, class, asker->next * 8 % (asker->bench->n_chunks - 8), 8);
        asker->asked[class]++;
    }
}

static void assert_share(uint64_t got, uint64_t all, double share, double slack)
{
    double is = (double)got / (double)all;
    if (is < share * (1 - slack) || is > share * (1 + slack))
        fail_msg("a share of %.4f, and not of %.4f", is, share);
}

/* ---- order ---- */

/* 64 : 16 : 4 : 1 where a limit holds bytes back, whether one peer asks in all classes or each in another. */
static void test_serve__classes_by_weight(void **state)
{
    (void)state;
    for (unsigned alone = 0; alone < 2; alone++) {
        struct bench *bench = bench_new(8 * MIB);
        limit(bench, &(struct exchange_limits){.up.total = 4 * MIB});
        add_askers(bench, alone ? 1 : EXCHANGE_CLASSES, 1ull << 30);
        uint64_t of_class[EXCHANGE_CLASSES] = {0}, all = 0;
        for (unsigned t = 0; t < 50; t++) {
            for (uint8_t class = 0; class < EXCHANGE_CLASSES; class ++)
                keep_asking(&bench->askers[alone ? 0 : class], class, 12);
            run_ms(bench, 100);
        }
        for (unsigned i = 0; i < bench->n; i++) {
            for (unsigned class = 0; class < EXCHANGE_CLASSES; class ++) {
                of_class[class] += bench->askers[i].of_class[class];
                all += bench->askers[i].of_class[class];
            }
        }
        static const double SHARES[] = {64 / 85.0, 16 / 85.0, 4 / 85.0, 1 / 85.0};
        for (unsigned class = 0; class < EXCHANGE_CLASSES; class ++)
            assert_share(of_class[class], all, SHARES[class], 0.25);
        assert_share(all, 20 * MIB, 1, 0.02);
        bench_free(bench);
    }
}

/* Who asks for more at once gets no more than the others. */
static void test_serve__peers_fair_by_bytes(void **state)
{
    (void)state;
    struct bench *bench = bench_new(8 * MIB);
    limit(bench, &(struct exchange_limits){.up.total = 4 * MIB});
    add_askers(bench, 5, 1ull << 30);
    uint64_t all = 0;
    for (unsigned t = 0; t < 50; t++) {
        for (unsigned i = 0; i < 5; i++)
            keep_asking(&bench->askers[i], EXCHANGE_LAYER, i == 0 ? 60 : 3);
        run_ms(bench, 100);
    }
    for (unsigned i = 0; i < 5; i++)
        all += bench->askers[i].got;
    for (unsigned i = 0; i < 5; i++)
        assert_share(bench->askers[i].got, all, 0.2, 0.1);
    bench_free(bench);
}

/* Limits hold within 2 % over seconds, and count at once when they change. */
static void test_serve__limits_are_kept(void **state)
{
    (void)state;
    struct bench *bench = bench_new(8 * MIB);
    add_askers(bench, 3, 1ull << 30);
    static const uint64_t RATES[] = {8 * MIB, 125000, 2 * MIB};
    for (unsigned k = 0; k < 3; k++) {
        limit(bench, &(struct exchange_limits){.up.total = RATES[k]});
        uint64_t before = 0, after = 0;
        for (unsigned i = 0; i < 3; i++)
            before += bench->askers[i].got;
        for (unsigned t = 0; t < 50; t++) {
            for (unsigned i = 0; i < 3; i++)
                keep_asking(&bench->askers[i], EXCHANGE_LAYER, 4);
            run_ms(bench, 100);
        }
        for (unsigned i = 0; i < 3; i++)
            after += bench->askers[i].got;
        assert_share(after - before, 5 * RATES[k], 1, 0.02);
    }
    assert_true(bench->most_read < 256 * 1024); /* nothing stands in the way of what is urgent */
    bench_free(bench);
}

/* A thin uplink finishes something for somebody, and comes to everybody. */
static void test_serve__two_hundred_askers(void **state)
{
    (void)state;
    struct bench *bench = bench_new(4 * MIB);
    bench->uplink = 4 * MIB;
    add_askers(bench, 200, 4 * MIB);
    for (unsigned i = 0; i < 200; i++)
        ask_run(&bench->askers[i], EXCHANGE_LAYER, 0, 8);
    run_ms(bench, 1000);
    unsigned done = 0, begun = 0;
    for (unsigned i = 0; i < 200; i++) {
        done += bench->askers[i].pieces == 8;
        begun += bench->askers[i].got > 0;
    }
    assert_true(done >= 2);
    assert_true(begun <= 3 * done + 16);
    for (unsigned t = 0; t < 600 && done < 200; t++) {
        run_ms(bench, 100);
        done = 0;
        for (unsigned i = 0; i < 200; i++) {
            struct asker *asker = &bench->askers[i];
            done += asker->pieces >= 8;
            if (asker->busy > 0 && mesh_ms(bench->mesh) >= asker->busy_ms + asker->busy_retry_ms) {
                asker->busy = 0;
                ask_run(asker, EXCHANGE_LAYER, 0, 8);
            }
        }
    }
    assert_int_equal(done, 200);
    uint64_t most = 0;
    for (unsigned i = 0; i < 200; i++)
        most = bench->askers[i].got > most ? bench->askers[i].got : most;
    assert_true(most < 2 * MIB); /* nobody had two turns before all had one */
    bench_free(bench);
}

/* What a stopped container waits for overtakes a crowd on a link that is full. */
static void test_serve__freeze_overtakes_a_crowd(void **state)
{
    (void)state;
    struct bench *bench = bench_new(8 * MIB);
    bench->uplink = 10 * MIB;
    add_askers(bench, 40, 10 * MIB);
    for (unsigned t = 0; t < 20; t++) {
        for (unsigned i = 0; i < 39; i++)
            keep_asking(&bench->askers[i], EXCHANGE_PREFETCH, 8);
        run_ms(bench, 100);
    }
    uint64_t before[40];
    for (unsigned i = 0; i < 40; i++)
        before[i] = bench->askers[i].got;
    for (unsigned t = 0; t < 30; t++) {
        for (unsigned i = 0; i < 39; i++)
            keep_asking(&bench->askers[i], EXCHANGE_PREFETCH, 8);
        keep_asking(&bench->askers[39], EXCHANGE_FREEZE, 8);
        run_ms(bench, 100);
    }
    uint64_t others = 0;
    for (unsigned i = 0; i < 39; i++)
        others += bench->askers[i].got - before[i];
    assert_true(bench->askers[39].got * 4 > others); /* a fair share would be a fortieth */
    assert_true(others > 0);
    bench_free(bench);
}

/* A link of 1 Mbit/s: eight are sent to, and not more because each takes its time. */
static void test_serve__thin_uplink_keeps_its_slots(void **state)
{
    (void)state;
    struct bench *bench = bench_new(4 * MIB);
    bench->uplink = 125000;
    add_askers(bench, 50, MIB);
    for (unsigned t = 0; t < 200; t++) {
        for (unsigned i = 0; i < 50; i++)
            keep_asking(&bench->askers[i], EXCHANGE_LAYER, 2);
        run_ms(bench, 100);
        assert_true(bench->node->exchange->serve.slots <= 10);
    }
    unsigned begun = 0;
    for (unsigned i = 0; i < 50; i++)
        begun += bench->askers[i].waiting > 4096;
    assert_true(begun <= 12);
    bench_free(bench);
}

/* When it is the askers who are slow, more of them are sent to at a time. */
static void test_serve__slots_fill_the_uplink(void **state)
{
    (void)state;
    struct bench *bench = bench_new(8 * MIB);
    add_askers(bench, 60, MIB / 2);
    uint64_t early = 0, late = 0;
    for (unsigned t = 0; t < 160; t++) {
        for (unsigned i = 0; i < 60; i++)
            keep_asking(&bench->askers[i], EXCHANGE_LAYER, 4);
        run_ms(bench, 100);
        uint64_t all = 0;
        for (unsigned i = 0; i < 60; i++)
            all += bench->askers[i].got;
        early = t == 9 ? all : early;
        late = t == 109 ? all : late;
        if (t == 159)
            late = all - late;
    }
    assert_true(early < 8 * MIB);     /* eight of them in the first second, */
    assert_true(late > 5 * 18 * MIB); /* and thirty-six of sixty in the end */
    bench_free(bench);
}

/* ---- who takes without giving room ---- */

/* faults 27: pipelined requests are refused beyond a number, and cost next to nothing. */
static void test_serve__ten_thousand_requests(void **state)
{
    (void)state;
    struct bench *bench = bench_new(2 * MIB);
    add_askers(bench, 2, 0);
    for (unsigned i = 0; i < 10000; i++)
        ask_run(&bench->askers[0], EXCHANGE_FREEZE, 0, 8);
    struct exchange_cost cost;
    exchange_peer_cost(bench->askers[0].peer, &cost);
    assert_true(cost.waiting_runs <= LIMIT_PEER_RUNS);
    assert_true(bench->askers[0].busy >= 10000 - LIMIT_PEER_RUNS);
    assert_true(bench->askers[0].busy_retry_ms > 0);
    bench->askers[1].rate = 10 * MIB;
    ask_run(&bench->askers[1], EXCHANGE_LAYER, 0, 8);
    run_ms(bench, 500);
    assert_int_equal(bench->askers[1].pieces, 8);
    bench_free(bench);
}

/* faults 25, 26: those who read nothing, or ten bytes a second, hold neither memory nor turns. */
static void test_serve__slow_readers_hold_nothing(void **state)
{
    (void)state;
    struct bench *bench = bench_new(8 * MIB);
    add_askers(bench, 150, 0);
    for (unsigned i = 0; i < 75; i++)
        bench->askers[i].rate = 10;
    add_askers(bench, 1, 4 * MIB);
    struct asker *honest = &bench->askers[150];
    uint64_t last = 0;
    for (unsigned t = 0; t < 60; t++) {
        for (unsigned i = 0; i < 150; i++) {
            struct asker *slow = &bench->askers[i];
            if (slow->waiting < 3 * MIB) /* a session would have ended by then */
                keep_asking(slow, EXCHANGE_LAYER, 8);
        }
        keep_asking(honest, EXCHANGE_LAYER, 4);
        run_ms(bench, 500);
        if (t == 29)
            last = honest->got;
    }
    assert_true(last > 8 * MIB);
    assert_true(honest->got - last > 30 * MIB); /* in a quarter of a minute */
    bench_free(bench);
}

/* A turn that ends when nothing was sent ends when the job that read for it does. */
static void test_serve__turns_of_who_cancelled_go_on_at_once(void **state)
{
    (void)state;
    struct bench *bench = bench_new(4 * MIB);
    add_askers(bench, 9, 10 * MIB);
    uint32_t requests[8];
    for (unsigned i = 0; i < 8; i++)
        requests[i] = ask_run(&bench->askers[i], EXCHANGE_LAYER, 0, 8);
    ask_run(&bench->askers[8], EXCHANGE_LAYER, 8, 8);
    for (unsigned i = 0; i < 8; i++)
        cancel(&bench->askers[i], requests[i]);
    assert_int_equal(bench->askers[8].got, 0);
    run_ms(bench, 50);
    assert_true(bench->askers[8].got > 0);
    bench_free(bench);
}

static void test_serve__load_is_told(void **state)
{
    (void)state;
    struct bench *bench = bench_new(2 * MIB);
    bench->uplink = MIB;
    add_askers(bench, 40, MIB);
    assert_int_equal(transfer_serve_load(bench->node->exchange), 0);
    ask_run(&bench->askers[0], EXCHANGE_LAYER, 0, 8);
    run_ms(bench, 5);
    uint8_t one = transfer_serve_load(bench->node->exchange);
    assert_true(one > 0 && one < 128);
    for (unsigned i = 0; i < 40; i++)
        ask_run(&bench->askers[i], EXCHANGE_LAYER, 0, 8);
    run_ms(bench, 5);
    assert_int_equal(transfer_serve_load(bench->node->exchange), 255);
    bench_free(bench);
}

/* ---- deals ---- */

static void count_chunks(struct asker *asker)
{
    asker->chunks = calloc(asker->bench->n_chunks, 1);
}

static void test_serve__each_chunk_is_dealt_once(void **state)
{
    (void)state;
    struct bench *bench = bench_new(8 * MIB);
    add_askers(bench, 4, 20 * MIB);
    for (unsigned i = 0; i < 4; i++)
        count_chunks(&bench->askers[i]);
    for (unsigned t = 0; t < 40; t++) {
        for (unsigned i = 0; i < 4; i++)
            ask_deal(&bench->askers[i], 0, bench->n_chunks, MIB);
        run_ms(bench, 20); /* in all less than a chunk has to spread */
    }
    for (uint32_t c = 0; c < bench->n_chunks; c++) {
        unsigned times = 0;
        for (unsigned i = 0; i < 4; i++)
            times += bench->askers[i].chunks[c];
        assert_int_equal(times, 1);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_true(bench->askers[i].pieces > 0);
        assert_true(bench->askers[i].dealt_none > 0);
    }
    bench_free(bench);
}

/* What was asked for by name counts as well; what was cancelled, or went with its peer, is to be sent still. */
static void test_serve__unsent_deals_come_back(void **state)
{
    (void)state;
    struct bench *bench = bench_new(4 * MIB);
    add_askers(bench, 3, 0);
    uint32_t all = bench->n_chunks;
    uint32_t request = ask_deal(&bench->askers[0], 0, all, MIB);
    run_ms(bench, 20);
    assert_int_equal(bench->askers[0].dealt, 1);
    ask_deal(&bench->askers[1], 0, all, MIB);
    run_ms(bench, 20);
    assert_int_equal(bench->askers[1].dealt, 1);
    cancel(&bench->askers[0], request);
    leave(&bench->askers[1]);

    struct asker *third = &bench->askers[2];
    third->rate = 100 * MIB;
    count_chunks(third);
    ask_run(third, EXCHANGE_LAYER, 0, 4);
    run_ms(bench, 100);
    for (unsigned t = 0; t < 60 && third->dealt_none == 0; t++) {
        ask_deal(third, 0, all, MIB);
        run_ms(bench, 100);
    }
    unsigned lost = 0;
    for (uint32_t c = 0; c < all; c++) {
        assert_true(third->chunks[c] <= 1);
        lost += third->chunks[c] == 0;
    }
    assert_true(lost <= 2 * 8); /* those that were in the sessions of the first two already */
    bench_free(bench);
}

/* faults 37: ranges that are none, of an object that is not here or a recipe that it has not, get nothing. */
static void test_serve__nonsense_is_refused(void **state)
{
    (void)state;
    struct bench *bench = bench_new(2 * MIB);
    add_askers(bench, 1, 10 * MIB);
    struct asker *asker = &bench->askers[0];
    ask_deal(asker, bench->n_chunks, 1, MIB);
    ask_deal(asker, 0, UINT32_MAX, MIB);
    run_ms(bench, 50);
    assert_int_equal(asker->dealt_none, 2);
    ask_run(asker, EXCHANGE_LAYER, bench->n_chunks, 1);
    run_ms(bench, 50);
    assert_int_equal(asker->gone, 1);
    bench->root.b[0] ^= 1;
    ask_run(asker, EXCHANGE_LAYER, 0, 1);
    ask_deal(asker, 0, 1, MIB);
    run_ms(bench, 50);
    assert_int_equal(asker->gone, 3);
    bench->object.b[0] ^= 1;
    ask_run(asker, EXCHANGE_LAYER, 0, 1);
    run_ms(bench, 50);
    assert_int_equal(asker->gone, 4);
    assert_int_equal(asker->got, 0);
    bench_free(bench);
}

/* ---- compressing again ---- */

/* Text that level 1 leaves much of. */
static void put_text(struct bench *bench, size_t len)
{
    static const char *const WORDS[] = {"chunk ",    "recipe ",   "basis ",  "lookup ", "bucket ",
                                        "provider ", "layer ",    "digest ", "lease ",  "tombstone ",
                                        "snapshot ", "downtime ", "(",       ");\n"};
    uint64_t seed = 3;
    struct rng rng = rng_seeded(&seed);
    OWNED(owned_free) char *text = malloc(len + 16);
    for (size_t at = 0; at < len;) {
        const char *word = WORDS[rng_below(&rng, sizeof WORDS / sizeof WORDS[0])];
        at += (size_t)sprintf(text + at, rng_below(&rng, 9) ? "%s" : "%s%u ", word, (unsigned)rng_below(&rng, 1000));
    }
    bench->object = mesh_put(bench->node, (uint8_t *)text, len);
    struct store_recipe *recipe = NULL;
    assert_int_equal(store_recipe_load(bench->node->store, &bench->object, &recipe, NULL), 1);
    bench->root = recipe->root_id;
    bench->n_chunks = recipe->root.chunk_count;
    store_recipe_free(recipe);
}

static uint64_t bytes_at_rate(uint64_t rate)
{
    struct bench *bench = bench_new(MIB);
    put_text(bench, 6 * MIB);
    add_askers(bench, 1, rate);
    struct asker *asker = &bench->askers[0];
    uint32_t next = 0;
    for (unsigned t = 0; t < 3000 && asker->pieces < bench->n_chunks; t++) {
        for (; next < bench->n_chunks && next < asker->pieces + 40; next++)
            ask_run(asker, EXCHANGE_LAYER, next, 1);
        run_ms(bench, 10);
    }
    assert_int_equal(asker->pieces, bench->n_chunks);
    uint64_t got = asker->got;
    bench_free(bench);
    return got;
}

/* The slower the peer, the fewer bytes it is sent for the same chunks. */
static void test_serve__slow_peers_get_better_frames(void **state)
{
    (void)state;
    uint64_t fast = bytes_at_rate(100 * MIB), slow = bytes_at_rate(MIB / 4);
    print_message("%llu bytes to a fast peer, %llu to a slow one\n", (unsigned long long)fast,
                  (unsigned long long)slow);
    assert_true(slow * 100 < fast * 95);
}

/* ---- rot ---- */

static void spoil_packs(struct bench *bench)
{
    char pattern[256];
    snprintf(pattern, sizeof pattern, "%s/packs/*", bench->node->dir);
    glob_t found;
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        OWNED(owned_fd) int fd = open(found.gl_pathv[i], O_RDWR);
        assert_true(fd >= 0);
        uint8_t byte;
        off_t at = lseek(fd, 0, SEEK_END) / 2;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    globfree(&found);
}

/* faults 33, 35: what has rotted on our disk is not sent, but said to be gone; all else is sent. */
static void test_serve__rot_is_not_sent(void **state)
{
    (void)state;
    struct bench *bench = bench_new(4 * MIB);
    spoil_packs(bench);
    add_askers(bench, 1, 100 * MIB);
    struct asker *asker = &bench->askers[0];
    count_chunks(asker);
    for (uint32_t c = 0; c < bench->n_chunks; c++) {
        ask_run(asker, EXCHANGE_LAYER, c, 1);
        run_ms(bench, 20);
    }
    assert_int_equal(asker->gone, 1);
    unsigned sent = 0;
    for (uint32_t c = 0; c < bench->n_chunks; c++)
        sent += asker->chunks[c];
    assert_int_equal(sent, bench->n_chunks - 1);
    assert_true(store_rot_waiting(bench->node->store) > 0);
    bench_free(bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_serve__classes_by_weight),
        cmocka_unit_test(test_serve__peers_fair_by_bytes),
        cmocka_unit_test(test_serve__limits_are_kept),
        cmocka_unit_test(test_serve__two_hundred_askers),
        cmocka_unit_test(test_serve__freeze_overtakes_a_crowd),
        cmocka_unit_test(test_serve__thin_uplink_keeps_its_slots),
        cmocka_unit_test(test_serve__slots_fill_the_uplink),
        cmocka_unit_test(test_serve__ten_thousand_requests),
        cmocka_unit_test(test_serve__slow_readers_hold_nothing),
        cmocka_unit_test(test_serve__turns_of_who_cancelled_go_on_at_once),
        cmocka_unit_test(test_serve__load_is_told),
        cmocka_unit_test(test_serve__each_chunk_is_dealt_once),
        cmocka_unit_test(test_serve__unsent_deals_come_back),
        cmocka_unit_test(test_serve__nonsense_is_refused),
        cmocka_unit_test(test_serve__slow_peers_get_better_frames),
        cmocka_unit_test(test_serve__rot_is_not_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
