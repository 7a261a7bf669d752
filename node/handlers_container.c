#include "node/handlers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "node/base/file.h"
#include "node/download.h"
#include "node/spec.h"

#define STOP_S 10 /* between SIGTERM and SIGKILL, unless the user says otherwise */
#define STOP_MAX_S 3600
#define TAIL_BLOCK_BYTES 65536

OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)

/* ---- run ---- */

struct run {
    struct runtime_spec spec;
    bool has_ids;       /* the user names them: root as well, whomever the image names */
    atomic_bool closed; /* the client left while the job was under way */
};

static int fill(struct node *node, struct run *run, struct err *err)
{
    uint32_t uid = run->spec.uid, gid = run->spec.gid;
    int status = runtime_fill(node->runtime, &run->spec, err);
    if (run->has_ids) {
        run->spec.uid = uid;
        run->spec.gid = gid;
    }
    if (status == 0 && atomic_load(&run->closed))
        status = err_set(err, ERR_CANCELLED, "the client went away");
    return status;
}

static json_t *run_work(struct node *node, void *arg, struct err *err)
{
    struct run *run = arg;
    OWNED(owned_container) struct runtime_container *container = NULL;
    if (fill(node, run, err) < 0 || runtime_run(node->runtime, &run->spec, &container, err) < 0)
        return NULL;
    if (!atomic_load(&run->closed))
        return spec_container_to_json(container);
    /* Nobody was told of it, so nobody misses it. */
    if (runtime_stop(node->runtime, container->spec.name, 0, err) == 0 &&
        runtime_remove(node->runtime, container->spec.name, err) == 0)
        err_set(err, ERR_CANCELLED, "the client went away");
    return NULL;
}

static void on_run_closed(void *ctx, struct api_request *req)
{
    (void)req;
    struct run *run = ctx;
    atomic_store(&run->closed, true);
}

static void free_run(void *arg)
{
    struct run *run = arg;
    runtime_spec_release(&run->spec);
    free(run);
}

void handlers_container_run(void *node, struct api_request *req)
{
    static const struct api_request_ops ops = {.on_closed = on_run_closed};
    struct err err;
    struct run *run = calloc(1, sizeof *run);
    if (!run) {
        handlers_refuse(req, ERR_NOMEM, "no memory for a container");
    } else if (spec_from_request(api_request_body(req), &run->spec, &err) < 0) {
        api_reply_error(req, &err);
        free(run);
    } else {
        run->has_ids = json_is_string(json_object_get(api_request_body(req), "as"));
        api_request_watch(req, &ops, run);
        handlers_answer(node, req, 201, run_work, run, free_run);
    }
}

/* ---- list and get ---- */

static void list_one(void *ctx, const struct runtime_container *container)
{
    json_array_append_new(ctx, spec_container_to_json(container));
}

static json_t *list_work(struct node *node, void *arg, struct err *err)
{
    (void)arg;
    (void)err;
    json_t *containers = json_array();
    runtime_each(node->runtime, list_one, containers);
    return json_pack("{s:o}", "containers", containers);
}

void handlers_container_list(void *node, struct api_request *req)
{
    node_answer_from_job(node, req, list_work, NULL, NULL);
}

/* What concerns one container. */
struct order {
    const char *name; /* borrowed from the request */
    bool force;
    uint64_t timeout_s;
};

static void carry_out(struct node *node, struct api_request *req, node_work_cb work, const struct order *order)
{
    struct order *copy = malloc(sizeof *copy);
    if (!copy) {
        handlers_refuse(req, ERR_NOMEM, "no memory for a request");
        return;
    }
    *copy = *order;
    copy->name = api_request_param(req, "name");
    node_answer_from_job(node, req, work, copy, free);
}

static json_t *get_work(struct node *node, void *arg, struct err *err)
{
    const struct order *order = arg;
    OWNED(owned_container) struct runtime_container *container = NULL;
    return runtime_get(node->runtime, order->name, &container, err) < 0 ? NULL : spec_container_to_json(container);
}

void handlers_container_get(void *node, struct api_request *req)
{
    carry_out(node, req, get_work, &(struct order){0});
}

/* ---- stop and remove ---- */

static json_t *stop_work(struct node *node, void *arg, struct err *err)
{
    const struct order *order = arg;
    return runtime_stop(node->runtime, order->name, order->timeout_s * 1000, err) < 0 ? NULL : get_work(node, arg, err);
}

void handlers_container_stop(void *node, struct api_request *req)
{
    const json_t *body = api_request_body(req);
    struct order order = {0};
    struct err err;
    if (api_json_only(body, "timeout_s", &err) < 0 ||
        api_json_get_u64(body, "timeout_s", STOP_S, STOP_MAX_S, &order.timeout_s, &err) < 0)
        api_reply_error(req, &err);
    else
        carry_out(node, req, stop_work, &order);
}

static json_t *remove_work(struct node *node, void *arg, struct err *err)
{
    const struct order *order = arg;
    int removed = order->force ? migrate_remove(node->migrate, order->name, err) : 0;
    if (removed > 0)
        return json_pack("{s:s, s:s}", "name", order->name, "warning",
                         "it was between two nodes: what was left of it here is gone, with its volumes");
    if (removed < 0 || (order->force && runtime_stop(node->runtime, order->name, 0, err) < 0))
        return NULL;
    if (runtime_remove(node->runtime, order->name, err) < 0)
        return NULL;
    return json_pack("{s:s}", "name", order->name);
}

