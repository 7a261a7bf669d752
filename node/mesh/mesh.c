#include "node/mesh/mesh.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/mesh/internal.h"

#define HOUSE_MS 500
#define CERTIFICATE_TICKS 120 /* look at ends of certificates, ours and our neighbours' */
#define REVOCATION_TICKS 1200 /* ask the DHT for revocations that we missed */
#define RENEW_TICKS 7200
#define LASTING_MS                                                                                                     \
    10000 /* a link that ends earlier counts as a failure: both sides open it before both have judged                  \
           */

uint64_t mesh_now(const struct mesh *mesh)
{
    return clock_mono_ms(&mesh->config.clock);
}

/* ---- the DHT ---- */

struct dht *mesh_dht(struct mesh *mesh)
{
    return mesh->dht;
}

void mesh_dht_changed(struct mesh *mesh)
{
    overlay_changed(mesh->overlay);
}

static void datagram_out(void *ctx, const struct addr *to, const uint8_t *bytes, size_t len_bytes)
{
    struct mesh *mesh = ctx;
    mesh_send_datagram(mesh, to, bytes, len_bytes);
}

static uint64_t wall_s(const struct mesh *mesh)
{
    return clock_wall_ms(&mesh->config.clock) / 1000;
}

/* ---- links ---- */

static void on_link_up(void *ctx, struct link *link)
{
    struct mesh *mesh = ctx;
    char text[ADDR_TEXT_SIZE], id[ID_SHORT_SIZE];
    if (link_peer(link)->guest)
        return;
    log_info("mesh", "link up node=%s addr=%s", id_short(&link_peer(link)->id, id), addr_text(link_addr(link), text));
    mesh_meet(mesh, &link_peer(link)->id);
    mesh_learn_address(mesh, link);
    mesh_hello(mesh, link);
    mesh_tell_revocations(mesh, link);
    mesh->config.users.on_up(mesh->config.ctx, link);
    mesh_calls_link_up(mesh, link);
}

/* When to dial again. A node that lets us in and then ends it, because it does not want us, is not dialled in a circle.
 */
static void note_end(struct mesh *mesh, const struct link *link)
{
    const struct id *node = &link_peer(link)->id;
    struct acquaintance *known = link_peer(link)->guest ? NULL : mesh_know(mesh, node);
    if (!known || links_find(mesh->links, node))
        return;
    if (mesh_now(mesh) >= link_since_ms(link) + LASTING_MS)
        known->failures = mesh->seed_next = 0;
    mesh_note_failure(mesh, known);
}

static void on_link_down(void *ctx, struct link *link, const char *why)
{
    struct mesh *mesh = ctx;
    char id[ID_SHORT_SIZE];
    if (!link_peer(link)->guest) {
        log_info("mesh", "link down node=%s why=\"%s\"", id_short(&link_peer(link)->id, id), why);
        mesh->config.users.on_down(mesh->config.ctx, link);
    }
    calls_link_down(mesh->calls, link, why);
    note_end(mesh, link);
}

static int on_link_message(void *ctx, struct link *link, uint8_t type, const uint8_t *data, size_t len_bytes,
                           struct err *err)
{
    struct mesh *mesh = ctx;
    if (type == CALL_REQUEST || type == CALL_REPLY)
        return calls_input(mesh->calls, link, type, data, len_bytes, err);
    if (link_peer(link)->guest || type >= SESSION_TYPE_APP)
        return err_set(err, ERR_PROTOCOL, "a message of a type that is not known here");
    return mesh->config.users.on_message(mesh->config.ctx, link, type, data, len_bytes, err);
}

static void on_link_writable(void *ctx, struct link *link)
{
    struct mesh *mesh = ctx;
    if (!link_peer(link)->guest)
        mesh->config.users.on_writable(mesh->config.ctx, link);
}

static void on_dial_failed(void *ctx, const struct addr *addr, const struct id *node, const struct err *err)
{
    struct mesh *mesh = ctx;
    char text[ADDR_TEXT_SIZE];
    log_debug("mesh", "dial failed addr=%s why=\"%s\"", addr_text(addr, text), err->text);
    struct acquaintance *known = node ? mesh_know(mesh, node) : NULL;
    if (known)
        mesh_note_failure(mesh, known);
    if (err->code == ERR_CONFLICT)
        mesh_drop_seed(mesh, addr); /* it leads to this node itself */
}

static void on_call(void *ctx, struct link *link, const char *method, const uint8_t *data, size_t len_bytes,
                    struct call_request *request)
{
    struct mesh *mesh = ctx;
    struct err err;
    if (strcmp(method, "admit") == 0) {
        mesh_answer_admit(mesh, link, data, len_bytes, request);
    } else if (link_peer(link)->guest) {
        err_set(&err, ERR_DENIED, "guests may only ask to be admitted");
        call_refuse(request, &err);
    } else if (strcmp(method, "hello") == 0) {
        mesh_answer_hello(mesh, link, data, len_bytes, request);
    } else if (strcmp(method, "revocation") == 0) {
        mesh_answer_revocation(mesh, link, data, len_bytes, request);
    } else {
        mesh->config.users.on_request(mesh->config.ctx, link, method, data, len_bytes, request);
    }
}

