#include "node/node.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/handlers_move.h"
#include "node/process.h"

#define HOUSE_MS 250
#define GONE_PER_TICK 64
#define POLL_TICKS 2       /* look at containers */
#define MAINTAIN_TICKS 600 /* the store's upkeep */
#define STOP_PATIENCE_MS 30000
#define LOCK_STEP_MS 50
#define LOCK_SHORT_MS 500 /* a node that runs may be about to end */
#define LOCK_LONG_MS 3000

/* ---- what the mesh calls ---- */

static void on_up(void *ctx, struct link *link)
{
    struct node *node = ctx;
    content_link_up(node->content, link);
}

static void on_down(void *ctx, struct link *link)
{
    struct node *node = ctx;
    content_link_down(node->content, link);
}

static int on_message(void *ctx, struct link *link, uint8_t type, const uint8_t *data, size_t len_bytes,
                      struct err *err)
{
    struct node *node = ctx;
    return content_link_message(node->content, link, type, data, len_bytes, err);
}

static void on_writable(void *ctx, struct link *link)
{
    struct node *node = ctx;
    content_link_writable(node->content, link);
}

static void on_request(void *ctx, struct link *link, const char *method, const uint8_t *data, size_t len_bytes,
                       struct call_request *request)
{
    moves_request(ctx, link, method, data, len_bytes, request);
}

/* ---- beginning ---- */

static uint64_t floor_of(const struct config *config)
{
    struct statvfs disk;
    if (config->floor.percent == 0 || statvfs(config->dir, &disk) < 0)
        return config->floor.bytes;
    uint64_t share = (uint64_t)disk.f_blocks * disk.f_frsize / 100 * config->floor.percent;
    return config->floor.bytes && share > config->floor.bytes ? config->floor.bytes : share;
}

/* cmig-exec lies beside this program in a build tree, in libexec when installed. */
static char *find_exec_helper(void)
{
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len <= 0)
        return NULL;
    self[len] = '\0';
    *strrchr(self, '/') = '\0';
    OWNED(owned_free) char *beside = file_path("%s/cmig-exec", self);
    OWNED(owned_free) char *installed = file_path("%s/../libexec/cmig/cmig-exec", self);
    if (beside && file_exists(beside))
        return realpath(beside, NULL);
    if (installed && file_exists(installed))
        return realpath(installed, NULL);
    return NULL;
}

/* Does a running node hold the store? Not so if what the lock names has ended, or is ending. */
static bool is_held_by_node(const char *dir)
{
    OWNED(buf_release) struct buf pid = BUF(32), state = BUF(4096);
    OWNED(owned_free) char *lock = file_path("%s/lock", dir);
    if (!lock || file_read(lock, &pid, NULL) < 0)
        return false;
    OWNED(owned_free) char *path = file_path("/proc/%ld/stat", strtol(buf_str(&pid) ? buf_str(&pid) : "", NULL, 10));
    if (!path || file_read(path, &state, NULL) < 0)
        return false;
    const char *text = buf_str(&state);
    return text && strstr(text, "(cmig-node)") && !strstr(text, ") Z") && !strstr(text, ") X");
}

/* A node that was killed may hold its store for a moment more: the kernel takes it apart, or a child of it has not come
 * to its exec. */
static int open_store_patiently(struct node *node, const struct store_options *options, struct err *err)
{
    uint64_t begun_ms = clock_mono_ms(&node->clock);
    for (;;) {
        int status = store_open(options, &node->store, err);
        uint64_t waited_ms = clock_mono_ms(&node->clock) - begun_ms;
        if (status != ERR_BUSY || waited_ms >= (is_held_by_node(options->dir) ? LOCK_SHORT_MS : LOCK_LONG_MS))
            return status;
        usleep(LOCK_STEP_MS * 1000);
    }
}

static int open_store(struct node *node, struct err *err)
{
    OWNED(owned_free) char *dir = file_path("%s/store", node->config->dir);
    node->scratch = file_path("%s/tmp", node->config->dir);
    if (!dir || !node->scratch)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    struct store_options options = {.dir = dir,
                                    .quota_bytes = node->config->quota_bytes,
                                    .floor_bytes = floor_of(node->config),
                                    .clock = node->clock};
    int status = open_store_patiently(node, &options, err);
    if (status == 0)
        status = file_remove_tree(node->scratch, err);
    return status < 0 ? status : file_make_dirs(node->scratch, 0700, err);
}

