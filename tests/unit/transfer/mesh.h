/*
 * Nodes with real stores and exchanges in one process, joined by links with a rate and a delay, in virtual time.
 * Jobs run on the spot, or on a thread each, and are done a moment later in the order in which they were submitted. One
 * seed gives one run.
 */
#pragma once

#include "tests/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/base/limits.h"
#include "transfer/message.h"
#include "transfer/transfer.h"

#define MESH_NODES 10
#define MESH_LINKS 96

struct mesh_job {
    STAILQ_ENTRY(mesh_job)
    link;
    job_work_cb work;
    job_done_cb done;
    void *arg;
    bool threaded;
    pthread_t thread;
};

struct mesh_message {
    STAILQ_ENTRY(mesh_message)
    link;
    uint64_t due_us;
    uint8_t type;
    size_t len;
    uint8_t data[];
};

struct mesh;

/* One direction. */
struct mesh_link {
    struct mesh *mesh;
    unsigned from;
    unsigned to;
    struct exchange_peer *peer; /* what the sender's exchange calls this link */
    struct mesh_link *back;
    STAILQ_HEAD(, mesh_message) queue;
    uint64_t bytes; /* carried in all */
    uint64_t chunk_bytes;
    size_t queued;
    unsigned runs; /* RUN messages */
    bool up;
    /* Look at or change a message on its way; false: it is lost. */
    bool (*meddle)(struct mesh_link *link, uint8_t type, uint8_t *data, size_t len);
    uint64_t meddle_after; /* for its use */
};

struct mesh_node {
    struct mesh *mesh;
    char dir[128];
    struct store *store;
    struct exchange *exchange;
    STAILQ_HEAD(, mesh_job) jobs;
    uint64_t wake_ms;
    uint64_t rng_state;
    struct id id;
    unsigned liars; /* that it named */
    struct id last_liar;
    unsigned provided;
    uint64_t free_us; /* when what it sends has left: its links share one wire */
    uint64_t slow;    /* which takes this many times as long as others' */
};

struct mesh {
    uint64_t now_us;
    uint64_t rate; /* bytes/s that a node sends */
    uint64_t delay_us;
    bool threads;
    unsigned n_nodes;
    unsigned n_links;
    struct mesh_node nodes[MESH_NODES];
    struct mesh_link links[MESH_LINKS];
};

static inline uint64_t mesh_ms(const struct mesh *mesh)
{
    return mesh->now_us / 1000;
}

static inline uint64_t mesh_clock(void *ctx)
{
    return 1000000 + mesh_ms(ctx);
}

static inline void *mesh_work(void *arg)
{
    struct mesh_job *job = arg;
    job->work(job->arg);
    return NULL;
}

static inline void mesh_submit(void *ctx, job_work_cb work, job_done_cb done, void *arg)
{
    struct mesh_node *node = ctx;
    struct mesh_job *job = calloc(1, sizeof *job);
    *job = (struct mesh_job){.work = work, .done = done, .arg = arg};
    job->threaded = node->mesh->threads && pthread_create(&job->thread, NULL, mesh_work, job) == 0;
    if (!job->threaded)
        work(arg);
    STAILQ_INSERT_TAIL(&node->jobs, job, link);
}

static inline void mesh_liar(void *ctx, const struct id *node, const struct id *object, const char *what)
{
    struct mesh_node *self = ctx;
    (void)object;
    assert_non_null(what);
    self->liars++;
    self->last_liar = *node;
}

static inline void mesh_provide(void *ctx, const struct id *object)
{
    (void)object;
    ((struct mesh_node *)ctx)->provided++;
}

static inline void mesh_open_node(struct mesh_node *node)
{
    struct mesh *mesh = node->mesh;
    struct store_options options = {.dir = node->dir,
                                    .clock = {.mono_ms = mesh_clock, .wall_ms = mesh_clock, .ctx = mesh}};
    struct err err = {0};
    if (store_open(&options, &node->store, &err) < 0)
        fail_msg("%s", err.text);
    struct exchange_config config = {.store = node->store,
                                     .jobs = {.submit = mesh_submit, .ctx = node},
                                     .rng = rng_seeded(&node->rng_state),
                                     .on_liar = mesh_liar,
                                     .on_provide = mesh_provide,
                                     .ctx = node};
    assert_int_equal(exchange_new(&config, &node->exchange, &err), 0);
}

