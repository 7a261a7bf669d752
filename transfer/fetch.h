/*
 * One object on its way here, shared by all who wish for it: its sources, its chunks, what has been asked of whom.
 */
#pragma once

#include <sys/queue.h>

#include "transfer/exchange.h"

struct fetch;
struct gap_arrival; /* gap.h */
struct gap_request;
struct gaps;

/* ---- a peer, as far as one object is concerned ---- */

enum source_state {
    SOURCE_NEW,     /* to be asked */
    SOURCE_ASKED,   /* WANT is out */
    SOURCE_NONE,    /* has not got the object; may have some of its chunks */
    SOURCE_PARTIAL, /* has the chunks in `bits`; more are announced */
    SOURCE_WHOLE,
};

/* Stays when its peer goes: what it gave and whether it lied is not forgotten before the fetch ends. Only who has gone
 * with neither makes room where there are too many. First what is looked at whenever somebody is to be asked. */
struct source {
    TAILQ_ENTRY(source)
    link; /* of the fetch */
    TAILQ_ENTRY(source)
    of_peer; /* if there is one */
    TAILQ_ENTRY(source)
    of_wholes; /* of the fetch, if it has all */
    struct fetch *fetch;
    struct exchange_peer *peer; /* NULL: gone */
    enum source_state state;
    bool liar;
    bool watches;   /* it wants the object as well, and is told what comes */
    bool exhausted; /* holds nothing that is free, as long as fetch->n_freed is */
    bool dealt_out; /* has dealt all that was free here: */
    bool origin;
    uint8_t *bits;         /* owned; SOURCE_PARTIAL */
    uint64_t exhausted_at; /* n_freed */
    uint64_t not_before_ms;
    uint64_t outdone_ms; /* until then somebody else is the better one to ask */
    uint64_t spread_ms;  /* before then it is not asked for what nobody else has */

    bool has_root;
    struct id root;         /* the recipe that its HAVE named */
    bool broke_off;         /* its last peer went when something was asked of it */
    bool mapped;            /* was asked for a bitmap */
    bool push_root;         /* it wants to learn the recipe: the root, */
    uint8_t *push_leaves;   /* owned; these leaves, */
    uint32_t push_next;     /* from this one on */
    unsigned empty_deals;   /* in a row: nothing, or nothing that is needed */
    unsigned gone_in_a_row; /* answers that what it named is not there */
    uint64_t hints_ms;      /* when it may name other peers again */
    uint64_t asked_ms;
    uint64_t bytes;
    uint32_t failures;
    uint8_t plain_bases;    /* bit i: not asked for deltas against gaps->bases[i] */
    uint8_t delta_failures; /* deltas that did not give their chunks */
    struct id node;
};

/* ---- a request to a peer ---- */

#define REQUEST_LEAVES 16u

/* Bytes of one piece as they come. */
struct arrival {
    uint8_t *data; /* owned; NULL: between two pieces */
    uint32_t at;   /* which of the request's pieces */
    uint8_t encoding;
    uint32_t stored_bytes;
    uint32_t raw_bytes;
    uint32_t have_bytes;
};

struct request {
    TAILQ_ENTRY(request)
    link; /* of the peer */
    uint32_t number;
    struct source *source;
    enum store_piece_type type;
    uint32_t first; /* chunk of the recipe */
    uint32_t count;
    uint32_t leaves[REQUEST_LEAVES];
    struct id root; /* that is asked for */
    uint8_t came[MESSAGE_PIECES_MAX / 8];
    uint32_t n_came;
    uint64_t bytes; /* of the object, not yet come */
    uint64_t sent_ms;
    bool dealing;             /* the peer has not said yet which chunks it sends; `bytes` is the most that it may */
    bool all;                 /* all that was free could be named */
    bool offered;             /* its chunks were offered to others as well */
    struct gap_request *gaps; /* owned; of a GAPS */
    bool by_basis;            /* of a LEAVES: deltas come */
    struct arrival arrival;
};

/* ---- the fetch ---- */

/*  LOOK --> FIND --> ROOT --> FILL --> LEAVES --> PREPARE --> CHUNKS --> FINISH --> ENDED
 *    |        ^                                     ^  |                   |
 *    |        +------ the recipe lied --------------)--+-------------------+
 *    +--------------- begun before: recipe is here -+        any: no source for too long, store failed, cancelled
 */
