#include "tests/unit/transfer/mesh.h"

#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/base/scope.h"
#include "transfer/fetch.h"

#define MIB (1u << 20)
#ifndef N_TROUBLES
#define N_TROUBLES 3
#endif

static void test_fetch__from_one(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    OWNED(owned_free) uint8_t *data = mesh_bytes(8 * MIB, 1);
    struct id object = mesh_put(&mesh->nodes[0], data, 8 * MIB);
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    struct mesh_wish wish;
    mesh_fetch(mesh, 1, &object, &wish);
    mesh_ask(&wish, link, false);
    uint64_t took = mesh_wait(mesh, &wish, 5000);
    assert_int_equal(wish.status, 0);
    assert_true(mesh_has(&mesh->nodes[1], &object, data, 8 * MIB));
    assert_int_equal(wish.stats.fetched_bytes, 8 * MIB);
    assert_int_equal(wish.stats.duplicate_bytes, 0);
    assert_int_equal(mesh_share(&wish, &mesh->nodes[0])->bytes, 8 * MIB);
    assert_int_equal(mesh->nodes[1].provided, 1);
    assert_true(wish.n_progress > 0);
    /* 80 ms of bytes, a few round trips of 2 ms, ticks of the mesh */
    assert_in_range(took, 80, 130);
    mesh_free(mesh);
}

/* Like mesh_step, but nothing that this node has given to its thread pool is done, and it has no tick. */
static void step_without(struct mesh *mesh, unsigned node)
{
    struct mesh_node *other = &mesh->nodes[1 - node];
    mesh->now_us += 1000;
    for (unsigned i = 0; i < mesh->n_links; i++)
        mesh_deliver(&mesh->links[i]);
    mesh_run_jobs(other);
    if (mesh_ms(mesh) >= other->wake_ms)
        exchange_tick(other->exchange, mesh_ms(mesh), &other->wake_ms);
}

/* Where the disk is what is slow, the link does not wait for a tick as well. */
static void test_fetch__asks_on_when_the_disk_has_caught_up(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    OWNED(owned_free) uint8_t *data = mesh_bytes(40 * MIB, 1);
    struct id object = mesh_put(&mesh->nodes[0], data, 40 * MIB);
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    struct mesh_wish wish;
    mesh_fetch(mesh, 1, &object, &wish);
    mesh_ask(&wish, link, false);
    while (wish.progress.done_bytes < 4 * MIB)
        mesh_step(mesh);
    const struct exchange *exchange = mesh->nodes[1].exchange;
    while (!TAILQ_EMPTY(&link->peer->asking.requests))
        step_without(mesh, 1);
    assert_true(exchange->arrived_bytes >= LIMIT_ARRIVED_BYTES);
    assert_true(TAILQ_FIRST(&exchange->fetches)->n_free > 0);
    mesh_run_jobs(&mesh->nodes[1]);
    assert_int_equal(exchange->arrived_bytes, 0);
    assert_false(TAILQ_EMPTY(&link->peer->asking.requests));
    mesh_wait(mesh, &wish, 5000);
    assert_int_equal(wish.status, 0);
    mesh_free(mesh);
}

static void test_fetch__small_and_empty(void **state)
{
    (void)state;
    static const size_t SIZES[] = {0, 1, 70000};
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        struct mesh *mesh = mesh_new(2);
        OWNED(owned_free) uint8_t *data = mesh_bytes(SIZES[i], 2);
        struct id object = mesh_put(&mesh->nodes[0], data, SIZES[i]);
        struct mesh_link *link = mesh_join(mesh, 1, 0);
        struct mesh_wish wish;
        mesh_fetch(mesh, 1, &object, &wish);
        mesh_ask(&wish, link, false);
        uint64_t took = mesh_wait(mesh, &wish, 1000);
        assert_int_equal(wish.status, 0);
        assert_true(mesh_has(&mesh->nodes[1], &object, data, SIZES[i]));
        /* four round trips at the most: who, root, leaf, bytes */
        assert_in_range(took, 0, 20);
        mesh_free(mesh);
    }
}

static void test_fetch__already_here(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(1);
    OWNED(owned_free) uint8_t *data = mesh_bytes(MIB, 2);
    struct id object = mesh_put(&mesh->nodes[0], data, MIB);
    struct mesh_wish wish;
    mesh_fetch(mesh, 0, &object, &wish);
    assert_false(wish.done);
    mesh_wait(mesh, &wish, 100);
    assert_int_equal(wish.status, 0);
    assert_int_equal(wish.stats.local_bytes, MIB);
    assert_int_equal(wish.stats.fetched_bytes, 0);
    mesh_free(mesh);
}

