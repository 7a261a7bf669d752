#include "node/net/datagram_parts.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"

#define MAC_BYTES 16

void net_cookies_init(struct net_cookies *cookies, struct rng rng)
{
    memset(cookies, 0, sizeof *cookies);
    cookies->rng = rng;
    rng.fill(rng.ctx, cookies->secrets, sizeof cookies->secrets);
}

static void rotate(struct net_cookies *cookies, uint64_t now_ms)
{
    if (now_ms - cookies->changed_ms < COOKIE_SECRET_MS)
        return;
    memcpy(cookies->secrets[1], cookies->secrets[0], sizeof cookies->secrets[0]);
    cookies->rng.fill(cookies->rng.ctx, cookies->secrets[0], sizeof cookies->secrets[0]);
    cookies->changed_ms = now_ms;
}

static void make_mac(const uint8_t secret[32], uint64_t issued_ms, const struct addr *addr, const struct id *id,
                     uint8_t ret_mac[MAC_BYTES])
{
    uint8_t text[8 + ADDR_WIRE_BYTES];
    wire_store_u64(text, issued_ms);
    text[8] = addr->family;
    wire_store_u16(text + 9, addr->port);
    memcpy(text + 11, addr->ip, sizeof addr->ip);
    crypto_blake2b(ret_mac, MAC_BYTES, secret, 32, text, sizeof text, id->b, sizeof id->b);
}

void net_cookies_make(struct net_cookies *cookies, uint64_t now_ms, const struct addr *to, const struct id *id,
                      uint8_t ret_cookie[COOKIE_BYTES])
{
    rotate(cookies, now_ms);
    wire_store_u64(ret_cookie, now_ms);
    make_mac(cookies->secrets[0], now_ms, to, id, ret_cookie + 8);
}

bool net_cookies_check(struct net_cookies *cookies, uint64_t now_ms, const struct addr *from, const struct id *id,
                       const uint8_t cookie[COOKIE_BYTES], uint64_t *ret_issued_ms)
{
    rotate(cookies, now_ms);
    uint64_t issued_ms = wire_load_u64(cookie);
    if (issued_ms > now_ms || now_ms - issued_ms > COOKIE_LIFE_MS)
        return false;
    for (size_t i = 0; i < 2; i++) {
        uint8_t mac[MAC_BYTES];
        make_mac(cookies->secrets[i], issued_ms, from, id, mac);
        if (crypto_equal(mac, cookie + 8, MAC_BYTES)) {
            *ret_issued_ms = issued_ms;
            return true;
        }
    }
    return false;
}

void net_ration_init(struct net_ration *ration, uint32_t per_second, uint32_t burst, uint64_t seed)
{
    *ration = (struct net_ration){.per_second = per_second, .burst = burst, .seed = seed};
}

void net_ration_release(struct net_ration *ration)
{
    for (size_t i = 0; i < RATION_ROWS; i++)
        free(ration->rows[i]);
    *ration = (struct net_ration){0};
}

/* The finalizer of MurmurHash3 (Appleby), seeded. */
static uint64_t hash_of(const struct net_ration *ration, const struct addr *from)
{
    uint64_t hash = addr_block(from) ^ ration->seed;
    hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdu;
    hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53u;
    return hash ^ hash >> 33;
}

/* NULL when out of memory. */
static struct net_bucket *bucket_of(struct net_ration *ration, const struct addr *from)
{
    uint64_t hash = hash_of(ration, from);
    struct net_bucket **row = &ration->rows[hash / RATION_ROW_BUCKETS % RATION_ROWS];
    if (!*row)
        *row = calloc(RATION_ROW_BUCKETS, sizeof **row);
    return *row ? &(*row)[hash % RATION_ROW_BUCKETS] : NULL;
}

bool net_ration_take(struct net_ration *ration, uint64_t now_ms, const struct addr *from)
{
    struct net_bucket *bucket = bucket_of(ration, from);
    if (!bucket)
        return false;
    uint64_t drained = (uint64_t)((uint32_t)now_ms - bucket->last_ms) * ration->per_second;
    uint64_t spent = bucket->spent_milli > drained ? bucket->spent_milli - drained : 0;
    bool good = spent + 1000 <= (uint64_t)ration->burst * 1000;
    bucket->last_ms = (uint32_t)now_ms;
    bucket->spent_milli = (uint32_t)(good ? spent + 1000 : spent);
    return good;
}