enum fetch_phase {
    FETCH_LOOK,    /* job: is it here already, or some of it? */
    FETCH_FIND,    /* until somebody has it */
    FETCH_ROOT,    /* its recipe's root is asked for */
    FETCH_FILL,    /* job: leaves that are here already */
    FETCH_LEAVES,  /* the others are asked for */
    FETCH_PREPARE, /* job: chunks that are here already */
    FETCH_CHUNKS,
    FETCH_FINISH, /* job: digest of the whole */
    FETCH_ENDED,
};

enum chunk_state {
    CHUNK_FREE,    /* missing, may be asked for */
    CHUNK_ASKED,   /* of one peer at least */
    CHUNK_ARRIVED, /* waits for its digest */
    CHUNK_HERE,
    CHUNK_TWIN, /* the same bytes as an earlier chunk of the object: comes with it */
};
#define NO_CHUNK UINT32_MAX

struct arrived {
    TAILQ_ENTRY(arrived)
    link;
    struct source *source;
    uint32_t chunk;
    enum store_encoding encoding;
    uint8_t *data; /* owned */
    uint32_t stored_bytes;
    uint64_t counted_bytes;    /* in exchange->fetch_bytes */
    struct gap_arrival *delta; /* owned; of several chunks from `chunk` on */
    int status;                /* what the store said */
};
TAILQ_HEAD(arrived_list, arrived);

struct exchange_fetch {
    TAILQ_ENTRY(exchange_fetch)
    link;
    struct fetch *fetch;
    struct exchange_wish wish;
    bool cancelled; /* or told the verdict: no more callbacks */
};

struct fetch {
    struct job job; /* one at a time */
    bool working;
    TAILQ_ENTRY(fetch)
    link;
    struct exchange *exchange;
    struct id object;
    enum store_kind kind;
    uint8_t class; /* enum exchange_class */
    enum fetch_phase phase;
    TAILQ_HEAD(, exchange_fetch) wishes;
    TAILQ_HEAD(, source) sources;
    TAILQ_HEAD(, source) wholes; /* of those, the SOURCE_WHOLE */
    struct map source_of;        /* node -> source */
    uint64_t looked_ms;          /* when they were last looked at for who is to be asked again */
    unsigned n_sources;
    unsigned n_linked;  /* sources with a peer */
    unsigned n_givers;  /* and those who have given something that was right */
    unsigned n_watches; /* sources that watch */
    unsigned n_new;     /* sources that are SOURCE_NEW */
    unsigned n_partial; /* sources that are SOURCE_PARTIAL */
    unsigned n_whole;   /* and SOURCE_WHOLE */

    struct id root;                /* of the recipe that is followed, from FIND's end on */
    struct source *teller;         /* who named it; NULL: it was here */
    struct store_recipe *building; /* owned; a job's while working */
    struct recipe_ref *recipe;     /* complete */
    uint64_t followed_ms;          /* since then */
    struct id bad_roots[8];
    unsigned n_bad_roots;
    unsigned n_losses; /* times that something was missing again at the end */
    struct id avoided; /* a root by which nothing came; not followed */
    uint64_t avoided_until_ms;
    unsigned n_stuck; /* times that one was */

    struct store_assembly *assembly; /* owned; used by jobs */
    uint8_t *state;                  /* owned; enum chunk_state of each chunk; changed by transfer_pick_set only */
    uint8_t *free_bits;              /* owned; which are CHUNK_FREE */
    uint8_t *offered_bits;           /* owned; which were asked of somebody, and are offered to one more */
    uint8_t *doubled_bits;           /* owned; which may be asked of more than one */
    uint32_t *next_alike;            /* owned; the next chunk with the same bytes; NO_CHUNK: none */
    uint16_t *held_by;               /* owned; how many partial holders each chunk has */
    uint32_t n_free;
    uint64_t n_freed;   /* times that something became free or was offered */
    uint32_t n_missing; /* free, asked or arrived */
    uint32_t n_chunks;
    uint32_t low;           /* nothing before is free */
    uint64_t dealing_bytes; /* that holders may send and have not named */

