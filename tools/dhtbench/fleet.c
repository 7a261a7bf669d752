#include "tools/dhtbench/fleet.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/file.h"

#define HOUSE_MS 500

_Noreturn void fleet_die(const char *what, const struct err *err)
{
    fprintf(stderr, "dhtbench: %s: %s\n", what, err ? err->text : "failed");
    exit(1);
}

static void *must(void *pointer)
{
    if (!pointer)
        fleet_die("no memory", NULL);
    return pointer;
}

uint64_t fleet_now_ms(const struct node *node)
{
    return clock_mono_ms(&node->worker->fleet->clock);
}

/* ---- memory ---- */

struct fleet_memory {
    struct fleet_memory *next;
    max_align_t bytes[];
};

void *fleet_alloc(struct fleet *fleet, size_t len_bytes)
{
    struct fleet_memory *memory = must(calloc(1, sizeof *memory + len_bytes));
    memory->next = fleet->memory;
    fleet->memory = memory;
    return memory->bytes;
}

static void free_memory(struct fleet *fleet)
{
    while (fleet->memory) {
        struct fleet_memory *next = fleet->memory->next;
        free(fleet->memory);
        fleet->memory = next;
    }
}

/* ---- identities ---- */

static void enter_cluster(struct identity *host, struct identity *guest, uint64_t wall_s, struct err *err)
{
    struct invitation invitation = {.host = "127.0.0.1", .port = 1, .cluster = *identity_cluster(host)};
    struct identity_peer peer = {.rights = RIGHT_ALL};
    memcpy(peer.public_key, identity_public_key(host), sizeof peer.public_key);
    peer.id = *identity_id(host);
    OWNED(buf_release) struct buf request = BUF(512);
    OWNED(buf_release) struct buf reply = BUF(4096);
    uint8_t remote_static[CRYPTO_DH_BYTES];
    char why[IDENTITY_WHY_SIZE];
    OWNED(owned_admission_guard) struct admission_guard *guard = NULL;
    struct admission admission = {
        .peer.guest = true, .remote_static = remote_static, .source = {4, 1, {127, 0, 0, 1}}, .wall_s = wall_s};
    struct admission_result result;
    const uint8_t *hints;
    size_t hints_len;
    if (invitation_create(host, 1, 900, RIGHT_ADMIT, wall_s, invitation.secret, err) < 0 ||
        identity_expect_cluster(guest, &invitation.cluster, err) < 0 ||
        admission_request(guest, &invitation, &peer, "", &request, err) < 0 ||
        !crypto_dh_public_of_sign(identity_public_key(guest), remote_static) || admission_guard_new(&guard, err) < 0 ||
        admission_answer(host, guard, &admission, request.data, request.len, &reply, &result, why, err) < 0 ||
        admission_accept(guest, reply.data, reply.len, wall_s, &hints, &hints_len, err) < 0)
        fleet_die("cannot make an identity", err);
}

static struct node *node_of(struct fleet *fleet, unsigned number)
{
    struct worker *worker = &fleet->workers[number % fleet->options.workers];
    return &worker->nodes[number / fleet->options.workers];
}

static void make_identities(struct fleet *fleet)
{
    struct err err = {0};
    uint64_t wall_s = clock_wall_ms(&fleet->clock) / 1000;
    struct node *founder = node_of(fleet, 0);
    for (unsigned i = 0; i < fleet->options.nodes; i++) {
        struct node *node = node_of(fleet, i);
        node->number = i;
        node->dir = must(file_path("%s/%u", fleet->options.dir, i));
        if (identity_open(node->dir, &node->identity, &err) < 0)
            fleet_die("cannot make an identity", &err);
        if (i > 0)
            enter_cluster(founder->identity, node->identity, wall_s, &err);
        else if (identity_init(node->identity, wall_s, &err) < 0)
            fleet_die("cannot make a cluster", &err);
    }
}

/* ---- workers ---- */

static void on_house(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    for (unsigned i = 0; i < worker->node_count; i++) {
        struct node *node = &worker->nodes[i];
        if (!node->udp)
            continue;
        overlay_tick(node->overlay);
        if (node->records)
            records_flush(node->records);
    }
}

static void on_wake(uv_async_t *async)
{
    struct worker *worker = async->data;
    uv_mutex_lock(&worker->fleet->mutex);
    fleet_job_cb job = worker->job;
    uv_mutex_unlock(&worker->fleet->mutex);
    if (!job)
        return;
    job(worker, worker->job_ctx);
    uv_mutex_lock(&worker->fleet->mutex);
    worker->job = NULL;
    uv_cond_broadcast(&worker->fleet->changed);
    uv_mutex_unlock(&worker->fleet->mutex);
}