struct link *mesh_link(struct mesh *mesh, const struct id *node)
{
    return links_find(mesh->links, node);
}

struct each_link {
    links_each_cb each;
    void *ctx;
};

static void if_member(void *ctx, struct link *link)
{
    struct each_link *each = ctx;
    if (!link_peer(link)->guest)
        each->each(each->ctx, link);
}

void mesh_each_link(struct mesh *mesh, links_each_cb each, void *ctx)
{
    struct each_link members = {each, ctx};
    links_each(mesh->links, if_member, &members);
}

/* ---- neighbours ---- */

static bool dial_contact(void *ctx, const struct dht_contact *contact, unsigned rtt_ms, uint64_t heard_ms)
{
    struct mesh *mesh = ctx;
    (void)rtt_ms;
    (void)heard_ms;
    if (links_count(mesh->links) + links_dials(mesh->links) >= MESH_MAX_NEIGHBOURS)
        return false;
    if (!links_find(mesh->links, &contact->id))
        mesh_connect(mesh, &contact->id, &contact->addr);
    return true;
}

/* Links to the nodes that the DHT knows; through a seed when nobody is known. */
static void seek_neighbours(struct mesh *mesh)
{
    dht_contacts(mesh->dht, dial_contact, mesh);
    const struct addr *seed = links_count(mesh->links) == 0 ? mesh_next_seed(mesh) : NULL;
    struct err err;
    if (seed && links_dial(mesh->links, seed, NULL, &err) < 0)
        log_debug("mesh", "cannot dial a seed why=\"%s\"", err.text);
}

static bool stop_at_first(void *ctx, const struct dht_contact *contact, unsigned rtt_ms, uint64_t heard_ms)
{
    (void)contact;
    (void)rtt_ms;
    (void)heard_ms;
    *(bool *)ctx = true;
    return false;
}

bool mesh_is_settled(const struct mesh *mesh)
{
    bool contacts = false;
    dht_contacts(mesh->dht, stop_at_first, &contacts);
    return links_count(mesh->links) > 0 || (!contacts && mesh->seed_count == 0 && mesh->met_count == 0);
}

static void check_certificate(void *ctx, struct link *link)
{
    struct mesh *mesh = ctx;
    const struct identity_peer *peer = link_peer(link);
    if (!peer->guest &&
        (peer->expires_s + IDENTITY_GRACE_S <= wall_s(mesh) || identity_is_revoked(mesh->config.identity, &peer->id)))
        link_close(link, SESSION_REASON_REVOKED);
}

static void on_house_timer(uv_timer_t *timer)
{
    struct mesh *mesh = timer->data;
    uint64_t tick = mesh->ticks++;
    calls_tick(mesh->calls);
    mesh_calls_tick(mesh);
    records_flush(mesh->records);
    seek_neighbours(mesh);
    if (tick % CERTIFICATE_TICKS == 0)
        links_each(mesh->links, check_certificate, mesh);
    if (tick % REVOCATION_TICKS == REVOCATION_TICKS / 100)
        mesh_ask_revocations(mesh);
    if (tick % RENEW_TICKS == RENEW_TICKS / 100)
        mesh_renew(mesh);
    overlay_tick(mesh->overlay);
}

/* ---- beginning and end ---- */

static int make_links(struct mesh *mesh, struct err *err)
{
    struct links_config config = {.loop = mesh->config.loop,
                                  .identity = mesh->config.identity,
                                  .clock = mesh->config.clock,
                                  .on_up = on_link_up,
                                  .on_down = on_link_down,
                                  .on_message = on_link_message,
                                  .on_writable = on_link_writable,
                                  .on_dial_failed = on_dial_failed,
                                  .ctx = mesh};
    int status = links_new(&config, &mesh->links, err);
    if (status == 0)
        status = calls_new(mesh->config.clock, on_call, mesh, &mesh->calls, err);
    if (status == 0)
        status = timers_new(mesh->config.loop, &mesh->timers, err);
    return status < 0 ? status : admission_guard_new(&mesh->guard, err);
}

