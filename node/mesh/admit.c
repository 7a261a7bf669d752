#include <stdlib.h>
#include <string.h>

#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/mesh/internal.h"

#define TELL_TIMEOUT_MS 10000
#define RENEW_TIMEOUT_MS 10000

static uint64_t wall_seconds(const struct mesh *mesh)
{
    return clock_wall_ms(&mesh->config.clock) / 1000;
}

/* ---- newcomers, and members who renew ---- */

void mesh_answer_admit(struct mesh *mesh, struct link *link, const uint8_t *data, size_t len_bytes,
                       struct call_request *request)
{
    OWNED(buf_release) struct buf hints = BUF(ADDR_WIRE_BYTES);
    OWNED(buf_release) struct buf reply = BUF(LIMIT_CONTROL_BYTES);
    if (mesh->address.family)
        addr_put(&hints, &mesh->address);
    struct admission admission = {.peer = *link_peer(link),
                                  .remote_static = link_remote_static(link),
                                  .source = *link_addr(link),
                                  .wall_s = wall_seconds(mesh),
                                  .now_ms = mesh_now(mesh),
                                  .hints = hints.data,
                                  .hints_len = hints.len};
    struct admission_result result;
    char why[IDENTITY_WHY_SIZE] = "", id[ID_SHORT_SIZE], addr[ADDR_TEXT_SIZE];
    struct err err;
    if (admission_answer(mesh->config.identity, mesh->guard, &admission, data, len_bytes, &reply, &result, why, &err) <
        0)
        log_warn("mesh", "not admitted from=%s why=\"%s\"", addr_text(link_addr(link), addr), why);
    else
        log_info("mesh", "admitted node=%s name=%s", id_short(&result.id, id), result.name);
    call_reply(request, reply.data, reply.len);
}

static void on_renewed(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len_bytes)
{
    struct mesh *mesh = ctx;
    struct err failure;
    const uint8_t *hints;
    size_t hints_len;
    if (status == 0)
        status =
            admission_accept(mesh->config.identity, data, len_bytes, wall_seconds(mesh), &hints, &hints_len, &failure);
    else
        failure = *err;
    if (status < 0)
        log_warn("mesh", "the certificate was not renewed, will be tried again why=\"%s\"", failure.text);
    else
        log_info("mesh", "the certificate was renewed");
}

struct renewing {
    struct mesh *mesh;
    struct buf *request;
    bool asked;
};

static void ask_to_renew(void *ctx, struct link *link)
{
    struct renewing *renewing = ctx;
    if (renewing->asked || !(link_peer(link)->rights & RIGHT_ADMIT))
        return;
    renewing->asked = calls_send(renewing->mesh->calls, link, "admit", renewing->request->data, renewing->request->len,
                                 RENEW_TIMEOUT_MS, on_renewed, renewing->mesh, NULL) == 0;
}

void mesh_renew(struct mesh *mesh)
{
    struct identity *identity = mesh->config.identity;
    struct err err;
    if (!identity_should_renew(identity, wall_seconds(mesh)))
        return;
    if (identity_has_root(identity)) {
        if (identity_renew_from_root(identity, wall_seconds(mesh), &err) < 0)
            log_warn("mesh", "the certificate was not renewed why=\"%s\"", err.text);
        return;
    }
    OWNED(buf_release) struct buf request = BUF(LIMIT_CONTROL_BYTES);
    if (admission_renewal_request(identity, &request, &err) < 0) {
        log_warn("mesh", "the certificate cannot be renewed why=\"%s\"", err.text);
        return;
    }
    struct renewing renewing = {.mesh = mesh, .request = &request};
    mesh_each_link(mesh, ask_to_renew, &renewing);
}

/* ---- revocations: told on every link at its start and when they are new, and kept in the DHT for who was away ---- */

static void on_told(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len_bytes)
{
    (void)ctx;
    (void)data;
    (void)len_bytes;
    if (status < 0)
        log_debug("mesh", "a revocation was not taken why=\"%s\"", err->text);
}

struct telling {
    struct mesh *mesh;
    const uint8_t *record;
    size_t len;
};

static void tell(void *ctx, struct link *link)
{
    struct telling *telling = ctx;
    calls_send(telling->mesh->calls, link, "revocation", telling->record, telling->len, TELL_TIMEOUT_MS, on_told,
               telling->mesh, NULL);
}

void mesh_tell_revocations(struct mesh *mesh, struct link *link)
{
    for (size_t i = 0; i < identity_revocation_count(mesh->config.identity); i++) {
        struct telling telling = {.mesh = mesh};
        telling.record = identity_revocation_at(mesh->config.identity, i, &telling.len);
        tell(&telling, link);
    }
}

