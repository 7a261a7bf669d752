/*
 * What the rooms of the exchange share: the exchange itself, its peers, jobs on the store, and recipes in memory.
 *
 *   exchange.c  peers come and go, messages to the right room, time
 *   recipes.c   recipes that are in memory
 *   serve*.c    answers WANT, PIECES, RUN and DEAL
 *   deal.c      what was sent how often
 *   pace.c      limits on bytes a second
 *   press.c     when it pays to compress again
 *   maps.c      answers MAP, learns recipes for it
 *   peers.c     who else wants or has an object: told, and heard
 *   wish.c      where fetches begin and end, what callers are told
 *   watch.c     what peers are told of what is being fetched
 *   fetch.c     the phases of a fetch, and the recipe's way here
 *   roots.c     which recipe a fetch follows
 *   sources.c   who has what of a fetch
 *   schedule.c  whether a peer is asked, when, how much; what is lost
 *   pick.c      which run it is asked for
 *   dealt.c     runs that the holder chooses
 *   hedge.c     what is late is asked of others as well
 *   goodput.c   what a peer delivers, and from when on it is late
 *   receive.c   pieces as they arrive
 *   gap*.c      deltas (gap.h)
 *   verify.c    chunks that are right, and liars
 *
 * Everything runs on the thread that owns the exchange, but for the `work` of jobs, which touches only the job.
 */
#pragma once

#include <sys/queue.h>

#include "node/base/map.h"
#include "transfer/deal.h"
#include "transfer/gap_cache.h"
#include "transfer/goodput.h"
#include "transfer/message.h"
#include "transfer/pace.h"
#include "transfer/press.h"
#include "transfer/transfer.h"

struct exchange;
struct exchange_peer;
struct fetch;
struct request;

/* ---- jobs: the first member of every struct that goes to the thread pool ---- */

struct job {
    struct exchange *exchange;
    void (*work)(struct job *job); /* on some other thread */
    void (*done)(struct job *job); /* back on ours; exchange->dead may be set by then: only free what is the job's */
};
void transfer_job_submit(struct exchange *exchange, struct job *job, void (*work)(struct job *job),
                         void (*done)(struct job *job));

/* ---- recipes in memory, shared by fetches, answers and jobs ---- */

struct recipe_ref {
    struct store_recipe *recipe; /* owned; complete; never changes, so that jobs may read it */
    unsigned refs;               /* changed by the exchange's thread only */
    uint64_t used_ms;
};

struct recipes {
    struct map map; /* root id -> struct recipe_ref, one ref each */
    uint64_t chunks;
};

/* The recipe with this root, with a ref for the caller; NULL if it is not in memory. */
struct recipe_ref *transfer_recipes_get(struct exchange *exchange, const struct id *root);
/* Takes the recipe and keeps it for a while; the ref is the caller's. If one with this root is known, that one. NULL
 * when out of memory, and then the recipe is freed. */
struct recipe_ref *transfer_recipes_add(struct exchange *exchange, struct store_recipe *recipe);
/* Another ref; NULL gives NULL. */
static inline struct recipe_ref *transfer_recipe_ref(struct recipe_ref *ref)
{
    if (ref)
        ref->refs++;
    return ref;
}
void transfer_recipe_unref(struct recipe_ref *ref);
/* For jobs: add the leaves that the store has (nearly equal objects share most). */
void transfer_recipe_fill(struct store *store, struct store_recipe *recipe);
void transfer_recipes_release(struct recipes *recipes);
/* Is it so small that whoever hears who has the object is told the recipe as well? That spares two round trips. */
static inline bool transfer_recipe_is_told(const struct store_root *root)
{
    return root->size_bytes <= LIMIT_TOLD_BYTES && root->leaf_count <= 1;
}

/* ---- peers ---- */

TAILQ_HEAD(request_list, request);
TAILQ_HEAD(source_list, source);

/* What we ask of a peer (schedule.c, hedge.c, receive.c). First what is looked at whenever somebody is to be asked. */
struct asking {
    struct request_list requests; /* owned, in the order they were sent */
    struct source_list sources;   /* what it is to each fetch; within a class the next one to be served is first */
    uint64_t asked_bytes;         /* of objects, not yet come */
    uint64_t not_before_ms;
    bool answered;            /* since the first of those requests was sent */
    bool late;                /* its runs were offered to others */
    bool stalled;             /* it is not asked for more before it is heard of */
    bool proved;              /* it gave something that was right, */
    unsigned n_wants;         /* WANTs that it has not answered */
    unsigned silences;        /* and since then, so often, others had to be asked for what it did not give */
    uint32_t base_rtt_ms;     /* the least round trip that was seen, of late: */
    uint32_t least_rtt_ms[2]; /* in the span that began */
    uint64_t base_ms;         /* then, and in the one before it */
    uint64_t looked_ms;       /* when it was last looked at */
    struct goodput goodput;   /* of objects */