    struct arrived_list arrived;  /* to be checked next */
    struct arrived_list checking; /* a job's */
    struct buf untold;            /* ranges (u32 first, u32 count) that have come and were not announced */
    uint64_t untold_ms;           /* when those before were */
    int job_status;
    struct err job_err;
    struct store_object_info info;

    uint64_t started_ms;
    uint64_t progress_ms; /* when something last came that was right */
    uint64_t wanted_ms;   /* when more peers were last asked for, */
    bool wanted;          /* if ever */
    uint64_t told_ms;     /* when progress was last reported */
    uint64_t told_bytes;
    uint64_t most_bytes; /* ever told: what is lost again, or found to be a lie, does not make progress go back */
    uint64_t rate;
    bool provided;
    uint32_t give_up_ms;
    uint64_t total_bytes;
    uint64_t done_bytes;
    uint64_t local_bytes;
    uint64_t fetched_bytes;
    uint64_t wire_bytes;
    uint64_t duplicate_bytes;

    struct id bases[EXCHANGE_BASES]; /* that callers named */
    unsigned n_bases;
    struct store_recipe *leaf_basis; /* owned; leaves are asked for as deltas against this one's, if any */
    struct gaps *gaps;               /* owned; NULL: nothing comes as deltas */
    struct exchange_delta_stats deltas;
};

/* ---- wish.c ---- */

void transfer_fetch_report(struct fetch *fetch);
/* If nobody is left to ask, the callers are asked for more. */
void transfer_fetch_want_peers(struct fetch *fetch);
void transfer_fetch_lose_peer(struct fetch *fetch, const struct exchange_peer *peer);
void transfer_fetch_tick(struct fetch *fetch);
/* Verdict, told to all who wished. */
void transfer_fetch_end(struct fetch *fetch, int status, const struct err *err);
/* What has come is kept, by a job; no other runs. Then the fetch goes on, if it has not ended. */
void transfer_fetch_close(struct fetch *fetch);
/* An ended one that no job uses. Only from the sweep of the exchange. */
void transfer_fetch_free(struct fetch *fetch);
void transfer_arrived_discard(struct fetch *fetch, struct arrived_list *list);

/* ---- watch.c ---- */

/* A peer asks for what is being fetched: answered, and it becomes a source and is told what comes. False: not so. */
bool transfer_fetch_answer_want(struct exchange_peer *peer, const struct id *object);
bool transfer_fetch_answer_map(struct exchange_peer *peer, const struct message *message);
/* Those who asked are told that the object is here, whole or in part. */
void transfer_watch_tell_have(struct fetch *fetch, bool whole);
/* A chunk is here and can be served: it is announced within WATCH_MIN_MS to WATCH_MAX_MS. */
void transfer_watch_came(struct fetch *fetch, uint32_t chunk);
/* Announce what is due. */
void transfer_watch_tell(struct fetch *fetch);
void transfer_watch_tell_all(struct exchange *exchange);

/* ---- fetch.c ---- */

struct fetch *transfer_fetch_find(struct exchange *exchange, const struct id *object);
/* The fetch that gets its chunks by this recipe now. */
struct fetch *transfer_fetch_by_root(struct exchange *exchange, const struct id *root);
/* Go on if the phase allows. */
void transfer_fetch_step(struct fetch *fetch);
/* Follow another recipe, if nothing comes by this one and there is another. */
void transfer_fetch_unstick(struct fetch *fetch);
/* A piece has come in full. They take the arrival's data. */
void transfer_fetch_take_record(struct fetch *fetch, struct source *source, const struct request *request,
                                const struct arrival *arrival);
/* A part of a recipe comes unasked (serve.c: those of small objects follow their HAVE). */
void transfer_fetch_hear_record(struct exchange_peer *peer, const struct message *part);
void transfer_fetch_take_chunk(struct fetch *fetch, struct source *source, uint32_t chunk,
                               const struct arrival *arrival);

/* ---- verify.c ---- */

/* A chunk that came from the source is right and stored; wire_bytes are what it took to send. */
void transfer_verify_good(struct fetch *fetch, struct source *source, uint32_t chunk, uint64_t wire_bytes);
/* Check what has arrived, unless a job does so already. */
void transfer_verify_start(struct fetch *fetch);
/* What has arrived, and counted for so many bytes, is stored, or thrown away. */
void transfer_verify_settled(struct fetch *fetch, uint64_t bytes);

