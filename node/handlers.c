#include "node/handlers.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <stdarg.h>
#include <string.h>

#include "node/bandwidth.h"
#include "node/base/log.h"
#include "node/net/sock.h"

#define INVITATION_TTL_S 900 /* unless the inviter says otherwise */

const struct api_route *node_routes(size_t *ret_count)
{
    static const struct api_route routes[] = {
#define X(name, method, path, body) {method, path, body, handlers_##name},
        API_ROUTES(X)
#undef X
    };
    *ret_count = sizeof routes / sizeof *routes;
    return routes;
}

/* ---- for all handlers ---- */

struct errand {
    struct node *node;
    struct api_request *req;
    unsigned status; /* of a reply that is no error */
    node_work_cb work;
    void *arg; /* owned if free_arg */
    void (*free_arg)(void *arg);
    json_t *reply; /* owned until it is given */
    struct err err;
};

static void on_work(void *arg)
{
    struct errand *errand = arg;
    errand->reply = errand->work(errand->node, errand->arg, &errand->err);
}

static void on_worked(void *arg)
{
    struct errand *errand = arg;
    if (!errand->reply && errand->err.code)
        api_reply_error(errand->req, &errand->err);
    else
        api_reply_json(errand->req, errand->status, errand->reply);
    if (errand->free_arg)
        errand->free_arg(errand->arg);
    free(errand);
}

void handlers_answer(struct node *node, struct api_request *req, unsigned status, node_work_cb work, void *arg,
                     void (*free_arg)(void *arg))
{
    struct errand *errand = calloc(1, sizeof *errand);
    if (!errand) {
        handlers_refuse(req, ERR_NOMEM, "no memory for a request");
        if (free_arg)
            free_arg(arg);
        return;
    }
    *errand =
        (struct errand){.node = node, .req = req, .status = status, .work = work, .arg = arg, .free_arg = free_arg};
    jobs_submit(&node->jobs, on_work, on_worked, errand);
}

void node_answer_from_job(struct node *node, struct api_request *req, node_work_cb work, void *arg,
                          void (*free_arg)(void *arg))
{
    handlers_answer(node, req, 200, work, arg, free_arg);
}

void handlers_refuse(struct api_request *req, int code, const char *format, ...)
{
    char text[ERR_TEXT_SIZE];
    struct err err;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    err_set(&err, code, "%s", text);
    api_reply_error(req, &err);
}

bool handlers_digest(struct api_request *req, struct id *ret_digest)
{
    if (digest_parse(api_request_param(req, "digest"), ret_digest))
        return true;
    handlers_refuse(req, ERR_INVALID, "an object is named by 'sha256:' and 64 lower-case hex digits");
    return false;
}

int handlers_query_flag(const struct api_request *req, const char *name, bool *ret_yes, struct err *err)
{
    uint64_t number;
    int status = api_request_query_u64(req, name, 0, 1, &number, err);
    if (status == 0)
        *ret_yes = number != 0;
    return status;
}

/* ---- status ---- */

/* The network coordinates in ms: three numbers and the height. */
static json_t *place_json(const struct dht *dht)
{
    struct dht_place place = dht_place(dht, NULL);
    return json_pack("[f, f, f, f]", place.x[0] / 10.0, place.x[1] / 10.0, place.x[2] / 10.0, place.height / 10.0);
}

static json_t *dht_json(const struct dht *dht)
{
    struct dht_stats stats;
    dht_stats(dht, &stats);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "contacts", (json_int_t)stats.contacts, "records",
                     (json_int_t)stats.records, "published", (json_int_t)stats.published, "watches",
                     (json_int_t)stats.watches, "watchers", (json_int_t)stats.watchers, "sent", (json_int_t)stats.sent,
                     "received", (json_int_t)stats.received, "place", place_json(dht));
}

static json_t *registry_json(const struct node *node)
{
    struct gateway_stats stats;
    gateway_stats(node->gateway, &stats);
    return json_pack("{s:i, s:I, s:I, s:I, s:I}", "resp", (int)stats.port, "clients", (json_int_t)stats.clients, "sets",
                     (json_int_t)stats.sets, "members", (json_int_t)stats.members, "unsaid", (json_int_t)stats.unsaid);
}