/* Higher at each start, also when the clock was set back: the last one is kept in the store. */
static int next_boot_stamp(struct mesh *mesh, uint64_t *ret_stamp, struct err *err)
{
    static const char key[] = "boot-stamp";
    OWNED(buf_release) struct buf kept = BUF(64);
    int status = store_table_get(mesh->config.store, "mesh", key, sizeof key, &kept, err);
    if (status < 0)
        return status;
    uint64_t stamp = clock_wall_ms(&mesh->config.clock);
    uint64_t last = kept.len == 8 ? wire_load_u64(kept.data) : 0;
    if (stamp <= last)
        stamp = last + 1;
    uint8_t bytes[8];
    wire_store_u64(bytes, stamp);
    *ret_stamp = stamp;
    /* On a full disk the node must start, so that something can be removed; the clock is good enough for once. */
    struct err why;
    if (store_table_put(mesh->config.store, "mesh", key, sizeof key, bytes, sizeof bytes, &why) < 0)
        log_warn("mesh", "the time of this start was not kept why=\"%s\"", why.text);
    return 0;
}

static int make_dht(struct mesh *mesh, struct err *err)
{
    struct overlay_config config = {.loop = mesh->config.loop,
                                    .identity = mesh->config.identity,
                                    .clock = mesh->config.clock,
                                    .address = mesh->address,
                                    .records_max = mesh->config.dht_records,
                                    .block_contacts = mesh->config.block_contacts,
                                    .send = datagram_out,
                                    .ctx = mesh};
    int status = next_boot_stamp(mesh, &config.boot_stamp, err);
    if (status == 0)
        status = records_new(mesh->config.store, mesh->config.jobs, &mesh->records, err);
    if (status < 0)
        return status;
    config.storage = records_storage(mesh->records);
    status = overlay_new(&config, &mesh->overlay, err);
    if (status < 0)
        return status;
    mesh->dht = overlay_dht(mesh->overlay);
    struct err lost;
    if (dht_restore(mesh->dht, mesh_now(mesh), &lost) < 0)
        log_warn("mesh", "contacts of an earlier life are lost why=\"%s\"", lost.text);
    mesh_apply_revocations(mesh);
    return 0;
}

static void start_timers(struct mesh *mesh)
{
    uv_timer_init(mesh->config.loop, &mesh->house_timer);
    mesh->house_timer.data = mesh;
    mesh->open_handles = 1;
    uv_timer_start(&mesh->house_timer, on_house_timer, 10, HOUSE_MS);
}

int mesh_new(const struct mesh_config *config, struct mesh **ret_mesh, struct err *err)
{
    struct mesh *mesh = calloc(1, sizeof *mesh);
    if (!mesh)
        return err_set(err, ERR_NOMEM, "no memory for the mesh");
    mesh->config = *config;
    mesh->address = config->advertise;
    snprintf(mesh->name, sizeof mesh->name, "%s", config->name);
    TAILQ_INIT(&mesh->outcalls);
    TAILQ_INIT(&mesh->findings);
    struct rng rng = rng_system();
    map_init(&mesh->acquaintances, MESH_MAX_ACQUAINTANCES, rng_u64(&rng));
    start_timers(mesh);
    int status = make_links(mesh, err);
    if (status == 0)
        status = mesh_listen(mesh, err);
    if (status == 0)
        status = make_dht(mesh, err);
    if (status < 0) {
        mesh_close(mesh);
        while (!mesh_closed(mesh))
            uv_run(config->loop, UV_RUN_ONCE);
        mesh_free(mesh);
        return status;
    }
    mesh_load_seeds(mesh);
    mesh_publish_name(mesh);
    mesh_dht_changed(mesh);
    *ret_mesh = mesh;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct mesh *mesh = handle->data;
    mesh->open_handles--;
}

void mesh_close(struct mesh *mesh)
{
    if (mesh->closing)
        return;
    mesh->closing = true;
    if (mesh->overlay && dht_save(mesh->dht, NULL) < 0)
        log_warn("mesh", "the DHT's contacts were not saved");
    if (mesh->overlay) {
        dht_leave(mesh->dht, mesh_now(mesh));
        overlay_close(mesh->overlay);
    }
    if (mesh->records)
        records_close(mesh->records);
    if (mesh->links)
        links_close(mesh->links, SESSION_REASON_SHUTDOWN);
    mesh_calls_close(mesh);
    mesh_end_finds(mesh);
    if (mesh->timers)
        timers_close(mesh->timers);
    mesh_unlisten(mesh);
    uv_close((uv_handle_t *)&mesh->house_timer, on_closed);
}

bool mesh_closed(const struct mesh *mesh)
{
    return mesh->closing && mesh->open_handles == 0 && !mesh->keeping &&
           (!mesh->overlay || overlay_closed(mesh->overlay)) && (!mesh->links || links_closed(mesh->links)) &&
           (!mesh->timers || timers_closed(mesh->timers)) && (!mesh->records || records_clean(mesh->records));
}

void mesh_free(struct mesh *mesh)
{
    if (!mesh)
        return;
    overlay_free(mesh->overlay);
    records_free(mesh->records);
    calls_free(mesh->calls);
    timers_free(mesh->timers);
    links_free(mesh->links);
    admission_guard_free(mesh->guard);
    mesh_forget_all(mesh);
    free(mesh);
}