/* ---- roots.c ---- */

enum trust { TRUST_SILENT, TRUST_UNKNOWN, TRUST_PROVED };

/* Of a source with a peer. */
enum trust transfer_source_trust(const struct source *source);
/* It gave something that was right. */
void transfer_source_proved(struct source *source);
bool transfer_roots_is_bad(const struct fetch *fetch, const struct id *root);
/* Has it named a recipe that may be followed now? */
bool transfer_roots_may_follow(const struct source *source);
/* Of what the sources have said so far: a recipe to follow, from FIND to ROOT. */
bool transfer_roots_find(struct fetch *fetch);
/* Who is to be asked for a record next; NULL: nobody who is not asked already. */
struct source *transfer_roots_next(const struct fetch *fetch);
/* Ask for roots, of as many as is sensible. */
void transfer_roots_ask(struct fetch *fetch);
/* A root has come and is followed: nobody but the teller need send one. */
void transfer_roots_settle(struct fetch *fetch);
/* What the peer is late with is asked of others (request->offered). Returns when more will be. */
uint64_t transfer_roots_tick(struct exchange_peer *peer);
/* Nothing comes by the recipe that is followed, and there is another: it is to be dropped (no job runs), */
bool transfer_roots_are_stuck(const struct fetch *fetch);
/* and not followed for a while. */
void transfer_roots_avoid(struct fetch *fetch);

/* ---- sources.c ---- */

struct source *transfer_source_add(struct fetch *fetch, struct exchange_peer *peer, bool origin);
void transfer_source_ask(struct source *source);
struct source *transfer_source_of(struct fetch *fetch, const struct exchange_peer *peer);
struct source *transfer_source_of_node(struct fetch *fetch, const struct id *node);
/* Whether it is to be told what comes. */
void transfer_source_watch(struct source *source, bool watches);
/* Its peer is gone. */
void transfer_source_lose(struct source *source);
/* The recipe is known: whoever has it whole is a source, whoever has some is asked which. */
void transfer_sources_follow(struct fetch *fetch);
void transfer_source_have(struct source *source, const struct message *message);
void transfer_source_have_not(struct source *source);
int transfer_source_map(struct source *source, const struct message *message, struct err *err);
int transfer_source_more(struct source *source, const struct message *message, struct err *err);
int transfer_source_need(struct source *source, const struct message *message, struct err *err);
/* Teach it what it needs of the recipe, as far as there is room. */
void transfer_source_push(struct source *source);
/* Ask who is to be asked, and forget who does not answer. */
void transfer_sources_tick(struct fetch *fetch);
/* It has nothing (any more) that this fetch wants; asked again after delay_ms. */
void transfer_source_forget(struct source *source, uint32_t delay_ms);
/* It gave wrong bytes: never asked again. */
void transfer_source_lied(struct source *source, const char *what);
/* Is it here, honest and not resting? */
bool transfer_source_usable(const struct source *source);
bool transfer_source_holds(const struct source *source, uint32_t chunk);
void transfer_source_free(struct source *source);

/* ---- schedule.c ---- */

/* Give the peer as much to do as its credit allows. */
void transfer_schedule_peer(struct exchange_peer *peer);
void transfer_schedule_all(struct exchange *exchange);
/* Stalls, lost runs, of a peer that is asked for something. Returns when something is due at the earliest. */
uint64_t transfer_schedule_tick(struct exchange_peer *peer);
/* How long until `bytes` have come that are asked for behind `ahead` others. Not knowing better: a round trip. */
uint64_t transfer_schedule_expect_ms(const struct exchange_peer *peer, uint64_t ahead, uint64_t bytes);
/* A request that may bring `bytes` of the object; the caller sends it. NULL: no memory. */
struct request *transfer_schedule_add(struct source *source, enum store_piece_type type, uint64_t bytes);
/* It turns out that it brings so many. */
void transfer_schedule_resize(struct request *request, uint64_t bytes);
/* Ask for records of the recipe. NULL: no memory or no such peer. */
struct request *transfer_schedule_records(struct source *source, enum store_piece_type type, const struct id *ids,
                                          const uint32_t *leaves, uint32_t n);