/* What only the loop's thread may look at; the job adds what blocks. */
static json_t *status_of_loop(struct node *node)
{
    char self[ID_HEX_SIZE], cluster[ID_HEX_SIZE], text[ADDR_TEXT_SIZE];
    struct addr address = mesh_address(node->mesh);
    json_t *listen = json_array();
    for (size_t i = 0; i < node->config->listen_count; i++)
        json_array_append_new(listen, json_string(addr_text(&node->config->listen[i], text)));
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:o, s:s, s:o, s:o}", "node", id_hex(mesh_self(node->mesh), self),
                     "name", node->config->name, "cluster", id_hex(identity_cluster(node->identity), cluster),
                     "version", CMIG_VERSION, "uptime_s",
                     (json_int_t)((clock_mono_ms(&node->clock) - node->started_ms) / 1000), "listen", listen, "address",
                     address.family ? addr_text(&address, text) : "", "dht", dht_json(mesh_dht(node->mesh)), "registry",
                     registry_json(node));
}

static void count_link(void *ctx, struct link *link)
{
    (void)link;
    ++*(size_t *)ctx;
}

static json_t *status_work(struct node *node, void *arg, struct err *err)
{
    json_t *status = arg;
    struct store_usage usage;
    OWNED(owned_json) json_t *abilities = NULL;
    if (store_usage(node->store, &usage, err) < 0 || runtime_abilities(node->runtime, &abilities, err) < 0)
        return NULL;
    json_object_set_new(status, "store",
                        json_pack("{s:I, s:I, s:I, s:I}", "objects", (json_int_t)usage.objects, "bytes",
                                  (json_int_t)usage.pack_bytes, "quota_bytes", (json_int_t)usage.quota_bytes,
                                  "disk_free_bytes", (json_int_t)usage.disk_free_bytes));
    json_object_set_new(status, "containers", json_integer((json_int_t)runtime_count(node->runtime)));
    json_object_set_new(
        status, "runtime",
        json_pack("{s:s, s:s}", "runc", api_json_text(abilities, "runc"), "criu", api_json_text(abilities, "criu")));
    return json_incref(status);
}

static void free_json(void *arg)
{
    json_decref(arg);
}

void handlers_status(void *ctx, struct api_request *req)
{
    struct node *node = ctx;
    size_t peers = 0;
    mesh_each_link(node->mesh, count_link, &peers);
    json_t *status = status_of_loop(node);
    if (!status || json_object_set_new(status, "peers", json_integer((json_int_t)peers)) < 0) {
        json_decref(status);
        handlers_refuse(req, ERR_NOMEM, "no memory for the status");
        return;
    }
    node_answer_from_job(node, req, status_work, status, free_json);
}

void handlers_log_level(void *node, struct api_request *req)
{
    (void)node;
    const json_t *body = api_request_body(req);
    const char *text;
    enum log_level level;
    struct err err;
    if (api_json_only(body, "level", &err) < 0 || api_json_get_str(body, "level", "", &text, &err) < 0) {
        api_reply_error(req, &err);
    } else if (!log_parse_level(text, &level)) {
        handlers_refuse(req, ERR_INVALID, "the level '%.32s' is none of error, warn, info, debug", text);
    } else {
        log_set_level(level);
        api_reply_json(req, 200, json_pack("{s:s}", "level", text));
    }
}

/* ---- bandwidth ---- */

void handlers_bandwidth_get(void *ctx, struct api_request *req)
{
    struct node *node = ctx;
    struct exchange_limits limits = *content_limits(node->content);
    char name[BANDWIDTH_NAME_SIZE];
    json_t *reply = json_object();
    for (size_t i = 0; i < BANDWIDTH_NAMES; i++)
        json_object_set_new(reply, bandwidth_name(i, name), json_integer((json_int_t)*bandwidth_of(&limits, i)));
    api_reply_json(req, 200, reply);
}