static void test_fetch__three_sources_share_the_work(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    mesh->rate = 20u << 20;
    OWNED(owned_free) uint8_t *data = mesh_bytes(12 * MIB, 3);
    struct id object = {0};
    struct mesh_link *links[3];
    for (unsigned i = 0; i < 3; i++) {
        object = mesh_put(&mesh->nodes[i], data, 12 * MIB);
        links[i] = mesh_join(mesh, 3, i);
    }
    struct mesh_wish wish;
    mesh_fetch(mesh, 3, &object, &wish);
    for (unsigned i = 0; i < 3; i++)
        mesh_ask(&wish, links[i], false);
    uint64_t took = mesh_wait(mesh, &wish, 5000);
    assert_int_equal(wish.status, 0);
    assert_true(mesh_has(&mesh->nodes[3], &object, data, 12 * MIB));
    for (unsigned i = 0; i < 3; i++)
        assert_in_range(mesh_share(&wish, &mesh->nodes[i])->bytes, 2 * MIB, 6 * MIB);
    /* one would need 600 ms */
    assert_in_range(took, 200, 320);
    mesh_free(mesh);
}

/* A fast and a slow holder: the slow one helps, and the end does not wait for it. */
static void test_fetch__slow_holder_does_not_hold_up(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    mesh->rate = 20u << 20;
    OWNED(owned_free) uint8_t *data = mesh_bytes(16 * MIB, 4);
    struct id object = mesh_put(&mesh->nodes[0], data, 16 * MIB);
    mesh_put(&mesh->nodes[1], data, 16 * MIB);
    struct mesh_link *fast = mesh_join(mesh, 2, 0);
    struct mesh_link *slow = mesh_join(mesh, 2, 1);
    mesh->nodes[1].slow = 20;
    struct mesh_wish wish;
    mesh_fetch(mesh, 2, &object, &wish);
    mesh_ask(&wish, fast, false);
    mesh_ask(&wish, slow, false);
    uint64_t took = mesh_wait(mesh, &wish, 20000);
    assert_int_equal(wish.status, 0);
    assert_true(mesh_share(&wish, &mesh->nodes[0])->bytes > 14 * MIB);
    assert_in_range(took, 700, 1000);
    mesh_free(mesh);
}

/* A holder of an older version gives what has not changed: it is taught the recipe. */
static void test_fetch__older_version_contributes(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    mesh->rate = 10u << 20;
    OWNED(owned_free) uint8_t *data = mesh_bytes(8 * MIB, 5);
    OWNED(owned_free) uint8_t *older = mesh_bytes(8 * MIB, 5);
    memset(older + 2 * MIB, 0x5a, 300000);
    memset(older + 6 * MIB, 0xa5, 100000);
    struct id object = mesh_put(&mesh->nodes[0], data, 8 * MIB);
    mesh_put(&mesh->nodes[1], older, 8 * MIB);
    struct mesh_link *origin = mesh_join(mesh, 2, 0);
    struct mesh_link *neighbour = mesh_join(mesh, 2, 1);
    struct mesh_wish wish;
    mesh_fetch(mesh, 2, &object, &wish);
    mesh_ask(&wish, origin, true);
    mesh_ask(&wish, neighbour, false);
    mesh_wait(mesh, &wish, 5000);
    assert_int_equal(wish.status, 0);
    assert_true(mesh_has(&mesh->nodes[2], &object, data, 8 * MIB));
    assert_in_range(mesh_share(&wish, &mesh->nodes[1])->bytes, 3 * MIB, 8 * MIB);
    assert_in_range(wish.stats.duplicate_bytes, 0, LIMIT_CHUNK_BYTES); /* of the last run, which two were asked for */
    mesh_free(mesh);
}

/* What the receiver itself has of an older version does not move. */
static void test_fetch__own_chunks_do_not_move(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    OWNED(owned_free) uint8_t *data = mesh_bytes(8 * MIB, 6);
    OWNED(owned_free) uint8_t *older = mesh_bytes(8 * MIB, 6);
    memset(older + 4 * MIB, 0, 200000);
    struct id object = mesh_put(&mesh->nodes[0], data, 8 * MIB);
    mesh_put(&mesh->nodes[1], older, 8 * MIB);
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    struct mesh_wish wish;
    mesh_fetch(mesh, 1, &object, &wish);
    mesh_ask(&wish, link, false);
    mesh_wait(mesh, &wish, 5000);
    assert_int_equal(wish.status, 0);
    assert_true(wish.stats.local_bytes > 7 * MIB);
    assert_int_equal(wish.stats.local_bytes + wish.stats.fetched_bytes, 8 * MIB);
    assert_true(link->back->chunk_bytes < MIB);
    assert_true(mesh_has(&mesh->nodes[1], &object, data, 8 * MIB));
    mesh_free(mesh);
}