    TAILQ_ENTRY(exchange_peer)
    of_asked;                          /* while there are requests */
    uint64_t served[EXCHANGE_CLASSES]; /* bytes asked for, each divided by the weight of its class */
    unsigned n_records;                /* requests that are not for chunks */
    uint32_t last_request;
    uint64_t heard_ms;    /* when a byte for a request last came, or the first request was sent */
    struct latency first; /* how long it is quiet before it answers, */
    struct latency next;  /* and while it does */
    uint8_t load;         /* as it said last */
    uint32_t price;       /* the same */
    unsigned lost_in_a_row;
    uint64_t received_bytes;
    uint32_t failures;
    unsigned strikes;
    uint64_t stray_bytes; /* that answered nothing */
    uint32_t dropped[64]; /* the last request numbers that we gave up: answers to them may still come */
    unsigned n_dropped;
};

TAILQ_HEAD(run_list, run);
TAILQ_HEAD(batch_list, batch);
TAILQ_HEAD(gap_order_list, gap_order);

/* What one peer asks of us in one class (serve.h). */
struct lane {
    struct run_list runs;      /* owned; in the order they came */
    struct batch_list batches; /* owned; read for them */
    unsigned n_batches;
    bool reading;            /* a job reads, */
    struct run *reading_for; /* for the first run; NULL: that was dropped meanwhile */
    uint64_t pass;           /* bytes that it has had, as far as its turn is concerned */
};

/* What a peer asks of us (serve*.c, maps.c). First what is looked at whenever something is to be sent. */
struct serving {
    bool in_slot;
    bool in_queue;
    bool was_full; /* the window, since it was last widened */
    unsigned n_runs;
    unsigned n_batches;
    uint32_t window_bytes; /* of what is queued, as many as it takes in a moment */
    size_t queued_bytes;   /* sent, and in its session as far as we know */
    uint64_t turn_bytes;   /* read for it in this turn */
    uint64_t moved_ms;     /* when it last took something, or had nothing to take */
    uint64_t drained_bytes;
    uint64_t sample_ms;
    uint64_t sample_bytes; /* drained by then */
    uint64_t rate;         /* bytes/s that it takes when there are more; 0: never slow enough to tell */
    struct lane lanes[EXCHANGE_CLASSES];
    uint64_t sent_bytes;
    size_t held_bytes; /* read or made for it and not sent: its part of exchange->serve_bytes, but for jobs */
    struct press press;

    struct id *wants; /* owned ring of LIMIT_PEER_WANTS, from the first question on */
    unsigned first_want;
    unsigned n_wants;
    bool looking; /* a job looks for wants[first_want] */

    struct gap_order_list orders; /* owned: GAPS, in the order they came (gap_serve.c) */
    unsigned n_orders;
    unsigned n_leaves;         /* jobs for LEAVES */
    bool ordering;             /* a job works, */
    struct gap_order *ordered; /* on this one; NULL: it was dropped meanwhile */
    struct lesson *lessons;    /* owned list: recipes that it teaches us */
    unsigned n_maps;
};

/* Whose turn it is (serve_turns.c). */
struct serve {
    TAILQ_HEAD(, exchange_peer) slotted; /* are sent to */
    TAILQ_HEAD(, exchange_peer) queue;   /* wait for that */
    bool look;                           /* something has changed since looked_ms */
    uint64_t looked_ms;
    uint64_t measured_ms;                  /* when all were, who are in a slot or wait */
    uint64_t class_pass[EXCHANGE_CLASSES]; /* bytes that each class has had, by its weight */
    uint64_t pass;                         /* of the class that was served last */
    uint64_t lane_pass[EXCHANGE_CLASSES];  /* of the lane that was */
    unsigned slots;                        /* for what is not urgent */
    unsigned in_use;
    unsigned urgent;                  /* of those in use, beyond `slots` */
    unsigned waiting;                 /* peers without one */
    unsigned works[EXCHANGE_CLASSES]; /* runs and batches that wait in lanes of each class, */
    unsigned n_batches;               /* and batches in all of them */
    bool freezing;                    /* something of EXCHANGE_FREEZE is being sent */
    bool pressing;                    /* a job compresses again */
    uint64_t drained_bytes;
    uint64_t rate; /* bytes/s in all, lately */
    uint64_t probe_ms;
    uint64_t probe_bytes; /* drained by then */
    unsigned slots_before;
    unsigned rest;
};

struct exchange_peer {
    TAILQ_ENTRY(exchange_peer)
    link;
    struct exchange *exchange;
    bool gone;            /* removed; freed when no job needs it */
    bool failing;         /* a send was refused: it will be removed soon */
    unsigned pins;        /* jobs */
    unsigned n_interests; /* objects of which it is remembered that it wants them */
    struct asking asking;
    TAILQ_ENTRY(exchange_peer)
    of_serve; /* slotted or in the queue */
    struct serving serving;
    struct exchange_link out;
    struct pace_peer pace;
    struct id node;
};

