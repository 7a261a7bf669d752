/*
 * What datagrams are judged by before anything else is spent on them: cookies, which prove that an address answers,
 * and rations by address block.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "node/base/addr.h"
#include "node/base/clock.h"
#include "node/base/id.h"

/* ---- cookies: no memory of who got one; WireGuard rotates its secret as often ---- */

#define COOKIE_BYTES 24 /* time of issue u64, MAC (16) */
#define COOKIE_LIFE_MS 10000
#define COOKIE_SECRET_MS 120000

struct net_cookies {
    uint8_t secrets[2][32]; /* the present one, and the one before it */
    uint64_t changed_ms;
    struct rng rng;
};

void net_cookies_init(struct net_cookies *cookies, struct rng rng);
void net_cookies_make(struct net_cookies *cookies, uint64_t now_ms, const struct addr *to, const struct id *id,
                      uint8_t ret_cookie[COOKIE_BYTES]);
/* Was this cookie made here for that address and node, not long ago? Then *ret_issued_ms is when. */
bool net_cookies_check(struct net_cookies *cookies, uint64_t now_ms, const struct addr *from, const struct id *id,
                       const uint8_t cookie[COOKIE_BYTES], uint64_t *ret_issued_ms);

/* ---- rations: token buckets, shared by the address blocks that fall together ---- */

#define RATION_ROWS 32
#define RATION_ROW_BUCKETS 32

struct net_bucket {
    uint32_t last_ms;     /* modulo 2^32: whoever comes after 49 days may find a bucket less drained than it is */
    uint32_t spent_milli; /* thousandths of a token, drains with time */
};

struct net_ration {
    uint32_t per_second;
    uint32_t burst;
    uint64_t seed;                        /* so that nobody outside knows whose bucket he empties */
    struct net_bucket *rows[RATION_ROWS]; /* owned; each is made when somebody falls into it */
};

void net_ration_init(struct net_ration *ration, uint32_t per_second, uint32_t burst, uint64_t seed);
void net_ration_release(struct net_ration *ration);
/* Take one; false if there is none. */
bool net_ration_take(struct net_ration *ration, uint64_t now_ms, const struct addr *from);
