#include <stdlib.h>
#include <string.h>

#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/mesh/internal.h"
#include "node/net/sock.h"

#define HELLO_TIMEOUT_MS 5000
#define FIND_TIMEOUT_MS 3000
#define MIN_PREFIX 6
#define SEEMS_GONE_FAILURES 2
#define DIAL_BACKOFF_MS 1000
#define DIAL_BACKOFF_MAX_MS 60000

/* ---- acquaintances ---- */

struct acquaintance *mesh_know(const struct mesh *mesh, const struct id *id)
{
    return map_get(&mesh->acquaintances, id);
}

/* Make room: one that there is no link to and no question about is the least missed. */
static void forget_one(struct mesh *mesh)
{
    size_t cursor = 0;
    struct id id;
    void *value;
    while (map_next(&mesh->acquaintances, &cursor, &id, &value)) {
        const struct acquaintance *known = value;
        if (known->locating || links_find(mesh->links, &id))
            continue;
        free(map_remove(&mesh->acquaintances, &id));
        return;
    }
}

void mesh_forget_all(struct mesh *mesh)
{
    size_t cursor = 0;
    void *value;
    while (map_next(&mesh->acquaintances, &cursor, NULL, &value)) {
        struct acquaintance *known = value;
        free(known->locating);
        free(known);
    }
    map_release(&mesh->acquaintances);
}

struct acquaintance *mesh_meet(struct mesh *mesh, const struct id *id)
{
    struct acquaintance *known = mesh_know(mesh, id);
    if (known)
        return known;
    if (mesh->acquaintances.count >= MESH_MAX_ACQUAINTANCES)
        forget_one(mesh);
    known = calloc(1, sizeof *known);
    if (!known)
        return NULL;
    known->id = *id;
    if (map_set(&mesh->acquaintances, id, known) < 0) {
        free(known);
        return NULL;
    }
    return known;
}

const struct id *mesh_self(const struct mesh *mesh)
{
    return identity_id(mesh->config.identity);
}

struct addr mesh_address(const struct mesh *mesh)
{
    return mesh->address;
}

struct addr mesh_address_of(const struct mesh *mesh, const struct id *node)
{
    const struct acquaintance *known = mesh_know(mesh, node);
    return known ? known->addr : (struct addr){0};
}

const char *mesh_name_of(const struct mesh *mesh, const struct id *node)
{
    if (id_equal(node, mesh_self(mesh)))
        return mesh->name;
    const struct acquaintance *known = mesh_know(mesh, node);
    return known ? known->name : "";
}

const char *mesh_describe(const struct mesh *mesh, const struct id *node, char *text, size_t text_size)
{
    char id[ID_SHORT_SIZE];
    const char *name = mesh_name_of(mesh, node);
    if (*name)
        snprintf(text, text_size, "%s (%s)", name, id_short(node, id));
    else
        snprintf(text, text_size, "%s", id_short(node, id));
    return text;
}

/* ---- our own address, as the routing table shows it to a peer ---- */

/* Is the address that others are told worth less than this one? A machine may move from network to network. */
static bool is_better(const struct addr *old, const struct addr *fresh)
{
    if (!addr_is_usable(fresh) || addr_equal(old, fresh))
        return false;
    return !old->family || (addr_is_loopback(old) && !addr_is_loopback(fresh)) || !sock_is_local(old);
}

void mesh_learn_address(struct mesh *mesh, const struct link *link)
{
    struct addr local;
    if (mesh->address_is_fixed || sock_local_towards(link_addr(link), &local, NULL) < 0)
        return;
    local.port = links_port(mesh->links, 0);
    if (!is_better(&mesh->address, &local))
        return;
    char text[ADDR_TEXT_SIZE];
    log_info("mesh", "others reach this node at addr=%s", addr_text(&local, text));
    mesh->address = local;
    dht_set_address(mesh->dht, mesh_now(mesh), &local);
    mesh_dht_changed(mesh);
}

/* ---- hello: name and address, both ways. Name u16 + bytes, port u16, then an address where one is advertised ---- */

static void put_hello(struct mesh *mesh, struct buf *buf)
{
    wire_put_short(buf, mesh->name, strlen(mesh->name));
    wire_put_u16(buf, links_port(mesh->links, 0));
    if (mesh->config.advertise.family)
        addr_put(buf, &mesh->config.advertise);
}