void fleet_call(struct worker *worker, fleet_job_cb job, void *ctx)
{
    struct fleet *fleet = worker->fleet;
    uv_mutex_lock(&fleet->mutex);
    worker->job_ctx = ctx;
    worker->job = job;
    uv_async_send(&worker->wake);
    while (worker->job)
        uv_cond_wait(&fleet->changed, &fleet->mutex);
    uv_mutex_unlock(&fleet->mutex);
}

void fleet_call_all(struct fleet *fleet, fleet_job_cb job, void *ctx)
{
    for (unsigned i = 0; i < fleet->options.workers; i++)
        fleet_call(&fleet->workers[i], job, ctx);
}

static void run_worker(void *arg)
{
    struct worker *worker = arg;
    uv_run(&worker->loop, UV_RUN_DEFAULT);
}

static void start_worker(struct fleet *fleet, unsigned number)
{
    struct err err;
    struct worker *worker = &fleet->workers[number];
    worker->fleet = fleet;
    worker->number = number;
    worker->node_count = (fleet->options.nodes + fleet->options.workers - 1 - number) / fleet->options.workers;
    worker->nodes = must(calloc(worker->node_count, sizeof *worker->nodes));
    for (unsigned i = 0; i < worker->node_count; i++)
        worker->nodes[i].worker = worker;
    uv_loop_init(&worker->loop);
    uv_async_init(&worker->loop, &worker->wake, on_wake);
    uv_timer_init(&worker->loop, &worker->house);
    worker->wake.data = worker->house.data = worker;
    if (work_new(&worker->loop, &worker->work, &err) < 0)
        fleet_die("no thread pool", &err);
    uv_timer_start(&worker->house, on_house, HOUSE_MS, HOUSE_MS);
}

int fleet_new(const struct fleet_options *options, struct fleet **ret_fleet, struct err *err)
{
    if (options->nodes < 2 || options->nodes > FLEET_MAX_NODES || options->workers < 1 ||
        options->workers > FLEET_MAX_WORKERS || options->workers > options->nodes)
        return err_set(err, ERR_INVALID, "2 to %d nodes on 1 to %d threads", FLEET_MAX_NODES, FLEET_MAX_WORKERS);
    struct fleet *fleet = must(calloc(1, sizeof *fleet));
    fleet->options = *options;
    fleet->clock = clock_system();
    uv_mutex_init(&fleet->mutex);
    uv_cond_init(&fleet->changed);
    for (unsigned i = 0; i < options->workers; i++)
        start_worker(fleet, i);
    make_identities(fleet);
    for (unsigned i = 0; i < options->workers; i++)
        uv_thread_create(&fleet->workers[i].thread, run_worker, &fleet->workers[i]);
    *ret_fleet = fleet;
    return 0;
}

/* ---- nodes ---- */

static void on_datagram(void *ctx, const struct addr *from, const uint8_t *data, size_t len_bytes)
{
    struct node *node = ctx;
    overlay_input(node->overlay, from, data, len_bytes);
}

static void send_datagram(void *ctx, const struct addr *to, const uint8_t *bytes, size_t len_bytes)
{
    struct node *node = ctx;
    if (node->udp)
        udp_send(node->udp, to, bytes, len_bytes);
}

static void open_storage(struct node *node, struct dht_storage *ret_storage)
{
    struct err err = {0};
    struct fleet *fleet = node->worker->fleet;
    OWNED(owned_free) char *dir = must(file_path("%s/store", node->dir));
    struct store_options options = {.dir = dir, .clock = fleet->clock};
    if (store_open(&options, &node->store, &err) < 0 ||
        records_new(node->store, work_jobs(node->worker->work), &node->records, &err) < 0)
        fleet_die("cannot open a store", &err);
    *ret_storage = records_storage(node->records);
}