/* All of them are members of one set, each with itself as its name and the same version wherever it is said. */
static void publish_revocation(struct mesh *mesh, const uint8_t *record, size_t len)
{
    struct id key = dht_key(DHT_REVOCATION, identity_cluster(mesh->config.identity)->b, ID_BYTES);
    struct dht_member member = {.name = record, .name_len = len, .version = {.counter = 1}};
    struct err err;
    if (len > DHT_DATA_MAX_BYTES)
        return; /* sessions carry it all the same */
    if (dht_write(mesh->dht, mesh_now(mesh), &key, DHT_REVOCATION, &member, &err) < 0)
        log_debug("mesh", "a revocation was not published why=\"%s\"", err.text);
    mesh_dht_changed(mesh);
}

/* Cut a node off and pass the word on. */
static void cut_off(struct mesh *mesh, const struct id *node, const uint8_t *record, size_t len)
{
    char id[ID_SHORT_SIZE];
    log_warn("mesh", "revoked node=%s", id_short(node, id));
    links_cut(mesh->links, node, SESSION_REASON_REVOKED);
    overlay_forget(mesh->overlay, node);
    struct telling telling = {mesh, record, len};
    mesh_each_link(mesh, tell, &telling);
    publish_revocation(mesh, record, len);
}

void mesh_apply_revocations(struct mesh *mesh)
{
    struct identity *identity = mesh->config.identity;
    for (size_t i = 0; i < identity_revocation_count(identity); i++) {
        size_t len;
        struct id node;
        const uint8_t *record = identity_revocation_at(identity, i, &len);
        if (identity_add_revocation(identity, record, len, &node, NULL) < 0) /* known: tells whose it is */
            continue;
        dht_forget(mesh->dht, &node, NULL);
        publish_revocation(mesh, record, len);
    }
}

static int take_revocation(struct mesh *mesh, const uint8_t *record, size_t len, struct err *err)
{
    struct id node;
    int fresh = identity_add_revocation(mesh->config.identity, record, len, &node, err);
    if (fresh > 0)
        cut_off(mesh, &node, record, len);
    return fresh;
}

void mesh_answer_revocation(struct mesh *mesh, struct link *link, const uint8_t *data, size_t len_bytes,
                            struct call_request *request)
{
    struct err err;
    (void)link;
    if (take_revocation(mesh, data, len_bytes, &err) < 0)
        call_refuse(request, &err);
    else
        call_reply(request, NULL, 0);
}

static bool is_among(const struct dht_found *found, size_t count, const uint8_t *record, size_t len)
{
    for (size_t i = 0; i < count; i++)
        if (found[i].record.data_len == len && memcmp(found[i].record.data, record, len) == 0)
            return true;
    return false;
}

/* What the DHT has lost, because who said it last is gone for a week, is said again. */
static void on_revocations(void *ctx, const struct dht_found *found, size_t count)
{
    struct mesh *mesh = ctx;
    for (size_t i = 0; i < count; i++)
        take_revocation(mesh, found[i].record.data, found[i].record.data_len, NULL);
    for (size_t i = 0; i < identity_revocation_count(mesh->config.identity); i++) {
        size_t len;
        const uint8_t *record = identity_revocation_at(mesh->config.identity, i, &len);
        if (!is_among(found, count, record, len))
            publish_revocation(mesh, record, len);
    }
}

void mesh_ask_revocations(struct mesh *mesh)
{
    struct id key = dht_key(DHT_REVOCATION, identity_cluster(mesh->config.identity)->b, ID_BYTES);
    struct dht_get_options options = {.limit = LIMIT_DHT_GET_RECORDS, .order = DHT_BY_VERSION};
    struct err err;
    if (dht_get(mesh->dht, mesh_now(mesh), &key, &options, on_revocations, mesh, NULL, &err) < 0)
        log_debug("mesh", "cannot ask for revocations why=\"%s\"", err.text);
}

struct chain_of {
    const struct id *node;
    const uint8_t *chain;
    size_t len;
};

static void find_chain(void *ctx, struct link *link)
{
    struct chain_of *wanted = ctx;
    if (id_equal(&link_peer(link)->id, wanted->node))
        wanted->chain = link_chain(link, &wanted->len);
}

int mesh_revoke(struct mesh *mesh, const struct id *node, struct err *err)
{
    OWNED(buf_release) struct buf record = BUF(LIMIT_CONTROL_BYTES);
    struct chain_of wanted = {.node = node};
    mesh_each_link(mesh, find_chain, &wanted);
    int status =
        identity_revoke(mesh->config.identity, node, wanted.chain, wanted.len, wall_seconds(mesh), &record, err);
    if (status == 0)
        cut_off(mesh, node, record.data, record.len);
    return status;
}
