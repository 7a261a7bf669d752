/*
 * What has been sent of objects that are being dealt: when, for each chunk, so that a whole holder in a crowd sends
 * each chunk once before any twice (BEP 16, "super seeding", does it by announcing; here the holder chooses).
 *
 * Owns these times, of LIMIT_DEALS objects and LIMIT_DEAL_CHUNKS chunks in all, those that were dealt last; sends
 * nothing and knows no peers. Who is sent a chunk passes it on within DEAL_SPREAD_MS; who asks for it later than that
 * missed it, as those have gone or do not give, and gets it when nothing is left that was never sent.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "node/base/clock.h"
#include "node/base/id.h"
#include "store/store.h"

#define DEAL_SPREAD_MS 1000
#define DEAL_IDLE_MS 30000 /* then nothing is remembered */

struct deal;
TAILQ_HEAD(deal_list, deal);

struct deals {
    struct deal_list list; /* owned; the last used first */
    unsigned n;
    uint64_t chunks;
};

struct deal_range {
    uint32_t first;
    uint32_t count;
};

/* A stretch that is wanted: of these chunks, at most size_bytes but one chunk at least. */
struct deal_wish {
    const struct id *root;
    const struct store_chunk *chunks;
    uint32_t n_chunks;
    const struct deal_range *asked; /* what begins before the end of the range before, or ends behind the last chunk, is
                                     * passed over */
    size_t n_asked;
    uint64_t size_bytes;
};

void transfer_deal_init(struct deals *deals);
void transfer_deal_release(struct deals *deals);

/* A stretch of chunks that were never sent, or else not lately, somewhere in what was asked for: it is not marked yet.
 * False: all have been sent lately. */
bool transfer_deal_choose(struct deals *deals, const struct deal_wish *wish, const struct rng *rng, uint64_t now_ms,
                          struct deal_range *ret_stretch);
/* These chunks of a recipe of n_chunks are going to be sent; or will not be after all. Without memory, and for an
 * object that is forgotten, nothing happens. */
void transfer_deal_mark(struct deals *deals, const struct id *root, uint32_t n_chunks, struct deal_range stretch,
                        uint64_t now_ms);
void transfer_deal_unmark(struct deals *deals, const struct id *root, struct deal_range stretch);