/* Bytes that repeat are asked for once. */
static void test_fetch__twins_come_once(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    OWNED(owned_free) uint8_t *data = calloc(1, 8 * MIB);
    OWNED(owned_free) uint8_t *noise = mesh_bytes(MIB, 7);
    memcpy(data + 3 * MIB, noise, MIB);
    struct id object = mesh_put(&mesh->nodes[0], data, 8 * MIB);
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    struct mesh_wish wish;
    mesh_fetch(mesh, 1, &object, &wish);
    mesh_ask(&wish, link, false);
    mesh_wait(mesh, &wish, 5000);
    assert_int_equal(wish.status, 0);
    assert_int_equal(wish.stats.fetched_bytes, 8 * MIB);
    assert_true(link->back->chunk_bytes < 2 * MIB);
    assert_true(mesh_has(&mesh->nodes[1], &object, data, 8 * MIB));
    mesh_free(mesh);
}

/* ---- liars ---- */

static bool flip_bits(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    if (type == MESSAGE_CHUNK && link->chunk_bytes > link->meddle_after && len > 100)
        data[60] ^= 4;
    return true;
}

static bool wrong_index(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    (void)len;
    if (type == MESSAGE_CHUNK)
        data[7] ^= 1; /* the lowest byte of the index */
    return true;
}

static bool long_piece(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)link;
    (void)len;
    if (type == MESSAGE_CHUNK) {
        data[11] ^= 1; /* of the stored length */
        data[15] ^= 1; /* and of the raw one */
    }
    return true;
}

/* faults 33, 34: a bit flipped, the right chunk under a wrong index, a wrong length: the sender is named and the rest
 * comes from others */
static void test_fetch__liar_is_named_and_dropped(void **state)
{
    (void)state;
    static bool (*const LIES[])(struct mesh_link *, uint8_t, uint8_t *, size_t) = {flip_bits, wrong_index, long_piece};
    for (size_t i = 0; i < sizeof LIES / sizeof LIES[0]; i++) {
        struct mesh *mesh = mesh_new(3);
        OWNED(owned_free) uint8_t *data = mesh_bytes(6 * MIB, 8);
        struct id object = mesh_put(&mesh->nodes[0], data, 6 * MIB);
        mesh_put(&mesh->nodes[1], data, 6 * MIB);
        struct mesh_link *honest = mesh_join(mesh, 2, 0);
        struct mesh_link *liar = mesh_join(mesh, 2, 1);
        liar->back->meddle = LIES[i];
        liar->back->meddle_after = 100000;
        struct mesh_wish wish;
        mesh_fetch(mesh, 2, &object, &wish);
        mesh_ask(&wish, honest, false);
        mesh_ask(&wish, liar, false);
        mesh_wait(mesh, &wish, 10000);
        assert_int_equal(wish.status, 0);
        assert_true(mesh_has(&mesh->nodes[2], &object, data, 6 * MIB));
        assert_int_equal(mesh->nodes[2].liars, 1);
        assert_true(id_equal(&mesh->nodes[2].last_liar, &mesh->nodes[1].id));
        assert_true(mesh_share(&wish, &mesh->nodes[1])->liar);
        assert_false(mesh_share(&wish, &mesh->nodes[0])->liar);
        mesh_free(mesh);
    }
}

/* faults 36: all lie: nothing of it is kept, and the error says who they were */
static void test_fetch__everybody_lies(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    OWNED(owned_free) uint8_t *data = mesh_bytes(2 * MIB, 9);
    struct id object = {0};
    struct mesh_wish wish;
    struct mesh_link *links[2];
    for (unsigned i = 0; i < 2; i++) {
        object = mesh_put(&mesh->nodes[i], data, 2 * MIB);
        links[i] = mesh_join(mesh, 2, i);
        links[i]->back->meddle = flip_bits;
    }
    mesh_fetch(mesh, 2, &object, &wish);
    mesh_ask(&wish, links[0], false);
    mesh_ask(&wish, links[1], false);
    mesh_wait(mesh, &wish, 30000);
    assert_int_equal(wish.status, ERR_CORRUPT);
    assert_true(wish.n_want_peers > 0);
    char name[ID_SHORT_SIZE];
    assert_non_null(strstr(wish.err.text, id_short(&mesh->nodes[0].id, name)));
    assert_non_null(strstr(wish.err.text, id_short(&mesh->nodes[1].id, name)));
    assert_int_equal(store_object_stat(mesh->nodes[2].store, &object, NULL, NULL), 0);
    mesh_free(mesh);
}

static bool other_object(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    /* a HAVE that names the recipe of another object of its own */
    (void)len;
    if (type == MESSAGE_HAVE)
        memcpy(data + 32, &link->mesh->nodes[9].id, 32);
    return true;
}