void handlers_bandwidth_set(void *ctx, struct api_request *req)
{
    struct node *node = ctx;
    struct exchange_limits limits = *content_limits(node->content);
    struct err err = {0};
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)api_request_body(req), name, value)
    {
        if (!json_is_string(value))
            err_set(&err, ERR_INVALID, "'%.40s' must be a text, as \"10M\" or \"none\"", name);
        else
            bandwidth_set(&limits, name, json_string_value(value), &err);
        if (err.code) {
            api_reply_error(req, &err);
            return;
        }
    }
    content_set_limits(node->content, &limits);
    handlers_bandwidth_get(ctx, req);
}

/* ---- peers ---- */

struct peer_walk {
    struct node *node;
    json_t *peers; /* borrowed */
};

static void add_peer(void *ctx, struct link *link)
{
    const struct peer_walk *walk = ctx;
    const struct id *id = &link_peer(link)->id;
    struct session_stats stats;
    struct exchange_cost cost = {0};
    char hex[ID_HEX_SIZE], address[ADDR_TEXT_SIZE];
    link_get_stats(link, &stats);
    content_peer_cost(walk->node->content, id, &cost);
    json_array_append_new(
        walk->peers,
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "node", id_hex(id, hex), "name",
                  mesh_name_of(walk->node->mesh, id), "address", addr_text(link_addr(link), address), "direction",
                  link_dialled(link) ? "out" : "in", "state", "up", "since_s",
                  (json_int_t)((clock_mono_ms(&walk->node->clock) - link_since_ms(link)) / 1000), "rtt_ms",
                  (json_int_t)stats.rtt_ms, "goodput_bytes_per_s", (json_int_t)cost.goodput_bytes_per_s, "sent_bytes",
                  (json_int_t)stats.out_bytes, "received_bytes", (json_int_t)stats.in_bytes));
}

void handlers_peer_list(void *ctx, struct api_request *req)
{
    struct peer_walk walk = {.node = ctx, .peers = json_array()};
    mesh_each_link(walk.node->mesh, add_peer, &walk);
    api_reply_json(req, 200, json_pack("{s:o}", "peers", walk.peers));
}

/* ---- who may come in, and who must go ---- */

static bool is_link_local(const struct addr *addr) /* RFC 4291: fe80::/10, which say nothing without an interface */
{
    return addr->family == 6 && addr->ip[0] == 0xfe && (addr->ip[1] & 0xc0) == 0x80;
}

/* An address of one of this machine's networks, IPv4 if there is one. */
static struct addr address_of_interfaces(void)
{
    struct addr best = {.family = 4, .ip = {127, 0, 0, 1}};
    struct ifaddrs *list = NULL;
    if (getifaddrs(&list) < 0)
        return best;
    for (const struct ifaddrs *at = list; at; at = at->ifa_next) {
        struct addr addr = at->ifa_addr ? sock_to_addr(at->ifa_addr) : (struct addr){0};
        if (addr.family == 0 || is_link_local(&addr) || (at->ifa_flags & IFF_LOOPBACK) || !(at->ifa_flags & IFF_UP))
            continue;
        best = addr;
        if (addr.family == 4)
            break;
    }
    freeifaddrs(list);
    return best;
}

/* Where a newcomer finds this node: as the operator says, as others see it, or as this machine's routes suggest. */
static struct addr address_for_newcomers(const struct node *node)
{
    struct addr address = mesh_address(node->mesh);
    if (address.family)
        return address;
    struct addr listen = node->config->listen[0];
    struct addr somewhere = {.family = 4, .port = ADDR_DEFAULT_PORT, .ip = {192, 0, 2, 1}}; /* RFC 5737 */
    if (!addr_is_any(&listen))
        return listen;
    if (sock_local_towards(&somewhere, &address, NULL) < 0) /* no route to the world: a mesh on its own */
        address = address_of_interfaces();
    address.port = listen.port;
    return address;
}

static int place_of_invitation(const struct node *node, const char *address, struct invitation *invitation,
                               struct err *err)
{
    char text[ADDR_TEXT_SIZE];
    struct addr own = address_for_newcomers(node);
    addr_text(&own, text);
    return invitation_parse_peer(address ? address : text, own.port, invitation->host, &invitation->port, err);
}