static void start_node(struct node *node)
{
    struct err err = {0};
    struct fleet *fleet = node->worker->fleet;
    struct addr any = {.family = 4, .ip = {127, 0, 0, 1}};
    if (udp_new(&node->worker->loop, &any, on_datagram, node, &node->udp, &err) < 0)
        fleet_die("no socket", &err);
    node->addr = any;
    node->addr.port = udp_port(node->udp);
    struct overlay_config config = {.loop = &node->worker->loop,
                                    .identity = node->identity,
                                    .clock = fleet->clock,
                                    .boot_stamp = clock_wall_ms(&fleet->clock),
                                    .address = node->addr,
                                    .send = send_datagram,
                                    .ctx = node};
    if (fleet->options.on_disk)
        open_storage(node, &config.storage);
    if (overlay_new(&config, &node->overlay, &err) < 0)
        fleet_die("no DHT", &err);
    if (node->number == 0)
        fleet->first = dht_contact_of(identity_public_key(node->identity), &node->addr);
    else if (dht_bootstrap(overlay_dht(node->overlay), fleet_now_ms(node), &fleet->first, &err) < 0)
        fleet_die("cannot join", &err);
    overlay_changed(node->overlay);
}

static void start_nodes(struct worker *worker, void *ctx)
{
    (void)ctx;
    for (unsigned i = 0; i < worker->node_count; i++)
        start_node(&worker->nodes[i]);
}

/* Worker 0 has the node that the others join by, and is called first. */
void fleet_start(struct fleet *fleet)
{
    fleet_call_all(fleet, start_nodes, NULL);
}

struct node *fleet_pick(struct worker *worker, uint64_t n)
{
    unsigned alive = 0;
    for (unsigned i = 0; i < worker->node_count; i++)
        alive += worker->nodes[i].udp != NULL;
    if (alive == 0)
        return NULL;
    n %= alive;
    for (unsigned i = 0; i < worker->node_count; i++)
        if (worker->nodes[i].udp && n-- == 0)
            return &worker->nodes[i];
    return NULL;
}

struct census {
    size_t contacts;
    unsigned alive, ready;
};

static void count_nodes(struct worker *worker, void *ctx)
{
    struct census *census = ctx;
    for (unsigned i = 0; i < worker->node_count; i++) {
        if (!worker->nodes[i].udp)
            continue;
        struct dht_stats stats;
        dht_stats(overlay_dht(worker->nodes[i].overlay), &stats);
        census->alive++;
        census->ready += stats.contacts >= census->contacts && (stats.joined || worker->nodes[i].number == 0);
    }
}

unsigned fleet_ready(struct fleet *fleet, size_t contacts)
{
    struct census census = {.contacts = contacts};
    fleet_call_all(fleet, count_nodes, &census);
    return census.ready;
}

unsigned fleet_alive(struct fleet *fleet)
{
    struct census census = {0};
    fleet_call_all(fleet, count_nodes, &census);
    return census.alive;
}

static void kill_node(struct node *node)
{
    if (!node->udp)
        return;
    udp_free(STEAL(node->udp));
    overlay_close(node->overlay);
    if (node->records)
        records_close(node->records);
}

static void kill_half(struct worker *worker, void *ctx)
{
    (void)ctx;
    for (unsigned i = 0; i < worker->node_count; i++)
        if (i % 2 == 1)
            kill_node(&worker->nodes[i]);
}

void fleet_kill_half(struct fleet *fleet)
{
    fleet_call_all(fleet, kill_half, NULL);
}

/* ---- the end ---- */

static void close_worker(struct worker *worker, void *ctx)
{
    (void)ctx;
    for (unsigned i = 0; i < worker->node_count; i++)
        kill_node(&worker->nodes[i]);
    uv_close((uv_handle_t *)&worker->house, NULL);
    uv_close((uv_handle_t *)&worker->wake, NULL);
}

static void free_node(struct node *node)
{
    overlay_free(node->overlay);
    records_free(node->records);
    if (node->store)
        store_close(node->store);
    identity_free(node->identity);
    if (node->dir)
        file_remove_tree(node->dir, NULL);
    free(node->dir);
}

/* A loop ends by itself when all its handles are closed and its jobs are done. */
void fleet_free(struct fleet *fleet)
{
    fleet_call_all(fleet, close_worker, NULL);
    for (unsigned i = 0; i < fleet->options.workers; i++) {
        struct worker *worker = &fleet->workers[i];
        uv_thread_join(&worker->thread);
        work_free(worker->work);
        for (unsigned k = 0; k < worker->node_count; k++)
            free_node(&worker->nodes[k]);
        uv_loop_close(&worker->loop);
        free(worker->nodes);
    }
    free_memory(fleet);
    uv_cond_destroy(&fleet->changed);
    uv_mutex_destroy(&fleet->mutex);
    free(fleet);
}