/* The recipe itself is a lie: its teller is blamed, and the search begins anew. */
static void test_fetch__wrong_recipe_blames_its_teller(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    OWNED(owned_free) uint8_t *data = mesh_bytes(2 * MIB, 10);
    OWNED(owned_free) uint8_t *wrong = mesh_bytes(MIB, 11);
    struct id object = mesh_put(&mesh->nodes[0], data, 2 * MIB);
    mesh_put(&mesh->nodes[1], data, 2 * MIB);
    struct id decoy = mesh_put(&mesh->nodes[1], wrong, MIB);
    struct store_object_info info;
    assert_int_equal(store_object_stat(mesh->nodes[1].store, &decoy, &info, NULL), 1);
    mesh->nodes[9].id = info.root;
    struct mesh_link *liar = mesh_join(mesh, 2, 1);
    liar->back->meddle = other_object;
    struct mesh_wish wish;
    mesh_fetch(mesh, 2, &object, &wish);
    mesh_ask(&wish, liar, false);
    for (unsigned i = 0; i < 100; i++)
        mesh_step(mesh);
    assert_int_equal(mesh->nodes[2].liars, 1);
    assert_false(wish.done);
    assert_true(wish.n_want_peers > 0);
    mesh_ask(&wish, mesh_join(mesh, 2, 0), false);
    mesh_wait(mesh, &wish, 5000);
    assert_int_equal(wish.status, 0);
    assert_true(mesh_has(&mesh->nodes[2], &object, data, 2 * MIB));
    mesh_free(mesh);
}

/* faults 37: chunks that nobody asked for are dropped, and after some the session ends */
static void test_fetch__unsolicited_chunks(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    uint8_t chunk[117] = {0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 100};
    int status = 0;
    unsigned n = 0;
    for (; n < 100 && status == 0; n++)
        status = exchange_peer_input(link->peer, mesh_ms(mesh), MESSAGE_CHUNK, chunk, sizeof chunk, NULL);
    assert_int_equal(status, ERR_PROTOCOL);
    assert_int_equal(n, LIMIT_PEER_STRIKES);
    struct store_usage usage;
    assert_int_equal(store_usage(mesh->nodes[1].store, &usage, NULL), 0);
    assert_int_equal(usage.objects, 0);
    mesh_free(mesh);
}

/* ---- stalls and losses ---- */

static bool stop_after(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len)
{
    (void)data;
    (void)len;
    return link->chunk_bytes < link->meddle_after || (type != MESSAGE_CHUNK && type != MESSAGE_MORE);
}

/* faults 35: one that serves 99 % and then stops costs a hedge, not a hang */
static void test_fetch__stall_near_the_end(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    mesh->rate = 20u << 20;
    OWNED(owned_free) uint8_t *data = mesh_bytes(8 * MIB, 12);
    struct id object = mesh_put(&mesh->nodes[0], data, 8 * MIB);
    mesh_put(&mesh->nodes[1], data, 8 * MIB);
    struct mesh_link *good = mesh_join(mesh, 2, 0);
    struct mesh_link *bad = mesh_join(mesh, 2, 1);
    bad->back->meddle = stop_after;
    bad->back->meddle_after = 3 * MIB;
    struct mesh_wish wish;
    mesh_fetch(mesh, 2, &object, &wish);
    mesh_ask(&wish, good, false);
    mesh_ask(&wish, bad, false);
    uint64_t took = mesh_wait(mesh, &wish, 20000);
    assert_int_equal(wish.status, 0);
    assert_true(mesh_has(&mesh->nodes[2], &object, data, 8 * MIB));
    assert_in_range(took, 200, 1200);
    mesh_free(mesh);
}

/* The only source stops, and goes on when another one is found. */
static void test_fetch__only_source_stalls(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    OWNED(owned_free) uint8_t *data = mesh_bytes(4 * MIB, 13);
    struct id object = mesh_put(&mesh->nodes[0], data, 4 * MIB);
    mesh_put(&mesh->nodes[1], data, 4 * MIB);
    struct mesh_link *bad = mesh_join(mesh, 2, 1);
    bad->back->meddle = stop_after;
    bad->back->meddle_after = 2 * MIB;
    struct mesh_wish wish;
    mesh_fetch(mesh, 2, &object, &wish);
    mesh_ask(&wish, bad, false);
    for (unsigned i = 0; i < 7000; i++)
        mesh_step(mesh);
    assert_false(wish.done);
    assert_true(wish.n_want_peers > 0);
    struct exchange_cost cost;
    exchange_peer_cost(bad->peer, &cost);
    assert_int_equal(cost.failures, 1);
    mesh_ask(&wish, mesh_join(mesh, 2, 0), false);
    uint64_t took = mesh_wait(mesh, &wish, 5000);
    assert_int_equal(wish.status, 0);
    assert_in_range(took, 10, 200);
    assert_true(mesh_share(&wish, &mesh->nodes[1])->bytes > MIB);
    mesh_free(mesh);
}

