#include "dht/rtt.h"

#define TIMEOUT_FIRST_MS 1000u
#define SPARE_MS 100u /* for a peer whose answers come at like times: its scheduler, a lost frame of its radio */
#define TIMEOUT_CEILING_MS 2000u
#define SAMPLE_MAX_MS 8000u /* in eighths it fits into 16 bits */

void dht_rtt_add(struct dht_rtt *rtt, uint64_t sample_ms)
{
    unsigned sample = sample_ms > SAMPLE_MAX_MS ? SAMPLE_MAX_MS : (unsigned)sample_ms + (sample_ms == 0);
    if (!rtt->smooth_8ths) {
        *rtt = (struct dht_rtt){.smooth_8ths = (uint16_t)(sample * 8), .deviation_4ths = (uint16_t)(sample * 2)};
        return;
    }
    unsigned smooth = rtt->smooth_8ths / 8u;
    unsigned off = sample > smooth ? sample - smooth : smooth - sample;
    rtt->deviation_4ths = (uint16_t)(rtt->deviation_4ths + off - rtt->deviation_4ths / 4u);
    rtt->smooth_8ths = (uint16_t)(rtt->smooth_8ths + sample - smooth);
}

unsigned dht_rtt_ms(const struct dht_rtt *rtt)
{
    return rtt->smooth_8ths / 8u;
}

unsigned dht_rtt_timeout_ms(const struct dht_rtt *rtt)
{
    if (!rtt->smooth_8ths)
        return TIMEOUT_FIRST_MS;
    unsigned spare = rtt->deviation_4ths > SPARE_MS ? rtt->deviation_4ths : SPARE_MS;
    unsigned timeout = rtt->smooth_8ths / 8u + spare; /* SRTT + max(G, 4 * RTTVAR) */
    return timeout > TIMEOUT_CEILING_MS ? TIMEOUT_CEILING_MS : timeout;
}