struct invitation_wish {
    const char *address; /* NULL: find out */
    uint64_t uses, ttl_s;
};

static int parse_invitation(const json_t *body, struct invitation_wish *ret_wish, struct err *err)
{
    int status = api_json_only(body, "uses ttl_s address", err);
    if (status == 0)
        status = api_json_get_u64(body, "uses", 1, LIMIT_INVITATION_USES, &ret_wish->uses, err);
    if (status == 0)
        status = api_json_get_u64(body, "ttl_s", INVITATION_TTL_S, LIMIT_INVITATION_TTL_S, &ret_wish->ttl_s, err);
    if (status == 0)
        status = api_json_get_str(body, "address", NULL, &ret_wish->address, err);
    if (status == 0 && (ret_wish->uses == 0 || ret_wish->ttl_s == 0))
        status = err_set(err, ERR_INVALID, "an invitation has at least 1 use and 1 second");
    return status;
}

/* On the loop, because the identity is its own: one small file is written and synced. */
void handlers_invitation_create(void *ctx, struct api_request *req)
{
    struct node *node = ctx;
    struct invitation_wish wish;
    struct invitation invitation = {.cluster = *identity_cluster(node->identity)};
    char text[INVITATION_TEXT_SIZE];
    struct err err;
    int status = parse_invitation(api_request_body(req), &wish, &err);
    if (status == 0)
        status = place_of_invitation(node, wish.address, &invitation, &err);
    if (status == 0)
        status = invitation_create(node->identity, (unsigned)wish.uses, wish.ttl_s, RIGHT_ADMIT,
                                   clock_wall_ms(&node->clock) / 1000, invitation.secret, &err);
    if (status < 0) {
        api_reply_error(req, &err);
        return;
    }
    log_info("node", "invitation uses=%llu ttl_s=%llu", (unsigned long long)wish.uses, (unsigned long long)wish.ttl_s);
    api_reply_json(req, 201,
                   json_pack("{s:s, s:I, s:I}", "invitation", invitation_text(&invitation, text), "uses",
                             (json_int_t)wish.uses, "expires_s", (json_int_t)wish.ttl_s));
    crypto_wipe(text, sizeof text);
    crypto_wipe(invitation.secret, sizeof invitation.secret);
}

struct revocation {
    struct node *node;
    struct api_request *req;
};

static void answer_revocation(struct node *node, struct api_request *req, const struct id *id)
{
    char hex[ID_HEX_SIZE];
    struct err err;
    if (id_equal(id, mesh_self(node->mesh)))
        handlers_refuse(req, ERR_CONFLICT, "this is the node itself: it can be expelled by another only");
    else if (mesh_revoke(node->mesh, id, &err) < 0)
        api_reply_error(req, &err);
    else
        api_reply_json(req, 200, json_pack("{s:s}", "node", id_hex(id, hex)));
}

static void on_revoked_found(void *ctx, int status, const struct err *err, const struct id *id)
{
    OWNED(owned_free) struct revocation *revocation = ctx;
    if (status < 0)
        api_reply_error(revocation->req, err);
    else
        answer_revocation(revocation->node, revocation->req, id);
}

void handlers_revocation_create(void *ctx, struct api_request *req)
{
    const json_t *body = api_request_body(req);
    const char *text;
    struct id id;
    struct err err;
    if (api_json_only(body, "node", &err) < 0 || api_json_get_str(body, "node", "", &text, &err) < 0) {
        api_reply_error(req, &err);
    } else if (id_parse_hex(text, &id)) { /* also of a node that nobody can find any more */
        answer_revocation(ctx, req, &id);
    } else if (!*text) {
        handlers_refuse(req, ERR_INVALID, "the field 'node' is missing: an id, the beginning of one, or a name");
    } else {
        struct revocation *revocation = malloc(sizeof *revocation);
        if (!revocation) {
            handlers_refuse(req, ERR_NOMEM, "no memory for a revocation");
            return;
        }
        *revocation = (struct revocation){.node = ctx, .req = req};
        mesh_find(revocation->node->mesh, text, on_revoked_found, revocation);
    }
}