/* faults 41: a peer that is cut off at any moment: others go on with what is missing */
static void test_fetch__peer_removed_mid_run(void **state)
{
    (void)state;
    for (unsigned when = 1; when < 100; when += 9) {
        struct mesh *mesh = mesh_new(3);
        mesh->rate = 40u << 20;
        OWNED(owned_free) uint8_t *data = mesh_bytes(3 * MIB, 14);
        struct id object = mesh_put(&mesh->nodes[0], data, 3 * MIB);
        mesh_put(&mesh->nodes[1], data, 3 * MIB);
        struct mesh_link *good = mesh_join(mesh, 2, 0);
        struct mesh_link *bad = mesh_join(mesh, 2, 1);
        struct mesh_wish wish;
        mesh_fetch(mesh, 2, &object, &wish);
        mesh_ask(&wish, bad, false);
        mesh_ask(&wish, good, false);
        for (unsigned i = 0; i < when && !wish.done; i++)
            mesh_step(mesh);
        mesh_cut(bad);
        mesh_wait(mesh, &wish, 5000);
        assert_int_equal(wish.status, 0);
        assert_true(mesh_has(&mesh->nodes[2], &object, data, 3 * MIB));
        assert_int_equal(wish.stats.fetched_bytes, 3 * MIB);
        mesh_free(mesh);
    }
}

/* Nobody has it: peers are wished for, and then the error says what was tried. */
static void test_fetch__nobody_has_it(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    struct id object = {{1, 2, 3}};
    struct mesh_wish wish;
    mesh_fetch(mesh, 1, &object, &wish);
    mesh_ask(&wish, mesh_join(mesh, 1, 0), false);
    uint64_t took = mesh_wait(mesh, &wish, 30000);
    assert_int_equal(wish.status, ERR_UNAVAILABLE);
    assert_in_range(took, EXCHANGE_GIVE_UP_MS, EXCHANGE_GIVE_UP_MS + 500);
    assert_true(wish.n_want_peers >= 5);
    char name[ID_SHORT_SIZE];
    assert_non_null(strstr(wish.err.text, id_short(&mesh->nodes[0].id, name)));
    assert_non_null(strstr(wish.err.text, "010203"));
    mesh_free(mesh);
}

/* ---- crowds, sharing, resuming ---- */

enum { LEECHERS = 4 };

/* One seed and LEECHERS who want all of it, everybody joined with everybody. Returns how much the seed sent. */
static uint64_t run_crowd(struct mesh *mesh, size_t size)
{
    OWNED(owned_free) uint8_t *data = mesh_bytes(size, 15);
    struct id object = mesh_put(&mesh->nodes[0], data, size);
    struct mesh_link *to[1 + LEECHERS][1 + LEECHERS] = {{NULL}};
    for (unsigned a = 0; a <= LEECHERS; a++) {
        for (unsigned b = a + 1; b <= LEECHERS; b++) {
            to[a][b] = mesh_join(mesh, a, b);
            to[b][a] = to[a][b]->back;
        }
    }
    struct mesh_wish wishes[1 + LEECHERS];
    for (unsigned a = 1; a <= LEECHERS; a++) {
        mesh_fetch(mesh, a, &object, &wishes[a]);
        mesh_ask(&wishes[a], to[a][0], true);
        for (unsigned b = 1; b <= LEECHERS; b++) {
            if (a != b)
                mesh_ask(&wishes[a], to[a][b], false);
        }
    }
    uint64_t seed_bytes = 0;
    for (unsigned a = 1; a <= LEECHERS; a++) {
        mesh_wait(mesh, &wishes[a], 20000);
        assert_int_equal(wishes[a].status, 0);
        assert_true(mesh_has(&mesh->nodes[a], &object, data, size));
        seed_bytes += to[0][a]->chunk_bytes;
    }
    return seed_bytes;
}

/* A receiver is a source as soon as it has something: the seed does not send everything to everybody. */
static void test_fetch__crowd_becomes_a_swarm(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(1 + LEECHERS);
    mesh->rate = 20u << 20;
    uint64_t seed_bytes = run_crowd(mesh, 16 * MIB);
    print_message("the seed sent %.2f copies to %u\n", (double)seed_bytes / (16 * MIB), LEECHERS);
    assert_true(seed_bytes < 3ull * 16 * MIB / 2);
    mesh_free(mesh);
}

/* The same with jobs beside the loop; with the thread sanitizer this shows who touches whose memory. */
static void test_fetch__jobs_on_threads(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(1 + LEECHERS);
    mesh->threads = true;
    run_crowd(mesh, 6 * MIB);
    mesh_free(mesh);
}

/* faults 43: many wishes for one object are one transfer */
static void test_fetch__wishes_share_a_transfer(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct mesh *mesh = mesh_new(2);
    OWNED(owned_free) uint8_t *data = mesh_bytes(4 * MIB, 16);
    struct id object = mesh_put(&mesh->nodes[0], data, 4 * MIB);
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    OWNED(owned_free) struct mesh_wish *wishes = calloc(N, sizeof *wishes);
    for (unsigned i = 0; i < N; i++)
        mesh_fetch(mesh, 1, &object, &wishes[i]);
    mesh_ask(&wishes[0], link, false);
    exchange_fetch_cancel(wishes[0].fetch);
    for (unsigned i = 1; i < N; i++) {
        mesh_wait(mesh, &wishes[i], 5000);
        assert_int_equal(wishes[i].status, 0);
    }
    assert_false(wishes[0].done);
    assert_true(link->back->chunk_bytes < 4 * MIB + MIB / 4);
    mesh_free(mesh);
}

