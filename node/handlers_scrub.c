/* The scrub: how it stands, and a pass that somebody waits for. */
#include <stdlib.h>

#include "node/handlers.h"
#include "node/mesh/scrub.h"
#include "node/spec.h"

#define TELL_MS 200

static json_t *report(struct node *node, const char *event)
{
    struct scrub_status status;
    char finished[SPEC_TIME_SIZE] = "";
    scrub_get_status(node->scrub, &status);
    const struct store_scrub *store = &status.store;
    if (store->last_finished_ms)
        spec_time(store->last_finished_ms, finished);
    uint64_t total = store->permille ? store->bytes * 1000 / store->permille : 0;
    json_t *json = json_pack(
        "{s:b, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "running", store->started_ms != 0, "passes",
        (json_int_t)store->passes, "last_finished", finished, "last_rotten", (json_int_t)store->last_bad, "done_bytes",
        (json_int_t)store->bytes, "total_bytes", (json_int_t)total, "rotten", (json_int_t)status.rotten, "broken",
        (json_int_t)status.broken, "repaired", (json_int_t)status.repaired, "repairing", (json_int_t)status.repairing);
    if (json && event)
        json_object_set_new(json, "event", json_string(event));
    return json;
}

void handlers_scrub_status(void *ctx, struct api_request *req)
{
    api_reply_json(req, 200, report(ctx, NULL));
}

/* ---- a pass that somebody waits for ---- */

struct pass {
    struct node *node;
    struct api_request *req;
    struct scrub_watch watch;
    uint64_t told_ms;
};

static void on_step(void *ctx, bool is_over, const struct err *why)
{
    struct pass *pass = ctx;
    uint64_t now = clock_mono_ms(&pass->node->clock);
    if (why) {
        api_stream_error(pass->req, why);
        free(pass);
    } else if (is_over) {
        api_stream_event(pass->req, report(pass->node, API_EVENT_RESULT));
        api_stream_end(pass->req);
        free(pass);
    } else if (now >= pass->told_ms + TELL_MS) {
        pass->told_ms = now;
        api_stream_progress(pass->req, report(pass->node, API_EVENT_PROGRESS));
    }
}

/* The pass goes on. */
static void on_closed(void *ctx, struct api_request *req)
{
    OWNED(owned_free) struct pass *pass = ctx;
    scrub_unwatch(&pass->watch);
    api_stream_end(req);
}

void handlers_scrub_start(void *ctx, struct api_request *req)
{
    static const struct api_request_ops ops = {.on_closed = on_closed};
    struct node *node = ctx;
    struct err err;
    if (api_json_only(api_request_body(req), "", &err) < 0) {
        api_reply_error(req, &err);
        return;
    }
    struct pass *pass = malloc(sizeof *pass);
    if (!pass) {
        handlers_refuse(req, ERR_NOMEM, "no memory to wait for a scrub");
        return;
    }
    *pass = (struct pass){.node = node, .req = req, .watch = {.on_step = on_step, .ctx = pass}};
    api_request_watch(req, &ops, pass);
    api_stream_begin(req, API_TYPE_EVENTS);
    scrub_hurry(node->scrub, &pass->watch);
}