static int open_runtime(struct node *node, struct err *err)
{
    OWNED(owned_free) char *helper = find_exec_helper();
    struct runtime_options options = {.dir = node->config->dir,
                                      .runc = node->config->runc,
                                      .criu = node->config->criu,
                                      .exec_helper = helper ? helper : "",
                                      .log_max_bytes = node->config->log_max_bytes,
                                      .store = node->store,
                                      .clock = node->clock};
    return runtime_open(&options, &node->runtime, err);
}

static int open_mesh(struct node *node, struct err *err)
{
    const struct config *config = node->config;
    struct mesh_config mesh = {.loop = node->loop,
                               .identity = node->identity,
                               .store = node->store,
                               .jobs = node->jobs,
                               .clock = node->clock,
                               .listen = config->listen,
                               .listen_count = config->listen_count,
                               .advertise = config->advertise,
                               .name = config->name,
                               .dht_records = config->dht_records,
                               .block_contacts = config->block_contacts,
                               .users = {on_up, on_down, on_message, on_writable, on_request},
                               .ctx = node};
    int status = content_new(node->store, node->jobs, node->clock, node->loop, &node->content, err);
    if (status == 0) {
        content_set_policy(node->content, &config->policy);
        content_set_limits(node->content, &config->bandwidth);
        content_set_price(node->content, config->price);
    }
    if (status == 0)
        status = mesh_new(&mesh, &node->mesh, err);
    if (status == 0)
        content_set_mesh(node->content, node->mesh);
    if (status == 0)
        status = scrub_new(node->store, node->jobs, node->clock, node->loop, node->content, config->scrub_days,
                           &node->scrub, err);
    return status;
}

static int open_gateway(struct node *node, struct err *err)
{
    struct gateway_config config = {.loop = node->loop,
                                    .resp = node->config->resp,
                                    .mesh = node->mesh,
                                    .store = node->store,
                                    .jobs = node->jobs,
                                    .clock = node->clock};
    return gateway_new(&config, &node->gateway, err);
}

static int open_migrate(struct node *node, struct err *err)
{
    struct migrate_config config = {.dir = node->config->dir,
                                    .self = *identity_id(node->identity),
                                    .store = node->store,
                                    .runtime = node->runtime,
                                    .jobs = node->jobs,
                                    .clock = node->clock,
                                    .ops = moves_ops(node)};
    return migrate_new(&config, &node->migrate, err);
}

static int open_api(struct node *node, struct err *err)
{
    struct api_server_config config = {
        .loop = node->loop, .socket_path = node->config->socket, .group = node->config->api_group, .ctx = node};
    config.routes = node_routes(&config.route_count);
    return api_server_new(&config, &node->api, err);
}

static int publish_volume(const struct store_ref *ref, void *ctx)
{
    struct node *node = ctx;
    struct guid guid;
    struct store_object_info info;
    if (guid_parse(ref->name, &guid) && store_object_stat(node->store, &ref->digest, &info, NULL) == 1)
        content_publish_key(node->content, DHT_VOLUME, guid.b, GUID_BYTES, &ref->digest, info.size_bytes, ref->version);
    return 0;
}

static int publish_checkpoint(const struct store_ref *ref, void *ctx)
{
    struct node *node = ctx;
    struct store_object_info info;
    const void *end = ref->value_len ? memchr(ref->value, '\0', ref->value_len) : NULL;
    if (!end || store_object_stat(node->store, &ref->digest, &info, NULL) != 1)
        return 0;
    size_t image_len = (size_t)((const char *)end - (const char *)ref->value);
    content_publish_key(node->content, DHT_SERVICE, ref->value, ref->value_len, &ref->digest, info.size_bytes,
                        ref->version);
    content_publish_key(node->content, DHT_APP, ref->value, image_len, &ref->digest, info.size_bytes, ref->version);
    return 0;
}

/* Say again what this node has; the DHT sends only what its holders lack. */
static int publish_everything(struct node *node, struct err *err)
{
    int status = content_publish_all(node->content, err);
    if (status == 0)
        status = store_ref_each(node->store, MIGRATE_REF_VOLUME, NULL, publish_volume, node, err);
    if (status == 0)
        status = store_ref_each(node->store, MIGRATE_REF_CHECKPOINT, NULL, publish_checkpoint, node, err);
    return status;
}

/* Who asks the DHT is not to be sent here for what is here no more, however it went. */
static void withdraw_gone(struct node *node)
{
    struct id gone[GONE_PER_TICK];
    size_t count = store_gone_take(node->store, gone, GONE_PER_TICK);
    for (size_t i = 0; i < count; i++)
        if (store_object_stat(node->store, &gone[i], NULL, NULL) == 0)
            content_withdraw(node->content, &gone[i]);
}

