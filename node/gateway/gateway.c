#include "node/gateway/gateway.h"

#include <stdlib.h>

#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/gateway/registry.h"
#include "node/gateway/server.h"

struct gateway {
    struct mesh *mesh;         /* borrowed */
    struct registry *registry; /* owned, as those that follow */
    struct sets *sets;
    struct channels *channels;
    struct server *server;
    struct hands *hands;
};

static void on_dht_changed(void *ctx)
{
    const struct gateway *gateway = ctx;
    mesh_dht_changed(gateway->mesh);
}

static void on_ready(void *ctx)
{
    const struct gateway *gateway = ctx;
    if (gateway->server)
        server_sets_ready(gateway->server);
}

static void on_committed(void *ctx, int status, const struct err *err)
{
    const struct gateway *gateway = ctx;
    if (gateway->server)
        server_committed(gateway->server, status, err);
}

static int make_parts(struct gateway *gateway, const struct gateway_config *config, struct err *err)
{
    struct rng rng = rng_system();
    struct registry_config registry = {
        .dht = mesh_dht(config->mesh), .changed = on_dht_changed, .ctx = gateway, .clock = config->clock, .rng = rng};
    int status = registry_new(&registry, &gateway->registry, err);
    if (status < 0)
        return status;
    struct sets_config sets = {.mesh = registry_sets(gateway->registry),
                               .disk = ledger_disk_store(config->store),
                               .jobs = config->jobs,
                               .clock = config->clock,
                               .seed = rng_u64(&rng),
                               .ready = on_ready,
                               .committed = on_committed,
                               .ctx = gateway};
    struct channels_mesh channels = registry_channels(gateway->registry);
    status = sets_new(&sets, &gateway->sets, err);
    if (status == 0)
        status = channels_new(&channels, rng_u64(&rng), &gateway->channels, err);
    if (status < 0)
        return status;
    struct server_config server = {.loop = config->loop,
                                   .listen = config->resp,
                                   .sets = gateway->sets,
                                   .channels = gateway->channels,
                                   .clock = config->clock};
    status = hands_new(gateway->sets, gateway->registry, config->clock, &gateway->hands, err);
    if (status == 0)
        status = server_new(&server, &gateway->server, err);
    if (status == 0)
        hands_start(gateway->hands, config->loop);
    return status;
}

static void say_where(const struct gateway *gateway, struct addr listen)
{
    char text[ADDR_TEXT_SIZE];
    listen.port = server_port(gateway->server);
    log_info("registry", "RESP gateway listens addr=%s", addr_text(&listen, text));
    if (!addr_is_loopback(&listen))
        log_warn("registry", "whoever reaches this address may change every set: there is no password addr=%s",
                 addr_text(&listen, text));
}

int gateway_new(const struct gateway_config *config, struct gateway **ret_gateway, struct err *err)
{
    struct gateway *gateway = calloc(1, sizeof *gateway);
    if (!gateway)
        return err_set(err, ERR_NOMEM, "no memory for the gateway");
    gateway->mesh = config->mesh;
    int status = make_parts(gateway, config, err);
    if (status < 0) {
        gateway_free(gateway);
        return status;
    }
    if (config->resp.family)
        say_where(gateway, config->resp);
    *ret_gateway = gateway;
    return 0;
}

int gateway_write(struct gateway *gateway, const struct hand_wish *wish, hand_done_cb done, void *ctx, struct err *err)
{
    return hands_write(gateway->hands, wish, done, ctx, err);
}

void gateway_close(struct gateway *gateway)
{
    hands_close(gateway->hands);
    server_close(gateway->server);
    sets_close(gateway->sets);
}

bool gateway_closed(const struct gateway *gateway)
{
    return hands_closed(gateway->hands) && server_closed(gateway->server) && sets_closed(gateway->sets);
}

void gateway_free(struct gateway *gateway)
{
    if (!gateway)
        return;
    hands_free(gateway->hands);
    server_free(gateway->server);
    channels_free(gateway->channels);
    sets_free(gateway->sets);
    registry_free(gateway->registry);
    free(gateway);
}

void gateway_stats(const struct gateway *gateway, struct gateway_stats *ret_stats)
{
    const struct command_house *house = server_house(gateway->server);
    struct sets_stats sets;
    sets_stats(gateway->sets, &sets);
    *ret_stats = (struct gateway_stats){.port = house->port,
                                        .clients = house->clients,
                                        .commands = house->commands,
                                        .sets = sets.sets,
                                        .members = sets.members,
                                        .unsaid = sets.unsaid};
}