static inline struct mesh *mesh_new(unsigned n_nodes)
{
    struct mesh *mesh = calloc(1, sizeof *mesh);
    mesh->rate = 100u << 20;
    mesh->delay_us = 1000;
    mesh->now_us = 1000000;
    for (unsigned i = 0; i < n_nodes; i++) {
        struct mesh_node *node = &mesh->nodes[mesh->n_nodes++];
        node->mesh = mesh;
        node->rng_state = 17 + i;
        node->id.b[0] = (uint8_t)(0xa0 + i);
        STAILQ_INIT(&node->jobs);
        /* nothing here is about disks, and syncing a hundred stores on one takes its time */
        snprintf(node->dir, sizeof node->dir, "%s/cmig-mesh-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        assert_non_null(mkdtemp(node->dir));
        mesh_open_node(node);
    }
    return mesh;
}

/* ---- links ---- */

static inline int mesh_send(void *ctx, uint8_t type, const void *head, size_t head_bytes, const void *body,
                            size_t body_bytes)
{
    struct mesh_link *link = ctx;
    struct mesh *mesh = link->mesh;
    if (!link->up)
        return ERR_CLOSED;
    assert_true(head_bytes <= SESSION_HEAD_BYTES);
    size_t len = head_bytes + body_bytes;
    assert_true(len <= LIMIT_CONTROL_BYTES);
    struct mesh_message *message = malloc(sizeof *message + len + 1);
    if (head_bytes > 0)
        memcpy(message->data, head, head_bytes);
    if (body_bytes > 0)
        memcpy(message->data + head_bytes, body, body_bytes);
    message->type = type;
    message->len = len;
    struct mesh_node *from = &mesh->nodes[link->from];
    if (from->free_us < mesh->now_us)
        from->free_us = mesh->now_us;
    from->free_us += (len + 19) * 1000000 / mesh->rate * (from->slow ? from->slow : 1);
    message->due_us = from->free_us + mesh->delay_us;
    link->queued += len;
    link->bytes += len + 19;
    if (type == MESSAGE_CHUNK || type == MESSAGE_MORE)
        link->chunk_bytes += len;
    link->runs += type == MESSAGE_RUN;
    STAILQ_INSERT_TAIL(&link->queue, message, link);
    return 0;
}

/* What has left the sender takes no room there. */
static inline size_t mesh_room(void *ctx)
{
    const struct mesh_link *link = ctx;
    const struct mesh *mesh = link->mesh;
    const struct mesh_node *from = &mesh->nodes[link->from];
    uint64_t busy_us = from->free_us > mesh->now_us ? from->free_us - mesh->now_us : 0;
    uint64_t waiting = busy_us * mesh->rate / 1000000 / (from->slow ? from->slow : 1);
    return waiting < LIMIT_SESSION_BULK_BYTES ? (size_t)(LIMIT_SESSION_BULK_BYTES - waiting) : 0;
}

static inline uint32_t mesh_rtt(void *ctx)
{
    const struct mesh_link *link = ctx;
    return (uint32_t)(2 * link->mesh->delay_us / 1000);
}

static inline struct mesh_link *mesh_half(struct mesh *mesh, unsigned from, unsigned to)
{
    assert_true(mesh->n_links < MESH_LINKS);
    struct mesh_link *link = &mesh->links[mesh->n_links++];
    *link = (struct mesh_link){.mesh = mesh, .from = from, .to = to, .up = true};
    STAILQ_INIT(&link->queue);
    struct exchange_link ops = {.send = mesh_send, .room = mesh_room, .rtt_ms = mesh_rtt, .ctx = link};
    assert_int_equal(exchange_peer_add(mesh->nodes[from].exchange, &mesh->nodes[to].id, &ops, &link->peer, NULL), 0);
    return link;
}

/* The direction from a to b; its `back` is the other. */
static inline struct mesh_link *mesh_join(struct mesh *mesh, unsigned a, unsigned b)
{
    struct mesh_link *there = mesh_half(mesh, a, b);
    struct mesh_link *back = mesh_half(mesh, b, a);
    there->back = back;
    back->back = there;
    return there;
}

static inline void mesh_drain(struct mesh_link *link)
{
    while (!STAILQ_EMPTY(&link->queue)) {
        struct mesh_message *message = STAILQ_FIRST(&link->queue);
        STAILQ_REMOVE_HEAD(&link->queue, link);
        free(message);
    }
    link->queued = 0;
}

/* Cut both directions; both ends notice. */
static inline void mesh_cut(struct mesh_link *link)
{
    struct mesh_link *ways[] = {link, link->back};
    for (unsigned i = 0; i < 2; i++)
        ways[i]->up = false;
    for (unsigned i = 0; i < 2; i++) {
        mesh_drain(ways[i]);
        if (ways[i]->peer && link->mesh->nodes[ways[i]->from].exchange)
            exchange_peer_remove(ways[i]->peer, mesh_ms(link->mesh));
        ways[i]->peer = NULL;
    }
}

static inline void mesh_deliver(struct mesh_link *link)
{
    struct mesh *mesh = link->mesh;
    struct mesh_message *message;
    size_t before = link->queued;
    while (link->up && (message = STAILQ_FIRST(&link->queue)) && message->due_us <= mesh->now_us) {
        STAILQ_REMOVE_HEAD(&link->queue, link);
        link->queued -= message->len;
        bool passes = !link->meddle || link->meddle(link, message->type, message->data, message->len);
        struct err err = {0};
        uint8_t *exact = malloc(message->len + (message->len == 0));
        memcpy(exact, message->data, message->len);
        if (passes && link->back->peer &&
            exchange_peer_input(link->back->peer, mesh_ms(mesh), message->type, exact, message->len, &err) < 0)
            mesh_cut(link);
        free(exact);
        free(message);
    }
    /* as of a socket: told when bytes have left, and not otherwise */
    if (link->up && link->peer && link->queued < before)
        exchange_peer_writable(link->peer, mesh_ms(mesh));
}

/* ---- time ---- */

static inline void mesh_run_jobs(struct mesh_node *node)
{
    while (!STAILQ_EMPTY(&node->jobs)) {
        struct mesh_job *job = STAILQ_FIRST(&node->jobs);
        STAILQ_REMOVE_HEAD(&node->jobs, link);
        if (job->threaded)
            pthread_join(job->thread, NULL);
        job->done(job->arg);
        free(job);
    }
}

static inline void mesh_step(struct mesh *mesh)
{
    mesh->now_us += 1000;
    for (unsigned i = 0; i < mesh->n_links; i++)
        mesh_deliver(&mesh->links[i]);
    for (unsigned i = 0; i < mesh->n_nodes; i++) {
        struct mesh_node *node = &mesh->nodes[i];
        if (!node->exchange)
            continue;
        mesh_run_jobs(node);
        if (mesh_ms(mesh) >= node->wake_ms)
            exchange_tick(node->exchange, mesh_ms(mesh), &node->wake_ms);
    }
}

static inline void mesh_close_node(struct mesh_node *node)
{
    exchange_free(node->exchange);
    mesh_run_jobs(node);
    node->exchange = NULL;
    for (unsigned i = 0; i < node->mesh->n_links; i++) {
        if (&node->mesh->nodes[node->mesh->links[i].from] == node)
            node->mesh->links[i].peer = NULL;
    }
    store_close(node->store);
    node->store = NULL;
}

static inline void mesh_free(struct mesh *mesh)
{
    for (unsigned i = 0; i < mesh->n_nodes; i++) {
        if (mesh->nodes[i].exchange)
            mesh_close_node(&mesh->nodes[i]);
        file_remove_tree(mesh->nodes[i].dir, NULL);
    }
    for (unsigned i = 0; i < mesh->n_links; i++)
        mesh_drain(&mesh->links[i]);
    free(mesh);
}

/* ---- content and wishes ---- */

/* len bytes that do not compress, of this seed. Freed with free. */
static inline uint8_t *mesh_bytes(size_t len, uint64_t seed)
{
    uint8_t *data = malloc(len + 1);
    struct rng rng = rng_seeded(&seed);
    rng.fill(rng.ctx, data, len);
    return data;
}

static inline struct id mesh_put_as(struct mesh_node *node, enum store_chunking chunking, const uint8_t *data,
                                    size_t len)
{
    struct store_ingest *ingest = NULL;
    struct store_object_info info;
    struct err err = {0};
    assert_int_equal(store_ingest_new(node->store, STORE_BLOB, chunking, &ingest, &err), 0);
    assert_int_equal(store_ingest_write(ingest, data, len, &err), 0);
    assert_int_equal(store_ingest_finish(ingest, &info, &err), 0);
    store_ingest_free(ingest);
    return info.digest;
}

static inline struct id mesh_put(struct mesh_node *node, const uint8_t *data, size_t len)
{
    return mesh_put_as(node, STORE_CHUNKING_ARCHIVE, data, len);
}

static inline bool mesh_has(struct mesh_node *node, const struct id *object, const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len + 1);
    size_t got = 0;
    bool same = store_object_read(node->store, object, 0, copy, len + 1, &got, NULL) == 0 && got == len &&
                memcmp(copy, data, len) == 0;
    free(copy);
    return same;
}

