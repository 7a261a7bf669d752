#include <stdlib.h>
#include <string.h>

#include "node/mesh/internal.h"

#define DIAL_AGAIN_MS 2000

/* A call that is tried until its patience ends: sent when a link is up, and again if the link ends before the answer.
 */
struct outcall {
    TAILQ_ENTRY(outcall)
    entry;
    struct mesh *mesh;
    struct id node;
    char method[CALL_METHOD_MAX + 1];
    uint8_t *data; /* owned */
    size_t len;
    uint64_t deadline_ms;
    bool sent; /* and not answered */
    call_reply_cb reply;
    void *ctx;
    struct err last; /* why it was not answered yet */
};

static void outcall_free(struct outcall *outcall)
{
    free(outcall->data);
    free(outcall);
}

/* The callback may cancel, call, and ask what it likes: the call is out of the list before. */
static void finish(struct outcall *outcall, const struct err *err, const uint8_t *data, size_t len)
{
    TAILQ_REMOVE(&outcall->mesh->outcalls, outcall, entry);
    outcall->reply(outcall->ctx, err ? err->code : 0, err, data, len);
    outcall_free(outcall);
}

static void on_reply(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len_bytes)
{
    struct outcall *outcall = ctx;
    outcall->sent = false;
    if (status == ERR_CLOSED && (mesh_now(outcall->mesh) < outcall->deadline_ms || outcall->mesh->closing))
        outcall->last = *err; /* the next tick dials again, or mesh_calls_close ends it */
    else
        finish(outcall, status < 0 ? err : NULL, data, len_bytes);
}

/* Somebody waits: the back-off is short. */
static void dial(struct mesh *mesh, const struct id *node)
{
    struct acquaintance *known = mesh_know(mesh, node);
    uint64_t latest = mesh_now(mesh) + DIAL_AGAIN_MS;
    if (known && known->dial_after_ms > latest)
        known->dial_after_ms = latest;
    mesh_connect(mesh, node, NULL);
}

/* Calls nobody back. */
static void try_send(struct outcall *outcall)
{
    struct mesh *mesh = outcall->mesh;
    uint64_t now = mesh_now(mesh);
    struct link *link = links_find(mesh->links, &outcall->node);
    if (!link) {
        dial(mesh, &outcall->node);
        return;
    }
    uint64_t left = outcall->deadline_ms > now ? outcall->deadline_ms - now : 1;
    outcall->sent = true;
    if (calls_send(mesh->calls, link, outcall->method, outcall->data, outcall->len, left, on_reply, outcall,
                   &outcall->last) < 0)
        outcall->sent = false;
}

void mesh_call(struct mesh *mesh, const struct id *node, const char *method, const void *data, size_t len_bytes,
               uint64_t patience_ms, call_reply_cb reply, void *ctx)
{
    if (mesh->closing)
        return;
    struct outcall *outcall = calloc(1, sizeof *outcall);
    uint8_t *copy = malloc(len_bytes ? len_bytes : 1);
    if (!outcall || !copy)
        abort(); /* the contract is one callback */
    if (len_bytes > 0)
        memcpy(copy, data, len_bytes);
    *outcall = (struct outcall){.mesh = mesh,
                                .node = *node,
                                .data = copy,
                                .len = len_bytes,
                                .deadline_ms = mesh_now(mesh) + patience_ms,
                                .reply = reply,
                                .ctx = ctx};
    snprintf(outcall->method, sizeof outcall->method, "%s", method);
    struct acquaintance *known = mesh_know(mesh, node);
    if (known)
        known->dial_after_ms = 0; /* somebody waits: no back-off for the first try */
    TAILQ_INSERT_TAIL(&mesh->outcalls, outcall, entry);
    try_send(outcall);
}

void mesh_call_cancel(struct mesh *mesh, const void *ctx)
{
    struct outcall *outcall, *next;
    for (outcall = TAILQ_FIRST(&mesh->outcalls); outcall; outcall = next) {
        next = TAILQ_NEXT(outcall, entry);
        if (outcall->ctx == ctx) {
            calls_cancel(mesh->calls, outcall);
            TAILQ_REMOVE(&mesh->outcalls, outcall, entry);
            outcall_free(outcall);
        }
    }
}

void mesh_calls_tick(struct mesh *mesh)
{
    uint64_t now = mesh_now(mesh);
    for (;;) {
        struct outcall *late;
        TAILQ_FOREACH (late, &mesh->outcalls, entry)
            if (!late->sent && now >= late->deadline_ms)
                break;
        if (!late)
            break;
        char text[128];
        struct err err;
        err_set(&err, ERR_UNAVAILABLE, "no link to %s comes up%s%s",
                mesh_describe(mesh, &late->node, text, sizeof text), late->last.code ? ": " : "", late->last.text);
        finish(late, &err, NULL, 0);
    }
    struct outcall *outcall;
    TAILQ_FOREACH (outcall, &mesh->outcalls, entry)
        if (!outcall->sent)
            try_send(outcall);
}

void mesh_calls_link_up(struct mesh *mesh, struct link *link)
{
    struct outcall *outcall;
    TAILQ_FOREACH (outcall, &mesh->outcalls, entry)
        if (!outcall->sent && id_equal(&outcall->node, &link_peer(link)->id))
            try_send(outcall);
}

void mesh_calls_close(struct mesh *mesh)
{
    struct outcall *outcall;
    struct err err;
    err_set(&err, ERR_CANCELLED, "the node stops");
    while ((outcall = TAILQ_FIRST(&mesh->outcalls))) {
        calls_cancel(mesh->calls, outcall);
        finish(outcall, &err, NULL, 0);
    }
}
