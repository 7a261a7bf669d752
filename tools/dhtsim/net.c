#include "tools/dhtsim/net.h"

#define ACCESS_SIGMA 0.6
#define SLOW_SIGMA 0.5
/* Of the median round trip, so much is distance: 0.66 sides of the cube; the rest is two access delays of 1/15. */
#define SIDE_PER_RTT 1.30
#define RTT_PER_ACCESS 15

enum { LINK_ONE_WAY, LINK_SLOW, LINK_SIDE, LINK_SKEW };

static uint32_t millionths(double percent)
{
    return (uint32_t)(percent * 10000 + 0.5);
}

void net_init(struct net *net, const struct options *options)
{
    *net = (struct net){
        .options = options,
        .seed = options->seed,
        .stream = random_stream(options->seed, RANDOM_NET, 0),
        .loss = millionths(options->loss_percent),
        .duplicate = millionths(options->duplicate_percent),
        .reorder = millionths(options->reorder_percent),
        .one_way = millionths(options->one_way_percent),
        .slow = millionths(options->slow_percent),
    };
    random_lognormal_init(&net->jitter, (double)options->jitter_percent / 100);
    random_lognormal_init(&net->access, ACCESS_SIGMA);
    random_lognormal_init(&net->slowness, SLOW_SIGMA);
}

static uint16_t clamp_u16(uint64_t value)
{
    return value < UINT16_MAX ? (uint16_t)value : UINT16_MAX;
}

struct net_place net_place(const struct net *net, uint32_t number)
{
    uint64_t state = random_stream(net->seed, RANDOM_IDENTITY, (uint64_t)number << 32);
    uint64_t rtt_10 = net->options->rtt_ms * 100;
    uint64_t side = clamp_u16((uint64_t)((double)rtt_10 * SIDE_PER_RTT)) + 1u;
    struct net_place place;
    for (unsigned i = 0; i < 3; i++)
        place.at[i] = (uint16_t)random_below(&state, side);
    place.access_10 = clamp_u16(random_lognormal_draw(&net->access, rtt_10 / RTT_PER_ACCESS, &state));
    return place;
}

static uint64_t root(uint64_t square)
{
    uint64_t result = 0;
    for (uint64_t bit = 1ull << 20; bit > 0; bit >>= 1)
        if ((result | bit) * (result | bit) <= square)
            result |= bit;
    return result;
}

uint64_t net_rtt_us(const struct net_place *a, const struct net_place *b)
{
    uint64_t square = 0;
    for (unsigned i = 0; i < 3; i++) {
        int64_t off = a->at[i] - b->at[i];
        square += (uint64_t)(off * off);
    }
    return (root(square) + a->access_10 + b->access_10) * 10;
}

/* A number below a million that depends on the seed and on what is asked alone. */
static uint32_t fixed_draw(const struct net *net, unsigned what, uint32_t a, uint32_t b)
{
    uint64_t drawn = random_stream(net->seed + what, RANDOM_LINK, (uint64_t)a << 32 | b);
    return (uint32_t)((drawn >> 32) * 1000000 >> 32);
}

bool net_is_slow(const struct net *net, uint32_t number)
{
    return net->slow > 0 && fixed_draw(net, LINK_SLOW, number, 0) < net->slow;
}

bool net_is_cut_off(const struct net *net, uint32_t number, uint32_t split)
{
    return fixed_draw(net, LINK_SIDE, number, 0) < split;
}

int64_t net_skew_ms(const struct net *net, uint32_t number)
{
    int64_t range = (int64_t)net->options->skew_ms;
    return (int64_t)fixed_draw(net, LINK_SKEW, number, 0) * (2 * range + 1) / 1000000 - range;
}

static uint64_t delay_us(struct net *net, uint32_t from, uint64_t rtt_us)
{
    uint64_t delay = random_lognormal_draw(&net->jitter, rtt_us / 2, &net->stream);
    if (net->reorder > 0 && random_chance(&net->stream, net->reorder))
        delay += random_below(&net->stream, net->options->rtt_ms * 4000 + 1);
    if (net_is_slow(net, from))
        delay += random_lognormal_draw(&net->slowness, net->options->slow_ms * 1000, &net->stream);
    return delay + 1;
}

unsigned net_send(struct net *net, uint32_t from, const struct net_place *from_place, uint32_t to,
                  const struct net_place *to_place, uint64_t ret_delay_us[2])
{
    if (net->split > 0 && net_is_cut_off(net, from, net->split) != net_is_cut_off(net, to, net->split))
        return 0;
    if (net->one_way > 0 && fixed_draw(net, LINK_ONE_WAY, from, to) < net->one_way)
        return 0;
    if (random_chance(&net->stream, net->loss))
        return 0;
    uint64_t rtt_us = net_rtt_us(from_place, to_place);
    ret_delay_us[0] = delay_us(net, from, rtt_us);
    if (!random_chance(&net->stream, net->duplicate))
        return 1;
    ret_delay_us[1] = delay_us(net, from, rtt_us);
    return 2;
}