/* What a hello says is believed for the node that says it: its session proved who it is. */
static int take_hello(struct mesh *mesh, struct link *link, const uint8_t *data, size_t len_bytes)
{
    struct wire in;
    size_t name_len;
    wire_init(&in, data, len_bytes);
    const uint8_t *name = wire_get_short(&in, NAME_MAX_BYTES, &name_len);
    struct addr addr = *link_addr(link);
    addr.port = wire_get_u16(&in);
    if (!in.failed && wire_left(&in) > 0)
        addr = addr_get(&in);
    struct acquaintance *known = mesh_meet(mesh, &link_peer(link)->id);
    if (!wire_done(&in))
        return ERR_PROTOCOL;
    if (!known)
        return 0;
    char text[NAME_MAX_BYTES + 1];
    memcpy(text, name, name_len);
    text[name_len] = '\0';
    if (strlen(text) == name_len && name_is_valid(text))
        memcpy(known->name, text, name_len + 1);
    if (!addr_is_usable(&addr))
        return 0;
    known->addr = addr;
    mesh_keep_seed(mesh, &addr);
    struct dht_contact contact = dht_contact_of(link_peer(link)->public_key, &addr);
    dht_add_contact(mesh->dht, mesh_now(mesh), &contact);
    mesh_dht_changed(mesh);
    return 0;
}

struct greeting {
    struct mesh *mesh;
    struct id node;
};

static void on_hello_reply(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len_bytes)
{
    struct greeting *greeting = ctx;
    (void)err;
    struct link *link = links_find(greeting->mesh->links, &greeting->node);
    if (status == 0 && link)
        take_hello(greeting->mesh, link, data, len_bytes);
    free(greeting);
}

void mesh_hello(struct mesh *mesh, struct link *link)
{
    OWNED(buf_release) struct buf hello = BUF(1024);
    struct greeting *greeting = malloc(sizeof *greeting);
    put_hello(mesh, &hello);
    if (!greeting || hello.failed) {
        free(greeting);
        return;
    }
    *greeting = (struct greeting){mesh, link_peer(link)->id};
    if (calls_send(mesh->calls, link, "hello", hello.data, hello.len, HELLO_TIMEOUT_MS, on_hello_reply, greeting,
                   NULL) < 0)
        free(greeting);
}

void mesh_answer_hello(struct mesh *mesh, struct link *link, const uint8_t *data, size_t len_bytes,
                       struct call_request *request)
{
    OWNED(buf_release) struct buf hello = BUF(1024);
    struct err err;
    put_hello(mesh, &hello);
    if (take_hello(mesh, link, data, len_bytes) < 0 || hello.failed) {
        err_set(&err, ERR_PROTOCOL, "the hello is malformed");
        call_refuse(request, &err);
    } else {
        call_reply(request, hello.data, hello.len);
    }
}

/* ---- dialling by id ---- */

struct locating {
    struct mesh *mesh;
    struct id node;
};

static void on_lease(void *ctx, const struct dht_found *found, size_t count)
{
    OWNED(owned_free) struct locating *locating = ctx;
    struct acquaintance *known = mesh_know(locating->mesh, &locating->node);
    if (known)
        known->locating = NULL;
    if (count > 0 && found[0].contact.addr.family)
        mesh_connect(locating->mesh, &locating->node, &found[0].contact.addr);
}

static void ask_for_address(struct mesh *mesh, struct acquaintance *known)
{
    struct locating *locating = known->locating ? NULL : malloc(sizeof *locating);
    if (!locating)
        return;
    *locating = (struct locating){mesh, known->id};
    struct id key = dht_key(DHT_NODE, known->id.b, ID_BYTES);
    struct dht_get_options options = {.limit = 1, .want_lease = true, .timeout_ms = FIND_TIMEOUT_MS};
    known->locating = locating;
    if (dht_get(mesh->dht, mesh_now(mesh), &key, &options, on_lease, locating, NULL, NULL) < 0)
        free(STEAL(known->locating));
    mesh_dht_changed(mesh);
}

void mesh_note_failure(struct mesh *mesh, struct acquaintance *known)
{
    struct rng rng = rng_system();
    uint64_t pause = (uint64_t)DIAL_BACKOFF_MS << (known->failures < 6 ? known->failures : 6);
    if (pause > DIAL_BACKOFF_MAX_MS)
        pause = DIAL_BACKOFF_MAX_MS;
    known->failures++;
    known->dial_after_ms = mesh_now(mesh) + pause / 2 + rng_below(&rng, pause); /* jitter: no storm after a restart */
}

void mesh_connect(struct mesh *mesh, const struct id *node, const struct addr *addr)
{
    if (mesh->closing || id_equal(node, mesh_self(mesh)) || identity_is_revoked(mesh->config.identity, node) ||
        links_find(mesh->links, node) || links_dialling(mesh->links, node))
        return;
    struct acquaintance *known = mesh_meet(mesh, node);
    if (!known || mesh_now(mesh) < known->dial_after_ms)
        return;
    if (addr && addr->family)
        known->addr = *addr;
    struct err err;
    if (known->addr.family && links_dial(mesh->links, &known->addr, node, &err) < 0) {
        log_debug("mesh", "cannot dial why=\"%s\"", err.text);
        mesh_note_failure(mesh, known);
    }
    if (!known->addr.family || known->failures > 1)
        ask_for_address(mesh, known); /* it may have moved */
}

