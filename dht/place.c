#include "dht/place.h"

#include <math.h>

void dht_place_put(struct buf *out, const struct dht_place *place)
{
    for (size_t i = 0; i < 3; i++)
        wire_put_u16(out, (uint16_t)place->x[i]);
    wire_put_u16(out, place->height);
}

struct dht_place dht_place_get(struct wire *wire)
{
    struct dht_place place;
    for (size_t i = 0; i < 3; i++)
        place.x[i] = (int16_t)wire_get_u16(wire);
    place.height = wire_get_u16(wire);
    return place;
}

static bool is_known(const struct dht_place *place)
{
    return place->x[0] || place->x[1] || place->x[2] || place->height;
}

uint32_t dht_place_distance(const struct dht_place *a, const struct dht_place *b)
{
    if (!a || !b || !is_known(a) || !is_known(b))
        return UINT32_MAX;
    double sum = 0;
    for (size_t i = 0; i < 3; i++) {
        double along = (double)a->x[i] - b->x[i];
        sum += along * along;
    }
    return (uint32_t)sqrt(sum) + a->height + b->height;
}
