/*
 * Deltas between exchanges: what of a fetch is asked for as gaps against a basis, and how such a request is answered.
 *
 *   gap_plan.c   which bytes are compared with which (pure)
 *   gap_ask.c    plans for a fetch, asks, takes what comes
 *   gap_sign.c   signatures for a provider that has not got the basis
 *   gap_check.c  deltas become chunks
 *   gap_serve.c  answers GAPS
 *   gap_leaves.c the recipe's leaves, likewise: LEAVES
 *   gap_code.c   one gap as bytes, and back
 *   gap_cache.c  signatures and deltas that may be asked for again
 *
 *      GAPS ------------> basis here? --yes--> DELTA (prefix) ...
 *                            | no
 *      signed?    <------- SIGN, for gaps whose signature is not known here
 *        | pays: SIGNATURE ... ------> DELTA (rsync, or plain where that is shorter) ...
 *        | does not: CANCEL, and RUN for the chunks
 *
 * A delta that does not give its chunks proves no lie: the basis may have rotted here, or sums have collided. Its gap
 * is asked for plain, and a source that gives GAP_FAILURES of these is not asked for deltas again.
 */
#pragma once

#include "transfer/fetch.h"
#include "transfer/gap_plan.h"

#define GAP_FAILURES 3u
#define GAP_BUSY_RETRY_MS 500u

/* ---- of a fetch ---- */

enum gap_state {
    GAP_OPEN,
    GAP_ASKED,
    GAP_PLAIN, /* its chunks are asked for like all others */
};

#define GAP_BASES EXCHANGE_BASES

/* What of a fetch may come as deltas. */
struct gaps {
    struct gap_plan plan;
    uint8_t *state; /* owned; enum gap_state of each */
    size_t low;     /* none before is GAP_OPEN */
    unsigned n_bases;
    struct id basis_ids[GAP_BASES];         /* the objects, */
    struct recipe_ref *bases[GAP_BASES];    /* and their recipes, each with a ref */
    struct store_recipe *loaded[GAP_BASES]; /* owned; those between the job that found them and its end */
};

/* A request for gaps, beside what it has in common with others: its chunks are those of the gaps from `first` on. */
struct gap_request {
    unsigned n;
    uint64_t came; /* by number in `gaps` */
    bool signed_for;
    uint32_t gaps[MESSAGE_GAPS_MAX]; /* of the plan */
};

/* A delta that has come. */
struct gap_arrival {
    uint32_t gap; /* of the plan */
    enum message_codec codec;
    uint8_t wanted[GAP_CHUNKS_MAX / 8]; /* chunks of the gap that had not come otherwise, */
    uint8_t good[GAP_CHUNKS_MAX / 8];   /* and those that did now */
};

/* ---- gap_ask.c ---- */

/* For PREPARE's job, when the states of the chunks are known. NULL: nothing comes as deltas. */
struct gaps *transfer_gaps_new(struct fetch *fetch);
/* Back on the exchange's thread. */
void transfer_gaps_adopt(struct gaps *gaps, struct exchange *exchange);
void transfer_gaps_free(struct gaps *gaps);
/* Ask for some gaps, in a request that is expected to bring at most `most` bytes. False: the source is to be asked for
 * none, but for chunks; true: *ret_bytes were asked for, or 0, as enough are on their way. */
bool transfer_gaps_ask(struct source *source, uint64_t most, uint64_t *ret_bytes);
/* Is the chunk in a gap of this request that has not come? */
bool transfer_gaps_contains(const struct request *request, uint32_t chunk);
/* The request ends: what has not come of it may be asked for again. Frees request->gaps. */
void transfer_gaps_drop(struct request *request);
int transfer_gaps_delta(struct exchange_peer *peer, const struct message *message, struct err *err);
/* All bytes of a delta have come; takes them. */
void transfer_gaps_arrived(struct request *request, struct arrival *arrival);
/* What is reckoned with for a gap that was asked for, until it is settled. */
uint64_t transfer_gaps_cost(const struct gap *gap);
/* The gap is not asked for as one again. */
void transfer_gaps_give_up(struct gaps *gaps, uint32_t gap);

/* ---- gap_sign.c ---- */

struct gap_costs {
    double gap_bytes; /* of all gaps of a request, */
    double range_bytes;
    double literal_share; /* how much of them is new, 0 to 1 */
    uint64_t goodput;     /* bytes/s from the provider; 0: unknown */
    uint32_t rtt_ms;
    uint32_t price; /* of a GiB from it */
};
/* Both ends' time, one thing after the other: is it less with signatures than plain? Bytes that cost money are always
 * saved, and so are those of a link that nobody knows. */
bool transfer_gaps_signatures_pay(const struct gap_costs *costs);
/* A provider has not got the basis. */
int transfer_gaps_sign(struct exchange_peer *peer, const struct message *message, struct err *err);

/* ---- gap_check.c ---- */

/* For the job that verifies: what has arrived becomes chunks. Returns arrived->status. */
int transfer_gaps_check(struct fetch *fetch, struct arrived *arrived, struct err *err);
/* What became of it. */
void transfer_gaps_settle(struct fetch *fetch, struct arrived *arrived);

/* ---- gap_leaves.c ---- */

/* For FILL's job: is there a recipe that the leaves can be compared with? */
void transfer_gap_leaves_find(struct fetch *fetch);
void transfer_gap_leaves_forget(struct fetch *fetch);
/* False: they are to be asked for plain. */
bool transfer_gap_leaves_ask(struct source *source, const uint32_t *leaves, uint32_t n);
/* arrival->raw_bytes of a leaf that has arrived, to be freed; NULL if that is not what it gives. */
uint8_t *transfer_gap_leaves_decode(const struct fetch *fetch, const struct request *request,
                                    const struct arrival *arrival);
int transfer_gap_leaves_take(struct exchange_peer *peer, const struct message *message, struct err *err);

/* ---- gap_serve.c ---- */

/* A GAPS, and a SIGNATURE that belongs to one. */
int transfer_gap_orders_take(struct exchange_peer *peer, const struct message *message, struct err *err);
int transfer_gap_orders_signature(struct exchange_peer *peer, const struct message *message, struct err *err);
void transfer_gap_orders_cancel(struct exchange_peer *peer, uint32_t request);
/* Make more deltas if more can be sent. */
void transfer_gap_orders_pump(struct exchange_peer *peer);
void transfer_gap_orders_release(struct exchange_peer *peer);
/* Give all of them back: BUSY. */
void transfer_gap_orders_shed(struct exchange_peer *peer, uint32_t retry_ms);