void handlers_container_remove(void *ctx, struct api_request *req)
{
    struct node *node = ctx;
    struct order order = {0};
    struct err err;
    if (handlers_query_flag(req, "force", &order.force, &err) < 0)
        api_reply_error(req, &err);
    else if (order.force && migrate_give_up(node->migrate, api_request_param(req, "name"), &err) == ERR_CONFLICT)
        api_reply_error(req, &err);
    else
        carry_out(node, req, remove_work, &order);
}

/* ---- logs ---- */

struct logs {
    struct node *node;
    struct api_request *req; /* until it is answered */
    char id[GUID_TEXT_SIZE]; /* of the container: its name may pass to another */
    bool follow;
    bool last; /* it runs no more: what is there now is all */
    uint64_t tail_lines;
    int fd; /* owned; -1: there is no log yet */
    uint64_t offset;
    struct err err;
};

static int logs_read(void *ctx, void *ret_data, size_t len_bytes, size_t *ret_len, struct err *err)
{
    struct logs *logs = ctx;
    struct stat st;
    *ret_len = 0;
    if (logs->fd < 0)
        return 0;
    /* The front of a long log is cut away; then we were at its old end, and go on at the new one. */
    if (fstat(logs->fd, &st) == 0 && (uint64_t)st.st_size < logs->offset)
        logs->offset = (uint64_t)st.st_size;
    ssize_t got = pread(logs->fd, ret_data, len_bytes, (off_t)logs->offset);
    if (got < 0)
        return err_errno(err, errno, "cannot read the log of container '%s'", logs->id);
    logs->offset += (uint64_t)got;
    *ret_len = (size_t)got;
    return 0;
}

static bool logs_more(void *ctx)
{
    struct logs *logs = ctx;
    OWNED(owned_container) struct runtime_container *container = NULL;
    if (!logs->follow || logs->last)
        return false;
    int status = runtime_get(logs->node->runtime, logs->id, &container, NULL);
    logs->last = status < 0 || container->state != RUNTIME_RUNNING;
    return true;
}

static void logs_free(void *ctx)
{
    struct logs *logs = ctx;
    owned_fd(&logs->fd);
    free(logs);
}

/* Where the last `lines` lines of the file begin. */
static int find_tail(int fd, uint64_t size_bytes, uint64_t lines, uint64_t *ret_offset, struct err *err)
{
    OWNED(owned_free) char *block = malloc(TAIL_BLOCK_BYTES);
    uint64_t at = size_bytes;
    if (!block)
        return err_set(err, ERR_NOMEM, "no memory for a log's end");
    while (at > 0 && lines > 0) {
        size_t len = at < TAIL_BLOCK_BYTES ? (size_t)at : TAIL_BLOCK_BYTES;
        int status = file_pread_all(fd, block, len, at - len, "log", err);
        if (status < 0)
            return status;
        for (; len > 0; len--, at--)
            if (block[len - 1] == '\n' && at < size_bytes && --lines == 0)
                break;
    }
    *ret_offset = at;
    return 0;
}

static int open_log(struct logs *logs, const char *path, struct err *err)
{
    struct stat st;
    logs->fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (logs->fd < 0 && errno == ENOENT)
        return 0;
    if (logs->fd < 0 || fstat(logs->fd, &st) < 0)
        return err_errno(err, errno, "cannot open the log of container '%s'", logs->id);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_CORRUPT, "the log of container '%s' is not a regular file", logs->id);
    if (logs->tail_lines == UINT64_MAX)
        return 0;
    return find_tail(logs->fd, (uint64_t)st.st_size, logs->tail_lines, &logs->offset, err);
}

static void logs_work(void *arg)
{
    struct logs *logs = arg;
    OWNED(owned_container) struct runtime_container *container = NULL;
    OWNED(owned_free) char *path = NULL;
    struct runtime *runtime = logs->node->runtime;
    int status = runtime_get(runtime, api_request_param(logs->req, "name"), &container, &logs->err);
    if (status < 0)
        return;
    guid_text(&container->id, logs->id);
    status = runtime_log_path(runtime, logs->id, &path, &logs->err);
    if (status == 0)
        open_log(logs, path, &logs->err);
}

static void on_logs_opened(void *arg)
{
    static const struct download_source source = {logs_read, logs_more, logs_free};
    struct logs *logs = arg;
    struct node *node = logs->node;
    if (logs->err.code) {
        api_reply_error(logs->req, &logs->err);
        logs_free(logs);
    } else {
        download_begin(logs->req, node->loop, node->jobs, &source, logs, -1);
    }
}

void handlers_container_logs(void *ctx, struct api_request *req)
{
    struct node *node = ctx;
    struct err err;
    struct logs *logs = calloc(1, sizeof *logs);
    if (!logs) {
        handlers_refuse(req, ERR_NOMEM, "no memory for a log");
        return;
    }
    *logs = (struct logs){.node = node, .req = req, .fd = -1};
    if (handlers_query_flag(req, "follow", &logs->follow, &err) < 0 ||
        api_request_query_u64(req, "tail", UINT64_MAX, INT64_MAX, &logs->tail_lines, &err) < 0) {
        api_reply_error(req, &err);
        logs_free(logs);
        return;
    }
    jobs_submit(&node->jobs, logs_work, on_logs_opened, logs);
}
