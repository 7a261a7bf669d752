/*
 * POST /v1/containers/{name}/migrate: the request of a user, whose container is here or on another node.
 *
 *   find `from` -> find `to` -> here:      migrate_start, its phases and report as they come
 *                            -> elsewhere: ask that node ("move.start") and follow it ("move.wait", handlers_move.c)
 *
 * A client that goes away cancels what it has asked for.
 */
#include "node/handlers.h"

#include <stdlib.h>
#include <string.h>

#define PROGRESS_MS 100
#define POLL_MS 200
#define CALL_PATIENCE_MS 10000

struct moving {
    struct node *node;
    struct api_request *req;       /* NULL once it is answered */
    char *container;               /* owned */
    char *from;                    /* owned; NULL: here */
    char *to;                      /* owned */
    char policy[POLICY_TEXT_SIZE]; /* "": the destination's own */
    struct id source, target;
    struct guid id; /* of the migration, or of what was asked of the source */
    bool started;
    struct move_log log;
    uint64_t told;    /* events of the log that the client has got */
    uint64_t told_ms; /* when the last progress went out */
    uv_timer_t timer; /* data: this; of a container elsewhere */
    bool has_timer;
};

static void free_moving(struct moving *moving)
{
    free(moving->container);
    free(moving->from);
    free(moving->to);
    free(moving);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free_moving(handle->data);
}

static void release(struct moving *moving)
{
    if (moving->has_timer)
        uv_close((uv_handle_t *)&moving->timer, on_timer_closed);
    else
        free_moving(moving);
}

/* Before the stream has begun. */
static void refuse(struct moving *moving, const struct err *err)
{
    api_reply_error(moving->req, err);
    release(moving);
}

/* ---- the stream ---- */

static void tell_phase(struct moving *moving, const struct move_phase *phase, bool always)
{
    json_t *event = move_phase_to_json(phase, API_EVENT_PHASE);
    uint64_t now = clock_mono_ms(&moving->node->clock);
    if (always) {
        api_stream_event(moving->req, event);
    } else if (now >= moving->told_ms + PROGRESS_MS) {
        moving->told_ms = now;
        api_stream_progress(moving->req, event);
    } else {
        json_decref(event);
    }
}

/* The report, also of what has failed, and then the error as the last line. */
static void end(struct moving *moving, const struct err *err, const json_t *report)
{
    json_t *event = report ? json_copy((json_t *)report) : NULL;
    if (event) {
        json_object_set_new(event, "event", json_string(API_EVENT_REPORT));
        api_stream_event(moving->req, event);
    }
    if (err)
        api_stream_error(moving->req, err);
    else
        api_stream_end(moving->req);
    moving->req = NULL;
    release(moving);
}

/* ---- a container of this node ---- */

static void on_phase(void *ctx, const char *phase, uint64_t done_bytes, uint64_t total_bytes, uint64_t rate)
{
    struct moving *moving = ctx;
    bool first = move_log_add(&moving->log, phase, done_bytes, total_bytes, rate);
    tell_phase(moving, move_log_last(&moving->log), first);
}

static void on_moved(void *ctx, const struct err *err, const json_t *report)
{
    end(ctx, err, report);
}

static void on_local_closed(void *ctx, struct api_request *req)
{
    (void)req;
    struct moving *moving = ctx;
    migrate_cancel(moving->node->migrate, &moving->id); /* on_moved ends it */
}

static void start_here(struct moving *moving)
{
    static const struct api_request_ops ops = {.on_closed = on_local_closed};
    const struct migrate_watch watch = {on_phase, on_moved, moving};
    const struct migrate_order order = {moving->container, moving->target, moving->policy[0] ? moving->policy : NULL};
    struct err err;
    if (migrate_start(moving->node->migrate, &order, &watch, &moving->id, &err) < 0) {
        refuse(moving, &err);
        return;
    }
    api_request_watch(moving->req, &ops, moving);
    api_stream_begin(moving->req, API_TYPE_EVENTS);
}

/* ---- a container of another node ---- */

static void ask(struct moving *moving, const char *method, json_t *body, call_reply_cb reply, void *ctx)
{
    char id[GUID_TEXT_SIZE];
    json_object_set_new(body, "id", json_string(guid_text(&moving->id, id)));
    OWNED(owned_free) char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    mesh_call(moving->node->mesh, &moving->source, method, text ? text : "", text ? strlen(text) : 0, CALL_PATIENCE_MS,
              reply, ctx);
}

static void on_poll(uv_timer_t *timer);

static void take_phases(struct moving *moving, const json_t *phases)
{
    size_t i;
    json_t *json;
    struct move_phase phase;
    json_array_foreach(phases, i, json)
    {
        if (!move_phase_from_json(json, &phase) || phase.number <= moving->told)
            continue;
        moving->told = phase.number;
        api_stream_event(moving->req, move_phase_to_json(&phase, API_EVENT_PHASE));
    }
}

static void end_elsewhere(struct moving *moving, const json_t *reply)
{
    struct err err = {0};
    const json_t *failure = json_object_get(reply, "error");
    if (json_is_object(failure)) {
        int code = err_code_of_name(api_json_text(failure, "code"));
        err_set(&err, code ? code : ERR_PROTOCOL, "%s", api_json_text(failure, "message"));
    }
    const json_t *report = json_object_get(reply, "report");
    end(moving, err.code ? &err : NULL, json_is_object(report) ? report : NULL);
}