struct exchange {
    struct exchange_config config;
    uint64_t now_ms;
    bool dead;
    unsigned depth;   /* calls from outside that have not returned: nothing that they may use is freed meanwhile */
    bool swept;       /* nothing waits for being freed, */
    bool lingers;     /* but for what jobs use */
    bool look;        /* somebody may be asked for more than when all peers were looked at last; */
    uint64_t look_ms; /* they are again at this time anyhow */
    unsigned jobs;    /* submitted and not done */
    TAILQ_HEAD(peer_list, exchange_peer) peers;
    struct peer_list asked;      /* those of which something is asked */
    TAILQ_HEAD(, fetch) fetches; /* by class */
    struct map fetch_of;         /* object -> struct fetch */
    struct recipes recipes;
    struct pace pace;
    struct serve serve;
    struct deals deals;
    struct map interests;        /* object -> struct interest (peers.c) */
    uint32_t price;              /* of what this node sends */
    uint64_t tell_ms;            /* when chunks that have come are to be announced; UINT64_MAX: there are none */
    struct goodput goodput;      /* of all peers together */
    uint64_t fetch_bytes;        /* asked for or arrived, not yet stored */
    uint64_t stalled_bytes;      /* of those, asked of peers that were stalled at the last tick */
    uint64_t arrived_bytes;      /* of those, arrived */
    uint64_t serve_bytes;        /* read, not yet sent */
    unsigned lessons;            /* of all peers, */
    unsigned orders;             /* the same */
    struct gap_cache signatures; /* of ranges here, and those that peers sent */
    struct gap_cache deltas;     /* that were made for peers */
};

/* Around every call from outside. */
void transfer_exchange_enter(struct exchange *exchange);
void transfer_exchange_leave(struct exchange *exchange);

/* Send; the list of the message, if it has one, is taken from where it lies. False: the peer is as good as gone. */
bool transfer_peer_send(struct exchange_peer *peer, const struct message *message);
void transfer_peer_pin(struct exchange_peer *peer);
void transfer_peer_unpin(struct exchange_peer *peer);

/* The limits as they concern a peer now: bytes that may be sent to it, or asked of it (PACE_DOWN: what is asked for is
 * taken when it is asked for, and what does not come, or comes shorter, is given back). */
static inline uint64_t transfer_peer_room(struct exchange_peer *peer, enum pace_way way, unsigned class)
{
    return transfer_pace_room(&peer->exchange->pace, &peer->pace, way, class, peer->exchange->now_ms);
}

static inline void transfer_peer_take(struct exchange_peer *peer, enum pace_way way, unsigned class, uint64_t bytes)
{
    transfer_pace_take(&peer->exchange->pace, &peer->pace, way, class, bytes, peer->exchange->now_ms);
}

static inline void transfer_peer_give_back(struct exchange_peer *peer, enum pace_way way, unsigned class,
                                           uint64_t bytes)
{
    transfer_pace_give_back(&peer->exchange->pace, &peer->pace, way, class, bytes, peer->exchange->now_ms);
}

/* ---- rooms: serve*.c ---- */

void transfer_turns_init(struct serve *serve);

void transfer_serve_init(struct exchange_peer *peer);
void transfer_serve_release(struct exchange_peer *peer);
int transfer_serve_want(struct exchange_peer *peer, const struct message *message, struct err *err);
/* A PIECES, RUN or DEAL. */
int transfer_serve_run(struct exchange_peer *peer, const struct message *message, struct err *err);
void transfer_serve_cancel(struct exchange_peer *peer, uint32_t request);
/* Send what is read, in the order of turns, as far as there is room and limits allow, and read on. */
void transfer_serve_pump_all(struct exchange *exchange);
/* The peer has taken some of what waits in its session: may more be sent to it now, or to another in its place? */
bool transfer_serve_drained(struct exchange_peer *peer);
/* For answers that are not read from the store: `data` (owned from now on, also on failure) of head->stored_bytes waits
 * its turn and goes as `head`, a CHUNK or DELTA, and MOREs. ERR_NOMEM. */
int transfer_serve_give(struct exchange_peer *peer, uint8_t class, const struct message *head, uint8_t *data);
/* Is so little waiting in that class that more should be made? */
bool transfer_serve_wants_more(struct exchange_peer *peer, uint8_t class);
/* What HAVE says of our load: 0 nothing to do, 255 peers wait for their turn. */
uint8_t transfer_serve_load(const struct exchange *exchange);

/* ---- rooms: maps.c ---- */

int transfer_maps_ask(struct exchange_peer *peer, const struct message *message, struct err *err);
int transfer_maps_part(struct exchange_peer *peer, const struct message *message, struct err *err);
void transfer_maps_release(struct exchange_peer *peer);
void transfer_maps_tick(struct exchange_peer *peer);
/* Send a bitmap in as many messages as it takes. */
void transfer_maps_send(struct exchange_peer *peer, const struct id *root, const uint8_t *bits, uint32_t n_bits);

/* ---- rooms: peers.c ---- */

/* A peer asks about an object, or for some of it: it wants it. */
void transfer_peers_seen(struct exchange_peer *peer, const struct message *message);
/* It names others. */
int transfer_peers_heard(struct exchange_peer *peer, const struct message *message, struct err *err);
/* Tell all who want something who else does, from time to time. False: nobody wants anything. */
bool transfer_peers_tick(struct exchange *exchange);
void transfer_peers_lose(struct exchange_peer *peer);
void transfer_peers_release(struct exchange *exchange);
