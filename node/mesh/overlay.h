/*
 * This node's part in the DHT: the DHT itself, the envelope of its messages and the timer that wakes it, as one thing.
 *
 * Sockets and the storage are the owner's: what arrives is given to overlay_input, what is to be sent comes out through
 * `send`, at once and on the same stack. One thread, the loop's.
 */
#pragma once

#include <uv.h>

#include "dht/dht.h"
#include "node/identity/identity.h"
#include "node/net/datagram.h"

struct overlay;

struct overlay_config {
    uv_loop_t *loop;                 /* borrowed */
    const struct identity *identity; /* borrowed; a member */
    struct clock clock;
    uint64_t boot_stamp;        /* struct datagram_config says which */
    struct addr address;        /* where others reach this node; family 0: not known yet */
    struct dht_storage storage; /* outlives the overlay */
    uint32_t records_max;       /* as struct dht_config has it */
    unsigned block_contacts;    /* of one address block in the table, two thirds of them in one bucket; 0: no cap */
    datagram_send_cb send;
    void *ctx; /* borrowed, for `send` */
};

/* Knows nobody yet. */
int overlay_new(const struct overlay_config *config, struct overlay **ret_overlay, struct err *err);
/* Nothing is sent or called back any more. To be freed when overlay_closed, which takes a turn of the loop. */
void overlay_close(struct overlay *overlay);
bool overlay_closed(const struct overlay *overlay);
void overlay_free(struct overlay *overlay);

/* A datagram arrived. */
void overlay_input(struct overlay *overlay, const struct addr *from, const uint8_t *bytes, size_t len_bytes);
/* To be called about twice a second. */
void overlay_tick(struct overlay *overlay);

/* Borrowed, for calls; overlay_changed is to be called after each of them, so that the DHT is woken in time. */
struct dht *overlay_dht(struct overlay *overlay);
void overlay_changed(struct overlay *overlay);
/* A revoked node: nothing of it is kept or taken any more. */
void overlay_forget(struct overlay *overlay, const struct id *node);