/* ---- finding by name ---- */

static struct id name_key(const char *name)
{
    char text[5 + NAME_MAX_BYTES + 1];
    int len = snprintf(text, sizeof text, "node:%s", name);
    return dht_key(DHT_ROUTE, text, (size_t)len);
}

void mesh_publish_name(struct mesh *mesh)
{
    struct id key = name_key(mesh->name);
    struct dht_value value = {0};
    struct err err;
    if (name_is_valid(mesh->name) && dht_publish(mesh->dht, mesh_now(mesh), &key, DHT_ROUTE, &value, &err) < 0)
        log_warn("mesh", "the node's name was not published why=\"%s\"", err.text);
}

struct finding {
    TAILQ_ENTRY(finding)
    entry;
    struct mesh *mesh;
    mesh_find_cb found;
    void *ctx;
    char text[ID_HEX_SIZE + NAME_MAX_BYTES];
    unsigned matches;
    struct id match;
    uint64_t request; /* the DHT's; 0: none */
    struct err err;
};

static void finish_find(struct finding *finding)
{
    if (finding->matches == 0 && !finding->err.code)
        err_set(&finding->err, ERR_NOTFOUND, "no node is known by '%s': see 'cmig peers' for names and ids",
                finding->text);
    if (finding->matches > 1)
        err_set(&finding->err, ERR_CONFLICT, "several nodes fit '%s': give more digits of the id", finding->text);
    bool ok = finding->err.code == 0;
    TAILQ_REMOVE(&finding->mesh->findings, finding, entry);
    finding->found(finding->ctx, finding->err.code, ok ? NULL : &finding->err, ok ? &finding->match : NULL);
    free(finding);
}

static void finish_find_later(void *ctx)
{
    finish_find(ctx);
}

void mesh_end_finds(struct mesh *mesh)
{
    struct finding *finding;
    while ((finding = TAILQ_FIRST(&mesh->findings))) {
        dht_cancel(mesh->dht, finding->request);
        err_set(&finding->err, ERR_CANCELLED, "the node stops");
        finish_find(finding);
    }
}

static void note_match(struct finding *finding, const struct id *id)
{
    if (finding->matches > 0 && id_equal(&finding->match, id))
        return;
    finding->match = *id;
    finding->matches++;
}

static void match_acquaintances(struct finding *finding)
{
    struct mesh *mesh = finding->mesh;
    size_t len = strlen(finding->text);
    char hex[ID_HEX_SIZE];
    size_t cursor = 0;
    struct id id = *mesh_self(mesh);
    void *value = NULL;
    do {
        const char *name = mesh_name_of(mesh, &id);
        if (strcmp(name, finding->text) == 0 ||
            (len >= MIN_PREFIX && strncmp(id_hex(&id, hex), finding->text, len) == 0))
            note_match(finding, &id);
    } while (map_next(&mesh->acquaintances, &cursor, &id, &value));
}

static void on_name_found(void *ctx, const struct dht_found *found, size_t count)
{
    struct finding *finding = ctx;
    finding->request = 0;
    for (size_t i = 0; i < count; i++)
        note_match(finding, &found[i].record.member);
    finish_find(finding);
}

void mesh_find(struct mesh *mesh, const char *text, mesh_find_cb found, void *ctx)
{
    if (mesh->closing)
        return;
    struct finding *finding = calloc(1, sizeof *finding);
    if (!finding)
        abort(); /* the contract is one callback; a few hundred bytes that cannot be had end the process */
    *finding = (struct finding){.mesh = mesh, .found = found, .ctx = ctx};
    snprintf(finding->text, sizeof finding->text, "%s", text);
    TAILQ_INSERT_TAIL(&mesh->findings, finding, entry);
    match_acquaintances(finding);
    struct id id;
    if (finding->matches == 0 && id_parse_hex(text, &id))
        note_match(finding, &id);
    if (finding->matches == 0 && name_is_valid(text)) {
        struct id key = name_key(text);
        struct dht_get_options options = {.want_lease = true, .timeout_ms = FIND_TIMEOUT_MS};
        if (dht_get(mesh->dht, mesh_now(mesh), &key, &options, on_name_found, finding, &finding->request,
                    &finding->err) == 0) {
            mesh_dht_changed(mesh);
            return;
        }
    }
    timers_after(mesh->timers, 0, finish_find_later, finding);
}

bool mesh_seems_gone(const struct mesh *mesh, const struct id *node)
{
    const struct acquaintance *known = mesh_know(mesh, node);
    return known && known->failures >= SEEMS_GONE_FAILURES && !links_find(mesh->links, node);
}