/* A fetch of `object` by node 1 from node 0, until `enough` bytes are here. Returns the link to node 0. */
static struct mesh_link *fetch_some(struct mesh *mesh, const struct id *object, struct mesh_wish *wish, size_t enough)
{
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    mesh_fetch(mesh, 1, object, wish);
    mesh_ask(wish, link, false);
    while (wish->progress.done_bytes < enough)
        mesh_step(mesh);
    return link;
}

/* The node is stopped in the middle, and started again: nothing that was verified moves twice. */
static void test_fetch__resumes_after_a_stop(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    OWNED(owned_free) uint8_t *data = mesh_bytes(24 * MIB, 17);
    struct id object = mesh_put(&mesh->nodes[0], data, 24 * MIB);
    struct mesh_wish wish;
    struct mesh_link *link = fetch_some(mesh, &object, &wish, 18 * MIB);
    mesh_close_node(&mesh->nodes[1]);
    assert_false(wish.done);
    mesh_cut(link);
    mesh_open_node(&mesh->nodes[1]);
    fetch_some(mesh, &object, &wish, 0);
    mesh_wait(mesh, &wish, 5000);
    assert_int_equal(wish.status, 0);
    assert_true(wish.stats.local_bytes >= 18 * MIB);
    assert_int_equal(wish.stats.local_bytes + wish.stats.fetched_bytes, 24 * MIB);
    assert_true(mesh_has(&mesh->nodes[1], &object, data, 24 * MIB));
    mesh_free(mesh);
}

/* In a child: fetch until 36 of 48 MiB are here, tell where, and die. */
static void die_in_the_middle(const uint8_t *data, int dirs_fd)
{
    struct mesh *mesh = mesh_new(2);
    struct id object = mesh_put(&mesh->nodes[0], data, 48 * MIB);
    struct mesh_wish wish;
    fetch_some(mesh, &object, &wish, 36 * MIB);
    for (unsigned i = 0; i < 2; i++) {
        if (write(dirs_fd, mesh->nodes[i].dir, sizeof mesh->nodes[i].dir) < 0)
            _exit(1);
    }
    kill(getpid(), SIGKILL);
}

/* faults 42: the receiver is killed in the middle; what the store had synced by then does not move again */
static void test_fetch__resumes_after_a_kill(void **state)
{
    (void)state;
    OWNED(owned_free) uint8_t *data = mesh_bytes(48 * MIB, 18);
    int pipes[2];
    char dirs[2][sizeof((struct mesh_node *)0)->dir];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0)
        die_in_the_middle(data, pipes[1]);
    close(pipes[1]);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(read(pipes[0], dirs[i], sizeof dirs[i]), sizeof dirs[i]);
    close(pipes[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);

    struct mesh *mesh = mesh_new(2);
    for (unsigned i = 0; i < 2; i++) {
        mesh_close_node(&mesh->nodes[i]);
        file_remove_tree(mesh->nodes[i].dir, NULL);
        memcpy(mesh->nodes[i].dir, dirs[i], sizeof dirs[i]);
        mesh_open_node(&mesh->nodes[i]);
    }
    struct id object;
    struct mesh_wish wish;
    crypto_sha256(data, 48 * MIB, &object);
    fetch_some(mesh, &object, &wish, 0);
    mesh_wait(mesh, &wish, 5000);
    assert_int_equal(wish.status, 0);
    assert_in_range(wish.stats.local_bytes, 34 * MIB, 40 * MIB); /* also what no sync had reached */
    assert_int_equal(wish.stats.local_bytes + wish.stats.fetched_bytes, 48 * MIB);
    assert_true(mesh_has(&mesh->nodes[1], &object, data, 48 * MIB));
    mesh_free(mesh);
}

/* What matters more goes first: the other waits for what it leaves. */
static void test_fetch__class(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    mesh->rate = 20u << 20;
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    struct mesh_wish wishes[2];
    OWNED(owned_free) uint8_t *data = mesh_bytes(16 * MIB, 19);
    for (unsigned i = 0; i < 2; i++) {
        struct id object = mesh_put(&mesh->nodes[0], data + i * 8 * MIB, 8 * MIB);
        wishes[i] = (struct mesh_wish){.done = false};
        struct exchange_wish wish = {.kind = STORE_BLOB,
                                     .class = i == 0 ? EXCHANGE_PREFETCH : EXCHANGE_VOLUME,
                                     .on_progress = mesh_on_progress,
                                     .on_done = mesh_on_done,
                                     .ctx = &wishes[i]};
        assert_int_equal(exchange_fetch(mesh->nodes[1].exchange, mesh_ms(mesh), &object, &wish, &wishes[i].fetch, NULL),
                         0);
        mesh_ask(&wishes[i], link, false);
    }
    mesh_wait(mesh, &wishes[1], 5000);
    assert_true(wishes[0].progress.done_bytes < 3 * MIB);
    mesh_wait(mesh, &wishes[0], 5000);
    assert_int_equal(wishes[0].status, 0);
    mesh_free(mesh);
}

