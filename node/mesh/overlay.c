#include "node/mesh/overlay.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/log.h"

#define WALL_TICKS 60 /* calls of overlay_tick, after which the DHT is told the wall clock */
#define TICKS_AT_ONCE 4

struct overlay {
    struct overlay_config config;
    struct datagram *datagram; /* owned */
    struct dht *dht;           /* owned */
    uv_timer_t timer;
    bool due; /* the timer is set for the next turn of the loop */
    bool closing, closed;
    uint64_t ticks; /* calls of overlay_tick */
};

static uint64_t now_ms(const struct overlay *overlay)
{
    return clock_mono_ms(&overlay->config.clock);
}

/* ---- when the DHT wants to be woken ---- */

/* What one tick finishes may start something that the next one has to look at: that is not left to a timer, whose
 * shortest time is a millisecond. */
static void on_timer(uv_timer_t *timer)
{
    struct overlay *overlay = timer->data;
    uint64_t now = now_ms(overlay);
    uint64_t next = dht_tick(overlay->dht, now);
    for (int i = 1; i < TICKS_AT_ONCE && next <= now; i++)
        next = dht_tick(overlay->dht, now);
    overlay->due = false;
    uv_timer_start(timer, on_timer, next > now ? next - now : 1, 0);
}

/* In the next turn of the loop, once for all datagrams of this one. */
void overlay_changed(struct overlay *overlay)
{
    if (overlay->due || overlay->closing)
        return;
    overlay->due = true;
    uv_timer_start(&overlay->timer, on_timer, 0, 0);
}

/* ---- messages and their envelope ---- */

static void send_message(void *ctx, const struct dht_contact *to, const uint8_t *bytes, size_t len_bytes)
{
    struct overlay *overlay = ctx;
    struct err err;
    if (datagram_send(overlay->datagram, now_ms(overlay), to->public_key, &to->id, &to->addr, bytes, len_bytes, &err) <
        0)
        log_debug("mesh", "datagram not sent why=\"%s\"", err.text);
}

static void on_message(void *ctx, const struct datagram_peer *peer, const uint8_t *payload, size_t len_bytes)
{
    struct overlay *overlay = ctx;
    struct dht_contact from = {.id = peer->id, .addr = peer->addr};
    memcpy(from.public_key, peer->public_key, sizeof from.public_key);
    dht_input(overlay->dht, now_ms(overlay), &from, payload, len_bytes);
    overlay_changed(overlay);
}

static void send_datagram(void *ctx, const struct addr *to, const uint8_t *bytes, size_t len_bytes)
{
    struct overlay *overlay = ctx;
    if (!overlay->closing)
        overlay->config.send(overlay->config.ctx, to, bytes, len_bytes);
}

void overlay_input(struct overlay *overlay, const struct addr *from, const uint8_t *bytes, size_t len_bytes)
{
    if (!overlay->closing)
        datagram_input(overlay->datagram, now_ms(overlay), from, bytes, len_bytes);
}

void overlay_tick(struct overlay *overlay)
{
    uint64_t now = now_ms(overlay);
    datagram_tick(overlay->datagram, now);
    if (overlay->ticks++ % WALL_TICKS == 0)
        dht_set_wall(overlay->dht, now, clock_wall_ms(&overlay->config.clock));
    overlay_changed(overlay);
}

void overlay_forget(struct overlay *overlay, const struct id *node)
{
    datagram_forget(overlay->datagram, now_ms(overlay), node);
    dht_forget(overlay->dht, node, NULL);
}

struct dht *overlay_dht(struct overlay *overlay)
{
    return overlay->dht;
}

/* ---- beginning and end ---- */

static uint64_t wall_s(void *ctx)
{
    const struct overlay *overlay = ctx;
    return clock_wall_ms(&overlay->config.clock) / 1000;
}

static int make_parts(struct overlay *overlay, struct err *err)
{
    const struct overlay_config *config = &overlay->config;
    struct datagram_config envelope = {.identity = config->identity,
                                       .rng = rng_system(),
                                       .wall_s = wall_s,
                                       .boot_stamp = config->boot_stamp,
                                       .deliver = on_message,
                                       .send = send_datagram,
                                       .ctx = overlay};
    int status = datagram_new(&envelope, &overlay->datagram, err);
    if (status < 0)
        return status;
    struct dht_config core = {.public_key = identity_public_key(config->identity),
                              .signatures = dht_signatures_ed25519(identity_key(config->identity)),
                              .address = config->address,
                              .now_ms = now_ms(overlay),
                              .wall_ms = clock_wall_ms(&config->clock),
                              .rng = rng_system(),
                              .storage = config->storage,
                              .records_max = config->records_max,
                              .block_per_bucket = (config->block_contacts * 2 + 2) / 3,
                              .block_per_table = config->block_contacts,
                              .send = send_message,
                              .send_ctx = overlay};
    return dht_new(&core, &overlay->dht, err);
}

int overlay_new(const struct overlay_config *config, struct overlay **ret_overlay, struct err *err)
{
    struct overlay *overlay = calloc(1, sizeof *overlay);
    if (!overlay)
        return err_set(err, ERR_NOMEM, "no memory for the DHT");
    overlay->config = *config;
    int status = make_parts(overlay, err);
    if (status < 0) {
        overlay_free(overlay);
        return status;
    }
    uv_timer_init(config->loop, &overlay->timer);
    overlay->timer.data = overlay;
    overlay_changed(overlay);
    *ret_overlay = overlay;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct overlay *overlay = handle->data;
    overlay->closed = true;
}

void overlay_close(struct overlay *overlay)
{
    if (overlay->closing)
        return;
    overlay->closing = true;
    uv_close((uv_handle_t *)&overlay->timer, on_closed);
}

bool overlay_closed(const struct overlay *overlay)
{
    return overlay->closed;
}

void overlay_free(struct overlay *overlay)
{
    if (!overlay)
        return;
    dht_free(overlay->dht);
    datagram_free(overlay->datagram);
    free(overlay);
}
