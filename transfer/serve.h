/*
 * What the rooms of serving share: requests that wait, bytes that were read for them, and the two orders in which both
 * are taken.
 *
 *   serve.c       questions and requests come, are refused, cancelled
 *   serve_read.c  what they ask for is read from the store
 *   serve_turns.c whose turn it is
 *   serve_send.c  what of that is sent next
 *   deal.c        what has been sent how often
 *
 * Words: a *lane* holds the requests of one peer in one class. A peer in a *slot* is read for and sent to; the others
 * wait for theirs. A *turn* is what a peer may have before its slot goes to one that waits.
 */
#pragma once

#include "transfer/exchange.h"

#define BATCH_PIECES 64u

/* A request that waits: pieces `next` to `end` of a recipe, or of the ids that a PIECES names. */
struct run {
    TAILQ_ENTRY(run)
    link;
    uint32_t request;
    uint8_t class; /* enum exchange_class */
    enum store_piece_type type;
    struct id object;
    struct id root;
    uint32_t next;
    uint32_t end;
    uint64_t queued_ms;
    uint64_t size_bytes;       /* of a DEAL: how much it wants at most */
    struct recipe_ref *recipe; /* of a RUN or DEAL, once known */
    struct id *ids;            /* owned; of a PIECES */
    struct deal_range *asked;  /* owned; of a DEAL for which nothing has been chosen */
    unsigned n_asked;
    bool counted; /* its chunks count as sent */
};

struct batch_piece {
    enum message_type type; /* CHUNK, or DELTA */
    uint8_t codec;          /* of a DELTA */
    uint32_t index;
    size_t offset;
    struct store_piece piece;
};

/* Pieces of one run, read and on their way. */
struct batch {
    TAILQ_ENTRY(batch)
    link;
    uint32_t request;
    uint8_t class;
    uint8_t *data; /* owned */
    size_t cap;    /* counted in exchange->serve_bytes */
    unsigned n;
    unsigned at;   /* the piece that is being sent */
    uint32_t sent; /* of it */
    bool gone;     /* the piece after these was not here: say so at the end */
    bool counted;
    struct id root;
    struct batch_piece pieces[BATCH_PIECES];
};

/* ---- serve.c ---- */

struct lane *transfer_serve_lane(struct exchange_peer *peer, unsigned class);
bool transfer_serve_has_work(const struct exchange_peer *peer);
struct run *transfer_serve_find(struct exchange_peer *peer, unsigned class, uint32_t request);
void transfer_serve_drop_run(struct exchange_peer *peer, struct run *run);
void transfer_serve_drop_batch(struct exchange_peer *peer, struct batch *batch);
/* Say that nothing (more) of it comes, and forget it. */
void transfer_serve_refuse(struct exchange_peer *peer, struct run *run, enum message_type type, uint32_t retry_ms);
/* Give all of its requests back, with what was read for them. */
void transfer_serve_shed(struct exchange_peer *peer, uint32_t retry_ms);

/* ---- serve_read.c ---- */

/* Read for the lane's next request, unless enough is read already. False: no memory. */
bool transfer_serve_read(struct exchange_peer *peer, struct lane *lane);

/* ---- serve_send.c ---- */

/* Look at what the peer has taken. */
void transfer_serve_measure(struct exchange_peer *peer);
/* May more be queued in its session? */
bool transfer_serve_is_window_open(const struct exchange_peer *peer);

/* ---- serve_turns.c ---- */

/* Something is going to be put into this lane. */
void transfer_turns_wake(struct exchange_peer *peer, uint8_t class);
/* So much was sent. */
void transfer_turns_count(struct exchange_peer *peer, uint8_t class, uint64_t bytes);
/* The peer goes. */
void transfer_turns_leave(struct exchange_peer *peer);
/* Should nothing more be read for it in this turn? */
bool transfer_turns_is_over(const struct exchange_peer *peer);
/* End turns, begin others, refuse those who waited too long. */
void transfer_turns_give(struct exchange *exchange);
/* How many should there be at a time? */
void transfer_turns_probe(struct exchange *exchange);