/* Whatever the size, what is asked for and not yet stored stays below its bound (checked by the answers' link). */
static void test_fetch__outstanding_is_bounded(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(5);
    mesh->delay_us = 200000;
    OWNED(owned_free) uint8_t *data = mesh_bytes(24 * MIB, 18);
    struct id object = {0};
    struct mesh_link *links[4];
    for (unsigned i = 0; i < 4; i++) {
        object = mesh_put(&mesh->nodes[i], data, 24 * MIB);
        links[i] = mesh_join(mesh, 4, i);
    }
    struct mesh_wish wish;
    mesh_fetch(mesh, 4, &object, &wish);
    for (unsigned i = 0; i < 4; i++)
        mesh_ask(&wish, links[i], false);
    uint64_t start = mesh_ms(mesh);
    while (!wish.done && mesh_ms(mesh) < start + 30000) {
        mesh_step(mesh);
        uint64_t under_way = 0;
        for (unsigned i = 0; i < 4; i++)
            under_way += links[i]->back->queued;
        assert_true(under_way <= LIMIT_FETCH_BYTES + 4 * LIMIT_RUN_BYTES);
    }
    assert_true(wish.done && wish.status == 0);
    mesh_free(mesh);
}

/* Holders come, go, stop, lie and crawl at random; one of them is honest and stays. Whatever happens, the object
 * arrives, and nothing is left that is counted as under way. */
static void run_trouble(uint64_t seed)
{
    enum { HOLDERS = 5 };
    struct mesh *mesh = mesh_new(HOLDERS + 1);
    struct rng rng = rng_seeded(&seed);
    mesh->rate = 8u << 20;
    OWNED(owned_free) uint8_t *data = mesh_bytes(6 * MIB, seed);
    struct mesh_link *links[HOLDERS];
    struct id object = {0};
    struct mesh_wish wish;
    for (unsigned i = 0; i < HOLDERS; i++)
        object = mesh_put(&mesh->nodes[i], data, 6 * MIB);
    mesh_fetch(mesh, HOLDERS, &object, &wish);
    for (unsigned i = 0; i < HOLDERS; i++) {
        links[i] = mesh_join(mesh, HOLDERS, i);
        mesh_ask(&wish, links[i], false);
    }
    mesh->nodes[0].slow = 8;
    uint64_t start = mesh_ms(mesh);
    while (!wish.done && mesh_ms(mesh) < start + 60000) {
        unsigned i = 1 + (unsigned)rng_below(&rng, HOLDERS - 1);
        uint64_t dice = rng_below(&rng, 400);
        if (dice == 0)
            mesh->nodes[i].slow = 1 + rng_below(&rng, 30);
        if (dice == 1)
            links[i]->back->meddle = rng_below(&rng, 4) ? NULL : flip_bits;
        if (dice == 2)
            links[i]->back->meddle = stop_after;
        if (dice == 3 && links[i]->up)
            mesh_cut(links[i]);
        if (dice == 4 && !links[i]->up && mesh->n_links + 2 < MESH_LINKS) {
            links[i] = mesh_join(mesh, HOLDERS, i);
            mesh_ask(&wish, links[i], rng_below(&rng, 2));
        }
        mesh_step(mesh);
    }
    assert_true(wish.done);
    assert_int_equal(wish.status, 0);
    assert_true(mesh_has(&mesh->nodes[HOLDERS], &object, data, 6 * MIB));
    assert_int_equal(wish.stats.fetched_bytes, 6 * MIB);
    assert_int_equal(mesh->nodes[HOLDERS].exchange->fetch_bytes, 0);
    for (unsigned i = 0; i < HOLDERS; i++) {
        if (links[i]->up)
            assert_int_equal(links[i]->peer->asking.asked_bytes, 0);
    }
    mesh_free(mesh);
}

static void test_fetch__random_trouble(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= N_TROUBLES; seed++) {
        print_message("seed %llu\n", (unsigned long long)seed);
        run_trouble(seed);
    }
}