struct mesh_wish {
    struct exchange_fetch *fetch;
    bool done;
    int status;
    struct err err;
    struct exchange_stats stats; /* without the shares */
    struct exchange_share shares[MESH_NODES];
    struct exchange_progress progress;
    unsigned n_progress;
    unsigned n_want_peers;
};

static inline void mesh_on_progress(void *ctx, const struct exchange_progress *progress)
{
    struct mesh_wish *wish = ctx;
    assert_true(progress->done_bytes >= wish->progress.done_bytes);
    assert_true(progress->done_bytes <= progress->total_bytes);
    wish->progress = *progress;
    wish->n_progress++;
}

static inline void mesh_on_done(void *ctx, int status, const struct err *err, const struct exchange_stats *stats)
{
    struct mesh_wish *wish = ctx;
    assert_false(wish->done);
    wish->done = true;
    wish->fetch = NULL;
    wish->status = status;
    if (err)
        wish->err = *err;
    wish->stats = *stats;
    assert_true(stats->n_shares <= MESH_NODES);
    memcpy(wish->shares, stats->shares, stats->n_shares * sizeof stats->shares[0]);
}

static inline void mesh_on_want_peers(void *ctx, const struct id *object)
{
    (void)object;
    ((struct mesh_wish *)ctx)->n_want_peers++;
}

