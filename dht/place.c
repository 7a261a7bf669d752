#include "dht/place.h"

#include <math.h>

#define TENTHS 10.0
#define RTT_MAX_MS 10000.0
#define HEIGHT_MAX_MS 5000.0
#define HEIGHT_MIN_MS 0.1    /* the last mile of anybody */
#define ERROR_WEIGHT 0.25    /* c_e and */
#define FORCE_WEIGHT 0.25    /* c_c of the paper */
#define GRAVITY_MS 1000.0    /* at such a distance from the origin a sample brings us 1 ms nearer to it */
#define CLOCK_MS 1.0         /* what a round trip is measured in */
#define USUAL_FIRST_MS 200.0 /* before samples tell, and never less than */
#define USUAL_LEAST_MS 1.0   /* the clock's grain */
#define USUAL_STEP 1.1       /* the running median goes by so much, as in "Frugal Streaming" (Ma et al. 2013) */
#define UNUSUAL 3.0

/* ---- on the wire ---- */

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

bool dht_place_is_known(const struct dht_place *place)
{
    return place->x[0] || place->x[1] || place->x[2] || place->height;
}

uint32_t dht_place_distance(const struct dht_place *a, const struct dht_place *b)
{
    if (!a || !b || !dht_place_is_known(a) || !dht_place_is_known(b))
        return UINT32_MAX;
    double sum = 0;
    for (size_t i = 0; i < 3; i++) {
        double along = (double)a->x[i] - b->x[i];
        sum += along * along;
    }
    return (uint32_t)sqrt(sum) + a->height + b->height;
}

/* ---- our own ---- */

void dht_placing_init(struct dht_placing *placing)
{
    *placing = (struct dht_placing){.height = HEIGHT_MIN_MS, .error = 1, .usual = USUAL_FIRST_MS};
}

static double length(const double v[3])
{
    return sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
}

static double at_least(double value, double least)
{
    return value > least ? value : least;
}

static double at_most(double value, double most)
{
    return value < most ? value : most;
}

/* From the peer to us, and how long that is. Those who are at one point part in a random direction. */
static double direction(const double from[3], const double to[3], const struct rng *rng, double ret_unit[3])
{
    double v[3];
    for (size_t i = 0; i < 3; i++)
        v[i] = to[i] - from[i];
    double distance = length(v);
    double long_enough = distance;
    while (long_enough < 1e-6) {
        for (size_t i = 0; i < 3; i++)
            v[i] = (double)rng_below(rng, 2001) / 1000.0 - 1.0;
        long_enough = length(v);
    }
    for (size_t i = 0; i < 3; i++)
        ret_unit[i] = v[i] / long_enough;
    return distance;
}

/* The step of the paper's figure 3; the height stretches with the rest of the spring (its section 5.4). */
static void pull(struct dht_placing *placing, const double unit[3], double distance, double heights, double force)
{
    double whole = distance + heights;
    for (size_t i = 0; i < 3; i++)
        placing->x[i] += force * (distance > 0 ? distance / whole : 1) * unit[i];
    placing->height = at_least(placing->height + force * heights / whole, HEIGHT_MIN_MS);
    placing->height = at_most(placing->height, HEIGHT_MAX_MS);
}

static void gravitate(struct dht_placing *placing)
{
    double from_origin = length(placing->x);
    double share = at_most(from_origin / (GRAVITY_MS * GRAVITY_MS), 1);
    for (size_t i = 0; i < 3; i++)
        placing->x[i] -= placing->x[i] * share;
}

void dht_placing_add(struct dht_placing *placing, const struct dht_place *place, uint8_t error, double rtt_ms,
                     const struct rng *rng)
{
    double theirs[3], unit[3];
    double their_height = place->height / TENTHS;
    for (size_t i = 0; i < 3; i++)
        theirs[i] = place->x[i] / TENTHS;
    bool possible = rtt_ms > 0 && rtt_ms <= RTT_MAX_MS; /* not so for NaN */
    if (!possible || !dht_place_is_known(place) || their_height > HEIGHT_MAX_MS || length(theirs) > RTT_MAX_MS)
        return;
    double distance = direction(theirs, placing->x, rng, unit);
    double heights = placing->height + their_height;
    double off = rtt_ms - distance - heights;
    double off_by = off < 0 ? -off : off;

    double claimed = at_least(error / 255.0, placing->error / 2);
    double weight = placing->error / (placing->error + claimed);
    double relative = at_most(off_by / (rtt_ms + CLOCK_MS), 1);
    double learnt = ERROR_WEIGHT * weight;
    placing->error = at_least(relative * learnt + placing->error * (1 - learnt), 0.001);

    double most = UNUSUAL * placing->usual;
    placing->usual =
        at_least(off_by > placing->usual ? placing->usual * USUAL_STEP : placing->usual / USUAL_STEP, USUAL_LEAST_MS);
    placing->usual = at_most(placing->usual, USUAL_FIRST_MS);
    double bounded = off > most ? most : off < -most ? -most : off;
    pull(placing, unit, distance, heights, FORCE_WEIGHT * weight * bounded);
    gravitate(placing);
    placing->placed = true;
}

static int16_t tenths(double ms)
{
    double value = ms * TENTHS;
    double bounded = value > INT16_MAX ? INT16_MAX : value < INT16_MIN ? INT16_MIN : value;
    return (int16_t)bounded;
}

struct dht_place dht_placing_place(const struct dht_placing *placing)
{
    struct dht_place place = {.height = (uint16_t)(placing->height * TENTHS + 0.5)};
    for (size_t i = 0; i < 3; i++)
        place.x[i] = tenths(placing->x[i]);
    return place;
}

uint8_t dht_placing_error(const struct dht_placing *placing)
{
    return (uint8_t)(placing->error * 255.0 + 0.5);
}