/* faults 27: a peer that asks for more than its share at once is told to wait */
static void test_fetch__too_many_requests(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    OWNED(owned_free) uint8_t *data = mesh_bytes(4 * MIB, 19);
    struct id object = mesh_put(&mesh->nodes[0], data, 4 * MIB);
    struct store_object_info info;
    assert_int_equal(store_object_stat(mesh->nodes[0].store, &object, &info, NULL), 1);
    struct mesh_link *link = mesh_join(mesh, 0, 1);
    uint8_t run[77] = {0};
    memcpy(run + 5, object.b, 32);
    memcpy(run + 37, info.root.b, 32);
    run[76] = 4;
    for (unsigned i = 0; i < 10000; i++) {
        run[2] = (uint8_t)(i >> 8);
        run[3] = (uint8_t)i;
        assert_int_equal(exchange_peer_input(link->peer, mesh_ms(mesh), MESSAGE_RUN, run, sizeof run, NULL), 0);
    }
    struct exchange_cost cost;
    exchange_peer_cost(link->peer, &cost);
    assert_in_range(cost.waiting_runs, 1, LIMIT_PEER_RUNS);
    /* and questions beyond all measure end the session */
    int status = 0;
    for (unsigned i = 0; i < 2 * LIMIT_PEER_WANTS && status == 0; i++)
        status = exchange_peer_input(link->peer, mesh_ms(mesh), MESSAGE_WANT, (const uint8_t *)&i, 4, NULL);
    assert_int_equal(status, ERR_PROTOCOL);
    status = 0;
    for (unsigned i = 0; i < 2 * LIMIT_PEER_WANTS && status == 0; i++)
        status = exchange_peer_input(link->peer, mesh_ms(mesh), MESSAGE_WANT, object.b, 32, NULL);
    assert_int_equal(status, ERR_PROTOCOL);
    mesh_free(mesh);
}

/* Spoil what a node's packs hold at 3/4 of their length. */
static void spoil_packs(const struct mesh_node *node)
{
    OWNED(owned_free) char *pattern = file_path("%s/packs/*.pack", node->dir);
    glob_t packs;
    assert_int_equal(glob(pattern, 0, NULL, &packs), 0);
    for (size_t i = 0; i < packs.gl_pathc; i++) {
        struct stat status;
        int fd = open(packs.gl_pathv[i], O_WRONLY | O_CLOEXEC);
        assert_true(fd >= 0 && fstat(fd, &status) == 0);
        assert_int_equal(pwrite(fd, "rotten", 6, status.st_size / 4 * 3), 6);
        close(fd);
    }
    globfree(&packs);
}

/* faults 56: a chunk that was here at the beginning and has rotted by the end is fetched after all */
static void test_fetch__rots_meanwhile(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    mesh->rate = 4u << 20;
    OWNED(owned_free) uint8_t *data = mesh_bytes(8 * MIB, 51);
    OWNED(owned_free) uint8_t *older = mesh_bytes(8 * MIB, 51);
    memset(older, 0x5a, 2 * MIB);
    mesh_put(&mesh->nodes[1], older, 8 * MIB);
    struct id object = mesh_put(&mesh->nodes[0], data, 8 * MIB);
    struct mesh_link *link = mesh_join(mesh, 1, 0);
    struct mesh_wish wish;
    mesh_fetch(mesh, 1, &object, &wish);
    mesh_ask(&wish, link, false);
    while (link->back->chunk_bytes == 0)
        mesh_step(mesh);
    spoil_packs(&mesh->nodes[1]);
    mesh_wait(mesh, &wish, 20000);
    assert_int_equal(wish.status, 0);
    assert_true(mesh_has(&mesh->nodes[1], &object, data, 8 * MIB));
    mesh_free(mesh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fetch__from_one),
        cmocka_unit_test(test_fetch__asks_on_when_the_disk_has_caught_up),
        cmocka_unit_test(test_fetch__small_and_empty),
        cmocka_unit_test(test_fetch__already_here),
        cmocka_unit_test(test_fetch__three_sources_share_the_work),
        cmocka_unit_test(test_fetch__slow_holder_does_not_hold_up),
        cmocka_unit_test(test_fetch__older_version_contributes),
        cmocka_unit_test(test_fetch__own_chunks_do_not_move),
        cmocka_unit_test(test_fetch__twins_come_once),
        cmocka_unit_test(test_fetch__liar_is_named_and_dropped),
        cmocka_unit_test(test_fetch__everybody_lies),
        cmocka_unit_test(test_fetch__wrong_recipe_blames_its_teller),
        cmocka_unit_test(test_fetch__unsolicited_chunks),
        cmocka_unit_test(test_fetch__stall_near_the_end),
        cmocka_unit_test(test_fetch__only_source_stalls),
        cmocka_unit_test(test_fetch__peer_removed_mid_run),
        cmocka_unit_test(test_fetch__nobody_has_it),
        cmocka_unit_test(test_fetch__crowd_becomes_a_swarm),
        cmocka_unit_test(test_fetch__jobs_on_threads),
        cmocka_unit_test(test_fetch__wishes_share_a_transfer),
        cmocka_unit_test(test_fetch__resumes_after_a_stop),
        cmocka_unit_test(test_fetch__resumes_after_a_kill),
        cmocka_unit_test(test_fetch__class),
        cmocka_unit_test(test_fetch__outstanding_is_bounded),
        cmocka_unit_test(test_fetch__random_trouble),
        cmocka_unit_test(test_fetch__too_many_requests),
        cmocka_unit_test(test_fetch__rots_meanwhile),
    };
    return crypto_init(NULL) < 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