/* ---- the house timer ---- */

#define READER_LAG_ALARM 10000 /* commits; at two a second more than an hour */

static void work_maintain(void *arg)
{
    struct node *node = arg;
    struct err err;
    struct store_usage usage;
    if (store_usage(node->store, &usage, &err) == 0 && usage.reader_lag > READER_LAG_ALARM)
        log_warn("store", "some program reads an old state of the index, which grows meanwhile behind=%llu",
                 (unsigned long long)usage.reader_lag);
    if (store_maintain(node->store, &err) < 0)
        log_warn("store", "upkeep failed why=\"%s\"", err.text);
    if (runtime_maintain(node->runtime, &err) < 0)
        log_warn("runtime", "upkeep failed why=\"%s\"", err.text);
    process_trim_heap();
}

static void on_maintained(void *arg)
{
    struct node *node = arg;
    node->house_busy = false;
}

static void close_everything(struct node *node);

static void on_house_timer(uv_timer_t *timer)
{
    struct node *node = timer->data;
    uint64_t tick = node->house_ticks++;
    if (node->stopping) {
        bool patient = clock_mono_ms(&node->clock) < node->stop_deadline_ms;
        if (!patient)
            log_warn("node", "a migration did not come to rest, it goes on at the next start");
        if (!patient || migrate_busy(node->migrate) == 0)
            close_everything(node);
        return;
    }
    withdraw_gone(node);
    if (tick % POLL_TICKS == 0)
        runtime_poll(node->runtime);
    if (tick % MAINTAIN_TICKS == MAINTAIN_TICKS - 1 && !node->house_busy) {
        node->house_busy = true;
        jobs_submit(&node->jobs, work_maintain, on_maintained, node);
    }
}

int node_start(const struct config *config, uv_loop_t *loop, struct identity *identity, struct node **ret_node,
               struct err *err)
{
    struct node *node = calloc(1, sizeof *node);
    if (!node)
        return err_set(err, ERR_NOMEM, "no memory for the node");
    *node = (struct node){.config = config, .loop = loop, .clock = clock_system(), .identity = identity};
    node->started_ms = clock_mono_ms(&node->clock);
    uv_timer_init(loop, &node->house_timer);
    node->house_timer.data = node;
    int status = work_new(loop, &node->work, err);
    if (status == 0) {
        node->jobs = work_jobs(node->work);
        status = timers_new(loop, &node->timers, err);
    }
    int (*const steps[])(struct node *, struct err *) = {open_store,   open_runtime, open_mesh,         open_gateway,
                                                         open_migrate, open_api,     publish_everything};
    for (size_t i = 0; status == 0 && i < sizeof steps / sizeof steps[0]; i++)
        status = steps[i](node, err);
    if (status == 0)
        status = migrate_recover(node->migrate, err);
    if (status < 0) {
        node->identity = NULL; /* stays the caller's */
        close_everything(node);
        uv_run(loop, UV_RUN_DEFAULT);
        node_free(node);
        return status;
    }
    uv_timer_start(&node->house_timer, on_house_timer, HOUSE_MS, HOUSE_MS);
    *ret_node = node;
    return 0;
}

/* ---- end ---- */

static void close_everything(struct node *node)
{
    if (node->closed)
        return;
    node->closed = true;
    node->closed_ms = clock_mono_ms(&node->clock);
    api_server_free(node->api);
    node->api = NULL;
    if (node->gateway)
        gateway_close(node->gateway);
    if (node->mesh)
        mesh_close(node->mesh);
    if (node->scrub)
        scrub_close(node->scrub);
    if (node->content)
        content_close(node->content);
    if (node->timers)
        timers_close(node->timers);
    uv_close((uv_handle_t *)&node->house_timer, NULL);
}

void node_stop(struct node *node)
{
    if (node->stopping)
        return;
    node->stopping = true;
    node->stop_deadline_ms = clock_mono_ms(&node->clock) + STOP_PATIENCE_MS;
    log_info("node", "stopping; containers go on running");
    migrate_stop(node->migrate);
}

void node_free(struct node *node)
{
    if (!node)
        return;
    migrate_free(node->migrate);
    moves_asked_free(node->asked);
    content_free(node->content);
    scrub_free(node->scrub);
    gateway_free(node->gateway);
    mesh_free(node->mesh);
    if (node->runtime)
        runtime_close(node->runtime);
    if (node->store)
        store_close(node->store);
    timers_free(node->timers);
    work_free(node->work);
    identity_free(node->identity);
    free(node->scratch);
    free(node);
}
