#include <stdlib.h>
#include <string.h>

#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/mesh_internal.h"
#include "node/net/sock.h"

#define HELLO_TIMEOUT_MS 5000
#define FIND_TIMEOUT_MS 3000
#define MIN_PREFIX 6
static const char table[] = "mesh";
static const char seed_prefix[] = "seed:";

/* ---- acquaintances ---- */

struct acquaintance *mesh_know(const struct mesh *mesh, const struct id *id)
{
    return map_get(&mesh->acquaintances, id);
}

struct acquaintance *mesh_meet(struct mesh *mesh, const struct id *id)
{
    struct acquaintance *known = mesh_know(mesh, id);
    if (known)
        return known;
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

void mesh_learn_address(struct mesh *mesh, const struct link *link)
{
    struct addr local;
    if (mesh->address.family || sock_local_towards(link_addr(link), &local, NULL) < 0)
        return;
    local.port = links_port(mesh->links);
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
    wire_put_u16(buf, links_port(mesh->links));
    if (mesh->config.advertise.family)
        addr_put(buf, &mesh->config.advertise);
}

struct keeping {
    struct mesh *mesh;
    struct addr addr;
    struct id id;
};

static void work_keep_seed(void *arg)
{
    struct keeping *keeping = arg;
    char text[ADDR_TEXT_SIZE];
    uint8_t key[sizeof seed_prefix - 1 + ID_BYTES];
    memcpy(key, seed_prefix, sizeof seed_prefix - 1);
    memcpy(key + sizeof seed_prefix - 1, keeping->id.b, ID_BYTES);
    addr_text(&keeping->addr, text);
    if (store_table_put(keeping->mesh->config.store, table, key, sizeof key, text, strlen(text), NULL) < 0)
        log_warn("mesh", "the address of a neighbour was not kept");
}

/* So that a node that was killed finds the mesh again. */
static void keep_seed(struct mesh *mesh, const struct acquaintance *known)
{
    struct keeping *keeping = malloc(sizeof *keeping);
    if (!keeping)
        return;
    *keeping = (struct keeping){mesh, known->addr, known->id};
    jobs_submit(&mesh->config.jobs, work_keep_seed, free, keeping);
}

static int load_seed(const void *key, size_t key_len, const void *value, size_t value_len, void *ctx)
{
    char text[ADDR_TEXT_SIZE];
    struct addr addr;
    (void)key;
    (void)key_len;
    if (value_len >= sizeof text)
        return 0;
    memcpy(text, value, value_len);
    text[value_len] = '\0';
    if (addr_parse(text, 0, &addr))
        mesh_bootstrap(ctx, &addr);
    return 0;
}

void mesh_load_seeds(struct mesh *mesh)
{
    struct err err;
    if (store_table_each(mesh->config.store, table, seed_prefix, sizeof seed_prefix - 1, NULL, 0, load_seed, mesh,
                         &err) < 0)
        log_warn("mesh", "cannot read the addresses of neighbours why=\"%s\"", err.text);
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
    bool fresh = !addr_equal(&known->addr, &addr);
    known->addr = addr;
    if (fresh)
        keep_seed(mesh, known);
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
    struct locating *locating = ctx;
    struct acquaintance *known = mesh_know(locating->mesh, &locating->node);
    if (known)
        known->asked = false;
    if (count > 0 && found[0].contact.addr.family)
        mesh_connect(locating->mesh, &locating->node, &found[0].contact.addr);
    free(locating);
}

static void ask_for_address(struct mesh *mesh, struct acquaintance *known)
{
    struct locating *locating = known->asked ? NULL : malloc(sizeof *locating);
    if (!locating)
        return;
    *locating = (struct locating){mesh, known->id};
    struct id key = dht_key(DHT_NODE, known->id.b, ID_BYTES);
    struct dht_get_options options = {.limit = 1, .want_lease = true, .timeout_ms = FIND_TIMEOUT_MS};
    known->asked = true;
    if (dht_get(mesh->dht, mesh_now(mesh), &key, &options, on_lease, locating, NULL, NULL) < 0) {
        known->asked = false;
        free(locating);
    }
    mesh_dht_changed(mesh);
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
    if (!known->addr.family)
        ask_for_address(mesh, known);
    else if (links_dial(mesh->links, &known->addr, node, &err) < 0)
        log_debug("mesh", "cannot dial why=\"%s\"", err.text);
    if (known->failures > 1)
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
    struct mesh *mesh;
    mesh_find_cb found;
    void *ctx;
    char text[ID_HEX_SIZE + NAME_MAX_BYTES];
    unsigned matches;
    struct id match;
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
    finding->found(finding->ctx, finding->err.code, ok ? NULL : &finding->err, ok ? &finding->match : NULL);
    free(finding);
}

static void finish_find_later(void *ctx)
{
    finish_find(ctx);
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
    for (size_t i = 0; i < count; i++)
        note_match(finding, &found[i].record.member);
    finish_find(finding);
}

void mesh_find(struct mesh *mesh, const char *text, mesh_find_cb found, void *ctx)
{
    struct finding *finding = calloc(1, sizeof *finding);
    if (!finding)
        abort(); /* the contract is one callback; a few hundred bytes that cannot be had end the process */
    *finding = (struct finding){.mesh = mesh, .found = found, .ctx = ctx};
    snprintf(finding->text, sizeof finding->text, "%s", text);
    match_acquaintances(finding);
    struct id id;
    if (finding->matches == 0 && id_parse_hex(text, &id))
        note_match(finding, &id);
    if (finding->matches == 0 && name_is_valid(text)) {
        struct id key = name_key(text);
        struct dht_get_options options = {.want_lease = true, .timeout_ms = FIND_TIMEOUT_MS};
        if (dht_get(mesh->dht, mesh_now(mesh), &key, &options, on_name_found, finding, NULL, &finding->err) == 0) {
            mesh_dht_changed(mesh);
            return;
        }
    }
    timers_after(mesh->timers, 0, finish_find_later, finding);
}