/* Give up a request: what has not come of it is free again. */
void transfer_schedule_drop(struct request *request, bool tell_peer);
/* All requests of a source, of a fetch (source NULL), or of all fetches (both NULL) that are with this peer. */
void transfer_schedule_drop_all(struct exchange_peer *peer, const struct fetch *fetch, bool tell_peer);
/* Something of a request has come. */
void transfer_schedule_alive(struct exchange_peer *peer);
/* Bytes of the object have, by which the peer is measured. */
void transfer_schedule_heard(struct exchange_peer *peer, uint64_t bytes);
void transfer_schedule_busy(struct request *request, uint32_t retry_ms);
void transfer_schedule_gone(struct request *request);

/* ---- pick.c ---- */

struct pick {
    uint32_t first;
    uint32_t count;
    uint64_t bytes;
};

/* The chunk's state is another now: what is free follows from it. */
void transfer_pick_set(struct fetch *fetch, uint32_t chunk, enum chunk_state state);
/* Somebody is asked for it, perhaps not the first. */
void transfer_pick_asked(struct fetch *fetch, uint32_t chunk);
/* One more than who was asked for it may be asked as well, who has nothing better to do. */
void transfer_pick_offer(struct fetch *fetch, uint32_t chunk);
/* A run of at most `most` bytes, or one chunk, that the source is the right one to ask for. */
bool transfer_pick_run(struct source *source, uint64_t most, struct pick *ret_pick);
/* Would no other holder of the chunk (NO_CHUNK: of everything) be the better one to ask? */
bool transfer_pick_is_worthwhile(const struct source *source, uint32_t chunk, uint64_t bytes);
/* Do others get the object at the same time? Then it pays to ask for what is rare, and for other things than they. */
bool transfer_pick_is_crowd(const struct fetch *fetch);
/* How long to wait for what was dealt to somebody else, before the holder is asked for it again. */
uint64_t transfer_pick_spread_ms(const struct fetch *fetch);
/* Bytes of the object that are free, about. */
uint64_t transfer_pick_free_bytes(const struct fetch *fetch);

/* ---- dealt.c ---- */

/* Is the source to choose by itself what it sends? */
bool transfer_dealt_applies(const struct source *source);
/* It was asked to choose and has not said what: a run could be the same. */
bool transfer_dealt_is_awaited(const struct source *source);
/* Ask for up to `most` bytes of what is free. */
bool transfer_dealt_ask(struct source *source, uint64_t most, uint64_t *ret_bytes);
int transfer_dealt_take(struct exchange_peer *peer, const struct message *message, struct err *err);

/* ---- hedge.c ---- */

bool transfer_hedge_contains(const struct request *request, uint32_t chunk);
/* Is the chunk asked of this source, of any but in `except`? */
bool transfer_hedge_asked_of(const struct source *source, uint32_t chunk);
bool transfer_hedge_asked_elsewhere(struct fetch *fetch, uint32_t chunk, const struct request *except);
/* Offer what is late to others. Returns when more will be. */
uint64_t transfer_hedge_tick(struct exchange_peer *peer);
/* Nothing is free: offer a run of somebody who would need much longer for it. */
bool transfer_hedge_take_over(struct source *source);
/* The chunk has come: whoever else was asked for it need not send it. */
void transfer_hedge_settled(struct fetch *fetch, uint32_t chunk);

/* ---- receive.c ---- */

struct request *transfer_receive_find(struct exchange_peer *peer, uint32_t number);
int transfer_receive_chunk(struct exchange_peer *peer, const struct message *message, struct err *err);
/* The first bytes of what the caller has found to be asked for: item message->index, in the encoding or codec. */
int transfer_receive_begin(struct request *request, uint32_t at, uint8_t encoding, const struct message *message,
                           struct err *err);
int transfer_receive_more(struct exchange_peer *peer, const struct message *message, struct err *err);
/* An answer to nothing: tolerated after a CANCEL, a strike otherwise. */
int transfer_receive_stray(struct exchange_peer *peer, uint32_t number, size_t bytes, struct err *err);