static void on_waited(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len_bytes)
{
    struct moving *moving = ctx;
    struct err why = status < 0 ? *err : (struct err){0};
    OWNED(owned_json) json_t *reply = NULL;
    if (status == 0)
        status = api_json_parse(data, len_bytes, &reply, &why);
    if (status < 0) {
        err_wrap(&why, "the migration may go on, but the container's node cannot be asked about it");
        end(moving, &why, NULL);
        return;
    }
    take_phases(moving, json_object_get(reply, "phases"));
    if (json_is_true(json_object_get(reply, "done")))
        end_elsewhere(moving, reply);
    else
        uv_timer_start(&moving->timer, on_poll, POLL_MS, 0);
}

static void on_poll(uv_timer_t *timer)
{
    struct moving *moving = timer->data;
    ask(moving, "move.wait", json_pack("{s:I}", "seen", (json_int_t)moving->told), on_waited, moving);
}

static void on_started(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len_bytes)
{
    (void)data;
    (void)len_bytes;
    struct moving *moving = ctx;
    if (status < 0) {
        refuse(moving, err);
        return;
    }
    moving->started = true;
    api_stream_begin(moving->req, API_TYPE_EVENTS);
    on_poll(&moving->timer);
}

static void on_told(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len_bytes)
{
    (void)ctx;
    (void)status;
    (void)err;
    (void)data;
    (void)len_bytes;
}

static void on_remote_closed(void *ctx, struct api_request *req)
{
    struct moving *moving = ctx;
    struct err err;
    mesh_call_cancel(moving->node->mesh, moving);
    ask(moving, "move.cancel", json_object(), on_told, NULL);
    if (moving->started) {
        api_stream_end(req);
    } else {
        err_set(&err, ERR_CANCELLED, "the client went away");
        api_reply_error(req, &err);
    }
    release(moving);
}

static void start_there(struct moving *moving)
{
    static const struct api_request_ops ops = {.on_closed = on_remote_closed};
    char to[ID_HEX_SIZE];
    crypto_random(&moving->id, sizeof moving->id);
    uv_timer_init(moving->node->loop, &moving->timer);
    moving->timer.data = moving;
    moving->has_timer = true;
    api_request_watch(moving->req, &ops, moving);
    ask(moving, "move.start",
        json_pack("{s:s, s:s, s:s*}", "container", moving->container, "to", id_hex(&moving->target, to), "policy",
                  moving->policy[0] ? moving->policy : NULL),
        on_started, moving);
}

/* ---- who is meant ---- */

static void on_target_found(void *ctx, int status, const struct err *err, const struct id *node)
{
    struct moving *moving = ctx;
    struct err gone;
    if (status < 0) {
        refuse(moving, err);
        return;
    }
    if (api_request_is_closed(moving->req)) {
        err_set(&gone, ERR_CANCELLED, "the client went away");
        refuse(moving, &gone);
        return;
    }
    moving->target = *node;
    if (id_equal(&moving->source, mesh_self(moving->node->mesh)))
        start_here(moving);
    else
        start_there(moving);
}

static void on_source_found(void *ctx, int status, const struct err *err, const struct id *node)
{
    struct moving *moving = ctx;
    if (status < 0) {
        refuse(moving, err);
        return;
    }
    moving->source = *node;
    mesh_find(moving->node->mesh, moving->to, on_target_found, moving);
}

static int parse(const json_t *body, struct moving *moving, struct err *err)
{
    const char *to, *from, *text;
    struct policy policy;
    int status = api_json_only(body, "to from policy", err);
    if (status == 0)
        status = api_json_get_str(body, "to", NULL, &to, err);
    if (status == 0)
        status = api_json_get_str(body, "from", NULL, &from, err);
    if (status == 0)
        status = api_json_get_str(body, "policy", NULL, &text, err);
    if (status == 0 && text)
        status = policy_parse(text, &policy, err);
    if (status < 0)
        return status;
    if (text)
        policy_text(&policy, moving->policy);
    if (!to)
        return err_set(err, ERR_INVALID, "the field 'to' is missing: a node's id, the beginning of one, or its name");
    moving->to = strdup(to);
    moving->from = from ? strdup(from) : NULL;
    if (!moving->container || !moving->to || (from && !moving->from))
        return err_set(err, ERR_NOMEM, "no memory for a migration");
    return 0;
}

void handlers_container_migrate(void *ctx, struct api_request *req)
{
    struct node *node = ctx;
    struct err err;
    struct moving *moving = calloc(1, sizeof *moving);
    if (!moving) {
        handlers_refuse(req, ERR_NOMEM, "no memory for a migration");
        return;
    }
    moving->node = node;
    moving->req = req;
    moving->container = strdup(api_request_param(req, "name"));
    if (parse(api_request_body(req), moving, &err) < 0) {
        api_reply_error(req, &err);
        free_moving(moving);
        return;
    }
    if (moving->from) {
        mesh_find(node->mesh, moving->from, on_source_found, moving);
    } else {
        moving->source = *mesh_self(node->mesh);
        mesh_find(node->mesh, moving->to, on_target_found, moving);
    }
}