/* With an object that may be here and resemble it; NULL: none. */
static inline void mesh_fetch_like(struct mesh *mesh, unsigned node, const struct id *object, const struct id *basis,
                                   struct mesh_wish *ret_wish)
{
    *ret_wish = (struct mesh_wish){.done = false};
    struct exchange_wish wish = {.kind = STORE_BLOB,
                                 .on_progress = mesh_on_progress,
                                 .on_done = mesh_on_done,
                                 .on_want_peers = mesh_on_want_peers,
                                 .ctx = ret_wish};
    if (basis)
        wish.bases[wish.n_bases++] = *basis;
    assert_int_equal(exchange_fetch(mesh->nodes[node].exchange, mesh_ms(mesh), object, &wish, &ret_wish->fetch, NULL),
                     0);
    mesh->nodes[node].wake_ms = 0;
}

static inline void mesh_fetch(struct mesh *mesh, unsigned node, const struct id *object, struct mesh_wish *ret_wish)
{
    mesh_fetch_like(mesh, node, object, NULL, ret_wish);
}

/* `wish` of the node that the link starts from may ask the node where it ends. */
static inline void mesh_ask(struct mesh_wish *wish, struct mesh_link *link, bool origin)
{
    exchange_fetch_add_peer(wish->fetch, link->peer, origin, mesh_ms(link->mesh));
}

/* Until the wish is done, at most limit_ms. Returns how long it took. */
static inline uint64_t mesh_wait(struct mesh *mesh, const struct mesh_wish *wish, uint64_t limit_ms)
{
    uint64_t start = mesh_ms(mesh);
    while (!wish->done && mesh_ms(mesh) < start + limit_ms)
        mesh_step(mesh);
    if (!wish->done)
        fail_msg("not done after %llu ms: %llu of %llu bytes", (unsigned long long)limit_ms,
                 (unsigned long long)wish->progress.done_bytes, (unsigned long long)wish->progress.total_bytes);
    return mesh_ms(mesh) - start;
}

static inline const struct exchange_share *mesh_share(const struct mesh_wish *wish, const struct mesh_node *node)
{
    for (size_t i = 0; i < wish->stats.n_shares; i++) {
        if (id_equal(&wish->shares[i].node, &node->id))
            return &wish->shares[i];
    }
    return NULL;
}
